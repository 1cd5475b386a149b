"""Paths and queries: decoded once, checked, with a text for whoever sent them."""

from __future__ import annotations

import pytest

from broadcast_server.hub.http import query
from broadcast_server.hub.http.query import (
    checked_count,
    checked_flag,
    checked_word,
    decode,
    parse_query,
)


@pytest.mark.parametrize(
    ("raw", "text"),
    [("", ""), ("a", "a"), ("%61", "a"), ("%2561", "%61"), ("%C3%A9", "\u00e9"), ("a+b", "a+b")],
)
def test_escapes_are_decoded_once(raw: str, text: str) -> None:
    """What is behind one layer of escapes is what was meant."""
    assert decode(raw) == text


@pytest.mark.parametrize("raw", ["%", "%4", "%zz", "a%", "%ff", "%C3", "%ED%A0%80", "%+1"])
def test_bad_escape_is_an_error(raw: str) -> None:
    """A wrong byte does not become some other character."""
    with pytest.raises(ValueError, match=r"not followed|not UTF-8"):
        decode(raw)


def test_query_is_taken_apart() -> None:
    """A plus is a blank, the last of two counts, a parameter may have no value."""
    assert parse_query("a=1&b=x+y%2B&a=2&c&=d") == {"a": "2", "b": "x y+", "c": "", "": "d"}
    assert parse_query("") == {"": ""}


def test_query_of_too_many_parts_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is decoded: a parameter costs more than its byte, and so does an escape."""
    assert len(parse_query("&".join(f"a{n}=%41" for n in range(64)))) == 64
    assert parse_query("a=" + "%41" * 1024) == {"a": "A" * 1024}
    decoded: list[str] = []
    monkeypatch.setattr(query, "decode", decoded.append)
    for raw, what in (("&" * 64, "parameters"), ("a=" + "%41" * 1025, "%")):
        with pytest.raises(ValueError, match=what):
            parse_query(raw)
    with pytest.raises(ValueError, match="%"):
        decode("%41" * 1025)
    assert decoded == []


def test_flag_is_0_or_1() -> None:
    """Nothing else, in no other spelling."""
    assert checked_flag({"echo": "1"}, "echo")
    assert not checked_flag({"echo": "0"}, "echo")
    assert not checked_flag({}, "echo")
    for bad in ("", "2", "true", "\u0661"):
        with pytest.raises(ValueError, match=r"^echo must be 0 or 1"):
            checked_flag({"echo": bad}, "echo")


def test_word_has_one_value() -> None:
    """A value of a later version is an error and not the default."""
    assert checked_word({"view": "board"}, "view", "board")
    assert not checked_word({}, "view", "board")
    for bad in ("", "Board", "list"):
        with pytest.raises(ValueError, match=r"^view must be board"):
            checked_word({"view": bad}, "view", "board")


def test_count_is_cut_to_the_most() -> None:
    """More than there is may be asked for; what is no number may not."""
    assert checked_count({}, "history", 1, 5) == 1
    assert checked_count({}, "history", 1, 0) == 0
    assert checked_count({"history": "007"}, "history", 1, 100) == 7
    assert checked_count({"history": "9" * 18}, "history", 1, 5) == 5
    for bad in ("", "-1", "+1", "1.5", "x", "1e3", "\u0661", "9" * 19):
        with pytest.raises(ValueError, match=r"^history must be a whole number"):
            checked_count({"history": bad}, "history", 1, 5)
