"""One connection of the driver: a socket that never blocks, what waits to go out, its end."""

from __future__ import annotations

import abc
import select
import socket
import struct
from collections.abc import Iterable

from .driver import Driver
from .order import Violation

_READ_BYTES = 1 << 16
# Those who will not read have a small receive buffer, and small segments: over loopback the kernel
# would hold megabytes for them on the hub's side otherwise, and they would hardly fall behind.
_SMALL_BUFFER_BYTES = 4096
_SMALL_SEGMENT_BYTES = 536
# Clients come from so many addresses.
_ADDRESSES = 250
_SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class Peer(abc.ABC):
    """A client of the driver: one connection at a time."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.sock: socket.socket | None = None
        self._out = bytearray()
        self._reading = True
        self._read_bytes = _READ_BYTES

    # -- For those who derive from it ----------------------------------------------------------

    @abc.abstractmethod
    def on_data(self, data: bytes) -> None:
        """Take what has come."""

    @abc.abstractmethod
    def on_end(self, error: OSError | None) -> None:
        """Note that the stream has ended, or has broken; the socket is closed already."""

    # -- What they do --------------------------------------------------------------------------

    def open(self, first: bytes, *, small: bool = False) -> None:
        """Connect, from one of many addresses, and send something."""
        assert self.sock is None
        driver = self.driver
        sock = socket.socket()
        sock.setblocking(False)
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SMALL_SEGMENT_BYTES)
        # The port is chosen when it connects: so many are there for each address.
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        sock.bind((f"127.0.0.{1 + driver.random.randrange(_ADDRESSES)}", 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect_ex(("127.0.0.1", driver.port))
        driver.counts["connections"] += 1
        self.sock = sock
        self._out = bytearray(first)
        self._reading = True
        self._read_bytes = _READ_BYTES
        self._watch()

    def write(self, data: bytes) -> None:
        """Send, now or when the socket takes more."""
        if self.sock is None:
            return
        waits = bool(self._out)
        self._out += data
        if not waits:
            self._flush()

    def read_slowly(self, size: int) -> None:
        """Read no more than this at a time; 0 for nothing."""
        self._reading = size > 0
        self._read_bytes = size
        if self.sock is not None:
            self._watch()

    @property
    def has_sent_all(self) -> bool:
        """Whether the kernel has all that was written."""
        return not self._out

    def end_stream(self) -> None:
        """Say that nothing more will be sent."""
        assert self.sock is not None
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # broken already, and it does not read: it will be told when it does

    def reset(self) -> None:
        """Break the connection off."""
        if self.sock is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def leave_behind(self) -> socket.socket | None:
        """Give the socket up without closing it."""
        sock, self.sock = self.sock, None
        if sock is not None:
            self.driver.ignore(sock.fileno())
        return sock

    def close(self) -> None:
        """Close the socket; ``on_end`` is not called."""
        sock = self.leave_behind()
        if sock is not None:
            sock.close()

    # -- The loop ------------------------------------------------------------------------------

    def _watch(self) -> None:
        assert self.sock is not None
        events = (select.EPOLLIN if self._reading else 0) | (select.EPOLLOUT if self._out else 0)
        if events:
            self.driver.watch(self.sock.fileno(), self, events)
        else:
            # Even then a broken connection would be told, again and again.
            self.driver.ignore(self.sock.fileno())

    def _flush(self) -> None:
        assert self.sock is not None
        try:
            sent = self.sock.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lost(error)
            return
        del self._out[:sent]
        self._watch()

    def _lost(self, error: OSError | None) -> None:
        self.close()
        self.on_end(error)

    def on_events(self, events: int) -> None:
        """Do what the socket is ready for."""
        if events & select.EPOLLIN or not events & select.EPOLLOUT:
            assert self.sock is not None
            try:
                data = self.sock.recv(self._read_bytes or 1)
            except BlockingIOError:
                data = None
            except OSError as error:
                self._lost(error)
                return
            if data == b"":
                self._lost(None)
                return
            if data:
                try:
                    self.on_data(data)
                except (ValueError, LookupError, TypeError) as error:
                    raise Violation(f"{self} cannot read {data[-300:]!r}: {error!r}") from error
        if events & select.EPOLLOUT and self.sock is not None and self._out:
            self._flush()


def http_head(line: str, headers: Iterable[str]) -> bytes:
    """Return the head of a request."""
    return "\r\n".join([f"{line} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


def upgrade(target: str, headers: Iterable[str] = ()) -> bytes:
    """Return an opening handshake."""
    usual = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {_SAMPLE_KEY}",
        "Sec-WebSocket-Version: 13",
    )
    return http_head(f"GET {target}", (*usual, *headers))
