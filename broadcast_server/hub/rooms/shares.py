"""Who has how much of what there is not enough of for all, and who has most of it.

Whatever strangers share in a hub and may fill, one of them must not push the others out of: so the
one that has most gives first. Among those that have the same it is the one that came to have so
much last: whoever takes more and more, and not those that have had it all the time.

No I/O, no lock: what is shared has one, and each step costs the same however many there are.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Shares(Generic[K]):
    """How many things each holder has. Not thread-safe: a lock of its owner is held around each
    call."""

    __slots__ = ("_by_count", "_held", "_most")

    def __init__(self) -> None:
        self._held: dict[K, int] = {}
        # The holders of each number of things; who came to have so many last is the last one.
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

    def most(self) -> K:
        """Return who has most. There must be somebody."""
        last = self._by_count[self._most]
        # A dict takes its last element out at once, but would search for it otherwise.
        holder, _ = last.popitem()
        last[holder] = None
        return holder

    def descending(self) -> Iterator[K]:
        """Yield all holders, who has most first. Nothing may change before the end."""
        for count in sorted(self._by_count, reverse=True):
            yield from reversed(self._by_count[count])

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
