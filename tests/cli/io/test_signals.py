"""Commands as process 1, as in a container: the kernel keeps from it what has no handler."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from ...support import PYTHON, command_environment, running_hub, wait_until

pytestmark = pytest.mark.slow

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


@functools.cache
def is_possible() -> bool:
    """Tell whether a process may have a namespace of its own here: root may."""
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=10).returncode == 0
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def process_one(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the command as process 1; give the process that waits for it, and its number outside."""
    if not is_possible():
        pytest.skip("no namespaces of processes here (they want root and Linux)")
    with subprocess.Popen(
        [*UNSHARE, PYTHON, "-m", "broadcast_server", *arguments],
        env=command_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            assert wait_until(lambda: bool(children.read_text().split()))
            yield process, int(children.read_text().split()[0])
        finally:
            process.kill()


def ends(process: subprocess.Popen[str], number: int, sent: signal.Signals) -> int:
    """Send a signal to process 1; return the status with which it ends, -1 if it goes on."""
    assert process.stdin is not None
    os.kill(number, sent)
    try:
        return process.wait(20)
    except subprocess.TimeoutExpired:
        return -1


def catches(number: int, sent: signal.Signals) -> bool:
    """Tell whether a process has a handler for a signal."""
    status = pathlib.Path(f"/proc/{number}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (sent - 1) & 1)


SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("sent", SIGNALS)
def test_publish_from_a_pipe_ends(sent: signal.Signals) -> None:
    """Which waits for a line."""
    with running_hub() as hub, process_one("publish", hub.url, "-") as (process, number):
        assert process.stdin is not None
        process.stdin.write("a line\n")
        process.stdin.flush()
        assert wait_until(lambda: bool(hub.history()))
        assert ends(process, number, sent) == 128 + sent


@pytest.mark.parametrize("sent", SIGNALS)
@pytest.mark.parametrize("command", ["connect", "listen"])
def test_member_ends_with_a_goodbye(command: str, sent: signal.Signals) -> None:
    """In a pipe, which stays open."""
    with running_hub() as hub, process_one(command, hub.url) as (process, number):
        assert wait_until(lambda: bool(hub.members()))
        assert wait_until(lambda: catches(number, sent))
        hub.broadcast("x")
        assert process.stdout is not None and process.stdout.readline() == "x\n"
        assert ends(process, number, sent) == (0 if command == "connect" else 128 + sent)
        assert wait_until(lambda: not hub.members())


@pytest.mark.parametrize("sent", SIGNALS)
@pytest.mark.parametrize("command", ["connect", "listen", "publish", "who"])
def test_command_that_waits_for_a_silent_server_ends(command: str, sent: signal.Signals) -> None:
    """Before it is connected as well."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/r"
        text = ["x"] if command == "publish" else []
        with process_one(command, url, *text) as (process, number):
            silent.settimeout(20)
            with silent.accept()[0]:
                assert ends(process, number, sent) == 128 + sent
