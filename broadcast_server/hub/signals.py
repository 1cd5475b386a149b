"""Signals in the program that a hub belongs to.

A handler in Python runs on the main thread, between two steps of what that thread does there, which
may hold any lock of the hub. So a handler of ours only leaves a word in a queue (`Terminations`);
and what a handler of the program calls is carried out by a thread of its own if it has interrupted
our code (`has_interrupted_us`).
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType
from typing import Any

from ..errors import UsageError

# Who sends a signal to a process and to its group, as timeout(1) does, means it once.
SAME_SECONDS = 0.2

_PACKAGE = __name__.partition(".")[0] + "."
# What calls the hub on the main thread and holds no lock of it.
_CALLERS = (_PACKAGE + "cli.", _PACKAGE + "exits", _PACKAGE + "__main__")


class Terminated(BaseException):
    """SIGTERM has come again."""


class Terminations:
    """Catches SIGTERM while it is entered, on the main thread; then the handler that was there
    before is put back.

    Attributes:
        received: gets True at the first SIGTERM; False, from anybody, ends a wait. Of all queues
            only this kind may be used in a signal handler: it is reentrant.
        is_ending: while it is true, the next SIGTERM raises `Terminated` on the main thread.

    Raises:
        UsageError: this is another thread.
    """

    def __init__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise UsageError("signals=True is for the main thread: no other one gets signals")
        self.received: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.is_ending = False
        self._first_at: float | None = None
        self._previous: Any = None

    def __enter__(self) -> Terminations:
        self._previous = signal.signal(signal.SIGTERM, self._catch)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # None: it was not set from Python, and cannot be put back from there.
        previous = signal.SIG_DFL if self._previous is None else self._previous
        signal.signal(signal.SIGTERM, previous)

    def await_first(self) -> bool:
        """Wait a while, return whether SIGTERM has come."""
        # In pieces: on some systems a wait without an end keeps signals from being handled.
        try:
            return self.received.get(timeout=1.0)
        except queue.Empty:
            return False

    def _catch(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first_at is None:
            self._first_at = now
            self.received.put(True)
        elif self.is_ending and now - self._first_at > SAME_SECONDS:
            self.is_ending = False
            raise Terminated


def has_interrupted_us(harmless: frozenset[CodeType]) -> bool:
    """Tell whether the caller's caller was called by a signal handler in the middle of our code.

    Args:
        harmless: functions that may call it by themselves, and hold no lock.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        ours = name.startswith(_PACKAGE) and not name.startswith(_CALLERS)
        if ours and frame.f_code not in harmless:
            return True
        frame = frame.f_back
    return False


def in_thread(end: Callable[..., None], *given: object) -> None:
    """End a hub in a thread of its own, for which the end of the program waits."""
    threading.Thread(target=end, args=given, name="hub-end", daemon=True).start()
