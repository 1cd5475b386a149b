"""Batches: one join for all, slices for the senders, and where a client is after a part."""

from __future__ import annotations

import random

import pytest

from broadcast_server.batches import Batch
from broadcast_server.messages import Entry


def batch_of(*messages: tuple[int, bytes], start: int = 100, before: int = 5000) -> Batch:
    """Return a batch of (origin, frame)."""
    entries, end = [], before
    for number, (origin, frame) in enumerate(messages):
        end += len(frame)
        entries.append(Entry(origin, frame, 1, number, end))
    return Batch(start, entries)


def test_one_entry_is_not_copied() -> None:
    """Its own bytes go out."""
    frame = b"x" * 1000
    assert batch_of((1, frame)).data is frame


def test_entries_are_joined_in_order() -> None:
    """Positions and origins are known."""
    batch = batch_of((1, b"aa"), (0, b"b"), (1, b"cc"))
    assert (batch.data, batch.start, batch.stop, batch.count) == (b"aabcc", 100, 103, 3)
    assert batch.origins == {0, 1}


def test_without_gives_what_others_sent() -> None:
    """Neighbours are one range; who sent everything gets nothing."""
    batch = batch_of((1, b"aa"), (1, b"b"), (2, b"cc"), (3, b"d"), (1, b"e"), (2, b"f"))
    assert batch.without(1) == ([(3, 6), (7, 8)], 3)
    assert batch.without(2) == ([(0, 3), (5, 7)], 4)
    assert batch.without(3) == ([(0, 5), (6, 8)], 5)
    assert batch_of((1, b"aa"), (1, b"b")).without(1) == ([], 0)
    assert batch.count_others(batch.start + 3, 1) == 1


@pytest.mark.parametrize(
    ("sent", "position", "rest"),
    [(0, 100, None), (1, 101, b"a"), (2, 101, None), (3, 102, None), (4, 103, b"cc"),
     (6, 103, None)],
)  # fmt: skip
def test_locate_after_a_part(sent: int, position: int, rest: bytes | None) -> None:
    """The next entry to begin, and what is unsent of the one in progress."""
    batch = batch_of((1, b"aa"), (0, b"b"), (1, b"ccc"))
    found, left = batch.locate(sent, None)
    assert (found, None if left is None else bytes(left)) == (position, rest)


def test_sender_gets_all_of_the_others_wherever_a_send_stops() -> None:
    """Random batches, cut at each byte: what was sent and what is left make up what is due."""
    chance = random.Random(3)
    for _ in range(200):
        messages = [
            (chance.randrange(3), bytes([number]) * chance.randrange(1, 5))
            for number in range(chance.randrange(1, 9))
        ]
        batch = batch_of(*messages)
        for origin in batch.origins:
            ranges, count = batch.without(origin)
            due = b"".join(frame for sender, frame in messages if sender != origin)
            assert count == sum(sender != origin for sender, _ in messages)
            offered = b"".join(batch.data[start:stop] for start, stop in ranges)
            assert offered == due
            for sent in range(len(due)):
                position, rest = batch.locate(sent, ranges)
                others = messages[position - batch.start :]
                left = b"" if rest is None else bytes(rest)
                left += b"".join(frame for sender, frame in others if sender != origin)
                assert due[:sent] + left == due
