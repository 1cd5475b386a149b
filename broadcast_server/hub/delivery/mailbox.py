"""What other threads leave for the fan-out, and the pipe that wakes it.

Who posts appends under the lock, and writes to the pipe only if the thread sleeps. The thread says
that it sleeps under the same lock, and only if it finds nothing there. So a post comes either
before that look, and is seen, or after it, and wakes.

A room whose log has grown is kept once, however many messages came: the pass that follows looks at
the log itself. So is a client, however often something is queued for it, with each different thing
that is to be done: what waits here is bounded by the number of clients, not by what they send.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable

from ...transport import gil
from ..rooms.room import Room
from .connection import Connection
from .timers import NEVER

# Something that the thread is to do for a client; what is to be done for each, in that order.
Action = Callable[[Connection], None]
Posts = dict[Connection, tuple[Action, ...]]


class Mailbox:
    """What one hub's fan-out has to look at next."""

    def __init__(self) -> None:
        # Guards the next one, and the use of the pipe against its closing. Taken alone.
        self._pipe_lock = threading.Lock()
        self._closed = False

        # Guards the next seven. Taken last of all locks.
        self._lock = threading.Lock()
        self._posts: Posts = {}
        self._grown: dict[Room[Connection], None] = {}
        self._to_count: dict[Room[Connection], None] = {}
        self._sleeping = False
        self._wakes_by = NEVER  # if it sleeps: when it wakes by itself
        self._finish_by = NEVER
        self._ended = False

        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    # -- Any thread ----------------------------------------------------------------------------

    def notify(self, room: Room[Connection]) -> None:
        """Tell that a room's log has grown."""
        with self._lock:
            self._grown[room] = None
            wake, self._sleeping = self._sleeping, False
        if wake:
            self._wake()

    def post(self, action: Action, connection: Connection, by: float = 0.0) -> bool:
        """Leave something to do for the thread, unless it waits there already.

        Args:
            action: what to do, on its thread.
            connection: for whom.
            by: a thread that sleeps, but not beyond this ``time.monotonic()``, is not woken.

        Returns:
            False if the thread has ended: it will not be done.
        """
        with self._lock:
            if self._ended:
                return False
            add_post(self._posts, connection, action)
            wake = self._sleeping and self._wakes_by > by
            if wake:
                self._sleeping = False
        if wake:
            self._wake()
        return True

    def post_all(
        self,
        action: Action,
        connections: Iterable[Connection],
        counted: Room[Connection] | None,
    ) -> None:
        """Leave the same to do for several clients, and a room whose members are to be told their
        number, if it is not None."""
        with self._lock:
            if self._ended:
                return
            for connection in connections:
                add_post(self._posts, connection, action)
            if counted is not None:
                self._to_count[counted] = None
            wake, self._sleeping = self._sleeping, False
        if wake:
            self._wake()

    def rouse(self) -> None:
        """Wake the thread if it sleeps."""
        with self._lock:
            wake, self._sleeping = self._sleeping, False
        if wake:
            self._wake()

    def wake(self) -> None:
        """Wake the thread, whatever it seems to do: whoever was interrupted may have noted that it
        does not sleep any more, and not have come to wake it."""
        with self._lock:
            self._sleeping = False
        self._wake()

    def finish(self, deadline: float) -> None:
        """Let the thread know by when it is to end, and wake it."""
        with self._lock:
            self._finish_by = deadline
        self.wake()

    def _wake(self) -> None:
        # Who was about to wake a thread that has ended must not write to a descriptor that the
        # kernel has given to somebody else since. The write gives the GIL away: the thread that it
        # wakes begins while this one is in the kernel.
        with self._pipe_lock:
            if not self._closed:
                try:
                    os.write(self._writer, b"w")
                except OSError:
                    pass  # full: it will wake

    def close(self) -> None:
        """Close the pipe, when the thread does not wait for it any more. It may be called again."""
        with self._pipe_lock:
            self._closed = True
            # A number is forgotten before it is closed, so an interrupted call may be made again.
            writer, self._writer = self._writer, -1
            if writer >= 0:
                os.close(writer)
            reader, self._reader = self._reader, -1
            if reader >= 0:
                os.close(reader)

    @property
    def has_ended(self) -> bool:
        """Whether the thread takes no more. It stays so."""
        return self._ended

    # -- The fan-out's thread ------------------------------------------------------------------

    def fileno(self) -> int:
        """Return the descriptor that can be read from when the thread is to wake."""
        return self._reader

    def doze(self, busy: bool, until: float) -> tuple[bool, float]:
        """Say that the thread sleeps, if there is nothing to do for it.

        Args:
            busy: it has something to do of its own.
            until: when it wakes by itself at the latest, by ``time.monotonic()``.

        Returns:
            Whether it may sleep, and the deadline of `finish`, ``NEVER`` if there is none; it must
            wake by that, too.
        """
        with self._lock:
            idle = not (busy or self._posts or self._grown or self._to_count)
            self._sleeping = idle
            self._wakes_by = min(until, self._finish_by)
            return idle, self._finish_by

    def empty_pipe(self) -> None:
        """Take the news of what was posted."""
        gil.drain(self._reader)

    def take_posts(self) -> tuple[Posts, Iterable[Room[Connection]]]:
        """Take what is to be done for clients, and the rooms whose members are to be counted."""
        with self._lock:
            posts, self._posts = self._posts, {}
            counted, self._to_count = self._to_count, {}
        return posts, counted

    def wake_up(self) -> dict[Room[Connection], None]:
        """Say that the thread does not sleep, and take the rooms whose logs have grown."""
        with self._lock:
            self._sleeping = False
            grown, self._grown = self._grown, {}
        return grown

    def end(self) -> Posts:
        """Take no more posts; return those that were not taken."""
        with self._lock:
            self._ended = True
            posts, self._posts = self._posts, {}
        return posts


def add_post(posts: Posts, connection: Connection, action: Action) -> None:
    """Add what is to be done for a client behind the rest, once."""
    known = posts.get(connection)
    if known is None:
        posts[connection] = (action,)
    elif action not in known:
        posts[connection] = (*known, action)
