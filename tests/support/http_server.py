"""An HTTP server that answers what the test says, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

SECONDS = 20.0

# What to do with a connection once a request has been read.
Act = bytes | Callable[[socket.socket], None]


class Asked(NamedTuple):
    """A request as it came."""

    first: str
    headers: dict[str, str]
    body: bytes


def answer(body: str, status: str = "200 OK", *lines: str) -> bytes:
    """Return a whole answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", *lines, "", ""]
    return "\r\n".join(head).encode() + body.encode()


# What a hub answers that has taken a message.
GOOD = answer('{"id":"7-0","room":"/scores","duplicate":false}')


def reset(sock: socket.socket) -> None:
    """Break the connection off when it is closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_request(file: BinaryIO) -> Asked:
    """Return the next request of a connection, in which no header line may come twice."""
    first = file.readline().decode().strip()
    headers: dict[str, str] = {}
    while line := file.readline().decode().strip():
        key, _, value = line.partition(": ")
        assert key.lower() not in headers
        headers[key.lower()] = value
    return Asked(first, headers, file.read(int(headers.get("content-length", 0))))


class HttpServer:
    """A listening socket and what was asked of it.

    Attributes:
        connections: what was asked, connection by connection.
        url: the address of a room.
    """

    def __init__(self, listening: socket.socket, host: str) -> None:
        self.listening = listening
        self.connections: list[list[Asked]] = []
        self.port: int = listening.getsockname()[1]
        self.url = f"http://{host}:{self.port}/scores"

    @property
    def asked(self) -> list[Asked]:
        """All that was asked, in the order in which it came."""
        return [asked for connection in self.connections for asked in connection]

    def run(self, connections: Sequence[Sequence[Act]]) -> None:
        """Serve that many connections, and that many requests on each; then close it."""
        for acts in connections:
            sock, _ = self.listening.accept()
            self.connections.append([])
            with sock, sock.makefile("rb") as file:
                sock.settimeout(SECONDS)
                for act in acts:
                    self.connections[-1].append(read_request(file))
                    if callable(act):
                        act(sock)
                    else:
                        sock.sendall(act)

    def bodies(self) -> list[list[bytes]]:
        """Return what was published on each connection."""
        return [[asked.body for asked in connection] for connection in self.connections]

    def keys(self) -> list[str]:
        """Return the keys in the order in which they came."""
        return [asked.headers["idempotency-key"] for asked in self.asked]


@contextlib.contextmanager
def keeping(*connections: Sequence[Act], host: str = "127.0.0.1") -> Iterator[HttpServer]:
    """Serve these connections on a free loopback port, each for as many requests as it has acts;
    all of them must come."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        listening.settimeout(SECONDS)
        server = HttpServer(listening, f"[{host}]" if ":" in host else host)
        thread = threading.Thread(target=server.run, args=(connections,))
        thread.start()
        try:
            yield server
        finally:
            thread.join(SECONDS)
    assert [len(asked) for asked in server.connections] == [len(acts) for acts in connections]


@contextlib.contextmanager
def serving(*acts: Act, host: str = "127.0.0.1") -> Iterator[HttpServer]:
    """Serve that many connections of one request each."""
    with keeping(*([act] for act in acts), host=host) as server:
        yield server
