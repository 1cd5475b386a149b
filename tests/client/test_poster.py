"""Messages over one HTTP connection, to a server that answers what the test says."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from broadcast_server import PublishFailed, UsageError
from broadcast_server.client import requests
from broadcast_server.client.requests import Poster

from .test_publisher import GOOD, Act, Asked, answer, reset

SECONDS = 20.0
BUSY = answer('{"detail": "busy"}', "429 Too Many Requests", "Retry-After: 0")
STOPPING = answer('{"detail": "stopping"}', "503 Service Unavailable", "Retry-After: 0")


class Keeper:
    """A server that keeps its connections open; it does what it is told for each request."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.asked: list[list[Asked]] = []  # connection by connection
        self.url = f"ws://127.0.0.1:{listening.getsockname()[1]}/scores"

    def run(self, connections: Sequence[Sequence[Act]]) -> None:
        """Serve so many connections, and so many requests on each; then close it."""
        for acts in connections:
            sock, _ = self.listening.accept()
            self.asked.append([])
            with sock, sock.makefile("rb") as file:
                sock.settimeout(SECONDS)
                for act in acts:
                    self.asked[-1].append(self._read(file))
                    if callable(act):
                        act(sock)
                    else:
                        sock.sendall(act)

    def _read(self, file: Any) -> Asked:
        first = file.readline().decode().strip()
        headers = {}
        while line := file.readline().decode().strip():
            key, _, value = line.partition(": ")
            headers[key.lower()] = value
        return Asked(first, headers, file.read(int(headers["content-length"])))

    def bodies(self) -> list[list[bytes]]:
        """Return what was published on each connection."""
        return [[asked.body for asked in connection] for connection in self.asked]

    def keys(self) -> list[str]:
        """Return the keys in the order in which they came."""
        return [a.headers["idempotency-key"] for connection in self.asked for a in connection]


@contextlib.contextmanager
def keeping(*connections: Sequence[Act]) -> Iterator[Keeper]:
    """Serve on a free loopback port; all of it must be asked for."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(SECONDS)
        keeper = Keeper(listening)
        thread = threading.Thread(target=keeper.run, args=(connections,))
        thread.start()
        try:
            yield keeper
        finally:
            thread.join(SECONDS)
    assert [len(asked) for asked in keeper.asked] == [len(acts) for acts in connections]


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
    asked = server.asked[0][0]
    assert asked.first == "POST /scores?name=ann HTTP/1.1"
    assert asked.headers["authorization"] == "Bearer t" and asked.headers["x-a"] == "b"
    assert asked.headers["content-type"] == "text/plain; charset=utf-8"


def test_content_type_may_be_chosen() -> None:
    """A header line of the user wins over ours."""
    with keeping([GOOD]) as server, posting(server.url, headers={"content-type": "a/b"}) as found:
        found.post("x", "k")
    assert server.asked[0][0].headers["content-type"] == "a/b"


def test_connection_that_was_closed_meanwhile_is_made_anew() -> None:
    """Also where it may not be when it breaks: nothing was lost."""
    with keeping([GOOD], [GOOD]) as server, posting(server.url, reconnect=False) as found:
        found.post("1", "a")
        found.post("2", "b")
        assert not found.lost
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
        assert found.lost and failed.value.status is None


@pytest.mark.parametrize("busy", [BUSY, STOPPING, answer("", "502 Bad Gateway")])
def test_hub_that_is_busy_is_asked_again(busy: bytes) -> None:
    """With the same key, when it wishes."""
    with keeping([busy, busy, GOOD]) as server, posting(server.url) as found:
        assert found.post("1", "a") == "7-0"
    assert server.keys() == ["a"] * 3


def test_wish_that_is_longer_than_there_is_time_for_is_the_end() -> None:
    """Nobody waits in vain; the message was refused, and is not lost."""
    slow = answer('{"detail": "busy"}', "429 x", "Retry-After: 3600")
    with keeping([slow]) as server, posting(server.url) as found:
        with pytest.raises(PublishFailed, match="busy") as failed:
            found.post("1", "a")
        assert not found.lost and failed.value.retry_after == 3600


@pytest.mark.parametrize("status", ["400 x", "401 x", "403 x", "404 x", "413 x", "415 x", "302 x"])
def test_refusal_is_the_end(status: str) -> None:
    """Asking again would change nothing; the hub's words are told."""
    with keeping([answer('{"detail": "not here"}', status)]) as server:
        with posting(server.url) as found:
            with pytest.raises(PublishFailed, match="/scores: not here"):
                found.post("1", "a")
            assert not found.lost


def test_no_hub_at_first_is_the_end() -> None:
    """Whoever has never been there is not waited for."""
    with socket.socket() as bound:  # bound and not listening: nobody else can take it
        bound.bind(("127.0.0.1", 0))
        with posting(f"ws://127.0.0.1:{bound.getsockname()[1]}/") as found:
            with pytest.raises(PublishFailed, match="refused"):
                found.post("1", "a")
            assert not found.lost


def test_hub_that_has_gone_is_waited_for_as_long_as_there_is_time() -> None:
    """Then the message counts as lost."""
    with keeping([GOOD]) as server:
        found = Poster(
            server.url, name=None, token=None, headers={}, trust={}, timeout=0.5, reconnect=True
        )
        found.post("1", "a")
    with pytest.raises(PublishFailed, match=r"refused|no answer"):
        found.post("2", "b")
    found.close()
    assert found.lost


def test_silence_ends_with_the_time() -> None:
    """One message's time is for all that it takes."""
    done = threading.Event()
    with keeping([lambda sock: bool(done.wait(SECONDS)) and None]) as server:
        with posting(server.url, timeout=0.2) as found:
            with pytest.raises(PublishFailed, match=re.escape("no answer in 0.2 s")):
                found.post("1", "a")
            assert found.lost
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
