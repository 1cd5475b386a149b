"""A conversation at a terminal: ``broadcast-server connect`` where somebody sits.

The main thread runs the screen (cli/terminal/prompt.py, or cli/terminal/plain.py where the terminal
can do nothing). For each room that the user goes to there is a client and a *receiver*, a thread
that turns what comes into lines. What takes its time, going to another room or asking for old
messages, runs on an *errand* thread; so the keys always work, and Ctrl-C ends it within a second.

A lost connection is the client's business: it comes back, and what was typed meanwhile goes out
once. Here that is only shown.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...client.client import BroadcastClient
from ...errors import BroadcastServerError, ConnectFailed, ConnectionClosed, SendRefused, UsageError
from ...messages import Message, Presence, Received, parse_id
from ...records import get_logger
from ...transport.deadlines import Deadline
from ...wire import urls
from ..io import logs, target
from ..io.endings import ending
from ..io.formats import nameless
from ..io.streams import complain, write_stdout
from . import commands, signals
from .commands import Command, Completion, Mistake, Say
from .history import HistoryFile, default_path
from .log import Transcript, messages_of
from .plain import LineScreen
from .screen import Screen
from .status import Status
from .view import notice, visible

# How long leaving may take: with Ctrl-C it is over within a second.
LEAVE_SECONDS = 0.7
# The hub usually accepts a message sooner; then it is not worth a word that it has not yet.
LATE_SECONDS = 1.0
# How long the room that was left may take to accept what was said there.
FAREWELL_SECONDS = 10.0
# What reading and writing say when there is no terminal any more.
GONE = (errno.EIO, errno.ENXIO, errno.EPIPE)

logger = get_logger("broadcast_server.cli")


class Terminal:
    """A user at a terminal. It owns the standard streams, and the process's signals.

    Args:
        make_client: makes a client that is not connected yet, with presence, of a URL and of what
            is given besides: ``name``, ``wait``, ``on_state``, ``on_error``.
        fetch_old: gets the last messages of a room: its address, its path, how many; a LookupError
            says why there are none.
        bell: ring when somebody says the user's name.
        environ: the environment.
    """

    def __init__(
        self,
        make_client: Callable[..., BroadcastClient[Received]],
        *,
        fetch_old: Callable[[str, str, int], list[Message]],
        bell: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._make_client = make_client
        self._fetch_old = fetch_old
        # Written by the errand thread that goes to another room, read everywhere: a client that is
        # no longer the first one is the old room's; the second one is, while it says goodbye there.
        self._client: BroadcastClient[Received]
        self._leaving: BroadcastClient[Received] | None = None
        self._hint = ""
        self._unsent_since: float | None = None  # the screen's thread's own
        # Guards the four below.
        self._lock = threading.Lock()
        self._coming: BroadcastClient[Received] | None = None  # which connects
        self._over = False  # no other one may
        self._lost: set[BroadcastClient[Received]] = set()  # told to have lost their connection
        self._errand = ""  # what the errand thread does, "" if there is none
        # Written by the thread that ends the conversation, read when the screen is gone.
        self._ending: BroadcastServerError | None = None
        self._fault: BaseException | None = None
        self._screen = self._make_screen(environ)
        self._transcript = Transcript(self._screen, bell=bell)

    def _make_screen(self, environ: Mapping[str, str]) -> Screen:
        if environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
            return LineScreen(self)
        try:
            from .prompt import PromptScreen
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("prompt_toolkit", "wcwidth"):
                raise
            self._hint = (
                "prompt_toolkit is not installed: no line editing, no history, no status line"
            )
            return LineScreen(self)
        return PromptScreen(self, HistoryFile(default_path(environ)))

    # The main thread.

    def run(self, url: str, name: str | None, wait: float = 0.0) -> int:
        """Talk until the user or the hub ends it.

        Args:
            url: the room's address.
            name: the user's name.
            wait: seconds to wait for a hub that is not there yet.

        Returns:
            The exit status: 0 left; 1 was refused, or has left before the hub had taken all; 3 the
            connection has ended for good.

        Raises:
            ConnectFailed: there is no connection.
            UsageError: the address or the name cannot be one.
        """
        threading.excepthook = self._take_fault
        with target.awaited("connect", url, wait):
            self._client = self._connect(url, name, wait)
        signals.catch(self._screen)
        if self._hint:
            self._transcript.tell(self._hint)
        self._transcript.greet(self._client)
        self._receive_from(self._client)
        with logs.redirected(lambda text: self._transcript.tell(text, "warning")):
            try:
                self._screen.run()
            except OSError as error:
                if error.errno not in GONE:
                    raise
                logger.debug("the terminal has gone: %s", error)
        why = self._ending  # as it is now: that we close it ends the client as well
        unsent = self._leave()
        if self._fault is not None:
            raise self._fault
        return self._tell_end(why, unsent)

    def _leave(self) -> int:
        """Close what is open; return how many messages were not accepted."""
        deadline = Deadline(LEAVE_SECONDS)
        with self._lock:
            self._over, coming = True, self._coming
        # The user's room first, each once.
        clients = dict.fromkeys([self._client, *filter(None, [self._leaving, coming])])
        return sum(0 if c.close(timeout=deadline.left()) else c.unaccepted for c in clients)

    def _tell_end(self, why: BroadcastServerError | None, unsent: int) -> int:
        """Say how the conversation has ended, if that is worth a word; return the exit status."""
        if why is None:
            if unsent:
                complain("connect", f"left before the hub had accepted {messages_of(unsent)}")
            return 1 if unsent else 0
        text, status = ending(why)
        if unsent:
            text, status = f"{text}; it has not accepted {messages_of(unsent)}", status or 3
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
        asked = commands.parse(line)
        if isinstance(asked, Mistake):
            self._transcript.tell(visible(asked.text))
            return False
        if isinstance(asked, Say):
            return self._say(asked.text)
        if isinstance(asked, Command):
            return self._carry_out(asked)
        return True

    def say(self, texts: Sequence[str]) -> int:
        """Send messages as they are; return how many are on their way."""
        for number, text in enumerate(texts):
            if not self._say(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")):
                self._transcript.tell(f"{number} of {messages_of(len(texts))} sent", "warning")
                return number
        return len(texts)

    def complete(self, before: str) -> Completion:
        """Return how the text before the cursor could go on."""
        names = [member.name for member in self._client.members if member.id != self._client.id]
        # A name that would have to be escaped is not put into what the user types.
        return commands.complete(before, [n for n in names if n and visible(n) == n])

    def status(self) -> Status:
        """Return where the user is."""
        client = self._client
        members = client.member_count if client.id is not None else None
        unsent = client.unaccepted
        if not unsent:
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since = time.monotonic()
        late = unsent and time.monotonic() - (self._unsent_since or 0) > LATE_SECONDS
        return Status(
            client.room, members, client.state, unsent, self._transcript.unread, bool(late)
        )

    def take_key(self) -> None:
        """Note that the user has pressed a key."""
        self._transcript.take_key()

    def take_focus(self, focused: bool) -> None:
        """Note that the window has got or lost the focus."""
        self._transcript.take_focus(focused)
        self._screen.update()

    def _say(self, text: str) -> bool:
        client = self._client
        try:
            client.send(text, timeout=0)
        except TimeoutError:
            self._transcript.tell("not sent: too much waits for the hub already", "warning")
            return False
        except ConnectionClosed:
            return False  # which the receiver tells
        if not self._screen.keeps_typed:
            self._transcript.add_own(client, text, still=lambda: client is self._client)
        self._screen.update()
        return True

    def _carry_out(self, command: Command) -> bool:
        name, argument = command
        client = self._client
        try:
            if name == "help":
                self._screen.show([notice(line) for line in commands.HELP])
            elif name == "quit":
                self._screen.leave()
            elif client.id is None and (name == "who" or (name == "name" and argument)):
                self._transcript.tell("this server knows no names")
            elif name == "who":
                self._transcript.expect_members()
                client.who(timeout=0)
                self._tell_later(client)
            elif name == "name" and argument:
                client.rename(argument, timeout=0)
                self._tell_later(client)
            elif name == "name":
                is_known = client.name or client.id
                who = visible(client.name) if client.name else nameless(client.id)
                self._transcript.tell(f"you are {who if is_known else 'without a name'}")
            elif name == "room" and argument:
                return self._go(f"going to {argument}", lambda: self._change_room(argument))
            elif name == "room":
                self._transcript.tell(f"this is {visible(client.room)}")
            else:
                count = int(argument)
                return self._go("asking for old messages", lambda: self._show_history(count))
        except UsageError as error:
            self._transcript.tell(visible(str(error)))
            return name != "name"  # only a name can be put right
        except (ConnectionClosed, TimeoutError):
            self._transcript.tell("there is no connection for that now")
            return False
        return True

    def _tell_later(self, client: BroadcastClient[Received]) -> None:
        """Tell that what was asked for has to wait, if it has to."""
        if client.state != "open":
            self._transcript.tell("there is no connection now; this waits until it is there again")

    # An errand thread.

    def _go(self, what: str, function: Callable[[], None]) -> bool:
        """Have an errand run, unless there is one already."""
        with self._lock:
            if self._errand:
                busy = self._errand
            else:
                busy, self._errand = "", what
        if busy:
            self._transcript.tell(f"wait, still {visible(busy)}")
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
            if self._over:
                return
            self._transcript.tell(f"still in {visible(old.room)}: {visible(str(error))}", "warning")
            return
        self._leaving, self._client = old, client
        self._transcript.greet(client)
        self._receive_from(client)
        if not old.close(timeout=FAREWELL_SECONDS) and old.unaccepted:
            self._transcript.tell(
                f"{visible(old.room)} has not accepted {messages_of(old.unaccepted)}", "warning"
            )
        self._leaving = None

    def _show_history(self, count: int) -> None:
        client = self._client
        if client.id is None:
            self._transcript.tell("this server has no old messages")
            return
        try:
            messages = self._fetch_old(client.url, client.room, count)
        except LookupError as error:
            self._transcript.tell(f"no old messages: {visible(str(error.args[0]))}", "warning")
            return
        self._transcript.add_old(client, messages)

    # Clients.

    def _connect(self, url: str, name: str | None, wait: float = 0.0) -> BroadcastClient[Received]:
        """Return a client that has joined a room.

        Raises:
            ConnectFailed, UsageError: as `BroadcastClient` does.
        """

        def take_state(state: str) -> None:
            if state == "waiting" and client is not self._leaving:
                with self._lock:
                    is_news = client not in self._lost
                    self._lost.add(client)
                if is_news:  # and not another attempt that has failed
                    self._transcript.tell("connection lost, trying again", "warning")
            self._screen.update()

        client = self._make_client(
            url, name=name, wait=wait, on_state=take_state, on_error=self._take_refusal
        )
        with self._lock:
            if self._over:
                raise ConnectFailed("left")
            self._coming = client
        return client.connect()

    def _take_refusal(self, error: SendRefused) -> None:
        """Tell what the hub did not take. The client's own thread."""
        what = " it"
        if isinstance(error.data, str):
            what = f" {visible(error.data[:40])!r}{' …' if len(error.data) > 40 else ''}"
        self._transcript.tell(f"the hub did not take{what}: {visible(error.detail)}", "warning")

    # Receivers, one for each client.

    def _receive_from(self, client: BroadcastClient[Received]) -> None:
        newest = parse_id(client.newest) if client.newest is not None else None
        threading.Thread(
            target=self._receive, args=(client, newest), name="receiver", daemon=True
        ).start()

    def _receive(self, client: BroadcastClient[Received], newest: tuple[int, int] | None) -> None:
        """Show what comes, until the end of the client.

        Args:
            newest: the id of the newest message that was there before the user has come.
        """

        def is_here() -> bool:
            return client is self._client

        first = True
        try:
            while True:
                item = client.recv()
                if is_here():  # else it is the old room's, which is being left
                    self._tell_return(client, item)
                    self._transcript.add(client, item, newest, first=first, still=is_here)
                    first = False
        except BroadcastServerError as error:
            if is_here():
                self._ending = error
                self._screen.leave()

    def _tell_return(self, client: BroadcastClient[Received], item: Received) -> None:
        """Tell that the connection is there again, if this is what it begins with."""
        # What has come before a loss may be read after it.
        if isinstance(item, Presence) and item.kind == "members" and client.state == "open":
            with self._lock:
                was_lost = client in self._lost
                self._lost.discard(client)
            if was_lost:
                self._transcript.tell("connected again", still=lambda: client not in self._lost)
