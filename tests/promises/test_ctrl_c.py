"""Ctrl-C in the middle of a program's call to a hub: nothing stays reserved, locked or unsent.

Python looks for signals when a Python function begins, when one written in C has returned, and
where a loop goes round. A profiler is called at the first two of these, and may raise: so a call is
interrupted at each of them in turn, until it comes to its end. The last test sends real signals.
"""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from broadcast_server import BroadcastHub, HubBusy
from broadcast_server.hub.core import Core
from broadcast_server.messages import parse_id

from ..support import (
    PYTHON,
    RawClient,
    descriptors,
    python_environment,
    running_hub,
    stress_size,
    thread_count,
    wait_until,
)
from ..support.inside import (
    core_of,
    has_ended,
    is_paused,
    locks_of,
    replace_pass,
    reserved_bytes,
    server_of,
    sleeps,
)
from ..support.json_peer import Peer
from ..support.raw_client import is_listening

pytestmark = pytest.mark.slow


def interrupted(
    call: Callable[[], object],
    after: int,
    modules: tuple[str, ...] = ("broadcast_server", "threading"),
) -> bool:
    """Make a call, and interrupt it after so many of the points where it can be, in these modules;
    return False if it has fewer."""
    left = after

    def look(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left
        # Not where it would be swallowed, such as in what is called when an object goes, or in a
        # generator that is not read to its end.
        ours = frame.f_globals.get("__name__", "").startswith(modules)
        ours = ours and frame.f_code.co_name != "<genexpr>"
        if ours and event in ("call", "c_return"):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    try:
        sys.setprofile(look)
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def everywhere(call: Callable[[], object]) -> Iterator[None]:
    """Interrupt a call at each point in turn; yield after each time."""
    for after in itertools.count():
        if not interrupted(call, after):
            assert after > 20, "it was hardly interrupted at all"
            return
        yield


def assert_unlocked(core: Core, *paths: str) -> None:
    """Check that no lock is held for ever, and no place in a room is kept."""
    rooms = [room for path in paths if (room := core.rooms.find(path)) is not None]
    for lock in [*locks_of(core), *(room.lock for room in rooms)]:
        assert lock.acquire(timeout=10), "a lock is held for ever"
        lock.release()
    assert [reserved_bytes(room) for room in rooms] == [0] * len(rooms)


def test_broadcast_is_whole_or_not_there(hub: BroadcastHub) -> None:
    """What is in the log goes out at once, its place is not kept, and ids go on growing."""
    core = core_of(hub)
    with RawClient.connect(port=hub.port, path="/r") as client:
        client.sync()
        room = core.rooms.open("/r")
        seen = 0
        for number in everywhere_numbered(lambda text: hub.broadcast(text, "/r"), core):
            assert_unlocked(core, "/r")
            assert not is_paused(room)
            # Nobody does anything now that would wake the fan-out.
            for _ in range(room.head - seen):
                assert client.recv_message() == str(number)
            assert room.head - seen in (0, 1)
            seen = room.head
        assert 0 < seen
        ids = [parse_id(message.id or "") for message in hub.history("/r", 1000)]
        assert len(ids) == seen + 1 and all(a < b for a, b in itertools.pairwise(ids))
        hub.broadcast("last", "/r")
        assert client.recv_message() == str(number + 1)  # the one that was not interrupted
        assert client.recv_message() == "last"


def everywhere_numbered(call: Callable[[str], object], core: Core) -> Iterator[int]:
    """Do what ``everywhere`` does, each time with the next number and while the fan-out sleeps."""
    number = -1

    def next_call() -> None:
        call(str(number))

    for after in itertools.count():
        assert sleeps(core.fanout)
        number += 1
        if not interrupted(next_call, after):
            assert after > 20, "it was hardly interrupted at all"
            return
        yield number


def test_broadcast_that_waits_for_the_fan_out_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the fan-out goes on, so do the others."""
    with running_hub(room_log_bytes=1 << 16, max_message_bytes=1 << 14) as hub:
        core = core_of(hub)
        go_on = threading.Event()

        def stuck(room: Any) -> bool:
            go_on.wait(60)
            return one_pass(room)

        def publish() -> None:
            with pytest.raises(HubBusy):
                hub.broadcast(bytes(1 << 14), "/r", timeout=0.005)

        one_pass = replace_pass(monkeypatch, core.fanout, stuck)
        try:
            hub.broadcast(bytes(1 << 14), "/r")
            publish()
            accepted = hub.stats()["messages"]
            for _ in everywhere(publish):
                assert_unlocked(core, "/r")
            assert hub.stats()["messages"] == accepted
        finally:
            go_on.set()
        hub.broadcast("x", "/r", timeout=10)


def test_room_that_makes_way_is_dropped_or_kept(hub: BroadcastHub) -> None:
    """Else nobody could join it any more, or publish there: they would try for ever."""
    with running_hub(max_rooms=1) as small:
        core = core_of(small)

        def is_free() -> bool:
            return all(room.offered == room.head for room in core.rooms.all())

        small.broadcast("x", "/old")
        assert wait_until(is_free)
        for _ in everywhere(lambda: small.broadcast("x", "/new")):
            assert_unlocked(core, "/old", "/new")
            assert wait_until(is_free)
            publish_within(small, "/old")
            assert wait_until(is_free)


def publish_within(hub: BroadcastHub, path: str) -> None:
    """Publish on a thread of its own; it must come to an end."""
    thread = threading.Thread(target=lambda: hub.broadcast("x", path), daemon=True)
    thread.start()
    thread.join(10)
    if thread.is_alive():
        hub.stop()
        pytest.fail(f"nobody can publish to {path} any more")


def test_send_is_made_or_not(hub: BroadcastHub) -> None:
    """What was queued goes out at once, though nobody waits for it any more."""
    core = core_of(hub)
    with RawClient.connect(port=hub.port, path="/r") as client:
        client.sync()
        (member,) = hub.members("/r")
        connection = server_of(hub).find(member.id)
        assert connection is not None
        sent = 0
        for number in everywhere_numbered(lambda text: hub.send(member.id, text), core):
            assert_unlocked(core, "/r")
            assert wait_until(lambda: not connection.personal)
            assert connection.personal_bytes == 0
            sent = number
        client.send_frame(8)
        found = []
        while (frame := client.recv_frame())[1] != 8:
            found.append(int(frame[2]))
        assert found == sorted(set(found)) and found[-1] == sent + 1


def test_send_that_waits_for_its_client_leaves_no_lock_behind() -> None:
    """The fan-out rings for whoever waits: it must not wait itself."""
    with running_hub(room_log_bytes=1 << 18, max_message_bytes=1 << 16) as hub:
        core = core_of(hub)
        with RawClient.connect(port=hub.port, path="/r", rcvbuf=4096) as client:
            (member,) = hub.members("/r")

            def send() -> None:
                with pytest.raises(HubBusy):
                    while True:
                        hub.send(member.id, bytes(1 << 16), timeout=0.005)

            send()
            for _ in everywhere(send):
                assert_unlocked(core, "/r")
            client.close()
        assert wait_until(lambda: not hub.members("/r"))
        with RawClient.connect(port=hub.port, path="/r") as another:
            (member,) = hub.members("/r")
            hub.send(member.id, "x")
            assert another.recv_message() == "x"


def test_disconnect_is_done_or_not(hub: BroadcastHub) -> None:
    """No member stays who has been told to go, and all hear of it at once."""
    core = core_of(hub)
    with Peer(hub, validate=False) as first, Peer(hub, validate=False) as second:
        watchers = (first, second)
        assert first.recv()["type"] == "join"
        for after in itertools.count():
            with RawClient.connect(port=hub.port, path="/r") as client:
                (*_, member) = hub.members("/r")
                assert [watcher.recv()["type"] for watcher in watchers] == ["join", "join"]
                assert sleeps(core.fanout)
                done = not interrupted(lambda: hub.disconnect(member.id), after)  # noqa: B023
                assert_unlocked(core, "/r")
                if len(hub.members("/r")) == 3:
                    assert hub.disconnect(member.id)
                assert client.recv_close()[0] == 1000
                assert not hub.disconnect(member.id)
                client.send_close()
                client.recv_eof()
            hub.broadcast("next", "/r")
            for watcher in watchers:
                kinds = []
                here = 3
                while (event := watcher.recv())["type"] != "message":
                    kinds.append(event["type"])
                    here = event["count"]
                assert here == 2 and kinds in (["leave"], ["leave", "members"], ["members"]), kinds
            if done:
                assert after > 20
                return


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.stress)])
def test_stop_is_done_by_the_next_one_at_the_latest(step: int) -> None:
    """Wherever it was interrupted. Not in the standard library's own waits: ``Event.wait`` may keep
    its lock then, and ``socketserver`` and ``threading`` use it."""
    for after in itertools.count(0, step):
        hub = BroadcastHub(port=0, close_timeout=0.2).start()
        port = hub.port
        with RawClient.connect(port=port), RawClient.open(port=port):
            has_more = interrupted(hub.stop, after, ("broadcast_server",))
            hub.stop()
        assert not is_listening(port)
        assert has_ended(hub)
        if not has_more:
            assert after > 50
            return


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.stress)])
def test_start_that_is_interrupted_leaves_nothing(step: int) -> None:
    """Also when all was done but to say so: who does not enter a ``with`` does not leave it. Not in
    the modules that open pipes, whose numbers nobody knows for a moment."""
    names = ("hub", "run", "server", "delivery.fanout", "core")
    modules = tuple(f"broadcast_server.hub.{name}" for name in names)
    before, threads = descriptors(), thread_count()
    hub = BroadcastHub(port=0)
    for after in itertools.count(0, step):
        has_more = interrupted(hub.start, after, modules)
        if not has_more:
            hub.stop()
            assert after > 20
            return
        assert has_ended(hub)
        gc.collect()  # a selector that was not registered anywhere yet closes itself
        assert wait_until(lambda: thread_count() <= threads and descriptors() == before), after


PROGRAM = """
import os, random, signal, sys, threading

from broadcast_server import BroadcastHub
from tests.support import RawClient
from tests.support.inside import core_of, is_paused, reserved_bytes

armed = False
count = int(sys.argv[1])
interruptions = 0

def interrupt(number, frame):
    global armed, interruptions
    if armed:
        armed = False
        interruptions += 1
        raise KeyboardInterrupt

def bother(enough):
    while not enough.wait(random.uniform(0, 0.0005)):
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, interrupt)
sys.setswitchinterval(0.00001)  # a broadcast does not give the GIL away by itself
enough = threading.Event()
# The client answers no ping.
settings = dict(max_message_bytes=1000, room_log_bytes=40_000, ping_interval=3600)
with BroadcastHub(port=0, **settings) as hub:
    with RawClient.connect(port=hub.port, path="/r") as client:
        client.sync()
        room = core_of(hub).rooms.open("/r")
        bothering = threading.Thread(target=bother, args=(enough,), daemon=True)
        bothering.start()
        tried = received = 0
        while interruptions < count:
            try:
                armed = True
                tried += 1
                hub.broadcast("x", "/r")
            except KeyboardInterrupt:
                pass
            finally:
                armed = False
            while received < room.head:
                assert client.recv_message() == "x"
                received += 1
        enough.set()
        bothering.join()
        left = reserved_bytes(room), is_paused(room)
        assert left == (0, False), left
        assert tried - interruptions <= received <= tried
        hub.broadcast("last", "/r")
        assert client.recv_message() == "last"
        client.leave()
print("well", flush=True)
"""


@pytest.mark.parametrize(
    "count", [100, pytest.param(stress_size(5_000, 1_000), marks=pytest.mark.stress)]
)
def test_hub_outlives_real_signals(count: int) -> None:
    """Whenever they come."""
    finished = subprocess.run(
        [PYTHON, "-c", PROGRAM, str(count)],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (finished.stdout, finished.stderr) == ("well\n", "")
