"""Addresses: which there are, and how they go over the wire."""

from __future__ import annotations

import pytest

from broadcast_server.errors import UsageError
from broadcast_server.wire import urls


@pytest.mark.parametrize(
    ("url", "ascii"),
    [
        ("http://h", "http://h"),
        ("HTTPS://h:1/a?b", "https://h:1/a?b"),
        ("ws://[::1]:1/", "ws://[::1]:1/"),
        ("wss://b\u00fccher.example:8765/x", "wss://xn--bcher-kva.example:8765/x"),
        ("ws://b\u00fccher:8765/x", "ws://xn--bcher-kva:8765/x"),
        ("ws://h/\u00fc%20x?a=\u00e4&b=1+1%20?#z", "ws://h/%C3%BC%20x?a=%C3%A4&b=1+1%20?"),
        ("ws://h/@me?to=@you", "ws://h/@me?to=@you"),
        ("ws://h?to=@you", "ws://h?to=@you"),
    ],
)
def test_address_is_split_in_ascii(url: str, ascii: str) -> None:
    """Of HTTP and of a WebSocket alike; what is quoted stays so, and twice is as good as once."""
    parts = urls.split(url)
    assert parts.geturl() == ascii
    assert urls.split(ascii) == parts


@pytest.mark.parametrize(
    "url",
    ["", "h", "h/scores", "localhost:8765", "ftp://h/", "ws://", "http:///x", "http://h:0/",
     "http://h:x/", "ws://h:70000/", "ws://a b/", "ws://h/a b", "http://h/\n", "ws://h/\x1b[2J",
     "http://[::1/", "ws://\u00fc..x/", "ws://a..x/", "ws://h/\ud800",
     # Characters that are "1." and a blank with a ring in ASCII.
     "ws://\u2488.0.0.1:8765/", "ws://\u02da/"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url: str) -> None:
    """Before anything goes out."""
    with pytest.raises(UsageError, match="is not an address such as http://"):
        urls.split(url)


def test_password_is_not_repeated() -> None:
    """Nobody would use it, and it is not for logs."""
    for url in ("http://ann:secret@h/", "http://ann:secret@h:x/"):
        with pytest.raises(UsageError, match="not an address") as failed:
            urls.split(url)
        assert "secret" not in str(failed.value)


def test_scheme_must_be_one_of_those_that_are_wanted() -> None:
    """A WebSocket client cannot be given an address of HTTP."""
    with pytest.raises(UsageError, match="such as ws://"):
        urls.split("http://h/", urls.WEBSOCKET)
    assert urls.split("wss://h/", urls.WEBSOCKET).scheme == "wss"


@pytest.mark.parametrize(
    ("query", "parameters", "expected"),
    [
        ("", {}, ""),
        ("a=1&b", {}, "a=1&b"),
        ("a=1&&a=2&b", {"a": "3"}, "b&a=3"),
        ("a=1&b", {"a": None}, "b"),
        ("n%61me=bob", {"name": "An\u00e9 &/"}, "name=An%C3%A9%20%26%2F"),
    ],
)
def test_parameter_takes_the_place_of_its_namesakes(
    query: str, parameters: dict[str, str | None], expected: str
) -> None:
    """However those are written; others stay."""
    parts = urls.with_parameters(urls.split(f"ws://h/?{query}"), parameters)
    assert parts.query == expected


def test_parameter_without_bytes_in_utf_8_is_refused() -> None:
    """As every value that can never work."""
    with pytest.raises(UsageError, match="name has a lone surrogate"):
        urls.with_parameters(urls.split("ws://h/"), {"name": "\ud800"})


@pytest.mark.parametrize(
    ("url", "target"),
    [("http://h", "/"), ("http://h?x", "/?x"), ("http://h/\u00e9#z", "/%C3%A9"), ("ws://h/?", "/")],
)
def test_target_is_path_and_query(url: str, target: str) -> None:
    """A request line has a path even if the address has none."""
    assert urls.target(urls.split(url)) == target


@pytest.mark.parametrize(
    ("query", "found"),
    [("", None), ("?a=1", None), ("?t=a%2Bb", "a+b"), ("?t=1&a=2&t=3", "3"), ("?t=", None)],
)
def test_parameter_is_the_last_of_its_name(query: str, found: str | None) -> None:
    """As the hub reads it."""
    assert urls.parameter(urls.split(f"ws://h/r{query}"), "t") == found
