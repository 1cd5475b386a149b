"""``BroadcastClient``: what it sends, takes, refuses, and how it ends."""

from __future__ import annotations

import contextlib
import datetime
import socket
import struct
import threading
from typing import Any

import pytest

from broadcast_server import (
    BroadcastClient,
    ConnectFailed,
    ConnectionClosed,
    Gap,
    Member,
    Message,
    MessagesLost,
    Presence,
    ProtocolError,
    SendRefused,
    UsageError,
)
from broadcast_server.client import dialer, handshake, queues
from broadcast_server.client.link import MAX_PONGS

from ..support import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, running_hub, wait_until
from ..support.beside import in_thread
from ..support.inside import client_core_of, close_position, link_of
from ..support.raw_server import (
    SECONDS,
    SUBPROTOCOL,
    connected_pair,
    event_pair,
    limit_buffers,
    listener,
)


def stall(client: BroadcastClient) -> bytes:
    """Send big messages until the connection takes no more; return one of them."""
    data = bytes(1 << 19)
    with pytest.raises(TimeoutError):
        while True:
            client.send(data, timeout=0.2)
    return data


# -- With a hub --------------------------------------------------------------------------------


def test_what_one_sends_the_others_get() -> None:
    """Text is text and bytes are bytes, and the sender does not hear itself."""
    with running_hub() as hub:
        url = f"{hub.url}scores"
        with BroadcastClient(url) as ann, BroadcastClient(url) as bob, BroadcastClient(url) as eve:
            for data in ("1:0", b"\x00\xff", "", b"", "ü" * 100_000, bytes(1 << 20)):
                ann.send(data)
                for other in (bob, eve):
                    message = other.recv(timeout=SECONDS)
                    assert (message.data, message.room) == (data, "/scores")
            bob.send("for ann")
            assert ann.recv(timeout=SECONDS).data == "for ann"


def test_message_tells_when_it_came_and_no_more_than_the_wire_does() -> None:
    """The hub's own messages have an id and a time, and no sender."""
    with running_hub() as hub, BroadcastClient(f"{hub.url}a%20b") as client:
        sent = hub.broadcast("x", room="/a b")
        assert client.recv(timeout=SECONDS) == sent


def test_name_and_query_reach_the_hub() -> None:
    """A name is quoted, and a query that is there stays."""
    joined: list[Any] = []
    with running_hub(on_join=joined.append) as hub:
        with BroadcastClient(f"{hub.url}?echo=1", name="Änne & co") as client:
            client.send("back")
            assert client.recv(timeout=SECONDS).data == "back"
        assert [member.name for member in joined] == ["Änne & co"]


def test_close_says_that_all_was_accepted() -> None:
    """When it returns True the hub has passed every message to its callback."""
    seen: list[Any] = []
    with running_hub(on_message=seen.append, max_rate=0) as hub:
        client = BroadcastClient(hub.url).connect()
        for number in range(5000):
            client.send(str(number))
        assert client.close() is True
        assert [message.data for message in seen] == [str(number) for number in range(5000)]
        assert (client.close_code, client.closed, client.timed_out) == (1000, True, False)


def test_iteration_ends_quietly_when_the_hub_stops() -> None:
    """1001 is a goodbye; what came before it is still there."""
    with running_hub() as hub:
        client = BroadcastClient(hub.url, reconnect=False).connect()
        for number in range(3):
            hub.broadcast(str(number))
        hub.stop()
        assert [message.data for message in client] == ["0", "1", "2"]
        assert client.close_code == 1001
        assert client.close() is False


def test_refused_upgrade_has_its_status() -> None:
    """The text is for people and the status for programs."""
    with running_hub(max_clients=1) as hub, BroadcastClient(hub.url):
        with pytest.raises(ConnectFailed, match="HTTP status 503") as caught:
            BroadcastClient(hub.url).connect()
        assert (caught.value.status, caught.value.retry_after) == (503, 5.0)


def test_many_threads_send_and_receive_through_one_client() -> None:
    """Each message is sent once and received by one of the threads."""
    with running_hub(max_rate=0) as hub, BroadcastClient(f"{hub.url}?echo=1") as client:
        got: list[str | bytes] = []

        def send(sender: int) -> None:
            for number in range(200):
                client.send(f"{sender} {number}")

        def receive() -> None:
            for _ in range(200):
                got.append(client.recv(timeout=SECONDS).data)

        calls = [in_thread(send, sender) for sender in range(4)]
        calls += [in_thread(receive) for _ in range(4)]
        for call in calls:
            call.result(SECONDS)
        assert sorted(got) == sorted(f"{s} {n}" for s in range(4) for n in range(200))


# -- Connecting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "h", "localhost:8765", "http://h/", "ws://", "ws:///x", "ws://h:0/", "ws://h:x/",
     "ws://h:70000/", "ws://h/a b", "ws://h/\x1b[2J", "ws://\u00fc..x/"],
)  # fmt: skip
def test_url_that_cannot_be_one_is_refused(url: str) -> None:
    """What is not an address is told before a connection is tried."""
    with pytest.raises(UsageError):
        BroadcastClient(url)


