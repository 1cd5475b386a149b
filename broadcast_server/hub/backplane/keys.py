"""The keys of the messages that a hub has accepted, so that what comes again is known.

A key counts in its room; that of somebody whom a token names, for them alone. With it the message's
fingerprint is kept: a stranger who guesses a key and takes it first with a message of another
content gets nobody told that theirs was delivered.

All keys together have a limit in bytes. Above it the owner that has most gives first, and of its
keys the oldest one in the room in which it has most: so nobody pushes another's keys out, and
behind one address a flood in one room does not reach those of another. The texts are hashed, so
that each key costs the same.

No I/O, no lock: the backplane's lock is held around each call. Each call does a bounded amount of
work for the key that it adds, however many there are or have become too old.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from ...messages import Id
from ...networks import scope_of
from ..rooms.entries import Key
from ..rooms.shares import Shares

# How long a key is remembered, and how much memory all of them may take.
KEY_SECONDS = 600.0
MAX_KEY_BYTES = 48 * 1024 * 1024
# What a key costs, and what an owner costs in each room where it has keys; measured, rounded up.
KEY_BYTES = 512
GROUP_BYTES = 3072
# How many that are too old go at most for each new one.
EXPIRED_AT_ONCE = 4


class Name(NamedTuple):
    """A key as the memory knows it."""

    digest: bytes
    owner: str
    room: str
    content: bytes


# What is remembered of a key: the id of its message, when it came, and the fingerprint. The garbage
# collector does not look at plain tuples again and again, as it would at those with names.
Known = tuple[int, int, float, bytes]


class Group(NamedTuple):
    """The keys of one owner in one room, the oldest first."""

    owner: str
    room: str
    keys: OrderedDict[bytes, Known]


class KeyMemory:
    """The keys of one hub. Not thread-safe: the backplane's lock is held around each call but
    ``name``.

    Args:
        clock: seconds that only grow.

    Attributes:
        key_bytes: what all that is remembered costs.
        dropped: how many keys have gone so far, because they were too old or for others.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(16)
        self._keys: dict[bytes, Group] = {}
        # The one that was looked through the longest ago comes first.
        self._groups: OrderedDict[tuple[str, str], Group] = OrderedDict()
        self._owners: Shares[str] = Shares()
        self._rooms: dict[str, Shares[str]] = {}  # of each owner
        self.key_bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        """Return how many keys are remembered, with those that are too old and have not gone."""
        return len(self._keys)

    def name(self, room: str, key: Key) -> Name:
        """Return a key as it is looked up. Any thread, without a lock."""
        scope = scope_of(key.owner)
        # Each with its length, so that no two keys are hashed as the same bytes.
        text = f"{len(room)} {room}{len(scope)} {scope}{key.text}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(text, digest_size=16, key=self._secret).digest()
        return Name(digest, key.owner, room, key.content)

    def find(self, name: Name) -> tuple[Id, bool] | None:
        """Return the id of the first message of a key, and whether this one is the same; None if
        the key is new."""
        group = self._keys.get(name.digest)
        if group is None:
            return None
        ms, seq, at, content = group.keys[name.digest]
        if self._clock() - at >= KEY_SECONDS:
            self._drop(name.digest)
            return None
        return (ms, seq), content == name.content

    def add(self, name: Name, id: Id) -> None:
        """Remember a new key."""
        place = (name.owner, name.room)
        group = self._groups.get(place)
        if group is None:
            group = self._groups[place] = Group(*place, OrderedDict())
            self.key_bytes += GROUP_BYTES
        now = self._clock()
        group.keys[name.digest] = (*id, now, name.content)
        self._keys[name.digest] = group
        self._owners.add(name.owner)
        self._rooms.setdefault(name.owner, Shares()).add(name.room)
        self.key_bytes += KEY_BYTES
        self._expire(now)
        while self.key_bytes > MAX_KEY_BYTES:
            owner = self._owners.most()
            self._drop(next(iter(self._groups[owner, self._rooms[owner].most()].keys)))

    def forget(self, name: Name) -> None:
        """Forget a key that was added just now, if it is still there."""
        if name.digest in self._keys:
            self._drop(name.digest)

    def _expire(self, now: float) -> None:
        """Drop some keys that are too old, from one group after the other."""
        place, group = next(iter(self._groups.items()))
        self._groups.move_to_end(place)
        for _ in range(EXPIRED_AT_ONCE):
            oldest = next(iter(group.keys), None)
            if oldest is None or now - group.keys[oldest][2] < KEY_SECONDS:
                return
            self._drop(oldest)

    def _drop(self, digest: bytes) -> None:
        owner, room, keys = self._keys.pop(digest)
        del keys[digest]
        self.dropped += 1
        self._owners.remove(owner)
        rooms = self._rooms[owner]
        rooms.remove(room)
        self.key_bytes -= KEY_BYTES
        if not keys:
            del self._groups[owner, room]
            self.key_bytes -= GROUP_BYTES
            if not rooms:
                del self._rooms[owner]
