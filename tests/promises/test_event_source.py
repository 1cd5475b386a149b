"""An ``EventSource`` outlives every refusal for now: it is told when to come back, with status 200.

Any other status ends it for good (WHATWG HTML §9.2.3). The browsers themselves are in
tests/browser.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server import BroadcastHub, Message
from broadcast_server.hub.http.access import AccessRequest
from broadcast_server.hub.http.models import RETRY, Refusal

from ..support import RawClient, http_request, running_hub, wait_until
from ..support.beside import during
from ..support.inside import admission_of, core_of, is_draining, server_of, watched_of

EVENTS = "Accept: text/event-stream"
ORIGIN = "https://app.example"


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer up to the end of the connection."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def retry_seconds(self) -> float:
        """When to come back; the body must be that and a comment, and nothing else."""
        found = re.fullmatch(r"retry: (\d+)\n: [ -~]+\n\n", self.body)
        assert found, self.body
        return int(found[1]) / 1000


def ask(port: int, *headers: str, method: str = "GET", path: str = "/r") -> Answer:
    """Make one request and read to the end of the connection."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, "", ""]
    return parse(http_request(port, "\r\n".join(lines).encode()))


def parse(data: bytes) -> Answer:
    """Return an answer, which must be as long as it says."""
    head, _, body = data.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Answer(int(first.split(" ")[1]), headers, body)


def check_alive(answer: Answer, least_seconds: float = 5.0) -> None:
    """Check that an EventSource comes back after this answer."""
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Connection"] == "close"
    assert answer.headers["Cache-Control"] == "no-store"
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    assert answer.retry_seconds >= least_seconds
    assert int(answer.headers["Retry-After"]) >= least_seconds


def counted(hub: BroadcastHub) -> dict[str, int]:
    """Return the refusals so far."""
    return core_of(hub).counts().refused


@contextlib.contextmanager
def full(**settings: Any) -> Iterator[BroadcastHub]:
    """Run a hub that has one client, in a room of the program's."""
    with running_hub(allow_origin=(ORIGIN,), **settings) as hub:
        hub.broadcast("x", "/r")
        with RawClient.connect(port=hub.port, path="/r") as client:
            yield hub
            client.sync()


