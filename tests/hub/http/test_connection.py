"""``HttpConnection`` on one end of a pair of sockets: bodies, answers, streams."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import tracemalloc
import types
from collections.abc import Iterator

import pytest

from broadcast_server.hub.http import connection
from broadcast_server.hub.http.connection import (
    RESTING,
    SMALL_BODY_BYTES,
    BadRequest,
    HttpConnection,
    MadeWay,
)
from broadcast_server.hub.http.models import (
    MAX_HEADER_LINES,
    MAX_LIST_ELEMENTS,
    Refusal,
    Request,
    Response,
)

from ...support.inside import lines_of_head, note_events, set_max_chunks

SECONDS = 10.0
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OK = Response(200, (), b"yes\n", "text/plain")


class Pair:
    """An ``HttpConnection`` and the client's end of its socket."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.ours = ours
        self.sock = theirs
        self.http = HttpConnection(ours, 4096)
        self.places: list[int] = []  # what was asked for bodies

    def send(self, *lines: str, body: bytes = b"", first: str = "POST / HTTP/1.1") -> None:
        """Send a request of these lines and what is given of its body."""
        head = "\r\n".join([first, "Host: hub", *lines, "", ""])
        self.sock.sendall(head.encode("latin-1") + body)

    def read(self) -> Request:
        """Let the hub's end read a request."""
        return self.http.read_request(SECONDS, SECONDS)

    def body(self, request: Request, limit: int = 100) -> bytes:
        """Let the hub's end read its body."""
        return self.http.read_body(request, limit, SECONDS, self.places.append)

    def fail(self, request: Request, limit: int = 100, timeout: float = SECONDS) -> int | None:
        """Let the reading of a body fail; return the status, None for no answer."""
        with pytest.raises(BadRequest) as failed:
            self.http.read_body(request, limit, timeout, self.places.append)
        refusal = failed.value.refusal
        return refusal.status if refusal is not None else None

    def received(self) -> bytes:
        """Return what has come to the client until now."""
        data = b""
        while select.select([self.sock], [], [], 0)[0]:
            piece = self.sock.recv(1 << 16)
            if not piece:
                break
            data += piece
        return data

    def ended(self) -> bool:
        """Tell whether nothing more comes to the client."""
        return self.sock.recv(1) == b""


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two connected sockets, one of them the hub's."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(SECONDS)
    with ours, theirs:
        yield Pair(ours, theirs)


