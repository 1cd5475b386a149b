"""The fan-out's thread: when it wakes, and what happens when it fails."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server import BroadcastHub, HubStopped
from broadcast_server.hub.delivery import accounts as accounts_module
from broadcast_server.hub.delivery import fanout as fanout_module
from broadcast_server.hub.delivery import writer as writer_module
from broadcast_server.hub.delivery.accounts import HOLDER_SECONDS
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
from ...support.fanout_bench import Bench
from ...support.inside import (
    activate,
    appointments_in,
    bound_held,
    core_of,
    count_wakes,
    drop_forms,
    fanout_of,
    forget_dropped,
    is_asleep,
    mailbox_of,
    make_pass,
    needed_from,
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


def test_dropped_room_is_not_kept_by_who_is_leaving_it(bench: Bench) -> None:
    """The log goes at once; a client that has not been sent everything is told where it was."""
    client, _ = bench.client()
    activate(bench.fanout, client)
    while not client.blocked:
        bench.publish(1, 30_000)
        make_pass(bench.fanout, bench.room)
    client.queue_close(1000, "", echo_code=1000)
    bench.room.leave(client)
    assert bench.rooms.drop_empty(None)
    forget_dropped(bench.fanout)
    assert bench.room.cost == 0
    assert client.final is not None and client.final.startswith(b"\x88")
    assert (client.final[2:4], client.final[4:10]) == ((1013).to_bytes(2, "big"), b"since=")


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


def held_bytes(bench: Bench) -> int:
    """Return what all logs hold, counted out of what is there."""
    held = 0
    for room in bench.rooms.all():
        entries = room.entries(room.base, room.head)
        held += sum(len(e.frame) + ENTRY_BYTES + e.forms_bytes() for e in entries)
    return held


def rooms_of_readers(bench: Bench, count: int, size: int) -> list[list[socket.socket]]:
    """Publish one message of line ends in each of some rooms, with a reader of each form; look
    after each pass whether all logs are within their bound. Return the readers."""
    readers = []
    for number in range(count):
        bench.room = bench.rooms.open(f"/{number}")
        found = [bench.client(form=form) for form in encodings.ALL]
        for client, _ in found:
            activate(bench.fanout, client)
        drafts = [Draft(0, encode("\n" * size))]
        assert bench.room.reserve(cost_of(drafts), None, lambda: True)
        bench.room.append(drafts, 2, number + 1)
        bench.pass_whole()
        assert held_bytes(bench) <= bench.settings.total_log_bytes
        assert total_cost(bench.fanout) == held_bytes(bench)
        readers.append([peer for _, peer in found])
    return readers


def test_total_holds_for_all_forms_of_all_messages() -> None:
    """Forms go before messages: each room still has its own. What is missed is made again."""
    bench = Bench(max_message_bytes=2000, room_log_bytes=40_000, total_log_bytes=60_000)
    with contextlib.closing(bench):
        rooms_of_readers(bench, 8, 2000)
        encodes = bench.fanout.writer.encodes
        assert [encodes[form] for form in encodings.ALL] == [0, 8, 8, 8]
        # Nobody publishes, so no pass comes: each who joins has forms made.
        for room in bench.rooms.all()[1:]:  # without the bench's own
            assert room.head - room.base == 1
            bench.room = room
            client, peer = bench.client(history=1, form=encodings.SSE)
            activate(bench.fanout, client)
            assert held_bytes(bench) <= 60_000
            assert peer.recv(1 << 16).count(b"data: \n") == 2001
        assert encodes[encodings.SSE] > 8


def test_total_holds_for_the_newest_messages() -> None:
    """Each room has only one, and all of them do not fit: the largest go, those of members too."""
    bench = Bench(max_message_bytes=10_000, room_log_bytes=40_000, total_log_bytes=40_000)
    with contextlib.closing(bench):
        readers = rooms_of_readers(bench, 8, 9000)
        left = [room.head - room.base for room in bench.rooms.all()]
        assert sum(left) == 40_000 // (9000 + 4 + ENTRY_BYTES) and left[-1] == 1
        # Everybody got what there was.
        for peers in readers:
            for peer in peers:
                assert len(peer.recv(1 << 17)) >= 9000


def test_form_that_is_sent_in_part_is_not_made_again(bench: Bench) -> None:
    """Its bytes are in memory as long as the client takes them, counted or not."""
    client, _ = bench.client(form=encodings.JSON)
    activate(bench.fanout, client)
    while not client.blocked:
        bench.publish(1, 30_000)
        make_pass(bench.fanout, bench.room)
    assert client.rest is not None
    position = client.cursor - 1
    assert needed_from(bench.fanout, bench.room)[JSON] == position
    assert drop_forms(bench.fanout) is (position > bench.room.base)
    (entry,) = bench.room.entries(position, position + 1)
    assert entry.json is not None and client.rest.obj is entry.json


def test_form_that_has_gone_from_the_log_keeps_no_others(bench: Bench) -> None:
    """Who was evicted in the middle of a message may take long to go. Of what came later nothing
    is needed for it: others must not give their messages instead."""
    client, _ = bench.client(form=JSON)
    activate(bench.fanout, client)
    while not client.blocked:
        bench.publish(1, 30_000)
        make_pass(bench.fanout, bench.room)
    reader, theirs = bench.client(form=JSON)
    activate(bench.fanout, reader)
    theirs.setblocking(False)
    while bench.room.base < client.cursor:
        bench.publish(1, 10_000)
        make_pass(bench.fanout, bench.room)
        with contextlib.suppress(BlockingIOError):
            while theirs.recv(1 << 20):
                pass
    assert client.final is not None and client.rest is not None and not reader.blocked
    assert bench.room.forms_bytes
    assert needed_from(bench.fanout, bench.room)[JSON] == bench.room.offered
    assert drop_forms(bench.fanout) and not bench.room.forms_bytes


def test_who_takes_nothing_gives_way_where_forms_need_the_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A message that is sent in part stays in memory with its form, in each room another one. As
    much as that is, others wait. Who has taken nothing for a while is cut off; who was blocked only
    now stays."""
    bench = Bench(max_message_bytes=100_000, room_log_bytes=400_000, total_log_bytes=1_500_000)
    with contextlib.closing(bench):
        clients = []
        for number in range(3):
            bench.room = bench.rooms.open(f"/{number}")
            client, _ = bench.client(form=JSON)
            activate(bench.fanout, client)
            clients.append(client)
            drafts = [Draft(0, encode("\x01" * 60_000))]
            assert bench.room.reserve(cost_of(drafts), None, lambda: True)
            bench.room.append(drafts, 2, number + 1)
            if number < 2:
                bench.pass_whole()
                assert client.blocked and client.rest is not None
        make_pass(bench.fanout, bench.room)
        for _ in range(10):
            turn(bench.fanout)
        writer = bench.fanout.writer
        assert writer.encodes[JSON] == 2 and not clients[2].blocked
        assert total_cost(bench.fanout) == held_bytes(bench) <= 1_500_000
        clients[0].blocked_since -= HOLDER_SECONDS
        bench.pass_whole()
        assert [client.dropped for client in clients] == [True, False, False]
        assert clients[2].blocked and clients[2].rest is not None and writer.encodes[JSON] == 3
        assert total_cost(bench.fanout) == held_bytes(bench) <= 1_500_000
    assert caplog.text.count("the memory of all logs is needed") == 1


