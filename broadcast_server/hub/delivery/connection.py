"""One client's state after the hand-over: its socket, its cursor, and what is only for it.

Three parties meet here. The reader thread owns the reading side and says when it waits for input.
The fan-out owns the writing side and everything under its banner. Any thread may queue a frame
that is for this client alone. The socket is closed by the last of reader and fan-out to let go of
it: a descriptor that is closed earlier could be reused by the kernel while the other still writes.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable

from ...messages import Member, format_id
from ...transport.tls_stream import ByteStream
from ...wire import frames
from ..rooms.encodings import RAW, Form
from ..rooms.entries import ENTRY_BYTES
from ..rooms.room import Room

# Pongs that wait for a full socket. RFC 6455 §5.5.3 allows to answer only the newest ping; keeping
# some costs little and pleases peers that count.
MAX_WAITING_PONGS = 16
# Presence that waits for one client; beyond it the whole list follows later.
MAX_PRESENCE_BYTES = 64 * 1024


class Connection:
    """One client.

    Args:
        number: unique in the hub; what log entries carry as their origin.
        member: how users see the client.
        room: the room that it is in.
        sock: its socket, blocking and without a time-out, or what stands for it over TLS.
        echo: it wants its own messages, too.
        form: how messages go to it.
        expires: ``time.monotonic()`` when it may not be here any more.
    """

    __slots__ = (
        "_owners",
        "answering",
        "blocked",
        "blocked_since",
        "close_sent",
        "closing",
        "cursor",
        "deadline",
        "dropped",
        "due",
        "end_code",
        "end_reason",
        "ended",
        "exclude",
        "expires",
        "final",
        "form",
        "goodbye_due",
        "hard_deadline",
        "joined_after",
        "lock",
        "member",
        "missed",
        "number",
        "overdue",
        "personal",
        "personal_bytes",
        "pinged",
        "plain",
        "quiet_since",
        "reader_gone",
        "replaying",
        "rest",
        "rest_is_close",
        "rewelcome",
        "room",
        "send",
        "skips_to",
        "sock",
        "urgent",
        "waiting",
    )

    def __init__(
        self,
        number: int,
        member: Member,
        room: Room,
        sock: ByteStream,
        *,
        echo: bool,
        form: Form = RAW,
        expires: float = float("inf"),
    ) -> None:
        self.number = number
        self.expires = expires
        self.form = form
        self.member = member
        self.room = room
        self.sock = sock
        self.send = sock.send  # looked up once: the fan-out calls it for each delivery
        # Entries of this origin are not sent to this client; no entry has the origin -1.
        self.exclude = -1 if echo else number

        # Written by the reader, read by the fan-out's heartbeat: a single store each.
        self.waiting = False  # the reader is blocked in recv()
        self.quiet_since = time.monotonic()  # when it began to wait

        # Guards everything up to the next blank line. Taken after a room's lock.
        self.lock = threading.Lock()
        # Stamp, frame, whether it is Close. Made when first needed: an empty deque is 600 bytes.
        self.personal: deque[tuple[int, bytes, bool]] | None = None
        self.personal_bytes = 0
        self.urgent: list[bytes] = []
        self.closing = False  # a Close is queued or sent: nothing more is accepted
        self.ended = False  # why it ends is known; the reader takes no more messages
        self.answering = 0  # batches that are on their way, or accepted and not acknowledged yet
        self.goodbye_due = False  # the hub ends, and this is said when they are
        self.end_code = frames.ABNORMAL
        self.end_reason = ""
        self._owners = 1
        self.plain = False  # in step, nothing personal: all it needs is the log
        # Presence was left out, because too much waited. Guarded by the room's lock.
        self.missed = False

        # The fan-out's own, touched by no other thread after the hand-over.
        self.cursor = 0  # position of the next log entry to begin
        # Until the hand-over, when the log may have lost what it would tell: the id before the
        # cursor, and the place before which messages were asked for without a promise.
        self.joined_after: tuple[int, int] | None = None
        self.skips_to = 0
        # Its `welcome` with another `after`, if the one that waits may come to tell a wrong one.
        self.rewelcome: Callable[[str], bytes] | None = None
        self.rest: memoryview | None = None  # what is unsent of the frame in progress
        self.rest_is_close = False
        self.final: bytes | None = (
            None  # the Close of an eviction: follows `rest`, nothing else does
        )
        self.blocked = False  # the socket took less than it was offered
        self.blocked_since = 0.0  # when it last took something
        self.replaying = False  # has not caught up with the room since it joined
        self.close_sent = False
        self.reader_gone = False
        self.dropped = False
        self.deadline: float | None = None  # when to cut the connection off
        self.hard_deadline = 0.0  # what progress cannot extend the deadline beyond
        self.pinged = 0.0  # when the last ping was queued
        self.overdue = False  # a look has found no answer to it in time
        self.due = float("inf")  # its place in the fan-out's timers

    def __repr__(self) -> str:
        return f"<Connection {self.member.id} in {self.member.room}>"

    # -- Any thread ----------------------------------------------------------------------------

    def queue(self, frame: bytes, limit_bytes: int | None = None) -> bool | None:
        """Queue a frame that goes out after all that is in the log now. Then ``attend`` to it.

        Args:
            frame: the whole frame.
            limit_bytes: how much may wait already, at most.

        Returns:
            True if it was queued, False if too much waits, None if the connection is ending.
        """
        # The stamp is taken and queued under the room's lock, and the fan-out reads the head under
        # it before it looks here: so a message that is published later cannot go out earlier.
        with self.room.lock:
            return self.queue_locked(frame, limit_bytes)

    def queue_locked(self, frame: bytes, limit_bytes: int | None = None) -> bool | None:
        """Do what ``queue`` does; the room's lock is held."""
        assert self.room.lock.locked()
        with self.lock:
            if self.closing or self.ended:
                return None
            if limit_bytes is not None and self.personal_bytes + _cost(frame) > limit_bytes:
                if self.personal:
                    return False
            self._queue_locked(frame, False)
            return True

    def begin_answer(self) -> None:
        """Note that the client gets an acknowledgement. Its reader thread."""
        with self.lock:
            self.answering += 1

    def end_answer(self) -> bool:
        """Note that it has got it, or gets none; return whether the hub's goodbye is due now."""
        with self.lock:
            self.answering -= 1
            return self.goodbye_due and not self.answering

    def queue_close(
        self,
        code: int,
        reason: str | None,
        *,
        echo_code: int | None = None,
        after_answers: bool = False,
    ) -> bool:
        """Queue the Close that ends this connection; the first one counts.

        Args:
            code: how the connection ended, as the leave callback is told.
            reason: the reason, likewise; None for ``since=`` and the id of the last message that
                goes out before it.
            echo_code: the code to send where it differs: the echo of a Close that the peer sent.
            after_answers: not before what was accepted is acknowledged: who would come back to
                another hub would send it once more. Then `end_answer` tells when.

        Returns:
            False if the connection is closing already, or is lost, or it is too early.
        """
        with self.room.lock, self.lock:
            if self.closing or (self.ended and self.end_code == frames.ABNORMAL):
                return False
            if after_answers and self.answering:
                self.goodbye_due = True
                return False
            # An echo says that all before it was accepted. Not so if the end came first.
            is_echo = echo_code is not None and not self.ended
            if reason is None:
                reason = f"since={format_id(*self.room.id_before(self.room.head))}"
            self._end_locked(code, reason)
            if is_echo and echo_code is not None:
                frame = self.form.close(echo_code, "")
            else:
                frame = self.form.close(self.end_code, self.end_reason)
            self._queue_locked(frame, True)
            self.closing = True
            return True

    def queue_first(self, frame: bytes, again: Callable[[str], bytes] | None = None) -> None:
        """Queue what goes out before all else, in ``Room.join``: the room's lock is held.

        Who resumes a session can be found by its id before it is here, so something may wait
        already: what the program has sent, which comes behind, or a Close, after which nothing
        does.

        Args:
            frame: the whole frame.
            again: makes it for a client that begins later, behind the id that it is given; None
                for one that cannot.
        """
        with self.lock:
            if self.closing:
                return
            self.rewelcome = again
            if self.personal is None:
                self.personal = deque()
            self.personal.appendleft((self.cursor, frame, False))
            self.personal_bytes += _cost(frame)
            self.plain = False

    def queue_presence(self, frame: bytes) -> bool:
        """Queue who came or went, unless too much waits already; the room's lock is held.

        Returns:
            Whether to ``attend`` to it. What is left out is told as a whole later.
        """
        assert self.room.lock.locked()
        with self.lock:
            if self.closing or self.ended:
                return False
            waiting = self.personal_bytes + _cost(frame) if self.personal else 0
            if self.missed or waiting > MAX_PRESENCE_BYTES:
                self.missed = True
                return False
            self._queue_locked(frame, False)
            return True

    def _queue_locked(self, frame: bytes, is_close: bool) -> None:
        assert self.lock.locked()
        item, cost = (self.room.head, frame, is_close), _cost(frame)
        if self.personal is None:
            self.personal = deque()
        # With no call in between: a thread of the program may be interrupted.
        self.personal += (item,)
        self.personal_bytes += cost
        self.plain = False

    def queue_urgent(self, frame: bytes) -> bool:
        """Queue a ping or pong: it goes out at the next frame boundary.

        Returns:
            Whether to ``attend`` to it: False if others wait already, or nothing goes out any more.
        """
        with self.lock:
            if self.closing:
                return False
            first = not self.urgent
            if len(self.urgent) >= MAX_WAITING_PONGS:
                self.urgent[-1] = frame
            else:
                self.urgent.append(frame)
            self.plain = False
            return first

    def has_work(self) -> bool:
        """Tell whether there is something to send to a client that was just handed over."""
        head = self.room.look()
        with self.lock:
            return bool(self.cursor != head or self.personal or self.urgent or self.closing)

    def end(self, code: int, reason: str) -> None:
        """Note why the connection ends; the first cause counts."""
        with self.lock:
            self._end_locked(code, reason)

    def _end_locked(self, code: int, reason: str) -> None:
        assert self.lock.locked()
        if not self.ended:
            self.ended = True
            self.end_code = code
            self.end_reason = reason

    def share(self) -> None:
        """Make the fan-out the second owner of the socket. The reader, before the hand-over."""
        with self.lock:
            self._owners += 1

    def release(self) -> None:
        """Let go of the socket. The reader and the fan-out, once each; the last one closes it."""
        with self.lock:
            self._owners -= 1
            last = self._owners == 0
        if last:
            self.sock.close()

    def abort(self) -> None:
        """End both directions now; whoever waits on the socket wakes up."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster

    # -- The fan-out's thread ------------------------------------------------------------------

    def begin_later(self, cursor: int, after: str) -> None:
        """Skip old messages that have gone before the hand-over, of which none was promised; the
        ``welcome`` tells where it really begins."""
        self.cursor = cursor
        if self.rewelcome is not None:
            frame = self.rewelcome(after)
            with self.lock:
                assert self.personal is not None
                stamp, old, _ = self.personal[0]
                self.personal[0] = (stamp, frame, False)
                self.personal_bytes += len(frame) - len(old)

    def queue_second(self, frame: bytes) -> None:
        """Queue a frame that goes out before all messages, but behind the ``welcome``."""
        with self.lock:
            if self.personal is None:
                self.personal = deque()
            place = bool(self.personal and self.personal[0][0] <= self.cursor)
            self.personal.insert(place, (self.cursor, frame, False))
            self.personal_bytes += _cost(frame)
            self.plain = False

    def take_urgent(self) -> bytes:
        """Return the frames that wait for the next frame boundary, joined."""
        with self.lock:
            joined = b"".join(self.urgent)
            self.urgent.clear()
            return joined

    def take_personal(self) -> None:
        """Make the next personal frame the frame in progress."""
        with self.lock:
            assert self.personal is not None
            _, frame, self.rest_is_close = self.personal.popleft()
            self.personal_bytes -= _cost(frame)
        self.rest = memoryview(frame)

    def evict(self, code: int, reason: str) -> None:
        """Give up on the client: after the frame in progress it gets this Close and nothing
        else."""
        with self.lock:
            self._end_locked(code, reason)
            self.personal = None
            self.personal_bytes = 0
            self.urgent.clear()
            self.closing = True
            self.plain = False
        self.final = self.form.close(code, reason)

    def forget(self) -> None:
        """Let go of all that will not be sent: it is dropped, and its end is noted. The timers may
        keep it for a while yet, as they do many that have gone."""
        with self.lock:
            self.personal = None
            self.personal_bytes = 0
            self.urgent.clear()
        self.rest = self.rewelcome = None

    def try_plain(self) -> bool:
        """Note that only the log is left to send, unless something personal waits."""
        with self.lock:
            self.plain = not (self.personal or self.urgent or self.closing)
            return self.plain


def _cost(frame: bytes) -> int:
    """Return what a queued frame counts, so that empty ones cannot fill the memory either."""
    return len(frame) + ENTRY_BYTES
