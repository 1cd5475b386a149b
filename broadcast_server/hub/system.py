"""What a hub needs of the process that it runs in: a POSIX system, and its threads and sockets.

gevent and eventlet put their own in the place of the standard library's. A hub with those would
have one thread in all, and wait in calls that they do not know. Clients and ``publish`` work there.
"""

from __future__ import annotations

import select
import socket
import sys
from collections.abc import Callable

from ..errors import UsageError

# CPython wakes each thread that waits for the interpreter once in each switch interval. With a
# thousand of them and 0.1 ms the system would do nothing else. So the interval grows with the
# number of threads, up to Python's own default.
SECONDS_PER_THREAD = 5e-6
USUAL_SECONDS = 0.005

# What is replaced, by its name in gevent; eventlet calls threads by another one.
_REPLACED = ("socket", "select", "threading", "thread")


def check() -> None:
    """Make sure that a hub can run here.

    Raises:
        UsageError: it cannot.
    """
    for library, module, name in (
        ("gevent", "gevent.monkey", "is_module_patched"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched"),
    ):
        is_patched: Callable[[str], bool] | None = getattr(sys.modules.get(module), name, None)
        if is_patched is not None and any(map(is_patched, _REPLACED)):
            raise UsageError(
                f"a hub needs real threads and sockets, and {library} has replaced them: run the "
                "hub in a process of its own; clients and publish() work here"
            )
    if not (hasattr(socket, "MSG_DONTWAIT") and hasattr(select, "poll")):
        raise UsageError(
            "a hub needs Linux, macOS or another POSIX system; clients and publish() work here"
        )


class SwitchInterval:
    """For how long a thread of this process may keep the interpreter. Not thread-safe: a lock of
    its owner is held around each call.

    Args:
        seconds: with few threads; None to leave it as it is.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._set = 0.0

    def adapt(self, threads: int) -> None:
        """Set what so many threads of clients allow; small differences are left alone."""
        if self._seconds is None:
            return
        most = max(self._seconds, USUAL_SECONDS)
        wanted = min(max(self._seconds, threads * SECONDS_PER_THREAD), most)
        is_near = self._set * 0.8 <= wanted <= self._set * 1.25
        if wanted == self._set or (is_near and wanted != self._seconds):
            return
        sys.setswitchinterval(wanted)
        self._set = wanted
