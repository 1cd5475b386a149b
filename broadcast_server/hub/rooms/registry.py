"""The rooms of a hub by path: made when first used, dropped when their place is needed.

Whoever makes rooms without end must not push other people's out. So a room counts for the address
that made it, and an address that has as many as it may have gets its next one in the place of an
empty one of its own. Rooms that the hub's own program makes count for nobody.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic

from ...errors import HubBusy
from ...networks import network_of
from .room import Room
from .subscriber import S

_NONE: OrderedDict[str, Room[Any]] = OrderedDict()


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
        max_rooms_per_address: how many rooms of one address's making there may be; 0 for no limit.
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
        # Guards _rooms, _made and _dropped. Taken before the backplane's and a room's lock.
        self._lock = threading.Lock()
        self._rooms: OrderedDict[str, Room[S]] = OrderedDict()
        # The same by maker, each likewise with the least recently opened first.
        self._made: dict[str, OrderedDict[str, Room[S]]] = {}
        self._dropped: list[Room[S]] = []

    def open(self, path: str, maker: str | None = None) -> Room[S]:
        """Return the room of a path, made if need be.

        Args:
            path: the room.
            maker: the address that wants it; None for the hub's own program.

        Raises:
            NoRoom: there are ``max_rooms``, or ``max_rooms_per_address`` of this maker, and
                somebody is in each.
        """
        with self._lock:
            room = self._rooms.get(path)
            if room is not None and room.closed:
                self._forget_locked(room)  # Ctrl-C came when it was dropped
            elif room is not None:
                self._rooms.move_to_end(path)
                if room.maker is not None:
                    self._made[room.maker].move_to_end(path)
                return room
            maker = None if maker is None or not self._max_made else network_of(maker)
            made = self._made.get(maker, _NONE) if maker is not None else _NONE
            if maker is not None and len(made) >= self._max_made:
                if not self._drop_one_locked(made):
                    raise NoRoom(
                        f"there are {self._max_made} rooms made from this address, all in use",
                        "rooms_per_address",
                    )
            elif len(self._rooms) >= self._max_rooms and not self._drop_one_locked(self._rooms):
                raise NoRoom(f"there are {self._max_rooms} rooms, all in use", "max_rooms")
            room = self._rooms[path] = Room(path, self._newest(), self._ring_bytes, maker)
            if maker is not None:
                self._made.setdefault(maker, OrderedDict())[path] = room
            return room

    def find(self, path: str) -> Room[S] | None:
        """Return the room of a path if there is one."""
        with self._lock:
            return self._rooms.get(path)

    def all(self) -> list[Room[S]]:
        """Return all rooms."""
        with self._lock:
            return list(self._rooms.values())

    def drop_empty(self) -> bool:
        """Drop the empty room that was opened the longest ago; return False if there is none."""
        with self._lock:
            return self._drop_one_locked(self._rooms)

    def take_dropped(self) -> list[Room[S]]:
        """Return the rooms that were dropped since the last call, for the fan-out's accounts."""
        with self._lock:
            dropped, self._dropped = self._dropped, []
            return dropped

    def _drop_one_locked(self, among: OrderedDict[str, Room[S]]) -> bool:
        assert self._lock.locked()
        for room in among.values():
            if room.close():
                self._forget_locked(room)
                return True
        return False

    def _forget_locked(self, room: Room[S]) -> None:
        """Take a room that is closed off the list."""
        assert self._lock.locked()
        del self._rooms[room.path]
        if room.maker is not None:
            made = self._made[room.maker]
            del made[room.path]
            if not made:
                del self._made[room.maker]
        self._dropped.append(room)
