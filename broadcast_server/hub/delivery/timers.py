"""When to look at which client or room again. No threads, no clock of its own."""

from __future__ import annotations

import heapq
import itertools

from ..rooms.room import Room
from .connection import Connection

NEVER = float("inf")
# Fewer are not worth clearing.
MIN_SKIPPED = 256

Timed = Connection | Room[Connection]


class Timers:
    """One appointment for each client or room, the earliest that was asked for.

    The fan-out's thread.
    """

    def __init__(self) -> None:
        # An appointment that was moved forward or cancelled stays in the heap and is skipped: it is
        # not `due`.
        self._heap: list[tuple[float, int, Timed]] = []
        self._skipped = 0  # about how many of those there are
        self._numbers = itertools.count()

    @property
    def next_due(self) -> float:
        """The time of the next appointment, or of one that will be skipped; ``NEVER`` for none."""
        return self._heap[0][0] if self._heap else NEVER

    def schedule(self, timed: Timed, due: float) -> None:
        """Make an appointment, unless there is an earlier one."""
        if due < timed.due:
            moved = timed.due != NEVER
            timed.due = due
            heapq.heappush(self._heap, (due, next(self._numbers), timed))
            if moved:
                self._skip_one()

    def pop(self, now: float) -> Timed | None:
        """Return what the time has come for; it has no appointment then."""
        while self._heap and self._heap[0][0] <= now:
            due, _, timed = heapq.heappop(self._heap)
            if due == timed.due:
                timed.due = NEVER
                return timed
            self._skipped -= 1
        return None

    def cancel(self, timed: Timed) -> None:
        """Forget an appointment, if there is one."""
        if timed.due != NEVER:
            timed.due = NEVER
            self._skip_one()

    def _skip_one(self) -> None:
        """Count one that is to be skipped. With long times the heap would keep whoever has come and
        gone meanwhile, and one more for each time that a socket was full; so it is cleared when
        most of it is to be skipped."""
        self._skipped += 1
        if self._skipped > MIN_SKIPPED and self._skipped > len(self._heap) // 2:
            self._heap = [item for item in self._heap if item[0] == item[2].due]
            heapq.heapify(self._heap)
            self._skipped = 0
