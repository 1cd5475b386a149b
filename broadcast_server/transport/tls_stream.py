"""One client's TLS connection with the calls of a socket; one thread reads while another writes.

OpenSSL's state may be used by one thread at a time, and what it reads or writes may be bytes of its
own. So it never sees the socket. It works between two buffers in memory (``ssl.MemoryBIO``): what
the socket has is put into the one, what is in the other is given to the socket. Waiting is done
outside the lock, on the socket; inside it nothing can wait, and OpenSSL can never want to.

- A read takes bytes from the socket, then, inside the lock, decrypts *all* that is complete.
  Outside the lock OpenSSL holds a part of a record at most. So nothing is forgotten in there, and a
  shutdown, which reads as well, meets no data that it would take for an error.
- A write encrypts at most 16 KiB, then gives that to the socket. What the socket does not take
  stays here, and nothing more is encrypted until it is gone. A write that was encrypted whole but
  not taken whole reports one byte less than it has got, so that the caller waits for the socket as
  for any other, and comes back with that byte. It must offer that byte first. The fan-out does: a
  frame that has begun is always finished, and the last byte that it offers is never the first one
  of a frame.

What OpenSSL says on its own (the answer to a key update, an alert) leaves with the read that made
it, or with the next write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from .deadlines import Deadline
from .gil import SEND_FLAGS
from .tls import StrPath, server_context

# The most that a TLS record holds (RFC 8446 §5.1).
PIECE_BYTES = 16 * 1024
# What an idle client costs is a receive buffer of the smaller size; one that fills it gets the
# larger.
MIN_RECV_BYTES = 512
MAX_RECV_BYTES = 64 * 1024
# What OpenSSL may have to say that the socket does not take; and what may come without a byte of
# the client's own in it. A peer that asks for new keys all the time would cost memory and time.
MAX_PENDING_BYTES = 64 * 1024
MAX_BARREN_BYTES = 64 * 1024

_ADVICE = b"this port speaks TLS: use https or wss\n"
_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%s" % (len(_ADVICE), _ADVICE)
)

Data = bytes | memoryview


class ByteStream(Protocol):
    """What the hub asks of a client's connection: a ``socket.socket``, or a `TlsStream`."""

    def fileno(self) -> int: ...
    def gettimeout(self) -> float | None: ...
    def settimeout(self, value: float | None, /) -> None: ...
    def recv(self, bufsize: int, flags: int = 0, /) -> bytes: ...
    def send(self, data: Data, flags: int = 0, /) -> int: ...
    def sendall(self, data: Data, flags: int = 0, /) -> None: ...
    def sendmsg(
        self, buffers: Iterable[Data], ancdata: tuple[()] = ..., flags: int = 0, /
    ) -> int: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class TlsStream:
    """The server's end of a TLS connection.

    One thread may read and one may write at the same time; ``fileno`` is for waiting until the
    socket can be written. Errors of TLS are ``ssl.SSLError``, which is an ``OSError``.

    Args:
        raw: a connected socket; it belongs to the stream now.
        context: returns the context for the handshake, at its begin.

    Attributes:
        waiting: for what the reading thread waits, up to a time-out: ``POLLIN`` or ``POLLOUT`` of
            `select`; 0 if it doesn't. While it works on a handshake it does not wait, though the
            socket may have nothing for it.
    """

    __slots__ = (
        "_barren",
        "_context",
        "_ended",
        "_failure",
        "_goodbye",
        "_held",
        "_incoming",
        "_lock",
        "_outgoing",
        "_pending",
        "_plain",
        "_raw",
        "_ready",
        "_recv_bytes",
        "_ssl",
        "_timeout",
        "waiting",
    )

    def __init__(self, raw: socket.socket, context: Callable[[], ssl.SSLContext]) -> None:
        # It never has a time-out of Python's: that would make MSG_DONTWAIT wait.
        if raw.gettimeout() is not None:
            raw.settimeout(None)
        self._raw = raw
        self._context = context

        # Guards the next seven, and the order of what goes to the socket. Nothing else is taken
        # while it is held, and nothing waits.
        self._lock = threading.Lock()
        self._ssl: ssl.SSLObject | None = None  # once the handshake has begun
        self._ready = False  # the handshake is done
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._pending = b""  # encrypted, not taken by the socket yet
        self._held = b""  # the byte that was encrypted, but not reported
        self._goodbye = False  # close_notify was said

        # The reading thread's own.
        self.waiting = 0  # a single store each, others read it
        self._timeout: float | None = None
        self._plain = b""  # decrypted, not asked for yet
        self._recv_bytes = MIN_RECV_BYTES
        self._barren = 0  # bytes since the last one of the client's own
        self._ended = False  # nothing more comes
        self._failure: OSError | None = None

    # -- The reading thread --------------------------------------------------------------------

    def _handshake(self, deadline: Deadline) -> None:
        """Make the TLS handshake."""
        with self._lock:
            self._ssl = self._context().wrap_bio(self._incoming, self._outgoing, server_side=True)
        while not self._shake_hands():
            self._flush(deadline)
            data = self._receive(MAX_RECV_BYTES, deadline)
            if not data:
                raise ConnectionResetError("it has left in the middle of the handshake")
            with self._lock:
                self._incoming.write(data)
        self._flush(deadline)

    def _shake_hands(self) -> bool:
        """Go on with the handshake as far as possible; return whether it is done."""
        with self._lock:
            assert self._ssl is not None
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLError as error:
                if error.reason == "HTTP_REQUEST":
                    self._pending, _ = _PLAIN_HTTP, self._outgoing.read()
                with contextlib.suppress(OSError):
                    self._flush_locked()  # the alert that says what is wrong
                raise
            self._ready = True
            # What came in the same packet as the client's last word.
            self._decrypt_locked()
            return True

    def gettimeout(self) -> float | None:
        """Return the time-out of `recv` and `sendall` in seconds; None for none."""
        return self._timeout

    def settimeout(self, value: float | None, /) -> None:
        """Set the time-out of `recv` and `sendall`. `send` never waits."""
        self._timeout = value

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Wait for bytes and return some of them; b"" at the end, which a peer may also reach
        without saying goodbye. The first call that may wait makes the handshake, in the same time.

        With ``MSG_DONTWAIT`` it does not wait. With ``MSG_PEEK``, which any thread may use, it
        shows whether the socket has anything, encrypted as it is.

        Raises:
            TimeoutError: none came in time.
            BlockingIOError: none is here, and it was not to wait.
            OSError: the connection is broken, or what came is no TLS; who has spoken HTTP without
                it was told what to speak.
        """
        if flags & socket.MSG_PEEK:
            return self._raw.recv(bufsize, flags)
        deadline = Deadline(self._timeout)
        if not self._ready:
            if flags & socket.MSG_DONTWAIT:
                raise BlockingIOError(errno.EAGAIN, "there was no handshake yet")
            self._handshake(deadline)
        while not self._plain:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return b""
            data = self._receive(self._recv_bytes, deadline, flags)
            if not data:
                # Cut off without a goodbye, which a protocol with a Close need not mind. OpenSSL
                # would, and it would take what is still to be sent for lost.
                self._ended = True
                return b""
            if len(data) == self._recv_bytes:
                self._recv_bytes = MAX_RECV_BYTES
            elif len(data) < MIN_RECV_BYTES:
                self._recv_bytes = MIN_RECV_BYTES
            with self._lock:
                self._incoming.write(data)
                self._decrypt_locked()
                # Whoever does not take what we answer may still have something to say.
                with contextlib.suppress(OSError):
                    self._flush_locked()
                if len(self._pending) > MAX_PENDING_BYTES:
                    self._failure = ConnectionAbortedError("it does not take the answers of TLS")
            self._barren = 0 if self._plain else self._barren + len(data)
            if self._barren > MAX_BARREN_BYTES:
                self._failure = ConnectionAbortedError("it sends nothing but words of TLS")
        plain = self._plain
        if len(plain) <= bufsize:
            self._plain = b""
            return plain
        self._plain = plain[bufsize:]
        return plain[:bufsize]

    def sendall(self, data: Data, flags: int = 0, /) -> None:
        """Send all of it; before the hand-over, when the reader is the one who writes.

        Raises:
            TimeoutError: the peer did not take it in time.
            OSError: the connection is broken.
        """
        deadline = Deadline(self._timeout)
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.send(rest) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)

    def _receive(self, size: int, deadline: Deadline, flags: int = 0) -> bytes:
        """Return what the socket has; wait for it unless the flags say not to."""
        while deadline.left() is not None and not flags & socket.MSG_DONTWAIT:
            self._wait(select.POLLIN, deadline)
            try:
                return self._raw.recv(size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue  # a poll may be wrong
        # With MSG_DONTWAIT, or in a session that has joined.
        return self._raw.recv(size, flags)

    def _flush(self, deadline: Deadline) -> None:
        """Wait until the socket has taken what OpenSSL has said."""
        while True:
            with self._lock:
                if self._flush_locked():
                    return
            self._wait(select.POLLOUT, deadline)

    def _wait(self, event: int, deadline: Deadline) -> None:
        poller = select.poll()
        poller.register(self._raw, event)
        left = deadline.left()
        self.waiting = event
        try:
            if not poller.poll(None if left is None else left * 1000):
                raise TimeoutError("no byte could be moved in time")
        finally:
            self.waiting = 0

    def _decrypt_locked(self) -> None:
        """Take everything out of OpenSSL that is complete."""
        assert self._lock.locked() and self._ssl is not None
        pieces: list[bytes] = []
        doubtful: ssl.SSLError | None = None
        while True:
            try:
                data = self._ssl.read(PIECE_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError as error:
                if doubtful is not None:
                    self._failure = doubtful
                elif isinstance(error, ssl.SSLZeroReturnError):
                    self._ended = True  # the peer has said goodbye, after us
                else:
                    # OpenSSL may have been left with an error by other code of this thread, such as
                    # a callback (CPython issue 148594). To report it clears it away.
                    doubtful = error
                    continue
                break
            if not data:
                self._ended = True  # the peer has said goodbye
                break
            doubtful = None
            pieces.append(data)
        self._plain = b"".join(pieces)

    # -- The writing thread --------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait until it takes more."""
        return self._raw.fileno()

    def send(self, data: Data, flags: int = 0, /) -> int:
        """Send what the socket takes now, and never wait; return how much that is.

        Args:
            data: one frame or more, or what is left of the last call's.
            flags: for what they say it needs none.

        Raises:
            BlockingIOError: it is nothing.
            OSError: the connection is broken, or not made yet.
        """
        with self._lock:
            if self._ssl is None or not self._ready or self._goodbye:
                raise OSError(errno.ENOTCONN, "nothing can be sent outside of TLS")
            if not self._flush_locked():
                raise BlockingIOError(errno.EAGAIN, "the socket is full")
            size, done, is_out = len(data), 0, True
            if self._held and size:
                if data[:1] != self._held:
                    raise ConnectionAbortedError("something else than the rest was offered")
                self._held, done = b"", 1
            while is_out and done < size:
                # It wants to read only if the peer sends one word of TLS in two records, and other
                # things between them, or late: none does, and RFC 8446 §5.1 forbids the former.
                # Then this is an error like any other.
                done += self._ssl.write(memoryview(data)[done : done + PIECE_BYTES])
                is_out = self._flush_locked()
            if not is_out and done == size:
                self._held = bytes(data[-1:])
                done -= 1
            if size and not done:
                raise BlockingIOError(errno.EAGAIN, "the socket is full")
            return done

    def sendmsg(self, buffers: Iterable[Data], ancdata: tuple[()] = (), flags: int = 0, /) -> int:
        """Send several pieces as one, like `send`."""
        return self.send(b"".join(buffers))

    def _flush_locked(self) -> bool:
        """Give the socket what waits for it; return whether it took all."""
        assert self._lock.locked()
        if self._outgoing.pending:
            said = self._outgoing.read()
            self._pending = self._pending + said if self._pending else said
        if self._pending:
            try:
                sent = self._raw.send(self._pending, SEND_FLAGS)
            except BlockingIOError:
                return False
            self._pending = self._pending[sent:]
        return not self._pending

    # -- The end -------------------------------------------------------------------------------

    def shutdown(self, how: int, /) -> None:
        """End the connection, or its writing side, with TLS's goodbye if the socket takes that now;
        or its reading side, of which the peer hears nothing.

        Any thread. It waits for nobody, but with ``SHUT_WR`` for the lock.

        Raises:
            OSError: the peer was faster.
        """
        if how != socket.SHUT_RD and self._lock.acquire(blocking=how == socket.SHUT_WR):
            try:
                self._say_goodbye_locked()
            finally:
                self._lock.release()
        self._raw.shutdown(how)

    def _say_goodbye_locked(self) -> None:
        assert self._lock.locked()
        if self._ssl is None or not self._ready or self._goodbye:
            return
        self._goodbye = True
        with contextlib.suppress(OSError):
            # In the middle of a record there is no goodbye.
            if self._flush_locked():
                # It is said; then it would read the peer's, which the reader does.
                with contextlib.suppress(ssl.SSLError):
                    self._ssl.unwrap()
                self._flush_locked()

    def close(self) -> None:
        """Give the descriptor back. Only when neither thread uses the stream any more."""
        self._raw.close()


class Certificate:
    """A hub's certificate and key. All methods may be called from any thread.

    Args:
        cert: a file with the certificate and those between it and its authority, in PEM.
        key: a file with its private key, in PEM; None if it is in the same file.

    Raises:
        TlsError: they cannot be used.
    """

    def __init__(self, cert: StrPath, key: StrPath | None = None) -> None:
        self._cert = os.fspath(cert)
        self._key = None if key is None else os.fspath(key)
        # Replaced as a whole: a handshake has the old one or the new one.
        self._context = server_context(self._cert, self._key)

    def reload(self) -> None:
        """Read the files anew.

        Raises:
            TlsError: they cannot be used; the old certificate stays.
        """
        self._context = server_context(self._cert, self._key)

    def wrap(self, sock: socket.socket) -> TlsStream:
        """Return a connection on which the handshake is still to be made."""
        return TlsStream(sock, lambda: self._context)
