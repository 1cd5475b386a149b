"""How a hub begins and ends: what is flushed, what is said, what is left (nothing)."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ..support import (
    BINARY,
    CLOSE,
    PYTHON,
    HandshakeRefused,
    RawClient,
    client_frame,
    descriptor_count,
    descriptors,
    http_request,
    lasting_port,
    python_environment,
    run_parent,
    running_hub,
    stress_size,
    thread_count,
    wait_until,
)
from ..support.beside import during, in_thread
from ..support.hubs import GRACE_SECONDS
from ..support.inside import core_of, fanout_of, lock_of, mailbox_of, run_of, server_of, stopped_of
from ..support.raw_client import is_listening, many_clients

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub, Member, Message


class Traffic:
    """Clients that send, and clients that read, each on a thread, until their connection ends."""

    def __init__(self, senders: list[RawClient], readers: list[RawClient]) -> None:
        self.flowing = threading.Event()
        self._threads = [
            *(threading.Thread(target=self._send, args=(client,)) for client in senders),
            *(threading.Thread(target=self._read, args=(client,)) for client in readers),
        ]

    def _send(self, client: RawClient) -> None:
        try:
            while True:
                client.sock.sendall(client_frame(BINARY, b"traffic") * 20)
        except OSError:
            pass

    def _read(self, client: RawClient) -> None:
        try:
            while client.sock.recv(1 << 16):
                self.flowing.set()
        except OSError:
            pass

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        assert self.flowing.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


# -- Nothing is left ---------------------------------------------------------------------------


def start_and_stop(clients: int) -> None:
    """Stop a hub with clients and traffic, and look for what is left of it."""
    threads, opened = thread_count(), descriptor_count()
    with running_hub(stop_timeout=2.0, close_timeout=1.0) as hub:
        with many_clients(hub.port, clients) as all_clients:
            # Two rooms have traffic; in the other two the clients only are there, and never read.
            with Traffic(all_clients[0:2], all_clients[4:6]):
                hub.stop()
                # Their ends of the connections are in this process, too, and still open.
                assert wait_until(lambda: descriptor_count() <= opened + clients)
    assert wait_until(lambda: thread_count() <= threads), threading.enumerate()
    assert wait_until(lambda: descriptor_count() <= opened)


def test_nothing_is_left_after_stop() -> None:
    """Clients connected and traffic running: no thread, no descriptor 5 s after stop()."""
    for _ in range(2):
        start_and_stop(clients=60)


@pytest.mark.stress
@pytest.mark.timeout(300)
def test_nothing_is_left_after_stop_ten_times() -> None:
    """The same with 200 clients, ten times in a row."""
    for _ in range(stress_size(10, 3)):
        start_and_stop(clients=200)


def test_port_is_free_after_stop() -> None:
    """Another hub can listen at once on the port of a stopped one."""
    port = lasting_port()
    with running_hub(port=port, close_timeout=0.2) as hub:
        with RawClient.connect(port=port):
            hub.stop()
    for _ in range(3):
        with running_hub(port=port) as hub, RawClient.connect(port=port) as client:
            assert hub.port == port
            client.leave()


# -- Bounded -----------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.0, 0.5])
def test_stop_is_bounded_with_a_client_that_reads_nothing(timeout: float) -> None:
    """``stop(timeout)`` returns within the time-out and one second: a promise of the interface."""
    with running_hub(room_log_bytes=64 << 20) as hub:
        with RawClient.connect(port=hub.port, rcvbuf=4096):
            for _ in range(400):
                hub.broadcast(bytes(50_000))
            began = time.monotonic()
            hub.stop(timeout)
            assert time.monotonic() - began <= timeout + GRACE_SECONDS


def test_stop_is_bounded_by_the_setting() -> None:
    """Without an argument ``stop_timeout`` is the bound; a hanging callback does not extend it."""
    release = threading.Event()
    with running_hub(stop_timeout=0.3, on_message=lambda message: release.wait(20)) as hub:
        with RawClient.connect(port=hub.port) as client:
            client.send("hang")
            client.send("never read")
            assert wait_until(lambda: hub.stats()["messages"] >= 1)
            began = time.monotonic()
            hub.stop()
            took = time.monotonic() - began
            release.set()
    assert took <= 0.3 + GRACE_SECONDS


@pytest.mark.parametrize("timeout", [float("inf"), 1e300])
def test_stop_takes_any_time_out(hub: BroadcastHub, timeout: float) -> None:
    """What is longer than the system can wait is cut; with nobody there it returns at once."""
    port = hub.port
    hub.stop(timeout)
    assert not is_listening(port)


def test_stop_does_not_wait_for_half_a_request() -> None:
    """A connection that has not become a client is cut off, whatever time it has left."""
    with running_hub(handshake_timeout=60, stop_timeout=20) as hub:
        threads = thread_count()
        with RawClient.open(port=hub.port) as silent, RawClient.open(port=hub.port) as half:
            half.sock.sendall(b"GET / HTTP/1.1\r\nHo")
            assert wait_until(lambda: thread_count() == threads + 2)
            began = time.monotonic()
            hub.stop()
            assert time.monotonic() - began <= 5
            for client in (silent, half):
                try:
                    while client.sock.recv(4096):
                        pass
                except (ConnectionResetError, ssl.SSLEOFError):
                    pass  # over TLS its handshake may not have been over


@pytest.mark.parametrize(
    "begun",
    [
        ("POST /r HTTP/1.1\r\nHo", ""),
        ("Content-Length: 10", "half"),
        ("Transfer-Encoding: chunked", "4\r\nhalf\r\n"),
    ],
    ids=["head", "body", "chunked"],
)
def test_request_that_is_cut_short_by_a_stop_is_told_so(begun: tuple[str, str]) -> None:
    """It is not to blame, nor is it left in doubt whether its message was accepted."""
    head, body = begun
    if body:
        head = f"POST /r HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n{head}\r\n\r\n"
    with running_hub(handshake_timeout=60, stop_timeout=20) as hub:
        threads = thread_count()
        with RawClient.open(port=hub.port) as publisher:
            publisher.sock.sendall(head.encode())
            if body:
                assert publisher.sock.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
                publisher.sock.sendall(body.encode())
            assert wait_until(lambda: thread_count() == threads + 1)
            hub.stop()
            answer = b""
            while piece := publisher.sock.recv(4096):
                answer += piece
    assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in answer


# -- Said and flushed --------------------------------------------------------------------------


def test_everyone_is_told_1001(hub: BroadcastHub) -> None:
    """Each client gets Close 1001, answers, and sees the stream end in order."""
    with many_clients(hub.port, 40) as clients:
        stopper = threading.Thread(target=hub.stop)
        stopper.start()
        for client in clients:
            assert client.recv_close()[0] == 1001
            client.send_close(1001)
            client.recv_eof()
            client.close()
        stopper.join(10)
        assert not stopper.is_alive()


@pytest.mark.parametrize("end", ["stop", "drain"])
def test_client_that_is_just_being_admitted_is_told_1001(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """It has its 101, but the fan-out does not know it yet: that one must not end without it."""
    core, server = core_of(hub), server_of(hub)
    hand_over = server.hand_over
    stopping = threading.Event()

    def hand_over_late(handler: Any) -> None:
        assert stopping.wait(10)
        wait_until(lambda: not core.fanout.is_alive, 0.2)
        hand_over(handler)

    monkeypatch.setattr(server, "hand_over", hand_over_late)
    monkeypatch.setattr(core.backplane, "close", stopping.set)
    with RawClient.connect(port=hub.port) as client:
        stopper = threading.Thread(target=getattr(hub, end))
        stopper.start()
        assert client.recv_close()[0] == 1001
        client.send_close(1001)
        client.recv_eof()
        client.close()
        stopper.join(10)
        assert not stopper.is_alive()


def test_client_that_becomes_known_after_the_goodbyes_is_told_1001(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that the stop has not met among the connections says goodbye to itself."""
    core, server = core_of(hub), server_of(hub)
    set_connection, connections = server.set_connection, server.connections
    is_listed, are_told = threading.Event(), threading.Event()

    def set_connection_late(*arguments: Any) -> None:
        is_listed.set()
        assert are_told.wait(10)
        set_connection(*arguments)

    def look() -> list[Any]:
        found = connections()
        if core.stopping:
            are_told.set()
        return found

    monkeypatch.setattr(server, "set_connection", set_connection_late)
    monkeypatch.setattr(server, "connections", look)
    connecting = in_thread(RawClient.connect, port=hub.port)
    assert is_listed.wait(10)
    with during(hub.stop):
        with connecting.result(10) as client:
            assert client.recv_close()[0] == 1001
            client.send_close(1001)
            client.recv_eof()


