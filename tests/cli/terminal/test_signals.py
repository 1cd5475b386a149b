"""``broadcast-server connect`` at a terminal, when a signal ends it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import select
import signal
import termios

import pytest

from ...support import running_hub, wait_until
from ...support.command import SECONDS, terminal
from ...support.raw_server import listener

pytestmark = pytest.mark.slow


def able(folder: pathlib.Path) -> dict[str, str]:
    """Return the environment of a terminal that can draw."""
    return {"TERM": "xterm", "XDG_STATE_HOME": str(folder)}


def is_full(path: str) -> bool:
    """Tell whether a terminal takes nothing more, also when whoever writes there is through."""
    terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        poller = select.poll()
        poller.register(terminal, select.POLLOUT)
        return not poller.poll(500)
    finally:
        os.close(terminal)


@pytest.mark.parametrize("is_able", [False, True])
def test_signals_of_one_moment_are_one(tmp_path: pathlib.Path, is_able: bool) -> None:
    """A window that is closed is told more than once; the hub gets its Close all the same."""
    environ = able(tmp_path) if is_able else {}
    with listener() as listening, terminal(listening.url, environ) as ann:
        server = listening.accept_events()
        with server.sock:
            ann.wait_for("1 here: ann")
            ann.process.send_signal(signal.SIGSTOP)
            for number in (signal.SIGHUP, signal.SIGTERM):
                ann.process.send_signal(number)
            ann.process.send_signal(signal.SIGCONT)
            assert server.accept_close() == (1000, "")
            assert ann.end() == 0


@pytest.mark.parametrize("is_able", [False, True])
def test_signal_that_another_thread_takes_wakes_the_main_one(
    tmp_path: pathlib.Path, is_able: bool
) -> None:
    """The system chooses the thread, after a stop any of them."""
    with running_hub() as hub, terminal(hub.url, able(tmp_path) if is_able else {}) as ann:
        ann.wait_for("1 here: ann")
        pid = ann.process.pid
        others = [task for task in map(int, os.listdir(f"/proc/{pid}/task")) if task != pid]
        assert ctypes.CDLL(None).tgkill(pid, others[0], signal.SIGTERM) == 0
        assert ann.end() == 0
        assert wait_until(lambda: hub.members("/") == [])


def test_signal_ends_it_although_the_terminal_takes_nothing(tmp_path: pathlib.Path) -> None:
    """The terminal has its modes again, and reports nothing to the shell when it goes on."""
    with running_hub() as hub, contextlib.ExitStack() as stack:
        for number in range(100):
            hub.broadcast(f"number {number} ".ljust(1000, "x"))
        environ = able(tmp_path) | {"BROADCAST_SERVER_CONNECT_HISTORY": "0"}
        ann = stack.enter_context(terminal(hub.url, environ))
        ann.wait_for("connected")
        ann.type("/history 100\r")  # drawn in one go, which is more than the terminal holds
        path = os.readlink(f"/proc/{ann.process.pid}/fd/1")
        assert wait_until(lambda: is_full(path), SECONDS)
        ann.process.send_signal(signal.SIGTERM)
        assert ann.process.wait(SECONDS) == 1
        assert termios.tcgetattr(ann.master) == ann.attributes
        ann.end()
        for mode in ("1004", "2004"):
            assert 0 < ann.shown.rfind(f"[?{mode}h") < ann.shown.rfind(f"[?{mode}l")
