"""Races between threads of one hub, each forced to its bad order by holding one of them back."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from broadcast_server import BroadcastHub, Message
from broadcast_server.hub.backplane.interface import SenderGone
from broadcast_server.hub.core import Core
from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.rooms.entries import cost_of
from broadcast_server.hub.rooms.room import Room
from broadcast_server.hub.server import HubServer
from broadcast_server.wire import events

from ..support import CLOSE, RawClient, http_request, running_hub, wait_until
from ..support.beside import during
from ..support.inside import (
    core_of,
    knows_nobody,
    mailbox_of,
    replace_accepted,
    replace_on_left,
    reserved_bytes,
    server_of,
)
from ..support.json_peer import OFFER, Peer

pytestmark = pytest.mark.slow


def parts(hub: BroadcastHub) -> tuple[Core, HubServer]:
    """Return what a running hub is made of."""
    return core_of(hub), server_of(hub)


# -- Sessions ----------------------------------------------------------------------------------


def resumed(hub: BroadcastHub, peer: Peer, query: str = "") -> Peer:
    """Come back as the client that another connection is still."""
    return Peer(hub, f"/r?session={peer.welcome['session']}{query}")


def test_of_two_resumes_at_once_the_last_to_join_is_the_client(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found by its id also if it came onto the list first, and is told when the hub stops."""
    _, server = parts(hub)
    set_connection = server.set_connection
    listed, go_on = threading.Event(), threading.Event()

    def set_late(handler: Any, connection: Connection) -> None:
        set_connection(handler, connection)
        if not listed.is_set():
            listed.set()
            assert go_on.wait(10)

    with Peer(hub) as old:
        monkeypatch.setattr(server, "set_connection", set_late)
        with during(lambda: resumed(hub, old)) as found:
            assert listed.wait(10)
            loser = resumed(hub, old)
            assert old.raw.recv_close()[0] == 1008
            go_on.set()
        (winner,) = found
        with winner, loser:
            assert hub.send(winner.welcome["id"], "to the one that is here")
            assert winner.recv()["data"] == "to the one that is here"
            assert loser.raw.recv_close()[0] == 1008
            for gone in (old, loser):
                gone.raw.send_close(1008)
                gone.raw.recv_eof()
                gone.raw.close()
            assert wait_until(lambda: server.client_count == 1)
            assert hub.send(winner.welcome["id"], "still here")
            assert winner.recv()["data"] == "still here"
            with during(hub.stop):
                assert winner.raw.recv_close()[0] == 1001
                winner.raw.send_close(1001)
                winner.raw.recv_eof()
                winner.raw.close()
            assert knows_nobody(server)


def test_connection_that_was_overtaken_does_not_replace_the_newer_one(hub: BroadcastHub) -> None:
    """It came with an older session than the one that is here: that one stays, and nobody is told
    of the other. A session that came twice is the later one's."""
    with Peer(hub) as watcher, Peer(hub, "/r?name=ann") as first:
        assert watcher.recv()["type"] == "join"
        with resumed(hub, first) as second, resumed(hub, second) as third:
            assert first.raw.recv_close()[0] == second.raw.recv_close()[0] == 1008
            with resumed(hub, first) as late:
                assert late.welcome["id"] == third.welcome["id"] == first.welcome["id"]
                late.send(type="send", data="not a member")
                assert late.raw.recv_close() == (1008, "a newer connection has your session")
            assert [member.name for member in hub.members("/r")] == [None, "ann"]
            assert hub.send(third.welcome["id"], "to the one that is here")
            assert third.recv()["data"] == "to the one that is here"
            third.send(type="send", data="from the one that is here")
            assert watcher.recv()["data"] == "from the one that is here"
            with resumed(hub, second) as again:
                assert third.raw.recv_close()[0] == 1008
                again.send(type="send", data="still ann")
                assert watcher.recv()["from"]["name"] == "ann"


