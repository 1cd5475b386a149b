"""How long a thread rests after it has worked for a sender, so that many cost no more than one.

Threads wait for the interpreter in no order, so each thread that computes makes all others wait.
A rate does not help: what it allows in a second may come at once, over many connections. So the
threads of one sender together compute for half of the time at most. Each thread says how much CPU
time it has used, and rests until that is paid.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

# How much of one core the threads of a sender may use together.
SHARE = 0.5
# So much CPU time of a sender that was idle is free.
BURST_SECONDS = 0.01
# The shortest rest, which is enough to let another thread in.
LEAST_SECONDS = 0.0001
# The longest one of a client's reader: it does not see that its client has gone.
MOST_SECONDS = 0.2
# The debts of at most this many senders are kept; the one that was idle for longest goes first.
MAX_SENDERS = 10_000


class Worker:
    """A thread that works for senders. Of that thread alone.

    Args:
        turns: those of the hub.
    """

    __slots__ = ("_since", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._since = time.thread_time()  # up to which CPU time of the thread it was charged

    def tire(self, sender: str, most: float = MOST_SECONDS) -> float:
        """Charge a sender for what the thread has done since last time; return how many seconds it
        should rest now, at most `most`."""
        now = time.thread_time()
        spent, self._since = now - self._since, now
        return min(max(self._turns.charge(sender, spent), LEAST_SECONDS), most)


class Turns:
    """When each sender has paid for the work of its threads. Every method may be called from any
    thread.

    Args:
        clock: returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Guards _paid_at. Taken alone; nothing is called under it but the clock.
        self._lock = threading.Lock()
        self._paid_at: OrderedDict[str, float] = OrderedDict()  # the longest idle comes first

    def charge(self, sender: str, spent: float) -> float:
        """Charge a sender for CPU time, in seconds; return the seconds until it has paid for it,
        0.0 or less if it has."""
        with self._lock:
            now = self._clock()
            paid_at = max(self._paid_at.get(sender, 0.0), now - BURST_SECONDS / SHARE)
            paid_at += spent / SHARE
            self._paid_at[sender] = paid_at
            self._paid_at.move_to_end(sender)
            if len(self._paid_at) > MAX_SENDERS:
                self._paid_at.popitem(last=False)
            return paid_at - now