def test_url_is_made_ascii() -> None:
    """A host becomes IDNA, a path and a query are quoted, and what is quoted stays so."""
    client = BroadcastClient("ws://b\u00fccher.example/\u00fc%20x?a=\u00e4", name="a/b")
    assert client.url == "ws://xn--bcher-kva.example/%C3%BC%20x?a=%C3%A4&name=a%2Fb"


def test_header_lines_are_sent_and_cannot_be_two() -> None:
    """Extra lines reach the server; no origin is claimed, since we are no browser."""
    with pytest.raises(UsageError, match="control character"):
        BroadcastClient("ws://h/", headers={"X-A": "1\r\nX-B: 2"})
    with connected_pair(headers={"X-Token": "secret"}) as (client, server):
        assert "\r\nX-Token: secret\r\n" in server.head
        assert "Origin" not in server.head
        in_thread(server.accept_close)
        assert client.close() is True


def test_closed_port_is_connect_failed() -> None:
    """The reason is the system's, and there is no status."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        client = BroadcastClient(f"ws://127.0.0.1:{bound.getsockname()[1]}/")
        with pytest.raises(ConnectFailed, match="refused") as caught:
            client.connect()
        assert caught.value.status is None
        with pytest.raises(ConnectFailed):  # it may try again
            client.connect()


@pytest.mark.parametrize(
    "answer",
    [b"", b"\r\n\r\n", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\xff" * 100,
     b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
     b"Sec-WebSocket-Accept: wrong\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_websocket_server_is_connect_failed(answer: bytes) -> None:
    """Whatever answers: one exception."""
    with listener() as listening:

        def serve() -> None:
            sock, _ = listening.read_head()
            with sock:
                sock.sendall(answer)

        served = in_thread(serve)
        with pytest.raises(ConnectFailed, match="cannot connect"):
            BroadcastClient(listening.url).connect()
        served.result(SECONDS)


@pytest.mark.parametrize("drip", [False, True])
def test_server_that_does_not_answer_is_given_up(drip: bool) -> None:
    """Neither silence nor a header that comes byte by byte holds up longer than the time-out."""
    done = threading.Event()
    with listener() as listening:

        def serve() -> None:
            sock, _ = listening.read_head()
            with sock:
                while drip and not done.wait(0.05):
                    sock.send(b"H")
                done.wait(SECONDS)

        served = in_thread(serve)
        try:
            with pytest.raises(ConnectFailed, match=r"no answer in 0\.3 s"):
                BroadcastClient(listening.url, open_timeout=0.3).connect()
        finally:
            done.set()
        served.exception(SECONDS)  # a broken pipe, if it was cut while it dripped


def test_answer_without_an_end_is_given_up() -> None:
    """Who has mistaken a film for a hub does not get it into its memory."""
    with listener() as listening:

        def serve() -> int:
            sock, _ = listening.read_head()
            sent = 0
            with sock, contextlib.suppress(OSError):
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")
                while True:
                    sent += sock.send(bytes(1 << 16))
            return sent

        served = in_thread(serve)
        with pytest.raises(ConnectFailed, match="its answer has no end"):
            BroadcastClient(listening.url, open_timeout=1000.0).connect()
        assert served.result(SECONDS) < 100 * handshake.MAX_BODY_BYTES


def test_client_connects_once() -> None:
    """A second connect(), or one after close(), is the caller's mistake."""
    with running_hub() as hub:
        with BroadcastClient(hub.url) as client, pytest.raises(UsageError):
            client.connect()
        unused = BroadcastClient(hub.url)
        assert unused.close() is False
        with pytest.raises(UsageError):
            unused.connect()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OverflowError])
def test_client_whose_connecting_failed_may_try_again(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was: Ctrl-C while a name is looked up, or no thread to be had."""

    def fail(*_: object) -> None:
        raise error

    with running_hub() as hub:
        client = BroadcastClient(hub.url)
        with monkeypatch.context() as patch:
            patch.setattr(dialer.Dialing, "dial", fail)
            with pytest.raises(error):
                client.connect()
        with client:
            assert [member.room for member in hub.members()] == ["/"]


def test_client_may_wait_for_ever_to_connect() -> None:
    """As long as the system can wait."""
    with running_hub() as hub, BroadcastClient(hub.url, open_timeout=float("inf")):
        assert len(hub.members()) == 1


def test_connection_cut_in_the_moment_of_success_is_connect_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who closes wins; a client with a dead socket would be of no use."""
    connect = dialer.websocket.WebSocket.connect

    def connect_late(self: Any, *arguments: Any, **options: Any) -> None:
        connect(self, *arguments, **options)
        client.close()

    with running_hub() as hub:
        client = BroadcastClient(hub.url)
        monkeypatch.setattr(dialer.websocket.WebSocket, "connect", connect_late)
        with pytest.raises(ConnectFailed, match="closed while it connected"):
            client.connect()
        assert wait_until(lambda: not hub.members())


def test_use_before_connecting_is_connection_closed() -> None:
    """There is nothing to send to or to receive from."""
    client = BroadcastClient("ws://127.0.0.1:1/")
    with pytest.raises(ConnectionClosed, match="not connected"):
        client.send("x")
    with pytest.raises(ConnectionClosed, match="not connected"):
        client.recv()


# -- Sending -----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536, 1 << 20])
def test_frames_are_whole_and_masked(length: int) -> None:
    """One frame a message, whatever its length."""
    with connected_pair() as (client, server):
        client.send(b"x" * length)
        client.send("y" * length)
        assert server.recv_frame() == (BINARY, b"x" * length)
        assert server.recv_frame() == (TEXT, b"y" * length)


def test_what_is_no_message_is_refused() -> None:
    """Other types, and text that UTF-8 cannot carry; the connection goes on."""
    with connected_pair() as (client, server):
        for data in (1, None, bytearray(b"x"), ["x"]):
            with pytest.raises(TypeError):
                client.send(data)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="surrogate"):
            client.send("\ud800")
        client.send("fine")
        assert server.recv_frame() == (TEXT, b"fine")