def test_leave_callback_is_told_about_the_stop() -> None:
    """``on_leave`` is called for every member, with 1001, before stop() returns."""
    left: list[int] = []
    with running_hub(on_leave=lambda member, code, reason: left.append(code)) as hub:
        with many_clients(hub.port, 10) as clients:
            stopper = threading.Thread(target=hub.stop)
            stopper.start()
            for client in clients:
                client.recv_close()
                client.close()
            stopper.join(10)
        assert left == [1001] * 10


def test_accepted_messages_are_flushed_before_the_close() -> None:
    """What ``broadcast`` has returned for is delivered, to slow readers too, before the goodbye."""
    count, size = 300, 20_000
    with running_hub(room_log_bytes=32 << 20) as hub:
        clients = [RawClient.connect(port=hub.port, rcvbuf=8192) for _ in range(3)]
        for number in range(count):
            hub.broadcast(struct.pack("!I", number) + bytes(size - 4))
        stopper = threading.Thread(target=hub.stop)
        stopper.start()
        for client in clients:
            for number in range(count):
                data = client.recv_message()
                assert isinstance(data, bytes) and data[:4] == struct.pack("!I", number)
            assert client.recv_close()[0] == 1001
            client.close()
        stopper.join(10)
        assert not stopper.is_alive()


