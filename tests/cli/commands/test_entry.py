"""From the arguments to the exit status, in the process of the test."""

from __future__ import annotations

from typing import Any

import pytest

from broadcast_server.cli import main
from broadcast_server.cli.commands import entry
from broadcast_server.cli.options import parser

from ...support import run_python


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("port", "abc"),
        ("port", "-1"),
        ("port", "65536"),
        ("host", "\udcff"),
        ("ping-interval", "nan"),
        ("ping-interval", "soon"),
        ("max-clients", "1.5"),
        ("log-level", "loud"),
    ],
)
def test_bad_value_names_its_source(
    option: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same value is refused in the command line and in the environment."""
    variable = "BROADCAST_SERVER_" + option.upper().replace("-", "_")
    with pytest.raises(ValueError, match=f"{variable}: "):
        parser.resolve("start", {}, {variable: text})
    assert main(["start", f"--{option}={text}"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    start = f"broadcast-server start: error: argument --{option}: "
    assert printed.err.startswith(start)
    assert len(printed.err.splitlines()) == 1


def test_empty_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty address would be every interface of the machine."""
    assert main(["start", "--host", ""]) == 2
    assert "--host: it is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "literal", "url", "words"),
    [
        ({"command": "who"}, 0, None, None),
        ({"command": "who", "url": "h:1/x"}, 1, "h:1/x", None),
        ({"command": "publish", "url": "ws://h/", "words": ["a"]}, 0, "ws://h/", ["a"]),
        ({"command": "publish", "url": ":80", "words": ["a"]}, 0, ":80", ["a"]),
        ({"command": "publish", "url": ":80", "words": ["-"]}, 0, ":80", ["-"]),
        ({"command": "publish", "url": ":80", "words": ["a"]}, 1, ":80", ["a"]),
        ({"command": "publish", "url": ":80", "words": ["a"]}, 2, None, [":80", "a"]),
        ({"command": "publish", "url": "ws://h/", "words": ["a"]}, 2, None, ["ws://h/", "a"]),
        ({"command": "publish", "url": "ws://h/"}, 1, None, ["ws://h/"]),
        ({"command": "publish", "url": ":80"}, 0, None, [":80"]),
        ({"command": "publish", "url": ":80", "file": "f"}, 0, ":80", None),
        ({"command": "publish", "url": "x", "file": "f"}, 0, None, ["x"]),
        ({"command": "publish", "url": ":80", "words": ["a"], "port": 81}, 0, None, [":80", "a"]),
        ({"command": "publish", "url": "12:30", "words": ["a"]}, 0, None, ["12:30", "a"]),
        ({"command": "publish", "url": "ws://h/", "room": "/x"}, 0, None, ["ws://h/"]),
    ],
)
def test_url_is_told_from_text(
    given: dict[str, Any], literal: int, url: str | None, words: list[str] | None
) -> None:
    """A word that is no address, or stands beside --room or behind --, belongs to the text."""
    assert entry.take_url(given, literal) == url
    assert given.get("words") == words


def test_room_that_is_given_twice_is_refused() -> None:
    """Nobody guesses which of them counts."""
    with pytest.raises(ValueError, match="not both"):
        entry.take_url({"command": "listen", "url": "ws://h/", "port": 1})


def test_ctrl_c_before_a_command_runs_is_the_status_of_a_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not a traceback, where nobody has given SIGINT its default action."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "parse", interrupted)
    assert main(["who"]) == 130


def test_only_the_command_that_runs_is_imported() -> None:
    """What sends a message from a script starts often: it does not load a hub, nor a terminal."""
    program = """
import sys
from broadcast_server.cli import main
main(["publish", "--timeout", "0", "x"])
ours = {name for name in sys.modules if name.startswith("broadcast_server.")}
assert "broadcast_server.cli.commands.publish" in ours
folders = ("broadcast_server.hub", "broadcast_server.cli.terminal")
assert not {name for name in ours if name.startswith(folders)}, ours
"""
    result = run_python(program)
    assert result.returncode == 0, result.stderr
