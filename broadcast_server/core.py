"""What the parts of one hub share: settings, rooms, the sequencer, the fan-out, the callbacks."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

from .backplane import Done, MemoryBackplane
from .errors import HubStopped
from .fanout import FanOut
from .messages import Draft, Member, Message
from .rooms import Room, Rooms
from .settings import Settings


@dataclasses.dataclass
class Core:
    """One hub's parts. ``publish`` may be called from any thread.

    Attributes:
        stopping: set once, when nobody is admitted any more.
        encodes: frames made of messages so far; one for each message, whoever gets it.
    """

    settings: Settings
    rooms: Rooms
    backplane: MemoryBackplane
    fanout: FanOut
    on_message: Callable[[Message], object] | None = None
    on_join: Callable[[Member], object] | None = None
    on_leave: Callable[[Member, int, str], object] | None = None
    stopping: bool = False
    encodes: int = 0
    # Guards `encodes`. Nothing else is taken while it is held.
    _count_lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def publish(self, room: Room, drafts: list[Draft], cost: int, done: Done) -> None:
        """Let a batch, whose place in the room is reserved, be given ids, and wake the fan-out.

        Args:
            room: the room, where ``reserve(cost, …)`` returned True.
            drafts: the batch.
            cost: what was reserved.
            done: called with the ids once the batch is accepted, without a lock.

        Raises:
            HubStopped: the hub takes no more; the place is given back.
        """
        with self._count_lock:
            self.encodes += len(drafts)

        def accepted(ids: tuple[int, int, int]) -> None:
            self.fanout.notify(room)
            done(ids)

        try:
            self.backplane.submit(room, drafts, accepted)
        except HubStopped:
            room.release(cost)
            raise
