"""Publish one message by one HTTP request: no client, no thread, nothing that stays.

Each message has a key, by which the hub knows it again. So when a connection breaks before the
answer, the message may safely be sent once more.
"""

from __future__ import annotations

import http.client
import re
import urllib.parse
import uuid

from ..errors import PublishFailed, UsageError
from ..rules import MAX_SECONDS, bearer
from ..transport import tls
from ..transport.deadlines import Deadline
from ..wire import urls
from . import http as exchanges
from . import retries

KEY = re.compile("[!-~]{1,128}")
# An answer of a hub has less than 2 KiB.
MAX_ANSWER_BYTES = 64 * 1024


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
            ten minutes; 1 to 128 visible ASCII characters. A new one if it is not given.
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
    for what, value in (("url", url), ("name", name), ("key", key), ("token", token)):
        if not isinstance(value, str) and (value is not None or what == "url"):
            raise TypeError(f"{what} must be str, not {type(value).__name__}")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if not timeout > 0:
        raise UsageError(f"timeout must be more than 0, not {timeout!r}")
    parts = urls.split(url)
    context = tls.context_for(url, ca_file, insecure)
    body, content_type = encode(data)
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
    # The query may have a secret in it.
    shown = urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    timeout = min(timeout, MAX_SECONDS)
    deadline = Deadline(timeout)
    is_last = False
    while True:
        try:
            answer = exchanges.exchange(
                parts,
                "POST",
                urls.target(parts),
                headers,
                body,
                deadline,
                MAX_ANSWER_BYTES,
                context,
            )
            return read_answer(answer)
        except PublishFailed as error:
            text = f"cannot publish to {shown}: {error.detail}"
            raise PublishFailed(
                error.detail, error.status, error.retry_after, message=text
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if exchanges.is_broken(error) and not is_last and deadline.left():
                is_last = True
                continue
            why = exchanges.why(error, timeout)
            raise PublishFailed(why, message=f"cannot publish to {shown}: {why}") from error


# -- The request -------------------------------------------------------------------------------


def encode(data: str | bytes) -> tuple[bytes, str]:
    """Return a message's bytes and its media type."""
    if isinstance(data, bytes):
        return data, "application/octet-stream"
    if not isinstance(data, str):
        raise TypeError(f"a message is str or bytes, not {type(data).__name__}")
    try:
        return data.encode("utf-8"), "text/plain; charset=utf-8"
    except UnicodeEncodeError:
        raise UsageError("the text has lone surrogates, which UTF-8 cannot say") from None


# -- The answer --------------------------------------------------------------------------------


def read_answer(answer: exchanges.Answer) -> str:
    """Return the id in an answer; raise what the hub says if there is none."""
    if answer.status != 200:
        wait = retries.retry_after(answer.headers["Retry-After"])
        raise PublishFailed(answer.detail(), answer.status, wait)
    found = answer.fields().get("id")
    if not isinstance(found, str):
        raise PublishFailed("this is no hub: its answer has no id", answer.status)
    return found
