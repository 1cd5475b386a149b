"""The hub of the soak: the command in a process of its own, and what it takes of the machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import IO

from ..support import PYTHON, ROOT, command_environment, resident_bytes
from .order import Violation

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
# Lines of the log that must not be there.
_BAD_LINE = re.compile(r"^\S+ (ERROR|CRITICAL) |^Traceback")


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a process holds."""

    resident_bytes: int
    descriptors: int
    threads: int
    cpu_seconds: float


class Hub:
    """A hub that runs.

    Attributes:
        port: where it listens.
    """

    def __init__(self, process: subprocess.Popen[str], port: int, log: IO[str]) -> None:
        self.process = process
        self.port = port
        self._log = log

    def usage(self) -> Usage:
        """Return what it takes now."""
        proc = pathlib.Path(f"/proc/{self.process.pid}")
        ticks = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]
        return Usage(
            resident_bytes(self.process.pid),
            len(list((proc / "fd").iterdir())),
            len(list((proc / "task").iterdir())),
            sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"),
        )

    def bad_lines(self) -> list[str]:
        """Return the lines of its log that tell of a fault in it."""
        self._log.seek(0)
        return [line.rstrip() for line in self._log if _BAD_LINE.search(line)]

    def stop(self) -> None:
        """Ask it to stop; it must do so, in order."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(_STOP_SECONDS)
        if code != 0:
            raise Violation(f"the hub ended with {code}")


@contextlib.contextmanager
def running(token: str, *options: str) -> Iterator[Hub]:
    """Run the command with these options; whoever shows the token may write."""
    with tempfile.TemporaryFile("w+") as log:
        command = [PYTHON, "-m", "broadcast_server", "start", "--port", "0", *options]
        environment = command_environment(BROADCAST_SERVER_PUBLISH_TOKEN=token)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=environment
        ) as process:
            try:
                yield Hub(process, _port_of(process), log)
            finally:
                if process.poll() is None:
                    process.kill()


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 1)[0]:
            line = process.stdout.readline()
            found = re.search(r":(\d+)/", line)
            if found:
                return int(found[1])
            if not line:
                break
    raise RuntimeError("the hub did not start")
