"""What a client is given by its user, checked before anything is tried; no I/O.

What can never work is told at once, to who wrote it. Otherwise it would fail later, on the client's
own thread, or be refused by the hub when a lost connection is taken up again, which is the end.
"""

from __future__ import annotations

from .. import rules
from ..errors import UsageError
from ..messages import parse_id

MAX_KEY_CHARACTERS = 128


def checked_name(name: str | None) -> str | None:
    """Return what a client wants to be called; the rules are the hub's.

    Raises:
        UsageError: no hub takes it.
    """
    try:
        rules.checked_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return name


def checked_key(key: str | None) -> str | None:
    """Return a key of a message.

    Raises:
        UsageError: it is none.
    """
    if key is not None and not 0 < len(key) <= MAX_KEY_CHARACTERS:
        raise UsageError(f"a key has 1 to {MAX_KEY_CHARACTERS} characters")
    return key


def checked_id(since: str | None) -> str | None:
    """Return the id of a message.

    Raises:
        UsageError: it is none.
    """
    try:
        if since is not None:
            parse_id(since)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return since


def checked_count(what: str, count: int, at_least: int) -> int:
    """Return a whole number.

    Raises:
        UsageError: it is none, or too small.
    """
    if type(count) is not int or count < at_least:
        raise UsageError(f"{what} must be a whole number from {at_least}, not {count!r}")
    return count


def checked_seconds(what: str, seconds: float) -> float:
    """Return a time; infinity is one.

    Raises:
        UsageError: it is less than nothing, or no number.
    """
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not seconds >= 0:  # nor is NaN
        raise UsageError(f"{what} must be a number of seconds from 0, not {seconds!r}")
    return seconds