def test_send_waits_for_room_and_no_longer_than_its_timeout() -> None:
    """A peer that does not read holds the sender up; when it reads, all arrives in order."""
    with connected_pair() as (client, server):
        data = stall(client)
        waiting = in_thread(client.send, "last")
        received = 0
        while (frame := server.recv_frame()) != (TEXT, b"last"):
            assert frame == (BINARY, data)
            received += 1
        waiting.result(SECONDS)
        assert received >= 2


def test_send_that_waits_ends_with_the_connection() -> None:
    """Nobody waits for room in a queue that will never be sent."""
    with connected_pair() as (client, server):
        stall(client)
        waiting = in_thread(client.send, "x")
        server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.sock.close()
        with pytest.raises(ConnectionClosed):
            waiting.result(SECONDS)


def test_message_that_is_sent_while_it_connects_is_refused_or_right() -> None:
    """Before a connection is there nobody knows whether it speaks events: nothing is queued.

    A message that was encoded for a plain server would reach a hub as nonsense, and be lost.
    """
    with listener() as listening:
        client = BroadcastClient(listening.url)

        class Slow(str):
            def encode(self, *_: str) -> bytes:
                serving = in_thread(listening.accept_events)
                client.connect()
                servers.append(serving.result(SECONDS))
                return b"encoded too early"

        servers = []
        with pytest.raises(ConnectionClosed, match="not connected"):
            client.send(Slow("x"))
        assert servers == []
        serving = in_thread(listening.accept_events)
        client.connect()
        server = serving.result(SECONDS)
        with server.sock:
            client.send("y")
            assert server.recv_event()["data"] == "y"
        client.close(timeout=0)


def test_send_that_wants_no_answer_waits_although_nobody_receives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without reconnecting there are no acknowledgements to wait for: only the hub's reading."""
    monkeypatch.setattr(queues, "READ_AHEAD_BYTES", 10_000)
    with event_pair(reconnect=False, close_timeout=0.05) as (client, server, _):
        for number in range(1, 41):
            server.message(number, "x" * 500)
        assert wait_until(lambda: client_core_of(client).inbox.stalled_seconds() > 0.05)
        with pytest.raises(TimeoutError, match=r"the peer does not take the messages in time"):
            while True:
                client.send(bytes(1 << 19), timeout=0.2)
        waiting = in_thread(client.send, "last")
        while server.recv_event().get("data") != "last":
            pass
        waiting.result(SECONDS)


# -- Receiving ---------------------------------------------------------------------------------


def test_fragments_are_joined_with_control_frames_between() -> None:
    """A ping inside a message is answered before the message is whole (RFC 6455 §5.4)."""
    with connected_pair() as (client, server):
        server.send_frame(TEXT, "\u00fc".encode()[:1], fin=False)
        server.ping(b"between")
        server.send_frame(CONTINUATION, "\u00fc".encode()[1:], fin=False)
        server.send_frame(CONTINUATION, "!")
        assert client.recv(timeout=SECONDS).data == "\u00fc!"


def test_pings_are_answered_in_order() -> None:
    """Each one, as long as they do not come in masses."""
    with connected_pair() as (_client, server):
        for number in range(20):
            server.send_frame(PING, str(number))
        for number in range(20):
            assert server.recv_frame() == (PONG, str(number).encode())


def test_flood_of_pings_is_not_queued() -> None:
    """Who sends pings and reads no pongs gets the newest answered, and takes no memory."""
    with connected_pair() as (client, server):
        stall(client)
        for number in range(5000):
            server.send_frame(PING, str(number).zfill(100))
        last = str(4999).zfill(100).encode()
        link = link_of(client)
        assert link is not None
        assert wait_until(lambda: bool(link.pongs) and link.pongs[-1] == last)
        assert len(link.pongs) == MAX_PONGS
        while server.recv_frame() != (PONG, last):
            pass


def test_recv_waits_no_longer_than_its_timeout() -> None:
    """The connection is as good after it as before."""
    with connected_pair() as (client, server):
        for timeout in (0, 0.05):
            with pytest.raises(TimeoutError):
                client.recv(timeout=timeout)
        server.send_frame(TEXT, "now")
        assert client.recv(timeout=SECONDS).data == "now"


