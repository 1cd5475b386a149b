"""A conversation at a terminal: ``broadcast-server connect`` where somebody sits.

The main thread runs the screen (terminal_prompt.py, or terminal_lines.py where the terminal can do
nothing). For each room that the user goes to there is a client and a *receiver*, a thread that
turns what comes into lines. What takes its time, going to another room or asking for old messages,
runs on an *errand* thread; so the keys always work, and Ctrl-C ends it within a second.

A lost connection is the client's business: it comes back, and what was typed meanwhile goes out
once. Here that is only shown.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import signal
import sys
import termios
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import logs, terminal_commands, terminal_view, urls
from .client import BroadcastClient
from .errors import (
    BroadcastServerError,
    ConnectFailed,
    ConnectionClosed,
    ProtocolError,
    SendRefused,
    UsageError,
)
from .frames import ABNORMAL
from .messages import Member, Message, Presence, parse_id
from .old_messages import fetch_last
from .streams import complain, write_stdout
from .terminal_commands import Command, Completion, Mistake, Say
from .terminal_history import HistoryFile, default_path
from .terminal_lines import LineScreen
from .terminal_screen import Screen
from .terminal_status import Attention, Status
from .terminal_view import Line, View, notice, visible

# How long leaving may take: with Ctrl-C it is over within a second.
LEAVE_SECONDS = 0.7
# The hub usually accepts a message sooner; then it is not worth a word that it has not yet.
LATE_SECONDS = 1.0
# How long the room that was left may take to accept what was said there.
FAREWELL_SECONDS = 10.0

logger = logging.getLogger(__name__)


class Terminal:
    """A user at a terminal. It owns the standard streams, and the process's signals.

    Args:
        make_client: makes a client that is not connected yet, with presence, of a URL and of what
            is given besides: ``name``, ``on_state``, ``on_error``.
        headers: what an HTTP request to the hub needs: a token, mostly.
        bell: ring when somebody says the user's name.
        environ: the environment.
    """

    def __init__(
        self,
        make_client: Callable[..., BroadcastClient],
        *,
        headers: Mapping[str, str],
        bell: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._make_client = make_client
        self._headers = dict(headers)
        self._bell = bell
        self._view_lock = threading.Lock()  # guards the view
        self._view = View()
        # Written by the errand thread that goes to another room, read everywhere: a client that is
        # no longer this one is the old room's.
        self._client: BroadcastClient
        self._hint = ""
        self._unsent_since: float | None = None  # the screen's thread's own
        # Guards the three below.
        self._lock = threading.Lock()
        self._attention = Attention()
        self._asked = False  # who is here; the receiver takes it back when it has told
        self._errand = ""  # what the errand thread does, "" if there is none
        # Written by the thread that ends the conversation, read when the screen is gone.
        self._ending: BroadcastServerError | None = None
        self._fault: BaseException | None = None
        self._screen = self._make_screen(environ)

    def _make_screen(self, environ: Mapping[str, str]) -> Screen:
        if environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
            return LineScreen(self)
        try:
            from .terminal_prompt import PromptScreen
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("prompt_toolkit", "wcwidth"):
                raise
            self._hint = (
                "prompt_toolkit is not installed: no line editing, no history, no status line"
            )
            return LineScreen(self)
        return PromptScreen(self, HistoryFile(default_path(environ)))

    # The main thread.

    def run(self, url: str, name: str | None) -> int:
        """Talk until the user or the hub ends it.

        Args:
            url: the room's address.
            name: the user's name.

        Returns:
            The exit status: 0 left; 1 could not connect, was refused, or has left before the hub
            had taken all; 3 the connection has ended for good.

        Raises:
            UsageError: the address or the name cannot be one.
        """
        try:
            self._client = self._connect(url, name)
        except ConnectFailed as error:
            complain("connect", visible(str(error)))
            return 1
        before = termios.tcgetattr(sys.stdin)
        caught = 0

        def catch(number: int, frame: Any) -> None:
            nonlocal caught
            caught += 1
            if caught > 1:
                with contextlib.suppress(termios.error):
                    termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
                os._exit(1)
            self._screen.leave()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, catch)
        if self._hint:
            self._screen.show([notice(self._hint)])
        self._greet(self._client)
        threading.excepthook = self._take_fault
        self._receive_from(self._client)
        with logs.redirected(lambda text: self._screen.show([notice(text, "warning")])):
            try:
                self._screen.run()
            except OSError as error:
                logger.debug("the terminal has gone: %s", error)
        # prompt_toolkit has put back what was there before it ran.
        signal.signal(signal.SIGINT, catch)
        if self._fault is not None:
            raise self._fault
        why = self._ending  # as it is now: that we close it ends the client as well
        accepted = self._client.close(timeout=LEAVE_SECONDS)
        return self._tell_end(why, 0 if accepted else self._client.unaccepted)

    def _tell_end(self, why: BroadcastServerError | None, unsent: int) -> int:
        """Say how the conversation has ended, if that is worth a word; return the exit status."""
        if why is None:
            if unsent:
                complain("connect", f"left before the hub had accepted {_messages(unsent)}")
            return 1 if unsent else 0
        text, status = ending(why)
        if unsent:
            text, status = f"{text}; it has not accepted {_messages(unsent)}", status or 3
        if status:
            complain("connect", text)
        else:
            write_stdout(f"-- {visible(text)}\n")
        return status

    def _take_fault(self, arguments: Any) -> None:
        """Take note of what no thread should have raised: it ends the conversation."""
        if self._fault is None:
            self._fault = arguments.exc_value
            self._screen.leave()

    # The host of the screen, on its thread; nothing waits here.

    def enter(self, line: str) -> bool:
        """Carry out what was typed; return whether it is done with."""
        # What the terminal has sent that is no UTF-8 comes as lone surrogates.
        line = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        asked = terminal_commands.parse(line)
        if isinstance(asked, Mistake):
            self._screen.show([notice(visible(asked.text))])
            return False
        if isinstance(asked, Say):
            return self._say(asked.text)
        if isinstance(asked, Command):
            return self._carry_out(asked)
        return True

    def say(self, texts: Sequence[str]) -> None:
        """Send messages as they are."""
        for number, text in enumerate(texts):
            if not self._say(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")):
                self._screen.show([notice(f"{number} of {_messages(len(texts))} sent", "warning")])
                return

    def complete(self, before: str) -> Completion:
        """Return how the text before the cursor could go on."""
        names = [member.name for member in self._client.members if member.id != self._client.id]
        # A name that would have to be escaped is not put into what the user types.
        return terminal_commands.complete(before, [n for n in names if n and visible(n) == n])

    def status(self) -> Status:
        """Return where the user is."""
        client = self._client
        with self._lock:
            unread = self._attention.unread
        members = client.member_count if client.id is not None else None
        unsent = client.unaccepted
        if not unsent:
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = time.monotonic()
        late = unsent and time.monotonic() - (self._unsent_since or 0) > LATE_SECONDS
        return Status(client.room, members, client.state, unsent, unread, bool(late))

    def take_key(self) -> None:
        """Note that the user has pressed a key."""
        with self._lock:
            self._attention.take_key()

    def take_focus(self, focused: bool) -> None:
        """Note that the window has got or lost the focus."""
        with self._lock:
            self._attention.take_focus(focused)
        self._screen.update()

    def _say(self, text: str) -> bool:
        client = self._client
        try:
            client.send(text, timeout=0)
        except TimeoutError:
            self._tell("not sent: too much waits for the hub already", "warning")
            return False
        except ConnectionClosed:
            return False  # which the receiver tells
        if not self._screen.keeps_typed:
            sender = Member(client.id or "", client.name, client.room, "")
            message = Message(text, client.room, sender, _now(), None)
            with self._view_lock:
                lines = self._view.message(message, named=client.id is not None, own=True)
            self._screen.show(lines)
        self._screen.update()
        return True

    def _carry_out(self, command: Command) -> bool:
        name, argument = command
        client = self._client
        try:
            if name == "help":
                self._screen.show([notice(line) for line in terminal_commands.HELP])
            elif name == "quit":
                self._screen.leave()
            elif name == "who":
                with self._lock:
                    self._asked = True
                client.who()
            elif name == "name" and argument:
                client.rename(argument)
            elif name == "name":
                self._tell(f"you are {visible(client.name or client.id or 'without a name')}")
            elif name == "room" and argument:
                return self._go(f"going to {argument}", lambda: self._change_room(argument))
            elif name == "room":
                self._tell(f"this is {visible(client.room)}")
            else:
                count = int(argument)
                return self._go("asking for old messages", lambda: self._show_history(count))
        except UsageError as error:
            self._tell(visible(str(error)))
            return name != "name"  # only a name can be put right
        except (ConnectionClosed, TimeoutError):
            self._tell("there is no connection for that now")
            return False
        return True

    def _tell(self, text: str, style: str = "notice") -> None:
        self._screen.show([notice(text, style)])

    # An errand thread.

    def _go(self, what: str, function: Callable[[], None]) -> bool:
        """Have an errand run, unless there is one already."""
        with self._lock:
            if self._errand:
                busy = self._errand
            else:
                busy, self._errand = "", what
        if busy:
            self._tell(f"wait, still {visible(busy)}")
            return False

        def run() -> None:
            try:
                function()
            finally:
                with self._lock:
                    self._errand = ""

        threading.Thread(target=run, name="errand", daemon=True).start()
        return True

    def _change_room(self, room: str) -> None:
        old = self._client
        parts = urls.split(old.url, urls.WEBSOCKET)._replace(path=urllib.parse.quote(room))
        parts = urls.with_parameters(parts, {"since": None, "session": None, "name": None})
        try:
            client = self._connect(parts.geturl(), old.name)
        except (ConnectFailed, UsageError) as error:
            self._tell(f"still in {visible(old.room)}: {visible(str(error))}", "warning")
            return
        self._client = client
        self._greet(client)
        self._receive_from(client)
        if not old.close(timeout=FAREWELL_SECONDS) and old.unaccepted:
            self._tell(
                f"{visible(old.room)} has not accepted {_messages(old.unaccepted)}", "warning"
            )

    def _show_history(self, count: int) -> None:
        client = self._client
        if client.id is None:
            self._tell("this server has no old messages")
            return
        try:
            messages = fetch_last(client.url, client.room, count, self._headers)
        except LookupError as error:
            self._tell(f"no old messages: {visible(str(error.args[0]))}", "warning")
            return
        view = View()
        lines = [notice(f"the last {_messages(len(messages))} of {visible(client.room)}")]
        for message in messages:
            lines += view.message(message, named=True)
        self._screen.show([*lines, notice("so far the old messages")])

    # Clients.

    def _connect(self, url: str, name: str | None) -> BroadcastClient:
        """Return a client that has joined a room.

        Raises:
            ConnectFailed, UsageError: as `BroadcastClient` does.
        """
        lost = False  # the client's own thread's

        def take_state(state: str) -> None:
            nonlocal lost
            if state == "waiting" and not lost:
                lost = True
                self._tell("connection lost, trying again", "warning")
            elif state == "open" and lost:
                lost = False
                self._tell("connected again")
            self._screen.update()

        client = self._make_client(url, name=name, on_state=take_state, on_error=self._take_refusal)
        return client.connect()

    def _take_refusal(self, error: SendRefused) -> None:
        """Tell what the hub did not take. The client's own thread."""
        what = ""
        if isinstance(error.data, str):
            what = f" {visible(error.data[:40])!r}{' …' if len(error.data) > 40 else ''}"
        self._tell(f"the hub did not take{what}: {visible(error.detail)}", "warning")

    def _greet(self, client: BroadcastClient) -> None:
        if client.id is None:
            shown = client.url.partition("?")[0]
            self._tell(f"connected to {shown}, which tells no names and keeps no messages")
            return
        who = visible(client.name or client.id)
        self._tell(f"you are {who} in {visible(client.room)}; /help lists the commands")

    # Receivers, one for each client.

    def _receive_from(self, client: BroadcastClient) -> None:
        newest = parse_id(client.newest) if client.newest is not None else None
        threading.Thread(
            target=self._receive, args=(client, newest), name="receiver", daemon=True
        ).start()

    def _receive(self, client: BroadcastClient, newest: tuple[int, int] | None) -> None:
        """Show what comes, until the end of the client.

        Args:
            newest: of the messages that were there before the user has come.
        """
        joined = False
        try:
            while True:
                item = client.recv()
                if client is not self._client:
                    continue  # what comes from the old room while it is left
                if isinstance(item, Message):
                    self._show_message(client, item, newest)
                elif isinstance(item, Presence):
                    self._show_presence(client, item, first=not joined)
                    joined = True
                else:
                    self._screen.show(terminal_view.gap(item))
        except BroadcastServerError as error:
            if client is self._client:
                self._ending = error
                self._screen.leave()

    def _show_message(
        self, client: BroadcastClient, message: Message, newest: tuple[int, int] | None
    ) -> None:
        # Of a session of the user's own before this one it is not known.
        own = message.sender is not None and message.sender.id == client.id != ""
        with self._view_lock:
            lines = self._view.message(message, named=client.id is not None, own=own)
        is_new = message.id is None or newest is None or parse_id(message.id) > newest
        rings = self._bell and is_new and not own and isinstance(message.data, str)
        if is_new and not own:
            with self._lock:
                self._attention.take_message()
        self._screen.show(
            lines, bell=rings and terminal_view.mentions(str(message.data), client.name)
        )

    def _show_presence(self, client: BroadcastClient, event: Presence, *, first: bool) -> None:
        lines: list[Line]
        if event.kind == "members":
            with self._lock:
                asked, self._asked = self._asked, False
            # The list that comes with a new connection is no news.
            lines = terminal_view.who(event.members, event.count) if asked or first else []
        else:
            with self._view_lock:
                lines = self._view.presence(event, client.id)
        if lines:
            self._screen.show(lines)
        self._screen.update()


def ending(error: BroadcastServerError) -> tuple[str, int]:
    """Return what to tell of the end of a connection for good, and the exit status."""
    if isinstance(error, ConnectFailed):
        return f"the hub does not let us come back: {error}", 1
    if isinstance(error, ProtocolError):
        return f"the hub broke the protocol: {error}", 3
    if not isinstance(error, ConnectionClosed):
        return str(error), 3
    if error.code == ABNORMAL:
        return f"the connection was lost: {error.reason}", 3
    text = f"the hub closed the connection: {error.code} {error.reason}".rstrip()
    if error.code in (1000, 1001):
        return text, 0
    return text, 1 if error.code == 1008 else 3  # which says that it is not allowed


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
