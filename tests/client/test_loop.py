"""A client that comes back by itself: when, how often, and with nothing lost or doubled."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server import (
    BroadcastClient,
    ConnectFailed,
    ConnectionClosed,
    MessagesLost,
    Presence,
    UsageError,
)
from broadcast_server.client import loop, queues
from broadcast_server.client.retries import back_off
from broadcast_server.transport import channel
from broadcast_server.transport.deadlines import Deadline

from ..support import PING, PONG, TEXT, wait_until
from ..support.beside import in_thread
from ..support.inside import client_core_of, dialing_of, link_of, socket_of
from ..support.raw_server import (
    SECONDS,
    SUBPROTOCOL,
    Listener,
    RawServer,
    connected_pair,
    event_pair,
    limit_buffers,
    session_in,
)

SOON = 0.01  # the longest pause before coming back, in most of these tests


@contextlib.contextmanager
def returning(
    *others: str, **options: Any
) -> Iterator[tuple[BroadcastClient, RawServer, Listener]]:
    """As ``event_pair``, with short pauses."""
    options.setdefault("max_reconnect_delay", SOON)
    with event_pair(*others, **options) as found:
        yield found


# -- Coming back -------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["end of stream", "reset", 1001, 1011, 1012, 1013])
def test_client_comes_back_where_it_was(end: str | int) -> None:
    """With its secret, from the last message on; who receives notices nothing."""
    with returning(name="ann", history=5, path="?echo=1") as (client, server, listening):
        assert server.query() == {"echo": "1", "name": "ann", "history": "5"}
        server.message(1)
        if isinstance(end, int):
            server.send_close(end, "since=1-0")
            assert server.recv_close() == (end, "since=1-0")
        elif end == "reset":
            server.ping()
            server.reset()
        server.sock.close()
        with listening.accept_events(after="1000-1").sock:
            pass  # a second time without a word
        again = listening.accept_events(after="1000-1")
        with again.sock:
            assert again.query() == {
                "echo": "1",
                "name": "ann",
                "since": "1000-1",
            }
            # Proxies write addresses into their logs.
            assert again.session() == "secret" and again.offered()[0] == "broadcast.v1.json"
            again.message(2)
            assert [client.recv(SECONDS).data for _ in range(2)] == ["1", "2"]
            assert wait_until(lambda: client.state == "open")
            assert (client.closed, client.close_code) == (False, None)


def test_client_comes_back_with_the_newest_session() -> None:
    """A hub gives a client that stays a new one before the old one ends; nobody is told."""
    with returning() as (client, server, listening):
        server.send_event("session", session="newer")
        server.message(1)
        assert client.recv(SECONDS).data == "1"
        server.sock.close()
        again = listening.accept_events(after="1000-1")
        with again.sock:
            assert again.session() == "newer"


def test_client_that_got_nothing_comes_back_from_its_welcome() -> None:
    """``after`` of the welcome is the place as long as there is no other; then an ack is one."""
    with returning() as (client, server, listening):
        server.sock.close()
        again = listening.accept_events(after="1000-0")
        with again.sock:
            assert again.query()["since"] == "1000-0"
            client.send("x")
            again.ack(again.recv_event(), 7)
            again.ping()
        third = listening.accept_events(after="1000-7")
        with third.sock:
            assert third.query()["since"] == "1000-7"


def test_message_that_comes_twice_is_given_once() -> None:
    """Whatever the hub sends again is left out, and nothing behind it."""
    with returning() as (client, server, listening):
        for number in (1, 2, 10):
            server.message(number)
        server.ping()
        server.sock.close()
        again = listening.accept_events(after="1000-0")
        with again.sock:
            for number in (1, 2, 3, 10, 11):
                again.message(number)
            got = [client.recv(SECONDS).data for _ in range(4)]
            assert got == ["1", "2", "10", "11"]
            with pytest.raises(TimeoutError):
                client.recv(0.05)


def test_gap_after_coming_back_is_told() -> None:
    """What the hub cannot replay is never passed over in silence."""
    with returning() as (client, server, listening):
        server.message(5)
        server.ping()
        server.sock.close()
        again = listening.accept_events(after="900-0")
        with again.sock:
            again.send_event("gap", reason="restarted", since="1000-5", after="900-0")
            again.message(1, id="900-1")
            assert client.recv(SECONDS).data == "5"
            with pytest.raises(MessagesLost) as caught:
                client.recv(SECONDS)
            assert (caught.value.reason, caught.value.after) == ("restarted", "900-0")
            assert client.recv(SECONDS).id == "900-1"


def test_members_are_told_anew_after_coming_back() -> None:
    """Nobody tells who has left meanwhile."""
    with returning("c2", presence=True) as (client, server, listening):
        assert client.recv(SECONDS).count == 2
        server.sock.close()
        with listening.accept_events("c8", "c9").sock:
            again = client.recv(SECONDS)
            assert isinstance(again, Presence)
            assert (again.kind, again.count) == ("members", 3)
            assert [member.id for member in client.members] == ["c8", "c9", "c1"]


def test_new_name_comes_back_too() -> None:
    """In the query, and as an event where the hub has kept the old one."""
    with returning(name="ann") as (client, server, listening):
        client.rename("anna")
        assert server.recv_event() == {"type": "name", "name": "anna", "ref": 1}
        server.sock.close()
        again = listening.accept_events()
        assert again.query()["name"] == "anna"
        again.ping()
        again.sock.close()
        third = listening.accept_events(name="ann")
        with third.sock:
            assert third.recv_event() == {"type": "name", "name": "anna", "ref": 1}


def test_name_that_is_refused_is_not_asked_for_again() -> None:
    """A hub may refuse the whole connection for it, and that would be the end."""
    with returning(name="ann") as (client, server, listening):
        client.rename("root")
        event = server.recv_event()
        server.send_event("error", code="refused", detail="not you", ref=event["ref"])
        assert wait_until(lambda: bool(client.refused))
        server.sock.close()
        again = listening.accept_events()
        with again.sock:
            assert again.query()["name"] == client.name == "ann"
            assert wait_until(lambda: client.state == "open")
            again.ping()  # and nothing else was sent


def test_name_that_was_taken_away_does_not_come_back() -> None:
    """Nor does one that is in the URL."""
    with returning(path="?name=x") as (client, server, listening):
        client.rename(None)
        assert server.recv_event() == {"type": "name", "name": None, "ref": 1}
        server.sock.close()
        again = listening.accept_events()
        with again.sock:
            assert "name" not in again.query()


# -- Sending again -----------------------------------------------------------------------------


def test_what_is_not_acknowledged_is_sent_again_first() -> None:
    """With the old refs and keys, in the old order, and what is acknowledged only once."""
    with returning() as (client, server, listening):
        for number in range(4):
            client.send(str(number))
        sent = [server.recv_event() for _ in range(4)]
        assert len({event["key"] for event in sent}) == 4
        server.ack(sent[1], 2)
        server.ping()
        server.sock.close()
        again = listening.accept_events(after="1000-2")
        with again.sock:
            client.send("4")
            resent = [again.recv_event() for _ in range(4)]
            assert resent[:3] == [sent[0], sent[2], sent[3]]
            assert resent[3]["data"] == "4"
            for event in resent:
                again.ack(event, 9, duplicate=event is not resent[3])
            closing = in_thread(client.close)
            again.accept_close()
            assert closing.result(SECONDS) is True


def test_message_is_queued_while_there_is_no_connection() -> None:
    """It waits as long as it takes; publish() waits with it."""
    with returning() as (client, server, listening):
        server.sock.close()
        assert wait_until(lambda: client.state != "open")
        client.send("a")
        publishing = in_thread(client.publish, "b")
        again = listening.accept_events()
        with again.sock:
            first, second = again.recv_event(), again.recv_event()
            assert (first["data"], second["data"]) == ("a", "b")
            again.ack(first, 1)
            again.ack(second, 2, duplicate=True)
            assert publishing.result(SECONDS) == "1000-2"


def test_question_is_not_repeated() -> None:
    """The welcome answers who is here; a lost question does not stand in the way of a new one."""
    with returning() as (client, server, listening):
        client.who()
        assert server.recv_event()["type"] == "who"
        server.sock.close()
        again = listening.accept_events()
        with again.sock:
            assert wait_until(lambda: client.state == "open")
            again.ping()
            client.who()
            assert again.recv_event()["type"] == "who"


def test_question_while_it_connects_is_answered_by_the_welcome() -> None:
    """It was never sent, so it must not stand in the way of the next one."""
    with returning() as (client, server, listening):
        old = link_of(client)
        server.sock.close()
        again = listening.accept(SUBPROTOCOL)
        with again.sock:
            assert wait_until(lambda: link_of(client) is not old)
            client.who()
            again.welcome("c5")
            assert wait_until(lambda: client.state == "open")
            assert [member.id for member in client.members] == ["c5", "c1"]
            client.who()
            assert again.recv_event()["type"] == "who"


def test_connection_on_which_nothing_can_be_sent_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fault that the reader does not see: the message must not wait for ever on this side."""
    real = channel.Channel.send
    faults = [OSError(errno.ENOBUFS, "no buffer space"), None]

    def send(self: channel.Channel, data: bytes, deadline: Deadline) -> None:
        fault = faults.pop(0) if faults else None
        if fault is not None:
            raise fault
        real(self, data, deadline)

    with returning() as (client, server, listening):
        monkeypatch.setattr(channel.Channel, "send", send)
        publishing = in_thread(client.publish, "x")
        server.recv_eof()
        again = listening.accept_events()
        with again.sock:
            event = again.recv_event()
            assert event["data"] == "x"
            again.ack(event, 1)
            assert publishing.result(SECONDS) == "1000-1"


