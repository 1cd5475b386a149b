"""Who may come back as the client that it was: tokens, and the numbers behind them.

A token is given out in each ``welcome``. While its connection lives, and ten minutes beyond,
whoever shows it in the same room gets the same number, and so the same id. Any thread.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

KEEP_SECONDS = 600.0
MAX_LEFT = 100_000


class Session:
    """One client over several connections.

    Attributes:
        token: the secret.
        number: the client's number in the hub.
        room: the path of its room.
        user: the name that its token gave it; nobody of another name can come back with it.
        name: what it called itself last.
        owner: whoever the session belongs to now; None after it has left.
        left: when it left.
    """

    __slots__ = ("left", "name", "number", "owner", "room", "token", "user")

    def __init__(self, number: int, room: str, user: str | None = None) -> None:
        self.token = secrets.token_urlsafe(16)
        self.number = number
        self.room = room
        self.user = user
        self.name: str | None = None
        self.owner: object = None
        self.left = 0.0


class Sessions:
    """The sessions of one hub.

    Args:
        clock: seconds that only grow; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Guards _sessions and _left, and the fields of each session. Taken alone.
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._left: OrderedDict[str, Session] = OrderedDict()  # the one that left first, first

    def open(self, token: str | None, number: int, room: str, user: str | None = None) -> Session:
        """Return the session of a token, or a new one with a number if there is none.

        Args:
            token: what the client shows; of another room or user it counts as none.
            number: for a new one.
            room: the room's path.
            user: the name that nobody but the client can have; None if it may choose one.
        """
        with self._lock:
            self._forget_locked()
            session = self._sessions.get(token) if token else None
            if session is None or (session.room, session.user) != (room, user):
                session = Session(number, room, user)
                self._sessions[session.token] = session
            return session

    def take(self, session: Session, owner: object, name: str | None) -> None:
        """Note that the session belongs to a connection from now on."""
        with self._lock:
            session.owner = owner
            session.name = name
            self._left.pop(session.token, None)
            self._sessions[session.token] = session

    def leave(self, session: Session, owner: object) -> None:
        """Note that a connection has ended, unless another one has the session already."""
        with self._lock:
            if session.owner in (owner, None):
                session.owner = None
                session.left = self._clock()
                self._left[session.token] = session
                self._left.move_to_end(session.token)

    def _forget_locked(self) -> None:
        assert self._lock.locked()
        until = self._clock() - KEEP_SECONDS
        while self._left:
            token, session = next(iter(self._left.items()))
            if session.left > until and len(self._left) <= MAX_LEFT:
                return
            del self._left[token]
            self._sessions.pop(token, None)
