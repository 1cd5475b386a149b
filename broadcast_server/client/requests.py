"""Requests to a hub over HTTP: `publish`, many messages over one connection, old messages.

There is no client here, no thread, and nothing that stays. A program that publishes this way is not
a member of the room, and does not need the right to read.

Each message has a key, by which the hub recognizes it. So it may safely be sent once more when a
connection breaks before the answer: `publish` does so once. A `Poster` does so as long as there is
time, and also when the hub is busy (429, 503).
"""

from __future__ import annotations

import http.client
import random
import re
import ssl
import time
import urllib.parse
import uuid
from collections.abc import Mapping
from typing import Any

from ..arguments import TEXT_OR_NONE, check_seconds, check_type, utf8
from ..errors import ProtocolError, PublishFailed, UsageError
from ..messages import Message
from ..records import get_logger
from ..rules import MAX_SECONDS, bearer
from ..transport import tls
from ..transport.deadlines import Deadline
from ..wire import urls
from ..wire.client_events import EventReader
from . import retries
from .http import Answer, Exchanger, exchange, is_broken, why

KEY = re.compile("[!-~]{1,128}")
# An answer of a hub to a message has less than 2 KiB.
MAX_ANSWER_BYTES = 64 * 1024
# What a hub answers that may have room in a moment, or a proxy whose hub is being restarted.
BUSY_STATUSES = frozenset({429, 502, 503, 504})
# The longest pause that nobody has asked for.
MAX_PAUSE_SECONDS = 5.0

FETCH_SECONDS = 10.0
# The most that is taken of an answer with old messages, and of one message in it.
MAX_HISTORY_BYTES = 16 * 1024 * 1024
MAX_MESSAGE_BYTES = 16 * 1024 * 1024

logger = get_logger("broadcast_server.client")


# -- One message -------------------------------------------------------------------------------


