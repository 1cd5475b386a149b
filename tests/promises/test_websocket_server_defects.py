"""What websocket-server 0.6.4 does wrong, one test for each: the hub is built on it and must not.

The list is the one in docs/topics/dependencies.md. Some of it is tested in more depth elsewhere
(test_raw_protocol.py, test_handshake.py, test_delivery.py, test_shutdown.py); here each defect has
the shortest test that would show it.
"""

from __future__ import annotations

import os
import pathlib
import socket
import struct
import threading
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
    descriptors,
    http_request,
    run_python,
    running_hub,
    thread_count,
    wait_until,
)
from ..support.hub_process import hub_process

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub, Member


# -- Writing -----------------------------------------------------------------------------------


def test_large_message_is_not_cut_by_a_partial_send() -> None:
    """Its ``send`` result is ignored there: what a full socket does not take is lost."""
    size = 20_000_000
    with running_hub(max_message_bytes=size, room_log_bytes=4 * size) as hub:
        with RawClient.connect(port=hub.port, rcvbuf=4096) as client:
            payload = os.urandom(size)
            hub.broadcast(payload)
            hub.broadcast("next")
            assert client.recv_message() == payload
            assert client.recv_message() == "next"
            client.leave()


def test_client_that_does_not_read_stops_nobody() -> None:
    """``send_message_to_all`` never returns there once one client's buffers are full."""
    payload = bytes(50_000)
    with running_hub(max_message_bytes=50_000, room_log_bytes=400_000) as hub:
        with RawClient.connect(port=hub.port, rcvbuf=4096):
            with RawClient.connect(port=hub.port) as other:
                for _ in range(200):
                    hub.broadcast(payload)
                    assert other.recv_message() == payload


def test_dead_client_stops_nobody(hub: BroadcastHub) -> None:
    """One ``BrokenPipeError`` ends the loop there, and all later clients get nothing."""
    dead = [RawClient.connect(port=hub.port) for _ in range(5)]
    with RawClient.connect(port=hub.port) as other:
        for client in dead:
            client.reset()
            hub.broadcast("still here?")
            assert other.recv_message() == "still here?"
        assert wait_until(lambda: len(hub.members()) == 1)


# -- Reading -----------------------------------------------------------------------------------


def test_fragments_are_joined(hub: BroadcastHub) -> None:
    """A continuation frame is "not supported" there, and its payload stays in the stream."""
    with RawClient.connect(port=hub.port, path="/?echo=1") as client:
        client.send_frame(TEXT, "one ", fin=False)
        client.send_frame(CONTINUATION, "message")
        assert client.recv_message() == "one message"


def test_binary_is_relayed(hub: BroadcastHub) -> None:
    """A binary frame is dropped there without reading its payload: what follows is misread."""
    with RawClient.connect(port=hub.port, path="/?echo=1") as client:
        client.send(bytes(range(256)))
        client.send("in step")
        assert client.recv_message() == bytes(range(256))
        assert client.recv_message() == "in step"


def test_claimed_length_reserves_no_memory() -> None:
    """``rfile.read(n)`` there reserves what a header claims: 8 GiB asked for, 8 GiB taken."""
    limit = 256 << 20
    with hub_process(
        max_message_bytes=limit, room_log_bytes=4 * limit, total_log_bytes=4 * limit
    ) as (process, url):
        port = int(url.rstrip("/").rpartition(":")[2])
        before = virtual_bytes(process.pid)
        clients = [RawClient.connect(port=port) for _ in range(10)]
        try:
            for client in clients:
                client.sock.sendall(client_frame(BINARY, b"x", claimed=limit))
            with RawClient.connect(port=port) as huge:
                huge.sock.sendall(client_frame(BINARY, b"", claimed=1 << 63))
                assert huge.recv_close()[0] == 1002
            with RawClient.connect(port=port) as huge:
                huge.sock.sendall(client_frame(BINARY, b"", claimed=limit + 1))
                assert huge.recv_close()[0] == 1009
            # Threads have address space of their own, 8 MiB of stack and up to 64 MiB of heap each.
            grown = virtual_bytes(process.pid) - before
            assert grown < 10 * limit / 2
        finally:
            for client in clients:
                client.close()


