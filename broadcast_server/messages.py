"""What travels through a hub: the message as users see it, and as the log keeps it.

``Message`` and ``Member`` are what callbacks and iteration hand out. ``Draft`` is an accepted
message on its way to an id, ``Entry`` the same with its id in a room's log. The bytes that go to
clients are made once, in ``encode``, and shared by all of them.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from .wire import frames

Id = tuple[int, int]

# What an entry costs beside its frame: the objects that hold it. Counted, so that empty messages
# cannot fill the memory.
ENTRY_BYTES = 256


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One client in a room. It cannot be changed, and tells what was true when it was made.

    Attributes:
        id: unique in its hub, for ``hub.send`` and ``hub.disconnect``.
        name: what the client called itself, or None.
        room: the room's path.
        address: "host:port" of the peer; behind a proxy that is listed with ``trust_proxy``, of the
            client that it names, with a port only if it tells one. Clients are not told: it is
            empty there.
    """

    id: str
    name: str | None
    room: str
    address: str


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """One message. It cannot be changed; `dataclasses.replace` makes one with other data.

    Attributes:
        data: ``str`` for a text message, ``bytes`` for a binary one.
        room: the room's path.
        sender: who sent it; None for the hub's own program, or where the wire does not tell.
        time: when the hub accepted it, aware, in UTC; at a client not told so, when it came.
        id: ``milliseconds-sequence``, growing within a room; None where the wire carries none.
    """

    data: str | bytes
    room: str
    sender: Member | None
    time: datetime.datetime
    id: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Presence:
    """A change of who is in a room, or what is known of it.

    Attributes:
        kind: "join", "leave" or "rename" of one member; "count" when only their number is told;
            "members" for the whole list.
        member: whom it is about; None for "count" and "members".
        count: how many are in the room now.
        members: who is here, for "members"; the hub lists no more than 1,000.
        old: the name before a "rename", or None.
    """

    kind: str
    member: Member | None
    count: int
    members: tuple[Member, ...]
    old: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """Messages are missing here: not everything after an id could be replayed.

    Attributes:
        reason: "trimmed", the room does not hold them any more; "restarted", the hub has been; or
            "unknown", the hub has never given out that id.
        since: the last id that was known.
        after: what comes next is everything after this id.
    """

    reason: str
    since: str
    after: str


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
        self, origin: int, frame: bytes, sender: Member | None = None, key: str | None = None
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
        end: the bytes of all frames of this log up to and with this one, since the room began.
        sender: how others see who sent it.
        json, sse, sse_json: its other forms, made by the fan-out when a client first needs them.
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


def encode(data: str | bytes) -> bytes:
    """Return the frame of a message: text for ``str``, binary for ``bytes``.

    Raises:
        TypeError: the data is neither.
        UnicodeEncodeError: the text holds a lone surrogate, which UTF-8 cannot carry.
    """
    if isinstance(data, str):
        return frames.encode_frame(frames.TEXT, data.encode("utf-8"))
    if isinstance(data, bytes):
        return frames.encode_frame(frames.BINARY, data)
    raise TypeError(f"data must be str or bytes, not {type(data).__name__}")


def format_id(ms: int, seq: int) -> str:
    """Return the id as users see it."""
    return f"{ms}-{seq}"


def parse_id(text: str) -> tuple[int, int]:
    """Return the two halves of an id.

    Raises:
        ValueError: the text is not an id.
    """
    ms, dash, seq = text.partition("-")
    for half in (ms, seq):
        # str.isdigit() alone would also take other scripts' digits; 20 places hold any 64-bit
        # number.
        if not (dash and half.isascii() and half.isdigit() and len(half) <= 20):
            raise ValueError(f"not a message id: {text[:64]!r}")
    return int(ms), int(seq)


def time_of(ms: int) -> datetime.datetime:
    """Return the time that an id carries."""
    seconds, rest = divmod(ms, 1000)
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).replace(
        microsecond=rest * 1000
    )


class Accepted(NamedTuple):
    """The ids of a batch: those of its new messages follow each other.

    Attributes:
        ms, first, new: milliseconds, first sequence number and number of the new ones.
        repeated: the place in the batch and the first id of each message whose key was known.
    """

    ms: int
    first: int
    new: int
    repeated: Mapping[int, Id] = MappingProxyType({})

    def ids(self, size: int) -> Iterator[tuple[Id, bool]]:
        """Yield the id of each message of a batch of that size, and whether it is repeated."""
        seq = self.first
        for place in range(size):
            known = self.repeated.get(place)
            if known is not None:
                yield known, True
            else:
                yield (self.ms, seq), False
                seq += 1


def to_messages(room: str, drafts: list[Draft], ids: Accepted) -> list[Message]:
    """Return the new messages of an accepted batch as users see them."""
    moment = time_of(ids.ms)
    return [
        Message(frames.data_of(draft.frame), room, draft.sender, moment, format_id(*id))
        for draft, (id, repeated) in zip(drafts, ids.ids(len(drafts)), strict=True)
        if not repeated
    ]


def to_message(room: str, entry: Entry) -> Message:
    """Return a message of a log as users see it."""
    id = format_id(entry.ms, entry.seq)
    return Message(frames.data_of(entry.frame), room, entry.sender, time_of(entry.ms), id)


def cost_of(drafts: Sequence[Draft]) -> int:
    """Return what a batch will cost in a log."""
    return sum(len(draft.frame) for draft in drafts) + ENTRY_BYTES * len(drafts)
