"""The opening handshake and every other HTTP answer of the hub, as bytes on a socket."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from ..support import (
    SAMPLE_ACCEPT,
    SAMPLE_KEY,
    TEXT,
    HandshakeRefused,
    RawClient,
    accept_for,
    client_frame,
    http_request,
    running_hub,
    upgrade_request,
    wait_until,
)

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub


@pytest.fixture(autouse=True)
def no_traceback(capfd: pytest.CaptureFixture[str], caplog: Any) -> Iterator[None]:
    """Whatever a peer sends, the hub prints nothing and logs no error."""
    yield
    assert capfd.readouterr() == ("", "")
    errors = [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    assert errors == []


class Answer(NamedTuple):
    """One HTTP response; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def parse_answers(data: bytes, *, head_only: bool = False) -> list[Answer]:
    """Return the responses of a stream, which must be whole and nothing else."""
    answers = []
    while data:
        head, blank, data = data.partition(b"\r\n\r\n")
        assert blank, f"no end of headers in {head!r}"
        lines = head.decode("ascii").split("\r\n")
        version, status, phrase = lines[0].split(" ", 2)
        assert version == "HTTP/1.1" and phrase
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            assert colon and name == name.strip()
            assert name.lower() not in headers, f"{name} twice"
            headers[name.lower()] = value.strip()
        length = 0 if head_only else int(headers["content-length"])
        assert len(data) >= length, "the body is cut off"
        answers.append(Answer(int(status), headers, data[:length]))
        data = data[length:]
    return answers


def ask(hub: BroadcastHub, raw: bytes, *, eof: bool = True, head_only: bool = False) -> Answer:
    """Send one request and return the one answer."""
    data = http_request(hub.port, raw, eof=eof)
    answers = parse_answers(data, head_only=head_only)
    assert len(answers) == 1, data
    return answers[0]


def request(*lines: str, first: str = "GET / HTTP/1.1", host: str | None = "hub.test") -> bytes:
    """Return a request of these lines."""
    host_line = [f"Host: {host}"] if host is not None else []
    return "\r\n".join([first, *host_line, *lines, "", ""]).encode("latin-1")


