"""Where a client command goes: addresses, header lines, subprotocols, whom to trust."""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import pytest

from broadcast_server.cli.io import target
from broadcast_server.cli.options import parser
from broadcast_server.errors import AccessError, ConnectFailed, TlsError, UsageError


def find(url: str | None = None, **given: Any) -> target.Target:
    """Return where ``listen`` would go with these options."""
    found = parser.resolve("listen", given, {})
    return target.find("listen", found.values, found.sources, url)


def offered(*header: str, **given: Any) -> dict[str, str]:
    """Return what ``listen`` would say in its upgrade with these options."""
    found = parser.resolve("listen", {"header": header, **given}, {})
    headers = target.read_headers(header, "-H")
    return target.offer(headers, found.values, found.sources)


# Addresses.


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        (("127.0.0.1", 8765, "/"), "ws://127.0.0.1:8765/"),
        (("::1", 80, "scores"), "ws://[::1]:80/scores"),
        (("hub.example", 80, "/a b/ü?#%"), "ws://hub.example:80/a%20b/%C3%BC%3F%23%25"),
    ],
)
def test_room_url_is_made_of_what_people_write(parts: tuple[str, int, str], url: str) -> None:
    """A room is quoted, an IPv6 address put in brackets."""
    assert target.room_url(*parts) == url


def test_url_takes_the_place_of_host_port_and_room() -> None:
    """It is passed on as it is."""
    assert find("ws://h/r").url == "ws://h/r"
    assert find(host="h", port=81, room="r").url == "ws://h:81/r"
    with pytest.raises(UsageError, match="--port: a hub has a port"):
        find(port=0)


def test_paths_follow_the_hub_before_them() -> None:
    """What is said of all of them, such as the token, is read once where it can be."""
    found = parser.resolve("listen", {"host": "::1", "token_file": None}, {})
    words = ["/a", "ws://h:1/b?x=1", "/c", "wss://s/d", "/e", ":9"]
    places = target.find_all("listen", found.values, found.sources, words)
    assert [place.url for place in places] == [
        "ws://[::1]:8765/a",
        "ws://h:1/b?x=1",
        "ws://h:1/c",
        "wss://s/d",
        "wss://s/e",
        "ws://[::1]:9",
    ]


@pytest.mark.parametrize(
    ("short", "url"),
    [
        (":8765", "ws://127.0.0.1:8765"),
        (":8765/scores?since=1-0", "ws://127.0.0.1:8765/scores?since=1-0"),
        ("localhost:80", "ws://localhost:80"),
        ("b\u00fccher:80/\u00fc", "ws://b\u00fccher:80/\u00fc"),
        ("[::1]:80/r", "ws://[::1]:80/r"),
        ("http://h/r", "ws://h/r"),
        ("HTTPS://h", "wss://h"),
        ("/scores?since=1-0", "ws://127.0.0.1:8765/scores?since=1-0"),
        # What is left to be refused.
        ("scores", "scores"),
        ("127.0.0.1", "127.0.0.1"),
        ("user:80@h", "user:80@h"),
        ("::1:80", "::1:80"),
        ("h:80x", "h:80x"),
        ("ftp://h:80", "ftp://h:80"),
    ],
)
def test_short_address_is_completed(short: str, url: str) -> None:
    """What people type, and what they copy out of a browser."""
    assert find(short).url == url
    if short.startswith(":8"):
        assert find(short, host="::1").url == url.replace("127.0.0.1", "[::1]")


def test_token_comes_from_its_file_or_the_variable(tmp_path: pathlib.Path) -> None:
    """The file wins, and must be there."""
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    assert find(token_file=str(path)).token == "s3cret"
    found = parser.resolve("listen", {}, {"BROADCAST_SERVER_TOKEN": "t"})
    assert target.find("listen", found.values, found.sources, None).token == "t"
    with pytest.raises(AccessError, match="cannot read"):
        find(token_file=str(tmp_path / "none"))


# Header lines.


def test_header_lines_are_read_as_curl_reads_them(tmp_path: pathlib.Path) -> None:
    """From the argument or from a file; a name that comes twice is a list (RFC 9110 §5.3)."""
    path = tmp_path / "headers"
    path.write_text("Authorization: Basic YTpi\r\n\nx-b:2\n")
    found = target.read_headers([f"@{path}", "X-A:  1 2 ", "X-B: 3", "X-C:"], "-H")
    assert found == {"Authorization": "Basic YTpi", "X-A": "1 2", "x-b": "2, 3", "X-C": ""}


@pytest.mark.parametrize(
    "line", ["x", ": x", "a b: c", "a: b\nc: d", "a: b\r", "a: \x01", "é: a", "a: é", "a: \udcff"]
)
def test_what_is_no_header_line_is_refused(line: str) -> None:
    """And not repeated: it may be a secret."""
    with pytest.raises(UsageError, match="--header: a header line is ") as failed:
        target.read_headers([line], "--header")
    assert line not in str(failed.value).partition(":")[2]


def test_bad_line_of_a_file_is_named(tmp_path: pathlib.Path) -> None:
    """By its number; a file that is not there is an error, too."""
    path = tmp_path / "headers"
    path.write_text("a: b\nsecret\n")
    with pytest.raises(UsageError, match="headers, line 2: ") as failed:
        target.read_headers([f"@{path}"], "--header")
    assert "secret" not in str(failed.value)
    with pytest.raises(AccessError, match="cannot read"):
        target.read_headers([f"@{tmp_path / 'none'}"], "--header")


