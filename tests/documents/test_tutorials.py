"""``docs/tutorials/``: each command is typed as it stands there, in order (pages.py tells how)."""

from __future__ import annotations

import itertools
import pathlib
import shutil
import subprocess

import pytest

from ..support import ROOT, command_environment, needs_module
from ..support.pages import Command, Reader, blocks, commands

pytestmark = pytest.mark.slow

FIRST_CHAT = "docs/tutorials/first-chat.md"
SCOREBOARD = "docs/tutorials/scoreboard.md"


def test_first_chat(reader: Reader) -> None:
    """From the start of the hub to its end: all in one room, and one message in another."""
    found = blocks(FIRST_CHAT)
    assert {language for language, _ in found} == {"console"}
    # The first block installs: see below.
    [start], [ann], [bob], *rest = (commands(text) for _, text in found[1:])
    hub = reader.start_hub(start)
    windows = []
    for name, command in (("ann", ann), ("bob", bob)):
        windows.append(reader.open(command))
        hub.wait_for_match(f"joined / .*'{name}'")
    windows[0].type("hello\r")
    windows[1].wait_for_match(r"ann.*hello")
    windows[1].type("hi ann\r")
    windows[0].wait_for_match(r"bob.*hi ann")
    assert "<title>" in reader.get("/", "text/html")
    for command in itertools.chain(*rest):
        reader.run(command)
    for window in windows:
        window.wait_for("hello from curl")
        window.wait_for_match(r"kitchen.*the coffee is ready")
    assert reader.told("/") == ["hello", "hi ann", "hello from curl", "the coffee is ready"]
    assert reader.told("/lunch") == ["pizza?"]
    for window, keys in zip((*windows, hub), ("/quit\r", "\x03", "\x03"), strict=True):
        window.type(keys)
        assert window.end() == 0
    assert not any("pizza" in window.shown for window in windows)


def test_scoreboard(reader: Reader) -> None:
    """Everybody reads, only who has the token writes: by curl, by an app, from cron."""
    needs_module("flask")
    found = blocks(SCOREBOARD)
    make, start, write, refused, app, serve, score, cron, look = (text for _, text in found)
    for command in commands(make):
        reader.run(command)
    (command,) = commands(start)
    hub = reader.start_hub(command)
    assert "board" in reader.get("/match?view=board", "text/html")
    for command in [*commands(write), *commands(refused)]:
        reader.run(command)
    assert reader.told("/match") == ["0:0"]
    reader.place.joinpath("app.py").write_text(reader.here(app))
    install, run = commands(serve)
    reader.run(install)
    server = reader.open(run, "5000")
    for command in commands(score):
        reader.run(command)
    *fields, line = cron.split(maxsplit=5)
    assert len(fields) == 5 and "%" not in line, "cron would take that for a line's end"
    reader.place = reader.home  # where cron begins
    reader.run(Command(line.rstrip(), ""))
    assert reader.told("/match") == ["0:0", "1:0", "half-time"]
    last, follow = commands(look)
    reader.run(last)
    reader.open(follow)
    for window in (server, hub):
        window.type("\x03")
        assert window.end() in (0, 130)
    assert "WARNING" not in hub.shown and "Traceback" not in server.shown
    for name in ("publish-token", "publish-header"):
        assert (reader.home / "board" / name).stat().st_mode & 0o077 == 0


@pytest.mark.package
@pytest.mark.timeout(300)
def test_first_chat_installs(tmp_path: pathlib.Path) -> None:
    """What the first tutorial begins with puts the command into the path."""
    (_, text), *_ = blocks(FIRST_CHAT)
    checkout = tmp_path / "checkout"
    skipped = shutil.ignore_patterns(".*", "node_modules", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, checkout, ignore=skipped)
    lines = [command.line for command in commands(text)]
    done = subprocess.run(
        ["sh", "-e", "-c", "\n".join([*lines, "command -v broadcast-server"])],
        cwd=checkout,
        env=command_environment(HOME=str(tmp_path)),
        text=True,
        capture_output=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/chat/bin/broadcast-server\n"
