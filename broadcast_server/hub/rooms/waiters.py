"""Waiting for something that another thread tells, on a thread that Ctrl-C may interrupt anywhere.

``threading.Condition`` takes its lock again after each wait; whoever is interrupted just there
gives back a lock that it does not hold, or one that somebody else holds by then. Here each waiter
has a bell of its own, which is written in C and which nobody else waits for: who is interrupted
leaves a bell behind that is rung once more, for nobody.
"""

from __future__ import annotations

import queue


class Bells:
    """Those who wait for one thing. Any thread; no lock is needed, and none is taken."""

    def __init__(self) -> None:
        # In the order in which they came. Each operation is a single one of a dict.
        self._bells: dict[queue.SimpleQueue[None], None] = {}

    def get(self) -> queue.SimpleQueue[None]:
        """Return a bell that rings from now on. Under the lock under which it is found that there
        is something to wait for, so that no ring is missed; then ``wait`` without it."""
        bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._bells[bell] = None
        return bell

    def wait(self, bell: queue.SimpleQueue[None], seconds: float) -> None:
        """Wait until a bell has rung, for so long at most."""
        try:
            bell.get(timeout=seconds)
        except queue.Empty:
            self._bells.pop(bell, None)

    def forget(self, bell: queue.SimpleQueue[None]) -> None:
        """Let a bell go for which nobody waits any more."""
        self._bells.pop(bell, None)

    def ring(self) -> None:
        """Wake all who wait."""
        while self._bells:
            try:
                bell, _ = self._bells.popitem()
            except KeyError:  # another thread has rung it
                return
            bell.put(None)

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._bells)


class Gate:
    """Whether large messages have to wait, in whatever room. Any thread.

    Attributes:
        shut: whether they have; only one thread sets it.
        opened: rung when they may go on.
    """

    def __init__(self) -> None:
        self.shut = False
        self.opened = Bells()

    def set(self, shut: bool) -> None:
        """Shut the gate, or open it and wake those who wait."""
        if shut != self.shut:
            self.shut = shut
            if not shut:
                self.opened.ring()
