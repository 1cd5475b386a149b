"""The events of ``broadcast.v1.json`` as bytes, and what a client says in it as values. No I/O.

docs/reference/protocol.md is the contract. Every event is one line of JSON without spaces; text is
not escaped beyond what JSON needs, so most messages cost little more than themselves.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from .. import rules
from ..messages import Member
from . import frames

MAX_REF_CHARACTERS = 64
MAX_KEY_CHARACTERS = 128
# What an event of a client may have beside one long text, and below which no event is looked at
# before it is taken apart: of nothing but brackets it becomes a thousand small objects.
MAX_BESIDE_BYTES = 4096
# So much of a long text is read at once: no other Python code runs while it is.
PIECE_CHARACTERS = 64 * 1024
# A list of members in an event; above it only the count tells all.
MAX_LISTED = 1000

Ref = str | int | None

# JSON's blanks are fewer than Python's.
_NAME = re.compile(r'[ \t\n\r]*([{,])[ \t\n\r]*("(?:[^"\\]|\\.)*")[ \t\n\r]*:[ \t\n\r]*')
_scan_value = json.JSONDecoder().raw_decode
_scan_text = json.decoder.scanstring  # type: ignore[attr-defined]
_END = re.compile(r"[ \t\n\r]*\}[ \t\n\r]*")
_REF_BOUND = 10**MAX_REF_CHARACTERS
_HIGH_SURROGATE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}")

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# A text as JSON, quotes included: what that encoder makes of each string.
_quote = json.encoder.encode_basestring


def encode(event: dict[str, Any]) -> bytes:
    """Return an event as bytes."""
    return _encode(event).encode("utf-8")


def identity(member: Member) -> dict[str, str | None]:
    """Return how an event names a member; who published over HTTP has no id."""
    return {"id": member.id or None, "name": member.name}


def rfc3339(ms: int) -> str:
    """Return a time in milliseconds as text (RFC 3339, UTC)."""
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@functools.lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    # Most messages of one second come one after the other.
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}"


def message(frame: bytes, id: str | None, ms: int, sender: Member | None) -> bytes:
    """Return the event of a message.

    It is written out by hand: on the fan-out's thread an encoder of any JSON takes four times as
    long.

    Args:
        frame: the message as a WebSocket frame.
        id: its id; None for what the hub's program sends to one client alone.
        ms: when it was accepted, in milliseconds since 1970.
        sender: who has sent it; None for the hub's program.
    """
    head = _head_of(id, ms, sender)
    payload = frames.payload_of(frame)
    if frames.is_text(frame):
        return b'%b":"%b"}' % (head, _escape(payload))
    return b'%b_base64":"%b"}' % (head, binascii.b2a_base64(payload, newline=False))


def message_pieces(
    frame: bytes, id: str | None, ms: int, sender: Member | None, size: int
) -> Iterator[bytes]:
    """Yield the same in pieces, each made of so many bytes of the data at most: a multiple of 3."""
    payload = frames.payload_view(frame)
    is_text = frames.is_text(frame)
    yield _head_of(id, ms, sender) + (b'":"' if is_text else b'_base64":"')
    for start in range(0, len(payload), size):
        piece = bytes(payload[start : start + size])
        yield _escape(piece) if is_text else binascii.b2a_base64(piece, newline=False)
    yield b'"}'


def _head_of(id: str | None, ms: int, sender: Member | None) -> bytes:
    """Return the event of a message up to its data."""
    shown = "null" if id is None else f'"{id}"'
    if sender is None:
        who = "null"
    else:
        number = _quote(sender.id) if sender.id else "null"
        name = "null" if sender.name is None else _quote(sender.name)
        who = f'{{"id":{number},"name":{name}}}'
    head = f'{{"type":"message","id":{shown},"time":"{rfc3339(ms)}","from":{who},"data'
    return head.encode("utf-8")


def _escape(text: bytes) -> bytes:
    """Return a text in UTF-8 as it stands between the quotes of JSON.

    What JSON escapes is ASCII, and UTF-8 has no ASCII inside of other characters: so each byte may
    pass for a character. With real ones a single wide one would make all of them four bytes wide.
    """
    return _quote(text.decode("latin-1"))[1:-1].encode("latin-1")


def welcome(
    member: Member,
    session: str,
    members: list[Member],
    newest: str,
    after: str,
    limits: dict[str, float],
    listed: int,
    rights: dict[str, bool],
) -> bytes:
    """Return a client's first event; of the members at most `listed` are named."""
    return encode(
        {
            "type": "welcome",
            **identity(member),
            "session": session,
            "room": member.room,
            "members": [identity(other) for other in members[:listed]],
            "count": len(members),
            "newest": newest,
            "after": after,
            "limits": limits,
            "rights": rights,
        }
    )


