"""The accept loop's list of clients: true at each moment, whoever comes and goes."""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broadcast_server import BroadcastHub, Message
from broadcast_server.hub import handler
from broadcast_server.hub import server as server_module
from broadcast_server.hub.handler import MOST_TURN_SECONDS, TURN_LOOK_SECONDS, YIELD_SECONDS
from broadcast_server.hub.http.connection import HttpConnection, is_ready
from broadcast_server.hub.server import HubServer
from broadcast_server.hub.turns import LEAST_SECONDS
from broadcast_server.transport.tls_stream import TlsStream

from ..support import (
    HandshakeRefused,
    RawClient,
    http_request,
    running_hub,
    upgrade_request,
    wait_until,
)
from ..support.certificates import Certificates
from ..support.inside import (
    admission_of,
    behind_since,
    bells_in_room,
    context_of,
    core_of,
    early_of,
    is_consistent,
    is_idle,
    knows_nobody,
    registry_lock_of,
    replace_reader,
    server_of,
    sessions_of,
    set_session,
    watched_of,
)


def test_list_stays_true_while_clients_come_and_go(hub: BroadcastHub) -> None:
    """In any order; who is left can be found by id, who has left cannot."""
    server = server_of(hub)
    chance = random.Random(5)
    clients: list[RawClient] = []
    for _ in range(150):
        if clients and chance.random() < 0.5:
            client = clients.pop(chance.randrange(len(clients)))
            if chance.random() < 0.5:
                client.leave()
            else:
                client.reset()
        else:
            clients.append(RawClient.connect(port=hub.port))
        assert is_consistent(server)
    assert wait_until(lambda: server.client_count == len(clients))
    assert is_consistent(server)
    members = hub.members()
    assert len(members) == len(clients)
    for member in members:
        connection = server.find(member.id)
        assert connection is not None and connection.member is member
    for client in clients:
        client.leave()
    assert wait_until(lambda: not server.clients and not sessions_of(server))
    assert knows_nobody(server)
    assert all(server.find(member.id) is None for member in members)


def test_ids_are_never_given_twice(hub: BroadcastHub) -> None:
    """A message for a client that has left reaches nobody else."""
    seen = set()
    for _ in range(20):
        with RawClient.connect(port=hub.port) as client:
            (member,) = hub.members()
            client.leave()
        seen.add(member.id)
        assert wait_until(lambda: not hub.members())
    assert len(seen) == 20


