"""What a hub asks of a backplane, which is where a message gets its id and its durability.

A backplane takes a batch of drafts for one room and calls ``done`` with their ids once they are
accepted, that is: in the room's log. In memory this happens before ``submit`` returns. A durable
store or a stream shared by several hubs would call ``done`` later, from a thread of its own, and
readers would go on reading in the meantime.

What a caller of ``submit`` may rely on, and what it owes:

- From ``submit`` on the batch is the backplane's; nobody else changes the list, or uses it again.
- ``done`` is called once for each batch that was accepted, without a lock, on any thread. It may
  wait for the client, which may take its acks slowly, and it calls the program's ``on_message``: a
  backplane that completes later calls it on a thread for which nobody else waits.
- Readers do not care when it is called. ``Core.publish_one``, for the program and for publishers
  over HTTP, does: it has its answer when ``submit`` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ...messages import Id
from ..rooms.entries import Accepted, Draft

Done = Callable[[Accepted], None]

# What a publisher is told whose key stands for another message: the code of its ``error``, and why.
KEY_REUSED = "key_reused"
KEY_REUSED_TEXT = "another message was published with this key; this one was not delivered"


class SenderGone(Exception):
    """A batch is of a client that has left its room in the meantime; nothing of it was accepted."""


class RoomLog(Protocol):
    """What a backplane asks of a room."""

    @property
    def path(self) -> str:
        """The room's path."""

    def append(self, drafts: Sequence[Draft], ms: int, first_seq: int) -> bool:
        """Put a batch at the end; return False, and do nothing, if its sender is no longer a
        member."""

    def release(self, cost: int) -> None:
        """Give back the place of what is not appended."""


class Backplane(Protocol):
    """What a hub asks of a backplane. All methods may be called from any thread."""

    @property
    def started(self) -> Id:
        """The id at which this start of the hub begins: an older one is from before it."""

    @property
    def messages(self) -> int:
        """How many messages were accepted so far."""

    @property
    def duplicates(self) -> int:
        """How many messages came again with a known key so far."""

    def submit(
        self, room: RoomLog, drafts: Sequence[Draft], done: Done, outside: bool = False
    ) -> None:
        """Accept a batch: give it ids, put it into the room's log, then call ``done`` without a
        lock.

        A message whose key is known gets the id of the first one with it if it is the same message,
        and none if it is another one; it does not go into the log either way. A key counts in its
        room, and where its owner is somebody whom a token names, for that owner.

        Args:
            room: where it goes.
            drafts: the batch, of one sender; it is the backplane's from now on.
            done: called with the ids.
            outside: it comes from a publisher that is not a member.

        Raises:
            HubStopped: ``close()`` was called, or ``close_outside()`` and it is from outside;
                nothing was accepted.
            SenderGone: the sender is no longer a member; nothing was accepted.
        """

    def newest(self) -> Id:
        """Return an id that every later one will be greater than."""

    def close_outside(self) -> None:
        """Accept from members and the hub's own program only from now on."""

    def close(self) -> None:
        """Accept nothing from now on."""
