"""What one client sends: the order of its frames, its rate, and what comes after its end."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from broadcast_server import BroadcastHub
from broadcast_server.hub.backplane.interface import Done, RoomLog
from broadcast_server.hub.backplane.memory import MemoryBackplane
from broadcast_server.hub.budget import Budget
from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.rates import Flow
from broadcast_server.hub.reader import EVENT_WEIGHT, PIECE_BYTES, REST_SECONDS, REST_WEIGHT
from broadcast_server.hub.rooms.entries import Draft

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
    assert set(rests) <= {REST_SECONDS}
    # A piece of what has come is taken as a whole.
    pieces = count * len(sent) // PIECE_BYTES
    assert min(most, pieces) // 2 <= len(rests) <= most + 1 if rate else not rests
