"""``broadcast-server connect``: where it connects to and what stops it; more in test_pipe.py."""

from __future__ import annotations

import pathlib
import socket
import subprocess
from typing import Any

import pytest

from ...support import PYTHON, RawClient, running_hub
from ...support.command import SECONDS, assert_fails, environment, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("spelling", ["connect", "--connect"])
def test_connect_sends_each_line_of_its_input(spelling: str) -> None:
    """wscat #4: what was in the pipe before there was a connection was lost. It is sent line by
    line, and at its end all of it has been accepted."""
    with running_hub() as hub, RawClient.connect(port=hub.port, path="/scores") as listener:
        result = run(
            spelling, "--port", str(hub.port), "--room", "scores", stdin=None, input="one\ntwo\n"
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert [listener.recv_message(), listener.recv_message()] == ["one", "two"]


def test_connect_in_the_background_reads_what_a_script_writes(tmp_path: pathlib.Path) -> None:
    """wscat #126: without a terminal it was gone before it was there. A FIFO is its input here."""
    script = 'mkfifo f; "$@" < f > /dev/null & echo one > f; wait $!'
    with running_hub() as hub:
        command = [PYTHON, "-m", "broadcast_server", "connect", hub.url]
        result = subprocess.run(
            ["sh", "-c", script, "sh", *command],
            env=environment(),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert [message.data for message in hub.history("/")] == ["one"]


def test_connect_takes_a_url_and_a_name() -> None:
    """The other side sees the name."""
    joined: list[Any] = []
    with running_hub(on_join=joined.append) as hub:
        assert run("connect", f"{hub.url}den", "--name", "ann").returncode == 0
        assert [(member.name, member.room) for member in joined] == [("ann", "/den")]


def test_connect_completes_a_short_url() -> None:
    """Host and port, a mere port, and the address of the room's web page."""
    with running_hub() as hub:
        port = hub.port
        for number, url in enumerate(
            (f"127.0.0.1:{port}/n", f":{port}/n", f"http://127.0.0.1:{port}/n")
        ):
            result = run("connect", url, stdin=None, input=f"{number}\n")
            assert (result.returncode, result.stderr) == (0, "")
        assert [message.data for message in hub.history("/n")] == ["0", "1", "2"]


def test_connect_takes_its_port_from_the_environment() -> None:
    """The client has variables of its own."""
    joined: list[Any] = []
    with running_hub(on_join=joined.append) as hub:
        variables = {
            "BROADCAST_SERVER_CONNECT_PORT": str(hub.port),
            "BROADCAST_SERVER_PORT": "1",
            "BROADCAST_SERVER_ROOM": "/env",
        }
        assert run("connect", variables=variables).returncode == 0
        assert [member.room for member in joined] == ["/env"]


def test_connect_without_a_hub_is_one_line() -> None:
    """A closed port and a name that is none."""
    with socket.socket() as bound:  # bound and not listening: nobody else can take it
        bound.bind(("127.0.0.1", 0))
        port = str(bound.getsockname()[1])
        assert_fails(run("connect", "--port", port), 1, port)
    assert_fails(run("connect", "--host", "no-such-host.invalid"), 1, "no-such-host.invalid")


def test_connect_refused_by_http_is_one_line() -> None:
    """A path that is no room; the address is what was typed, and not what we have added."""
    with running_hub() as hub:
        for command in ("connect", "listen"):
            result = run(command, f"{hub.url}healthz", "--history", "3", "--name", "ann")
            told = f"cannot connect to {hub.url}healthz: the answer is HTTP status 404 (there is "
            assert_fails(result, 1, told)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["ftp://127.0.0.1/"], "ftp://127.0.0.1/"),
        (["127.0.0.1"], "127.0.0.1"),
        (["--port", "0"], "--port"),
        (["--history", "-1"], "--history must be at least 0"),
        (["--linger", "-1"], "--linger must be at least 0"),
        (["ws://127.0.0.1/", "--port", "80"], "not both"),
        (["ws://127.0.0.1/", "ws://127.0.0.1/"], "unrecognized"),
    ],
)
def test_connect_to_what_is_no_address_is_a_usage_error(arguments: list[str], word: str) -> None:
    """Mistakes that can be seen without a network."""
    assert_fails(run("connect", *arguments), 2, "connect: error: ", word)
