"""How the command writes its log: one record a line, for people or for machines.

Only the command configures logging; the library never does. The lines are written by a thread of
their own: standard error may be a pipe that nobody reads, and a thread of the hub that logs must
not wait for that.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator

from ...escapes import printable
from ...transport.deadlines import Deadline

# Records that may wait to be written, and how long the end of the process waits for them.
MAX_WAITING = 10_000
FLUSH_SECONDS = 1.0

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class TextFormatter(logging.Formatter):
    """``2026-11-24T09:30:00.123Z INFO broadcast_server.hub: text``, a traceback below it if any.

    What an exception says may be somebody else's, too.
    """

    def format(self, record: logging.LogRecord) -> str:
        name, message = record.name, printable(record.getMessage())
        line = f"{_time(record)} {record.levelname} {name}: {message}"
        if record.exc_info:
            more = _traceback(self, record).split("\n")
            line = "\n".join([line, *map(printable, more)])
        return line


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
            fields["exception"] = _traceback(self, record)
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS:
                fields[name] = value
        return json.dumps(fields, default=str)


class BackgroundHandler(logging.Handler):
    """Writes each record to a descriptor on a thread of its own; none that logs waits for it.

    What comes while too much waits already is left out, and a line says how much that was. All
    methods may be called from any thread.

    Args:
        descriptor: where to write; the caller's.
        limit: how many records may wait.

    Attributes:
        instead: what gets each line in place of the descriptor; None for nothing.
    """

    def __init__(self, descriptor: int, limit: int = MAX_WAITING) -> None:
        self._descriptor = descriptor
        self.instead: Callable[[str], object] | None = None
        self._waiting: queue.Queue[bytes | threading.Event | None] = queue.Queue(limit)
        # Guarded by the handler's own lock, which logging holds around emit(): _lost and _held.
        self._lost = 0
        self._held: list[str] | None = None  # lines that are kept back for now
        self._thread = threading.Thread(target=self._write_all, name="broadcast-log", daemon=True)
        self._thread.start()
        # Last: at the end of the process logging closes each handler that there is.
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record behind the others."""
        line = self.format(record)
        if self._held is None:
            self._put_or_lose(line)
        else:
            self._held.append(line)

    def hold(self) -> None:
        """Keep back what comes from now on."""
        self.acquire()
        self._held = []
        self.release()

    def let_go(self, *, wanted: bool) -> None:
        """Write what was kept back if it is wanted, and what comes from now on. It may be called
        again."""
        self.acquire()
        held, self._held = self._held or [], None
        if wanted:
            for line in held:
                self._put_or_lose(line)
        self.release()

    def _put_or_lose(self, line: str) -> None:
        try:
            if self._lost:
                note = f"{self._lost} records were left out: the log is read too slowly"
                level, name = logging.WARNING, "broadcast_server.cli"
                gap = logging.LogRecord(name, level, __file__, 0, note, None, None)
                self._put(self.format(gap))
                self._lost = 0
            self._put(line)
        except queue.Full:
            self._lost += 1

    def _put(self, line: str) -> None:
        self._waiting.put_nowait(line.encode("utf-8", "backslashreplace") + b"\n")

    def flush(self) -> None:
        """Wait until all that was logged before is written, ``FLUSH_SECONDS`` at most."""
        deadline = Deadline(FLUSH_SECONDS)
        written = threading.Event()
        try:
            self._waiting.put(written, timeout=deadline.left())
        except queue.Full:
            return
        written.wait(deadline.left())

    def close(self) -> None:
        """Let the thread end once all is written; it may be stuck, and is not waited for then."""
        self.flush()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
            self._thread.join(FLUSH_SECONDS)
        super().close()

    def _write_all(self) -> None:
        # By the descriptor and not by sys.stderr: an interpreter that ends while a thread holds the
        # lock of that one would abort.
        while True:
            line = self._waiting.get()
            if line is None:
                return
            if isinstance(line, threading.Event):
                line.set()
                continue
            instead = self.instead
            if instead is not None:
                for text in line.decode("utf-8", "replace").splitlines():
                    instead(text)
                continue
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                pass  # nobody reads it any more


FORMATTERS = {"text": TextFormatter, "json": JSONFormatter}


_handler: BackgroundHandler | None = None


def flush() -> None:
    """Wait a moment at most until the log is written, for what must come behind it."""
    if _handler is not None:
        _handler.flush()


def configure(level: str, form: str) -> None:
    """Send the package's records of `level` and above, and others' warnings, to standard error.
    Once in a process, on the main thread."""
    global _handler
    handler = _handler = BackgroundHandler(2)
    handler.setFormatter(FORMATTERS[form]())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("broadcast_server").setLevel(level.upper())
    # A closed or full standard error must not become a traceback, which would go there as well.
    logging.raiseExceptions = False


@contextlib.contextmanager
def held() -> Iterator[Callable[[], None]]:
    """Keep back what is logged until the function is called that it gives; without that it is
    dropped at the end: whoever fails has one line to say, and no other before it."""
    handler = _handler
    if handler is None:
        yield lambda: None
        return
    handler.hold()
    try:
        yield lambda: handler.let_go(wanted=True)
    finally:
        handler.let_go(wanted=False)


@contextlib.contextmanager
def redirected(write: Callable[[str], object]) -> Iterator[None]:
    """Have the lines of the log given to a function instead of standard error, on the thread that
    writes the log.

    For who draws on the terminal: what goes past it would be written into its picture.
    """
    handler = _handler
    if handler is None:
        yield
        return
    handler.instead = write
    try:
        yield
    finally:
        handler.flush()
        handler.instead = None


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Return a record's traceback: what the package's loggers have made of it, if it is theirs."""
    assert record.exc_info
    return record.exc_text or formatter.formatException(record.exc_info)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
