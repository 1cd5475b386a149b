"""Who is in a room, and who is told of it. No sockets.

A change and the events that tell of it are made under one lock, the room's: so every client is told
all changes in one order, and the list in its ``welcome`` or an answer to ``who`` is the state
between two of them.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from ...messages import Member
from ...wire import events
from .encodings import JSON

if TYPE_CHECKING:
    from ..delivery.connection import Connection

# Above so many members there is no `join` and no `leave`, but a `count` now and then.
MAX_NAMED = 100


class Presence:
    """The members of one room. Any thread."""

    def __init__(self) -> None:
        # Guards members, their `member` and `missed`, watchers, recount and _changes, and what the
        # room says that it guards.
        self.lock = threading.Lock()
        self.members: dict[int, Connection] = {}
        self.watchers: dict[Connection, None] = {}  # members who are told of the others
        self.recount = False  # a `count` is due
        self._changes = 0  # of members or their names

    def _enter_locked(self, connection: Connection) -> tuple[Connection | None, list[Connection]]:
        """Make a client a member; return whose place it has taken, and who was told."""
        assert self.lock.locked()
        replaced = self.members.get(connection.number)
        # Whoever was told to go before it came is none; its Close is queued under this lock.
        if connection.closing:
            return replaced, []
        self.members[connection.number] = connection
        self._changes += 1
        if replaced is not None:
            self.watchers.pop(replaced, None)
            told = self._tell_rename_locked(connection.member, replaced.member.name)
        else:
            told = self._tell_locked("join", connection.member)
        if connection.form is JSON:
            self.watchers[connection] = None
        return replaced, told

    def leave(self, connection: Connection) -> list[Connection]:
        """End a membership, if there still is one; return the clients that were told of it."""
        with self.lock:
            if self.members.get(connection.number) is not connection:
                return []
            del self.members[connection.number]
            self._changes += 1
            self.watchers.pop(connection, None)
            return self._tell_locked("leave", connection.member)

    def rename(self, connection: Connection, name: str | None) -> list[Connection]:
        """Change a member's name; return the clients that were told of it."""
        with self.lock:
            old = connection.member
            connection.member = dataclasses.replace(old, name=name)
            if self.members.get(connection.number) is not connection:
                return []
            self._changes += 1
            return self._tell_rename_locked(connection.member, old.name)

    def tell_count(self) -> list[Connection]:
        """Tell how many members there are; return the clients that were told."""
        with self.lock:
            self.recount = False
            return self._queue_to_watchers_locked(JSON.event(events.count(len(self.members))))

    def tell_members(self, connection: Connection) -> None:
        """Tell a client all that it has not been told while its queue was too long."""
        with self.lock:
            connection.missed = False
            members = [member.member for member in self.members.values()]
            connection.queue_presence(JSON.event(events.members(members)))

    def tell_again(self) -> list[Connection]:
        """Tell all who is here, where nobody knows who of them was told of the last change; return
        the clients that were told."""
        with self.lock:
            if len(self.members) > MAX_NAMED:
                self.recount = True
                return []
            members = [member.member for member in self.members.values()]
            return self._queue_to_watchers_locked(JSON.event(events.members(members)))

    def answer_who(self, connection: Connection, ref: events.Ref, limit_bytes: int) -> bool | None:
        """Queue the list of members for a client, as ``Connection.queue`` does; also False if
        somebody came or went meanwhile: who was told of that must not get an older list after it.
        """
        with self.lock:
            members = [member.member for member in self.members.values()]
            changes = self._changes
        frame = JSON.event(events.members(members, ref))
        with self.lock:
            if changes != self._changes:
                return False
            return connection.queue_locked(frame, limit_bytes)

    def _tell_rename_locked(self, member: Member, old: str | None) -> list[Connection]:
        assert self.lock.locked()
        if member.name == old:
            return []
        frame = JSON.event(events.presence("rename", member, len(self.members), old=old))
        return self._queue_to_watchers_locked(frame)

    def _tell_locked(self, kind: str, member: Member) -> list[Connection]:
        assert self.lock.locked()
        if not self.watchers:
            return []
        if len(self.members) > MAX_NAMED:
            self.recount = True
            return []
        return self._queue_to_watchers_locked(
            JSON.event(events.presence(kind, member, len(self.members)))
        )

    def _queue_to_watchers_locked(self, frame: bytes) -> list[Connection]:
        assert self.lock.locked()
        return [watcher for watcher in self.watchers if watcher.queue_presence(frame)]

    def member_list(self) -> list[Member]:
        """Return the members in the order in which they joined."""
        with self.lock:
            return [connection.member for connection in self.members.values()]
