"""Who gets which messages, in which order, whatever the others do: the promises of the hub.

Bulk traffic has frames of eight bytes, a header and ``struct(">HI", sender, number)``, so that a
whole stream is compared as one array of 64-bit words.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from ..support import (
    BINARY,
    PING,
    PONG,
    TEXT,
    RawClient,
    client_frame,
    descriptors,
    resident_bytes,
    running_hub,
    wait_until,
)
from ..support.hub_process import hub_process

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub, Message

pytestmark = pytest.mark.slow

FRAME_BYTES = 8


def tagged(sender: int, number: int) -> bytes:
    """Return the payload of one message of bulk traffic."""
    return struct.pack(">HI", sender, number)


def words(stream: bytes) -> list[int]:
    """Return a stream of tagged frames as one number for each frame."""
    assert len(stream) % FRAME_BYTES == 0
    return list(memoryview(stream).cast("Q"))


def word(sender: int, number: int) -> int:
    """Return what ``words`` makes of one tagged message."""
    return words(b"\x82\x06" + tagged(sender, number))[0]


def collect(clients: Sequence[RawClient], sizes: Sequence[int]) -> list[bytes]:
    """Read that many bytes from each client, all at once; return the streams."""
    deadline = time.monotonic() + 40
    streams = [bytearray(client.buffer) for client in clients]
    with selectors.DefaultSelector() as selector:
        for index, client in enumerate(clients):
            client.buffer = b""
            if len(streams[index]) < sizes[index]:
                selector.register(client.sock, selectors.EVENT_READ, index)
        while selector.get_map():
            ready = selector.select(deadline - time.monotonic())
            if not ready:
                short = [size - len(got) for size, got in zip(sizes, streams, strict=True)]
                raise TimeoutError(f"bytes that never came: {short}")
            for key, _ in ready:
                stream = streams[key.data]
                piece = clients[key.data].sock.recv(1 << 18)
                assert piece, f"client {key.data} was cut off: {bytes(stream[-200:])!r}"
                stream += piece
                if len(stream) >= sizes[key.data]:
                    selector.unregister(key.fileobj)
    for client, stream, size in zip(clients, streams, sizes, strict=True):
        client.buffer = bytes(stream[size:])
    return [bytes(stream[:size]) for stream, size in zip(streams, sizes, strict=True)]


def together(*jobs: Callable[[], None]) -> list[threading.Thread]:
    """Start threads that begin at the same moment."""
    barrier = threading.Barrier(len(jobs))

    def begin(job: Callable[[], None]) -> None:
        barrier.wait(10)
        job()

    threads = [threading.Thread(target=begin, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    return threads


# -- Everyone gets everything ------------------------------------------------------------------


@pytest.mark.parametrize("echo", [False, True], ids=["without echo", "with echo"])
def test_everyone_gets_everything_once_in_one_order(echo: bool) -> None:
    """10 of 100 clients send 1,000 messages each at once.

    Every client has all 10,000 but its own (with ``echo=1`` its own, too), exactly once, each
    sender's in its order, and all in the same order everywhere.
    """
    senders, count = 10, 1000
    path = "/all?echo=1" if echo else "/all"
    with running_hub() as hub:
        clients = [RawClient.connect(port=hub.port, path=path) for _ in range(100)]

        def job(sender: int) -> Callable[[], None]:
            choice = random.Random(sender)

            def send() -> None:
                number = 0
                while number < count:
                    burst = min(choice.randint(1, 40), count - number)
                    clients[sender].sock.sendall(
                        b"".join(
                            client_frame(BINARY, tagged(sender, number + index))
                            for index in range(burst)
                        )
                    )
                    number += burst

            return send

        threads = together(*(job(sender) for sender in range(senders)))
        own = 0 if echo else count
        sizes = [
            (senders * count - (own if index < senders else 0)) * FRAME_BYTES
            for index in range(100)
        ]
        streams = collect(clients, sizes)
        for thread in threads:
            thread.join()
        # What was received is counted a moment later.
        delivered = sum(sizes) // FRAME_BYTES
        assert wait_until(lambda: hub.stats()["deliveries"] == delivered)
        stats = hub.stats()
        # Nothing behind it: the next thing that each one sees is this.
        hub.broadcast("the end", "/all")
        for client in clients:
            assert client.recv_message() == "the end"
            client.close()
    order = words(streams[-1])
    assert sorted(order) == sorted(
        word(sender, number) for sender in range(senders) for number in range(count)
    )
    for sender in range(senders):
        mine = [word(sender, number) for number in range(count)]
        own_words = set(mine)
        assert [item for item in order if item in own_words] == mine
        if not echo:
            expected = [item for item in order if item not in own_words]
            assert words(streams[sender]) == expected, f"sender {sender}"
    for index in range(0 if echo else senders, 100):
        assert streams[index] == streams[-1], f"client {index}"
    assert stats["messages"] == senders * count
    assert stats["encodes"] == senders * count


def test_rooms_are_apart(hub: BroadcastHub) -> None:
    """What is said in one room is heard there only."""
    with (
        RawClient.connect(port=hub.port, path="/a") as first,
        RawClient.connect(port=hub.port, path="/a") as second,
        RawClient.connect(port=hub.port, path="/a/") as other,
    ):
        first.send("to a")
        other.send("to nobody")
        hub.broadcast("from the program", "/a/")
        assert second.recv_message() == "to a"
        assert other.recv_message() == "from the program"
        first.sync()
        second.sync()
        other.sync()


def test_rate_limit_slows_and_loses_nothing() -> None:
    """A client above ``max_rate`` waits; its messages all arrive and it is not closed."""
    with running_hub(max_rate=500) as hub:
        with RawClient.connect(port=hub.port) as sender, RawClient.connect(port=hub.port) as other:
            for number in range(800):
                sender.send_frame(BINARY, tagged(1, number))
            (stream,) = collect([other], [800 * FRAME_BYTES])
            assert words(stream) == [word(1, number) for number in range(800)]
            sender.leave()


def test_messages_just_before_leaving_are_delivered(hub: BroadcastHub) -> None:
    """Sent, Close, gone: the others get it all."""
    with RawClient.connect(port=hub.port) as other:
        for round_number in range(20):
            with RawClient.connect(port=hub.port) as client:
                client.sock.sendall(
                    b"".join(client_frame(BINARY, tagged(round_number, n)) for n in range(50))
                )
                client.send_close()
            expected = [word(round_number, number) for number in range(50)]
            assert words(collect([other], [50 * FRAME_BYTES])[0]) == expected


# -- Joining -----------------------------------------------------------------------------------


def test_first_message_after_the_101_arrives(hub: BroadcastHub) -> None:
    """The place in the log is fixed before the 101 goes out: from then on nothing is lost."""
    for number in range(200):
        with RawClient.connect(port=hub.port) as client:
            hub.broadcast(f"message {number}")
            assert client.recv_message() == f"message {number}"


class Traffic:
    """Numbers the messages of a thread that publishes to a room until it is told to stop."""

    def __init__(self, hub: BroadcastHub, room: str) -> None:
        self.messages: list[Message] = []
        self._hub = hub
        self._room = room
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            data = tagged(0, len(self.messages))
            self.messages.append(self._hub.broadcast(data, self._room))

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def test_join_during_traffic_gets_every_later_message(hub: BroadcastHub) -> None:
    """However it falls, a newcomer's stream has no hole and no repetition."""
    with Traffic(hub, "/flow") as traffic:
        for _ in range(50):
            known = len(traffic.messages)
            with RawClient.connect(port=hub.port, path="/flow") as client:
                stream = words(collect([client], [300 * FRAME_BYTES])[0])
            first = struct.unpack(">xxxxI", struct.pack("=Q", stream[0]))[0]
            assert first >= known
            assert stream == [word(0, first + index) for index in range(300)]


