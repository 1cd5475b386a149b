"""``broadcast.v1.json`` on a real hub: presence, acks, errors, sessions."""

from __future__ import annotations

import base64
import json
import time

import jsonschema
import pytest

from broadcast_server import BroadcastHub

from ..support import BINARY, CLOSE, PONG, HandshakeRefused, RawClient, running_hub, wait_until
from ..support.event_schema import checked
from ..support.inside import fanout_of, sleeps
from ..support.json_peer import Peer


def test_join_leave_and_rename_are_told_to_the_others(hub: BroadcastHub) -> None:
    """Plain clients count, and are told nothing; the list in welcome is true."""
    with RawClient.connect(port=hub.port, path="/r") as plain, Peer(hub, "/r?name=ann") as ann:
        assert [member["name"] for member in ann.welcome["members"]] == [None, "ann"]
        with Peer(hub, "/r?name=bob") as bob:
            assert bob.welcome["count"] == 3
            join = ann.recv()
            assert (join["type"], join["member"]["name"], join["count"]) == ("join", "bob", 3)
            bob.send(type="name", name="rob")
            for peer in (ann, bob):
                rename = peer.recv()
                assert (rename["type"], rename["old"]) == ("rename", "bob")
                assert rename["member"] == {"id": bob.welcome["id"], "name": "rob"}
            bob.send(type="who", ref=5)
            members = bob.recv()
            assert (members["count"], members["ref"]) == (3, 5)
            assert [member["name"] for member in members["members"]] == [None, "ann", "rob"]
        leave = ann.recv()
        assert (leave["type"], leave["count"]) == ("leave", 2)
        plain.sync()


def test_ack_has_the_id_and_comes_after_what_came_before(hub: BroadcastHub) -> None:
    """A repeated key is acknowledged with the first id, and not delivered again."""
    with Peer(hub, "/r?echo=1") as peer, RawClient.connect(port=hub.port, path="/r") as plain:
        assert peer.recv()["type"] == "join"
        peer.send(type="send", data="a", ref=1, key="k")
        message, ack = peer.recv(), peer.recv()
        assert (message["type"], message["from"]["id"]) == ("message", peer.welcome["id"])
        assert ack == {"type": "ack", "ref": 1, "id": message["id"], "duplicate": False}
        peer.send(type="send", data="a", ref="two", key="k")
        assert peer.recv() == {"type": "ack", "ref": "two", "id": message["id"], "duplicate": True}
        peer.send(type="send", data_base64="AAE=")
        assert peer.recv()["data_base64"] == "AAE="
        assert [plain.recv_message(), plain.recv_message()] == ["a", b"\0\1"]


def test_errors_are_told_and_too_many_end_the_connection(hub: BroadcastHub) -> None:
    """What was sent before is accepted; nine in a row are forgiven by one good frame."""
    with Peer(hub) as peer, Peer(hub) as other:
        assert peer.recv()["type"] == "join"
        for _ in range(2):
            for number in range(9):
                peer.send(type="send", data=number, ref=number)
                error = peer.recv()
                assert (error["code"], error["ref"]) == ("bad_field", number)
            peer.send(type="send", data="good")
            assert other.recv()["data"] == "good"
        for _ in range(10):
            peer.raw.send_frame(BINARY, b"x")
            assert peer.recv()["code"] == "not_text"
        assert peer.raw.recv_close() == (1008, "too many errors")
        assert other.recv()["type"] == "leave"


def test_message_of_the_limit_passes_however_it_is_written() -> None:
    """The limit is of the data, not of the JSON around it; a byte more is an error, not the end."""
    with running_hub(max_message_bytes=1000) as hub, Peer(hub, "/r?echo=1") as peer:
        peer.send(type="send", data="\0" * 1000)
        assert peer.recv()["data"] == "\0" * 1000
        peer.send(type="send", data="\0" * 1001, ref=1)
        assert (peer.recv()["code"], hub.stats()["messages"]) == ("too_big", 1)


def test_session_keeps_the_client_and_replaces_a_half_dead_one(hub: BroadcastHub) -> None:
    """The same id, its own messages left out of what is replayed, and nobody is told of either."""
    with Peer(hub) as watcher, Peer(hub, "/r?name=ann") as old:
        assert watcher.recv()["type"] == "join"
        old.send(type="send", data="mine", ref=1)
        place = old.recv()["id"]
        assert watcher.recv()["data"] == "mine"
        other = hub.broadcast("other", "/r")
        again = f"/r?session={old.welcome['session']}&since={old.welcome['after']}"
        with Peer(hub, again) as new:
            assert (new.welcome["id"], new.welcome["name"]) == (old.welcome["id"], "ann")
            assert new.welcome["count"] == 2
            assert new.recv()["id"] == other.id != place
            assert old.recv()["id"] == other.id
            assert old.raw.recv_close() == (1008, "a newer connection has your session")
            assert watcher.recv()["data"] == "other"
            new.send(type="send", data="still ann")
            assert watcher.recv()["from"] == {"id": new.welcome["id"], "name": "ann"}
            assert [member.name for member in hub.members("/r")] == [None, "ann"]
            assert hub.send(new.welcome["id"], "direct")
            assert new.recv() | {"time": ""} == {
                "type": "message", "id": None, "time": "", "from": None, "data": "direct"
            }  # fmt: skip


