"""The rooms of a hub: made once, dropped when their place is needed."""

from __future__ import annotations

import threading

import pytest

from broadcast_server.errors import HubBusy
from broadcast_server.messages import cost_of
from broadcast_server.registry import Rooms
from broadcast_server.rooms import Room

from .support import wait_until
from .test_rooms import RING, SECONDS, client, drafts, never


def rooms(max_rooms: int = 2) -> Rooms:
    """Return an empty set of rooms."""
    return Rooms(RING, max_rooms, lambda: (7, 3))


def test_room_is_made_once_and_begins_at_the_newest_id() -> None:
    """Nothing after that id is missing, since there was no room."""
    all_rooms = rooms()
    assert all_rooms.find("/a") is None
    made = all_rooms.open("/a")
    assert all_rooms.open("/a") is made is all_rooms.find("/a")
    assert made.id_before(0) == (7, 3)
    assert all_rooms.all() == [made]


def test_empty_room_opened_longest_ago_makes_place() -> None:
    """A room with a member stays; when all have one, there is no place."""
    all_rooms = rooms()
    a, b = all_rooms.open("/a"), all_rooms.open("/b")
    all_rooms.open("/a")
    c = all_rooms.open("/c")
    assert b.closed and all_rooms.take_dropped() == [b] and all_rooms.take_dropped() == []
    a.join(client(1), 0, None)
    c.join(client(2), 0, None)
    with pytest.raises(HubBusy):
        all_rooms.open("/d")
    assert all_rooms.all() == [a, c]


@pytest.mark.parametrize("state", ["reserved", "not offered"])
def test_room_in_use_by_a_publisher_is_not_dropped(state: str) -> None:
    """A message on its way is not lost with its room."""
    all_rooms = rooms()
    a = all_rooms.open("/a")
    batch = drafts(1)
    a.reserve(cost_of(batch), None, never)
    if state == "not offered":
        a.append(batch, 10, 0)
    assert not all_rooms.drop_empty()
    if state == "reserved":
        a.release(cost_of(batch))
    else:
        a.mark_offered(1)
    assert all_rooms.drop_empty()


def test_rooms_opened_by_many_threads_are_the_same() -> None:
    """Nobody talks into a room of one's own."""
    all_rooms = rooms(1000)
    found: list[list[Room]] = []
    threads = [
        threading.Thread(target=lambda: found.append([all_rooms.open(f"/{n}") for n in range(200)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert wait_until(lambda: len(found) == 4)
    assert all(rooms == found[0] for rooms in found)
