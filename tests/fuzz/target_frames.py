"""Target: ``frames.FrameDecoder`` on either side, and the frames that the hub makes.

Of an input the first byte chooses side and limits, the second how the stream is cut; the rest is
the stream. What must hold: no exception; the result does not depend on the cuts; no limit is
passed, not even by what is only kept; all that was decoded can be encoded and decoded again. What
comes behind a failure is skipped, and whether a Close is found does not depend on the cuts either.
"""

from __future__ import annotations

from broadcast_server.client.dialer import masked_frame
from broadcast_server.wire import frames
from broadcast_server.wire.frames import FrameDecoder

from ..support.inside import message_of, tail_of

MESSAGE_LIMITS = (16, 130, 4096, 70_000)
FRAGMENT_LIMITS = (1, 2, 5, 1000)

# The longest header, or a control frame that is not all here.
MAX_TAIL_BYTES = 2 + 4 + frames.MAX_CONTROL_BYTES

Result = tuple[list[tuple[int, bytes]], "tuple[int, str] | None", bool]


def run(data: bytes) -> str:
    """Decode a stream in one piece, in many, and what came of it once more."""
    if len(data) < 2:
        return "short"
    choice, cut, stream = data[0], data[1], data[2:]
    masked = not choice & 1
    limit = MESSAGE_LIMITS[choice >> 1 & 3]
    fragments = FRAGMENT_LIMITS[choice >> 3 & 3]
    whole = _decode([stream], masked, limit, fragments)
    assert _decode(cut_up(stream, cut), masked, limit, fragments) == whole
    if len(stream) <= 128:
        single = [stream[place : place + 1] for place in range(len(stream))]
        assert _decode(single, masked, limit, fragments) == whole
    events, failure, closed = whole
    _check_again(events)
    if failure is not None:
        code, reason = failure
        assert code in (1002, 1007, 1009) and reason
        # What the hub would answer is itself a good frame.
        again = FrameDecoder(1, 1, masked=False)
        assert again.feed(frames.encode_close(code, reason)) and again.failure is None
        return str(code)
    return "closed" if closed else "messages" if events else "more"


def cut_up(stream: bytes, cut: int) -> list[bytes]:
    """Return the pieces of a stream; their sizes depend on a number only."""
    pieces = []
    place, turn = 0, cut + 1
    while place < len(stream):
        turn = turn * 75 % 65537
        size = 1 + turn % (1 << (turn >> 8) % 8)
        pieces.append(stream[place : place + size])
        place += size
    return pieces


def _decode(pieces: list[bytes], masked: bool, limit: int, fragments: int) -> Result:
    decoder = FrameDecoder(limit, fragments, masked=masked)
    events = []
    for piece in pieces:
        if decoder.failure is not None or decoder.closed:
            decoder.skip(piece)
            continue
        found = decoder.feed(piece)
        events += found
        if decoder.failure is not None:
            decoder.skip(b"")
        assert len(tail_of(decoder)) <= MAX_TAIL_BYTES
        message = message_of(decoder)
        assert message is None or len(message) <= limit
    if decoder.failure is not None or decoder.closed:
        assert decoder.feed(b"\x81\x80\x00\x00\x00\x00") == []
    failure = decoder.failure
    for opcode, payload in events:
        most = frames.MAX_CONTROL_BYTES if opcode >= frames.CLOSE else limit
        assert len(payload) <= most
    return events, None if failure is None else (failure.code, failure.reason), decoder.closed


def _check_again(events: list[tuple[int, bytes]]) -> None:
    """Encode what was decoded, as a server and as a client does, and decode that."""
    for encode, masked in ((frames.encode_frame, False), (masked_frame, True)):
        decoder = FrameDecoder(max(MESSAGE_LIMITS), 1, masked=masked)
        assert decoder.feed(b"".join(encode(*event) for event in events)) == events
        assert decoder.failure is None
    for opcode, payload in events:
        if opcode == frames.CLOSE:
            code, reason = frames.parse_close(payload)
            assert frames.encode_close(code, reason) == frames.encode_frame(opcode, payload)
        elif opcode <= frames.BINARY:
            data = frames.data_of(frames.encode_frame(opcode, payload))
            assert (data.encode() if isinstance(data, str) else data) == payload
