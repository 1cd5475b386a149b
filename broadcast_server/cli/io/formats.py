"""What ``listen`` writes of a message. Pure; any thread.

``text`` is one line whatever the message is, and nothing in it steers a terminal; ``json`` is the
event of docs/reference/protocol.md with the room added, in ASCII; ``raw`` is the message itself.
"""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

from ...escapes import printable
from ...messages import Message


def nameless(id: str | None) -> str:
    """Return what a user sees of somebody who has no name, as the web page shows it; who has
    published over HTTP has no id either."""
    return f"guest {printable(id)}" if id else "guest"


def is_nameless(name: str) -> bool:
    """Tell whether a name that somebody has chosen looks like none."""
    return name == "guest" or name.startswith("guest ")


def encode(form: str, message: Message) -> bytes:
    """Return a message in the form of that name."""
    return _FORMS[form](message)


def rfc3339(moment: datetime.datetime) -> str:
    """Return a time in UTC as the hub writes it."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _text(message: Message) -> bytes:
    if isinstance(message.data, bytes):
        return f"[binary message, {len(message.data)} bytes]\n".encode()
    line = "\t".join(printable(part) for part in message.data.split("\t"))
    return line.encode() + b"\n"


def _json(message: Message) -> bytes:
    sender = message.sender
    event: dict[str, Any] = {
        "type": "message",
        "id": message.id,
        "room": message.room,
        "time": rfc3339(message.time),
        "from": None if sender is None else {"id": sender.id or None, "name": sender.name},
    }
    if isinstance(message.data, str):
        event["data"] = message.data
    else:
        event["data_base64"] = base64.b64encode(message.data).decode()
    return json.dumps(event).encode() + b"\n"


def _raw(message: Message) -> bytes:
    return message.data if isinstance(message.data, bytes) else message.data.encode() + b"\n"


_FORMS = {"text": _text, "json": _json, "raw": _raw}
