"""A room: its log of messages, who is in it, and how far the fan-out has got. No sockets.

The log is a list of entries, indexed by position since the room began: ``base`` is the position of
the first one still held, ``head`` the one that the next message will get. Publishers append at the
head. The fan-out offers entries to members and moves ``offered`` up to the head; it alone trims the
front, and never what it has not offered yet.

Back-pressure is the distance between the two: publishers pause when more than a quarter of the ring
is not offered yet and go on below an eighth. So a publisher waits for the fan-out, which never
waits for anybody, and not for a slow client.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .errors import HubBusy
from .messages import Draft, Entry, Member

if TYPE_CHECKING:
    from .connection import Connection

# What an entry costs beside its frame: the objects that hold it. Counted, so that empty messages
# cannot fill the memory.
ENTRY_BYTES = 256

# A wait for the fan-out is cut into pieces of this length: whoever waits looks up whether its
# client or the hub is gone, even if nobody woke it.
WAIT_SECONDS = 0.1


class Room:
    """One room.

    Methods run on any thread, except those under the banner of the fan-out.

    Args:
        path: the room's path.
        floor: the newest id of the hub when the room began; nothing after it is missing.
        ring_bytes: how much the log holds, frames plus ``ENTRY_BYTES`` for each.
    """

    def __init__(self, path: str, floor: tuple[int, int], ring_bytes: int) -> None:
        self.path = path
        self.ring_bytes = ring_bytes
        # Guards members, closed, _entries, _base, _dropped_bytes, _floor, _offered, _reserved and
        # _paused. Taken after the backplane's lock and before a connection's.
        self.lock = threading.Lock()
        self._space = threading.Condition(self.lock)  # notified when publishers may go on
        self.members: dict[int, Connection] = {}
        self.closed = False
        self._entries: list[Entry] = []
        self._base = 0
        self._dropped_bytes = 0  # bytes of the frames before _base
        self._floor = floor
        self._offered = 0
        self._reserved = 0  # cost of batches between reserve() and append()
        self._paused = False
        # The fan-out's own, touched by no other thread. `in_step` holds the clients that are at
        # `_offered` with nothing else to send, `behind` all others.
        self.in_step: dict[Connection, None] = {}
        self.behind: dict[Connection, None] = {}
        self.counted_cost = 0

    # -- Members: reader threads, the fan-out, the user's threads ------------------------------

    def join(self, connection: Connection, history: int, since: tuple[int, int] | None) -> bool:
        """Make a client a member and fix where its reading begins.

        Returns:
            False if the room has been dropped in the meantime: open it anew.

        Raises:
            LookupError: the log cannot replay what comes after ``since``.
        """
        with self.lock:
            if self.closed:
                return False
            head = self._base + len(self._entries)
            if since is None:
                connection.cursor = max(self._base, head - history)
            else:
                if since < self._floor:
                    raise LookupError("the messages after this id are not held any more")
                connection.cursor = self._base + bisect_right(
                    self._entries, since, key=lambda entry: (entry.ms, entry.seq)
                )
            connection.joined_after = self.id_before(connection.cursor)
            connection.skips_to = head if since is None else connection.cursor
            # Whoever was told to go before it came is none; its Close is queued under this lock.
            if not connection.closing:
                self.members[connection.number] = connection
            return True

    def leave(self, connection: Connection) -> bool:
        """End a membership; return whether it still was one."""
        with self.lock:
            return self.members.pop(connection.number, None) is not None

    def member_list(self) -> list[Member]:
        """Return the members in the order in which they joined."""
        with self.lock:
            return [connection.member for connection in self.members.values()]

    # -- Publishing: reader threads, the user's threads ----------------------------------------

    def reserve(self, cost: int, deadline: float | None, given_up: Callable[[], bool]) -> bool:
        """Wait until the fan-out has room for a batch, and keep the place for it.

        Each True is followed by one ``append`` of the same cost or one ``release``. Because the
        place is kept under the lock, all publishers together overshoot by one batch at most.

        Args:
            cost: what the batch will add to the log.
            deadline: ``time.monotonic()`` at which to give up; None to wait for ``given_up``.
            given_up: asked again and again while waiting, without any lock.

        Returns:
            False if the room was dropped or ``given_up()`` came true.

        Raises:
            HubBusy: the deadline passed.
        """
        while True:
            with self.lock:
                if self.closed:
                    return False
                if not self._paused:
                    self._reserved += cost
                    self._paused = self._lag_locked() > self.ring_bytes // 4
                    return True
                timeout = WAIT_SECONDS
                if deadline is not None:
                    timeout = min(timeout, deadline - time.monotonic())
                    if timeout <= 0:
                        raise HubBusy(f"the fan-out of {self.path} is behind; nothing was sent")
                self._space.wait(timeout)
            if given_up():
                return False

    def release(self, cost: int) -> None:
        """Give back a place that will not be used."""
        with self.lock:
            self._reserved -= cost
            self._resume_locked()

    def append(self, drafts: Sequence[Draft], ms: int, first_seq: int) -> None:
        """Put a batch, whose place is reserved, at the head. Called by the backplane under its
        lock."""
        with self.lock:
            entries = self._entries
            end = entries[-1].end if entries else self._dropped_bytes
            for seq, draft in enumerate(drafts, first_seq):
                end += len(draft.frame)
                entries.append(Entry(draft.origin, draft.frame, ms, seq, end))
            self._reserved -= cost_of(drafts)

    def _lag_locked(self) -> int:
        assert self.lock.locked()
        return self._cost_before(self.head) - self._cost_before(self._offered) + self._reserved

    def _resume_locked(self) -> None:
        assert self.lock.locked()
        if self._paused and self._lag_locked() <= self.ring_bytes // 8:
            self._paused = False
            self._space.notify_all()

    def held_bytes(self) -> int:
        """Return what the log costs now."""
        with self.lock:
            return self.cost

    # -- Reading the log: the lock is held, or the thread is the fan-out -----------------------

    @property
    def head(self) -> int:
        """The position that the next message will get. Exact only under the lock."""
        return self._base + len(self._entries)

    @property
    def cost(self) -> int:
        """What the log holds now, in bytes."""
        return self._cost_before(self.head) - self._cost_before(self._base)

    def _cost_before(self, position: int) -> int:
        """Return the cost of everything before a position since the room began."""
        index = position - self._base
        end = self._entries[index - 1].end if index > 0 else self._dropped_bytes
        return end + position * ENTRY_BYTES

    # -- The fan-out's thread ------------------------------------------------------------------

    @property
    def base(self) -> int:
        """The position of the oldest message held."""
        return self._base

    @property
    def offered(self) -> int:
        """The position up to which every message has been offered."""
        return self._offered

    def look(self) -> int:
        """Return the head. Taken before a client's personal queue is looked at: an item that is
        stamped under this lock later cannot belong before it."""
        with self.lock:
            return self.head

    def entries(self, start: int, stop: int) -> list[Entry]:
        """Return the entries of a range; the list is the caller's."""
        return self._entries[start - self._base : stop - self._base]

    def stop_within(self, start: int, stop: int, limit_bytes: int) -> int:
        """Return the largest position up to ``stop`` with at most that many bytes of frames from
        ``start``, but at least one entry."""
        index = start - self._base
        before = self._entries[index - 1].end if index > 0 else self._dropped_bytes
        cut = bisect_right(
            self._entries,
            before + limit_bytes,
            lo=index,
            hi=stop - self._base,
            key=lambda entry: entry.end,
        )
        return self._base + max(cut, index + 1)

    def mark_offered(self, position: int) -> None:
        """Note that everything before a position has been offered, and let publishers go on."""
        with self.lock:
            self._offered = position
            self._resume_locked()

    def lag(self, cursor: int) -> int:
        """Return how many bytes of the log a client at ``cursor`` is behind what was offered."""
        return self._cost_before(self._offered) - self._cost_before(max(cursor, self._base))

    def trim_target(self, limit_bytes: int) -> int:
        """Return what ``base`` would be with at most that many bytes held: never past what was
        offered, and the newest entry stays."""
        floor = self._cost_before(self.head) - limit_bytes
        last = min(self._offered, self.head - 1)
        if last <= self._base:
            return self._base
        return bisect_left(range(last), floor, lo=self._base, key=self._cost_before)

    def trim(self, base: int) -> None:
        """Drop everything before a position that ``trim_target`` gave."""
        with self.lock:
            count = base - self._base
            if count > 0:
                last = self._entries[count - 1]
                self._floor = (last.ms, last.seq)
                self._dropped_bytes = last.end
                del self._entries[:count]
                self._base = base

    def id_before(self, position: int) -> tuple[int, int]:
        """Return the id of the last message before a position, or the oldest known one before
        it."""
        index = position - self._base
        if index > 0:
            return self._entries[index - 1].ms, self._entries[index - 1].seq
        return self._floor


