"""Who may have a place in the hub: connections that are no clients yet, and clients by address.

*Waiting* is every connection that has not joined: it is still in its handshake, or publishes over
HTTP, or only keeps its place. Whoever opens many and says nothing (slowloris) must not keep others
out. So there is a bounded number of such places, and when all are taken the newcomer gets one all
the same: of the address that holds most of them, the connection that has been waiting for longest
makes way. An attacker with one address thus fights only himself, whoever shares his address
included; one with many has to be faster than an honest handshake, which takes a fraction of a
second. A connection that is asked to wait for a further request begins to wait anew.

A connection that makes way is cut off if its peer is what it waits for. If it is the hub that has
not got to it yet, it may still join, or get one answer. At most as many as may wait make way at any
one time; while they are that many the hub is behind, and no newcomer gets a place.

*Joined* are clients. How many of them one address may have is bounded, too.

Addresses count as ``networks.network_of`` says. A connection counts for the peer of its socket
while it waits, since more is not known of it, and for the client that its request tells of when it
joins (behind a proxy these differ).
"""

from __future__ import annotations

import queue
import threading
from collections import Counter, OrderedDict
from typing import Generic, TypeVar

from ..networks import network_of
from .rooms.waiters import Bells

Key = TypeVar("Key")


class Admission(Generic[Key]):
    """The places of one hub. Every method may be called from any thread.

    Args:
        max_handshakes: how many connections may wait.
        max_clients_per_address: how many clients one address may have; 0 for no limit.

    Attributes:
        ended: rung when one of those that make way has ended, or has joined.
    """

    def __init__(self, max_handshakes: int, max_clients_per_address: int) -> None:
        self._max_waiting = max_handshakes
        self._max_joined = max_clients_per_address
        self.ended = Bells()
        # Guards all that follows. Nothing else is taken while it is held.
        self._lock = threading.Lock()
        self._network: dict[Key, str] = {}  # of each connection that waits
        # The same by network, in each the one that waits for longest first.
        self._waiting: dict[str, OrderedDict[Key, None]] = {}
        self._order: OrderedDict[Key, None] = OrderedDict()  # all of them
        # Those that make way, and whether they are cut off: their threads have not ended yet.
        self._making_way: dict[Key, bool] = {}
        self._joined: dict[Key, str] = {}
        self._clients: Counter[str] = Counter()

    def begin(self, key: Key, host: str) -> tuple[bool, Key | None]:
        """Give a new connection a place, if need be another's.

        Args:
            key: the connection.
            host: its peer's address.

        Returns:
            Whether it has a place, and the connection that makes way for it. It has none only if
            as many as may wait make way already.
        """
        with self._lock:
            loser = None
            if len(self._network) >= self._max_waiting:
                if len(self._making_way) >= self._max_waiting:
                    return False, None
                loser = self._longest_locked()
                self._forget_locked(loser)
                self._making_way[loser] = False
            self._wait_locked(key, network_of(host))
            return True, loser

    def cut(self, key: Key) -> bool:
        """Note that a connection that makes way is cut off now; return False if it has joined or
        ended in this moment, or is cut off already."""
        with self._lock:
            if self._making_way.get(key, True):
                return False
            self._making_way[key] = True
            return True

    def late(self) -> tuple[list[Key], queue.SimpleQueue[None] | None]:
        """Return those that make way and are not cut off, and a bell of `ended`; no bell if there
        is a place now."""
        with self._lock:
            if len(self._making_way) < self._max_waiting:
                return [], None
            return [key for key, cut in self._making_way.items() if not cut], self.ended.get()

    def wait_again(self, key: Key) -> bool:
        """Note that a connection has been answered, and now waits for its next request; return
        whether all places are taken."""
        with self._lock:
            network = self._network.get(key)
            if network is not None:
                self._order.move_to_end(key)
                self._waiting[network].move_to_end(key)
            return len(self._network) >= self._max_waiting

    def join(self, key: Key, host: str) -> bool:
        """Make a connection a client; return whether its address may have one more.

        Args:
            key: the connection.
            host: the client's address.

        Raises:
            ConnectionAbortedError: it has been cut off in this moment.
        """
        with self._lock:
            if self._making_way.get(key, False):
                raise ConnectionAbortedError("another connection has got its place")
            network = network_of(host)
            if self._max_joined and self._clients[network] >= self._max_joined:
                return False
            if key in self._network:
                self._forget_locked(key)
            self._made_way_locked(key)
            self._joined[key] = network
            self._clients[network] += 1
            return True

    def leave(self, key: Key) -> None:
        """Note that a client is none any more; its connection may take a while to end."""
        with self._lock:
            self._leave_locked(key)

    def unjoin(self, key: Key, peer: str) -> None:
        """Let a connection that could not become a client after all wait again."""
        with self._lock:
            self._leave_locked(key)
            if key not in self._making_way and key not in self._network:
                self._wait_locked(key, network_of(peer))

    def end(self, key: Key) -> None:
        """Take a connection's place away, whatever it was."""
        with self._lock:
            self._made_way_locked(key)
            if key in self._network:
                self._forget_locked(key)
            self._leave_locked(key)

    @property
    def waiting(self) -> int:
        """How many connections wait."""
        with self._lock:
            return len(self._network)

    def _wait_locked(self, key: Key, network: str) -> None:
        assert self._lock.locked()
        self._network[key] = network
        self._order[key] = None
        self._waiting.setdefault(network, OrderedDict())[key] = None

    def _longest_locked(self) -> Key:
        """Return who is to make way: the longest waiting one of the network that has most; where
        several have most, the longest waiting one of these."""
        assert self._lock.locked()
        most = max(map(len, self._waiting.values()))
        if most == 1:
            return next(iter(self._order))
        largest = {network for network, held in self._waiting.items() if len(held) == most}
        if len(largest) == 1:
            return next(iter(self._waiting[largest.pop()]))
        return next(key for key in self._order if self._network[key] in largest)

    def _forget_locked(self, key: Key) -> None:
        assert self._lock.locked()
        network = self._network.pop(key)
        del self._order[key]
        held = self._waiting[network]
        del held[key]
        if not held:
            del self._waiting[network]

    def _made_way_locked(self, key: Key) -> None:
        assert self._lock.locked()
        if self._making_way.pop(key, None) is not None:
            self.ended.ring()

    def _leave_locked(self, key: Key) -> None:
        assert self._lock.locked()
        network = self._joined.pop(key, None)
        if network is not None:
            self._clients[network] -= 1
            if not self._clients[network]:
                del self._clients[network]