@pytest.mark.parametrize("name", ["Host", "connection", "Content-Length", "Sec-WebSocket-Key"])
def test_what_we_say_ourselves_cannot_be_chosen(name: str) -> None:
    """It would be another protocol."""
    with pytest.raises(UsageError, match=f"{name} cannot be chosen"):
        target.read_headers([f"{name}: x"], "--header")


# Subprotocols and the origin.


def test_hub_is_offered_its_own_subprotocol() -> None:
    """Behind one for servers that take the first of what is offered without a look."""
    assert offered() == {"Sec-WebSocket-Protocol": "plain, broadcast.v1.json"}


def test_other_subprotocols_take_its_place() -> None:
    """One, several, or none at all."""
    assert offered(subprotocol=["chat"])["Sec-WebSocket-Protocol"] == "chat"
    assert offered(subprotocol=["a", "b"])["Sec-WebSocket-Protocol"] == "a, b"
    assert offered(subprotocol=["none"])["Sec-WebSocket-Protocol"] == ""


def test_origin_is_one_header_line_more() -> None:
    """What is said in two ways is refused."""
    assert offered("A: b", origin="https://a.example")["Origin"] == "https://a.example"
    with pytest.raises(UsageError, match="Origin is what --origin is for"):
        offered("origin: x", origin="y")
    with pytest.raises(UsageError, match="--subprotocol is for"):
        offered("sec-websocket-protocol: x")


# Trust and failures.


def test_trust_is_for_tls_only(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    """Whoever asks for it elsewhere would feel safe; who gives it up is warned."""
    logger = logging.getLogger("broadcast_server.client")
    before = list(logger.filters)
    # A command ends after that.
    request.addfinalizer(lambda: logger.filters.__setitem__(slice(None), before))
    assert find("wss://h/", ca_file="f").trust == {"ca_file": "f"}
    with pytest.raises(UsageError, match="--ca-file is for addresses that begin with wss://"):
        find("ws://h/", ca_file="f")
    with pytest.raises(UsageError, match="contradict"):
        find("wss://h/", ca_file="f", insecure=True)
    assert capsys.readouterr().err == ""
    assert find("wss://h/", insecure=True).trust == {"insecure": True}
    assert "INSECURE" in capsys.readouterr().err
    with caplog.at_level(logging.INFO):
        logger.warning("insecure: whoever answers is believed")
        logger.warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UsageError("bad"), 2, "bad"),
        (AccessError("no file"), 1, "no file"),
        (TlsError("no certificate"), 1, "no certificate"),
        (ConnectFailed("refused"), 1, "refused"),
        (ConnectFailed("unknown", untrusted=True), 1, "unknown (--ca-file says whom to trust)"),
    ],
)
def test_failure_has_its_status_and_its_line(
    error: Exception, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 for what can never work, 1 for what does not work now."""
    assert isinstance(error, target.FAILURES)
    assert target.tell("listen", error) == status
    assert capsys.readouterr().err == f"broadcast-server listen: error: {words}\n"


@pytest.mark.parametrize(
    ("word", "is_room"),
    [
        ("ws://h/", True),
        ("HTTPS://h", True),
        ("127.0.0.1:8765/scores", True),
        ("hub.example:8765/", True),
        ("localhost:8765/", True),
        ("[::1]:8765/log", True),
        (":8765/log", True),
        ("12:30", False),
        ("3:1/2:0", False),
        ("v1.2:3/4", False),
        ("ratio:3/4", False),
        (":8765", False),
        ("localhost:8765", False),
        ("and/or", False),
        ("ftp://h/", False),
        ("", False),
    ],
)
def test_single_word_is_an_address_where_it_can_be_nothing_else(word: str, is_room: bool) -> None:
    """A score or a time of day is a text."""
    assert target.is_room(word, has_text=False) is is_room


@pytest.mark.parametrize(
    ("word", "is_room"),
    [
        (":8811", True),
        (":8811/scores?name=ann", True),
        ("localhost:8811", True),
        ("LOCALHOST:8811", True),
        ("127.0.0.1:8811", True),
        ("[::1]:8811", True),
        ("[::1]:8811/scores", True),
        ("hub:8811", True),
        ("hub:8811/scores", True),
        ("my_hub-2:8811", True),
        ("hub.example:8811", True),
        ("hub.example.:8811", True),
        ("10.hub:1", True),
        ("b\u00fccher:80", True),
        ("ws://h", True),
        ("3:1", False),
        ("3:1/2:0", False),
        ("12:30", False),
        ("v1.2:3", False),
        ("v1.2.:3", False),
        ("1.2:3/4", False),
        ("1.2.3:4", False),
        ("1.2.3.4.5:6", False),
        ("999.0.0.1:80", False),
        ("a..b:80", False),
        ("(note:5", False),
        ("note:5)", False),
        ("note:", False),
        (":-)", False),
        ("::1:80", False),
        ("hub", False),
        ("user@hub:80", False),
        ("ftp://hub:80", False),
    ],
)
def test_first_word_of_several_is_an_address_as_for_other_commands(
    word: str, is_room: bool
) -> None:
    """A host and a port lead there; a score, a time and a version belong to the text."""
    assert target.is_room(word, has_text=True) is is_room