def virtual_bytes(pid: int) -> int:
    """Return the address space of a process (VmSize)."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmSize:")[2].split()[0]) * 1024


def test_invalid_utf8_is_1007(hub: BroadcastHub) -> None:
    """The ``UnicodeDecodeError`` kills the client's thread there, without a Close."""
    with RawClient.connect(port=hub.port) as client:
        client.send_frame(TEXT, b"\xff")
        assert client.recv_close()[0] == 1007
        client.recv_eof()


def test_ping_payload_may_be_binary(hub: BroadcastHub) -> None:
    """A ping's payload is decoded as text there."""
    with RawClient.connect(port=hub.port) as client:
        client.send_frame(PING, b"\xff\x00\xfe")
        assert client.recv_frame() == (True, PONG, b"\xff\x00\xfe")


def test_close_is_echoed(hub: BroadcastHub) -> None:
    """A Close just ends the TCP connection there."""
    with RawClient.connect(port=hub.port) as client:
        client.send_close(1000)
        assert client.recv_frame() == (True, CLOSE, struct.pack("!H", 1000))
        client.recv_eof()


@pytest.mark.parametrize("code", [1000, 1008, 1013, 3000, 4000, 4999])
def test_application_close_codes_may_be_sent(hub: BroadcastHub, code: int) -> None:
    """``send_close`` refuses 4000 to 4999 there, which RFC 6455 §7.4.2 gives to applications."""
    with RawClient.connect(port=hub.port) as client:
        client.sync()
        (member,) = hub.members()
        assert hub.disconnect(member.id, code, "bye")
        assert client.recv_close() == (code, "bye")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, -1])
def test_reserved_close_codes_may_not_be_sent(hub: BroadcastHub, code: int) -> None:
    """``send_close`` allows 1005, 1006 and 1015 there, which never travel."""
    with RawClient.connect(port=hub.port) as client:
        client.sync()
        (member,) = hub.members()
        with pytest.raises(ValueError):
            hub.disconnect(member.id, code)
        client.sync()  # untouched


# -- Before the upgrade ------------------------------------------------------------------------


def test_silent_connection_holds_no_thread_for_ever() -> None:
    """There is no time-out there: a connection that says nothing keeps its thread."""
    with running_hub(handshake_timeout=0.2) as hub:
        before = thread_count()
        silent = [RawClient.open(port=hub.port) for _ in range(5)]
        assert wait_until(lambda: thread_count() > before)
        assert wait_until(lambda: thread_count() <= before)
        for client in silent:
            client.close()


