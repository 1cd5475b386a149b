"""Processes that each do one part of a round of ``hostile.py``, and the memory that one took.

A helper is a module of this package, which takes its options as JSON, says on its first line that
it is ready, and answers line by line.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..support import PYTHON, ROOT, python_environment

Result = dict[str, Any]


class RoundFailed(Exception):
    """A process of the round did not do its part."""


class Helper:
    """A process that does one part of a round and answers line by line."""

    def __init__(self, module: str, **options: Any) -> None:
        self._name = f"{module} {options.get('role') or options.get('kind')}"
        self._process = subprocess.Popen(
            [PYTHON, "-m", f"tests.benchmarks.{module}", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=python_environment(),
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def read(self, seconds: float) -> str:
        """Return the next line; RoundFailed if there is none in this time."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(seconds, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline().strip()
        finally:
            watchdog.cancel()
            watchdog.join()
        if not line:
            raise RoundFailed(f"{self._name} has ended, or did not answer in {seconds:g} s")
        return line

    def ask(self, line: object) -> None:
        """Say what it is to do."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except OSError as error:
            raise RoundFailed(f"{self._name} has ended: {error}") from error

    def answer(self, seconds: float) -> Result:
        """Return what it has to say."""
        result: Result = json.loads(self.read(seconds))
        return result

    def end(self) -> None:
        """Let it end; make it if it does not."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def helper(module: str, **options: Any) -> Iterator[Helper]:
    """Start a helper; it says on its first line that it is ready."""
    found = Helper(module, **options)
    try:
        yield found
    finally:
        found.end()


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had since the last reset (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has no VmHWM")


def reset_peak(pid: int) -> None:
    """Let the peak begin at what a process has now (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
