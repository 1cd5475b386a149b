"""What waits in a client: what nobody has received yet, and what the hub has not accepted.

Both are bounded by bytes and belong to the client's lock, which each of their methods expects to be
held. They outlive a connection: what was received stays, and what was sent without an
acknowledgement goes out again, in the old order and before anything new.
"""

from __future__ import annotations

import collections
import sys
import threading
import time
from typing import NamedTuple

from ..messages import Gap, Message, Presence

# What send() queues before it waits, if nothing else is said.
SEND_AHEAD_BYTES = 1024 * 1024
# What the writer gives to the socket at once: many short messages in one system call.
BATCH_BYTES = 64 * 1024
# What the reader queues before it waits.
READ_AHEAD_BYTES = 8 * 1024 * 1024
# What an entry of a queue costs beside its payload.
ENTRY_BYTES = 256
# What a member costs in a list of them.
MEMBER_BYTES = 256

Item = Message | Presence | Gap


def held_bytes(item: Item, size: int) -> int:
    """Return what an item holds beside its entry.

    Args:
        item: what has come.
        size: the bytes of its frame's payload. A text may hold four times as much, where one of its
            characters needs four bytes, and a list of members many times.
    """
    if isinstance(item, Message):
        return sys.getsizeof(item.data)
    if isinstance(item, Presence):
        return size + MEMBER_BYTES * len(item.members)
    return size


class Inbox:
    """What has come and was not yet received.

    Attributes:
        bytes: what is queued, about.
        taken: how many items were received.
        open: whether what comes is kept, and a full queue holds the reader up; else what does not
            fit is thrown away.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._items: collections.deque[tuple[Item, int]] = collections.deque()
        self.bytes = 0
        self.taken = 0
        self.open = True
        self._waiting = False  # the reader, for room
        self._touched = 0.0  # when it began to, or when an item was last received since
        self.arrived = threading.Condition(lock)  # for recv()
        self._space = threading.Condition(lock)  # for the reader

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether the reader waits, or would."""
        return self.bytes >= READ_AHEAD_BYTES

    def put_locked(self, item: Item, size: int) -> None:
        """Queue an item of that many bytes, when there is room. Reader thread."""
        while self.bytes >= READ_AHEAD_BYTES:
            if not self.open:
                self._waiting = False
                return
            if not self._waiting:
                self._waiting, self._touched = True, time.monotonic()
            self._space.wait()
        self._waiting = False
        self._items.append((item, size + ENTRY_BYTES))
        self.bytes += size + ENTRY_BYTES
        self.arrived.notify()

    def wait_locked(self, timeout: float | None) -> bool:
        """Wait for an item; return whether one was announced. Any thread."""
        try:
            return self.arrived.wait(timeout)
        except BaseException:
            # Ctrl-C may come between the news and us: then another thread must get it.
            self.arrived.notify()
            raise

    def get_locked(self) -> Item:
        """Return the next item; there must be one."""
        item, size = self._items.popleft()
        self.taken += 1
        was_full = self.full
        self.bytes -= size
        if self._waiting:
            self._touched = time.monotonic()
        if was_full and not self.full:
            self._space.notify()
        return item

    def stalled_seconds(self) -> float:
        """Return for how long the reader has waited without anybody receiving."""
        return time.monotonic() - self._touched if self._waiting else 0.0

    def discard_locked(self) -> None:
        """Hold nobody up any more: nobody receives."""
        self.open = False
        self._space.notify()


class Outgoing(NamedTuple):
    """A frame to be sent; one with a ref is kept until the hub has answered it."""

    opcode: int
    payload: bytes
    ref: int | None


class Outbox:
    """What is to be sent, and what was sent and may have to be sent again.

    Args:
        lock: the client's.
        limit: bytes at which it is full.

    Attributes:
        bytes: what is in it, sent or not.
    """

    def __init__(self, lock: threading.RLock, limit: int = SEND_AHEAD_BYTES) -> None:
        self._limit = limit
        self._queue: collections.deque[Outgoing] = collections.deque()
        self._unanswered: dict[int | str | None, Outgoing] = {}  # sent, oldest first
        self.bytes = 0
        self.work = threading.Condition(lock)  # for the writer
        self.space = threading.Condition(lock)  # for send()

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def count(self) -> int:
        """How many frames are in it."""
        return len(self._queue) + len(self._unanswered)

    @property
    def full(self) -> bool:
        """Whether send() has to wait."""
        return self.bytes >= self._limit

    @property
    def pending(self) -> bool:
        """Whether something is not sent, or not answered."""
        return bool(self._queue or self._unanswered)

    def put_locked(self, item: Outgoing) -> None:
        """Queue a frame; whether there is room is for the caller to know."""
        self._queue.append(item)
        self.bytes += len(item.payload) + ENTRY_BYTES
        self.work.notify()

    def take_locked(self) -> list[Outgoing]:
        """Return what to send next, about `BATCH_BYTES`. Writer thread."""
        batch: list[Outgoing] = []
        size = gone = 0
        while self._queue and size < BATCH_BYTES:
            item = self._queue.popleft()
            batch.append(item)
            cost = len(item.payload) + ENTRY_BYTES
            size += cost
            if item.ref is None:
                gone += cost
            else:
                self._unanswered[item.ref] = item
        self._free_locked(gone)
        return batch

    def answered_locked(self, ref: int | str | None) -> Outgoing | None:
        """Forget a frame that the hub has answered; return it if it was still known."""
        item = self._unanswered.pop(ref, None)
        if item is not None:
            self._free_locked(len(item.payload) + ENTRY_BYTES)
        return item

    def rewind_locked(self) -> None:
        """Begin again for a new connection: what has no answer yet, and without what needs none."""
        items = [*self._unanswered.values(), *(i for i in self._queue if i.ref is not None)]
        self._unanswered.clear()
        self._queue = collections.deque(items)
        self.bytes = sum(len(item.payload) + ENTRY_BYTES for item in items)
        self.space.notify_all()

    def clear_locked(self) -> None:
        """Forget everything: there will be no connection to send it on."""
        self._queue.clear()
        self._unanswered.clear()
        self._free_locked(self.bytes)

    def _free_locked(self, size: int) -> None:
        if size:
            self.bytes -= size
            self.space.notify_all()
