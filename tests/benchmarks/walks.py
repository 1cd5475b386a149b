"""``make walks``: how far one has to walk through the package to follow what it does.

A real hub runs in this process and is reached over loopback. Five walks are recorded:

- join: a plain client enters a room, from its TCP connection to the last message of the room, which
  it has asked for;
- POST: one request publishes a message to a room with one member, the new connection included;
- message: what one plain client sends gets to another one;
- eviction: a message puts a client that never reads too far behind, until that client is gone; the
  publisher's own calls are left out, since "message" shows them;
- send to ack: ``BroadcastClient.send``, in the client and in the hub, until the hub has
  acknowledged the message.

A profile function notes each call of a function of the package, on every thread. What counts:

- files: the modules with at least one call;
- functions: how many different functions were called. A comprehension, a generator expression or a
  lambda is part of the function around it and not counted;
- returns: how often a thread's calls change to a file that the same thread has called before and
  left since. Only calls count, also those that go on with a generator: coming back from a call is
  no change. What a thread calls after its last function that is new to this walk is not counted,
  since the fan-out's loop may turn once more with nothing to do.

A walk ends when nothing more is called for a moment, so that the fan-out's last steps are in it.
The hub sends no heartbeat in that time, and what it calls when idle is left out. Each walk is made
once to warm everything up and then a few times; the one with the fewest returns is reported. So the
numbers are the same from run to run. Only "send to ack" may have 3 returns more, if the fan-out
woke up between the message and its acknowledgement each time and served them separately.

The numbers are not checked against a bound: compare them before and after a change. Below the table
is the size of the package; blank lines and comments count as lines.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import itertools
import logging
import os
import pathlib
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from types import CodeType, FrameType
from typing import Any, NamedTuple

import broadcast_server
from broadcast_server import BroadcastClient, BroadcastHub

PACKAGE = pathlib.Path(broadcast_server.__file__).resolve().parent

DESCRIPTION = "Count the files and functions of the package that typical walks through it lead to."

TIMEOUT_SECONDS = 10.0
# A walk is over when nothing was called for this long.
REST_SECONDS = 0.1
# Twice what socketserver's accept loop waits for between two looks.
IDLE_SECONDS = 1.0

# A client is evicted when it is more than five eighths of a log behind, at once; a log takes four
# messages.
BIG = "x" * (512 * 1024)
# Of a socket: both ends together have room for less than one message.
TINY_BUFFER = 4096

Call = tuple[int, CodeType]
Action = Callable[[], object]


class Recorder:
    """Notes the calls of the package's functions on all threads that start from now on, and on the
    one that makes it."""

    def __init__(self) -> None:
        self._folder = f"{PACKAGE}{os.sep}"
        self._calls: list[Call] = []
        self._idle: frozenset[CodeType] = frozenset()
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(self._folder):
            if code not in self._idle and not code.co_name.startswith("<"):
                self._calls.append((threading.get_ident(), code))

    def learn_idle(self) -> None:
        """Find out what is called when nothing is asked of a hub, and leave that out from now
        on."""
        self.record(lambda: time.sleep(IDLE_SECONDS))
        self._idle = frozenset(code for _, code in self._calls)

    def record(self, action: Action) -> list[Call]:
        """Return what is called from now on until the action and all that follows it is done."""
        self._settle()
        self._calls.clear()
        action()
        self._settle()
        return self._calls.copy()

    def unseen(self, action: Action) -> None:
        """Do something without noting what this thread calls."""
        sys.setprofile(None)
        try:
            action()
        finally:
            sys.setprofile(self._note)

    def _settle(self) -> None:
        """Wait until nothing is called for a moment."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        before = -1
        while before != len(self._calls):
            if time.monotonic() > deadline:
                raise TimeoutError("the hub does not come to rest")
            before = len(self._calls)
            time.sleep(REST_SECONDS)


class Stage:
    """A hub, what records it, and clients that speak over bare sockets."""

    def __init__(self, stack: ExitStack, recorder: Recorder) -> None:
        self.recorder = recorder
        self._left = threading.Semaphore(0)  # how often the eviction's client has left
        # Accepted sockets inherit the small buffer, so an unread message stays in the hub.
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, TINY_BUFFER)
        self.hub = stack.enter_context(
            BroadcastHub(
                sockets=[listener],
                on_leave=self._note_left,
                max_message_bytes=len(BIG),
                room_log_bytes=4 * len(BIG),
                close_timeout=0.3,
                ping_interval=3600,
            )
        )

    def _note_left(self, member: Any, code: int, reason: str) -> None:
        if member.room == "/eviction":
            self._left.release()

    def await_left(self) -> None:
        """Wait until the client in the eviction's room has left."""
        if not self._left.acquire(timeout=TIMEOUT_SECONDS):
            raise TimeoutError("the client that never reads was not evicted")

    def join(self, path: str) -> socket.socket:
        """Return a connection that has joined a room."""
        client = socket.socket()
        client.settimeout(TIMEOUT_SECONDS)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TINY_BUFFER)
        client.connect(("127.0.0.1", self.hub.port))
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{self.hub.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        )
        client.sendall("\r\n".join((*lines, "", "")).encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += receive(client, 1)  # one at a time: what follows are frames
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"the hub refused a client: {answer!r}")
        return client

    def settle_in(self, room: str, *members: socket.socket) -> None:
        """Let the fan-out send a first message to members that have joined: it takes a new
        client over only when there is something to send."""
        self.hub.broadcast("first", room)
        for member in members:
            expect_text(member, b"first")


