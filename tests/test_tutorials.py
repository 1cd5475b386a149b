"""``docs/tutorials/``: each command is typed as it stands there, in order.

A ``console`` block is what one terminal shows: commands behind ``$``, and below each what it prints.
That must be what stands there, but for ids and times. Servers get a free port from the environment,
and addresses in a command that port.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from .support import ROOT, command_environment, needs_module

SECONDS = 30.0
FIRST_CHAT = "docs/tutorials/first-chat.md"
SCOREBOARD = "docs/tutorials/scoreboard.md"


class Command(NamedTuple):
    """A line of a page that is typed, and what is printed below it."""

    line: str
    output: str


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the language and the text of each block of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[Command]:
    """Return what is typed in a ``console`` block."""
    assert block.startswith("$ ")
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [Command(*part.split("\n", 1)) for part in parts]


def steady(text: str) -> str:
    """Return a text without what differs from run to run."""
    text = re.sub(r"\b\d{13}-\d+\b", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    return re.sub(r"(?m)^retry: \d+$", "retry: N", text)


class Window:
    """A terminal in which a command goes on. All that it shows is in `shown`."""

    def __init__(self, reader: Reader, line: str) -> None:
        self._master, slave = pty.openpty()
        self.shown = ""
        self.process = subprocess.Popen(
            ["sh", "-c", f"exec {line}"],
            cwd=reader.place,
            env=reader.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # So that this is the session's terminal, and Ctrl-C what it is for a user.
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(slave)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the window has shown what matches."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.shown)):
            left = max(0, deadline - time.monotonic())
            assert select.select([self._master], [], [], left)[0], self.shown
            self._read()
        return found

    def _read(self) -> bool:
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # the last program in it has ended
            return False
        self.shown += data.decode().replace("\r\n", "\n")
        return True

    def end(self) -> int:
        """Read until the command has ended; return its exit status."""
        deadline = time.monotonic() + SECONDS
        while select.select([self._master], [], [], max(0, deadline - time.monotonic()))[0]:
            if not self._read():
                break
        return self.process.wait(SECONDS)

    def close(self) -> None:
        """Close the window, whatever is in it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)


class Reader:
    """Who reads a page and does what it says, in a home of their own.

    Attributes:
        ports: by the port of the page, the one that it is here.
    """

    def __init__(self, home: pathlib.Path) -> None:
        self.home = self.place = home
        self.environment = command_environment(HOME=str(home), TERM="xterm")
        self.environment |= {"BROADCAST_SERVER_PORT": "0", "FLASK_RUN_PORT": "0"}
        self.ports: dict[str, str] = {}
        self.windows: list[Window] = []

    def here(self, text: str) -> str:
        """Return a text with our ports in it."""
        return re.sub(r"(?<=:)\d{4}\b", lambda port: self.ports.get(port[0], port[0]), text)

    def run(self, command: Command) -> None:
        """Type a command that ends, and compare what it prints."""
        if command.line.startswith("cd "):
            self.place = pathlib.Path(command.line[3:].replace("~", str(self.home)))
            return
        done = subprocess.run(
            # A umask would not outlive its shell.
            ["sh", "-c", f"umask 077; {self.here(command.line)}"],
            cwd=self.place,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, (command.line, done.stderr)
        assert steady(done.stdout) == steady(self.here(command.output))

    def open(self, command: Command, port: str | None = None) -> Window:
        """Type a command that goes on into a window of its own, and wait for what it prints.

        Args:
            command: the command.
            port: the one on which it listens, according to the page.
        """
        window = Window(self, self.here(command.line))
        self.windows.append(window)
        if port is not None:
            self.ports[port] = window.wait_for(r"127\.0\.0\.1:(\d+)")[1]
        for line in steady(self.here(command.output)).splitlines():
            window.wait_for(re.escape(line).replace("ID", r"[\d-]+").replace("N", r"\d+"))
        return window

    def start_hub(self, command: Command) -> Window:
        """Start the hub of the page; the commands find it."""
        hub = self.open(command, "8765")
        self.environment["BROADCAST_SERVER_CONNECT_PORT"] = self.ports["8765"]
        return hub

    def get(self, path: str, media_type: str) -> str:
        """Return what the hub answers to a browser or a program."""
        url = f"http://127.0.0.1:{self.ports['8765']}{path}"
        request = urllib.request.Request(url, headers={"Accept": media_type})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return str(answer.read().decode())

    def told(self, room: str) -> list[str]:
        """Return what was said in a room."""
        found = json.loads(self.get(f"{room}?history=100", "application/json"))
        return [message["data"] for message in found["messages"]]


@pytest.fixture
def reader(tmp_path: pathlib.Path) -> Iterator[Reader]:
    """Somebody who has done nothing yet."""
    if shutil.which("curl") is None or shutil.which("openssl") is None:
        pytest.skip("curl or openssl is missing")
    found = Reader(tmp_path)
    try:
        yield found
    finally:
        for window in reversed(found.windows):
            window.close()


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
        hub.wait_for(f"joined / .*'{name}'")
    windows[0].type("hello\r")
    windows[1].wait_for(r"ann.*hello")
    windows[1].type("hi ann\r")
    windows[0].wait_for(r"bob.*hi ann")
    assert "<title>" in reader.get("/", "text/html")
    for command in itertools.chain(*rest):
        reader.run(command)
    for window in windows:
        window.wait_for("hello from curl")
        window.wait_for(r"kitchen.*the coffee is ready")
    assert reader.told("/") == ["hello", "hi ann", "hello from curl", "the coffee is ready"]
    assert reader.told("/lunch") == ["pizza?"]
    hub.type("\x03")
    assert [window.end() for window in (hub, *windows)] == [0, 0, 0]
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