@pytest.mark.parametrize(
    ("settings", "path", "status", "reason"),
    [
        ({"max_clients": 1}, "/r", 503, "max_clients"),
        ({"max_clients_per_address": 1}, "/r", 429, "per_address"),
        ({"max_rooms": 1}, "/other", 503, "max_rooms"),
    ],
)
def test_full_hub(
    settings: dict[str, Any],
    path: str,
    status: int,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of clients, of one address, of rooms. Others get the status; log and metric are the same."""
    caplog.set_level("INFO", "broadcast_server.hub")
    others = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    with full(**settings) as hub:
        check_alive(ask(hub.port, EVENTS, path=path))
        assert counted(hub) == {reason: 1}
        (line,) = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
        check_alive(ask(hub.port, "accept:  TEXT/Event-Stream ; charset=utf-8", path=path))
        times = {ask(hub.port, EVENTS, path=path).retry_seconds for _ in range(8)}
        assert len(times) > 1 and max(times) <= 10
        # A page of another origin must be able to read it, or its browser gives up.
        answer = ask(hub.port, EVENTS, f"Origin: {ORIGIN}", path=path)
        check_alive(answer)
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        for lines in (
            ("Accept: text/event-stream, application/json;q=0.1", "Connection: close"),
            ("Accept: text/event-stream, */*;q=0.1", "Connection: close"),
            (*others, key, EVENTS, "Connection: close"),
        ):
            answer = ask(hub.port, *lines, path=path)
            assert (answer.status, answer.headers["Retry-After"]) == (status, "5"), lines
            assert answer.headers["Content-Type"] == "application/problem+json"
        assert counted(hub) == {reason: 14}
        refusals = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
        assert {re.sub(r":\d+ ", " ", each) for each in refusals} == {re.sub(r":\d+ ", " ", line)}


def test_draining_hub_is_gone_for_as_long_as_it_may_take() -> None:
    """A client that never answers its Close keeps it draining; the time to come back is later."""
    settings = {"close_timeout": 20.0, "drain_seconds": 30.0, "stop_timeout": 60.0}
    with running_hub(**settings) as hub, RawClient.connect(port=hub.port, path="/r") as silent:
        with during(hub.drain):
            assert wait_until(lambda: is_draining(hub))
            silent.recv_close()
            check_alive(ask(hub.port, EVENTS), 15.0)
            answer = ask(hub.port, EVENTS, method="HEAD")
            assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream")
            assert answer.body == ""
            for accept in ("application/json", "*/*"):
                assert ask(hub.port, f"Accept: {accept}", "Connection: close").status == 503
            closing = ("Content-Length: 0", "Connection: close")
            assert ask(hub.port, EVENTS, *closing, method="POST").status == 503
            assert ask(hub.port, EVENTS, "Connection: close", path="/healthz").status == 503
            assert set(counted(hub)) == {"stopping"}
            silent.close()


@pytest.mark.parametrize("cut", [b"", b"User-Ag", b"X: y\r\n"])
def test_stopping_hub_that_cuts_a_request_short(cut: bytes) -> None:
    """What has come of the request tells that it is an EventSource's."""
    with running_hub() as hub, RawClient.open(port=hub.port) as raw:
        head = f"GET /r HTTP/1.1\r\nHost: 127.0.0.1\r\n{EVENTS}\r\n"
        raw.sock.sendall(head.encode() + cut)
        assert wait_until(lambda: sessions_wait(hub))
        hub.stop()
        with contextlib.suppress(EOFError):
            while True:
                raw.fill()
        check_alive(parse(raw.buffer))


def sessions_wait(hub: BroadcastHub) -> bool:
    """Tell whether a session waits for the rest of its request."""
    return any(http.awaits for http in watched_of(server_of(hub)).values())


def test_refusals_that_last_keep_their_status() -> None:
    """Coming back would not help: 401, 403, 404, 421, 400."""
    with running_hub(token="secret") as hub:
        assert ask(hub.port, EVENTS, "Connection: close").status == 401
        lasting = {
            ("Origin: https://evil.example",): 403,
            ("Host: evil.example",): 400,  # the second one
        }
        for lines, status in lasting.items():
            assert ask(hub.port, EVENTS, "Connection: close", *lines).status == status
        assert ask(hub.port, EVENTS, "Connection: close", path="/-/no").status == 404
        other = b"GET /r HTTP/1.1\r\nHost: evil.example\r\nAccept: text/event-stream\r\n"
        assert parse(http_request(hub.port, other + b"Connection: close\r\n\r\n")).status == 421


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (Refusal(503, "the database is\naway", (("Retry-After", "60"),)), 200),
        (Refusal(429, "slow down"), 200),
        (Refusal(503, "later", (("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT"),)), 200),
        (Refusal(404, "no such room"), 404),
    ],
)
def test_refusal_of_the_programs_own(refusal: Refusal, status: int) -> None:
    """What its ``authorize`` says counts as well, with the time that it tells."""

    def authorize(asked: AccessRequest) -> Refusal:
        return refusal

    with running_hub(authorize=authorize) as hub:
        answer = ask(hub.port, EVENTS, "Connection: close")
        if status == 200:
            check_alive(answer, 60.0 if "60" in str(refusal.headers) else 5.0)
        assert answer.status == status


@contextlib.contextmanager
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[BroadcastHub]:
    """Run a hub that has no place for a newcomer, since its only one is busy."""
    monkeypatch.setattr("broadcast_server.hub.server.PATIENCE_SECONDS", 0.0)
    entered, gate = threading.Event(), threading.Event()

    def hold(message: Message) -> Message:
        entered.set()
        gate.wait(30)
        return message

    with (
        running_hub(filter=hold, max_handshakes=1, allow_origin=(ORIGIN,)) as hub,
        RawClient.open(port=hub.port) as busy,
        contextlib.ExitStack() as stack,
    ):
        busy.sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        assert entered.wait(30)
        stack.callback(gate.set)
        stack.enter_context(RawClient.open(port=hub.port))
        assert wait_until(lambda: admission_of(server_of(hub)).late()[0] != [])
        yield hub


def no_threads(monkeypatch: pytest.MonkeyPatch) -> contextlib.AbstractContextManager[BroadcastHub]:
    """Run a hub that gets no thread for a newcomer."""

    @contextlib.contextmanager
    def running() -> Iterator[BroadcastHub]:
        def fail(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with running_hub(allow_origin=(ORIGIN,)) as hub:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", fail)
                yield hub

    return running()


@pytest.mark.parametrize("without", [stuck, no_threads])
def test_hub_without_a_place_or_a_thread(without: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers before a session begins, and looks what has come."""
    with without(monkeypatch) as hub:
        check_alive(ask(hub.port, EVENTS))
        answer = ask(hub.port, EVENTS, f"Origin: {ORIGIN}")
        check_alive(answer)
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert ask(hub.port, EVENTS, method="HEAD").body == ""
        for request in (
            b"",
            b"\xff\x00\r\n\r\n",
            b"GET /r HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /r HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream, */*\r\n\r\n",
            b"POST /r HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
            b"GET /r HTTP/1.1\r\nAccept: text/ev",
        ):
            answer = parse(http_request(hub.port, request))
            assert (answer.status, answer.headers["Retry-After"]) == (503, RETRY[0][1]), request
