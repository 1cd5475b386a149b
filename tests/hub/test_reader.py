"""What one client sends: the order of its frames, its rate, and what comes after its end."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from broadcast_server import BroadcastHub
from broadcast_server.hub import incoming
from broadcast_server.hub.backplane.interface import Done, RoomLog
from broadcast_server.hub.backplane.memory import MemoryBackplane
from broadcast_server.hub.budget import Budget
from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.incoming import INCOMING_BYTES, INCOMING_SHARE, Arrival, Incoming
from broadcast_server.hub.rates import Flow
from broadcast_server.hub.reader import EVENT_WEIGHT, PIECE_BYTES, REST_WEIGHT
from broadcast_server.hub.rooms.entries import Draft
from broadcast_server.hub.turns import LEAST_SECONDS, MOST_SECONDS

from ..support import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawClient,
    client_frame,
    running_hub,
    wait_until,
)
from ..support.inside import core_of, fanout_of, reserved_bytes, sleeps
from ..support.json_peer import Peer


def test_control_frames_keep_their_place_among_messages(hub: BroadcastHub) -> None:
    """When a ping is answered, what was sent before it is accepted."""
    with RawClient.connect(port=hub.port, path="/?echo=1") as client:
        client.sync()
        client.sock.sendall(
            client_frame(TEXT, "one") + client_frame(PING, "!") + client_frame(TEXT, "two")
        )
        frames = [client.recv_frame() for _ in range(3)]
        assert sorted(frames) == sorted(
            [(True, TEXT, b"one"), (True, PONG, b"!"), (True, TEXT, b"two")]
        )
        assert frames.index((True, TEXT, b"one")) < frames.index((True, TEXT, b"two"))
        assert hub.stats()["messages"] == 2


class LateBackplane(MemoryBackplane):
    """Accepts what it was given when it is told to, on that thread: as a store does that has to
    write it first."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[RoomLog, Sequence[Draft], Done, bool]] = []

    def submit(
        self, room: RoomLog, drafts: Sequence[Draft], done: Done, outside: bool = False
    ) -> None:
        self.waiting.append((room, drafts, done, outside))

    def accept(self) -> None:
        """Complete all batches that wait, in their order."""
        while self.waiting:
            room, drafts, done, outside = self.waiting.pop(0)
            super().submit(room, drafts, done, outside)


def test_batches_that_are_accepted_later_are_whole(hub: BroadcastHub) -> None:
    """The reader goes on meanwhile, and leaves alone what it has handed over: each message comes,
    and each ack has the id of its own."""
    core = core_of(hub)
    core.backplane = backplane = LateBackplane()
    with Peer(hub) as sender, Peer(hub) as other:
        assert sender.recv()["type"] == "join"
        said: list[dict[str, Any]] = [
            {"type": "send", "data": "one", "ref": 1},
            {"type": "send", "data": "two", "ref": 2},
            {"type": "who", "ref": 3},
            {"type": "send", "data": "three", "ref": 4},
            {"type": "nonsense", "ref": 5},
            {"type": "send", "data": "four", "ref": 6},
            {"type": "name", "name": "ann"},
            {"type": "send", "data": "five", "ref": 7},
        ]
        frames = [client_frame(TEXT, json.dumps(event)) for event in said]
        sender.raw.sock.sendall(b"".join(frames))
        # They are answered at once: nothing that the reader waits for has to be accepted first.
        assert [sender.recv()["type"] for _ in range(3)] == ["members", "error", "rename"]
        assert other.recv()["type"] == "rename"
        assert wait_until(lambda: len(backplane.waiting) == 4)
        backplane.accept()
        acks = [sender.recv() for _ in range(5)]
        assert [(ack["type"], ack["ref"]) for ack in acks] == [
            ("ack", ref) for ref in (1, 2, 4, 6, 7)
        ]
        came = [other.recv() for _ in range(5)]
        assert [message["data"] for message in came] == ["one", "two", "three", "four", "five"]
        assert [message["id"] for message in came] == [ack["id"] for ack in acks]
        assert reserved_bytes(core.rooms.open("/r")) == 0


