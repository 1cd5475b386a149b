"""How a client's socket comes about: by one of a host's addresses, perhaps a proxy, and TLS.

A name may have several addresses, and some of them may lead nowhere, such as those of IPv6 where
the network has none. So the next one is tried as soon as one has failed, and beside it when it has
not answered within a quarter of a second (RFC 8305 §5); the first connection that stands is taken.
All of this has one deadline.

Another thread may cut it off at any step: it shuts down the sockets that there are, which wakes who
waits for them. The one exception is the lookup of a name, which nobody can interrupt: it ends when
the system's resolver gives up.
"""

from __future__ import annotations

import collections
import contextlib
import os
import selectors
import socket
import ssl
import threading
from collections.abc import Iterable
from typing import Any, TypeVar

from . import proxies, waits
from .deadlines import Deadline

# How long one address is tried alone before the next one is tried beside it.
NEXT_ADDRESS_SECONDS = 0.25
# How often who waits for a connection looks whether it was cut off.
LOOK_SECONDS = 0.1
# A server that speaks no events is asked by nobody else whether it is still there.
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
]

# Waits for sockets, on every system. Unlike an epoll it has no descriptor that a fork would copy.
Selector: type[selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)

_Socket = TypeVar("_Socket", bound=socket.socket)


class Connector:
    """Connects once. `connect` and `take` are for one thread, `cut` for any.

    Args:
        host, port: where to.
        context: what a TLS handshake is made with; None for none.
    """

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        self._host, self._port = host, port
        self._context = context
        # Guards `_sockets` and `_was_cut`, and each end of one of these sockets: a descriptor that
        # is shut down must not be somebody else's by then. Nothing waits under it.
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._was_cut = False

    @property
    def was_cut(self) -> bool:
        """Whether it has been cut off. Any thread."""
        return self._was_cut

    def connect(self, deadline: Deadline) -> socket.socket:
        """Return a connected socket, after the TLS handshake if there is one.

        It can still be cut off, and is closed by `close`, until it is taken.

        Raises:
            OSError: there is no connection: TimeoutError if the deadline has passed,
                ConnectionAbortedError if it was cut off, ProxyError if a proxy is the reason.
            ValueError: the host cannot be a name.
        """
        if self._was_cut:
            raise _aborted()
        proxy = proxies.find(self._host, self._port, is_tls=self._context is not None)
        if proxy is None:
            sock = self._connect_to(self._host, self._port, deadline)
        else:
            sock = self._connect_through(proxy, deadline)
        if self._context is not None:
            sock.settimeout(deadline.left_or_late())
            # The descriptor moves on to the new object.
            wrapped = self._hold(
                self._context.wrap_socket(
                    sock, server_hostname=self._host, do_handshake_on_connect=False
                )
            )
            wrapped.do_handshake()
            return wrapped
        return sock

    def take(self, sock: socket.socket) -> None:
        """Let the socket be the caller's alone.

        Raises:
            ConnectionAbortedError: it was cut off.
        """
        with self._lock:
            if self._was_cut:
                raise _aborted()
            self._sockets.discard(sock)

    def close(self) -> None:
        """Close what was not taken. The thread that connects."""
        self._drop(list(self._sockets))

    def cut(self) -> None:
        """Have `connect` fail, at once but for the lookup of a name, and what goes on with the
        socket until it is taken. Any thread."""
        with self._lock:
            self._was_cut = True
            for sock in self._sockets:
                # Linux lets one that is not connected yet end by this as well; others say that it
                # is not connected, and `connect` looks.
                with contextlib.suppress(OSError):
                    waits.shut_down(sock)

    def leave_to_parent(self) -> None:
        """Give the descriptors of a forked child back: they are the parent's, whose thread is not
        here."""
        self._lock = threading.Lock()  # the old one may be locked for ever
        self._was_cut = True
        self.close()

    # The thread that connects.

    def _connect_through(self, proxy: proxies.Proxy, deadline: Deadline) -> socket.socket:
        """Return a socket that a proxy has connected to the host.

        Raises:
            ProxyError: there is none.
            ConnectionAbortedError: it was cut off.
        """
        try:
            sock = self._connect_to(proxy.host, proxy.port, deadline)
            proxies.tunnel(sock, self._host, self._port, proxy, deadline)
        except (OSError, ValueError) as error:
            if self._was_cut:
                raise _aborted() from error
            if isinstance(error, proxies.ProxyError):
                raise
            if isinstance(error, TimeoutError):
                why = "no answer in time"
            else:
                why = getattr(error, "strerror", None) or str(error)
            raise proxies.ProxyError(f"{proxy.shown} cannot be used: {why}") from error
        return sock

    def _connect_to(self, host: str, port: int, deadline: Deadline) -> socket.socket:
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        return self._connect_first(found, deadline)

    def _connect_first(self, found: Iterable[tuple[Any, ...]], deadline: Deadline) -> socket.socket:
        """Return a socket that is connected to one of the addresses."""
        untried = collections.deque(found)
        pending: set[socket.socket] = set()
        selector = Selector()
        error = OSError("the host has no address")
        alone = Deadline(0)  # until when no other address is tried
        try:
            while True:
                if untried and (not pending or alone.left() == 0):
                    alone = Deadline(NEXT_ADDRESS_SECONDS)
                    try:
                        begun = self._begin(untried.popleft())
                    except OSError as failed:
                        error = failed
                        continue
                    pending.add(begun)
                    selector.register(begun, selectors.EVENT_WRITE, begun)
                if not pending:
                    raise error
                if self._was_cut:  # perhaps before there was anything to shut down
                    raise _aborted()
                left = deadline.left_or_late()
                if untried:
                    left = min(left, alone.left() or 0.0)
                for key, _ in selector.select(min(left, LOOK_SECONDS)):
                    sock: socket.socket = key.data
                    selector.unregister(sock)
                    pending.discard(sock)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if self._was_cut:
                        raise _aborted()
                    if code == 0:
                        return sock
                    self._drop([sock])
                    error = OSError(code, os.strerror(code))
                    alone = Deadline(0)
        finally:
            selector.close()
            self._drop(pending)

    def _begin(self, found: tuple[Any, ...]) -> socket.socket:
        """Begin to connect to an address; the socket can be written to when that has ended."""
        family, kind, protocol, _, address = found
        sock = self._hold(socket.socket(family, kind, protocol))
        try:
            sock.setblocking(False)
            for level, name, value in SOCKET_OPTIONS:
                if hasattr(socket, name):
                    sock.setsockopt(level, getattr(socket, name), value)
            with contextlib.suppress(BlockingIOError):
                sock.connect(address)
        except OSError:
            self._drop([sock])
            raise
        return sock

    def _hold(self, sock: _Socket) -> _Socket:
        """Let a new socket be one that can be cut off."""
        with self._lock:
            if self._was_cut:
                sock.close()
                raise _aborted()
            self._sockets.add(sock)
        return sock

    def _drop(self, sockets: Iterable[socket.socket]) -> None:
        with self._lock:
            for sock in sockets:
                self._sockets.discard(sock)
                sock.close()


def _aborted() -> ConnectionAbortedError:
    return ConnectionAbortedError("closed before it connected")
