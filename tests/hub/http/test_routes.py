"""Policies: an HTTP request in, a decision out."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import pytest

from broadcast_server.errors import InvalidRoom
from broadcast_server.hub.http import models
from broadcast_server.hub.http.access import find_token
from broadcast_server.hub.http.models import (
    NEVER_GIVEN,
    Asset,
    Decision,
    Health,
    Join,
    Metrics,
    Page,
    Preflight,
    Publish,
    Recall,
    Refusal,
    Request,
    Response,
    RoomList,
    Stream,
)
from broadcast_server.hub.http.routes import (
    MAX_KEY_CHARACTERS,
    MAX_ROOM_CHARACTERS,
    SUBPROTOCOL,
    accept_key,
    check_room,
    decide,
)
from broadcast_server.rules import MAX_NAME_CHARACTERS, MAX_SESSION_CHARACTERS

from ...support import SAMPLE_ACCEPT, SAMPLE_KEY

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
) -> Decision:
    """Decide on an upgrade; a header that is None is left out."""
    headers = HEADERS | {name.replace("_", "-"): value for name, value in changed.items()}
    lines = tuple((name, value) for name, value in headers.items() if value is not None)
    request = Request(method, target, version, lines + more)
    return decide(request, allow_origin, max_history)


def ask(
    method: str = "GET",
    target: str = "/scores",
    *,
    allow_origin: tuple[str, ...] = (),
    max_history: int = 100,
    **headers: str,
) -> Decision:
    """Decide on a request that is no upgrade."""
    lines = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    request = Request(method, target, "1.1", (("host", "hub.example:8765"), *lines))
    return decide(request, allow_origin, max_history)


def status(decision: Decision) -> int:
    """Return 101 for an upgrade that may go on, 200 for whatever else may."""
    if isinstance(decision, (Refusal, Response)):
        return decision.status
    return 101 if isinstance(decision, Join) else 200


def header(decision: Decision, name: str) -> str | None:
    """Return a header that the decision asks for."""
    assert not isinstance(decision, (Join, Health, Asset))
    return dict(decision.headers).get(name)


# -- The upgrade -------------------------------------------------------------------------------


def test_plain_upgrade_joins() -> None:
    """Nothing asked for: from now on, without echo, without a name."""
    assert upgrade() == Join("/scores", None, False, 0, None, SAMPLE_ACCEPT)
    assert accept_key(SAMPLE_KEY) == SAMPLE_ACCEPT


def test_query_is_taken_apart_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever asks first; the token is looked for in the same parameters."""
    parsed: list[str] = []
    parse = models.parse_query
    monkeypatch.setattr(models, "parse_query", lambda raw: parsed.append(raw) or parse(raw))
    for headers in (tuple(HEADERS.items()), (("accept", "text/event-stream"),)):
        request = Request("GET", "/r?name=a&access_token=t", "1.1", headers)
        assert not isinstance(decide(request, (), 100), Refusal)
        assert find_token(request) == "t"
    assert parsed == ["name=a&access_token=t"] * 2


@pytest.mark.parametrize(
    ("target", "accept", "text"),
    [
        ("/?" + "&" * 16_000, "text/html", "bad query: there are more than 64 parameters"),
        ("/?a=" + "%41" * 1025, "text/html", "bad query: there are more than 1024"),
        ("/" + "%41" * 513, "*/*", "a room's path has at most 128 characters"),
        ("/", "a/b," * 64, "bad header: Accept: there are more than 64 elements"),
    ],
    ids=["parameters", "escapes", "path", "accept"],
)
def test_long_request_is_not_taken_apart(target: str, accept: str, text: str) -> None:
    """Whatever it asks for, also the page, for which nobody needs a token."""
    decision = ask(target=target, accept=accept)
    assert isinstance(decision, Refusal)
    assert decision.status == 400 and decision.text.startswith(text)