def session(token: str) -> bytes:
    """Return what a client is to come back with from now on."""
    return encode({"type": "session", "session": token})


def presence(kind: str, member: Member, count: int, **more: Any) -> bytes:
    """Return a ``join``, ``leave`` or ``rename``."""
    return encode({"type": kind, "member": identity(member), **more, "count": count})


def count(number: int) -> bytes:
    """Return how many members there are, where they are too many to be named."""
    return encode({"type": "count", "count": number})


def members(found: Sequence[Member], ref: Ref = None) -> bytes:
    """Return the list of members."""
    event: dict[str, Any] = {
        "type": "members",
        "members": [identity(member) for member in found[:MAX_LISTED]],
        "count": len(found),
    }
    if ref is not None:
        event["ref"] = ref
    return encode(event)


def gap(reason: str, since: str, after: str) -> bytes:
    """Return that not everything could be replayed."""
    return encode({"type": "gap", "reason": reason, "since": since, "after": after})


def ack(ref: Ref, id: str, duplicate: bool) -> bytes:
    """Return that a message was accepted."""
    return encode({"type": "ack", "ref": ref, "id": id, "duplicate": duplicate})


def error(code: str, detail: str, ref: Ref = None) -> bytes:
    """Return that a frame was not understood or not carried out."""
    return encode({"type": "error", "code": code, "detail": detail, "ref": ref})


@dataclasses.dataclass(frozen=True, slots=True)
class Send:
    """Publish a message."""

    data: str | bytes
    ref: Ref
    key: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Rename:
    """Change the client's name."""

    name: str | None
    ref: Ref


@dataclasses.dataclass(frozen=True, slots=True)
class Who:
    """Ask for the list of members."""

    ref: Ref


