"""What all logs take of memory: who gives when that is too much, and who waits."""

from __future__ import annotations

import contextlib
import select
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server.hub.delivery import accounts as accounts_module
from broadcast_server.hub.delivery.accounts import (
    CUT_GROUP,
    CUT_SECONDS,
    GATE_SHARE,
    HOLDER_SECONDS,
    Accounts,
)
from broadcast_server.hub.delivery.connection import Connection
from broadcast_server.hub.rooms import encodings
from broadcast_server.hub.rooms.encodings import JSON, SSE, SSE_JSON, Form
from broadcast_server.hub.rooms.entries import ENTRY_BYTES
from broadcast_server.hub.rooms.room import Room

from ...support.fanout_bench import Bench, Clock, read_all
from ...support.inside import (
    activate,
    bound_held,
    drop_forms,
    forget_dropped,
    make_pass,
    needed_from,
    replace_pass,
    replace_shorten_one,
    total_cost,
    turn,
)

# A socket that takes about this much is full after the first part of a message.
TINY = 2048


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench(max_message_bytes=30_000, room_log_bytes=400_000) as made:
        yield made


def rooms_of_readers(bench: Bench, count: int, size: int) -> list[list[socket.socket]]:
    """Publish one message of line ends in each of some rooms, with a reader of each form; look
    after each pass whether all logs are within their bound. Return the readers."""
    readers = []
    for number in range(count):
        bench.room = bench.rooms.open(f"/{number}")
        found = [bench.client(form=form) for form in encodings.ALL]
        for client, _ in found:
            activate(bench.fanout, client)
        assert bench.say("\n" * size)
        bench.pass_whole()
        assert bench.held_bytes() <= bench.settings.total_log_bytes
        assert total_cost(bench.fanout) == bench.held_bytes()
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
            assert bench.held_bytes() <= 60_000
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


def test_search_that_has_found_nothing_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at every log for each small message would hold up all others. Where there is a good
    deal more than before it is worth one."""
    clock = Clock(monkeypatch)
    limit = 400_000
    with Bench(max_message_bytes=100_000, room_log_bytes=limit, total_log_bytes=limit) as bench:
        large = [bench.rooms.open(f"/{number}") for number in range(4)]
        bench.member("/small")
        looks = 0

        def one_pass(room: Room[Connection]) -> bool:
            # What these have is counted, and was not offered to anybody yet: it cannot go.
            return room not in large and real_pass(room)

        def shorten_one(*arguments: Any, **more: Any) -> bool:
            nonlocal looks
            looks += 1
            clock.now += 0.01
            return real(*arguments, **more)

        real_pass = replace_pass(monkeypatch, bench.fanout, one_pass)
        real = replace_shorten_one(monkeypatch, bench.fanout, shorten_one)
        for room in large:
            bench.say("x" * 100_000, room.path)
        bench.turns()
        assert limit < total_cost(bench.fanout) < limit + limit // GATE_SHARE and looks
        looks = 0
        for _ in range(10):
            clock.now += 0.001
            bench.say("hi", "/small")
            bench.turns()
        assert not looks
        bench.say("x" * 10_000, "/small")
        bench.turns()
        assert looks


def test_form_that_nobody_needs_any_more_goes_however_often_it_is_looked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that waits for the memory of forms gets it when those who held them have taken
    them, although somebody looks every few milliseconds."""
    clock = Clock(monkeypatch)
    with Bench(max_message_bytes=25_000, room_log_bytes=100_000, total_log_bytes=400_000) as bench:
        slow = [bench.member(f"/{number}", SSE, buffer=TINY) for number in range(4)]
        for number in range(4):
            bench.say("\n" * 6000, f"/{number}")
        bench.turns(3)
        assert all(client.rest is not None for client, _ in slow)
        waits, theirs = bench.member("/waits", SSE)
        bench.say("\n" * 6000, "/waits")
        for _ in range(3):
            bench.say("hi", "/waits")
            bench.turns()
        assert waits in bench.fanout.writer.starved
        for client, peer in slow:
            while client.rest is not None:
                read_all(peer)
                bench.fanout.writer.go_on(client)
        got = b""
        for _ in range(10):
            clock.now += 0.005
            bench.say("hi", "/waits")
            bench.turns()
            got += read_all(theirs)
        assert got.count(b"data: \n") == 6001 and b"data: hi\n" in got


