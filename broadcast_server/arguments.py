"""The types of what a program gives: checked at the call, not where it is used.

A value of a wrong type is a ``TypeError``, one that can never work a ``UsageError``. What a value
must be beside its type is checked where it belongs: ``settings.py``, ``client/arguments.py``.
"""

from __future__ import annotations

from typing import Any

from .errors import UsageError

TEXT = (str,)
TEXT_OR_NONE = (str, None)
FLAG = (bool,)


def check_type(what: str, value: object, kinds: tuple[type[Any] | None, ...]) -> None:
    """Check the type of an argument.

    Args:
        what: what it is called.
        value: its value.
        kinds: the types that it may have; None for the value None. A bool is no number.

    Raises:
        TypeError: it has another one.
    """
    for kind in kinds:
        if kind is None:
            if value is None:
                return
        elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return
    names = " or ".join("None" if kind is None else kind.__name__ for kind in kinds)
    raise TypeError(f"{what} must be {names}, not {kind_of(value)}")


def check_callable(what: str, value: object) -> None:
    """Check a callback; None is none.

    Raises:
        TypeError: it cannot be called.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{what} must be callable or None, not {kind_of(value)}")


def check_seconds(what: str, value: object, *, optional: bool = True) -> None:
    """Check a number of seconds.

    Args:
        what: what it is called.
        value: its value.
        optional: it may be None.

    Raises:
        TypeError: it is no number.
        UsageError: it is NaN.
    """
    if value is None and optional:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        kinds = "a number of seconds or None" if optional else "a number of seconds"
        raise TypeError(f"{what} must be {kinds}, not {kind_of(value)}")
    if value != value:
        raise UsageError(f"{what} must be a number of seconds, not nan")


def kind_of(value: object) -> str:
    """Return what an error calls the type of a value."""
    return "None" if value is None else type(value).__name__


def utf8(what: str, text: str) -> bytes:
    """Return a text as it goes over the wire.

    Raises:
        UsageError: it has half of a surrogate pair.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{what} has a lone surrogate, which UTF-8 cannot carry") from None