def test_full_queue_holds_the_peer_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not receive bounds what is queued; nothing is lost when it does."""
    monkeypatch.setattr(queues, "READ_AHEAD_BYTES", 100_000)
    with connected_pair() as (client, server):
        count = 2000

        def send_all() -> None:
            for number in range(count):
                server.send_frame(BINARY, number.to_bytes(2, "big") * 5000)

        sending = in_thread(send_all)
        inbox = client_core_of(client).inbox
        assert wait_until(lambda: inbox.bytes >= 100_000)
        for number in range(count):
            assert inbox.bytes <= 100_000 + 10_000 + queues.ENTRY_BYTES
            data = client.recv(timeout=SECONDS).data
            assert data == number.to_bytes(2, "big") * 5000
        sending.result(SECONDS)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x81\x81\0\0\0\0x", 1002),  # masked
        (b"\xc1\x01x", 1002),  # a reserved bit
        (b"\x83\x01x", 1002),  # a reserved opcode
        (b"\x80\x01x", 1002),  # a continuation of nothing
        (b"\x09\x00", 1002),  # a fragmented ping
        (b"\x88\x01x", 1002),  # a Close of one byte
        (b"\x88\x02\x03\xee", 1002),  # 1006 on the wire
        (b"\x81\x01\xff", 1007),  # no UTF-8
        (b"\x01\x01\xff", 1007),  # no UTF-8, before the message is whole
        (b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", 1009),  # a length of almost 2**63
        (b"\x82\x7e\x10\x01", 1009),  # one byte above the limit
    ],
)
def test_peer_that_breaks_the_protocol_is_told_so(raw: bytes, code: int) -> None:
    """What came before is received, then ProtocolError; the peer gets the code."""
    with connected_pair(max_message_bytes=4096) as (client, server):
        server.send_frame(TEXT, "good")
        server.sock.sendall(raw)
        assert server.recv_close()[0] == code
        server.sock.shutdown(socket.SHUT_WR)
        assert client.recv(timeout=SECONDS).data == "good"
        with pytest.raises(ProtocolError) as caught:
            client.recv(timeout=SECONDS)
        assert caught.value.code == code
        with pytest.raises(ProtocolError):
            next(iter(client))
        assert client.close_code == 1006


# -- Events ------------------------------------------------------------------------------------


def test_message_has_sender_time_and_id() -> None:
    """What the wire tells, and only messages as long as nobody asks for more."""
    with event_pair("c2") as (client, server, _):
        server.send_event("join", member={"id": "c3", "name": "eve"}, count=3)
        server.send_event("weather", data="nice")
        server.message(1, "\u00fc")
        server.message(2, data_base64="AP8=", **{"from": None})
        first, second = client.recv(SECONDS), client.recv(SECONDS)
        moment = datetime.datetime(2026, 11, 25, 6, 0, 0, 123000, datetime.timezone.utc)
        assert first == Message(
            "\u00fc", "/room", Member("c2", "bob", "/room", ""), moment, "1000-1"
        )
        assert (second.data, second.sender, second.id) == (b"\0\xff", None, "1000-2")
        assert client.newest == "1000-2"


def test_client_knows_who_is_here() -> None:
    """From the welcome on, before anything is received."""
    with event_pair("c2", "c3", name="ann") as (client, server, _):
        assert (client.id, client.name, client.room, client.state) == ("c1", "ann", "/room", "open")
        assert (client.newest, client.member_count) == ("1000-0", 3)
        assert client.members == [
            Member("c2", None, "/room", ""),
            Member("c3", None, "/room", ""),
            Member("c1", "ann", "/room", ""),
        ]
        server.send_event("leave", member={"id": "c2", "name": None}, count=2)
        server.send_event("rename", member={"id": "c1", "name": "anna"}, old="ann", count=2)
        server.send_event("count", count=1204)
        server.ping()
        assert [member.name for member in client.members] == [None, "anna"]
        assert (client.name, client.member_count) == ("anna", 1204)


def test_presence_and_gap_are_received_if_asked_for() -> None:
    """In the order in which they came, the list of who is here first."""
    with event_pair("c2", presence=True) as (client, server, _):
        server.send_event("gap", reason="trimmed", since="1-0", after="1000-0")
        server.message(1)
        server.send_event("leave", member={"id": "c2", "name": None}, count=1)
        c1, c2 = Member("c1", None, "/room", ""), Member("c2", None, "/room", "")
        assert client.recv(SECONDS) == Presence("members", None, 2, (c2, c1), None)
        assert client.recv(SECONDS) == Gap("trimmed", "1-0", "1000-0")
        assert client.recv(SECONDS).data == "1"
        assert client.recv(SECONDS) == Presence("leave", c2, 1, (), None)


def test_gap_is_messages_lost_once() -> None:
    """Who did not ask for gaps is told all the same, and can go on."""
    with event_pair() as (client, server, _):
        server.message(1)
        server.send_event("gap", reason="restarted", since="1000-1", after="1000-5")
        server.message(6)
        got = []
        with pytest.raises(MessagesLost) as caught:
            for message in client:
                got.append(message.data)
        lost = caught.value
        assert (lost.reason, lost.since, lost.after) == ("restarted", "1000-1", "1000-5")
        assert got == ["1"]
        assert next(iter(client)).data == "6"


def test_arguments_become_the_query_and_win_over_it() -> None:
    """Percent-encoded; what the URL has of another name stays."""
    path = "?echo=1&name=x&histor%79=1"
    with event_pair(path=path, name="a&b", history=3, since="5-0") as (_, server, _):
        assert server.query() == {"echo": "1", "name": "a&b", "since": "5-0", "history": "3"}
    for wrong in ({"since": "x"}, {"history": -1}):
        with pytest.raises(UsageError):
            BroadcastClient("ws://h/", **wrong)  # type: ignore[arg-type]


def test_offer_of_the_users_own_is_left_alone() -> None:
    """Who names subprotocols gets plain frames, unless the server chooses ours."""
    with connected_pair(headers={"sec-websocket-protocol": "chat"}) as (client, server):
        assert server.head.lower().count("sec-websocket-protocol") == 1
        server.send_frame(TEXT, "plain")
        assert client.recv(SECONDS).data == "plain"


def test_subprotocol_that_nobody_offered_is_connect_failed() -> None:
    """RFC 6455 §4.1."""
    with listener() as listening:
        accepted = in_thread(listening.accept, "chat")
        with pytest.raises(ConnectFailed, match="subprotocol"):
            BroadcastClient(listening.url).connect()
        accepted.result(SECONDS).sock.close()


@pytest.mark.parametrize("answer", ["silence", "no welcome", "close", "end"])
def test_hub_that_does_not_say_welcome_is_connect_failed(answer: str) -> None:
    """In the time that connecting may take; and the client may try again."""
    with listener() as listening:
        client = BroadcastClient(listening.url, open_timeout=0.3)
        connecting = in_thread(client.connect)
        server = listening.accept(SUBPROTOCOL)
        with server.sock:
            if answer == "no welcome":
                server.send_event("count", count=1)
                assert server.recv_close()[0] == 1002
            elif answer == "close":
                server.send_close(1013, "full")
                assert server.recv_close()[0] == 1013
            if answer != "silence":
                server.sock.shutdown(socket.SHUT_WR)
            expected = {"silence": "no welcome", "no welcome": "1002", "close": "full"}
            with pytest.raises(ConnectFailed, match=expected.get(answer, "stream has ended")):
                connecting.result(SECONDS)
        assert client.state == "closed"
        connecting = in_thread(client.connect)
        server = listening.accept_events()
        with server.sock:
            assert connecting.result(SECONDS).state == "open"
            in_thread(server.accept_close)
            assert client.close() is True


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x81\x01x", 1007),  # no JSON
        (b"\x81\x02[]", 1007),  # no object
        (b"\x81\x02{}", 1002),  # no type
        (b"\x82\x02{}", 1003),  # binary
    ],
)
def test_frame_that_is_no_event_ends_the_client(raw: bytes, code: int) -> None:
    """It is told so, what came before is received, and nobody comes back for more."""
    with event_pair() as (client, server, _):
        server.message(1)
        server.sock.sendall(raw)
        assert server.recv_close()[0] == code
        server.sock.shutdown(socket.SHUT_WR)
        assert client.recv(SECONDS).data == "1"
        with pytest.raises(ProtocolError) as caught:
            client.recv(SECONDS)
        assert caught.value.code == code
        assert wait_until(lambda: client.state == "closed")


def test_event_may_be_bigger_than_the_message_in_it() -> None:
    """The limit is for messages: escapes and names do not count."""
    with event_pair(max_message_bytes=1000) as (client, server, _):
        server.message(1, "\x01" * 1000, **{"from": {"id": "c2", "name": "\x01" * 64}})
        assert client.recv(SECONDS).data == "\x01" * 1000
        server.message(2, "x" * 1001)
        assert server.recv_close()[0] == 1009


def test_send_has_a_ref_and_a_key_if_it_may_be_sent_again() -> None:
    """Each one of its own; without reconnecting neither is needed, and no ack comes."""
    with event_pair() as (client, server, _):
        client.send("a")
        client.send(b"\0", key="mine")
        first, second = server.recv_event(), server.recv_event()
        assert (first["type"], first["data"], second["data_base64"]) == ("send", "a", "AA==")
        assert first["ref"] != second["ref"]
        assert 1 <= len(first["key"]) <= 128 and second["key"] == "mine"
        with pytest.raises(UsageError):
            client.send("x", key="")
    with event_pair(reconnect=False) as (client, server, _):
        client.send("a")
        client.send("b", key="mine")
        assert server.recv_event() == {"type": "send", "data": "a"}
        assert server.recv_event() == {"type": "send", "data": "b", "key": "mine"}


@pytest.mark.parametrize("reconnect", [True, False])
def test_publish_returns_the_id(reconnect: bool) -> None:
    """Once the hub has accepted the message, in whatever order it answers."""
    with event_pair(reconnect=reconnect) as (client, server, _):
        first = in_thread(client.publish, "a")
        event = server.recv_event()
        second = in_thread(client.publish, b"b", timeout=SECONDS)
        server.ack(server.recv_event(), 2)
        assert second.result(SECONDS) == "1000-2"
        assert not first.done()
        server.ack(event, 1)
        assert first.result(SECONDS) == "1000-1"
        assert client.newest == "1000-2"


def test_publish_that_gets_no_answer() -> None:
    """Refused, too late, or the end of the connection."""
    with event_pair(reconnect=False) as (client, server, _):
        refused = in_thread(client.publish, "x" * 10)
        event = server.recv_event()
        server.send_event("error", code="too_big", detail="11 bytes", ref=event["ref"])
        with pytest.raises(SendRefused, match="too_big: 11 bytes") as caught:
            refused.result(SECONDS)
        assert (caught.value.code, caught.value.detail) == ("too_big", "11 bytes")
        assert caught.value.data == "x" * 10
        assert client.refused == []
        with pytest.raises(TimeoutError):
            client.publish("x", timeout=0.05)
        server.ack(server.recv_event(), 1)  # nobody waits for it any more
        waiting = in_thread(client.publish, "x")
        server.recv_event()
        server.sock.close()
        with pytest.raises(ConnectionClosed):
            waiting.result(SECONDS)


def test_send_that_is_refused_is_told_aside() -> None:
    """Receiving goes on; callback, list and close() tell."""
    told: list[SendRefused] = []
    with event_pair(on_error=told.append) as (client, server, _):
        client.send(b"\0\1")
        event = server.recv_event()
        server.send_event("error", code="refused", detail="not you", ref=event["ref"])
        server.send_event("error", code="bad_json", detail="?", ref=None)
        server.message(1)
        assert client.recv(SECONDS).data == "1"
        assert wait_until(lambda: len(told) == 2)
        assert client.refused == told
        assert [(e.code, e.data) for e in told] == [("refused", b"\0\1"), ("bad_json", None)]
        in_thread(server.accept_close)
        assert client.close() is False


def test_close_is_true_when_all_is_acknowledged() -> None:
    """An echo without the acknowledgements proves less than they do."""
    for acknowledged in (True, False):
        with event_pair(close_timeout=0.5) as (client, server, _):
            client.send("x")
            event = server.recv_event()
            closing = in_thread(client.close)
            assert server.recv_close() == (1000, "")
            if acknowledged:
                server.ack(event, 1)
            server.send_close(1000)
            server.sock.shutdown(socket.SHUT_WR)
            assert closing.result(SECONDS) is acknowledged


def test_name_and_who() -> None:
    """A new name is sent and told by the hub; the list is asked for once at a time."""
    with event_pair(presence=True) as (client, server, _):
        client.recv(SECONDS)
        client.rename("ann")
        client.who()
        client.who()
        assert server.recv_event() == {"type": "name", "name": "ann", "ref": 1}
        event = server.recv_event()
        assert event["type"] == "who"
        server.ping()  # and nothing else was sent
        ann = {"id": "c1", "name": "ann"}
        server.send_event("members", members=[ann], count=1, ref=event["ref"])
        assert client.recv(SECONDS).members == (Member("c1", "ann", "/room", ""),)
        client.who()
        assert server.recv_event()["type"] == "who"
        for wrong in ("", "x" * 65, "a\nb"):
            with pytest.raises(UsageError):
                client.rename(wrong)


def test_name_and_who_wait_for_room_no_longer_than_their_timeout() -> None:
    """They stand in the same queue as messages do; nothing of what came too late is sent."""
    with event_pair(name="ann", max_queued_bytes=10_000) as (client, server, _):
        client.send("x" * 10_000)
        message = server.recv_event()
        for timeout in (0, 0.05):
            with pytest.raises(TimeoutError):
                client.rename("bob", timeout=timeout)
            with pytest.raises(TimeoutError):
                client.who(timeout=timeout)
        naming = in_thread(client.rename, "eve", timeout=SECONDS)
        server.ack(message, 1)
        naming.result(SECONDS)
        assert server.recv_event()["name"] == "eve"
        client.who(timeout=SECONDS)
        assert server.recv_event()["type"] == "who"


def test_list_is_asked_for_when_a_big_room_has_shrunk() -> None:
    """Nobody tells of changes above 100; below the list must be true again."""
    with event_pair() as (client, server, _):
        server.send_event("count", count=101)
        server.send_event("count", count=100)
        server.send_event("count", count=99)
        event = server.recv_event()
        assert event["type"] == "who"
        c9 = {"id": "c9", "name": None}
        server.send_event("members", members=[c9], count=1, ref=event["ref"])
        server.ping()
        assert [member.id for member in client.members] == ["c9"]


def test_list_is_not_asked_for_by_a_hub_that_does_not_take_it() -> None:
    """It could have a client ask again and again, and queue what it asks."""
    with event_pair(max_queued_bytes=4096) as (client, server, _):
        limit_buffers(client, server)
        wave = b"".join(
            bytes((0x81, len(event))) + event
            for event in (
                b'{"type":"count","count":50}',
                b'{"type":"members","members":[],"count":50}',
            )
        )
        asked = 0
        for _ in range(20):
            server.sock.sendall(wave * 1000)
            asked += 1000
        server.message(1)  # comes after all of them
        assert client.recv(SECONDS).data == "1"
        assert client.unaccepted <= 4096 // queues.ENTRY_BYTES + 1 < asked


def test_plain_server_has_no_names_and_no_acknowledgements() -> None:
    """Each of these is a mistake that is told, not a wait without an end."""
    with connected_pair() as (client, server):
        for call in (
            client.who,
            lambda: client.rename("x"),
            lambda: client.publish("x"),
            lambda: client.send("x", key="k"),
        ):
            with pytest.raises(UsageError, match="does not speak"):
                call()
        assert (client.id, client.members, client.newest) == (None, [], None)
        assert (client.room, client.state) == ("/room", "open")
        client.send("x")
        assert server.recv_frame() == (TEXT, b"x")


def test_send_does_not_wait_for_acknowledgements_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are behind messages that nobody receives: an error, not a wait without an end."""
    monkeypatch.setattr(queues, "READ_AHEAD_BYTES", 10_000)
    with event_pair(close_timeout=0.3, max_queued_bytes=10_000) as (client, server, _):
        for number in range(1, 41):
            server.message(number, "x" * 500)
        client.send("y" * 10_000)
        event = server.recv_event()
        server.ack(event, 41)
        with pytest.raises(TimeoutError, match="nobody receives"):
            client.send("z")
        for number in range(1, 41):
            assert client.recv(SECONDS).id == f"1000-{number}"
        client.send("z")
        assert server.recv_event()["data"] == "z"


