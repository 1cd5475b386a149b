"""Messages: ids, times, and how the two kinds of data travel."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from broadcast_server.messages import (
    Draft,
    Member,
    Message,
    encode,
    format_id,
    parse_id,
    time_of,
    to_messages,
)


def test_str_is_text_and_bytes_are_binary() -> None:
    """Opcodes 1 and 2, whole frames."""
    assert encode("\u00fc") == b"\x81\x02\xc3\xbc"
    assert encode(b"\xff") == b"\x82\x01\xff"
    assert encode("") == b"\x81\x00"


@pytest.mark.parametrize("data", [None, 1, bytearray(b"x"), memoryview(b"x"), ["x"]])
def test_anything_else_is_a_type_error(data: Any) -> None:
    """Nothing is converted in silence."""
    with pytest.raises(TypeError, match="must be str or bytes"):
        encode(data)


def test_lone_surrogate_is_an_error() -> None:
    """UTF-8 cannot carry it."""
    with pytest.raises(UnicodeEncodeError):
        encode("\ud800")


@pytest.mark.parametrize("parts", [(0, 0), (1_795_518_417_113, 651), (10**19, 10**19)])
def test_id_is_read_as_it_is_written(parts: tuple[int, int]) -> None:
    """Both ways."""
    assert parse_id(format_id(*parts)) == parts


@pytest.mark.parametrize(
    "text", ["", "-", "1", "1-", "-1", "1-2-3", "a-b", "+1-2", " 1-2", "1_0-2", "\u0661-1",
             f"{10**20}-1"],
)  # fmt: skip
def test_what_is_no_id_is_refused(text: str) -> None:
    """Other scripts' digits as well."""
    with pytest.raises(ValueError, match="not a message id"):
        parse_id(text)


def test_time_of_an_id_is_exact_to_the_millisecond() -> None:
    """No rounding by way of a float."""
    for ms in (0, 1, 999, 1_795_518_417_001, 1_795_518_417_999):
        moment = time_of(ms)
        assert moment.tzinfo is datetime.timezone.utc
        assert moment.microsecond == ms % 1000 * 1000
        assert int(moment.replace(microsecond=0).timestamp()) == ms // 1000


def test_accepted_drafts_become_messages() -> None:
    """In order, each with its id, all with one time."""
    member = Member("c1", "ann", "/r", "127.0.0.1:1")
    drafts = [Draft(1, encode("a")), Draft(1, encode(b"b" * 200))]
    moment = time_of(5001)
    assert to_messages("/r", member, drafts, (5001, 7, 2)) == [
        Message("a", "/r", member, moment, "5001-7"),
        Message(b"b" * 200, "/r", member, moment, "5001-8"),
    ]