def test_plain_get_is_answered(capfd: pytest.CaptureFixture[str]) -> None:
    """There it is a ``KeyError`` on stderr, no answer, and ``client_left(None)``."""
    calls: list[Any] = []
    with running_hub(on_join=calls.append, on_leave=lambda *leave: calls.append(leave)) as hub:
        answer = http_request(hub.port, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
    assert calls == []
    assert capfd.readouterr() == ("", "")


def test_header_lines_are_bounded(hub: BroadcastHub) -> None:
    """Header lines are read without a bound there."""
    with RawClient.open(port=hub.port) as client:
        client.sock.sendall(b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000)
        assert client.recv_exact(12) == b"HTTP/1.1 431"


# -- The list of clients -----------------------------------------------------------------------


def test_client_list_is_true_under_concurrency() -> None:
    """The list and the counter have no lock there: ids repeat, and ghosts stay."""
    lock = threading.Lock()
    joined: list[Member] = []
    left: list[Member] = []

    def on_join(member: Member) -> None:
        with lock:
            joined.append(member)

    def on_leave(member: Member, code: int, reason: str) -> None:
        with lock:
            left.append(member)

    def come_and_go(port: int, worker: int) -> None:
        for round_number in range(10):
            client = RawClient.connect(port=port, path=f"/{worker % 3}")
            client.send("hello")
            if round_number % 3 == 0:
                client.reset()
            elif round_number % 3 == 1:
                client.close()
            else:
                client.send_close()
                while client.recv_frame()[1] != CLOSE:
                    pass
                client.close()

    with running_hub(on_join=on_join, on_leave=on_leave) as hub:
        workers = [
            threading.Thread(target=come_and_go, args=(hub.port, worker)) for worker in range(12)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        # A connection that is reset at once may never have joined.
        assert wait_until(lambda: hub.stats()["clients"] == 0 and len(left) == len(joined))
        assert hub.rooms() == [] and hub.members("/0") == []
    assert 80 <= len(joined) <= 120
    assert len({member.id for member in joined}) == len(joined)
    assert sorted(member.id for member in left) == sorted(member.id for member in joined)


def test_two_hubs_share_nothing() -> None:
    """List and counter are attributes of the class there, until the first assignment."""
    with running_hub() as one, running_hub() as two:
        with RawClient.connect(port=one.port) as first, RawClient.connect(port=two.port) as second:
            assert len(one.members()) == len(two.members()) == 1
            one.broadcast("one")
            two.broadcast("two")
            assert (first.recv_message(), second.recv_message()) == ("one", "two")


# -- Starting and stopping ---------------------------------------------------------------------


def test_stop_closes_every_client() -> None:
    """``disconnect_clients_gracefully`` changes the list it iterates: half of the clients stay."""
    with running_hub() as hub:
        clients = [RawClient.connect(port=hub.port) for _ in range(30)]
        stopper = threading.Thread(target=hub.stop)
        stopper.start()
        for client in clients:
            assert client.recv_close()[0] == 1001
            client.recv_eof()
            client.close()
        stopper.join()


def test_stop_before_start_returns() -> None:
    """``shutdown_gracefully`` before ``run_forever`` hangs there."""
    from broadcast_server import BroadcastHub

    hub = BroadcastHub(port=0)
    hub.stop()
    hub.stop()


def test_serving_does_not_exit_the_process() -> None:
    """``run_forever`` may call ``sys.exit`` there."""
    from broadcast_server import BroadcastHub

    hub = BroadcastHub(port=0)
    ended: list[BaseException | None] = []

    def serve() -> None:
        try:
            hub.serve_forever()
        except BaseException as error:
            ended.append(error)
        else:
            ended.append(None)

    server = threading.Thread(target=serve)
    server.start()
    assert wait_until(lambda: hub.port != 0)
    with RawClient.connect(port=hub.port):
        hub.stop()
    server.join(5)
    assert ended == [None]


def test_ipv6_works() -> None:
    """The socket's family is fixed to IPv4 there."""
    with running_hub(host="::1") as hub:
        assert hub.url == f"ws://[::1]:{hub.port}/"
        with RawClient.connect("::1", hub.port) as client:
            (member,) = hub.members()
            assert member.address.startswith("[::1]:")
            client.leave()


def test_listen_backlog_is_long(hub: BroadcastHub) -> None:
    """It is 5 there: of many that connect at once most wait for a retransmission."""
    backlogs = []
    for number, what in descriptors().items():
        if what.startswith("socket:"):
            with socket.socket(fileno=os.dup(number)) as sock:
                if (
                    sock.family == socket.AF_INET
                    and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                    and sock.getsockname()[1] == hub.port
                ):
                    # tcpi_sacked of a listening socket is the length that its queue may have.
                    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
                    backlogs.append(struct.unpack_from("=I", info, 28)[0])
    assert len(backlogs) == 1
    assert backlogs[0] >= 128


def test_import_leaves_the_root_logger_alone() -> None:
    """The import runs ``logging.basicConfig()`` there; whoever imports us must not see it."""
    program = (
        "import logging, broadcast_server\n"
        "with broadcast_server.BroadcastHub(port=0): pass\n"
        "root = logging.getLogger()\n"
        "print(root.handlers, root.level == logging.WARNING)\n"
        "print([name for name in logging.root.manager.loggerDict"
        " if name.startswith('broadcast') and getattr("
        "logging.root.manager.loggerDict[name], 'handlers', None)])"
    )
    finished = run_python(program)
    assert (finished.stdout, finished.stderr) == ("[] True\n[]\n", "")