def test_callbacks_may_close_and_must_not_wait() -> None:
    """What a callback does on the client's thread cannot wait for that thread."""
    tried: list[Any] = []

    def refuse(error: SendRefused) -> None:
        with pytest.raises(UsageError):
            client.publish("x")
        with pytest.raises(UsageError):
            client.recv()
        client.send("from a callback")
        tried.append(client.close())
        raise ZeroDivisionError

    with event_pair(on_error=refuse) as (client, server, _):
        server.send_event("error", code="refused", detail="", ref=None)
        assert server.recv_event()["data"] == "from a callback"
        assert server.accept_close() == (1000, "")
        assert wait_until(lambda: client.state == "closed")
        assert tried == [False]


# -- The end -----------------------------------------------------------------------------------


def test_close_of_the_peer_is_echoed() -> None:
    """Code and reason come back, and who iterates learns code and reason (RFC 6455 §5.5.1)."""
    with connected_pair() as (client, server):
        server.send_frame(TEXT, "before")
        server.send_close(1013, "slow: since=00ff")
        assert server.recv_close() == (1013, "slow: since=00ff")
        server.sock.shutdown(socket.SHUT_WR)
        server.recv_eof()
        got = []
        with pytest.raises(ConnectionClosed) as caught:
            for message in client:
                got.append(message.data)
        assert got == ["before"]
        assert (caught.value.code, caught.value.reason) == (1013, "slow: since=00ff")
        assert (client.close_code, client.close_reason) == (1013, "slow: since=00ff")
        with pytest.raises(ConnectionClosed):
            client.send("too late")


