"""The end of a program: clients end before hubs, whatever was imported first."""

from __future__ import annotations

import subprocess

import pytest

from .support import PYTHON

IMPORTS = [
    "from broadcast_server import BroadcastClient, BroadcastHub",
    "from broadcast_server import BroadcastHub, BroadcastClient",
    "from broadcast_server import BroadcastClient; from broadcast_server import BroadcastHub",
    "from broadcast_server import BroadcastHub; from broadcast_server import BroadcastClient",
]


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a user's."""
    return subprocess.run(
        [PYTHON, "-W", "error", "-c", program], text=True, capture_output=True, timeout=30
    )


@pytest.mark.parametrize("imports", IMPORTS)
def test_hub_of_the_same_program_gets_what_its_clients_have_queued(imports: str) -> None:
    """The hub ends last, so that nothing is lost."""
    finished = run(
        f"""
import atexit
seen = []
atexit.register(lambda: print(len(seen)))  # registered first, called last
{imports}
hub = BroadcastHub(port=0, max_rate=0, on_message=seen.append).start()
client = BroadcastClient(hub.url).connect()
for number in range(2000):
    client.send(str(number))
"""
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "2000\n", "")


def test_ending_that_fails_does_not_keep_the_others_from_being_called() -> None:
    """What one of them raises is reported, and the next one has its turn."""
    finished = run(
        """
from broadcast_server.exits import CLIENTS, HUBS, at_exit
at_exit(HUBS, lambda: print("hub"))
at_exit(CLIENTS, lambda: print("client"))
at_exit(CLIENTS, lambda: 1 / 0)
at_exit(CLIENTS, lambda: print("other client"))
"""
    )
    assert finished.stdout.split("\n")[:3] == ["client", "other client", "hub"]
    assert "ZeroDivisionError" in finished.stderr
