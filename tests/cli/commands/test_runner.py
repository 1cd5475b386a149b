"""The command that ``listen --exec`` runs."""

from __future__ import annotations

import contextlib
import datetime
import os
import pathlib
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from broadcast_server import Member, Message
from broadcast_server.cli.commands.runner import Runner, environment

from ...support import wait_until
from ...support.inside import replace_start

SECONDS = 20.0
TIME = datetime.datetime(2026, 11, 25, 6, 0, 0, tzinfo=datetime.timezone.utc)


def message(data: str | bytes = "x", name: str | None = "ann", id: str | None = "5-0") -> Message:
    return Message(data, "/r", Member("c7", name, "/r", ""), TIME, id)


@pytest.fixture(params=["waitid", "without"], autouse=True)
def _system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all that Linux has, and as on macOS with Python before 3.13."""
    if request.param == "without":
        monkeypatch.delattr(os, "waitid")


def run(command: str, given: bytes = b"x", name: str | None = "ann") -> tuple[str | None, int]:
    """Run a command for one message; return why it failed and how often."""
    runner = Runner(command)
    return runner.run(message(name=name), given), runner.failures


def test_message_is_on_standard_input_and_known_in_the_environment(tmp_path: pathlib.Path) -> None:
    """Also one that is larger than a pipe, whether it is read or not."""
    path = tmp_path / "seen"
    big = b"x" * 300_000
    assert run(f"cat > {path}", big) == (None, 0)
    assert path.read_bytes() == big
    assert run("true", big) == (None, 0)
    names = ("ID", "ROOM", "SENDER", "SENDER_ID", "TIME")
    words = " ".join(f'"$BROADCAST_{name}"' for name in names)
    assert run(f"printf '%s|' {words} > {path}") == (None, 0)
    assert path.read_text() == "5-0|/r|ann|c7|2026-11-25T06:00:00.000Z|"


def test_no_shell_reads_what_others_have_written(tmp_path: pathlib.Path) -> None:
    """A name and a text that would be commands are values."""
    path = tmp_path / "seen"
    evil = f"$(touch {tmp_path}/broken); `touch {tmp_path}/broken` '\" & | \\"
    assert run(
        f'printf "%s|" "$BROADCAST_SENDER" > {path}; cat >> {path}', evil.encode(), evil
    ) == (
        None,
        0,
    )
    assert path.read_text() == f"{evil}|{evil}"
    assert not (tmp_path / "broken").exists()


def test_environment_has_no_stale_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known is empty, and nothing that a server says keeps the command from running."""
    monkeypatch.setenv("BROADCAST_ID", "outer")
    monkeypatch.setenv("KEPT", "yes")
    found = environment(Message("x", "/r", None, TIME, None))
    assert found[b"BROADCAST_ID"] == found[b"BROADCAST_SENDER"] == b""
    assert found[b"KEPT"] == b"yes"
    found = environment(message(name="a\0b\ud800"))
    assert found[b"BROADCAST_SENDER"] == b"ab?"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("exit 3", "ended with 3"),
        ("no-such-command 2>/dev/null", "ended with 127"),
        ("kill -KILL $$", "was ended by signal 9"),
    ],
)
def test_failure_is_told_and_counted(command: str, why: str) -> None:
    """And the next message gets its command all the same."""
    runner = Runner(command)
    assert runner.run(message(), b"") == why
    assert runner.run(message(), b"") == why
    assert runner.failures == 2


def test_command_that_cannot_be_run_has_failed() -> None:
    """A name that no environment can hold."""
    why, failures = run("true", name="x" * 3_000_000)
    assert why is not None and why.startswith("cannot be run: ") and failures == 1


@pytest.mark.parametrize("size", [1, 100_000])
def test_full_disk_is_a_failure_of_the_command(size: int) -> None:
    """The message cannot be put where the command finds it; the next one may fit."""
    runner = Runner("true")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        why = runner.run(message(), b"x" * size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (why, runner.failures) == ("cannot be run: File too large", 1)
    assert runner.run(message(), b"x" * size) is None


@contextlib.contextmanager
def running(command: str, path: pathlib.Path) -> Iterator[tuple[Runner, list[str | None], int]]:
    """Run a command that writes its number to a file, on a thread of its own."""
    runner = Runner(command)
    results: list[str | None] = []
    thread = threading.Thread(target=lambda: results.append(runner.run(message(), b"")))
    thread.start()
    try:
        assert wait_until(lambda: path.exists() and path.read_text().endswith("\n"), SECONDS)
        yield runner, results, int(path.read_text())
    finally:
        runner.stop(signal.SIGKILL)
        thread.join(SECONDS)
        assert not thread.is_alive()


def is_gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have waited for it."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"
    except FileNotFoundError:
        return True


def test_stop_ends_the_command_and_what_it_has_started(tmp_path: pathlib.Path) -> None:
    """That is no failure, and no other command is run from then on."""
    path = tmp_path / "pid"
    with running(f"sleep 1000 & echo $! > {path}; wait; true", path) as (runner, results, pid):
        runner.stop(signal.SIGTERM)
        assert wait_until(lambda: len(results) == 1, SECONDS)
        assert results == [None] and runner.failures == 0
        assert wait_until(lambda: is_gone(pid), SECONDS)
        assert runner.run(message(), b"") is None


def test_stop_kills_what_does_not_listen(tmp_path: pathlib.Path) -> None:
    """A signal that nobody can ignore comes second."""
    path = tmp_path / "pid"
    command = f"trap '' TERM; echo $$ > {path}; while :; do sleep 1000; done"
    with running(command, path) as (runner, results, pid):
        runner.stop(signal.SIGTERM)
        assert not is_gone(pid)
        runner.stop(signal.SIGKILL)
        assert wait_until(lambda: len(results) == 1 and is_gone(pid), SECONDS)


def test_signal_that_comes_while_it_starts_is_not_weakened(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command runs and nobody knows its number yet: it gets the last signal, not the first."""
    path = tmp_path / "there"
    runner = Runner(f"trap '' TERM; echo > {path}; while :; do sleep 1000; done")

    def start_and_stop(message: Message, given: bytes) -> subprocess.Popen[bytes]:
        process = start(message, given)
        assert wait_until(path.exists, SECONDS)
        runner.stop(signal.SIGTERM)
        runner.stop(signal.SIGKILL)
        return process

    start = replace_start(monkeypatch, runner, start_and_stop)
    assert runner.run(message(), b"") is None and runner.failures == 0
