"""``publish``: one message by one HTTP request, to a server that answers what the test says."""

from __future__ import annotations

import contextlib
import email.utils
import pathlib
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from broadcast_server import PublishFailed, UsageError, publish

from .support import lasting_port

SECONDS = 10.0


class Asked(NamedTuple):
    """A request as it came."""

    first: str
    headers: dict[str, str]
    body: bytes


def answer(body: str, status: str = "200 OK", *lines: str) -> bytes:
    """Return a whole answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", *lines, "", ""]
    return "\r\n".join(head).encode() + body.encode()


GOOD = answer('{"id":"7-0","room":"/scores","duplicate":false}')

# What to do with a connection once its request has been read.
Act = bytes | Callable[[socket.socket], None]


def reset(sock: socket.socket) -> None:
    """Break the connection off."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Server:
    """A listening socket and what was asked of it."""

    def __init__(self, listening: socket.socket, host: str) -> None:
        self.listening = listening
        self.asked: list[Asked] = []
        self.port: int = listening.getsockname()[1]
        self.url = f"http://{host}:{self.port}/scores"

    def run(self, acts: tuple[Act, ...]) -> None:
        """Serve one connection for each of the acts."""
        for act in acts:
            sock, _ = self.listening.accept()
            with sock:
                sock.settimeout(SECONDS)
                self.asked.append(self._read(sock))
                if callable(act):
                    act(sock)
                else:
                    sock.sendall(act)

    def _read(self, sock: socket.socket) -> Asked:
        with sock.makefile("rb") as file:
            first = file.readline().decode().strip()
            headers: dict[str, str] = {}
            while line := file.readline().decode().strip():
                key, _, value = line.partition(": ")
                assert key.lower() not in headers
                headers[key.lower()] = value
            return Asked(first, headers, file.read(int(headers.get("content-length", 0))))


