"""How many bytes all threads together may have in hand for one kind of work.

A single piece of such work is bounded by its size; many at once would add up. Each thread takes
what its piece needs before it begins and gives it back when it is done. An owner has a share: an
address that does not read its answers must not use up what is there for all others. Owners take
turns, and only the thread whose turn it is wakes up: thousands may wait.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

# How often a thread that waits without a time limit checks whether to give up, and later on:
# thousands may wait.
LOOK_SECONDS = 0.5
PATIENT_SECONDS = 2.0


class _Waiter:
    """A thread that waits for a place: its bell is rung once it has got it."""

    __slots__ = ("bell", "granted", "owner", "size")

    def __init__(self, size: int, owner: str) -> None:
        self.size = size
        self.owner = owner
        self.granted = False
        self.bell: queue.SimpleQueue[None] = queue.SimpleQueue()


class Budget:
    """Bytes that are in hand. Every method may be called from any thread.

    Args:
        limit: how many there may be. A piece that is larger passes alone.
        share: how many of them one owner may have; None for all.
    """

    def __init__(self, limit: int, share: int | None = None) -> None:
        self._limit = limit
        self._share = limit if share is None else share
        # Guards all below, and what of a waiter changes. Taken alone.
        self._lock = threading.Lock()
        self._used = 0
        self._owned: Counter[str] = Counter()
        # The waiting threads, by owner; the owner whose turn it is comes first.
        self._line: dict[str, deque[_Waiter]] = {}

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
        waiter = _Waiter(size, owner)
        with self._lock:
            self._line.setdefault(owner, deque()).append(waiter)
            self._serve_locked()
            if waiter.granted:
                return True
        try:
            return self._wait(waiter, given_up, seconds)
        except BaseException:
            if self._leave(waiter):
                self.give(size, owner)
            raise

    def _wait(self, waiter: _Waiter, given_up: Callable[[], bool], seconds: float | None) -> bool:
        began = time.monotonic()
        while True:
            waited = time.monotonic() - began
            if seconds is not None:
                timeout = min(LOOK_SECONDS, seconds - waited)
            else:
                timeout = LOOK_SECONDS if waited < PATIENT_SECONDS else PATIENT_SECONDS
            with contextlib.suppress(queue.Empty):
                waiter.bell.get(timeout=max(0.0, timeout))
                if waiter.granted:
                    return True
            if timeout <= 0 or given_up():
                return self._leave(waiter)

    def _leave(self, waiter: _Waiter) -> bool:
        """Take a waiter out of the line; return whether it has got its place before."""
        with self._lock:
            if not waiter.granted:
                line = self._line.get(waiter.owner)
                if line is not None and waiter in line:
                    was_first = line[0] is waiter
                    line.remove(waiter)
                    if was_first:
                        del self._line[waiter.owner]
                        if line:
                            self._line[waiter.owner] = line  # it has had its turn
                    # The others may have waited for it.
                    self._serve_locked()
            return waiter.granted

    def give(self, size: int, owner: str) -> None:
        """Give back what was taken, or a part of it."""
        with self._lock:
            self._used -= size
            self._owned[owner] -= size
            if not self._owned[owner]:
                del self._owned[owner]
            self._serve_locked()

    @property
    def used(self) -> int:
        """How many bytes are in hand now."""
        with self._lock:
            return self._used

    @property
    def is_waited_for(self) -> bool:
        """Whether anybody waits."""
        with self._lock:
            return bool(self._line)

    def has_no_share(self, size: int, owner: str) -> bool:
        """Tell whether a piece has to wait because of what its owner has already."""
        with self._lock:
            return self._has_no_share_locked(size, owner)

    def wake(self) -> None:
        """Let all waiting threads look whether to give up."""
        with self._lock:
            for line in self._line.values():
                for waiter in line:
                    waiter.bell.put(None)

    def _has_no_share_locked(self, size: int, owner: str) -> bool:
        assert self._lock.locked()
        return owner in self._owned and self._owned[owner] + size > self._share

    def _fits_locked(self, size: int) -> bool:
        assert self._lock.locked()
        return not self._used or self._used + size <= self._limit

    def _serve_locked(self) -> None:
        """Give places to waiting threads until there are none left. A piece that does not fit now
        holds up all pieces behind it, or it would wait for ever. A piece whose owner has no share
        left does not."""
        assert self._lock.locked()
        found = True
        while found:
            found = False
            for owner, line in self._line.items():
                waiter = line[0]
                if self._has_no_share_locked(waiter.size, owner):
                    continue
                if not self._fits_locked(waiter.size):
                    return
                self._used += waiter.size
                self._owned[owner] += waiter.size
                waiter.granted = True
                waiter.bell.put(None)
                line.popleft()
                del self._line[owner]
                if line:
                    self._line[owner] = line  # behind all others
                found = True
                break


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
