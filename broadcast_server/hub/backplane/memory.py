"""The backplane of one hub in memory: ids from one clock, and the keys that it has seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from ...errors import HubStopped
from ...messages import Id
from ..rooms.entries import Accepted, Draft, cost_of
from .interface import Done, RoomLog, SenderGone
from .keys import KeyMemory, Name


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
        # Guards _ms, _seq, _closed, _members_only, messages, duplicates, _keys, and the order of
        # appends: a room's log must grow in the order of its ids, so the lock is held over both.
        # Taken before a room's lock.
        self._lock = threading.Lock()
        self._seq = 0
        self._closed = False
        self._members_only = False
        self.messages = 0
        self.duplicates = 0
        # Apart from the history: what has been trimmed there is remembered here.
        self._keys = KeyMemory(monotonic)
        # Whatever has an id before this one is from before this start, also if the hub that gave it
        # has ended in this same millisecond.
        self._ms = int(clock() * 1000) + 1
        self.started: Id = (self._ms, 0)

    def submit(
        self, room: RoomLog, drafts: Sequence[Draft], done: Done, outside: bool = False
    ) -> None:
        """See ``Backplane.submit``; ``done`` is called before it returns."""
        path = room.path
        names = {
            place: self._keys.name(path, draft.key)
            for place, draft in enumerate(drafts)
            if draft.key is not None
        }
        fresh: Sequence[Draft] = drafts
        repeated: dict[int, Id] = {}
        reused: set[int] = set()
        with self._lock:
            if self._closed or (outside and self._members_only):
                raise HubStopped("the hub is stopping")
            self._advance_locked()
            ms, first = self._ms, self._seq + 1
            if names:
                fresh = self._sort_out_locked(drafts, names, repeated, reused)
            count = len(fresh)
            # First: if Ctrl-C comes in between, an id is left out rather than given out twice.
            self._seq += count
            if not room.append(fresh, ms, first):
                for place, name in names.items():
                    # They may come again.
                    if place not in repeated and place not in reused:
                        self._keys.forget(name)
                raise SenderGone
            self.messages += count
        if not repeated and not reused:
            done(Accepted(ms, first, count))
            return
        room.release(cost_of([drafts[place] for place in (*repeated, *reused)]))
        done(Accepted(ms, first, count, repeated, reused))

    def _sort_out_locked(
        self,
        drafts: Sequence[Draft],
        names: dict[int, Name],
        repeated: dict[int, Id],
        reused: set[int],
    ) -> list[Draft]:
        """Return the drafts whose key is new, and remember those keys. Put the ids of those that
        came again into ``repeated``, and the places of those whose key is another message's into
        ``reused``."""
        assert self._lock.locked()
        fresh: list[Draft] = []
        for place, draft in enumerate(drafts):
            name = names.get(place)
            known = None if name is None else self._keys.find(name)
            if known is not None:
                id, same = known
                if same:
                    repeated[place] = id
                    self.duplicates += 1
                else:
                    reused.add(place)
                continue
            fresh.append(draft)
            if name is not None:
                self._keys.add(name, (self._ms, self._seq + len(fresh)))
        return fresh

    @property
    def key_bytes(self) -> int:
        """What the memory of keys costs."""
        with self._lock:
            return self._keys.key_bytes

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
