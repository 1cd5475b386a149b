"""RFC 6455 frames from bytes and back: what is made, what is taken, and what is refused how soon.

Every stream is decoded in one piece, byte by byte and in random pieces: it must not matter. Both
sides are tested, the hub's (masked frames) and the client's (unmasked ones).
"""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Iterable, Iterator

import pytest

from broadcast_server.wire import frames
from broadcast_server.wire.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    NO_CODE,
    PING,
    PONG,
    TEXT,
    FrameDecoder,
)

from ..support import MASK, client_frame, mask_payload

LIMIT = 1000  # max_message_bytes of most decoders here
FRAGMENTS = 8

Event = tuple[int, bytes]

both_sides = pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])


def header(
    masked: bool, opcode: int, length: int, fin: bool = True, *, length_bytes: int | None = None
) -> bytes:
    """Return the header of a frame up to its length, the mask left out."""
    frame = client_frame(opcode, b"", fin, masked, length_bytes=length_bytes, claimed=length)
    return frame[: -len(MASK)] if masked else frame


def run(decoder: FrameDecoder, pieces: Iterable[bytes]) -> list[Event]:
    """Feed the pieces one after the other; return all events."""
    return [event for piece in pieces for event in decoder.feed(piece)]


def single_bytes(stream: bytes) -> list[bytes]:
    """Cut a stream into single bytes, the middle of a very long one left whole."""
    first, last = (3000, len(stream) - 3000) if len(stream) > 20_000 else (0, 0)
    cuts = [*range(first), *range(last, len(stream)), len(stream)]
    return [stream[start:stop] for start, stop in itertools.pairwise(cuts)]


def random_pieces(stream: bytes, rng: random.Random) -> list[bytes]:
    """Cut a stream at up to twenty places, some of which may be the same."""
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(1, 20)))
    return [stream[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(stream)])]


def all_ways(
    stream: bytes, masked: bool, limit: int = LIMIT, fragments: int = FRAGMENTS, seed: int = 0
) -> tuple[list[Event], int | None]:
    """Decode a stream in all three ways, which must agree; return the events and how it failed."""
    rng = random.Random(seed)
    results = []
    for pieces in ([stream], single_bytes(stream), *(random_pieces(stream, rng) for _ in range(5))):
        decoder = FrameDecoder(limit, fragments, masked=masked)
        events = run(decoder, pieces)
        failure = decoder.failure
        results.append((events, failure and (failure.code, failure.reason), decoder.closed))
    assert all(result == results[0] for result in results), results
    events, failed, _ = results[0]
    return events, failed[0] if failed else None