def test_join_with_history_and_since_during_traffic(hub: BroadcastHub) -> None:
    """What is replayed and what is new join without a seam."""
    with Traffic(hub, "/flow") as traffic:
        assert wait_until(lambda: len(traffic.messages) > 200)
        for history in (1, 7, 100):
            with RawClient.connect(port=hub.port, path=f"/flow?history={history}") as client:
                known = len(traffic.messages)
                stream = words(collect([client], [300 * FRAME_BYTES])[0])
            first = struct.unpack(">xxxxI", struct.pack("=Q", stream[0]))[0]
            # One message may be in the log whose broadcast() has not returned yet.
            assert first <= known + 1 - history, "that is no history"
            assert stream == [word(0, first + index) for index in range(300)]
        for back in (1, 50, 150):
            position = len(traffic.messages) - back
            since = traffic.messages[position].id
            with RawClient.connect(port=hub.port, path=f"/flow?since={since}") as client:
                stream = words(collect([client], [300 * FRAME_BYTES])[0])
            assert stream == [word(0, position + 1 + index) for index in range(300)]


def test_history_is_the_last_messages(hub: BroadcastHub) -> None:
    """``history=N`` gives the last N, or all there are; without it nothing old comes."""
    for number in range(10):
        hub.broadcast(str(number))
    for query, expected in {
        "": [],
        "?history=0": [],
        "?history=3": ["7", "8", "9"],
        "?history=50": [str(number) for number in range(10)],
    }.items():
        with RawClient.connect(port=hub.port, path=f"/{query}") as client:
            assert [client.recv_message() for _ in expected] == expected
            client.sync()