def test_messages_of_clients_are_whole_or_not_there() -> None:
    """Stopped under traffic, a room's members have all got the same, without a hole."""
    with running_hub(max_rate=0, close_timeout=0.5) as hub:
        with RawClient.connect(port=hub.port) as sender:
            readers = [RawClient.connect(port=hub.port) for _ in range(5)]
            streams: list[list[bytes]] = [[] for _ in readers]
            codes: list[int] = []

            def read(index: int) -> None:
                while True:
                    _, opcode, payload = readers[index].recv_frame()
                    if opcode == CLOSE:
                        codes.append(int.from_bytes(payload[:2], "big"))
                        readers[index].close()
                        return
                    streams[index].append(payload)

            def send() -> None:
                number = 0
                try:
                    while True:
                        sender.send_frame(BINARY, struct.pack("!I", number))
                        number += 1
                except OSError:
                    pass

            threads = [threading.Thread(target=read, args=(index,)) for index in range(5)]
            threads.append(threading.Thread(target=send))
            for thread in threads:
                thread.start()
            assert wait_until(lambda: all(len(stream) > 100 for stream in streams))
            hub.stop()
            for thread in threads:
                thread.join(10)
                assert not thread.is_alive()
        assert codes == [1001] * 5
        expected = [struct.pack("!I", number) for number in range(len(streams[0]))]
        for stream in streams:
            assert stream == expected


# -- Who may stop, and how often ---------------------------------------------------------------


@pytest.mark.parametrize("callback", ["on_message", "on_join", "on_leave"])
def test_stop_from_a_callback(callback: str) -> None:
    """A callback may stop its own hub; it does not wait for itself."""
    stopped = threading.Event()
    hubs: list[BroadcastHub] = []

    def stop(*arguments: Any) -> None:
        hubs[0].stop(0.5)
        stopped.set()

    with running_hub(**{callback: stop}) as hub:
        hubs.append(hub)
        with RawClient.connect(port=hub.port) as client:
            if callback == "on_message":
                client.send("stop")
            elif callback == "on_leave":
                client.close()
            assert stopped.wait(10)
            if callback != "on_leave":
                assert client.recv_close()[0] == 1001
        assert wait_until(lambda: not is_listening(hub.port))


