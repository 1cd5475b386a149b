"""The forms of a message: what each kind of client gets of it."""

from __future__ import annotations

import base64
import json
import re
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadcast_server.hub.rooms import encodings
from broadcast_server.hub.rooms.entries import Entry, encode
from broadcast_server.wire import frames


def entry(data: str | bytes) -> Entry:
    """Return a message in a log."""
    return Entry(1, encode(data), 1795586400007, 3, 0, None)


def test_raw_is_the_frame_itself() -> None:
    """Nothing is made twice for plain clients."""
    found = entry("x")
    assert encodings.RAW.make(found) is found.frame


def test_json_is_a_text_frame_with_the_event() -> None:
    """Also of a binary message."""
    frame = encodings.JSON.make(entry(b"\xff"))
    assert frame[0] == frames.FIN | frames.TEXT
    data = frames.data_of(frame)
    assert isinstance(data, str)
    assert json.loads(data)["data_base64"] == "/w=="


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        ("", [""]),
        ("one", ["one"]),
        ("a\nb\r\nc\rd", ["a", "b", "c", "d"]),
        ("\n", ["", ""]),
        ("a\u2028b\x0bc", ["a\u2028b\x0bc"]),
    ],
)
def test_sse_has_a_line_for_each_line_of_the_message(data: str, lines: list[str]) -> None:
    """WHATWG HTML §9.2.6 knows three line ends, and no others."""
    expected = "id: 1795586400007-3\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
    assert encodings.SSE.make(entry(data)).decode() == expected


@given(st.text(st.sampled_from("\r\na\u2028ä")))
@example("\r\r\n\n\r")
def test_lines_are_those_of_the_grammar(text: str) -> None:
    """However line ends follow each other."""
    lines = re.split("\r\n|\r|\n", text)
    expected = "id: 1795586400007-3\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
    assert encodings.SSE.make(entry(text)).decode() == expected


# What makes each form largest, or has it look at the most places.
WORST = {
    "line feeds": "\n" * 2**20,
    "carriage returns": "\r" * 2**20,
    "both": "\r\n" * 2**19,
    "both, reversed": "\n\r" * 2**19,
    "short lines": "a\n" * 2**19,
    "control characters": "\x01" * 2**20,
    "quotes": '"' * 2**20,
    "backslashes": "\\" * 2**20,
    "wide": "\U0001f600" * 2**18,
    "mixed": "\x01\U0001f600" * 200_000,
    "binary": b"\xff" * 2**20,
}


@pytest.mark.parametrize("data", WORST.values(), ids=list(WORST))
@pytest.mark.parametrize("form", encodings.ALL, ids=repr)
def test_no_form_takes_a_message_apart(form: encodings.Form, data: str | bytes) -> None:
    """Memory is that of a few copies, whatever the message is: no object for a line, an escape or
    a character."""
    found = entry(data)
    tracemalloc.start()
    try:
        made = form.make(found)
        blocks = len(tracemalloc.take_snapshot().traces)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 2 * len(found.frame) + 3 * len(made)
    assert blocks < 1000
    assert len(made) <= 7 * len(found.frame) + 1000


@given(st.text(st.sampled_from('\r\na\u2028ä\x01"')) | st.binary(max_size=20))
@example("\r\r\n\n\r")
@example("aa\r\n")
def test_pieces_make_the_same(data: str | bytes) -> None:
    """Wherever they are cut: between the two halves of a line end, within a character."""
    found = entry(data)
    for form in (encodings.JSON, encodings.SSE, encodings.SSE_JSON):
        with pytest.MonkeyPatch.context() as patch:
            whole = form.make(found)
            patch.setattr(encodings, "PIECE_BYTES", 3)
            pieces = list(form.pieces(found))
            assert form.joined(pieces) == whole == form.make(found)
            assert max(map(len, pieces)) <= 7 * 4 + 200


@pytest.mark.parametrize("data", WORST.values(), ids=list(WORST))
def test_large_message_is_made_in_many_pieces(data: str | bytes) -> None:
    """None of which takes long."""
    found = entry(data)
    for form in (encodings.JSON, encodings.SSE, encodings.SSE_JSON):
        pieces = list(form.pieces(found))
        assert len(pieces) >= len(found.frame) // encodings.PIECE_BYTES
        assert max(map(len, pieces)) <= 7 * (encodings.PIECE_BYTES + 1)


def test_sse_of_a_binary_message_is_an_event_of_its_own() -> None:
    """In base64: a stream is text."""
    data = bytes(range(256))
    expected = b"id: 1795586400007-3\nevent: binary\ndata: %s\n\n" % base64.b64encode(data)
    assert encodings.SSE.make(entry(data)) == expected


def test_sse_json_has_the_whole_event_in_one_line() -> None:
    """Line ends of the message are escaped there."""
    event = encodings.SSE_JSON.make(entry("a\nb"))
    id_line, data_line, *rest = event.decode().split("\n")
    assert (id_line, rest) == ("id: 1795586400007-3", ["", ""])
    assert json.loads(data_line.removeprefix("data: "))["data"] == "a\nb"


def test_close_of_a_stream_is_a_time_to_come_back() -> None:
    """Drawn at random, within bounds; a WebSocket gets a code."""
    times = set()
    for _ in range(200):
        found = re.fullmatch(rb"retry: (\d+)\n\n", encodings.SSE.close(1013, "since=1-1"))
        assert found
        times.add(int(found[1]))
    assert encodings.RETRY_MS[0] <= min(times) < max(times) <= encodings.RETRY_MS[1]
    assert encodings.JSON.close(1013, "x") == frames.encode_close(1013, "x")


def test_stream_begins_with_a_time_to_come_back() -> None:
    """A hub that is killed says no last word. The id goes out as an event without data."""
    assert len({encodings.SSE_JSON.begin("5-1") for _ in range(200)}) > 1
    assert re.fullmatch(rb"retry: \d+\n\nid: 5-1\n\n", encodings.SSE.begin("5-1"))
    assert re.fullmatch(rb"retry: \d+\n\n", encodings.SSE.begin(""))


def test_gap_of_a_stream_has_the_id_after_which_it_goes_on() -> None:
    """In one event: a reader that is cut off before its end comes back with the old id."""
    told = encodings.SSE.gap("trimmed", "1-0", "9-3")
    id_line, kind_line, data_line, *rest = told.decode().split("\n")
    assert (id_line, kind_line, rest) == ("id: 9-3", "event: gap", ["", ""])
    assert json.loads(data_line.removeprefix("data: "))["since"] == "1-0"
    assert encodings.SSE_JSON.gap("trimmed", "1-0", "9-3") == told
    assert frames.payload_of(encodings.JSON.gap("trimmed", "1-0", "9-3")).startswith(b"{")


@pytest.mark.parametrize("form", encodings.ALL, ids=repr)
def test_direct_message_has_no_id(form: encodings.Form) -> None:
    """A client cannot go on after it."""
    found = form.direct(encode("hello"), 1795586400007)
    assert b"hello" in found and b"id: " not in found
    if form.is_json:
        assert b'"id":null' in found
