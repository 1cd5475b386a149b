"""What docs/topics/threads-and-locks.md says, held against a hub on which all goes on at once.

Every lock that a hub makes is replaced by one that notes in which order its thread takes it. The
table of that page is the measure: a lock that is not in it, or is taken out of its order, fails.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import linecache
import operator
import random
import re
import socket
import ssl
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broadcast_server import BroadcastHub, HubBusy, Message
from broadcast_server.client import lifecycle
from broadcast_server.hub.core import Core
from broadcast_server.transport.deadlines import Deadline
from broadcast_server.transport.tls_stream import TlsStream
from broadcast_server.wire.events import MAX_LISTED

from ..support import (
    ROOT,
    HandshakeRefused,
    RawClient,
    http_request,
    running_hub,
    stress_size,
    wait_until,
)
from ..support.beside import SECONDS, in_thread
from ..support.fanout_bench import Bench
from ..support.inside import (
    core_of,
    end_lock_of,
    entries_of,
    is_asleep,
    is_paused,
    lock_of,
    mailbox_of,
    pipe_lock_of,
    replace_end,
    replace_tls,
    reserved_bytes,
    set_count_lock,
    shake_hands,
    total_cost,
)
from ..support.json_peer import OFFER, Peer

PAGE = (ROOT / "docs/topics/threads-and-locks.md").read_text()
# The locks of a hub by rank, and those that are taken with no other.
RANKS = {name: int(rank) for rank, name in re.findall(r"^\| (\d) \| `([\w.]+)` \|", PAGE, re.M)}
ALONE = set(re.findall(r"`(\w+\.\w+)`", PAGE.partition("Taken alone")[2].partition("\n\n")[0]))

_new_lock = threading.Lock


class Held(threading.local):
    """The names of the locks that a thread holds."""

    def __init__(self) -> None:
        self.names: list[str] = []


class Watch:
    """Makes locks that note what is wrong with how they are taken."""

    def __init__(self) -> None:
        self.held = Held()
        self.faults: set[str] = set()
        self.seen: set[str] = set()

    def make(self) -> Any:
        """Return a lock: ``threading.Lock`` for the time of a test."""
        frame = sys._getframe(1)
        if not frame.f_globals["__name__"].startswith("broadcast_server."):
            return _new_lock()
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        attribute = line.partition("self.")[2].partition(" =")[0]
        return TracedLock(self, f"{type(frame.f_locals['self']).__name__}.{attribute}")

    def before(self, name: str) -> None:
        held = self.held.names
        self.seen.add(name)
        if not held:
            return
        if name in ALONE or held[-1] in ALONE:
            self.faults.add(f"{name} under {held}, one of which is to be taken alone")
        elif RANKS.get(name, 0) <= RANKS.get(held[-1], 0):
            self.faults.add(f"{name} under {held}")

    def called_back(self) -> None:
        """Note that the program's code is called."""
        if self.held.names:
            self.faults.add(f"a callback under {self.held.names}")


class TracedLock:
    """A lock that tells its watch who takes it."""

    def __init__(self, watch: Watch, name: str) -> None:
        self._watch = watch
        self._name = name
        self._lock = _new_lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking:
            self._watch.before(self._name)
        taken = self._lock.acquire(blocking, timeout)
        if taken:
            self._watch.held.names.append(self._name)
        return taken

    def release(self) -> None:
        self._watch.held.names.remove(self._name)
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


@contextlib.contextmanager
def many(count: int, work: Callable[[int], None]) -> Iterator[None]:
    """Run work on threads beside the block, and fail if one of them fails."""
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    if failed:
        raise failed[0]


