"""What must hold: the one order of a room's messages. No I/O.

A member of each room that never stalls, its referee, gets all messages with their ids: what it sees
is the order. Every other reader is compared with it (``track.py``).
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable

# Within this time the referee must have got what others know already.
CLAIM_SECONDS = 30.0

# Of a message's key, which is its sender's number and its own.
SEQ_BITS = 32


class Violation(Exception):
    """The hub has broken a promise."""


def pack_id(text: str) -> int:
    """Return a message's id as a number that grows as it does."""
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds) << 20 | int(sequence)


def unpack_id(id: int) -> str:
    """Return the id again."""
    return f"{id >> 20}-{id & 0xFFFFF}"


def make_key(sender: int, seq: int) -> int:
    """Return what names a message before it has an id."""
    return sender << SEQ_BITS | seq


def show(key: int) -> str:
    """Return a key for people."""
    return f"message {key & 0xFFFFFFFF} of sender {key >> SEQ_BITS}"


@dataclasses.dataclass
class _Claim:
    """The hub says that what comes from a position on is not held any more."""

    position: int
    tick: int
    deadline: float
    who: str


class Order:
    """The messages of one room, as its referee sees them.

    Args:
        path: the room.
        ring_bytes: how much the hub holds of it.
    """

    def __init__(self, path: str, ring_bytes: int) -> None:
        self.path = path
        self.ring_bytes = ring_bytes
        self.ids = array("Q")
        self.keys = array("Q")
        self.ticks = array("Q")  # the count of all sends when it was sent
        self.times = array("d")  # when it was sent
        self.costs = array("Q")  # in the hub's log, at most
        self.waiting: dict[Callable[[], None], None] = {}  # called when there may be more of it
        self.is_complete = False  # nothing more will come
        self._sent: dict[int, tuple[int, float]] = {}
        self._next: dict[int, int] = {}  # of each sender
        self._must: dict[int, int] = {}  # how many of a sender must come
        self._accepted: dict[int, int] = {}  # acknowledged, not seen yet
        self._unanswered: dict[int, int] = {}  # seen, not acknowledged yet
        self._claims: list[_Claim] = []

    def __len__(self) -> int:
        return len(self.ids)

    def sending(self, key: int, tick: int, now: float, *, answered: bool) -> None:
        """Note that a message is about to be sent.

        Args:
            answered: whether its sender will be told its id.
        """
        self._sent[key] = (tick, now)
        if answered:
            self._unanswered[key] = 0

    def resending(self, key: int, now: float) -> None:
        """Note that a message is sent again, since nobody knows whether it has come."""
        if key in self._sent:
            self._sent[key] = (self._sent[key][0], now)

    def append(self, id: int, key: int, size: int) -> None:
        """Take the next message from the referee."""
        if self.ids and id <= self.ids[-1]:
            raise Violation(f"{self.path}: {unpack_id(id)} came after {unpack_id(self.ids[-1])}")
        sender, seq = key >> SEQ_BITS, key & 0xFFFFFFFF
        if seq != self._next.get(sender, 0):
            raise Violation(
                f"{self.path}: {show(key)} came where {self._next.get(sender, 0)} had to come"
            )
        if key not in self._sent:
            raise Violation(f"{self.path}: {show(key)} was never sent here")
        self._next[sender] = seq + 1
        tick, at = self._sent.pop(key)
        self.ids.append(id)
        self.keys.append(key)
        self.ticks.append(tick)
        self.times.append(at)
        # Frame, JSON, two kinds of server-sent event, and what an entry counts beside them.
        self.costs.append(2048 + 8 * size)
        if key in self._accepted:
            self._compare(key, self._accepted.pop(key), id)
            self._unanswered.pop(key, None)
        elif key in self._unanswered:
            self._unanswered[key] = id

    def accepted(self, key: int, id: int) -> None:
        """Take what a sender was told about its message."""
        seen = self._unanswered.get(key)
        if seen is None or key in self._accepted:
            raise Violation(f"{self.path}: {show(key)} was acknowledged twice")
        if seen:
            del self._unanswered[key]
            self._compare(key, id, seen)
        else:
            self._accepted[key] = id

    def _compare(self, key: int, told: int, id: int) -> None:
        if told != id:
            raise Violation(
                f"{self.path}: {show(key)} was acknowledged as {unpack_id(told)}, "
                f"and has the id {unpack_id(id)}"
            )

    def has_all(self, sender: int, count: int) -> bool:
        """Tell whether all that a sender has sent is here."""
        return self._next.get(sender, 0) >= count

    def finished(self, sender: int, count: int) -> None:
        """Note that so many messages of a sender were taken in good order: all must come."""
        self._must[sender] = count

    def check_senders(self) -> None:
        """Check, at the end, that all is here that had to come."""
        for sender, count in self._must.items():
            if not self.has_all(sender, count):
                raise Violation(
                    f"{self.path}: {self._next.get(sender, 0)} of {count} messages of sender "
                    f"{sender} have come"
                )
        for key in self._accepted:
            raise Violation(f"{self.path}: {show(key)} was acknowledged and never came")
        for key, id in self._unanswered.items():
            came = f"came as {unpack_id(id)}" if id else "never came"
            raise Violation(f"{self.path}: {show(key)} was never acknowledged, and {came}")

    def claim_trimmed(self, position: int, tick: int, now: float, who: str) -> None:
        """Note that the hub says that it does not hold everything from a position on any more.

        That is so if what was sent until now fills its ring; the referee may see it a moment later.

        Args:
            tick: the count of all sends by now.
        """
        self._claims.append(_Claim(position, tick, now + CLAIM_SECONDS, who))

    def settle(self, now: float) -> None:
        """Let the readers go on that have waited, and look at what the hub has claimed."""
        waiting, self.waiting = self.waiting, {}
        for settle in waiting:
            settle()
        if self._claims:
            self._claims = [claim for claim in self._claims if not self._is_true(claim)]
            for claim in self._claims:
                if now > claim.deadline:
                    raise Violation(
                        f"{claim.who} was told that {self.path} does not hold what came after "
                        f"message {claim.position} any more, and there was room for all of it"
                    )

    def _is_true(self, claim: _Claim) -> bool:
        """Whether a ring, but for the sixteenth that is trimmed at once, has been filled since.

        What entries cost is counted too high here, never too low.
        """
        later = range(claim.position, len(self))
        cost = sum(self.costs[place] for place in later if self.ticks[place] <= claim.tick)
        return cost >= self.ring_bytes * 7 // 8
