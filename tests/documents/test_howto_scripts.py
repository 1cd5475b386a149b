"""docs/howto/scripts.md is typed as it stands there, block after block, in an empty directory."""

from __future__ import annotations

import gzip
import os
import pathlib
import re
import shutil
import signal
import subprocess
from typing import Any

import pytest

from ..support import ROOT, code_blocks, command_environment, running_hub, wait_until

pytestmark = pytest.mark.slow

PAGE = "docs/howto/scripts.md"
SECONDS = 30


class Reader:
    """Somebody who types what the page says; their hub is on another port than 8765."""

    def __init__(self, place: pathlib.Path, port: int) -> None:
        self.place = place
        self.environment = command_environment(
            place,
            BROADCAST_SERVER_CONNECT_HOST="127.0.0.1",
            BROADCAST_SERVER_CONNECT_PORT=str(port),
        )
        self.options: dict[str, Any] = {"cwd": place, "env": self.environment, "text": True}

    def type(self, text: str) -> str:
        """Run a block; return what it prints, to which nothing on standard error belongs."""
        done = subprocess.run(
            ["sh", "-eu", "-c", text], capture_output=True, timeout=SECONDS, **self.options
        )
        assert (done.returncode, done.stderr) == (0, ""), text
        return done.stdout


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is missing (make shells)")
def test_page_does_what_it_says(tmp_path: pathlib.Path) -> None:
    """What a block prints, or does, is what the words around it promise."""
    blocks = iter(code_blocks(PAGE, "sh"))
    with running_hub() as hub:
        reader = Reader(tmp_path, hub.port)
        assert next(blocks) == "broadcast-server start --port 8765\n"
        assert "CONNECT_PORT=8765" in next(blocks)
        assert reader.type(next(blocks)) == ""
        assert [m.data for m in hub.history("/boot")] == ["the machine is up"]

        assert reader.type(next(blocks)) == ""
        assert [m.data for m in hub.history("/scores")] == ["3:1", "half-time, still 3:1"]
        assert reader.type(next(blocks)) == ""
        assert [m.data for m in hub.history("/log")] == ["one", "two", "three"]

        follow = next(blocks)
        assert follow.startswith("tail ")
        log = tmp_path / "app.log"
        log.touch()
        with subprocess.Popen(
            ["sh", "-c", follow], start_new_session=True, stderr=subprocess.PIPE, **reader.options
        ) as pipe:
            try:
                # tail begins at the end of the file, which is wherever it is when it starts.
                def heard() -> bool:
                    with log.open("a") as file:
                        file.write("a line\n")
                    return hub.history("/log")[-1].data == "a line"

                assert wait_until(heard, SECONDS)
            finally:
                os.killpg(pipe.pid, signal.SIGTERM)
        reader.type("printf '%s\\n' one two three | broadcast-server publish --room /log -")
        assert reader.type(next(blocks)) == ""
        as_text, as_data = [m.data for m in hub.history("/files")]
        assert as_text == '{"score": "3:1"}\n'
        assert isinstance(as_data, bytes) and gzip.decompress(as_data).decode() == as_text

        assert reader.type(next(blocks).replace(":8765", f":{hub.port}")) == ""
        assert [m.data for m in hub.history("/results")] == ["3:1"]
        assert reader.type(next(blocks)) == ""
        last = hub.history("/")[-1]
        assert last.data == "hub.example:8765 is down"
        assert last.sender is not None and last.sender.name == "cron"

        assert reader.type(next(blocks)) == ""
        assert [m.data for m in hub.history("/jobs")] == ["the backup is done"]
        assert reader.type(next(blocks)) == "one\ntwo\nthree\n"
        assert reader.type(next(blocks)) == "somebody: 3:1\nreferee: half-time, still 3:1\n"
        assert reader.type(next(blocks)) == "/log\n/scores\n"
        assert reader.type(next(blocks)) == "go on: the backup is done\n"
        assert reader.type(next(blocks)) == "four\n"
        assert (tmp_path / "last-id").read_text().strip() == hub.history("/log")[-1].id
        assert reader.type(next(blocks)) == "ann: disk full; $(reboot)\n"

        assert reader.type(next(blocks)) == ""
        last = hub.history("/log")[-1]
        assert last.data == "six" and last.sender is not None and last.sender.name == "clock"
        with subprocess.Popen(
            ["sh", "-c", next(blocks)], start_new_session=True, **reader.options
        ) as bot:
            try:
                assert wait_until(lambda: len(hub.members("/bot")) == 1, SECONDS)
                hub.broadcast("hello", room="/bot")
                assert wait_until(
                    lambda: hub.history("/bot")[-1].data == "you said: hello", SECONDS
                )
            finally:
                os.killpg(bot.pid, signal.SIGTERM)
        assert list(blocks) == []


def test_line_for_cron_tells_what_has_failed(tmp_path: pathlib.Path) -> None:
    """And says nothing, so that no mail is sent."""
    (line,) = code_blocks(PAGE, "crontab")
    command = line.split(None, 5)[5]
    (tmp_path / "backup").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "backup").chmod(0o755)
    with running_hub() as hub:
        assert Reader(tmp_path, hub.port).type(command) == ""
        (message,) = hub.history("/alerts")
        assert message.data == "the backup has failed"
        assert message.sender is not None and message.sender.name == "cron"


def test_every_block_is_typed() -> None:
    """A block of another kind wants a test."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert set(re.findall(r"^```(\w+)$", text, re.MULTILINE)) == {"sh", "crontab"}