def test_unacknowledged_messages_are_bounded() -> None:
    """A hub that takes all and acknowledges nothing holds the sender up."""
    with returning() as (client, server, _):
        data = "x" * (1 << 18)
        for _number in range(4):
            client.send(data, timeout=SECONDS)
        events = [server.recv_event() for _number in range(4)]
        with pytest.raises(TimeoutError):
            client.send("y", timeout=0.05)
        waiting = in_thread(client.send, "y")
        server.ack(events[0], 1)
        waiting.result(SECONDS)
        assert server.recv_event()["data"] == "y"


# -- Not coming back ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 4000])
def test_close_that_is_meant_is_the_end(code: int) -> None:
    """Bye, or something that would be as wrong the next time."""
    with returning() as (client, server, _):
        client.send("x")
        server.recv_event()
        waiting = in_thread(list, client)
        server.send_close(code, "why")
        assert server.recv_close()[0] == code
        server.sock.close()
        if code == 1000:
            assert waiting.result(SECONDS) == []
        else:
            with pytest.raises(ConnectionClosed) as caught:
                waiting.result(SECONDS)
            assert (caught.value.code, caught.value.reason) == (code, "why")
        assert wait_until(lambda: client.state == "closed")
        assert client.close() is False


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 421])
def test_refusal_that_will_stay_is_the_end(status: int) -> None:
    """Who waits gets ConnectFailed with the status; the secret stays out of its text."""
    with returning() as (client, server, listening):
        waiting = in_thread(client.recv)
        server.sock.close()
        assert session_in(listening.refuse(status)) == "secret"
        with pytest.raises(ConnectFailed) as caught:
            waiting.result(SECONDS)
        assert caught.value.status == status and "secret" not in str(caught.value)
        with pytest.raises(ConnectFailed):
            list(client)
        with pytest.raises(ConnectionClosed):
            client.send("x")


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_refusal_that_will_pass_is_tried_again(status: int) -> None:
    """A hub that is full or starts up takes us later."""
    with returning() as (client, server, listening):
        server.sock.close()
        for _ in range(2):
            listening.refuse(status)
        with listening.accept_events().sock:
            assert wait_until(lambda: client.state == "open")


