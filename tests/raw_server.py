"""A WebSocket server of one connection over a bare socket, which can break any rule it likes.

As a reader it is strict: a frame that no client may send fails the test.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

from broadcast_server import BroadcastClient

from .support import CLOSE, PING, PONG, accept_for, mask_payload

SECONDS = 10.0


class RawServer:
    """The server's end of one connection.

    Attributes:
        sock: the socket, for whatever a test wants to do to it.
        head: the client's opening handshake.
    """

    def __init__(self, sock: socket.socket, head: str) -> None:
        self.sock = sock
        self.head = head

    def recv_exact(self, count: int) -> bytes:
        """Return exactly that many bytes; EOFError if the stream ends before."""
        data = bytearray()
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise EOFError(f"the stream ended {count - len(data)} bytes early")
            data += piece
        return bytes(data)

    def recv_frame(self) -> tuple[int, bytes]:
        """Return (opcode, payload) of the next frame, which must be a lawful client's."""
        first, second = self.recv_exact(2)
        assert first & 0xF0 == 0x80, f"not one whole frame: {first:#x}"
        assert second & 0x80, "a client must mask (RFC 6455 §5.1)"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self.recv_exact(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.recv_exact(8))
        mask = self.recv_exact(4)
        return first & 0x0F, mask_payload(self.recv_exact(length), mask)

    def recv_close(self) -> tuple[int, str]:
        """Return code and reason of the Close that must come next."""
        opcode, payload = self.recv_frame()
        assert opcode == CLOSE, (opcode, payload[:200])
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def recv_eof(self) -> None:
        """Check that the client ends the stream here, in order."""
        assert self.sock.recv(1) == b""

    def send_frame(
        self, opcode: int, payload: bytes | str = b"", *, fin: bool = True, masked: bool = False
    ) -> None:
        """Send one frame."""
        data = payload.encode() if isinstance(payload, str) else payload
        first, bit = (0x80 if fin else 0) | opcode, 0x80 if masked else 0
        if len(data) < 126:
            head = struct.pack("!BB", first, bit | len(data))
        elif len(data) < 0x10000:
            head = struct.pack("!BBH", first, bit | 126, len(data))
        else:
            head = struct.pack("!BBQ", first, bit | 127, len(data))
        self.sock.sendall(head + (bytes(4) if masked else b"") + data)

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Send a Close frame."""
        self.send_frame(CLOSE, struct.pack("!H", code) + reason.encode())

    def ping(self, payload: bytes = b"?") -> None:
        """Send a ping and wait for its pong, which must come next."""
        self.send_frame(PING, payload)
        assert self.recv_frame() == (PONG, payload)

    def accept_close(self) -> tuple[int, str]:
        """Echo the Close that must come next and end the stream; return its code and reason."""
        code, reason = self.recv_close()
        self.send_close(code)
        self.sock.shutdown(socket.SHUT_WR)
        return code, reason


class Listener:
    """A listening socket and the address that a client needs."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.settimeout(SECONDS)
        self.port: int = self.sock.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/room"

    def read_head(self) -> tuple[socket.socket, str]:
        """Accept a connection and read its request."""
        sock, _ = self.sock.accept()
        sock.settimeout(SECONDS)
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            piece = sock.recv(4096)
            if not piece:
                break
            data += piece
        return sock, data.decode()

    def accept(self) -> RawServer:
        """Accept a connection and make it a WebSocket."""
        sock, head = self.read_head()
        key = re.search(r"^Sec-WebSocket-Key: (.*)\r$", head, re.MULTILINE)
        assert key
        answer = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept_for(key[1])}",
        ]
        sock.sendall("\r\n".join([*answer, "", ""]).encode())
        return RawServer(sock, head)


@contextlib.contextmanager
def listener() -> Iterator[Listener]:
    """Listen on a free loopback port."""
    found = Listener()
    with found.sock:
        yield found


@contextlib.contextmanager
def connected_pair(**options: Any) -> Iterator[tuple[BroadcastClient, RawServer]]:
    """Connect a client with these options to a raw server."""
    servers: list[RawServer] = []
    with listener() as listening:
        thread = threading.Thread(target=lambda: servers.append(listening.accept()))
        thread.start()
        client = BroadcastClient(listening.url, **options).connect()
        thread.join(SECONDS)
    (server,) = servers
    try:
        yield client, server
    finally:
        server.sock.close()
        client.close(timeout=SECONDS)
