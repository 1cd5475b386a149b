"""A real Chromium for the tests of the page and for the README's pictures.

Playwright drives the Chromium that the system has (``make chromium`` installs Debian's); it
downloads none. Everything that a browser asks of the Internet by itself is turned off.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_chromium() -> str | None:
    """Return the path of Chromium; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def running_browser(*more_flags: str) -> Iterator[Browser]:
    """Run Chromium without a window, with an empty profile that is removed afterwards."""
    from playwright.sync_api import sync_playwright

    path = find_chromium()
    if path is None:
        raise RuntimeError("there is no Chromium: as root, `make chromium` installs it")
    # Chromium's sandbox does not work as root, and here it sees nothing but our own pages.
    flags = [*FLAGS, *more_flags, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()
