"""The loop that drives all clients on one thread: an epoll, timers, and the counts."""

from __future__ import annotations

import heapq
import itertools
import math
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from .order import Order

if TYPE_CHECKING:
    from .peers import Peer

# Of a histogram of times: so many classes for each doubling.
_CLASSES = 8
# The longest wait for events, so that the clock is looked at.
_POLL_SECONDS = 0.1


class Latency:
    """How long messages took, in classes a twelfth apart."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[math.ceil(_CLASSES * math.log2(max(seconds, 1e-6)))] += 1

    def merge(self, other: Latency) -> None:
        """Count all of another one."""
        self._counts.update(other._counts)

    @property
    def count(self) -> int:
        """How many were counted."""
        return self._counts.total()

    def milliseconds(self, *shares: float) -> list[float]:
        """Return for each share the time within which it arrived."""
        found = []
        for share in shares:
            left = share * self.count
            value = 0.0
            for place in sorted(self._counts):
                value = float(2 ** (place / _CLASSES) * 1000)
                left -= self._counts[place]
                if left <= 0:
                    break
            found.append(value)
        return found


class Driver:
    """What all clients share. Everything runs on the thread that calls ``run_until``.

    Args:
        port: where the hub listens, on 127.0.0.1.
        token: what allows to write.
        seed: of everything that is left to chance.
        orders: the rooms.
        haste: how many times as fast as usual all clients are.
    """

    def __init__(
        self, port: int, token: str, seed: int, orders: list[Order], haste: float = 1.0
    ) -> None:
        self.port = port
        self.token = token
        self.random = random.Random(seed)
        self.orders = orders
        self.haste = haste
        self.now = time.monotonic()
        self.tick = 0  # how many messages were sent
        self.counts: Counter[str] = Counter()
        self.latency = Latency()
        self.longest_turn = 0.0
        self.quiet = False  # nothing new is begun
        self.over = False  # nobody comes back any more
        self._ghosts: set[socket.socket] = set()
        self._epoll = select.epoll()
        self._peers: dict[int, Peer] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._senders = itertools.count(1)

    def new_sender(self) -> int:
        """Return a number that no other sender has."""
        return next(self._senders)

    def next_tick(self) -> int:
        """Count a message that is about to be sent."""
        self.tick += 1
        return self.tick

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._timers, (self.now + seconds, next(self._numbers), action))

    def note_latency(self, seconds: float) -> None:
        """Count how long a message took."""
        self.latency.add(seconds)

    def chance(self, share: float) -> bool:
        """Toss a coin."""
        return self.random.random() < share

    def pause(self, mean: float) -> float:
        """Return seconds as they lie between independent events, at most five times the mean."""
        return min(self.random.expovariate(1 / mean), 5 * mean) / self.haste

    def watch(self, number: int, peer: Peer, events: int) -> None:
        """Wait for events of a descriptor."""
        if number in self._peers:
            self._epoll.modify(number, events)
        else:
            self._epoll.register(number, events)
        self._peers[number] = peer

    def ignore(self, number: int) -> None:
        """Wait for nothing of a descriptor any more."""
        if self._peers.pop(number, None) is not None:
            self._epoll.unregister(number)

    def run_until(self, deadline: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Drive all clients until the time (``time.monotonic()``) or until it is done; return
        whether it is."""
        while not done():
            self.now = time.monotonic()
            if self.now >= deadline:
                return False
            self._turn(deadline)
        return True

    def _turn(self, deadline: float) -> None:
        due = self._timers[0][0] if self._timers else deadline
        timeout = max(0.0, min(due, deadline, self.now + _POLL_SECONDS) - self.now)
        ready = self._epoll.poll(timeout)
        began = self.now = time.monotonic()
        for number, events in ready:
            peer = self._peers.get(number)
            if peer is not None:  # not closed by an event before
                peer.on_events(events)
        while self._timers and self._timers[0][0] <= self.now:
            heapq.heappop(self._timers)[2]()
        for order in self.orders:
            order.settle(self.now)
        self.longest_turn = max(self.longest_turn, time.monotonic() - began)

    def haunt(self, sock: socket.socket, seconds: float) -> None:
        """Keep a connection open that nobody reads from."""
        self._ghosts.add(sock)

        def close() -> None:
            self._ghosts.discard(sock)
            sock.close()

        self.after(seconds, close)

    def close(self) -> None:
        """Wait for nothing any more; the connections are closed by those who have them."""
        for sock in self._ghosts:
            sock.close()
        self._epoll.close()