def test_room_of_the_most_characters_may_be_escaped() -> None:
    """Each as four bytes."""
    room = "/" + "\U0001f600" * (MAX_ROOM_CHARACTERS - 1)
    raw = "".join(f"%{byte:02x}" for byte in room.encode())
    assert ask(target="/" + raw[3:], accept="application/json") == Recall(
        room, 1, None, None, (("Vary", "Accept"),)
    )


def test_query_says_what_a_client_wants() -> None:
    """Percent-decoded, plus is a space, unknown keys are for others."""
    decision = upgrade("/?name=An%C3%A9+B&echo=1&history=7&since=12-3&session=8Zk&x=y")
    assert decision == Join(
        "/", "An\u00e9 B", True, 7, (12, 3), SAMPLE_ACCEPT, session="8Zk", since_text="12-3"
    )


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (SUBPROTOCOL, SUBPROTOCOL),
        (f"chat, {SUBPROTOCOL}", SUBPROTOCOL),
        (SUBPROTOCOL.upper(), None),
        ("chat", None),
        (None, None),
    ],
)
def test_subprotocol_is_chosen_if_it_is_offered(offered: str | None, chosen: str | None) -> None:
    """RFC 6455 §4.2.2: by its exact name; what others offer is no mistake."""
    decision = upgrade(sec_websocket_protocol=offered)
    assert isinstance(decision, Join) and decision.subprotocol == chosen


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
     f"name={'x' * (MAX_NAME_CHARACTERS + 1)}", "session=%00",
     f"session={'x' * (MAX_SESSION_CHARACTERS + 1)}"],
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
        ({"upgrade": None}, 200),
        ({"upgrade": "h2c"}, 200),
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
        ({"method": "HEAD"}, 200),
        ({"method": "POST"}, 200),
        ({"method": "OPTIONS"}, 200),
        ({"method": "DELETE"}, 405),
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
        assert header(decision, "Allow") == "GET, HEAD, POST, PUT, OPTIONS"


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
        ("/" + "x" * MAX_ROOM_CHARACTERS, 400), ("/favicon.ico", 404),
        ("/robots.txt", 404), ("/-", 404), ("/-/x", 404), ("/%2d/x", 404),
    ],
)  # fmt: skip
def test_path_that_is_no_room_is_refused(target: str, expected: int) -> None:
    """Before anything else is looked at."""
    assert status(upgrade(target)) == expected
    assert status(upgrade(target, method="POST", upgrade=None)) == expected


@pytest.mark.parametrize(
    "room",
    ["", "a", "//", "/a//b", "/..", "/\n", "/\ud800", "/healthz", "/-/x",
     "/" + "x" * MAX_ROOM_CHARACTERS],
)  # fmt: skip
def test_room_of_a_caller_is_checked_alike(room: str) -> None:
    """A program cannot publish where nobody could join."""
    with pytest.raises(InvalidRoom):
        check_room(room)


@pytest.mark.parametrize(("room", "shown"), [(None, "None"), (5, "int"), (b"/a", "bytes")])
def test_room_of_a_wrong_type_is_a_type_error(room: Any, shown: str) -> None:
    """As for any argument."""
    with pytest.raises(TypeError, match=f"^room must be str, not {shown}$"):
        check_room(room)


@pytest.mark.parametrize("target", ["/healthz", "/metrics", "/-/rooms", "/-/static/room.js"])
def test_nobody_joins_what_is_no_room(target: str) -> None:
    """An upgrade finds nothing where a GET gets something, and there is nothing to publish to."""
    assert status(upgrade(target)) == 404
    assert status(ask("POST", target)) == 405
    assert header(ask("POST", target), "Allow") == "GET, HEAD, OPTIONS"


# -- Looking at a room -------------------------------------------------------------------------

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
VARY = (("Vary", "Accept"),)


def test_browser_gets_the_page() -> None:
    """Of a room that exists or not; the query may ask for the board."""
    assert ask(accept=BROWSER) == Page("/scores", False, VARY)
    assert ask("HEAD", accept=BROWSER) == Page("/scores", False, VARY)
    assert ask("GET", "/scores?view=board", accept=BROWSER) == Page("/scores", True, VARY)
    assert status(ask("GET", "/scores?view=x", accept=BROWSER)) == 400