def test_empty_close_is_1005() -> None:
    """A Close without a code is none of the quiet ends."""
    with connected_pair() as (client, server):
        server.send_frame(CLOSE)
        assert server.recv_close()[0] == 1000
        server.sock.close()
        with pytest.raises(ConnectionClosed) as caught:
            next(iter(client))
        assert caught.value.code == 1005


@pytest.mark.parametrize("hard", [False, True])
def test_lost_connection_is_1006_and_says_why(hard: bool) -> None:
    """An end of the stream, or a reset, without a Close."""
    with connected_pair() as (client, server):
        if hard:
            server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.sock.close()
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(timeout=SECONDS)
        assert caught.value.code == 1006
        assert ("reset" if hard else "without a Close") in caught.value.reason
        assert client.close() is False


def test_close_sends_what_is_queued_first() -> None:
    """Messages, then Close with code and reason; after it nothing can be sent."""
    with connected_pair() as (client, server):
        for number in range(100):
            client.send(str(number))
        closing = in_thread(client.close, 4000, "enough")
        for number in range(100):
            assert server.recv_frame() == (TEXT, str(number).encode())
        assert server.recv_close() == (4000, "enough")
        with pytest.raises(ConnectionClosed):
            client.send("x")
        server.send_close(4000)
        server.sock.shutdown(socket.SHUT_WR)
        assert closing.result(SECONDS) is True
        assert client.close() is True


