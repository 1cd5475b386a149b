"""Places for large messages that are still coming in."""

from __future__ import annotations

import threading
import types

import pytest

from broadcast_server.hub import incoming
from broadcast_server.hub.incoming import Arrival, Incoming

from ..support import wait_until
from ..support.beside import SECONDS

MIB = 1024 * 1024


def take(places: Incoming, size: int, owner: str) -> Arrival | None:
    """Take a place if there is one."""
    return places.take(size, owner, lambda: True)


def test_all_have_a_bound_and_each_sender_a_share() -> None:
    """What is given back can be taken again."""
    places = Incoming(MIB, 10)
    mine = [take(places, MIB, "a") for _ in range(6)]
    assert None not in mine and take(places, 1, "a") is None
    others = [take(places, MIB, name) for name in "bcd" for _ in range(6)]
    assert None not in others and places.used == 24 * MIB
    assert take(places, 1, "e") is None
    first = mine[0]
    assert first is not None
    places.give(first)
    places.give(first)
    assert take(places, MIB, "e") is not None and places.used == 24 * MIB


def test_message_that_is_allowed_has_a_place() -> None:
    """Four of the largest, whatever --max-message-bytes says."""
    places = Incoming(100 * MIB, 10)
    assert None not in [take(places, 100 * MIB, name) for name in "abcd"]
    assert take(places, 1, "e") is None


class Waiter:
    """A thread that waits for a place."""

    def __init__(self, places: Incoming, size: int, owner: str) -> None:
        self.found: list[Arrival | None] = []
        self.tired = threading.Event()
        self.looks = 0

        def given_up() -> bool:
            self.looks += 1
            return self.tired.is_set()

        def wait() -> None:
            self.found.append(places.take(size, owner, given_up))

        self.thread = threading.Thread(target=wait)
        self.thread.start()

    def end(self) -> Arrival | None:
        """Return what it has got."""
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()
        return self.found[0]


class Part:
    """A message that is being received."""

    def __init__(self, places: Incoming, came: int = 0) -> None:
        self.places = places
        self.came = came
        self.told: list[Arrival] = []

    def received(self) -> int:
        """It does not come any further by itself."""
        return self.came

    def give_way(self, arrival: Arrival) -> None:
        """As a reader does."""
        self.told.append(arrival)
        self.places.give(arrival)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test turns."""
    now = [1000.0]
    monkeypatch.setattr(incoming, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_late_messages_give_way_while_others_wait(clock: list[float]) -> None:
    """The oldest first, once each; the waiting threads go on."""
    places = Incoming(MIB, 10)
    parts = [Part(places) for _ in range(6)]
    arrivals = [places.take(MIB, "a", lambda: True, message=part) for part in parts]
    clock[0] += 5
    assert not any(part.told for part in parts)
    waiters = [Waiter(places, MIB, "a") for _ in range(3)]
    assert all(waiter.end() is not None for waiter in waiters)
    assert [part.told for part in parts[:3]] == [[arrival] for arrival in arrivals[:3]]
    assert not any(part.told for part in parts[3:]) and places.hurried == 3


@pytest.mark.parametrize(
    ("size", "elapsed", "came", "late"),
    [
        (6 * MIB, 1.9, 0, False),
        (6 * MIB, 2.0, 0, True),
        (6 * MIB, 5.0, 3 * MIB, False),
        (6 * MIB, 5.0, 3 * MIB - 1, True),
        (100 * MIB, 50.0, 50 * MIB, False),
        (100 * MIB, 50.0, 50 * MIB - 1, True),
    ],
)
def test_message_has_ten_seconds_or_one_for_each_mib(
    clock: list[float], size: int, elapsed: float, came: int, late: bool
) -> None:
    """In each moment that part of it must be there, but in the first two seconds."""
    places = Incoming(100 * MIB, 10)
    part = Part(places, came)
    places.take(size, "a", lambda: True, message=part)
    places.take(100 * MIB - size, "a", lambda: True)
    clock[0] += elapsed
    waiter = Waiter(places, MIB, "a")
    if late:
        assert waiter.end() is not None and len(part.told) == 1
    else:
        assert wait_until(lambda: waiter.looks > 1) and part.told == []
        waiter.tired.set()
        places.wake()
        assert waiter.end() is None


def test_only_own_messages_help_who_has_no_share_left(clock: list[float]) -> None:
    """Also where all places are taken: nothing is gained by ending those of others."""
    places = Incoming(6 * MIB, 10)
    others = [Part(places) for _ in range(3)]
    for name, part in zip("bcd", others, strict=True):
        assert places.take(6 * MIB, name, lambda: True, message=part)
    clock[0] += 5
    assert places.take(6 * MIB, "a", lambda: True)
    waiter = Waiter(places, MIB, "a")
    assert wait_until(lambda: waiter.looks > 1) and not any(part.told for part in others)
    waiter.tired.set()
    places.wake()
    assert waiter.end() is None
    stranger = Waiter(places, MIB, "e")
    assert stranger.end() is not None
    assert [len(part.told) for part in others] == [1, 0, 0]


def test_message_that_cannot_give_way_hurts_nobody(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and not tried again."""

    class Broken(Part):
        def give_way(self, arrival: Arrival) -> None:
            raise RuntimeError("a fault")

    places = Incoming(6 * MIB, 10)
    assert places.take(6 * MIB, "a", lambda: True, message=Broken(places))
    clock[0] += 5
    waiter = Waiter(places, MIB, "a")
    assert wait_until(lambda: waiter.looks > 1)
    waiter.tired.set()
    places.wake()
    assert waiter.end() is None
    assert caplog.text.count("RuntimeError: a fault") == 1
