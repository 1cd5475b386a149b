"""A WebSocket client over a bare socket, so that a test can break any rule it likes.

As a reader it is strict: a masked, oddly flagged or wastefully long frame from the hub fails the
test.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from types import TracebackType

from .frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    SAMPLE_ACCEPT,
    TEXT,
    client_frame,
    upgrade_request,
)


class HandshakeRefused(Exception):
    """The server answered the upgrade with something other than 101."""

    def __init__(self, status: int, head: str) -> None:
        super().__init__(head)
        self.status = status
        self.head = head


class RawClient:
    """A WebSocket client over a bare socket. ``buffer`` holds what was read too much.

    Attributes:
        sock: the socket, for whatever a test wants to do to it.
        head: the server's answer to the upgrade, status line and headers.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.head = ""
        self._has_closed = False  # it has sent a Close

    @classmethod
    def connect(
        cls,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "/",
        headers: Iterable[str] = (),
        rcvbuf: int | None = None,
        *,
        timeout: float = 30.0,
        extra: bytes = b"",
    ) -> RawClient:
        """Open a connection and make the upgrade.

        Args:
            rcvbuf: size of the kernel's receive buffer, set before connecting so that it counts.
            timeout: bound of every later read and write, in seconds.
            extra: bytes sent in the same call as the request.
        """
        client = cls.open(host, port, rcvbuf, timeout=timeout)
        try:
            client.upgrade(path, headers, extra=extra)
        except BaseException:
            client.close()
            raise
        return client

    @classmethod
    def open(
        cls,
        host: str = "127.0.0.1",
        port: int = 0,
        rcvbuf: int | None = None,
        *,
        timeout: float = 30.0,
    ) -> RawClient:
        """Open the TCP connection only."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            if rcvbuf is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            sock.settimeout(timeout)
            sock.connect((host, port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def upgrade(self, path: str = "/", headers: Iterable[str] = (), *, extra: bytes = b"") -> None:
        """Make the opening handshake; ``HandshakeRefused`` if the answer is not 101."""
        address = self.sock.getpeername()
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        self.sock.sendall(upgrade_request(path, headers, host=f"{host}:{address[1]}") + extra)
        while b"\r\n\r\n" not in self.buffer:
            self.fill()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        status = int(self.head.split(" ", 2)[1])
        if status != 101:
            raise HandshakeRefused(status, self.head)
        assert self.header("Sec-WebSocket-Accept") == SAMPLE_ACCEPT, self.head

    def header(self, name: str) -> str | None:
        """Return the value of a header of the server's answer."""
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    def fill(self) -> None:
        """Read once more into the buffer; EOFError if the stream has ended."""
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError("the server ended the connection")
        self.buffer += data

    def recv_exact(self, count: int) -> bytes:
        """Return exactly that many bytes; EOFError if the stream ends before."""
        if len(self.buffer) >= count:
            data, self.buffer = self.buffer[:count], self.buffer[count:]
            return data
        pieces, have = [self.buffer], len(self.buffer)
        while have < count:
            piece = self.sock.recv(max(1 << 16, min(count - have, 1 << 20)))
            if not piece:
                self.buffer = b"".join(pieces)
                raise EOFError(f"the stream ended {count - have} bytes early")
            pieces.append(piece)
            have += len(piece)
        data = b"".join(pieces)
        self.buffer = data[count:]
        return data[:count]

    def recv_frame(self) -> tuple[bool, int, bytes]:
        """Return (fin, opcode, payload) of the next frame, which must be a lawful server's."""
        first, second = self.recv_exact(2)
        assert not first & 0x70, f"reserved bits in a server's frame: {first:#x}"
        assert not second & 0x80, "a server must not mask (RFC 6455 §5.1)"
        length = second
        if length == 126:
            (length,) = struct.unpack("!H", self.recv_exact(2))
            assert length >= 126, f"{length} is not in its shortest form"
        elif length == 127:
            (length,) = struct.unpack("!Q", self.recv_exact(8))
            assert length >= 0x10000, f"{length} is not in its shortest form"
        return bool(first & 0x80), first & 0x0F, self.recv_exact(length)

    def recv_message(self) -> str | bytes:
        """Return the next message; every other frame than an unfragmented message is an error."""
        fin, opcode, payload = self.recv_frame()
        assert fin and opcode in (TEXT, BINARY), (fin, opcode, payload[:200])
        return payload.decode() if opcode == TEXT else payload

    def recv_close(self) -> tuple[int, str]:
        """Return code and reason of the Close frame that must come next; 1005 if it has none. It is
        answered, unless it is an answer."""
        fin, opcode, payload = self.recv_frame()
        assert fin and opcode == CLOSE, (fin, opcode, payload[:200])
        assert len(payload) != 1 and len(payload) <= 125
        self._answer_close(payload)
        if not payload:
            return 1005, ""
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def recv_until_close(self) -> tuple[list[bytes], int, str]:
        """Read messages, answering nothing, until Close, which is answered unless it is an answer;
        return them with its code and reason."""
        messages = []
        while True:
            fin, opcode, payload = self.recv_frame()
            assert fin
            if opcode == CLOSE:
                self._answer_close(payload)
                self.recv_eof()
                return messages, int.from_bytes(payload[:2], "big"), payload[2:].decode()
            if opcode != PING:
                messages.append(payload)

    def _answer_close(self, payload: bytes) -> None:
        if not self._has_closed:
            with contextlib.suppress(OSError):  # a hub that was broken off is gone
                self.send_frame(CLOSE, payload[:2])

    def recv_eof(self) -> None:
        """Check that the stream ends here, in order: no more bytes, and no reset."""
        assert not self.buffer, self.buffer[:200]
        data = self.sock.recv(1 << 16)
        assert not data, data[:200]

    def send_frame(
        self,
        opcode: int,
        payload: bytes | str = b"",
        fin: bool = True,
        rsv: int = 0,
    ) -> None:
        """Send one frame."""
        self._has_closed = self._has_closed or opcode == CLOSE
        self.sock.sendall(client_frame(opcode, payload, fin, rsv=rsv))

    def send(self, data: bytes | str) -> None:
        """Send one message."""
        self.send_frame(TEXT if isinstance(data, str) else BINARY, data)

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Send a Close frame, unless one was sent."""
        if not self._has_closed:
            self.send_frame(CLOSE, struct.pack("!H", code) + reason.encode())

    def sync(self) -> None:
        """Return when the hub has read and answered everything sent until now, by ping and pong.

        Whatever else arrives meanwhile is an error.
        """
        token = os.urandom(8)
        self.send_frame(PING, token)
        frame = self.recv_frame()
        assert frame == (True, PONG, token), frame

    def leave(self, code: int = 1000) -> None:
        """Make the closing handshake as a good client does."""
        self.send_close(code)
        assert self.recv_close()[0] == code
        self.recv_eof()
        self.close()

    def reset(self) -> None:
        """Vanish: close with a TCP reset instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close the socket without any WebSocket manners."""
        self.sock.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def http_request(port: int, raw: bytes, *, eof: bool = False) -> bytes:
    """Send bytes and return everything that comes back until the server ends the stream.

    Args:
        eof: end our side of the stream after the request.
    """
    with RawClient.open(port=port) as client:
        client.sock.sendall(raw)
        if eof:
            client.sock.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := client.sock.recv(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)


@contextlib.contextmanager
def many_clients(port: int, count: int) -> Iterator[list[RawClient]]:
    """Connect that many clients to a few rooms."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(RawClient.connect(port=port, path=f"/{number % 4}"))
            for number in range(count)
        ]


def is_listening(port: int) -> bool:
    """Return whether somebody accepts connections on a port."""
    if port == 0:
        return False
    try:
        RawClient.open(port=port, timeout=1).close()
    except OSError:
        return False
    return True
