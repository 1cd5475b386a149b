"""What programs get: values that do not change, ids as text and back, times."""

from __future__ import annotations

import dataclasses
import datetime
import random

import pytest

from broadcast_server import messages
from broadcast_server.messages import Member, Message, format_id, parse_id

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