def nothing(*lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """Return a request for a path that is neither a room nor anything else."""
    return request(*lines, first=f"{method} /-/nothing HTTP/{version}")


UPGRADE = "Upgrade: websocket"
CONNECTION = "Connection: Upgrade"
KEY = f"Sec-WebSocket-Key: {SAMPLE_KEY}"
VERSION = "Sec-WebSocket-Version: 13"


def status_of_upgrade(port: int, path: str = "/", *headers: str, host: str = "hub.test") -> int:
    """Try to join; return 101 or the status of the refusal."""
    with RawClient.open(port=port) as client:
        client.sock.sendall(upgrade_request(path, headers, host=host))
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.sock.recv(4096)
            assert piece, f"the hub ended the connection after {data!r}"
            data += piece
    return int(data.split(b" ", 2)[1])


# -- Upgrades that succeed ---------------------------------------------------------------------


def test_answer_is_that_of_the_rfc(hub: BroadcastHub) -> None:
    """RFC 6455 §1.3: this key, that accept; and no extension or subprotocol that it did not say."""
    offers = [
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "Sec-WebSocket-Protocol: chat, superchat",
    ]
    with RawClient.connect(port=hub.port, headers=offers) as client:
        lines = client.head.split("\r\n")
        assert lines[0] == "HTTP/1.1 101 Switching Protocols"
        assert client.header("Upgrade") == "websocket"
        assert client.header("Connection") == "Upgrade"
        assert client.header("Sec-WebSocket-Accept") == SAMPLE_ACCEPT
        assert client.header("Sec-WebSocket-Extensions") is None
        assert client.header("Sec-WebSocket-Protocol") is None
        client.leave()


def test_accept_belongs_to_the_key(hub: BroadcastHub) -> None:
    """Another key, another accept."""
    for _ in range(5):
        key = base64.b64encode(os.urandom(16)).decode()
        with RawClient.open(port=hub.port) as client:
            client.sock.sendall(upgrade_request(key=key))
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.sock.recv(1)
        assert f"\r\nSec-WebSocket-Accept: {accept_for(key)}\r\n".encode() in head


GOOD_UPGRADES = {
    "plain": request(UPGRADE, CONNECTION, KEY, VERSION),
    "connection list": request(UPGRADE, "Connection: keep-alive, Upgrade", KEY, VERSION),
    "connection lines": request(
        UPGRADE, "Connection: keep-alive", "Connection: upgrade", KEY, VERSION
    ),
    "case": request(
        "UPGRADE: WebSocket",
        "connection: uPGRADE",
        f"sec-websocket-KEY: {SAMPLE_KEY}",
        "SEC-WebSocket-version: 13",
    ),
    "upgrade list": request("Upgrade: h2c, websocket", CONNECTION, KEY, VERSION),
    "spaces": request(
        "Upgrade:  websocket \t",
        "Connection:Upgrade",
        f"Sec-WebSocket-Key:\t{SAMPLE_KEY} ",
        VERSION,
    ),
    "absolute target": request(
        UPGRADE, CONNECTION, KEY, VERSION, first="GET http://hub.test/ HTTP/1.1"
    ),
    "empty length": request(UPGRADE, CONNECTION, KEY, VERSION, "Content-Length: 0"),
    "header of another charset": request(UPGRADE, CONNECTION, KEY, VERSION, "X-Name: \xe9t\xe9"),
}


@pytest.mark.parametrize("kind", GOOD_UPGRADES)
def test_lawful_upgrade_succeeds(hub: BroadcastHub, kind: str) -> None:
    """What RFC 6455 §4.2.1 and HTTP allow is taken, however it is spelled."""
    with RawClient.open(port=hub.port) as client:
        client.sock.sendall(GOOD_UPGRADES[kind])
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101 "), head
        assert SAMPLE_ACCEPT.encode() in head
        client.leave()


def test_upgrade_in_small_pieces(hub: BroadcastHub) -> None:
    """The request may come byte by byte."""
    with RawClient.open(port=hub.port) as client:
        for byte in request(UPGRADE, CONNECTION, KEY, VERSION):
            client.sock.sendall(bytes([byte]))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.sock.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        client.leave()


# -- Requests that are answered and no more ----------------------------------------------------

BAD_REQUESTS = {
    "no host": (request(UPGRADE, CONNECTION, KEY, VERSION, host=None), 400),
    "two hosts": (request("Host: other", UPGRADE, CONNECTION, KEY, VERSION), 400),
    "no connection": (request(UPGRADE, KEY, VERSION), 400),
    "other connection": (request(UPGRADE, "Connection: keep-alive", KEY, VERSION), 400),
    "no key": (request(UPGRADE, CONNECTION, VERSION), 400),
    "two keys": (request(UPGRADE, CONNECTION, KEY, KEY, VERSION), 400),
    **{
        f"key {name}": (request(UPGRADE, CONNECTION, f"Sec-WebSocket-Key: {key}", VERSION), 400)
        for name, key in {
            "empty": "",
            "of 15 bytes": base64.b64encode(bytes(15)).decode(),
            "of 17 bytes": base64.b64encode(bytes(17)).decode(),
            "without padding": SAMPLE_KEY.rstrip("="),
            "not base64": "!" * 22 + "==",
            "with a space": SAMPLE_KEY[:10] + " " + SAMPLE_KEY[10:-1],
            "not ASCII": "\xe9" * 24,
        }.items()
    },
    "other upgrade": (nothing("Upgrade: h2c", CONNECTION, KEY, VERSION), 404),
    "no version": (request(UPGRADE, CONNECTION, KEY), 426),
    **{
        f"version {version}": (
            request(UPGRADE, CONNECTION, KEY, f"Sec-WebSocket-Version: {version}"),
            426,
        )
        for version in ("0", "8", "12", "14", "013", "13, 8", "x", "")
    },
    **{
        f"method {method}": (
            request(UPGRADE, CONNECTION, KEY, VERSION, first=f"{method} / HTTP/1.1"),
            405,
        )
        for method in ("DELETE", "PATCH", "TRACE", "CONNECT", "get", "BREW")
    },
    "DELETE with a body": (
        request("Content-Length: 4", first="DELETE / HTTP/1.1") + b"goal",
        405,
    ),
    "DELETE with a chunked body": (
        request("Transfer-Encoding: chunked", first="DELETE / HTTP/1.1")
        + b"4\r\ngoal\r\n0\r\n\r\n",
        405,
    ),
    "packed body": (request("Content-Encoding: gzip", first="POST / HTTP/1.1"), 415),
    "other transfer coding": (request("Transfer-Encoding: gzip", first="POST / HTTP/1.1"), 501),
    "chunked and a length": (
        request("Transfer-Encoding: chunked", "Content-Length: 5", first="POST / HTTP/1.1")
        + b"0\r\n\r\n",
        400,
    ),
    "chunked in HTTP/1.0": (
        request("Transfer-Encoding: chunked", first="POST / HTTP/1.0") + b"0\r\n\r\n",
        400,
    ),
    "nothing acceptable": (request("Accept: image/png"), 406),
    "upgrade with a body": (
        request(UPGRADE, CONNECTION, KEY, VERSION, "Content-Length: 4") + b"goal",
        400,
    ),
    "upgrade with a chunked body": (
        request(UPGRADE, CONNECTION, KEY, VERSION, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        400,
    ),
    "two lengths": (request("Content-Length: 4", "Content-Length: 5"), 400),
    "no target": (request(first="GET HTTP/1.1"), 400),
    "authority target": (request(first="GET hub.test:80 HTTP/1.1"), 400),
    **{
        f"HTTP/{version}": (request("Connection: close", first=f"GET / HTTP/{version}"), 505)
        for version in ("0.9", "2.0", "3.0", "9.9")
    },
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    **{
        f"HTTP/{version} without a host": (f"GET / HTTP/{version}\r\n\r\n".encode(), 400)
        for version in ("1.1", "1.2", "1.9", "1.10", "1.", "1", "x.1", "01.1")
    },
    "CR before the request": (b"\r" + nothing(), 400),
    "too many empty lines": (b"\r\n" * 10_000 + nothing(), 400),
    **{
        f"{name} in a chunk": (
            request("Transfer-Encoding: chunked", first="POST / HTTP/1.1")
            + chunk
            + b"\r\n0\r\n\r\n",
            400,
        )
        for name, chunk in (
            ("bare CR", b"1;a\rb\r\nx"),
            ("bare LF", b"1;a\nb\r\nx"),
            ("CR before CRLF", b"1\r\r\nx"),
            ("zero", b"1;a\0b\r\nx"),
        )
    },
    "garbage": (b"hello\r\n\r\n", 400),
    "zeros": (bytes(100), 400),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400),
    "folded header": (nothing("X-A: b", " c: d", "\tz"), 404),
    "zero in a header": (request("X-A: b\0c"), 400),
    "bare CR in the first line": (b"GET / HTTP/1.1\rHost: x\r\n\r\n", 400),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", 400),
    "space before colon": (request("X-A : b"), 400),
    "high byte in the target": (request(first="GET /\xe9 HTTP/1.1"), 400),
    "a frame instead": (client_frame(TEXT, b"x" * 100) + b"\r\n\r\n", 400),
}


@pytest.mark.parametrize("kind", BAD_REQUESTS)
def test_other_request_gets_its_status(hub: BroadcastHub, kind: str) -> None:
    """A request that is not carried out gets a proper answer (RFC 9457), and nobody joins."""
    raw, status = BAD_REQUESTS[kind]
    answer = ask(hub, raw)
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    problem = json.loads(answer.body)
    assert problem["status"] == status and problem["title"] and problem["detail"]
    if status == 426:
        assert answer.headers["upgrade"] == "websocket"
        assert "upgrade" in answer.headers["connection"].lower()
        assert answer.headers["sec-websocket-version"] == "13"
    if status == 405:
        assert "GET" in answer.headers["allow"]
    assert hub.members() == []


def test_http_1_0_is_no_upgrade(hub: BroadcastHub) -> None:
    """RFC 6455 §4.2.1 wants HTTP/1.1 or later; the connection ends after the answer."""
    raw = request(UPGRADE, CONNECTION, KEY, VERSION, first="GET / HTTP/1.0")
    assert ask(hub, raw, eof=False).status == 400
    assert ask(hub, nothing(version="1.0"), eof=False).status == 404


@pytest.mark.parametrize("version", ["1.2", "1.9"])
def test_later_http_1_is_http_1_1(hub: BroadcastHub, version: str) -> None:
    """RFC 9110 §2.5: with a Host, kept open, and good for an upgrade."""
    raw = request("Accept: */*", first=f"GET /r HTTP/{version}") * 2
    raw += request("Accept: */*", "Connection: close", first=f"GET /r HTTP/{version}")
    answers = parse_answers(http_request(hub.port, raw))
    assert [answer.status for answer in answers] == [200, 200, 200]
    raw = request(UPGRADE, CONNECTION, KEY, VERSION, first=f"GET / HTTP/{version}")
    with RawClient.open(port=hub.port) as client:
        client.sock.sendall(raw)
        while b"\r\n\r\n" not in client.buffer:
            client.fill()
        assert client.buffer.startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("blank", [b"\r\n", b"\n", b"\r\n\r\n\n"])
def test_empty_lines_before_a_request_are_no_part_of_it(hub: BroadcastHub, blank: bytes) -> None:
    """RFC 9112 §2.2: some clients send one behind the body of a POST. In one piece or byte by
    byte, before a request of any kind."""
    post = request("Content-Length: 1", first="POST /r HTTP/1.1") + b"x"
    chunked = request("Transfer-Encoding: chunked", first="POST /r HTTP/1.1") + b"0\r\n\r\n"
    look = request("Accept: */*", first="GET /r HTTP/1.1")
    upgrade = request(UPGRADE, CONNECTION, KEY, VERSION)
    raw = blank.join([b"", post, chunked, look, post, upgrade])
    for step in (1, len(raw)):
        with RawClient.open(port=hub.port) as client:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(raw), step):
                client.sock.sendall(raw[at : at + step])
            while b" 101 " not in client.buffer:
                client.fill()
            assert client.buffer.count(b"HTTP/1.1 200 ") == 4
    assert [message.data for message in hub.history("/r")] == ["x", "", "x"] * 2


