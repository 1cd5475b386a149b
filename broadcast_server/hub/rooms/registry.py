"""The rooms of a hub by path: made when first used, dropped when their place is needed.

Whoever makes rooms without end must not push other people's out. So a room counts for the sender
that made it, as ``networks.owner_of`` says, and from its first message on for the sender of that:
who has only looked in first has nothing in it. A sender that has as many as it may have gets its
next one in the place of an empty one of its own. Where there is no place for more rooms at all, or
no memory for more messages, whoever has most gives first. The hub's own program counts as one
sender, without a limit to its number of rooms.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic

from ...errors import HubBusy
from .room import Room
from .shares import Shares
from .subscriber import S
from .waiters import Gate


class NoRoom(HubBusy):
    """A room cannot be made now, because it would be one too many.

    Attributes:
        reason: the limit that it would break, as refusals are counted.
    """

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


class RoomRegistry(Generic[S]):
    """All rooms of a hub by path, the least recently opened first. Any thread.

    A room is made when somebody first joins it or publishes to it. It is dropped only when its
    place or its memory is needed and nobody is in it.

    Args:
        ring_bytes: the size of each room's log.
        max_rooms: how many rooms there may be.
        newest: gives the newest id of the hub, the floor of a new room.
        max_rooms_per_address: how many rooms of one sender's making there may be; 0 for no limit.

    Attributes:
        gate: shut while all rooms together hold too much.
    """

    def __init__(
        self,
        ring_bytes: int,
        max_rooms: int,
        newest: Callable[[], tuple[int, int]],
        max_rooms_per_address: int = 0,
    ) -> None:
        self._ring_bytes = ring_bytes
        self._max_rooms = max_rooms
        self._newest = newest
        self._max_made = max_rooms_per_address
        self.gate = Gate()
        # Guards _rooms, _made, _counts, _changing and _dropped, and of each room maker and claimed.
        # Taken before the backplane's and a room's lock.
        self._lock = threading.Lock()
        self._rooms: OrderedDict[str, Room[S]] = OrderedDict()
        # The same by maker, each likewise with the least recently opened first.
        self._made: dict[str | None, OrderedDict[str, Room[S]]] = {}
        self._counts: Shares[str | None] = Shares()  # of rooms, by maker
        # Both are being changed; if nobody is at it, Ctrl-C has come in the middle.
        self._changing = False
        self._dropped: list[Room[S]] = []

    def open(self, path: str, maker: str | None = None, publishes: bool = False) -> Room[S]:
        """Return the room of a path, made if need be.

        Args:
            path: the room.
            maker: the sender that wants it; None for the hub's own program.
            publishes: it has a message for it.

        Raises:
            NoRoom: there are ``max_rooms``, or ``max_rooms_per_address`` of this maker, and
                somebody is in each.
        """
        with self._lock:
            self._tidy_locked()
            room = self._rooms.get(path)
            if room is not None and room.closed:
                self._forget_locked(room)  # Ctrl-C came when it was dropped
            elif room is not None:
                self._changing = True
                self._rooms.move_to_end(path)
                self._made[room.maker].move_to_end(path)
                self._counts.touch(room.maker)
                self._changing = False
                if publishes and not room.claimed:
                    self._claim_locked(room, maker)
                return room
            if maker is not None and 0 < self._max_made <= self._counts[maker]:
                if not self._drop_one_locked(maker):
                    raise NoRoom(
                        f"there are {self._max_made} rooms made from this address, all in use",
                        "rooms_per_address",
                    )
            elif len(self._rooms) >= self._max_rooms:
                if not any(self._drop_one_locked(one) for one in self._counts.descending()):
                    raise NoRoom(f"there are {self._max_rooms} rooms, all in use", "max_rooms")
            self._changing = True
            room = self._rooms[path] = Room(
                path, self._newest(), self._ring_bytes, maker, self.gate
            )
            room.claimed = publishes
            self._made.setdefault(maker, OrderedDict())[path] = room
            self._counts.add(maker)
            self._changing = False
            return room

    def claim(self, room: Room[S], maker: str | None) -> None:
        """Let a room count for who has a message for it, if nobody had one before."""
        with self._lock:
            self._tidy_locked()
            if not room.claimed and self._rooms.get(room.path) is room:
                self._claim_locked(room, maker)

    def find(self, path: str) -> Room[S] | None:
        """Return the room of a path if there is one."""
        with self._lock:
            return self._rooms.get(path)

    def all(self) -> list[Room[S]]:
        """Return all rooms."""
        with self._lock:
            return list(self._rooms.values())

    def made_by(self, maker: str | None) -> list[Room[S]]:
        """Return the rooms that somebody has made."""
        with self._lock:
            self._tidy_locked()
            return list(self._made.get(maker, {}).values())

    def drop_empty(self, maker: str | None) -> bool:
        """Drop, of the empty rooms that somebody has made, the one that was opened the longest ago;
        return False if there is none."""
        with self._lock:
            self._tidy_locked()
            return self._drop_one_locked(maker)

    def take_dropped(self) -> list[Room[S]]:
        """Return the rooms that were dropped since the last call, for the fan-out's accounts."""
        with self._lock:
            dropped, self._dropped = self._dropped, []
            return dropped

    def _claim_locked(self, room: Room[S], maker: str | None) -> None:
        assert self._lock.locked()
        self._changing = True
        self._take_from_maker_locked(room)
        room.maker = maker
        self._made.setdefault(maker, OrderedDict())[room.path] = room
        self._counts.add(maker)
        room.claimed = True
        self._changing = False

    def _take_from_maker_locked(self, room: Room[S]) -> None:
        assert self._lock.locked()
        made = self._made[room.maker]
        del made[room.path]
        if not made:
            del self._made[room.maker]
        self._counts.remove(room.maker)

    def _drop_one_locked(self, maker: str | None) -> bool:
        assert self._lock.locked()
        for room in self._made.get(maker, {}).values():
            # Most that are in use have members: for these no lock is taken.
            if not room.members and room.close():
                self._forget_locked(room)
                return True
        return False

    def _forget_locked(self, room: Room[S]) -> None:
        """Take a room that is closed off the list."""
        assert self._lock.locked()
        self._changing = True
        # In one step for Ctrl-C: a room that is on neither list would count for ever.
        del self._rooms[room.path]
        self._dropped.append(room)
        self._take_from_maker_locked(room)
        self._changing = False

    def _tidy_locked(self) -> None:
        """Find out again who has made which rooms, if Ctrl-C came while that was changed."""
        assert self._lock.locked()
        if not self._changing:
            return
        self._made, self._counts = {}, Shares()
        for path, room in self._rooms.items():
            self._made.setdefault(room.maker, OrderedDict())[path] = room
            self._counts.add(room.maker)
        self._changing = False