def test_publisher_whose_callback_stops_the_hub_is_told_that_it_was_accepted() -> None:
    """Also where the stop has to cut somebody else off, who does not take an answer."""
    hubs: list[BroadcastHub] = []
    with running_hub(on_message=lambda message: hubs[0].stop(0.1)) as hub:
        hubs.append(hub)
        for _ in range(80):
            hub.broadcast(bytes(100_000), room="/r")
        request = "{} /r?history=80 HTTP/1.1\r\nHost: h\r\n{}\r\n\r\n"
        with RawClient.open(port=hub.port, rcvbuf=4096) as slow:
            slow.sock.sendall(request.format("GET", "Accept: application/json").encode())
            assert slow.sock.recv(100)  # the rest is more than the sockets hold
            post = request.format("POST", "Content-Length: 2") + "hi"
            answer = http_request(hub.port, post.encode())
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_stop_twice_and_at_once(hub: BroadcastHub) -> None:
    """Any number of threads may stop a hub; each returns when it has stopped."""
    with many_clients(hub.port, 10):
        threads = [threading.Thread(target=hub.stop, args=(0.5,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        hub.stop()


@pytest.mark.parametrize("callback", ["on_message", "on_leave"])
def test_two_callbacks_that_stop_do_not_wait_for_each_other(callback: str) -> None:
    """The one that stops waits for the other's thread, which returns at once."""
    both = threading.Barrier(2)
    hubs: list[BroadcastHub] = []
    returned = threading.Semaphore(0)

    def stop(*arguments: Any) -> None:
        both.wait(10)
        hubs[0].stop()
        returned.release()

    with running_hub(stop_timeout=60, **{callback: stop}) as hub:
        hubs.append(hub)
        with RawClient.connect(port=hub.port) as a, RawClient.connect(port=hub.port) as b:
            for client in (a, b):
                if callback == "on_message":
                    client.send("stop")
                else:
                    client.leave()
            assert returned.acquire(timeout=10) and returned.acquire(timeout=10)
            assert stopped_of(hub).wait(10)


def test_callback_that_stops_does_not_hold_up_a_stop_that_runs() -> None:
    """Both were asked for the same; the callback's returns, so that the other one can end."""
    entered, go_on, returned = threading.Event(), threading.Event(), threading.Event()
    hubs: list[BroadcastHub] = []

    def on_message(message: Message) -> None:
        entered.set()
        go_on.wait(10)
        hubs[0].stop()
        returned.set()

    with running_hub(stop_timeout=60, on_message=on_message) as hub:
        hubs.append(hub)
        with RawClient.connect(port=hub.port) as client:
            client.send("stop")
            assert entered.wait(10)
            stopper = threading.Thread(target=hub.stop)
            stopper.start()
            assert client.recv_close()[0] == 1001
            go_on.set()
            assert returned.wait(10)
            stopper.join(10)
            assert not stopper.is_alive()


STEPS = ["run.hurry", "fanout.join", "server.stop_listening", "server.join", "server.server_close"]


def interrupt(hub: BroadcastHub, step: str, times: int) -> None:
    """Let a step of stop() be interrupted by Ctrl-C so many times, then work."""
    owner, _, name = step.partition(".")
    part_of = {"fanout": fanout_of, "server": server_of, "run": run_of}[owner]
    target: Any = part_of(hub)
    real = getattr(target, name)
    left = [None] * times

    def call(*arguments: Any) -> Any:
        if left:
            left.pop()
            raise KeyboardInterrupt
        return real(*arguments)

    setattr(target, name, call)


@pytest.mark.parametrize("step", STEPS)
def test_interrupted_stop_ends_everything_at_once(step: str) -> None:
    """A second Ctrl-C means now: nobody is waited for, and the hub may be started again."""
    from broadcast_server import BroadcastHub

    # The client never answers; the steps after the fan-out's end must be reached nevertheless.
    close_timeout = 60 if step == "fanout.join" else 0.1
    hub = BroadcastHub(port=0, stop_timeout=60, close_timeout=close_timeout).start()
    port = hub.port
    with RawClient.connect(port=port):
        interrupt(hub, step, 1)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            hub.stop()
        assert time.monotonic() - began <= 10
    assert not is_listening(port)
    hub.stop()
    with hub, RawClient.connect(port=hub.port) as client:
        client.leave()


@pytest.mark.parametrize("step", STEPS)
def test_stop_interrupted_again_and_again_is_done_by_the_next(step: str) -> None:
    """At exit at the latest; also where another thread calls it."""
    from broadcast_server import BroadcastHub

    hub = BroadcastHub(port=0).start()
    port = hub.port
    interrupt(hub, step, 2)
    with pytest.raises(KeyboardInterrupt):
        hub.stop()
    stopper = threading.Thread(target=hub.stop)
    stopper.start()
    stopper.join(5)
    assert not stopper.is_alive()
    assert not is_listening(port)
    with hub, RawClient.connect(port=hub.port) as client:
        client.leave()


def test_hub_started_while_another_thread_ends_its_stop_is_not_taken_for_stopped() -> None:
    """Whoever waits for the end of the new run would go on at once."""
    from broadcast_server import BroadcastHub

    hub = BroadcastHub(port=0).start()
    starter = threading.Thread(target=hub.start)
    stopped = stopped_of(hub)
    real = stopped.set

    def set_late() -> None:
        under_lock = lock_of(hub).locked()
        starter.start()
        if not under_lock:
            starter.join(10)  # nothing keeps it from running to its end
        real()

    stopped.set = set_late  # type: ignore[method-assign]
    hub.stop()
    stopped.set = real  # type: ignore[method-assign]
    starter.join(10)
    assert hub.stats()["clients"] == 0
    assert not stopped.is_set()
    hub.stop()


def test_fan_out_that_outlives_the_stop_closes_its_descriptors() -> None:
    """Whoever of both is the last one does; until then the thread may use them."""
    entered, go_on = threading.Event(), threading.Event()

    def hold(connection: Any) -> None:
        entered.set()
        go_on.wait(20)

    before = descriptors()
    with running_hub(stop_timeout=0.0) as hub:
        fanout = fanout_of(hub)
        nobody: Any = None
        mailbox_of(fanout).post(hold, nobody)
        assert entered.wait(10)
        hub.stop()
        assert fanout.is_alive and len(descriptors()) > len(before)
        go_on.set()
        assert fanout.join(10)
    assert descriptors().keys() == before.keys()


def test_stopped_hub_says_so() -> None:
    """After stop(), and before start(), every call that needs a running hub is ``HubStopped``."""
    from broadcast_server import BroadcastHub, HubStopped

    def check(hub: BroadcastHub) -> None:
        for call in (
            lambda: hub.broadcast("x"),
            lambda: hub.send("c1", "x"),
            lambda: hub.disconnect("c1"),
        ):
            with pytest.raises(HubStopped):
                call()

    hub = BroadcastHub(port=0)
    check(hub)
    hub.start()
    hub.broadcast("x")
    hub.stop()
    check(hub)


def test_broadcast_during_stop_is_accepted_or_refused() -> None:
    """Threads that publish while the hub stops get a message or ``HubStopped``, nothing else."""
    from broadcast_server import HubStopped

    outcomes: list[BaseException] = []
    started = threading.Barrier(5)

    def publish(hub: BroadcastHub) -> None:
        started.wait(10)
        try:
            while True:
                hub.broadcast("x")
        except BaseException as error:
            outcomes.append(error)

    with running_hub() as hub:
        threads = [threading.Thread(target=publish, args=(hub,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        started.wait(10)
        hub.stop()
        for thread in threads:
            thread.join(10)
    assert [type(outcome) for outcome in outcomes] == [HubStopped] * 4


def test_serve_forever_returns_after_stop() -> None:
    """serve_forever() starts a hub that is not started, and blocks until it is stopped."""
    from broadcast_server import BroadcastHub

    hub = BroadcastHub(port=0)
    server = threading.Thread(target=hub.serve_forever)
    server.start()
    assert wait_until(lambda: is_listening(hub.port))
    with RawClient.connect(port=hub.port) as client:
        assert server.is_alive()
        stopper = threading.Thread(target=hub.stop)
        stopper.start()
        assert client.recv_close()[0] == 1001
    stopper.join(10)
    server.join(10)
    assert not server.is_alive()


def test_nobody_is_admitted_any_more() -> None:
    """While a stop waits for a slow reader, a newcomer gets 503 or no connection, never silence."""
    with running_hub(room_log_bytes=32 << 20, stop_timeout=10) as hub:
        port = hub.port
        with RawClient.connect(port=port, rcvbuf=4096) as slow:
            for _ in range(200):
                hub.broadcast(bytes(50_000))
            stopper = threading.Thread(target=hub.stop)
            stopper.start()
            refused: list[int | None] = []

            def try_to_join() -> bool:
                try:
                    RawClient.connect(port=port, timeout=2).close()
                    return False
                except HandshakeRefused as error:
                    refused.append(error.status)
                except (OSError, EOFError):
                    refused.append(None)
                return True

            assert wait_until(try_to_join)
            assert refused[-1] in (503, None)
            while slow.recv_frame()[1] != CLOSE:
                pass
            slow.close()
            stopper.join(10)
            assert not stopper.is_alive()


# -- Several hubs, and processes ---------------------------------------------------------------


def test_hubs_in_one_process_are_independent() -> None:
    """Stopping one leaves the other's clients alone."""
    with running_hub() as one, running_hub() as two:
        assert one.port != two.port
        with RawClient.connect(port=two.port, path="/?echo=1") as client:
            with RawClient.connect(port=one.port) as other:
                stopper = threading.Thread(target=one.stop)
                stopper.start()
                assert other.recv_close()[0] == 1001
            stopper.join(10)
            client.send("still here")
            assert client.recv_message() == "still here"
            client.leave()


def test_port_in_use_is_an_os_error() -> None:
    """start() on a port that is taken raises OSError and leaves nothing behind."""
    from broadcast_server import BroadcastHub

    with running_hub() as hub:
        second = BroadcastHub(port=hub.port)
        with pytest.raises(OSError):
            second.start()
        second.stop()


def test_forked_child_has_no_hub() -> None:
    """A fork has the object, but none of the threads: ``HubStopped``; the parent's goes on."""
    program = """
import os, sys
import broadcast_server
with broadcast_server.BroadcastHub(port=0) as hub:
    child = os.fork()
    if child == 0:
        try:
            hub.broadcast("x")
        except broadcast_server.HubStopped:
            hub.stop()  # nothing to do, and nothing to wait for
            os._exit(7)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7, status
    assert hub.broadcast("still mine").id
print("parent is well")
"""
    run_parent(program)


def test_forked_child_does_not_wait_for_a_lock_of_the_parent() -> None:
    """A thread that it does not have may hold it; and the object may have a hub of its own."""
    program = """
import os, signal, warnings
warnings.simplefilter("ignore")  # fork in a process with threads, and what that leaves: on purpose
import broadcast_server
from tests.support.inside import lock_of
with broadcast_server.BroadcastHub(port=0) as hub:
    with lock_of(hub):
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            hub.stop()  # nothing to do, and nothing to wait for
            hub.start()
            assert hub.broadcast("a hub of its own").id
            hub.stop()
            os._exit(7)
    _, status = os.waitpid(child, 0)
    assert status == 7 << 8, status
    assert hub.broadcast("still mine").id
print("parent is well")
"""
    run_parent(program)


def test_interpreter_ends_although_nobody_stopped_the_hub() -> None:
    """At exit a hub that still runs is stopped: the client is told, and the process ends with 0."""
    program = """
import broadcast_server
hub = broadcast_server.BroadcastHub(port=0, stop_timeout=2).start()
print(hub.port, flush=True)
input()
"""
    with subprocess.Popen(
        [PYTHON, "-c", program],
        env=python_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            with RawClient.connect(port=int(process.stdout.readline())) as client:
                client.sync()
                process.stdin.write("\n")
                process.stdin.flush()
                assert client.recv_close()[0] == 1001
                client.recv_eof()
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "", "")


# -- The user's code ---------------------------------------------------------------------------


def test_callbacks_that_raise_hurt_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Each exception is logged; the client, its room and its messages go on."""

    def fail(*arguments: object) -> None:
        raise RuntimeError(f"on purpose {len(arguments)}")

    with running_hub(on_message=fail, on_join=fail, on_leave=fail) as hub:
        with RawClient.connect(port=hub.port, path="/?echo=1") as client:
            for number in range(3):
                client.send(str(number))
                assert client.recv_message() == str(number)
            client.leave()
        # A join, three messages, a leave.
        assert wait_until(lambda: len(caplog.records) == 5), caplog.records
    for record in caplog.records:
        assert record.name.startswith("broadcast_server")
        assert record.exc_info is not None and "on purpose" in str(record.exc_info[1])


def test_callbacks_run_on_the_clients_thread_without_a_lock() -> None:
    """A callback may call every method of the hub, about itself and others."""
    results: list[Any] = []
    hubs: list[BroadcastHub] = []

    def on_join(member: Member) -> None:
        hub = hubs[0]
        results.append([other.id for other in hub.members(member.room)] == [member.id])
        results.append(hub.rooms() == [member.room])
        results.append(hub.send(member.id, "welcome"))

    def on_message(message: Message) -> None:
        hub = hubs[0]
        results.append(hub.broadcast("seen", message.room).data == "seen")
        assert message.sender is not None
        results.append(hub.disconnect(message.sender.id, 4002, "enough"))

    def on_leave(member: Member, code: int, reason: str) -> None:
        results.append(hubs[0].members(member.room) == [])
        results.append((code, reason) == (4002, "enough"))

    with running_hub(on_join=on_join, on_message=on_message, on_leave=on_leave) as hub:
        hubs.append(hub)
        with RawClient.connect(port=hub.port, path="/r") as client:
            assert client.recv_message() == "welcome"
            client.send("hello")
            assert client.recv_message() == "seen"
            assert client.recv_close() == (4002, "enough")
            client.recv_eof()
        assert wait_until(lambda: len(results) == 7)
    assert results == [True] * 7


def test_hanging_callback_holds_up_only_its_client() -> None:
    """While one client's callback hangs, the others talk, and its member list is true."""
    release = threading.Event()
    entered = threading.Event()

    def on_message(message: Message) -> None:
        if message.data == "hang":
            entered.set()
            release.wait(20)

    with running_hub(on_message=on_message, ping_interval=0.05, ping_timeout=0.05) as hub:
        with RawClient.connect(port=hub.port, path="/?name=hung") as hung:
            hung.send("hang")
            assert entered.wait(10)
            with RawClient.connect(port=hub.port, path="/b?echo=1") as client:
                client.send("alive")
                assert client.recv_frame()[1:] == (1, b"alive")
            # A reader held in a callback is not a dead client, however long it takes.
            began = time.monotonic()
            assert wait_until(lambda: time.monotonic() - began > 0.3)
            assert [member.name for member in hub.members()] == ["hung"]
            release.set()


def test_leave_callback_that_hangs_keeps_no_ghost() -> None:
    """Membership ends at once; the callback follows on the reader's thread."""
    release = threading.Event()
    with running_hub(on_leave=lambda *leave: release.wait(20)) as hub:
        with RawClient.connect(port=hub.port) as client:
            client.leave()
        assert wait_until(lambda: hub.members() == [] and hub.rooms() == [])
        with RawClient.connect(port=hub.port, path="/?echo=1") as client:
            client.send("x")
            assert client.recv_message() == "x"
            release.set()
            client.leave()


def test_http_is_answered_while_clients_talk(hub: BroadcastHub) -> None:
    """Plain requests and clients share the port."""
    with many_clients(hub.port, 5):
        for _ in range(3):
            raw = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            assert http_request(hub.port, raw).startswith(b"HTTP/1.1 200 ")


def test_descriptors_above_1024_work() -> None:
    """The hub waits with poll or epoll: ``select`` would break at descriptor 1024."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip("too few descriptors allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    fillers = [os.dup(0) for _ in range(1100)]
    try:
        with running_hub(room_log_bytes=16 << 20) as hub:
            with RawClient.connect(port=hub.port, rcvbuf=4096) as client:
                # More than the kernel takes: the fan-out must wait for this socket.
                for number in range(150):
                    hub.broadcast(struct.pack("!I", number) + bytes(50_000))
                for number in range(150):
                    data = client.recv_message()
                    assert isinstance(data, bytes) and data[:4] == struct.pack("!I", number)
                assert client.sock.fileno() > 1024
                client.leave()
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_slow_end_of_stream_is_not_a_reset() -> None:
    """A client in the middle of sending when the hub says goodbye still finds the goodbye."""
    with running_hub(stop_timeout=5) as hub:
        with RawClient.connect(port=hub.port) as client:
            stopper = threading.Thread(target=hub.stop)
            client.sock.sendall(client_frame(BINARY, bytes(100_000)))
            stopper.start()
            client.sock.sendall(client_frame(BINARY, bytes(500_000)))
            assert client.recv_close()[0] == 1001
            client.recv_eof()
            client.sock.shutdown(socket.SHUT_WR)
        stopper.join(10)
        assert not stopper.is_alive()