def test_full_hub_answers_503_and_takes_the_next_when_one_leaves() -> None:
    """Counted exactly, also when many come at once."""
    with running_hub(max_clients=5) as hub:
        joined: list[RawClient] = []
        refused: list[int] = []

        def come() -> None:
            try:
                joined.append(RawClient.connect(port=hub.port))
            except HandshakeRefused as error:
                refused.append(error.status)

        threads = [threading.Thread(target=come) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert (len(joined), refused) == (5, [503] * 15)
        joined.pop().leave()
        assert wait_until(lambda: hub.stats()["clients"] == 4)
        with RawClient.connect(port=hub.port) as client:
            client.leave()
        for client in joined:
            client.leave()


def test_request_that_is_no_upgrade_is_no_client(hub: BroadcastHub) -> None:
    """It is answered, and leaves nothing behind on the list."""
    server = server_of(hub)
    answer = http_request(hub.port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert server.client_count == 0
    assert wait_until(lambda: not sessions_of(server))


def test_session_that_fails_is_logged_and_ends_alone(
    hub: BroadcastHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours costs one client its connection, and the list stays true."""
    server = server_of(hub)
    with RawClient.connect(port=hub.port) as other:
        other.sync()
        with RawClient.connect(port=hub.port) as client:
            client.sync()
            handler = server.clients[-1]["handler"]

            class Broken:
                def take(self, data: bytes) -> None:
                    raise RuntimeError("made by the test")

                def end(self) -> None:
                    pass

            replace_reader(monkeypatch, handler, Broken())
            client.send("x")
            client.recv_eof()
        assert wait_until(lambda: server.client_count == 1)
        assert wait_until(lambda: "made by the test" in caplog.text)
        assert "has failed" in caplog.text
        other.sync()
        assert is_consistent(server)


def test_socket_leaves_the_list_of_sessions_before_it_is_closed(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop shuts down what is on that list: a closed one's number may be somebody else's."""
    server = server_of(hub)
    listed: list[bool] = []
    close_request = server.close_request

    def close(request: socket.socket) -> None:
        with registry_lock_of(server):
            listed.append(request in sessions_of(server))
        close_request(request)

    monkeypatch.setattr(server, "close_request", close)
    http_request(hub.port, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert wait_until(lambda: listed == [False])


def test_stop_shuts_sessions_down_while_none_can_be_closed() -> None:
    """The list's lock is held over it; who closes takes the socket off the list first."""
    held: list[bool] = []

    class Watched:
        def shutdown(self, how: int) -> None:
            held.append(registry_lock_of(server).locked())

    with running_hub() as hub:
        server = server_of(hub)
        watched: Any = Watched()
        set_session(server, watched, threading.current_thread())
    assert held == [True]


def test_client_without_a_thread_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It gets 503, one line a second says so, and the next client comes in."""
    start = threading.Thread.start
    monkeypatch.setattr(server_module, "CROWD_SECONDS", 1000.0)

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with running_hub() as hub:
        server = server_of(hub)
        monkeypatch.setattr(threading.Thread, "start", fail)
        for _ in range(3):
            assert http_request(hub.port, b"").startswith(b"HTTP/1.1 503 ")
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.getMessage() == (
            "1 connections got no thread and were refused, now that of 127.0.0.1: "
            "can't start new thread"
        )
        assert record.exc_info is None
        monkeypatch.setattr(server_module, "CROWD_SECONDS", 0.0)
        assert http_request(hub.port, b"").startswith(b"HTTP/1.1 503 ")
        assert caplog.records[-1].getMessage().startswith("3 connections got no thread")
        monkeypatch.setattr(threading.Thread, "start", start)
        assert not sessions_of(server)
        with RawClient.connect(port=hub.port) as client:
            client.leave()


def test_session_is_idle_only_while_its_peer_is_what_it_waits_for() -> None:
    """Only such a one is cut off at once to make room; others get their answer first."""
    entered, gate = threading.Event(), threading.Event()

    def hold(message: Message) -> Message:
        entered.set()
        gate.wait(30)
        return message

    with running_hub(filter=hold, max_handshakes=1) as hub, RawClient.open(port=hub.port) as client:
        server = server_of(hub)
        assert wait_until(lambda: len(watched_of(server)) == 1)
        (request,) = watched_of(server)
        assert wait_until(lambda: is_idle(server, request))
        client.sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
        assert wait_until(lambda: is_idle(server, request))
        client.sock.sendall(b"y")
        assert entered.wait(30)
        # Now the peer waits for the hub; and so does what else it sends.
        assert not is_idle(server, request)
        client.sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not is_idle(server, request)
        gate.set()
        while b"ok\n" not in client.buffer:
            client.fill()
        assert wait_until(lambda: is_idle(server, request))
    assert not watched_of(server)
    with socket.socket() as stranger:
        assert not is_idle(server, stranger)


def test_session_whose_answer_is_not_taken_is_idle_whatever_it_has_sent() -> None:
    """More requests that nobody has read do not make it look busy, and it is cut off at once."""
    ask = b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n"
    with (
        running_hub(max_handshakes=2, handshake_timeout=600) as hub,
        RawClient.open(port=hub.port, rcvbuf=4096, timeout=0.2) as deaf,
    ):
        server = server_of(hub)
        with pytest.raises(TimeoutError):
            while True:
                deaf.sock.sendall(ask * 100)
        (request,) = watched_of(server)
        assert wait_until(lambda: watched_of(server)[request].awaits == select.POLLOUT)
        assert is_ready(request, select.POLLIN) and is_idle(server, request)
        with RawClient.open(port=hub.port):
            assert wait_until(lambda: admission_of(server).waiting == 2)
            RawClient.connect(port=hub.port).leave()
            assert core_of(hub).counts().refused == {"handshake_slots": 1}
            assert wait_until(lambda: request not in sessions_of(server))


def test_session_that_lingers_is_idle_whatever_it_sends() -> None:
    """It has its answer."""
    with running_hub(max_message_bytes=10) as hub, RawClient.open(port=hub.port) as client:
        server = server_of(hub)
        client.sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n")
        while b"413" not in client.buffer:
            client.fill()
        (request,) = watched_of(server)
        assert wait_until(lambda: request not in watched_of(server) or is_idle(server, request))


def test_busy_session_makes_way_with_its_answer() -> None:
    """It gets what it asked for, and nobody waits for it; a newcomer waits only while as many as
    may wait are on their way out."""
    entered, gate = threading.Event(), threading.Event()

    def hold(message: Message) -> Message:
        entered.set()
        gate.wait(30)
        return message

    with (
        running_hub(filter=hold, max_handshakes=1) as hub,
        RawClient.open(port=hub.port) as busy,
        ThreadPoolExecutor(1) as pool,
    ):
        server = server_of(hub)
        busy.sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        assert entered.wait(30)
        RawClient.connect(port=hub.port).leave()
        assert core_of(hub).counts().refused == {}
        with RawClient.open(port=hub.port) as idle:
            assert wait_until(lambda: admission_of(server).waiting == 1)
            joining = pool.submit(lambda: RawClient.connect(port=hub.port))
            assert wait_until(lambda: behind_since(server) is not None)
            gate.set()
            while b"}\n" not in busy.buffer:
                busy.fill()
            assert busy.buffer.startswith(b"HTTP/1.1 200 ")
            assert b"\r\nConnection: close\r\n" in busy.buffer
            joining.result(30).leave()
            idle.recv_eof()
        assert core_of(hub).counts().refused == {"handshake_slots": 1}


def test_hub_that_is_stuck_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newcomers wait for a while together, not each for itself; an end of one lets them in."""
    monkeypatch.setattr("broadcast_server.hub.server.PATIENCE_SECONDS", 0.0)
    entered, gate = threading.Event(), threading.Event()

    def hold(message: Message) -> Message:
        entered.set()
        gate.wait(30)
        return message

    with running_hub(filter=hold, max_handshakes=1) as hub, RawClient.open(port=hub.port) as busy:
        server = server_of(hub)
        busy.sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        assert entered.wait(30)
        with RawClient.open(port=hub.port):
            assert wait_until(lambda: admission_of(server).late()[0] != [])
            for _ in range(3):
                assert http_request(hub.port, b"").startswith(b"HTTP/1.1 503 ")
            assert behind_since(server) is not None
            gate.set()
            busy.recv_exact(100)
            assert wait_until(lambda: admission_of(server).late()[1] is None)
            RawClient.connect(port=hub.port).leave()
            assert behind_since(server) is None


def test_publisher_that_waits_for_the_fan_out_makes_way() -> None:
    """It is told to come back: nothing was sent. Else whoever fills a room could keep all out."""
    with running_hub(max_handshakes=1) as hub, RawClient.open(port=hub.port) as stuck:
        server, room = server_of(hub), core_of(hub).rooms.open("/r")
        assert room.reserve(room.ring_bytes, None, lambda: False)
        stuck.sock.sendall(b"POST /r HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        assert wait_until(lambda: bool(bells_in_room(room)))
        RawClient.connect(port=hub.port).leave()
        while b"}\n" not in stuck.buffer:
            stuck.fill()
        assert stuck.buffer.startswith(b"HTTP/1.1 503 ") and b"make way" in stuck.buffer
        room.release(room.ring_bytes)
        assert core_of(hub).counts().refused == {"busy": 1}
        assert not early_of(server)


def test_who_asks_without_a_pause_rests_while_others_want_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After each answer, if the next request is here already; then it may be cut off. While nobody
    wants the place, only for a moment, which leaves the interpreter to others."""
    rests: list[float] = []

    def rest(http: HttpConnection, seconds: float) -> None:
        assert not http.makes_way
        rests.append(seconds)

    monkeypatch.setattr(HttpConnection, "rest", rest)
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for limit, expected in ((1, [YIELD_SECONDS] * 4), (2, [LEAST_SECONDS] * 4)):
        rests.clear()
        with (
            running_hub(max_handshakes=limit) as hub,
            RawClient.open(port=hub.port) as client,
        ):
            client.sock.sendall(ask * 5)
            while client.buffer.count(b"ok\n") < 5:
                client.fill()
            assert rests == expected


def test_request_waits_for_its_turn_among_those_of_its_sender(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before it is answered, until the sender has paid for what its threads have done; not when the
    hub stops. Another sender does not wait."""
    waits: list[float] = []

    class Time:
        """Goes on only while somebody sleeps."""

        now = 1000.0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            waits.append(seconds)
            self.now += seconds

    with running_hub(trust_proxy=["127.0.0.1"]) as hub:
        monkeypatch.setattr(handler, "time", Time())

        def ask(address: str) -> list[float]:
            waits.clear()
            lines = ["GET /-/rooms HTTP/1.1", "Host: 127.0.0.1", f"X-Forwarded-For: {address}"]
            found = http_request(
                hub.port, "\r\n".join([*lines, "Connection: close", "", ""]).encode()
            )
            assert found.startswith(b"HTTP/1.1 200 ")
            return list(waits)

        core_of(hub).turns.charge("192.0.2.1", 60.0)
        assert sum(ask("192.0.2.1")) == pytest.approx(MOST_TURN_SECONDS)
        assert max(waits) <= TURN_LOOK_SECONDS
        assert sum(ask("192.0.2.2")) < 0.1


def test_session_that_makes_way_before_it_has_begun_still_joins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A storm of joins: the hub is what is slow, and what has come is served."""
    gate = threading.Event()
    watch = HubServer.watch

    def late(server: HubServer, request: socket.socket, http: HttpConnection) -> None:
        gate.wait(30)
        watch(server, request, http)

    monkeypatch.setattr(HubServer, "watch", late)
    with running_hub(max_handshakes=3) as hub, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient.open(port=hub.port)) for _ in range(6)]
        for client in clients:
            client.sock.sendall(upgrade_request())
        assert wait_until(lambda: len(early_of(server_of(hub))) == 3)
        gate.set()
        for client in clients:
            while b"\r\n\r\n" not in client.buffer:
                client.fill()
            assert client.buffer.startswith(b"HTTP/1.1 101 ")
        assert core_of(hub).counts().refused == {}


def test_session_is_not_idle_while_the_hub_computes_its_tls_handshake(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client whose handshake takes the hub its time is not cut off at once to make room."""
    entered, gate = threading.Event(), threading.Event()
    with certificates.hub() as hub:
        server, certificate = server_of(hub), core_of(hub).tls
        assert certificate is not None
        context = context_of(certificate)

        def compute() -> ssl.SSLContext:
            entered.set()
            gate.wait(30)
            return context

        monkeypatch.setattr(certificate, "wrap", lambda sock: TlsStream(sock, compute))
        with RawClient.open(port=hub.port):
            assert entered.wait(30)
            (request,) = watched_of(server)
            try:
                assert watched_of(server)[request].awaits
                assert not is_idle(server, request)
            finally:
                gate.set()
            # Now it is the client that has to speak.
            assert wait_until(lambda: is_idle(server, request))


def test_stop_waits_for_a_session_that_has_not_begun(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread was started, but has not run yet: it is joined like any other."""
    server = server_of(hub)
    run = server.process_request_thread
    started, go_on = threading.Event(), threading.Event()

    def run_late(*args: Any) -> None:
        started.set()
        assert go_on.wait(10)
        run(*args)

    monkeypatch.setattr(server, "process_request_thread", run_late)
    with RawClient.open(port=hub.port):
        assert started.wait(10)
        server.stop_listening()
        assert not server.join(time.monotonic())
        go_on.set()
        assert server.join(time.monotonic() + 10)
        assert not sessions_of(server)
