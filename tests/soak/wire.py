"""What a client reads, from bytes: WebSocket frames, HTTP answers, server-sent events. No I/O.

Also the payloads of the messages: each says who has sent it and what its bytes must be.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from typing import Any

from .order import Violation, make_key

# Every eighth message is binary.
_BINARY_EACH = 8
_PIECE = 'One line ends here\nand "quotes", \\ and é or ✓ and 😀 are text. '
_FILLER = _PIECE * 160


def payload_of(sender: int, seq: int, size: int) -> str | bytes:
    """Return a message of about that many characters."""
    shift = seq % len(_PIECE)
    text = f"{sender}.{seq}.{size}|{_FILLER[shift : shift + size]}"
    return b"\xff" + text.encode() if seq % _BINARY_EACH == 0 else text


def key_of(data: str | bytes) -> tuple[int, int]:
    """Return key and size of a message, which must be what was sent to the last byte."""
    try:
        text = data if isinstance(data, str) else data[1:].decode()
        sender, seq, size = map(int, text.partition("|")[0].split("."))
    except ValueError:
        raise Violation(f"what came is no message of ours: {data[:200]!r}") from None
    if data != payload_of(sender, seq, size):
        raise Violation(f"message {seq} of sender {sender} has changed: {data[:200]!r}")
    return make_key(sender, seq), size


class Frames:
    """Frames of a server, which must be lawful: unmasked, whole messages, shortest lengths."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Return (opcode, payload) of each frame that is complete."""
        buffer = self._buffer
        buffer += data
        position = 0
        while len(buffer) - position >= 2:
            first, length = buffer[position], buffer[position + 1]
            head = 2
            if length == 126:
                head = 4
                if len(buffer) - position < head:
                    break
                (length,) = struct.unpack_from("!H", buffer, position + 2)
                lawful = length >= 126
            elif length == 127:
                head = 10
                if len(buffer) - position < head:
                    break
                (length,) = struct.unpack_from("!Q", buffer, position + 2)
                lawful = length >= 0x10000
            else:
                lawful = length < 126
            if first & 0xF0 != 0x80 or not lawful:
                raise Violation(f"no lawful frame: {bytes(buffer[position : position + 20])!r}")
            if len(buffer) - position < head + length:
                break
            start = position + head
            position = start + length
            yield first & 0x0F, bytes(buffer[start:position])
        del buffer[:position]


class Head:
    """The head of an HTTP answer."""

    def __init__(self) -> None:
        self._buffer = b""
        self.status = 0
        self.headers: dict[str, str] = {}

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes; return those behind the head once it is there."""
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        return rest


class Events:
    """A stream of server-sent events."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> Iterator[dict[str, str]]:
        """Return the fields of each event that is complete; comments are left out."""
        *blocks, self._buffer = (self._buffer + data).split(b"\n\n")
        for block in blocks:
            fields: dict[str, str] = {}
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                if name:
                    value = value.removeprefix(" ")
                    fields[name] = fields[name] + "\n" + value if name in fields else value
            if fields:
                yield fields


def data_of(event: dict[str, Any]) -> str | bytes:
    """Return the data of a ``message`` event."""
    if "data" in event:
        data: str = event["data"]
        return data
    return base64.b64decode(event["data_base64"], validate=True)


def send_event(sender: int, seq: int, size: int) -> str:
    """Return a ``send`` event, whose key makes it safe to send again."""
    data = payload_of(sender, seq, size)
    event: dict[str, Any] = {"type": "send", "ref": seq, "key": f"{sender}-{seq}"}
    if isinstance(data, str):
        event["data"] = data
    else:
        event["data_base64"] = base64.b64encode(data).decode()
    return json.dumps(event)
