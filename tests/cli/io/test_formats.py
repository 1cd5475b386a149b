"""What ``listen`` writes of a message."""

from __future__ import annotations

import datetime
import json

import pytest

from broadcast_server import Member, Message
from broadcast_server.cli.io import formats

TIME = datetime.datetime(2026, 11, 25, 6, 0, 0, 123_999, tzinfo=datetime.timezone.utc)
ANN = Member("c7", "ann", "/r", "")


def message(data: str | bytes, sender: Member | None = ANN, id: str | None = "5-0") -> Message:
    return Message(data, "/r", sender, TIME, id)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("3:1", "3:1\n"),
        ("", "\n"),
        ("a\tb é", "a\tb é\n"),
        ("a\nb\x1b[2J\u202e\r", "a\\nb\\x1b[2J\\u202e\\r\n"),
        (b"\x00\xff", "[binary message, 2 bytes]\n"),
    ],
)
def test_text_is_one_line_that_steers_nothing(data: str | bytes, line: str) -> None:
    """Whatever was sent: nobody forges a line of another."""
    assert formats.encode("text", message(data)).decode() == line


@pytest.mark.parametrize(
    ("data", "written"), [("a\nb", b"a\nb\n"), ("é\x1b", "é\x1b\n".encode()), (b"\0\n", b"\0\n")]
)
def test_raw_is_the_message(data: str | bytes, written: bytes) -> None:
    """A text is a line, as it was one when it was sent; binary data stays as it is."""
    assert formats.encode("raw", message(data)) == written


def test_json_is_the_event_of_the_protocol() -> None:
    """In ASCII, so that nothing in it steers a terminal either."""
    line = formats.encode("json", message("é\n\u202e"))
    assert line.isascii() and line.count(b"\n") == 1
    assert json.loads(line) == {
        "type": "message",
        "id": "5-0",
        "room": "/r",
        "time": "2026-11-25T06:00:00.123Z",
        "from": {"id": "c7", "name": "ann"},
        "data": "é\n\u202e",
    }


def test_json_says_null_for_what_is_not_known() -> None:
    """Who publishes over HTTP has no id, and a server that is no hub tells nothing."""
    event = json.loads(formats.encode("json", message(b"\0\xff", None, None)))
    assert (event["id"], event["from"]) == (None, None)
    assert event["data_base64"] == "AP8=" and "data" not in event
    event = json.loads(formats.encode("json", message("", Member("", None, "/r", ""))))
    assert event["from"] == {"id": None, "name": None}
