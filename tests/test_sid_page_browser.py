"""The page of SID tables in a browser: walked through, searched, and saved from."""

import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from browser import needs_browser, opened_browser, visit, wait_until
from PIL import Image
from walks import N, made

from recbole_gr.pages.sids import write_sid_page, write_sids_csv
from recbole_gr.quality.assessment import Behaviour

pytestmark = pytest.mark.whole_pages


@contextmanager
def opened(started, path, hash_="", width=1200, scheme="light"):
    """A page that was opened from a disk and drawn; it may state no error and ask for nothing."""
    size = {"width": width, "height": 900}
    options = {"color_scheme": scheme, "accept_downloads": True, "offline": True}
    with visit(started, viewport=size, **options) as seen:
        page = seen.page(f"{path.absolute().as_uri()}{hash_}")
        page.wait_for_selector("html[data-drawn][data-walk=drawn]", timeout=60_000)
        yield page
        seen.assert_clean()


@pytest.fixture(scope="module")
def chromium():
    with opened_browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    walk, _, _ = made(versions={"period 0": torch.randint(0, 3, (N - 5, 3))})
    walk.versions["period 1"] = walk.codes
    other, _, _ = made(1, sizes=(5, 4), name="B")
    write_sids_csv(walk.table, ["[PAD]", *walk.tokens], folder / "sids.csv")
    write_sid_page([walk], folder / "one.html")
    write_sid_page([walk, other], folder / "two.html")
    return folder, walk, other


def test_one_walks_down_by_click_and_keyboard_and_up_again(chromium, pages):
    folder, walk, _ = pages
    counts = Counter(map(tuple, walk.codes[:, :1].tolist()))
    with opened(chromium, folder / "one.html") as page:
        codes = page.locator(".view .codes button")
        shown = {tuple([int(b.get_attribute("data-code"))]): b.inner_text() for b in codes.all()}
        assert {code: int(text.split()[-1]) for code, text in shown.items()} == counts
        page.locator(".treemap path.surface").nth(1).click()
        wait_until(page, "location.hash.startsWith('#prefix=')")
        prefix = int(page.evaluate("location.hash").split("=")[1])
        assert (
            page.locator("nav.path .note")
            .inner_text()
            .strip()
            .startswith(f"{counts[(prefix,)]} items")
        )
        first = page.locator(".view .codes button").first
        second = int(first.get_attribute("data-code"))
        first.focus()
        page.keyboard.press("Enter")
        wait_until(page, "document.querySelectorAll('nav.path button').length === 3")
        assert page.evaluate("location.hash") == f"#prefix={prefix},{second}"
        inside = [row for row in range(N) if tuple(walk.codes[row, :2]) == (prefix, second)]
        wait_until(page, f"document.querySelectorAll('.items tbody tr').length === {len(inside)}")
        listed = page.locator(".items tbody tr td:nth-child(2)").all_inner_texts()
        assert sorted(listed) == sorted(walk.tokens[row] for row in inside)
        page.locator("nav.path button").first.click()
        wait_until(page, "document.querySelectorAll('nav.path button').length === 1")


def test_an_item_is_found_and_shows_neighbours_mates_and_sids_of_before(chromium, pages):
    folder, walk, _ = pages
    row = walk.tokens.index("</script><img src=x>")
    with opened(chromium, folder / "one.html") as page:
        page.get_by_label("Find an item").fill("img SRC")
        page.locator(".hits a").first.wait_for()
        page.get_by_label("Find an item").press("Enter")
        wait_until(
            page, "id => document.querySelector('.panel').dataset.item === id", arg=walk.tokens[row]
        )
        assert page.locator(".panel h3").inner_text() == walk.titles[row]
        near = page.locator("[data-kind=content] li a")
        expected = [walk.tokens[other] for other in walk.near[row]]
        assert [button.get_attribute("data-id") for button in near.all()] == expected
        texts = page.locator("[data-kind=content] li").all_inner_texts()
        for other, text in zip(walk.near[row], texts):
            same = (walk.codes[row] == walk.codes[other]).astype(int).cumprod().sum()
            assert (f"{same} of 3 codes" if same else "no code") in text
        shares = [
            int((codes == walk.codes[row]).astype(int).cumprod().sum())
            for other, codes in enumerate(walk.codes)
            if other != row
        ]
        heads = page.locator(".panel section:has(.codes) h4").all_inner_texts()[1:]
        expected = [shares.count(depth) for depth in (3, 2, 1) if shares.count(depth)]
        assert [int(text.split()[0]) for text in heads] == expected
        rows = page.locator(".history tr")
        before = walk.versions["period 0"][row]
        assert rows.nth(0).locator("td").first.inner_text() == ", ".join(map(str, before))
        marked = rows.nth(1).locator("b.changed").all_inner_texts()
        changed = before != walk.codes[row]
        assert marked == list(map(str, walk.codes[row][changed]))
        wait_until(page, "location.hash.startsWith('#item=')")
        address = page.evaluate("location.hash")
    with opened(chromium, folder / "one.html", address) as page:  # the address leads back
        assert page.locator(".panel").get_attribute("data-item") == walk.tokens[row]
        assert (
            page.locator(".items tr[aria-current=true] td").first.inner_text() == walk.tokens[row]
        )


