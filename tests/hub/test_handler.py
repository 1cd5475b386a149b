"""One client's session on its reader thread: its buffers, joining, the callbacks."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from broadcast_server import BroadcastHub, Member
from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.handler import MAX_RECV_BYTES, MIN_RECV_BYTES, HubHandler

from ..support import BINARY, HandshakeRefused, RawClient, client_frame, running_hub, wait_until
from ..support.inside import fanout_of, mailbox_of, receive_bytes, server_of

SECONDS = 10.0


def handler_of(hub: BroadcastHub) -> HubHandler:
    """Return the newest client's session."""
    handler: HubHandler = server_of(hub).clients[-1]["handler"]
    return handler


def test_receive_buffer_grows_with_what_comes_and_shrinks_again(hub: BroadcastHub) -> None:
    """An idle client pays for the small one."""
    with RawClient.connect(port=hub.port) as client:
        client.sync()
        handler = handler_of(hub)
        assert receive_bytes(handler) == MIN_RECV_BYTES
        frame = client_frame(BINARY, bytes(600))
        client.sock.sendall(frame[:MIN_RECV_BYTES])
        assert wait_until(lambda: receive_bytes(handler) == MAX_RECV_BYTES)
        client.sock.sendall(frame[MIN_RECV_BYTES:])
        assert wait_until(lambda: receive_bytes(handler) == MIN_RECV_BYTES)
        assert wait_until(lambda: hub.stats()["messages"] == 1)


def test_refused_join_is_off_the_list_and_may_be_tried_again(hub: BroadcastHub) -> None:
    """410 leaves the connection open; the next request on it may join, and is one client."""
    with RawClient.open(port=hub.port) as client:
        with pytest.raises(HandshakeRefused) as refused:
            client.upgrade("/?since=99999999999999-0")
        assert refused.value.status == 410
        length = client.header("Content-Length")
        assert length is not None
        client.recv_exact(int(length))
        assert hub.stats()["clients"] == 0
        client.upgrade("/")
        client.sync()
        assert hub.stats()["clients"] == len(hub.members("/")) == 1
        client.leave()
    assert wait_until(lambda: hub.stats()["clients"] == 0)


def test_callbacks_come_in_the_order_of_a_clients_life() -> None:
    """Join, then its messages, then leave, with the code that the peer sent."""
    events: list[tuple[Any, ...]] = []
    with running_hub(
        on_join=lambda member: events.append(("join", member.name)),
        on_message=lambda message: events.append((message.data, message.sender.name)),
        on_leave=lambda member, code, reason: events.append(("leave", member.name, code, reason)),
    ) as hub:
        with RawClient.connect(port=hub.port, path="/?name=ann") as client:
            client.send("a")
            client.send(b"b")
            client.send_close(4000, "enough")
            assert client.recv_close() == (4000, "enough")
            client.recv_eof()
        assert wait_until(lambda: len(events) == 4)
    assert events == [
        ("join", "ann"),
        ("a", "ann"),
        (b"b", "ann"),
        ("leave", "ann", 4000, "enough"),
    ]


def test_client_that_has_left_is_no_member_while_the_fan_out_is_busy() -> None:
    """``on_leave`` does not find its client in the room, whatever the fan-out has to do first."""
    found: list[list[Member]] = []
    held, gate, left = threading.Event(), threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        held.set()
        gate.wait(SECONDS)

    def look(*_: object) -> None:
        found.append(hub.members())
        left.set()

    with running_hub(on_leave=look) as hub, RawClient.connect(port=hub.port) as client:
        client.sync()
        connection = handler_of(hub).client
        assert connection is not None
        assert len(hub.members()) == 1
        mailbox_of(fanout_of(hub)).post(hold, connection)
        try:
            assert held.wait(SECONDS)
            client.reset()
            assert left.wait(SECONDS)
        finally:
            gate.set()
    assert found == [[]]


def test_client_that_is_cut_off_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that is shut down still gives what the peer goes on sending."""
    monkeypatch.setattr(Connection, "abort", lambda self: None)  # as if there always were more
    with running_hub(close_timeout=0.1) as hub, RawClient.connect(port=hub.port) as client:
        client.sync()
        connection = handler_of(hub).client
        assert connection is not None
        assert hub.disconnect(connection.member.id)
        assert client.recv_close()[0] == 1000
        assert wait_until(lambda: connection.dropped)
        client.send("more")
        assert wait_until(lambda: hub.stats()["clients"] == 0)
