"""Standard input, output and error of the command, and what may be wrong with them."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from ...escapes import printable
from ...transport import waits
from . import logs

MAX_LINE_BYTES = 16 * 1024 * 1024


def complain(command: str, text: str) -> None:
    """Tell the user in one line on standard error what `command` could not do; "" for either."""
    _tell(command, f"error: {text}")


def warn(command: str, text: str) -> None:
    """Tell the user in one line on standard error what is dangerous in what `command` does."""
    _tell(command, f"warning: {text}")


def hint(command: str, text: str) -> None:
    """Tell who sits at a terminal in one line what is no error; a script is told nothing."""
    if sys.stderr.isatty():
        _tell(command, text)


def tell_progress(command: str, text: str) -> None:
    """Tell in one line on standard error what `command` does, since it takes long."""
    _tell(command, text)


def _tell(command: str, text: str) -> None:
    logs.flush()
    prog = f"broadcast-server {command}".rstrip()
    try:
        print(printable(f"{prog}: {text}"), file=sys.stderr, flush=True)
    except OSError:
        _lead_nowhere(sys.stderr)


def open_standard_streams() -> None:
    """Put /dev/null where standard input, output or error is closed, and let standard output take
    every text.

    Otherwise the first sockets would get their numbers, and a stray line of text a client. What a
    character set has not, others' names mostly, is escaped.
    """
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        os.set_inheritable(descriptor, True)
        descriptor = os.dup(descriptor)
    os.close(descriptor)
    sys.stdin = sys.stdin or open(os.devnull)
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def write_stdout(text: str = "") -> bool:
    """Write a text, and what the stream still holds, to standard output; tell whether it went out.

    If not, whatever follows goes nowhere: nothing that is written later can fail again.
    """
    stream = sys.stdout
    try:
        stream.flush()
    except OSError as error:
        _give_up(error)
        return False
    # Not by the stream: of a non-blocking one it loses what does not fit.
    return not text or write_bytes(text.encode(stream.encoding, stream.errors or "strict")) is True


def write_bytes(data: bytes) -> bool | None:
    """Write bytes to standard output at once; return whether they went out, None if nobody reads.

    Whoever has made the stream non-blocking is waited for like any other slow reader.
    """
    descriptor = sys.stdout.fileno()
    view = memoryview(data)
    try:
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                waits.is_ready(descriptor, waits.WRITE, None)
    except OSError as error:
        _give_up(error)
        return None if isinstance(error, BrokenPipeError) else False
    return True


def _give_up(error: OSError) -> None:
    """Let nothing that is written later fail again."""
    if not isinstance(error, BrokenPipeError):  # `| head` knows what it does
        complain("", f"cannot write to standard output: {error.strerror}")
    _lead_nowhere(sys.stdout)


def _lead_nowhere(stream: TextIO) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class Lines:
    """Makes lines of what is read, piece by piece."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are whole now, without their ends.

        Raises:
            ValueError: the last line is longer than `MAX_LINE_BYTES`.
        """
        *lines, tail = data.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += tail
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line has more than {MAX_LINE_BYTES} bytes")
        return [line.removesuffix(b"\r") for line in lines]

    def end(self) -> list[bytes]:
        """Return the last line, if it has no end."""
        return [bytes(self._rest)] if self._rest else []