# -- Frames from payloads ----------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(
    ("length", "length_field"),
    [
        (0, b"\x00"),
        (1, b"\x01"),
        (125, b"\x7d"),
        (126, b"\x7e\x00\x7e"),
        (65_535, b"\x7e\xff\xff"),
        (65_536, b"\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_encode_frame_uses_the_shortest_length(
    opcode: int, length: int, length_field: bytes
) -> None:
    """RFC 6455 §5.2: final, unmasked, and the length in as few bytes as it takes; and back."""
    payload = b"x" * length
    frame = frames.encode_frame(opcode, payload)
    assert frame == bytes([0x80 | opcode]) + length_field + payload
    assert all_ways(frame, False, limit=length) == ([(opcode, payload)], None)
    assert frames.data_of(frame) == (payload.decode() if opcode == TEXT else payload)


def test_data_of_text_is_the_text() -> None:
    """Text comes back as ``str``, whatever its characters take in UTF-8."""
    for text in ("", "grüße", "€" * 42, "\N{GRINNING FACE}" * 20_000):
        assert frames.data_of(frames.encode_frame(TEXT, text.encode())) == text


@pytest.mark.parametrize(
    ("reason", "sent"),
    [
        ("", ""),
        ("bye", "bye"),
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("é" * 61 + "x", "é" * 61 + "x"),
        ("é" * 62, "é" * 61),
        ("\N{GRINNING FACE}" * 31, "\N{GRINNING FACE}" * 30),
        ("a\ud800b", "a?b"),
    ],
    ids=["empty", "short", "fits", "ascii", "two fit", "two cut", "four cut", "surrogate"],
)
def test_encode_close_cuts_the_reason_between_characters(reason: str, sent: str) -> None:
    """A reason too long for a control frame loses its end, never half a character."""
    frame = frames.encode_close(1001, reason)
    assert len(frame) <= 127
    ((opcode, payload),), failed = all_ways(frame, False)
    assert (opcode, failed) == (CLOSE, None)
    assert frames.parse_close(payload) == (1001, sent)


def test_encode_close_without_a_code_is_empty() -> None:
    """1005 is never on the wire (RFC 6455 §7.4.1); it stands for an empty payload, both ways."""
    assert frames.encode_close(NO_CODE, "not sent") == b"\x88\x00"
    assert frames.parse_close(b"") == (NO_CODE, "")


def test_sendable_close_codes_are_those_of_the_registry() -> None:
    """RFC 6455 §7.4 and IANA's registry; not 1004, 1005, 1006, 1015, nor what nobody registered."""
    sendable = {code for code in range(-1, 0x10001) if frames.is_sendable_close_code(code)}
    assert sendable == {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}


# -- Lawful streams ----------------------------------------------------------------------------

LENGTHS = [0, 1, 2, 3, 4, 5, 8, 124, 125, 126, 127, 200, 1000]


def random_message(rng: random.Random) -> Event:
    """Return a text of characters of all widths, or any bytes."""
    length = rng.choice(LENGTHS)
    if rng.random() < 0.5:
        return BINARY, rng.randbytes(length)
    return TEXT, "".join(rng.choices("aé€\N{GRINNING FACE}", k=length)).encode()


def random_stream(rng: random.Random, masked: bool) -> tuple[bytes, list[Event]]:
    """Return a lawful stream and what must come out; frames are cut and pinged at random."""
    pieces, events = [], []
    for _ in range(12):
        opcode, payload = random_message(rng)
        if rng.random() < 0.4:
            pieces.append(client_frame(opcode, payload, mask=masked))
        else:
            cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.randrange(FRAGMENTS)))
            ends = [*cuts, len(payload)]
            for number, (start, stop) in enumerate(itertools.pairwise([0, *ends])):
                part, fin = payload[start:stop], number == len(ends) - 1
                pieces.append(client_frame(CONTINUATION if number else opcode, part, fin, masked))
                if not fin and rng.random() < 0.5:
                    control = rng.choice([PING, PONG]), rng.randbytes(rng.choice([0, 1, 125]))
                    pieces.append(client_frame(*control, mask=masked))
                    events.append(control)
        events.append((opcode, payload))
    return b"".join(pieces), events


@both_sides
@pytest.mark.parametrize("seed", range(8))
def test_lawful_stream_in_any_pieces(seed: int, masked: bool) -> None:
    """Messages, fragments and control frames come out whole and in order, wherever it is cut."""
    stream, events = random_stream(random.Random(seed), masked)
    assert all_ways(stream, masked, limit=4000, seed=seed) == (events, None)


@pytest.mark.parametrize("mask", [bytes(4), b"\xff" * 4, b"\x00\x00\x00\x01", MASK])
def test_any_mask_will_do(mask: bytes) -> None:
    """RFC 6455 §5.3: a mask is any four bytes, and keeps its turn over pieces of any size."""
    for payload in (b"", b"a", b"ab", b"abc", b"abcd", b"abcde" * 60):
        for fin in (True, False):
            stream = header(True, BINARY, len(payload), fin) + mask + mask_payload(payload, mask)
            stream += b"" if fin else client_frame(CONTINUATION)
            assert all_ways(stream, True) == ([(BINARY, payload)], None)


@both_sides
def test_long_message_in_large_pieces(masked: bool) -> None:
    """A length of eight bytes, and pieces as a socket gives them."""
    payload = random.Random(1).randbytes(200_001)
    stream = client_frame(BINARY, payload, mask=masked) + client_frame(TEXT, "next", mask=masked)
    for size in (1021, 65_536, len(stream)):
        decoder = FrameDecoder(200_001, 1, masked=masked)
        events = run(decoder, (stream[at : at + size] for at in range(0, len(stream), size)))
        assert events == [(BINARY, payload), (TEXT, b"next")]


