"""Who has how much of what there is not enough of for all, and who has most of it.

Whatever strangers share in a hub and may fill, one of them must not push the others out of: so the
one that has most gives first. ``Shares`` counts things, ``Sizes`` adds up bytes.

No I/O, no lock: what is shared has one, and a step costs hardly more with many holders than with a
few.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Shares(Generic[K]):
    """How many things each holder has. Not thread-safe: a lock of its owner is held around each
    call."""

    __slots__ = ("_by_count", "_held", "_most")

    def __init__(self) -> None:
        self._held: dict[K, int] = {}
        # The holders of each number of things; who came to have so many last, or was touched last,
        # is the last one.
        self._by_count: dict[int, dict[K, None]] = {}
        self._most = 0

    def __len__(self) -> int:
        """Return how many holders have anything."""
        return len(self._held)

    def __getitem__(self, holder: K) -> int:
        """Return how much a holder has."""
        return self._held.get(holder, 0)

    def add(self, holder: K) -> None:
        """Note that a holder has one more."""
        count = self._held.get(holder, 0)
        self._move(holder, count, count + 1)
        self._most = max(self._most, count + 1)

    def remove(self, holder: K) -> None:
        """Note that a holder has one less."""
        count = self._held[holder]
        self._move(holder, count, count - 1)
        if count == self._most and count not in self._by_count:
            self._most -= 1

    def touch(self, holder: K) -> None:
        """Note that a holder has used what it has."""
        same = self._by_count[self._held[holder]]
        del same[holder]
        same[holder] = None

    def most(self) -> K:
        """Return who has most, of several the one that got there last: it is taking more and more,
        while the others have had as much all the time. There must be somebody."""
        last = self._by_count[self._most]
        # A dict takes its last element out at once, but would search for it otherwise.
        holder, _ = last.popitem()
        last[holder] = None
        return holder

    def descending(self) -> Iterator[K]:
        """Return all holders, who has most first; of those that have the same, who has used it the
        longest ago. Whoever changes anything must not go on with them."""
        # No generator: one that is not read to its end could swallow a Ctrl-C when it goes.
        counts = sorted(self._by_count, reverse=True)
        return itertools.chain.from_iterable(map(self._by_count.__getitem__, counts))

    def _move(self, holder: K, old: int, new: int) -> None:
        if old:
            same = self._by_count[old]
            del same[holder]
            if not same:
                del self._by_count[old]
        if new:
            self._held[holder] = new
            self._by_count.setdefault(new, {})[holder] = None
        else:
            del self._held[holder]


class Sizes(Generic[K]):
    """How many bytes each holder has. Not thread-safe."""

    __slots__ = ("_heap", "_held", "_steps")

    def __init__(self) -> None:
        # How many, and at which step it was noted.
        self._held: dict[K, tuple[int, int]] = {}
        # The largest first; what is not as in `_held` any more is skipped.
        self._heap: list[tuple[int, int, K]] = []
        self._steps = 0

    def __len__(self) -> int:
        """Return how many holders have anything."""
        return len(self._held)

    def __getitem__(self, holder: K) -> int:
        """Return how much a holder has."""
        return self._held.get(holder, (0, 0))[0]

    def add(self, holder: K, change: int) -> None:
        """Note that a holder has so much more, or less."""
        if not change:
            return
        size = self[holder] + change
        self._steps += 1
        if not size:
            del self._held[holder]
            return
        self._held[holder] = (size, self._steps)
        heapq.heappush(self._heap, (-size, self._steps, holder))
        if len(self._heap) > 4 * len(self._held) + 64:
            self._heap = [(-size, step, holder) for holder, (size, step) in self._held.items()]
            heapq.heapify(self._heap)

    def most(self) -> K:
        """Return who has most, of several the one that has not changed for longest. There must be
        somebody."""
        while True:
            size, step, holder = self._heap[0]
            if self._held.get(holder) == (-size, step):
                return holder
            heapq.heappop(self._heap)

    def descending(self) -> list[K]:
        """Return all holders, who has most first."""
        return sorted(self._held, key=lambda holder: self._held[holder][0], reverse=True)
