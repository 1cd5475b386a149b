"""How much one sender may still send now: a person whom a token names, or an address.

Whatever one sender causes is paid from one bucket, however many connections it has: messages,
events, requests, and the bytes that are parsed. The bucket holds what the rate allows in a second.
Addresses count as ``networks.network_of`` says: an IPv6 address by its /64.

What a client has sent is here already, so it may run into debt; its reader waits until the debt is
gone, and TCP slows the sender down. Clients of one sender that are in debt share the rate equally,
as if each of n had a bucket that fills at an n-th of it. So a client that sends little next to one
that floods waits for its own messages, not for the other's. A publisher over HTTP that exceeds the
rate is refused instead: it has no connection that could be slowed down.

The buckets of at most 10,000 senders are kept, beside those of clients that are connected. When one
more comes, the one that has been idle for longest goes: it is the one most likely to be full again.
"""

from __future__ import annotations

import bisect
import collections
import threading
import time
import weakref
from collections.abc import Callable

from ..networks import network_of

MAX_SENDERS = 10_000
# At this rate and above a message of some KiB costs as much as several small ones, and a request
# as much as REQUEST_MESSAGES. At a lower one, which is not there to spare the CPU, both cost less.
FULL_RATE = 10_000
REQUEST_MESSAGES = 5
# How many bytes cost as much as a message: of JSON, which is parsed; of what is only copied; of an
# answer, which is made.
PARSED_BYTES = 4096
COPIED_BYTES = 16 * 1024
ANSWERED_BYTES = 1024
# A hair less is enough: whoever waits as long as it was told must get through.
_HAIR = 1e-6


def sender_of(host: str, name: str | None = None) -> str:
    """Return what counts as one sender: a name that a token gives, else an address's network."""
    return network_of(host) if name is None else f"name {name}"


class _Bucket:
    """What one sender may still send. Under the lock of its `SenderRates`.

    Attributes:
        tokens: what is left; negative after a large message over HTTP.
        since: when that was so.
        virtual: how much each client that was in debt all the time could have sent so far.
        debts: at which `virtual` each client in debt will have paid, in order.
        posts: the same for all that comes over HTTP to be published.
        left_behind: the same for the last one who has left in debt.
    """

    __slots__ = ("__weakref__", "debts", "left_behind", "posts", "since", "tokens", "virtual")

    def __init__(self, tokens: float, now: float) -> None:
        self.tokens = tokens
        self.since = now
        self.virtual = 0.0
        self.debts: list[float] = []
        self.posts = 0.0
        self.left_behind = 0.0

    def fill(self, now: float, rate: float, burst: float) -> None:
        """Let what has run in since last time pay debts, and keep what is left."""
        new = (now - self.since) * rate
        self.since = now
        while self.debts:
            needed = (self.debts[0] - self.virtual) * len(self.debts)
            if needed > new:
                self.virtual += new / len(self.debts)
                return
            new -= needed
            self.virtual = self.debts.pop(0)
        self.tokens = min(burst, self.tokens + new)

    def owe(self, paid: float, count: float) -> float:
        """Add to a debt; return at which `virtual` it will be paid."""
        if paid > self.virtual:
            self.debts.pop(bisect.bisect_left(self.debts, paid))
        else:
            paid = self.virtual
        bisect.insort(self.debts, paid + count)
        return paid + count


