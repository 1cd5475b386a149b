"""Who is in a room, and who is told of it. No sockets.

A change and the events that tell of it are made under one lock, the room's: so every client is told
all changes in one order, and the list in its ``welcome`` or an answer to ``who`` is the state
between two of them.

Each change costs a frame for each member who is told of it. So in a second only some are told one
by one; what follows is told as a whole, by one list for all, when that second is over.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Generic

from ...messages import Member
from ...wire import events
from .encodings import JSON
from .subscriber import S

# Above so many members there is no `join` and no `leave`, but a `count` now and then.
MAX_NAMED = 100
# So many events tell of single changes within so many seconds: one for each member who is told.
MAX_TOLD = 10_000
TOLD_SECONDS = 1.0
# So often a list that was asked for is made without the lock: a long one takes a millisecond.
LIST_TRIES = 3


class Roster(Generic[S]):
    """The members of one room. Any thread."""

    def __init__(self) -> None:
        # Guards members, their `member` and `missed`, watchers, recount, _changes, _told and
        # _told_since, and what the room says that it guards.
        self.lock = threading.Lock()
        self.members: dict[int, S] = {}
        self.watchers: dict[S, None] = {}  # members who are told of the others
        self.recount = False  # something was not told: a `count` or the whole list is due
        self._changes = 0  # of members or their names
        self._told = 0  # events that told of one
        self._told_since = 0.0

    def _enter_locked(self, subscriber: S) -> tuple[S | None, list[S]]:
        """Make a client a member; return whose place it has taken, and who was told. If a newer
        connection of the client is a member already, it has taken this one's."""
        assert self.lock.locked()
        replaced = self.members.get(subscriber.number)
        if replaced is not None and replaced.generation > subscriber.generation:
            return subscriber, []
        # Whoever was told to go before it came is none; its Close is queued under this lock.
        if subscriber.closing:
            return replaced, []
        self.members[subscriber.number] = subscriber
        self._changes += 1
        if replaced is not None:
            self.watchers.pop(replaced, None)
            told = self._tell_rename_locked(subscriber, replaced.member.name)
        else:
            told = self._tell_locked("join", subscriber.member)
        if subscriber.form is JSON:
            self.watchers[subscriber] = None
        return replaced, told

    def leave(self, subscriber: S) -> list[S]:
        """End a membership, if there still is one; return the clients that were told of it."""
        with self.lock:
            if self.members.get(subscriber.number) is not subscriber:
                return []
            del self.members[subscriber.number]
            self._changes += 1
            self.watchers.pop(subscriber, None)
            return self._tell_locked("leave", subscriber.member)

    def rename(self, subscriber: S, name: str | None) -> list[S]:
        """Change a member's name; return the clients that were told of it."""
        with self.lock:
            old = subscriber.member
            subscriber.member = dataclasses.replace(old, name=name)
            if self.members.get(subscriber.number) is not subscriber:
                return []
            self._changes += 1
            return self._tell_rename_locked(subscriber, old.name)

    def tell_count(self) -> list[S]:
        """Tell how many members there are, or who if they are not too many; return the clients
        that were told."""
        with self.lock:
            self.recount = False
            return self._queue_to_watchers_locked(self._everybody_locked())

    def tell_members(self, subscriber: S) -> None:
        """Tell a client all that it has not been told while its queue was too long."""
        with self.lock:
            subscriber.missed = False
            subscriber.queue_presence(self._everybody_locked())

    def tell_again(self) -> list[S]:
        """Tell all who is here, where nobody knows who of them was told of the last change; return
        the clients that were told."""
        with self.lock:
            if len(self.members) > MAX_NAMED:
                self.recount = True
                return []
            return self._queue_to_watchers_locked(self._everybody_locked())

    def answer_who(self, subscriber: S, ref: events.Ref, limit_bytes: int) -> bool | None:
        """Queue the list of members for a client, as ``Subscriber.queue`` does.

        Who was told that somebody has come or gone must not get an older list after it. So the list
        is made anew if that happens meanwhile, and under the lock where it always does.
        """
        for _ in range(LIST_TRIES):
            with self.lock:
                members = [member.member for member in self.members.values()]
                changes = self._changes
            frame = JSON.event(events.members(members, ref))
            with self.lock:
                if changes == self._changes:
                    return subscriber.queue_locked(frame, limit_bytes)
        with self.lock:
            members = [member.member for member in self.members.values()]
            return subscriber.queue_locked(JSON.event(events.members(members, ref)), limit_bytes)

    def _everybody_locked(self) -> bytes:
        """Return the event that stands for all that was not told."""
        assert self.lock.locked()
        if len(self.members) > MAX_NAMED:
            return JSON.event(events.count(len(self.members)))
        return JSON.event(events.members([member.member for member in self.members.values()]))

    def _tell_rename_locked(self, subscriber: S, old: str | None) -> list[S]:
        assert self.lock.locked()
        member = subscriber.member
        if member.name == old:
            return []
        frame = JSON.event(events.presence("rename", member, len(self.members), old=old))
        if len(self.members) <= MAX_NAMED and self._may_tell_locked():
            return self._queue_to_watchers_locked(frame)
        # Its own name everybody is told.
        if subscriber in self.watchers and subscriber.queue_presence(frame):
            return [subscriber]
        return []

    def _tell_locked(self, kind: str, member: Member) -> list[S]:
        assert self.lock.locked()
        if not self.watchers or not self._may_tell_locked():
            return []
        return self._queue_to_watchers_locked(
            JSON.event(events.presence(kind, member, len(self.members)))
        )

    def _may_tell_locked(self) -> bool:
        """Return whether a change is told by itself. After one that is not none is, until all who
        are told of the others have the whole."""
        assert self.lock.locked()
        if len(self.members) > MAX_NAMED:
            self.recount = True
        if self.recount:
            return False
        now = time.monotonic()
        if now >= self._told_since + TOLD_SECONDS:
            self._told_since = now
            self._told = 0
        self._told += len(self.watchers)
        self.recount = self._told > MAX_TOLD
        return not self.recount

    def _queue_to_watchers_locked(self, frame: bytes) -> list[S]:
        assert self.lock.locked()
        return [watcher for watcher in self.watchers if watcher.queue_presence(frame)]

    def member_list(self) -> list[Member]:
        """Return the members in the order in which they joined."""
        with self.lock:
            return [subscriber.member for subscriber in self.members.values()]