def test_empty_line_behind_a_body_does_not_begin_a_request() -> None:
    """The connection is idle after it, and ends without an answer when nothing more comes."""
    with running_hub(http_idle_timeout=0.2, handshake_timeout=30) as hub:
        post = request("Content-Length: 1", first="POST /r HTTP/1.1") + b"x\r\n"
        (answer,) = parse_answers(http_request(hub.port, post))
        assert answer.status == 200


def test_raw_utf_8_in_a_target_is_understood(hub: BroadcastHub) -> None:
    """As curl and many libraries send what they are given; bytes that are no UTF-8 are 400."""
    target = "/café?name=Zoë 👍".replace(" ", "+").encode()
    with RawClient.open(port=hub.port) as client:
        client.sock.sendall(upgrade_request().replace(b"GET / ", b"GET %b " % target, 1))
        while b"\r\n\r\n" not in client.buffer:
            client.fill()
        assert b" 101 " in client.buffer
        (member,) = hub.members("/café")
        assert member.name == "Zoë 👍"
    raw = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
    for asked, status in (
        (target, 200),
        ("http://127.0.0.1/café?name=ä".encode(), 200),
        (b"/?name=\xff", 400),
        (b"/\xc3", 400),
        (b"/?name=\xc3%A4", 200),
    ):
        (answer,) = parse_answers(http_request(hub.port, raw % asked))
        assert answer.status == status, asked