def cost_of(drafts: Sequence[Draft]) -> int:
    """Return what a batch will cost in a log."""
    return sum(len(draft.frame) for draft in drafts) + ENTRY_BYTES * len(drafts)


class Rooms:
    """All rooms of a hub by path, the least recently opened first. Any thread.

    A room is made when somebody first joins it or publishes to it. It is dropped only when its
    place or its memory is needed and nobody is in it.

    Args:
        ring_bytes: the size of each room's log.
        max_rooms: how many rooms there may be.
        newest: gives the newest id of the hub, the floor of a new room.
    """

    def __init__(
        self, ring_bytes: int, max_rooms: int, newest: Callable[[], tuple[int, int]]
    ) -> None:
        self._ring_bytes = ring_bytes
        self._max_rooms = max_rooms
        self._newest = newest
        # Guards _rooms and _dropped. Taken before the backplane's and a room's lock.
        self._lock = threading.Lock()
        self._rooms: OrderedDict[str, Room] = OrderedDict()
        self._dropped: list[Room] = []

    def open(self, path: str) -> Room:
        """Return the room of a path, made if need be.

        Raises:
            HubBusy: there are ``max_rooms``, and somebody is in each.
        """
        with self._lock:
            room = self._rooms.get(path)
            if room is not None:
                self._rooms.move_to_end(path)
                return room
            if len(self._rooms) >= self._max_rooms and not self._drop_one_locked():
                raise HubBusy(f"there are {self._max_rooms} rooms, all in use")
            room = self._rooms[path] = Room(path, self._newest(), self._ring_bytes)
            return room

    def find(self, path: str) -> Room | None:
        """Return the room of a path if there is one."""
        with self._lock:
            return self._rooms.get(path)

    def all(self) -> list[Room]:
        """Return all rooms."""
        with self._lock:
            return list(self._rooms.values())

    def drop_empty(self) -> bool:
        """Drop the empty room that was opened the longest ago; return False if there is none."""
        with self._lock:
            return self._drop_one_locked()

    def take_dropped(self) -> list[Room]:
        """Return the rooms that were dropped since the last call, for the fan-out's accounts."""
        with self._lock:
            dropped, self._dropped = self._dropped, []
            return dropped

    def _drop_one_locked(self) -> bool:
        assert self._lock.locked()
        for path, room in self._rooms.items():
            with room.lock:
                # What is not offered yet belongs to the fan-out, which counts it at its next pass.
                if room.members or room._reserved or room._offered != room.head:
                    continue
                room.closed = True
            del self._rooms[path]
            self._dropped.append(room)
            return True
        return False
