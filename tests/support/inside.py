"""The one place that knows private parts of a hub."""

from __future__ import annotations

from broadcast_server import BroadcastHub
from broadcast_server.hub.core import Core
from broadcast_server.hub.delivery.fanout import FanOut
from broadcast_server.hub.rooms.shares import Sizes

from .waiting import wait_until


def core_of(hub: BroadcastHub) -> Core:
    """Return the parts of a hub that runs."""
    assert hub._core is not None
    return hub._core


def fanout_of(hub: BroadcastHub) -> FanOut:
    """Return the fan-out of a hub that runs."""
    return core_of(hub).fanout


def sleeps(fanout: FanOut) -> bool:
    """Wait until it has nothing to do."""
    return wait_until(lambda: fanout._mailbox._sleeping)


def noted_sizes(sizes: Sizes) -> int:
    """Return how many sizes are kept, with those that are not true any more."""
    return len(sizes._heap)


def bytes_by_maker(fanout: FanOut) -> dict[str | None, int]:
    """Return what the logs of each maker's rooms cost."""
    sizes = fanout._sizes
    return {maker: sizes[maker] for maker in sizes.descending()}
