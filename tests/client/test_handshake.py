"""What websocket-client sees of an opening handshake: no cookies, nothing that it stumbles over."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from websocket import _handshake

from broadcast_server import BroadcastClient, ConnectFailed
from broadcast_server.client import handshake
from broadcast_server.client.handshake import HandshakeSocket, understood_head
from broadcast_server.transport.deadlines import Deadline

from ..support import accept_for
from ..support.beside import in_thread
from ..support.raw_server import SECONDS, Listener, listener

KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
SWITCH = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {accept_for(KEY)}\r\n"
)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 431 No\r\n\r\n", b""])
def test_server_that_has_left_may_have_said_why(answer: bytes) -> None:
    """Its answer is read although the request could not be sent; else what has failed is told."""
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(answer)
        theirs.close()
        found = HandshakeSocket(ours, {}, Deadline(SECONDS))
        found.send(b"GET / HTTP/1.1\r\n\r\n")
        if answer:
            assert found.recv(100) == b"HTTP/1.1 431 \r\n\r\n"
        else:
            with pytest.raises(BrokenPipeError):
                found.recv(100)


@pytest.fixture
def jar() -> Iterator[dict[str, object]]:
    """The cookies of the process, as websocket-client keeps them for the rest of the program."""
    kept = _handshake.CookieJar.jar
    kept.clear()
    yield kept
    kept.clear()


def connect(listening: Listener, answer: str, **headers: str) -> str:
    """Connect a client to a server that answers this, and leave; return the request's head."""

    def serve() -> str:
        sock, head = listening.read_head()
        with sock:
            sock.sendall(answer.encode("latin-1"))
        return head

    served = in_thread(serve)
    client = BroadcastClient(
        listening.url, headers={"Sec-WebSocket-Key": KEY, **headers}, reconnect=False
    )
    try:
        client.connect()
    finally:
        head = served.result(SECONDS)
        client.close(timeout=SECONDS)
    return head


@pytest.mark.parametrize("name", ["Set-Cookie", "SET-COOKIE", " set-cookie", "Set-Coo\xa0ie"])
@pytest.mark.parametrize("cookie", ["a/b=c", "a=b; domain=127.0.0.1", "a=b\r\nSet-Cookie: c/d=e"])
def test_cookies_of_a_server_are_not_kept(name: str, cookie: str, jar: dict[str, object]) -> None:
    """Neither those that http.cookies cannot read nor good ones, which would go to other hubs."""
    with listener() as listening:
        connect(listening, f"{SWITCH}{name}: {cookie}\r\n\r\n")
        assert "cookie" not in connect(listening, SWITCH + "\r\n").lower()
        for status in ("302 Found", "401 No"):
            with pytest.raises(ConnectFailed, match=f"status {status[:3]}"):
                connect(listening, f"HTTP/1.1 {status}\r\n{name}: {cookie}\r\n\r\n")
    assert not jar


@pytest.mark.parametrize("value", ["secret", "x" * 20_000, '"x\\015\\012X-Injected: 1"'])
def test_cookies_of_the_program_stay_its_own(value: str, jar: dict[str, object]) -> None:
    """What another part of the program has got with websocket-client is not sent to a hub, and is
    still there afterwards. A cookie that the user gives is sent."""
    _handshake.CookieJar.add(f"a={value}; domain=127.0.0.1")
    before = dict(jar)
    assert before and _handshake.CookieJar.get("127.0.0.1")
    with listener() as listening:
        head = connect(listening, SWITCH + "\r\n")
        assert "cookie" not in head.lower() and "X-Injected" not in head
        head = connect(listening, SWITCH + "\r\n", Cookie="b=c", cookie="d=e")
    assert "\r\nCookie: b=c\r\ncookie: d=e\r\n\r\n" in head and "a=" not in head
    assert jar == before


@pytest.mark.parametrize(
    ("head", "understood"),
    [
        (b"HTTP/1.1 101 X\r\nUPGRADE:websocket \r\nX-A: b\r\n\r\n",
         b"HTTP/1.1 101 \r\nupgrade: websocket\r\n\r\n"),
        (b"HTTP/1.0 503\nRetry-After: 3\nContent-Length: -5\nContent-Length: 5\n\n",
         b"HTTP/1.1 503 \r\nretry-after: 3\r\ncontent-length: 5\r\n\r\n"),
        (b"HTTP/1.1 200 \xff\r\nContent-Type: \xff\r\nX\xff: a\r\n\r\n",
         b"HTTP/1.1 200 \r\ncontent-type: \xc3\xbf\r\n\r\n"),
    ],
)  # fmt: skip
def test_head_is_handed_on_as_far_as_it_is_needed(head: bytes, understood: bytes) -> None:
    """In one form, whatever was the server's."""
    assert understood_head(head) == understood


@pytest.mark.parametrize(
    "head",
    [b"\r\n", b"HTTP/1.1 000 X\r\n\r\n", b"HTTP/1.1 1000\r\n\r\n", b"HTTP/2 200\r\n\r\n",
     b"HTTP/1.1 101 X\r\nno header\r\n\r\n", b"SSH-2.0-OpenSSH\r\n\r\n"],
)  # fmt: skip
def test_head_of_something_else_is_refused(head: bytes) -> None:
    """Before the library sees it."""
    with pytest.raises(ValueError, match=r"HTTP|none"):
        understood_head(head)


def test_answer_is_bounded() -> None:
    """Its head and its body; no more is read than that."""
    for answer, most in (
        (b"HTTP/1.1 200 X\r\n" + b"X-A: b\r\n" * 20_000, handshake.MAX_HEAD_BYTES),
        (b"HTTP/1.1 200 X\r\n\r\n" + bytes(100), 18),
    ):
        near, far = socket.socketpair()
        with near, far:
            far.settimeout(SECONDS)
            sent = in_thread(far.sendall, answer)
            answering = HandshakeSocket(near, {}, Deadline(SECONDS))
            read = 0
            try:
                while read < most:
                    read += len(answering.recv(1))
                    if read == 18:
                        break
            except ValueError as error:
                assert str(error) == "its answer has no end"
            else:
                with pytest.raises(ValueError, match="its answer has no end"):
                    answering.recv(handshake.MAX_BODY_BYTES + 1)
            near.close()
            sent.exception(SECONDS)
