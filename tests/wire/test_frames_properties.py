"""The codec against an oracle, wsproto, in both directions, on streams that hypothesis thinks up.

wsproto is a WebSocket implementation of another make. What it sends as a client we must read as it
was meant, however the bytes are cut; what we send it must read; and of a stream with mistakes in it
both must take the same messages before the first mistake.
"""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from broadcast_server.wire import frames
from broadcast_server.wire.frames import FrameDecoder

from ..support import client_frame

LIMIT = 1 << 20
EXAMPLES = settings(max_examples=150, deadline=None, derandomize=True)

# What a client may say: a message in fragments, with control frames between them, or one of those.
payloads = st.one_of(
    st.binary(max_size=40),
    st.integers(124, 130).map(bytes),
)
texts = st.one_of(st.text(max_size=40), st.text("aé€😀", min_size=30, max_size=60))
pings = st.binary(max_size=125).map(lambda data: (frames.PING, data))
pongs = st.binary(max_size=125).map(lambda data: (frames.PONG, data))
binary_pieces = st.lists(payloads, min_size=1, max_size=4)
text_pieces = st.lists(texts, min_size=1, max_size=4)
controls = st.lists(st.one_of(pings, pongs), max_size=2)
close_codes = st.sampled_from([1000, 1001, 1003, 1007, 1011, 1013, 3000, 4999])
closes = st.one_of(st.none(), st.tuples(close_codes, st.text("abé", max_size=30)))


def event_of(opcode: int, data: bytes) -> Ping | Pong:
    """Return a control frame as wsproto calls it."""
    return Ping(payload=data) if opcode == frames.PING else Pong(payload=data)


def in_pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a stream at these places, taken modulo its length."""
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(places)]


def read_ours(stream: bytes, cuts: list[int]) -> tuple[list[tuple[int, bytes]], FrameDecoder]:
    """Return what our decoder, the hub's side, makes of a stream."""
    decoder = FrameDecoder(LIMIT, 1000)
    found = []
    for piece in in_pieces(stream, cuts):
        found += decoder.feed(piece)
    return found, decoder


def read_oracle(
    stream: bytes, *, client: bool, step: int = 1
) -> tuple[list[tuple[int, bytes]], bool]:
    """Return what wsproto makes of a stream, and whether it found a mistake.

    Args:
        client: read as a client, what a server has sent.
        step: bytes at a time; with one, what comes before a mistake is given out before it.
    """
    protocol = FrameProtocol(client=client, extensions=[])
    found: list[tuple[int, bytes]] = []
    pieces: list[bytes] = []
    opcode = 0
    try:
        for index in range(0, len(stream), step):
            protocol.receive_bytes(stream[index : index + step])
            for frame in protocol.received_frames():
                payload = frame.payload
                if frame.opcode is Opcode.CLOSE:
                    code, reason = payload
                    known = code != CloseReason.NO_STATUS_RCVD
                    packed = struct.pack("!H", code) + (reason or "").encode() if known else b""
                    found.append((frames.CLOSE, packed))
                    return found, False
                if frame.opcode in (Opcode.PING, Opcode.PONG):
                    found.append((int(frame.opcode), bytes(payload)))
                    continue
                opcode = opcode or int(frame.opcode)
                pieces.append(payload.encode() if isinstance(payload, str) else bytes(payload))
                if frame.message_finished:
                    found.append((opcode, b"".join(pieces)))
                    pieces, opcode = [], 0
    except ParseFailed:
        return found, True
    return found, False


@EXAMPLES
@given(
    messages=st.lists(
        st.tuples(st.one_of(binary_pieces, text_pieces), controls), min_size=1, max_size=4
    ),
    close=closes,
    cuts=st.lists(st.integers(0, 1 << 20), max_size=8),
)
def test_what_another_client_says_is_read_as_it_was_meant(
    messages: list[tuple[list[bytes] | list[str], list[tuple[int, bytes]]]],
    close: tuple[int, str] | None,
    cuts: list[int],
) -> None:
    """Fragments are joined, control frames come out between them, however the bytes are cut."""
    client = Connection(ConnectionType.CLIENT)
    stream = b""
    expected: list[tuple[int, bytes]] = []
    for pieces, between in messages:
        whole = b""
        opcode = frames.BINARY
        for number, piece in enumerate(pieces):
            finished = number == len(pieces) - 1
            if isinstance(piece, str):
                opcode = frames.TEXT
                stream += client.send(TextMessage(data=piece, message_finished=finished))
                whole += piece.encode()
            else:
                stream += client.send(BytesMessage(data=piece, message_finished=finished))
                whole += piece
            if number == 0 and not finished:
                for control in between:
                    stream += client.send(event_of(*control))
                    expected.append(control)
        expected.append((opcode, whole))
    if close is not None:
        stream += client.send(CloseConnection(code=close[0], reason=close[1]))
        expected.append((frames.CLOSE, struct.pack("!H", close[0]) + close[1].encode()))
    found, decoder = read_ours(stream, cuts)
    assert decoder.failure is None
    assert found == expected
    assert decoder.closed == (close is not None)