def test_options_of_the_hub_as_a_whole(hub: BroadcastHub) -> None:
    """RFC 9110 §9.3.7: ``*`` is no path, and for no other method a target."""
    raw = request("Connection: close", first="OPTIONS * HTTP/1.1")
    (answer,) = parse_answers(http_request(hub.port, raw), head_only=True)
    assert (answer.status, answer.headers["allow"]) == (204, "GET, HEAD, POST, PUT, OPTIONS")
    raw = request("Connection: close", first="GET * HTTP/1.1")
    (answer,) = parse_answers(http_request(hub.port, raw))
    assert answer.status == 400


def test_head_has_headers_only(hub: BroadcastHub) -> None:
    """A HEAD is answered as the GET would be, without the body."""
    raw = nothing("Connection: close", method="HEAD")
    got = ask(hub, raw, eof=False, head_only=True)
    assert got.status == 404
    assert int(got.headers["content-length"]) == len(ask(hub, nothing()).body)


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/metrics", "/-/rooms", "/-/static/room.js", "/health%7a"],
)
def test_what_is_no_room_cannot_be_joined(hub: BroadcastHub, path: str) -> None:
    """An upgrade finds nothing there, whatever a GET would get."""
    assert status_of_upgrade(hub.port, path) == 404
    assert hub.rooms() == []


