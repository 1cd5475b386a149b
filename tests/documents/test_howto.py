"""The pages in ``docs/howto/``: their code is run as it stands, but on a free port."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from ..support import PYTHON, ROOT, code_blocks, command_environment, needs_module
from ..support.command import hub_program

pytestmark = pytest.mark.slow

SECONDS = 20.0
PUBLISHERS = "docs/howto/many-publishers.md"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        command, env=command_environment(), text=True, capture_output=True, timeout=2 * SECONDS
    )


@pytest.fixture
def address() -> Iterator[str]:
    """The hub of the page: its first shell block, on a free port; gives ``127.0.0.1:PORT``."""
    command = code_blocks(PUBLISHERS, "sh")[0].replace("8765", "0")
    with hub_program(["sh", "-c", f"exec {command}"], env=command_environment()) as hub:
        yield f"{hub.host}:{hub.port}"
        status, _, log = hub.end()
        assert status == 0, log


def told(address: str, room: str) -> list[str]:
    """Return what was published to a room."""
    with urllib.request.urlopen(f"http://{address}{room}?history=100", timeout=SECONDS) as answer:
        return [message["data"] for message in json.load(answer)["messages"]]


def test_workers_publish_to_the_one_hub(address: str) -> None:
    """Each process of the app reaches it, and the app serves its clients without it, too."""
    needs_module("flask")
    app = code_blocks(PUBLISHERS, "python")[0]
    request = 'answer = app.test_client().post("/goals", data={"score": "1:0"})'
    program = f"{app}\n{request}\nassert answer.text == '1:0'"
    for number in range(1, 4):
        result = run(PYTHON, "-W", "error", "-c", program.replace("127.0.0.1:8765", address))
        assert (result.returncode, result.stderr) == (0, "")
        assert told(address, "/scores") == ["1:0"] * number
    # Port 1 is nobody's.
    result = run(PYTHON, "-W", "error", "-c", program.replace("127.0.0.1:8765", "127.0.0.1:1"))
    assert result.returncode == 0 and "the board was not told" in result.stderr


def test_message_that_is_told_twice_is_delivered_once(address: str) -> None:
    """The key is the same, so the id is."""
    program = code_blocks(PUBLISHERS, "python")[1].replace("127.0.0.1:8765", address)
    result = run(PYTHON, "-W", "error", "-c", program)
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "True\n")
    assert told(address, "/alerts") == ["invoice 17 is paid"]


def test_curl_publishes_once_a_day(address: str) -> None:
    """The key has the day in it."""
    (_, command) = code_blocks(PUBLISHERS, "sh")
    for duplicate in (False, True):
        result = run("sh", "-c", command.replace("127.0.0.1:8765", address))
        assert (result.returncode, result.stderr) == (0, "")
        assert json.loads(result.stdout)["duplicate"] is duplicate
    assert told(address, "/alerts") == ["the backup is done"]


def test_every_block_is_run() -> None:
    """A block that is added wants a test."""
    text = (ROOT / PUBLISHERS).read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * (2 + 2)