class Guest:
    """Somebody who does at random what a client, a publisher or the program may do."""

    def __init__(self, hub: BroadcastHub, seed: int) -> None:
        self.hub = hub
        self.rng = random.Random(seed)
        self.seed = seed
        self.token: str | None = None

    def run(self, steps: int) -> None:
        actions = (self.talk, self.talk, self.speak, self.listen, self.post, self.program)
        for _ in range(steps):
            self.rng.choice(actions)()

    def room(self) -> str:
        return f"/{self.rng.randrange(4)}"

    def connect(self, path: str, headers: list[str]) -> RawClient | None:
        try:
            return RawClient.connect(port=self.hub.port, path=path, headers=headers)
        except HandshakeRefused as error:
            assert error.status in (410, 503), error.head
            return None

    def leave(self, client: RawClient) -> None:
        if self.rng.random() < 0.5:
            client.reset()
        else:
            client.send_close()
            client.close()

    def speak(self) -> None:
        """A plain client that says something and goes, without reading all that it gets."""
        client = self.connect(f"{self.room()}?history=3", [])
        if client is not None:
            with contextlib.suppress(OSError):
                for size in (1, 100, self.rng.randrange(3000)):
                    client.send(bytes(size))
                client.sock.settimeout(0.01)  # if nobody else speaks there is nothing
                client.recv_frame()
            self.leave(client)

    def talk(self) -> None:
        """A client of the subprotocol: new or as the one it was, beside its old connection too."""
        path = f"/{self.seed % 4}?name={self.seed}&since=1-1"
        if self.token is not None and self.rng.random() < 0.7:
            path += f"&session={self.token}"
        client = self.connect(path, OFFER)
        if client is None:
            return
        other = None
        try:
            welcome = json.loads(client.recv_message())
            self.token = welcome["session"]
            if self.rng.random() < 0.5:
                other = self.connect(f"/{self.seed % 4}?session={self.token}", OFFER)
            for number in range(3):
                key = f"{self.rng.randrange(8)}"
                # The second one is long enough to wait for its turn to be parsed.
                data = self.rng.choice(["x" * self.rng.randrange(2000), "\0" * 1000])
                for event in (
                    {"type": "send", "data": data, "ref": 1, "key": key},
                    {"type": "name", "name": f"{self.seed}.{number}"},
                    {"type": "who", "ref": 2},
                ):
                    client.send(json.dumps(event))
            self.hub.send(welcome["id"], "direct", timeout=0.0)
            if self.rng.random() < 0.3:
                self.hub.disconnect(welcome["id"])
            client.recv_frame()
        except (OSError, EOFError, HubBusy):
            pass
        finally:
            self.leave(client)
            if other is not None:
                self.leave(other)

    def listen(self) -> None:
        """A reader of server-sent events that goes after the first bytes."""
        request = f"GET {self.room()}?history=5 HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream"
        with RawClient.open(port=self.hub.port) as client:
            client.sock.sendall(f"{request}\r\n\r\n".encode())
            assert client.sock.recv(1000)

    def post(self) -> None:
        """A publisher over HTTP whose key others use, too; and who asks what there is."""
        head = f"POST {self.room()} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3"
        key = f"Idempotency-Key: {self.rng.randrange(8)}"
        answer = http_request(self.hub.port, f"{head}\r\n{key}\r\n\r\nabc".encode())
        assert answer.split()[1] in (b"200", b"422", b"503"), answer
        for path in ("/-/rooms", "/metrics", f"{self.room()}?history=9"):
            request = f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            assert b" 200 " in http_request(self.hub.port, request.encode())

    def program(self) -> None:
        """What the hub's own program asks for."""
        with contextlib.suppress(HubBusy):
            self.hub.broadcast("x" * self.rng.randrange(3000), self.room(), timeout=0.5)
        self.hub.history(self.room())
        for room in self.hub.rooms():
            self.hub.members(room)
        assert self.hub.stats()["rooms"] <= 3