def test_very_large_form_is_made_beside_small_ones() -> None:
    """A form that is larger than the share of all forms does not wait until nobody needs any other
    one."""
    with Bench(max_message_bytes=25_000, room_log_bytes=400_000, total_log_bytes=400_000) as bench:
        slow, _ = bench.member("/slow", SSE, buffer=TINY)
        bench.say("\n" * 2000, "/slow")
        _, full = bench.member("/full")
        for _ in range(30):
            bench.say("x" * 9000, "/full")
            bench.turns()
            read_all(full)
        assert slow.rest is not None
        client, theirs = bench.member("/large", SSE)
        bench.say("\n" * 20_000, "/large")
        got = b""
        for _ in range(10):
            bench.turns()
            got += read_all(theirs)
        assert got.count(b"data: \n") == 20_001 and client.rest is None
        assert slow.rest is not None and not slow.dropped


def test_others_need_not_wait_for_who_holds_most(bench: Bench) -> None:
    """The memory that one address has taken for forms is no reason to keep another one's small
    messages."""
    bench = Bench(max_message_bytes=100_000, room_log_bytes=400_000, total_log_bytes=1_500_000)
    with contextlib.closing(bench):
        for number in range(4):
            bench.room = bench.rooms.open(f"/{number}", "192.0.2.66")
            client, _ = bench.client(form=JSON)
            activate(bench.fanout, client)
            assert bench.say("\x01" * 60_000)
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
            assert bench.say("\x01" * 60_000)
            if number < 2:
                bench.pass_whole()
                assert client.blocked and client.rest is not None
        make_pass(bench.fanout, bench.room)
        for _ in range(10):
            turn(bench.fanout)
        writer = bench.fanout.writer
        assert writer.encodes[JSON] == 2 and not clients[2].blocked
        assert total_cost(bench.fanout) == bench.held_bytes() <= 1_500_000
        clients[0].blocked_since -= HOLDER_SECONDS
        bench.pass_whole()
        assert [client.dropped for client in clients] == [True, False, False]
        assert clients[2].blocked and clients[2].rest is not None and writer.encodes[JSON] == 3
        assert total_cost(bench.fanout) == bench.held_bytes() <= 1_500_000
    assert caplog.text.count("the memory of all logs is needed") == 1


