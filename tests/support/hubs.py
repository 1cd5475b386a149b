"""A hub in the process of the test."""

from __future__ import annotations

import contextlib
import pathlib
import secrets
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub

# Above what stop() is given, it may take this long to return.
GRACE_SECONDS = 1.0


@contextlib.contextmanager
def running_hub(**settings: Any) -> Iterator[BroadcastHub]:
    """Run a hub on a free loopback port; settings are those of ``BroadcastHub``."""
    from broadcast_server import BroadcastHub

    settings.setdefault("port", 0)
    # What the tests of other things call a hub in their requests.
    settings.setdefault("allow_host", ("h", "x", "hub", "hub.test"))
    # A raw client answers no ping, and on a slow machine a test may take longer than the default.
    settings.setdefault("ping_interval", 3600.0)
    with BroadcastHub(**settings) as hub:
        yield hub


def lasting_port() -> int:
    """Return a free port that the kernel gives to nobody else, for a hub whose port must stay its
    own while it is stopped and started again: tests that run at the same time ask for port 0."""
    limits = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    lowest, highest = 10_000, int(limits[0])
    if highest - lowest < 1000:  # where nearly all ports are given to whoever asks for any
        lowest, highest = 0, 1
    while True:
        port = lowest + secrets.randbelow(highest - lowest)
        with contextlib.suppress(OSError), socket.socket() as tried:
            tried.bind(("127.0.0.1", port))
            found: int = tried.getsockname()[1]
            return found
