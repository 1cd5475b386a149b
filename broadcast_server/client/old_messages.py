"""The last messages of a room, asked for by one HTTP request: for who is a client of it already."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping

from ..errors import ProtocolError
from ..messages import Message
from ..transport.deadlines import Deadline
from ..wire import urls
from ..wire.client_events import EventReader
from . import http as exchanges

FETCH_SECONDS = 10.0
# The most that is taken of an answer, and of one message in it.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_MESSAGE_BYTES = 16 * 1024 * 1024


def fetch_last(
    url: str,
    room: str,
    count: int,
    headers: Mapping[str, str],
    context: ssl.SSLContext | None = None,
) -> list[Message]:
    """Return the last messages of a room, oldest first, as many as the hub gives. Any thread.

    Args:
        url: the room's address.
        room: its path, for the messages.
        count: how many are wanted.
        headers: what the hub wants to see: a token, mostly.
        context: for TLS; None for what the system trusts.

    Raises:
        LookupError: there are none; the text says why.
    """
    parts = urls.split(url, urls.WEBSOCKET)
    target = urls.target(parts._replace(query=f"history={count}"))
    wanted = {**headers, "Accept": "application/json"}
    deadline = Deadline(FETCH_SECONDS)
    try:
        answer = exchanges.exchange(
            parts, "GET", target, wanted, None, deadline, MAX_ANSWER_BYTES, context
        )
    # All the ways in which there may be no whole answer.
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise LookupError(exchanges.why(error, FETCH_SECONDS)) from None
    if answer.status != 200:
        raise LookupError(answer.detail())
    if len(answer.body) == MAX_ANSWER_BYTES:
        raise LookupError("they are too large to be had at once; ask for fewer")
    reader = EventReader(MAX_MESSAGE_BYTES)
    reader.room = room
    try:
        found = [reader.read(json.dumps(event).encode()) for event in answer.fields()["messages"]]
    except (KeyError, TypeError, ProtocolError):
        raise LookupError("this is no hub: its answer has no messages") from None
    return [message for message in found if isinstance(message, Message)]