def test_the_csv_of_the_browser_is_that_of_python(chromium, pages):
    folder, _, _ = pages
    with opened(chromium, folder / "one.html") as page:
        with page.expect_download() as saved:
            page.locator("button.csv").click()
        assert saved.value.suggested_filename == "sids-A.csv"
        with open(saved.value.path(), "rb") as file:
            assert file.read() == (folder / "sids.csv").read_bytes()


@pytest.mark.parametrize("width, scheme", [(390, "light"), (1200, "dark")])
def test_two_tables_show_the_same_item_on_any_screen(chromium, pages, width, scheme):
    folder, walk, other = pages
    with opened(chromium, folder / "two.html", "#item=i20", width, scheme) as page:
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        row = walk.tokens.index("i20")
        sids = [
            re.findall(r"[a-z] (\d+)", " ".join(path.locator("button").all_inner_texts()))
            for path in page.locator(".panel .codes.path").all()
        ]
        assert [list(map(int, sid)) for sid in sids] == [
            walk.codes[row].tolist(), other.codes[row].tolist()
        ]  # fmt: skip
        tops = [view.bounding_box()["y"] for view in page.locator(".view:has(.treemap)").all()]
        assert (tops[0] == tops[1]) == (width > 1000)
        groups = page.locator("#walk-collisions h3:has-text('B:') + .groups a")
        prefix = groups.first.inner_text().split(" on ")[1].replace(" ", "")
        groups.first.click()
        wait_until(page, f"location.hash.endsWith('prefix2={prefix}')")
        page.locator(".view select").first.select_option("1")  # the second tokenizer twice
        wait_until(page, "document.querySelectorAll('.panel .codes.path').length === 1")
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (back == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize(
    "known",
    [
        {"titles": None},
        {"content": None, "behaviour": None, "titles": None},
        {"behaviour": Behaviour(torch.zeros(N, dtype=torch.long))},
        {"sizes": (7,)},
        {"sizes": (2, 1), "content_levels": 1},
    ],
)
def test_pages_of_what_is_known_alone_open_without_an_error(chromium, tmp_path, known):
    walk, _, _ = made(**known)
    with opened(chromium, write_sid_page([walk], tmp_path / "p.html"), "#item=007") as page:
        assert page.locator(".panel").get_attribute("data-item") == "007"
        for code in range(len(walk.sizes)):
            page.evaluate(f"walk.views[0].show(walk.catalogue.trees[0].sid(3).slice(0, {code}))")
        expected = sum(
            count > 1
            for count in Counter(map(tuple, walk.codes[:, : walk.content_levels].tolist())).values()
        )
        assert f"{expected} SID" in page.locator("#walk-collisions h3").inner_text()


def test_the_picture_of_the_readme_is_that_of_a_page(pages, tmp_path):
    needs_browser()
    folder, walk, _ = pages
    script = Path(__file__).parent.parent / "examples" / "readme_picture.py"
    place = f"#item={walk.tokens[30]}"
    given = [f"--page={folder / 'one.html'}", f"--place={place}", f"--output={tmp_path / 'p.png'}"]
    # In a process of its own: Playwright has one loop a thread, and the other tests' is running.
    subprocess.run([sys.executable, str(script), *given], check=True)
    with (
        Image.open(tmp_path / "p.png") as picture,
        Image.open(script.parents[1] / "docs/sids.png") as kept,
    ):
        assert picture.size == kept.size and len(picture.getcolors()) > 16
