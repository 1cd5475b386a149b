"""The forms in which messages go over the wire. No I/O.

A client has one form for the whole of its connection. A message is made into a form once, when the
first client needs it, and kept with the entry in the log for all others.
"""

from __future__ import annotations

import binascii
import random
from collections.abc import Callable, Iterator

from ...messages import format_id
from ...wire import events, frames
from .entries import Entry

# After the end of a stream of events readers come back within these milliseconds.
RETRY_MS = (1000, 5000)
# A frame of more bytes than this is made into a form in pieces of so many, each some milliseconds
# of work at most: 1 MiB of control characters takes 40 ms. A multiple of 3, for base64.
PIECE_BYTES = 48 * 1024


class Form:
    """One way over the wire.

    Attributes:
        name: for counters: raw, json, sse or sse_json.
        slot: the attribute of an entry that keeps what ``make`` returned.
        make: makes a message's bytes.
        pieces: yields the same one after the other; without the frame, where there is one.
        overhead: about how many bytes those have more than the frame.
        growth: how many times the frame they may be at most, beside that.
        is_stream: server-sent events; else WebSocket frames.
        is_json: full events; else only the data.
    """

    __slots__ = ("growth", "is_json", "is_stream", "make", "name", "overhead", "pieces", "slot")

    def __init__(
        self,
        name: str,
        slot: str,
        make: Callable[[Entry], bytes],
        pieces: Callable[[Entry], Iterator[bytes]],
        overhead: int,
        *,
        is_stream: bool,
        is_json: bool,
    ) -> None:
        self.name = name
        self.slot = slot
        self.make = make
        self.pieces = pieces
        self.overhead = overhead
        # A control character has six in JSON, a line end seven in a stream.
        self.growth = 1 if slot == "frame" else 6 if is_json else 7
        self.is_stream = is_stream
        self.is_json = is_json

    def __repr__(self) -> str:
        return f"<Form {self.name}>"

    def joined(self, pieces: list[bytes]) -> bytes:
        """Return what ``make`` would have returned, of all ``pieces``."""
        body = b"".join(pieces)
        return body if self.is_stream else frames.encode_frame(frames.TEXT, body)

    def close(self, code: int, reason: str) -> bytes:
        """Return what is the last that a client gets."""
        if not self.is_stream:
            return frames.encode_close(code, reason)
        # A stream has no codes. Those that lost it together should not come back together.
        return b"retry: %d\n\n" % random.randint(*RETRY_MS)

    def begin(self, after: str) -> bytes:
        """Return what comes before everything else in a stream of events.

        Args:
            after: the id after which it begins; empty if a gap follows, which has it.
        """
        # So that those do not come back together either whom a hub loses without a last word.
        retry = self.close(0, "")
        # WHATWG HTML §9.2.6: sets the last event id and dispatches nothing. A reader that is cut
        # off before its first message comes back with it.
        return retry + b"id: %s\n\n" % after.encode("ascii") if after else retry

    def ping(self) -> bytes:
        """Return what a quiet client gets."""
        return b":\n\n" if self.is_stream else _PING

    def direct(self, frame: bytes, ms: int) -> bytes:
        """Return a message of the hub's program to one client alone."""
        if self is RAW:
            return frame
        if self.is_json:
            body = events.message(frame, None, ms, None)
            return sse(body) if self.is_stream else frames.encode_frame(frames.TEXT, body)
        return _sse_data(frame)

    def event(self, body: bytes) -> bytes:
        """Return an event that is no message; only for JSON."""
        return frames.encode_frame(frames.TEXT, body)

    def gap(self, reason: str, since: str, after: str) -> bytes:
        """Return that messages are missing; only for forms that can tell it."""
        body = events.gap(reason, since, after)
        if not self.is_stream:
            return self.event(body)
        # With its own id, so that a reader learns of the gap or comes back with the old id.
        return sse(body, "gap", b"id: %s\n" % after.encode("ascii"))


def sse(body: bytes, kind: str = "", id: bytes = b"") -> bytes:
    """Return one server-sent event with a body without line ends."""
    head = id + (b"event: %s\n" % kind.encode("ascii") if kind else b"")
    return head + b"data: " + body + b"\n\n"


def json_event(entry: Entry) -> bytes:
    """Return the JSON event of a message in a log, without a frame around it. Any thread; that of
    a large message lets others run in between."""
    if len(entry.frame) > PIECE_BYTES:
        return b"".join(_json_pieces(entry))
    return events.message(entry.frame, format_id(entry.ms, entry.seq), entry.ms, entry.sender)


def _json_pieces(entry: Entry) -> Iterator[bytes]:
    id = format_id(entry.ms, entry.seq)
    return events.message_pieces(entry.frame, id, entry.ms, entry.sender, PIECE_BYTES)


def json_view(entry: Entry) -> bytes | memoryview:
    """Return the same without a copy if the entry has it already. Any thread: the entry is left as
    it is, so that only the fan-out makes what a log keeps."""
    made = entry.json
    return json_event(entry) if made is None else frames.payload_view(made)


def _id_line(entry: Entry) -> bytes:
    return b"id: %d-%d\n" % (entry.ms, entry.seq)


def _sse_data(frame: bytes, id: bytes = b"") -> bytes:
    data = frames.payload_of(frame)
    if not frames.is_text(frame):
        return sse(binascii.b2a_base64(data, newline=False), "binary", id)
    return b"%bdata: %b\n\n" % (id, _in_lines(data))


def _in_lines(text: bytes) -> bytes:
    """Return a text with what a stream has in front of each line but the first."""
    # No object for each line: a message of nothing but line ends has a million.
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").translate(_CR_TO_LF)
    return text.replace(b"\n", b"\ndata: ")


def _sse_pieces(entry: Entry) -> Iterator[bytes]:
    data = frames.payload_view(entry.frame)
    is_text = frames.is_text(entry.frame)
    yield _id_line(entry) + (b"data: " if is_text else b"event: binary\ndata: ")
    start = 0
    while start < len(data):
        stop = start + PIECE_BYTES
        if not is_text:
            yield binascii.b2a_base64(data[start:stop], newline=False)
        else:
            if bytes(data[stop - 1 : stop + 1]) == b"\r\n":
                stop += 1  # both are one line end
            yield _in_lines(bytes(data[start:stop]))
        start = stop
    yield b"\n\n"


def _sse_json_pieces(entry: Entry) -> Iterator[bytes]:
    yield _id_line(entry) + b"data: "
    yield from _json_pieces(entry)
    yield b"\n\n"


_CR_TO_LF = bytes.maketrans(b"\r", b"\n")
_PING = frames.encode_frame(frames.PING, b"")

RAW = Form(
    "raw",
    "frame",
    lambda entry: entry.frame,
    lambda entry: iter(()),  # never asked for: each entry has its frame
    0,
    is_stream=False,
    is_json=False,
)
JSON = Form(
    "json",
    "json",
    lambda entry: frames.encode_frame(frames.TEXT, json_event(entry)),
    _json_pieces,
    160,
    is_stream=False,
    is_json=True,
)
SSE = Form(
    "sse",
    "sse",
    lambda entry: _sse_data(entry.frame, _id_line(entry)),
    _sse_pieces,
    40,
    is_stream=True,
    is_json=False,
)
SSE_JSON = Form(
    "sse_json",
    "sse_json",
    lambda entry: sse(json_event(entry), "", _id_line(entry)),
    _sse_json_pieces,
    200,
    is_stream=True,
    is_json=True,
)
ALL = (RAW, JSON, SSE, SSE_JSON)
