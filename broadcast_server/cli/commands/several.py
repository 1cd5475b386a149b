"""Several rooms, listened to as one: what comes in any of them is taken in one place.

Each client has a thread, its *receiver*, that takes what comes and puts it into one short queue.
While that is full the receivers wait, the clients' own queues fill, and each hub finds out, as with
a single client. The first client that ends for good ends the others; what they have got by then is
still given out.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Sequence
from typing import Any

from ...client.client import BroadcastClient
from ...errors import BroadcastServerError, MessagesLost
from ...messages import Message
from ...transport.deadlines import Deadline

# Most messages wait in the clients, which bound their bytes.
MAX_WAITING = 64
# How long each of the other clients may take to say goodbye when one has ended.
LEAVE_SECONDS = 1.0


class SeveralRooms:
    """Connected clients, from which one thread takes messages as from a single one.

    Args:
        clients: they are closed in the end.

    Attributes:
        room: of what `recv` has returned or raised the last time. The thread that receives.
    """

    def __init__(self, clients: Sequence[BroadcastClient]) -> None:
        self._clients = list(clients)
        self.room = ""
        # Guards the four below.
        self._changed = threading.Condition()
        self._waiting: collections.deque[tuple[str, Message | MessagesLost]] = collections.deque()
        self._left = len(self._clients)  # receivers that have not ended
        self._is_closed = False
        self._ending: tuple[str, BroadcastServerError] | None = None
        for client in self._clients:
            threading.Thread(
                target=self._receive, args=(client,), name="receiver", daemon=True
            ).start()

    # The thread that takes messages.

    def recv(self, timeout: float | None = None) -> Message:
        """Wait for the next message of any room.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            TimeoutError: none came in time.
            MessagesLost: messages of a room were missed.
            BroadcastServerError: all have ended; how the first one has.
        """
        deadline = Deadline(timeout)
        with self._changed:
            while not self._waiting:
                if not self._left:
                    assert self._ending is not None
                    self.room, ending = self._ending
                    raise ending
                if not self._changed.wait(deadline.left()) and not self._waiting:
                    raise TimeoutError("no message in time")
            self.room, item = self._waiting.popleft()
            self._changed.notify_all()
        if isinstance(item, MessagesLost):
            raise item
        return item

    # Any thread.

    def close(self, timeout: float | None = None) -> None:
        """Leave all rooms at the same time; what was not taken is thrown away.

        Args:
            timeout: seconds that this may take.
        """
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._close_all(self._clients, timeout=timeout)

    def _close_all(self, clients: Sequence[BroadcastClient], **options: Any) -> None:
        closers = [
            threading.Thread(target=client.close, kwargs=options, name="closer", daemon=True)
            for client in clients
        ]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()

    # The receivers.

    def _receive(self, client: BroadcastClient) -> None:
        while True:
            try:
                item: Message | MessagesLost = client.recv()
            except MessagesLost as error:
                item = error
            except BroadcastServerError as error:
                self._end(client, error)
                return
            with self._changed:
                while len(self._waiting) >= MAX_WAITING and not self._is_closed:
                    self._changed.wait()
                if not self._is_closed:
                    self._waiting.append((client.room, item))
                    self._changed.notify_all()

    def _end(self, client: BroadcastClient, error: BroadcastServerError) -> None:
        """Note that a client has ended; the first one that does ends the others."""
        with self._changed:
            is_first = self._ending is None
            if is_first:
                self._ending = (client.room, error)
            is_closed = self._is_closed
        if is_first and not is_closed:
            others = [other for other in self._clients if other is not client]
            self._close_all(others, timeout=LEAVE_SECONDS, keep_reading=True)
        with self._changed:
            self._left -= 1
            self._changed.notify_all()