def test_history_is_at_most_the_setting() -> None:
    """A client cannot ask for more than ``history`` messages."""
    with running_hub(history=2) as hub:
        for number in range(10):
            hub.broadcast(str(number))
        with RawClient.connect(port=hub.port, path="/?history=9") as client:
            assert [client.recv_message() for _ in range(2)] == ["8", "9"]
            client.sync()


# -- Bad neighbours ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [200, 30_000])
def test_client_that_stops_reading_is_evicted_and_resumes(size: int) -> None:
    """It holds up nobody, is told 1013 with the id of its last message, and gets the rest later.

    The other member has each message before the next one is published, thus all of them before the
    stalled one is closed. Nothing is cut: what the stalled one finds is whole frames up to Close.
    """
    left: list[tuple[int, str]] = []
    published: list[Message] = []
    with running_hub(
        room_log_bytes=4 << 20, on_leave=lambda member, code, reason: left.append((code, reason))
    ) as hub:
        stalled = RawClient.connect(port=hub.port, path="/room", rcvbuf=4096)
        with stalled, RawClient.connect(port=hub.port, path="/room") as other:

            def publish() -> None:
                data = struct.pack("!Q", len(published)) + bytes(size - 8)
                published.append(hub.broadcast(data, "/room"))
                assert other.recv_message() == data

            while hub.stats()["evictions"] == 0:
                assert len(hub.members("/room")) == 2
                publish()
                assert len(published) * size < 64 << 20, "never evicted"
            assert [member.room for member in hub.members("/room")] == ["/room"]
            for _ in range(20):
                publish()
            got, code, reason = stalled.recv_until_close()
            stalled.close()
            assert wait_until(lambda: len(left) == 1)
        assert 0 < len(got) < len(published)
        assert got == [message.data for message in published[: len(got)]]
        assert (code, reason) == (1013, f"since={published[len(got) - 1].id}")
        assert left[0] == (code, reason)
        with RawClient.connect(port=hub.port, path=f"/room?{reason}") as resumed:
            rest = [resumed.recv_message() for _ in published[len(got) :]]
            assert rest == [message.data for message in published[len(got) :]]
            resumed.sync()


def test_others_have_everything_while_a_client_stalls() -> None:
    """A blocked client below half the ring stays a member and costs the others nothing."""
    size, count = 30_000, 200
    with running_hub(room_log_bytes=16 << 20) as hub:
        with RawClient.connect(port=hub.port, rcvbuf=4096) as stalled:
            others = [RawClient.connect(port=hub.port) for _ in range(10)]
            for number in range(count):
                hub.broadcast(struct.pack("!I", number) + bytes(size - 4))
            for other in others:
                for number in range(count):
                    data = other.recv_message()
                    assert isinstance(data, bytes) and len(data) == size
                    assert data[:4] == struct.pack("!I", number)
                other.leave()
            # More than any kernel takes for it is still waiting, and so is the client.
            assert len(hub.members()) == 1
            assert hub.stats()["evictions"] == 0
            # It comes to its senses, and has missed nothing.
            for number in range(count):
                data = stalled.recv_message()
                assert isinstance(data, bytes) and data[:4] == struct.pack("!I", number)
            stalled.leave()


def test_client_that_takes_no_byte_is_evicted_after_write_timeout() -> None:
    """A client that is not far behind but takes nothing at all goes after ``write_timeout``."""
    with running_hub(write_timeout=0.3, room_log_bytes=64 << 20) as hub:
        with RawClient.connect(port=hub.port, rcvbuf=4096) as stalled:
            published = [hub.broadcast(bytes(50_000)) for _ in range(200)]
            assert wait_until(lambda: hub.stats()["evictions"] == 1)
            assert hub.members() == []
            got, code, reason = stalled.recv_until_close()
        assert (code, reason) == (1013, f"since={published[len(got) - 1].id}")


