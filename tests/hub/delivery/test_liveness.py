"""Heartbeats and deadlines, with a clock that the test turns."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.delivery.liveness import LAST_LOOK_SECONDS, Liveness, latest_ping
from broadcast_server.hub.delivery.timers import NEVER, Timers
from broadcast_server.hub.rooms.room import Room
from broadcast_server.messages import Member
from broadcast_server.settings import Settings

SETTINGS = Settings(ping_interval=20, ping_timeout=8, write_timeout=5)


class Writer:
    """Notes what liveness asks for."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def attend(self, connection: Connection) -> None:
        self.done.append("attend")

    def drop(self, connection: Connection) -> None:
        self.done.append("drop")

    def evict(self, connection: Connection, code: int, reason: str, *, blamed: bool = True) -> None:
        self.done.append((code, reason) if blamed else (code, reason, "not blamed"))

    def evict_slow(self, connection: Connection) -> None:
        self.done.append("slow")


class Case:
    """One client whose reader has waited since 1000.0."""

    def __init__(
        self, ours: socket.socket, theirs: socket.socket, settings: Settings = SETTINGS
    ) -> None:
        self.theirs = theirs
        self.timers = Timers()
        self.writer = Writer()
        writer: Any = self.writer
        self.liveness = Liveness(settings, self.timers, writer)
        member = Member("c1", None, "/", "x")
        room = Room("/", (0, 0), 1 << 20)
        self.client = Connection(1, member, room, ours, echo=False)
        self.client.waiting = True
        self.client.quiet_since = 1000.0

    def check(self, now: float) -> float:
        """Look at the client as the fan-out does when its time has come; return when again."""
        self.client.due = NEVER
        self.liveness.check(self.client, now)
        return self.client.due


@pytest.fixture
def case() -> Iterator[Case]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Case(ours, theirs)


def test_first_ping_is_due_within_the_promised_span(case: Case) -> None:
    """Spread, so that clients that came together are not pinged together."""
    dues = set()
    for _ in range(50):
        case.client.due = NEVER
        case.liveness.begin(case.client)
        dues.add(case.client.due)
    assert 1020 <= min(dues) < max(dues) <= 1000 + latest_ping(SETTINGS) == 1025


def test_client_whose_token_ends_first_is_looked_at_then(case: Case) -> None:
    """Not a ping later: at the second of its end it is told to go, whatever else there is."""
    case.client.expires = 1007.5
    case.liveness.begin(case.client)
    assert case.client.due == 1007.5
    assert case.check(1007.4) == 1007.5
    assert case.writer.done == []
    case.client.waiting = False
    case.client.blocked = True
    case.client.blocked_since = 1007.0
    assert case.check(1007.5) == NEVER
    assert case.writer.done == [(1008, "token expired", "not blamed")]


def test_quiet_client_is_pinged_and_given_time(case: Case) -> None:
    """One ping, then the time-out; not a second ping."""
    assert case.check(1020.0) == 1028.0
    assert (case.client.pinged, case.writer.done) == (1020.0, ["attend"])
    assert case.client.urgent == [b"\x89\x00"]
    assert case.check(1024.0) == 1028.0
    assert case.writer.done == ["attend"]


# Interval, time-out, and after how many seconds the client answers.
TIMES = [(1, 6, 0.0), (1, 6, 0.4), (1, 6, 1.0), (1, 6, 4.7), (3, 4, 3.5), (6, 1, 0.5), (5, 5, 2.0)]


@pytest.mark.parametrize(("interval", "timeout", "answers_after"), TIMES)
def test_client_that_answers_is_pinged_an_interval_after_its_answer(
    interval: float, timeout: float, answers_after: float
) -> None:
    """Whatever the time-out is: a proxy drops a connection on which nothing passes for longer."""
    with_timeout = Settings(ping_interval=interval, ping_timeout=timeout)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        case = Case(ours, theirs, with_timeout)
        case.liveness.begin(case.client)
        for _ in range(20):
            quiet_since, answered = case.client.quiet_since, case.client.pinged
            while case.client.pinged == answered:
                case.check(case.client.due)
            assert interval <= case.client.pinged - quiet_since <= latest_ping(with_timeout)
            answer_at = case.client.pinged + answers_after
            while case.client.due <= answer_at:
                case.check(case.client.due)
            case.client.quiet_since = answer_at + 0.001
    assert set(case.writer.done) == {"attend"}


