"""The backplane of one hub in memory: ids from one clock, and the keys that it has seen."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from ...errors import HubStopped
from ...messages import Id
from ..rooms.entries import Accepted, Draft, cost_of
from .interface import Done, RoomLog, SenderGone

# How long a key is remembered, and how many of them in all rooms.
KEY_SECONDS = 600.0
MAX_KEYS = 100_000


class MemoryBackplane:
    """Gives out ids from one clock for the whole hub; stores no messages.

    All methods may be called from any thread.

    Args:
        clock: seconds since the epoch; replaced in tests.
        monotonic: seconds that only grow, for the age of keys; replaced in tests.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        # Guards _ms, _seq, _closed, _members_only, messages, duplicates, _keys, and the order of
        # appends: a room's log must grow in the order of its ids, so the lock is held over both.
        # Taken before a room's lock.
        self._lock = threading.Lock()
        self._seq = 0
        self._closed = False
        self._members_only = False
        self.messages = 0
        self.duplicates = 0
        # The first id of each key and when it came, the oldest first. Apart from the history: what
        # has been trimmed there is remembered here.
        self._keys: OrderedDict[tuple[str, str], tuple[Id, float]] = OrderedDict()
        # Whatever has an id before this one is from before this start, also if the hub that gave it
        # has ended in this same millisecond.
        self._ms = int(clock() * 1000) + 1
        self.started: Id = (self._ms, 0)

    def submit(
        self, room: RoomLog, drafts: Sequence[Draft], done: Done, outside: bool = False
    ) -> None:
        """See ``Backplane.submit``; ``done`` is called before it returns."""
        keyed = any(draft.key is not None for draft in drafts)
        fresh: Sequence[Draft] = drafts
        repeated: dict[int, Id] = {}
        with self._lock:
            if self._closed or (outside and self._members_only):
                raise HubStopped("the hub is stopping")
            self._advance_locked()
            ms, first = self._ms, self._seq + 1
            if keyed:
                fresh = self._sort_out_locked(room.path, drafts, repeated)
            count = len(fresh)
            # First: if Ctrl-C comes in between, an id is left out rather than given out twice.
            self._seq += count
            if not room.append(fresh, ms, first):
                self._forget_locked(room.path, fresh)
                raise SenderGone
            self.messages += count
        if repeated:
            room.release(cost_of([drafts[place] for place in repeated]))
        done(Accepted(ms, first, count, repeated) if repeated else Accepted(ms, first, count))

    def _sort_out_locked(
        self, path: str, drafts: Sequence[Draft], repeated: dict[int, Id]
    ) -> list[Draft]:
        """Return the drafts whose key is new, remember those keys, and put the ids of the others
        into ``repeated``."""
        assert self._lock.locked()
        now = self._monotonic()
        while self._keys:
            _, at = next(iter(self._keys.values()))
            if now - at < KEY_SECONDS and len(self._keys) + len(drafts) <= MAX_KEYS:
                break
            self._keys.popitem(last=False)
        fresh: list[Draft] = []
        for place, draft in enumerate(drafts):
            known = self._keys.get((path, draft.key)) if draft.key is not None else None
            if known is not None:
                repeated[place] = known[0]
                self.duplicates += 1
                continue
            fresh.append(draft)
            if draft.key is not None:
                self._keys[path, draft.key] = ((self._ms, self._seq + len(fresh)), now)
        return fresh

    def _forget_locked(self, path: str, drafts: Sequence[Draft]) -> None:
        """Forget the keys of drafts that were not accepted after all: they may come again."""
        assert self._lock.locked()
        for draft in drafts:
            if draft.key is not None:
                del self._keys[path, draft.key]

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

    def close_outside(self) -> None:
        """Accept from members and the hub's own program only from now on."""
        with self._lock:
            self._members_only = True

    def close(self) -> None:
        """Accept nothing from now on. What was submitted before is in its log already."""
        with self._lock:
            self._closed = True
