"""How a hub drains: ready no more, closed to newcomers, goodbyes spread, nothing accepted lost."""

from __future__ import annotations

import contextlib
import http.client
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from broadcast_server import Message, MessagesLost
from broadcast_server.errors import HubStopped
from broadcast_server.hub import run
from broadcast_server.hub.backplane.memory import MemoryBackplane
from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.rooms import encodings
from broadcast_server.hub.rooms.entries import Draft, encode

from ..support import CLOSE, HandshakeRefused, RawClient, lasting_port, running_hub, wait_until
from ..support.beside import during, in_thread
from ..support.event_stream import Stream
from ..support.hubs import GRACE_SECONDS
from ..support.inside import (
    core_of,
    fanout_of,
    hurried_of,
    is_draining,
    mailbox_of,
    replace_hurried,
    run_of,
    stopped_of,
)
from ..support.json_peer import Peer
from ..support.raw_client import is_listening, many_clients

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub

SECONDS = 10


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings with which goodbyes to two clients and more are days away."""
    monkeypatch.setattr(run, "HERD", 1)
    monkeypatch.setattr(run, "RETURNS_PER_SECOND", 1e-6)
    return {"drain_seconds": 1_000_000}


def status_of(port: int, method: str, path: str) -> tuple[int, str | None]:
    """Return how a request is answered: the status and Retry-After."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request(method, path, b"x" if method == "POST" else None)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers["Retry-After"]
    finally:
        connection.close()


def close_all(clients: list[RawClient], code: int) -> None:
    """Check that each client gets this Close next, answer it, and see the end of the stream."""
    for client in clients:
        assert client.recv_close()[0] == code
        client.send_close(code)
        client.recv_eof()
        client.close()


# -- The steps ---------------------------------------------------------------------------------


def test_readiness_ends_first_and_clients_are_still_let_in() -> None:
    """A load balancer that looks every few seconds still sends somebody for a while."""
    with running_hub(drain_delay=1_000_000) as hub:
        assert status_of(hub.port, "GET", "/healthz") == (200, None)
        with during(hub.drain):
            assert wait_until(lambda: status_of(hub.port, "GET", "/healthz") == (503, "5"))
            assert status_of(hub.port, "POST", "/") == (200, None)
            with RawClient.connect(port=hub.port) as client:
                client.sync()
                with during(hub.stop):
                    close_all([client], 1001)


def test_members_go_on_while_newcomers_are_refused(patient: dict[str, Any]) -> None:
    """Who has not been told goodbye yet is served as ever; whoever comes is told when to retry."""
    with running_hub(**patient) as hub, many_clients(hub.port, 8) as clients:
        a, b = clients[0], clients[4]  # of one room
        with during(hub.drain):
            assert wait_until(lambda: is_draining(hub))
            for number in range(20):
                a.send(f"from a {number}")
                assert b.recv_message() == f"from a {number}"
            assert hub.broadcast("from the program", room="/0").id
            assert a.recv_message() == b.recv_message() == "from the program"
            for method, path in (("GET", "/healthz"), ("POST", "/0"), ("GET", "/-/rooms")):
                assert status_of(hub.port, method, path) == (503, "5")
            with pytest.raises(HandshakeRefused) as refused:
                RawClient.connect(port=hub.port)
            assert refused.value.status == 503 and "Retry-After: 5" in refused.value.head
            a.sync()
            with during(hub.stop):
                close_all(clients, 1001)


def test_publisher_from_outside_is_refused_before_the_first_goodbye() -> None:
    """Members and the hub's own program are taken until the end."""

    class Log:
        path = "/"

        def __init__(self) -> None:
            self.entries: list[Draft] = []

        def append(self, drafts: Any, ms: int, first_seq: int) -> bool:
            self.entries.extend(drafts)
            return True

        def release(self, cost: int) -> None:
            pass

    backplane, log, draft = MemoryBackplane(), Log(), Draft(0, encode("x"))
    backplane.submit(log, [draft], lambda ids: None, True)
    backplane.close_outside()
    with pytest.raises(HubStopped):
        backplane.submit(log, [draft], lambda ids: None, True)
    backplane.submit(log, [draft], lambda ids: None)
    backplane.close()
    with pytest.raises(HubStopped):
        backplane.submit(log, [draft], lambda ids: None)
    assert log.entries == [draft, draft]


