"""Single requests to a hub, mostly to a server that answers what the test says."""

from __future__ import annotations

import contextlib
import email.utils
import json
import pathlib
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.client import HTTPMessage
from typing import Any

import pytest

from broadcast_server import BroadcastHub, PublishFailed, UsageError, publish
from broadcast_server.client import requests
from broadcast_server.client.http import Answer
from broadcast_server.client.requests import Poster, fetch_last

from ..support import lasting_port, running_hub
from ..support.beside import in_thread
from ..support.http_server import GOOD, SECONDS, Act, answer, keeping, reset, serving
from ..support.raw_server import listener

BUSY = answer('{"detail": "busy"}', "429 Too Many Requests", "Retry-After: 0")
STOPPING = answer('{"detail": "stopping"}', "503 Service Unavailable", "Retry-After: 0")


def failure(url: str, data: str | bytes = "x", **options: Any) -> PublishFailed:
    """Publish in vain."""
    with pytest.raises(PublishFailed) as failed:
        publish(url, data, **options)
    return failed.value


# -- One message: the request ------------------------------------------------------------------


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
        (("http://hub/", "x"), {"wait": "5"}),
        (("http://hub/", "x"), {"wait": None}),
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
        ("http://hub/", {"wait": -1}),
        ("http://hub/", {"wait": float("nan")}),
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


# -- One message: refusals ---------------------------------------------------------------------


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


# -- One message: connections that break -------------------------------------------------------


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
    assert error.status is None and error.maybe_delivered
    assert error.detail == "the connection broke before the answer"


def test_message_that_was_sent_twice_may_have_been_delivered() -> None:
    """Whatever the second attempt comes to."""
    with serving(b"", answer('{"detail": "full"}', "503 x")) as server:
        error = failure(server.url)
    assert error.status == 503 and error.detail == "full" and error.maybe_delivered


@pytest.mark.parametrize(
    ("status", "maybe"), [("502 x", True), ("504 x", True), ("503 x", False), ("404 x", False)]
)
def test_gateway_may_have_passed_the_message_on(status: str, maybe: bool) -> None:
    """It has lost its connection to the hub; a hub that refuses has not delivered."""
    with serving(answer("", status)) as server:
        assert failure(server.url).maybe_delivered is maybe


@pytest.mark.parametrize("end", [reset, lambda _: None])
def test_tls_that_breaks_is_told_as_such(end: Act) -> None:
    """The request has not left, so that it was certainly not delivered; it is tried once more."""
    with listener() as listening:
        publishing = in_thread(failure, f"https://127.0.0.1:{listening.port}/")
        for _ in range(2):
            sock, _ = listening.sock.accept()
            with sock:
                sock.recv(10_000)
                assert callable(end)
                end(sock)
        error = publishing.result(SECONDS)
    assert error.status is None and not error.maybe_delivered
    assert "TLS" in error.detail or "reset" in error.detail


def test_no_http_is_a_failure() -> None:
    """Nor is it tried again."""
    with serving(b"SSH-2.0-x\r\n") as server:
        assert failure(server.url).detail == "the answer is no HTTP"


def test_refused_connection_is_a_failure() -> None:
    """Nobody listens: the system's words."""
    error = failure(f"http://127.0.0.1:{lasting_port()}/")
    assert error.status is None and error.detail == "Connection refused"
    assert not error.maybe_delivered


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


ABSENT = [
    answer("", "502 Bad Gateway"),
    answer("", "503 Service Unavailable", "Retry-After: 0"),
    answer("", "504 Gateway Timeout"),
]


@pytest.mark.parametrize("absent", ABSENT)
def test_hub_that_is_not_there_yet_is_waited_for(absent: bytes) -> None:
    """With the same key: the answer to the first one may have been lost."""
    with serving(absent, reset, lambda sock: sock.close(), absent, GOOD) as server:
        assert publish(server.url, "x", wait=SECONDS) == "7-0"
    assert len(set(server.keys())) == 1


