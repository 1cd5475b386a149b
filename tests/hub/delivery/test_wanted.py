"""Which large form is made next."""

from __future__ import annotations

from collections import Counter

import pytest

from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.delivery.wanted import Wanted
from broadcast_server.hub.rooms.encodings import JSON, SSE
from broadcast_server.hub.rooms.room import Room

from ...support.fanout_bench import Bench, Clock, read_all
from ...support.inside import replace_pass


def test_rooms_of_one_maker_come_in_order() -> None:
    """The first one that asks is the first one, and what it asks for comes back as it was."""
    wanted: Wanted[str] = Wanted()
    wanted.add("/a", None, 3, JSON)
    wanted.add("/b", None, 1, SSE)
    wanted.add("/c", None, 2, JSON)
    assert len(wanted) == 3
    assert [wanted.pop() for _ in range(3)] == [("/a", 3, JSON), ("/b", 1, SSE), ("/c", 2, JSON)]
    assert len(wanted) == 0


def test_makers_take_turns() -> None:
    """Each gets one before the one with most gets its second, and the rooms of each keep their
    order."""
    wanted: Wanted[str] = Wanted()
    for number in range(3):
        wanted.add(f"/a{number}", "a", 0, JSON)
    wanted.add("/b0", "b", 0, JSON)
    wanted.add("/c0", None, 0, JSON)
    wanted.add("/b1", "b", 0, JSON)

    def pop() -> str | None:
        found = wanted.pop()
        return None if found is None else found[0]

    assert [pop() for _ in range(4)] == ["/a0", "/b0", "/c0", "/a1"]
    # One that comes back is behind all others.
    wanted.add("/c1", None, 0, JSON)
    assert [pop() for _ in range(4)] == ["/b1", "/a2", "/c1", None]


def test_room_is_there_once() -> None:
    """One that asks again, for whatever it is, keeps its place and what it has asked for first; it
    can ask again once it has that."""
    wanted: Wanted[str] = Wanted()
    wanted.add("/a", "a", 1, JSON)
    wanted.add("/b", "a", 1, JSON)
    wanted.add("/a", "other", 2, SSE)
    assert len(wanted) == 2
    assert wanted.pop() == ("/a", 1, JSON)
    wanted.add("/a", "a", 2, SSE)
    assert [wanted.pop() for _ in range(3)] == [("/b", 1, JSON), ("/a", 2, SSE), None]


def test_nothing_is_wanted_at_first() -> None:
    """There is nothing to take before anybody has asked, nor after all were served."""
    wanted: Wanted[str] = Wanted()
    assert wanted.pop() is None and len(wanted) == 0
    wanted.add("/a", None, 0, JSON)
    assert wanted.pop() is not None
    assert wanted.pop() is None and len(wanted) == 0


def test_stranger_with_many_rooms_delays_others_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large forms of many rooms of one maker: the one of somebody else is made next, and no room
    gets a pass for each form that is made elsewhere."""
    Clock(monkeypatch)  # nobody looks again because time has passed
    paths = [f"/{number}" for number in range(100)]
    with Bench() as bench:
        for path in paths:
            bench.member(path, JSON, maker="stranger")
        client, theirs = bench.member("/other", JSON, maker="other")
        passes: Counter[str] = Counter()

        def one_pass(room: Room[Connection]) -> bool:
            passes[room.path] += 1
            return real(room)

        real = replace_pass(monkeypatch, bench.fanout, one_pass)
        for path in paths:
            bench.say("x" * 50_000, path)
        bench.turns()
        bench.say("y" * 50_000, "/other")
        turns = 0
        while not client.room.offered:
            bench.turns()
            turns += 1
            assert turns <= 40
        assert len(read_all(theirs)) > 50_000
        while not all(bench.rooms.open(path).offered for path in paths):
            bench.turns()
            turns += 1
            assert turns <= 1000
        # At first, once when who waits is fed, when its form is begun, and when it is there.
        assert max(passes[path] for path in [*paths, "/other"]) <= 4
