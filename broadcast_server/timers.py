"""When to look at which client again. No threads, no clock of its own."""

from __future__ import annotations

import heapq
import itertools

from .connection import Connection

NEVER = float("inf")


class Timers:
    """One appointment for each client, the earliest that was asked for. The fan-out's thread."""

    def __init__(self) -> None:
        # An appointment that was moved forward stays in the heap and is skipped: it is not `due`.
        self._heap: list[tuple[float, int, Connection]] = []
        self._numbers = itertools.count()

    @property
    def next_due(self) -> float:
        """The time of the next appointment, or of one that will be skipped; ``NEVER`` for none."""
        return self._heap[0][0] if self._heap else NEVER

    def schedule(self, connection: Connection, due: float) -> None:
        """Make an appointment, unless the client has an earlier one."""
        if due < connection.due:
            connection.due = due
            heapq.heappush(self._heap, (due, next(self._numbers), connection))

    def pop(self, now: float) -> Connection | None:
        """Return a client whose time has come; it has no appointment then."""
        while self._heap and self._heap[0][0] <= now:
            due, _, connection = heapq.heappop(self._heap)
            if due == connection.due:
                connection.due = NEVER
                return connection
        return None
