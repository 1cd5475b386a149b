"""Where a message gets its id.

A backplane takes a batch of drafts for one room and calls ``done`` with their ids once they are
accepted, that is: in the room's log. In memory this happens before ``submit`` returns. A durable
store or a stream shared by several hubs has its place here: it would call ``done`` later, from a
thread of its own, and readers would go on reading in the meantime.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from .errors import HubStopped
from .messages import Draft

Ids = tuple[int, int, int]  # milliseconds, first sequence number, how many
Done = Callable[[Ids], None]


class Log(Protocol):
    """What a backplane needs of a room."""

    def append(self, drafts: Sequence[Draft], ms: int, first_seq: int) -> None: ...


class MemoryBackplane:
    """Gives out ids from one clock for the whole hub; keeps nothing.

    All methods may be called from any thread.

    Args:
        clock: seconds since the epoch; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        # Guards _ms, _seq, _closed, messages, and the order of appends: a room's log must grow in
        # the order of its ids, so the lock is held over both. Taken before a room's lock.
        self._lock = threading.Lock()
        self._ms = 0
        self._seq = 0
        self._closed = False
        self.messages = 0

    def submit(self, room: Log, drafts: Sequence[Draft], done: Done) -> None:
        """Accept a batch: give it ids, put it into the room's log, then call ``done`` without a
        lock.

        Raises:
            HubStopped: ``close()`` was called; nothing was accepted.
        """
        count = len(drafts)
        with self._lock:
            if self._closed:
                raise HubStopped("the hub is stopping")
            self._advance_locked()
            ms, first = self._ms, self._seq + 1
            self._seq += count
            self.messages += count
            room.append(drafts, ms, first)
        done((ms, first, count))

    def _advance_locked(self) -> None:
        """Move the one clock of all rooms, which never goes back, even when the system's does."""
        assert self._lock.locked()
        now = int(self._clock() * 1000)
        if now > self._ms:
            # Sequences begin with 1, so that there is an id before all of this millisecond.
            self._ms, self._seq = now, 0

    def newest(self) -> tuple[int, int]:
        """Return an id that every later one will be greater than: the newest given out, or the
        clock's time if that is later."""
        with self._lock:
            self._advance_locked()
            return self._ms, self._seq

    def close(self) -> None:
        """Accept nothing from now on. What was submitted before is in its log already."""
        with self._lock:
            self._closed = True
