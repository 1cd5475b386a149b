"""The half of a client that its room knows: who it is, where it reads, what waits for it alone.

``Connection`` in ``delivery/connection`` adds the other half, which belongs to the fan-out: the
socket and the writing. Both halves are one object. A room needs only this one, and no socket.

A frame for one client gets the room's head as its stamp when it is queued. It goes out after the
messages before that position and before those that follow. Any thread may queue one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from ...messages import Member, format_id
from ...wire import frames
from .encodings import RAW, Form
from .entries import ENTRY_BYTES

# Presence that waits for one client; beyond it the whole list follows later.
MAX_PRESENCE_BYTES = 64 * 1024

# The class of a room's clients.
S = TypeVar("S", bound="Subscriber")


class SubscribedRoom(Protocol):
    """What a subscriber asks of its room."""

    lock: threading.Lock

    @property
    def head(self) -> int:
        """The position that the next message will get."""

    def id_before(self, position: int) -> tuple[int, int]:
        """Return the id of the last message before a position."""


class Subscriber:
    """One client, as its room knows it.

    Args:
        number: unique in the hub; what log entries carry as their origin.
        member: how users see the client.
        room: the room that it is in.
        form: how messages go to it.
    """

    __slots__ = (
        "answering",
        "closing",
        "cursor",
        "end_code",
        "end_reason",
        "ended",
        "form",
        "generation",
        "goodbye_due",
        "joined_after",
        "lock",
        "member",
        "missed",
        "number",
        "personal",
        "personal_bytes",
        "plain",
        "rewelcome",
        "room",
        "skips_to",
    )

    def __init__(self, number: int, member: Member, room: SubscribedRoom, form: Form = RAW) -> None:
        self.number = number
        self.member = member
        self.room = room
        self.form = form
        self.generation = 0  # of two with one number the room keeps the one where it is higher

        # Guards everything up to the next blank line, and what `Connection` says that it guards.
        # Taken after a room's lock.
        self.lock = threading.Lock()
        # Stamp, frame, whether it is Close. Made when first needed: an empty deque is 600 bytes.
        self.personal: deque[tuple[int, bytes, bool]] | None = None
        self.personal_bytes = 0
        self.closing = False  # a Close is queued or sent: nothing more is accepted
        self.ended = False  # why it ends is known; the reader takes no more messages
        self.answering = 0  # batches that are on their way, or accepted and not acknowledged yet
        self.goodbye_due = False  # the hub ends, and this is said when they are
        self.end_code = frames.ABNORMAL
        self.end_reason = ""
        self.plain = False  # in step, nothing personal: all it needs is the log

        # Presence was left out, because too much waited. Guarded by the room's lock.
        self.missed = False

        # Set by `Room.join`; after the hand-over the fan-out's own, touched by no other thread.
        self.cursor = 0  # position of the next log entry to begin
        # Until the hand-over, when the log may have lost what it would tell: the id before the
        # cursor, and the place before which messages were asked for without a promise.
        self.joined_after: tuple[int, int] | None = None
        self.skips_to = 0
        # Its `welcome` with another `after`, if the one that waits may come to tell a wrong one.
        self.rewelcome: Callable[[str], bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.member.id} in {self.member.room}>"

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
            if limit_bytes is not None and self.personal_bytes + cost_of_frame(frame) > limit_bytes:
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
                frame = self.form.close(echo_code, reason)
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
            self.personal_bytes += cost_of_frame(frame)
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
            waiting = self.personal_bytes + cost_of_frame(frame) if self.personal else 0
            if self.missed or waiting > MAX_PRESENCE_BYTES:
                self.missed = True
                return False
            self._queue_locked(frame, False)
            return True

    def _queue_locked(self, frame: bytes, is_close: bool) -> None:
        assert self.lock.locked()
        item, cost = (self.room.head, frame, is_close), cost_of_frame(frame)
        if self.personal is None:
            self.personal = deque()
        # With no call in between: a thread of the program may be interrupted.
        self.personal += (item,)
        self.personal_bytes += cost
        self.plain = False

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


def cost_of_frame(frame: bytes) -> int:
    """Return what a queued frame counts, so that empty ones cannot fill the memory either."""
    return len(frame) + ENTRY_BYTES
