"""What programs get: messages, members, presence and gaps; and message ids as text.

Hub and client hand out the same classes. What a hub keeps of a message is in ``hub/rooms/entries``.
"""

from __future__ import annotations

import dataclasses
import datetime

Id = tuple[int, int]


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


# What a client with presence receives.
Received = Message | Presence | Gap


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
