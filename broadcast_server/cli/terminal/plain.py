"""A terminal that can do nothing but show lines, and the system's own line editing.

For ``TERM=dumb``, and where prompt_toolkit is missing. What comes is written where the cursor is,
also into a line that is being typed: there is no help for that without steering the terminal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

from ...transport import waits
from ..io.streams import CUT_OFF, is_cut_off, write_stdout
from .screen import Host
from .view import Line, notice

READ_BYTES = 64 * 1024


class LineScreen:
    """A `Screen` of plain lines.

    Args:
        host: whose screen it is.
    """

    keeps_typed = True

    def __init__(self, host: Host) -> None:
        self._host = host
        self._wake_reader, self._wake_writer = os.pipe()
        # Guards standard output: lines of two threads do not mix.
        self._output = threading.Lock()

    def run(self) -> None:
        """Take lines until the end of the input, or until a signal comes."""
        # A handler in Python runs only when `poll` returns: a signal that comes just before it is
        # called, or that the system gives to another thread, would wait for the next key.
        os.set_blocking(self._wake_writer, False)
        before = signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        try:
            self._take_lines()
        finally:
            signal.set_wakeup_fd(before)

    def _take_lines(self) -> None:
        rest = b""  # of a line whose end has not come
        descriptor = sys.stdin.fileno()
        while self._wake_reader not in waits.await_readable(descriptor, self._wake_reader):
            try:
                data = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                continue
            if not data:
                if rest:  # Ctrl-D within a line, and once more
                    self._host.enter(rest.decode("utf-8", "replace"))
                return
            self._host.take_key()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if is_cut_off(line, sys.stdin.fileno()):
                    self.show([notice(f"not sent: {CUT_OFF}", "warning")])
                    continue
                self._host.enter(line.removesuffix(b"\r").decode("utf-8", "replace"))

    def leave(self) -> None:
        """Have `run` return."""
        with contextlib.suppress(BlockingIOError):  # it is full of the same
            os.write(self._wake_writer, b"!")

    def give_back(self) -> None:
        """Do nothing: nothing was changed."""

    def show(
        self,
        lines: Sequence[Line],
        *,
        bell: bool = False,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        """Write lines without any style."""
        text = "".join("".join(piece for _, piece in line) + "\n" for line in lines)
        with self._output:
            if still() and not write_stdout("\a" * bell + text):
                self.leave()

    def update(self) -> None:
        """Do nothing: there is no status to be seen."""
