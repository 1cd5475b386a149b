"""HTTP answers as bytes, without a socket; on one they are in hub/http/test_connection.py."""

from __future__ import annotations

import dataclasses

import pytest

from broadcast_server.hub.http import responses
from broadcast_server.hub.http.models import Join, Refusal, Request, Response, Stream
from broadcast_server.hub.http.pages import POLICY


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


READER = Stream("/", None, 0, None, None, False, only_events=True)


@pytest.mark.parametrize(
    ("told", "seconds", "least", "most"),
    [("5", 0.0, 5, 10), (None, 0.0, 5, 10), ("soon", 0.0, 5, 10), ("60", 1.0, 60, 70)],
)
def test_refused_stream_tells_when_to_come_back(
    told: str | None, seconds: float, least: float, most: float
) -> None:
    """At a random time after what others are told; never less than it is expected to take."""
    headers = () if told is None else (("retry-after", told),)
    refusal = Refusal(503, "the hub\r\nid: 1-1\nis full", (*headers, ("Vary", "Origin")))
    times = set()
    for _ in range(200):
        answer = responses.refused_stream(READER, refusal, seconds)
        assert isinstance(answer, Response) and answer.status == 200 and answer.ends
        retry, comment, *rest = answer.body.decode().split("\n")
        assert (comment, rest) == (": the hub id: 1-1 is full", ["", ""])
        times.add(int(retry.removeprefix("retry: ")) / 1000)
        assert {("Retry-After", str(least)), ("Vary", "Origin")} <= set(answer.headers)
        assert len([name for name, _ in answer.headers if name.lower() == "retry-after"]) == 1
    assert least <= min(times) < max(times) <= most


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 421, 500])
def test_refused_stream_keeps_a_status_that_lasts(status: int) -> None:
    """So does one that would take something else as well."""
    refusal = Refusal(status, "no")
    assert responses.refused_stream(READER, refusal) is refusal
    other = dataclasses.replace(READER, only_events=False)
    full = Refusal(503, "full")
    assert responses.refused_stream(other, full) is full


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 421, 429, 503])
def test_browser_gets_a_page_for_a_refusal(status: int) -> None:
    """Readable, with nothing of the refusal as markup, and with the page's policy; what accepts
    anything gets JSON."""
    refusal = Refusal(status, "no <script>alert('x')</script>\u202e", (("Retry-After", "5"),))
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    for method in ("GET", "POST"):
        request = Request(method, "/r", "1.1", (("accept", browser),))
        answer = responses.refused(refusal, request)
        assert (answer.status, answer.content_type) == (status, "text/html; charset=utf-8")
        text = answer.body.decode()
        assert "no &lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;\\u202e" in text
        assert f"answered {status}" in text and text.count("<script") == 0
        assert ("Retry-After", "5") in answer.headers
        policy = dict(answer.headers)["Content-Security-Policy"]
        assert policy == POLICY and "script-src 'self'" in policy
    for accept in ("*/*", "application/json", "text/html;q=0.1, */*", "," * 200):
        request = Request("GET", "/r", "1.1", (("accept", accept),))
        assert responses.refused(refusal, request).content_type == "application/problem+json"
    assert responses.refused(refusal, None).content_type == "application/problem+json"