def test_wait_that_the_hub_asks_for_is_kept_up_to_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``Retry-After`` holds for the next pause and no further one; the user's limit wins. Each
    attempt that fails makes the pauses longer."""
    gone_before: list[int] = []
    asked: list[float] = []
    pauses: list[float] = []

    def noted(attempts: int, limit: float, chance: float, at_least: float) -> float:
        gone_before.append(attempts)
        asked.append(at_least)
        pauses.append(back_off(attempts, limit, chance, at_least))
        return pauses[-1]

    monkeypatch.setattr(loop, "back_off", noted)
    with returning() as (client, server, listening):
        server.sock.close()
        listening.refuse(503, "7")
        listening.refuse(429, "soon")
        with listening.accept_events().sock:
            assert wait_until(lambda: client.state == "open")
        assert asked[:3] == [0, 7, 0]
        assert gone_before[:3] == [0, 1, 2]
        assert pauses[1] == SOON and max(pauses) <= SOON


@pytest.mark.parametrize(
    ("stable_seconds", "attempts"), [(0.0, [0, 0, 0]), (1000.0, [0, 1, 2])], ids=["long", "short"]
)
def test_pauses_start_small_again_after_a_connection_that_lasted(
    monkeypatch: pytest.MonkeyPatch, stable_seconds: float, attempts: list[int]
) -> None:
    """A connection that lasted ``STABLE_SECONDS`` resets the count of attempts; others do not."""
    counted: list[int] = []

    def count(attempts: int, *others: float) -> float:
        counted.append(attempts)
        return back_off(attempts, *others)

    monkeypatch.setattr(loop, "back_off", count)
    monkeypatch.setattr(loop, "STABLE_SECONDS", stable_seconds)
    with returning() as (client, server, listening):
        for _ in attempts:
            server.sock.close()
            server = listening.accept_events()
        with server.sock:
            assert wait_until(lambda: client.state == "open")
            assert counted == attempts


def test_server_that_speaks_events_no_more_is_the_end() -> None:
    """What was plain cannot go on where events have ended."""
    with returning() as (client, server, listening):
        waiting = in_thread(client.recv)
        server.sock.close()
        listening.accept().sock.close()
        with pytest.raises(ConnectFailed, match="any more"):
            waiting.result(SECONDS)


def test_without_reconnect_the_end_is_the_end() -> None:
    """Messages have ids all the same."""
    with event_pair(reconnect=False) as (client, server, _):
        server.message(1)
        server.ping()
        server.sock.close()
        assert client.recv(SECONDS).id == "1000-1"
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(SECONDS)
        assert caught.value.code == 1006


def test_plain_connection_does_not_come_back() -> None:
    """Without ids there is nothing to go on from."""
    with connected_pair(reconnect=True) as (client, server):
        server.sock.close()
        with pytest.raises(ConnectionClosed):
            client.recv(SECONDS)
        assert wait_until(lambda: client.state == "closed")


# -- States ------------------------------------------------------------------------------------


def test_states_are_told_in_order() -> None:
    """On the client's own thread, never under a lock."""
    told: list[tuple[str, str, str]] = []
    clients: list[BroadcastClient] = []

    def tell(state: str) -> None:
        client = clients[0] if clients else None
        seen = client.state if client is not None and client.members is not None else state
        told.append((state, seen, threading.current_thread().name))

    with returning(on_state=tell) as (client, server, listening):
        assert wait_until(lambda: len(told) == 1)
        clients.append(client)
        server.sock.close()
        listening.refuse(503)
        again = listening.accept_events()
        with again.sock:
            assert wait_until(lambda: client.state == "open")
            in_thread(again.accept_close)
            client.close()
        states = [state for state, _, _ in told]
        assert states == [
            "open",
            "waiting",
            "connecting",
            "waiting",
            "connecting",
            "open",
            "closed",
        ]
        # The client could be asked meanwhile, and said the same: all went on in this thread.
        assert [seen for _, seen, _ in told] == states
        assert {name for _, _, name in told} == {"client"}


