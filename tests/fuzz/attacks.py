"""What is done to the hub: one connection each, made of the corpora. Pure: bytes only.

Most attacks begin well, with a request that the hub understands, and go wrong later: with mutated
frames, mutated JSON events in good frames, or behind good messages. So they reach what is behind
the parsers. The same seed makes the same attacks.
"""

from __future__ import annotations

import ast
import itertools
import random
from typing import NamedTuple

from ..support import BINARY, TEXT, client_frame, upgrade_request
from . import targets
from .mutation import Mutator

# How an attack ends: in order, at once, with a reset, or in order after a silence.
ENDINGS = ("half", "half", "half", "close", "reset", "silent")

# In these rooms attackers meet; the requests of the corpus have more.
ROOMS = ("/", "/scores", "/a")

_PUBLISH = "POST {room}?name=eve HTTP/1.1\r\nHost: h\r\nIdempotency-Key: {key}\r\n"
_STREAM = "GET {room}?history=5 HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n"


class Attack(NamedTuple):
    """One connection.

    Attributes:
        kind: what it is.
        pieces: what is sent, each with a call of its own.
        ending: one of ``ENDINGS``.
    """

    kind: str
    pieces: list[bytes]
    ending: str


class Attacks:
    """Makes attacks. One thread only.

    Args:
        seed: makes them repeatable.
    """

    def __init__(self, seed: object) -> None:
        self._chance = random.Random(str(seed))

        def mutator(name: str, skipped: int) -> Mutator:
            # Without the bytes that choose a target's settings.
            seeds = [seed_[skipped:] for seed_ in targets.seeds(name)]
            return Mutator((seed, name), seeds, targets.words(name))

        self._requests = mutator("http", 2)
        self._frames = mutator("frames", 2)
        self._events = mutator("hub_events", 0)
        self._kinds = {
            "request": self._requests.make,
            "frames": lambda: self._join() + self._frames.make(),
            "events": lambda: self._join(as_json=True) + self._some_events(),
            "messages": lambda: self._join() + self._messages() + self._frames.make(),
            "publish": self._publish,
            "stream": lambda: _STREAM.format(room=self._room()).encode() + self._frames.make(),
        }

    def make(self) -> Attack:
        """Return the next one."""
        kind = self._chance.choice([*self._kinds])
        data = self._kinds[kind]()
        places = sorted(self._chance.randrange(len(data) + 1) for _ in range(3))
        cuts = [0, *places[: self._chance.randrange(4)], len(data)]
        pieces = [data[a:b] for a, b in itertools.pairwise(cuts) if a < b]
        return Attack(kind, pieces, self._chance.choice(ENDINGS))

    def _room(self) -> str:
        return self._chance.choice((*ROOMS, f"/r{self._chance.randrange(100)}"))

    def _join(self, *, as_json: bool = False) -> bytes:
        chance = self._chance
        query = chance.choice(("", "?name=eve", "?echo=1", "?history=9", "?since=1-1"))
        headers = ["Sec-WebSocket-Protocol: broadcast.v1.json"] if as_json else []
        return upgrade_request(self._room() + query, headers)

    def _some_events(self) -> bytes:
        frames = [client_frame(TEXT, self._events.make()) for _ in range(self._chance.randrange(9))]
        return b"".join(frames)

    def _messages(self) -> bytes:
        chance = self._chance
        sizes = [chance.choice((0, 5, 125, 126, 4096)) for _ in range(chance.randrange(9))]
        return b"".join(client_frame(BINARY, bytes(size)) for size in sizes)

    def _publish(self) -> bytes:
        body = self._events.make()
        head = _PUBLISH.format(room=self._room(), key=self._chance.randrange(1 << 30))
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def to_line(attack: Attack) -> str:
    """Return an attack as a line of text, for a file of findings."""
    return repr(tuple(attack))


def from_line(line: str) -> Attack:
    """Return the attack of such a line.

    Raises:
        ValueError, SyntaxError, TypeError: it is none.
    """
    return Attack(*ast.literal_eval(line))
