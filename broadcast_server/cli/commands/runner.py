"""Runs a command of the user's shell for each message, one after the other.

The shell gets the command as the user has given it. A message is never part of it: it is what the
command finds on its standard input, and what is known of it is in the environment. So whatever
somebody sends, no shell reads it.

The command is a session of its own: what it starts can be ended together with it, and Ctrl-C at the
terminal reaches it through us alone, who can then wait for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time

from ...messages import Message
from ..io.formats import rfc3339

SHELL = "/bin/sh"
# Between two looks whether a command has ended, where the system cannot tell.
MIN_PAUSE_SECONDS = 0.001
MAX_PAUSE_SECONDS = 0.05


class Runner:
    """One command.

    `run` belongs to one thread; `stop` may be called on any, and more than once.

    Args:
        command: for the shell.

    Attributes:
        failures: how often it has failed.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        # Guards the two fields below.
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None  # to which signals may be sent
        self._signal: int | None = None  # what `stop` was called with last
        self.failures = 0

    def run(self, message: Message, given: bytes) -> str | None:
        """Run the command to its end, if need be for ever.

        Args:
            message: what there is to know.
            given: the command's standard input.

        Returns:
            Why it has failed, None if it has not, or if `stop` has ended it.
        """
        if self._is_stopped():
            return None
        try:
            process = self._start(message, given)
        except OSError as error:  # such as a full disk, or a name that no environment can hold
            self.failures += 1
            return f"cannot be run: {error.strerror or error}"
        with self._lock:
            self._process = process
            self._send_locked()  # `stop` may have been called while it started
        status = self._await_end(process)
        if status == 0 or self._is_stopped():
            return None
        self.failures += 1
        return f"ended with {status}" if status > 0 else f"was ended by signal {-status}"

    def _await_end(self, process: subprocess.Popen[bytes]) -> int:
        """Return the status with which the command has ended. Until it has been waited for, its
        number is nobody else's, and signals may be sent there."""
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._process = None
            return process.wait()
        # macOS has it from Python 3.13 on. There is no other way to wait that leaves the number.
        pause = MIN_PAUSE_SECONDS
        while True:
            with self._lock:
                status = process.poll()
                if status is not None:
                    self._process = None
                    return status
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _start(self, message: Message, given: bytes) -> subprocess.Popen[bytes]:
        with tempfile.TemporaryFile() as file:
            # A file, unlike a pipe, takes all of it at once, whether it is read or not.
            file.write(given)
            file.seek(0)
            return subprocess.Popen(
                [SHELL, "-c", self._command],
                stdin=file,
                env=environment(message),
                start_new_session=True,
            )

    def _is_stopped(self) -> bool:
        with self._lock:
            return self._signal is not None

    def stop(self, number: int) -> None:
        """Send a signal to the command and what it has started; no other failure counts."""
        with self._lock:
            self._signal = number
            self._send_locked()

    def _send_locked(self) -> None:
        if self._process is not None and self._signal is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, self._signal)


def environment(message: Message) -> dict[bytes, bytes]:
    """Return the environment of a command: ours, and what is known of the message."""
    sender = message.sender
    found = {
        "BROADCAST_ID": message.id,
        "BROADCAST_ROOM": message.room,
        "BROADCAST_SENDER": sender and sender.name,
        "BROADCAST_SENDER_ID": sender and sender.id,
        "BROADCAST_TIME": rfc3339(message.time),
    }
    # A server that is no hub may call somebody anything.
    texts = {name: (text or "").replace("\0", "") for name, text in found.items()}
    return {
        **os.environb,
        **{name.encode(): text.encode("utf-8", "replace") for name, text in texts.items()},
    }
