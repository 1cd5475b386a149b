"""The others of a hub while strangers attack it: idle members, two who talk, newcomers, a customer.

``python -m tests.benchmarks.bystanders '{"role": "pair", "port": …}'`` runs one of them in a
process of its own, so that what is measured is the hub and not the interpreter of the attackers. A
role says that it is ready on one line, then does for each line of standard input what that says,
and answers on one line of JSON:

- ``members``: 1,000 who read and say nothing; half of them JSON members of the room where it costs
  the most to tell something to all. Any line: how many of them are still there.
- ``pair``: two who talk in a room of theirs. ``SECONDS``: how long round trips took.
- ``newcomers``: one joins after the other. ``SECONDS``: how long that took.
- ``customer``: has a message in an empty room, and has used a key. Any line: whether the hub still
  has both.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ..support import TEXT, HandshakeRefused, RawClient, client_frame
from .attackers import CROWD, JSON_LINE, NICENESS, forwarded, raise_descriptor_limit

QUIET = "/quiet"
PAIR = "/pair"

# A message of the pair is due at each of these; what is late counts from when it was due.
INTERVAL_SECONDS = 0.005
# So long what was sent last may be on its way.
LATE_SECONDS = 20.0
NEWCOMER_SECONDS = 0.05

Result = dict[str, Any]


def answering(work: Callable[[str], Result]) -> None:
    """Say that a role is ready; answer each line of standard input until it ends."""
    print("ready", flush=True)
    while line := sys.stdin.readline().strip():
        print(json.dumps(work(line)), flush=True)


# -- Members ---------------------------------------------------------------------------------------


def play_members(port: int, count: int) -> None:
    """Be in two rooms and read what comes, at a lower priority than those who are measured."""
    os.nice(NICENESS)
    selector = selectors.DefaultSelector()
    alive = {CROWD: 0, QUIET: 0}
    received = 0
    with contextlib.ExitStack() as stack:
        for number in range(count):
            path, lines = (CROWD, [JSON_LINE]) if number % 2 else (QUIET, [])
            lines = [forwarded(f"198.51.100.{number % 250}"), *lines]
            client = stack.enter_context(RawClient.connect(port=port, path=path, headers=lines))
            client.sock.setblocking(False)
            selector.register(client.sock, selectors.EVENT_READ, path)
            alive[path] += 1
        buffer = bytearray(1 << 18)
        selector.register(sys.stdin, selectors.EVENT_READ, None)
        print("ready", flush=True)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    if not sys.stdin.readline():
                        return
                    print(json.dumps({**alive, "received": received}), flush=True)
                    continue
                assert isinstance(key.fileobj, socket.socket)
                try:
                    size = key.fileobj.recv_into(buffer)
                except BlockingIOError:
                    continue
                except OSError:
                    size = 0
                received += size
                if not size:
                    selector.unregister(key.fileobj)
                    alive[key.data] -= 1


# -- The pair --------------------------------------------------------------------------------------


class Pair:
    """Two members of one room, on one thread. The first sends at fixed times, the second answers
    each message, the first takes the answer.

    What is late is so from the time when it was due: a hub that stands still for a second makes
    all late that should have come in this second, and not one alone.
    """

    def __init__(self, port: int) -> None:
        self._ends = [
            RawClient.connect(
                port=port, path=PAIR, headers=[forwarded(f"192.0.2.{number}")], timeout=20
            )
            for number in (1, 2)
        ]
        self._poll = select.poll()
        for end in self._ends:
            end.sock.setblocking(False)
            self._poll.register(end.sock, select.POLLIN)
        self._sent = 0

    def talk(self, seconds: float) -> Result:
        """Talk for so long, and wait for what is on its way, for a bounded time."""
        started = time.monotonic()
        until, give_up = started + seconds, started + seconds + LATE_SECONDS
        end = until - INTERVAL_SECONDS / 2  # nothing is due then: sums are not exact
        due: deque[tuple[int, float]] = deque()
        times: list[float] = []
        next_due, wrong, fault = started, 0, ""
        while (now := time.monotonic()) < give_up and not fault:
            while next_due <= now and next_due < end:
                self._say(0, b"%016d" % self._sent)
                due.append((self._sent, next_due))
                self._sent += 1
                next_due += INTERVAL_SECONDS
            if now >= until and not due:
                break
            later = give_up if due else until  # all may be here before the time is over
            wait = (next_due if next_due < end else later) - now
            if not self._poll.poll(max(0.0, wait * 1000)):
                continue
            try:
                for payload in self._hear(1):
                    self._say(1, payload)
                for payload in self._hear(0):
                    number, since = due.popleft() if due else (-1, 0.0)
                    wrong += int(payload) != number
                    times.append(time.monotonic() - since)
            except (OSError, EOFError) as error:
                fault = repr(error)
        now = time.monotonic()
        missing = [now - since for _, since in due]
        if fault:
            # What was fast before says nothing.
            times = [LATE_SECONDS]
        return {"times": times + missing, "missing": len(missing), "wrong": wrong, "fault": fault}

    def _say(self, number: int, payload: bytes) -> None:
        # As small as it is, it fits; if not, the hub reads nothing of us, which is a fault.
        self._ends[number].sock.send(client_frame(TEXT, payload))

    def _hear(self, number: int) -> Iterator[bytes]:
        end = self._ends[number]
        with contextlib.suppress(BlockingIOError):
            end.fill()
        while len(end.buffer) >= 18:
            fin, opcode, payload = end.recv_frame()
            if not fin or opcode != TEXT or len(payload) != 16:
                raise EOFError(f"the hub said {opcode} {payload!r}")
            yield payload

    def close(self) -> None:
        for end in self._ends:
            end.close()


def play_pair(port: int) -> None:
    """Talk whenever that is asked for."""
    pair = Pair(port)
    try:
        answering(lambda line: pair.talk(float(line)))
    finally:
        pair.close()


# -- Newcomers -------------------------------------------------------------------------------------


def join_and_leave(port: int, seconds: float) -> Result:
    """Join one after the other for so long."""
    until = time.monotonic() + seconds
    times: list[float] = []
    refused = 0
    while (began := time.monotonic()) < until:
        try:
            with RawClient.connect(
                port=port, path="/new", headers=[forwarded("192.0.2.3")], timeout=LATE_SECONDS
            ):
                pass
        except (OSError, EOFError, HandshakeRefused):
            refused += 1
        times.append(time.monotonic() - began)
        time.sleep(NEWCOMER_SECONDS)
    return {"times": times, "refused": refused}


# -- The customer ----------------------------------------------------------------------------------


def ask(port: int, method: str, target: str, body: str | None = None, **headers: str) -> Any:
    """Make a request of the customer's; return the JSON that is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LATE_SECONDS)
    try:
        lines = {"X-Forwarded-For": "192.0.2.4", **headers}
        connection.request(method, target, body, lines)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def play_customer(port: int) -> None:
    """Use a key and leave a message; look later whether the hub still has both."""

    def pay() -> bool:
        answer = ask(port, "POST", "/invoices", "paid", **{"Idempotency-Key": "invoice-17"})
        return answer.get("duplicate") is True

    def look(line: str) -> Result:
        try:
            found = ask(port, "GET", "/empty?history=1", Accept="application/json")
            return {"room": bool(found.get("messages")), "key": pay()}
        except (OSError, ValueError, http.client.HTTPException):
            return {"room": False, "key": False}

    pay()
    ask(port, "POST", "/empty", "still here")
    answering(look)


def main() -> None:
    """Play the role of the arguments until standard input ends."""
    raise_descriptor_limit()
    options = json.loads(sys.argv[1])
    role, port = options["role"], options["port"]
    if role == "members":
        play_members(port, options["count"])
    elif role == "pair":
        play_pair(port)
    elif role == "newcomers":
        answering(lambda line: join_and_leave(port, float(line)))
    else:
        play_customer(port)


if __name__ == "__main__":
    main()