def test_message_of_a_publisher_that_is_late_reaches_nobody(
    patient: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A publisher whose request was in hand when the goodbyes began gets 503."""
    entered, gate = threading.Event(), threading.Event()

    def hold(message: Message) -> Message:
        entered.set()
        gate.wait(SECONDS)
        return message

    caplog.set_level("INFO", "broadcast_server")
    with running_hub(filter=hold, **patient) as hub, many_clients(hub.port, 2) as clients:
        posting = in_thread(status_of, hub.port, "POST", "/0")
        assert entered.wait(SECONDS)
        with during(hub.drain):
            try:
                assert wait_until(lambda: "draining: 2 clients" in caplog.text)
            finally:
                gate.set()
            answer = posting.result(SECONDS)
            with during(hub.stop):
                first = [client.recv_frame()[1] for client in clients]
                for client in clients:
                    client.send_close(1001)
                    client.close()
    assert (answer, first) == ((503, "5"), [CLOSE, CLOSE])


@pytest.mark.parametrize(
    ("clients", "most", "seconds"),
    [(0, 5.0, 0.0), (100, 5.0, 0.0), (101, 5.0, 0.505), (1000, 5.0, 5.0), (10_000, 5.0, 5.0)],
)
def test_spread_is_as_long_as_it_must_be(clients: int, most: float, seconds: float) -> None:
    """Up to 100 clients are no herd; beyond it 200 a second, or as many as the limit forces."""
    assert run.spread_seconds(clients, most) == pytest.approx(seconds)
    assert run.spread_seconds(clients, 0.0) == 0.0


class Clock:
    """A clock that goes on only while somebody waits for it; in the place of ``time`` in hub/run.py
    and of the event that ends a drain's waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.told: list[int] = []  # how many had been told at each wait
        self.count: Callable[[], int] = lambda: 0

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.told.append(self.count())
        return False


def test_goodbyes_are_spread_over_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No moment has more than a few of them, and the last is said within ``drain_seconds``."""
    with running_hub(drain_seconds=0.6) as hub, many_clients(hub.port, 150) as clients:
        assert wait_until(lambda: hub.stats()["clients"] == 150)
        running = run_of(hub)
        clock = Clock()
        connections = running.server.connections()
        clock.count = lambda: sum(connection.closing for connection in connections)
        with monkeypatch.context() as patch:
            patch.setattr(run, "time", clock)
            replace_hurried(patch, running, clock)
            running.drain(0.0, 0.6, False)
        assert clock.now <= 1000.6 and clock.count() == 150
        at_once = [b - a for a, b in zip(clock.told, clock.told[1:], strict=False)]
        assert len(at_once) >= 15 and max(at_once) <= 30, at_once
        with during(hub.stop):
            close_all(clients, 1001)


def test_goodbyes_come_in_an_order_other_than_that_of_joining(
    patient: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that have joined first are not the first to go: each has its moment at random."""
    with running_hub(**patient) as hub, many_clients(hub.port, 20) as clients:
        running = run_of(hub)
        order: list[int] = []
        say_goodbye = running.core.say_goodbye

        def note(connection: Connection) -> None:
            order.append(connection.number)
            say_goodbye(connection)

        clock = Clock()
        with monkeypatch.context() as patch:
            patch.setattr(run, "time", clock)
            replace_hurried(patch, running, clock)
            patch.setattr(running.core, "say_goodbye", note)
            running.drain(0.0, 1.0, False)
        joined = sorted(order)
        assert len(joined) == 20 and order != joined
        with during(hub.stop):
            close_all(clients, 1001)


def test_few_clients_are_told_at_once() -> None:
    """All of them get the very same messages, and nobody waits for ``drain_seconds``."""
    with running_hub(drain_seconds=1_000_000) as hub, many_clients(hub.port, 20) as clients:
        for path in range(4):
            hub.broadcast("last", room=f"/{path}")
        with during(hub.drain):
            for client in clients:
                assert client.recv_message() == "last"
            close_all(clients, 1001)


def test_drain_ends_when_all_have_left_by_themselves(patient: dict[str, Any]) -> None:
    """There is nobody to wait for."""
    with running_hub(**patient) as hub, many_clients(hub.port, 8) as clients:
        with during(hub.drain):
            assert wait_until(lambda: is_draining(hub))
            for client in clients:
                client.leave()
        assert stopped_of(hub).is_set()


# -- A restart ---------------------------------------------------------------------------------


def test_restart_tells_from_where_to_go_on() -> None:
    """Close 1012, and the id of the last message that went out before it."""
    with running_hub() as hub:
        with RawClient.connect(port=hub.port) as client, Peer(hub, "/empty") as other:
            ids = [hub.broadcast(str(number)).id for number in range(3)]
            newest = other.welcome["newest"]
            with during(hub.drain, restart=True):
                assert [client.recv_message() for _ in ids] == ["0", "1", "2"]
                assert client.recv_close() == (1012, f"since={ids[-1]}")
                # Where nothing was ever said: an id before all that is said later.
                assert other.raw.recv_close() == (1012, f"since={newest}")
                client.close()
                other.raw.close()


def test_restart_that_is_hurried_is_still_a_restart(patient: dict[str, Any]) -> None:
    """Those who are left are told the same as those who went before."""
    with running_hub(**patient) as hub, many_clients(hub.port, 4) as clients:
        with during(hub.drain, restart=True):
            assert wait_until(lambda: is_draining(hub))
            with during(hub.stop):
                close_all(clients, 1012)


def test_publisher_in_the_middle_of_a_restart_is_told_so_too() -> None:
    """Its last message came too late, and its Close says the same as all others'."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as client:
        core = core_of(hub)
        client.sync()
        core.restarting = True
        core.backplane.close()
        client.send("too late")
        code, reason = client.recv_close()
        assert code == 1012 and re.fullmatch(r"since=\d+-\d+", reason)


def test_client_goes_on_at_the_next_hub() -> None:
    """``BroadcastClient`` comes back after 1012, and is told that the new hub kept nothing."""
    from broadcast_server import BroadcastClient, BroadcastHub

    port = lasting_port()
    hub = BroadcastHub(port=port).start()
    with BroadcastClient(f"ws://127.0.0.1:{port}/r") as client:
        hub.broadcast("before", room="/r")
        assert client.recv(timeout=SECONDS).data == "before"
        hub.drain(restart=True)
        with running_hub(port=port) as next_hub:
            assert wait_until(lambda: len(next_hub.members("/r")) == 1, SECONDS)
            next_hub.broadcast("after", room="/r")
            with pytest.raises(MessagesLost, match="restarted"):
                client.recv(timeout=SECONDS)
            assert client.recv(timeout=SECONDS).data == "after"


@pytest.mark.parametrize("restart", [False, True])
def test_stream_ends_with_a_time_to_come_back(hub: BroadcastHub, restart: bool) -> None:
    """A browser's EventSource waits for a time of its own, so that not all come at once."""
    with Stream(hub, "/r") as stream:
        message = hub.broadcast("x", room="/r")
        assert f"id: {message.id}" in stream.event()
        with during(hub.drain, restart=restart):
            found = re.fullmatch(r"retry: (\d+)", stream.event())
            stream.raw.close()
        assert found
        least, most = encodings.RETRY_MS
        assert least <= int(found[1]) <= most


# -- Bounded, and together with others ---------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.0, 0.5])
def test_drain_is_bounded_with_clients_that_read_nothing(
    timeout: float, patient: dict[str, Any]
) -> None:
    """``drain(timeout)`` returns within the time-out and one second, however long its parts are."""
    with running_hub(room_log_bytes=64 << 20, drain_delay=1000, **patient) as hub:
        with RawClient.connect(port=hub.port, rcvbuf=4096), RawClient.connect(port=hub.port):
            for _ in range(400):
                hub.broadcast(bytes(50_000))
            began = time.monotonic()
            hub.drain(timeout)
            assert time.monotonic() - began <= timeout + GRACE_SECONDS
            assert stopped_of(hub).is_set()


def test_drain_is_bounded_by_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delay, spread and ``stop_timeout`` together; a callback that hangs does not extend it."""
    monkeypatch.setattr(run, "HERD", 0)
    monkeypatch.setattr(run, "RETURNS_PER_SECOND", 1e-6)
    release = threading.Event()
    times = {"drain_delay": 0.1, "drain_seconds": 0.2, "stop_timeout": 0.3}
    with running_hub(on_message=lambda message: release.wait(20), **times) as hub:
        with RawClient.connect(port=hub.port) as client:
            client.send("hang")
            assert wait_until(lambda: hub.stats()["messages"] == 1)
            began = time.monotonic()
            hub.drain()
            took = time.monotonic() - began
            release.set()
    assert took <= 0.6 + GRACE_SECONDS


@pytest.mark.parametrize("callback", ["on_message", "on_join", "on_leave"])
def test_drain_from_a_callback(callback: str, patient: dict[str, Any]) -> None:
    """It tells its own client first, since nobody reads what that one says; then the others."""
    drained = threading.Event()
    hubs: list[BroadcastHub] = []

    def drain(*arguments: Any) -> None:
        if hubs:
            hubs.pop().drain()
            drained.set()

    with running_hub(stop_timeout=1, **{callback: drain}, **patient) as hub:
        with many_clients(hub.port, 8) as clients:
            for client in clients:
                client.sync()  # its on_join has been called
            hubs.append(hub)
            with contextlib.ExitStack() as stack:
                own = clients.pop()
                if callback == "on_join":
                    own.leave()
                    own = stack.enter_context(RawClient.connect(port=hub.port))
                elif callback == "on_message":
                    own.send("drain")
                else:
                    own.leave()
                if callback == "on_message":
                    assert clients.pop(3).recv_message() == "drain"
                if callback != "on_leave":
                    assert own.recv_close()[0] == 1001
                    own.close()
                assert wait_until(lambda: is_draining(hub))
                assert not drained.is_set()
                hub.stop()
                assert drained.wait(SECONDS)
        assert wait_until(lambda: not is_listening(hub.port))


def test_callback_that_stops_hurries_a_drain(patient: dict[str, Any]) -> None:
    """It does not wait for the thread that drains, which waits for it."""
    hubs: list[BroadcastHub] = []
    with running_hub(on_message=lambda message: hubs[0].stop(), **patient) as hub:
        hubs.append(hub)
        with many_clients(hub.port, 4) as clients, during(hub.drain):
            assert wait_until(lambda: is_draining(hub))
            clients[0].send("stop")
            close_all(clients, 1001)


def test_two_drains_at_once(patient: dict[str, Any]) -> None:
    """The second one waits for the first, up to its own time-out, and changes nothing."""
    with running_hub(**patient) as hub, many_clients(hub.port, 4) as clients:
        with during(hub.drain), during(hub.drain):
            assert wait_until(lambda: is_draining(hub))
            hub.drain(0.0, restart=True)
            assert not stopped_of(hub).is_set()
            with during(hub.stop):
                close_all(clients, 1001)


def test_drain_of_a_hub_that_does_not_run() -> None:
    """Nothing happens, neither before the start nor after the end; and it can be started again."""
    from broadcast_server import BroadcastHub

    hub = BroadcastHub(port=0)
    hub.drain()
    for _ in range(2):
        with hub, RawClient.connect(port=hub.port) as client:
            assert status_of(hub.port, "GET", "/healthz") == (200, None)
            client.leave()
            hub.drain()
            hub.drain(0.1, restart=True)


def test_drain_during_a_stop_waits_for_it() -> None:
    """The stop goes on as it is: nobody gets another time to leave."""
    with running_hub(drain_seconds=1_000_000) as hub, many_clients(hub.port, 4) as clients:
        with during(hub.stop):
            assert wait_until(lambda: is_draining(hub))
            with during(hub.drain, restart=True):
                close_all(clients, 1001)


def test_interrupted_drain_ends_everything_at_once(patient: dict[str, Any]) -> None:
    """Ctrl-C in a program that drains on its main thread."""
    with running_hub(stop_timeout=60, **patient) as hub, many_clients(hub.port, 4):

        def interrupt(seconds: float) -> bool:
            if seconds:
                raise KeyboardInterrupt
            return False

        hurried_of(run_of(hub)).wait = interrupt  # type: ignore[method-assign]
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            hub.drain()
        assert time.monotonic() - began <= GRACE_SECONDS
        assert stopped_of(hub).is_set()


def test_drain_does_not_wait_for_a_fan_out_that_has_failed(
    patient: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can be told anything any more."""

    def fail(connection: Any) -> None:
        raise RuntimeError("on purpose")

    with running_hub(**patient) as hub, many_clients(hub.port, 4):
        with during(hub.drain):
            assert wait_until(lambda: is_draining(hub))
            nobody: Any = None
            mailbox_of(fanout_of(hub)).post(fail, nobody)
        assert stopped_of(hub).is_set()
    assert "the fan-out has failed" in caplog.text


# -- Reading files anew ------------------------------------------------------------------------


def test_reload_calls_all_and_logs_what_fails(
    hub: BroadcastHub, caplog: pytest.LogCaptureFixture
) -> None:
    """One failure keeps the others from nothing, and nobody from being served."""
    caplog.set_level("INFO", "broadcast_server")
    read: list[str] = []

    def reload_tokens() -> None:
        read.append("tokens")

    def _reload_tls_certificate() -> None:
        raise OSError("no such file")

    class KeyRing:
        def reload(self) -> None:
            read.append("keys")

    with RawClient.connect(port=hub.port, path="/?echo=1") as client:
        assert hub.reload()
        core_of(hub).reloads += [_reload_tls_certificate, reload_tokens, KeyRing().reload]
        assert not hub.reload()
        assert read == ["tokens", "keys"]
        client.send("still here")
        assert client.recv_message() == "still here"
        client.leave()
    lines = [r.getMessage() for r in caplog.records if "reload" in r.getMessage()]
    assert lines == [
        "reloaded nothing: there are no files",
        "cannot reload tls certificate, the old stays in use: no such file",
        "reloaded tokens, key ring",
    ]


def test_reload_of_a_hub_that_does_not_run() -> None:
    """There is nothing that could be read."""
    from broadcast_server import BroadcastHub

    with pytest.raises(HubStopped):
        BroadcastHub(port=0).reload()