def test_key_of_another_message_is_an_error_and_nothing_is_delivered(hub: BroadcastHub) -> None:
    """With its ref, in its place among the acks; it is no mistake in the frame."""
    with Peer(hub, "/r?echo=1") as peer:
        peer.send(type="send", data="a", ref=1, key="k")
        first = peer.recv()
        assert peer.recv()["type"] == "ack"
        for data in ({"data": "b"}, {"data_base64": "YQ=="}) * 10:
            peer.send(type="send", key="k", ref=2, **data)
            error = peer.recv()
            assert (error["type"], error["code"], error["ref"]) == ("error", "key_reused", 2)
        peer.send(type="send", data="b", key="k")
        assert peer.recv()["code"] == "key_reused"
        peer.send(type="send", data="a", ref=3, key="k")
        assert peer.recv() == {"type": "ack", "ref": 3, "id": first["id"], "duplicate": True}
        assert [message.data for message in hub.history("/r")] == ["a"]
        assert hub.stats()["messages"] == 1


def test_client_that_comes_back_keeps_its_name(hub: BroadcastHub) -> None:
    """The one that it has now while its old connection is here, else the one in its session."""
    with Peer(hub, "/r?name=ann") as old:
        old.send(type="name", name="anna")
        assert old.recv()["type"] == "rename"
        with Peer(hub, f"/r?session={old.welcome['session']}") as new:
            assert new.welcome["name"] == "anna"
            token = new.welcome["session"]
    assert wait_until(lambda: not hub.members("/r"))
    with Peer(hub, f"/r?session={token}") as last:
        assert (last.welcome["id"], last.welcome["name"]) == (old.welcome["id"], "anna")


def offer(session: str) -> str:
    """Return the subprotocol with which a session is shown."""
    encoded = base64.urlsafe_b64encode(session.encode()).decode().rstrip("=")
    return f"broadcast.session.{encoded}"


def test_session_is_shown_among_the_subprotocols(hub: BroadcastHub) -> None:
    """No proxy has it in its log; it is never the one that is chosen. In both places it must be the
    same."""
    protocol = "Sec-WebSocket-Protocol: broadcast.v1.json"
    with Peer(hub, "/r?name=ann") as old:
        session = old.welcome["session"]
    for path, lines in (
        ("/r", [f"{protocol}, {offer(session)}"]),
        ("/r", [protocol, f"Sec-WebSocket-Protocol: {offer(session)}"]),
        (f"/r?session={session}", [f"{protocol}, {offer(session)}"]),
    ):
        with RawClient.connect(port=hub.port, path=path, headers=lines) as raw:
            assert raw.header("Sec-WebSocket-Protocol") == "broadcast.v1.json"
            welcome = json.loads(raw.recv_message())
            assert (welcome["id"], welcome["name"]) == (old.welcome["id"], "ann")
    for path, entry in (
        ("/r?session=other", offer(session)),
        ("/r", f"{offer(session)}, {offer('other')}"),
        ("/r", "broadcast.session.a"),
        ("/r", "broadcast.session._w"),
        ("/r", offer("x" * 257)),
    ):
        with pytest.raises(HandshakeRefused) as caught:
            RawClient.connect(port=hub.port, path=path, headers=[f"{protocol}, {entry}"])
        assert caught.value.status == 400


def test_room_is_reserved_in_every_event(hub: BroadcastHub) -> None:
    """A client may send it some day: a hub of today is not confused by it."""
    with Peer(hub, "/r") as ann, Peer(hub, "/r") as bob:
        assert ann.recv()["type"] == "join"
        ann.send(type="send", data="x", ref=1, room="/r")
        ann.send(type="who", ref=2, room="/r")
        assert [ann.recv()["ref"] for _ in range(2)] == [1, 2]
        assert bob.recv()["data"] == "x"
    for event in ({"type": "count", "count": 1}, {"type": "session", "session": "s"}):
        assert checked(json.dumps(event | {"room": "/r"}).encode())
        with pytest.raises(jsonschema.ValidationError):
            checked(json.dumps(event | {"room": 5}).encode())


