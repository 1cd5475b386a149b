"""A program at a terminal of its own, which is a pseudo-terminal: whoever uses it sees all bytes.

What a whole terminal makes of them is seen in ``tmux.py``.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Any

SECONDS = 30.0


class PseudoTerminal:
    """A terminal of 24 rows and 80 columns with a program in it, and its user.

    Args:
        command: the program and its arguments.
        env, cwd: its environment and folder.
        echo: whether the terminal shows what is typed, as most do.
        streams: its standard streams that are not the terminal.

    Attributes:
        shown: what the terminal has shown so far.
        master: the user's end of it; -1 after `hang_up`.
        attributes: its modes at the beginning.
        process: the program.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: pathlib.Path | None = None,
        echo: bool = True,
        **streams: Any,
    ) -> None:
        self.shown = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.attributes = termios.tcgetattr(slave)
        if not echo:
            self.attributes[3] &= ~termios.ECHO
            termios.tcsetattr(slave, termios.TCSANOW, self.attributes)
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            **{"stdin": slave, "stdout": slave, "stderr": slave} | streams,
            start_new_session=True,
            # So that this is the session's terminal, and Ctrl-C what it is for a user.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(slave)

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.master, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until the terminal has shown a text."""
        self.wait_for_match(re.escape(text))

    def wait_for_match(self, pattern: str) -> re.Match[str]:
        """Wait until the terminal has shown what matches."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.shown)):
            left = max(0, deadline - time.monotonic())
            assert select.select([self.master], [], [], left)[0], self.shown
            assert self._read(), self.shown
        return found

    def _read(self) -> bool:
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:  # the last program in it has ended
            return False
        self.shown += self._decoder.decode(data)
        return True

    def end(self) -> int:
        """Read until the program has ended; return its exit status."""
        deadline = time.monotonic() + SECONDS
        while select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
            if not self._read():
                break
        return self.process.wait(SECONDS)

    def hang_up(self) -> None:
        """Close the window."""
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def close(self) -> None:
        """Close the window, whatever is in it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(SECONDS)
        self.hang_up()