class NotingBudget(Budget):
    """Notes how much was in hand."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.seen: list[int] = []

    def give(self, size: int, owner: str) -> None:
        self.seen.append(self.used)
        super().give(size, owner)


def test_large_events_of_all_clients_are_parsed_within_a_bound(hub: BroadcastHub) -> None:
    """Who comes when too much is in hand waits for its turn; nothing is lost. Small ones need
    none."""
    core = core_of(hub)
    core.parsing = budget = NotingBudget(100_000)
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(hub)) for _ in range(6)]
        assert core.parsing.take(100_000, "other", lambda: False)
        for number, peer in enumerate(peers):
            peer.send(type="send", data="x" * 40_000, ref=number)
            peer.send(type="send", data="small", ref=number)
        plain = stack.enter_context(Peer(hub, "/other"))
        plain.send(type="send", data="small", ref=1)
        assert plain.recv()["type"] == "ack"
        assert hub.stats()["messages"] == 1
        core.parsing.give(100_000, "other")
        assert wait_until(lambda: hub.stats()["messages"] == 13)
    assert wait_until(lambda: len(budget.seen) == 7)
    assert max(budget.seen) <= 100_000 and budget.used == 0


def test_client_that_ends_while_it_waits_to_be_parsed_holds_nothing() -> None:
    """Its reader ends, and its event is thrown away."""
    with running_hub(close_timeout=0.2) as hub:
        core = core_of(hub)
        core.parsing = Budget(10)
        assert core.parsing.take(10, "other", lambda: False)
        with Peer(hub) as peer:
            peer.send(type="send", data="x" * 40_000)
            hub.disconnect(peer.welcome["id"])
            assert wait_until(lambda: hub.stats()["clients"] == 0)
        assert (core.parsing.used, hub.stats()["messages"]) == (10, 0)


HALF = 200_000


def begin_large(client: RawClient, size: int = HALF, *, fin: bool = True) -> bytes:
    """Send the first half of a large message; return the other one."""
    frame = client_frame(BINARY, bytes(size), fin=fin)
    client.sock.sendall(frame[: size // 2])
    return frame[size // 2 :]


def test_large_messages_that_come_in_have_a_place_each() -> None:
    """Those of one sender have no more than its share; a client that waits is not read
    from, and loses nothing; small messages need none."""
    with running_hub(trust_proxy=["127.0.0.1"]) as hub, contextlib.ExitStack() as stack:
        core = core_of(hub)
        share = INCOMING_SHARE // HALF
        rooms = itertools.count()

        def connect(address: str) -> RawClient:
            header = f"X-Forwarded-For: {address}"
            path = f"/{next(rooms)}"
            return stack.enter_context(
                RawClient.connect(port=hub.port, path=path, headers=[header])
            )

        clients = [connect("192.0.2.1") for _ in range(share + 5)]
        rests = [begin_large(client) for client in clients]
        assert wait_until(lambda: core.incoming.used == share * HALF)
        other = connect("192.0.2.2")
        rest = begin_large(other)
        assert wait_until(lambda: core.incoming.used == (share + 1) * HALF)
        small = connect("192.0.2.1")
        small.send("small")
        assert wait_until(lambda: hub.stats()["messages"] == 1)
        assert core.incoming.used == (share + 1) * HALF
        other.sock.sendall(rest)
        assert wait_until(lambda: hub.stats()["messages"] == 2)
        for client, rest in zip(clients, rests, strict=True):
            client.sock.sendall(rest)
        assert wait_until(lambda: hub.stats()["messages"] == len(clients) + 2)
        assert wait_until(lambda: core.incoming.used == 0)


def test_fragments_take_a_place_for_all_that_may_follow() -> None:
    """As soon as they are large together; nobody says how long the others are."""
    with running_hub(max_message_bytes=300_000) as hub:
        core = core_of(hub)
        with RawClient.connect(port=hub.port) as client:
            client.send_frame(BINARY, bytes(60_000), fin=False)
            client.send_frame(PING, b"1")
            assert client.recv_frame() == (True, PONG, b"1")
            assert core.incoming.used == 0
            client.send_frame(CONTINUATION, bytes(60_000), fin=False)
            assert wait_until(lambda: core.incoming.used == 300_000)
            client.send_frame(CONTINUATION, bytes(100_000))
            assert wait_until(lambda: hub.stats()["messages"] == 1)
            assert wait_until(lambda: core.incoming.used == 0)


def test_half_a_large_message_holds_nothing_when_its_sender_has_gone(hub: BroadcastHub) -> None:
    """Whether it has a place or waits for one."""
    core = core_of(hub)
    core.incoming = Incoming(HALF, 10)
    taken = core.incoming.take(INCOMING_BYTES - HALF, "other", lambda: True)
    assert taken is not None
    with RawClient.connect(port=hub.port) as client, RawClient.connect(port=hub.port) as second:
        begin_large(client)
        assert wait_until(lambda: core.incoming.used == INCOMING_BYTES)
        begin_large(second)
        for member in hub.members():
            hub.disconnect(member.id)
        assert client.recv_close()[0] == second.recv_close()[0] == 1000
    assert wait_until(lambda: hub.stats()["clients"] == 0)
    assert wait_until(lambda: core.incoming.used == taken.size)


def test_clients_that_end_while_they_wait_for_a_place_end_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where a reader has more pieces of the message than the one before which it waits."""
    with running_hub(close_timeout=0.3) as hub, contextlib.ExitStack() as stack:
        core = core_of(hub)
        core.incoming = Incoming(INCOMING_SHARE, 3600.0)
        taken = core.incoming.take(INCOMING_SHARE, "127.0.0.1", lambda: True)
        assert taken is not None
        clients = []
        for number in range(5):
            client = RawClient.connect(port=hub.port, path=f"/{number}")
            clients.append(stack.enter_context(client))
            # The reader's buffer is large after this.
            client.sock.sendall(client_frame(BINARY, bytes(1000)) * 500)
        assert wait_until(lambda: hub.stats()["messages"] == 2500)
        for client in clients:
            begin_large(client)
        assert wait_until(lambda: core.incoming.is_waited_for)
        for room in hub.rooms():
            for member in hub.members(room):
                hub.disconnect(member.id)
        for client in clients:
            assert client.recv_close()[0] == 1000
        assert wait_until(lambda: hub.stats()["clients"] == 0)
        assert core.incoming.used == taken.size
    assert "has failed" not in caplog.text


