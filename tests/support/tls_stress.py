"""Many clients of one room over TLS, all sending and receiving at once, and everything checked.

``python -m tests.support.tls_stress SECONDS CERT KEY CA`` runs on any Python that has the package's
own dependencies: the hub is a process of its own, with the same Python. Half of the clients are
``BroadcastClient``, whose two threads share one TLS connection; half are raw ones, every second of
which takes its bytes through a tiny buffer, so that the hub's socket is full again and again.

All of them ask for their own messages, too. So all must get the very same stream: each compares the
numbers of every sender, and at the end all have one checksum. Senders go as fast as the slowest
receiver: what it has not got yet is bounded, so that nobody has to be evicted.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator

from broadcast_server import BroadcastClient

from . import RawClient, python_environment

CLIENTS = 50
# What may be under way to the slowest client; a hub evicts at half of its log.
WINDOW_BYTES = 4 << 20
LOG_BYTES = 64 << 20
# No single step takes so long, whatever else the machine does.
STALL_SECONDS = 60.0
PADDING = "0123456789abcdef" * 2560


class Room:
    """What all clients know of each other."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = 0.0
        self._received = [0] * CLIENTS  # bytes, each written by one thread
        self._sent = [0] * CLIENTS
        # Guards _waiting, how many clients wait for the window; notified when it is open again.
        self._opened = threading.Condition()
        self._waiting = 0
        self.joined = threading.Barrier(CLIENTS + 1, timeout=STALL_SECONDS)
        self.failures: list[str] = []
        self.streams = [Stream() for _ in range(CLIENTS)]

    def begin(self) -> None:
        """Begin the time when all have joined."""
        self._until = time.monotonic() + self.seconds
        self.joined.wait()

    def next_message(self, client: int, number: int) -> str | None:
        """Return what a client may send now; None if it has to wait."""
        if time.monotonic() >= self._until:
            return f"{client}:{number}:end"
        if not self._is_open():
            return None
        # Mostly short ones; now and then one of several TLS records.
        size = len(PADDING) if number % 40 == 39 else number * 7 % 500
        text = f"{client}:{number}:{PADDING[:size]}"
        self._sent[client] += len(text)
        return text

    def take(self, client: int, text: str) -> bool:
        """Check a message that a client has got; return whether it was the last one of all."""
        self._received[client] += len(text)
        # Whoever begins to wait after this look at `_waiting` looks at the window after that.
        if self._waiting and self._is_open():
            with self._opened:
                self._opened.notify_all()
        return self.streams[client].take(text)

    def _is_open(self) -> bool:
        return sum(self._sent) - min(self._received) <= WINDOW_BYTES

    def await_window(self, receiver: int | None = None) -> None:
        """Wait until the window is open or the time is over.

        Args:
            receiver: a client that has to receive on this thread what may have been sent meanwhile.
        """

        def may_go_on() -> bool:
            missed = receiver is not None and self._received[receiver] < self.sent_bytes
            return missed or self._is_open()

        with self._opened:
            self._waiting += 1
            self._opened.wait_for(may_go_on, max(0.0, self._until - time.monotonic()))
            self._waiting -= 1

    @property
    def sent_bytes(self) -> int:
        return sum(self._sent)

    def received_bytes(self, client: int) -> int:
        return self._received[client]


class Stream:
    """What one client has received."""

    def __init__(self) -> None:
        self.count = 0
        self.checksum = 0
        self._expected = [0] * CLIENTS
        self._ended = 0

    def take(self, text: str) -> bool:
        """Check a message against those before it."""
        sender, number, rest = text.split(":", 2)
        if int(number) != self._expected[int(sender)]:
            raise AssertionError(f"{sender}:{number} instead of {self._expected[int(sender)]}")
        if rest != "end" and rest != PADDING[: len(rest)]:
            raise AssertionError(f"{sender}:{number} is damaged")
        self._expected[int(sender)] += 1
        self._ended += rest == "end"
        self.count += 1
        self.checksum = zlib.crc32(text.encode(), self.checksum)
        return self._ended == CLIENTS


