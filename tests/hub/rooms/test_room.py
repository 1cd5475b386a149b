"""Rooms: the log's positions, its trimming and back-pressure."""

from __future__ import annotations

import threading
import time

import pytest

from broadcast_server.errors import HubBusy
from broadcast_server.hub.rooms.encodings import JSON, SSE, SSE_JSON
from broadcast_server.hub.rooms.entries import ENTRY_BYTES, Draft, Entry, cost_of
from broadcast_server.hub.rooms.room import GATE_BYTES, Reservation, Room
from broadcast_server.hub.rooms.subscriber import Subscriber
from broadcast_server.hub.rooms.waiters import Gate

from ...support import wait_until
from ...support.beside import during
from ...support.inside import reserved_bytes
from ...support.rooms import RING, client, drafts, never, publish, room

SECONDS = 10.0


# -- Members and where they begin --------------------------------------------------------------


def test_member_begins_at_the_head() -> None:
    """What was said before is not for it."""
    r = room()
    publish(r, drafts(3), 10)
    c = client()
    assert r.join(c, 0, None)
    assert c.cursor == r.head == 3
    assert [member.id for member in r.member_list()] == ["c1"]


@pytest.mark.parametrize(("history", "cursor"), [(0, 5), (1, 4), (5, 0), (99, 0)])
def test_history_begins_so_many_messages_back(history: int, cursor: int) -> None:
    """As many as are held, at most."""
    r = room()
    publish(r, drafts(5), 10)
    c = client()
    r.join(c, history, None)
    assert c.cursor == cursor


@pytest.mark.parametrize(
    ("since", "cursor"),
    [((5, 0), 0), ((9, 99), 0), ((10, 0), 1), ((10, 1), 2), ((10, 2), 3), ((11, 0), 3)],
)  # fmt: skip
def test_since_begins_behind_an_id(since: tuple[int, int], cursor: int) -> None:
    """Exactly what comes after it; everything since the room began is there."""
    r = room()
    publish(r, drafts(3), 10)
    c = client()
    assert r.join(c, 0, since)
    assert c.cursor == cursor


def test_id_before_the_cursor_is_noted_before_the_log_can_lose_it() -> None:
    """Who is trimmed away before it was handed over is told where it really stands."""
    r = room()
    publish(r, drafts(3), 10)
    c = client()
    r.join(c, 2, None)
    r.mark_offered(3)
    r.trim(2)
    assert c.joined_after == (10, 0)
    assert r.id_before(c.cursor) == (10, 1)


def test_since_before_what_is_held_is_refused() -> None:
    """Before the room began, and before what was trimmed: never silence."""
    r = room()
    with pytest.raises(LookupError):
        r.join(client(), 0, (4, 9))
    publish(r, drafts(3), 10)
    r.mark_offered(3)
    r.trim(2)
    with pytest.raises(LookupError):
        r.join(client(), 0, (10, 0))
    c = client()
    assert r.join(c, 0, (10, 1))
    assert c.cursor == 2
    r.join(c, 99, None)
    assert c.cursor == 2


def test_client_that_was_told_to_go_is_no_member() -> None:
    """Its Close may be queued before it comes; it reads up to it, but is not in the list."""
    r, c = room(), client()
    c.closing = True
    assert r.join(c, 0, None)
    assert r.member_list() == []


def test_closed_room_takes_nobody() -> None:
    """It was dropped: the caller opens it anew."""
    r = room()
    r.closed = True
    assert not r.join(client(), 0, None)
    assert not r.reserve(1, None, never)


# -- Back-pressure -----------------------------------------------------------------------------


def fill(r: Room) -> int:
    """Publish until the next one would wait; return how many messages it took."""
    count = 0
    while True:
        try:
            reserved = r.reserve(cost_of(drafts(1)), time.monotonic() - 1, never)
        except HubBusy:
            return count
        assert reserved
        r.append(drafts(1), 10 + count, 0)
        count += 1


def test_publisher_pauses_above_a_quarter_of_the_ring() -> None:
    """Counted with what each entry costs, and at most one batch above it."""
    r = room()
    count = fill(r)
    cost = 10 + ENTRY_BYTES
    assert (count - 1) * cost <= RING // 4 < count * cost
    assert r.held_bytes() == count * cost
    # Nothing of it was offered to anybody yet.
    assert r.sizes() == (count * cost, count * cost)
    r.mark_offered(count - 1)
    assert r.sizes() == (count * cost, cost)


