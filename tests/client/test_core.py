"""What the threads of one client share: waiting, the end, and a process that forks."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import types

import pytest

from broadcast_server import BroadcastClient, ProtocolError, SendRefused
from broadcast_server.client import core
from broadcast_server.transport import deadlines

from ..support import TEXT, run_parent, running_hub, wait_until
from ..support.beside import in_thread
from ..support.inside import client_core_of, waiters_of
from ..support.raw_server import SECONDS, connected_pair, event_pair


def test_endless_timeout_is_one() -> None:
    """``recv(inf)`` waits like ``recv()``; a lock that is told so would raise OverflowError."""
    with connected_pair() as (client, server):
        for timeout in (float("inf"), 1e20):
            receiving = in_thread(client.recv, timeout)
            assert wait_until(lambda: bool(waiters_of(client_core_of(client).inbox.arrived)))
            server.send_frame(TEXT, "x")
            assert receiving.result(SECONDS).data == "x"


def test_clients_are_told_while_others_are_made() -> None:
    """The end of the program goes through them while its threads go on: an error there would leave
    all of them unclosed."""
    kept = [BroadcastClient("ws://127.0.0.1:9/") for _ in range(1000)]
    is_over = threading.Event()

    def make() -> None:
        while not is_over.is_set():
            BroadcastClient("ws://127.0.0.1:9/")

    makers = [in_thread(make) for _ in range(2)]
    try:
        for _ in range(1000):
            assert len(core.all_clients()) >= len(kept)
    finally:
        is_over.set()
    for maker in makers:
        maker.result(SECONDS)


def test_ctrl_c_does_not_swallow_the_news_of_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes after the reader has notified its thread: then another one gets the message."""
    with connected_pair() as (client, server):
        inbox = client_core_of(client).inbox
        real = inbox.arrived.wait
        is_first = True

        def wait(timeout: float | None = None) -> bool:
            nonlocal is_first
            if not is_first:
                return real(timeout)
            is_first = False
            real(timeout)
            raise KeyboardInterrupt

        monkeypatch.setattr(inbox.arrived, "wait", wait)
        interrupted = in_thread(client.recv)
        assert wait_until(lambda: len(waiters_of(inbox.arrived)) == 1)
        receiving = in_thread(client.recv)
        assert wait_until(lambda: len(waiters_of(inbox.arrived)) == 2)
        server.send_frame(TEXT, "x")
        with pytest.raises(KeyboardInterrupt):
            interrupted.result(SECONDS)
        assert receiving.result(SECONDS).data == "x"


def test_ctrl_c_does_not_take_the_lock_from_another_thread() -> None:
    """It comes while who waits for a message takes the lock again, which another one holds."""
    main = threading.main_thread().ident
    assert main is not None
    came = threading.Event()
    frames = sys._current_frames

    def interrupt(*_: object) -> None:
        came.set()
        raise KeyboardInterrupt

    with connected_pair() as (client, server):
        state = client_core_of(client)

        def hold_the_lock() -> bool:
            waiters = waiters_of(state.inbox.arrived)
            assert wait_until(lambda: len(waiters) == 1)
            (waiter,) = waiters
            with state.lock:
                state.inbox.arrived.notify()
                assert wait_until(waiter.locked)  # it has heard it, and wants the lock
                wait_until(lambda: frames()[main].f_code.co_name == "_acquire_restore", 0.2)
                signal.pthread_kill(main, signal.SIGINT)
                came.wait(0.2)  # a lock that can be interrupted is, and then it is not held
                is_free = in_thread(state.lock.acquire, False).result(SECONDS)
            return is_free

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            holding = in_thread(hold_the_lock)
            with pytest.raises(KeyboardInterrupt):
                for _ in client:
                    pass
        finally:
            signal.signal(signal.SIGINT, before)
        assert holding.result(SECONDS) is False
        server.send_frame(TEXT, "x")
        assert client.recv(SECONDS).data == "x"


