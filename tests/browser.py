"""A real browser, headless: Debian's Chromium, driven by Playwright, which brings none of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from tests.integration.muster import start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

#: Without the last ones it looks for its maker's hosts at every start.
_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Give a browser; skip the test where there is none, but not in CI."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is missing: apt install chromium")
        pytest.skip("chromium is missing: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def page_of(browser: Browser, *, scheme: str = "light", width: int = 1280) -> Iterator[Page]:
    """Give an empty page; what it has to complain of (scripts, policies, what cannot be loaded) fails the test."""
    context = browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": 900}
    )
    complaints: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield page
        assert complaints == []
    finally:
        context.close()


def violations(page: Page) -> str:
    """Return what axe-core finds wrong with a page, in words; nothing where all is well."""
    found = Axe().run(page)
    return str(found.generate_report()) if found.violations_count else ""


@contextlib.contextmanager
def serving(*arguments: str, cwd: Path, **extra: str) -> Iterator[str]:
    """Have `muster serve` run in a folder, on a free port; give its address."""
    with start("serve", "--port", "0", *arguments, cwd=cwd, **extra) as server:
        assert server.stderr is not None
        said = server.stderr.readline()
        found = re.search(r"https?://\S+(?=/)", said)
        assert found is not None, said + server.stderr.read()
        try:
            yield found[0]
        finally:
            server.terminate()
            _, err = server.communicate(timeout=30)
        assert (server.returncode, "Traceback" in err) == (0, False), err
