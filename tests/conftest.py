"""Rules that hold for every test: nothing is left behind, nothing is skipped in silence."""

from __future__ import annotations

import os
import pathlib
import signal
import threading
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .support import (
    descriptor_count,
    descriptors,
    needs_module,
    running_hub,
    thread_count,
    wait_until,
)
from .support.browser import BROWSERS, find_browser, running_browser
from .support.certificates import Certificates
from .support.pages import Reader, reading

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub

NO_SKIP = os.environ.get("BROADCAST_SERVER_NO_SKIP") == "1"
# What needs rights that nobody can install. The same is tested in other ways as well.
RIGHTS = ("no control group can be made here", "no namespaces of processes here")

# Within this time after a test its threads and descriptors must be gone.
LEAK_SECONDS = 5.0

# The files that take longest come first, so that none of them is left when all others are done.
# Those with a browser keep a core busy, most others wait: so they take turns.
FIRST = (
    "browser/test_connection.py",
    "cli/terminal/test_app.py",
    "cli/commands/test_start.py",
    "browser/test_page.py",
    "cli/commands/test_listen.py",
    "promises/test_faults.py",
    "fuzz/test_fuzz.py",
    "cli/commands/test_service.py",
    "browser/test_token.py",
    "cli/test_cli.py",
    "promises/test_authorization.py",
    "browser/test_event_source.py",
    "promises/test_late_hub.py",
    "documents/test_types.py",
    "browser/test_cross_site.py",
    "transport/test_tls.py",
    "cli/commands/test_pipe.py",
    "documents/test_examples.py",
    "cli/commands/test_publish.py",
    "conformance/test_conformance.py",
    "promises/test_delivery.py",
    "hub/test_signals.py",
    "promises/test_ctrl_c.py",
    "documents/test_shown_commands.py",
    "documents/test_howto_proxy.py",
    "benchmarks/test_hostile.py",
    "client/test_lifecycle.py",
    "browser/test_close.py",
)
RANKS = {name: rank for rank, name in enumerate(FIRST)}


def pytest_configure() -> None:
    """Let Ctrl-C be what it is in every process of the tests, also where a shell has started them
    in the background: it then has SIGINT ignored, and what they start inherits that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files into the order of `FIRST`; the others follow as they are."""
    tests = pathlib.Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        return RANKS.get(item.path.relative_to(tests).as_posix(), len(RANKS))

    items.sort(key=rank)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test after which there are more threads or descriptors than before."""
    threads, opened = thread_count(), descriptors()
    yield
    if not wait_until(lambda: thread_count() <= threads, LEAK_SECONDS):
        pytest.fail(f"threads left: {sorted(thread.name for thread in threading.enumerate())}")
    if not wait_until(lambda: descriptor_count() <= len(opened), LEAK_SECONDS):
        new = {number: what for number, what in descriptors().items() if number not in opened}
        pytest.fail(f"descriptors left: {new}")


@pytest.fixture
def hub() -> Iterator[BroadcastHub]:
    """A hub with the default settings on a free loopback port."""
    with running_hub() as running:
        yield running


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of the page in each browser, but one that is marked ``chromium`` only there."""
    if "browser" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("chromium") is not None
        kinds = BROWSERS[:1] if only else BROWSERS
        metafunc.parametrize("browser", kinds, indirect=True, scope="module")


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A browser for the tests of a module, one kind after the other.

    It is started before the test, so that only what a test makes is counted. It takes the name of
    an attacker's server for this machine.
    """
    needs_module("playwright.sync_api")
    if find_browser(request.param) is None:
        pytest.skip(f"{request.param} is not installed (make {request.param})")
    with running_browser(request.param, here=["evil.example"]) as found:
        yield found


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority of the tests' own, and a certificate for this machine from it."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def reader(tmp_path: pathlib.Path) -> Iterator[Reader]:
    """Somebody who types what a page says, in an empty home."""
    with reading(tmp_path) as found:
        yield found


def _forbid_skip(report: Any) -> None:
    has_rights = not any(words in str(report.longrepr) for words in RIGHTS)
    if NO_SKIP and report.skipped and has_rights and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which BROADCAST_SERVER_NO_SKIP forbids: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test into a failure where that is asked for."""
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure where that is asked for."""
    report = yield
    _forbid_skip(report)
    return report