def test_evicted_client_that_never_reads_is_cut_off() -> None:
    """After the eviction it has ``close_timeout``, then its socket, thread and memory are free."""
    with running_hub(room_log_bytes=4 << 20, close_timeout=0.2) as hub:
        with RawClient.connect(port=hub.port, rcvbuf=4096):
            while hub.stats()["evictions"] == 0:
                hub.broadcast(bytes(100_000))
            assert wait_until(lambda: hub.stats()["clients"] == 0)


def vanish(client: RawClient) -> None:
    """Close the socket with a reset."""
    client.reset()


def drop(client: RawClient) -> None:
    """Close the socket without a Close frame."""
    client.close()


def send_garbage(client: RawClient) -> None:
    """Send what are no frames."""
    client.sock.sendall(random.Random(1).randbytes(10_000))


def claim_too_much(client: RawClient) -> None:
    """Send the header of a frame of 2^63 bytes."""
    client.sock.sendall(client_frame(BINARY, b"", claimed=1 << 63))


def fall_silent(client: RawClient) -> None:
    """Stay, and never answer a ping."""


def stop_halfway(client: RawClient) -> None:
    """Begin a frame and never end it."""
    client.sock.sendall(client_frame(TEXT, b"x" * 50)[:20])


BAD_NEIGHBOURS: Sequence[Callable[[RawClient], None]] = (
    vanish,
    drop,
    send_garbage,
    claim_too_much,
    fall_silent,
    stop_halfway,
)


def test_bad_neighbours_hurt_nobody() -> None:
    """Clients that vanish, lie, babble or fall silent under traffic: the others get everything."""
    with (
        running_hub(ping_interval=0.3, ping_timeout=2.0) as hub,
        contextlib.ExitStack() as stack,
    ):

        def connect(rcvbuf: int | None = None) -> RawClient:
            return stack.enter_context(
                RawClient.connect(port=hub.port, path="/busy", rcvbuf=rcvbuf)
            )

        good = [connect() for _ in range(10)]
        bad = [(connect(rcvbuf=4096), misbehave) for _ in range(3) for misbehave in BAD_NEIGHBOURS]
        received: list[list[int]] = [[] for _ in good]
        readers = [
            threading.Thread(target=read_and_answer_pings, args=each)
            for each in zip(good, received, strict=True)
        ]
        for reader in readers:
            reader.start()
        with Traffic(hub, "/busy") as traffic:
            for number, (client, misbehave) in enumerate(bad):
                assert wait_until(lambda wanted=50 * number: len(traffic.messages) > wanted)
                misbehave(client)
        gone = wait_until(lambda: len(hub.members("/busy")) == len(good), 20)
        hub.broadcast("end", "/busy")
        for reader in readers:
            reader.join()
        assert gone, hub.members("/busy")
        expected = [word(0, number) for number in range(len(traffic.messages))]
        assert received == [expected] * len(good)


def read_and_answer_pings(client: RawClient, received: list[int]) -> None:
    """Keep tagged messages and answer the pings among them, until a text comes."""
    while True:
        _, opcode, payload = client.recv_frame()
        if opcode == PING:
            client.send_frame(PONG, payload)
        elif opcode == TEXT:
            return
        else:
            assert opcode == BINARY, (opcode, payload)
            received.append(words(b"\x82\x06" + payload)[0])


def test_reused_descriptor_gets_nothing_of_its_predecessor(hub: BroadcastHub) -> None:
    """Members of a busy room vanish by reset while others join elsewhere: no byte goes astray.

    The kernel gives the number of a closed socket to the next one at once.
    """
    with Traffic(hub, "/busy") as traffic:
        assert wait_until(lambda: len(traffic.messages) > 10)
        for number in range(40):
            doomed = RawClient.connect(port=hub.port, path="/busy")
            doomed.reset()
            with RawClient.connect(port=hub.port, path=f"/quiet-{number % 5}") as client:
                client.sync()
                hub.broadcast(f"only {number}", f"/quiet-{number % 5}")
                assert client.recv_message() == f"only {number}"
                client.sync()
                client.leave()


# -- Memory ------------------------------------------------------------------------------------