@EXAMPLES
@given(
    said=st.lists(
        st.one_of(
            payloads.map(lambda data: (frames.BINARY, data)),
            texts.map(lambda text: (frames.TEXT, text.encode())),
            pings,
            pongs,
        ),
        max_size=6,
    ),
    close=closes,
)
def test_what_we_say_is_read_by_another_client_as_it_was_meant(
    said: list[tuple[int, bytes]], close: tuple[int, str] | None
) -> None:
    """Every frame that the hub can make, through wsproto as a client."""
    stream = b"".join(frames.encode_frame(*one) for one in said)
    expected = list(said)
    if close is not None:
        stream += frames.encode_close(*close)
        expected.append((frames.CLOSE, struct.pack("!H", close[0]) + close[1].encode()))
    found, failed = read_oracle(stream, client=True, step=1 << 17)
    assert not failed
    assert found == expected


# Headers that are nearly right, with what a careless or hostile client may put into them.
fields = st.fixed_dictionaries(
    {
        "opcode": st.sampled_from([0, 1, 2, 3, 7, 8, 9, 10, 11, 15]),
        "payload": st.one_of(
            st.binary(max_size=8), st.integers(120, 130).map(bytes), texts.map(str.encode)
        ),
        "fin": st.booleans(),
        "mask": st.sampled_from([True, True, True, False]),
        "rsv": st.sampled_from([0, 0, 0, 0, 1, 2, 4]),
        "length_bytes": st.sampled_from([None, None, None, 2, 8]),
    }
)


@EXAMPLES
@example([{"opcode": 8, "payload": b"\x03"}], [])
@example([{"opcode": 8, "payload": b"\x03\xed\xff"}], [])
@example(
    [{"opcode": 1, "payload": b"\xe2\x82", "fin": False}, {"opcode": 0, "payload": b"\xac"}], []
)
@example([{"opcode": 1, "payload": b"\xed\xa0\x80"}], [])
@given(st.lists(fields, max_size=5), st.lists(st.integers(0, 1 << 12), max_size=4))
def test_of_a_stream_with_mistakes_the_same_is_taken(
    described: list[dict[str, object]], cuts: list[int]
) -> None:
    """Both take the same messages and find a mistake, or none, in the same streams."""
    stream = b"".join(client_frame(**one) for one in described)  # type: ignore[arg-type]
    found, decoder = read_ours(stream, cuts)
    expected, failed = read_oracle(stream, client=False)
    assert found == expected
    assert (decoder.failure is not None) == failed


@EXAMPLES
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_how_a_stream_is_cut_changes_nothing(stream: bytes, cuts: list[int]) -> None:
    """The same messages and the same failure, whatever the bytes are and however they come."""
    whole, one = read_ours(stream, [])
    pieces, other = read_ours(stream, cuts)
    assert pieces == whole
    assert (one.closed, str(one.failure)) == (other.closed, str(other.failure))


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, LIMIT])
@pytest.mark.parametrize("opcode", [frames.TEXT, frames.BINARY])
def test_every_size_of_length_field_both_ways(opcode: int, size: int) -> None:
    """At the borders of the three length fields, and at the limit."""
    data = b"x" * size
    assert read_ours(client_frame(opcode, data), [])[0] == [(opcode, data)]
    assert read_ours(client_frame(opcode, data), [1, 3, 5, 7, 11])[0] == [(opcode, data)]
    if size <= 65_536:
        stream = frames.encode_frame(opcode, data)
        assert read_oracle(stream, client=True, step=1 << 17) == ([(opcode, data)], False)