def test_callback_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The client does not suffer from it."""

    def fail(state: str) -> None:
        raise ZeroDivisionError(state)

    with returning(on_state=fail) as (client, server, _):
        server.message(1)
        assert client.recv(SECONDS).data == "1"
        assert wait_until(lambda: "a callback has failed" in caplog.text)


# -- Silence -----------------------------------------------------------------------------------


def test_silent_hub_is_asked_and_then_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is dead without a word is found, and made anew."""
    monkeypatch.setattr(loop, "QUIET_SECONDS", 0.1)
    with returning() as (client, server, listening):
        assert server.recv_frame() == (PING, b"")
        server.send_frame(PONG, b"")
        assert server.recv_frame() == (PING, b"")
        again = listening.accept_events()
        with again.sock:
            assert server.sock.recv(1) == b""
            assert again.recv_frame() == (PING, b"")
            again.message(1)
            assert client.recv(SECONDS).data == "1"


def test_silent_hub_is_left_although_it_stops_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client comes back even if its writer is stuck in a full socket."""
    with returning() as (client, server, listening):
        limit_buffers(client, server)
        data = "x" * (2 << 20)
        client.send(data)
        assert server.recv_exact(1)  # the writer has begun, before the silence is noticed
        monkeypatch.setattr(loop, "QUIET_SECONDS", 0.05)
        server.message(1)
        again = listening.accept(SUBPROTOCOL)
        with again.sock:
            monkeypatch.undo()
            again.welcome(after="1000-1")
            assert again.recv_event()["data"] == data
            assert client.recv(SECONDS).data == "1"


@pytest.mark.parametrize("options", [{}, {"reconnect": False}])
def test_quiet_connection_is_kept_alive(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    """A server that is no hub may be silent for ever, with a proxy between: it is pinged. One that
    does not answer is not given up, since the client could not come back."""
    monkeypatch.setattr(loop, "QUIET_SECONDS", 0.05)
    with connected_pair(**options) as (client, server):
        for _ in range(3):
            assert server.recv_frame() == (PING, b"")
        server.send_frame(PONG, b"")
        server.send_frame(TEXT, "still here")
        assert client.recv(SECONDS).data == "still here"


# -- Closing -----------------------------------------------------------------------------------


def test_close_during_a_pause_ends_at_once() -> None:
    """Nothing is pending: nothing is waited for, and all was accepted."""
    with returning(max_reconnect_delay=1000.0, close_timeout=1000.0) as (client, server, _):
        waiting = in_thread(list, client)
        server.sock.close()
        assert wait_until(lambda: client.state == "waiting")
        assert client.close() is True
        assert waiting.result(SECONDS) == []
        assert (client.state, client.timed_out) == ("closed", False)


def test_close_during_a_pause_does_not_wait_for_what_needs_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new name that was not sent is no message: nobody comes back for it to leave again."""

    def fail(*_: object) -> None:
        raise ConnectionResetError

    with returning(max_reconnect_delay=1000.0, close_timeout=1000.0) as (client, server, _):
        link = link_of(client)
        assert link is not None
        monkeypatch.setattr(channel.Channel, "send", fail)
        client.who()
        assert wait_until(lambda: not link.writing)
        client.rename("b")
        assert client_core_of(client).outbox.pending
        server.sock.close()
        assert wait_until(
            lambda: client.state == "waiting" and socket_of(link.channel).fileno() < 0
        )
        assert client.close(timeout=SECONDS) is True


