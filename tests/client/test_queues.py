"""What waits in a client, in both directions: bounds, order, and what goes out again."""

from __future__ import annotations

import datetime
import sys
import threading

import pytest

from broadcast_server.client import queues
from broadcast_server.client.queues import (
    BATCH_BYTES,
    ENTRY_BYTES,
    MEMBER_BYTES,
    Inbox,
    Outbox,
    Outgoing,
    held_bytes,
)
from broadcast_server.messages import Gap, Member, Message, Presence
from broadcast_server.wire.frames import TEXT

SECONDS = 10.0


def frame(number: int, ref: int | None = None, size: int = 10) -> Outgoing:
    return Outgoing(TEXT, str(number).encode().ljust(size), ref)


def gap(number: int) -> Gap:
    return Gap("trimmed", "1-0", f"{number}-0")


def test_inbox_counts_what_it_holds() -> None:
    """First in, first out; an item costs its bytes and a little more."""
    lock = threading.Lock()
    inbox = Inbox(lock)
    with lock:
        for number in range(3):
            inbox.put_locked(gap(number), 100)
        assert (len(inbox), inbox.bytes) == (3, 3 * (100 + ENTRY_BYTES))
        assert [inbox.get_locked() for _ in range(3)] == [gap(number) for number in range(3)]
        assert (len(inbox), inbox.bytes, inbox.taken) == (0, 0, 3)


def test_full_inbox_holds_the_reader_up_until_one_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For how long nobody has received can be asked meanwhile."""
    monkeypatch.setattr(queues, "READ_AHEAD_BYTES", 1000)
    lock = threading.Lock()
    inbox = Inbox(lock)

    def fill() -> None:
        with lock:
            inbox.put_locked(gap(1), 1000)
            inbox.put_locked(gap(2), 1000)

    reader = threading.Thread(target=fill)
    with lock:
        assert inbox.stalled_seconds() == 0
    reader.start()
    waiting = threading.Event()
    while not waiting.wait(0.001):
        with lock:
            if inbox.stalled_seconds() > 0:
                waiting.set()
    with lock:
        assert (len(inbox), inbox.full) == (1, True)
        assert inbox.get_locked() == gap(1)
    reader.join(SECONDS)
    with lock:
        assert (len(inbox), inbox.stalled_seconds()) == (1, 0)


def test_inbox_that_nobody_empties_any_more_throws_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that waits is let go; what fits is still kept."""
    monkeypatch.setattr(queues, "READ_AHEAD_BYTES", 1000)
    lock = threading.Lock()
    inbox = Inbox(lock)
    with lock:
        inbox.put_locked(gap(1), 1000)
        inbox.discard_locked()
        inbox.put_locked(gap(2), 1)
        assert inbox.get_locked() == gap(1)
        inbox.put_locked(gap(3), 1)
        assert inbox.get_locked() == gap(3)
        assert inbox.stalled_seconds() == 0


def test_outbox_frees_what_needs_no_answer_when_it_is_sent() -> None:
    """And the rest when it is answered, in any order, once."""
    lock = threading.Lock()
    outbox = Outbox(lock)
    with lock:
        for item in (frame(0), frame(1, 1), frame(2, 2)):
            outbox.put_locked(item)
        cost = 10 + ENTRY_BYTES
        assert outbox.bytes == 3 * cost
        assert outbox.take_locked() == [frame(0), frame(1, 1), frame(2, 2)]
        assert (outbox.bytes, bool(outbox), outbox.pending) == (2 * cost, False, True)
        assert outbox.answered_locked(2) == frame(2, 2)
        for unknown in (2, 7, "x", None):
            assert outbox.answered_locked(unknown) is None
        assert outbox.bytes == cost
        assert outbox.answered_locked(1) == frame(1, 1)
        assert (outbox.bytes, outbox.pending) == (0, False)


def test_outbox_is_sent_in_batches() -> None:
    """Many short ones at once, a long one alone."""
    lock = threading.Lock()
    outbox = Outbox(lock)
    with lock:
        for number in range(3):
            outbox.put_locked(frame(number, number, BATCH_BYTES))
        assert [len(outbox.take_locked()) for _ in range(4)] == [1, 1, 1, 0]


def test_rewound_outbox_begins_with_what_has_no_answer() -> None:
    """In the order of sending; questions and names are left to the new welcome."""
    lock = threading.Lock()
    outbox = Outbox(lock)
    with lock:
        for item in (frame(1, 1), frame(2, 2), frame(3)):
            outbox.put_locked(item)
        outbox.take_locked()
        for item in (frame(4), frame(5, 5)):
            outbox.put_locked(item)
        outbox.answered_locked(1)
        outbox.rewind_locked()
        assert outbox.bytes == 2 * (10 + ENTRY_BYTES)
        assert outbox.take_locked() == [frame(2, 2), frame(5, 5)]
        outbox.clear_locked()
        assert (outbox.bytes, outbox.pending) == (0, False)


def test_what_came_counts_with_what_it_holds() -> None:
    """A text by its widest character, a list by its members; not by its bytes on the wire."""
    now = datetime.datetime.now(datetime.timezone.utc)
    for data, least in (("x" * 1000, 1000), ("x" * 999 + "\U0001f600", 4000), (b"x" * 1000, 1000)):
        held = held_bytes(Message(data, "/r", None, now, None), 1010)
        assert least <= held == sys.getsizeof(data) < least + 100
    members = tuple(Member(f"c{number}", None, "/r", "") for number in range(10))
    assert held_bytes(Presence("members", None, 10, members, None), 300) == 300 + 10 * MEMBER_BYTES
    assert held_bytes(Gap("trimmed", "1-0", "2-0"), 70) == 70