@contextlib.contextmanager
def serving(*acts: Act, host: str = "127.0.0.1") -> Iterator[Server]:
    """Serve that many connections on a free loopback port; all of them must come."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        listening.settimeout(SECONDS)
        server = Server(listening, f"[{host}]" if ":" in host else host)
        thread = threading.Thread(target=server.run, args=(acts,))
        thread.start()
        try:
            yield server
        finally:
            thread.join(SECONDS)
    assert len(server.asked) == len(acts)


def failure(url: str, data: str | bytes = "x", **options: Any) -> PublishFailed:
    """Publish in vain."""
    with pytest.raises(PublishFailed) as failed:
        publish(url, data, **options)
    return failed.value


# -- The request -------------------------------------------------------------------------------


def test_text_goes_out_and_its_id_comes_back() -> None:
    """As text in UTF-8, with a key of its own each time."""
    with serving(GOOD, GOOD) as server:
        assert publish(server.url, "3:1 \u00e9") == "7-0"
        assert publish(server.url, "") == "7-0"
    first, second = server.asked
    assert first.first == "POST /scores HTTP/1.1" and first.body == "3:1 \u00e9".encode()
    assert first.headers["host"] == f"127.0.0.1:{server.port}"
    assert first.headers["content-type"] == "text/plain; charset=utf-8"
    assert "authorization" not in first.headers
    assert len(first.headers["idempotency-key"]) == 32
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]
    assert second.body == b""


def test_bytes_go_out_as_they_are() -> None:
    """With the key and the token that are given."""
    data = bytes(range(256)) * 1000
    with serving(GOOD) as server:
        assert publish(server.url, data, key="k1", token="t0k3n") == "7-0"
    (asked,) = server.asked
    assert asked.body == data
    assert asked.headers["content-type"] == "application/octet-stream"
    assert asked.headers["idempotency-key"] == "k1"
    assert asked.headers["authorization"] == "Bearer t0k3n"


@pytest.mark.parametrize(
    ("rest", "name", "target"),
    [
        ("", None, "/"),
        ("/a", "An\u00e9 &", "/a?name=An%C3%A9%20%26"),
        ("/\u00e9%2Fx?y=1#z", None, "/%C3%A9%2Fx?y=1"),
        ("/?name=bob&a", "ann", "/?a&name=ann"),
        ("?x", None, "/?x"),
    ],
)
def test_target_is_in_ascii(rest: str, name: str | None, target: str) -> None:
    """A URL may be written as people write it; the name goes into the query, where it wins."""
    with serving(GOOD) as server:
        publish(f"ws://127.0.0.1:{server.port}{rest}", "x", name=name)
    assert server.asked[0].first == f"POST {target} HTTP/1.1"


def test_hub_may_have_an_ipv6_address() -> None:
    """Which stands in brackets in the Host header, too."""
    with serving(GOOD, host="::1") as server:
        assert publish(server.url, "x") == "7-0"
    assert server.asked[0].headers["host"] == f"[::1]:{server.port}"


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((b"http://hub/", "x"), {}),
        (("http://hub/", 5), {}),
        (("http://hub/", bytearray(b"x")), {}),
        (("http://hub/", None), {}),
        (("http://hub/", "x"), {"key": 5}),
        (("http://hub/", "x"), {"name": b"ann"}),
        (("http://hub/", "x"), {"token": b"t"}),
        (("http://hub/", "x"), {"timeout": "5"}),
        (("http://hub/", "x"), {"timeout": None}),
    ],
)
def test_argument_of_a_wrong_type_is_a_type_error(
    arguments: tuple[Any, Any], options: dict[str, Any]
) -> None:
    """Before anything is sent anywhere."""
    with pytest.raises(TypeError):
        publish(*arguments, **options)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("hub/scores", {}),
        ("ftp://hub/", {}),
        ("http:///scores", {}),
        ("http://hub:0/", {}),
        ("http://hub:x/", {}),
        ("http://[::1/", {}),
        ("http://ann:secret@hub/", {}),
        ("http://hub/a b", {}),
        ("http://hub/\n", {}),
        ("http://hub/", {"key": ""}),
        ("http://hub/", {"key": "a b"}),
        ("http://hub/", {"key": "x" * 129}),
        ("http://hub/", {"token": "a\r\nX: y"}),
        ("http://hub/", {"token": ""}),
        ("http://hub/", {"name": "\ud800"}),
        ("http://hub/", {"timeout": 0}),
        ("http://hub/", {"timeout": float("nan")}),
    ],
)
def test_argument_that_can_never_work_is_a_usage_error(url: str, options: dict[str, Any]) -> None:
    """Before anything is sent anywhere."""
    with pytest.raises(UsageError):
        publish(url, "x", **options)


def test_lone_surrogates_are_no_text() -> None:
    """UTF-8 has no bytes for them."""
    with pytest.raises(UsageError):
        publish("http://hub/", "\udc80")


# -- Refusals ----------------------------------------------------------------------------------


def test_refusal_has_status_words_and_wait() -> None:
    """The hub's own words; the query, which may have a secret in it, is not repeated."""
    problem = '{"status": 429, "title": "Too Many Requests", "detail": "too many from you"}'
    with serving(answer(problem, "429 Too Many Requests", "Retry-After: 2")) as server:
        error = failure(server.url + "?session=secret")
    assert (error.status, error.detail, error.retry_after) == (429, "too many from you", 2.0)
    assert str(error) == f"cannot publish to {server.url}: too many from you"


@pytest.mark.parametrize("body", ["", "<html>", "[1]", '{"detail": 5}', "[" * 50_000])
def test_refusal_of_another_server_has_its_status(body: str) -> None:
    """A proxy in between has words of its own."""
    with serving(answer(body, "502 Bad Gateway")) as server:
        error = failure(server.url)
    assert (error.status, error.detail) == (502, "HTTP status 502 Bad Gateway")
    assert error.retry_after is None


def test_wait_may_be_told_as_a_date() -> None:
    """RFC 9110 §10.2.3; nonsense is no wait."""
    later = email.utils.formatdate(time.time() + 100, usegmt=True)
    for text, low, high in ((later, 90, 100), ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0)):
        with serving(answer("", "503 X", f"Retry-After: {text}")) as server:
            wait = failure(server.url).retry_after
        assert wait is not None and low <= wait <= high
    with serving(answer("", "503 X", "Retry-After: soon")) as server:
        assert failure(server.url).retry_after is None


