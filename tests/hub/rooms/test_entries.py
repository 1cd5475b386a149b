"""A message inside the hub: data into frames, drafts as users see them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from broadcast_server import UsageError, messages
from broadcast_server.hub.rooms.entries import (
    ENTRY_BYTES,
    Accepted,
    Draft,
    Entry,
    cost_of,
    encode,
    fingerprint,
    to_messages,
)
from broadcast_server.messages import Member, Message
from broadcast_server.wire import frames

MEMBER = Member("7", "ann", "/a", "127.0.0.1:5000")
UTC = datetime.timezone.utc


def test_draft_and_entry_hold_what_they_are_given() -> None:
    """A log keeps one of these for each message: five fields, and no dictionary for more."""
    draft = Draft(7, b"\x81\x01x")
    entry = Entry(7, draft.frame, 1000, 2, 300)
    assert (draft.origin, draft.frame) == (7, b"\x81\x01x")
    assert (entry.origin, entry.ms, entry.seq, entry.end) == (7, 1000, 2, 300)
    assert entry.frame is draft.frame
    for held in (draft, entry):
        assert not hasattr(held, "__dict__")


@pytest.mark.parametrize(
    ("data", "frame"),
    [
        ("", b"\x81\x00"),
        ("grün", b"\x81\x05gr\xc3\xbcn"),
        ("a\0\n", b"\x81\x03a\0\n"),
        (b"", b"\x82\x00"),
        (b"\xff\x00", b"\x82\x02\xff\x00"),
        ("x" * 126, b"\x81\x7e\x00\x7e" + b"x" * 126),
    ],
)
def test_encode_makes_text_of_str_and_binary_of_bytes(data: str | bytes, frame: bytes) -> None:
    """The type of the data is the type of the frame, and comes back as it was."""
    assert encode(data) == frame
    assert frames.data_of(frame) == data


@pytest.mark.parametrize("data", [None, 1, bytearray(b"x"), memoryview(b"x"), ["x"]])
def test_encode_refuses_other_types(data: Any) -> None:
    """A caller who passes something else is told what it was."""
    with pytest.raises(TypeError, match=f"str or bytes, not {type(data).__name__}$"):
        encode(data)


def test_encode_refuses_a_lone_surrogate() -> None:
    """UTF-8 has no place for half a character; it must not reach the wire as something else."""
    with pytest.raises(UsageError):
        encode("a\ud800")


@pytest.mark.parametrize("sender", [MEMBER, None])
def test_to_messages_numbers_a_batch(sender: Member | None) -> None:
    """A batch has one time; its ids count on from the first one, in the order of the drafts."""
    drafts = [Draft(7, encode(data), sender) for data in ("a", b"b", "")]
    time = messages.time_of(5000)
    assert to_messages("/a", drafts, Accepted(5000, 9, 3)) == [
        Message("a", "/a", sender, time, "5000-9"),
        Message(b"b", "/a", sender, time, "5000-10"),
        Message("", "/a", sender, time, "5000-11"),
    ]


def test_to_messages_leaves_repeated_ones_out() -> None:
    """They were told when they came first; the others are numbered without them."""
    drafts = [Draft(7, encode(data), MEMBER) for data in "abc"]
    found = to_messages("/a", drafts, Accepted(5000, 9, 2, {1: (4000, 1)}))
    assert [(message.data, message.id) for message in found] == [("a", "5000-9"), ("c", "5000-10")]
    found = to_messages("/a", drafts, Accepted(5000, 9, 1, {0: (4000, 1)}, {1}))
    assert [(message.data, message.id) for message in found] == [("c", "5000-9")]


def test_fingerprint_tells_kinds_and_contents_apart() -> None:
    """Text and the same bytes are two messages."""
    messages = ["", "x", "xt", "tx", b"", b"x", "\u00e9", "\u00e9".encode()]
    prints = [fingerprint(data) for data in messages]
    assert prints == [fingerprint(data) for data in messages]
    assert len(set(prints)) == len(messages) and {len(found) for found in prints} == {16}


def test_sender_that_is_kept_for_one_message_is_counted() -> None:
    """Who publishes over HTTP is a new one each time; a member is shared by all its messages."""
    frame = encode("")
    sender = Member("", "\U0001f600" * 64, "/" + "\U0001f600" * 127, "192.0.2.1:4711")
    nobody, member = Draft(0, frame), Draft(7, frame, sender)
    assert cost_of([nobody]) == cost_of([member]) == len(frame) + ENTRY_BYTES
    assert cost_of([Draft(0, frame, sender)]) >= len(frame) + 4 * (64 + 127)
    assert cost_of([Draft(0, frame, MEMBER)]) == len(frame) + ENTRY_BYTES
