"""The one place that knows private parts of a hub."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from broadcast_server import BroadcastHub
from broadcast_server.hub.core import Core
from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.delivery.fanout import FanOut
from broadcast_server.hub.http import connection
from broadcast_server.hub.rooms.room import Room
from broadcast_server.wire import events

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


# -- A fan-out, step by step on the test's thread ----------------------------------------------


def hand_over(fanout: FanOut, client: Connection) -> None:
    """Hand a client over, as if it had been posted."""
    fanout._do_activate(client)


def pass_over(fanout: FanOut, room: Room[Connection]) -> None:
    """Offer what is new in a room, and account for it."""
    fanout._pass(room)


def total_cost(fanout: FanOut) -> int:
    """Return what it has counted for all logs."""
    return fanout._total_cost


def drop_forms(fanout: FanOut) -> bool:
    """Let it drop the forms of one room."""
    return fanout._drop_forms()


def needed_from(fanout: FanOut, room: Room[Connection]) -> int:
    """Return from where on it keeps the forms of a room."""
    return fanout._needed_from(room)


# -- Parsers -----------------------------------------------------------------------------------


def lines_of_head(before: bytes, data: bytes) -> tuple[int, bytes]:
    """Return how many lines of a request's head are in what came, and what to go on with."""
    return connection._lines_of_head(before, data)


def load_long(text: str, max_characters: int) -> object:
    """Return an event read as a large one is, whatever its size."""
    return events._load_long(text, max_characters)


def read_text(text: str, at: int, max_characters: int) -> tuple[str, int]:
    """Return a string of JSON read in pieces, and where it ends."""
    return events._read_text(text, at, max_characters)


def note_parsed(patch: pytest.MonkeyPatch) -> list[int]:
    """Return a list to which the size of each piece of JSON is added that is read at once."""
    sizes: list[int] = []

    def note(function: Callable[..., object]) -> Callable[..., object]:
        def noted(text: str, *rest: object) -> object:
            sizes.append(len(text))
            found = function(text, *rest)
            if isinstance(found, tuple):
                sizes[-1] = found[1]  # so far it was read
            return found

        return noted

    patch.setattr(events, "_scan_text", note(events._scan_text))
    patch.setattr(events, "_scan_value", note(events._scan_value))
    patch.setattr(json, "loads", note(json.loads))
    return sizes
