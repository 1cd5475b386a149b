"""The cost of decoding small masked frames: the hub's decoder against a bare loop.

The loop below does the least that a hub must do for a frame: find its parts, unmask the payload,
check that it is UTF-8. It knows only whole, short, final, masked frames and checks no rule, so it
is a floor and not an alternative.
"""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable

import websocket

from broadcast_server.wire.frames import FrameDecoder

FRAMES = 10_000
SEGMENT_BYTES = 64 * 1024


def masked_frame(payload: bytes, number: int) -> bytes:
    mask = struct.pack("!I", (number * 2_654_435_761 + 0x9E3779B9) & 0xFFFFFFFF)
    body = bytes(byte ^ mask[i & 3] for i, byte in enumerate(payload))
    return bytes((0x81, 0x80 | len(payload))) + mask + body


def reference(data: bytes) -> list[tuple[int, bytes]]:
    frames = []
    position = 0
    end = len(data)
    from_bytes = int.from_bytes
    while position < end:
        length = data[position + 1] & 0x7F
        start = position + 6
        stop = start + length
        mask = (data[position + 2 : start] * (length // 4 + 1))[:length]
        value = from_bytes(data[start:stop], "little") ^ from_bytes(mask, "little")
        payload = value.to_bytes(length, "little")
        payload.decode()
        frames.append((data[position] & 0x0F, payload))
        position = stop
    return frames


def decoder(data: bytes) -> list[tuple[int, bytes]]:
    """Decode as the hub does: in segments as a socket gives them."""
    frame_decoder = FrameDecoder(1024 * 1024, 131_072)
    frames = []
    for position in range(0, len(data), SEGMENT_BYTES):
        frames += frame_decoder.feed(data[position : position + SEGMENT_BYTES])
    return frames


def measure(rounds: int = 9) -> tuple[float, float]:
    """Return microseconds for one frame of 64 bytes: by the hub's decoder, by the reference loop.

    The two take turns and the best round of each counts: noise only ever adds.
    """
    data = b"".join(masked_frame(b"%064d" % number, number) for number in range(FRAMES))
    if decoder(data) != reference(data):
        raise AssertionError("the two decoders disagree")
    best = {decoder: float("inf"), reference: float("inf")}
    decode: Callable[[bytes], list[tuple[int, bytes]]]
    for _ in range(rounds):
        for decode in (decoder, reference):
            start = time.perf_counter()
            decode(data)
            best[decode] = min(best[decode], time.perf_counter() - start)
    return best[decoder] / FRAMES * 1e6, best[reference] / FRAMES * 1e6


def measure_client() -> tuple[float, float]:
    """Return microseconds for an unmasked frame of 64 bytes: by our client, by websocket-client."""
    data = b"".join(b"\x81\x40" + b"%064d" % number for number in range(FRAMES))

    def ours() -> int:
        frame_decoder = FrameDecoder(1024 * 1024, 131_072, masked=False)
        starts = range(0, len(data), SEGMENT_BYTES)
        return sum(len(frame_decoder.feed(data[i : i + SEGMENT_BYTES])) for i in starts)

    def theirs() -> int:
        stream = io.BytesIO(data)
        buffer = websocket.frame_buffer(stream.read, skip_utf8_validation=False)
        joined = websocket.continuous_frame(fire_cont_frame=False, skip_utf8_validation=False)
        for _ in range(FRAMES):
            frame = buffer.recv_frame()
            joined.validate(frame)
            joined.add(frame)
            joined.extract(frame)
        return FRAMES

    best = {ours: float("inf"), theirs: float("inf")}
    for _ in range(5):
        for decode in (ours, theirs):
            start = time.perf_counter()
            if decode() != FRAMES:
                raise AssertionError("frames are missing")
            best[decode] = min(best[decode], time.perf_counter() - start)
    return best[ours] / FRAMES * 1e6, best[theirs] / FRAMES * 1e6


if __name__ == "__main__":
    for title, (own, other), name in (
        ("the hub's decoder", measure(), "a bare loop"),
        ("the client's decoder", measure_client(), "websocket-client"),
    ):
        print(f"{title}: {own:.2f} µs a frame of 64 bytes; {name}: {other:.2f} µs")
