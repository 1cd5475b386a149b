"""Standard input, output and error of the command, and what may be wrong with them."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import TextIO

from ...escapes import printable
from ...transport import waits
from . import logs

MAX_LINE_BYTES = 16 * 1024 * 1024
# Of a longer line that is typed the system passes on this much, and throws the rest away.
MAX_TYPED_BYTES = 4095
CUT_OFF = f"a line of {MAX_TYPED_BYTES} bytes or more cannot be typed: the terminal cuts it off"


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


def is_cut_off(line: bytes, descriptor: int) -> bool:
    """Tell whether a terminal may have cut off a line that was typed."""
    if len(line) < MAX_TYPED_BYTES or not os.isatty(descriptor):
        return False
    # Here: systems without it are told so by the command.
    import termios

    try:
        return bool(termios.tcgetattr(descriptor)[3] & termios.ICANON)
    except termios.error:  # it has gone
        return False


class Lines:
    """Makes lines of what is read, piece by piece. A UTF-8 byte order mark in front is left out.

    Args:
        is_text: whether the lines are text; of others each byte counts.
    """

    def __init__(self, *, is_text: bool = True) -> None:
        # What was read until the encoding can be told; None from then on.
        self._begin: bytes | None = b"" if is_text else None
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are whole now, without their ends.

        Raises:
            ValueError: the last line is longer than `MAX_LINE_BYTES`, or the text is UTF-16.
        """
        if self._begin is not None:
            self._begin += data
            if len(self._begin) < 4 and b"\n" not in self._begin:
                return []
            data, self._begin = _begun(self._begin), None
        *lines, tail = data.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += tail
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError(f"a line has more than {MAX_LINE_BYTES} bytes")
        return [line.removesuffix(b"\r") for line in lines]

    @property
    def has_rest(self) -> bool:
        """Whether something was read that is not in a line yet."""
        return bool(self._begin or self._rest)

    def end(self) -> list[bytes]:
        """Return the last line, if it has no end.

        Raises:
            ValueError: the text is UTF-16.
        """
        if self._begin is not None:
            self._rest += _begun(self._begin)
            self._begin = None
        return [bytes(self._rest)] if self._rest else []


def _begun(data: bytes) -> bytes:
    """Return the first bytes of a text in UTF-8 without a byte order mark.

    Raises:
        ValueError: they are UTF-16, or UTF-32: of their first characters one byte is null.
    """
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    if is_wide or (len(data) > 1 and (data[0] == 0) != (data[1] == 0)):
        raise ValueError("the input is UTF-16, and must be UTF-8; iconv -f UTF-16 converts it")
    return data.removeprefix(codecs.BOM_UTF8)
