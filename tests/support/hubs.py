"""A hub in the process of the test."""

from __future__ import annotations

import contextlib
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
    with BroadcastHub(**settings) as hub:
        yield hub
