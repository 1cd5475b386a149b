"""Faults of networks, peers, clocks and the machine, made with real sockets.

What others have: slow clients and bad neighbours are in ``test_delivery``, breaches of the protocol
in ``test_raw_protocol``, broken requests in ``test_handshake``, callbacks in ``test_shutdown``.
docs/topics/reliability.md has all of them in one table.
"""

from __future__ import annotations

import gc
import json
import os
import pathlib
import queue
import resource
import socket
import struct
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from ..support import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawClient,
    client_frame,
    http_request,
    resident_bytes,
    running_hub,
    stress_size,
    upgrade_request,
    wait_until,
)
from ..support.cables import Cable, link_or_proxy, proxy
from ..support.hub_process import hub_process
from ..support.inside import core_of, pause_seconds, replace_clock

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub, Member, Message

pytestmark = pytest.mark.slow

JSON = ("Sec-WebSocket-Protocol: broadcast.v1.json",)
# How long a test waits for what must come.
SECONDS = 15.0


def recv_event(client: RawClient) -> dict[str, Any]:
    """Return the next event, and answer the pings before it."""
    while True:
        _, opcode, payload = client.recv_frame()
        if opcode == PING:
            client.send_frame(PONG, payload)
            continue
        assert opcode == TEXT, (opcode, payload)
        event: dict[str, Any] = json.loads(payload)
        return event