def test_masked_is_the_default() -> None:
    """Who does not say which side it is gets the strict side of a server."""
    assert FrameDecoder(LIMIT, 1).feed(client_frame(TEXT, "x")) == [(TEXT, b"x")]
    decoder = FrameDecoder(LIMIT, 1)
    decoder.feed(client_frame(TEXT, "x", mask=False))
    assert decoder.failure and decoder.failure.code == 1002


# -- Limits ------------------------------------------------------------------------------------


@both_sides
@pytest.mark.parametrize("limit", [1, 125, 126, 300, 65_535, 65_536])
def test_message_of_the_limit_and_one_above(limit: int, masked: bool) -> None:
    """The limit is allowed, whole and in fragments; one byte above is 1009 from the header on."""
    part = limit // 2
    whole = client_frame(BINARY, bytes(limit), mask=masked)
    halves = client_frame(BINARY, bytes(part), False, masked)
    halves += client_frame(CONTINUATION, bytes(limit - part), mask=masked)
    message = (BINARY, bytes(limit))
    assert all_ways(halves + whole, masked, limit) == ([message, message], None)

    too_big = header(masked, BINARY, limit + 1)
    assert all_ways(whole + too_big, masked, limit) == ([message], 1009)
    first = client_frame(BINARY, bytes(part), False, masked)
    too_long = header(masked, CONTINUATION, limit - part + 1)
    assert all_ways(first + too_long, masked, limit) == ([], 1009)


@both_sides
@pytest.mark.parametrize("fragments", [1, 2, 10])
def test_fragments_of_the_limit_and_one_above(fragments: int, masked: bool) -> None:
    """As many frames as allowed make a message, each time anew; one more is 1009, even if empty."""
    opening = client_frame(TEXT, "", False, masked)
    opening += client_frame(CONTINUATION, "x", False, masked) * (fragments - 1)
    ping = client_frame(PING, b"not counted", mask=masked)
    if fragments > 1:
        full = opening[: -len(client_frame(CONTINUATION, "x", False, masked))]
        full += ping + client_frame(CONTINUATION, "x", mask=masked)
        message = [(PING, b"not counted"), (TEXT, b"x" * (fragments - 1))]
    else:
        full, message = client_frame(TEXT, "whole", mask=masked), [(TEXT, b"whole")]
    assert all_ways(full * 3, masked, fragments=fragments) == (message * 3, None)
    stream = full + opening + header(masked, CONTINUATION, 0)
    assert all_ways(stream, masked, fragments=fragments) == (message, 1009)


@both_sides
@pytest.mark.parametrize("opcode", [PING, PONG])
def test_control_frame_of_the_limit(opcode: int, masked: bool) -> None:
    """RFC 6455 §5.5: a control frame has up to 125 bytes, whatever a message may have."""
    stream = client_frame(opcode, bytes(range(125)), mask=masked)
    assert all_ways(stream, masked, limit=1) == ([(opcode, bytes(range(125)))], None)


# -- Breaches ----------------------------------------------------------------------------------


def close(masked: bool, payload: bytes) -> bytes:
    return client_frame(CLOSE, payload, mask=masked)


