"""The seam between what is replayed and what is new: no hole and no double, whoever comes back.

A sender goes on all the time; readers drop at random points and come back with the last id that
they got. Both kinds of readers are held against the same numbers: clients of ``broadcast.v1.json``,
which say ``since=``, and streams of events, which say ``Last-Event-ID``.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from broadcast_server import BroadcastHub
from broadcast_server.messages import parse_id

from ..support import running_hub, stress_size
from ..support.event_stream import Stream
from ..support.json_peer import Peer

SECONDS = 120.0


class Got(NamedTuple):
    """A message as a reader has it."""

    id: str
    number: int


# Connects behind an id, None for the newest message; gives what returns the next message.
Reader = Callable[[BroadcastHub, str | None], contextlib.AbstractContextManager[Callable[[], Got]]]


@contextlib.contextmanager
def client(hub: BroadcastHub, last: str | None) -> Iterator[Callable[[], Got]]:
    """Read as a client of the subprotocol does."""
    query = "history=1" if last is None else f"since={last}"
    with Peer(hub, f"/r?{query}", validate=False) as peer:

        def take() -> Got:
            while (event := peer.recv())["type"] != "message":
                assert event["type"] in ("join", "leave", "count", "members")
            return Got(event["id"], int(event["data"]))

        yield take


@contextlib.contextmanager
def stream(hub: BroadcastHub, last: str | None) -> Iterator[Callable[[], Got]]:
    """Read as an ``EventSource`` does."""
    target, headers = ("/r?history=1", []) if last is None else ("/r", [f"Last-Event-ID: {last}"])
    with Stream(hub, target, *headers) as found:
        assert found.head.startswith("HTTP/1.1 200 ")

        def take() -> Got:
            while (event := found.event()) == ":":
                pass
            id_line, data = event.split("\n")
            return Got(id_line.removeprefix("id: "), int(data.removeprefix("data: ")))

        yield take


class Seam:
    """One sender and many readers.

    Attributes:
        sent: the id of each message, which is also its number's place.
        live: the numbers that were read by somebody who was there before they were sent.
    """

    def __init__(self, reader: Reader, readers: int, drops: int) -> None:
        self._reader = reader
        self._readers = readers
        self._drops = drops
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self.sent: list[str] = []
        self.live: list[int] = []

    def run(self) -> None:
        """Let all of them go on until each reader has dropped so often."""
        with running_hub(history=1000) as hub:
            sender = threading.Thread(target=self._talk, args=(hub,))
            readers = [
                threading.Thread(target=self._follow, args=(hub, seed))
                for seed in range(self._readers)
            ]
            sender.start()
            for thread in readers:
                thread.start()
            for thread in readers:
                thread.join(SECONDS)
            self._stop.set()
            sender.join(10)
        assert not self._failures, self._failures[:3]
        assert not any(thread.is_alive() for thread in readers)

    def _talk(self, hub: BroadcastHub) -> None:
        # As fast as the readers, all in this one process, can follow: those that fall behind would
        # never come to the seam.
        while not self._stop.wait(0.003):
            message = hub.broadcast(str(len(self.sent)), "/r")
            assert message.id is not None
            self.sent.append(message.id)

    def _follow(self, hub: BroadcastHub, seed: int) -> None:
        rng = random.Random(seed)
        last: str | None = None
        expected: int | None = None
        try:
            for _ in range(self._drops + 1):
                with self._reader(hub, last) as take:
                    there = len(self.sent)
                    for _ in range(rng.randrange(1, 30)):
                        last, number = take()
                        assert expected in (None, number), (expected, number)
                        expected = number + 1
                        if number > there:
                            self.live.append(number)
        except BaseException as error:
            self._failures.append(error)


@pytest.mark.parametrize("reader", [client, stream])
@pytest.mark.parametrize(
    ("readers", "drops"),
    [(8, 5), pytest.param(stress_size(50, 20), stress_size(20, 8), marks=pytest.mark.stress)],
)
def test_readers_that_drop_at_random_get_all_once(reader: Reader, readers: int, drops: int) -> None:
    """Each number follows the one before it, over every drop of every reader."""
    seam = Seam(reader, readers, drops)
    seam.run()
    places = [parse_id(id) for id in seam.sent]
    assert len(places) > drops
    assert all(before < after for before, after in itertools.pairwise(places))
    assert seam.live