def test_publisher_goes_on_below_an_eighth() -> None:
    """Not before: otherwise it would stop and go for each message."""
    r = room()
    count = fill(r)
    cost = 10 + ENTRY_BYTES
    enough = count - RING // 8 // cost
    r.mark_offered(enough - 1)
    with pytest.raises(HubBusy):
        r.reserve(cost, time.monotonic() - 1, never)
    r.mark_offered(enough + 1)
    assert r.reserve(cost, time.monotonic() - 1, never)


def test_waiting_publisher_is_woken() -> None:
    """By the fan-out, through mark_offered()."""
    r = room()
    count = fill(r)
    done: list[bool] = []
    waiting = threading.Thread(target=lambda: done.append(r.reserve(1, None, never)))
    waiting.start()
    r.mark_offered(count)
    waiting.join(SECONDS)
    assert done == [True]


def test_waiting_publisher_gives_up() -> None:
    """Its client has gone: asked while it waits, although nobody wakes it."""
    r = room()
    fill(r)
    gone = threading.Event()
    done: list[bool] = []
    waiting = threading.Thread(target=lambda: done.append(r.reserve(1, None, gone.is_set)))
    waiting.start()
    gone.set()
    waiting.join(SECONDS)
    assert done == [False]


def test_batch_of_who_is_no_member_is_not_appended() -> None:
    """Nobody hears of it after they were told that its sender has left; its place stays reserved
    until it is given back."""
    r = room()
    c = client(7)
    assert r.join(c, 0, None)
    batch = [Draft(7, bytes(10)), Draft(7, bytes(20))]
    assert r.reserve(cost_of(batch), None, never)
    assert r.append(batch, 10, 1)
    assert r.reserve(cost_of(batch), None, never)
    r.leave(c)
    assert not r.append(batch, 10, 3)
    assert (r.head, reserved_bytes(r)) == (2, cost_of(batch))
    r.release(cost_of(batch))
    assert reserved_bytes(r) == 0
    publish(r, drafts(1), 11)  # of nobody: of the program, or over HTTP
    assert r.head == 3


def test_publishers_together_overshoot_by_one_batch() -> None:
    """A place is reserved before it is filled, so that they cannot all see the same gap."""
    r = room()
    batch = cost_of(drafts(20))
    taken = 0
    while True:
        try:
            r.reserve(batch, time.monotonic() - 1, never)
        except HubBusy:
            break
        taken += 1
    assert (taken - 1) * batch <= RING // 4 < taken * batch
    for _ in range(taken):
        r.release(batch)
    assert r.reserve(batch, time.monotonic() - 1, never)


# -- Trimming ----------------------------------------------------------------------------------