def breaches(masked: bool) -> Iterator[tuple[str, int, bytes]]:
    """Give name, close code and stream of each breach; the last byte is the first bad one."""
    begun = client_frame(TEXT, "a", False, masked)
    wrong = 0x00 if masked else 0x80
    for rsv in (0x10, 0x20, 0x40):
        yield f"reserved bit {rsv:#x}", 1002, bytes([0x81 | rsv])
        yield f"reserved bit {rsv:#x} on a ping", 1002, bytes([0x89 | rsv])
        yield f"reserved bit {rsv:#x} on a continuation", 1002, begun + bytes([0x80 | rsv])
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode}", 1002, bytes([0x80 | opcode])
        yield f"opcode {opcode}, not final", 1002, bytes([opcode])
    for opcode in (CLOSE, PING, PONG):
        yield f"fragmented control {opcode}", 1002, bytes([opcode])
        yield f"control {opcode} of 126", 1002, header(masked, opcode, 126)[:2]
        yield f"control {opcode} of 65,536", 1002, header(masked, opcode, 65_536)[:2]
    for fin in (0x80, 0):
        yield f"continuation of nothing, {fin}", 1002, bytes([fin])
        yield f"text in a message, {fin}", 1002, begun + bytes([fin | TEXT])
        yield f"binary in a message, {fin}", 1002, begun + bytes([fin | BINARY])
    for first in (0x81, 0x01, 0x82, 0x88, 0x89, 0x8A):
        for length in (0, 5, 125, 126, 127):
            yield f"other masking {first:#x} {length}", 1002, bytes([first, wrong | length])
    yield "other masking in a continuation", 1002, begun + bytes([0x80, wrong])
    for length in (0, 1, 125):
        yield f"{length} in two", 1002, header(masked, TEXT, length, length_bytes=2)
    for length in (0, 126, 65_535):
        yield f"{length} in eight", 1002, header(masked, BINARY, length, length_bytes=8)
    for length in (1 << 63, (1 << 64) - 1):
        yield f"length {length:#x}", 1002, header(masked, BINARY, length)
    for length in (LIMIT + 1, 65_535, 65_536, (1 << 63) - 1):
        yield f"too big by header, {length}", 1009, header(masked, TEXT, length)
    for size in range(2):
        yield f"close of one byte, {size}", 1002, (begun * size) + close(masked, b"\x03")
    for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_535):
        yield f"close code {code}", 1002, close(masked, struct.pack("!H", code))
    for reason in (b"\xff", b"\xc3", b"ok \xed\xa0\x80"):
        yield f"close reason {reason!r}", 1007, close(masked, b"\x03\xe8" + reason)
    for bad in (b"\xff", b"abc\xc0", b"\xc3\xa9\xed\xa0", b"\xf4\x90", b"\xe2\x82a"):
        for length in (len(bad), 100, 200):
            for fin in (True, False):
                frame = client_frame(TEXT, bad, fin, masked, claimed=length)
                yield f"text {bad!r} of {length}, {fin}", 1007, frame
    unfinished = client_frame(TEXT, b"\xe2\x82", False, masked)
    yield "text cut off", 1007, client_frame(TEXT, b"\xe2\x82", mask=masked)
    yield "long text cut off", 1007, client_frame(TEXT, b"x" * 200 + b"\xe2", mask=masked)
    yield "fragments cut off", 1007, unfinished + client_frame(CONTINUATION, b"", mask=masked)
    yield "bad over fragments", 1007, unfinished + client_frame(CONTINUATION, b"a", False, masked)


@both_sides
def test_breach_is_found_at_its_first_bad_byte(masked: bool) -> None:
    """Each breach has its close code as soon as it can be seen, and not a byte before."""
    whole = client_frame(TEXT, "whole", mask=masked)
    for name, code, breach in breaches(masked):
        for before, events in ((b"", []), (whole, [(TEXT, b"whole")])):
            stream = before + breach
            assert all_ways(stream, masked) == (events, code), name
            assert all_ways(stream[:-1], masked) == (events, None), name
            assert all_ways(stream + whole, masked) == (events, code), name


@both_sides
def test_failure_is_final(masked: bool) -> None:
    """After a breach nothing is decoded any more, and the failure stays the first one."""
    decoder = FrameDecoder(LIMIT, FRAGMENTS, masked=masked)
    assert decoder.feed(client_frame(TEXT, b"\xff", mask=masked)) == []
    failure = decoder.failure
    assert failure is not None and failure.code == 1007
    assert 0 < len(failure.reason.encode()) <= 123
    assert run(decoder, [client_frame(TEXT, "x", mask=masked), b"\xff"]) == []
    assert decoder.failure is failure
    assert not decoder.closed