@pytest.mark.parametrize("path", ["/favicon.ico", "/robots.txt", "/-/", "/-/style.css", "/%2D/x"])
def test_reserved_path_is_404(hub: BroadcastHub, path: str) -> None:
    """What is no room and nothing else is not found, by GET and by upgrade."""
    assert ask(hub, request(first=f"GET {path} HTTP/1.1")).status == 404
    assert status_of_upgrade(hub.port, path) == 404
    assert hub.rooms() == []


# -- Bounds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"x" * 200_000,
        b"GET / HTTP/1.1\r\nX: " + b"y" * 500_000,
    ],
    ids=["long line", "many lines", "long target", "no line at all", "endless"],
)
def test_header_too_large_is_431(hub: BroadcastHub, raw: bytes) -> None:
    """More than ``max_header_bytes`` is not read; the answer arrives in spite of what is unread."""
    with RawClient.open(port=hub.port) as client:
        try:
            client.sock.sendall(raw)
        except ConnectionError:
            pytest.fail("reset while sending: the answer may be lost")
        client.sock.shutdown(socket.SHUT_WR)
        data = b""
        while piece := client.sock.recv(65536):
            data += piece
    (answer,) = parse_answers(data)
    assert answer.status == 431


def test_header_limit_is_a_setting() -> None:
    """A request of exactly the stated size passes, one byte more does not."""
    pad = "X-Pad: "
    bare = len(request(UPGRADE, CONNECTION, KEY, VERSION, pad))
    with running_hub(max_header_bytes=1000) as hub:
        fits = request(UPGRADE, CONNECTION, KEY, VERSION, pad + "x" * (900 - bare))
        assert http_status(hub.port, fits) == 101
        over = request(UPGRADE, CONNECTION, KEY, VERSION, pad + "x" * (1500 - bare))
        assert http_status(hub.port, over) == 431


def http_status(port: int, raw: bytes) -> int:
    """Return the status of the first answer to some bytes."""
    with RawClient.open(port=port) as client:
        client.sock.sendall(raw)
        return int(client.recv_exact(12)[9:12])


