"""The fan-out's thread: when it wakes, and what happens when it fails."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server import BroadcastHub, HubStopped
from broadcast_server.hub.delivery import fanout as fanout_module
from broadcast_server.hub.delivery import writer as writer_module
from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.delivery.fanout import SHARE_BYTES, STALL_SECONDS
from broadcast_server.hub.delivery.timers import MIN_SKIPPED, NEVER
from broadcast_server.hub.delivery.writer import BATCH_BYTES
from broadcast_server.hub.rooms import encodings
from broadcast_server.hub.rooms.encodings import JSON, SSE, SSE_JSON, Form
from broadcast_server.hub.rooms.entries import ENTRY_BYTES, Draft, cost_of, encode
from broadcast_server.messages import Member, format_id
from broadcast_server.wire import events, frames

from ...support import PING, TEXT, RawClient, client_frame, running_hub, wait_until
from ...support.beside import during
from ...support.fanout_bench import Bench, Clock, read_all
from ...support.inside import (
    activate,
    appointments_in,
    core_of,
    count_wakes,
    fanout_of,
    is_asleep,
    mailbox_of,
    make_pass,
    post_count,
    posts_in,
    replace_pass,
    server_of,
    sleeps,
    timers_of,
    total_cost,
    turn,
    wakes_by,
)
from ...support.json_peer import Peer


def test_first_client_wakes_and_the_next_ones_do_not(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any client it would sleep for ever; with one it wakes in time for the pings."""
    fanout = fanout_of(hub)
    mailbox = mailbox_of(fanout)
    assert sleeps(fanout) and wakes_by(mailbox) == NEVER
    wakes = count_wakes(monkeypatch, mailbox)
    with RawClient.connect(port=hub.port), RawClient.connect(port=hub.port) as second:
        assert wait_until(lambda: len(hub.members("/")) == 2 and len(wakes) >= 1)
        assert sleeps(fanout)
        count = len(wakes)
        with RawClient.connect(port=hub.port) as third:
            assert wait_until(lambda: bool(posts_in(mailbox)))
            # Its reader has looked whether it needs something by then, and found nothing.
            server = server_of(hub)
            assert wait_until(lambda: all(client.waiting for client in server.connections()))
            assert len(wakes) == count and is_asleep(fanout)
            # What comes now wakes it, and finds the new clients.
            hub.broadcast("x")
            assert second.recv_message() == third.recv_message() == "x"
            assert len(wakes) == count + 1