@both_sides
@pytest.mark.parametrize("after", ["", "lawful", "breach"])
def test_nothing_counts_after_close(after: str, masked: bool) -> None:
    """RFC 6455 §5.5.1: what follows a Close is ignored, be it lawful or not; also inside a message.

    The message that the Close interrupts never comes out.
    """
    payload = struct.pack("!H", 1000) + "tschüß".encode()
    rest = {
        "": b"",
        "lawful": client_frame(CONTINUATION, "b", mask=masked),
        "breach": b"\xff\xff\xff",
    }[after]
    begun = client_frame(TEXT, "a", False, masked)
    for before in (b"", begun):
        stream = before + close(masked, payload)
        assert all_ways(stream + rest, masked) == ([(CLOSE, payload)], None)
        decoder = FrameDecoder(LIMIT, FRAGMENTS, masked=masked)
        assert decoder.feed(stream) == [(CLOSE, payload)]
        assert decoder.closed
        assert run(decoder, [rest, rest]) == []
    assert frames.parse_close(payload) == (1000, "tschüß")


@both_sides
def test_every_sendable_close_code_is_taken(masked: bool) -> None:
    """An empty Close and each code that may be sent come through."""
    for payload in (b"", *(struct.pack("!H", code) for code in (1000, 1003, 1007, 1014, 3000))):
        assert all_ways(close(masked, payload), masked) == ([(CLOSE, payload)], None)


# -- UTF-8 -------------------------------------------------------------------------------------

# RFC 3629 §4: lead byte, then the ranges of the bytes behind it.
TAIL = range(0x80, 0xC0)
UTF8 = [
    (range(0x80), []),
    (range(0xC2, 0xE0), [TAIL]),
    (range(0xE0, 0xE1), [range(0xA0, 0xC0), TAIL]),
    (range(0xE1, 0xED), [TAIL, TAIL]),
    (range(0xED, 0xEE), [range(0x80, 0xA0), TAIL]),
    (range(0xEE, 0xF0), [TAIL, TAIL]),
    (range(0xF0, 0xF1), [range(0x90, 0xC0), TAIL, TAIL]),
    (range(0xF1, 0xF4), [TAIL, TAIL, TAIL]),
    (range(0xF4, 0xF5), [range(0x80, 0x90), TAIL, TAIL]),
]


def count_good(data: bytes) -> int:
    """Return how many bytes come before the first one that no valid text can have there."""
    expected: list[range] = []
    for count, byte in enumerate(data):
        if expected:
            if byte not in expected[0]:
                return count
            expected = expected[1:]
        else:
            for leads, tails in UTF8:
                if byte in leads:
                    expected = tails
                    break
            else:
                return count
    return len(data)


@both_sides
def test_bad_utf8_is_refused_at_its_first_byte(masked: bool) -> None:
    """RFC 6455 §8.1: every way to break UTF-8 ends it at the byte that breaks it (RFC 3629 §4)."""
    edges = b"\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xff"
    leads = b"\x00\x7f\x80\xbf\xc0\xc1\xc2\xdf\xe0\xe1\xec\xed\xee\xef\xf0\xf1\xf3\xf4\xf5\xff"
    start = header(masked, TEXT, 100, False) + (bytes(4) if masked else b"")
    for data in map(bytes, itertools.product(leads, edges, edges, edges)):
        decoder = FrameDecoder(LIMIT, FRAGMENTS, masked=masked)
        decoder.feed(start)
        taken = 0
        for piece in single_bytes(data):
            decoder.feed(piece)
            if decoder.failure:
                assert decoder.failure.code == 1007
                break
            taken += 1
        assert taken == count_good(data), data


# -- Crumbs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames_", "crumbs"),
    [
        ([(BINARY, 10, True)], 0),
        ([(BINARY, 0, True), (TEXT, 125, True)], 0),
        ([(BINARY, 0, False)], 1),
        ([(BINARY, 125, False)], 1),
        ([(BINARY, 126, False)], 0),
        ([(BINARY, 126, False), (CONTINUATION, 0, False), (CONTINUATION, 0, True)], 1),
        ([(BINARY, 1, False), (CONTINUATION, 1, False), (CONTINUATION, 1, True)], 2),
        ([(PING, 5, True), (PONG, 5, True)], 0),
    ],
)
def test_small_fragments_are_counted(frames_: list[tuple[int, int, bool]], crumbs: int) -> None:
    """Those that end no message: each costs the decoder as much as a message, and is none."""
    data = b"".join(client_frame(opcode, b"a" * size, fin) for opcode, size, fin in frames_)
    whole = FrameDecoder(1000, 1000)
    whole.feed(data)
    pieces = FrameDecoder(1000, 1000)
    for byte in data:
        pieces.feed(bytes([byte]))
    assert (whole.crumbs, pieces.crumbs) == (crumbs, crumbs)


