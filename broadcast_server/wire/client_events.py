"""The events of ``broadcast.v1.json`` as a client reads and writes them; no I/O.

``EventReader`` turns the text of one frame into an event. Most events are what the user gets,
``Message``, ``Presence`` and ``Gap``; the others are for the client itself. A frame that is no
event at all is 1007, an event that the protocol does not allow 1002, and what is only unknown is
ignored, so that a newer hub can say more than this client knows.

A hub is a stranger, too. Nothing is parsed that would become far more than it is, and what is kept
of an event for longer, such as names, has the length that the protocol allows.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any

from .. import rules
from ..arguments import utf8
from ..errors import ProtocolError
from ..messages import Gap, Member, Message, Presence, parse_id
from . import json_bounds

SUBPROTOCOL = "broadcast.v1.json"
# What a message of so many bytes may become in JSON, each byte a "\u0001", and what is around it.
ESCAPED_BYTES = 6
# Room for the rest of an event; the biggest is a list of 1,000 members whose names are all escaped.
EVENT_BYTES = 1024 * 1024
# A room's senders are the same ones over and over; of so many the last `Member` is kept.
MAX_SENDERS = 4096
# Of ids, codes and sessions; and of a room's path. A hub's have half as many at most.
MAX_WORD_CHARACTERS = 256
MAX_ROOM_CHARACTERS = 1024
# What is longer is no sentence, and is cut.
MAX_DETAIL_CHARACTERS = 1000
MAX_COUNT = 2**53

_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclasses.dataclass(frozen=True, slots=True)
class Welcome:
    """The first event of a connection."""

    id: str
    session: str
    name: str | None
    room: str
    members: tuple[Member, ...]
    count: int
    newest: str
    after: str


@dataclasses.dataclass(frozen=True, slots=True)
class Renewal:
    """The hub has a new session for the client, before the old one ends."""

    session: str


@dataclasses.dataclass(frozen=True, slots=True)
class Ack:
    """The hub has accepted a message."""

    ref: int | str | None
    id: str
    duplicate: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Trouble:
    """The hub did not carry something out."""

    code: str
    detail: str
    ref: int | str | None


Event = Message | Presence | Gap | Welcome | Renewal | Ack | Trouble


class EventReader:
    """Reads the events of one connection.

    Args:
        max_message_bytes: the largest message that is taken; a larger one is 1009.

    Attributes:
        room: the room's path, once the welcome has told it.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self.room: str | None = None
        self._max_message_bytes = max_message_bytes
        # The longest lawful message is one in base64.
        self._bounds = json_bounds.EVENT._replace(bytes=max_message_bytes * 4 // 3 + EVENT_BYTES)
        self._senders: dict[tuple[str | None, str | None], Member] = {}
        self._readers: Mapping[str, Callable[[dict[str, Any]], Event]] = {
            "message": self._message,
            "ack": _ack,
            "join": self._change,
            "leave": self._change,
            "rename": self._change,
            "count": lambda event: Presence("count", None, _count(event), (), None),
            "members": self._list,
            "gap": _gap,
            "error": _trouble,
            "session": lambda event: Renewal(_text(event, "session")),
            "welcome": self._welcome,
        }

    def read(self, payload: bytes) -> Event | None:
        """Return the event of a text frame; None for one of an unknown type.

        Raises:
            ProtocolError: this is none, or not one that may come now.
        """
        try:
            event = json_bounds.loads(payload, self._bounds)
        except json_bounds.TooMuch as error:
            if not payload.lstrip().startswith(b"{"):
                raise ProtocolError(1007, "the frame is not a JSON object") from None
            raise ProtocolError(1009, f"the event is too big: {error}") from None
        # A number of 5,000 digits is a ValueError, too; brackets may be nested too deep.
        except (ValueError, RecursionError):
            raise ProtocolError(1007, "the frame is not JSON") from None
        return self.understand(event)

    def understand(self, event: object) -> Event | None:
        """Return the event that a JSON value is; None for one of an unknown type.

        Raises:
            ProtocolError: as for `read`.
        """
        if type(event) is not dict:
            raise ProtocolError(1007, "the frame is not a JSON object")
        kind = event.get("type")
        if type(kind) is not str:
            raise ProtocolError(1002, "an event without a type")
        reader = self._readers.get(kind)
        if reader is None:
            return None
        if (self.room is None) != (kind == "welcome"):
            raise ProtocolError(1002, f"{kind} came {'before' if kind != 'welcome' else 'after'} "
                                "the welcome")  # fmt: skip
        try:
            return reader(event)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise ProtocolError(1002, f"a bad {kind} event") from None

    def _message(self, event: dict[str, Any]) -> Message:
        assert self.room is not None
        text = event.get("data")
        data: str | bytes
        if text is None:
            data = base64.b64decode(_text(event, "data_base64"), validate=True)
            size = len(data)
        else:
            data = _text(event, "data")
            if "data_base64" in event:
                raise ValueError("both data and data_base64")
            # A character has at most four bytes; a lone surrogate is a UnicodeEncodeError.
            size = len(data) if data.isascii() else len(data.encode())
        if size > self._max_message_bytes:
            raise ProtocolError(1009, f"message has more than {self._max_message_bytes} bytes")
        origin = event["from"]
        if event["id"] is not None:
            parse_id(event["id"])
        return Message(
            data,
            self.room,
            None if origin is None else self._member(origin),
            _time(event["time"]),
            event["id"],
        )

    def _member(self, event: dict[str, Any]) -> Member:
        key = (event["id"], event["name"])
        member = self._senders.get(key)
        if member is None:
            if key[0] is not None:
                _word(event, "id")
            _name(event, "name")
            if len(self._senders) >= MAX_SENDERS:
                self._senders.clear()
            member = Member(key[0] or "", key[1], self.room or "", "")
            self._senders[key] = member
        return member

    def _members(self, event: dict[str, Any]) -> tuple[Member, ...]:
        members = event["members"]
        if type(members) is not list:
            raise TypeError("members is no list")
        return tuple([self._member(member) for member in members])

    def _change(self, event: dict[str, Any]) -> Presence:
        kind = event["type"]
        old = _name(event, "old") if kind == "rename" else None
        return Presence(kind, self._member(event["member"]), _count(event), (), old)

    def _list(self, event: dict[str, Any]) -> Presence:
        return Presence("members", None, _count(event), self._members(event), None)

    def _welcome(self, event: dict[str, Any]) -> Welcome:
        room = _word(event, "room", MAX_ROOM_CHARACTERS)
        newest, after = _text(event, "newest"), _text(event, "after")
        parse_id(newest)
        parse_id(after)
        self.room = room  # the members below are in it
        return Welcome(
            _word(event, "id"),
            _word(event, "session"),
            _name(event, "name"),
            room,
            self._members(event),
            _count(event),
            newest,
            after,
        )


def encode_send(data: str | bytes, ref: int | None, key: str | None) -> bytes:
    """Return the event that publishes a message.

    Raises:
        UsageError: the text, or the key, has a lone surrogate, which UTF-8 cannot carry.
    """
    if isinstance(data, str):
        text = f'{{"type":"send","data":{_encode(data)}'
    else:
        text = f'{{"type":"send","data_base64":"{base64.b64encode(data).decode()}"'
    if ref is not None:
        text += f',"ref":{ref}'
    if key is not None:
        text += f',"key":{_encode(key)}'
    try:
        return (text + "}").encode()
    except UnicodeEncodeError:
        utf8("key", key or "")
        utf8("data", data if isinstance(data, str) else "")
        raise


def encode_name(name: str | None, ref: int) -> bytes:
    """Return the event that changes the client's name; a refusal has the ref."""
    return f'{{"type":"name","name":{_encode(name)},"ref":{ref}}}'.encode()


def encode_who(ref: int) -> bytes:
    """Return the event that asks for the members."""
    return f'{{"type":"who","ref":{ref}}}'.encode()


def data_of(payload: bytes) -> str | bytes:
    """Return the message of what `encode_send` has made."""
    event = json.loads(payload)
    if "data" in event:
        return str(event["data"])
    return base64.b64decode(event["data_base64"])


def _ack(event: dict[str, Any]) -> Ack:
    parse_id(_text(event, "id"))
    return Ack(_ref(event), event["id"], bool(event.get("duplicate")))


def _gap(event: dict[str, Any]) -> Gap:
    parse_id(_text(event, "after"))
    return Gap(_word(event, "reason"), _word(event, "since"), event["after"])


def _trouble(event: dict[str, Any]) -> Trouble:
    detail = _text(event, "detail")[:MAX_DETAIL_CHARACTERS]
    detail.encode()  # a lone surrogate is a UnicodeEncodeError
    return Trouble(_word(event, "code"), detail, _ref(event))


def _ref(event: dict[str, Any]) -> int | str | None:
    value = event.get("ref")
    if value is not None and type(value) is not int and type(value) is not str:
        raise TypeError("ref is neither a text nor a whole number")
    if type(value) is str and len(value) > MAX_WORD_CHARACTERS:
        raise ValueError("ref is too long")
    return value


def _text(event: dict[str, Any], key: str) -> str:
    value = event[key]
    if type(value) is not str:
        raise TypeError(f"{key} is no text")
    return value


def _word(event: dict[str, Any], key: str, limit: int = MAX_WORD_CHARACTERS) -> str:
    """Return a text that is kept, and may go out again, as a session does. Control characters are
    for who shows it to escape."""
    value = _text(event, key)
    if len(value) > limit:
        raise ValueError(f"{key} is too long")
    value.encode()  # a lone surrogate is a UnicodeEncodeError
    return value


def _name(event: dict[str, Any], key: str) -> str | None:
    return None if event[key] is None else _word(event, key, rules.MAX_NAME_CHARACTERS)


def _count(event: dict[str, Any]) -> int:
    value = event["count"]
    if type(value) is not int or not 0 <= value <= MAX_COUNT:
        raise TypeError("count is no count")
    return value


def _time(text: str) -> datetime.datetime:
    # Python 3.10 does not know the Z.
    moment = datetime.datetime.fromisoformat(text.removesuffix("Z") + "+00:00")
    if moment.tzinfo is not datetime.timezone.utc:
        raise ValueError("the time is not in UTC")
    return moment