def test_hub_that_starts_late_is_waited_for() -> None:
    """The time-out counts from the beginning of each attempt."""
    port = lasting_port()
    publishing = in_thread(
        lambda: publish(f"http://127.0.0.1:{port}/r", "x", wait=SECONDS, timeout=SECONDS / 2)
    )
    with running_hub(port=port) as hub:
        assert publishing.result(SECONDS) == hub.history("/r")[0].id


@pytest.mark.parametrize("status", [401, 403, 404, 413, 421, 429, 500])
def test_refusal_is_not_waited_for(status: int) -> None:
    """It would be the same later, or the hub is there."""
    with serving(answer("", f"{status} X")) as server:
        assert failure(server.url, wait=1000.0).status == status


def test_message_that_was_sent_before_may_have_been_delivered() -> None:
    """Also if it never leaves afterwards."""
    with serving(reset, reset) as server:
        publishing = in_thread(failure, server.url, wait=0.5)
    error = publishing.result(SECONDS)
    assert error.maybe_delivered and "refused" in error.detail


def test_waiting_ends_with_its_time() -> None:
    """With the last failure."""
    error = failure(f"http://127.0.0.1:{lasting_port()}/", wait=0.3)
    assert error.status is None and "refused" in error.detail


# -- Many messages -----------------------------------------------------------------------------


@contextlib.contextmanager
def posting(url: str, **options: Any) -> Iterator[Poster]:
    """A poster that is closed in the end."""
    defaults = {"name": None, "token": None, "headers": {}, "trust": {}, "timeout": SECONDS}
    found = Poster(url, **{**defaults, "reconnect": True, **options})
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for what is drawn at random."""
    monkeypatch.setattr(requests, "MAX_PAUSE_SECONDS", 0.02)


def test_one_connection_serves_many_messages() -> None:
    """In their order, each with its key, and with what every request has."""
    with keeping([GOOD] * 3) as server:
        with posting(server.url, name="ann", token="t", headers={"X-A": "b"}) as found:
            for number in range(3):
                assert found.post(f"é{number}", f"k{number}") == "7-0"
    assert server.bodies() == [["é0".encode(), "é1".encode(), "é2".encode()]]
    assert server.keys() == ["k0", "k1", "k2"]
    asked = server.asked[0]
    assert asked.first == "POST /scores?name=ann HTTP/1.1"
    assert asked.headers["authorization"] == "Bearer t" and asked.headers["x-a"] == "b"
    assert asked.headers["content-type"] == "text/plain; charset=utf-8"


def test_content_type_may_be_chosen() -> None:
    """A header line of the user wins over ours."""
    with keeping([GOOD]) as server, posting(server.url, headers={"content-type": "a/b"}) as found:
        found.post("x", "k")
    assert server.asked[0].headers["content-type"] == "a/b"


def test_connection_that_was_closed_meanwhile_is_made_anew() -> None:
    """Also where it may not be when it breaks: nothing was lost."""
    with keeping([GOOD], [GOOD]) as server, posting(server.url, reconnect=False) as found:
        found.post("1", "a")
        found.post("2", "b")
    assert server.bodies() == [[b"1"], [b"2"]]


@pytest.mark.parametrize("act", [reset, b"", b"HTTP/1.1 200 OK\r\nContent-Len"])
def test_message_without_an_answer_is_sent_again_with_its_key(act: Act) -> None:
    """The hub delivers it once."""
    with keeping([GOOD, act], [act], [GOOD]) as server, posting(server.url) as found:
        found.post("1", "a")
        found.post("2", "b")
    assert server.bodies() == [[b"1", b"2"], [b"2"], [b"2"]]
    assert server.keys() == ["a", "b", "b", "b"]


def test_broken_connection_may_be_the_end() -> None:
    """Where it is not to be made anew; nobody knows what has become of the message."""
    with keeping([reset]) as server, posting(server.url, reconnect=False) as found:
        with pytest.raises(PublishFailed, match="the connection broke") as failed:
            found.post("1", "a")
        assert failed.value.maybe_delivered and failed.value.status is None


@pytest.mark.parametrize("busy", [BUSY, STOPPING, answer("", "502 Bad Gateway")])
def test_hub_that_is_busy_is_asked_again(busy: bytes) -> None:
    """With the same key, when it wishes."""
    with keeping([busy, busy, GOOD]) as server, posting(server.url) as found:
        assert found.post("1", "a") == "7-0"
    assert server.keys() == ["a"] * 3


def test_wish_that_is_longer_than_there_is_time_for_is_the_end() -> None:
    """Nobody waits in vain; the message was refused, and so it was not delivered."""
    slow = answer('{"detail": "busy"}', "429 x", "Retry-After: 3600")
    with keeping([slow]) as server, posting(server.url) as found:
        with pytest.raises(PublishFailed, match="busy") as failed:
            found.post("1", "a")
        assert not failed.value.maybe_delivered and failed.value.retry_after == 3600


@pytest.mark.parametrize("status", ["400 x", "401 x", "403 x", "404 x", "413 x", "415 x", "302 x"])
def test_refusal_is_the_end(status: str) -> None:
    """Asking again would change nothing; the hub's words are told."""
    with keeping([answer('{"detail": "not here"}', status)]) as server:
        with posting(server.url) as found:
            with pytest.raises(PublishFailed, match="/scores: not here") as failed:
                found.post("1", "a")
            assert not failed.value.maybe_delivered