def receive(client: socket.socket, size: int) -> bytes:
    """Return exactly that many bytes."""
    data = b""
    while len(data) < size:
        piece = client.recv(size - len(data))
        if not piece:
            raise ConnectionError("the hub closed a connection")
        data += piece
    return data


def expect_text(client: socket.socket, text: bytes) -> None:
    """Take the frame of a short message, which must be the next one."""
    frame = bytes((0x81, len(text))) + text
    if receive(client, len(frame)) != frame:
        raise ConnectionError("a client got something other than what was sent")


# -- The walks: each prepares what it needs, yields the action to record, and tidies up ------------


@contextmanager
def join(stage: Stage) -> Iterator[Action]:
    """One member is there already, and one message to replay."""
    with stage.join("/join") as member, ExitStack() as stack:
        stage.settle_in("/join", member)
        yield lambda: expect_text(stack.enter_context(stage.join("/join?history=1")), b"first")


@contextmanager
def post(stage: Stage) -> Iterator[Action]:
    """The connection is closed only after the walk."""
    request = http.client.HTTPConnection("127.0.0.1", stage.hub.port, timeout=TIMEOUT_SECONDS)
    with stage.join("/post") as member, closing(request):
        stage.settle_in("/post", member)

        def act() -> None:
            request.request("POST", "/post", b"hello", {"Content-Type": "text/plain"})
            answer = request.getresponse()
            answer.read()
            if answer.status >= 300:
                raise ConnectionError(f"the hub refused a message: {answer.status}")
            expect_text(member, b"hello")

        yield act


@contextmanager
def message(stage: Stage) -> Iterator[Action]:
    """The frame is masked with zeros, as is lawful."""
    with stage.join("/message") as sender, stage.join("/message") as member:
        stage.settle_in("/message", sender, member)

        def act() -> None:
            sender.sendall(b"\x81\x85\0\0\0\0hello")
            expect_text(member, b"hello")

        yield act


@contextmanager
def eviction(stage: Stage) -> Iterator[Action]:
    """The first message fills the client's socket, the others wait in the log."""

    def publish() -> None:
        stage.recorder.unseen(lambda: stage.hub.broadcast(BIG, "/eviction"))

    def act() -> None:
        publish()
        stage.await_left()

    with stage.join("/eviction"):
        for _ in range(3):
            publish()
        yield act


@contextmanager
def send_to_ack(stage: Stage) -> Iterator[Action]:
    """The client is alone in its room."""
    with BroadcastClient(f"{stage.hub.url}ack") as client:

        def await_ack() -> None:
            deadline = time.monotonic() + TIMEOUT_SECONDS
            while client.unaccepted:
                if time.monotonic() > deadline:
                    raise TimeoutError("the hub does not acknowledge a message")
                time.sleep(0.001)

        def act() -> None:
            client.send("hello")
            stage.recorder.unseen(await_ack)

        yield act


Walk = Callable[[Stage], AbstractContextManager[Action]]

WALKS: dict[str, Walk] = {
    "join": join,
    "POST": post,
    "message": message,
    "eviction": eviction,
    "send to ack": send_to_ack,
}


# -- The report ------------------------------------------------------------------------------------


class Counts(NamedTuple):
    """What the table shows of one walk."""

    files: int
    functions: int
    returns: int


def count_returns(codes: list[CodeType]) -> int:
    """Return how often one thread came to a file that it had been in before and had left."""
    firsts = {code: index for index, code in reversed(list(enumerate(codes)))}
    files = [code.co_filename for code in codes[: max(firsts.values()) + 1]]
    stays = [file for file, _ in itertools.groupby(files)]
    return len(stays) - len(set(stays))


def count(calls: list[Call]) -> Counts:
    """Return what the table shows of a walk."""
    threads: dict[int, list[CodeType]] = {}
    for thread, code in calls:
        threads.setdefault(thread, []).append(code)
    codes = {code for _, code in calls}
    files = {code.co_filename for code in codes}
    return Counts(len(files), len(codes), sum(map(count_returns, threads.values())))


def take(stage: Stage, walk: Walk) -> Counts:
    """Make a walk, and return its numbers."""
    with walk(stage) as action:
        return count(stage.recorder.record(action))


def measure(takes: int) -> Iterator[tuple[str, Counts]]:
    """Yield the name and the numbers of each walk."""
    recorder = Recorder()
    with ExitStack() as stack:
        stage = Stage(stack, recorder)
        recorder.learn_idle()
        for name, walk in WALKS.items():
            take(stage, walk)  # warms up
            found = [take(stage, walk) for _ in range(takes)]
            yield name, min(found, key=lambda counts: counts.returns)


def describe_package() -> str:
    """Return how many files and lines the package has, and how they are spread."""
    sizes = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    folders = len({os.path.dirname(name) for name in sizes})
    largest = max(sizes, key=lambda name: sizes[name])
    return (
        f"The package: {len(sizes)} files in {folders} folder{'s' * (folders > 1)}, "
        f"{sum(sizes.values()):,} lines; median file {statistics.median(sizes.values()):g}, "
        f"largest {sizes[largest]} ({largest})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make walks", description=DESCRIPTION)
    parser.add_argument(
        "--takes",
        type=int,
        default=5,
        metavar="COUNT",
        help="record each walk this often, and report the one with the fewest returns (default: 5)",
    )
    takes = parser.parse_args().takes
    logging.disable()  # the hub warns of the eviction
    gc.disable()  # what it would finalize may be the package's
    print("| walk | files | functions | returns |")
    print("|---|---:|---:|---:|")
    for name, counts in measure(takes):
        print(f"| {name} | {counts.files} | {counts.functions} | {counts.returns} |", flush=True)
    print(f"\n{describe_package()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
