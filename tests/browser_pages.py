"""Pages opened from a disk in a browser; tests are skipped where there is none."""

from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")


@contextmanager
def browser():
    """A headless Chromium."""
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no {CHROMIUM}")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def opened(started, path, hash_="", width=1200, scheme="light"):
    """A page that was opened and drawn; it may state no error and ask for nothing."""
    context = started.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
    )
    page, wrong, own = context.new_page(), [], Path(path).absolute().as_uri()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
    page.on("request", lambda asked: _is_fetched(asked.url, own) and wrong.append(asked.url))
    page.goto(f"{own}{hash_}")
    page.wait_for_selector("html[data-drawn][data-walk=drawn]", timeout=60_000)
    yield page
    assert not wrong
    context.close()


def _is_fetched(url, own):
    return url.partition("#")[0] != own and not url.startswith(("data:", "blob:"))
