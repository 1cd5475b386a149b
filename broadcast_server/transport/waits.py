"""Waiting for one socket, with what the system has for it; waking whoever waits.

``select.poll`` is best: it has no largest descriptor and costs none. Windows has none, and eventlet
takes it away; ``select.select`` is left there. macOS cannot poll devices such as a terminal, and
says so (``POLLNVAL``); select can wait for them. Both are looked up at each call: whoever replaces
them does so at any time.
"""

from __future__ import annotations

import select
import selectors
import socket

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def is_ready(sock: socket.socket | int, event: int, seconds: float | None = 0.0) -> bool:
    """Wait until something can be read or written, or has ended; return whether it can.

    Args:
        sock: a socket, or the number of a descriptor.
        event: ``READ`` or ``WRITE``.
        seconds: how long to wait at most; None for no end.
    """
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(sock, select.POLLIN if event == READ else select.POLLOUT)
        found = poller.poll(None if seconds is None else seconds * 1000)
        if not found or found[0][1] != select.POLLNVAL:
            return bool(found)
    wanted = [sock]
    readers, writers = (wanted, []) if event == READ else ([], wanted)
    # A connection that has failed is told of as an exception on Windows.
    return any(select.select(readers, writers, wanted, seconds))


def await_readable(*descriptors: int) -> set[int]:
    """Wait until one of some descriptors can be read, or has ended; return those."""
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    found = dict(poller.poll())
    ready = {number for number, event in found.items() if event != select.POLLNVAL}
    return ready or set(select.select(descriptors, [], [])[0])


def shut_down(sock: socket.socket) -> None:
    """End both directions of a connection; whoever waits for it wakes up.

    Raises:
        OSError: the peer was faster.
    """
    import ssl  # whoever has such a socket has it already; a command that only waits need not

    if isinstance(sock, ssl.SSLSocket):
        # Not its own: that one would take the TLS state away from the threads that use it.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    else:
        sock.shutdown(socket.SHUT_RDWR)