def test_client_that_stays_gets_a_new_session(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the old one ends; with the name that it has now. One pong is enough."""
    monkeypatch.setattr("broadcast_server.hub.reader.RENEW_SECONDS", 0.0)
    with Peer(hub, "/r?name=ann") as old:
        old.raw.send_frame(PONG, b"")
        renewed = old.recv()
        assert renewed.keys() == {"type", "session"} and renewed["type"] == "session"
    with Peer(hub, f"/r?session={renewed['session']}") as new:
        assert (new.welcome["id"], new.welcome["name"]) == (old.welcome["id"], "ann")


def test_since_that_is_not_held_is_a_gap() -> None:
    """Trimmed, from before the start, or never given out: told, and all that is held follows."""
    with running_hub(max_message_bytes=1000, room_log_bytes=20_000) as hub:
        first = hub.broadcast("0", "/r")
        for _ in range(100):
            hub.broadcast(bytes(900), "/r")
        # What is trimmed only while somebody joins is another gap.
        assert wait_until(lambda: hub.stats()["log_bytes"] <= 20_000)
        assert first.id is not None
        future = "99999999999999-1"
        for since, reason in ((first.id, "trimmed"), ("1-1", "restarted"), (future, "unknown")):
            with Peer(hub, f"/r?since={since}") as peer:
                gap = peer.recv()
                assert (gap["type"], gap["reason"], gap["since"]) == ("gap", reason, since)
                assert gap["after"] == peer.welcome["after"]
                assert peer.recv()["type"] == "message"


def test_more_than_a_hundred_members_are_only_counted() -> None:
    """At most one event a second, and the last count is true."""
    with running_hub() as hub, Peer(hub) as peer:
        others = [RawClient.connect(port=hub.port, path="/r") for _ in range(99)]
        for number in range(99):
            assert peer.recv()["count"] == number + 2
        began = time.monotonic()
        others += [RawClient.connect(port=hub.port, path="/r") for _ in range(20)]
        counts = []
        while not counts or counts[-1] != 120:
            event = peer.recv()
            assert event["type"] == "count"
            counts.append(event["count"])
        assert len(counts) <= 2 + time.monotonic() - began
        for other in others:
            other.close()


def test_room_that_has_shrunk_is_not_counted_any_more(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members of a room that is small again hear who comes and goes, and no ``count``."""
    monkeypatch.setattr("broadcast_server.hub.rooms.presence.MAX_NAMED", 2)
    monkeypatch.setattr("broadcast_server.hub.delivery.fanout.COUNT_SECONDS", 0.0)
    fanout = fanout_of(hub)
    with Peer(hub) as peer:
        others = [RawClient.connect(port=hub.port, path="/r") for _ in range(2)]
        kinds = [peer.recv()["type"] for _ in range(2)]
        assert kinds == ["join", "count"]
        for other in others:
            other.leave()
            assert peer.recv()["type"] == "leave"
        with RawClient.connect(port=hub.port, path="/r"):
            assert peer.recv()["type"] == "join"
            # A count that is due would be queued before the fan-out sleeps.
            assert sleeps(fanout)
            peer.send(type="who", ref=1)
            assert peer.recv()["type"] == "members"


def test_presence_that_piles_up_becomes_one_list(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not read is not sent what is old news by then, but the list as it is."""
    monkeypatch.setattr("broadcast_server.hub.rooms.subscriber.MAX_PRESENCE_BYTES", 3000)
    with Peer(hub, rcvbuf=4096) as peer:
        (connection,) = fanout_of(hub).writer.connections
        while not connection.blocked:
            hub.broadcast(bytes(100_000), "/r")
        for _ in range(50):
            with RawClient.connect(port=hub.port, path="/r") as client:
                client.leave()
        last = RawClient.connect(port=hub.port, path="/r?name=last")
        assert wait_until(lambda: len(hub.members("/r")) == 2 and connection.missed)
        kinds = []
        while "members" not in kinds:
            event = peer.recv()
            kinds.append(event["type"])
        assert [member["name"] for member in event["members"]] == [None, "last"]
        assert kinds.count("join") + kinds.count("leave") < 20
        last.close()


def test_close_of_the_peer_is_echoed_after_its_acks(hub: BroadcastHub) -> None:
    """The echo of Close is the proof that all before it was accepted, here as for plain clients."""
    with Peer(hub) as peer:
        for number in range(100):
            peer.send(type="send", data="x", ref=number)
        peer.raw.send_close(1000)
        for number in range(100):
            assert peer.recv()["ref"] == number
        assert peer.raw.recv_frame()[1] == CLOSE
