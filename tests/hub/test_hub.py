"""``BroadcastHub``: what its constructor takes, its facts, and the limits of its methods."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import socket
import sys
import threading
from typing import Any

import pytest

from broadcast_server import (
    BroadcastHub,
    HubBusy,
    HubStopped,
    InvalidRoom,
    MessageTooBig,
    TlsError,
    UsageError,
)

from ..support import BINARY, RawClient, descriptors, running_hub, wait_until
from ..support.inside import core_of, fanout_of, replace_pass, reserved_bytes, sleeps
from ..support.raw_client import many_clients

# -- The constructor ---------------------------------------------------------------------------


@pytest.mark.parametrize("port", [-1, 65_536])
def test_port_that_cannot_be_is_a_usage_error(port: int) -> None:
    """Before anything is opened."""
    with pytest.raises(UsageError, match="port must be"):
        BroadcastHub(port=port)


@pytest.mark.parametrize("host", ["", "a\0b"])
def test_host_that_cannot_be_is_a_usage_error(host: str) -> None:
    """An empty one would be all interfaces for some, and nothing for others."""
    with pytest.raises(UsageError, match="host must be"):
        BroadcastHub(host)


@pytest.mark.parametrize(
    ("argument", "value"),
    [*(("port", port) for port in ("8765", 1.5, True, None)), ("host", None), ("host", 5)],
)
def test_port_or_host_of_a_wrong_type_is_a_type_error(argument: str, value: Any) -> None:
    """As for any argument."""
    with pytest.raises(TypeError, match=f"^{argument} must be "):
        BroadcastHub(**{argument: value})


def test_unknown_setting_is_a_type_error() -> None:
    """As for any function."""
    with pytest.raises(TypeError, match=r"^BroadcastHub\(\) .*max_client\b"):
        BroadcastHub(max_client=5)


def test_url_before_and_while_it_runs() -> None:
    """The port given, then the real one; an IPv6 address stands in brackets."""
    hub = BroadcastHub("::1", 0)
    assert hub.url == "ws://[::1]:0/"
    with hub:
        assert hub.port != 0
        assert hub.url == f"ws://[::1]:{hub.port}/"
        with RawClient.connect("::1", hub.port) as client:
            client.leave()
    assert hub.port == 0


def test_switch_interval_is_set_with_the_hub() -> None:
    """Only where it was asked for: it changes the whole process."""
    before = sys.getswitchinterval()
    try:
        with running_hub():
            assert sys.getswitchinterval() == before
        with running_hub(switch_interval=0.001):
            assert sys.getswitchinterval() == pytest.approx(0.001)
        with running_hub(switch_interval=0.00001) as hub:
            with many_clients(hub.port, 40):
                assert sys.getswitchinterval() == pytest.approx(0.0002, rel=0.25)
            assert wait_until(lambda: sys.getswitchinterval() == pytest.approx(0.00001))
    finally:
        sys.setswitchinterval(before)


# -- Messages ----------------------------------------------------------------------------------


def test_message_above_the_limit_is_refused_and_one_at_it_is_sent() -> None:
    """Counted in bytes, not in characters; nothing was sent."""
    with running_hub(max_message_bytes=1000) as hub, RawClient.connect(port=hub.port) as client:
        for data in ("\u00fc" * 501, b"x" * 1001):
            with pytest.raises(MessageTooBig, match="max_message_bytes"):
                hub.broadcast(data)
            with pytest.raises(MessageTooBig):
                hub.send("c1", data)
        hub.broadcast("\u00fc" * 500)
        assert client.recv_message() == "\u00fc" * 500


def test_room_that_cannot_be_is_refused(hub: BroadcastHub) -> None:
    """Nobody could ever hear it."""
    with pytest.raises(InvalidRoom):
        hub.broadcast("x", room="scores")
    assert hub.members("/nowhere") == []


def test_broadcast_gives_up_when_the_fan_out_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time-out, not before; when the fan-out goes on, so do publishers."""
    with running_hub(room_log_bytes=1 << 20, max_message_bytes=1 << 17) as hub:
        go_on = threading.Event()

        def stuck(room: Any) -> bool:
            go_on.wait(20)
            return one_pass(room)

        one_pass = replace_pass(monkeypatch, fanout_of(hub), stuck)
        try:
            with pytest.raises(HubBusy, match="behind"):
                while True:
                    hub.broadcast(bytes(1 << 17), timeout=0.1)
            accepted = hub.stats()["messages"]
        finally:
            go_on.set()
        hub.broadcast("x", timeout=10)
        assert hub.stats()["messages"] == accepted + 1