def test_no_hub_at_first_is_the_end() -> None:
    """Whoever has never been there is not waited for."""
    with socket.socket() as bound:  # bound and not listening: nobody else can take it
        bound.bind(("127.0.0.1", 0))
        with posting(f"ws://127.0.0.1:{bound.getsockname()[1]}/") as found:
            with pytest.raises(PublishFailed, match="refused") as failed:
                found.post("1", "a")
            assert not failed.value.maybe_delivered


def test_hub_that_has_gone_is_waited_for_as_long_as_there_is_time() -> None:
    """A message that never left was certainly not delivered."""
    with keeping([GOOD]) as server:
        found = Poster(
            server.url, name=None, token=None, headers={}, trust={}, timeout=0.5, reconnect=True
        )
        found.post("1", "a")
    with pytest.raises(PublishFailed, match=r"refused|no answer") as failed:
        found.post("2", "b")
    found.close()
    assert not failed.value.maybe_delivered


def test_message_that_was_sent_once_may_have_been_delivered() -> None:
    """Also if later attempts do not get that far, or are refused."""
    with keeping([GOOD, b""]) as server:
        found = Poster(
            server.url, name=None, token=None, headers={}, trust={}, timeout=0.5, reconnect=True
        )
        found.post("1", "a")
        with pytest.raises(PublishFailed, match=r"refused|broke|no answer") as failed:
            server.listening.close()
            found.post("2", "b")
    found.close()
    assert failed.value.maybe_delivered
    refusal = answer('{"detail": "no more"}', "403 x")
    with keeping([b""], [refusal], [answer("", "502 x"), refusal]) as server:
        for _ in range(2):
            with posting(server.url) as found, pytest.raises(PublishFailed, match="no") as failed:
                found.post("1", "a")
            assert failed.value.maybe_delivered and failed.value.status == 403


def test_poster_waits_for_a_hub_that_is_not_there_yet() -> None:
    """At its first message only; the time-out is for a hub that is there."""
    port = lasting_port()
    options = {"wait": SECONDS, "timeout": SECONDS / 2, "reconnect": False}
    with posting(f"http://127.0.0.1:{port}/r", **options) as poster:
        publishing = in_thread(poster.post, "x", "k")
        with running_hub(port=port) as hub:
            assert publishing.result(SECONDS) == hub.history("/r")[0].id
        with pytest.raises(PublishFailed, match="refused"):
            poster.post("y", "l")


@pytest.mark.parametrize("absent", ABSENT)
def test_poster_waits_beyond_its_timeout(absent: bytes) -> None:
    """Also where a proxy is there, and a hub is not."""
    with (
        keeping([absent, absent, reset], [GOOD]) as server,
        posting(server.url, wait=SECONDS, timeout=SECONDS) as poster,
    ):
        assert poster.post("x", "k") == "7-0"
    assert len(set(server.keys())) == 1


