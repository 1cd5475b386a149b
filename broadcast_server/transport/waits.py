"""Waiting for one socket, with what the system has for it; waking whoever waits.

``select.poll`` is best: it has no largest descriptor and costs none. Windows has none, and eventlet
takes it away; ``select.select`` is left there. Both are looked up at each call: whoever replaces
them does so at any time.
"""

from __future__ import annotations

import select
import selectors
import socket
import ssl

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


def is_ready(sock: socket.socket, event: int, seconds: float | None = 0.0) -> bool:
    """Wait until a socket can be read or written, or has ended; return whether it can.

    Args:
        sock: the socket.
        event: ``READ`` or ``WRITE``.
        seconds: how long to wait at most; None for no end.
    """
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(sock, select.POLLIN if event == READ else select.POLLOUT)
        return bool(poller.poll(None if seconds is None else seconds * 1000))
    wanted = [sock]
    readers, writers = (wanted, []) if event == READ else ([], wanted)
    # A connection that has failed is told of as an exception on Windows.
    return any(select.select(readers, writers, wanted, seconds))


def shut_down(sock: socket.socket) -> None:
    """End both directions of a connection; whoever waits for it wakes up.

    Raises:
        OSError: the peer was faster.
    """
    if isinstance(sock, ssl.SSLSocket):
        # Not its own: that one would take the TLS state away from the threads that use it.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    else:
        sock.shutdown(socket.SHUT_RDWR)
