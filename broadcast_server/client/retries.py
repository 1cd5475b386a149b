"""When to try again: pauses that keep many clients apart, and what a server asks for.

A hub that starts anew is met by all of its clients at once, and one that is full refuses them with
a ``Retry-After``. So the pauses grow, are drawn at random, and are never shorter than the hub
wishes, up to the limit that the client's own user has set.
"""

from __future__ import annotations

import email.utils
import time

from ..rules import MAX_SECONDS

# The pause before the first attempt to come back is up to this long, before each further one up to
# twice as long.
FIRST_DELAY_SECONDS = 0.5


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
