"""What strangers may take of a hub: each limit at its boundary, on a real hub.

Each test lets exactly N pass and refuses or holds back N + 1, and looks at what is counted and
logged. Addresses other than this machine's come through a listed proxy, which the test is.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import socket
from collections.abc import Iterator

import pytest

from broadcast_server import BroadcastHub
from broadcast_server.cli.options.tables import OPTIONS
from broadcast_server.hub import metrics
from broadcast_server.hub.http.access import AccessRequest, Grant
from broadcast_server.hub.http.connection import RESTING
from broadcast_server.hub.rates import SenderRates

from ..support import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    ROOT,
    TEXT,
    HandshakeRefused,
    RawClient,
    client_frame,
    http_request,
    running_hub,
    thread_count,
    upgrade_request,
    wait_until,
)
from ..support.inside import (
    admission_of,
    core_of,
    fanout_of,
    server_of,
    sleeps,
    watched_of,
)


def refused(hub: BroadcastHub) -> dict[str, int]:
    """Return what the hub has refused, by reason."""
    return core_of(hub).counts().refused


def waiting(hub: BroadcastHub) -> int:
    """Return how many connections wait."""
    return admission_of(server_of(hub)).waiting


def of(address: str) -> list[str]:
    """Return the header with which a proxy tells for whom it calls."""
    return [f"X-Forwarded-For: {address}"]


def status_of_join(hub: BroadcastHub, path: str = "/", headers: list[str] | None = None) -> int:
    """Return the status of a join that is not to succeed."""
    with pytest.raises(HandshakeRefused) as caught:
        RawClient.connect(port=hub.port, path=path, headers=headers or [])
    return caught.value.status


def post(hub: BroadcastHub, path: str, body: bytes = b"x", address: str = "192.0.2.1") -> int:
    """Publish for somebody; return the status."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        f"X-Forwarded-For: {address}\r\nConnection: close\r\n\r\n"
    )
    return int(http_request(hub.port, head.encode() + body).split(b" ")[1])


@contextlib.contextmanager
def joined(hub: BroadcastHub, count: int, headers: list[str]) -> Iterator[list[RawClient]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(RawClient.connect(port=hub.port, headers=headers))
            for _ in range(count)
        ]


# -- Clients -----------------------------------------------------------------------------------


def test_clients_in_total(caplog: pytest.LogCaptureFixture) -> None:
    """As many as there may be; one more is answered 503 and may come when one has left."""
    with caplog.at_level(logging.INFO), running_hub(max_clients=3) as hub:
        with joined(hub, 3, []) as clients:
            assert refused(hub) == {}
            assert status_of_join(hub) == 503
            assert refused(hub) == {"max_clients": 1}
            assert "refused: the hub takes no more clients now" in caplog.text
            clients.pop().leave()
            assert wait_until(lambda: hub.stats()["clients"] == 2)
            RawClient.connect(port=hub.port).leave()


