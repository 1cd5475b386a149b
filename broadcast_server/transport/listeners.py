"""The sockets on which a hub listens, and all of them as one.

``localhost`` means this machine, whichever family a client prefers: both 127.0.0.1 and ::1, and
where the machine has only one of them, that one. All addresses have the same port. Where the port
may be any, the first address gets one from the kernel; if it is taken on another of the addresses,
all begin anew, a bounded number of times.

One thread accepts for all of them: ``Listeners`` is a selector with a descriptor of its own, which
another selector can wait for. Not every selector has one, those of poll and select do not: then
that descriptor can always be read, and ``accept`` itself waits.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import selectors
import socket
import threading
from collections.abc import Sequence
from typing import Any

from ..records import get_logger

logger = get_logger("broadcast_server.hub")

BACKLOG = 1024
# What the kernel may keep for one connection in each direction; Linux counts twice as much, with
# its own overhead. Left alone it goes up to some MiB for each client that does not read, and for
# each that sends more than it may. Linux allows this much unless it is set up to allow less. In a
# round trip of 100 ms it is 2 MB/s for one client; with 16 and 64 KiB to 100 it costs nothing.
SOCKET_BUFFER_BYTES = 212_992
LOCALHOST = ("127.0.0.1", "::1")
# A port that is free on one address is rarely taken on another.
_TRIES = 16
# What bind() says where a family, or its loopback address, is not there.
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)

# How long `accept` waits at most where nothing else can wait for all sockets.
_WAIT_SECONDS = 0.5

_Place = tuple[socket.AddressFamily, Any]


def open_listeners(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Listen on each of the hosts, on the same port.

    Args:
        hosts: names or addresses, IPv4 or IPv6; of a name that has several addresses the first
            counts, but ``localhost`` is both families'.
        port: the port; 0 for one that is free on all.

    Raises:
        OSError: one cannot be listened on; ``filename`` says which.
    """
    places: list[_Place] = []
    optional: set[_Place] = set()
    for host in hosts:
        is_localhost = host.lower().removesuffix(".") == "localhost"
        for name in LOCALHOST if is_localhost else (host,):
            place = _look_up(name)
            if place not in places:
                places.append(place)
            if is_localhost:
                optional.add(place)
    for tries_left in reversed(range(_TRIES)):
        try:
            return _open_all(places, optional, port)
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE or not tries_left:
                raise
    raise AssertionError("unreachable")


def _look_up(host: str) -> _Place:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError as error:
        raise OSError(errno.EINVAL, f"not a host name: {host!r}", host) from error
    except OSError as error:
        error.filename = host
        raise
    family, *_, address = found[0]
    return family, address


def _open_all(places: list[_Place], optional: set[_Place], port: int) -> list[socket.socket]:
    # An IPv6 socket for all addresses takes IPv4's, too, unless it is told not to.
    both = {family for family, _ in places} >= {socket.AF_INET, socket.AF_INET6}
    opened: list[socket.socket] = []
    missing: list[OSError] = []
    try:
        for family, address in places:
            try:
                opened.append(_open(family, (address[0], port, *address[2:]), both))
            except OSError as error:
                error.filename = _shown(address[0], port)
                if error.errno not in _NO_FAMILY or (family, address) not in optional:
                    raise
                missing.append(error)
                continue
            port = opened[-1].getsockname()[1]
        if not opened and missing:
            raise missing[-1]
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    # Not before: a start that fails has one line to say.
    for reason in missing:
        logger.info("not listening on %s: %s", reason.filename, reason.strerror)
    return opened


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _open(family: socket.AddressFamily, address: Any, v6only: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A hub that is started again need not wait for the last one's connections to be forgotten.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and v6only:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


class Listeners:
    """Listening sockets as one. It owns them, also if it cannot be made: ``close`` closes them.

    ``accept`` is for one thread; ``wake`` may be called from any.

    Args:
        sockets: at least one socket that listens.

    Raises:
        OSError: there is no descriptor to be had.
    """

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self.sockets = tuple(sockets)
        self._turns = collections.deque(self.sockets)
        # Guards the numbers of the pipes against their closing. Taken alone.
        self._lock = threading.Lock()
        with contextlib.ExitStack() as on_failure:
            for sock in self.sockets:
                on_failure.callback(sock.close)
            self._selector = selectors.DefaultSelector()
            on_failure.callback(self._selector.close)
            self._wake_reader, self._wake_writer = os.pipe()
            on_failure.callback(os.close, self._wake_reader)
            on_failure.callback(os.close, self._wake_writer)
            # The descriptor for others, and what is closed with it: a pipe in which a byte stays.
            self._pipe: tuple[int, ...] = ()
            self._wait_seconds = 0.0
            try:
                self._fileno: int = self._selector.fileno()
            except AttributeError:
                self._pipe = os.pipe()
                for descriptor in self._pipe:
                    on_failure.callback(os.close, descriptor)
                os.write(self._pipe[1], b"r")
                self._fileno = self._pipe[0]
                self._wait_seconds = _WAIT_SECONDS
            self._selector.register(self._wake_reader, selectors.EVENT_READ)
            for sock in self.sockets:
                # Another process may share a socket that was inherited, and be faster.
                sock.setblocking(False)
                # Accepted sockets inherit these: no system call for each client. The window that is
                # offered to a peer must be known before it connects.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
                self._selector.register(sock, selectors.EVENT_READ)
            on_failure.pop_all()

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is a connection to accept, or somebody
        has woken it."""
        return self._fileno

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; take the sockets in turns.

        Raises:
            BlockingIOError: there is none.
            OSError: it cannot be accepted.
        """
        ready = {key.fd for key, _ in self._selector.select(self._wait_seconds)}
        for _ in self.sockets:
            # In turns: a busy address must not keep those who come to another waiting.
            sock = self._turns[0]
            self._turns.rotate(-1)
            if sock.fileno() in ready:
                request, address = sock.accept()
                # Some systems hand the listening socket's mode on.
                request.setblocking(True)
                return request, address
        raise BlockingIOError(errno.EAGAIN, "no connection to accept")

    def wake(self) -> None:
        """Make the descriptor readable for good.

        To shut the sockets down would do the same, but for all who share them, such as the service
        manager that has opened them and would hand them to the next hub.
        """
        with self._lock:
            if self._wake_writer >= 0:
                os.write(self._wake_writer, b"w")

    def close(self) -> None:
        """Close everything. It may be called again, also if it was interrupted."""
        with self._lock:
            self._selector.close()
            # A number is forgotten before it is closed: the kernel may give it to somebody else
            # then.
            writer, self._wake_writer = self._wake_writer, -1
            if writer >= 0:
                os.close(writer)
            reader, self._wake_reader = self._wake_reader, -1
            if reader >= 0:
                os.close(reader)
            while self._pipe:
                descriptor, *rest = self._pipe
                self._pipe = tuple(rest)
                os.close(descriptor)
        for sock in self.sockets:
            sock.close()
