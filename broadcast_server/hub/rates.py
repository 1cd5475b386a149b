"""How much one client or one address may still send now.

A publisher over HTTP has no connection that could be slowed down, as a WebSocket client's is: it is
told to come back later. Each address has a bucket that holds the messages of one second and fills
at the rate. Addresses count as ``networks.network_of`` says: an IPv6 address by its /64.

The buckets of at most 10,000 addresses are kept. When one more comes, the one that has been idle
for longest goes: it is the one most likely to be full again.

A WebSocket client that is too fast only waits: ``Pace`` says for how long.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable

from ..networks import network_of

MAX_ADDRESSES = 10_000


class AddressRates:
    """The buckets of all addresses. Every method may be called from any thread.

    Args:
        rate: messages per second and address; 0 for no limit.
        clock: returns seconds that never go back.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = float(rate)
        # With less than one message in a second, one may still come at once.
        self._burst = max(1.0, self._rate)
        self._clock = clock
        # Guards _buckets: what an address has left, and since when; the longest idle comes first.
        # Taken alone; nothing is called under it but the clock.
        self._lock = threading.Lock()
        self._buckets: collections.OrderedDict[str, tuple[float, float]] = collections.OrderedDict()

    def take(self, address: str) -> float:
        """Take one message out of an address's bucket if it holds one.

        Args:
            address: as the socket tells it, such as ``192.0.2.1`` or ``fe80::1%eth0``.

        Returns:
            0.0 if the message may pass; else the seconds after which one may, and none was taken.
        """
        if not self._rate:
            return 0.0
        key = network_of(address)
        with self._lock:
            now = self._clock()
            tokens, since = self._buckets.get(key, (self._burst, now))
            tokens = min(self._burst, tokens + (now - since) * self._rate)
            # A hair less is enough: whoever waits as long as it was told must get through.
            passes = tokens > 1.0 - 1e-6
            self._buckets[key] = (tokens - 1.0 if passes else tokens, now)
            self._buckets.move_to_end(key)
            if len(self._buckets) > MAX_ADDRESSES:
                self._buckets.popitem(last=False)
        return 0.0 if passes else (1.0 - tokens) / self._rate

    def __len__(self) -> int:
        """Return how many addresses are kept."""
        with self._lock:
            return len(self._buckets)


class Pace:
    """How much one client may still send now: a bucket of one second, which may run into debt.

    Of one thread only. What is taken has been sent already; whoever is in debt waits, and TCP slows
    the sender down.

    Args:
        rate: how many in a second; 0 for no limit.
        clock: returns seconds that never go back.
    """

    __slots__ = ("_clock", "_rate", "_since", "_tokens")

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = float(rate)
        self._clock = clock
        self._tokens = self._rate
        self._since = clock()

    def take(self, count: int) -> float:
        """Take that many; return the seconds after which there is no debt, 0.0 if there is none
        now."""
        if not self._rate:
            return 0.0
        now = self._clock()
        full = self._tokens + (now - self._since) * self._rate
        self._tokens = min(self._rate, full) - count
        self._since = now
        return max(0.0, -self._tokens / self._rate)
