"""The package's loggers: no record of theirs has a line or a control character of a stranger's.

Every logger of the package comes from ``get_logger``. It has a filter that escapes the arguments of
each record and the texts of the exceptions in its traceback, before any handler gets the record. So
a program that logs with a formatter of its own is as safe as the command, and a module that logs
need not think of it. The record's message must be a constant.

Nothing else is set up: no handler, no level, no format.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping

from .escapes import printable

# What the standard library writes between two exceptions of a chain.
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def get_logger(name: str) -> logging.Logger:
    """Return a logger of the package; the same name gives the same one. Any thread."""
    found = logging.getLogger(name)
    found.addFilter(_escape)  # once, however often it is called
    return found


def traceback_text(error: BaseException) -> str:
    """Return a traceback as the standard library writes it, each exception's text in one line."""
    parts: list[str] = []
    seen: set[int] = set()
    link = ""
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        parts.append(_one(following) + link)
        if following.__cause__ is not None:
            link, following = _CAUSE, following.__cause__
        elif not following.__suppress_context__:
            link, following = _CONTEXT, following.__context__
        else:
            break
    return "".join(reversed(parts)).removesuffix("\n")


def _one(error: BaseException) -> str:
    kind = type(error)
    is_plain = kind.__module__ in ("builtins", "__main__")
    name = kind.__qualname__ if is_plain else f"{kind.__module__}.{kind.__qualname__}"
    text = _text(error)
    frames = "".join(traceback.format_tb(error.__traceback__))
    head = f"Traceback (most recent call last):\n{frames}" if frames else ""
    return f"{head}{name}{f': {text}' if text else ''}\n"


def _text(value: object) -> str:
    """Return any object as text without a line of its own."""
    try:
        return printable(str(value))
    except Exception:  # somebody's __str__, and a log must not fail because of it
        return f"<{type(value).__name__} that cannot be shown>"


def _argument(value: object) -> object:
    # Numbers stay for %d and %f; a bool is one.
    return value if value is None or isinstance(value, (int, float)) else _text(value)


def _escape(record: logging.LogRecord) -> bool:
    if isinstance(record.args, Mapping):
        record.args = {key: _argument(value) for key, value in record.args.items()}
    elif record.args:
        record.args = tuple(map(_argument, record.args))
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = traceback_text(record.exc_info[1])  # which formatters use if it is there
    return True