@pytest.mark.parametrize(
    ("addresses", "others"),
    [
        (["192.0.2.1"], ["192.0.2.2", "::ffff:192.0.2.3", "2001:db8::1"]),
        (
            ["2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"],
            ["2001:db8:0:2::1", "2001:db8::1", "192.0.2.1"],
        ),
    ],
)
def test_clients_of_one_address(
    addresses: list[str], others: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Of one IPv4 address or one IPv6 /64, readers of events included; others still come in."""
    settings = {"max_clients_per_address": 3, "trust_proxy": ["127.0.0.1"]}
    with (
        caplog.at_level(logging.INFO),
        running_hub(**settings) as hub,
        contextlib.ExitStack() as stack,
    ):
        first, last = of(addresses[0]), of(addresses[-1])
        clients = stack.enter_context(joined(hub, 2, first))
        events = stack.enter_context(RawClient.open(port=hub.port))
        ask = f"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{last[0]}\r\n\r\n"
        events.sock.sendall(ask.encode())
        assert wait_until(lambda: len(hub.members()) == 3)
        assert refused(hub) == {}
        assert status_of_join(hub, headers=last) == 429
        # An EventSource would never come back after another status.
        assert b"\r\n\r\nretry: " in http_request(hub.port, ask.encode())
        assert refused(hub) == {"per_address": 2}
        assert f"{addresses[-1]} refused: there are 3 clients of this address" in caplog.text
        for other in others:
            stack.enter_context(joined(hub, 3, of(other)))
        assert hub.stats()["clients"] == 12
        clients.pop().leave()
        assert wait_until(lambda: hub.stats()["clients"] == 11)
        stack.enter_context(joined(hub, 1, last))
        assert status_of_join(hub, headers=first) == 429


def test_loopback_is_one_address() -> None:
    """A proxy on the same machine that is not listed is one address, and the answer says so; so
    is a program that calls from another one of 127.0.0.0/8."""
    with running_hub(max_clients_per_address=1) as hub, joined(hub, 1, of("192.0.2.1")):
        assert status_of_join(hub, headers=of("192.0.2.2")) == 429
        with socket.create_connection(("127.0.0.1", hub.port), 10, ("127.9.8.7", 0)) as sock:
            with pytest.raises(HandshakeRefused):
                RawClient(sock).upgrade()
        assert refused(hub) == {"per_address": 2}


def test_refused_client_may_ask_again_on_its_connection() -> None:
    """It is told when, and its place is nobody's until then."""
    settings = {"max_clients_per_address": 1, "trust_proxy": ["127.0.0.1"]}
    with running_hub(**settings) as hub, joined(hub, 1, of("192.0.2.1")) as (client,):
        with RawClient.open(port=hub.port) as again:
            again.sock.sendall(upgrade_request(headers=of("192.0.2.1")))
            while b"\r\n\r\n{" not in again.buffer or b"}\n" not in again.buffer:
                again.fill()
            assert again.buffer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
            assert b"\r\nRetry-After: 5\r\n" in again.buffer
            again.buffer = b""
            client.leave()
            assert wait_until(lambda: hub.stats()["clients"] == 0)
            again.upgrade(headers=of("192.0.2.1"))
            again.leave()


# -- Handshakes --------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [20, 1000])
def test_500_half_open_connections_leave_room_for_others(limit: int) -> None:
    """Slowloris from one address: whoever makes its handshake joins, publishes, sees the page."""
    with running_hub(max_handshakes=limit, handshake_timeout=600) as hub:
        threads = thread_count()
        with contextlib.ExitStack() as stack:
            halves = []
            for number in range(500):
                half = stack.enter_context(RawClient.open(port=hub.port, timeout=30))
                half.sock.sendall((b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n")[number % 3])
                halves.append(half)
            client = stack.enter_context(RawClient.connect(port=hub.port))
            assert post(hub, "/", b"goal") == 200
            assert client.recv_message() == "goal"
            page = b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
            assert http_request(hub.port, page).startswith(b"HTTP/1.1 200 ")
            client.leave()
            if limit == 20:
                # Threads and places are bounded by the limit; the last ones are still there.
                assert wait_until(lambda: thread_count() <= threads + 20)
                for half in halves[:480]:
                    half.recv_eof()
                # The client has given its place back by joining. The two others do by leaving,
                # which the hub may notice later than we.
                counts = refused(hub)
                assert counts.keys() == {"handshake_slots"}
                assert 481 <= counts["handshake_slots"] <= 483
            else:
                assert refused(hub) == {}
        assert wait_until(lambda: waiting(hub) == 0)


def test_as_many_connections_as_may_wait(caplog: pytest.LogCaptureFixture) -> None:
    """N wait side by side; for one more the first is cut off, and the log says so."""
    with (
        caplog.at_level(logging.INFO),
        running_hub(max_handshakes=3, handshake_timeout=600) as hub,
        contextlib.ExitStack() as stack,
    ):
        halves: list[RawClient] = []
        while len(halves) < 3:
            half = stack.enter_context(RawClient.open(port=hub.port))
            halves.append(half)
            assert wait_until(lambda: waiting(hub) == len(halves))
        assert refused(hub) == {} and "too many handshakes" not in caplog.text
        halves.append(stack.enter_context(RawClient.open(port=hub.port)))
        halves[0].recv_eof()
        assert refused(hub) == {"handshake_slots": 1}
        assert "too many handshakes" in caplog.text
        for half in halves[1:]:
            half.upgrade()
        assert waiting(hub) == 0
        for half in halves[1:]:
            half.leave()


def test_slow_bodies_are_half_open_connections_too() -> None:
    """A message that never ends holds a place as long as nobody needs it."""
    with (
        running_hub(max_handshakes=10, handshake_timeout=600) as hub,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(30):
            slow = stack.enter_context(RawClient.open(port=hub.port))
            slow.sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
        assert post(hub, "/") == 200
        RawClient.connect(port=hub.port).leave()


def test_clients_that_all_come_at_once_are_not_cut_off() -> None:
    """After a restart, say: what the hub has not got to yet is not idle, and all of them join."""
    with running_hub(max_handshakes=10) as hub, contextlib.ExitStack() as stack:
        clients = []
        for _ in range(300):
            client = stack.enter_context(RawClient.open(port=hub.port, timeout=30))
            client.sock.sendall(upgrade_request())
            clients.append(client)
        for client in clients:
            while b"\r\n\r\n" not in client.buffer:
                client.fill()
            assert client.buffer.startswith(b"HTTP/1.1 101 ")
        assert refused(hub) == {}


def test_who_does_not_take_its_answer_is_half_open_too() -> None:
    """It asks for the page again and again, and reads none of it."""
    with (
        running_hub(max_handshakes=5, handshake_timeout=600) as hub,
        contextlib.ExitStack() as stack,
    ):
        ask = b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n"
        for _ in range(10):
            deaf = stack.enter_context(RawClient.open(port=hub.port, rcvbuf=4096, timeout=0.2))
            with pytest.raises(TimeoutError):
                while True:
                    deaf.sock.sendall(ask * 100)
        RawClient.connect(port=hub.port).leave()


def test_clients_hold_no_handshake_place() -> None:
    """However many have joined."""
    with running_hub(max_handshakes=1) as hub, joined(hub, 5, []) as clients:
        for client in clients:
            client.sync()
        assert refused(hub) == {}


# -- Rooms -------------------------------------------------------------------------------------


def test_rooms_in_total(caplog: pytest.LogCaptureFixture) -> None:
    """As many as there may be; one more is refused if none is empty."""
    with (
        caplog.at_level(logging.INFO),
        running_hub(max_rooms=2) as hub,
        RawClient.connect(port=hub.port, path="/a"),
        RawClient.connect(port=hub.port, path="/b") as b,
    ):
        assert refused(hub) == {}
        assert status_of_join(hub, "/c") == 503
        assert post(hub, "/c") == 503
        assert refused(hub) == {"max_rooms": 2}
        assert "refused: there are 2 rooms, all in use" in caplog.text
        b.leave()
        assert wait_until(lambda: hub.rooms() == ["/a"])
        assert post(hub, "/c") == 200


def test_rooms_without_end_cost_only_who_makes_them(caplog: pytest.LogCaptureFixture) -> None:
    """Its own empty rooms go, the least recently opened first; others' keep their messages."""
    settings = {"max_rooms": 20, "max_rooms_per_address": 5, "trust_proxy": ["127.0.0.1"]}
    with caplog.at_level(logging.INFO), running_hub(**settings) as hub:
        hub.broadcast("of the program", "/program")
        for number in range(3):
            assert post(hub, f"/honest-{number}", b"kept", "198.51.100.7") == 200
        for number in range(100):
            # From all over its network.
            assert post(hub, f"/junk-{number}", b"x", f"2001:db8:0:1::{number:x}") == 200
            # A room is in use until its message was offered, which takes a busy hub a moment.
            assert sleeps(fanout_of(hub))
        assert hub.stats()["rooms"] == 1 + 3 + 5
        assert [hub.history(f"/junk-{n}") != [] for n in range(94, 100)] == [False] + [True] * 5
        assert hub.history("/program")[0].data == "of the program"
        for number in range(3):
            assert hub.history(f"/honest-{number}")[0].data == "kept"
        assert refused(hub) == {}
        # With somebody in each of them there is nothing that could go.
        with contextlib.ExitStack() as stack:
            for number in range(95, 100):
                stack.enter_context(RawClient.connect(port=hub.port, path=f"/junk-{number}"))
            assert post(hub, "/more", b"x", "2001:db8:0:1::1") == 503
            assert status_of_join(hub, "/more", of("2001:db8:0:1::2")) == 503
            assert refused(hub) == {"rooms_per_address": 2}
            assert "there are 5 rooms made from this address, all in use" in caplog.text
            assert post(hub, "/junk-99", b"x", "2001:db8:0:1::1") == 200
            assert post(hub, "/honest-more", b"x", "198.51.100.7") == 200


# -- Messages ----------------------------------------------------------------------------------


def test_message_size(caplog: pytest.LogCaptureFixture) -> None:
    """To the last byte, in one frame, in fragments and over HTTP; one byte more is too big."""
    with caplog.at_level(logging.INFO), running_hub(max_message_bytes=1000) as hub:
        with RawClient.connect(port=hub.port) as listener:
            assert post(hub, "/", bytes(1000)) == 200
            with RawClient.connect(port=hub.port) as client:
                client.send(bytes(1000))
                client.send_frame(BINARY, bytes(600), fin=False)
                client.send_frame(CONTINUATION, bytes(400))
                client.leave()
            for _ in range(3):
                assert listener.recv_message() == bytes(1000)
            assert refused(hub) == {}
            assert post(hub, "/", bytes(1001)) == 413
            for frames in (
                client_frame(BINARY, bytes(1001)),
                client_frame(BINARY, bytes(600), fin=False)
                + client_frame(CONTINUATION, bytes(401)),
            ):
                with RawClient.connect(port=hub.port) as client:
                    client.sock.sendall(frames)
                    assert client.recv_close() == (1009, "message has more than 1000 bytes")
            assert refused(hub) == {"too_big": 3}
            assert "broke the protocol: 1009 message has more than 1000 bytes" in caplog.text
            listener.sync()


def test_fragments_of_a_message(caplog: pytest.LogCaptureFixture) -> None:
    """As many as there may be, empty ones included; one more ends the connection."""
    with (
        caplog.at_level(logging.INFO),
        running_hub(max_fragments=50) as hub,
        RawClient.connect(port=hub.port) as listener,
        RawClient.connect(port=hub.port) as client,
    ):
        piece = client_frame(CONTINUATION, b"", fin=False)
        start = client_frame(TEXT, b"a", fin=False)
        client.sock.sendall(start + piece * 48 + client_frame(CONTINUATION, b"b"))
        assert listener.recv_message() == "ab"
        assert refused(hub) == {}
        client.sock.sendall(start + piece * 49 + client_frame(CONTINUATION, b"b"))
        assert client.recv_close() == (1009, "message has more than 50 fragments")
        assert refused(hub) == {"max_fragments": 1}
        assert "1009 message has more than 50 fragments" in caplog.text
        listener.sync()


class Clock:
    """Time that passes when the test says so."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Buckets do not fill again while a test counts."""
    found = Clock()
    rates = functools.partial(SenderRates, clock=lambda: found.now)
    monkeypatch.setattr("broadcast_server.hub.core.SenderRates", rates)
    return found


def test_messages_in_a_second(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    """N pass at once; with one more the client waits, and nothing is lost."""
    with (
        caplog.at_level(logging.INFO),
        running_hub(max_rate=40) as hub,
        RawClient.connect(port=hub.port) as listener,
        RawClient.connect(port=hub.port) as client,
    ):
        for number in range(40):
            client.send(str(number))
        client.sync()
        assert refused(hub) == {} and "slowed down" not in caplog.text
        client.send("40")
        assert wait_until(lambda: refused(hub) == {"rate": 1})
        client.send("41")
        clock.now += 3600
        for number in range(42):
            assert listener.recv_message() == str(number)
        assert caplog.text.count("is slowed down: too many messages in a second") == 1


@pytest.mark.parametrize(
    "flood",
    [
        client_frame(PING, b"?"),
        client_frame(PONG, b"!"),
        client_frame(CONTINUATION, b"", fin=False),
        client_frame(CONTINUATION, bytes(125), fin=False),
    ],
    ids=["pings", "pongs", "empty fragments", "small fragments"],
)
def test_control_frames_in_a_second(
    flood: bytes, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """N pass; with one more the client waits as for messages. Messages are not counted here."""
    with (
        caplog.at_level(logging.INFO),
        running_hub(max_control_rate=40) as hub,
        RawClient.connect(port=hub.port) as listener,
        RawClient.connect(port=hub.port) as client,
    ):
        fragments = flood[0] == CONTINUATION
        if fragments:
            client.send_frame(BINARY, bytes(200), fin=False)
        for _ in range(100 if not fragments else 0):
            client.send("message")
            assert listener.recv_message() == "message"
        client.sock.sendall(flood * 40)
        if fragments:
            client.send_frame(CONTINUATION, b"end")
            data = listener.recv_message()
            assert isinstance(data, bytes) and data.endswith(b"end")
        else:
            client.send("after")
            assert listener.recv_message() == "after"
        assert refused(hub) == {} and "slowed down" not in caplog.text
        if fragments:
            client.send_frame(BINARY, bytes(200), fin=False)
        client.sock.sendall(flood)
        client.send_frame(CONTINUATION if fragments else BINARY, b"end")
        assert wait_until(lambda: refused(hub) == {"control_rate": 1})
        clock.now += 3600
        data = listener.recv_message()
        assert isinstance(data, bytes) and data.endswith(b"end")
        assert "is slowed down: too many control frames and small fragments" in caplog.text


@pytest.mark.parametrize("kind", ["messages", "pings"])
def test_rates_add_up_by_address(kind: str, clock: Clock) -> None:
    """However many connections it has: N pass in all, with one more its sender waits, and nothing
    is lost. Another address has its own."""
    settings = {"max_rate": 40, "max_control_rate": 40, "trust_proxy": ["127.0.0.1"]}
    with running_hub(**settings) as hub, contextlib.ExitStack() as stack:
        listener = stack.enter_context(joined(hub, 1, of("192.0.2.9")))[0]
        five = stack.enter_context(joined(hub, 5, of("192.0.2.1")))
        frame = client_frame(PING) if kind == "pings" else client_frame(TEXT, "x")
        for client in five:
            client.sock.sendall(frame * 8)
        reason, arrived = "rate" if kind == "messages" else "control_rate", 0
        if kind == "messages":
            assert [listener.recv_message() for _ in range(40)] == ["x"] * 40
        else:
            for client in five:
                assert [client.recv_frame()[1] for _ in range(8)] == [PONG] * 8
        assert refused(hub) == {}
        with RawClient.connect(port=hub.port, headers=of("192.0.2.1")) as sixth:
            sixth.sock.sendall(frame + client_frame(TEXT, "after"))
            assert wait_until(lambda: refused(hub).get(reason, 0) == 1)
            with RawClient.connect(port=hub.port, headers=of("192.0.2.2")) as other:
                other.sock.sendall(frame * 39 + client_frame(TEXT, "of another"))
                # Messages that came in one piece are published before they are paid for.
                while (seen := listener.recv_message()) != "of another":
                    arrived += seen == "after"
                assert refused(hub) == {reason: 1}
            clock.now += 3600
            while not arrived:
                arrived += listener.recv_message() == "after"


def test_sender_is_whom_the_token_names(clock: Clock) -> None:
    """Wherever they are; others of the address are not held back."""

    def authorize(request: AccessRequest) -> Grant:
        return Grant(name=request.token)

    with running_hub(max_rate=40, authorize=authorize) as hub, contextlib.ExitStack() as stack:

        def join(name: str) -> RawClient:
            return stack.enter_context(
                RawClient.connect(port=hub.port, path=f"/?access_token={name}")
            )

        one, two, other = join("ann"), join("ann"), join("bob")
        one.sock.sendall(client_frame(TEXT, "x") * 20)
        two.sock.sendall(client_frame(TEXT, "x") * 20)
        other.sock.sendall(client_frame(TEXT, "x") * 40)
        assert wait_until(lambda: hub.stats()["messages"] == 80)
        assert refused(hub) == {}
        two.send("x")
        assert wait_until(lambda: refused(hub) == {"rate": 1})
        clock.now += 3600


def test_clients_of_a_proxy_that_does_not_tell_pay_for_themselves(clock: Clock) -> None:
    """They would pay for each other."""
    with (
        running_hub(max_rate=40, trust_proxy=["127.0.0.1"]) as hub,
        joined(hub, 3, []) as clients,
    ):
        for client in clients:
            client.sock.sendall(client_frame(TEXT, "x") * 40)
        assert wait_until(lambda: hub.stats()["messages"] == 120)
        assert refused(hub) == {}
        clients[0].send("x")
        assert wait_until(lambda: refused(hub) == {"rate": 1})
        clock.now += 3600


@pytest.mark.parametrize(
    ("ask", "end"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"ok\n"),
        (b"GET /r HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n", b" 401 "),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b" 421 "),
        (upgrade_request("/r?since=9999999999999999-1&access_token=w"), b" 410 "),
    ],
    ids=["answered", "no token", "strange host", "refused join"],
)
def test_requests_pay_from_the_same_bucket(ask: bytes, end: bytes, clock: Clock) -> None:
    """Each costs as five messages; one that exceeds the rate waits, and is answered then."""
    settings = {"max_rate": 10_000, "token": "w"}
    with running_hub(**settings) as hub, RawClient.open(port=hub.port) as client:
        # All but the last ones of a second.
        core_of(hub).rates.take("127.0.0.1", 9950)
        client.sock.sendall(ask * 10)
        while client.buffer.count(end) < 10:
            client.fill()
        assert "rate" not in refused(hub)
        client.buffer = b""
        client.sock.sendall(ask)
        assert wait_until(lambda: refused(hub).get("rate") == 1)
        (http,) = watched_of(server_of(hub)).values()
        assert wait_until(lambda: http.awaits == RESTING)
        clock.now += 3600
        while end not in client.buffer:
            client.fill()


def test_answer_costs_what_it_has(clock: Clock) -> None:
    """A list of many members takes longer to make than it takes to ask for it: whoever has had one
    pays before the next."""
    ask = b"GET /-/rooms HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with (
        running_hub(max_rate=10_000) as hub,
        RawClient.open(port=hub.port) as client,
        contextlib.ExitStack() as stack,
    ):
        for number in range(40):
            path = f"/r?name={str(number) * 30}"
            stack.enter_context(RawClient.connect("127.0.0.1", hub.port, path))
        # Enough for two requests, not for an answer of some KiB as well.
        core_of(hub).rates.take("127.0.0.1", 9989)
        for number in range(2):
            client.sock.sendall(ask)
            if number:
                assert wait_until(lambda: refused(hub).get("rate") == 1)
                clock.now += 3600
            while b"\r\n\r\n" not in client.buffer or not client.buffer.endswith(b"]}\n"):
                client.fill()
            assert len(client.buffer) > 3000
            client.buffer = b""
            assert refused(hub).get("rate", 0) == number


def test_flood_of_pings_does_not_keep_others_waiting() -> None:
    """Back-pressure: the hub stops reading, TCP stops the sender, and others go on."""
    with (
        running_hub(max_control_rate=100) as hub,
        RawClient.connect(port=hub.port) as one,
        RawClient.connect(port=hub.port) as other,
        RawClient.connect(port=hub.port) as flooder,
    ):
        flooder.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while True:
                flooder.sock.sendall(client_frame(PING) * 10_000)
        for number in range(50):
            one.send(str(number))
            assert other.recv_message() == str(number)
        assert refused(hub)["control_rate"] >= 1


# -- HTTP --------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [True, False])
def test_head_of_a_request(plain: bool, caplog: pytest.LogCaptureFixture) -> None:
    """To the last byte, with the reader of usual upgrades and with h11; one more is 431."""

    def head(size: int) -> bytes:
        request = upgrade_request(headers=["X: "] if plain else ["Content-Length: 0", "X: "])
        return request[:-4] + b"x" * (size - len(request)) + b"\r\n\r\n"

    with caplog.at_level(logging.INFO), running_hub(max_header_bytes=1000) as hub:
        with RawClient.open(port=hub.port) as client:
            client.sock.sendall(head(1000))
            while b"\r\n\r\n" not in client.buffer:
                client.fill()
            assert client.buffer.startswith(b"HTTP/1.1 101 ")
        assert refused(hub) == {}
        assert http_request(hub.port, head(1001)).startswith(b"HTTP/1.1 431 ")
        assert refused(hub) == {"max_header_bytes": 1}
        assert wait_until(lambda: "refused: " in caplog.text)


def test_body_of_a_request() -> None:
    """To the last byte, with a length and in chunks; one more is 413."""

    def chunked(size: int) -> int:
        head = (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, bytes(size))
        return int(http_request(hub.port, head + body).split(b" ")[1])

    with running_hub(max_message_bytes=5000) as hub:
        assert (post(hub, "/", bytes(5000)), chunked(5000)) == (200, 200)
        assert refused(hub) == {}
        assert (post(hub, "/", bytes(5001)), chunked(5001)) == (413, 413)
        assert refused(hub) == {"too_big": 2}


def test_messages_of_one_address_over_http() -> None:
    """By the client that the proxy names, not by the proxy."""
    settings = {"max_rate": 0.001, "trust_proxy": ["127.0.0.1"]}
    with running_hub(**settings) as hub:
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
            assert post(hub, "/", b"x", address) == 200
        assert post(hub, "/", b"x", "192.0.2.1") == 429
        assert post(hub, "/", b"x", "2001:db8::2") == 429
        assert post(hub, "/", b"x", "2001:db8:0:1::1") == 200
        assert refused(hub) == {"rate": 2}


# -- Memory ------------------------------------------------------------------------------------


def test_memory_of_all_logs() -> None:
    """To the last byte of the total nothing goes; then empty rooms, least recently used first."""
    # A message of 744 bytes costs 4 of header and 256 for its entry: 1,004.
    cost = 744 + 4 + 256
    settings = {
        "max_message_bytes": 1000,
        "room_log_bytes": 5 * cost,
        "total_log_bytes": 10 * cost,
        "max_rooms": 100,
    }

    def messages(hub: BroadcastHub) -> dict[str, int]:
        names = [f"/{name}" for name in "abcdef"]
        return {name: len(hub.history(name)) for name in names if hub.history(name)}

    with running_hub(**settings) as hub, RawClient.connect(port=hub.port, path="/a"):
        for room in ("/b", "/c", "/d"):
            hub.broadcast(bytes(744), room)
            hub.broadcast(bytes(744), room)
        for _ in range(4):
            hub.broadcast(bytes(744), "/a")
        assert wait_until(lambda: hub.stats()["log_bytes"] == 10 * cost)
        assert messages(hub) == {"/a": 4, "/b": 2, "/c": 2, "/d": 2}
        # /b is used again: then /c is the one that was used the longest ago.
        hub.history("/c")  # looking is not using
        hub.broadcast(bytes(744), "/b")
        assert wait_until(lambda: hub.stats()["log_bytes"] == 9 * cost)
        assert messages(hub) == {"/a": 4, "/b": 3, "/d": 2}
        hub.broadcast(bytes(744), "/e")
        assert wait_until(lambda: hub.stats()["log_bytes"] == 10 * cost)
        assert messages(hub) == {"/a": 4, "/b": 3, "/d": 2, "/e": 1}
        hub.broadcast(bytes(744), "/f")
        assert wait_until(lambda: hub.stats()["log_bytes"] == 9 * cost)
        assert messages(hub) == {"/a": 4, "/b": 3, "/e": 1, "/f": 1}
        # A room with a member is not dropped, whatever comes: it lets its oldest messages go.
        for room in ("/b", "/c", "/d", "/e", "/f"):
            for _ in range(5):
                hub.broadcast(bytes(744), room)
        assert wait_until(lambda: hub.stats()["log_bytes"] <= 10 * cost)
        assert messages(hub)["/a"] >= 1 and len(hub.members("/a")) == 1


# -- The page ----------------------------------------------------------------------------------


def test_page_of_limits_has_the_defaults_and_the_reasons() -> None:
    """What docs/reference/limits.md says is what the options and the metrics say."""
    text = (ROOT / "docs/reference/limits.md").read_text(encoding="utf-8")
    options = {o.name: o for group in OPTIONS["start"].values() for o in group}
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ") and line.split("|")[2].startswith(" `--")
    ]
    units = {"": 1, "s": 1, "KiB": 1024, "MiB": 1024 * 1024}
    for _, option, default, *_ in rows:
        found = re.match(r"`--([a-z-]+)`", option)
        assert found, option
        number, _, unit = default.partition(" ")
        assert int(number.replace(",", "")) * units[unit] == options[found[1]].default, option
    named = {name for row in rows for name in re.findall(r"`--([a-z-]+)`", row[1])}
    limits = {o.name for o in OPTIONS["start"]["limits"]}
    assert limits <= named
    reasons = {row[4].strip("`") for row in rows} - {""}
    assert reasons <= set(metrics.REFUSALS)
