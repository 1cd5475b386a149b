"""Web origins: which ones an operator may allow, which ones are the same."""

from __future__ import annotations

import pytest

from broadcast_server import origins
from broadcast_server.origins import Origin


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://Example.org", Origin("https", "example.org", 443)),
        ("HTTP://example.org./", Origin("http", "example.org", 80)),
        ("http://example.org:8080", Origin("http", "example.org", 8080)),
        ("wss://example.org:0", Origin("wss", "example.org", 0)),
        ("http://[0::1]:81", Origin("http", "::1", 81)),
        ("http://127.0.0.1", Origin("http", "127.0.0.1", 80)),
        ("null", None),
        ("file://", None),
        ("ftp://example.org", None),
        ("http://", None),
        ("http:///", None),
        ("http://.", None),
        ("http://:80", None),
        ("http://a/b", None),
        ("http://a b", None),
        ("http://a:65536", None),
        ("http://a:" + "0" * 5000, None),
        ("http://[::1", None),
        ("http://[1.2.3.4]", None),
        ("http://a http://b", None),
        ("http://ä", None),
    ],
)
def test_parse(text: str, expected: Origin | None) -> None:
    """The origin of a page has a scheme, a host and a port; what is none is None."""
    assert origins.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "null",
        "file://",
        "app://desk",
        "https://a.example",
        "http://[::1]:8080/",
        "https://ü.example",
    ],
)
def test_what_may_be_allowed_matches_itself(text: str) -> None:
    """Every value that is accepted lets somebody in: in ASCII, as a browser sends it."""
    origins.check_allowed(text)
    sent = text.replace("ü", "xn--tda")
    assert origins.same(sent) in origins.allowed((text,))
