"""Sessions: who may come back as the client that it was, and for how long."""

from __future__ import annotations

import pytest

from broadcast_server.hub import sessions
from broadcast_server.hub.sessions import Sessions

from ..support.inside import sessions_in


class ManualClock:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_token_gives_the_number_back_in_its_room_only() -> None:
    """While the connection lives, as for a half-dead one that is to be replaced, and after."""
    found = Sessions(ManualClock())
    first = found.open(None, 7, "/a")
    found.take(first, "ann")
    assert found.open(first.token, 8, "/a") is first
    assert (first.number, first.name) == (7, "ann")
    assert found.open(first.token, 8, "/b").number == 8
    assert found.open("no such token", 9, "/a").number == 9
    found.leave(first)
    assert found.open(first.token, 8, "/a") is first


def test_token_is_no_good_to_another_user() -> None:
    """Whose name is fixed can be followed by nobody else, and takes over nobody without one."""
    found = Sessions(ManualClock())
    ann = found.open(None, 7, "/a", "ann")
    found.take(ann, "ann")
    assert found.open(ann.token, 8, "/a", "ann") is ann
    assert found.open(ann.token, 8, "/a", "bob").number == 8
    assert found.open(ann.token, 9, "/a").number == 9
    guest = found.open(None, 10, "/a")
    found.take(guest, "ann")
    assert found.open(guest.token, 11, "/a", "ann").number == 11


def test_session_ends_ten_minutes_after_its_last_connection() -> None:
    """Not after that of a predecessor whose place was taken, whichever of both comes here first."""
    clock = ManualClock()
    found = Sessions(clock)
    session = found.open(None, 7, "/a")
    found.take(session, None)
    found.take(session, None)
    found.leave(session)
    clock.now = 10_000.0
    assert found.open(session.token, 8, "/a") is session
    found.leave(session)
    clock.now += sessions.KEEP_SECONDS - 1
    assert found.open(session.token, 8, "/a") is session
    clock.now += 1
    assert found.open(session.token, 8, "/a").number == 8


def test_session_that_nobody_takes_is_not_kept() -> None:
    """Whoever is refused after it was opened must not heap up sessions that nobody can end."""
    found = Sessions(ManualClock())
    session = found.open(None, 7, "/a")
    assert not sessions_in(found)
    found.take(session, "ann")
    assert found.open(session.token, 8, "/a") is session
    found.rename(session, "anna")
    assert session.name == "anna"


def test_those_that_have_left_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that left first goes first; whoever is here stays."""
    monkeypatch.setattr(sessions, "MAX_LEFT", 3)
    found = Sessions(ManualClock())
    here = found.open(None, 1, "/a")
    found.take(here, None)
    left = []
    for number in range(2, 7):
        session = found.open(None, number, "/a")
        found.take(session, None)
        found.leave(session)
        left.append(session)
    known = [found.open(session.token, 99, "/a").number for session in left]
    assert known == [99, 99, 4, 5, 6]
    assert found.open(here.token, 99, "/a") is here
