"""Who is told of whom: a change by itself, or all of them as a whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from broadcast_server.hub.rooms import presence
from broadcast_server.hub.rooms.encodings import JSON, RAW
from broadcast_server.hub.rooms.presence import LIST_TRIES, MAX_NAMED
from broadcast_server.hub.rooms.room import Room
from broadcast_server.hub.rooms.subscriber import Subscriber
from broadcast_server.messages import Member
from broadcast_server.wire import events, frames


class Clock:
    """A clock that the test turns, in the place of ``time`` in hub/rooms/presence.py."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(presence, "time", made)
    return made


def join(room: Room[Subscriber], number: int, form: Any = JSON) -> Subscriber:
    """Return a new member."""
    found = Subscriber(number, Member(f"c{number}", None, "/r", "x"), room, form)
    room.join(found, 0, None)
    return found


def events_of(client: Subscriber) -> list[dict[str, Any]]:
    """Return the events that wait for a client, and take them away."""
    found = [json.loads(frames.data_of(frame)) for _, frame, _ in client.personal or ()]
    client.personal = None
    client.personal_bytes = 0
    return found


def test_changes_above_the_rate_are_told_as_a_whole(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many in a second by themselves; then one list, the same object for all."""
    monkeypatch.setattr(presence, "MAX_TOLD", 1000)
    room: Room[Subscriber] = Room("/r", (0, 0), 1 << 20)
    noisy, *others = [join(room, number) for number in range(1, 11)]
    assert not room.recount
    for client in [noisy, *others]:
        events_of(client)
    clock.now += 1
    told = [room.rename(noisy, str(number)) for number in range(10_000)]
    assert [len(clients) for clients in told[:100]] == [10] * 100
    # It is told its own name, until too much waits for it.
    assert all(clients in ([], [noisy]) for clients in told[100:])
    for client in others:
        assert [event["name"] for event in [e["member"] for e in events_of(client)]] == [
            str(number) for number in range(100)
        ]
    assert room.recount
    clock.now += 1
    # Until the whole is told nothing is told by itself: it would be out of its order.
    assert room.leave(others.pop()) == []
    events_of(noisy)
    noisy.missed = False
    assert set(room.tell_count()) == {noisy, *others}
    frame = {id(client.personal[-1][1]) for client in others if client.personal}
    assert len(frame) == 1
    (event,) = events_of(others[0])
    assert (event["type"], event["count"]) == ("members", 9)
    assert event["members"][0] == {"id": "c1", "name": "9999"}
    assert len(room.rename(noisy, "z")) == 9 and not room.recount


def test_crowd_hears_no_names(clock: Clock) -> None:
    """Above MAX_NAMED members a rename is told to its own client alone."""
    room: Room[Subscriber] = Room("/r", (0, 0), 1 << 20)
    noisy, other, *_ = [join(room, number) for number in range(1, MAX_NAMED + 3)]
    for client in (noisy, other):
        events_of(client)
    room.recount = False
    assert room.rename(noisy, "ann") == [noisy]
    assert not room.recount
    (event,) = events_of(noisy)
    assert (event["type"], event["member"]["name"]) == ("rename", "ann")
    assert events_of(other) == []
    assert room.leave(other) == [] and room.recount


def test_plain_client_that_renames_is_told_nothing(clock: Clock) -> None:
    """It has no words for it."""
    room: Room[Subscriber] = Room("/r", (0, 0), 1 << 20)
    plain, watcher = join(room, 1, RAW), join(room, 2)
    assert room.rename(plain, "ann") == [watcher]
    room.recount = True
    assert room.rename(plain, "bob") == []


def test_client_that_was_left_out_in_a_crowd_is_told_the_number(clock: Clock) -> None:
    """A list of a thousand for each that was slow would cost more than what it stands for."""
    room: Room[Subscriber] = Room("/r", (0, 0), 1 << 20)
    first = join(room, 1)
    for number in range(2, MAX_NAMED + 2):
        join(room, number)
    events_of(first)
    first.missed = True
    room.tell_members(first)
    assert events_of(first) == [{"type": "count", "count": MAX_NAMED + 1}]


def test_list_that_was_asked_for_comes_where_changes_never_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its reader would make it again and again otherwise, and use the processor up for that."""
    room: Room[Subscriber] = Room("/r", (0, 0), 1 << 20)
    client = join(room, 1)
    made = 0

    def members(found: Sequence[Member], ref: events.Ref = None) -> bytes:
        nonlocal made
        made += 1
        if not room.lock.locked():
            join(room, 1 + made, RAW)
        return events_members(found, ref)

    events_members = events.members
    monkeypatch.setattr(events, "members", members)
    events_of(client)
    assert room.answer_who(client, 7, 1 << 20)
    *joins, answer = events_of(client)
    assert [event["type"] for event in joins] == ["join"] * LIST_TRIES
    assert (answer["ref"], answer["count"], made) == (7, 1 + LIST_TRIES, LIST_TRIES + 1)
