"""What travels: data into frames and back, ids as text and back, drafts as users see them."""

from __future__ import annotations

import dataclasses
import datetime
import random
from typing import Any

import pytest

from broadcast_server import messages
from broadcast_server.messages import Accepted, Draft, Entry, Member, Message, format_id, parse_id
from broadcast_server.wire import frames

MEMBER = Member("7", "ann", "/a", "127.0.0.1:5000")
UTC = datetime.timezone.utc


def test_member_and_message_are_values() -> None:
    """What callbacks get can be compared and hashed, but not changed: others hold it, too."""
    message = Message("x", "/a", MEMBER, datetime.datetime(2026, 1, 2, tzinfo=UTC), "1-0")
    for value in (MEMBER, message):
        assert dataclasses.replace(value) == value
        assert hash(dataclasses.replace(value)) == hash(value)
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.room = "/b"  # type: ignore[misc]
    assert dataclasses.replace(message, id="1-1") != message


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
    assert messages.encode(data) == frame
    assert frames.data_of(frame) == data


@pytest.mark.parametrize("data", [None, 1, bytearray(b"x"), memoryview(b"x"), ["x"]])
def test_encode_refuses_other_types(data: Any) -> None:
    """A caller who passes something else is told what it was."""
    with pytest.raises(TypeError, match=f"str or bytes, not {type(data).__name__}$"):
        messages.encode(data)


def test_encode_refuses_a_lone_surrogate() -> None:
    """UTF-8 has no place for half a character; it must not reach the wire as something else."""
    with pytest.raises(UnicodeEncodeError):
        messages.encode("a\ud800")


def test_id_comes_back_as_it_was() -> None:
    """Formatting and parsing are each other's inverse, up to any 64-bit number."""
    rng = random.Random(1)
    halves = [0, 1, (1 << 64) - 1, *(rng.getrandbits(64) for _ in range(100))]
    for ms in halves:
        seq = rng.choice(halves)
        assert format_id(ms, seq) == f"{ms}-{seq}"
        assert parse_id(format_id(ms, seq)) == (ms, seq)


def test_parse_id_takes_twenty_digits() -> None:
    """Leading zeros do no harm; 20 places are the limit in both halves."""
    assert parse_id("0" * 19 + "1-" + "0" * 19 + "2") == (1, 2)
    assert parse_id("9" * 20 + "-" + "9" * 20) == (10**20 - 1, 10**20 - 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "1",
        "1-",
        "-1",
        "1-2-3",
        "1--2",
        "+1-2",
        "1-+2",
        " 1-2",
        "1-2\n",
        "1_0-2",
        "0x1-2",
        "1.0-2",
        "1-٢",  # a digit to Unicode
        "²-1",  # a digit to str.isdigit(), but not to int()
        "0" * 21 + "-1",
        "1-" + "0" * 21,
        "$",
    ],
)
def test_parse_id_refuses_what_is_none(text: str) -> None:
    """An id comes from a stranger's query: all but two short decimal numbers is an error."""
    with pytest.raises(ValueError, match="not a message id"):
        parse_id(text)


def test_parse_id_repeats_the_beginning_only() -> None:
    """What it says goes back to the stranger; a whole request head is not worth an answer."""
    with pytest.raises(ValueError) as failed:
        parse_id("1" * 10_000)
    assert len(str(failed.value)) < 100


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (999, "1970-01-01T00:00:00.999000+00:00"),
        (1_767_312_000_001, "2026-01-02T00:00:00.001000+00:00"),
    ],
)
def test_time_of_is_exact_and_in_utc(ms: int, text: str) -> None:
    """The milliseconds are those of the id, without a float's rounding."""
    assert messages.time_of(ms).isoformat() == text


def test_time_of_loses_no_millisecond() -> None:
    """Each id's time tells its milliseconds again."""
    rng = random.Random(2)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=UTC)
    for ms in (rng.randrange(1 << 43) for _ in range(500)):
        assert (messages.time_of(ms) - epoch) // datetime.timedelta(milliseconds=1) == ms


@pytest.mark.parametrize("sender", [MEMBER, None])
def test_to_messages_numbers_a_batch(sender: Member | None) -> None:
    """A batch has one time; its ids count on from the first one, in the order of the drafts."""
    drafts = [Draft(7, messages.encode(data), sender) for data in ("a", b"b", "")]
    time = messages.time_of(5000)
    assert messages.to_messages("/a", drafts, Accepted(5000, 9, 3)) == [
        Message("a", "/a", sender, time, "5000-9"),
        Message(b"b", "/a", sender, time, "5000-10"),
        Message("", "/a", sender, time, "5000-11"),
    ]


def test_to_messages_leaves_repeated_ones_out() -> None:
    """They were told when they came first; the others are numbered without them."""
    drafts = [Draft(7, messages.encode(data), MEMBER) for data in "abc"]
    found = messages.to_messages("/a", drafts, Accepted(5000, 9, 2, {1: (4000, 1)}))
    assert [(message.data, message.id) for message in found] == [("a", "5000-9"), ("c", "5000-10")]
