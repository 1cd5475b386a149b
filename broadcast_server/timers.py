"""When to look at which client or room again. No threads, no clock of its own."""

from __future__ import annotations

import heapq
import itertools

from .connection import Connection
from .rooms import Room

NEVER = float("inf")

Timed = Connection | Room


class Timers:
    """One appointment for each client or room, the earliest that was asked for.

    The fan-out's thread.
    """

    def __init__(self) -> None:
        # An appointment that was moved forward stays in the heap and is skipped: it is not `due`.
        self._heap: list[tuple[float, int, Timed]] = []
        self._numbers = itertools.count()

    @property
    def next_due(self) -> float:
        """The time of the next appointment, or of one that will be skipped; ``NEVER`` for none."""
        return self._heap[0][0] if self._heap else NEVER

    def schedule(self, timed: Timed, due: float) -> None:
        """Make an appointment, unless there is an earlier one."""
        if due < timed.due:
            timed.due = due
            heapq.heappush(self._heap, (due, next(self._numbers), timed))

    def pop(self, now: float) -> Timed | None:
        """Return what the time has come for; it has no appointment then."""
        while self._heap and self._heap[0][0] <= now:
            due, _, timed = heapq.heappop(self._heap)
            if due == timed.due:
                timed.due = NEVER
                return timed
        return None