def test_slow_handshake_is_408() -> None:
    """The whole request has one deadline: silence, half of it and a trickle end the same way."""
    with running_hub(handshake_timeout=0.3) as hub:
        assert ask(hub, b"", eof=False).status == 408
        assert ask(hub, b"GET / HTTP/1.1\r\nHost: x\r\n", eof=False).status == 408
        stop = threading.Event()
        with RawClient.open(port=hub.port) as client:

            def trickle() -> None:
                while not stop.wait(0.02):
                    try:
                        client.sock.sendall(b"x")
                    except OSError:
                        return

            client.sock.sendall(b"GET / HTTP/1.1\r\nX: ")
            thread = threading.Thread(target=trickle)
            thread.start()
            try:
                head = client.recv_exact(12)
            finally:
                stop.set()
                thread.join()
        assert head == b"HTTP/1.1 408"


@pytest.mark.parametrize(
    "raw", [b"", b"GE", b"GET / HTTP/1.1\r\nHost: x\r\n", upgrade_request()[:-2]]
)
@pytest.mark.parametrize("how", ["eof", "reset"])
def test_peer_that_leaves_early_leaves_nothing(hub: BroadcastHub, raw: bytes, how: str) -> None:
    """Half a request and then the end, in order or by reset: no error, no member, no thread."""
    client = RawClient.open(port=hub.port)
    client.sock.sendall(raw)
    if how == "eof":
        client.sock.shutdown(socket.SHUT_WR)
        data = b""
        while piece := client.sock.recv(4096):
            data += piece
        assert data == b"" or parse_answers(data)[0].status == 400
        client.close()
    else:
        client.reset()
    assert hub.stats()["clients"] == 0
    with RawClient.connect(port=hub.port) as other:
        other.leave()


def test_max_clients_is_503() -> None:
    """Above ``max_clients`` an upgrade gets 503 with ``Retry-After`` until somebody leaves."""
    with running_hub(max_clients=2) as hub:
        first = RawClient.connect(port=hub.port)
        with first, RawClient.connect(port=hub.port, path="/other"):
            with pytest.raises(HandshakeRefused) as refused:
                RawClient.connect(port=hub.port)
            assert refused.value.status == 503
            assert "\r\nretry-after: " in refused.value.head.lower()
            # Plain requests are answered all the same.
            assert ask(hub, nothing()).status == 404
            first.leave()
            assert wait_until(lambda: hub.stats()["clients"] == 1)
            with RawClient.connect(port=hub.port) as third:
                third.leave()


def test_max_rooms_is_503() -> None:
    """Above ``max_rooms``, with somebody in each, a new room is refused; an empty one makes way."""
    with running_hub(max_rooms=1) as hub:
        with RawClient.connect(port=hub.port, path="/a") as client:
            assert status_of_upgrade(hub.port, "/b") == 503
            client.leave()
        assert wait_until(lambda: hub.rooms() == [])
        with RawClient.connect(port=hub.port, path="/b") as client:
            client.leave()


# -- More than one request on a connection -----------------------------------------------------


def test_pipelined_requests_are_answered_in_order(hub: BroadcastHub) -> None:
    """HTTP/1.1 keeps the connection; each request in one write gets its own answer."""
    raw = b"".join(
        request(first=f"GET {path} HTTP/1.1") for path in ("/-/a", "/..", "/-/b", "//", "/-/c")
    )
    raw += request(first="DELETE / HTTP/1.1")
    data = http_request(hub.port, raw + nothing("Connection: close"))
    statuses = [answer.status for answer in parse_answers(data)]
    assert statuses == [404, 400, 404, 400, 404, 405, 404]


