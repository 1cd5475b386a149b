"""A Close that the hub sends first: the stream goes on until the client's own Close has come.

Firefox calls a connection not clean whose stream ends before it has answered (RFC 6455 §7.1.1).
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ..support import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    RawClient,
    client_frame,
    running_hub,
    wait_until,
)
from ..support.beside import during

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub

OFFER = ["Sec-WebSocket-Protocol: broadcast.v1.json"]
# None of the tests waits for these.
PATIENT = {"close_timeout": 60.0, "stop_timeout": 60.0}


def recv_until_close(client: RawClient) -> tuple[int, bytes]:
    """Read until Close and answer nothing; return its code and payload."""
    while True:
        _, opcode, payload = client.recv_frame()
        if opcode == CLOSE:
            return int.from_bytes(payload[:2], "big"), payload


def is_open(client: RawClient) -> bool:
    """Tell whether the hub's stream has not ended."""
    poll = select.poll()
    poll.register(client.sock, select.POLLIN)
    return not poll.poll(0) or client.sock.recv(1, socket.MSG_PEEK) != b""


def read_only(request: Any) -> Any:
    """Let everybody in for a moment, but let nobody write."""
    from broadcast_server import Grant

    if "short" in (request.token or ""):
        return Grant(expires=time.time() + 1.0)
    return Grant(publish=())


Act = Callable[["BroadcastHub", RawClient], object]
Begin = tuple[int, dict[str, Any], "list[str]", Act]


def send(data: bytes) -> Act:
    """Have the client send something."""
    return lambda hub, client: client.sock.sendall(data)


def disconnect(hub: BroadcastHub, client: RawClient) -> None:
    assert hub.disconnect(hub.members("/r")[0].id, 4001, "out")


def send_errors(hub: BroadcastHub, client: RawClient) -> None:
    for _ in range(10):
        client.send("no event")


def fall_behind(hub: BroadcastHub, client: RawClient) -> None:
    while not hub.stats()["evictions"]:
        hub.broadcast(bytes(100_000), "/r")


def resume_elsewhere(hub: BroadcastHub, client: RawClient) -> None:
    session = json.loads(client.recv_frame()[2])["session"]
    with RawClient.connect(port=hub.port, path=f"/r?session={session}", headers=OFFER) as newer:
        newer.recv_frame()


def stop(hub: BroadcastHub) -> None:
    hub.stop()


def restart(hub: BroadcastHub) -> None:
    hub.drain(restart=True)


def nothing(hub: BroadcastHub, client: RawClient) -> None:
    pass


# How a connection is ended by the hub: the code, settings, headers, and what brings it about.
BEGINS: dict[str, Begin] = {
    "disconnect": (4001, {}, [], disconnect),
    "token expired": (1008, {"authorize": read_only}, ["Authorization: Bearer short"], nothing),
    "may not write": (1008, {"authorize": read_only}, [], send(client_frame(TEXT, "x"))),
    "too many errors": (1008, {}, OFFER, send_errors),
    "newer session": (1008, {}, OFFER, resume_elsewhere),
    "ping timeout": (1011, {"ping_interval": 1.0, "ping_timeout": 0.2}, [], nothing),
    "too slow": (1013, {"room_log_bytes": 4 << 20}, [], fall_behind),
    "too big": (1009, {"max_message_bytes": 10}, [], send(client_frame(BINARY, bytes(20_000)))),
    "too many fragments": (
        1009,
        {"max_fragments": 2},
        [],
        send(client_frame(TEXT, "a", fin=False) + 9 * client_frame(0, "b", fin=False)),
    ),
    "not UTF-8": (1007, {}, [], send(client_frame(TEXT, b"ab\xff") + client_frame(TEXT, "c"))),
    "not UTF-8 in an answer": (1007, {}, [], send(client_frame(TEXT, b"\xe2\x82"))),
    "reserved bits": (1002, {}, [], send(client_frame(TEXT, "x", rsv=4))),
    "unknown opcode": (1002, {}, [], send(client_frame(5, "x"))),
    "not masked": (1002, {}, [], send(client_frame(TEXT, "x", mask=False))),
    "long ping": (1002, {}, [], send(client_frame(PING, bytes(300)))),
    "stop": (1001, {}, [], nothing),
    "restart": (1012, {}, [], nothing),
}


