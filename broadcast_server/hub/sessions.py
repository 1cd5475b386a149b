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
        connections: how many have it now: more than one while a new one replaces an old one.
        left: when the last one left.
    """

    __slots__ = ("connections", "left", "name", "number", "room", "token", "user")

    def __init__(self, number: int, room: str, user: str | None = None) -> None:
        self.token = secrets.token_urlsafe(16)
        self.number = number
        self.room = room
        self.user = user
        self.name: str | None = None
        self.connections = 0
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
        """Return the session of a token, or a new one with a number if there is none; who does not
        ``take`` it leaves nothing behind.

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
            return session

    def take(self, session: Session, name: str | None) -> None:
        """Note that one more connection has the session, until it calls ``leave``."""
        with self._lock:
            session.connections += 1
            session.name = name
            self._left.pop(session.token, None)
            self._sessions[session.token] = session

    def rename(self, session: Session, name: str | None) -> None:
        """Note what the client calls itself now."""
        with self._lock:
            session.name = name

    def leave(self, session: Session) -> None:
        """Note that a connection has ended. Counted, because those that replace each other come
        here in any order: the session is left when nobody has it any more."""
        with self._lock:
            session.connections -= 1
            if session.connections == 0:
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