def test_program_gets_the_last_messages() -> None:
    """One of them if it does not say how many; never more than the hub gives."""
    assert ask() == Recall("/scores", 1, None, None, VARY)
    assert ask(accept="*/*") == ask(accept="application/json") == ask("HEAD") == ask()
    assert ask("GET", "/a?history=7", max_history=5) == Recall("/a", 5, None, None, VARY)
    assert ask("GET", "/a?since=12-3") == Recall("/a", 1, (12, 3), "12-3", VARY)
    assert status(ask("GET", "/a?since=x")) == 400


def test_event_source_gets_the_stream() -> None:
    """With what the query says of it; from now on if it says nothing."""
    events = "text/event-stream"
    assert ask(accept=events) == Stream(
        "/scores", None, 0, None, None, False, VARY, only_events=True
    )
    target = "/a?name=ann&history=7&since=12-3&format=json"
    expected = Stream("/a", "ann", 7, (12, 3), "12-3", True, VARY, only_events=True)
    assert ask("GET", target, accept=events) == expected
    found = ask("GET", target, accept=f"{events}, */*;q=0.1")
    assert found == dataclasses.replace(expected, only_events=False)
    assert status(ask("GET", "/a?format=xml", accept=events)) == 400
    assert status(ask("GET", "/a?name=%00", accept=events)) == 400


def test_head_of_a_stream_is_its_head() -> None:
    """Nobody joins for that, and a bad query is bad all the same."""
    events = "text/event-stream"
    assert ask("HEAD", accept=events) == ask("GET", accept=events)
    assert status(ask("HEAD", "/?history=x", accept=events)) == 400


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/html", Page),
        ("text/html;q=0.5, application/json", Recall),
        ("text/event-stream;q=0.9, text/html;q=0.8", Stream),
        ("text/html;q=0, */*", Recall),
        ("application/json;q=0, */*;q=0.1", Page),
        ("text/*", Page),
        ("", Recall),
    ],
)
def test_accept_chooses(accept: str, expected: type) -> None:
    """The highest weight wins; 0 forbids."""
    assert isinstance(ask(accept=accept), expected)


def test_what_cannot_be_had_is_406() -> None:
    """The answer says what can be, and is kept by no cache for somebody else."""
    decision = ask(accept="image/png")
    assert isinstance(decision, Refusal) and decision.status == 406
    assert "text/event-stream" in decision.text
    assert header(decision, "Vary") == "Accept"


@pytest.mark.parametrize(
    ("value", "since", "text"),
    [
        ("12-3", (12, 3), "12-3"),
        ("", (1, 1), "1-1"),
        ("nothing", NEVER_GIVEN, "nothing"),
        ("x" * 100, NEVER_GIVEN, "x" * 64),
        ("\u00c3\u00a9", NEVER_GIVEN, "\u00e9"),
    ],
)
def test_last_event_id_wins_over_the_query(value: str, since: tuple[int, int], text: str) -> None:
    """A browser that comes back with what is no id gets a gap, not an error that ends it."""
    decision = ask("GET", "/?since=1-1", accept="text/event-stream", last_event_id=value)
    assert isinstance(decision, Stream)
    assert (decision.since, decision.since_text) == (since, text)


# -- Publishing --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_message_is_taken(method: str) -> None:
    """What it is shows the body if nothing is said; with the name of who sends it and a key."""
    assert ask(method) == Publish("/scores", None, None, None)
    decision = ask(method, "/a?name=ann", idempotency_key="k1", content_type="text/plain")
    assert decision == Publish("/a", "ann", "k1", True)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/plain", True),
        ("text/plain; charset=UTF-8", True),
        ("application/json", True),
        ("application/problem+json", True),
        ("image/svg+xml", True),
        ("application/x-www-form-urlencoded", True),
        ("application/octet-stream", False),
        ("image/png", False),
        ("", None),
        ("text/plain; charset=latin-1", 415),
        ("multipart/form-data; boundary=x", 415),
        ("nonsense", 400),
    ],
)
def test_content_type_says_what_a_message_is(
    content_type: str, expected: bool | int | None
) -> None:
    """Text must be UTF-8; whatever is no text is binary; a form in parts is not taken apart."""
    decision = ask("POST", content_type=content_type)
    if isinstance(decision, Publish):
        assert decision.is_text is expected
    else:
        assert status(decision) == expected


