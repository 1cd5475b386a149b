"""The line below the one that is typed: where one is, and what one has not seen; no I/O."""

from __future__ import annotations

from typing import NamedTuple

from .view import visible

STATES = {
    "connecting": "connecting …",
    "open": "connected",
    "waiting": "connection lost, trying again",
    "closed": "closed",
}


class Status(NamedTuple):
    """What the line tells.

    Attributes:
        room: the room's path.
        members: how many are in it; None where nobody tells.
        state: the client's, a key of `STATES`.
        unsent: how many messages the hub has not accepted yet.
        unread: how many have come since the user looked away.
        late: the hub takes its time with the unsent ones: they are worth a word although it is
            there.
    """

    room: str
    members: int | None
    state: str
    unsent: int
    unread: int
    late: bool = False

    def line(self, width: int) -> str:
        """Return as much of it as fits, what matters most first to stay."""
        is_worth_it = self.late or self.state != "open"
        parts = [
            visible(self.room),
            "" if self.members is None else f"{self.members} here",
            STATES[self.state],
            f"{self.unsent} not sent yet" if self.unsent and is_worth_it else "",
            f"{self.unread} new" if self.unread else "",
        ]
        # The places of the parts, the least important first.
        for dropped in (1, 0, 4, 3) if self.state != "open" else (2, 1, 3, 0):
            line = " · ".join(filter(None, parts))
            if len(line) <= width:
                return line
            parts[dropped] = ""
        return "".join(parts)[: max(0, width)]


class Attention:
    """Counts what comes while the user does not look. Not thread-safe.

    A terminal that tells when its window gets and loses the focus is believed; otherwise the user
    has looked when a key was last pressed.
    """

    def __init__(self) -> None:
        self.unread = 0
        self._focused: bool | None = None  # None: the terminal does not tell

    def take_key(self) -> None:
        """Note that a key was pressed."""
        self.unread = 0

    def take_focus(self, focused: bool) -> None:
        """Note that the window has got or lost the focus."""
        self._focused = focused
        self.unread = 0

    def take_message(self) -> None:
        """Note that somebody else's message has come."""
        if not self._focused:
            self.unread += 1
