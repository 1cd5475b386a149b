"""What a client is given by its user, checked before anything is tried; no I/O.

What can never work is told at once, to who wrote it. Otherwise it would fail later, on the client's
own thread, or be refused by the hub when a lost connection is taken up again, which is the end.
"""

from __future__ import annotations

from .. import arguments, rules
from ..errors import UsageError
from ..messages import parse_id

MAX_KEY_CHARACTERS = 128


def checked_name(name: str | None) -> str | None:
    """Return what a client wants to be called; the rules are the hub's.

    Raises:
        UsageError: no hub takes it.
        TypeError: it is no text.
    """
    arguments.check_type("name", name, arguments.TEXT_OR_NONE)
    arguments.utf8("name", name or "")
    try:
        rules.checked_name(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return name


def checked_key(key: str | None) -> str | None:
    """Return a key of a message.

    Raises:
        UsageError: it is none.
        TypeError: it is no text.
    """
    arguments.check_type("key", key, arguments.TEXT_OR_NONE)
    if key is not None and not 0 < len(key) <= MAX_KEY_CHARACTERS:
        raise UsageError(f"a key has 1 to {MAX_KEY_CHARACTERS} characters")
    arguments.utf8("key", key or "")
    return key


def checked_id(since: str | None) -> str | None:
    """Return the id of a message.

    Raises:
        UsageError: it is none.
        TypeError: it is no text.
    """
    arguments.check_type("since", since, arguments.TEXT_OR_NONE)
    try:
        if since is not None:
            parse_id(since)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return since


def checked_count(what: str, count: int, at_least: int) -> int:
    """Return a whole number.

    Raises:
        UsageError: it is too small.
        TypeError: it is none.
    """
    arguments.check_type(what, count, (int,))
    if count < at_least:
        raise UsageError(f"{what} must be a whole number from {at_least}, not {count!r}")
    return count


def checked_seconds(what: str, seconds: float) -> float:
    """Return a time; infinity is one.

    Raises:
        UsageError: it is less than nothing.
        TypeError: it is no number.
    """
    arguments.check_seconds(what, seconds, optional=False)
    if seconds < 0:
        raise UsageError(f"{what} must be a number of seconds from 0, not {seconds!r}")
    return seconds
