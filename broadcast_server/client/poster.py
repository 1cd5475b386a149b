"""Publish messages one after the other over one HTTP connection, each until the hub has it.

Each message has a key, by which the hub knows it again: so it may be sent once more whenever no
answer has come. That, and a hub that is busy (429, 503), is what one message's time is for. Who
publishes this way is no member of the room: nobody is told, and the right to read is not needed.
"""

from __future__ import annotations

import http.client
import logging
import random
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

from ..errors import PublishFailed, UsageError
from ..rules import bearer
from ..transport import tls
from ..transport.deadlines import Deadline
from ..wire import urls
from . import http as exchanges
from . import publisher, retries

# What a hub answers that may have room in a moment, or a proxy whose hub is being started anew.
BUSY_STATUSES = frozenset({429, 502, 503, 504})
# The longest pause that nobody has asked for.
MAX_PAUSE_SECONDS = 5.0

logger = logging.getLogger("broadcast_server.client")


class Poster:
    """Publishes to one room. Not thread-safe; every method blocks.

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
        self._exchanger = exchanges.Exchanger(parts, context)
        self._target = urls.target(parts)
        # The query may have a secret in it.
        self._shown = urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
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
        body, content_type = publisher.encode(text)
        chosen = {name.lower() for name in self._headers}
        headers = {**self._headers, "Idempotency-Key": key}
        if "content-type" not in chosen:
            headers["Content-Type"] = content_type
        self.lost = self.untrusted = False
        try:
            answer = self._exchanger.exchange(
                "POST", self._target, headers, body, deadline, publisher.MAX_ANSWER_BYTES
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.lost = self._exchanger.connected
            self.untrusted = tls.is_untrusted(error)
            raise self._failed(exchanges.why(error, self._timeout)) from error
        try:
            return publisher.read_answer(answer)
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
        self, why: str, status: int | None = None, retry_after: float | None = None
    ) -> PublishFailed:
        text = f"cannot publish to {self._shown}: {why}"
        return PublishFailed(why, status, retry_after, message=text)
