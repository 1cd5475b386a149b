"""``make guard``: the least that must stay true of the hub's speed; exit 1 if it is not.

Only what one run can compare is guarded: ratios of measurements that take turns, and exact counts
of the work done for each message. The latter do not depend on the machine at all, and show at once
when a change makes the hub encode, join or send more often than it has to.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import decode
import harness
from harness import OURS, WEBSOCKETS, median

from broadcast_server import BroadcastHub
from broadcast_server.wire import frames

# The aim of `make bench` is 20 and 2; a guard needs room for a noisy machine.
LEAST_RATIO = 10
MOST_DECODE_RATIO = 2.5
ROUNDS = 5
RUN_SECONDS = 1.0

CLIENTS = 50
MESSAGES = 200
BURST = 1000
PAYLOAD = b"x" * 64
FRAME = bytes((0x81, len(PAYLOAD))) + PAYLOAD


class Guard:
    """Says what was found, and remembers whether anything was missed."""

    def __init__(self) -> None:
        self.missed = 0

    def check(self, good: bool, text: str) -> None:
        print(f"{'ok' if good else 'MISSED'}: {text}", flush=True)
        self.missed += not good


def join(hub: BroadcastHub) -> socket.socket:
    """Return a connection that has joined the hub's lobby."""
    client = socket.create_connection(("127.0.0.1", hub.port), timeout=10)
    client.sendall(
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        % hub.port
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = client.recv(1)  # one at a time: what follows are frames
        if not byte:
            raise harness.BenchmarkFailed(f"the hub refused a client: {answer!r}")
        answer += byte
    return client


def receive(client: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            raise harness.BenchmarkFailed("the hub closed a client")
        data += piece
    return bytes(data)


def counted(hub: BroadcastHub, before: dict[str, int], deliveries: int) -> dict[str, int]:
    """Return what the hub has counted since ``before``, once it has counted the deliveries.

    The fan-out counts after it has sent, so a client can be faster than the counter. Nothing tells
    when it has counted, so the counter is looked at until it is there, as ``wait_until`` of the
    tests would do; how long that takes is measured nowhere.
    """
    deadline = time.monotonic() + 10
    while hub.stats()["deliveries"] - before["deliveries"] < deliveries:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    after = hub.stats()
    return {key: after[key] - before[key] for key in after}


@contextmanager
def encodings() -> Iterator[list[int]]:
    """Note the opcode of each frame that is made; the hub's own counter counts messages."""
    made: list[int] = []
    original = frames.encode_frame

    def encode_frame(opcode: int, payload: bytes) -> bytes:
        made.append(opcode)
        return original(opcode, payload)

    frames.encode_frame = encode_frame
    try:
        yield made
    finally:
        frames.encode_frame = original


def guard_counts(guard: Guard) -> None:
    """Count the work for messages that come one at a time, and for a burst."""
    with BroadcastHub(port=0, max_rate=0) as hub, encodings() as made, ExitStack() as stack:
        clients = [stack.enter_context(join(hub)) for _ in range(CLIENTS)]
        before = hub.stats()
        for _ in range(MESSAGES):
            hub.broadcast(PAYLOAD.decode())
            for client in clients:
                if receive(client, len(FRAME)) != FRAME:
                    raise harness.BenchmarkFailed("a client got something else than was sent")
        most = MESSAGES * CLIENTS
        found = counted(hub, before, most)
        what = f"{MESSAGES} messages one at a time to {CLIENTS} clients: "
        guard.check(
            found["messages"] == found["encodes"] == MESSAGES,
            f"{what}{found['encodes']} encodes, must be {MESSAGES}",
        )
        guard.check(
            made.count(frames.TEXT) <= MESSAGES,
            f"{what}{made.count(frames.TEXT)} frames made, at most {MESSAGES}",
        )
        guard.check(found["sends"] <= most, f"{what}{found['sends']} sends, at most {most}")
        guard.check(
            found["deliveries"] == most and found["bytes_out"] == most * len(FRAME),
            f"{what}{found['deliveries']} deliveries of {found['bytes_out']} bytes, "
            f"must be {most} of {most * len(FRAME)}",
        )
        guard.check(found["joins"] <= MESSAGES, f"{what}{found['joins']} joins, at most {MESSAGES}")

        made.clear()
        before = hub.stats()
        sender = stack.enter_context(join(hub))
        sender.sendall(b"".join(decode.masked_frame(PAYLOAD, number) for number in range(BURST)))
        for client in clients:
            if receive(client, BURST * len(FRAME)) != FRAME * BURST:
                raise harness.BenchmarkFailed("a client got something else than was sent")
        found = counted(hub, before, BURST * CLIENTS)
        what = f"a burst of {BURST} messages to {CLIENTS} clients: "
        guard.check(
            found["messages"] == found["encodes"] == BURST,
            f"{what}{found['encodes']} encodes, must be {BURST}",
        )
        guard.check(
            made.count(frames.TEXT) <= BURST,
            f"{what}{made.count(frames.TEXT)} frames made, at most {BURST}",
        )
        most = BURST * CLIENTS // 4
        guard.check(found["sends"] <= most, f"{what}{found['sends']} sends, at most {most}")
        # One joined object serves everybody; one for each client would be as many as the sends.
        most = max(1, found["sends"] * 2 // CLIENTS)
        guard.check(found["joins"] <= most, f"{what}{found['joins']} joins, at most {most}")


def guard_ratio(guard: Guard) -> None:
    """Compare deliveries per second with ``websockets.broadcast()``, round by round."""
    servers = (OURS, WEBSOCKETS)
    messages = {server: harness.messages_for(server, RUN_SECONDS) for server in servers}
    ratios = []
    for _ in range(ROUNDS):
        rates = {}
        for server in servers:
            result = harness.measure(server, "throughput", messages=messages[server])
            rates[server] = harness.need_complete(server, result)["deliveries_per_s"]
        ratios.append(rates[OURS] / rates[WEBSOCKETS])
    ratio = median(ratios)
    each = ", ".join(f"{one:.1f}" for one in ratios)
    guard.check(
        ratio >= LEAST_RATIO,
        f"{ratio:.1f} times the deliveries/s of websockets.broadcast(), "
        f"at least {LEAST_RATIO} (rounds: {each})",
    )


def guard_decoding(guard: Guard) -> None:
    ours, reference = decode.measure()
    guard.check(
        ours <= reference * MOST_DECODE_RATIO,
        f"decoding a small frame takes {ours / reference:.2f} times a bare loop "
        f"({ours:.2f} µs), at most {MOST_DECODE_RATIO}",
    )


def main() -> int:
    guard = Guard()
    try:
        harness.compile_generator()
        guard_counts(guard)
        guard_decoding(guard)
        guard_ratio(guard)
    except (harness.BenchmarkFailed, OSError) as error:
        guard.check(False, f"the guard could not finish: {error}")
    if guard.missed:
        print(f"guard: {guard.missed} missed", file=sys.stderr)
    return 1 if guard.missed else 0


if __name__ == "__main__":
    sys.exit(main())