def test_log_is_trimmed_to_its_size() -> None:
    """A room keeps the newest that fits its ring, all rooms together the newest of the total."""
    with running_hub(
        max_message_bytes=1000, room_log_bytes=20_000, total_log_bytes=50_000, history=1000
    ) as hub:
        for number in range(100):
            hub.broadcast(struct.pack("!I", number) + bytes(996), "/one")
        assert wait_until(lambda: hub.stats()["log_bytes"] <= 20_000)
        with RawClient.connect(port=hub.port, path="/one?history=1000") as client:
            first = client.recv_message()
            assert isinstance(first, bytes)
            (start,) = struct.unpack("!I", first[:4])
            # 1,000 bytes, 4 of header, 256 for the entry; a little less than full after a trim.
            assert 100 - 20_000 // 1260 <= start <= 100 - 20_000 * 7 // 8 // 1260
            for number in range(start + 1, 100):
                assert client.recv_message() == struct.pack("!I", number) + bytes(996)
            client.sync()
        for room in range(20):
            for _ in range(20):
                hub.broadcast(bytes(1000), f"/room-{room}")
        assert wait_until(lambda: hub.stats()["log_bytes"] <= 50_000)


def test_memory_is_bounded_by_the_settings() -> None:
    """Rooms full of traffic, each with a client that never reads: memory stays within its bounds.

    It grows by no more than ``total_log_bytes`` and 64 MiB, whatever flows through.
    """
    total, size, count, rooms = 16 << 20, 100_000, 1500, 6
    with hub_process(room_log_bytes=8 << 20, total_log_bytes=total, max_rate=0) as (process, url):
        port = int(url.rstrip("/").rpartition(":")[2])
        before = highest = resident_bytes(process.pid)
        clients = []
        for room in range(rooms):
            for _ in range(3):
                clients.append(RawClient.connect(port=port, path=f"/{room}", rcvbuf=4096))
        senders = [RawClient.connect(port=port, path=f"/{room}") for room in range(rooms)]
        listener = RawClient.connect(port=port, path="/0", timeout=30)
        for number in range(count):
            frame = client_frame(BINARY, struct.pack("!I", number) + bytes(size - 4))
            senders[number % rooms].sock.sendall(frame)
            if number % rooms == 0:
                data = listener.recv_message()
                assert isinstance(data, bytes) and data[:4] == struct.pack("!I", number)
            if number % 20 == 0:
                highest = max(highest, resident_bytes(process.pid))
        for sender in senders:
            sender.leave()
        highest = max(highest, resident_bytes(process.pid))
        for client in [*clients, listener]:
            client.close()
    assert highest - before <= total + (64 << 20), f"grew by {(highest - before) >> 20} MiB"


# -- The program's own messages ----------------------------------------------------------------


def test_broadcast_returns_the_message(hub: BroadcastHub) -> None:
    """The program is told what became of its message; clients see text as text, bytes as bytes."""
    with RawClient.connect(port=hub.port, path="/r") as client:
        first = hub.broadcast("héllo", "/r")
        second = hub.broadcast(b"\xff\x00", "/r")
        assert client.recv_frame() == (True, TEXT, "héllo".encode())
        assert client.recv_frame() == (True, BINARY, b"\xff\x00")
    assert (first.data, first.room, first.sender) == ("héllo", "/r", None)
    assert (second.data, second.room, second.sender) == (b"\xff\x00", "/r", None)
    assert first.time.utcoffset() is not None and abs(first.time.timestamp() - time.time()) < 60
    assert ordered(first) < ordered(second)


def ordered(message: Message) -> tuple[int, int]:
    """Return a message's id as numbers."""
    assert message.id is not None
    milliseconds, _, sequence = message.id.partition("-")
    return int(milliseconds), int(sequence)


@pytest.mark.parametrize("data", [None, 1, bytearray(b"x"), memoryview(b"x"), ["x"]])
def test_other_types_are_a_type_error(hub: BroadcastHub, data: Any) -> None:
    """``str`` is text, ``bytes`` is binary, there is no third."""
    with pytest.raises(TypeError):
        hub.broadcast(data)
    with pytest.raises(TypeError):
        hub.send("c1", data)


def test_misuse_is_told_apart(hub: BroadcastHub) -> None:
    """Too big and no such room are errors of the caller, before anything is sent."""
    from broadcast_server import InvalidRoom, MessageTooBig

    with pytest.raises(MessageTooBig):
        hub.broadcast(bytes((1 << 20) + 1))
    with pytest.raises(MessageTooBig):
        hub.broadcast("é" * ((1 << 19) + 1))
    for room in ("", "a", "//", "/../x", "/healthz", "/\n", "/" + "x" * 128):
        with pytest.raises(InvalidRoom):
            hub.broadcast("x", room)
    assert hub.stats()["messages"] == 0