def test_others_need_not_wait_for_who_holds_most(bench: Bench) -> None:
    """The memory that one address has taken for forms is no reason to keep another one's small
    messages."""
    bench = Bench(max_message_bytes=100_000, room_log_bytes=400_000, total_log_bytes=1_500_000)
    with contextlib.closing(bench):
        for number in range(4):
            bench.room = bench.rooms.open(f"/{number}", "192.0.2.66")
            client, _ = bench.client(form=JSON)
            activate(bench.fanout, client)
            drafts = [Draft(0, encode("\x01" * 60_000))]
            assert bench.room.reserve(cost_of(drafts), None, lambda: True)
            bench.room.append(drafts, 2, number + 1)
            if number < 2:
                bench.pass_whole()
            else:
                make_pass(bench.fanout, bench.room)
                turn(bench.fanout)
        writer = bench.fanout.writer
        assert writer.encodes[JSON] == 2
        bench.room = bench.rooms.open("/other", "192.0.2.7")
        client, theirs = bench.client(form=JSON)
        activate(bench.fanout, client)
        for _ in range(100):
            bench.publish(1, 1000)
            make_pass(bench.fanout, bench.room)
            assert b'"data_base64":"' in theirs.recv(1 << 16)
        assert writer.encodes[JSON] == 2 + 100