class BadFrame(Exception):
    """A frame of the client that is answered with an ``error`` event.

    Attributes:
        code, detail, ref: those of the event.
    """

    def __init__(self, code: str, detail: str, ref: Ref = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.ref = ref


def parse(payload: bytes, max_message_bytes: int) -> Send | Rename | Who:
    """Return what a text frame of a client says.

    Args:
        payload: the frame's payload, which is UTF-8.
        max_message_bytes: the most that the data of a ``send`` may have.

    Raises:
        BadFrame: it is not understood, or too big.
    """
    try:
        text = payload.decode("utf-8")
        if len(payload) <= MAX_BESIDE_BYTES:
            event = json.loads(text)
        else:
            event = _load_long(text, 4 * (max_message_bytes // 3 + 1))
    except (ValueError, RecursionError):
        raise BadFrame("bad_json", "the frame is not JSON") from None
    if not isinstance(event, dict):
        raise BadFrame("bad_json", "the frame is not a JSON object")
    ref = _checked_ref(event)
    try:
        kind = event.get("type")
        if kind == "send":
            return _parse_send(event, ref, max_message_bytes)
        if kind == "name":
            return Rename(_checked_name(event), ref)
        if kind == "who":
            return Who(ref)
    except ValueError as problem:
        raise BadFrame("bad_field", str(problem), ref) from None
    raise BadFrame("unknown_type", "type must be send, name or who", ref)


def _load_long(text: str, max_characters: int) -> object:
    """Return the object that a long text is. Nothing becomes an object that has no place in it.

    Args:
        text: the event.
        max_characters: the most that the data of a ``send`` may have; it is cut to one more.

    Raises:
        BadFrame: beside its data there is more than ``MAX_BESIDE_BYTES``.
        ValueError: it is no JSON object.
    """
    event: dict[str, Any] = {}
    at, left = 0, MAX_BESIDE_BYTES
    has_data = False
    while True:
        near = text[at : at + left]
        is_cut = at + left < len(text)
        if event and not is_cut and _END.fullmatch(near):
            return event
        found = _NAME.match(near)
        if found is None or (found[1] == "{") == bool(event):
            raise _too_much(event) if is_cut and event else ValueError("this is no JSON object")
        name = json.loads(found[2])
        at += found.end()
        left -= found.end()
        if not has_data and name in ("data", "data_base64") and text[at : at + 1] == '"':
            has_data = True
            event[name], at = _read_text(text, at + 1, max_characters)
            continue
        try:
            event[name], size = _scan_value(near[found.end() :])
        except ValueError:
            if is_cut:
                raise _too_much(event) from None
            raise ValueError("this is no JSON value") from None
        at += size
        left -= size
        # What ends there may go on behind it: digits, and what follows a text.
        if left <= 0 and is_cut:
            raise _too_much(event)


def _read_text(text: str, at: int, max_characters: int) -> tuple[str, int]:
    """Read a string of JSON whose first character is at a place, in pieces between which others
    may run; return it, cut to one character more than it may have, and the place behind it.

    Raises:
        ValueError: it has no end, or is no string of JSON.
    """
    pieces: list[str] = []
    size = 0
    while True:
        stop = _safe_stop(text, at, at + PIECE_CHARACTERS)
        # The quote is ours, unless there is one before it.
        piece, end = _scan_text(text[at:stop] + '"', 0)
        if size <= max_characters:
            pieces.append(piece)
            size += len(piece)
        if end <= stop - at:
            return "".join(pieces)[: max_characters + 1], at + end
        if stop >= len(text):
            raise ValueError("a text without an end")
        at = stop


def _safe_stop(text: str, start: int, stop: int) -> int:
    """Return where a string of JSON may be cut in two, at most at a place: not inside an escape,
    nor between the two halves of a surrogate pair."""
    if stop >= len(text):
        return len(text)
    # The longest escape has six characters; with an even number of backslashes before it none of
    # its own is a second one.
    for place in range(stop - 1, stop - 6, -1):
        if text[place] == "\\":
            run = text[start : place + 1]
            if (len(run) - len(run.rstrip("\\"))) % 2:
                if place + (6 if text[place + 1] == "u" else 2) > stop:
                    stop = place
            break
    high = stop - 6
    if high > start and _HIGH_SURROGATE.match(text, high):
        run = text[start : high + 1]
        if (len(run) - len(run.rstrip("\\"))) % 2:
            return high
    return stop


def _too_much(event: dict[str, Any]) -> BadFrame:
    try:
        ref = _checked_ref(event)
    except BadFrame:
        ref = None
    text = f"beside its data an event has at most {MAX_BESIDE_BYTES} characters"
    return BadFrame("too_big", text, ref)


def _checked_ref(event: dict[str, Any]) -> Ref:
    ref = event.get("ref")
    if isinstance(ref, str):
        # Its length first: each character is looked at.
        fits = len(ref) <= MAX_REF_CHARACTERS and not rules.has_control(ref)
    elif isinstance(ref, int) and not isinstance(ref, bool):
        fits = abs(ref) < _REF_BOUND and len(str(ref)) <= MAX_REF_CHARACTERS
    else:
        fits = ref is None
    if not fits:
        raise BadFrame(
            "bad_field",
            f"ref must be an integer or a string of at most {MAX_REF_CHARACTERS} characters",
        )
    found: Ref = ref
    return found


def _parse_send(event: dict[str, Any], ref: Ref, max_message_bytes: int) -> Send:
    if ("data" in event) == ("data_base64" in event):
        raise ValueError("there must be exactly one of data and data_base64")
    key = event.get("key")
    if key is not None and not (isinstance(key, str) and 1 <= len(key) <= MAX_KEY_CHARACTERS):
        raise ValueError(f"key must be a string of 1 to {MAX_KEY_CHARACTERS} characters")
    too_big = BadFrame("too_big", f"a message has at most {max_message_bytes} bytes", ref)
    data: str | bytes
    # Lengths first: what is too long is not looked at.
    if "data" in event:
        data = event["data"]
        if not isinstance(data, str):
            raise ValueError("data must be a string")
        if len(data) > max_message_bytes:
            raise too_big
        try:
            size = len(data.encode("utf-8"))
        except UnicodeEncodeError:
            raise ValueError("data has half of a surrogate pair, which is no character") from None
    else:
        text = event["data_base64"]
        if not isinstance(text, str):
            raise ValueError("data_base64 must be a string")
        if len(text) > 4 * (max_message_bytes // 3 + 1):
            raise too_big
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("data_base64 is not base64") from None
        size = len(data)
    if size > max_message_bytes:
        raise too_big
    return Send(data, ref, key)


def _checked_name(event: dict[str, Any]) -> str | None:
    if "name" not in event:
        raise ValueError("there must be a name, or null")
    name = event["name"]
    if name is not None and not isinstance(name, str):
        raise ValueError("name must be a string or null")
    return rules.checked_name(name)
