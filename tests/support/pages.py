"""The pages for people as somebody reads them who types each command as it stands there.

A ``console`` block is what one terminal shows: commands behind ``$``, and below each what it
prints. That must be what stands there, but for ids and times. Servers get a free port from the
environment, and addresses in a command that port.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from . import ROOT, command_environment
from .pseudo_terminal import PseudoTerminal

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
        self.windows: list[PseudoTerminal] = []

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

    def open(self, command: Command, port: str | None = None) -> PseudoTerminal:
        """Type a command that goes on into a window of its own, and wait for what it prints.

        Args:
            command: the command.
            port: the one on which it listens, according to the page.
        """
        window = PseudoTerminal(
            ["sh", "-c", f"exec {self.here(command.line)}"], env=self.environment, cwd=self.place
        )
        self.windows.append(window)
        if port is not None:
            self.ports[port] = window.wait_for_match(r"127\.0\.0\.1:(\d+)")[1]
        for line in steady(self.here(command.output)).splitlines():
            window.wait_for_match(re.escape(line).replace("ID", r"[\d-]+").replace("N", r"\d+"))
        return window

    def start_hub(self, command: Command) -> PseudoTerminal:
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
