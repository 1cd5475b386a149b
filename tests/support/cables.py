"""A cable between a hub and a peer that can be pulled out: nobody is told, nothing comes any more.

Where it is allowed, two network namespaces of the test's own with a pair of virtual interfaces
between them; what is cut is then the link itself, below TCP. Elsewhere a proxy between the two,
which stops passing bytes on. Both ends of the connections stay open.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, Protocol

from . import RawClient

_CLONE_NEWNET = 0x40000000
# RFC 5737: addresses for examples, which are nobody's.
_HUB, _PEER = "192.0.2.1", "192.0.2.2"
_PIECE = 1 << 16


class Cable(Protocol):
    """What is between a hub and a peer."""

    host: str

    def connect(self, port: int, **options: Any) -> RawClient:
        """Connect from the far end to the hub's port; options of ``RawClient.connect``."""

    def cut(self) -> None:
        """Pull it out."""


# -- Network namespaces ------------------------------------------------------------------------


def _call(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _enter(namespace: int) -> None:
    """Move the calling thread; sockets stay where they were made."""
    _call("setns", namespace, _CLONE_NEWNET)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


class _Link:
    """Two namespaces; the calling thread is in the one of the hub."""

    host = _HUB

    def __init__(self, near: int, far: int) -> None:
        self._near = near
        self._far = far

    @contextlib.contextmanager
    def _far_end(self) -> Iterator[None]:
        _enter(self._far)
        try:
            yield
        finally:
            _enter(self._near)

    def plug_in(self) -> None:
        """Make the interfaces."""
        far = f"/proc/{os.getpid()}/fd/{self._far}"
        _ip("link", "add", "hub", "type", "veth", "peer", "name", "peer", "netns", far)
        _ip("address", "add", f"{_HUB}/30", "dev", "hub")
        _ip("link", "set", "lo", "up")
        _ip("link", "set", "hub", "up")
        with self._far_end():
            _ip("address", "add", f"{_PEER}/30", "dev", "peer")
            _ip("link", "set", "peer", "up")

    def connect(self, port: int, **options: Any) -> RawClient:
        """Connect from the far end."""
        with self._far_end():
            return RawClient.connect(self.host, port, **options)

    def cut(self) -> None:
        """Take the far interface down."""
        with self._far_end():
            _ip("link", "set", "peer", "down")


@contextlib.contextmanager
def namespaces() -> Iterator[Cable]:
    """Put the calling thread into a network of its own, with a cable to another one.

    Raises:
        OSError: this is not allowed here, or there is no ``ip``.
    """
    with contextlib.ExitStack() as stack:

        def current() -> int:
            number = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            stack.callback(os.close, number)
            return number

        home = current()
        _call("unshare", _CLONE_NEWNET)
        stack.callback(_enter, home)
        far = current()
        _call("unshare", _CLONE_NEWNET)
        link = _Link(current(), far)
        try:
            link.plug_in()
        except subprocess.CalledProcessError as error:
            raise OSError(f"ip: {error.stderr!r}") from error
        yield link


# -- A proxy -----------------------------------------------------------------------------------


class _Proxy:
    """Passes bytes on between one connection and the hub, until it is cut."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self._listener = socket.create_server((self.host, 0))
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._socks: list[socket.socket] = []
        self._thread: threading.Thread | None = None

    def connect(self, port: int, **options: Any) -> RawClient:
        """Connect by way of the proxy."""

        def run() -> None:
            near, _ = self._listener.accept()
            self._socks.append(near)
            far = socket.create_connection((self.host, port), 10)
            self._socks.append(far)
            self._pass_on(near, far)

        self._thread = threading.Thread(target=run)
        self._thread.start()
        return RawClient.connect(self.host, self._listener.getsockname()[1], **options)

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(60):
                    if key.data is None:
                        return
                    sock: Any = key.fileobj
                    key.data.sendall(sock.recv(_PIECE))

    def cut(self) -> None:
        """Pass nothing on any more, and leave the connections open."""
        self._wake_writer.send(b"x")
        if self._thread is not None:
            self._thread.join(10)

    def close(self) -> None:
        """Close everything."""
        self.cut()
        for sock in (*self._socks, self._listener, self._wake_reader, self._wake_writer):
            sock.close()


@contextlib.contextmanager
def proxy() -> Iterator[Cable]:
    """Put a proxy between hub and peer."""
    with contextlib.closing(_Proxy()) as found:
        yield found


@contextlib.contextmanager
def link_or_proxy() -> Iterator[Cable]:
    """Give the real thing where that is allowed."""
    with contextlib.ExitStack() as stack:
        try:
            cable = stack.enter_context(namespaces())
        except OSError:
            cable = stack.enter_context(proxy())
        yield cable
