"""The rooms of a hub by path: made when first used, dropped when their place is needed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from .errors import HubBusy
from .rooms import Room


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
            if not room.close():
                continue
            del self._rooms[path]
            self._dropped.append(room)
            return True
        return False
