"""The ``broadcast-server`` command as a process: run to its end, or a hub that is then stopped."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import PYTHON, command_environment, python_environment
from .pseudo_terminal import PseudoTerminal

SECONDS = 20.0  # bound of every wait for a process


def environment(variables: Mapping[str, str] = {}) -> dict[str, str]:
    """Return an environment in which only these variables of ours are set."""
    without = ("BROADCAST_SERVER_", "PYTHONUNBUFFERED")  # users have buffers
    return {k: v for k, v in python_environment().items() if not k.startswith(without)} | variables


def run(
    *arguments: str,
    variables: Mapping[str, str] = {},
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [PYTHON, "-m", "broadcast_server", *arguments],
        env=environment(variables),
        text=True,
        timeout=SECONDS,
        **{"stdin": subprocess.DEVNULL, "capture_output": True} | options,
    )


def assert_fails(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Check that a command ended with this status and one line that has these words."""
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("broadcast-server")
    for word in words:
        assert word in line


class Running:
    """A hub that runs as a process, with the address from its first line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        self.process = process
        self.line = process.stdout.readline()
        found = re.fullmatch(r"Listening on wss?://(.*):(\d+)/ \(Ctrl-C to stop\)\n", self.line)
        assert found, (self.line, process.poll())
        self.host, self.port = found[1], int(found[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; return exit status, the rest of standard output, and the log."""
        self.process.send_signal(number)
        output, log = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, output, log


@contextlib.contextmanager
def hub_command(
    *arguments: str,
    variables: Mapping[str, str] = {},
    **options: Any,
) -> Iterator[Running]:
    """Run a hub as a process."""
    command = [PYTHON, "-m", "broadcast_server", *arguments]
    with hub_program(command, env=environment(variables), **options) as hub:
        yield hub


@contextlib.contextmanager
def hub_program(command: Sequence[str], **options: Any) -> Iterator[Running]:
    """Run a program that is a hub in the end."""
    options = {"env": environment(), "text": True} | options
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def terminal(url: str, environ: dict[str, str] | None = None, **streams: Any) -> PseudoTerminal:
    """Run the command in a terminal that shows only what the command writes."""
    command = [PYTHON, "-m", "broadcast_server", "connect", url, "--name", "ann"]
    env = command_environment(**{"TERM": "dumb"} | (environ or {}))
    return PseudoTerminal(command, env=env, echo=False, **streams)