def test_holders_are_cut_off_however_long_turns_take(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that takes nothing of a form whose memory others need is cut off after a while, also
    where the passes of other rooms take long."""
    clock = Clock(monkeypatch)
    with Bench(
        max_message_bytes=100_000, room_log_bytes=400_000, total_log_bytes=1_500_000
    ) as bench:
        clients = []
        for number in range(3):
            client, _ = bench.member(f"/{number}", JSON, buffer=TINY)
            clients.append(client)
            bench.say("\x01" * 60_000, f"/{number}")
            bench.turns(8)

        def one_pass(room: Room[Connection]) -> bool:
            clock.now += 0.05
            return real(room)

        real = replace_pass(monkeypatch, bench.fanout, one_pass)
        began = clock.now
        while not clients[0].dropped:
            assert clock.now <= began + HOLDER_SECONDS + CUT_SECONDS + 0.1
            bench.turns()
        bench.turns(8)
        assert [client.dropped for client in clients] == [True, False, False]
        assert clients[2].rest is not None
    assert caplog.text.count("the memory of all logs is needed") == 1


def test_form_made_where_there_is_no_place_goes_first_later_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A form may cost others some messages while its client waits for it; once that has it, they
    lose no more for it."""
    Clock(monkeypatch)  # nobody has taken nothing for long
    with Bench(
        max_message_bytes=100_000, room_log_bytes=1_000_000, total_log_bytes=1_000_000
    ) as bench:
        slow, theirs = bench.member("/slow", SSE, buffer=TINY)
        _, peer = bench.member("/full")
        slow_room, full = slow.room, bench.rooms.open("/full")

        def say(size: int, path: str) -> None:
            assert bench.say("x" * size, path)
            bench.turns()
            read_all(peer)

        for _ in range(96):
            say(9000, "/full")
        bench.say("\n" * 60_000, "/slow")
        bench.turns()
        for _ in range(2):
            assert bench.fanout.writer.making is not None
            say(60_000, "/full")
        bench.turns(8)
        assert slow.rest is not None and slow_room.forms_bytes > 420_000
        for _ in range(1000):
            if slow.rest is None:
                break
            read_all(theirs)
            bench.turns()
        assert slow.rest is None
        base = full.base
        assert base and slow_room.forms_bytes
        for _ in range(20):
            say(9000, "/full")
        assert not slow_room.forms_bytes and full.base == base


def test_client_that_takes_a_little_all_the_time_does_not_hold_a_form_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has as long for one message as a client may take nothing at all; then it is cut off if
    others need the memory."""
    clock = Clock(monkeypatch)
    with Bench(
        max_message_bytes=100_000,
        room_log_bytes=400_000,
        total_log_bytes=1_500_000,
        write_timeout=10,
    ) as bench:
        sippers = [bench.member(f"/{number}", JSON, buffer=TINY) for number in range(2)]
        for number in range(2):
            bench.say("\x01" * 60_000, f"/{number}")
            bench.turns(8)
        waits, _ = bench.member("/waits", JSON, buffer=TINY)
        bench.say("\x01" * 60_000, "/waits")
        began = clock.now
        while waits.rest is None:
            clock.now += HOLDER_SECONDS / 2
            for client, theirs in sippers:
                assert client.dropped or read_all(theirs)
            bench.turns(2)
            assert clock.now <= began + 12
        assert clock.now > began + 9
        assert sum(client.dropped for client, _ in sippers) == 1
    assert caplog.text.count("the memory of all logs is needed") == 1


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
            assert bench.say("\x01" * 60_000)
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
        assert not any(gone[40:]) and total_cost(bench.fanout) == bench.held_bytes()


def test_many_who_hold_forms_of_one_room_are_cut_off_in_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look at all clients of the room, whether that was enough, comes after each group of them,
    and not after each one: each holds another message, and there may be thousands."""
    clock = Clock(monkeypatch)
    limit = 4_000_000
    with Bench(max_message_bytes=1_000_000, room_log_bytes=limit, total_log_bytes=limit) as bench:
        for _ in range(2):
            bench.say("x" * 900_000, "/large")
            bench.turns()
        holders = []
        for number in range(250):
            client, _ = bench.member("/many", SSE, buffer=TINY)
            bench.say("\n" * 1000, "/many")
            bench.turns()
            assert client.rest is not None and client.cursor == number + 1
            # The form that is needed for longest is that of the last one to go.
            client.blocked_since = clock.now - 2 * HOLDER_SECONDS - number
            holders.append(client)
        needed_from = Accounts.needed_from
        looks = 0

        def look(*arguments: Any) -> Any:
            nonlocal looks
            looks += 1
            return needed_from(*arguments)

        monkeypatch.setattr(Accounts, "needed_from", look)
        bench.say("x" * 900_000, "/large")
        bench.turns()
        assert total_cost(bench.fanout) <= limit
        assert all(client.dropped for client in holders)
        # The last one is for forms that nobody needs, before.
        assert looks <= CUT_GROUP + len(holders) // CUT_GROUP + 2


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


@pytest.mark.parametrize(
    ("first", "later"), [("\n" * 3000, 10_000), ("x" * 40_000, 5000)], ids=["small", "large"]
)
def test_first_message_that_is_sent_in_part_does_not_keep_its_log(
    first: str, later: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One address with a slow reader in each of many rooms takes no more than all may and an
    eighth, and others keep what they have."""
    Clock(monkeypatch)  # nobody has taken nothing for long
    limit = 1_000_000
    with Bench(max_message_bytes=60_000, room_log_bytes=250_000, total_log_bytes=limit) as bench:

        def step() -> None:
            bench.turns()
            assert total_cost(bench.fanout) == bench.held_bytes() <= limit + limit // GATE_SHARE

        greedy = [f"/greedy{number}" for number in range(11)]
        for path in greedy:
            bench.member(path, SSE, maker="greedy", buffer=TINY)
            bench.say(first, path)
            step()
        for _ in range(10):
            for path in greedy:
                bench.say("x" * later, path)
            step()
        others = [f"/{number}" for number in range(15)]
        peers = [bench.member(path, maker=path)[1] for path in others]
        for _ in range(4):
            for path in others:
                assert bench.say("x" * 10_000, path)
            step()
            assert all(len(read_all(peer)) > 10_000 for peer in peers)
        assert not any(bench.rooms.open(path).base for path in others)


@pytest.mark.parametrize("history", [0, 1])
def test_largest_form_is_not_taken_from_who_is_to_get_it(
    history: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A form that is larger than all logs may be does not go from the log before all who wait for
    it have got a part of it, whether they were there first or the message; and none of them is cut
    off for the rest."""
    with Bench(max_message_bytes=60_000, room_log_bytes=400_000, total_log_bytes=400_000) as bench:
        if history:
            bench.say("\n" * 60_000)
            bench.turns()
        readers = [bench.member("/r", SSE, buffer=TINY, history=history) for _ in range(3)]
        if not history:
            bench.say("\n" * 60_000)
        got = [b""] * 3
        for _ in range(1000):
            bench.turns()
            got = [data + read_all(theirs) for data, (_, theirs) in zip(got, readers, strict=True)]
            if all(data.endswith(b"\n\n") for data in got):
                break
        assert [data.count(b"data: \n") for data in got] == [60_001] * 3
        assert not caplog.text


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


@pytest.mark.parametrize("form", [JSON, SSE, SSE_JSON], ids=repr)
def test_message_that_no_log_holds_any_more_may_be_the_largest(
    form: Form, caplog: pytest.LogCaptureFixture
) -> None:
    """A message of the most bytes that one may have, all of which grow in its form, is no reason to
    cut off the client that takes it."""
    with Bench(max_message_bytes=60_000, room_log_bytes=400_000, total_log_bytes=400_000) as bench:
        reader, theirs = bench.member("/r", form, buffer=TINY)
        bench.say("\n" * 60_000 if form is SSE else "\x01" * 60_000)
        while reader.rest is None:
            bench.turns()
        while reader.cursor > bench.room.base:
            bench.say("x" * 50_000)
            bench.turns()
        assert not caplog.text and read_all(theirs)


def test_messages_that_no_log_holds_are_counted_once_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trim of any log is no reason to look at all who hold one, who may be thousands; nor is a
    turn in which nobody has come to hold one."""
    looks = 0

    def count(*arguments: Any) -> Counter[Any]:
        nonlocal looks
        looks += 1
        return Counter(*arguments)

    with Bench(
        max_message_bytes=25_000, room_log_bytes=100_000, total_log_bytes=4_000_000
    ) as bench:
        slow, _ = bench.member("/slow", buffer=TINY)
        busy = [bench.member(f"/{number}") for number in range(10)]
        bench.publish(1, 20_000, "/slow")
        bench.say("x", "/slow")
        bench.turns()
        assert slow.rest is not None
        monkeypatch.setattr(accounts_module, "Counter", count)

        def step() -> None:
            """Trim the logs of the others once each."""
            before = [client.room.base for client, _ in busy]
            while [client.room.base for client, _ in busy] == before:
                for number in range(10):
                    bench.say("x" * 20_000, f"/{number}")
                bench.turns()
                for _, theirs in busy:
                    read_all(theirs)

        step()
        assert not looks
        while not slow.room.base:
            assert bench.say("x" * 20_000, "/slow")
            bench.turns()
        assert slow.rest is not None and looks == 1
        for _ in range(3):
            step()
        assert looks == 1
