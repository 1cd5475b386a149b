"""Joined runs of entries: who gets which bytes, and where a client is that took only part."""

from __future__ import annotations

import itertools
import random

import pytest

from broadcast_server.hub.delivery.batches import LogBatch
from broadcast_server.hub.rooms.entries import Entry

A, B, C = 1, 2, 3


def entries_of(*sent: tuple[int, bytes], before: int = 0) -> list[Entry]:
    """Return entries of (origin, frame); ``before`` bytes have gone through the log earlier."""
    entries, end = [], before
    for seq, (origin, frame) in enumerate(sent):
        end += len(frame)
        entries.append(Entry(origin, frame, 1000, seq, end))
    return entries


def batch_of(*sent: tuple[int, bytes]) -> LogBatch:
    return LogBatch(10, entries_of(*sent, before=5000))


def without(batch: LogBatch, origin: int) -> tuple[bytes, int]:
    """Return the bytes that one origin gets, and the number of entries in them."""
    ranges, count = batch.without(origin)
    # Neighbours are one range: each is a part of the sender's send.
    assert all(start < stop for start, stop in ranges)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(ranges))
    return b"".join(batch.data[start:stop] for start, stop in ranges), count


def locate(batch: LogBatch, sent: int, origin: int | None = None) -> tuple[int, bytes | None]:
    """Return where a client is; one with an origin was not offered its own entries."""
    ranges = None if origin is None else batch.without(origin)[0]
    position, rest = batch.locate(sent, ranges)
    return position, None if rest is None else bytes(rest)


def test_single_entry_is_not_copied() -> None:
    """What goes to a thousand clients is the frame in the log itself."""
    (entry,) = entries_of((A, b"frame"))
    batch = LogBatch(7, [entry])
    assert batch.data is entry.frame
    assert (batch.start, batch.stop, batch.count, batch.origins) == (7, 8, 1, {A})


def test_entries_are_joined_in_order() -> None:
    """One object for all clients, with every byte once."""
    batch = batch_of((A, b"aa"), (B, b"bbb"), (A, b"a"), (0, b"00"))
    assert batch.data == b"aabbba00"
    assert (batch.start, batch.stop, batch.count) == (10, 14, 4)
    assert batch.origins == {A, B, 0}


@pytest.mark.parametrize(
    ("sent", "origin", "rest", "count"),
    [
        ([(A, b"aa")], A, b"", 0),
        ([(A, b"aa"), (A, b"a")], A, b"", 0),
        ([(A, b"aa"), (B, b"bbb")], A, b"bbb", 1),
        ([(A, b"aa"), (B, b"bbb")], B, b"aa", 1),
        ([(A, b"aa"), (B, b"bbb"), (A, b"a")], A, b"bbb", 1),
        ([(B, b"b"), (A, b"aa"), (A, b"a"), (B, b"bbb"), (C, b"c")], A, b"bbbbc", 3),
        ([(B, b"b"), (A, b"aa"), (B, b"bbb")], B, b"aa", 1),
        ([(0, b"hub"), (A, b"aa")], A, b"hub", 1),
    ],
)
def test_sender_gets_what_is_not_its_own(
    sent: list[tuple[int, bytes]], origin: int, rest: bytes, count: int
) -> None:
    """Its own messages are left out wherever they stand; asking again gives the same."""
    batch = batch_of(*sent)
    assert without(batch, origin) == (rest, count)
    assert without(batch, origin) == (rest, count)


def test_nothing_sent_is_the_batch_from_its_start() -> None:
    """A client whose socket took nothing is where it was."""
    batch = batch_of((A, b"aa"), (B, b"bbb"))
    assert locate(batch, 0) == (10, None)
    assert locate(batch, 0, B) == (10, None)


@pytest.mark.parametrize(
    ("sent", "position", "rest"),
    [
        (1, 11, b"a"),
        (2, 11, None),
        (3, 12, b"bb"),
        (4, 12, b"b"),
        (5, 12, None),
        (6, 13, None),
    ],
)
def test_client_that_took_part_is_located(sent: int, position: int, rest: bytes | None) -> None:
    """Inside a frame the rest of it is kept; at a boundary nothing is."""
    entries = entries_of((A, b"aa"), (B, b"bbb"), (A, b"c"), before=77)
    batch = LogBatch(10, entries)
    assert locate(batch, sent) == (position, rest)
    view = batch.locate(sent, None)[1]
    assert view is None or view.obj is entries[position - 11].frame  # pinned, not copied


def test_sender_that_took_part_is_located_behind_its_own() -> None:
    """The bytes counted are those that it was offered; what it is not sent is skipped later."""
    batch = batch_of((A, b"a1"), (B, b"b1"), (A, b"a2"), (C, b"c1"), (A, b"a3"))
    assert [locate(batch, sent, A) for sent in range(1, 5)] == [
        (12, b"1"),
        (12, None),
        (14, b"1"),
        (14, None),
    ]


def test_others_are_counted_up_to_a_position() -> None:
    """For the counters: how many messages of a part of the batch were not the client's own."""
    batch = batch_of((A, b"1"), (B, b"2"), (A, b"3"), (C, b"4"))
    assert [batch.count_others(stop, A) for stop in range(10, 15)] == [0, 0, 1, 1, 2]
    assert batch.count_others(14, -1) == 4


@pytest.mark.parametrize("seed", range(20))
def test_any_batch_in_any_parts(seed: int) -> None:
    """However little a client takes at a time, in the end it has each foreign frame once, whole."""
    rng = random.Random(seed)
    sent = [
        (rng.choice([0, A, B, C]), rng.randbytes(rng.randrange(2, 9)))
        for _ in range(rng.randrange(1, 20))
    ]
    entries = entries_of(*sent, before=rng.randrange(1000))
    for client in (-1, A, B, C):
        expected = b"".join(entry.frame for entry in entries if entry.origin != client)
        got, counted, cursor = b"", 0, 0
        while cursor < len(entries):
            batch = LogBatch(cursor, entries[cursor:])
            ranges, offered, count = None, batch.data, batch.count
            if client in batch.origins:
                ranges, count = batch.without(client)
                offered = b"".join(batch.data[start:stop] for start, stop in ranges)
            assert count == batch.count_others(batch.stop, client)
            taken = rng.randrange(len(offered) + 1)
            got += offered[:taken]
            if taken == len(offered):
                counted, cursor = counted + count, batch.stop
                continue
            cursor, rest = batch.locate(taken, ranges)
            counted += batch.count_others(cursor, client)
            got += bytes(rest or b"")
        assert (got, counted) == (expected, sum(entry.origin != client for entry in entries))
