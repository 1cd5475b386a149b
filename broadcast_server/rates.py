"""How many messages one address may still publish over HTTP now.

A publisher over HTTP has no connection that could be slowed down, as a WebSocket client's is: it is
told to come back later. Each address has a bucket that holds the messages of one second and fills
at the rate. An IPv6 address counts by its /64, which is what one household or one machine is given;
else whoever has so many addresses would have no limit.

The buckets of at most 10,000 addresses are kept. When one more comes, the one that has been idle
for longest goes: it is the one most likely to be full again.
"""

from __future__ import annotations

import collections
import ipaddress
import threading
import time
from collections.abc import Callable

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
        key = _network(address)
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


def _network(address: str) -> str:
    """Return what counts as one sender."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        # So an IPv4 peer of a socket that listens for both looks.
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(found) >> 64 << 64))