def test_trim_keeps_as_much_as_fits() -> None:
    """Never more than asked for, never less than needed; positions and ids stay true."""
    r = room(1 << 30)
    for number in range(100):
        publish(r, drafts(1, size=number), 10 + number)
    r.mark_offered(100)
    cost = r.cost
    for limit in (cost, cost - 1, cost // 2, 1000, 400):
        base = r.trim_target(limit)
        kept = r.entries(base, 100)
        one_more = r.entries(base - 1, 100) if base > r.base else []
        assert sum(len(e.frame) + ENTRY_BYTES for e in kept) <= limit
        assert not one_more or sum(len(e.frame) + ENTRY_BYTES for e in one_more) > limit
        r.trim(base)
        assert r.base == base and r.head == 100
        assert [e.ms for e in r.entries(base, 100)] == [10 + n for n in range(base, 100)]
        assert r.id_before(base) == ((10 + base - 1, 0) if base else (5, 0))
    assert r.id_before(100) == (109, 0)


def test_trim_stops_at_what_was_not_offered_and_at_the_newest() -> None:
    """Nothing is lost that nobody has got; the newest message is always held."""
    r = room(1 << 30)
    publish(r, drafts(10), 10)
    assert r.trim_target(0) == 0
    r.mark_offered(4)
    assert r.trim_target(0) == 4
    r.mark_offered(10)
    assert r.trim_target(0) == 9
    r.trim(9)
    assert r.trim_target(0) == 9
    r.trim(9)
    assert (r.base, r.head, len(r.entries(9, 10))) == (9, 10, 1)


def test_newest_goes_where_all_logs_are_too_large() -> None:
    """Its id is known, so that who has got it misses nothing."""
    r = room(1 << 30)
    publish(r, drafts(3), 10)
    assert r.trim_target(0, keep_newest=False) == 0
    r.mark_offered(3)
    assert r.trim_target(0, keep_newest=False) == 3
    newest = r.id_before(3)
    r.trim(3)
    assert (r.cost, r.head, r.id_before(3), r.last(5, None)[0]) == (0, 3, newest, [])
    assert not r.last(0, newest)[3] and r.last(0, (10, 0))[3]
    assert r.lag(0) == 0
    publish(r, drafts(1), 11)
    assert len(r.last(0, newest)[0]) == 1


def test_forms_are_dropped_and_counted() -> None:
    """Those before a position only; what is dropped is no cost any more."""
    r = room(1 << 30)
    publish(r, drafts(4), 10)
    cost = r.cost
    for position, entry in enumerate(r.entries(0, 4)):
        entry.json, entry.sse = b"12345", b"67"
        r.add_forms(JSON, position, 5)
        r.add_forms(SSE, position, 2)
    assert r.drop_forms(JSON, 3)
    assert r.cost == cost + 5 + 8
    assert [e.json for e in r.entries(0, 4)] == [None] * 3 + [b"12345"]
    assert not r.drop_forms(JSON, 3) and not r.drop_forms(JSON, -1)
    assert r.drop_forms(JSON, 4) and not r.drop_forms(JSON, 4)
    assert not r.drop_forms(SSE_JSON, 4)
    assert r.drop_forms(SSE, 4) and r.cost == cost


def test_forms_are_looked_for_where_some_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not through the whole log again for each message: that is as long as strangers like."""
    r = room(1 << 30)
    publish(r, drafts(1000), 10)
    looks: list[Entry] = []
    drop_form = Entry.drop_form

    def look(entry: Entry, slot: str) -> int:
        looks.append(entry)
        return drop_form(entry, slot)

    def make(position: int) -> None:
        (entry,) = r.entries(position, position + 1)
        entry.json = b"12345"
        r.add_forms(JSON, position, 5)

    monkeypatch.setattr(Entry, "drop_form", look)
    make(999)
    assert not r.drop_forms(JSON, 999) and r.forms_bytes == 5
    assert r.drop_forms(JSON, 1000) and r.forms_bytes == 0
    assert len(looks) == 1
    # Who reads from far back has some made there again.
    make(3)
    r.mark_offered(1000)
    r.trim(2)
    make(500)
    assert r.drop_forms(JSON, 1000) and r.forms_bytes == 0
    assert all(entry.json is None for entry in r.entries(2, 1000))


def test_lag_counts_what_was_offered_and_not_taken() -> None:
    """The fan-out's own delay is nobody's lag, and what was trimmed is lost, not late."""
    r = room(1 << 30)
    publish(r, drafts(10), 10)
    cost = 10 + ENTRY_BYTES
    assert r.lag(0) == 0
    r.mark_offered(6)
    assert r.lag(2) == 4 * cost
    assert r.lag(6) == 0
    r.trim(4)
    assert r.lag(2) == 2 * cost


def test_stop_within_takes_at_least_one() -> None:
    """And as many as fit into the bytes, also after trimming."""
    r = room(1 << 30)
    publish(r, drafts(10, size=100), 10)
    assert r.stop_within(0, 10, 1000) == 10
    assert r.stop_within(0, 10, 999) == 9
    assert r.stop_within(3, 10, 50) == 4
    r.mark_offered(10)
    r.trim(5)
    assert r.stop_within(5, 10, 200) == 7
    assert r.stop_within(6, 7, 1000) == 7


# -- What is reserved --------------------------------------------------------------------------


def test_reservation_knows_what_of_it_is_still_to_be_given_back() -> None:
    """A publisher that was interrupted looks there; see ``test_ctrl_c``."""
    r = room()
    used, unused = Reservation(), Reservation()
    batch = drafts(1)
    for reservation in (used, unused):
        assert reservation.room is None
        assert r.reserve(cost_of(batch), None, never, reservation)
        assert (reservation.room, reservation.path, reservation.cost) == (r, "/r", cost_of(batch))
    assert used.append(batch, 10, 1)
    assert (used.cost, unused.cost, reserved_bytes(r)) == (0, cost_of(batch), cost_of(batch))
    for _ in range(2):
        unused.release(unused.cost)
        assert (unused.cost, reserved_bytes(r)) == (0, 0)


def test_large_messages_wait_at_the_gate_and_small_ones_do_not() -> None:
    """In whatever room; who waits goes on when it is opened."""
    gate = Gate()
    rooms = [Room[Subscriber](path, (5, 0), 1 << 24, gate=gate) for path in ("/a", "/b")]
    gate.set(True)
    for r in rooms:
        assert r.reserve(GATE_BYTES, None, never)
        assert not r.reserve(GATE_BYTES + 1, None, lambda: True)
        with pytest.raises(HubBusy):
            r.reserve(GATE_BYTES + 1, time.monotonic(), never)
    with during(lambda: rooms[1].reserve(GATE_BYTES + 1, None, never)) as found:
        assert wait_until(lambda: bool(gate.opened))
        assert not found
        gate.set(False)
    assert found == [True]
