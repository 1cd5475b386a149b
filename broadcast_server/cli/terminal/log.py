"""What a conversation shows above the line that is typed, and how much of it the user has not seen.

It takes what a client receives, or the user says, and gives lines to the screen. What belongs to
one room comes with a question, `still`, which the screen asks when it is the lines' turn. So
nothing of the room that was left stands below the greeting of the new one.
"""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable

from ...client.client import BroadcastClient
from ...messages import Gap, Member, Message, Presence, Received, parse_id
from ..io.formats import nameless
from . import view
from .screen import Screen
from .status import Attention
from .view import Line, View, notice, visible


class Transcript:
    """What one terminal has been shown. All methods may be called from any thread.

    Args:
        screen: where the lines go.
        bell: ring when somebody else says the user's name.
    """

    def __init__(self, screen: Screen, *, bell: bool) -> None:
        self._screen = screen
        self._bell = bell
        # Guards the four below.
        self._lock = threading.Lock()
        self._view = View()
        self._attention = Attention()
        self._asked = False  # the user, who is here
        self._told_crowd = False  # that nobody tells any more who comes and goes

    @property
    def unread(self) -> int:
        """How many messages have come since the user looked away."""
        with self._lock:
            return self._attention.unread

    def take_key(self) -> None:
        """Note that the user has pressed a key."""
        with self._lock:
            self._attention.take_key()

    def take_focus(self, focused: bool) -> None:
        """Note that the window has got or lost the focus."""
        with self._lock:
            self._attention.take_focus(focused)

    def expect_members(self) -> None:
        """Show the next list of who is here."""
        with self._lock:
            self._asked = True

    def tell(
        self, text: str, style: str = "notice", *, still: Callable[[], bool] = lambda: True
    ) -> None:
        """Show a line that is no message; what is others' in it must be escaped already."""
        self._screen.show([notice(text, style)], still=still)

    def greet(self, client: BroadcastClient[Received]) -> None:
        """Tell where the user is now."""
        with self._lock:
            self._told_crowd = False
        if client.id is None:
            shown = visible(client.url.partition("?")[0])
            self.tell(f"connected to {shown}, which tells no names and keeps no messages")
            return
        who = visible(client.name) if client.name else nameless(client.id)
        self.tell(f"you are {who} in {visible(client.room)}; /help lists the commands")

    def add_own(
        self, client: BroadcastClient[Received], text: str, *, still: Callable[[], bool]
    ) -> None:
        """Show what the user has said."""
        sender = Member(client.id or "", client.name, client.room, "")
        now = datetime.datetime.now(datetime.timezone.utc)
        message = Message(text, client.room, sender, now, None)
        with self._lock:
            lines = self._view.message(message, named=client.id is not None, own=True)
        self._screen.show(lines, still=still)

    def add_old(self, client: BroadcastClient[Received], messages: list[Message]) -> None:
        """Show messages that the user has asked for."""
        room = visible(client.room)
        if not messages:
            self.tell(f"there are no old messages in {room}")
            return
        asked_view = View()
        lines = [notice(f"the last {messages_of(len(messages))} of {room}")]
        members = client.members
        for message in messages:
            own = message.sender is not None and message.sender.id == client.id
            lines += asked_view.message(message, named=True, own=own, members=members)
        self._screen.show([*lines, notice("so far the old messages")])

    def add(
        self,
        client: BroadcastClient[Received],
        item: Message | Presence | Gap,
        newest: tuple[int, int] | None,
        *,
        first: bool,
        still: Callable[[], bool],
    ) -> None:
        """Show what has come.

        Args:
            client: to which it has come.
            newest: of the messages that were there before the user has come; None for none.
            first: it is the first thing of this client: who was here already.
            still: whether it is to be shown.
        """
        if isinstance(item, Message):
            self._add_message(client, item, newest, still)
        elif isinstance(item, Gap):
            self._screen.show(view.gap(item), still=still)
        else:
            self._add_presence(client, item, first, still)

    def _add_message(
        self,
        client: BroadcastClient[Received],
        message: Message,
        newest: tuple[int, int] | None,
        still: Callable[[], bool],
    ) -> None:
        # With echo=1; what the user has said in an earlier session is somebody else's.
        own = message.sender is not None and message.sender.id == client.id
        is_new = message.id is None or newest is None or parse_id(message.id) > newest
        members = client.members
        with self._lock:
            lines = self._view.message(
                message, named=client.id is not None, own=own, members=members
            )
            if is_new and not own:
                self._attention.take_message()
        text = message.data if isinstance(message.data, str) else ""
        rings = self._bell and is_new and not own and view.mentions(text, client.name)
        self._screen.show(lines, bell=rings, still=still)

    def _add_presence(
        self,
        client: BroadcastClient[Received],
        event: Presence,
        first: bool,
        still: Callable[[], bool],
    ) -> None:
        lines: list[Line] = []
        members = client.members
        with self._lock:
            if event.kind == "count":
                if not self._told_crowd:
                    text = f"{event.count} here: who comes and goes is not told any more"
                    lines = [notice(text)]
                self._told_crowd = True
            elif event.kind != "members":
                lines = self._view.presence(event, client.id, members)
            # The list that comes with a new connection is no news.
            elif first or self._asked:
                self._asked = False
                lines = view.who(event.members, event.count)
        if lines:
            self._screen.show(lines, still=still)
        self._screen.update()


def messages_of(count: int) -> str:
    """Return a number of messages in words."""
    return f"{count} message{'' if count == 1 else 's'}"
