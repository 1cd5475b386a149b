"""Frames and opening handshakes as a client sends them, or as it should not (RFC 6455)."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterable

CONTINUATION, TEXT, BINARY = 0x0, 0x1, 0x2
CLOSE, PING, PONG = 0x8, 0x9, 0xA

# The key of RFC 6455 §1.3 and what a server must make of it.
SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SAMPLE_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

MASK = b"\x11\x22\x33\x44"


def mask_payload(payload: bytes, mask: bytes) -> bytes:
    """Return the payload masked (RFC 6455 §5.3)."""
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")


def client_frame(
    opcode: int,
    payload: bytes | str = b"",
    fin: bool = True,
    mask: bool = True,
    rsv: int = 0,
    *,
    length_bytes: int | None = None,
    claimed: int | None = None,
) -> bytes:
    """Return a frame as a client sends it, or as it should not.

    Args:
        length_bytes: 1, 2 or 8 to force the size of the length field; None for the shortest.
        claimed: a length for the header other than the payload's.
    """
    if isinstance(payload, str):
        payload = payload.encode()
    length = len(payload) if claimed is None else claimed
    if length_bytes is None:
        length_bytes = 1 if length < 126 else 2 if length < 0x10000 else 8
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask else 0
    if length_bytes == 1:
        head = struct.pack("!BB", first, bit | length)
    elif length_bytes == 2:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    return head + (MASK + mask_payload(payload, MASK) if mask else payload)


def upgrade_request(
    path: str = "/",
    headers: Iterable[str] = (),
    *,
    host: str = "127.0.0.1",
    key: str = SAMPLE_KEY,
) -> bytes:
    """Return an opening handshake with some header lines added."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def accept_for(key: str) -> str:
    """Return what a server must answer to a key (RFC 6455 §4.2.2), worked out here once more."""
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest).decode()