# -- Skipping ----------------------------------------------------------------------------------


def whole_breaches(masked: bool) -> Iterator[bytes]:
    """Give streams in which something is wrong, but each frame has the length that it claims."""
    yield b""
    yield client_frame(TEXT, b"x", mask=masked, rsv=2)
    yield client_frame(3, b"x" * 300, mask=masked)
    yield client_frame(PING, b"x", False, masked)
    yield client_frame(PING, b"x" * 300, mask=masked)
    yield client_frame(CONTINUATION, b"x", mask=masked)
    yield client_frame(TEXT, b"a", False, masked) + client_frame(TEXT, b"b", mask=masked)
    yield client_frame(TEXT, b"x", mask=not masked)
    yield client_frame(TEXT, b"x", mask=masked, length_bytes=8)
    yield client_frame(BINARY, b"x" * 70_000, mask=masked)
    for bad in (b"\xff", b"\xe2\x82", b"x" * 200 + b"\xff" + b"x" * 200, b"x" * 400 + b"\xe2"):
        yield client_frame(TEXT, bad, mask=masked)
        yield client_frame(TEXT, b"", False, masked) + client_frame(0, bad, True, masked)
    yield client_frame(TEXT, b"\xe2", False, masked) + client_frame(0, b"", True, masked)
    yield client_frame(TEXT, b"a", False, masked) + 9 * client_frame(0, b"b", False, masked)


@both_sides
def test_close_is_found_behind_whatever_is_wrong(masked: bool) -> None:
    """And behind what came before and after it; nowhere else, however the stream is cut."""
    good = client_frame(TEXT, "good", mask=masked)
    # In a payload there is no Close.
    late = client_frame(BINARY, 200 * close(masked, b""), mask=masked)
    for breach in whole_breaches(masked):
        decoded = good + breach + late
        stream = decoded + client_frame(PING, b"?", mask=masked) + close(masked, b"\x03\xe8")
        for pieces in ([stream], single_bytes(stream), [decoded, stream[len(decoded) :]]):
            decoder = FrameDecoder(LIMIT, FRAGMENTS, masked=masked)
            read = 0
            for piece in pieces:
                assert not decoder.closed, (breach[:20], read)
                if decoder.failure is None and read < len(decoded):
                    decoder.feed(piece)
                    if decoder.failure is not None:
                        decoder.skip(b"")
                elif decoder.skip(piece):
                    break
                read += len(piece)
            assert decoder.closed, breach[:20]
            assert len(pieces) < 3 or read >= len(stream) - len(close(masked, b"\x03\xe8"))
            assert decoder.feed(good) == []


def test_close_that_is_wrong_is_found() -> None:
    """It is no good one, but the peer says nothing more."""
    for payload in (b"\x03", b"\x03\xed", b"\x03\xe8\xff"):
        decoder = FrameDecoder(LIMIT, FRAGMENTS)
        assert decoder.feed(close(True, payload)) == []
        assert decoder.failure is not None and decoder.skip(b"")


def test_no_close_is_found_behind_more_frames_than_buffers_hold() -> None:
    """Each frame that is skipped costs as much as a message, and nobody pays for it."""
    last = close(True, b"\x03\xe8")
    for count, is_found in ((frames.MAX_SKIPPED, True), (frames.MAX_SKIPPED + 1, False)):
        decoder = FrameDecoder(LIMIT, FRAGMENTS)
        assert not decoder.skip(client_frame(TEXT, "") * count)
        assert decoder.skip(last) is is_found
    assert not decoder.skip(last)
