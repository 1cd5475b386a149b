"""A bound on the memory of large messages that are still being received.

A frame header says how long the frame is, and most requests say how long their body is. A large
message needs a place for its full size before the rest of it is read, so each message that has a
place can be completed. A client without a place is not read from, and TCP stops the sender. A
client that has a place but does not finish its message loses it while others wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..records import get_logger
from .budget import Budget
from .http.connection import SMALL_BODY_BYTES

# A smaller message counts as a part of what each client costs; a body over HTTP likewise.
SMALL_BYTES = SMALL_BODY_BYTES
# The bytes of all places, and of one sender's; at least four, and one, of the largest message.
INCOMING_BYTES = 24 * 1024 * 1024
INCOMING_SHARE = 6 * 1024 * 1024
LARGEST_MESSAGES = 4
# While others wait, a message must come this fast, on average, and within the time that the hub
# allows if that is longer. In its first moments it is left alone.
LEAST_RATE = 1024 * 1024
GRACE_SECONDS = 2.0

logger = get_logger("broadcast_server.hub")


class Receiving(Protocol):
    """A message that is being received. Both methods may be called from any thread."""

    def received(self) -> int:
        """Return how many bytes of it have come."""

    def give_way(self, arrival: Arrival) -> None:
        """Give up, because it is late and others wait for its place."""


class Arrival:
    """The place of one message.

    Args:
        size: of the place, in bytes.
        owner: who sends it.
        message: what has the place; None if it has a time limit of its own.
    """

    __slots__ = ("began", "message", "owner", "size")

    def __init__(self, size: int, owner: str, message: Receiving | None) -> None:
        self.size = size
        self.owner = owner
        self.message = message
        self.began = time.monotonic()


class Incoming:
    """The places of large messages. Every method may be called from any thread.

    Args:
        largest: the size of the largest message, in bytes.
        seconds: how long a message may take while others wait.
        grace: how long it is left alone in any case.

    Attributes:
        hurried: how many messages had to give way so far.
    """

    def __init__(self, largest: int, seconds: float, grace: float = GRACE_SECONDS) -> None:
        share = max(INCOMING_SHARE, largest)
        self._budget = Budget(max(INCOMING_BYTES, LARGEST_MESSAGES * largest), share)
        self._seconds = seconds
        self._grace = grace
        # Guards _arrivals, `message` of those in it, and `hurried`. Taken alone.
        self._lock = threading.Lock()
        self._arrivals: dict[Arrival, None] = {}  # the oldest first
        self.hurried = 0

    def take(
        self,
        size: int,
        owner: str,
        given_up: Callable[[], bool],
        *,
        message: Receiving | None = None,
        seconds: float | None = None,
    ) -> Arrival | None:
        """Wait until there is a place for a message, and take it.

        Args:
            size: of the message, in bytes.
            owner: who sends it.
            given_up: asked again and again while waiting, without a lock.
            message: see ``Arrival``.
            seconds: how long to wait at most; None to wait for `given_up`.

        Returns:
            The place; None if there was none in time, or ``given_up()`` came true.
        """

        def look() -> bool:
            if given_up():
                return True
            self._hurry(size, owner)
            return False

        if not self._budget.take(size, owner, look, seconds):
            return None
        arrival = Arrival(size, owner, message)
        with self._lock:
            self._arrivals[arrival] = None
        return arrival

    def give(self, arrival: Arrival) -> None:
        """Give a place back; a second call does nothing."""
        with self._lock:
            if arrival not in self._arrivals:
                return
            del self._arrivals[arrival]
            arrival.message = None
        self._budget.give(arrival.size, arrival.owner)

    def wake(self) -> None:
        """Let all waiting threads look whether to give up."""
        self._budget.wake()

    @property
    def used(self) -> int:
        """How many bytes all places have now."""
        return self._budget.used

    @property
    def is_waited_for(self) -> bool:
        """Whether any thread waits for a place."""
        return self._budget.is_waited_for

    def _hurry(self, size: int, owner: str) -> None:
        """Make the oldest late message give way to one of that size. If the owner's share is used
        up, it must be one of the owner's."""
        own = self._budget.has_no_share(size, owner)
        now = time.monotonic()
        with self._lock:
            for arrival in self._arrivals:
                if (arrival.owner == owner or not own) and self._is_late(arrival, now):
                    break
            else:
                return
            message, arrival.message = arrival.message, None
            self.hurried += 1
        assert message is not None
        try:
            message.give_way(arrival)
        except Exception:
            # It is not the fault of the thread that waits.
            logger.exception("a large message could not be given up")

    def _is_late(self, arrival: Arrival, now: float) -> bool:
        elapsed = now - arrival.began
        if arrival.message is None or elapsed < self._grace:
            return False
        allowed = max(self._seconds, arrival.size / LEAST_RATE)
        return arrival.message.received() < arrival.size * elapsed / allowed
