"""Claims about the page of `recbole-gr serve-demo`, in a browser."""

import contextlib

import pytest
from browser import opened_browser, overflow, visit
from demo_servers import running

from recbole_gr.serving.demo_data import Demo
from recbole_gr.serving.explain import explain

PHONE = {"viewport": {"width": 390, "height": 844}}


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as opened:
        yield opened


@pytest.fixture
def serve(recommender):
    """A function from a name of RUNS to a running server and its recommender."""
    with contextlib.ExitStack() as stack:

        def serve(name="TIGER", **overrides):
            asked = recommender(name, **overrides)
            return stack.enter_context(running(asked)), asked

        yield serve


def answer(page):
    """Titles of the answer, as the page has them."""
    return [text.split("\n")[1] for text in page.locator("#answer .entry").all_inner_texts()]


def named(explanation):
    return [f"{item['title']} ({item['item']})" for item in explanation["items"]]


def wait_for(page, names):
    script = """names => JSON.stringify(names) === JSON.stringify(
        [...document.querySelectorAll("#answer .entry > span:nth-child(2)")].map(x => x.textContent)
    )"""
    page.wait_for_function(script, arg=names)


def pick(page, field, text):
    """Type into a field with suggestions and take the first one, by keys alone."""
    page.focus(field)
    page.keyboard.type(text)
    page.wait_for_selector(f"{field}-list li[aria-selected=true]")
    page.wait_for_function(
        "([field, text]) => document.querySelector(field + '-list li').textContent.includes(text)",
        arg=[field, text],
    )
    page.keyboard.press("Enter")


def test_a_user_is_picked_and_titles_and_the_tree_are_shown(serve, browser):
    server, asked = serve(beam_size=10)
    with visit(browser) as seen:
        page = seen.page(server.address)
        first = asked.recommend(k=10)[0].user
        wait_for(page, named(explain(asked, first)))
        assert page.input_value("#user") == first and page.title() == "TIGER on tiny"
        page.fill("#user", "")
        pick(page, "#user", "u23")
        found = explain(asked, "u23")
        wait_for(page, named(found))
        levels = found["levels"]
        for state, wanted in (
            ("dropped", [x for level in levels for x in level["dropped"]]),
            ("led", [x for level in levels for x in level["kept"] if x["ranks"]]),
            ("kept", [x for level in levels for x in level["kept"] if not x["ranks"]]),
        ):
            labels = [
                node.get_attribute("aria-label").split(",")[0]
                for node in page.locator(f"#tree button.{state}").all()
            ]
            assert labels == ["-".join(map(str, x["prefix"])) for x in wanted]
        assert page.locator("#tree path").count() == sum(
            len(level["kept"]) + len(level["dropped"]) for level in levels[1:]
        )
        assert page.locator("#tables table").count() == len(levels)
        seen.assert_clean()


def test_a_history_is_typed_and_changed(serve, browser):
    server, asked = serve()
    with visit(browser) as seen:
        page = seen.page(server.address)
        page.wait_for_selector("#answer .entry")
        page.check("input[value=history]")
        assert "Add an item" in page.inner_text("#message")
        title = Demo(asked).items("i7")["items"][0]["title"]
        pick(page, "#item", "i7")
        wait_for(page, named(explain(asked, history=["i7"])))
        pick(page, "#item", "i12")
        wait_for(page, named(explain(asked, history=["i7", "i12"])))
        assert page.locator("#taken li").first.inner_text().startswith(f"{title} (i7)")
        page.check("#exclude")
        wait_for(page, named(explain(asked, history=["i7", "i12"], exclude_history=True)))
        page.fill("#k", "3")
        page.keyboard.press("Enter")
        wait_for(page, named(explain(asked, history=["i7", "i12"], k=3, exclude_history=True)))
        page.locator("#taken button").first.click()
        wait_for(page, named(explain(asked, history=["i12"], k=3, exclude_history=True)))
        seen.assert_clean()