def publish(
    url: str,
    data: str | bytes,
    *,
    name: str | None = None,
    key: str | None = None,
    token: str | None = None,
    ca_file: tls.StrPath | None = None,
    insecure: bool = False,
    timeout: float = 10.0,
) -> str:
    """Publish one message to a room and return its id. Any thread; blocks until the hub answers.

    Args:
        url: the room's address, ``http``, ``https``, ``ws`` or ``wss``; a query goes along.
        data: text (str) or binary data (bytes).
        name: what others see as the sender; takes the place of one in the URL.
        key: with the same key the message may be published again and is delivered once, within
            ten minutes; another message with it is refused (422). 1 to 128 visible ASCII
            characters. A new one if it is not given.
        token: sent as ``Authorization: Bearer``.
        ca_file: for ``https`` and ``wss``: a file of certificates in PEM form; only servers that
            have one of them, or one from them, are trusted, instead of the system's choice.
        insecure: trust every server, whoever it is; a warning is logged.
        timeout: seconds for all of it; the lookup of a host's name has the system's own limit.

    Raises:
        PublishFailed: the hub has refused the message, or has not answered; in the latter case it
            may have been delivered: publish it again with the same `key`.
        UsageError: an argument that can never work.
        TlsError: `ca_file` cannot be used.
        TypeError: an argument of a wrong type.
    """
    for what, value in (("name", name), ("key", key), ("token", token)):
        check_type(what, value, TEXT_OR_NONE)
    check_seconds("timeout", timeout, optional=False)
    if not timeout > 0:
        raise UsageError(f"timeout must be more than 0, not {timeout!r}")
    parts = urls.split(url)
    context = tls.context_for(url, ca_file, insecure)
    body, content_type = _encode(data)
    if key is None:
        key = uuid.uuid4().hex
    elif not KEY.fullmatch(key):
        raise UsageError("key must be 1 to 128 visible ASCII characters")
    headers = {
        "Content-Type": content_type,
        "Idempotency-Key": key,
        **bearer(token),
    }
    if name is not None:
        parts = urls.with_parameters(parts, {"name": name})
    shown = _shown(parts)
    timeout = min(timeout, MAX_SECONDS)
    deadline = Deadline(timeout)
    is_last = False
    while True:
        try:
            answer = exchange(
                parts,
                "POST",
                urls.target(parts),
                headers,
                body,
                deadline,
                MAX_ANSWER_BYTES,
                context,
            )
            return _read_answer(answer)
        except PublishFailed as error:
            text = f"cannot publish to {shown}: {error.detail}"
            raise PublishFailed(
                error.detail, error.status, error.retry_after, message=text
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if is_broken(error) and not is_last and deadline.left():
                is_last = True
                continue
            detail = why(error, timeout)
            raise PublishFailed(detail, message=f"cannot publish to {shown}: {detail}") from error


# -- Many messages -----------------------------------------------------------------------------


class Poster:
    """Publishes messages to one room, one after the other. Not thread-safe; every method blocks.

    Args:
        url: the room's address, as for `publish`.
        name: what others see as the sender.
        token: shown as ``Authorization: Bearer``; None for the one in the URL, if there is one.
        headers: more header lines.
        trust: ``ca_file`` and ``insecure``, as for `publish`.
        timeout: seconds for each message.
        reconnect: make a broken connection anew, as long as there is time.

    Raises:
        UsageError, TlsError: an argument that cannot work.

    Attributes:
        lost: whether the hub was there, and it is not known what has become of the last message.
        untrusted: whether there is no connection because the hub's certificate is not trusted.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None,
        token: str | None,
        headers: Mapping[str, str],
        trust: Mapping[str, Any],
        timeout: float,
        reconnect: bool,
    ) -> None:
        parts = urls.split(url)
        if name is not None:
            parts = urls.with_parameters(parts, {"name": name})
        if token is not None and any(key.lower() == "authorization" for key in headers):
            raise UsageError("give a token or an Authorization header, not both")
        context = tls.context_for(url, **trust)
        self._exchanger = Exchanger(parts, context)
        self._target = urls.target(parts)
        self._shown = _shown(parts)
        self._headers = {**bearer(token), **headers}
        self._timeout = timeout
        self._reconnect = reconnect
        self.lost = False
        self.untrusted = False

    def post(self, text: str, key: str) -> str:
        """Publish a message and return its id.

        Raises:
            PublishFailed: the hub has refused it, or not answered in time; `lost` tells which.
        """
        deadline = Deadline(self._timeout)
        attempts = 0
        while True:
            try:
                return self._post_once(text, key, deadline)
            except PublishFailed as error:
                pause = self._pause_before_next(error, attempts)
                left = deadline.left()
                assert left is not None
                if pause is None or pause >= left:
                    raise
                logger.info("%s: %s; once more in %.2f s", self._shown, error.detail, pause)
                time.sleep(pause)
                attempts += 1

    def close(self) -> None:
        """Close the connection."""
        self._exchanger.close()

    def _post_once(self, text: str, key: str, deadline: Deadline) -> str:
        body, content_type = _encode(text)
        chosen = {name.lower() for name in self._headers}
        headers = {**self._headers, "Idempotency-Key": key}
        if "content-type" not in chosen:
            headers["Content-Type"] = content_type
        self.lost = self.untrusted = False
        try:
            answer = self._exchanger.exchange(
                "POST", self._target, headers, body, deadline, MAX_ANSWER_BYTES
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.lost = self._exchanger.connected
            self.untrusted = tls.is_untrusted(error)
            raise self._failed(why(error, self._timeout)) from error
        try:
            return _read_answer(answer)
        except PublishFailed as error:
            raise self._failed(error.detail, error.status, error.retry_after) from None

    def _pause_before_next(self, error: PublishFailed, attempts: int) -> float | None:
        """Return the seconds until a message is sent once more, None if it is not."""
        if error.status in BUSY_STATUSES:
            wished = error.retry_after or 0.0
            return retries.back_off(attempts, wished + MAX_PAUSE_SECONDS, random.random(), wished)
        if error.status is not None or not self.lost or self.untrusted:
            return None
        if not self._exchanger.is_fresh:
            return 0.0  # it was closed because nothing was said for a while
        if not self._reconnect:
            return None
        return retries.back_off(attempts, MAX_PAUSE_SECONDS, random.random())

    def _failed(
        self, detail: str, status: int | None = None, retry_after: float | None = None
    ) -> PublishFailed:
        text = f"cannot publish to {self._shown}: {detail}"
        return PublishFailed(detail, status, retry_after, message=text)


# -- A message and its answer ------------------------------------------------------------------


def _encode(data: str | bytes) -> tuple[bytes, str]:
    """Return a message's bytes and its media type."""
    if isinstance(data, bytes):
        return data, "application/octet-stream"
    if not isinstance(data, str):
        raise TypeError(f"data must be str or bytes, not {type(data).__name__}")
    return utf8("data", data), "text/plain; charset=utf-8"


def _read_answer(answer: Answer) -> str:
    """Return the id in an answer; raise what the hub says if there is none."""
    if answer.status != 200:
        wait = retries.retry_after(answer.headers["Retry-After"])
        raise PublishFailed(answer.detail(), answer.status, wait)
    found = answer.fields().get("id")
    if not isinstance(found, str):
        raise PublishFailed("this is no hub: its answer has no id", answer.status)
    return found


def _shown(parts: urllib.parse.SplitResult) -> str:
    """Return an address for an error's text, without the query, which may have a secret in it."""
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


# -- Old messages ------------------------------------------------------------------------------


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
    wanted = {**headers, "Accept": "application/json"}
    deadline = Deadline(FETCH_SECONDS)
    query, left = f"history={count}", MAX_HISTORY_BYTES
    found: list[Message] = []
    while True:
        target = urls.target(parts._replace(query=query))
        try:
            answer = exchange(parts, "GET", target, wanted, None, deadline, left, context)
        # All the ways in which there may be no whole answer.
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise LookupError(why(error, FETCH_SECONDS)) from None
        if answer.status != 200:
            raise LookupError(answer.detail())
        if len(answer.body) == left:
            raise LookupError("they are too large to be had at once; ask for fewer")
        left -= len(answer.body)
        fields = answer.fields()
        found += _read_messages(fields, room)
        # The hub bounds its answers, and says from where to go on.
        after = fields.get("after")
        if fields.get("more") is not True or not (isinstance(after, str) and len(after) <= 64):
            return found[-count:]
        query = "since=" + urllib.parse.quote(after, safe="")


def _read_messages(fields: dict[str, Any], room: str) -> list[Message]:
    """Return the messages in an answer.

    Raises:
        LookupError: it has none, not even an empty list of them.
    """
    reader = EventReader(MAX_MESSAGE_BYTES)
    reader.room = room
    try:
        found = [reader.understand(event) for event in fields["messages"]]
    except (KeyError, TypeError, ProtocolError):
        raise LookupError("this is no hub: its answer has no messages") from None
    return [message for message in found if isinstance(message, Message)]
