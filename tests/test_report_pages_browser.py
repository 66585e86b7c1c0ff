"""The pages of runs and studies in a browser: from a disk, without a network, at all widths."""

import json

import pytest
from browser import opened_browser, overflow, visit
from test_report_pages import STUDY

from recbole_gr.pages.run import write_run_page
from recbole_gr.pages.study import write_study_page

pytestmark = pytest.mark.whole_pages
DRAWN = "html[data-drawn]"
RESULTS = [
    {
        "model": model, "dataset": "d", "best_epoch": 1, "parameters": 10, "given": [],
        "test_result": {"recall@5": value, "recall@10": 2 * value},
        "test_interval": {"users": 9, "metrics": {"recall@10": [value, 3 * value]}},
        "valid_curve": [[0, 0.1], [1, value]],
        "test_buckets": {"6+": {"targets": 9, "recall@10": value}},
        "config": {"model": model, "dataset": "d", "seed": 1, "valid_metric": "NDCG@10"},
        "checkpoint": f"saved/{model}.pth", "example": {"user": "1", "k": 5},
    }
    for model, value in (("SASRec", 0.2), ("GRU4Rec", 0.1), ("Pop", 0.0))
]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Addresses of the page of a run and of that of a study."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "results.json").write_text(json.dumps(RESULTS))
    (folder / "report.json").write_text(json.dumps(STUDY))
    return [write(folder).as_uri() for write in (write_run_page, write_study_page)]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_open_from_a_disk_without_errors_and_fit_the_screen(browser, pages, width, scheme):
    size = {"width": width, "height": 800}
    with visit(browser, viewport=size, color_scheme=scheme, offline=True) as seen:
        for address in pages:
            page = seen.page(address)
            page.wait_for_selector(DRAWN)
            assert page.locator(".plot svg.main-svg").count() and overflow(page) <= 0
            back = page.evaluate("getComputedStyle(document.body).backgroundColor")
            bright = sum(map(int, back[4:-1].split(","))) > 3 * 128
            assert bright == (scheme == "light")
        seen.assert_clean()


def test_a_click_on_a_head_sorts_by_the_numbers_and_another_turns_it_around(browser, pages):
    with visit(browser) as seen:
        page = seen.page(pages[0])
        page.wait_for_selector(DRAWN)
        table = page.locator("table").first
        head = table.get_by_role("button", name="Recall@10")

        def models():
            return table.locator("tbody th").all_inner_texts()

        assert models() == ["SASRec", "GRU4Rec", "Pop"]
        head.focus()
        page.keyboard.press("Enter")
        assert models() == ["SASRec", "GRU4Rec", "Pop"]  # the largest first
        head.click()
        assert models() == ["Pop", "GRU4Rec", "SASRec"]
        assert table.locator("thead th[aria-sort=ascending]").inner_text().startswith("Recall@10")
        table.get_by_role("button", name="model").click()
        assert models() == ["GRU4Rec", "Pop", "SASRec"]
        seen.assert_clean()


def test_commands_are_copied_and_folded_figures_unfold(browser, pages):
    with visit(browser, permissions=["clipboard-read", "clipboard-write"]) as seen:
        page = seen.page(pages[0])
        page.wait_for_selector(DRAWN)
        row = page.locator(".command").first
        row.get_by_role("button").click()
        row.get_by_text("Copied").wait_for()
        text = page.evaluate("navigator.clipboard.readText()")
        assert text == row.locator("pre").inner_text() and "--checkpoint=saved/SASRec.pth" in text
        page.locator("summary", has_text="Other metrics").click()
        plot = page.locator("details[open] .plot svg.main-svg").first
        plot.wait_for()
        assert plot.bounding_box()["width"] > 200
        seen.assert_clean()


def test_a_page_follows_the_system_when_it_turns_dark(browser, pages):
    from playwright.sync_api import expect

    with visit(browser, color_scheme="light") as seen:
        page = seen.page(pages[1])
        page.wait_for_selector(DRAWN)
        label = page.locator(".plot .xtick text").first
        before = label.evaluate("node => getComputedStyle(node).fill")
        page.emulate_media(color_scheme="dark")
        expect(label).not_to_have_css("fill", before)
        seen.assert_clean()


def test_long_names_fit_a_phone_and_leave_room_for_the_figures(browser, tmp_path):
    names = [f"A_name_that_nobody_shortened_and_that_has_no_spaces_{i}" * 2 for i in range(3)]
    results = [{**result, "model": name} for result, name in zip(RESULTS, names)]
    (tmp_path / "results.json").write_text(json.dumps(results))
    with visit(browser, viewport={"width": 390, "height": 800}) as seen:
        page = seen.page(write_run_page(tmp_path).as_uri())
        page.wait_for_selector(DRAWN)
        assert overflow(page) <= 0
        first = page.locator("tbody th").first.bounding_box()["width"]
        plot = page.locator(".plot .nsewdrag").first.bounding_box()["width"]
        assert first < 190 and plot > 100
        seen.assert_clean()


def test_a_page_is_printed_dark_on_white_whatever_the_system(browser, pages):
    colour = "(node, name) => getComputedStyle(node)[name]"
    with visit(browser, color_scheme="dark") as seen:
        page = seen.page(pages[0])
        page.wait_for_selector(DRAWN)
        page.emulate_media(media="print", color_scheme="dark")
        assert page.locator("body").evaluate(colour, "color") == "rgb(0, 0, 0)"
        assert page.locator("body").evaluate(colour, "backgroundColor") == "rgb(255, 255, 255)"
        label = page.locator(".plot .xtick text").first
        assert label.evaluate(colour, "fill") == "rgb(0, 0, 0)"
        assert not page.locator("nav").is_visible()
        seen.assert_clean()


def test_figures_have_no_button_that_sends_them_away(browser, pages):
    with visit(browser) as seen:
        page = seen.page(pages[0])
        page.wait_for_selector(DRAWN)
        page.locator(".plot").first.hover()
        titles = page.locator(".modebar-btn").evaluate_all(
            "all => all.map(one => one.getAttribute('data-title') ?? one.ariaLabel ?? '')"
        )
        assert any("PNG" in title for title in titles)
        assert not [title for title in titles if "hare" in title or "loud" in title]
        seen.assert_clean()
