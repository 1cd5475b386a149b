"""The pages for people as somebody reads them who types each command as it stands there.

A ``console`` block is what one terminal shows: commands behind ``$``, and below each what it
prints. That must be what stands there, but for ids and times. Servers get a free port from the
environment, and addresses in a command that port.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from .support import ROOT, command_environment

SECONDS = 30.0


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
    # A line that ends with a backslash goes on.
    return [Command(*re.split(r"(?<!\\)\n", part, maxsplit=1)) for part in parts]


def steady(text: str) -> str:
    """Return a text without what differs from run to run."""
    text = re.sub(r"\b\d{13}-\d+\b", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    return re.sub(r"(?m)^retry: \d+$", "retry: N", text)


class Window:
    """A terminal in which a command goes on. All that it shows is in `shown`."""

    def __init__(self, reader: Reader, line: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.shown = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()
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
        self.shown += self._decoder.decode(data)
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


@contextlib.contextmanager
def reading(home: pathlib.Path) -> Iterator[Reader]:
    """Give somebody who has done nothing yet; close their windows in the end."""
    for tool in ("curl", "openssl"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing")
    reader = Reader(home)
    try:
        yield reader
    finally:
        for window in reversed(reader.windows):
            window.close()
