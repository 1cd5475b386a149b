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
