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
from ..transport.proxies import ProxyError
from ..wire import urls
from ..wire.client_events import EventReader
from . import retries
from .http import Answer, Exchanger, exchange, is_broken, why

KEY = re.compile("[!-~]{1,128}")
# An answer of a hub to a message has less than 2 KiB.
MAX_ANSWER_BYTES = 64 * 1024
# What a hub answers that may have room in a moment, or a proxy whose hub is being restarted.
BUSY_STATUSES = frozenset({429, 502, 503, 504})
# What a proxy before a hub answers that may have passed the message on.
GATEWAY_STATUSES = frozenset({502, 504})
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
    cert_file: tls.StrPath | None = None,
    key_file: tls.StrPath | None = None,
    ssl_context: ssl.SSLContext | None = None,
    timeout: float = 10.0,
    wait: float = 0.0,
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
        cert_file: for ``https`` and ``wss``: a file with a certificate in PEM form that is shown to
            a server that asks for one. It may also hold the key.
        key_file: the file with the key of that certificate, without a password.
        ssl_context: for ``https`` and ``wss``: takes the place of the four above. It is used as it
            is.
        timeout: seconds for all of it but `wait`; the lookup of a host's name has the system's own
            limit.
        wait: seconds for which it is tried again while the hub is not there yet: its name is not
            known, nobody listens, the connection is cut or silent, or the answer is 502, 503 or
            504. `timeout` then counts from the beginning of each attempt.

    Raises:
        PublishFailed: the hub has refused the message, or has not answered. If its attribute
            `maybe_delivered` is set, publish the message again with the same `key`.
        UsageError: an argument that can never work.
        TlsError: `ca_file`, `cert_file` or `key_file` cannot be used.
        TypeError: an argument of a wrong type.
    """
    for what, value in (("name", name), ("key", key), ("token", token)):
        check_type(what, value, TEXT_OR_NONE)
    check_seconds("timeout", timeout, optional=False)
    check_seconds("wait", wait, optional=False)
    if not timeout > 0:
        raise UsageError(f"timeout must be more than 0, not {timeout!r}")
    if not wait >= 0:
        raise UsageError(f"wait must be at least 0, not {wait!r}")
    parts = urls.split(url)
    context = tls.context_for(
        url, ca_file, insecure, cert_file=cert_file, key_file=key_file, ssl_context=ssl_context
    )
    body, content_type = _encode(data)
    if key is None:
        key = uuid.uuid4().hex
    elif not KEY.fullmatch(key):
        raise UsageError("key must be 1 to 128 visible ASCII characters")
    headers = {
        "Content-Type": content_type,
        "Idempotency-Key": key,
        "Connection": "close",
        **bearer(token),
    }
    if name is not None:
        parts = urls.with_parameters(parts, {"name": name})
    waiting = retries.Waiting(wait)
    was_sent = False
    while True:
        try:
            return _publish_once(parts, headers, body, context, min(timeout, MAX_SECONDS), was_sent)
        except PublishFailed as error:
            was_sent = error.maybe_delivered
            pause = waiting.pause(error)
            if pause is None:
                raise
            logger.info("%s; once more in %.2f s", error, pause)
            time.sleep(pause)


def _publish_once(
    parts: urllib.parse.SplitResult,
    headers: dict[str, str],
    body: bytes,
    context: ssl.SSLContext | None,
    timeout: float,
    was_sent: bool,
) -> str:
    """Publish a message and return its id; twice, if the connection breaks.

    Args:
        was_sent: whether that was tried before, and the message may have been delivered.
    """
    shown = _shown(parts)
    deadline = Deadline(timeout)
    target = urls.target(parts)
    exchanger = Exchanger(parts, context)
    is_last = False
    while True:
        try:
            answer = exchanger.exchange("POST", target, headers, body, deadline, MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            was_sent = was_sent or exchanger.was_sent
            if is_broken(error) and not is_last and deadline.left():
                is_last = True
                continue
            raise _unanswered(error, shown, timeout, was_sent) from error
        finally:
            exchanger.close()
        return _read_answer(answer, shown, was_sent)


# -- Many messages -----------------------------------------------------------------------------


class Poster:
    """Publishes messages to one room, one after the other. Not thread-safe; every method blocks.

    Args:
        url: the room's address, as for `publish`.
        name: what others see as the sender.
        token: shown as ``Authorization: Bearer``; None for the one in the URL, if there is one.
        headers: more header lines.
        trust: ``ca_file``, ``insecure``, ``cert_file`` and ``key_file``, as for `publish`.
        timeout: seconds for each message.
        wait: seconds for a hub that is not there yet at the first message, as for `publish`.
        reconnect: make a broken connection anew, as long as there is time.

    Raises:
        UsageError, TlsError: an argument that cannot work.

    Attributes:
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
        wait: float = 0.0,
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
        self._wait = wait
        self._waiting: retries.Waiting | None = None  # from the first message on
        self._reconnect = reconnect
        self.untrusted = False
        # Of the last message: sent without an answer that tells what became of it; answered at the
        # last attempt.
        self._was_sent = self._was_answered = False
        self._is_refused = False  # for the certificate that we show

    def post(self, data: str | bytes, key: str) -> str:
        """Publish a message and return its id.

        Raises:
            PublishFailed: the hub has refused it, or not answered in time.
        """
        deadline = Deadline(self._timeout)
        attempts = 0
        self._was_sent = False
        if self._waiting is None:
            self._waiting = retries.Waiting(self._wait)
        while True:
            try:
                found = self._post_once(data, key, deadline)
                self._waiting = retries.Waiting(0)  # the hub is there
                return found
            except PublishFailed as error:
                pause = self._waiting.pause(error)
                is_awaited = pause is not None
                if pause is None:
                    pause = self._pause_before_next(error, attempts)
                    left = deadline.left()
                    assert left is not None
                    if pause is None or pause >= left:
                        raise
                logger.info("%s: %s; once more in %.2f s", self._shown, error.detail, pause)
                time.sleep(pause)
                if is_awaited:
                    deadline = Deadline(self._timeout)
                else:
                    attempts += 1

    def close(self) -> None:
        """Close the connection."""
        self._exchanger.close()

    def _post_once(self, data: str | bytes, key: str, deadline: Deadline) -> str:
        body, content_type = _encode(data)
        chosen = {name.lower() for name in self._headers}
        headers = {**self._headers, "Idempotency-Key": key}
        if "content-type" not in chosen:
            headers["Content-Type"] = content_type
        self.untrusted = self._is_refused = self._was_answered = False
        try:
            answer = self._exchanger.exchange(
                "POST", self._target, headers, body, deadline, MAX_ANSWER_BYTES
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._was_sent = self._was_sent or self._exchanger.was_sent
            self.untrusted = tls.is_untrusted(error)
            self._is_refused = tls.is_refused(error)
            raise _unanswered(error, self._shown, self._timeout, self._was_sent) from error
        self._was_answered = True
        self._was_sent = self._was_sent or answer.status in GATEWAY_STATUSES
        return _read_answer(answer, self._shown, self._was_sent)

    def _pause_before_next(self, error: PublishFailed, attempts: int) -> float | None:
        """Return the seconds until a message is sent once more, None if it is not."""
        if self._was_answered:
            if error.status not in BUSY_STATUSES:
                return None
            wished = error.retry_after or 0.0
            return retries.back_off(attempts, wished + MAX_PAUSE_SECONDS, random.random(), wished)
        if not self._exchanger.connected or self.untrusted or self._is_refused:
            return None
        if not self._exchanger.is_fresh:
            return 0.0  # it was closed because nothing was said for a while
        if not self._reconnect:
            return None
        return retries.back_off(attempts, MAX_PAUSE_SECONDS, random.random())


# -- A message and its answer ------------------------------------------------------------------


def _encode(data: str | bytes) -> tuple[bytes, str]:
    """Return a message's bytes and its media type."""
    if isinstance(data, bytes):
        return data, "application/octet-stream"
    if not isinstance(data, str):
        raise TypeError(f"data must be str or bytes, not {type(data).__name__}")
    return utf8("data", data), "text/plain; charset=utf-8"


def _read_answer(answer: Answer, shown: str, was_sent: bool) -> str:
    """Return the id in an answer.

    Args:
        shown: what errors call the address.
        was_sent: whether the message was sent before, without an answer.

    Raises:
        PublishFailed: it has none; the text is what the hub says.
    """
    wait = None
    if answer.status == 200:
        found = answer.fields().get("id")
        if isinstance(found, str):
            return found
        detail = "this is no hub: its answer has no id"
    else:
        detail = answer.detail()
        wait = retries.retry_after(answer.headers["Retry-After"])
    raise PublishFailed(
        detail,
        answer.status,
        wait,
        message=f"cannot publish to {shown}: {detail}",
        maybe_delivered=was_sent or answer.status in GATEWAY_STATUSES,
    )


def _unanswered(error: Exception, shown: str, timeout: float, was_sent: bool) -> PublishFailed:
    """Return the error for a message that got no answer from a hub.

    Args:
        error: why there is none.
        shown: what errors call the address.
        timeout: how long was waited.
        was_sent: whether the message was sent.
    """
    detail = why(error, timeout)
    return PublishFailed(
        detail,
        error.status if isinstance(error, ProxyError) else None,
        message=f"cannot publish to {shown}: {detail}",
        maybe_delivered=was_sent,
    )


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