# -- Bodies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("upgrade", ["Upgrade: websocket", "Expect: x"], ids=["plain", "h11"])
@pytest.mark.parametrize(
    ("more", "fits"),
    [
        (["a:b"] * (MAX_HEADER_LINES - 3), True),
        (["a:b"] * (MAX_HEADER_LINES - 2), False),
        (["Accept: " + "," * MAX_LIST_ELEMENTS], True),
        (["Accept: " + "," * MAX_LIST_ELEMENTS, "X: ,"], False),
    ],
    ids=["lines", "one line more", "elements", "one element more"],
)
def test_request_has_so_many_lines_and_elements(
    pair: Pair, upgrade: str, more: list[str], fits: bool
) -> None:
    """However it is read; one more is 431."""
    pair.send(upgrade, "Connection: Upgrade", *more, first="GET / HTTP/1.1")
    if fits:
        assert pair.read().target == "/"
    else:
        with pytest.raises(BadRequest) as failed:
            pair.read()
        refusal = failed.value.refusal
        assert refusal is not None and (refusal.status, refusal.reason) == (431, "max_header_bytes")


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_lines_are_counted_before_they_are_parsed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Wherever a head is torn; those of a body do not count."""
    head = end.join(["POST / HTTP/1.1", "Host: h", "Content-Length: 500", "", ""]).encode()
    data = head + b"\n" * 500
    for stop in range(1, len(head) + 3):
        seen, ending = lines_of_head(b"", data[:stop])
        if stop < len(head):
            more, _ = lines_of_head(ending, data[stop:])
            assert seen + more == 4
        else:
            assert seen == 4
    parsed = note_events(monkeypatch)
    pair.send(*["a:b"] * 700)
    with pytest.raises(BadRequest, match="100 header lines"):
        pair.read()
    assert parsed == []


def test_body_of_a_length_is_read(pair: Pair) -> None:
    """Up to the limit; what comes behind it is the next request."""
    pair.send("Content-Length: 5", body=b"hello")
    pair.send(first="GET /next HTTP/1.1")
    request = pair.read()
    assert pair.body(request, limit=5) == b"hello"
    assert pair.http.answer(request, OK, SECONDS)
    assert pair.read().target == "/next"


def test_body_in_chunks_is_read(pair: Pair) -> None:
    """With extensions and trailers, which say nothing to the hub."""
    body = b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX-T: z\r\n\r\n"
    pair.send("Transfer-Encoding: chunked", body=body)
    pair.send(first="GET /next HTTP/1.1")
    request = pair.read()
    assert pair.body(request, limit=5) == b"hello"
    assert pair.http.answer(request, OK, SECONDS)
    assert pair.read().target == "/next"


def test_body_may_be_empty(pair: Pair) -> None:
    """No length is none in HTTP/1.1 (RFC 9112 §6.3)."""
    for lines in ([], ["Content-Length: 0"], ["Expect: 100-continue"]):
        pair.send(*lines)
        request = pair.read()
        assert pair.body(request) == b""
        pair.received()
        assert pair.http.answer(request, OK, SECONDS)


def test_plain_upgrade_has_no_body(pair: Pair) -> None:
    """What h11 has not read has no length either."""
    pair.send("Upgrade: websocket", first="GET / HTTP/1.1")
    assert pair.body(pair.read()) == b""


def test_client_is_told_to_continue(pair: Pair) -> None:
    """A client that waits with its body hears that it is wanted, once."""
    pair.send("Content-Length: 5", "Expect: 100-Continue")
    request = pair.read()
    assert pair.received() == b""
    done: list[bytes] = []
    thread = threading.Thread(target=lambda: done.append(pair.body(request)))
    thread.start()
    assert pair.sock.recv(len(CONTINUE), socket.MSG_WAITALL) == CONTINUE
    pair.sock.sendall(b"he")
    pair.sock.sendall(b"llo")
    thread.join(SECONDS)
    assert done == [b"hello"]
    assert pair.received() == b""


def test_client_that_does_not_wait_is_not_told(pair: Pair) -> None:
    """RFC 9110 §10.1.1: the body is there already."""
    pair.send("Content-Length: 5", "Expect: 100-continue", body=b"hello")
    assert pair.body(pair.read()) == b"hello"
    assert pair.received() == b""


def test_http_1_0_expects_nothing(pair: Pair) -> None:
    """A client of that time would take the 100 for the answer."""
    pair.send("Content-Length: 5", "Expect: something", body=b"hello", first="POST / HTTP/1.0")
    assert pair.body(pair.read()) == b"hello"
    assert pair.received() == b""


def test_body_without_length_in_http_1_0_is_411(pair: Pair) -> None:
    """It would last to the end of the stream, and so would never be answered."""
    pair.send(first="POST / HTTP/1.0")
    assert pair.fail(pair.read()) == 411


def test_too_long_body_is_413_before_it_is_sent(pair: Pair) -> None:
    """The length alone is enough: a client that waits need not send it."""
    pair.send("Content-Length: 101", "Expect: 100-continue")
    request = pair.read()
    assert pair.fail(request, limit=100) == 413
    assert pair.received() == b""


def test_too_long_chunked_body_is_413(pair: Pair) -> None:
    """As soon as it is too long, wherever it would end."""
    pair.send("Transfer-Encoding: chunked", body=b"3c\r\n" + b"x" * 60 + b"\r\n3c\r\n" + b"x" * 60)
    assert pair.fail(pair.read(), limit=100) == 413


def test_body_in_too_many_chunks_is_400(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny chunks cost the hub more than the client."""
    set_max_chunks(monkeypatch, 3)
    pair.send("Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * 4)
    assert pair.fail(pair.read()) == 400


@pytest.mark.parametrize(
    "body", [b"x\r\n", b"-1\r\n", b"1\r\nab\r\n0\r\n\r\n", b"5" * 30 + b"\r\n"]
)
def test_broken_chunks_are_400(pair: Pair, body: bytes) -> None:
    """Nobody knows where the next request would begin."""
    pair.send("Transfer-Encoding: chunked", body=body)
    request = pair.read()
    assert pair.fail(request) == 400
    pair.sock.shutdown(socket.SHUT_WR)
    assert not pair.http.answer(request, Refusal(400, "broken"), SECONDS)


def test_place_is_made_for_a_large_body_before_its_client_is_told_to_continue(pair: Pair) -> None:
    """For what it says that it has; none for a small one."""
    pair.send(f"Content-Length: {SMALL_BODY_BYTES}", body=bytes(SMALL_BODY_BYTES))
    assert len(pair.body(pair.read(), 1_000_000)) == SMALL_BODY_BYTES and pair.places == []
    pair.send(f"Content-Length: {SMALL_BODY_BYTES + 1}", "Expect: 100-continue")
    request = pair.read()

    def refuse(size: int) -> None:
        assert size == SMALL_BODY_BYTES + 1
        raise BadRequest(None)

    with pytest.raises(BadRequest):
        pair.http.read_body(request, 1_000_000, SECONDS, refuse)
    assert pair.received() == b""


def test_body_in_small_pieces_takes_no_more_than_its_bytes(pair: Pair) -> None:
    """An object for each of them would be twelve times as much."""
    pair.send("Transfer-Encoding: chunked")
    request = pair.read()
    pair.sock.settimeout(SECONDS)
    sender = threading.Thread(
        target=lambda: pair.sock.sendall(b"4\r\n1234\r\n" * 16_000 + b"0\r\n\r\n")
    )
    sender.start()
    tracemalloc.start()
    try:
        assert len(pair.body(request, 100_000)) == 64_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    sender.join()
    assert peak < 400_000


def test_place_is_made_for_all_of_a_body_in_chunks_once_it_is_large(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that it takes does not count for the body."""
    now = [1000.0]
    monkeypatch.setattr(connection, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    chunk = b"%x\r\n%s\r\n" % (SMALL_BODY_BYTES // 2, bytes(SMALL_BODY_BYTES // 2))
    pair.send("Transfer-Encoding: chunked", body=3 * chunk + b"0\r\n\r\n")
    made = []

    def make(size: int) -> None:
        made.append(size)
        now[0] += 100.0

    body = pair.http.read_body(pair.read(), 1_000_000, SECONDS, make)
    assert len(body) == SMALL_BODY_BYTES // 2 * 3 and made == [1_000_000]


@pytest.mark.parametrize("expect", ["100-continue, more", "200-ok"])
def test_other_expectation_is_417(pair: Pair, expect: str) -> None:
    """RFC 9110 §10.1.1: what is not known is not promised."""
    pair.send("Content-Length: 5", f"Expect: {expect}", body=b"hello")
    assert pair.fail(pair.read()) == 417


@pytest.mark.parametrize("line", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_cut_off_body_has_no_answer(pair: Pair, line: str) -> None:
    """Half a message is none, and nobody is there to be told."""
    pair.send(line, body=b"4")
    pair.sock.shutdown(socket.SHUT_WR)
    assert pair.fail(pair.read()) is None


def test_slow_body_is_408(pair: Pair) -> None:
    """All of it has one deadline."""
    pair.send("Content-Length: 5", body=b"he")
    assert pair.fail(pair.read(), timeout=0.05) == 408


# -- Answers -----------------------------------------------------------------------------------


def test_answer_has_what_every_answer_has(pair: Pair) -> None:
    """Length, date and what keeps others from guessing or keeping it."""
    pair.send(first="GET / HTTP/1.1")
    assert pair.http.answer(pair.read(), OK, SECONDS)
    head, _, body = pair.received().partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK" and body == b"yes\n"
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert len(headers) == len(lines) - 1
    assert headers.pop("Date").endswith(" GMT")
    assert headers == {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Content-Type": "text/plain",
        "Content-Length": "4",
    }


def test_answer_may_be_kept_by_caches_if_it_says_so(pair: Pair) -> None:
    """Files of the page do."""
    pair.send(first="GET / HTTP/1.1")
    response = Response(200, (("cache-control", "max-age=60"),), b"")
    pair.http.answer(pair.read(), response, SECONDS)
    assert pair.received().lower().count(b"cache-control") == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_answer_in_pieces_is_one_answer(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Their length is that of all; what was taken for them is given back when they are sent."""
    monkeypatch.setattr(connection, "BLOCK_BYTES", 100)
    pieces = [b"a" * 700, b"b", memoryview(b"cc"), b"", b"d" * 1000]
    done: list[str] = []
    answer = Response(200, (), b"[", "text/plain", pieces, lambda: done.append("sent"))
    pair.send(first=f"{method} / HTTP/1.1")
    request = pair.read()
    assert pair.http.answer(request, answer, SECONDS) and done == ["sent"]
    head, _, body = pair.received().partition(b"\r\n\r\n")
    assert b"Content-Length: 1704" in head
    assert body == (b"" if method == "HEAD" else b"[" + b"".join(pieces))


def test_answer_that_is_not_taken_is_given_back(pair: Pair) -> None:
    """Its bytes are in hand no longer."""
    done: list[str] = []
    pieces = [bytes(1 << 20)] * 10
    answer = Response(200, (), b"", "text/plain", pieces, lambda: done.append("lost"))
    pair.send(first="GET / HTTP/1.1")
    request = pair.read()
    with pytest.raises(OSError):
        pair.http.answer(request, answer, 0.01)
    assert done == ["lost"]


def test_refusal_is_a_problem(pair: Pair) -> None:
    """RFC 9457, with the headers of the refusal."""
    pair.send("Content-Length: 0")
    refusal = Refusal(503, "behind: \u00e9", (("Retry-After", "1"),)).with_headers((("Vary", "X"),))
    assert pair.http.answer(pair.read(), refusal, SECONDS)
    head, _, body = pair.received().partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: application/problem+json\r\n" in head
    assert b"\r\nRetry-After: 1\r\nVary: X\r\n" in head
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "behind: \u00e9",
    }


def test_head_gets_no_body(pair: Pair) -> None:
    """But the length that a GET would have."""
    pair.send(first="HEAD / HTTP/1.1")
    assert pair.http.answer(pair.read(), OK, SECONDS)
    data = pair.received()
    assert b"\r\nContent-Length: 4\r\n" in data and data.endswith(b"\r\n\r\n")


def test_no_content_has_no_length(pair: Pair) -> None:
    """RFC 9110 §8.6: 204 must not have it."""
    pair.send(first="OPTIONS / HTTP/1.1")
    assert pair.http.answer(pair.read(), Response(204, (("Allow", "GET"),)), SECONDS)
    data = pair.received()
    assert data.startswith(b"HTTP/1.1 204 No Content\r\n") and b"ontent-Length" not in data
    assert b"ontent-Type:" not in data.replace(b"X-Content-Type-Options:", b"")


def test_requests_behind_each_other_are_answered_in_order(pair: Pair) -> None:
    """In one write, with bodies and without, plain upgrades included."""
    pair.send("Content-Length: 3", body=b"one", first="POST /1 HTTP/1.1")
    pair.send("Upgrade: websocket", first="GET /2 HTTP/1.1")
    pair.send("Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n\r\n", first="PUT /3 HTTP/1.1")
    pair.send(first="GET /4 HTTP/1.1")
    found = []
    for _ in range(4):
        request = pair.read()
        found.append((request.target, pair.body(request)))
        assert pair.http.answer(request, OK, SECONDS)
    assert found == [("/1", b"one"), ("/2", b""), ("/3", b"x"), ("/4", b"")]
    assert pair.received().count(b"HTTP/1.1 200 OK\r\n") == 4


@pytest.mark.parametrize(
    ("first", "lines", "body"),
    [
        ("GET / HTTP/1.0", [], b""),
        ("GET / HTTP/1.0", ["Connection: keep-alive"], b""),
        ("GET / HTTP/1.1", ["Connection: x, Close"], b""),
        # A body that was not read would be taken for the next request.
        ("POST / HTTP/1.1", ["Content-Length: 5"], b"hello"),
        ("POST / HTTP/1.1", ["Transfer-Encoding: chunked"], b"0\r\n\r\n"),
    ],
)
def test_connection_ends_after_the_answer(
    pair: Pair, first: str, lines: list[str], body: bytes
) -> None:
    """The client hears it in the answer, and sees the end of the stream behind it."""
    pair.send(*lines, body=body, first=first)
    pair.sock.shutdown(socket.SHUT_WR)
    assert not pair.http.answer(pair.read(), OK, SECONDS)
    data = pair.sock.recv(1 << 16)
    assert b"\r\nConnection: close\r\n" in data and data.endswith(b"\r\n\r\nyes\n")
    assert pair.ended()


def test_upgrade_that_finds_no_room_ends_the_connection(pair: Pair) -> None:
    """It would keep a thread that is wanted; other requests go on."""
    pair.send("Upgrade: websocket", first="GET / HTTP/1.1")
    pair.sock.shutdown(socket.SHUT_WR)
    assert not pair.http.answer(pair.read(), Refusal(503, "full"), SECONDS)


def test_client_that_does_not_read_its_answer_is_given_up(pair: Pair) -> None:
    """The answer has a deadline, however slowly it is taken."""
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pair.send(first="GET / HTTP/1.1")
    with pytest.raises(TimeoutError):
        pair.http.answer(pair.read(), Response(200, (), bytes(1 << 22)), 0.05)


def test_idle_connection_ends_without_a_word(pair: Pair) -> None:
    """After an answer silence is no mistake; before the first request it is 408."""
    with pytest.raises(BadRequest) as failed:
        pair.http.read_request(0.02, SECONDS)
    assert failed.value.refusal is not None and failed.value.refusal.status == 408
    pair.send(first="GET / HTTP/1.1")
    assert pair.http.answer(pair.read(), OK, SECONDS)
    with pytest.raises(BadRequest) as failed:
        pair.http.read_request(SECONDS, 0.02)
    assert failed.value.refusal is None


# -- Streams -----------------------------------------------------------------------------------


def test_stream_begins_with_its_head(pair: Pair) -> None:
    """It lasts until the connection ends, and no proxy should collect it."""
    pair.send(first="GET / HTTP/1.1")
    pair.read()
    assert pair.http.start_stream((("Vary", "Accept"),), b"first", SECONDS) == b""
    # The fan-out sends with MSG_DONTWAIT from here on.
    assert pair.ours.gettimeout() is None
    data = pair.received()
    assert data.startswith(b"HTTP/1.1 200 OK\r\n") and data.endswith(b"\r\n\r\nfirst")
    for line in (
        b"Content-Type: text/event-stream",
        b"Connection: close",
        b"Cache-Control: no-store",
        b"X-Accel-Buffering: no",
        b"Vary: Accept",
    ):
        assert b"\r\n" + line + b"\r\n" in data
    assert b"ontent-Length" not in data


def test_stream_after_other_requests(pair: Pair) -> None:
    """A kept connection can still become one; what was pipelined behind it is handed back."""
    pair.send(first="GET /1 HTTP/1.1")
    pair.send(first="GET /2 HTTP/1.1")
    pair.sock.sendall(b"more")
    assert pair.http.answer(pair.read(), OK, SECONDS)
    assert pair.read().target == "/2"
    assert pair.http.start_stream((), b"", SECONDS) == b"more"
    assert pair.ours.gettimeout() is None


def test_stream_of_a_client_that_does_not_read_is_given_up(pair: Pair) -> None:
    """The head has a time-out of its own."""
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pair.send(first="GET / HTTP/1.1")
    pair.read()
    pair.ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            pair.ours.send(bytes(4096))
    pair.ours.setblocking(True)
    with pytest.raises(TimeoutError):
        pair.http.start_stream((), b"", 0.05)


# -- Making way --------------------------------------------------------------------------------


def test_connection_that_makes_way_never_waits_for_its_peer(pair: Pair) -> None:
    """Neither for a request, nor for the rest of one, nor for an answer to be taken."""
    pair.http.makes_way = True
    with pytest.raises(MadeWay):
        pair.read()
    pair.sock.sendall(b"GET / HT")
    with pytest.raises(MadeWay):
        pair.read()
    with pytest.raises(MadeWay):
        pair.http.answer(None, Response(200, (), bytes(1 << 23)), SECONDS)
    with pytest.raises(MadeWay):
        pair.http.rest(SECONDS)
    assert pair.http.awaits in (select.POLLOUT, RESTING)


def test_connection_that_makes_way_gives_one_answer(pair: Pair) -> None:
    """To a request that has come; more of them are left alone, and it does not linger."""
    pair.send(first="GET / HTTP/1.1", body=b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n")
    pair.http.makes_way = True
    assert not pair.http.answer(pair.read(), OK, SECONDS)
    answer = pair.received()
    assert answer.count(b"HTTP/1.1 200 ") == 1 and b"\r\nConnection: close\r\n" in answer
    assert pair.http.awaits == RESTING