def test_nothing_follows_our_close_not_even_a_pong() -> None:
    """A ping that is read after our Close stays unanswered (RFC 6455 §5.5.1)."""
    with connected_pair() as (client, server):
        closing = in_thread(client.close)
        assert server.recv_close() == (1000, "")
        server.send_frame(PING, b"?")
        server.send_close(1000)
        server.recv_eof()
        server.sock.shutdown(socket.SHUT_WR)
        assert closing.result(SECONDS) is True


def test_close_is_bounded_although_the_peer_talks_on() -> None:
    """After the handshake the peer must end its stream; one that does not is cut off."""
    with connected_pair(close_timeout=0.3) as (client, server):
        closing = in_thread(client.close)
        assert server.recv_close() == (1000, "")
        server.send_close(1000)
        with pytest.raises(OSError):
            while True:
                server.send_frame(TEXT, bytes(1000))
        assert closing.result(SECONDS) is True


def test_close_that_crosses_ours_proves_nothing() -> None:
    """The peer's own Close is no echo: it may not have read what was sent."""
    for code, reason in ((1001, ""), (1000, "a reason of its own")):
        with connected_pair() as (client, server):
            client.send("x")
            assert server.recv_frame() == (TEXT, b"x")
            closing = in_thread(client.close)
            assert server.recv_close() == (1000, "")
            server.send_close(code, reason)
            server.sock.shutdown(socket.SHUT_WR)
            assert closing.result(SECONDS) is False
            assert (client.close_code, client.timed_out) == (code, False)