def test_small_rooms_come_between_the_groups_of_a_large_pass(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A room with very many members, or very large messages, holds up no other one for all of
    them."""
    monkeypatch.setattr(fanout_module, "GROUP", 2)
    order: list[str] = []

    class Keeping:
        """Sends go through the function below."""

        def begin(self) -> tuple[bool, float]:
            return True, 0.0

    def send(sock: socket.socket, data: bytes | memoryview) -> int:
        order.append(rooms[sock])
        return sock.send(data)

    rooms: dict[socket.socket, str] = {}
    for path, count in (("/large", 6), ("/small", 1)):
        bench.room = bench.rooms.open(path)
        for _ in range(count):
            client, _ = bench.client()
            activate(bench.fanout, client)
            rooms[client.sock] = path
        make_pass(bench.fanout, bench.room)
    monkeypatch.setattr(bench.fanout.writer, "sender", Keeping())
    monkeypatch.setattr(fanout_module.gil, "send", send)
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


@pytest.mark.parametrize(("total", "kept"), [(4_000_000, 10), (1_600_000, 7)])
def test_message_that_no_log_holds_any_more_is_bounded(
    total: int, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has got a part of it keeps it in memory, and nothing else counts it. Above a quarter of
    the memory of all logs, and the largest form of a message, who takes nothing for longest is cut
    off."""
    bench = Bench(max_message_bytes=100_000, room_log_bytes=400_000, total_log_bytes=total)
    with contextlib.closing(bench):
        clients = []
        for number in range(13):
            bench.room = bench.rooms.open(f"/{number}")
            client, _ = bench.client()
            activate(bench.fanout, client)
            clients.append(client)
            while client.rest is None:
                bench.publish(1, 95_000)
                make_pass(bench.fanout, bench.room)
            while bench.room.base < client.cursor:
                bench.publish(1, 95_000)
                make_pass(bench.fanout, bench.room)
            bound_held(bench.fanout)
        # Ten are 950 kB, and seven are 665 kB.
        dropped = 13 - kept
        assert [client.dropped for client in clients] == [True] * dropped + [False] * kept
        assert clients[12].rest is not None
    assert caplog.text.count("the memory of all logs is needed") == dropped


def test_many_who_hold_one_message_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all of them again for each that is cut off: the fan-out would stand still for that."""
    bench = Bench(max_message_bytes=100_000, room_log_bytes=400_000, total_log_bytes=3_000_000)
    looks: list[None] = []
    poll = select.poll

    def look() -> select.poll:
        looks.append(None)
        return poll()

    monkeypatch.setattr(accounts_module.select, "poll", look)
    with contextlib.closing(bench):
        clients = []
        for number in range(5):
            bench.room = bench.rooms.open(f"/{number}")
            for _ in range(10):
                client, _ = bench.client(form=JSON)
                activate(bench.fanout, client)
                clients.append(client)
            drafts = [Draft(0, encode("\x01" * 60_000))]
            assert bench.room.reserve(cost_of(drafts), None, lambda: True)
            bench.room.append(drafts, 2, number + 1)
            if number == 4:
                # All forms of four rooms are half of the memory.
                assert not looks
                for waiting in clients[:40]:
                    waiting.blocked_since -= 2 * HOLDER_SECONDS
            bench.pass_whole()
        assert len(looks) == 1
        # No more than it takes: all of one room, and none who was blocked only now.
        gone = [client.dropped for client in clients]
        rooms_gone = [all(gone[first : first + 10]) for first in range(0, 40, 10)]
        assert sum(gone) < 20 and sum(rooms_gone) == 1
        assert not any(gone[40:]) and total_cost(bench.fanout) == held_bytes(bench)


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


class Clock:
    """A clock that the test turns, in the place of ``time`` in the modules of the fan-out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in (fanout_module, writer_module):
            monkeypatch.setattr(module, "time", self)

    def monotonic(self) -> float:
        return self.now


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
