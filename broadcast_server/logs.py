"""How the command writes its log: one record a line, for people or for machines.

Only the command configures logging; the library never does.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

# What str.isprintable() takes for a letter, a mark or a symbol, and nobody sees.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0]")


def printable(text: str) -> str:
    """Return `text` with every character escaped that could steer a terminal or forge a line.

    Among them are those that turn the direction of writing and those that have no width. Letters of
    every script stay as they are.
    """
    if text.isprintable() and not _INVISIBLE.search(text):
        return text
    return "".join(
        ascii(c)[1:-1] if not c.isprintable() or _INVISIBLE.match(c) else c for c in text
    )


class TextFormatter(logging.Formatter):
    """``2026-11-24T09:30:00.123Z INFO broadcast_server.hub: text``, a traceback below it if any."""

    def format(self, record: logging.LogRecord) -> str:
        name, message = record.name, printable(record.getMessage())
        line = f"{_time(record)} {record.levelname} {name}: {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, traceback, and what ``extra`` gave."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS:
                fields[name] = value
        return json.dumps(fields, default=str)


FORMATTERS = {"text": TextFormatter, "json": JSONFormatter}


def configure(level: str, form: str) -> None:
    """Send the package's records of `level` and above, and others' warnings, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATTERS[form]())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("broadcast_server").setLevel(level.upper())
    # A closed or full standard error must not become a traceback, which would go there as well.
    logging.raiseExceptions = False


@contextlib.contextmanager
def redirected(write: Callable[[str], object]) -> Iterator[None]:
    """Have the lines of the log given to a function instead of standard error; any thread writes.

    For who draws on the terminal: what goes past it would be written into its picture.
    """
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler)]
    before = [handler.setStream(_Lines(write)) for handler in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            handler.setStream(stream)


class _Lines:
    """A stream that gives each line to a function. The handler's lock is held."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def write(self, text: str) -> None:
        """Take a record, with its line end."""
        for line in text.splitlines():
            self._write(line)

    def flush(self) -> None:
        """Do nothing: nothing is kept back."""


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