def test_silence_ends_with_the_time() -> None:
    """One message's time is for all that it takes."""
    done = threading.Event()
    with keeping([lambda sock: bool(done.wait(SECONDS)) and None]) as server:
        with posting(server.url, timeout=0.2) as found:
            with pytest.raises(PublishFailed, match=re.escape("no answer in 0.2 s")) as failed:
                found.post("1", "a")
            assert failed.value.maybe_delivered
            done.set()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"token": "t", "headers": {"authorization": "x"}}, "not both"),
        ({"token": "a b"}, "visible ASCII"),
        ({"trust": {"insecure": True}}, "without TLS"),
    ],
)
def test_arguments_that_cannot_work_are_refused(options: dict[str, Any], words: str) -> None:
    """Before anything is sent."""
    with pytest.raises(UsageError, match=words), posting("ws://127.0.0.1:1/", **options):
        pass


# -- Old messages ------------------------------------------------------------------------------


def test_last_messages_of_a_room_come_in_order() -> None:
    """As many as are wanted and there are; other parameters of the address do not matter."""
    with running_hub(token="secret") as hub:
        shown = {"Authorization": "Bearer secret"}
        room = hub.url + "room"
        for number in range(3):
            publish(room, str(number), name="bob", token="secret")
        found = fetch_last(f"{room}?name=ann&since=1-0", "/room", 2, shown)
        assert [message.data for message in found] == ["1", "2"]
        assert [message.id for message in found] == [m.id for m in hub.history("/room")[1:]]
        assert all(message.sender and message.sender.name == "bob" for message in found)
        assert all(message.room == "/room" for message in found)
        assert fetch_last(hub.url + "other", "/other", 5, shown) == []
        with pytest.raises(LookupError, match="token"):
            fetch_last(room, "/room", 2, {})


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Answer one request with these bytes; gives the address."""
    with listener() as listening:

        def serve() -> None:
            sock, _ = listening.read_head()
            with sock:
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.url
        thread.join(10)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "no hub"),
        (b"{}", "no hub"),
        (b'{"messages": 3}', "no hub"),
        (b'{"messages": [{"type": "message"}]}', "no hub"),
        (b"", "broke before the answer"),
    ],
)
def test_answer_that_is_none_is_told(body: bytes, why: str) -> None:
    """No traceback for whatever a server says."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(head + body) as url, pytest.raises(LookupError, match=why):
        fetch_last(url, "/room", 3, {})


def test_answer_that_is_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a hub, and less could be had."""
    monkeypatch.setattr(requests, "MAX_HISTORY_BYTES", 1000)
    body = b'{"messages": [%s' % (b" " * 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(head + body) as url, pytest.raises(LookupError, match="ask for fewer"):
        fetch_last(url, "/room", 3, {})


def test_events_of_other_types_are_left_out() -> None:
    """A newer hub may say more."""
    event = {"type": "message", "id": "1-0", "time": "2026-11-25T06:00:00Z", "from": None}
    messages = [{"type": "new"}, {**event, "data": "x"}]
    body = json.dumps({"messages": messages}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(head + body) as url:
        assert [message.data for message in fetch_last(url, "/room", 3, {})] == ["x"]


def test_messages_that_do_not_fit_into_one_answer_are_asked_for_again(hub: BroadcastHub) -> None:
    """All that were asked for, each once."""
    ids = [hub.broadcast(str(number) * 300_000, "/r").id for number in range(8)]
    found = fetch_last(f"ws://127.0.0.1:{hub.port}/r", "/r", 7, {})
    assert [message.id for message in found] == ids[1:]


def test_server_that_always_has_more_is_not_asked_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bound is that of all answers together."""
    body = json.dumps({"messages": [], "more": True, "after": "1-1"}).encode()
    asked: list[str] = []

    def exchange(parts: object, method: str, target: str, *_: Any) -> Answer:
        asked.append(target)
        return Answer(200, "OK", HTTPMessage(), body)

    monkeypatch.setattr(requests, "exchange", exchange)
    monkeypatch.setattr(requests, "MAX_HISTORY_BYTES", 10 * len(body))
    with pytest.raises(LookupError, match="ask for fewer"):
        fetch_last("ws://hub.example/room", "/room", 3, {})
    assert asked == ["/room?history=3", *["/room?since=1-1"] * 9]
