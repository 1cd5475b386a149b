"""When to try again: pauses that keep many clients apart, what a server asks for, and which
failures say that a hub is not there yet.

A hub that starts anew is met by all of its clients at once, and one that is full refuses them with
a ``Retry-After``. So the pauses grow, are drawn at random, and are never shorter than the hub
wishes, up to the limit that the client's own user has set.

A hub that is not there yet, because it or its machine still starts, may be waited for: `Waiting`.
"""

from __future__ import annotations

import email.utils
import errno
import http.client
import random
import socket
import ssl
import time

from ..errors import ConnectFailed, ConnectionClosed, PublishFailed
from ..rules import MAX_SECONDS
from ..transport.deadlines import Deadline
from ..transport.proxies import ProxyError
from ..wire import frames

# The pause before the first attempt to come back is up to this long, before each further one up to
# twice as long.
FIRST_DELAY_SECONDS = 0.5
# The longest pause while a hub that is not there yet is waited for, unless it asks for more.
WAITING_PAUSE_SECONDS = 2.0
# Ends of a connection after which a client comes back (docs/reference/protocol.md).
RETURN_CODES = frozenset({1001, frames.ABNORMAL, 1011, 1012, 1013})
# What a proxy answers whose hub is not there, or a hub that takes nobody at the moment.
ABSENT_STATUSES = frozenset({502, 503, 504})
# What the system says where nobody listens, or no way leads there yet.
_ABSENT_ERRNOS = frozenset(
    {
        errno.EADDRNOTAVAIL,  # of ::1, where there is no IPv6
        errno.EAFNOSUPPORT,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ETIMEDOUT,
    }
)
# A connection that was cut, a time-out, a name that is not known.
_ABSENT_ERRORS = (
    TimeoutError,
    socket.gaierror,
    http.client.IncompleteRead,
    http.client.RemoteDisconnected,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


def back_off(attempts: int, limit: float, chance: float, at_least: float = 0.0) -> float:
    """Return the seconds to wait before the next attempt: exponential, with full jitter.

    Args:
        attempts: how many have gone before.
        limit: the longest pause.
        chance: a random number from 0 to 1, so that not all clients come back at once.
        at_least: what the server asks for; the random part comes on top of it.
    """
    drawn = min(limit, FIRST_DELAY_SECONDS * 2.0 ** min(attempts, 32)) * chance
    return min(limit, at_least + drawn)


def retry_after(text: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for (RFC 9110 §10.2.3).

    Args:
        text: the field's value, a number of seconds or a date; None if there is no such field.

    Returns:
        Seconds from 0 to ``MAX_SECONDS``; None if there is no such field, or nonsense in it.
    """
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_SECONDS)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, moment - time.time()), MAX_SECONDS)


def is_absent(error: ConnectFailed | PublishFailed) -> bool:
    """Tell whether a failure says that the hub is not there yet, so that waiting may help: its name
    is not known, nobody listens, no way leads there, the connection is cut or silent, or a proxy in
    front says so. Refusals and certificates that are not valid are final."""
    if error.status is not None:
        return error.status in ABSENT_STATUSES
    cause = error.__cause__
    if isinstance(cause, ProxyError) and cause.status is not None:
        return cause.status in ABSENT_STATUSES
    while isinstance(cause, (ConnectionError, ProxyError)) and cause.__cause__ is not None:
        cause = cause.__cause__  # what is behind the words for it
    if isinstance(cause, _ABSENT_ERRORS):
        return True
    if isinstance(cause, ConnectionClosed):
        return cause.code in RETURN_CODES
    return isinstance(cause, OSError) and cause.errno in _ABSENT_ERRNOS


class Waiting:
    """Waits for a hub that is not there yet. For one thread; the time begins now.

    Args:
        seconds: how long; 0 for not at all.
    """

    def __init__(self, seconds: float) -> None:
        self._deadline = Deadline(seconds)
        self._attempts = 0

    def pause(self, error: ConnectFailed | PublishFailed) -> float | None:
        """Return the seconds until the next attempt, None if there is none.

        The last attempt comes when the time ends, whatever the hub asks for.

        Args:
            error: how the last one has failed.
        """
        left = self._deadline.left()
        if not left or not is_absent(error):
            return None
        wished = error.retry_after or 0.0
        limit = WAITING_PAUSE_SECONDS + wished
        self._attempts += 1
        return min(left, back_off(self._attempts - 1, limit, random.random(), wished))
