"""What a client knows of its room from the hub's events, and where it would go on; no I/O.

A membership outlives the client's connections. It keeps the secret with which the client comes back
as the same one, and two places in the order of messages. ``_seen`` is the last message that was
handed out: nothing up to it is handed out again. ``resume`` is where the next connection begins. An
acknowledgement moves it as well, since it never overtakes a message: otherwise a client that only
sends would ask, an hour later, for what the hub has long forgotten, and a loss would be reported.

So ids are compared, as docs/reference/protocol.md allows: an acknowledgement may come after
messages that are newer than what it acknowledges, and must not take the place back; what came
already would come again. In no other way are they looked into.
"""

from __future__ import annotations

from ..messages import Gap, Member, Message, Presence, parse_id
from ..wire.client_events import Ack, Welcome

# Above so many members a room tells how many there are, and no names (docs/reference/protocol.md).
MAX_TOLD_MEMBERS = 100
# Of so many it keeps the names, whatever a hub tells of joins; a list has no more.
MAX_KEPT_MEMBERS = 1000


class Membership:
    """What one client has of one room.

    Not thread-safe: the client's lock is held around every call.

    Args:
        room: the room's path as far as the URL tells it.
        name: what the client calls itself.

    Attributes:
        id: the client's id in the hub; None before the first welcome.
        token: the secret to come back with.
        name, room: as the hub has them.
        count: how many are in the room.
        newest: the id of the newest message that the client has heard of.
        resume: everything after this id is still to come; None before the first welcome.
        incomplete: whether the hub should be asked who is here: the list is not, and could be.
    """

    def __init__(self, room: str, name: str | None) -> None:
        self.id: str | None = None
        self.token: str | None = None
        self.name = name
        self.room = room
        self.count = 0
        self.newest: str | None = None
        self.resume: str | None = None
        self.incomplete = False
        self._members: dict[str, Member] = {}
        self._partial = False  # the room is too big for the list to be kept true
        self._seen = (-1, -1)
        self._newest = (-1, -1)
        self._resume = (-1, -1)

    def members(self) -> list[Member]:
        """Return who is in the room, oldest first."""
        return list(self._members.values())

    def take_welcome(self, welcome: Welcome) -> Presence:
        """Begin a connection; return who is here now, since nobody tells who left meanwhile."""
        self.id, self.token = welcome.id, welcome.session
        self.name, self.room = welcome.name, welcome.room
        if self.resume is None:
            self._go_on_after(welcome.after)
        self.newest, self._newest = welcome.newest, parse_id(welcome.newest)
        here = Presence("members", None, welcome.count, welcome.members, None)
        self._note(here)
        return here

    def take_message(self, message: Message) -> bool:
        """Note a message; return whether it is a new one."""
        if message.id is None:  # for this client alone
            return True
        order = parse_id(message.id)
        if order <= self._seen:
            return False
        self._seen = order
        self._advance(order, message.id)
        return True

    def take_ack(self, ack: Ack) -> None:
        """Note that everything up to the acknowledged message has come."""
        if not ack.duplicate:  # which says when the first one was accepted, not what has come since
            self._advance(parse_id(ack.id), ack.id)

    def take_gap(self, gap: Gap) -> None:
        """Go on where the hub does; after a restart that may be before what we have seen."""
        self._go_on_after(gap.after)

    def take_presence(self, presence: Presence) -> None:
        """Note who is here."""
        self._note(presence)
        # When a room has shrunk to a size at which changes are told again.
        self.incomplete = self._partial and presence.count <= MAX_TOLD_MEMBERS

    def _note(self, presence: Presence) -> None:
        self.count = presence.count
        member = presence.member
        if presence.kind == "members":
            self._members = {member.id: member for member in presence.members}
            self._partial = presence.count > max(MAX_TOLD_MEMBERS, len(self._members))
        elif presence.kind == "count":
            self._partial = True
        elif presence.kind == "leave":
            assert member is not None
            self._members.pop(member.id, None)
        else:
            assert member is not None
            is_known = member.id in self._members
            if is_known or (presence.kind == "join" and len(self._members) < MAX_KEPT_MEMBERS):
                self._members[member.id] = member
            elif presence.kind == "join":
                self._partial = True
            if presence.kind == "rename" and member.id == self.id:
                self.name = member.name

    def _go_on_after(self, place: str) -> None:
        self.resume = place
        self._resume = self._seen = parse_id(place)

    def _advance(self, order: tuple[int, int], place: str) -> None:
        if order > self._resume:
            self.resume, self._resume = place, order
        if order > self._newest:
            self.newest, self._newest = place, order
