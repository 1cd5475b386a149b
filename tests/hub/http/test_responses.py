"""HTTP answers as bytes, without a socket; on one they are in hub/http/test_connection.py."""

from __future__ import annotations

import pytest

from broadcast_server.hub.http import responses
from broadcast_server.hub.http.models import Join, Response


def lines_of(head: bytes) -> list[bytes]:
    """Return the lines of a head, which must be whole."""
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


@pytest.mark.parametrize(
    ("headers", "keep", "connection"),
    [
        ((), True, []),
        ((), False, [b"Connection: close"]),
        ((("Upgrade", "websocket"),), True, [b"Connection: Upgrade"]),
        ((("Upgrade", "websocket"),), False, [b"Connection: Upgrade, close"]),
    ],
)
def test_head_says_what_becomes_of_the_connection(
    headers: tuple[tuple[str, str], ...], keep: bool, connection: list[bytes]
) -> None:
    """RFC 9110 §7.8: whoever sends Upgrade lists it in Connection."""
    lines = lines_of(responses.head_of(Response(426, headers), keep=keep))
    assert lines[0] == b"HTTP/1.1 426 Upgrade Required"
    assert [line for line in lines if line.startswith(b"Connection:")] == connection


@pytest.mark.parametrize("origin", [None, "https://a.example"])
def test_who_may_read_may_load(origin: str | None) -> None:
    """An answer for pages of another origin does not forbid them to load it."""
    headers = () if origin is None else (("Access-Control-Allow-Origin", origin),)
    head = responses.head_of(Response(200, headers), keep=True)
    assert (b"Cross-Origin-Resource-Policy" in head) == (origin is None)


@pytest.mark.parametrize("subprotocol", [None, "broadcast.v1.json"])
def test_switching_names_the_subprotocol_that_was_chosen(subprotocol: str | None) -> None:
    """RFC 6455 §4.2.2: without one there is no such line."""
    lines = lines_of(responses.switching(Join("/", None, False, 0, None, "xyz", None, subprotocol)))
    assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
    assert b"Sec-WebSocket-Accept: xyz" in lines
    chosen = [line for line in lines if line.startswith(b"Sec-WebSocket-Protocol")]
    assert chosen == ([] if subprotocol is None else [b"Sec-WebSocket-Protocol: broadcast.v1.json"])


def test_busy_is_whole() -> None:
    """It goes out before any request was read: it must end by itself, and say when to come back."""
    lines = lines_of(responses.busy())
    assert lines[0] == b"HTTP/1.1 503 Service Unavailable"
    assert {b"Retry-After: 5", b"Content-Length: 0", b"Connection: close"} <= set(lines)