@pytest.mark.parametrize("call", ["send", "disconnect"])
def test_client_that_is_replaced_just_now_is_found(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The connection that was looked up has ended a moment later; the client is still there."""
    _, server = parts(hub)
    find = server.find
    newer: list[Peer] = []

    def find_and_replace(client_id: str) -> Connection | None:
        connection = find(client_id)
        if not newer:
            newer.append(resumed(hub, old))
            assert old.raw.recv_close()[0] == 1008
        return connection

    monkeypatch.setattr(server, "find", find_and_replace)
    with Peer(hub) as old:
        if call == "send":
            assert hub.send(old.welcome["id"], "direct")
        else:
            assert hub.disconnect(old.welcome["id"], 4000, "go")
            assert not hub.members("/r")
        with newer[0] as new:
            if call == "send":
                assert new.recv()["data"] == "direct"
            else:
                assert new.raw.recv_close() == (4000, "go")


def test_welcome_is_first_also_if_the_program_was_faster(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever resumes can be sent to by its id before it is a member again. That comes after its
    ``welcome``, ``gap`` and all messages that were there when it was sent."""
    with Peer(hub) as old:
        join = Room.join

        def send_and_join(room: Room, connection: Connection, *args: Any, **more: Any) -> Any:
            assert hub.send(connection.member.id, "direct")
            hub.broadcast("one more", "/r")
            return join(room, connection, *args, **more)

        for text in ("one", "two"):
            hub.broadcast(text, "/r")
        monkeypatch.setattr(Room, "join", send_and_join)
        with resumed(hub, old, "&since=1-1") as new:
            found = [new.recv() for _ in range(5)]
            assert [event["type"] for event in found] == ["gap"] + ["message"] * 4
            assert [event.get("data") for event in found[1:]] == [
                "one",
                "two",
                "direct",
                "one more",
            ]


@pytest.mark.parametrize("call", ["stop", "disconnect"])
def test_client_that_is_sent_away_while_it_resumes_leaves_nobody(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Both of its connections end, and no member is left of either."""
    _, server = parts(hub)
    with Peer(hub) as old, Peer(hub) as watcher:
        join = Room.join
        reached, go_on = threading.Event(), threading.Event()

        def join_late(room: Room, *args: Any, **more: Any) -> Any:
            reached.set()
            assert go_on.wait(10)
            return join(room, *args, **more)

        def come_back() -> tuple[int, str]:
            path = f"/r?session={old.welcome['session']}"
            with RawClient.connect(port=hub.port, path=path, headers=OFFER) as raw:
                return raw.recv_close()

        monkeypatch.setattr(Room, "join", join_late)
        with during(come_back) as found:
            assert reached.wait(10)
            if call == "disconnect":
                assert hub.disconnect(old.welcome["id"], 4000, "go")
                go_on.set()
                assert old.recv()["type"] == "join"
                assert old.raw.recv_close()[0] == 1008
                assert wait_until(lambda: len(hub.members("/r")) == 1)
                assert watcher.recv()["type"] == "leave"
            else:
                with during(hub.stop):
                    assert wait_until(lambda: all(one.closing for one in server.connections()))
                    go_on.set()
                    old.raw.close()
                    watcher.raw.close()
        assert found[0] == ((4000, "go") if call == "disconnect" else (1001, "the hub stops"))


def test_name_that_changes_by_a_resume_is_told(hub: BroadcastHub) -> None:
    """Nobody is told that a connection was replaced; what others call the client must stay true."""
    with Peer(hub) as watcher, Peer(hub, "/r?name=ann") as old:
        assert watcher.recv()["type"] == "join"
        with resumed(hub, old) as same, resumed(hub, same, "&name=anna") as new:
            rename = watcher.recv()
            assert (rename["type"], rename["old"], rename["count"]) == ("rename", "ann", 2)
            assert rename["member"] == {"id": old.welcome["id"], "name": "anna"}
            new.send(type="send", data="x")
            assert watcher.recv()["from"]["name"] == "anna"
            with resumed(hub, new) as last:
                assert last.welcome["name"] == "anna"


# -- Presence ----------------------------------------------------------------------------------


def test_answer_to_who_is_not_older_than_what_was_told_before(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody joins after the list is made and before it is queued: it is made anew, for it would
    take the newcomer off the asker's list again."""
    members = events.members
    late: list[Peer] = []

    def members_and_join(*args: Any) -> bytes:
        frame = members(*args)
        if not late:
            late.append(Peer(hub, "/r?name=late"))
        return frame

    with Peer(hub) as peer:
        monkeypatch.setattr(events, "members", members_and_join)
        peer.send(type="who", ref=1)
        assert peer.recv()["member"]["name"] == "late"
        answer = peer.recv()
        assert (answer["ref"], answer["count"]) == (1, 2)
        assert [member["name"] for member in answer["members"]] == [None, "late"]
        late[0].raw.close()


def sent_away(hub: BroadcastHub, connection: Connection) -> None:
    assert hub.disconnect(connection.member.id)


def evicted(hub: BroadcastHub, connection: Connection) -> None:
    fanout = parts(hub)[0].fanout
    mailbox_of(fanout).post(fanout.writer.evict_slow, connection)


def lost(hub: BroadcastHub, connection: Connection) -> None:
    fanout = parts(hub)[0].fanout
    mailbox_of(fanout).post(fanout.writer.drop, connection)


@pytest.mark.parametrize("end", [sent_away, evicted, lost])
def test_nothing_of_a_member_comes_after_its_leave(
    hub: BroadcastHub,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[BroadcastHub, Connection], None],
) -> None:
    """It is told to go, or cut off, while its reader has a message in hand. That one is thrown
    away, not acknowledged, and may come again with its key."""
    core, server = parts(hub)
    reached, go_on = threading.Event(), threading.Event()
    submit = core.backplane.submit

    def submit_late(*args: Any) -> None:
        reached.set()
        assert go_on.wait(10)
        submit(*args)

    with Peer(hub) as watcher, Peer(hub) as member:
        assert watcher.recv()["type"] == "join"
        member.send(type="send", data="before", key="a", ref=1)
        assert member.recv()["type"] == "ack"
        assert watcher.recv()["data"] == "before"
        monkeypatch.setattr(core.backplane, "submit", submit_late)
        member.send(type="send", data="in hand", key="b", ref=2)
        assert reached.wait(10)
        connection = server.find(member.welcome["id"])
        assert connection is not None
        end(hub, connection)
        assert watcher.recv()["type"] == "leave"
        go_on.set()
        monkeypatch.undo()
        assert wait_until(lambda: reserved_bytes(core.rooms.open("/r")) == 0)
        with contextlib.suppress(EOFError, OSError):
            assert member.raw.recv_close()  # there is no ack before it
        member.raw.close()
        with resumed(hub, member) as again:
            assert watcher.recv()["type"] == "join"
            for key, data, repeated in (("a", "before", True), ("b", "in hand", False)):
                again.send(type="send", data=data, key=key, ref=3)
                assert again.recv()["duplicate"] is repeated
            assert watcher.recv()["data"] == "in hand"
        assert hub.stats()["messages"] == 2


def test_evicted_connection_publishes_nothing_after_the_one_that_takes_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is ended before it is no member: a message that was refused would else be followed by one
    that counts as its successor's, which has the same number, and their order would be lost."""
    left: list[str] = []
    with running_hub(on_leave=lambda member, code, reason: left.append(member.id)) as hub:
        core, server = parts(hub)
        reached, go_on = threading.Event(), threading.Event()

        def on_left_late(*args: Any) -> None:
            reached.set()
            assert go_on.wait(10)
            on_left(*args)

        on_left = replace_on_left(monkeypatch, core.fanout.writer, on_left_late)
        with Peer(hub), Peer(hub) as member:
            connection = server.find(member.welcome["id"])
            assert connection is not None
            evicted(hub, connection)
            assert reached.wait(10)
            try:
                query = f"?session={member.welcome['session']}"
                with RawClient.connect(port=hub.port, path=f"/r{query}", headers=OFFER):
                    assert wait_until(lambda: len(hub.members("/r")) == 2)
                    member.send(type="send", data="of the old one")
                    member.raw.close()
                    assert wait_until(lambda: left == [member.welcome["id"]])
                    assert hub.history("/r") == []
            finally:
                go_on.set()


@pytest.mark.parametrize("end", ["stop", "drain"])
def test_what_was_accepted_is_acknowledged_before_the_goodbye(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Who comes back to another hub, which knows no keys of this one, does not send it again."""
    accepted, go_on = threading.Event(), threading.Event()

    def acknowledge_late(*arguments: Any) -> None:
        accepted.set()
        assert go_on.wait(10)
        acknowledge(*arguments)

    acknowledge = replace_accepted(monkeypatch, acknowledge_late)
    with Peer(hub) as ann, RawClient.connect(port=hub.port, path="/r") as bob:
        ann.send(type="send", data="x", ref=1, key="k")
        assert accepted.wait(10)
        with during(getattr(hub, end)):
            assert bob.recv_message() == "x"
            assert bob.recv_close()[0] == 1001
            go_on.set()
            while (event := ann.recv())["type"] != "ack":
                pass
            assert event["ref"] == 1
            opcode = None
            while opcode != CLOSE:  # that bob leaves is told before
                _, opcode, payload = ann.raw.recv_frame()
            assert payload[:2] == (1001).to_bytes(2, "big")
            for peer in (ann.raw, bob):
                peer.send_close(1001)
                peer.close()


def test_message_behind_its_senders_close_is_refused(hub: BroadcastHub) -> None:
    """It is closing, though the others have not been told yet that it leaves: nobody gets it, and
    it is not acknowledged."""
    core, server = parts(hub)
    with Peer(hub) as ann:
        connection = server.find(ann.welcome["id"])
        assert connection is not None
        room = connection.room
        assert connection.queue_close(1001, "the hub stops")
        draft = core.draft(connection.number, "x", connection.member)
        cost = cost_of([draft])
        assert room.reserve(cost, None, lambda: False)
        with pytest.raises(SenderGone):
            core.publish(room, [draft], cost, lambda ids: None)
        assert hub.history("/r") == []
        core.leave(connection)
        core.fanout.attend(connection)
        assert ann.raw.recv_close()[0] == 1001


def test_join_that_fails_leaves_no_ghost(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when it fails after the client became a member."""

    def fail(*args: Any) -> bytes:
        raise MemoryError

    monkeypatch.setattr(events, "welcome", fail)
    with pytest.raises(EOFError):
        RawClient.connect(port=hub.port, path="/r", headers=OFFER)
    assert wait_until(lambda: "has failed" in caplog.text)
    assert hub.members("/r") == []


# -- Keys --------------------------------------------------------------------------------------


def test_publishers_with_one_key_at_once_publish_once(hub: BroadcastHub) -> None:
    """All of them get the id of the one that was first, which alone is delivered; and what the
    others had reserved is given back."""
    rounds, publishers = 20, 6
    barrier = threading.Barrier(publishers)
    answers: dict[int, list[tuple[str, bool]]] = {number: [] for number in range(rounds)}

    def post() -> None:
        with RawClient.open(port=hub.port) as client:
            for number in range(rounds):
                barrier.wait(10)
                client.sock.sendall(
                    b"POST /r HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n"
                    b"Content-Type: text/plain\r\nIdempotency-Key: %d\r\n\r\nx" % number
                )
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv_exact(1)
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                answer = json.loads(client.recv_exact(length))
                answers[number].append((answer["id"], answer["duplicate"]))

    def send() -> None:
        with Peer(hub, validate=False) as peer:
            for number in range(rounds):
                barrier.wait(10)
                peer.send(type="send", data="x", key=f"{number}", ref=number)
                while (event := peer.recv())["type"] != "ack":
                    pass
                answers[number].append((event["id"], event["duplicate"]))

    with RawClient.connect(port=hub.port, path="/r") as listener, contextlib.ExitStack() as stack:
        for number in range(publishers):
            stack.enter_context(during(post if number % 2 else send))
        for _ in range(rounds):
            assert listener.recv_message() == "x"
        stack.close()
        listener.sync()
        for found in answers.values():
            assert len({id for id, _ in found}) == 1
            assert sorted(repeated for _, repeated in found) == [False] + [True] * (publishers - 1)
        core, _ = parts(hub)
        assert reserved_bytes(core.rooms.open("/r")) == 0


# -- The program's code ------------------------------------------------------------------------


def post(hub: BroadcastHub) -> bytes:
    """Publish by HTTP; return the answer, nothing if the hub ends the connection before."""
    head = b"POST /r HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Type: text/plain\r\n"
    try:
        return http_request(hub.port, head + b"Connection: close\r\n\r\nx")
    except ConnectionResetError:
        return b""


@pytest.mark.parametrize("by", ["client", "http"])
def test_filter_that_stops_the_hub_is_not_waited_for(by: str) -> None:
    """It runs on a thread that the stop would wait for; its message is not accepted any more."""
    done = threading.Event()

    def stop(message: Message) -> Message:
        hub.stop(5)
        done.set()
        return message

    with running_hub(filter=stop) as hub, RawClient.connect(port=hub.port, path="/r") as client:
        with during(lambda: client.send("x") if by == "client" else post(hub)) as found:
            assert client.recv_close()[0] == 1001
            client.send_close(1001)
            client.recv_eof()
            client.close()
        assert done.wait(10)
        assert by == "client" or b" 200 " not in found[0]


@pytest.mark.parametrize("by", ["client", "http"])
def test_filter_may_publish(by: str) -> None:
    """What it publishes comes before the message that it is asked about."""

    def announce(message: Message) -> Message:
        hub.broadcast("next is:", message.room)
        return message

    with running_hub(filter=announce) as hub, RawClient.connect(port=hub.port, path="/r") as client:
        with RawClient.connect(port=hub.port, path="/r") as other:
            if by == "client":
                other.send("x")
            else:
                assert b" 200 " in post(hub)
            assert [client.recv_message(), client.recv_message()] == ["next is:", "x"]