@pytest.mark.parametrize("body", ["hello", "{}", '{"id": 5}', "[]"])
def test_answer_without_an_id_is_a_failure(body: str) -> None:
    """Something else listens there."""
    with serving(answer(body)) as server:
        error = failure(server.url)
    assert error.status == 200 and "no hub" in error.detail


def test_early_refusal_of_a_large_message_is_heard() -> None:
    """The hub answers before it has read all, and reads no more."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(SECONDS)

        def refuse() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(answer('{"detail": "too big"}', "413 X", "Connection: close"))
                sock.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=refuse)
        thread.start()
        error = failure(f"http://127.0.0.1:{listening.getsockname()[1]}/", bytes(1 << 24))
        thread.join(SECONDS)
    assert (error.status, error.detail) == (413, "too big")


# -- Connections that break --------------------------------------------------------------------


@pytest.mark.parametrize("act", [b"", reset, GOOD[:-5], GOOD[:50], b"HTTP/1.1 200 OK\r\n"])
def test_broken_connection_is_tried_once_more_with_the_same_key(act: Act) -> None:
    """The hub may have taken the message: it knows it again by the key."""
    with serving(act, GOOD) as server:
        assert publish(server.url, "x") == "7-0"
    first, second = server.asked
    assert first == second and first.headers["idempotency-key"]


def test_connection_that_breaks_twice_is_a_failure() -> None:
    """Nobody knows then whether the message was taken."""
    with serving(b"", reset) as server:
        error = failure(server.url)
    assert error.status is None
    assert error.detail == "the connection broke before the answer"


def test_no_http_is_a_failure() -> None:
    """Nor is it tried again."""
    with serving(b"SSH-2.0-x\r\n") as server:
        assert failure(server.url).detail == "the answer is no HTTP"


def test_refused_connection_is_a_failure() -> None:
    """Nobody listens: the system's words."""
    error = failure(f"http://127.0.0.1:{lasting_port()}/")
    assert error.status is None and error.detail == "Connection refused"


def test_tls_with_a_server_that_has_none_is_a_failure() -> None:
    """And no traceback of the TLS library's own kind."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(SECONDS)

        def talk() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.recv(1000)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        error = failure(f"https://127.0.0.1:{listening.getsockname()[1]}/")
        thread.join(SECONDS)
    assert error.status is None and error.detail


def test_tls_server_must_be_known(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its certificate is checked before the token goes out; a large message goes through."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    data = bytes(range(256)) * 4096
    bodies: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(SECONDS)

        def serve() -> None:
            for _ in range(2):
                sock, _ = listening.accept()
                sock.settimeout(SECONDS)
                with (
                    contextlib.suppress(OSError),
                    sock,
                    context.wrap_socket(sock, server_side=True) as channel,
                    channel.makefile("rb") as file,
                ):
                    while file.readline().strip():
                        pass
                    bodies.append(file.read(len(data)))
                    channel.sendall(GOOD)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"wss://127.0.0.1:{listening.getsockname()[1]}/"
        error = failure(url, data, token="secret")
        assert "certificate" in error.detail.lower() and bodies == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert publish(url, data, token="secret") == "7-0"
        thread.join(SECONDS)
    assert bodies == [data]


def test_all_of_it_has_one_deadline() -> None:
    """A server that answers byte by byte, each in time, does not keep the caller."""
    over = threading.Event()

    def trickle(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000:
                sock.sendall(bytes([byte]))
                if over.wait(0.02):
                    return

    with serving(trickle) as server:
        start = time.monotonic()
        error = failure(server.url, timeout=0.3)
        took = time.monotonic() - start
        over.set()
    assert error.status is None and error.detail == "no answer in 0.3 s"
    assert 0.25 < took < 3


def test_silent_server_has_the_deadline() -> None:
    """And the message is not sent again: there is no time left for it."""
    over = threading.Event()

    def keep_silent(_: socket.socket) -> None:
        over.wait(SECONDS)

    with serving(keep_silent) as server:
        error = failure(server.url, timeout=0.1)
        over.set()
    assert error.detail == "no answer in 0.1 s"