class Waits:
    """A clock that moves only while a client waits for room in its queue; it notes each wait."""

    def __init__(self, client: BroadcastClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        clock = types.SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(deadlines, "time", clock)
        monkeypatch.setattr(client_core_of(client).outbox.space, "wait", self.wait)

    def wait(self, timeout: float) -> None:
        """Let this time pass."""
        self.waits.append(timeout)
        self.now += timeout


@pytest.mark.parametrize(
    ("timeout", "waits"), [(0.02, [0.02]), (0.25, [0.25]), (0.625, [0.25, 0.25, 0.125])]
)
def test_send_waits_for_as_long_as_its_timeout(
    monkeypatch: pytest.MonkeyPatch, timeout: float, waits: list[float]
) -> None:
    """Each wait takes ``LOOK_SECONDS`` at most, and the last one ends with the timeout."""
    with event_pair(max_queued_bytes=1) as (client, _, _), monkeypatch.context() as patch:
        client.send("x")
        clock = Waits(client, patch)
        with pytest.raises(TimeoutError, match="in time"):
            client.send("y", timeout=timeout)
        assert clock.waits == waits


def test_send_with_a_long_timeout_notices_soon_that_nobody_receives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sender checks it every ``LOOK_SECONDS``, not only at the end of its timeout."""
    pair = event_pair(max_queued_bytes=1, close_timeout=1.0)
    with pair as (client, _, _), monkeypatch.context() as patch:
        client.send("x")
        clock = Waits(client, patch)
        patch.setattr(client_core_of(client).inbox, "stalled_seconds", lambda: clock.now)
        with pytest.raises(TimeoutError, match="nobody receives"):
            client.send("y", timeout=1000.0)
        assert clock.waits == [core.LOOK_SECONDS] * 5


def test_reason_of_the_end_does_not_grow() -> None:
    """Who asks again and again gets the same exception, with the frames of this call only."""
    with connected_pair() as (client, server):
        server.sock.sendall(b"\x83\x01x")
        depths = []
        for _ in range(3):
            with pytest.raises(ProtocolError) as caught:
                client.recv(SECONDS)
            depths.append(len(caught.traceback))
        assert depths == depths[:1] * 3


def test_what_was_refused_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, and by the size of the messages, of which the last one always stays."""
    with event_pair(on_error=lambda _: None) as (client, server, _):
        state = client_core_of(client)
        with state.lock:
            for number in range(core.MAX_REFUSED + 50):
                state.refused_locked(SendRefused("refused", str(number), "x" * 10))
        assert [refusal.detail for refusal in client.refused] == [str(n) for n in range(50, 150)]
        monkeypatch.setattr(core, "MAX_REFUSED_BYTES", 1000)
        for size, left in ((100, 91), (900, 2), (5000, 1)):
            client.send("x" * size)
            event = server.recv_event()
            server.send_event("error", code="too_big", detail="", ref=event["ref"])
            assert wait_until(lambda size=size: len(client.refused[-1].data or "") == size)  # type: ignore[misc]
            assert len(client.refused) == left


def test_client_that_is_gone_is_not_kept() -> None:
    """A process that makes a client for each message does not grow."""
    before = len(core.all_clients())
    for _ in range(50):
        BroadcastClient("ws://127.0.0.1:1/")
    with running_hub() as hub:
        for _ in range(10):
            with BroadcastClient(hub.url) as client:
                client.publish("x", timeout=SECONDS)
        del client
        gc.collect()
        assert wait_until(lambda: len(core.all_clients()) <= before)


def test_threads_that_iterate_share_what_comes() -> None:
    """Each message goes to one of them, and the end to all."""
    with connected_pair() as (client, server):
        got = [in_thread(lambda: [message.data for message in client]) for _ in range(3)]
        for number in range(300):
            server.send_frame(TEXT, str(number))
        server.ping()
        in_thread(server.accept_close)
        assert client.close() is True
        parts = [future.result(SECONDS) for future in got]
        assert sorted((each for part in parts for each in part), key=int) == [
            str(number) for number in range(300)
        ]
        assert all(part == sorted(part, key=int) for part in parts)


def test_close_of_several_threads_is_one() -> None:
    """Each of them learns how it has ended, and the first one's code counts."""
    with connected_pair() as (client, server):
        first = in_thread(client.close, 4000, "enough")
        assert server.recv_close() == (4000, "enough")
        second = in_thread(client.close, 4001)
        server.send_close(4000)
        server.recv_eof()
        server.sock.close()
        assert [first.result(SECONDS), second.result(SECONDS)] == [True, True]


FORK = """
import os, signal, warnings
warnings.simplefilter("ignore")  # fork in a process with threads, and what that leaves: on purpose
from broadcast_server import BroadcastClient, BroadcastHub, ConnectionClosed
"""


def test_forked_child_has_no_connection() -> None:
    """It has none of the threads, and may have inherited a lock: nothing is sent or waited for."""
    run_parent(
        FORK
        + """
from tests.support.inside import client_core_of, link_of, lock_of, socket_of
with BroadcastHub(port=0) as hub, BroadcastClient(hub.url) as client:
    link = link_of(client)
    descriptor = socket_of(link.channel).fileno()
    with client_core_of(client).lock, lock_of(link.channel):
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            for call in (lambda: client.send("x"), client.who, client.recv, client.publish):
                try:
                    call("x") if call == client.publish else call()
                except ConnectionClosed as error:
                    assert error.code == 1006 and "parent" in error.reason, error
                else:
                    os._exit(1)
            assert (client.state, client.close(), client.members != []) == ("closed", False, True)
            try:
                os.fstat(descriptor)
            except OSError:
                os._exit(7)
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert status == 7 << 8, status
    hub.broadcast("still mine")
    assert client.recv(10).data == "still mine"
    client.publish("and on the way out", timeout=10)
print("parent is well")
"""
    )


def test_forked_child_has_no_part_in_connecting() -> None:
    """The child's copy of a socket that is not a client's yet would keep the connection alive."""
    run_parent(
        FORK
        + """
import contextlib, socket, threading
listening = socket.create_server(("127.0.0.1", 0))
client = BroadcastClient(f"ws://127.0.0.1:{listening.getsockname()[1]}/")
def connect():
    with contextlib.suppress(Exception):
        client.connect()
connecting = threading.Thread(target=connect)
connecting.start()
sock, _ = listening.accept()
sock.settimeout(10)
assert sock.recv(1) == b"G"  # it has asked, and waits for the answer
child = os.fork()
if child == 0:
    signal.alarm(10)
    sock.close()
    listening.close()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os._exit(1)
    os._exit(7 if client.close() is False else 2)
_, status = os.waitpid(child, 0)
assert status == 7 << 8, status
assert connecting.is_alive()
client.close()
connecting.join(10)
sock.close()
listening.close()
print("parent is well")
"""
    )


def test_forked_children_may_connect_a_client_of_their_parent() -> None:
    """One that was not connected; and no message of one is taken for a message of another."""
    run_parent(
        FORK
        + """
seen = []
with BroadcastHub(port=0, on_message=lambda message: seen.append(message.data)) as hub:
    client = BroadcastClient(hub.url)
    for number in range(3):
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            with client:
                client.publish(f"child {number}", timeout=10)
            os._exit(7)
        _, status = os.waitpid(child, 0)
        assert status == 7 << 8, status
    with client:
        client.publish("parent", timeout=10)
    assert seen == ["child 0", "child 1", "child 2", "parent"], seen
print("parent is well")
"""
    )


def test_callback_that_forks_ends_its_child_in_peace() -> None:
    """The child's copy of the client's own thread leaves its loop; the parent's goes on."""
    run_parent(
        FORK
        + """
import threading
children, done = [], threading.Event()

def fork(state):
    if state == "open" and not children:
        children.append(os.fork())
        if children[0] == 0:
            signal.alarm(10)
            try:
                client.send("x")
            except ConnectionClosed:
                os._exit(7)
            os._exit(1)
        done.set()

with BroadcastHub(port=0) as hub:
    client = BroadcastClient(hub.url, on_state=fork)
    with client:
        assert done.wait(10)
        _, status = os.waitpid(children[0], 0)
        assert status == 7 << 8, status
        assert client.publish("x", timeout=10)
print("parent is well")
"""
    )
