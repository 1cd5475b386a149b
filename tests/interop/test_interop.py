"""Clients of other makes in one room with a raw one: each gets, sends and leaves as it should. And
servers of other makes, to which the command is a plain client.

The peers run in processes of their own (``tests/interop``) with their libraries' defaults, and send
back what they get, so that each message travels to the peer and from it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from ..support import (
    BINARY,
    PYTHON,
    ROOT,
    TEXT,
    RawClient,
    command_environment,
    needs_module,
    python_environment,
    running_hub,
)

pytestmark = pytest.mark.slow

PEER_JS = ROOT / "tests" / "interop" / "peer.js"

# Both sides of each change of the length field, nothing, and the largest that the hub takes.
SIZES = (0, 1, 125, 126, 65_535, 65_536, 1024 * 1024)

SERVER_JS = ROOT / "tests" / "interop" / "server.js"
SERVERS = ("websockets", "node-ws")

MAKES = ("websocket-client", "websockets-sync", "websockets-asyncio", "node-ws")


def command_for(make: str) -> Sequence[str]:
    """Return the command that starts a peer, without the URL."""
    if make != "node-ws":
        return (PYTHON, "-m", "tests.interop.peers", make)
    node = shutil.which("node")
    if node is None or not (ROOT / "tests" / "node_modules" / "ws").is_dir():
        pytest.skip("Node or tests/node_modules/ws is missing (make test installs it)")
    return (node, str(PEER_JS))


@contextlib.contextmanager
def server_of(make: str) -> Iterator[str]:
    """Run a server that greets with what it was told and sends back what it gets; gives its URL."""
    command = command_for("node-ws" if make == "node-ws" else "websockets-sync")
    if make == "node-ws":
        command = (command[0], str(SERVER_JS))
    else:
        needs_module("websockets")
        command = (PYTHON, "-m", "tests.interop.server")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=python_environment()
    ) as process:
        try:
            assert process.stdout is not None
            yield f"ws://127.0.0.1:{int(process.stdout.readline())}/room?x=1"
        finally:
            process.kill()


def run(*arguments: str, given: Sequence[str] = ()) -> tuple[int, str, str]:
    """Run the command, each given line after something has come back; return its status and what it
    has written."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [PYTHON, "-m", "broadcast_server", *arguments]
    with subprocess.Popen(command, text=True, env=command_environment(), **pipes) as process:
        try:
            output = ""
            assert process.stdin is not None and process.stdout is not None
            for line in given:
                output += process.stdout.readline()
                process.stdin.write(f"{line}\n")
                process.stdin.flush()
            if given:
                output += process.stdout.readline()
            rest, errors = process.communicate(timeout=20)
            return process.returncode, output + rest, errors
        finally:
            process.kill()


@pytest.mark.parametrize("make", MAKES)
def test_peer_joins_receives_sends_and_leaves(make: str) -> None:
    """A peer of another make gets each kind and size of message whole, and sends the same back."""
    command = command_for(make)
    left: list[tuple[str | None, int]] = []
    room = f"/interop/{make}"
    with running_hub(on_leave=lambda member, code, reason: left.append((member.name, code))) as hub:
        with RawClient.connect(port=hub.port, path=room, timeout=20) as partner:
            url = f"ws://127.0.0.1:{hub.port}{room}?name={make}"
            with subprocess.Popen(
                [*command, url],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env=python_environment(),
            ) as peer:
                try:
                    assert partner.recv_message() == "joined"
                    assert [member.name for member in hub.members(room)] == [None, make]
                    for size in SIZES:
                        for opcode, payload in (
                            # Two bytes a character: a frame that is cut anywhere shows it.
                            (TEXT, ("é" * (size // 2) + "x" * (size % 2)).encode()),
                            (BINARY, (bytes(range(256)) * (size // 256 + 1))[:size]),
                        ):
                            partner.send_frame(opcode, payload)
                            fin, got_opcode, got = partner.recv_frame()
                            assert (fin, got_opcode, len(got)) == (True, opcode, size)
                            assert got == payload, f"{size} bytes of opcode {opcode} changed"
                    partner.send("leave")
                    out, err = peer.communicate(timeout=20)
                finally:
                    peer.kill()
            assert (peer.returncode, out.strip(), err) == (0, "1000", "")
            partner.leave()
    assert (make, 1000) in left


@pytest.mark.parametrize("make", SERVERS)
def test_command_is_a_plain_client_of_other_servers(make: str) -> None:
    """Without anything said: messages both ways, and the end in order."""
    with server_of(make) as url:
        chosen = "plain" if make == "node-ws" else None  # it takes the first that is offered
        hello = json.dumps({"path": "/room?x=1", "protocol": chosen, "origin": None, "x-a": None})
        assert run("listen", url, "--count", "1") == (0, f"{hello}\n", "")
        assert run("connect", url, given=["one", "tw\u00f6"]) == (
            0,
            f"{hello}\none\ntw\u00f6\n",
            "",
        )


@pytest.mark.parametrize("make", SERVERS)
def test_command_tells_other_servers_what_they_want(make: str) -> None:
    """A subprotocol, an origin, a header line."""
    more = ["--subprotocol", "chat", "--origin", "https://a.example", "-H", "X-A: b"]
    hello = json.dumps(
        {"path": "/room?x=1", "protocol": "chat", "origin": "https://a.example", "x-a": "b"}
    )
    with server_of(make) as url:
        assert run("listen", url, "--count", "1", *more) == (0, f"{hello}\n", "")
        assert run("connect", url, *more, given=["one"]) == (0, f"{hello}\none\n", "")


@pytest.mark.parametrize("make", SERVERS)
def test_end_of_another_server_is_told(make: str) -> None:
    """It knows no coming back: a goodbye is the end, anything else a loss."""
    with server_of(make) as url:
        for code, status in (("1000", 0), ("4000", 3)):
            got, output, errors = run("listen", f"{url}&close={code}")
            assert (got, len(output.splitlines())) == (status, 1)
            assert ("the hub closed the connection: 4000" in errors) is (status == 3)