def test_close_during_an_attempt_ends_at_once() -> None:
    """A server that does not answer keeps nobody."""
    with returning(close_timeout=1000.0, open_timeout=1000.0) as (client, server, listening):
        server.sock.close()
        sock, _ = listening.read_head()
        with sock:
            assert client.state == "connecting"
            assert client.close() is True
            assert client.state == "closed"
            assert sock.recv(1) == b""


def test_close_before_the_welcome_of_a_new_connection() -> None:
    """It is closed in order, whether the hub has said welcome or not."""
    with returning() as (client, server, listening):
        server.sock.close()
        again = listening.accept(SUBPROTOCOL)
        with again.sock:
            assert wait_until(lambda: (link := link_of(client)) is not None and not link.ended)
            closing = in_thread(client.close)
            assert again.accept_close() == (1000, "")
            assert closing.result(SECONDS) is True


@pytest.mark.parametrize("timeout", [0.2, None])
def test_close_with_pending_messages_is_bounded(timeout: float | None) -> None:
    """It tries to come back as long as it may, and says that not all was accepted."""
    with returning(close_timeout=0.3) as (client, server, listening):
        client.send("x")
        server.recv_event()
        server.sock.close()
        listening.sock.close()
        assert client.close(timeout=timeout) is False
        assert (client.state, client.timed_out) == ("closed", True)


@pytest.mark.parametrize("welcome", [False, True])
def test_close_does_not_wait_for_a_server_that_accepts_nothing(welcome: bool) -> None:
    """It takes connection after connection and cuts each off: that bytes move is no use."""
    with returning(close_timeout=0.3) as (client, server, listening):
        client.send("x")
        server.recv_event()
        server.sock.close()
        closing = in_thread(client.close)
        listening.sock.settimeout(0.1)
        deadline = Deadline(SECONDS)
        while not closing.done() and deadline.left():
            with contextlib.suppress(OSError, EOFError):
                again = listening.accept(SUBPROTOCOL)
                with again.sock:
                    if welcome:
                        again.welcome()
                        again.recv_event()
        assert closing.result(0) is False
        assert client.timed_out


