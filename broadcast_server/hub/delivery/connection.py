"""One client after the hand-over: its socket, and how far the writing to it has got.

``Connection`` is a ``Subscriber``, the half that its room knows, with the fan-out's half. Three
parties meet here. The reader thread owns the reading side and says when it waits for input. The
fan-out owns the writing side and everything under its banner. Any thread may queue a frame that is
for this client alone. The socket is closed by the last of reader and fan-out to let go of it: a
descriptor that is closed earlier could be reused by the kernel while the other still writes.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable

from ...messages import Member
from ...transport.tls_stream import ByteStream, Data
from ..rooms.encodings import RAW, Form
from ..rooms.room import Room
from ..rooms.subscriber import Subscriber, cost_of_frame
from ..rooms.waiters import Bells

# Pongs that wait for a full socket. RFC 6455 §5.5.3 allows to answer only the newest ping; keeping
# some costs little and pleases peers that count.
MAX_WAITING_PONGS = 16


class Connection(Subscriber):
    """One client.

    Args:
        number, member, room, form: as for ``Subscriber``.
        sock: its socket, blocking and without a time-out, or what stands for it over TLS.
        echo: it wants its own messages, too.
        expires: ``time.monotonic()`` when it may not be here any more.
    """

    __slots__ = (
        "_owners",
        "blocked",
        "blocked_since",
        "close_sent",
        "deadline",
        "drained",
        "dropped",
        "due",
        "exclude",
        "expires",
        "final",
        "hard_deadline",
        "lagging",
        "overdue",
        "peer_closed",
        "pinged",
        "quiet_since",
        "reader_gone",
        "replaying",
        "rest",
        "rest_is_close",
        "rest_since",
        "sock",
        "urgent",
        "waiting",
    )

    room: Room[Connection]

    def __init__(
        self,
        number: int,
        member: Member,
        room: Room[Connection],
        sock: ByteStream,
        *,
        echo: bool,
        form: Form = RAW,
        expires: float = float("inf"),
    ) -> None:
        super().__init__(number, member, room, form)
        self.expires = expires
        self.sock = sock
        # Entries of this origin are not sent to this client; no entry has the origin -1.
        self.exclude = -1 if echo else number

        # Written by the reader, read by the fan-out: a single store each.
        self.waiting = False  # the reader is blocked in recv()
        self.quiet_since = time.monotonic()  # when it began to wait
        self.peer_closed = False  # its Close has come

        # Written by the fan-out, read by the reader: a single store each.
        self.lagging = False  # far behind, and its socket is full

        # Guarded by `lock`, which the subscriber has made.
        self.urgent: list[bytes] = []
        # Rung when nothing personal waits, or it is not behind any more; made when needed.
        self.drained: Bells | None = None
        self._owners = 1

        # The fan-out's own, as `cursor` is: touched by no other thread after the hand-over.
        self.rest: Data | None = None  # what is unsent of the frame in progress
        self.rest_is_close = False
        self.rest_since = 0.0  # when it got the first part of it
        # The Close of an eviction: follows `rest`, nothing else does.
        self.final: bytes | None = None
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

    # -- Any thread ----------------------------------------------------------------------------

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

    def wait_drained(self, seconds: float) -> None:
        """Wait until nothing personal waits any more, for so long at most."""
        self._wait(lambda: bool(self.personal), seconds)

    def wait_caught_up(self, seconds: float) -> None:
        """Wait until it is not far behind any more, for so long at most."""
        self._wait(lambda: self.lagging, seconds)

    def _wait(self, has_to: Callable[[], bool], seconds: float) -> None:
        with self.lock:
            if self.drained is None:
                self.drained = Bells()
            drained = self.drained
            # First: who catches up says so and rings without the lock.
            bell = drained.get()
            if not has_to():
                drained.forget(bell)
                return
        drained.wait(bell, seconds)

    def has_work(self) -> bool:
        """Tell whether there is something to send to a client that was just handed over."""
        head = self.room.look()
        with self.lock:
            return bool(self.cursor != head or self.personal or self.urgent or self.closing)

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
            # Nothing follows a Close, which may have come before the hand-over.
            stamp, _, is_close = self.personal[0] if self.personal else (0, b"", True)
            place = not is_close and stamp <= self.cursor
            self.personal.insert(place, (self.cursor, frame, False))
            self.personal_bytes += cost_of_frame(frame)
            self.plain = False

    def caught_up(self) -> None:
        """Note that it is not far behind any more."""
        self.lagging = False
        if self.drained is not None:
            self.drained.ring()

    def take_urgent(self) -> bytes:
        """Return the frames that wait for the next frame boundary, joined."""
        with self.lock:
            joined = b"".join(self.urgent)
            self.urgent.clear()
            return joined

    def take_personal(self, limit_bytes: int = 0) -> None:
        """Make the next personal frame the frame in progress, joined with those behind it that go
        out at the same place, up to about that many bytes, a Close being the last: one send is
        enough for them."""
        taken: list[bytes] = []
        size = 0
        with self.lock:
            assert self.personal is not None
            while True:
                _, frame, self.rest_is_close = self.personal.popleft()
                self.personal_bytes -= cost_of_frame(frame)
                taken.append(frame)
                size += len(frame)
                if self.rest_is_close or size >= limit_bytes:
                    break
                if not self.personal or self.personal[0][0] > self.cursor:
                    break
            empty = not self.personal
        if empty and self.drained is not None:
            self.drained.ring()
        self.rest = frame if len(taken) == 1 else b"".join(taken)

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
        if self.drained is not None:
            self.drained.ring()
        self.final = self.form.close(code, reason)

    def forget(self) -> None:
        """Let go of all that will not be sent: it is dropped, and its end is noted. The timers may
        keep it for a while yet, as they do many that have gone."""
        with self.lock:
            self.personal = None
            self.personal_bytes = 0
            self.urgent.clear()
        if self.drained is not None:
            self.drained.ring()
        self.rest = self.rewelcome = None

    def try_plain(self) -> bool:
        """Note that only the log is left to send, unless something personal waits."""
        with self.lock:
            self.plain = not (self.personal or self.urgent or self.closing)
            return self.plain
