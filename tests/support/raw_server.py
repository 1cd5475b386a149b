"""A WebSocket server over bare sockets, one connection at a time, which can break any rule.

It speaks plain frames, or ``broadcast.v1.json`` as far as the test writes its events. As a reader
it is strict: a frame that no client may send fails the test.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import select
import socket
import struct
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

from broadcast_server import BroadcastClient
from broadcast_server.client.link import Link

from . import CLOSE, PING, PONG, TEXT, accept_for, mask_payload
from .inside import link_of, socket_of

SECONDS = 10.0
SUBPROTOCOL = "broadcast.v1.json"


def session_in(head: str) -> str | None:
    """Return the session that a request shows among its subprotocols."""
    found = re.search(r"broadcast\.session\.([A-Za-z0-9_-]+)", head)
    return None if found is None else base64.urlsafe_b64decode(found[1] + "==").decode()


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

    def offered(self) -> list[str]:
        """Return the subprotocols that the opening handshake offers."""
        found = re.search(r"^Sec-WebSocket-Protocol: (.*)\r$", self.head, re.MULTILINE)
        return [] if found is None else found[1].split(", ")

    def session(self) -> str | None:
        """Return the session that the opening handshake shows."""
        return session_in(self.head)

    def query(self) -> dict[str, str]:
        """Return the query parameters of the opening handshake."""
        target = self.head.split(" ", 2)[1]
        return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query))

    def send_event(self, kind: str, **members: Any) -> None:
        """Send one event."""
        self.send_frame(TEXT, json.dumps({"type": kind, **members}))

    def recv_event(self) -> dict[str, Any]:
        """Return the event that must come next."""
        opcode, payload = self.recv_frame()
        assert opcode == TEXT, (opcode, payload[:200])
        event: dict[str, Any] = json.loads(payload)
        return event

    def welcome(self, *others: str, after: str = "1000-0", **members: Any) -> None:
        """Say welcome to c1, who is named as it has asked, and in the room with some others."""
        name = self.query().get("name")
        here = [*({"id": other, "name": None} for other in others), {"id": "c1", "name": name}]
        event = {
            "id": "c1",
            "session": "secret",
            "name": name,
            "room": "/room",
            "members": here,
            "count": len(here),
            "newest": after,
            "after": after,
            "limits": {"max_message_bytes": 1 << 20, "max_rate": 0, "history": 100},
        }
        self.send_event("welcome", **event | members)

    def message(self, number: int, data: str | None = None, **members: Any) -> None:
        """Send a message with the id 1000-number, from c2 if nothing else is said."""
        event = {
            "id": f"1000-{number}",
            "time": "2026-11-25T06:00:00.123Z",
            "from": {"id": "c2", "name": "bob"},
        }
        if "data_base64" not in members:
            event["data"] = str(number) if data is None else data
        self.send_event("message", **event | members)

    def ack(self, event: dict[str, Any], number: int, *, duplicate: bool = False) -> None:
        """Acknowledge what a client has sent with the id 1000-number."""
        self.send_event("ack", ref=event["ref"], id=f"1000-{number}", duplicate=duplicate)

    def reset(self) -> None:
        """Break the connection off."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

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


def read_head(sock: socket.socket) -> str:
    """Read a request without a body; EOFError if the stream ends before, as it does where a client
    gives up."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = sock.recv(4096)
        if not piece:
            raise EOFError("the stream ended in the request")
        data += piece
    return data.decode()


def upgrade(sock: socket.socket, head: str, subprotocol: str | None = None) -> RawServer:
    """Make a connection a WebSocket, whose opening handshake was read; choose a subprotocol."""
    key = re.search(r"^Sec-WebSocket-Key: (.*)\r$", head, re.MULTILINE)
    assert key
    answer = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_for(key[1])}",
    ]
    if subprotocol is not None:
        answer.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    sock.sendall("\r\n".join([*answer, "", ""]).encode())
    return RawServer(sock, head)


@contextlib.contextmanager
def closing_on_failure(sock: socket.socket) -> Iterator[None]:
    """Close a connection that nobody will get, because what is done with it fails."""
    try:
        yield
    except BaseException:
        sock.close()
        raise


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
        with closing_on_failure(sock):
            sock.settimeout(SECONDS)
            return sock, read_head(sock)

    def accept(self, subprotocol: str | None = None) -> RawServer:
        """Accept a connection and make it a WebSocket; choose a subprotocol."""
        sock, head = self.read_head()
        with closing_on_failure(sock):
            return upgrade(sock, head, subprotocol)

    def accept_events(self, *others: str, after: str = "1000-0", **members: Any) -> RawServer:
        """Accept a connection, choose to speak events, and say welcome."""
        server = self.accept(SUBPROTOCOL)
        assert SUBPROTOCOL in server.offered()
        server.welcome(*others, after=after, **members)
        return server

    def refuse(self, status: int, retry_after: str | None = None) -> str:
        """Answer the next request with an HTTP status; return the request."""
        sock, head = self.read_head()
        wait = "" if retry_after is None else f"Retry-After: {retry_after}\r\n"
        with sock:
            sock.sendall(f"HTTP/1.1 {status} X\r\n{wait}Content-Length: 0\r\n\r\n".encode())
        return head


@contextlib.contextmanager
def listener() -> Iterator[Listener]:
    """Listen on a free loopback port."""
    found = Listener()
    with found.sock:
        yield found


@contextlib.contextmanager
def silent_host() -> Iterator[socket.socket]:
    """Listen where nobody who connects gets an answer, as behind a firewall that drops packets."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        fall_silent(sock, stack)
        yield sock


def fall_silent(sock: socket.socket, stack: contextlib.ExitStack) -> None:
    """Let a listening socket answer nobody any more: its queue is full until the stack ends."""
    sock.listen(0)
    poller = select.poll()
    while True:
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(sock.getsockname())
        poller.register(waiting, select.POLLOUT)
        if not poller.poll(100):
            break
        poller.unregister(waiting)


def limit_buffers(client: BroadcastClient, server: RawServer) -> Link:
    """Make the buffers of a connection far smaller than 2 MiB; return the client's side of it."""
    link = link_of(client)
    assert link is not None
    socket_of(link.channel).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
    server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
    return link


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


@contextlib.contextmanager
def event_pair(
    *others: str, path: str = "", **options: Any
) -> Iterator[tuple[BroadcastClient, RawServer, Listener]]:
    """Connect a client with these options to a raw server that speaks events.

    Args:
        others: the ids of who is in the room before it.
        path: what is put behind the server's address.
    """
    servers: list[RawServer] = []
    with listener() as listening:
        thread = threading.Thread(target=lambda: servers.append(listening.accept_events(*others)))
        thread.start()
        client = BroadcastClient(listening.url + path, **options).connect()
        thread.join(SECONDS)
        (server,) = servers
        try:
            yield client, server, listening
        finally:
            server.sock.close()
            client.close(timeout=0)
