"""A browser for tests of pages: chromium, driven by Playwright, that stays on this machine."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
HERE = ("127.0.0.1", "localhost")
LOCAL_SCHEMES = ("file", "data", "blob", "about")


class Visit:
    """What went wrong while pages of one context were open.

    Attributes:
        context: Playwright's, whose `new_page` opens pages.
        outside (list[str]): addresses on other machines that were asked for; none was reached.
        errors (list[str]): what pages logged as errors, and exceptions that they did not catch.
    """

    def __init__(self, context: Any):
        self.context, self.outside, self.errors = context, [], []
        context.route("**/*", self._route)
        context.on("console", self._heard)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def _route(self, route: Any) -> None:
        parts = urlsplit(route.request.url)
        if parts.scheme in LOCAL_SCHEMES or parts.hostname in HERE:
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def page(self, address: str) -> Any:
        """A page at an address."""
        page = self.context.new_page()
        page.goto(address)
        return page

    def assert_clean(self) -> None:
        """Nothing was asked of another machine, and no page complained."""
        assert self.outside == [] and self.errors == []


def overflow(page: Any) -> int:
    """By how many pixels a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def wait_until(page: Any, expression: str, arg: Any = None, seconds: float = 30.0) -> None:
    """Wait for what holds in a page. Playwright's `wait_for_function` evaluates texts inside the
    page, which the policy of our pages forbids.

    Raises:
        AssertionError: it did not come to hold in time.
    """
    end = monotonic() + seconds
    while not page.evaluate(expression, arg):
        assert monotonic() < end, f"never: {expression}"
        page.wait_for_timeout(50)


def needs_browser() -> str:
    """The browser's program; skips the test where it, or Playwright, is missing."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("chromium is not installed")
    return found


@contextlib.contextmanager
def opened_browser() -> Iterator[Any]:
    """A browser without a window; its `new_context` takes `viewport`, `color_scheme` and others."""
    program = needs_browser()
    from playwright.sync_api import sync_playwright

    # As root, as which containers run, chromium's sandbox does not start.
    sandbox = getattr(os, "geteuid", lambda: 1)() != 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, chromium_sandbox=sandbox)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def visit(browser: Any, **options: Any) -> Iterator[Visit]:
    """A context of a browser that reaches no other machine; `options` are of `new_context`."""
    context = browser.new_context(**options)
    try:
        yield Visit(context)
    finally:
        context.close()