def test_encoded_message_is_415() -> None:
    """The hub unpacks nothing, and says so; ``identity`` is no encoding."""
    decision = ask("POST", content_encoding="gzip")
    assert status(decision) == 415 and header(decision, "Accept-Encoding") == "identity"
    assert isinstance(ask("POST", content_encoding="identity"), Publish)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("k", 200),
        ('"6f1c"', 200),
        ("x" * MAX_KEY_CHARACTERS, 200),
        ("x" * (MAX_KEY_CHARACTERS + 1), 400),
        ("", 400),
        ("a b", 400),
        ("\u00e9", 400),
    ],
)
def test_idempotency_key_is_checked(key: str, expected: int) -> None:
    """A key that would not hold is an error: the sender relies on it."""
    decision = ask("POST", idempotency_key=key)
    assert status(decision) == expected
    if isinstance(decision, Publish):
        assert decision.key == key


@pytest.mark.parametrize("name", ["content-type", "idempotency-key", "broadcast-name"])
def test_doubled_header_of_a_message_is_400(name: str) -> None:
    """Nobody knows which one is meant."""
    lines = (("host", "hub"), (name, "text/plain"), (name, "text/html"))
    decision = decide(Request("POST", "/", "1.1", lines), (), 100)
    assert isinstance(decision, Refusal)
    assert decision.status == 400 and decision.text == f"bad header: {name} comes twice"


@pytest.mark.parametrize(
    ("query", "value", "name"),
    [
        ("", "ann", "ann"),
        ("", "An\u00c3\u00a9", "An\u00e9"),
        ("?name=bob", "ann", "bob"),
        ("?name=", "ann", "ann"),
        ("", "", None),
    ],
)
def test_name_may_come_in_a_header(query: str, value: str, name: str | None) -> None:
    """In UTF-8; the query wins."""
    decision = ask("POST", f"/{query}", broadcast_name=value)
    assert isinstance(decision, Publish) and decision.name == name


@pytest.mark.parametrize("value", ["\u00e9", "x" * (MAX_NAME_CHARACTERS + 1), "a\u00c2\u0085b"])
def test_bad_name_in_a_header_is_400(value: str) -> None:
    """The rules of the query hold here, too."""
    decision = ask("POST", broadcast_name=value)
    assert isinstance(decision, Refusal)
    assert decision.status == 400 and decision.text.startswith("bad header: Broadcast-Name")


def test_bad_query_of_a_message_is_400() -> None:
    """As for a WebSocket."""
    decision = ask("POST", "/?name=%00")
    assert isinstance(decision, Refusal) and decision.text.startswith("bad query: ")


# -- What is no room ---------------------------------------------------------------------------


def test_reserved_paths_have_their_own_answers() -> None:
    """Health, counters, who is where and the files of the page."""
    assert ask("GET", "/healthz") == ask("HEAD", "/health%7a") == Health()
    assert ask("GET", "/metrics") == Metrics((("Vary", "Accept"),))
    assert ask("GET", "/-/rooms") == RoomList(None)
    assert ask("GET", "/-/rooms?room=/a%2Fb") == RoomList("/a/b")
    assert ask("GET", "/-/static/room.js") == Asset("room.js")


@pytest.mark.parametrize(
    "target",
    ["/-", "/-/", "/-/x", "/-/static/", "/-/static/a/b", "/-/static/..", "/-/static/%2e%2e",
     "/-/static/..%2fx", "/-/static/A", "/favicon.ico", "/robots.txt"],
)  # fmt: skip
def test_other_reserved_paths_are_404(target: str) -> None:
    """No file has such a name."""
    assert status(ask("GET", target)) == 404