def test_close_before_all_is_sent_is_no_echo() -> None:
    """A Close of the peer with our code that comes while our messages wait proves nothing."""
    with connected_pair(close_timeout=0.5) as (client, server):
        stall(client)
        closing = in_thread(client.close)
        assert wait_until(lambda: (link := link_of(client)) is not None and link.close is not None)
        server.send_close(1000)
        assert closing.result(SECONDS) is False


def test_close_while_ours_is_being_sent_is_no_echo() -> None:
    """A Close of the peer proves nothing while a part of our last frames is still unsent."""
    with connected_pair(close_timeout=1000.0) as (client, server):
        link = limit_buffers(client, server)
        data = bytes(2 << 20)
        client.send(data)
        client.send(data)  # has room once the writer has taken the first one
        closing = in_thread(client.close)
        assert wait_until(lambda: link.close is not None)
        assert server.recv_frame() == (BINARY, data)
        assert wait_until(lambda: (close_position(link) or 0) > link.channel.sent)
        server.send_close(1000)
        assert wait_until(lambda: link.ended)
        server.reset()
        assert closing.result(SECONDS) is False
        assert (client.close_code, client.timed_out) == (1000, False)


def test_close_gives_up_on_a_silent_peer() -> None:
    """Without a byte for close_timeout the connection is cut, and the client says so."""
    with connected_pair(close_timeout=0.2) as (client, server):
        assert client.close() is False
        assert client.timed_out
        assert (client.close_code, client.close_reason) == (1006, "no answer to Close")
        assert server.recv_close()[0] == 1000
        server.recv_eof()


def test_close_waits_while_bytes_move() -> None:
    """A slow peer is waited for far longer than close_timeout, as long as it takes something."""
    with connected_pair(close_timeout=1.0) as (client, server):
        data = stall(client)
        closing = in_thread(client.close)
        opcode, payload, pieces = 0, b"", 0
        while opcode != CLOSE:
            opcode, payload = server.recv_frame()
            if opcode == BINARY:
                assert payload == data
                pieces += 1
        server.send_frame(CLOSE, payload)
        server.sock.shutdown(socket.SHUT_WR)
        assert closing.result(SECONDS) is True
        assert pieces >= 2


def test_close_with_a_timeout_is_bounded_although_bytes_move() -> None:
    """A peer that talks on and on does not keep us."""
    with connected_pair() as (client, server):
        done = threading.Event()

        def talk() -> None:
            while not done.is_set():
                server.send_frame(TEXT, "blah" * 1000)

        talking = in_thread(talk)
        try:
            assert client.close(timeout=0.3) is False
            assert client.timed_out
        finally:
            done.set()
            # A full pipe to a socket that is gone may block for as long as the system probes it.
            with contextlib.suppress(OSError):
                server.sock.shutdown(socket.SHUT_RDWR)
        talking.exception(SECONDS)


@pytest.mark.parametrize("keep_reading", [False, True])
def test_close_with_a_full_inbox(monkeypatch: pytest.MonkeyPatch, keep_reading: bool) -> None:
    """Either nobody receives any more, or all that comes before the echo is received."""
    monkeypatch.setattr(queues, "READ_AHEAD_BYTES", 10_000)
    with connected_pair() as (client, server):

        def serve() -> None:
            for _ in range(1000):
                server.send_frame(TEXT, "x" * 1000)
            server.accept_close()

        serving = in_thread(serve)
        assert wait_until(lambda: client_core_of(client).inbox.bytes >= 10_000)
        receiving = in_thread(lambda: len(list(client))) if keep_reading else None
        assert client.close(keep_reading=keep_reading) is True
        serving.result(SECONDS)
        if receiving is not None:
            assert receiving.result(SECONDS) == 1000


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 5000])
def test_close_code_that_must_not_be_sent_is_refused(code: int) -> None:
    """RFC 6455 §7.4."""
    with pytest.raises(UsageError):
        BroadcastClient("ws://h/").close(code)


def test_iteration_in_another_thread_ends_with_close() -> None:
    """Our own end is no surprise to who receives."""
    with connected_pair() as (client, server):
        receiving = in_thread(lambda: [message.data for message in client])
        server.send_frame(TEXT, "one")
        server.ping()
        in_thread(server.accept_close)
        assert client.close() is True
        assert receiving.result(SECONDS) == ["one"]


def test_leaving_by_an_exception_does_not_wait_for_the_queue() -> None:
    """A peer that reads nothing keeps nobody whose program has failed."""
    with connected_pair(close_timeout=0.2) as (client, _server):
        stall(client)
        error = ZeroDivisionError()
        client.__exit__(type(error), error, None)
        assert client.closed and client.timed_out
