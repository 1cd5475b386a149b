"""Policies: an HTTP request in, a decision out."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from broadcast_server.errors import InvalidRoom
from broadcast_server.policies import (
    MAX_NAME_CHARACTERS,
    MAX_ROOM_CHARACTERS,
    Join,
    Refusal,
    Request,
    accept_key,
    check_room,
    decide,
)

from .support import SAMPLE_ACCEPT, SAMPLE_KEY

HEADERS = {
    "host": "hub.example:8765",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": SAMPLE_KEY,
    "sec-websocket-version": "13",
}


def upgrade(
    target: str = "/scores",
    *more: tuple[str, str],
    method: str = "GET",
    version: str = "1.1",
    allow_origin: tuple[str, ...] = (),
    max_history: int = 100,
    **changed: str | None,
) -> Join | Refusal:
    """Decide on an upgrade; a header that is None is left out."""
    headers = HEADERS | {name.replace("_", "-"): value for name, value in changed.items()}
    lines = tuple((name, value) for name, value in headers.items() if value is not None)
    request = Request(method, target, version, lines + more)
    return decide(request, allow_origin, max_history)


def status(decision: Join | Refusal) -> int:
    """Return 101 for what may go on."""
    return 101 if isinstance(decision, Join) else decision.status


def header(decision: Join | Refusal, name: str) -> str | None:
    """Return a header of a refusal."""
    assert isinstance(decision, Refusal)
    return dict(decision.headers).get(name)


# -- The upgrade -------------------------------------------------------------------------------


def test_plain_upgrade_joins() -> None:
    """Nothing asked for: from now on, without echo, without a name."""
    assert upgrade() == Join("/scores", None, False, 0, None, SAMPLE_ACCEPT)
    assert accept_key(SAMPLE_KEY) == SAMPLE_ACCEPT


def test_query_says_what_a_client_wants() -> None:
    """Percent-decoded, plus is a space, unknown keys are for others."""
    decision = upgrade("/?name=An%C3%A9+B&echo=1&history=7&since=12-3&x=y")
    assert decision == Join("/", "An\u00e9 B", True, 7, (12, 3), SAMPLE_ACCEPT)


def test_history_is_cut_to_what_the_hub_gives() -> None:
    """More than is kept is no mistake."""
    decision = upgrade("/?history=999999999999999999", max_history=5)
    assert isinstance(decision, Join) and decision.history == 5


@pytest.mark.parametrize(
    "query",
    ["echo=2", "echo=", "echo=yes", "history=-1", "history=x", "history=1.5",
     "history=1000000000000000000", "history=\u0661", "since=", "since=1", "since=1-",
     "since=-1", "since=a-b", f"since={'9' * 21}-0", "name=%", "name=%zz", "name=%f", "name=%ff",
     "name=%00", "name=%1b[2J", "name=%0a", "name=%E2%80%A8", "name=%ED%A0%80", "%ff=1",
     f"name={'x' * (MAX_NAME_CHARACTERS + 1)}"],
)  # fmt: skip
def test_query_that_cannot_be_is_refused(query: str) -> None:
    """400, and the text begins with where it was."""
    decision = upgrade(f"/?{query}")
    assert isinstance(decision, Refusal)
    assert decision.status == 400 and decision.text.startswith("bad query: ")


def test_longest_name_is_taken_and_an_empty_one_is_none() -> None:
    """Counted in characters."""
    name = "\u00fc" * MAX_NAME_CHARACTERS
    decision = upgrade(f"/?name={'%C3%BC' * MAX_NAME_CHARACTERS}")
    assert isinstance(decision, Join) and decision.name == name
    decision = upgrade("/?name=")
    assert isinstance(decision, Join) and decision.name is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"connection": "keep-alive, Upgrade"}, 101),
        ({"upgrade": "WebSocket"}, 101),
        ({"upgrade": "h2c, websocket"}, 101),
        ({"content_length": "0"}, 101),
        ({"upgrade": None}, 426),
        ({"upgrade": "h2c"}, 426),
        ({"connection": None}, 400),
        ({"connection": "close"}, 400),
        ({"sec_websocket_version": None}, 426),
        ({"sec_websocket_version": "8"}, 426),
        ({"sec_websocket_key": None}, 400),
        ({"sec_websocket_key": ""}, 400),
        ({"sec_websocket_key": SAMPLE_KEY[:-1]}, 400),
        ({"sec_websocket_key": "!" * 24}, 400),
        ({"sec_websocket_key": base64.b64encode(bytes(17)).decode()}, 400),
        ({"sec_websocket_key": "\u00e9" * 24}, 400),
        ({"content_length": "5"}, 400),
        ({"transfer_encoding": "chunked"}, 400),
        ({"version": "1.0"}, 400),
        ({"method": "HEAD"}, 426),
        ({"method": "POST"}, 405),
        ({"method": "OPTIONS"}, 405),
    ],
)
def test_opening_handshake_is_checked(changed: dict[str, Any], expected: int) -> None:
    """RFC 6455 §4.2.1; what is lawful is taken, however it is written."""
    decision = upgrade(**changed)
    assert status(decision) == expected
    if expected == 426:
        assert header(decision, "Sec-WebSocket-Version") == "13"
        assert header(decision, "Upgrade") == "websocket"
    if expected == 405:
        assert header(decision, "Allow") == "GET, HEAD"


def test_doubled_key_or_version_is_refused() -> None:
    """Two lines that could be read in two ways."""
    assert status(upgrade("/", ("sec-websocket-key", SAMPLE_KEY))) == 400
    assert status(upgrade("/", ("sec-websocket-version", "13"))) == 426


# -- Origins -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "origin", "allowed", "expected"),
    [
        ("hub:8765", None, (), 101),
        ("hub:8765", "http://hub:8765", (), 101),
        ("hub:8765", "HTTP://HUB:8765", (), 101),
        ("hub", "http://hub:80", (), 101),
        ("hub:443", "https://hub", (), 101),
        ("hub:8765", "http://hub", (), 403),
        ("hub:8765", "http://evil.example", (), 403),
        ("hub:8765", "http://hub:8765.evil.example", (), 403),
        ("hub:8765", "null", (), 403),
        ("hub:8765", "", (), 403),
        ("hub:8765", "file://", (), 403),
        ("hub:8765", "http://page.example", ("http://page.example",), 101),
        ("hub:8765", "http://page.example", ("HTTP://Page.example/",), 101),
        ("hub:8765", "https://page.example", ("http://page.example",), 403),
        ("hub:8765", "null", ("*",), 101),
    ],
)
def test_page_of_another_origin_is_refused(
    host: str, origin: str | None, allowed: tuple[str, ...], expected: int
) -> None:
    """RFC 6455 §10.2: its own pages, those that are allowed, and programs."""
    assert status(upgrade(host=host, origin=origin, allow_origin=allowed)) == expected


def test_two_origins_are_refused() -> None:
    """Nobody knows which one is true."""
    own = ("origin", "http://hub.example:8765")
    assert status(upgrade("/", own, own)) == 403


# -- Rooms -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "room"),
    [
        ("/", "/"), ("/a/b", "/a/b"), ("/a/", "/a/"), ("/%61", "/a"), ("/%C3%BC", "/\u00fc"),
        ("/a%20b", "/a b"), ("/a+b", "/a+b"), ("/a%2Fb", "/a/b"), ("/...", "/..."),
        ("/%2561", "/%61"),
        ("ws://hub/a?x", "/a"), ("HTTP://hub:1/", "/"), ("ws://hub", "/"),
        ("ws://hub?next=/y", "/"),
        ("/" + "x" * (MAX_ROOM_CHARACTERS - 1), "/" + "x" * (MAX_ROOM_CHARACTERS - 1)),
    ],
)  # fmt: skip
def test_path_is_the_room(target: str, room: str) -> None:
    """Percent-decoded once; a slash at the end counts."""
    decision = upgrade(target)
    assert isinstance(decision, Join) and decision.room == room
    check_room(room)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("*", 400), ("x", 400), ("ftp://hub/", 400), ("//", 400),
        ("/a//b", 400),
        ("/.", 400), ("/a/../b", 400), ("/a/%2e%2e", 400), ("/%", 400), ("/%f", 400), ("/%zz", 400),
        ("/%ff", 400), ("/%00", 400), ("/%7f", 400), ("/%C2%85", 400), ("/%E2%80%A8", 400),
        ("/" + "x" * MAX_ROOM_CHARACTERS, 400), ("/healthz", 404), ("/metrics", 404),
        ("/favicon.ico", 404), ("/robots.txt", 404), ("/-", 404), ("/-/x", 404), ("/%2d/x", 404),
    ],
)  # fmt: skip
def test_path_that_is_no_room_is_refused(target: str, expected: int) -> None:
    """Before anything else is looked at."""
    assert status(upgrade(target)) == expected
    assert status(upgrade(target, method="POST", upgrade=None)) == expected


@pytest.mark.parametrize(
    "room",
    ["", "a", "//", "/a//b", "/..", "/\n", "/\ud800", "/healthz", "/-/x",
     "/" + "x" * MAX_ROOM_CHARACTERS, None, 5],
)  # fmt: skip
def test_room_of_a_caller_is_checked_alike(room: Any) -> None:
    """A program cannot publish where nobody could join."""
    with pytest.raises(InvalidRoom):
        check_room(room)