@pytest.mark.parametrize(("interval", "timeout", "answers_after"), TIMES)
def test_client_that_stops_to_answer_is_evicted_within_the_promised_time(
    interval: float, timeout: float, answers_after: float
) -> None:
    """Counted from its last answer, as docs/topics/reliability.md does."""
    with_timeout = Settings(ping_interval=interval, ping_timeout=timeout)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        case = Case(ours, theirs, with_timeout)
        case.check(1000.0 + interval)
        last = 1000.0 + interval + answers_after
        while case.client.due <= last:
            case.check(case.client.due)
        case.client.quiet_since = last + 0.001
        now = last
        while case.client.due != NEVER:
            now = case.client.due
            case.check(now)
    assert case.writer.done == ["attend", "attend", (1011, "ping timeout")]
    bound = latest_ping(with_timeout) + timeout + LAST_LOOK_SECONDS
    assert interval + timeout <= now - last <= bound + 0.001


def test_client_that_does_not_answer_is_evicted(case: Case) -> None:
    """1011, since it may still be there and learn why."""
    case.check(1020.0)
    again = case.check(1028.0)
    assert again == 1028.0 + LAST_LOOK_SECONDS
    assert case.check(again) == NEVER
    assert case.writer.done == ["attend", (1011, "ping timeout")]


def test_answer_that_its_reader_has_but_did_not_get_to_note_counts(case: Case) -> None:
    """The thread has returned from ``recv`` and waits for the interpreter: two looks that far apart
    leave it time to run, also after the whole process was stopped for longer than the time-out."""
    case.check(1020.0)
    again = case.check(1100.0)
    assert case.writer.done == ["attend"]
    case.client.quiet_since = 1100.1
    assert 1120.1 <= case.check(again) <= 1125.1
    assert case.check(1125.2) == 1133.2
    assert case.check(1133.2) == 1133.2 + LAST_LOOK_SECONDS
    assert case.writer.done == ["attend", "attend"]


def test_answer_that_nobody_has_read_yet_counts(case: Case) -> None:
    """The reader's thread has not run: that is not the client's fault."""
    case.check(1020.0)
    case.theirs.sendall(b"\x8a\x80....")
    assert case.check(1028.0) == 1048.0
    assert case.writer.done == ["attend"]


def test_any_byte_is_life(case: Case) -> None:
    """A client that talks is not pinged."""
    case.client.quiet_since = 1015.0
    assert 1035.0 <= case.check(1020.0) <= 1040.0
    assert case.writer.done == []


@pytest.mark.parametrize("held", ["reader", "blocked"])
def test_clock_stands_still_while_the_hub_holds_the_client_back(case: Case, held: str) -> None:
    """Back-pressure, its rate, a callback: not dead. Nor can a full socket take a ping."""
    case.client.waiting = held != "reader"
    if held == "blocked":
        case.client.blocked = True
        case.client.blocked_since = 1990.0
    due = case.check(1990.0)
    assert due == (2010.0 if held == "reader" else 1995.0)
    assert case.writer.done == []


def test_client_that_takes_no_byte_is_evicted(case: Case) -> None:
    """After write_timeout, counted from the last byte that it took."""
    case.client.blocked = True
    case.client.blocked_since = 1010.0
    assert case.check(1014.9) == 1015.0
    case.check(1015.0)
    assert case.writer.done == ["slow"]


def test_deadline_is_kept_and_only_the_deadline(case: Case) -> None:
    """Who is being closed is not pinged any more; in the end it is cut off."""
    case.client.deadline = 1100.0
    assert case.check(1050.0) == 1100.0
    assert case.writer.done == []
    case.check(1100.0)
    assert case.writer.done == ["drop"]


def test_dropped_client_has_no_more_appointments(case: Case) -> None:
    """It is gone."""
    case.client.dropped = True
    assert case.check(5000.0) == NEVER
    assert case.writer.done == []
