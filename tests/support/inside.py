"""The one place that knows private parts of a hub."""

from __future__ import annotations

from broadcast_server import BroadcastHub
from broadcast_server.hub.core import Core
from broadcast_server.hub.delivery.fanout import FanOut

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


def turn(fanout: FanOut) -> bool:
    """Let a fan-out whose thread does not run do one turn of its loop."""
    return fanout._turn()


def post_count(fanout: FanOut) -> int:
    """Return how many clients wait for something to be done for them."""
    return len(fanout._mailbox._posts) + len(fanout._taken) + len(fanout._again)