def recv_kind(client: RawClient, kind: str) -> dict[str, Any]:
    """Return the next event of a type."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        event = recv_event(client)
        if event["type"] == kind:
            return event
    raise TimeoutError(f"there was no {kind} for {SECONDS} s")


class Watcher:
    """A member with events that reads all the time, on a thread of its own: where a test keeps the
    heartbeat short, nobody else must be late."""

    def __init__(self, client: RawClient) -> None:
        self._client = client
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while True:
                self._events.put(recv_event(self._client))
        except (OSError, EOFError, AssertionError) as error:
            self._events.put({"type": "end", "why": error})

    def get(self, kind: str) -> dict[str, Any]:
        """Return the next event of a type."""
        while (event := self._events.get(timeout=SECONDS))["type"] != kind:
            assert event["type"] != "end", event
        return event

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._client.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(SECONDS)
        self._client.close()


# -- A peer that is cut off --------------------------------------------------------------------


@pytest.mark.parametrize("state", ["quiet", "talked to", "full"])
@pytest.mark.parametrize("cable", [link_or_proxy, proxy], ids=["link", "proxy"])
def test_peer_cut_off_without_a_packet_is_noticed_and_announced(
    cable: Callable[[], AbstractContextManager[Cable]], state: str
) -> None:
    """By the heartbeat, also while there is always something to send to it; one whose socket is
    full by ``write_timeout``. The members that are told of others hear that it is gone."""
    ended: list[tuple[str | None, int]] = []

    def on_leave(member: Member, code: int, reason: str) -> None:
        ended.append((member.name, code))

    options: dict[str, Any] = {"ping_interval": 0.4, "ping_timeout": 1.0, "close_timeout": 0.2}
    if state == "full":
        options |= {"write_timeout": 1.0, "room_log_bytes": 64 << 20}
    with cable() as wire, running_hub(host=wire.host, on_leave=on_leave, **options) as hub:
        client = RawClient.connect(wire.host, hub.port, "/r?name=watcher", JSON)
        with (
            Watcher(client) as watcher,
            wire.connect(hub.port, path="/r?name=lost", rcvbuf=4096) as lost,
        ):
            assert watcher.get("join")["member"]["name"] == "lost"
            lost.sync()
            wire.cut()
            stop = threading.Event()

            def talk() -> None:
                while not stop.wait(0.05):
                    hub.broadcast("x", "/r")

            talker = threading.Thread(target=talk)
            if state == "full":
                for _ in range(200):
                    hub.broadcast(bytes(50_000), "/r")
            elif state == "talked to":
                talker.start()
            try:
                leave = watcher.get("leave")
            finally:
                stop.set()
                if talker.ident is not None:
                    talker.join(SECONDS)
            assert (leave["member"]["name"], leave["count"]) == ("lost", 1)
            # Its thread and its socket go as well, although it never says a word.
            assert wait_until(lambda: len(ended) == 1, SECONDS)
            assert ended == [("lost", 1013 if state == "full" else 1011)]
            assert [member.name for member in hub.members("/r")] == ["watcher"]


# -- Half-closed sockets -----------------------------------------------------------------------


def test_client_that_ends_its_own_side_has_left(hub: BroadcastHub) -> None:
    """What it has sent arrives; it has no way to answer a ping any more, so it is gone at once, and
    its own stream ends in order, after what was there before."""
    with RawClient.connect(port=hub.port, path="/r", headers=JSON) as watcher:
        recv_kind(watcher, "welcome")
        with RawClient.connect(port=hub.port, path="/r?name=half") as half:
            assert recv_kind(watcher, "join")["member"]["name"] == "half"
            half.send("last words")
            half.sock.shutdown(socket.SHUT_WR)
            assert recv_kind(watcher, "message")["data"] == "last words"
            assert recv_kind(watcher, "leave")["member"]["name"] == "half"
            half.recv_eof()


def test_client_that_closes_its_reading_side_may_send_and_hurts_nobody() -> None:
    """Its kernel takes bytes for it until its buffers are full; then it is one more slow client."""
    with running_hub(room_log_bytes=4 << 20, close_timeout=0.2) as hub:
        with (
            RawClient.connect(port=hub.port, path="/r") as other,
            RawClient.connect(port=hub.port, path="/r", rcvbuf=4096) as deaf,
        ):
            deaf.sock.shutdown(socket.SHUT_RD)
            for number in range(100):
                deaf.send(f"message {number}")
                assert other.recv_message() == f"message {number}"
            while hub.stats()["evictions"] == 0:
                data = os.urandom(50_000)
                hub.broadcast(data, "/r")
                assert other.recv_message() == data
            assert len(hub.members("/r")) == 1
            assert wait_until(lambda: hub.stats()["clients"] == 1, SECONDS)


def test_request_with_its_stream_ended_behind_it_is_answered(hub: BroadcastHub) -> None:
    """As ``nc -N`` sends it: the end of the stream is not the end of the interest."""
    post = b"POST /r HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
    assert http_request(hub.port, post, eof=True).startswith(b"HTTP/1.1 200 ")
    get = b"GET /r HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\n\r\n"
    assert b'"data":"x"' in http_request(hub.port, get, eof=True).replace(b" ", b"")


# -- Slow readers and broken senders -----------------------------------------------------------


def test_client_that_reads_byte_by_byte_hurts_nobody_and_is_evicted() -> None:
    """The other one has each message before the next is published. What the slow one gets is whole
    up to Close, and it may resume from there."""
    published: list[Message] = []
    with running_hub(room_log_bytes=4 << 20, close_timeout=30.0) as hub:
        with (
            RawClient.connect(port=hub.port, path="/r") as other,
            RawClient.connect(port=hub.port, path="/r", rcvbuf=4096) as slow,
        ):
            while hub.stats()["evictions"] == 0:
                data = struct.pack("!Q", len(published)) + bytes(20_000)
                published.append(hub.broadcast(data, "/r"))
                assert other.recv_message() == data
                slow.buffer += slow.sock.recv(1)
            got = 0
            while (frame := slow.recv_frame())[1] == BINARY:
                assert frame[2] == published[got].data
                got += 1
            assert frame[1] == CLOSE
            assert frame[2][2:].decode() == f"since={published[got - 1].id}"
        with RawClient.connect(port=hub.port, path=f"/r?since={published[got - 1].id}") as back:
            for message in published[got:]:
                assert back.recv_message() == message.data
            back.sync()


def test_client_that_reads_byte_by_byte_is_served_while_it_keeps_up(hub: BroadcastHub) -> None:
    """Slow is not late: nothing is evicted that has time."""
    with RawClient.connect(port=hub.port, rcvbuf=4096) as slow:
        for number in range(20):
            hub.broadcast(f"message {number}")
            expected = f"message {number}".encode()
            got = b"".join(slow.sock.recv(1) for _ in range(2 + len(expected)))
            assert got[2:] == expected
        assert hub.stats()["evictions"] == 0


HALF_FRAMES = {
    "in the header": client_frame(BINARY, bytes(300))[:3],
    "in the mask": client_frame(TEXT, "lost")[:4],
    "in the payload": client_frame(BINARY, bytes(100_000))[:50_000],
    "between fragments": client_frame(TEXT, "lost", fin=False),
    "in a fragment": client_frame(TEXT, "lost", fin=False)
    + client_frame(CONTINUATION, "lost")[:-1],
    "in a ping": client_frame(PING, b"lost")[:-1],
    "in Close": client_frame(CLOSE, b"\x03\xe8lost")[:-1],
}


@pytest.mark.parametrize(
    ("where", "end"),
    [
        *((where, end) for where in HALF_FRAMES for end in ("FIN", "reset")),
        *((where, "silence") for where in ("in the payload", "between fragments", "in Close")),
    ],
)
def test_sender_that_dies_inside_a_frame_leaves_nothing_of_it(where: str, end: str) -> None:
    """What was whole before is delivered, the rest is not, and the others go on."""
    codes: dict[str | None, int] = {}

    def on_leave(member: Member, code: int, reason: str) -> None:
        codes[member.name] = code

    options = {"ping_interval": 0.4, "ping_timeout": 1.0} if end == "silence" else {}
    with running_hub(on_leave=on_leave, **options) as hub:
        client = RawClient.connect(port=hub.port, path="/r", headers=JSON)
        with Watcher(client) as other:
            with RawClient.connect(port=hub.port, path="/r?name=sender") as sender:
                other.get("join")
                sender.sock.sendall(client_frame(TEXT, "whole") + HALF_FRAMES[where])
                assert other.get("message")["data"] == "whole"
                if end == "FIN":
                    sender.close()
                elif end == "reset":
                    sender.reset()
                other.get("leave")
                # A part of a message would have come before this.
                hub.broadcast("next", "/r")
                assert other.get("message")["data"] == "next"
        assert wait_until(lambda: len(codes) == 2, SECONDS)
    assert codes["sender"] == (1011 if end == "silence" else 1006)


# -- Many that come and go ---------------------------------------------------------------------


def join_and_leave(client: RawClient) -> None:
    """Come in and go in good order; what others have said may come in between."""
    client.upgrade("/crowd")
    client.send_close()
    while client.recv_frame()[1] != CLOSE:
        pass
    client.recv_eof()


def join_as_json_and_vanish(client: RawClient) -> None:
    """Come in, with a session, and reset."""
    client.upgrade("/crowd", JSON)
    client.reset()


def join_and_end(client: RawClient) -> None:
    """Come in, say something and end the stream."""
    client.upgrade("/crowd")
    client.send("bye")


def ask_and_go(client: RawClient) -> None:
    """Publish over HTTP and do not wait."""
    client.sock.sendall(b"POST /crowd HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx")


def ask_half_and_reset(client: RawClient) -> None:
    """Send half a handshake."""
    client.sock.sendall(upgrade_request("/crowd")[:50])
    client.reset()


def say_nothing(client: RawClient) -> None:
    """Connect, and that was it."""


VISITS: tuple[Callable[[RawClient], None], ...] = (
    join_and_leave,
    join_as_json_and_vanish,
    join_and_end,
    ask_and_go,
    ask_half_and_reset,
    say_nothing,
)


def connect_from(address: str, port: int) -> RawClient:
    """Connect from one of the loopback addresses."""
    return RawClient(socket.create_connection(("127.0.0.1", port), SECONDS, (address, 0)))


@pytest.mark.parametrize(
    "count", [1000, pytest.param(stress_size(10_000, 2_000), marks=pytest.mark.stress)]
)
def test_hub_is_as_before_after_many_have_come_and_gone(count: int) -> None:
    """Threads and descriptors are back where they were, memory within a tenth and 8 MiB."""
    with hub_process() as (process, url):
        port = int(url.rstrip("/").rpartition(":")[2])
        proc = pathlib.Path(f"/proc/{process.pid}")

        def held() -> tuple[int, int]:
            return len(os.listdir(proc / "task")), len(os.listdir(proc / "fd"))

        def visit(number: int) -> None:
            with connect_from(f"127.0.0.{2 + number % 40}", port) as client:
                VISITS[number % len(VISITS)](client)

        before = held()
        for number in range(120):
            visit(number)
        assert wait_until(lambda: held() == before, SECONDS)
        resident = resident_bytes(process.pid)
        for number in range(count):
            visit(number)
        assert wait_until(lambda: held() == before, SECONDS), held()
        grown = resident_bytes(process.pid)
        assert grown <= 1.1 * resident + (8 << 20), (resident, grown)
        with RawClient.connect(port=port) as client:
            client.leave()


def objects_of_the_package() -> list[object]:
    """Return all that there are. Each part that a client has is among them, but for its locks and
    buffers, which these hold."""
    gc.collect()
    return [
        item
        for item in gc.get_objects()
        if type(item).__module__.partition(".")[0] == "broadcast_server"
    ]


def test_nothing_is_kept_of_those_who_have_come_and_gone() -> None:
    """Not one object more than before, but what a hub keeps on purpose: messages. Of sessions it
    keeps nothing."""
    kept_on_purpose = {"Entry", "Member"}
    # Held until the end, so that none that is made here gets the identity of one of these.
    others = objects_of_the_package()
    known = set(map(id, others))
    # The timers may skip appointments of those who have gone, at their time, which is soon here,
    # also for a visitor so slow that it was pinged.
    with running_hub(ping_interval=0.5, ping_timeout=5.0, write_timeout=5.0) as hub:

        def visit_all(rounds: int) -> Counter[str]:
            for number in range(rounds * len(VISITS)):
                with connect_from(f"127.0.0.{2 + number % 40}", hub.port) as client:
                    VISITS[number % len(VISITS)](client)
            found: Counter[str] = Counter()

            def is_over() -> bool:
                nonlocal found
                new = (item for item in objects_of_the_package() if id(item) not in known)
                found = Counter(type(item).__name__ for item in new)
                return not any(
                    found[kind] for kind in ("HubHandler", "Connection", "Batch", "LogBatch")
                )

            assert wait_until(is_over, SECONDS), found
            return found

        before = visit_all(5)
        after = visit_all(50)
    more = after - before
    assert set(more) <= kept_on_purpose, more


# -- Out of descriptors ------------------------------------------------------------------------


def test_hub_without_descriptors_serves_its_clients_and_accepts_again() -> None:
    """Those who are there go on talking; those who wait are let in when there is room; meanwhile
    the accept loop rests between its attempts instead of spinning."""
    with tempfile.TemporaryFile("w+") as log, hub_process(log=log) as (process, url):
        port = int(url.rstrip("/").rpartition(":")[2])

        def complaints() -> int:
            log.seek(0)
            return log.read().count("cannot accept")

        with ExitStack() as stack:
            one = stack.enter_context(RawClient.connect(port=port, path="/r"))
            two = stack.enter_context(RawClient.connect(port=port, path="/r"))
            limit = max(map(int, os.listdir(f"/proc/{process.pid}/fd"))) + 4
            _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (limit, hard))
            began = time.monotonic()
            # The kernel takes them, whether or not the hub can.
            waiting = [stack.enter_context(RawClient.open(port=port)) for _ in range(30)]
            assert wait_until(lambda: complaints() > 0, SECONDS)
            for number in range(100):
                one.send(f"message {number}")
                assert two.recv_message() == f"message {number}"
            assert wait_until(lambda: complaints() >= 5, SECONDS)
            count = complaints()
            rests = (time.monotonic() - began) / pause_seconds()
            assert count <= rests + 1, "the accept loop does not rest"
            for client in waiting[:20]:
                client.close()
            for client in waiting[20:]:
                client.close()
            with RawClient.connect(port=port, path="/r", timeout=SECONDS) as late:
                two.send("welcome")
                assert late.recv_message() == one.recv_message() == "welcome"
                late.leave()
            one.leave()
            two.leave()


# -- The clock ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-30, 30, -0.001, 20_000])
def test_clock_that_jumps_changes_neither_order_nor_life(
    monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    """Ids grow, resuming by id goes on, keys are known, nobody is pinged or sent away; the time of
    a message is never before that of the one before it."""
    from broadcast_server import BroadcastHub

    shift = 0.0
    real = time.time

    def jumping() -> float:
        return real() + shift

    monkeypatch.setattr(time, "time", jumping)
    with BroadcastHub(port=0) as hub:
        replace_clock(monkeypatch, core_of(hub).backplane, jumping)
        with (
            RawClient.connect(port=hub.port, path="/r", headers=JSON) as sender,
            RawClient.connect(port=hub.port, path="/r", headers=JSON) as reader,
        ):
            recv_kind(sender, "welcome")
            recv_kind(reader, "welcome")
            seen: list[dict[str, Any]] = []

            def talk() -> None:
                for number in range(20):
                    key = f"{len(seen)}"
                    event = {"type": "send", "data": key, "ref": number, "key": key}
                    sender.send(json.dumps(event))
                    message = recv_kind(reader, "message")
                    assert message["data"] == key
                    seen.append(message)
                    ack = recv_kind(sender, "ack")
                    assert (ack["id"], ack["duplicate"]) == (message["id"], False)

            talk()
            shift = 3600 * hours
            talk()
            shift = 0.0
            talk()
            sender.send(json.dumps({"type": "send", "data": "0", "ref": 1, "key": "0"}))
            ack = recv_kind(sender, "ack")
            assert (ack["id"], ack["duplicate"]) == (seen[0]["id"], True)
            ids = [tuple(map(int, message["id"].split("-"))) for message in seen]
            assert ids == sorted(set(ids))
            times = [message["time"] for message in seen]
            assert times == sorted(times)
            with RawClient.connect(port=hub.port, path=f"/r?since={seen[10]['id']}") as back:
                assert [back.recv_message() for _ in seen[11:]] == [m["data"] for m in seen[11:]]
                # The next that comes is the pong: no ping, no Close.
                back.sync()
            recv_kind(reader, "leave")
            recv_kind(sender, "leave")
            sender.sync()
            reader.sync()


# -- Callbacks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("callback", ["on_join", "filter"])
def test_callback_that_hangs_holds_up_its_client_alone(callback: str) -> None:
    """Whatever callback it is: the others come, talk and go, and so may the one that is held."""
    entered, go_on = threading.Event(), threading.Event()

    def hang(subject: Any) -> Any:
        sender = subject.sender if callback == "filter" else subject
        if sender.name == "held":
            entered.set()
            assert go_on.wait(30)
        return subject

    options: dict[str, Any] = {callback: hang}
    with running_hub(**options) as hub:
        try:
            with RawClient.connect(port=hub.port, path="/r?name=held") as held:
                held.send("at last")
                assert entered.wait(SECONDS)
                for _ in range(5):
                    with RawClient.connect(port=hub.port, path="/r?echo=1") as client:
                        client.send("x")
                        assert client.recv_message() == "x"
                        assert len(hub.members("/r")) == 2
                        client.leave()
                    assert wait_until(lambda: len(hub.members("/r")) == 1)
                # What the others have said is written to it all the same.
                assert [held.recv_message() for _ in range(5)] == ["x"] * 5
        finally:
            go_on.set()
        assert wait_until(lambda: hub.members("/r") == [])
        assert hub.history("/r")[-1].data == "at last"