def test_send_reaches_one_client_in_order(hub: BroadcastHub) -> None:
    """A message for one client comes at its place between those for all, and to no one else."""
    with (
        RawClient.connect(port=hub.port, path="/?name=one") as one,
        RawClient.connect(port=hub.port, path="/?name=two") as two,
    ):
        one.sync()
        two.sync()
        ids = {member.name: member.id for member in hub.members()}
        for number in range(100):
            hub.broadcast(f"all {number}")
            assert hub.send(ids["one"], f"you {number}")
        expected = [f"{kind} {number}" for number in range(100) for kind in ("all", "you")]
        assert [one.recv_message() for _ in expected] == expected
        assert [two.recv_message() for _ in range(100)] == [f"all {n}" for n in range(100)]
        two.sync()
        assert hub.send("nobody", "x") is False
        one.leave()
        assert wait_until(lambda: len(hub.members()) == 1)
        assert hub.send(ids["one"], "too late") is False


def test_disconnect_ends_one_client(hub: BroadcastHub) -> None:
    """It gets what was published before, then Close with code and reason, and is no member."""
    with (
        RawClient.connect(port=hub.port, path="/?name=one") as one,
        RawClient.connect(port=hub.port, path="/?name=two") as two,
    ):
        one.sync()
        two.sync()
        ids = {member.name: member.id for member in hub.members()}
        hub.broadcast("before")
        assert hub.disconnect(ids["one"], 4000, "out you go")
        assert [member.name for member in hub.members()] == ["two"]
        assert hub.disconnect(ids["one"]) is False
        assert hub.disconnect("nobody") is False
        hub.broadcast("after")
        assert one.recv_message() == "before"
        assert one.recv_close() == (4000, "out you go")
        one.recv_eof()
        assert [two.recv_message(), two.recv_message()] == ["before", "after"]


def test_members_and_rooms_follow_who_is_there(hub: BroadcastHub) -> None:
    """Both list the present, in the order of joining; an empty room is not listed."""
    assert (hub.members(), hub.rooms()) == ([], [])
    with RawClient.connect(port=hub.port, path="/b?name=x") as first:
        address = f"127.0.0.1:{first.sock.getsockname()[1]}"
        with RawClient.connect(port=hub.port, path="/a") as second:
            assert hub.rooms() == ["/a", "/b"]
            (member,) = hub.members("/b")
            assert (member.name, member.room, member.address) == ("x", "/b", address)
            with RawClient.connect(port=hub.port, path="/b?name=y") as third:
                assert [member.name for member in hub.members("/b")] == ["x", "y"]
                assert len({member.id for room in hub.rooms() for member in hub.members(room)}) == 3
                third.leave()
            second.leave()
        assert wait_until(lambda: hub.rooms() == ["/b"])
        first.leave()
    assert wait_until(lambda: hub.rooms() == [])
    assert hub.members("/never") == []


def test_on_message_sees_every_message_of_clients() -> None:
    """The callback gets each client's message with its sender, room and id, in the room's order."""
    seen: list[Message] = []
    with running_hub(on_message=seen.append) as hub:
        with RawClient.connect(port=hub.port, path="/r?name=me&echo=1") as client:
            for number in range(100):
                client.send(str(number))
            client.send(b"bytes")
            for _ in range(101):
                client.recv_message()
            assert wait_until(lambda: len(seen) == 101)
            (member,) = hub.members("/r")
    assert [message.data for message in seen] == [*(str(number) for number in range(100)), b"bytes"]
    assert {message.sender for message in seen} == {member}
    assert {message.room for message in seen} == {"/r"}
    ids = [ordered(message) for message in seen]
    assert ids == sorted(set(ids))


def test_nagle_is_off(hub: BroadcastHub) -> None:
    """A small message is not held back until the last one is acknowledged (TCP_NODELAY)."""
    with RawClient.connect(port=hub.port) as client:
        ours = client.sock.getpeername(), client.sock.getsockname()
        assert wait_until(lambda: nodelay_of(*ours) is True)


def nodelay_of(local: Any, remote: Any) -> bool | None:
    """Return TCP_NODELAY of this process's socket with these addresses."""
    for number, what in descriptors().items():
        if what.startswith("socket:"):
            with socket.socket(fileno=os.dup(number)) as sock:
                try:
                    if (sock.getsockname(), sock.getpeername()) == (local, remote):
                        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                except OSError:
                    continue
    return None