def test_upgrade_after_other_requests(hub: BroadcastHub) -> None:
    """A kept connection can still become a WebSocket, frames in the same write included."""
    with RawClient.open(port=hub.port) as client:
        extra = client_frame(TEXT, "hi")
        client.sock.sendall(nothing() + upgrade_request("/later?echo=1") + extra)
        assert client.recv_exact(12) == b"HTTP/1.1 404"
        while b"HTTP/1.1 101" not in client.buffer:
            client.buffer += client.sock.recv(4096)
        _, _, rest = client.buffer.partition(b"HTTP/1.1 101")
        while b"\r\n\r\n" not in rest:
            rest += client.sock.recv(4096)
        client.buffer = rest.partition(b"\r\n\r\n")[2]
        assert client.recv_message() == "hi"
        client.leave()


def test_close_is_honoured(hub: BroadcastHub) -> None:
    """``Connection: close`` ends the connection after its answer, whatever is pipelined behind."""
    raw = nothing("Connection: close") + nothing()
    answers = parse_answers(http_request(hub.port, raw))
    assert [answer.status for answer in answers] == [404]
    assert "close" in answers[0].headers["connection"].lower()


def test_idle_connection_is_ended() -> None:
    """A kept connection on which nothing comes is closed after ``http_idle_timeout``, silently."""
    with running_hub(http_idle_timeout=0.2) as hub:
        answers = parse_answers(http_request(hub.port, nothing()))
        assert [answer.status for answer in answers] == [404]


# -- Origins -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "host", "origin", "status"),
    [
        ((), "hub.test:8765", None, 101),
        ((), "hub.test:8765", "http://hub.test:8765", 101),
        ((), "HUB.test:8765", "http://hub.TEST:8765", 101),
        ((), "hub.test", "http://hub.test", 101),
        ((), "hub.test:80", "http://hub.test", 101),
        ((), "hub.test", "https://hub.test:443", 101),
        ((), "[::1]:8765", "http://[::1]:8765", 101),
        ((), "hub.test:8765", "http://hub.test", 403),
        ((), "hub.test:8765", "http://hub.test:8766", 403),
        ((), "hub.test:8765", "http://evil.test:8765", 403),
        ((), "hub.test:8765", "http://hub.test:8765.evil.test", 403),
        ((), "hub.test:8765", "http://user@hub.test:8765", 403),
        ((), "hub.test:8765", "null", 403),
        ((), "hub.test:8765", "", 403),
        ((), "hub.test:8765", "file://", 403),
        ((), "localhost", "null", 403),
        (("https://app.test",), "hub.test:8765", "https://app.test", 101),
        (("https://app.test/",), "hub.test:8765", "https://APP.test", 101),
        (("https://app.test",), "hub.test:8765", "http://app.test", 403),
        (("https://app.test",), "hub.test:8765", "https://app.test:8443", 403),
        (("https://app.test",), "hub.test:8765", "https://evil.test", 403),
        (("https://app.test",), "hub.test:8765", "null", 403),
        (("https://a.test", "https://b.test"), "hub.test:8765", "https://b.test", 101),
        # The hub's own pages may still use it.
        (("https://app.test",), "hub.test:8765", "http://hub.test:8765", 101),
    ],
)
def test_origin_rules(allowed: tuple[str, ...], host: str, origin: str | None, status: int) -> None:
    """A program sends no Origin; a page must come from here or from a named place."""
    headers = [] if origin is None else [f"Origin: {origin}"]
    with running_hub(allow_origin=allowed) as hub:
        assert status_of_upgrade(hub.port, "/", *headers, host=host) == status


def test_two_origins_are_refused(hub: BroadcastHub) -> None:
    """Two Origin lines are not a way to bring a foreign one past the check."""
    own = f"Origin: http://hub.test:{hub.port}"
    status = status_of_upgrade(
        hub.port, "/", own, "Origin: http://evil.test", host=f"hub.test:{hub.port}"
    )
    assert status in (400, 403)


