"""``BroadcastClient``: one member of one room, from any program and any of its threads.

websocket-client makes the connection and the frames that go out. Then two threads share the socket.
The *writer* sends what is queued, so that nobody who only wants to read waits for the network. The
*reader* queues messages; when that queue is full it stops reading, and the hub finds out, as it
should. Frames come in through the hub's own decoder: it bounds a message before its payload is
there, and joins fragments in linear time.

A Close that the peer echoes is proof that it has read all that was sent before, since it reads in
order. ``close()`` waits for that proof as long as bytes move.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import logging
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from types import TracebackType

from . import dialer, frames
from .channel import Channel
from .deadlines import Deadline
from .errors import ConnectFailed, ConnectionClosed, ProtocolError, UsageError
from .messages import Message

# What send() queues before it waits.
SEND_AHEAD_BYTES = 1024 * 1024
# What the writer gives to the socket at once: many short messages in one system call.
BATCH_BYTES = 64 * 1024
# What the reader queues before it waits.
READ_AHEAD_BYTES = 8 * 1024 * 1024
# What an entry of a queue costs beside its payload.
ENTRY_BYTES = 256
MAX_FRAGMENTS = 131_072
MAX_PONGS = 64
# How often close() looks whether bytes have moved.
LOOK_SECONDS = 0.25

logger = logging.getLogger(__name__)


class BroadcastClient:
    """A connection to one room. It is used once: connect, talk, close.

    All methods may be called from any thread; of several threads that receive, each message goes to
    one. A context manager: it connects on entering and closes on leaving.

    Args:
        url: ``ws://host:port/room`` or ``wss://…``; the query parameters of the hub are understood
            (``echo=1``, ``history=N``, ``since=ID``).
        name: what the client calls itself, sent as the query parameter ``name``.
        headers: more header lines for the opening handshake.
        open_timeout: seconds that each step of connecting may take.
        close_timeout: seconds without a byte in either direction after which ``close()`` gives up.
        max_message_bytes: the largest message that is taken; a larger one ends the connection with
            close code 1009.

    Raises:
        UsageError: the URL or a header cannot be one.

    Attributes:
        url: the address, with the name in it.
        close_code, close_reason: what the peer's Close said; 1006 (RFC 6455 §7.1.5) and what has
            happened if there was none; None and "" before the end.
        timed_out: whether `close` has given up waiting for the peer.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        headers: Mapping[str, str] | None = None,
        open_timeout: float = 10.0,
        close_timeout: float = 5.0,
        max_message_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self.url = dialer.complete_url(url, name)
        self._headers = dialer.checked_headers(headers or {})
        self._open_timeout = open_timeout
        self._close_timeout = close_timeout
        self._room = urllib.parse.unquote(urllib.parse.urlsplit(self.url).path) or "/"
        self._decoder = frames.FrameDecoder(max_message_bytes, MAX_FRAGMENTS, masked=False)
        self._channel: Channel | None = None
        self._reader = threading.Thread(target=self._read, name="client-reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name="client-writer", daemon=True)
        self.close_code: int | None = None
        self.close_reason = ""
        self.timed_out = False

        # Guards everything below, and how the connection has ended.
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # for the writer: there is something to send
        self._room_to_send = threading.Condition(self._lock)  # for send()
        self._arrived = threading.Condition(self._lock)  # for recv()
        self._room_to_read = threading.Condition(self._lock)  # for the reader

        self._connecting = False  # connect() was called, and has not failed
        self._outbox: collections.deque[tuple[int, bytes]] = collections.deque()
        self._outbox_bytes = 0
        # Of pings not yet answered. Who sends more of them gets only the newest answered (§5.5.3).
        self._pongs: collections.deque[bytes] = collections.deque(maxlen=MAX_PONGS)
        self._close: bytes | None = None  # payload of our Close once it is queued; nothing follows
        self._close_at: int | None = None  # how many bytes are sent once Close is sent
        self._writing = False  # the writer runs and its socket takes bytes

        self._inbox: collections.deque[tuple[int, bytes, float]] = collections.deque()
        self._inbox_bytes = 0
        self._taken = 0  # messages that were received, for close() to see that something moves
        self._discarding = False  # close() was called: a full inbox holds nobody up
        self._ended = False  # the peer sends no more messages
        self._left = False  # we have asked for the end: it is no surprise to who receives
        self._echoed = False  # the peer has answered our Close with the same
        self._failure: ProtocolError | None = None

    # Any thread.

    def connect(self) -> BroadcastClient:
        """Connect and join the room; return the client.

        Raises:
            ConnectFailed: there is no connection; the text says why, `status` which HTTP status.
            UsageError: the client has been connected before.
        """
        with self._lock:
            if self._connecting or self._ended:
                raise UsageError("a client connects once; make a new one")
            self._connecting = True
        try:
            sock = dialer.dial(self.url, self._headers, self._open_timeout)
        except BaseException:  # Ctrl-C, too: it may try again
            with self._lock:
                self._connecting = False
            raise
        channel = Channel(sock)
        try:
            with self._lock:
                if self._left:
                    raise ConnectFailed(f"{self.url}: closed while it connected")
                self._channel = channel
                self._writing = True
                # Under the lock, so that close() finds them alive; the reader joins the writer.
                self._writer.start()
                self._reader.start()
        except (ConnectFailed, RuntimeError):  # closed, or no thread is to be had
            with self._lock:
                self._end_locked(frames.ABNORMAL, "never connected")
            channel.close()
            raise
        return self

    def send(self, data: str | bytes, timeout: float | None = None) -> None:
        """Queue a message: text for ``str``, binary for ``bytes``.

        It waits while 1 MiB is queued that the peer does not take. Queued is not yet accepted by
        the hub: `close` tells whether all was.

        Args:
            data: the message.
            timeout: seconds to wait for room in the queue; None for as long as it takes.

        Raises:
            TypeError: the data is neither ``str`` nor ``bytes``.
            UnicodeEncodeError: the text holds a lone surrogate, which UTF-8 cannot carry.
            TimeoutError: there was no room in time; nothing was queued.
            ConnectionClosed: the connection has ended, or `close` was called.
        """
        if isinstance(data, str):
            item = (frames.TEXT, data.encode("utf-8"))
        elif isinstance(data, bytes):
            item = (frames.BINARY, data)
        else:
            raise TypeError(f"data must be str or bytes, not {type(data).__name__}")
        deadline = Deadline(timeout)
        with self._lock:
            while self._may_send_locked() and self._outbox_bytes >= SEND_AHEAD_BYTES:
                if not self._room_to_send.wait(deadline.left()):
                    raise TimeoutError("the peer does not take the messages in time")
            if not self._may_send_locked():
                raise self._closed_locked()
            self._outbox.append(item)
            self._outbox_bytes += len(item[1]) + ENTRY_BYTES
            self._work.notify()

    def recv(self, timeout: float | None = None) -> Message:
        """Wait for the next message.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            TimeoutError: none came in time.
            ConnectionClosed: the connection has ended, and every message before that was taken.
            ProtocolError: as before, because the peer broke the protocol.
        """
        deadline = Deadline(timeout)
        with self._lock:
            while not self._inbox:
                if self._ended or self._channel is None:
                    raise self._failure or self._closed_locked()
                # Who was notified when its time was up must take the message: no other one was.
                if not self._arrived.wait(deadline.left()) and not self._inbox:
                    raise TimeoutError("no message in time")
            opcode, payload, at = self._inbox.popleft()
            self._taken += 1
            was_full = self._inbox_bytes >= READ_AHEAD_BYTES
            self._inbox_bytes -= len(payload) + ENTRY_BYTES
            if was_full and self._inbox_bytes < READ_AHEAD_BYTES:
                self._room_to_read.notify()
        data = payload.decode("utf-8") if opcode == frames.TEXT else payload
        moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
        return Message(data, self._room, None, moment, None)

    def __iter__(self) -> Iterator[Message]:
        """Yield messages until the connection is closed in peace: by us, or with 1000 or 1001.

        Raises:
            ConnectionClosed: it ended in any other way.
            ProtocolError: the peer broke the protocol.
        """
        while True:
            try:
                message = self.recv()
            except ConnectionClosed as error:
                if self._left or error.code in (1000, 1001):
                    return
                raise
            yield message

    @property
    def closed(self) -> bool:
        """Whether the connection has ended; messages that came before may still be received."""
        return self._ended

    def close(
        self,
        code: int = 1000,
        reason: str = "",
        timeout: float | None = None,
        *,
        keep_reading: bool = False,
    ) -> bool:
        """Send all that is queued, then Close; wait for its echo and end the connection.

        It may be called again: the first call's code counts.

        Args:
            code: the close code (RFC 6455 §7.4).
            reason: a short text for the peer; what exceeds 123 bytes is cut off.
            timeout: seconds this may take at most; None for as long as bytes move, that is until
                ``close_timeout`` seconds pass without one.
            keep_reading: another thread goes on receiving, so wait for it when the queue of
                messages is full; else what does not fit into it is thrown away.

        Returns:
            True if the peer echoed the Close: then it has read everything that was sent. False if
            it closed by itself, said nothing, or there was no connection.

        Raises:
            UsageError: the code must not be sent.
        """
        if not frames.is_sendable_close_code(code):
            raise UsageError(f"{code} is no close code that may be sent")
        with self._lock:
            self._left = True
            if self._channel is None:
                self._ended = True
                return False
            self._discarding = not keep_reading
            self._room_to_read.notify()
            if not self._ended:
                self._queue_close_locked(code, reason)
        self._await_end(self._channel, Deadline(timeout), timeout is None)
        return self._echoed

    def __enter__(self) -> BroadcastClient:
        return self.connect()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Who leaves because of an error does not want to wait for a long queue.
        self.close(timeout=None if kind is None else self._close_timeout)

    def _await_end(self, channel: Channel, deadline: Deadline, while_moving: bool) -> None:
        """Wait until both threads have ended; cut the connection when it takes too long."""
        seen: object = None
        silence = Deadline(self._close_timeout)
        while self._reader.is_alive():
            moved = (*channel.progress(), self._taken)
            if moved != seen:
                seen = moved
                silence = Deadline(self._close_timeout)
            left = (silence if while_moving else deadline).left()
            if left == 0:
                logger.debug("%s: no answer to Close", self.url)
                with self._lock:
                    self.timed_out = not self._echoed
                    self._end_locked(frames.ABNORMAL, "no answer to Close")
                    self._discarding = True
                    self._room_to_read.notify()
                channel.abort(reset=True)
                self._reader.join(self._close_timeout)
                return
            self._reader.join(LOOK_SECONDS if left is None else min(LOOK_SECONDS, left))

    def _may_send_locked(self) -> bool:
        return self._writing and self._close is None and not self._ended

    def _closed_locked(self) -> ConnectionClosed:
        if self._channel is None:
            return ConnectionClosed(frames.ABNORMAL, "not connected")
        if self.close_code is None:
            return ConnectionClosed(frames.ABNORMAL, "closed here" if self._left else "lost")
        return ConnectionClosed(self.close_code, self.close_reason)

    def _queue_close_locked(self, code: int, reason: str) -> None:
        if self._close is None:
            self._close = frames.encode_close(code, reason)[2:]
            self._outbox.append((frames.CLOSE, self._close))
            self._work.notify()
            self._room_to_send.notify_all()

    def _drop_messages_locked(self) -> None:
        self._outbox = collections.deque(i for i in self._outbox if i[0] == frames.CLOSE)

    # The writer thread.

    def _write(self) -> None:
        assert self._channel is not None
        channel = self._channel
        try:
            while batch := self._next_batch(channel):
                channel.send(batch, Deadline(None))
        except OSError as error:
            # The reader finds the connection's end, too, and before it what the peer had to say.
            logger.debug("%s: cannot send: %s", self.url, error)
        finally:
            with self._lock:
                self._writing = False
                self._outbox.clear()
                self._room_to_send.notify_all()

    def _next_batch(self, channel: Channel) -> bytes:
        """Wait for something to send and return it as frames; b"" when there will be no more."""
        with self._lock:
            # Nothing follows Close, not even a pong.
            while not self._outbox and (self._close is not None or not self._pongs):
                if self._ended or self._close is not None:
                    return b""
                self._work.wait()
            batch = [(frames.PONG, payload) for payload in self._pongs]
            self._pongs.clear()
            size = 0
            while self._outbox and size < BATCH_BYTES:
                batch.append(self._outbox.popleft())
                size += len(batch[-1][1]) + ENTRY_BYTES
            self._outbox_bytes -= size
            self._room_to_send.notify_all()
        data = b"".join([dialer.masked_frame(*item) for item in batch])
        if batch[-1][0] == frames.CLOSE:
            with self._lock:
                self._close_at = channel.sent + len(data)
        return data

    # The reader thread.

    def _read(self) -> None:
        assert self._channel is not None
        channel = self._channel
        why = "the client has failed"
        try:
            while not self._ended:
                data = channel.recv(Deadline(None))
                if not data:
                    why = "the stream has ended without a Close"
                    break
                self._take(channel, data)
        except OSError as error:
            why = error.strerror or str(error)
        finally:
            self._leave(channel, why)

    def _leave(self, channel: Channel, why: str) -> None:
        """End the connection in order; the descriptor is given back here."""
        with self._lock:
            self._end_locked(frames.ABNORMAL, why)
            answering = self._close is not None
        # The Close that we owe goes out; the peer's end of stream comes after it (§7.1.1).
        if answering:
            deadline = Deadline(self._close_timeout)
            self._writer.join(deadline.left())
            with contextlib.suppress(OSError):
                while deadline.left() and channel.recv(deadline):
                    pass  # a peer that talks on never lets the call itself run out of time
        channel.abort()
        self._writer.join()
        channel.close()

    def _take(self, channel: Channel, data: bytes) -> None:
        """Queue what arrived; answer what wants an answer."""
        now = time.time()
        events = self._decoder.feed(data)
        with self._lock:
            for opcode, payload in events:
                if opcode == frames.TEXT or opcode == frames.BINARY:
                    while self._inbox_bytes >= READ_AHEAD_BYTES and not self._discarding:
                        self._room_to_read.wait()
                    if self._inbox_bytes < READ_AHEAD_BYTES:
                        self._inbox.append((opcode, payload, now))
                        self._inbox_bytes += len(payload) + ENTRY_BYTES
                        self._arrived.notify()
                elif opcode == frames.PING:
                    self._pongs.append(payload)
                    self._work.notify()
                elif opcode == frames.CLOSE:
                    self._take_close_locked(channel, payload)
            self._failure = self._decoder.failure
            if self._failure is not None:
                self._drop_messages_locked()
                self._queue_close_locked(self._failure.code, self._failure.reason)
                self._end_locked(frames.ABNORMAL, self._failure.reason)

    def _take_close_locked(self, channel: Channel, payload: bytes) -> None:
        code, reason = frames.parse_close(payload)
        if self._close is not None and self._close_at is not None:
            own_code, own_reason = frames.parse_close(self._close)
            # A Close of the peer's own may cross ours: it proves nothing. Such a one comes before
            # ours is all sent, or has another code or a reason of its own.
            is_sent = channel.sent >= self._close_at
            self._echoed = is_sent and code == own_code and reason in ("", own_reason)
        # The peer reads nothing that would come before the answer.
        self._drop_messages_locked()
        self._queue_close_locked(1000 if code == frames.NO_CODE else code, "")
        self._end_locked(code, reason)

    def _end_locked(self, code: int, reason: str) -> None:
        """Note how the connection has ended; the first to know counts."""
        if not self._ended:
            self._ended = True
            self.close_code, self.close_reason = code, reason
            self._work.notify()
            self._arrived.notify_all()
            self._room_to_send.notify_all()