def run_client(room: Room, client: int, url: str, ca: str) -> None:
    """A ``BroadcastClient``: one thread of ours sends, another one receives."""
    failures: list[BaseException] = []

    def receive() -> None:
        try:
            while not room.take(client, connection.recv(STALL_SECONDS).data):
                pass
        except BaseException as error:
            failures.append(error)

    with BroadcastClient(f"{url}?echo=1", ca_file=ca, reconnect=False) as connection:
        room.joined.wait()
        receiver = threading.Thread(target=receive, daemon=True)
        receiver.start()
        number, text = 0, ""
        while receiver.is_alive() and not text.endswith(":end"):
            message = room.next_message(client, number)
            if message is None:
                room.await_window()
                continue
            text = message
            connection.send(text, timeout=STALL_SECONDS)
            number += 1
        receiver.join(room.seconds + STALL_SECONDS)
        if receiver.is_alive():
            raise TimeoutError("the receiver does not end")
    if failures:
        raise failures[0]


def run_raw(room: Room, client: int, url: str, ca: str) -> None:
    """A client on one thread: it sends a little when it may, and receives."""
    context = ssl.create_default_context(cafile=ca)
    host, _, port = url.removeprefix("wss://").rstrip("/").rpartition(":")
    connection = RawClient.open(
        host, int(port), 4096 if client % 4 == 1 else None, timeout=STALL_SECONDS
    )
    with connection:
        connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        connection.upgrade("/?echo=1")
        room.joined.wait()
        number, is_over, has_ended = 0, False, False
        while not is_over:
            for _ in range(4):
                text = None if has_ended else room.next_message(client, number)
                if text is None:
                    break
                connection.send(text)
                number += 1
                has_ended = text.endswith(":end")
            if has_ended or room.received_bytes(client) < room.sent_bytes:
                message = connection.recv_message()
                assert isinstance(message, str)
                is_over = room.take(client, message)
            else:
                room.await_window(client)
        connection.leave()


def guarded(room: Room, client: int, run: Callable[[], None]) -> None:
    """Run a client; note what it has died of."""
    try:
        run()
    except BaseException as error:
        room.failures.append(f"client {client}: {type(error).__name__}: {error}")
        room.joined.abort()


@contextlib.contextmanager
def hub(cert: str, key: str) -> Iterator[str]:
    """Run a hub with this Python; give its URL. It must stop in order."""
    command = [sys.executable, "-m", "broadcast_server", "start", "--port", "0"]
    command += ["--tls-cert", cert, "--tls-key", key, "--log-level", "warning"]
    command += ["--max-rate", "0", "--room-log-bytes", str(LOG_BYTES)]
    # The raw clients answer no ping, and on a busy machine the hub hears nothing for a while.
    command += ["--ping-interval", "600"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=python_environment()
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            yield line.split()[2]
            process.send_signal(signal.SIGTERM)
            if process.wait(STALL_SECONDS) != 0:
                raise RuntimeError(f"the hub ended with {process.returncode}")
        finally:
            process.kill()


def main(seconds: float, cert: str, key: str, ca: str) -> int:
    """Run it all, print what was found as JSON, return the exit status."""
    faulthandler.dump_traceback_later(seconds + 3 * STALL_SECONDS, exit=True)
    room = Room(seconds)
    with hub(cert, key) as url:
        threads = []
        for client in range(CLIENTS):
            run = run_raw if client % 2 else run_client

            def target(run: Callable[..., None] = run, client: int = client) -> None:
                guarded(room, client, lambda: run(room, client, url, ca))

            threads.append(threading.Thread(target=target, name=f"client {client}", daemon=True))
            threads[-1].start()
        with contextlib.suppress(threading.BrokenBarrierError):
            room.begin()
        deadline = time.monotonic() + seconds + 2 * STALL_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                room.failures.append(f"{thread.name} does not end")
                faulthandler.dump_traceback()
                break
    found = {
        "python": sys.version.split()[0],
        "openssl": ssl.OPENSSL_VERSION,
        "failures": room.failures,
        "messages": sorted({stream.count for stream in room.streams}),
        "checksums": sorted({stream.checksum for stream in room.streams}),
    }
    print(json.dumps(found), flush=True)
    return 1 if room.failures else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), *sys.argv[2:]))