# -- Rooms and queries -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "room"),
    [
        ("/", "/"),
        ("/scores", "/scores"),
        ("/scores/", "/scores/"),
        ("/a/b/c", "/a/b/c"),
        ("/a%20b", "/a b"),
        ("/a+b", "/a+b"),
        ("/%C3%A9", "/é"),
        ("/%2541", "/%41"),
        ("/a%2Fb", "/a/b"),
        ("/a%3Fb?echo=1", "/a?b"),
        ("/...", "/..."),
        ("/healthz/x", "/healthz/x"),
        ("/" + "x" * 127, "/" + "x" * 127),
        ("/" + "%C3%A9" * 127, "/" + "é" * 127),
    ],
)
def test_path_names_the_room(hub: BroadcastHub, path: str, room: str) -> None:
    """A path is percent-decoded once, as UTF-8, and is the room's name then."""
    with RawClient.connect(port=hub.port, path=path) as client:
        assert hub.rooms() == [room]
        assert [member.room for member in hub.members(room)] == [room]
        client.leave()


@pytest.mark.parametrize(
    "path",
    [
        "//",
        "/a//b",
        "/a%2F%2Fb",
        "/..",
        "/../a",
        "/a/../b",
        "/a/..",
        "/%2e%2e/a",
        "/a%00b",
        "/a%0Ab",
        "/a%7Fb",
        "/a%C2%85b",
        "/%E2%80%A8",
        "/%ff",
        "/%C3",
        "/%ED%A0%80",
        "/%zz",
        "/%4",
        "/%",
        "/" + "x" * 128,
    ],
)
def test_bad_path_is_400(hub: BroadcastHub, path: str) -> None:
    """What could be read in two ways, or would break a line somewhere, is no room."""
    assert status_of_upgrade(hub.port, path) == 400
    assert ask(hub, request(first=f"GET {path} HTTP/1.1")).status == 400
    assert hub.rooms() == []


@pytest.mark.parametrize(
    "query",
    [
        "name=" + "x" * 65,
        "name=a%00b",
        "name=a%0ab",
        "name=%ff",
        "echo=2",
        "echo=yes",
        "history=-1",
        "history=many",
        "history=1.5",
        "since=yesterday",
        "since=1",
        "since=1-2-3",
        "since=-1-0",
        "since=",
        "name=%zz",
    ],
)
def test_bad_query_is_400(hub: BroadcastHub, query: str) -> None:
    """A value that is not understood is an error, not a default."""
    assert status_of_upgrade(hub.port, f"/?{query}") == 400
    assert hub.rooms() == []


def test_name_travels_in_the_query(hub: BroadcastHub) -> None:
    """The name is decoded; an unknown key is no error, so that later clients can talk to us."""
    for query, name in {
        "name=Zo%C3%AB": "Zoë",
        "name=a+b": "a b",
        "name=" + "x" * 64: "x" * 64,
        "name=": None,
        "unknown=1": None,
        "": None,
    }.items():
        with RawClient.connect(port=hub.port, path=f"/?{query}") as client:
            assert [member.name for member in hub.members()] == [name]
            client.leave()
        assert wait_until(lambda: hub.members() == [])


def test_since_that_is_not_held_is_410() -> None:
    """An id that the log has dropped, or never had, is gone; the rest would be a silent gap."""
    with running_hub(max_message_bytes=1000, room_log_bytes=8000, total_log_bytes=8000) as hub:
        first = hub.broadcast("x" * 1000)
        ids = [hub.broadcast("y" * 1000).id for _ in range(50)]
        assert wait_until(lambda: hub.stats()["log_bytes"] <= 8000)
        assert status_of_upgrade(hub.port, f"/?since={first.id}") == 410
        assert status_of_upgrade(hub.port, f"/?since={ids[-1]}") == 101
        assert status_of_upgrade(hub.port, "/?since=99999999999999-0") == 410
        assert status_of_upgrade(hub.port, "/?since=1-0") == 410