@pytest.mark.parametrize("room", ["", "a", "//", "/healthz", "/%00", "%"])
def test_rooms_of_a_bad_room_are_400(room: str) -> None:
    """Asking for what can be no room is a mistake."""
    assert status(ask("GET", f"/-/rooms?room={room}")) == 400


# -- Pages of other origins --------------------------------------------------------------------

OWN = "http://hub.example:8765"
PAGE = "https://page.example"


@pytest.mark.parametrize(
    ("method", "target", "accept"),
    [
        ("POST", "/", "*/*"),
        ("PUT", "/", "*/*"),
        ("GET", "/", "application/json"),
        ("GET", "/", "text/event-stream"),
        ("GET", "/-/rooms", "*/*"),
        ("GET", "/metrics", "*/*"),
    ],
)
def test_foreign_page_gets_nothing_of_a_room(method: str, target: str, accept: str) -> None:
    """403, unless it is allowed; then its browser is told so. The hub's own needs no telling."""
    foreign = ask(method, target, accept=accept, origin=PAGE)
    assert status(foreign) == 403 and header(foreign, "Vary") == "Origin"
    assert status(ask(method, target, accept=accept, sec_fetch_site="cross-site")) == 403
    assert status(ask(method, target, accept=accept, sec_fetch_site="same-site")) == 403

    own = ask(method, target, accept=accept, origin=OWN, sec_fetch_site="same-origin")
    assert status(own) == 200 and header(own, "Access-Control-Allow-Origin") is None
    allowed = ask(
        method,
        target,
        accept=accept,
        origin=PAGE,
        allow_origin=(PAGE,),
        sec_fetch_site="cross-site",
    )
    assert status(allowed) == 200
    assert header(allowed, "Access-Control-Allow-Origin") == PAGE
    assert "Origin" in str(header(allowed, "Vary"))
    anybody = ask(method, target, accept=accept, origin=PAGE, allow_origin=("*",))
    assert header(anybody, "Access-Control-Allow-Origin") == "*"


def test_what_tells_nothing_of_a_room_is_for_all() -> None:
    """The page, its files and whether the hub serves."""
    assert isinstance(ask(accept="text/html", origin=PAGE), Page)
    assert isinstance(ask(accept="text/html", sec_fetch_site="cross-site"), Page)
    assert isinstance(ask("GET", "/healthz", origin=PAGE), Health)
    assert isinstance(ask("GET", "/-/static/room.js", origin=PAGE), Asset)


def test_errors_of_an_allowed_page_are_readable() -> None:
    """A page that may ask may also read what was wrong."""
    decision = ask("POST", content_encoding="gzip", origin=PAGE, allow_origin=(PAGE,))
    assert status(decision) == 415
    assert header(decision, "Access-Control-Allow-Origin") == PAGE


def test_preflight_is_answered() -> None:
    """An allowed page may POST with the hub's headers; a foreign one may not."""
    asked = {"origin": PAGE, "access_control_request_method": "POST"}
    decision = ask("OPTIONS", allow_origin=(PAGE,), **asked)
    assert isinstance(decision, Preflight)
    assert header(decision, "Access-Control-Allow-Origin") == PAGE
    assert header(decision, "Access-Control-Allow-Methods") == "GET, POST, PUT"
    assert "Idempotency-Key" in str(header(decision, "Access-Control-Allow-Headers"))
    assert status(ask("OPTIONS", **asked)) == 403
    assert (
        header(
            ask("OPTIONS", "/-/rooms", allow_origin=("*",), **asked), "Access-Control-Allow-Methods"
        )
        == "GET"
    )


def test_options_says_what_is_understood() -> None:
    """RFC 9110 §9.3.7, to whoever asks."""
    assert ask("OPTIONS") == Preflight((("Allow", "GET, HEAD, POST, PUT, OPTIONS"),))
    assert ask("OPTIONS", "/metrics") == Preflight((("Allow", "GET, HEAD, OPTIONS"),))
    assert status(ask("OPTIONS", "/-/x")) == 404