def test_client_comes_back_although_the_old_stream_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever waits for a minute for what was sent does not come back a minute later."""
    monkeypatch.setattr(loop, "LEAVE_SECONDS", 0.1)
    with returning(close_timeout=1000.0) as (client, server, listening):
        server.send_close(1012)
        assert server.recv_close() == (1012, "")
        again = listening.accept_events()
        with again.sock:
            again.message(1)
            assert client.recv(SECONDS).data == "1"
            closing = in_thread(client.close)
            again.accept_close()
            assert closing.result(SECONDS)


def test_close_that_gives_up_ends_the_connection_that_has_just_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new one begins in the moment in which the time is up: it must not live on unseen."""
    with returning(close_timeout=0.3, open_timeout=1000.0) as (client, server, listening):
        client.send("x")
        server.recv_event()
        old = link_of(client)
        assert old is not None
        server.sock.close()
        assert wait_until(lambda: socket_of(old.channel).fileno() < 0)
        servers: list[RawServer] = []

        def progress() -> tuple[int, int, int]:
            if not servers:
                servers.append(listening.accept(SUBPROTOCOL))
                assert wait_until(lambda: link_of(client) is not old)
                assert wait_until(lambda: dialing_of(client) is None)
            return 0, 0, 0

        monkeypatch.setattr(old.channel, "progress", progress)
        assert client.close(timeout=0) is False
        (again,) = servers
        with again.sock:
            with contextlib.suppress(ConnectionResetError):
                while again.sock.recv(1 << 16):
                    pass
        assert wait_until(lambda: client.state == "closed")
        thread = client_core_of(client).thread
        assert thread is not None
        thread.join(SECONDS)
        assert not thread.is_alive()


@pytest.mark.parametrize("acknowledged", [True, False])
def test_close_without_a_limit_ends_in_order(acknowledged: bool) -> None:
    """``close_timeout=inf`` means for ever, and is no number that a lock would refuse."""
    with returning(close_timeout=float("inf")) as (client, server, _):
        client.send("x")
        event = server.recv_event()
        if acknowledged:
            server.ack(event, 1)
        closing = in_thread(client.close, timeout=float("inf"))
        assert server.recv_close() == (1000, "")
        server.send_close(1000 if acknowledged else 1008)
        server.sock.shutdown(socket.SHUT_WR)
        assert closing.result(SECONDS) is acknowledged


def test_close_comes_back_for_what_is_pending() -> None:
    """A hub that restarts while we leave still gets everything."""
    with returning() as (client, server, listening):
        client.send("x")
        sent = server.recv_event()
        closing = in_thread(client.close, 4000, "enough")
        assert server.recv_close() == (4000, "enough")
        server.sock.close()
        again = listening.accept_events()
        with again.sock:
            assert again.recv_event() == sent
            assert again.recv_close() == (4000, "enough")
            again.ack(sent, 1)
            again.send_close(4000)
            again.sock.close()
        assert closing.result(SECONDS) is True


def test_close_during_a_pause_tries_at_once_for_what_is_pending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for that; a pause may be longer than it waits. Unless the hub has asked for it."""
    monkeypatch.setattr(loop, "back_off", lambda *asked: asked[3] or 1000.0)
    with returning(close_timeout=1000.0) as (client, server, listening):
        client.send("x")
        sent = server.recv_event()
        server.sock.close()
        assert wait_until(lambda: client.state == "waiting")
        closing = in_thread(client.close)
        listening.refuse(503, "1")
        again = listening.accept_events()
        with again.sock:
            assert again.recv_event() == sent
            again.ack(sent, 1)
            again.accept_close()
            assert closing.result(SECONDS) is True


def test_nothing_can_be_sent_after_close() -> None:
    """Also not to a connection that is yet to come."""
    with returning(max_reconnect_delay=1000.0) as (client, server, _):
        server.sock.close()
        assert wait_until(lambda: client.state == "waiting")
        client.close()
        with pytest.raises(ConnectionClosed):
            client.send("x")
        with pytest.raises(UsageError):
            client.connect()


def test_reader_that_is_slow_holds_the_hub_up_and_goes_on_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hub closes with 1013; what was queued comes first, then what was missed."""
    monkeypatch.setattr(queues, "READ_AHEAD_BYTES", 10_000)
    with returning() as (client, server, listening):
        for number in range(1, 101):
            server.message(number, "x" * 500)
        server.send_close(1013, "since=1000-100")
        server.sock.shutdown(socket.SHUT_WR)

        def serve() -> RawServer:
            found = listening.accept_events(after="1000-100")
            found.message(101)
            return found

        serving = in_thread(serve)
        got = [client.recv(SECONDS).id for _ in range(101)]
        assert got == [f"1000-{number}" for number in range(1, 102)]
        again = serving.result(SECONDS)
        assert again.query()["since"] == "1000-100"
        again.sock.close()


def test_threads_and_descriptors_of_old_connections_are_gone() -> None:
    """Ten connections later there is one reader, one writer and one socket."""
    with returning() as (client, server, listening):
        before = threading.active_count()
        for _ in range(10):
            server.sock.close()
            server = listening.accept_events()
        assert wait_until(lambda: client.state == "open")
        assert threading.active_count() == before
        server.send_frame(TEXT, '{"type":"count","count":1}')
        server.sock.close()
