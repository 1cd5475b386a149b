"""A message inside the hub: on its way to an id, and as a room's log keeps it.

``Draft`` is an accepted message on its way to an id, ``Entry`` the same with its id in the log of a
room. The bytes that go to clients are made once, in ``encode``, and shared by all of them.
"""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ...arguments import utf8
from ...messages import Id, Member, Message, format_id, time_of
from ...wire import frames

# What an entry costs beside its frame: the objects that hold it. Counted, so that empty messages
# cannot fill the memory.
ENTRY_BYTES = 256


# Nobody else can make two messages of one fingerprint.
_SECRET = secrets.token_bytes(16)


class Key(NamedTuple):
    """By what a message is known when it comes again.

    Attributes:
        text: what the sender has chosen.
        owner: who has sent it, as ``networks.owner_of`` says.
        content: the fingerprint of what was sent, before a program's filter has changed it.
    """

    text: str
    owner: str
    content: bytes


def fingerprint(data: str | bytes) -> bytes:
    """Return what tells one message from another: its kind and its content."""
    kind, body = (b"t", data.encode("utf-8")) if isinstance(data, str) else (b"b", data)
    return hashlib.blake2b(body, digest_size=16, key=_SECRET, person=kind).digest()


class Draft:
    """An accepted message without an id.

    Attributes:
        origin: the number of the client that sent it, 0 for nobody.
        frame: its bytes as a WebSocket frame.
        sender: how others see who sent it; None for the hub's own program.
        key: with the same key it may come again, and is taken once; None for no key.
    """

    __slots__ = ("frame", "key", "origin", "sender")

    def __init__(
        self, origin: int, frame: bytes, sender: Member | None = None, key: Key | None = None
    ) -> None:
        self.origin = origin
        self.frame = frame
        self.sender = sender
        self.key = key


class Entry:
    """A message in a room's log.

    Attributes:
        origin: the number of the client that sent it, 0 for nobody.
        frame: the WebSocket frame that every member gets.
        ms, seq: the two halves of the id.
        end: the bytes of all frames of this log up to and with this one, since the room began, and
            of those senders that are counted.
        sender: how others see who sent it.
        json, sse, sse_json: its other forms, made by the fan-out when a client first needs them,
            and dropped when their memory is needed.
    """

    __slots__ = ("end", "frame", "json", "ms", "origin", "sender", "seq", "sse", "sse_json")

    def __init__(
        self,
        origin: int,
        frame: bytes,
        ms: int,
        seq: int,
        end: int,
        sender: Member | None = None,
    ) -> None:
        self.origin = origin
        self.frame = frame
        self.ms = ms
        self.seq = seq
        self.end = end
        self.sender = sender
        self.json: bytes | None = None
        self.sse: bytes | None = None
        self.sse_json: bytes | None = None

    def forms_bytes(self) -> int:
        """Return how many bytes the forms have beside the frame."""
        return len(self.json or b"") + len(self.sse or b"") + len(self.sse_json or b"")

    def drop_form(self, slot: str) -> int:
        """Drop a form, which can be made again; return how many bytes it had."""
        size = len(getattr(self, slot) or b"")
        setattr(self, slot, None)
        return size


def encode(data: str | bytes) -> bytes:
    """Return the frame of a message: text for ``str``, binary for ``bytes``.

    Raises:
        TypeError: the data is neither.
        UsageError: the text has a lone surrogate, which UTF-8 cannot carry.
    """
    if isinstance(data, str):
        return frames.encode_frame(frames.TEXT, utf8("data", data))
    if isinstance(data, bytes):
        return frames.encode_frame(frames.BINARY, data)
    raise TypeError(f"data must be str or bytes, not {type(data).__name__}")


class Accepted(NamedTuple):
    """The ids of a batch: those of its new messages follow each other.

    Attributes:
        ms, first, new: milliseconds, first sequence number and number of the new ones.
        repeated: the place in the batch and the first id of each message whose key was known.
        reused: the places of those that were not accepted, because another message has their key.
    """

    ms: int
    first: int
    new: int
    repeated: Mapping[int, Id] = MappingProxyType({})
    reused: Collection[int] = ()

    def ids(self, size: int) -> Iterator[tuple[Id | None, bool]]:
        """Yield the id of each message of a batch of that size, and whether it is repeated; no id
        for one that was not accepted."""
        seq = self.first
        for place in range(size):
            known = self.repeated.get(place)
            if known is not None:
                yield known, True
            elif place in self.reused:
                yield None, False
            else:
                yield (self.ms, seq), False
                seq += 1


def to_messages(room: str, drafts: list[Draft], ids: Accepted) -> list[Message]:
    """Return the new messages of an accepted batch as users see them."""
    moment = time_of(ids.ms)
    return [
        Message(frames.data_of(draft.frame), room, draft.sender, moment, format_id(*id))
        for draft, (id, repeated) in zip(drafts, ids.ids(len(drafts)), strict=True)
        if id is not None and not repeated
    ]


def to_message(room: str, entry: Entry) -> Message:
    """Return a message of a log as users see it."""
    id = format_id(entry.ms, entry.seq)
    return Message(frames.data_of(entry.frame), room, entry.sender, time_of(entry.ms), id)


def cost_of(drafts: Sequence[Draft]) -> int:
    """Return what a batch of one sender will cost in a log."""
    size = sum([len(draft.frame) for draft in drafts])
    return size + (ENTRY_BYTES + sender_bytes(drafts)) * len(drafts)


def sender_bytes(drafts: Sequence[Draft]) -> int:
    """Return what the sender of a batch, if it is a large one, adds to the cost of each message: 0
    for a member, which all its messages share."""
    if not drafts or drafts[0].origin or drafts[0].sender is None:
        return 0
    return _bytes_of(drafts[0].sender)


def _bytes_of(sender: Member) -> int:
    """Return what a sender that has sent one message only takes of memory above ``ENTRY_BYTES``: a
    long name or room, in characters of four bytes."""
    texts = (sender.name or "", sender.room, sender.address)
    return max(0, sum(map(sys.getsizeof, (sender, *texts))) - ENTRY_BYTES)