def test_keys_go_along_the_tree_and_say_what_is_there(serve, browser):
    server, asked = serve(beam_size=10)
    with visit(browser) as seen:
        page = seen.page(server.address)
        page.wait_for_selector("#tree button")
        found = explain(asked, page.input_value("#user"))
        assert page.locator("#tree button[tabindex='0']").count() == 1
        page.focus("#tree button[tabindex='0']")
        beams = [level["kept"] for level in found["levels"]]
        assert page.inner_text("#detail").startswith(f"Prefix {beams[0][0]['prefix'][0]}: log p ")
        page.keyboard.press("ArrowDown")
        assert page.inner_text("#detail").startswith(f"Prefix {beams[0][1]['prefix'][0]}: ")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowRight")
        child = next(
            x for x in beams[1] + found["levels"][1]["dropped"] if x["parent"] == 0
        )["prefix"]  # fmt: skip
        assert page.inner_text("#detail").startswith(f"Prefix {'-'.join(map(str, child))}: ")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("End")
        assert "Dropped" in page.inner_text("#detail") or not found["levels"][0]["dropped"]
        page.locator("#answer .entry").nth(1).click()  # its way is marked from the first level on
        assert page.locator("#tree button.on").count() == len(beams)
        assert "rank 2" in page.inner_text("#detail")
        seen.assert_clean()


def test_the_page_tells_why_an_item_is_not_there(serve, browser):
    server, asked = serve(beam_size=10)
    with visit(browser) as seen:
        page = seen.page(server.address)
        page.wait_for_selector("#answer .entry")
        user = page.input_value("#user")
        shown = {item["item"] for item in explain(asked, user)["items"]}
        other = next(token for token in ("i30", "i31", "i32", "i33") if token not in shown)
        pick(page, "#why", other)
        page.wait_for_selector("#followed h3")
        (why,) = explain(asked, user, why=[other])["why"]
        text = page.inner_text("#followed")
        assert f"({other}): not in the answer" in text and f"place {why['place']} of 40" in text
        assert "dropped, missed by" in text or not why["sids"][0]["steps"][-1]["dropped"]
        seen.assert_clean()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(scheme, serve, browser):
    server, _ = serve()
    with visit(browser, color_scheme=scheme, **PHONE) as seen:
        page = seen.page(server.address)
        page.wait_for_selector("#tree button")
        assert overflow(page) <= 0
        page.locator("summary").first.click()
        page.locator("summary").last.click()
        page.check("input[value=history]")
        page.focus("#item")
        page.wait_for_selector("#item-list li")
        assert overflow(page) <= 0
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (light == "rgb(255, 255, 255)") == (scheme == "light")
        seen.assert_clean()


@pytest.mark.parametrize("name", ["SASRec", "Pop", "RPG"])
def test_a_model_without_beams_has_its_items_and_says_so(name, serve, browser):
    server, asked = serve(name)
    with visit(browser) as seen:
        page = seen.page(server.address)
        page.wait_for_selector("#answer .entry")
        (given,) = asked.recommend([page.input_value("#user")], k=10)
        assert [text.rpartition("(")[2].rstrip(")") for text in answer(page)] == given.items
        assert page.is_hidden("#tree-part") and "there are no beams" in page.inner_text(
            "#answer-note"
        )
        assert page.is_visible("#kinds") == (name != "Pop")
        seen.assert_clean()


def test_titles_are_text_whatever_they_hold(serve, browser, monkeypatch):
    bad = "<img src=x onerror=alert(1)><b>bold</b>"
    monkeypatch.setattr(
        "recbole_gr.serving.demo_data.item_titles", lambda config: {f"i{n}": bad for n in range(40)}
    )
    server, _ = serve()
    with visit(browser) as seen:
        page = seen.page(server.address)
        page.wait_for_selector("#answer .entry")
        pick(page, "#why", "i3")
        page.wait_for_selector("#followed h3")
        assert answer(page)[0].startswith(bad)
        assert page.locator("img, main b:not(.head b, .code b)").count() == 0
        seen.assert_clean()


def test_what_is_wrong_is_said_and_can_be_mended(serve, browser):
    server, _ = serve()
    with visit(browser) as seen:
        page = seen.page(server.address)
        page.wait_for_selector("#answer .entry")
        page.fill("#user", "nobody")
        page.keyboard.press("Escape")
        page.click("#go")
        page.locator("#message", has_text="nobody").wait_for()
        assert page.is_hidden("#result")
        page.fill("#user", "u5")
        page.keyboard.press("Escape")
        page.click("#go")
        page.wait_for_selector("#result:not([hidden])")
        assert seen.outside == []
        assert all("400" in error for error in seen.errors)  # the browser's own line
