"""The frame codec, without a socket: what it takes, what it refuses, and when."""

from __future__ import annotations

import random

import pytest

from broadcast_server import frames
from broadcast_server.frames import FrameDecoder

from .support import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame

LIMIT = 1000
FRAGMENTS = 4


def decoder(*, masked: bool = True, limit: int = LIMIT) -> FrameDecoder:
    """Return a decoder with small limits."""
    return FrameDecoder(limit, FRAGMENTS, masked=masked)


def frame(
    opcode: int, payload: bytes | str = b"", fin: bool = True, *, masked: bool = True, rsv: int = 0
) -> bytes:
    """Return a frame of the peer."""
    return client_frame(opcode, payload, fin, masked, rsv)


@pytest.fixture(params=[True, False], ids=["from a client", "from a server"])
def masked(request: pytest.FixtureRequest) -> bool:
    """Both sides of the protocol."""
    return bool(request.param)


def stream(masked: bool) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Return bytes with every kind of frame in it, and what they say."""
    text = "\u00fc\u20ac\U0001f600" * 10
    raw = text.encode()
    pieces = [
        frame(TEXT, "a", masked=masked),
        frame(TEXT, "", masked=masked),
        frame(BINARY, bytes(range(256)), masked=masked),
        frame(PING, "now", masked=masked),
        # Cut inside a character, with a ping between the fragments.
        frame(TEXT, raw[:1], False, masked=masked),
        frame(PING, "", masked=masked),
        frame(CONTINUATION, raw[1:7], False, masked=masked),
        frame(CONTINUATION, b"", False, masked=masked),
        frame(CONTINUATION, raw[7:], masked=masked),
        frame(BINARY, b"\xff" * 125, masked=masked),
        frame(BINARY, b"\xff" * 126, masked=masked),
        frame(PONG, b"p" * 125, masked=masked),
        frame(BINARY, b"x" * LIMIT, masked=masked),
        frame(CLOSE, b"\x03\xe8bye", masked=masked),
    ]
    events = [
        (TEXT, b"a"),
        (TEXT, b""),
        (BINARY, bytes(range(256))),
        (PING, b"now"),
        (PING, b""),
        (TEXT, raw),
        (BINARY, b"\xff" * 125),
        (BINARY, b"\xff" * 126),
        (PONG, b"p" * 125),
        (BINARY, b"x" * LIMIT),
        (CLOSE, b"\x03\xe8bye"),
    ]
    return b"".join(pieces), events


# -- Out ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "head"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_length_has_its_shortest_form(length: int, head: bytes) -> None:
    """RFC 6455 §5.2, and what was made can be read again."""
    made = frames.encode_frame(BINARY, b"x" * length)
    assert made == head + b"x" * length
    assert frames.data_of(made) == b"x" * length
    assert decoder(masked=False, limit=length + 1).feed(made) == [(BINARY, b"x" * length)]


def test_data_of_tells_text_from_binary() -> None:
    """A str comes back as a str."""
    for length in (1, 200, 70_000):
        text = "\u00fc" * length
        assert frames.data_of(frames.encode_frame(TEXT, text.encode())) == text


def test_close_reason_is_cut_to_what_fits() -> None:
    """123 bytes at most, and never half a character (RFC 6455 §5.5)."""
    assert frames.encode_close(1000) == b"\x88\x02\x03\xe8"
    assert frames.encode_close(frames.NO_CODE, "not sent") == b"\x88\x00"
    made = frames.encode_close(1013, "x" + "\u00fc" * 100)
    assert made[1] == len(made) - 2 == 2 + 123
    assert frames.parse_close(made[2:]) == (1013, "x" + "\u00fc" * 61)
    made = frames.encode_close(1013, "\u00fc" * 100)
    assert frames.parse_close(made[2:]) == (1013, "\u00fc" * 61)
    assert frames.parse_close(b"") == (frames.NO_CODE, "")


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 4000, 4999])
def test_code_of_the_registry_may_be_sent(code: int) -> None:
    """Both ways."""
    assert frames.is_sendable_close_code(code)
    d = decoder()
    payload = code.to_bytes(2, "big")
    assert d.feed(frame(CLOSE, payload)) == [(CLOSE, payload)]
    assert d.closed and d.failure is None


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535])
def test_code_that_means_nothing_may_not_be_sent(code: int) -> None:
    """Both ways (RFC 6455 §7.4)."""
    assert not frames.is_sendable_close_code(code)
    d = decoder()
    assert d.feed(frame(CLOSE, code.to_bytes(2, "big"))) == []
    assert d.failure is not None and d.failure.code == 1002


# -- In ----------------------------------------------------------------------------------------


def test_all_kinds_of_frames_in_one_piece(masked: bool) -> None:
    """Messages whole, control frames where they came."""
    data, events = stream(masked)
    d = decoder(masked=masked)
    assert d.feed(data) == events
    assert d.closed and d.failure is None


def test_all_kinds_of_frames_byte_by_byte(masked: bool) -> None:
    """How the bytes arrive makes no difference."""
    data, events = stream(masked)
    d = decoder(masked=masked)
    found = [event for byte in data for event in d.feed(bytes([byte]))]
    assert found == events


def test_all_kinds_of_frames_in_random_pieces(masked: bool) -> None:
    """The same with 300 ways to cut."""
    data, events = stream(masked)
    chance = random.Random(7)
    for _ in range(300):
        cuts = sorted(chance.choices(range(len(data)), k=chance.randrange(12)))
        d = decoder(masked=masked)
        found = []
        for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
            found += d.feed(data[start:stop])
        assert found == events, cuts


def test_what_comes_after_close_is_not_read() -> None:
    """Neither in the same piece nor in the next one (RFC 6455 §5.5.1)."""
    d = decoder()
    assert d.feed(frame(CLOSE) + frame(TEXT, "late")) == [(CLOSE, b"")]
    assert d.feed(frame(TEXT, "late")) == []
    assert d.failure is None


BAD: dict[str, tuple[bytes, int]] = {
    "reserved bit 1": (frame(TEXT, "x", rsv=4), 1002),
    "reserved bit 2": (frame(TEXT, "x", rsv=2), 1002),
    "reserved bit 3": (frame(PING, "x", rsv=1), 1002),
    **{f"opcode {n:#x}": (frame(n, "x"), 1002) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "no mask": (frame(TEXT, "x", masked=False), 1002),
    "ping without a mask": (frame(PING, masked=False), 1002),
    "fragmented ping": (frame(PING, fin=False), 1002),
    "fragmented close": (frame(CLOSE, fin=False), 1002),
    "continuation of nothing": (frame(CONTINUATION, "x"), 1002),
    "text inside a message": (frame(TEXT, "x", False) + frame(TEXT, "y"), 1002),
    "ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "close reason that is no UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    "text that is no UTF-8": (frame(TEXT, b"\xff"), 1007),
    "text that ends in a character": (frame(TEXT, "\u20ac".encode()[:2]), 1007),
    "message that ends in a character": (
        frame(TEXT, "\u20ac".encode()[:2], False) + frame(CONTINUATION, b""), 1007),
    "surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "overlong": (frame(TEXT, b"\xc0\xaf"), 1007),
    "126 for a short length": (client_frame(TEXT, "x", length_bytes=2), 1002),
    "127 for a short length": (client_frame(TEXT, b"x" * 126, length_bytes=8), 1002),
    "length of 2**63": (client_frame(BINARY, claimed=1 << 63, length_bytes=8), 1002),
    "one byte too many": (frame(BINARY, b"x" * (LIMIT + 1)), 1009),
    "one byte too many in two": (
        frame(BINARY, b"x" * LIMIT, False) + frame(CONTINUATION, b"x"), 1009),
    "one fragment too many": (
        frame(BINARY, b"x", False) + frame(CONTINUATION, b"x", False) * FRAGMENTS, 1009),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_frame_fails_after_what_came_before_it(kind: str) -> None:
    """The good message is still there; nothing after the bad one is read; the code is right."""
    data, code = BAD[kind]
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        d = decoder()
        events = d.feed(frame(TEXT, "good"))
        for piece in pieces:
            events += d.feed(piece)
        assert events == [(TEXT, b"good")]
        assert d.failure is not None and d.failure.code == code, d.failure
        assert d.feed(frame(TEXT, "late")) == []


def test_masked_frame_of_a_server_fails() -> None:
    """RFC 6455 §5.1."""
    d = decoder(masked=False)
    assert d.feed(frame(TEXT, "x")) == []
    assert d.failure is not None and d.failure.code == 1002


@pytest.mark.parametrize("size", [LIMIT + 1, 1 << 16, (1 << 63) - 1])
def test_too_big_a_length_fails_before_its_payload(size: int) -> None:
    """The header is enough, even without its mask."""
    head = client_frame(BINARY, claimed=size)[:-4]
    d = decoder()
    assert d.feed(head) == []
    assert d.failure is not None and d.failure.code == 1009


def test_bad_byte_fails_at_once() -> None:
    """Also in the middle of a fragment whose rest has not come (RFC 6455 §8.1)."""
    whole = frame(TEXT, b"ok\xff" + b"x" * 90)
    d = decoder()
    d.feed(whole[: 6 + 3])
    assert d.failure is not None and d.failure.code == 1007


def test_first_byte_is_enough_to_fail() -> None:
    """A wrong opcode is not waited upon."""
    d = decoder()
    d.feed(b"\x83")
    assert d.failure is not None and d.failure.code == 1002


def test_exactly_the_limits_are_taken() -> None:
    """As many bytes and fragments as are allowed."""
    d = decoder()
    quarter = b"x" * (LIMIT // FRAGMENTS)
    data = frame(BINARY, quarter, False) + frame(CONTINUATION, quarter, False) * (FRAGMENTS - 2)
    assert d.feed(data) == []
    assert d.feed(frame(CONTINUATION, quarter)) == [(BINARY, b"x" * LIMIT)]
    assert d.failure is None
