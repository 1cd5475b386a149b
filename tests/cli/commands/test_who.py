"""``broadcast-server who``: the list of who is where, and what is no list."""

from __future__ import annotations

import json
import socket
import subprocess

import pytest

from ...support import RawClient, running_hub
from ...support.command import assert_fails, run
from ...support.http_server import Act, answer, reset, serving

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("how", ["options", "URL", "http URL", "variables"])
def test_who_lists_the_rooms_of_a_hub(how: str) -> None:
    """Each room that has members, how many, and names, or ids where there is no name."""
    with running_hub() as hub:
        port = str(hub.port)
        arguments = {
            "options": ["--port", port],
            "URL": [f"ws://127.0.0.1:{port}"],
            "http URL": [f"http://127.0.0.1:{port}"],
            "variables": [],
        }[how]
        variables = {"BROADCAST_SERVER_CONNECT_PORT": port, "BROADCAST_SERVER_PORT": "1"}
        with (
            RawClient.connect(port=hub.port, path="/scores?name=ann"),
            RawClient.connect(port=hub.port, path="/scores"),
            RawClient.connect(port=hub.port, path="/den?name=Zo%C3%AB"),
        ):
            ids = {member.name: member.id for member in hub.members("/scores")}
            result = run("who", *arguments, variables=variables)
    assert (result.returncode, result.stderr) == (0, "")
    head, *lines = result.stdout.splitlines()
    assert head == "ROOM     COUNT  MEMBERS"
    assert sorted(lines) == ["/den         1  Zoë", f"/scores      2  ann, guest {ids[None]}"]


@pytest.mark.parametrize(
    "arguments",
    [["--room", "a b"], ["--room", "/a b"], ["URL/a%20b"], ["URL/a b"]],
)
def test_who_lists_one_room(arguments: list[str]) -> None:
    """The path of the URL, or the option, with or without its slash; nobody there is no error."""
    with running_hub() as hub, RawClient.connect(port=hub.port, path="/other"):
        url = f"ws://127.0.0.1:{hub.port}"
        given = [word.replace("URL", url) for word in arguments]
        if given == arguments:
            given += ["--port", str(hub.port)]
        if " " in given[0]:
            assert_fails(run("who", *given), 2, "is not an address")
            return
        result = run("who", *given)
        assert (result.returncode, result.stdout) == (0, "nobody is in /a b\n")
        with RawClient.connect(port=hub.port, path="/a%20b?name=ann"):
            result = run("who", *given)
        assert result.stdout == "ROOM  COUNT  MEMBERS\n/a b      1  ann\n"


def test_who_tells_an_empty_hub_and_its_lobby() -> None:
    """``/`` is a room like others."""
    with running_hub() as hub:
        port = ["--port", str(hub.port)]
        assert run("who", *port).stdout == "nobody is in any room\n"
        assert run("who", *port, "--room", "/").stdout == "nobody is in /\n"
        assert run("who", hub.url).stdout == "nobody is in /\n"


def ask_who(*acts: Act, room: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``who`` on a server that does these things, one for each connection."""
    with serving(*acts) as server:
        return run("who", f"ws://127.0.0.1:{server.port}{room}")


def test_who_escapes_what_a_peer_has_written() -> None:
    """No name steers the terminal, forges a line or passes for two; the rest is counted."""
    members = [{"id": "c1", "name": name} for name in ("a\x1b[2J", "b\nc", "d, e", 'f"')]
    rooms = [
        {"room": "/x\u202ey", "count": 1204, "members": members},
        {"room": "/z", "count": 0, "members": []},
    ]
    result = ask_who(answer(json.dumps({"rooms": rooms})))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "ROOM       COUNT  MEMBERS",
        '/x\\u202ey   1204  a\\x1b[2J, b\\nc, "d, e", f", and 1200 more',
        "/z             0  ",
    ]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (answer('{"detail": "not\\u001b now"}', "503 x"), "not\\x1b now"),
        (answer("", "404 Not Found"), "HTTP status 404 Not Found"),
        (answer("[]"), "no hub"),
        (answer("hello"), "no hub"),
        (answer('{"rooms": 5}'), "no hub"),
        (answer('{"rooms": [{"room": "/"}]}'), "no hub"),
        (answer('{"rooms": [{"room": "/", "count": "x", "members": []}]}'), "no hub"),
        (answer('{"rooms": [{"room": "/", "count": 1, "members": [5]}]}'), "no hub"),
        (answer("", "302 Found", "Location: http://other.example/"), "HTTP status 302"),
        (b"220 mail.example ESMTP\r\n", "no HTTP"),
        (b"", "broke"),
        (reset, "broke"),
    ],
)
def test_who_tells_what_is_no_list(act: Act, words: str) -> None:
    """One line, whatever is at the other end, and what it says is escaped."""
    assert_fails(ask_who(act), 1, "who: error: cannot ask ws://127.0.0.1:", words)


def test_who_asks_for_the_room_in_its_query() -> None:
    """Percent-encoded as a query wants it."""
    with serving(answer('{"rooms": []}')) as server:
        result = run("who", f"ws://127.0.0.1:{server.port}/a+b%26c%C3%A9")
    assert result.stdout == "nobody is in /a+b&cé\n"
    assert server.asked[0].first == "GET /-/rooms?room=/a%2Bb%26c%C3%A9 HTTP/1.1"


def test_who_without_a_hub_is_one_line() -> None:
    """A closed port and a name that is none."""
    with socket.socket() as bound:  # bound and not listening: nobody else can take it
        bound.bind(("127.0.0.1", 0))
        port = str(bound.getsockname()[1])
        assert_fails(run("who", "--port", port), 1, port, "refused")
    assert_fails(run("who", "--host", "no-such-host.invalid"), 1, "no-such-host.invalid")


def test_who_that_nobody_reads_has_failed() -> None:
    """A full disk is told."""
    with running_hub() as hub, open("/dev/full", "w") as full:
        options = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        result = run("who", "--port", str(hub.port), **options)
    assert result.returncode == 1 and "No space" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["ftp://127.0.0.1/"], "ftp://127.0.0.1/"),
        (["127.0.0.1"], "127.0.0.1"),
        (["--port", "0"], "--port"),
        (["ws://127.0.0.1/", "--room", "x"], "not both"),
        (["--name", "ann"], "--name"),
    ],
)
def test_who_of_what_is_no_address_is_a_usage_error(arguments: list[str], word: str) -> None:
    """Mistakes that can be seen without a network."""
    assert_fails(run("who", *arguments), 2, "who: error: ", word)
