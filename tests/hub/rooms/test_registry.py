"""The rooms of a hub: made once, dropped when their place is needed."""

from __future__ import annotations

import threading

import pytest

from broadcast_server.errors import HubBusy
from broadcast_server.hub.rooms.entries import cost_of
from broadcast_server.hub.rooms.registry import NoRoom, RoomRegistry
from broadcast_server.hub.rooms.room import Room

from ...support import wait_until
from ...support.inside import made_in
from ...support.rooms import RING, client, drafts, never

SECONDS = 10.0


def rooms(max_rooms: int = 2) -> RoomRegistry:
    """Return an empty set of rooms."""
    return RoomRegistry(RING, max_rooms, lambda: (7, 3))


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
    assert not all_rooms.drop_empty(None)
    if state == "reserved":
        a.release(cost_of(batch))
    else:
        a.mark_offered(1)
    assert all_rooms.drop_empty(None)


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


# -- Who makes rooms ---------------------------------------------------------------------------


def limited(max_rooms: int, per_address: int) -> RoomRegistry:
    return RoomRegistry(RING, max_rooms, lambda: (7, 3), per_address)


def paths(found: list[Room]) -> list[str]:
    return [room.path for room in found]


def test_maker_of_too_many_rooms_loses_its_own() -> None:
    """N pass; one more takes the place of its least recently opened empty one, and of no other."""
    all_rooms = limited(100, 3)
    all_rooms.open("/program")
    all_rooms.open("/other", "192.0.2.9")
    for path in ("/a", "/b", "/c"):
        all_rooms.open(path, "192.0.2.1")
    assert all_rooms.take_dropped() == []
    all_rooms.open("/a", "198.51.100.7")  # whoever uses it
    all_rooms.open("/d", "192.0.2.1")
    assert paths(all_rooms.take_dropped()) == ["/b"]
    assert paths(all_rooms.all()) == ["/program", "/other", "/c", "/a", "/d"]


def test_maker_whose_rooms_are_all_in_use_gets_no_more() -> None:
    """It is told which limit it was; a room that exists may be used all the same."""
    all_rooms = limited(100, 2)
    for number, path in enumerate(("/a", "/b")):
        all_rooms.open(path, "2001:db8::").join(client(number), 0, None)
    with pytest.raises(NoRoom, match="2 rooms made from this address, all in use") as caught:
        all_rooms.open("/c", "2001:db8::")
    assert caught.value.reason == "rooms_per_address"
    all_rooms.open("/c", "2001:db8:0:1::")
    assert all_rooms.open("/a", "2001:db8::").path == "/a"


def test_room_that_is_dropped_counts_for_nobody() -> None:
    """For whatever reason it was dropped."""
    all_rooms = limited(2, 2)
    all_rooms.open("/a", "192.0.2.1")
    all_rooms.open("/b", "192.0.2.1")
    all_rooms.open("/c", "192.0.2.9")  # one too many in total: the least recently opened goes
    assert paths(all_rooms.take_dropped()) == ["/a"]
    assert not all_rooms.drop_empty(None) and not all_rooms.drop_empty("192.0.2.2")
    assert all_rooms.drop_empty("192.0.2.1") and paths(all_rooms.take_dropped()) == ["/b"]
    assert made_in(all_rooms).keys() == {"192.0.2.9"}
    all_rooms.open("/d", "192.0.2.1")
    all_rooms.open("/e", "192.0.2.1")
    assert paths(all_rooms.take_dropped()) == ["/c"]


def test_total_is_refused_under_its_own_name() -> None:
    """Two limits, two reasons."""
    all_rooms = limited(1, 5)
    all_rooms.open("/a", "192.0.2.1").join(client(1), 0, None)
    with pytest.raises(NoRoom) as caught:
        all_rooms.open("/b", "192.0.2.1")
    assert caught.value.reason == "max_rooms"