def test_client_that_needs_something_wakes(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """History does not wait for somebody to talk."""
    fanout = fanout_of(hub)
    with RawClient.connect(port=hub.port) as first:
        hub.broadcast("old")
        assert first.recv_message() == "old"
        assert sleeps(fanout)
        with RawClient.connect(port=hub.port, path="/?history=1") as second:
            assert second.recv_message() == "old"


def test_unwoken_client_is_pinged_in_time() -> None:
    """And is evicted if it does not answer: the heartbeat knows it although nothing was sent."""
    left: list[tuple[int, str]] = []
    with running_hub(
        ping_interval=0.2,
        ping_timeout=0.2,
        close_timeout=0.2,
        on_leave=lambda member, code, reason: left.append((code, reason)),
    ) as hub:
        with RawClient.connect(port=hub.port), RawClient.connect(port=hub.port):
            assert wait_until(lambda: len(left) == 2)
    assert left == [(1011, "ping timeout")] * 2


def test_unwoken_client_that_leaves_is_forgotten(hub: BroadcastHub) -> None:
    """Join and leave are both posted when the thread wakes for the leave."""
    fanout = fanout_of(hub)
    with RawClient.connect(port=hub.port) as first:
        first.sync()
        for _ in range(20):
            assert sleeps(fanout)
            with RawClient.connect(port=hub.port) as client:
                client.leave()
        assert wait_until(lambda: len(fanout.writer.connections) == 1)


def test_join_and_broadcast_at_once_lose_nothing(hub: BroadcastHub) -> None:
    """Every client that is a member when a message is accepted gets it, woken or not."""
    stop = threading.Event()

    def talk() -> None:
        while not stop.wait(0.0005):
            hub.broadcast("tick")

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        for _ in range(100):
            with RawClient.connect(port=hub.port) as client:
                hub.broadcast("mine")
                while client.recv_message() != "mine":
                    pass
    finally:
        stop.set()
        talking.join(10)


def test_failure_ends_the_hub_for_everybody_to_see(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in the one thread that writes: clients are cut off, calls say so, no hang."""
    with running_hub(close_timeout=0.2) as hub:
        fanout = fanout_of(hub)
        with RawClient.connect(port=hub.port) as client:
            client.sync()

            def fail(*_: Any) -> bool:
                raise RuntimeError("made by the test")

            replace_pass(monkeypatch, fanout, fail)
            hub.broadcast("x")
            assert wait_until(lambda: not fanout.is_alive)
            assert client.sock.recv(100) == b""
            with pytest.raises(HubStopped):
                hub.broadcast("y")
            with pytest.raises(HubStopped):
                hub.send("c1", "y")
        assert "the fan-out has failed" in caplog.text


def test_client_that_joins_after_the_failure_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reader would wait for ever until somebody writes what it has sent."""
    with running_hub(max_message_bytes=1000, room_log_bytes=8000) as hub:
        fanout = fanout_of(hub)
        server = server_of(hub)

        def fail(room: Any) -> bool:
            raise RuntimeError("made up")

        replace_pass(monkeypatch, fanout, fail)
        hub.broadcast("x")
        assert wait_until(lambda: not fanout.is_alive)
        burst = client_frame(TEXT, "x") * 20 + client_frame(PING)
        with RawClient.connect(port=hub.port, extra=burst * 2) as client:
            with pytest.raises((EOFError, OSError)):
                client.recv_exact(1)
            assert wait_until(lambda: server.client_count == 0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(max_message_bytes=30_000, room_log_bytes=400_000)
    yield made
    made.close()


def test_renames_hold_up_no_other_room(bench: Bench) -> None:
    """However many there were, they leave one post for each member, and the other room's message
    goes out in the very next turn."""
    members = [bench.client(form=JSON) for _ in range(100)]
    others = [bench.client(path="/other") for _ in range(2)]
    for client, _ in members + others:
        bench.fanout.activate(client)
    while post_count(bench.fanout):
        turn(bench.fanout)
    noisy, _ = members[0]
    for number in range(10_000):
        told = bench.room.rename(noisy, str(number))
        bench.fanout.tell(bench.room, told)
    assert post_count(bench.fanout) == 100
    bench.publish(1, 10, "/other")
    bench.fanout.notify(bench.rooms.open("/other"))
    spent = bench.fanout.writer.spent
    turn(bench.fanout)
    assert bench.fanout.writer.spent - spent <= SHARE_BYTES + 2 * BATCH_BYTES
    for _, theirs in others:
        assert len(theirs.recv(100)) == 12


@pytest.mark.parametrize("count", [5, 20, 100])
def test_what_is_for_one_client_alone_takes_turns_with_rooms(bench: Bench, count: int) -> None:
    """Clients that have answers without end get a share of a turn between them, each in its turn,
    and the others' messages go out after that share."""
    greedy = [bench.client(path=f"/{number}") for number in range(count)]
    clients = [client for client, _ in greedy]
    for _, theirs in greedy:
        theirs.setblocking(False)
    others = [bench.client(path="/other") for _ in range(2)]
    for client, _ in greedy + others:
        bench.fanout.activate(client)
    while post_count(bench.fanout):
        turn(bench.fanout)
    frame = frames.encode_frame(frames.BINARY, bytes(1000))
    for client in clients:
        for _ in range(1000):
            client.queue(frame)
        bench.fanout.attend(client)
        bench.fanout.attend(client)
    assert post_count(bench.fanout) == count
    taken = dict.fromkeys(clients, 0)
    for number in range(20):
        bench.publish(1, 10, "/other")
        bench.fanout.notify(bench.rooms.open("/other"))
        spent = bench.fanout.writer.spent
        turn(bench.fanout)
        assert bench.fanout.writer.spent - spent <= SHARE_BYTES + BATCH_BYTES
        for _, theirs in others:
            assert len(theirs.recv(100)) == 12
        for client, theirs in greedy:
            with contextlib.suppress(BlockingIOError):
                taken[client] += len(theirs.recv(1 << 20))
        least, most = min(taken.values()), max(taken.values())
        assert most - least <= 2 * BATCH_BYTES, number


def test_pass_serves_those_behind_up_to_a_share(bench: Bench) -> None:
    """The others follow in the next pass, before anything new is offered."""
    members = [bench.client() for _ in range(60)]
    frame = frames.encode_frame(frames.BINARY, bytes(10))
    for client, theirs in members:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        bench.fanout.activate(client)
    while post_count(bench.fanout):
        turn(bench.fanout)
    for _ in range(20):
        for client, _ in members:
            client.queue(frame)
        bench.publish(1, 10)
    head = bench.room.head
    bench.fanout.notify(bench.room)
    passes = 0
    while bench.fanout.writer.active or not passes:
        spent = bench.fanout.writer.spent
        turn(bench.fanout)
        passes += 1
        assert bench.fanout.writer.spent - spent <= 2 * (SHARE_BYTES + BATCH_BYTES)
        assert bench.room.offered == head
        if passes == 1:
            bench.publish(1, 10)
            bench.fanout.notify(bench.room)
            turn(bench.fanout)
            assert bench.room.offered == head
            break
    while bench.fanout.writer.active or post_count(bench.fanout) or bench.fanout.writer.unfinished:
        turn(bench.fanout)
    for _, theirs in members:
        assert len(theirs.recv(1 << 20)) == 41 * 12
    assert not bench.room.behind


def test_who_talks_alone_has_nothing_made_of_it(hub: BroadcastHub) -> None:
    """A JSON event that nobody gets is not made; it is when somebody comes for it."""
    encodes = fanout_of(hub).writer.encodes
    with Peer(hub) as peer:
        for ref in range(50):
            peer.send(type="send", data="x", ref=ref)
        for ref in range(50):
            assert peer.recv()["ref"] == ref
        assert sleeps(fanout_of(hub))
        assert encodes[JSON] == 0
        with Peer(hub, "/r?history=50") as other:
            assert [other.recv()["data"] for _ in range(50)] == ["x"] * 50
            assert encodes[JSON] == 50
            peer.send(type="send", data="y", ref=50)
            assert other.recv()["data"] == "y"


def test_sockets_that_take_more_take_turns(bench: Bench) -> None:
    """A client that reads in sips wakes the fan-out for each; all of them share a turn."""
    sippers = [bench.client(path=f"/{number}") for number in range(40)]
    others = [bench.client(path="/other") for _ in range(2)]
    for client, _ in sippers + others:
        bench.fanout.activate(client)
    while post_count(bench.fanout):
        turn(bench.fanout)
    for client, _ in sippers:
        client.queue(frames.encode_frame(frames.BINARY, bytes(4 << 20)))
        bench.fanout.attend(client)
    while not all(client.blocked for client, _ in sippers):
        turn(bench.fanout)
    for _, theirs in sippers:
        theirs.recv(4 << 20)
    bench.publish(1, 10, "/other")
    bench.fanout.notify(bench.rooms.open("/other"))
    sends = bench.fanout.writer.sends
    turn(bench.fanout)
    # One send of a large frame is more than a share of a client.
    assert bench.fanout.writer.sends - sends <= 2 + SHARE_BYTES // (2 << 20) + 1
    for _, theirs in others:
        assert len(theirs.recv(100)) == 12


def test_client_that_takes_all_it_is_offered_is_not_evicted_by_trimming(bench: Bench) -> None:
    """It asked for the oldest messages of a full ring: it gets them before they go."""
    bench.fill(10_000)
    client, theirs = bench.client(history=1000)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    activate(bench.fanout, client)
    held = bench.room.head - bench.room.base
    before = bench.room.base
    bench.publish(8, 10_000)
    make_pass(bench.fanout, bench.room)
    assert bench.room.base > before
    assert client.final is None and not client.blocked
    while bench.fanout.writer.serve(client):
        pass
    data = theirs.recv(8 << 20, socket.MSG_WAITALL | socket.MSG_DONTWAIT)
    assert len(data) == (held + 8) * 10_004


def test_history_that_goes_before_the_hand_over_is_left_out(bench: Bench) -> None:
    """No message was promised before the join; a since= is a promise, and gets its place back: a
    plain client by coming again, as there are no words to tell it of a gap."""
    bench.fill(10_000)
    room = bench.room
    oldest = room.id_before(room.base)
    wants_history, _ = bench.client(history=1000)
    resumes, theirs = bench.client(since=oldest)
    start = room.base
    bench.publish(8, 10_000)
    make_pass(bench.fanout, room)
    assert room.base > start
    activate(bench.fanout, wants_history)
    activate(bench.fanout, resumes)
    assert wants_history.final is None and wants_history.cursor >= room.base
    assert (resumes.end_code, resumes.end_reason) == (1013, f"since={format_id(*oldest)}")
    assert theirs.recv(100) == frames.encode_close(1013, f"since={format_id(*oldest)}")


def test_welcome_tells_where_a_history_begins_that_was_trimmed_meanwhile(bench: Bench) -> None:
    """``after`` is true: what comes next is everything behind it, and no message is missing. The
    rest of the welcome is as it was, and what was queued behind it stays behind it."""
    bench.fill(10_000)
    room = bench.room

    def welcome(members: list[Member], newest: str, after: str) -> bytes:
        return JSON.event(events.welcome(members[0], "t", members, newest, after, {}, 100, {}))

    client, theirs = bench.client(history=1000, form=JSON, welcome=welcome)
    newest = format_id(*room.id_before(room.head))
    told = format_id(*room.id_before(room.base))
    start = room.base
    bench.publish(8, 10_000)
    make_pass(bench.fanout, room)
    assert room.base > start
    client.queue(JSON.event(b'{"type":"direct"}'))
    waiting = client.personal_bytes
    activate(bench.fanout, client)
    after = format_id(*room.id_before(room.base))
    (oldest,) = room.entries(room.base, room.base + 1)
    assert after != told
    with theirs.makefile("rb") as stream:
        begin = b""
        while b'"type":"message"' not in begin:
            begin += stream.read(1)
        assert b'"after":"%s"' % after.encode() in begin
        assert b'"newest":"%s"' % newest.encode() in begin
        assert begin.count(b'"type"') == 2, begin
        assert stream.read(40).startswith(b',"id":"%d-%d"' % (oldest.ms, oldest.seq))
    assert waiting >= client.personal_bytes >= 0
    assert client.rewelcome is None


def test_close_that_came_before_the_welcome_is_no_welcome(bench: Bench) -> None:
    """Who was told to go before it joined gets no event, wherever its history would begin."""
    bench.fill(10_000)
    room = bench.room
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    bench.sockets += [ours, theirs]
    member = Member("c", None, "/r", "x")
    client = Connection(7, member, room, ours, echo=False, form=JSON)
    assert client.queue_close(4000, "go")
    room.join(client, 1000, None, welcome=lambda *_: JSON.event(b'{"type":"welcome"}'))
    client.share()
    start = room.base
    bench.publish(8, 10_000)
    make_pass(bench.fanout, room)
    assert room.base > start
    activate(bench.fanout, client)
    assert client.personal is not None
    assert [is_close for _, _, is_close in client.personal] == [True]


@pytest.mark.parametrize("form", [JSON, SSE_JSON])
@pytest.mark.parametrize("gap", [None, "restarted"])
def test_trimming_while_a_client_joins_is_a_gap(bench: Bench, form: Form, gap: str | None) -> None:
    """Where each message trims the log, who is sent away to resume would never get in: it is told,
    behind its ``welcome``, and goes on with the oldest message that is held."""
    bench.fill(10_000)
    room = bench.room
    after = format_id(*room.id_before(room.base))
    welcome = (lambda *_: form.event(b'{"type":"welcome"}')) if form is JSON else None
    client, theirs = bench.client(
        since=room.id_before(room.base), form=form, gap=gap, since_text="1-1", welcome=welcome
    )
    start = room.base
    bench.publish(8, 10_000)
    make_pass(bench.fanout, room)
    assert room.base > start
    client.queue(form.event(b'{"type":"direct"}'))
    activate(bench.fanout, client)
    assert client.final is None
    (oldest,) = room.entries(room.base, room.base + 1)
    stream = theirs.makefile("rb")
    expected = [b'"type":"welcome"'] * (form is JSON)
    expected += [b'"reason":"restarted","since":"1-1","after":"%s"' % after.encode()] * bool(gap)
    newer = format_id(*room.id_before(room.base)).encode()
    expected += [b'"reason":"trimmed","since":"%s","after":"%s"' % (after.encode(), newer)]
    expected += [b'"type":"message","id":"%d-%d"' % (oldest.ms, oldest.seq)]
    for part in expected:
        begin = b""
        while part not in begin:
            begin += stream.read(1)
        assert b'"direct"' not in begin
        assert begin.count(b'"type":"message"') == part.count(b'"type":"message"'), begin
    stream.close()


@pytest.mark.parametrize("form", [JSON, SSE_JSON])
def test_nothing_follows_a_close_that_came_while_a_client_joined(bench: Bench, form: Form) -> None:
    """Not that the log was trimmed meanwhile either: its connection ends with the Close."""
    bench.fill(10_000)
    room = bench.room
    client, theirs = bench.client(since=room.id_before(room.base), form=form)
    client.peer_closed = True
    assert client.queue_close(4000, "go")
    head = room.head
    while room.base <= head:
        bench.publish(1, 10_000)
        make_pass(bench.fanout, room)
    activate(bench.fanout, client)
    assert client.close_sent
    with theirs.makefile("rb") as stream:
        told = stream.read()
    assert b'"reason":"trimmed"' in told
    assert told.endswith(b"go") if form is JSON else told.rpartition(b"retry: ")[2].strip()


def test_forms_made_for_who_joins_are_counted_where_nothing_is_said(hub: BroadcastHub) -> None:
    """Nobody publishes any more, so no message makes the pass that counts and trims the log."""
    fanout = fanout_of(hub)
    for _ in range(50):
        hub.broadcast("x" * 1000, "/r")
    room = core_of(hub).rooms.open("/r")
    assert wait_until(lambda: total_cost(fanout) == room.held_bytes() > 0)
    frames_only = room.held_bytes()
    offer = ["Sec-WebSocket-Protocol: broadcast.v1.json"]
    with RawClient.connect(port=hub.port, path="/r?history=50", headers=offer) as client:
        for _ in range(51):
            client.recv_message()
        assert room.held_bytes() > 2 * frames_only - 50 * ENTRY_BYTES
        assert wait_until(lambda: total_cost(fanout) == room.held_bytes())


def note_sends(
    bench: Bench, rooms: dict[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Return a list that gets the room of each send from now on, in order."""
    order: list[str] = []

    class Keeping:
        """Sends go through the function below."""

        def begin(self) -> tuple[bool, float]:
            return True, 0.0

    def send(sock: socket.socket, data: bytes | memoryview) -> int:
        order.append(rooms[sock])
        return sock.send(data)

    monkeypatch.setattr(bench.fanout.writer, "sender", Keeping())
    monkeypatch.setattr(fanout_module.gil, "send", send)
    return order


def test_small_rooms_come_between_the_groups_of_a_large_pass(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A room with very many members, or very large messages, holds up no other one for all of
    them."""
    monkeypatch.setattr(fanout_module, "GROUP", 2)
    rooms: dict[socket.socket, str] = {}
    for path, count in (("/large", 6), ("/small", 1)):
        bench.room = bench.rooms.open(path)
        for _ in range(count):
            client, _ = bench.client()
            activate(bench.fanout, client)
            rooms[client.sock] = path
        make_pass(bench.fanout, bench.room)
    order = note_sends(bench, rooms, monkeypatch)
    bench.publish(1, 100, "/large")
    bench.publish(1, 100, "/small")
    bench.fanout.notify(bench.rooms.open("/small"))
    make_pass(bench.fanout, bench.rooms.open("/large"))
    assert order == ["/large"] * 2 + ["/small"] + ["/large"] * 4
    # Few large messages are as much as many small ones.
    order.clear()
    monkeypatch.setattr(fanout_module, "GROUP", 100)
    monkeypatch.setattr(fanout_module, "GROUP_BYTES", 50_000)
    bench.publish(1, 24_000, "/large")
    bench.publish(1, 100, "/small")
    bench.fanout.notify(bench.rooms.open("/small"))
    make_pass(bench.fanout, bench.rooms.open("/large"))
    assert order == ["/large"] * 2 + ["/small"] + ["/large"] * 4


def test_small_rooms_that_come_between_are_no_more_than_a_group(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Very many rooms do not hold up the rest of a large pass, however small their messages are:
    what counts is the number of sends."""
    monkeypatch.setattr(fanout_module, "GROUP", 4)
    crowd = [bench.member("/crowd") for _ in range(12)]
    small = [bench.member(f"/{number}") for number in range(20)]
    bench.turns()
    rooms = {client.sock: client.room.path for client, _ in crowd + small}
    order = note_sends(bench, rooms, monkeypatch)
    for number in range(20):
        bench.say("hi", f"/{number}")
    bench.say("hi", "/crowd")
    make_pass(bench.fanout, bench.rooms.open("/crowd"))
    assert [path == "/crowd" for path in order] == ([True] * 4 + [False] * 4) * 2 + [True] * 4
    bench.turns()
    assert all(read_all(theirs) for _, theirs in crowd + small)


def test_rooms_that_come_between_are_not_interrupted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many rooms with large messages: each gets its own once, and none within another."""
    monkeypatch.setattr(fanout_module, "GROUP_BYTES", 10_000)
    peers: list[socket.socket] = []
    rooms = [bench.rooms.open(f"/{number}") for number in range(8)]
    for room in rooms:
        bench.room = room
        for _ in range(3):
            client, theirs = bench.client()
            activate(bench.fanout, client)
            peers.append(theirs)
        make_pass(bench.fanout, room)
    for room in rooms:
        bench.publish(1, 9000, room.path)
        if room is not rooms[0]:
            bench.fanout.notify(room)
    inside: list[int] = []
    batch = bench.fanout.writer.batch

    def count(*arguments: Any) -> Any:
        inside.append(len(bench.fanout.writer.passing))
        return batch(*arguments)

    monkeypatch.setattr(bench.fanout.writer, "batch", count)
    make_pass(bench.fanout, rooms[0])
    assert max(inside) == 2
    turn(bench.fanout)
    for theirs in peers:
        assert len(theirs.recv(9004, socket.MSG_WAITALL)) == 9004
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)


@pytest.mark.parametrize("form", [JSON, SSE, SSE_JSON], ids=repr)
def test_large_form_is_made_in_pieces_between_the_turns_of_others(bench: Bench, form: Form) -> None:
    """Another room's messages wait for one piece, not for the whole. Who waits gets it whole."""
    other, theirs = bench.client(path="/other")
    activate(bench.fanout, other)
    reader, reads = bench.client(form=form)
    activate(bench.fanout, reader)
    drafts = [Draft(0, encode("\n" * 20_000))]
    assert bench.room.reserve(cost_of(drafts), None, lambda: True)
    bench.room.append(drafts, 2, 1)
    bench.fanout.notify(bench.room)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer_module, "FORM_BATCH_BYTES", 1000)
        patch.setattr(encodings, "PIECE_BYTES", 999)
        turn(bench.fanout)
        turns = 0
        while bench.fanout.writer.making is not None:
            bench.publish(1, 100, "/other")
            bench.fanout.notify(bench.rooms.open("/other"))
            turn(bench.fanout)
            assert len(theirs.recv(1 << 16)) == 102
            turns += 1
        assert turns >= 20
        bench.pass_whole()
    (entry,) = bench.room.entries(0, 1)
    expected = form.make(entry)
    assert reads.recv(len(expected), socket.MSG_WAITALL) == expected
    assert bench.fanout.writer.encodes[form] == 1


def test_rooms_take_turns_with_their_large_forms(bench: Bench) -> None:
    """One is made at a time; who sends one after the other keeps nobody from getting theirs."""
    clients = []
    for path in ("/a", "/b", "/c"):
        bench.room = bench.rooms.open(path)
        client, _ = bench.client(form=JSON)
        activate(bench.fanout, client)
        clients.append(client)
        for number in range(2):
            drafts = [Draft(0, encode("x" * 60_000))]
            assert bench.room.reserve(cost_of(drafts), None, lambda: True)
            bench.room.append(drafts, 2, number + 1)
        bench.fanout.notify(bench.room)
    made = []
    writer = bench.fanout.writer
    for _ in range(200):
        if len(made) == 6 and writer.making is None:
            break
        turn(bench.fanout)
        if writer.making is not None and (not made or made[-1] is not writer.making):
            made.append(writer.making)
    bench.pass_whole()
    assert [making.room.path for making in made[:3]] == ["/a", "/b", "/c"]
    assert [client.cursor for client in clients] == [2, 2, 2]


def test_room_waits_for_its_form_where_the_logs_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishers wait while a large form is made, also where all logs hold as much as they may: a
    client that takes everything is not evicted for what is not made yet."""
    monkeypatch.setattr(encodings, "PIECE_BYTES", 1000)
    limit = 1_600_000
    with Bench(max_message_bytes=100_000, room_log_bytes=400_000, total_log_bytes=limit) as bench:
        full = [bench.member(f"/{number}")[1] for number in range(4)]
        while total_cost(bench.fanout) < limit - 50_000:
            for number in range(4):
                bench.publish(1, 10_000, f"/{number}")
                make_pass(bench.fanout, bench.rooms.open(f"/{number}"))
                read_all(full[number])
        client, theirs = bench.member("/large", JSON)
        assert bench.say("x" * 60_000, "/large")
        count = 1
        for _ in range(50):
            bench.turns()
            count += bench.say("y" * 10_000, "/large")
        assert client.final is None
        assert bench.fanout.writer.making is not None and count < 10
        got = b""
        for _ in range(200):
            bench.turns()
            got += read_all(theirs)
        assert got.count(b'"type":"message"') == count and client.final is None


def test_large_form_is_made_between_the_groups_of_a_large_pass(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Very many members of one room do not make those of another one wait a pass for each
    piece."""
    monkeypatch.setattr(fanout_module, "GROUP", 2)
    monkeypatch.setattr(writer_module, "FORM_BATCH_BYTES", 1000)
    monkeypatch.setattr(encodings, "PIECE_BYTES", 999)
    peers = [bench.member("/crowd")[1] for _ in range(30)]
    reader, reads = bench.member("/large", JSON)
    bench.say("x" * 6000, "/large")
    bench.turns()
    making = bench.fanout.writer.making
    assert making is not None and len(making.pieces) == 1
    bench.say("hi", "/crowd")
    bench.turns()
    assert all(read_all(peer) for peer in peers)
    # All of its nine pieces, with the beginning and the end: there were 14 occasions.
    assert len(making.pieces) == 9 and bench.fanout.writer.encodes[JSON] == 1
    bench.turns()
    assert b"x" * 6000 in read_all(reads) and reader.rest is None


def test_client_that_has_gone_is_not_kept_by_its_next_ping(hub: BroadcastHub) -> None:
    """It has no appointment any more."""
    timers = timers_of(fanout_of(hub))
    with RawClient.connect(port=hub.port):
        for _ in range(2 * MIN_SKIPPED):
            RawClient.connect(port=hub.port).leave()
        assert wait_until(lambda: len(appointments_in(timers)) <= MIN_SKIPPED + 2)


def test_posts_that_were_taken_survive_a_failure(hub: BroadcastHub) -> None:
    """A client that was handed over in the same moment is cut off like all others."""
    fanout = fanout_of(hub)
    gate, reached = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        reached.set()
        gate.wait(10)

    def fail(_: Connection) -> None:
        raise RuntimeError("made by the test")

    with RawClient.connect(port=hub.port) as first:
        first.sync()
        (connection,) = fanout.writer.connections
        mailbox_of(fanout).post(hold, connection)
        assert reached.wait(10)
        mailbox_of(fanout).post(fail, connection)
        with RawClient.connect(port=hub.port) as second:
            assert wait_until(lambda: len(posts_in(mailbox_of(fanout))) == 2)
            gate.set()
            assert second.sock.recv(1) == b"" == first.sock.recv(1)


def test_appointment_far_away_is_slept_for_in_pieces() -> None:
    """The kernel refuses a longer time, and the thread must not die of that."""
    with (
        running_hub(ping_interval=1e6, ping_timeout=1e6) as hub,
        RawClient.connect(port=hub.port) as client,
    ):
        client.sync()
        assert sleeps(fanout_of(hub))
        hub.broadcast("x")
        assert client.recv_message() == "x"


def stalled(bench: Bench) -> tuple[Connection, socket.socket]:
    """Return a client whose socket is full."""
    client, theirs = bench.client()
    bench.fanout.activate(client)
    while post_count(bench.fanout):
        turn(bench.fanout)
    while not client.blocked:
        step(bench)
    return client, theirs


def step(bench: Bench) -> None:
    """Publish a message, and let it be offered."""
    bench.publish(1, 1000)
    bench.fanout.notify(bench.room)
    turn(bench.fanout)


def test_client_is_evicted_at_half_the_ring_once_it_took_nothing_for_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst that fills half the ring in no time evicts nobody; what it lacks is still held."""
    clock = Clock(monkeypatch)
    client, _ = stalled(bench)
    while bench.room.lag(client.cursor) <= bench.room.ring_bytes * 9 // 16:
        step(bench)
    assert client.final is None and client.lagging
    clock.now += STALL_SECONDS
    step(bench)
    assert client.final is not None
    assert client.cursor >= bench.room.base


def test_client_is_evicted_before_its_place_goes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However fast that was, and though it has taken something all the time: when it comes back,
    all that it lacks is there, and three eighths of the ring more."""
    Clock(monkeypatch)
    client, theirs = stalled(bench)
    count = 0
    while client.final is None:
        step(bench)
        count += 1
        assert count < 1000
        if count % 50 == 0:
            theirs.recv(1)
    room = bench.room
    assert client.cursor >= room.base
    kept = sum(len(entry.frame) + ENTRY_BYTES for entry in room.entries(client.cursor, room.head))
    assert room.ring_bytes * 5 // 8 < kept <= room.ring_bytes * 5 // 8 + 2 * (1004 + ENTRY_BYTES)


def test_client_that_catches_up_is_not_behind_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader goes on then, and wakes for it."""
    Clock(monkeypatch)
    client, theirs = stalled(bench)
    while not client.lagging:
        step(bench)
    assert room_share(bench, client) > 1 / 16
    with during(client.wait_caught_up, 60):
        theirs.setblocking(False)
        while client.lagging:
            with contextlib.suppress(BlockingIOError):
                theirs.recv(1 << 20)
            turn(bench.fanout)
    assert not bench.room.behind
    client.wait_caught_up(60)


def room_share(bench: Bench, client: Connection) -> float:
    """Return how far a client is behind, as a share of the ring."""
    return bench.room.lag(client.cursor) / bench.room.ring_bytes
