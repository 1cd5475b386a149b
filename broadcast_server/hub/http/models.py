"""What an HTTP request is, what the hub may decide about it, and what it answers. Values only.

``policies.decide`` makes a ``Decision`` of a ``Request``; the handler carries it out; for whatever
has an HTTP answer it gives a ``Response`` or a ``Refusal`` to ``HttpConnection.answer``. The
``headers`` of a decision say what caches and browsers must know, and belong to every answer to that
request, to a refusal as well: ``Refusal.with_headers``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ...arguments import TEXT, check_type
from .query import parse_query

Headers = tuple[tuple[str, str], ...]
Id = tuple[int, int]

# After every id that can be given out: for an id that the hub cannot have given out.
NEVER_GIVEN: Id = (2**63, 0)

# More than any program sends: each line, and each element of a list in one, costs the hub more than
# its bytes.
MAX_HEADER_LINES = 100
MAX_LIST_ELEMENTS = 128

# Said to whom the hub turns away for now: come back in so many seconds.
RETRY: Headers = (("Retry-After", "5"),)


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request without its body.

    Attributes:
        method, target: as in the request line.
        version: "1.0" or "1.1".
        headers: names in lower case, values as they came, without outer spaces, decoded as
            latin-1.
    """

    method: str
    target: str
    version: str
    headers: Headers
    _query: Mapping[str, str] | None = dataclasses.field(
        default=None, init=False, repr=False, compare=False
    )

    def query(self) -> Mapping[str, str]:
        """Return the parameters of the target's query, which is taken apart once.

        Raises:
            ValueError: it is none, or has too many.
        """
        if self._query is None:
            found = parse_query(self.target.partition("?")[2])
            object.__setattr__(self, "_query", found)
            return found
        return self._query

    def is_too_long(self) -> bool:
        """Tell whether it has more header lines or list elements than any program sends."""
        if len(self.headers) > MAX_HEADER_LINES:
            return True
        count = 0
        for _, value in self.headers:
            if "," in value:
                count += value.count(",")
        return count > MAX_LIST_ELEMENTS

    def values(self, name: str) -> list[str]:
        """Return the values of every header line of that name."""
        return [value for key, value in self.headers if key == name]

    def elements(self, name: str) -> list[str]:
        """Return the comma-separated elements of a header (RFC 9110 §5.6.1)."""
        return [
            element.strip()
            for value in self.values(name)
            for element in value.split(",")
            if element.strip()
        ]

    def tokens(self, name: str) -> list[str]:
        """Return the comma-separated elements of a header, in lower case."""
        return [element.lower() for element in self.elements(name)]


@dataclasses.dataclass(frozen=True, slots=True)
class Join:
    """A WebSocket upgrade that may go on.

    Attributes:
        room: the room's path.
        name: what the client calls itself, or None.
        echo: it wants its own messages too.
        history: how many of the last messages it wants first; 0 for none.
        since: it wants everything after this id first; None for "from now on".
        accept: the value of ``Sec-WebSocket-Accept``.
        session: the token of an earlier ``welcome``, or None.
        subprotocol: the one that is chosen, or None for plain frames.
        since_text: `since` as it came.
    """

    room: str
    name: str | None
    echo: bool
    history: int
    since: Id | None
    accept: str
    session: str | None = None
    subprotocol: str | None = None
    since_text: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Stream:
    """A reader of server-sent events; for HEAD only the head of the answer.

    Attributes:
        room, name, history: as for ``Join``.
        since: it wants everything after this id first; ``NEVER_GIVEN`` for a ``Last-Event-ID`` that
            is no id; None for "from now on".
        since_text: the id as it came, at most 64 characters of it; None if there was none.
        as_json: the data of each event is the JSON event.
        headers: belong to the answer.
        only_events: nothing else is accepted, as ``EventSource`` asks.
    """

    room: str
    name: str | None
    history: int
    since: Id | None
    since_text: str | None
    as_json: bool
    headers: Headers = ()
    only_events: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Recall:
    """The last messages as JSON, once.

    Attributes:
        room: the room's path; nothing is made for it.
        history: how many of the last messages, where `since` is None.
        since: everything after this id, or None.
        since_text: `since` as it came.
        headers: belong to the answer.
    """

    room: str
    history: int
    since: Id | None
    since_text: str | None
    headers: Headers = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """The web page of a room.

    Attributes:
        room: the room's path; nothing is made for it.
        board: it shows only the newest message.
        headers: belong to the answer.
    """

    room: str
    board: bool
    headers: Headers = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Publish:
    """A message over HTTP; its body is still to be read.

    Attributes:
        room: the room's path.
        name: what the sender calls itself, or None.
        key: with the same key the message may come again, and is taken once; None for no key.
        is_text: the body is text and must be UTF-8, or it is binary; None if nothing says so.
        headers: belong to the answer.
    """

    room: str
    name: str | None
    key: str | None
    is_text: bool | None
    headers: Headers = ()


@dataclasses.dataclass(frozen=True, slots=True)
class RoomList:
    """Who is where.

    Attributes:
        room: this one only; None for all.
        headers: belong to the answer.
    """

    room: str | None
    headers: Headers = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    """Whether the hub serves."""


@dataclasses.dataclass(frozen=True, slots=True)
class Metrics:
    """The counters; `headers` belong to the answer."""

    headers: Headers = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Asset:
    """A file of the web page; `name` has no slash and may not exist."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Preflight:
    """What may be asked here: the answer is 204 with these headers."""

    headers: Headers


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer, sent as ``application/problem+json`` (RFC 9457).

    Attributes:
        status: the HTTP status.
        text: one sentence for who made the request.
        headers: more header lines.
        reason: what it is counted as, in ``broadcast_refusals_total``; empty for what is not
            counted, such as a mistake of whoever asks.

    Raises:
        TypeError: an attribute has a wrong type.
    """

    status: int
    text: str
    headers: Headers = ()
    reason: str = ""

    def __post_init__(self) -> None:
        check_type("status", self.status, (int,))
        check_type("text", self.text, TEXT)
        check_type("reason", self.reason, TEXT)
        check_type("headers", self.headers, (tuple, list))
        for line in self.headers:
            check_type("each header", line, (tuple, list))
            if not (len(line) == 2 and all(isinstance(part, str) for part in line)):
                raise TypeError("each header must be a name and a value, both str")
        if type(self.headers) is not tuple:
            object.__setattr__(self, "headers", tuple(self.headers))

    def with_headers(self, headers: Headers) -> Refusal:
        """Return the same with more header lines, such as those of a decision."""
        return dataclasses.replace(self, headers=self.headers + headers)


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    """A whole HTTP answer.

    Attributes:
        status: the HTTP status; 204 has no body.
        headers: header lines beside those that every answer has.
        body: its bytes; left out for HEAD.
        content_type: None for none.
        pieces: more of the body, which is not joined.
        done: called once when the answer was sent, or could not be; None for nothing.
        ends: the connection ends with it.
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    content_type: str | None = None
    pieces: Sequence[bytes | memoryview] = ()
    done: Callable[[], None] | None = None
    ends: bool = False

    @property
    def size(self) -> int:
        """How many bytes the body has."""
        return len(self.body) + sum([len(piece) for piece in self.pieces])


Decision = (
    Join
    | Stream
    | Recall
    | Page
    | Publish
    | RoomList
    | Health
    | Metrics
    | Asset
    | Preflight
    | Refusal
    | Response
)
