"""What a publisher has reserved in a room's log, known also after it was interrupted.

A message gets its place in three steps: reserve, append, tell the fan-out. Ctrl-C may come between
any two of them, and within each. What is reserved, used or given back is noted in the publisher's
``Place`` in the same moment as in the room: no call stands between the two, and it is at calls and
loops that Python looks for signals. So what is left to do can be looked up there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Generic

from .entries import Draft
from .subscriber import S

if TYPE_CHECKING:
    from .room import Room


class Place(Generic[S]):
    """A place that a publisher has in a room's log until its message is there. It is the ``Log``
    that the backplane gets, of one message. Its publisher's thread.

    Attributes:
        room: where it is; None before it is reserved.
        cost: what is reserved and neither used nor given back.
    """

    __slots__ = ("cost", "room")

    def __init__(self) -> None:
        self.room: Room[S] | None = None
        self.cost = 0

    @property
    def path(self) -> str:
        """The room's path."""
        return self._room.path

    def append(self, drafts: Sequence[Draft], ms: int, first_seq: int) -> bool:
        """Use the place; see ``Room.append``."""
        return self._room.append(drafts, ms, first_seq, self)

    def release(self, cost: int) -> None:
        """Give back so much of it."""
        self._room.release(cost, self)

    @property
    def _room(self) -> Room[S]:
        assert self.room is not None
        return self.room
