"""Commands that help, the man page and the pages for people show: they can be pasted.

All of them are parsed, wherever they stand. The examples of the help, of the man page and of the
README are run, each on a real hub, as a shell runs them; only addresses, ports and what belongs to
other machines are replaced.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broadcast_server import BroadcastHub
from broadcast_server.cli.commands import entry
from broadcast_server.cli.options import parser
from broadcast_server.cli.options.tables import OPTIONS
from broadcast_server.cli.options.words import EXAMPLES

from ..support import ROOT, code_blocks, command_environment, running_hub, wait_until
from ..support.beside import process_group
from ..support.certificates import Certificates
from ..support.documents import PAGES, name_of
from ..support.pages import Command, Reader, commands

pytestmark = pytest.mark.slow

SECONDS = 30.0
# Not what is quoted, such as the pattern of pkill, nor a path or an assignment that ends so.
COMMAND = re.compile(
    rf"(?<![\w/.:='-])broadcast-server +(?=--start|--connect|(?:{'|'.join(OPTIONS)})\b)"
)


def in_help() -> list[str]:
    """Return the examples of all help."""
    return [line for lines in EXAMPLES.values() for line in lines]


def in_man_page() -> list[str]:
    """Return the examples of the man page; a line that goes on is one with the next."""
    text = (ROOT / "docs" / "man" / "extra.inc").read_text(encoding="utf-8")
    text = re.split(r"^\[>", text.partition("[>examples]")[2], flags=re.MULTILINE)[0]
    for escape, character in ((r"\e", "\\"), (r"\-", "-"), (r"\(aq", "'"), (r"\(dq", '"')):
        text = text.replace(escape, character)
    found = [line[3:].replace("\\ ", " ") for line in text.splitlines() if line.startswith(".B ")]
    return re.sub(r"\\\n|(?<=[|&])\n", " ", "\n".join(found)).splitlines()


def in_readme() -> list[str]:
    """Return what the README shows of the command."""
    blocks = [text for text in code_blocks("README.md", "console") if "curl" not in text]
    found = re.findall(r"^\$ (.*)$", "".join(blocks), re.MULTILINE)
    assert len(found) >= 7
    return found


# -- All of them -------------------------------------------------------------------------------


def arguments_of(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each of our commands in a text, up to what is the shell's."""
    for line in re.sub(r" *\\\n\s*", " ", text).splitlines():
        for found in COMMAND.finditer(line):
            rest = line[found.end() :].partition("`")[0].partition(" # ")[0]
            lexer = shlex.shlex(rest, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = []
            try:
                for word in lexer:
                    if set(word) <= set("|&;()<>"):
                        break
                    words.append(word)
            except ValueError:  # a quotation that goes on in the next line: what is before it
                pass
            yield words


@pytest.mark.parametrize("page", [None, *PAGES], ids=lambda page: page and name_of(page))
def test_command_that_is_shown_is_one(page: pathlib.Path | None) -> None:
    """Its options are there, and its values can be: what was renamed is not found on a page."""
    text = page.read_text(encoding="utf-8") if page else "\n".join([*in_help(), *in_man_page()])
    for arguments in arguments_of(text):
        if not {"--help", "--help-all", "[options]"}.isdisjoint(arguments):
            continue
        given, unknown = parser.build_parser().parse_known_args(parser.command_first(arguments))
        assert [word for word in unknown if word != "--"] == [], arguments
        values = vars(given)
        entry.take_url(values)
        parser.resolve(values["command"], values, {})


# -- Those that are run ------------------------------------------------------------------------


class Desk:
    """Where commands are typed: a folder with the files that they name, and a hub."""

    def __init__(self, place: pathlib.Path, hub: BroadcastHub, certificates: Certificates) -> None:
        self.hub = hub
        self.called = place / "called"
        self._place = place
        tools = place / "bin"
        tools.mkdir()
        for name in ("mail", "make"):
            (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {self.called}\n')
            (tools / name).chmod(0o755)
        for name in ("token", "tokens", "publish-token"):
            (place / name).write_text("secret\n")
            (place / name).chmod(0o600)
        (place / "headers").write_text("Cookie: a=b\n")
        (place / "app.log").touch()
        shutil.copy(certificates.cert, place / "fullchain.pem")
        shutil.copy(certificates.key, place / "privkey.pem")
        self._environment = command_environment(
            tools, BROADCAST_SERVER_PORT="0", BROADCAST_SERVER_CONNECT_PORT=str(hub.port)
        )

    def here(self, line: str) -> str:
        """Return a line with our hub in it, and without other machines."""
        port = "0" if re.search(r"broadcast-server (--)?start", line) else str(self.hub.port)
        line = re.sub(r"(?<=--port )\d+", port, line)
        line = re.sub(r"(?<=127\.0\.0\.1:)\d+", str(self.hub.port), line)
        for tls, plain in (("wss", "ws"), ("https", "http")):
            own = f"{plain}://127.0.0.1:{self.hub.port}/"
            line = re.sub(rf"\b{tls}://[\w.]+\.(?:example|org)(:\d+)?/", own, line)
        return line.replace("0.0.0.0", "127.0.0.1")

    def typed(self, line: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        """Run a line as an interactive shell does; end it and all that it has started."""
        return process_group(["sh", "-c", self.here(line)], cwd=self._place, env=self._environment)

    def write_log(self) -> None:
        """Add a line to the log."""
        with (self._place / "app.log").open("a") as file:
            file.write("one more line\n")


def room_of(line: str) -> str:
    """Return the room that a line is about."""
    patterns = (r"--room (\S+)", r"listen (/\S*)", r"\w+://[^/\s]+(/\S*)")
    found = [match[1] for match in (re.search(pattern, line) for pattern in patterns) if match]
    return found[0] if found else "/"


def try_out(desk: Desk, line: str) -> None:
    """Type a line and see that it does what it is there for."""
    room = room_of(line)
    before = len(desk.hub.history(room))
    with desk.typed(line) as process:
        assert process.stdout is not None and process.stdin is not None

        def comes(condition: Callable[[], Any]) -> None:
            assert wait_until(condition, SECONDS), (line, process.poll())

        if re.search("broadcast-server (--)?start", line):
            assert process.stdout.readline().startswith("Listening on ws"), line
            return
        if line.startswith("tail "):

            def is_told() -> bool:
                desk.write_log()
                return len(desk.hub.history(room)) > before

            comes(is_told)
            return
        if " listen" in line or "connect" in line or "event-stream" in line:
            comes(lambda: desk.hub.members(room))
            desk.hub.broadcast("ERROR", room)
            if "--exec" in line:
                comes(lambda: desk.called.exists())
            if "--count" not in line:
                assert process.poll() is None, line
                return
        output, errors = process.communicate(timeout=SECONDS)
        assert (process.returncode, errors) == (0, ""), line
        if "broadcast-server publish" in line:
            assert output == "" and len(desk.hub.history(room)) > before
        if "make" in line:
            assert desk.called.read_text() == "make deploy\n"


@pytest.mark.parametrize(
    "source", [in_help, in_man_page, in_readme], ids=lambda found: found.__name__
)
def test_example_does_what_it_is_for(
    source: Callable[[], list[str]], tmp_path: pathlib.Path, certificates: Certificates
) -> None:
    """Each line, one after the other, in one folder: nothing but these files is needed."""
    for tool in ("jq", "curl", "openssl"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing (make shells)")
    lines = source()
    assert len(lines) >= 7
    for number, line in enumerate(lines):
        place = tmp_path / str(number)
        place.mkdir()
        with running_hub() as hub:
            try_out(Desk(place, hub, certificates), line)


def test_readme_over_http_shows_what_is_answered(reader: Reader) -> None:
    """One line after the other in front of one hub; the last one goes on."""
    (block,) = [text for text in code_blocks("README.md", "console") if "curl" in text]
    *once, stream = commands(block)
    hub = reader.start_hub(Command("broadcast-server start", "Listening on ws://127.0.0.1:8765/"))
    for command in once:
        if command.output:
            reader.run(command)
        else:
            reader.run(Command(f"{command.line} | grep -q 'data.*3:1'", ""))
    follower = reader.open(stream)
    hub.wait_for("joined /scores")
    assert stream.output == "" and len(once) == 3
    reader.run(Command("curl --silent --output /dev/null -d 4:1 http://127.0.0.1:8765/scores", ""))
    follower.wait_for("data: 4:1")
    for window in (follower, hub):
        window.type("\x03")
        window.end()