def test_half_a_large_message_gives_way_when_others_wait(
    hub: BroadcastHub, caplog: pytest.LogCaptureFixture
) -> None:
    """Its sender is closed, told why, and another one has its place."""
    core = core_of(hub)
    core.incoming = Incoming(INCOMING_SHARE, 0.0, 0.0)
    with caplog.at_level("INFO"), RawClient.connect(port=hub.port) as slow:
        taken = core.incoming.take(INCOMING_SHARE - HALF, "127.0.0.1", lambda: True)
        begin_large(slow)
        assert wait_until(lambda: core.incoming.used == INCOMING_SHARE)
        with RawClient.connect(port=hub.port) as other:
            other.send_frame(BINARY, bytes(HALF))
            code, reason = slow.recv_close()
            assert code == 1013 and reason.startswith("since=")
            assert wait_until(lambda: hub.stats()["messages"] == 1)
    assert taken is not None
    assert wait_until(lambda: core.incoming.used == taken.size)
    assert core.counts().refused == {"timeout": 1}
    assert f"a message of {HALF} bytes comes too slowly, and others wait" in caplog.text


class NotingIncoming(Incoming):
    """Keeps all places that were taken, with what has taken them."""

    def __init__(self, largest: int = INCOMING_SHARE) -> None:
        super().__init__(largest, 0.0, 0.0)
        self.taken: list[tuple[Arrival, incoming.Receiving | None]] = []

    def take(self, size: int, owner: str, *args: Any, **named: Any) -> Arrival | None:
        arrival = super().take(size, owner, *args, **named)
        if arrival is not None:
            self.taken.append((arrival, named.get("message")))
        return arrival


@pytest.mark.parametrize("is_json", [False, True])
def test_each_large_message_has_a_place_of_its_own(hub: BroadcastHub, is_json: bool) -> None:
    """Also where the next one begins in the same piece as the last one ends: it is not late
    because the ones before it took their time."""
    core = core_of(hub)
    core.incoming = places = NotingIncoming()
    data = "x" * HALF
    payload = json.dumps({"type": "send", "data": data}) if is_json else data
    frames = client_frame(TEXT, payload) * 5
    with contextlib.ExitStack() as stack:
        raw = (
            stack.enter_context(Peer(hub)).raw
            if is_json
            else stack.enter_context(RawClient.connect(port=hub.port))
        )
        raw.sock.sendall(frames)
        assert wait_until(lambda: hub.stats()["messages"] == 5)
    assert wait_until(lambda: places.used == 0)
    assert len(places.taken) == 5