def test_without_a_limit_nobody_is_refused() -> None:
    """Zero is none; and so it is for the hub's own program."""
    for all_rooms, maker in ((limited(100, 0), "192.0.2.1"), (limited(100, 1), None)):
        for number in range(50):
            all_rooms.open(f"/{number}", maker)
        assert len(all_rooms.all()) == len(all_rooms.made_by(maker)) == 50


@pytest.mark.parametrize("per_address", [0, 1000])
def test_maker_of_most_rooms_gives_first(per_address: int) -> None:
    """Where there is no place for more: whoever makes rooms without end pushes out only its own, as
    long as one of them is empty."""
    all_rooms = limited(20, per_address)
    for path, maker in (("/program", None), ("/x", "192.0.2.7"), ("/y", "192.0.2.8")):
        all_rooms.open(path, maker)
    for number in range(100):
        all_rooms.open(f"/{number}", "203.0.113.5")
    assert paths(all_rooms.all()) == ["/program", "/x", "/y", *(f"/{n}" for n in range(83, 100))]
    for number, room in enumerate(all_rooms.made_by("203.0.113.5")):
        room.join(client(number), 0, None)
    all_rooms.open("/new", "203.0.113.5")  # nobody else has more than one: the least recently used
    assert "/program" not in paths(all_rooms.all())
    all_rooms.open("/x", "203.0.113.5")
    all_rooms.open("/another", "192.0.2.9")  # whoever has most, and one that is empty
    assert "/new" not in paths(all_rooms.all())
    all_rooms.open("/more", "192.0.2.9")
    assert "/y" not in paths(all_rooms.all()) and all_rooms.find("/x") is not None


def test_room_in_use_costs_no_lock_to_pass_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all are in use, each new one would take all their locks."""
    all_rooms = rooms(50)
    for number in range(50):
        all_rooms.open(f"/{number}").join(client(number), 0, None)
    closed = []
    monkeypatch.setattr(Room, "close", closed.append)
    with pytest.raises(NoRoom):
        all_rooms.open("/more")
    assert closed == []


def test_change_that_is_interrupted_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the program's thread, in the middle of making or dropping a room: who has made how
    many is true again afterwards."""
    all_rooms = limited(100, 3)
    for step in ("add", "remove", "touch"):
        with monkeypatch.context() as patch:
            patch.setattr(f"broadcast_server.hub.rooms.shares.Shares.{step}", interrupt)
            with pytest.raises(KeyboardInterrupt):
                for number in range(9):
                    all_rooms.open(f"/{step}-{number % 2}", "192.0.2.1")
        for number in range(5):
            all_rooms.open(f"/{number}", "192.0.2.1")
        assert paths(all_rooms.all()) == ["/2", "/3", "/4"]
        assert all_rooms.made_by("192.0.2.1") == all_rooms.all()
    dropped = all_rooms.take_dropped()
    assert len(dropped) == len(set(dropped)) and all(room.closed for room in dropped)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_room_counts_for_who_has_the_first_message_for_it() -> None:
    """And not for whoever looked in first; later ones change nothing."""
    all_rooms = limited(100, 2)
    room = all_rooms.open("/invoices", "203.0.113.5")
    assert all_rooms.open("/invoices", "192.0.2.7", publishes=True) is room
    assert all_rooms.made_by("192.0.2.7") == [room] and all_rooms.made_by("203.0.113.5") == []
    all_rooms.open("/invoices", "203.0.113.5", publishes=True)
    all_rooms.claim(room, "203.0.113.5")
    assert all_rooms.made_by("192.0.2.7") == [room]
    for number in range(10):
        all_rooms.open(f"/{number}", "203.0.113.5", publishes=True)
    assert paths(all_rooms.all()) == ["/invoices", "/8", "/9"]
    other = all_rooms.open("/other", "203.0.113.5")
    all_rooms.claim(other, None)
    assert all_rooms.made_by(None) == [other]
    assert all_rooms.drop_empty(None)
    all_rooms.claim(other, "192.0.2.7")
    assert all_rooms.made_by("192.0.2.7") == [room] and all_rooms.made_by(None) == []