@contextlib.contextmanager
def ending(begin: str) -> Iterator[tuple[BroadcastHub, RawClient, int, bytes]]:
    """A client that the hub has sent a Close, which it does not answer; the code and the payload.
    Whatever the hub does with it next it has done already."""
    code, settings, headers, act = BEGINS[begin]
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(running_hub(**PATIENT | settings))
        client = RawClient.connect(port=hub.port, path="/r", headers=headers, rcvbuf=4096)
        stack.enter_context(client)
        if begin in ("stop", "restart"):
            other = stack.enter_context(RawClient.connect(port=hub.port, path="/other"))
            stack.enter_context(during(stop if begin == "stop" else restart, hub))
            stack.callback(client.close)  # first: the hub waits for it
        else:
            act(hub, client)
        found, payload = recv_until_close(client)
        assert found == code
        if begin in ("stop", "restart"):
            other.recv_close()  # told after it
            other.close()
        else:
            with RawClient.connect(port=hub.port, path="/other", headers=headers) as other:
                other.send_frame(PING, b"now")
                while other.recv_frame()[1:] != (PONG, b"now"):
                    pass  # served by the same thread, after it
        yield hub, client, code, payload


@pytest.mark.parametrize("begin", BEGINS)
def test_stream_does_not_end_before_the_answer(begin: str) -> None:
    """Then it does, although the client leaves its own side open."""
    with ending(begin) as (_, client, _, payload):
        assert is_open(client)
        client.send_frame(CLOSE, payload[:2])
        client.recv_eof()


@pytest.mark.parametrize("piece", [1, 3, 1000])
@pytest.mark.parametrize("begin", ["disconnect", "too big", "not UTF-8", "reserved bits"])
def test_answer_is_found_behind_what_was_on_its_way(begin: str, piece: int) -> None:
    """A client goes on sending until it has read the Close, and the answer comes in any pieces."""
    late = client_frame(TEXT, "late") + client_frame(BINARY, bytes(300)) + client_frame(PING, b"?")
    with ending(begin) as (_, client, _, payload):
        answer = late + client_frame(CLOSE, payload[:2])
        for start in range(0, len(answer), piece):
            client.sock.sendall(answer[start : start + piece])
        client.recv_eof()


def test_close_that_crosses_that_of_the_hub_counts() -> None:
    """Neither is an answer; both ends have closed all the same."""
    with ending("disconnect") as (_, client, _, _):
        client.send_frame(CLOSE, struct.pack("!H", 1000) + b"mine")
        client.recv_eof()


def test_close_behind_a_breach_in_one_packet_counts() -> None:
    """The hub's Close comes after it, and nothing more is to be waited for."""
    with running_hub(**PATIENT) as hub, RawClient.connect(port=hub.port, path="/r") as client:
        breach = client_frame(TEXT, b"\xff") + client_frame(CLOSE, struct.pack("!H", 1000))
        client.sock.sendall(breach)
        assert client.recv_frame()[2][:2] == struct.pack("!H", 1007)
        client.recv_eof()


def test_close_that_is_wrong_itself_counts() -> None:
    """It gets 1002, and the end."""
    with running_hub(**PATIENT) as hub, RawClient.connect(port=hub.port, path="/r") as client:
        client.sock.sendall(client_frame(CLOSE, struct.pack("!H", 1005)))
        assert client.recv_frame()[2][:2] == struct.pack("!H", 1002)
        client.recv_eof()


def test_stream_of_a_client_that_never_answers_ends_after_close_timeout() -> None:
    """As one that waits for the end of the stream, and knows nothing of the closing handshake."""
    with (
        running_hub(close_timeout=0.2) as hub,
        RawClient.connect(port=hub.port, path="/r") as client,
    ):
        hub.disconnect(hub.members("/r")[0].id)
        recv_until_close(client)
        client.recv_eof()
        assert wait_until(lambda: hub.stats()["clients"] == 0)


def test_stream_of_events_ends_at_once() -> None:
    """Its end is all that tells a reader that it is over."""
    with running_hub(**PATIENT) as hub, RawClient.open(port=hub.port) as reader:
        request = b"GET /r HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
        reader.sock.sendall(request)
        assert wait_until(lambda: len(hub.members("/r")) == 1)
        hub.disconnect(hub.members("/r")[0].id)
        while reader.sock.recv(65536):
            pass