def test_broadcast_interrupted_before_acceptance_gives_its_place_back(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each Ctrl-C would leave a part of the ring reserved for ever."""
    core = core_of(hub)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(core.backplane, "submit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            hub.broadcast("never sent")
    room = core.rooms.find("/")
    assert room is not None and reserved_bytes(room) == 0
    assert hub.stats()["messages"] == 0


def test_broadcast_interrupted_after_acceptance_is_sent(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is used and not given back a second time, and nobody has to wait for the next."""
    fanout = fanout_of(hub)
    with RawClient.connect(port=hub.port) as client:
        client.sync()
        notify = fanout.notify

        def interrupt(room: Any) -> None:
            monkeypatch.setattr(fanout, "notify", notify)
            raise KeyboardInterrupt

        monkeypatch.setattr(fanout, "notify", interrupt)
        with pytest.raises(KeyboardInterrupt):
            hub.broadcast("sent")
        assert client.recv_message() == "sent"
    room = core_of(hub).rooms.find("/")
    assert room is not None and reserved_bytes(room) == 0


def test_send_gives_up_on_a_client_that_takes_nothing() -> None:
    """The others' messages are none of its business."""
    with running_hub(max_message_bytes=1 << 18, room_log_bytes=1 << 20) as hub:
        with RawClient.connect(port=hub.port, rcvbuf=4096) as client:
            (member,) = hub.members()
            count = 0
            with pytest.raises(HubBusy, match=f"{member.id} does not take"):
                while True:
                    assert hub.send(member.id, bytes([count % 256]) * (1 << 18), timeout=0.1)
                    count += 1
            waiting: list[bool] = []
            sending = threading.Thread(
                target=lambda: waiting.append(hub.send(member.id, b"last", timeout=20))
            )
            sending.start()
            for number in range(count):
                assert client.recv_frame() == (True, BINARY, bytes([number % 256]) * (1 << 18))
            assert client.recv_message() == b"last"
            sending.join(20)
            assert waiting == [True]


def test_send_and_disconnect_say_that_there_is_no_such_client(hub: BroadcastHub) -> None:
    """Never there, or gone: False, no error."""
    assert hub.send("c999", "x") is False
    assert hub.disconnect("c999") is False
    with RawClient.connect(port=hub.port) as client:
        (member,) = hub.members()
        client.leave()
    assert wait_until(lambda: not hub.members())
    assert hub.send(member.id, "x") is False
    assert hub.disconnect(member.id) is False


def test_disconnect_has_a_reason_that_no_echo_has(hub: BroadcastHub) -> None:
    """A client that closes with 1000 just now must not take it for the answer to its own."""
    with RawClient.connect(port=hub.port) as client:
        (member,) = hub.members()
        with pytest.raises(UsageError, match="close code"):
            hub.disconnect(member.id, 1006)
        assert hub.disconnect(member.id)
        assert hub.members() == []
        assert not hub.disconnect(member.id)
        assert client.recv_close() == (1000, "disconnected")
        client.send_close(1000)
        client.recv_eof()


def test_counters_are_exact(hub: BroadcastHub) -> None:
    """One encode for each message; sends and deliveries for each client that gets it."""
    with RawClient.connect(port=hub.port) as a, RawClient.connect(port=hub.port) as b:
        for client in (a, b):
            client.sync()
        # What was received is counted a moment later, but before the fan-out sleeps again.
        fanout = fanout_of(hub)
        assert sleeps(fanout)
        before = hub.stats()
        hub.broadcast("from the hub")
        for client in (a, b):
            assert client.recv_message() == "from the hub"
        a.send("from a")
        assert b.recv_message() == "from a"
        assert sleeps(fanout)
        after = hub.stats()
        changed = {key: after[key] - before[key] for key in after}
    assert changed == {
        "messages": 2,
        "encodes": 2,
        "joins": 0,
        "sends": 3,
        "deliveries": 3,
        "bytes_out": 2 * 14 + 8,
        "evictions": 0,
        "clients": 0,
        "rooms": 0,
        "log_bytes": 14 + 8 + 2 * 256,
    }
    assert (before["clients"], before["rooms"]) == (2, 1)


# -- Life --------------------------------------------------------------------------------------


def test_hub_runs_once_at_a_time_and_may_run_again() -> None:
    """The second time it begins empty."""
    with running_hub() as hub:
        hub.broadcast("old")
        with pytest.raises(UsageError, match="runs already"):
            hub.start()
    with hub, RawClient.connect(port=hub.port, path="/?history=5") as client:
        client.sync()
        assert hub.stats()["messages"] == 0


def test_address_that_is_taken_leaves_the_hub_as_it_was() -> None:
    """It can be started when the address is free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        hub = BroadcastHub(port=taken.getsockname()[1])
        with pytest.raises(OSError):
            hub.start()
        with pytest.raises(HubStopped):
            hub.stats()
    with hub:
        assert hub.stats()["clients"] == 0


@pytest.mark.parametrize("name", ["broadcast-fanout", "broadcast-accept"])
def test_start_without_a_thread_leaves_nothing_behind(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the system's; the hub does not run, and can be started when there is one."""
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    hub = BroadcastHub(port=0)
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            hub.start()
    assert descriptors() == before
    hub.stop()
    with hub, RawClient.connect(port=hub.port) as client:
        client.leave()


def test_start_without_a_descriptor_leaves_nothing_behind() -> None:
    """Whichever it is that is not to be had; and not only when the error is forgotten: a program
    may try again in its handler."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    hub = BroadcastHub(["127.0.0.1", "127.0.0.2"], port=0)
    before = descriptors()
    # Every number is free from here on.
    first = next(number for number in itertools.count() if number not in before)
    failures = 0
    while True:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (first + failures, hard))
            hub.start()
        except (OSError, TlsError) as error:  # the latter for the file of a certificate
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert os.strerror(errno.EMFILE) in str(error)
            assert descriptors() == before
            failures += 1
        else:
            break
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    hub.stop()
    # A selector and a pipe for the fan-out; two sockets, a selector and a pipe for the server.
    assert failures >= 8


class Lookup:
    """A name lookup that takes as long as a test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, *arguments: Any, **options: Any) -> Any:
        self.begun.release()
        assert self.go_on.wait(20)
        return self._real(*arguments, **options)


def test_stop_does_not_wait_for_a_slow_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to stop yet; the start goes on."""
    lookup = Lookup(monkeypatch)
    hub = BroadcastHub(port=0)
    starting = threading.Thread(target=hub.start)
    starting.start()
    try:
        assert lookup.begun.acquire(timeout=10)
        stopping = threading.Thread(target=hub.stop)
        stopping.start()
        stopping.join(5)
        assert not stopping.is_alive()
    finally:
        lookup.go_on.set()
        starting.join(10)
    assert hub.stats()["clients"] == 0
    hub.stop()


def test_two_starts_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is refused as it would be a moment later, and its socket is closed."""
    lookup = Lookup(monkeypatch)
    hub = BroadcastHub(port=0)
    outcomes: list[object] = []

    def start() -> None:
        try:
            outcomes.append(hub.start())
        except UsageError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert lookup.begun.acquire(timeout=10)
    lookup.go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(outcomes) == 2 and hub in outcomes and "the hub runs already" in outcomes
    hub.stop()