def test_bytes_of_a_message_that_gives_way_are_let_go(hub: BroadcastHub) -> None:
    """At once, whatever its sender does with the Close."""
    core = core_of(hub)
    core.incoming = places = NotingIncoming()
    with RawClient.connect(port=hub.port) as slow:
        begin_large(slow)
        assert wait_until(lambda: places.used == HALF)
        ((arrival, reader),) = places.taken
        assert reader is not None
        assert wait_until(lambda: reader.received() >= HALF // 2 - 20)
        reader.give_way(arrival)
        assert wait_until(lambda: (places.used, reader.received()) == (0, 0))
        reader.give_way(arrival)
        assert core.counts().refused == {"timeout": 1}


@pytest.mark.parametrize("how", ["Close", "sent away", "too big"])
def test_client_that_ends_inside_a_large_message_keeps_no_place(
    hub: BroadcastHub, how: str
) -> None:
    """Although its connection stays open until it answers."""
    core = core_of(hub)
    core.incoming = places = NotingIncoming()
    with RawClient.connect(port=hub.port) as client:
        client.send_frame(BINARY, bytes(HALF), fin=False)
        assert wait_until(lambda: len(places.taken) == 1)
        (_, reader) = places.taken[0]
        assert reader is not None
        if how == "Close":
            client.send_close()
        elif how == "too big":
            client.send_frame(CONTINUATION, bytes(1024 * 1024), fin=False)
        else:
            (member,) = hub.members()
            hub.disconnect(member.id)
            client.sock.sendall(client_frame(CONTINUATION, b"more", fin=False))
        assert wait_until(lambda: (places.used, reader.received()) == (0, 0))


def test_stop_does_not_wait_for_clients_that_wait_for_a_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They look at once, and no thread is left."""
    with running_hub() as hub:
        core = core_of(hub)
        core.incoming = places = Incoming(INCOMING_SHARE, 3600.0)
        taken = places.take(INCOMING_SHARE, "127.0.0.1", lambda: True)
        assert taken is not None
        with RawClient.connect(port=hub.port) as client:
            begin_large(client)
            assert wait_until(lambda: places.is_waited_for)
            hub.stop(0.0)
        assert "still runs" not in caplog.text
        assert (places.used, places.is_waited_for) == (INCOMING_SHARE, False)


def test_whole_message_that_waits_for_the_hub_does_not_give_way(hub: BroadcastHub) -> None:
    """It is the hub's turn then; others wait for it."""
    core = core_of(hub)
    core.incoming = Incoming(INCOMING_SHARE, 0.0, 0.0)
    taken = core.incoming.take(INCOMING_SHARE - HALF, "127.0.0.1", lambda: True)
    with RawClient.connect(port=hub.port) as first, RawClient.connect(port=hub.port) as second:
        rest = begin_large(first)
        assert wait_until(lambda: core.incoming.used == INCOMING_SHARE)
        core.rooms.gate.set(True)
        first.sock.sendall(rest)
        second.send_frame(BINARY, bytes(HALF))
        assert wait_until(lambda: core.incoming.hurried == 1)
        assert hub.stats()["messages"] == 0
        core.rooms.gate.set(False)
        assert wait_until(lambda: hub.stats()["messages"] == 2)
    assert taken is not None
    assert wait_until(lambda: core.incoming.used == taken.size)
    assert core.counts().refused == {}


def test_what_comes_after_the_end_is_thrown_away_within_bounds() -> None:
    """A peer that goes on sending after our Close is cut off, and nothing of it is published."""
    with running_hub(max_message_bytes=1000, close_timeout=30) as hub:
        with RawClient.connect(port=hub.port) as client:
            client.send_frame(TEXT, b"\xff")
            assert client.recv_close()[0] == 1007
            with pytest.raises(OSError):
                for _ in range(10_000):
                    client.send_frame(BINARY, bytes(1000))
        assert wait_until(lambda: hub.stats()["clients"] == 0)
        assert hub.stats()["messages"] == 0


def test_rate_is_a_bucket_of_one_second() -> None:
    """A burst passes at once; what exceeds it waits and is not lost."""
    with running_hub(max_rate=200) as hub, RawClient.connect(port=hub.port) as listener:
        listener.sync()
        with RawClient.connect(port=hub.port) as client:
            client.sock.sendall(client_frame(TEXT, "x") * 260)
            for _ in range(260):
                assert listener.recv_message() == "x"
            client.leave()


def test_event_costs_of_the_rate_what_it_costs_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename as many messages as it tells members, a list a tenth of its length, an error one;
    and nothing more than what passes in a second."""
    taken: list[float] = []
    take = Flow.take

    def noted(flow: Flow, count: float) -> float:
        taken.append(count)
        return take(flow, count)

    monkeypatch.setattr(Flow, "take", noted)
    monkeypatch.setattr("broadcast_server.hub.reader.LISTED_FOR_ONE", 3)
    for rate, renamed in ((10_000, 12), (5, 5)):
        taken.clear()
        with running_hub(max_rate=rate) as hub, contextlib.ExitStack() as stack:
            peer = stack.enter_context(Peer(hub))
            for _ in range(11):
                stack.enter_context(Peer(hub))
                assert peer.recv()["type"] == "join"
            for event in ({"type": "name", "name": "ann"}, {"type": "who"}, {"type": "what"}):
                peer.send(**event)
            assert [peer.recv()["type"] for _ in range(3)] == ["rename", "members", "error"]
            assert taken == [renamed, 4, 1]


def test_client_that_is_behind_is_not_read_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it has caught up, as long as it takes something."""
    waits: list[float] = []

    def wait_caught_up(client: Connection, seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            client.lagging = False

    monkeypatch.setattr(Connection, "wait_caught_up", wait_caught_up)
    with (
        running_hub() as hub,
        RawClient.connect(port=hub.port, path="/r?echo=1") as client,
        RawClient.connect(port=hub.port, path="/other") as other,
    ):
        client.sync()
        other.sync()  # the fan-out is done with the first one
        (connection,) = core_of(hub).rooms.open("/r").members.values()
        assert wait_until(lambda: connection.plain) and sleeps(fanout_of(hub))
        connection.blocked_since = float("inf")
        connection.lagging = True
        client.send("a")
        assert client.recv_message() == "a"
        assert len(waits) == 2
        assert wait_until(lambda: connection.plain) and sleeps(fanout_of(hub))
        connection.blocked_since = 0.0
        connection.lagging = True
        client.send("b")
        client.send("c")
        assert (client.recv_message(), client.recv_message()) == ("b", "c")
        assert len(waits) == 2


@pytest.mark.parametrize(
    ("sent", "weight"),
    [
        (client_frame(TEXT, "x" * 64), 1),
        (client_frame(PING, b"x"), EVENT_WEIGHT),
        (client_frame(CONTINUATION, b"", fin=False), 1),
    ],
    ids=["messages", "pings", "fragments"],
)
@pytest.mark.parametrize("rate", [10_000, 0])
def test_reader_rests_in_a_burst(
    sent: bytes, weight: int, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a few of them would keep the interpreter to themselves. Not where the operator has
    lifted the limit, and wants all the speed that there is."""
    rests: list[float] = []

    class Time:
        """Counts the rests."""

        monotonic = staticmethod(time.monotonic)

        def sleep(self, seconds: float) -> None:
            rests.append(seconds)

    count = 3000
    with running_hub(max_rate=rate, max_control_rate=rate) as hub:
        with RawClient.connect(port=hub.port, path="/r?echo=1") as client:
            client.sync()
            monkeypatch.setattr("broadcast_server.hub.reader.time", Time())
            if sent[0] == CONTINUATION:
                client.send_frame(BINARY, b"", fin=False)
            client.sock.sendall(sent * count)
            client.send_frame(CONTINUATION if sent[0] == CONTINUATION else BINARY, b"end")
            while b"end" not in client.buffer:
                client.fill()
    most = count * weight // REST_WEIGHT
    assert all(LEAST_SECONDS <= rest <= MOST_SECONDS for rest in rests)
    # A piece of what has come is taken as a whole.
    pieces = count * len(sent) // PIECE_BYTES
    assert min(most, pieces) // 2 <= len(rests) <= most + 1 if rate else not rests
