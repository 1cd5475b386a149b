"""Servers that take what they can get of a client: what one event may cost it in memory.

``measure`` lets a ``BroadcastClient`` in a process of its own connect to a server over a bare
socket, which sends one event and then an ordinary message. The client gets the message, or its
connection ends; both are good. Its memory at the peak is what counts.

``python -m tests.benchmarks.hostile_servers '{"url": …}'`` is the client: it says that it is
connected, and then how it went.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable

from broadcast_server import BroadcastClient, BroadcastServerError

from ..support import TEXT, resident_bytes
from ..support.raw_server import listener
from .helpers import Helper, peak_bytes, reset_peak

MIB = 1024 * 1024
SIZE = 20 * MIB
SECONDS = 30.0
ORDINARY = "an ordinary message"


def event(head: str, middle: str, tail: str) -> bytes:
    """Return an event of 20 MiB."""
    return (head + middle * ((SIZE - len(head) - len(tail)) // len(middle)) + tail).encode()


# What is sent, by the words for the table.
EVENTS: dict[str, Callable[[], bytes]] = {
    "an event of 20 MiB of an unknown type, of empty lists": functools.partial(
        event, '{"type":"x","x":[[]', ",[]", "]}"
    ),
    "the same of numbers": functools.partial(event, '{"type":"x","x":[0', ",0", "]}"),
    "the same of names": lambda: (
        (
            '{"type":"x",%s}' % ",".join(f'"{n:07x}":0' for n in range(SIZE // 12))  # noqa: UP031
        ).encode()
    ),
    "the same of one string": functools.partial(event, '{"type":"x","x":"', "x", '"}'),
    "a list of members of 20 MiB": functools.partial(
        event,
        '{"type":"members","count":1,"members":[{"id":"c1","name":null}',
        ',{"id":"c2","name":null}',
        "]}",
    ),
}


def measure(words: str) -> int:
    """Return by how many bytes a client's memory grows at its peak.

    Raises:
        RoundFailed: the client did not do its part.
    """
    with listener() as listening:
        client = Helper("hostile_servers", url=listening.url)
        try:
            server = listening.accept_events()
            with server.sock:
                client.read(SECONDS)
                reset_peak(client.pid)
                before = resident_bytes(client.pid)
                # A client that has seen enough may end the connection at any byte.
                with contextlib.suppress(OSError):
                    server.send_frame(TEXT, EVENTS[words]())
                    server.message(1, ORDINARY)
                client.read(SECONDS)
                return peak_bytes(client.pid) - before
        finally:
            client.end()


def main() -> None:
    """Be the client."""
    options = json.loads(sys.argv[1])
    with contextlib.suppress(BroadcastServerError):
        client = BroadcastClient(options["url"], reconnect=False, close_timeout=1).connect()
        print("connected", flush=True)
        try:
            with contextlib.suppress(BroadcastServerError):
                for message in client:
                    if message.data == ORDINARY:
                        break
            print("done", flush=True)
            sys.stdin.readline()
        finally:
            client.close(timeout=1)


if __name__ == "__main__":
    main()
