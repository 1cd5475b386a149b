"""How many bytes all threads together may have in hand for one kind of work.

A single piece of such work is bounded by its size; many at once would add up. Each thread takes
what its piece needs before it begins and gives it back when it is done. An owner has a share: an
address that does not read its answers must not use up what is there for all others.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from .rooms.room import WAIT_SECONDS
from .rooms.waiters import Bells


class Budget:
    """Bytes that are in hand. Every method may be called from any thread.

    Args:
        limit: how many there may be. A piece that is larger passes alone.
        share: how many of them one owner may have; None for all.
    """

    def __init__(self, limit: int, share: int | None = None) -> None:
        self._limit = limit
        self._share = limit if share is None else share
        self._freed = Bells()  # rung when something was given back
        # Guards _used and _owned. Taken alone.
        self._lock = threading.Lock()
        self._used = 0
        self._owned: Counter[str] = Counter()

    def take(
        self, size: int, owner: str, given_up: Callable[[], bool], seconds: float | None = None
    ) -> bool:
        """Wait until there is place for a piece, and take it.

        Args:
            size: of the piece, in bytes.
            owner: for whom it is.
            given_up: asked again and again while waiting, without the lock.
            seconds: how long to wait at most; None to wait for `given_up`.

        Returns:
            False if there was none in time, or ``given_up()`` came true; then none was taken.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            with self._lock:
                if self._fits_locked(size, owner):
                    self._used += size
                    self._owned[owner] += size
                    return True
                bell = self._freed.get()
            timeout = WAIT_SECONDS
            if deadline is not None:
                timeout = min(timeout, deadline - time.monotonic())
            if timeout > 0:
                self._freed.wait(bell, timeout)
            if timeout <= 0 or given_up():
                self._freed.forget(bell)
                return False

    def give(self, size: int, owner: str) -> None:
        """Give back what was taken, or a part of it."""
        with self._lock:
            self._used -= size
            self._owned[owner] -= size
            if not self._owned[owner]:
                del self._owned[owner]
        self._freed.ring()

    @property
    def used(self) -> int:
        """How many bytes are in hand now."""
        with self._lock:
            return self._used

    def _fits_locked(self, size: int, owner: str) -> bool:
        assert self._lock.locked()
        if owner in self._owned and self._owned[owner] + size > self._share:
            return False
        return not self._used or self._used + size <= self._limit


class Claim:
    """What one piece of work has taken of a budget. Of one thread at a time.

    Args:
        budget: where it is taken from.
        owner: for whom.
    """

    __slots__ = ("_budget", "_owner", "size")

    def __init__(self, budget: Budget, owner: str) -> None:
        self._budget = budget
        self._owner = owner
        self.size = 0

    def take(self, size: int, given_up: Callable[[], bool], seconds: float) -> bool:
        """Take so much; see ``Budget.take``."""
        if not self._budget.take(size, self._owner, given_up, seconds):
            return False
        self.size = size
        return True

    def cut_to(self, size: int) -> None:
        """Give back what is more than that."""
        if size < self.size:
            more, self.size = self.size - size, size
            self._budget.give(more, self._owner)

    def give(self) -> None:
        """Give back all of it; a second call does nothing."""
        self.cut_to(0)