def assert_nothing_is_left_over(core: Core) -> None:
    """What is counted up and down is what is there, now that everybody has gone."""
    assert not core.fanout.writer.connections
    for room in core.rooms.all():
        assert (reserved_bytes(room), is_paused(room)) == (0, False)
        assert (room.members, room.watchers) == ({}, {})
        assert not room.behind and not any(room.in_step.values())
        assert room.offered == room.head
        assert room.forms_bytes == sum(entry.forms_bytes() for entry in entries_of(room))
    assert total_cost(core.fanout) == sum(room.held_bytes() for room in core.rooms.all())


def test_page_names_every_lock_once() -> None:
    """The table and the list below it are what the next test measures by."""
    assert len(RANKS) == 6 and sorted(RANKS.values()) == [1, 2, 3, 4, 5, 6]
    assert len(ALONE) >= 5 and not ALONE & set(RANKS)


@pytest.mark.parametrize(
    "steps", [20, pytest.param(stress_size(400, 100), marks=pytest.mark.stress)]
)
def test_locks_are_taken_in_their_order_and_counts_stay_true(
    monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Also no callback is called under a lock; and what was reserved is given back, what was
    counted is there."""
    watch = Watch()

    def called_back(*_: object) -> None:
        watch.called_back()

    def look(message: Message) -> Message:
        watch.called_back()
        return message

    monkeypatch.setattr(threading, "Lock", watch.make)
    # So messages of this test are large enough to need a place while they come in.
    monkeypatch.setattr("broadcast_server.hub.reader.SMALL_BYTES", 1000)
    with running_hub(
        max_rooms=3,
        max_message_bytes=4000,
        room_log_bytes=32_000,
        total_log_bytes=64_000,
        on_message=called_back,
        on_join=called_back,
        on_leave=called_back,
        filter=look,
    ) as hub:
        core = core_of(hub)
        set_count_lock(core, TracedLock(watch, "Core._count_lock"))
        guests = [Guest(hub, seed) for seed in range(6)]
        with many(len(guests), lambda number: guests[number].run(steps)):
            pass  # they do it all
        assert wait_until(lambda: hub.stats()["clients"] == 0)
        assert wait_until(lambda: is_asleep(core.fanout) and not core.fanout.writer.connections)
        assert_nothing_is_left_over(core)
    assert not watch.faults
    assert watch.seen == set(RANKS) | ALONE


class Objects:
    """One object of each class with a lock, none of which is in use elsewhere, and their methods
    with what those are called with."""

    def __init__(self, bench: Bench) -> None:
        self.room = bench.room
        self.client, _ = bench.client()
        self.fanout = bench.fanout
        self.mailbox = mailbox_of(bench.fanout)
        self.mailbox_lock, self.pipe_lock = lock_of(self.mailbox), pipe_lock_of(self.mailbox)
        self.end_lock = end_lock_of(bench.fanout)
        raw, theirs = socket.socketpair()
        bench.sockets += [raw, theirs]
        self.stream = TlsStream(raw, lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self.stream_lock = lock_of(self.stream)
        self.core = types.SimpleNamespace(
            lock=threading.RLock(), connecting=True, ended=False, is_given_up=True, timed_out=False
        )

    def queue_urgent(self) -> None:
        self.client.queue_urgent(b"x")

    def tell_members(self) -> None:
        self.room.tell_members(self.client)

    def shake_hands(self) -> None:
        shake_hands(self.stream, Deadline(0))

    def close_all(self) -> None:
        lifecycle.close_all()


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    bench = Bench()
    made = Objects(bench)
    # What takes the same lock before or after the place that is looked at.
    replace_tls(monkeypatch)
    monkeypatch.setattr(lifecycle, "all_clients", lambda: [made.core])
    replace_end(monkeypatch)
    yield made
    bench.close()


@pytest.mark.parametrize(
    ("lock", "method"),
    [
        ("mailbox_lock", "mailbox.rouse"),
        ("pipe_lock", "mailbox.close"),
        ("mailbox_lock", "mailbox.end"),
        ("room.lock", "tell_members"),
        ("room.lock", "room.close"),
        ("room.lock", "room.look"),
        ("client.lock", "client.begin_answer"),
        ("client.lock", "queue_urgent"),
        ("client.lock", "client.take_urgent"),
        ("client.lock", "client.try_plain"),
        ("end_lock", "fanout.close"),
        ("stream_lock", "shake_hands"),
        ("core.lock", "close_all"),
    ],
)
def test_method_waits_for_the_lock_of_what_it_uses(
    objects: Objects, lock: str, method: str
) -> None:
    """A method does nothing while another thread holds the lock, and goes on after that."""
    begun = threading.Event()

    def call() -> None:
        begun.set()
        operator.attrgetter(method)(objects)()

    with operator.attrgetter(lock)(objects):
        called = in_thread(call)
        assert begun.wait(SECONDS)
        assert not concurrent.futures.wait([called], 0.05).done
    called.result(SECONDS)


# -- Presence ----------------------------------------------------------------------------------


class Watcher:
    """Keeps the list of a room's members as the events tell it."""

    def __init__(self, hub: BroadcastHub, rcvbuf: int | None = None) -> None:
        self.peer = Peer(hub, "/r?name=watcher", rcvbuf, validate=False)
        self.members = {one["id"]: one["name"] for one in self.peer.welcome["members"]}
        self.lists = 0

    def take(self) -> bool:
        """Take the next event; False for the last one."""
        event = self.peer.recv()
        if event["type"] == "message":
            return bool(event["data"] != "end")
        if event["type"] == "members":
            self.lists += 1
            self.members = {one["id"]: one["name"] for one in event["members"]}
        elif event["type"] == "leave":
            del self.members[event["member"]["id"]]
        else:
            assert event["type"] in ("join", "rename"), event
            member = event["member"]
            assert (member["id"] in self.members) == (event["type"] == "rename"), event
            self.members[member["id"]] = member["name"]
        assert len(self.members) == event["count"] <= MAX_LISTED
        return True


@pytest.mark.parametrize("slow", [False, True])
def test_presence_that_is_told_is_who_is_there(slow: bool) -> None:
    """Members come, go, change their names and take each other's place; who listens to it knows
    after each event how many there are, and at the end who. One that is slow asks meanwhile, too,
    and gets the whole list at the end of what it has missed."""

    def come_and_go(seed: int) -> None:
        rng = random.Random(seed)
        token = ""
        for step in range(15):
            raw = RawClient.connect(
                port=hub.port,
                path=f"/r?session={token}" + (f"&name={seed}.{step}" if step % 2 else ""),
                headers=OFFER,
            )
            held.append(raw)
            token = json.loads(raw.recv_message())["session"]
            for number in range(2):
                name = f"{seed} {step} {number}"
                raw.send(json.dumps({"type": "name", "name": name}))
            if rng.random() < 0.7:
                raw.reset()
            elif rng.random() < 0.5:
                token = ""

    held: list[RawClient] = []
    with running_hub(max_rate=0) as hub, contextlib.ExitStack() as stack:
        watcher = Watcher(hub, 4096 if slow else None)
        stack.callback(watcher.peer.raw.close)
        (connection,) = core_of(hub).rooms.open("/r").members.values()
        while slow and not connection.blocked:
            with contextlib.suppress(HubBusy):
                while True:  # until its socket is full and nothing more may wait for it
                    hub.send(watcher.peer.welcome["id"], "x" * 100_000, timeout=0.0)
        with many(4, come_and_go):
            if not slow:
                for ref in range(20):
                    watcher.peer.send(type="who", ref=ref)
                    time.sleep(0)
        for raw in held:
            raw.close()
        assert wait_until(lambda: len(hub.members("/r")) == 1)
        # The list that makes up for what was missed comes when the queue has drained.
        hub.broadcast("end", "/r")
        while watcher.take():
            pass
        while slow and not watcher.lists:
            watcher.take()
        assert watcher.members == {member.id: member.name for member in hub.members("/r")}
        assert watcher.lists == (1 if slow else 20)
