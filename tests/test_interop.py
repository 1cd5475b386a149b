"""Clients of other makes in one room with a raw one: each gets, sends and leaves as it should.

The peers run in processes of their own (``tests/interop``) with their libraries' defaults, and send
back what they get, so that each message travels to the peer and from it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

import pytest

from .support import BINARY, PYTHON, ROOT, TEXT, RawClient, python_environment, running_hub

PEER_JS = ROOT / "tests" / "interop" / "peer.js"

# Both sides of each change of the length field, nothing, and the largest that the hub takes.
SIZES = (0, 1, 125, 126, 65_535, 65_536, 1024 * 1024)

MAKES = ("websocket-client", "websockets-sync", "websockets-asyncio", "node-ws")


def command_for(make: str) -> Sequence[str]:
    """Return the command that starts a peer, without the URL."""
    if make != "node-ws":
        return (PYTHON, "-m", "tests.interop.peers", make)
    node = shutil.which("node")
    if node is None or not (ROOT / "tests" / "node_modules" / "ws").is_dir():
        pytest.skip("Node or tests/node_modules/ws is missing (make test installs it)")
    return (node, str(PEER_JS))


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
