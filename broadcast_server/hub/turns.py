"""How long a thread rests after a burst, so that many threads of one sender cost no more than one.

Threads wait for the interpreter in no order, so twenty busy threads make each other thread wait
for all of them. A rate does not help: what it allows in a second may come at once. So a thread
that has worked for a sender rests for as long as the sender's other busy threads need for the same:
of n threads each works for an n-th of the time.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

# The shortest rest, which is enough to let another thread in.
LEAST_SECONDS = 0.0001
# The longest one: a thread that rests does not see that its client has gone.
MOST_SECONDS = 0.2
# A thread counts as busy if it has rested within the last one to two windows.
WINDOW_SECONDS = 0.5


class Worker:
    """A thread that works for a sender. Of that thread alone.

    Args:
        turns: those of the hub.
        sender: whom it works for.
    """

    __slots__ = ("_turns", "sender", "since", "window")

    def __init__(self, turns: Turns, sender: str) -> None:
        self._turns = turns
        self.sender = sender
        self.since = time.thread_time()  # when it has rested, by the CPU time of the thread
        self.window = -1  # in which it was counted as busy last

    def tire(self) -> float:
        """Return how many seconds the thread should rest now."""
        now = time.thread_time()
        spent, self.since = now - self.since, now
        others = self._turns.count(self) - 1
        return min(max(spent * others, LEAST_SECONDS), MOST_SECONDS)


class Turns:
    """How many threads each sender keeps busy. Every method may be called from any thread.

    Args:
        clock: returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Guards all below. Taken alone; nothing is called under it but the clock.
        self._lock = threading.Lock()
        self._window = 0
        self._busy: Counter[str] = Counter()  # threads that have rested in this window, by sender
        self._before: Counter[str] = Counter()  # and in the one before

    def count(self, worker: Worker) -> int:
        """Count a thread as busy; return how many of its sender are."""
        with self._lock:
            window = int(self._clock() / WINDOW_SECONDS)
            if window != self._window:
                self._before = self._busy if window == self._window + 1 else Counter()
                self._busy = Counter()
                self._window = window
            if worker.window != window:
                worker.window = window
                self._busy[worker.sender] += 1
            return max(self._busy[worker.sender], self._before[worker.sender])
