"""Real browsers, Chromium and Firefox, for the tests of the page and for the README's pictures.

Playwright drives the browsers that the system has (``make chromium`` and ``make firefox`` fetch
Debian's); it downloads none. Chromium speaks its own protocol, Firefox WebDriver BiDi by way of
``firefox_relay.py``; the calls are the same. Everything that a browser asks of the Internet by
itself is turned off.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .programs import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

BROWSERS = ("chromium", "firefox")

NAMES = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "firefox": ("firefox-esr", "firefox"),
}
FLAGS = [
    "--disable-gpu",
    "--disable-software-rasterizer",
    "--disable-gpu-compositing",
    "--disable-extensions",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--in-process-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Playwright's profile has turned off already what Firefox asks of its makers.
PREFERENCES = {"network.captive-portal-service.enabled": False, "network.trr.mode": 5}

# Where `make firefox` unpacks Debian's packages.
FETCHED = ROOT / "build" / "firefox" / "usr" / "lib"
RELAY = pathlib.Path(__file__).with_name("firefox_relay.py")


def find_browser(kind: str = "chromium") -> str | None:
    """Return the path of a browser; None if there is none."""
    path = os.pathsep.join([os.environ.get("PATH", ""), f"{FETCHED}/firefox-esr"])
    return next(filter(None, (shutil.which(name, path=path) for name in NAMES[kind])), None)


@contextlib.contextmanager
def running_browser(kind: str = "chromium", *, here: Sequence[str] = ()) -> Iterator[Browser]:
    """Run a browser without a window, with an empty profile that is removed afterwards.

    Args:
        kind: which one, of ``BROWSERS``.
        here: names that mean this machine to it.
    """
    from playwright.sync_api import sync_playwright

    path = find_browser(kind)
    if path is None:
        raise RuntimeError(f"there is no {kind}: `make {kind}` installs it")
    with sync_playwright() as playwright, contextlib.ExitStack() as stack:
        start = _start_firefox if kind == "firefox" else _start_chromium
        browser = start(stack, playwright, path, here)
        try:
            yield browser
        finally:
            browser.close()


def _start_chromium(
    stack: contextlib.ExitStack, playwright: Playwright, path: str, here: Sequence[str]
) -> Browser:
    rules = ",".join(f"MAP {name} 127.0.0.1" for name in here)
    # Chromium's sandbox does not work as root, and here it sees nothing but our own pages.
    flags = [*FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    if rules:
        flags.append(f"--host-resolver-rules={rules}")
    return playwright.chromium.launch(executable_path=path, args=flags)


def _start_firefox(
    stack: contextlib.ExitStack, playwright: Playwright, path: str, here: Sequence[str]
) -> Browser:
    home = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="firefox-")))
    program = home / "firefox"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{RELAY}" "{path}" "$@"\n')
    program.chmod(0o755)
    libraries = ":".join(str(folder) for folder in FETCHED.glob("*-linux-gnu"))
    fetched = {"LD_LIBRARY_PATH": libraries} if path.startswith(str(FETCHED)) else {}
    return playwright.firefox.launch(
        channel="moz-firefox",
        executable_path=program,
        env={**os.environ, **fetched, "HOME": str(home), "XDG_CACHE_HOME": str(home)},
        firefox_user_prefs={**PREFERENCES, "network.dns.localDomains": ",".join(here)},
    )