class SenderRates:
    """The buckets of all senders. Every method may be called from any thread.

    Args:
        rate: messages per second and sender; 0 for no limit.
        clock: returns seconds that never go back.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = float(rate)
        # With less than one message in a second, one may still come at once over HTTP.
        self._burst = max(1.0, self._rate)
        self._clock = clock
        self._share = min(1.0, self._rate / FULL_RATE)
        # Guards all buckets, _kept and _buckets, and Flow._paid. Taken alone; nothing is called
        # under it but the clock.
        self._lock = threading.Lock()
        # The longest idle comes first.
        self._kept: collections.OrderedDict[str, _Bucket] = collections.OrderedDict()
        # Those of connected clients as well.
        self._buckets: weakref.WeakValueDictionary[str, _Bucket] = weakref.WeakValueDictionary()

    def bytes_cost(self, size: int, unit: int) -> float:
        """Return what bytes cost in messages: those of JSON or others."""
        return size // unit * self._share

    @property
    def request_cost(self) -> float:
        """What a request costs in messages."""
        return REQUEST_MESSAGES * self._share

    def flow(self, sender: str | None) -> Flow:
        """Return how a client takes from its sender's bucket; None gives it one for itself."""
        with self._lock:
            bucket = (
                _Bucket(self._burst, self._clock())
                if sender is None or not self._rate
                else self._bucket_locked(sender)
            )
        return Flow(self, bucket)

    def take(self, sender: str, count: float = 1.0) -> float:
        """Take a message over HTTP out of a sender's bucket if it has one left. While its clients
        are in debt, all such messages are as one client more.

        Returns:
            0.0 if the message may pass; else the seconds after which one may, and none was taken.
        """
        if not self._rate:
            return 0.0
        with self._lock:
            bucket = self._bucket_locked(sender)
            bucket.fill(self._clock(), self._rate, self._burst)
            if bucket.debts:
                owed = bucket.posts - bucket.virtual
                if owed > _HAIR:
                    return (owed * len(bucket.debts) + 1.0) / self._rate
                bucket.posts = bucket.owe(bucket.posts, count)
                return 0.0
            if bucket.tokens <= 1.0 - _HAIR:
                return (1.0 - bucket.tokens) / self._rate
            bucket.tokens -= count
            return 0.0

    def charge(self, sender: str, count: float) -> None:
        """Take what somebody has had already; who comes next of this sender waits until it is
        paid."""
        if count and self._rate:
            flow = self.flow(sender)
            flow.take(count)
            flow.end()

    def __len__(self) -> int:
        """Return how many buckets are kept, those of connected clients included."""
        with self._lock:
            return len(self._buckets)

    def _bucket_locked(self, sender: str) -> _Bucket:
        assert self._lock.locked()
        bucket = self._buckets.get(sender)
        if bucket is None:
            bucket = self._buckets[sender] = _Bucket(self._burst, self._clock())
        self._kept[sender] = bucket
        self._kept.move_to_end(sender)
        if len(self._kept) > MAX_SENDERS:
            self._kept.popitem(last=False)
        return bucket

    def _take(self, flow: Flow, count: float) -> float:
        """Do what `Flow.take` promises."""
        if not self._rate:
            return 0.0
        with self._lock:
            bucket = flow._bucket
            bucket.fill(self._clock(), self._rate, self._burst)
            if flow._paid <= bucket.virtual:
                # Below one a second the first is waited for as well.
                at_once = min(count, max(0.0, bucket.tokens - self._burst + self._rate))
                bucket.tokens -= at_once
                count -= at_once
            if count > 0:
                flow._paid = bucket.owe(flow._paid, count)
            return self._left_locked(flow)

    def _left(self, flow: Flow) -> float:
        """Do what `Flow.left` promises."""
        if not self._rate:
            return 0.0
        with self._lock:
            flow._bucket.fill(self._clock(), self._rate, self._burst)
            return self._left_locked(flow)

    def _end(self, flow: Flow) -> None:
        """Do what `Flow.end` promises."""
        with self._lock:
            flow._bucket.left_behind = max(flow._bucket.left_behind, flow._paid, flow._after)

    def _left_locked(self, flow: Flow) -> float:
        assert self._lock.locked()
        bucket = flow._bucket
        owed = max(flow._paid, flow._after) - bucket.virtual
        return owed * len(bucket.debts) / self._rate if owed > _HAIR else 0.0


class Flow:
    """One client's part of what its sender may send; may run into debt.

    One of several clients of a sender may be asked to wait longer or shorter, as others begin and
    end to send: so it asks for `left` after it has waited. Before its first word it waits for what
    others of its sender have left behind when they ended: to connect again gains nothing.
    """

    __slots__ = ("_after", "_bucket", "_paid", "_rates")

    def __init__(self, rates: SenderRates, bucket: _Bucket) -> None:
        self._rates = rates
        self._bucket = bucket
        self._paid = 0.0
        self._after = bucket.left_behind

    def take(self, count: float) -> float:
        """Take that much, which has been sent already; return the seconds after which there is no
        debt as things stand, 0.0 if there is none now."""
        return self._rates._take(self, count)

    def left(self) -> float:
        """Return the same now."""
        return self._rates._left(self)

    def end(self) -> None:
        """Leave what is not paid to those who come."""
        self._rates._end(self)
