"""One HTTP request and its answer; what breaks on the way is in ``client/test_requests.py``."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading

import pytest

from broadcast_server.client.http import Answer, exchange, is_broken, why
from broadcast_server.transport.deadlines import Deadline
from broadcast_server.wire import urls

from ..support.http_server import Act, answer, serving

SECONDS = 10.0


def get(act: Act, *, limit: int = 1000, timeout: float = SECONDS) -> tuple[Answer, str, bytes]:
    """Ask a server that does this; return its answer, and first line and body of the request."""
    with serving(act) as server:
        deadline = Deadline(timeout)
        got = exchange(urls.split(server.url), "GET", "/-/rooms?x=1", {}, None, deadline, limit)
    (asked,) = server.asked
    assert asked.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",
        "connection": "close",
    }
    return got, asked.first, asked.body


def test_get_has_no_body() -> None:
    """Only what was asked for goes out, and every status is an answer."""
    got, first, body = get(answer('{"detail": "no"}', "404 Not Found", "X-A: b"))
    assert (first, body) == ("GET /-/rooms?x=1 HTTP/1.1", b"")
    assert (got.status, got.reason, got.headers["x-a"]) == (404, "Not Found", "b")
    assert got.fields() == {"detail": "no"} and got.detail() == "no"


@pytest.mark.parametrize(
    "body",
    [
        *["", "x", "[]", '"x"', "[" * 500, '{"detail": 5}', '{"detail": ""}'],
        '{"detail": "' + "x" * 1001 + '"}',
    ],
)
def test_answer_without_a_detail_has_its_status(body: str) -> None:
    """What is no problem of RFC 9457 is told by its number."""
    got, _, _ = get(answer(body, "418 I'm a teapot"), limit=10_000)
    assert got.detail() == "HTTP status 418 I'm a teapot"


def test_long_answer_is_cut() -> None:
    """No more is taken than was asked for."""
    got, _, _ = get(answer("x" * 1000), limit=10)
    assert got.body == b"x" * 10


def test_answer_until_the_end_of_the_stream_is_whole() -> None:
    """HTTP/1.0 knows no other end."""
    got, _, _ = get(b"HTTP/1.0 200 OK\r\n\r\nhello")
    assert (got.status, got.body) == (200, b"hello")


@pytest.mark.parametrize(
    ("act", "broken", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", True, "broke"),
        (b"HTTP/1.1 200 OK\r\n", True, "broke"),
        (b"", True, "broke"),
        (b"hello\r\n\r\n", False, "no HTTP"),
    ],
)
def test_what_is_no_answer_is_told_apart(act: bytes, broken: bool, text: str) -> None:
    """Whoever may ask again wants to know whether the connection has broken."""
    with pytest.raises((OSError, http.client.HTTPException)) as failed:
        get(act)
    assert is_broken(failed.value) is broken
    assert text in why(failed.value, SECONDS)


def test_deadline_is_for_all_of_it() -> None:
    """A server that answers byte by byte keeps nobody."""
    over = threading.Event()

    def trickle(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not over.wait(0.01):
                sock.sendall(b"x")

    with serving(trickle) as server:
        try:
            with pytest.raises(TimeoutError) as failed:
                exchange(urls.split(server.url), "GET", "/", {}, None, Deadline(0.2), 1000)
        finally:
            over.set()
    assert why(failed.value, 0.2) == "no answer in 0.2 s"


@pytest.mark.parametrize(
    ("head", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", bytes(65536)),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n" * 1000),
    ],
)
def test_answer_without_an_end_is_given_up(head: bytes, again: bytes) -> None:
    """http.client would read a chunk of -1 bytes, heads and trailers as long as they come."""
    sent = 0

    def flood(sock: socket.socket) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            sock.sendall(head)
            while True:
                sock.sendall(again)
                sent += len(again)

    with serving(flood) as server:
        with pytest.raises(http.client.HTTPException, match="no end"):
            exchange(urls.split(server.url), "GET", "/", {}, None, Deadline(SECONDS), 1000)
    # Beside what was read there are the buffers of the two sockets.
    assert sent < 16 * 1024 * 1024
