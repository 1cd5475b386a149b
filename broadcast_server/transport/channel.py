"""A connected socket that one thread reads and another one writes.

Neither call holds the other up: the socket does not block, whoever has to wait does so outside the
lock. The lock is there for TLS, whose state two threads must not use at once; the waiting is there
for TLS as well, where a read may have to wait until the socket can be written.

With TLS the socket is an ``SSLSocket``, as the connector makes it, and not two buffers as in
``transport/tls_stream.py``. A write may have to wait for something to read, which the reader may
take away: so it does not wait for long before it tries again.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import sys
import threading

from . import waits
from .deadlines import Deadline

try:
    import fcntl
    import termios
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

RECV_BYTES = 64 * 1024
# A big write on TLS would hide its progress until the end.
SEND_BYTES = 16 * 1024
# How long a write that wants to read waits before it tries again.
RETRY_SECONDS = 0.05


class Channel:
    """What passes bytes in both directions at once.

    Args:
        sock: a connected socket, plain or TLS after its handshake; it belongs to the channel now.

    Attributes:
        received, sent: bytes so far.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        # Guards every call into `_sock` but those that poll it, and the writes of `received` and
        # `sent`; so a byte that was received came after everything that is counted as sent.
        self._lock = threading.Lock()
        self.received = 0
        self.sent = 0

    def recv(self, deadline: Deadline) -> bytes:
        """Wait for bytes; b"" at the end of the stream. Reader thread.

        Raises:
            TimeoutError: the deadline has passed.
            OSError: the connection is broken.
        """
        doubtful: ssl.SSLError | None = None
        while True:
            try:
                with self._lock:
                    data = self._sock.recv(RECV_BYTES)
                    self.received += len(data)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(waits.READ, deadline)
            except ssl.SSLWantWriteError:
                self._wait(waits.WRITE, deadline)
            except ssl.SSLError as error:
                # OpenSSL may have been left with an error by other code of this thread, such as a
                # callback (CPython issue 148594). To report it clears it away.
                if doubtful is not None:
                    raise doubtful from None
                doubtful = error
            else:
                if doubtful is not None and not data:
                    raise doubtful  # so it was one of the connection, which has ended with it
                return data

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Write all of it. Writer thread.

        Raises:
            TimeoutError: the deadline has passed; a part may have been written.
            OSError: the connection is broken.
        """
        rest = memoryview(data)
        while rest:
            try:
                with self._lock:
                    # After a TLS write that wanted to wait the same bytes must come first.
                    count = self._sock.send(rest[:SEND_BYTES])
                    self.sent += count
                rest = rest[count:]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(waits.WRITE, deadline)
            except ssl.SSLWantReadError:
                left = deadline.left()
                short = Deadline(RETRY_SECONDS if left is None else min(left, RETRY_SECONDS))
                with contextlib.suppress(TimeoutError):
                    self._wait(waits.READ, short)
                if left == 0:
                    raise TimeoutError("no byte could be moved in time") from None

    def progress(self) -> tuple[int, int, int]:
        """Return numbers that change when bytes move: received, sent, not yet taken by the peer.

        Any thread. Where the system does not tell the last one it is 0.
        """
        unsent = b"\0\0\0\0"
        if fcntl is not None:
            with self._lock, contextlib.suppress(OSError, ValueError):
                unsent = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, unsent)
        return self.received, self.sent, int.from_bytes(unsent, sys.byteorder)

    def abort(self, *, reset: bool = False) -> None:
        """End the connection now: both threads' calls return or fail. Any thread.

        Args:
            reset: have the peer know at once that nothing more is read. Without it one that waits
                for room to send may wait for seconds, as a socket that is shut down tells of none;
                but what was sent last may be lost with it.
        """
        with self._lock, contextlib.suppress(OSError):
            if reset:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            waits.shut_down(self._sock)

    def close(self) -> None:
        """Give the descriptor back. Only when neither thread uses the channel any more."""
        with self._lock, contextlib.suppress(OSError):
            self._sock.close()

    def leave_to_parent(self) -> None:
        """Give the descriptor of a forked child back: the connection is the parent's. No TLS is
        spoken any more, and none of the parent's threads is here."""
        self._lock = threading.Lock()  # the old one may be locked for ever
        with contextlib.suppress(OSError):
            self._sock.close()

    def _wait(self, event: int, deadline: Deadline) -> None:
        if not waits.is_ready(self._sock, event, deadline.left()):
            raise TimeoutError("no byte could be moved in time")
