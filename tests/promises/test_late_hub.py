"""A hub that is not there yet when somebody wants to use it: ``--wait``, for each command that has
it. How the library waits is in ``client/test_lifecycle.py`` and ``client/test_requests.py``."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from ..support import PYTHON, lasting_port, running_hub, wait_until
from ..support.command import SECONDS, assert_fails, environment, run, terminal
from ..support.raw_server import listener

pytestmark = pytest.mark.slow

WAIT = ["--wait", str(SECONDS), "--log-level", "info"]
COMMANDS = ("connect", "listen", "publish")


@contextlib.contextmanager
def waiting(command: str, url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command until it has found no hub for the first time."""
    line = [PYTHON, "-m", "broadcast_server", command, url, *WAIT, *arguments]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(line, env=environment(), text=True, **pipes) as process:
        try:
            assert process.stderr is not None
            told = process.stderr.readline()
            assert "refused; once more in" in told
            yield process
        finally:
            process.kill()


def test_publish_waits_for_a_hub_that_starts_late() -> None:
    """A message from the arguments."""
    port = lasting_port()
    with (
        waiting("publish", f"ws://127.0.0.1:{port}/r", "hello", "--timeout", "10") as process,
        running_hub(port=port) as hub,
    ):
        assert process.wait(SECONDS) == 0
        assert [message.data for message in hub.history("/r")] == ["hello"]


def test_publish_of_lines_waits_for_a_hub_that_starts_late() -> None:
    """No line is lost, and none comes twice."""
    port = lasting_port()
    command = [PYTHON, "-m", "broadcast_server", "publish", f":{port}/r", *WAIT, "-"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment(), text=True, **pipes) as process:
        try:
            assert process.stdin is not None and process.stderr is not None
            process.stdin.write("one\ntwo\n")
            process.stdin.close()
            assert "refused" in process.stderr.readline()
            with running_hub(port=port) as hub:
                assert process.wait(SECONDS) == 0
                assert [message.data for message in hub.history("/r")] == ["one", "two"]
        finally:
            process.kill()


def test_listen_waits_for_a_hub_that_starts_late() -> None:
    """The time for messages begins when it has connected, however long that took."""
    port = lasting_port()
    arguments = ["--count", "1", "--timeout", str(SECONDS / 2)]
    with (
        waiting("listen", f"ws://127.0.0.1:{port}/r", *arguments) as process,
        running_hub(port=port) as hub,
    ):
        assert wait_until(lambda: bool(hub.members("/r")), SECONDS)
        hub.broadcast("hello", "/r")
        output, _ = process.communicate(timeout=SECONDS)
        assert (process.returncode, output) == (0, "hello\n")


def test_connect_in_a_pipe_waits_for_a_hub_that_starts_late() -> None:
    """What was in the pipe by then is sent."""
    port = lasting_port()
    with (
        waiting("connect", f"ws://127.0.0.1:{port}/r") as process,
        running_hub(port=port) as hub,
    ):
        process.communicate("one\ntwo\n", timeout=SECONDS)
        assert process.returncode == 0
        assert [message.data for message in hub.history("/r")] == ["one", "two"]


def test_connect_at_a_terminal_waits_for_a_hub_that_starts_late() -> None:
    """And says so after a while."""
    port = lasting_port()
    url = f"ws://127.0.0.1:{port}/r"
    with terminal(url, {"BROADCAST_SERVER_WAIT": str(SECONDS)}) as ann:
        ann.wait_for(f"connect: waiting for the hub at {url}, up to {SECONDS:g} s")
        with running_hub(port=port) as hub:
            ann.wait_for("you are ann in /r")
            ann.type("/quit\n")
            assert ann.end() == 0
            assert not hub.history("/r")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_hub_that_does_not_come_is_an_error(command: str) -> None:
    """After that time, and a line that told of it; a secret in the address is not shown."""
    text = ["x"] if command == "publish" else []
    url = f"ws://127.0.0.1:{lasting_port()}/"
    result = run(command, f"{url}?access_token=secret", *text, "--wait", "3.2")
    told, failed = result.stderr.splitlines()
    prog = f"broadcast-server {command}"
    assert told == f"{prog}: waiting for the hub at {url}, up to 3.2 s"
    assert failed.startswith(f"{prog}: error: cannot ") and "refused" in failed
    assert (result.returncode, result.stdout) == (1, "")
    assert "secret" not in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_refusal_is_told_at_once(command: str) -> None:
    """The hub is there, and has said what it wants."""
    text = ["x"] if command == "publish" else []
    with running_hub(token="right") as hub:
        assert_fails(run(command, hub.url, *text, "--wait", "1000"), 1, "a token is needed")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_time_below_nothing_is_a_usage_error(command: str) -> None:
    """As for other times."""
    text = ["x"] if command == "publish" else []
    result = run(command, *text, "--wait", "-1")
    assert_fails(result, 2, "--wait must be at least 0")


def test_a_signal_ends_the_wait() -> None:
    """As it ends any program that has nothing to put in order."""
    url = f"ws://127.0.0.1:{lasting_port()}/"
    for command in ("connect", "listen"):
        with waiting(command, url) as process:
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == -signal.SIGINT


def test_a_hub_behind_a_proxy_is_waited_for() -> None:
    """The proxy says that nobody is there."""
    with listener() as listening:
        line = [PYTHON, "-m", "broadcast_server", "listen", listening.url, *WAIT, "--count", "1"]
        with subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE) as process:
            try:
                listening.refuse(502)
                listening.refuse(503, "0")
                server = listening.accept_events()
                with server.sock:
                    assert process.poll() is None
            finally:
                process.kill()
