"""One connection of a client: its socket, its writer thread, and its closing handshake.

The *writer* sends what is queued, so that nobody who only wants to read waits for the network. The
reader is the client's own thread, which outlives the connection; it reads from the channel and says
with `end_locked` and `leave` that the connection ends.

A Close that the peer echoes is proof that it has read all that was sent before, since it reads in
order.
"""

from __future__ import annotations

import collections
import contextlib
import socket
import threading

from ..records import get_logger
from ..transport.channel import Channel
from ..transport.deadlines import Deadline
from ..wire import frames
from ..wire.client_events import ESCAPED_BYTES, EVENT_BYTES, EventReader
from . import dialer
from .queues import Outbox

MAX_FRAGMENTS = 131_072
MAX_PONGS = 64

logger = get_logger("broadcast_server.client")


class Link:
    """One connection.

    Args:
        sock: a WebSocket from its next byte on; it belongs to the link now.
        lock: the client's lock; it guards everything below but what is the reader thread's own
            and `channel`, which has a lock of its own.
        outbox: what the writer sends, under the same lock.
        max_message_bytes: the largest message that is taken.
        with_events: whether the hub chose to speak ``broadcast.v1.json``.
        shown: what the log calls the address.

    Attributes:
        channel: the socket.
        decoder: makes frames of bytes; the reader thread's own.
        events: makes events of frames, if the hub speaks them; the reader thread's own.
        welcomed: whether the connection can be used: a hub that speaks events has said welcome.
        writing: whether the writer runs and its socket takes bytes.
        ended: whether the peer sends no more messages.
        echoed: whether the peer has answered our Close with the same.
        pongs: payloads of pings not yet answered. Who sends more of them gets only the newest
            answered (RFC 6455 §5.5.3).
    """

    def __init__(
        self,
        sock: socket.socket,
        lock: threading.RLock,
        outbox: Outbox,
        max_message_bytes: int,
        with_events: bool,
        shown: str,
    ) -> None:
        self.channel = Channel(sock)
        limit = max_message_bytes
        self.events: EventReader | None = None
        if with_events:
            limit = ESCAPED_BYTES * max_message_bytes + EVENT_BYTES
            self.events = EventReader(max_message_bytes)
        self.decoder = frames.FrameDecoder(limit, MAX_FRAGMENTS, masked=False)
        self._lock = lock
        self._outbox = outbox
        self._shown = shown
        self._writer = threading.Thread(target=self._write, name="client-writer", daemon=True)

        self.welcomed = not with_events
        self.writing = False
        self.ended = False
        self.echoed = False
        self.pongs: collections.deque[bytes] = collections.deque(maxlen=MAX_PONGS)
        # The reader's own: silence was answered with a ping, and went on since.
        self.pinged = False
        self._ping_due = False
        self.close: bytes | None = None  # payload of our Close once it is queued
        self._close_now = False  # nothing else is sent any more
        self._close_at: int | None = None  # how many bytes are sent once Close is sent

    # Any thread.

    def start_locked(self) -> None:
        """Start the writer.

        Raises:
            RuntimeError: no thread is to be had.
        """
        self.writing = True
        try:
            self._writer.start()
        except RuntimeError:
            self.writing = False
            raise

    def close_locked(self, code: int, reason: str, *, now: bool = False) -> None:
        """Queue Close behind everything, or `now`; the first call's code counts."""
        if self.close is None:
            self.close = frames.encode_close(code, reason)[2:]
        self._close_now = self._close_now or now
        self._outbox.work.notify()

    # The writer thread.

    def _write(self) -> None:
        is_over = False
        try:
            while batch := self._next_batch():
                self.channel.send(batch, Deadline(None))
            is_over = True
        except OSError as error:
            logger.debug("%s: cannot send: %s", self._shown, error)
            # The reader finds such an end, too, and before it what the peer had to say.
            is_over = isinstance(error, ConnectionError)
        finally:
            if not is_over:
                # The connection may go on without us, and nobody would ever see that nothing is
                # sent on it.
                self.channel.abort()
            with self._lock:
                self.writing = False
                self._outbox.space.notify_all()

    def _next_batch(self) -> bytes:
        """Wait for something to send and return it as frames; b"" when there will be no more."""
        with self._lock:
            while not self._has_work_locked():
                if self.ended or self._close_at is not None:
                    return b""
                self._outbox.work.wait()
            batch = [(frames.PONG, payload) for payload in self.pongs]
            self.pongs.clear()
            if self._ping_due:
                self._ping_due = False
                batch.append((frames.PING, b""))
            if not self._close_now:
                batch += [(item.opcode, item.payload) for item in self._outbox.take_locked()]
            closing = self.close is not None and (self._close_now or not self._outbox)
            if closing:
                assert self.close is not None
                batch.append((frames.CLOSE, self.close))
                self._close_at = -1  # nothing follows it, not even a pong
        data = b"".join([dialer.masked_frame(*item) for item in batch])
        if closing:
            with self._lock:
                self._close_at = self.channel.sent + len(data)
        return data

    def _has_work_locked(self) -> bool:
        if self._close_at is not None:
            return False
        if self.close is not None:
            return True
        return not self.ended and bool(self.pongs or self._outbox or self._ping_due)

    # The reader thread.

    def ping_locked(self) -> None:
        """Ask the peer whether it is there."""
        self.pinged = self._ping_due = True
        self._outbox.work.notify()

    def pong_locked(self, payload: bytes) -> None:
        """Answer a ping."""
        self.pongs.append(payload)
        self._outbox.work.notify()

    def answer_close_locked(self, payload: bytes) -> tuple[int, str]:
        """Take the peer's Close, and answer it if it is no answer; return its code and reason."""
        code, reason = frames.parse_close(payload)
        if self.close is not None and self._close_at is not None:
            own_code, own_reason = frames.parse_close(self.close)
            # A Close of the peer's own may cross ours: it proves nothing. Such a one comes before
            # ours is all sent, or has another code or a reason of its own.
            is_sent = 0 <= self._close_at <= self.channel.sent
            self.echoed = is_sent and code == own_code and reason in ("", own_reason)
        # The peer reads nothing that would come before the answer.
        self.close_locked(1000 if code == frames.NO_CODE else code, reason, now=True)
        return code, reason

    def end_locked(self) -> None:
        """Have the writer send the Close that is owed, if any, and end."""
        self.ended = True
        self._outbox.work.notify()

    def leave(self, timeout: float) -> None:
        """End the connection in order and give the descriptor back; `end_locked` came before.
        Also on the thread of who has made the link, if there is no reader yet.

        Args:
            timeout: seconds for the peer to take our Close and to end the stream.
        """
        with self._lock:
            answering = self.close is not None
        # The Close that we owe goes out; the peer's end of stream comes after it (§7.1.1).
        if answering and self._writer.ident is not None:
            deadline = Deadline(timeout)
            self._writer.join(deadline.left())
            with contextlib.suppress(OSError):
                while deadline.left() and self.channel.recv(deadline):
                    pass  # a peer that talks on never lets the call itself run out of time
        self.channel.abort()
        if self._writer.ident is not None:  # it was started
            self._writer.join()
        self.channel.close()

    # A forked child.

    def leave_to_parent(self, lock: threading.RLock, outbox: Outbox) -> None:
        """Give the child's copy of the descriptor back; the connection goes on.

        Args:
            lock, outbox: in place of those that the parent may have locked.
        """
        self._lock, self._outbox = lock, outbox
        self.ended = True
        self.writing = False
        self.channel.leave_to_parent()
