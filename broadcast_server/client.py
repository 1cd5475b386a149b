"""``BroadcastClient``: one member of one room, from any program and any of its threads.

websocket-client makes the connection and the frames that go out. Then two threads share the socket.
The *writer* (client_link.py) sends what is queued. The *client's own thread* reads: it queues what
comes; when that queue is full it stops reading, and the hub finds out, as it should. Frames come in
through the hub's own decoder: it bounds a message before its payload is there, and joins fragments
in linear time.

A hub speaks ``broadcast.v1.json`` with us: messages have ids. When the connection is lost the
client's thread makes a new one, after a pause drawn at random (back_off), gives back the last id
and its secret, and sends again what was not acknowledged, with the same keys. Any other server is
spoken to in plain frames, and the end of that connection is the end of the client.

``close()`` waits for the proof that everything was accepted, as long as bytes move: the
acknowledgements, or where there are none the echo of our Close.
"""

from __future__ import annotations

import collections
import datetime
import itertools
import logging
import random
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from . import client_events, dialer, frames
from .client_events import SUBPROTOCOL, Ack, Trouble, Welcome
from .client_link import Link
from .client_queues import Inbox, Item, Outbox, Outgoing
from .client_session import Session
from .deadlines import Deadline
from .errors import (
    BroadcastServerError,
    ConnectFailed,
    ConnectionClosed,
    MessagesLost,
    ProtocolError,
    SendRefused,
    UsageError,
)
from .messages import Gap, Member, Message, Presence, parse_id

# How often close() looks whether bytes have moved.
LOOK_SECONDS = 0.25
# The pause before the first attempt to come back is up to this long, before each further one up to
# twice as long.
FIRST_DELAY_SECONDS = 0.5
# A connection that has lasted so long was a good one: the pauses begin anew.
STABLE_SECONDS = 10.0
# After so long a silence the peer is asked whether it is there; after another one it is not.
QUIET_SECONDS = 30.0
# Ends of a connection after which the client comes back (docs/reference/protocol.md).
RETURN_CODES = frozenset({1001, frames.ABNORMAL, 1011, 1012, 1013})
# Refusals that will not change by asking again.
FINAL_STATUSES = frozenset({400, 401, 403, 404, 410})
MAX_NAME_CHARACTERS = 64
MAX_KEY_CHARACTERS = 128
MAX_REFUSED = 100

logger = logging.getLogger(__name__)


class BroadcastClient:
    """A member of one room. It is used once: connect, talk, close.

    All methods may be called from any thread; of several threads that receive, each message goes to
    one. A context manager: it connects on entering and closes on leaving.

    Where the server does not speak ``broadcast.v1.json`` messages have no sender and no id, the
    time is that of their arrival, nobody tells who is here, and `reconnect` means nothing.

    Args:
        url: ``ws://host:port/room`` or ``wss://…``; the query parameters of the hub are understood
            (``echo=1``, …). What an argument below says wins over the query.
        name: what the client calls itself.
        since: begin with everything after this message id.
        history: begin with so many old messages; `since` wins.
        presence: receive `Presence` and `Gap` as well as `Message`; else a gap is `MessagesLost`.
        reconnect: come back after a lost connection, without a message lost or doubled.
        max_reconnect_delay: seconds that a pause between two attempts may last.
        headers: more header lines for the opening handshake.
        open_timeout: seconds that each step of connecting may take.
        close_timeout: seconds without a byte in either direction after which ``close()`` gives up.
        max_message_bytes: the largest message that is taken; a larger one ends the connection with
            close code 1009.
        on_state: called with each new `state` after the first "connecting".
        on_error: called with the `SendRefused` of a message that nobody waits for.

    The two callbacks run on the client's own thread: what they do holds up everything that comes.
    They may send what fits into the queue, and call `close`, which then does not wait; they must
    not receive or publish.

    Raises:
        UsageError: the URL, a header, a name or an id cannot be one.

    Attributes:
        url: the address, with name, since and history in it.
        close_code, close_reason: what the peer's Close said; 1006 (RFC 6455 §7.1.5) and what has
            happened if there was none; None and "" before the end.
        timed_out: whether `close` has given up waiting for the peer.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        since: str | None = None,
        history: int = 0,
        presence: bool = False,
        reconnect: bool = True,
        max_reconnect_delay: float = 30.0,
        headers: Mapping[str, str] | None = None,
        open_timeout: float = 10.0,
        close_timeout: float = 5.0,
        max_message_bytes: int = 16 * 1024 * 1024,
        on_state: Callable[[str], object] | None = None,
        on_error: Callable[[SendRefused], object] | None = None,
    ) -> None:
        given = {
            "name": name,
            "since": None if since is None else _checked_id(since),
            "history": str(_checked_history(history)) if history else None,
        }
        self.url = dialer.complete_url(url, {k: v for k, v in given.items() if v is not None})
        self._headers = dialer.checked_headers(headers or {})
        self._presence = presence
        self._reconnect = reconnect
        self._max_delay = max_reconnect_delay
        self._open_timeout = open_timeout
        self._close_timeout = close_timeout
        self._max_message_bytes = max_message_bytes
        self._on_state = on_state
        self._on_error = on_error
        self._refs = itertools.count(1)
        # A key is never used by anybody else, and not twice by us.
        self._key_prefix = uuid.uuid4().hex
        self._thread: threading.Thread | None = None
        self._told_state = "connecting"  # the client's thread's own
        self.close_code: int | None = None
        self.close_reason = ""
        self.timed_out = False

        # Guards everything below, how the connection has ended, and the link.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # the state, an answer, an end
        self._inbox = Inbox(self._lock)
        self._outbox = Outbox(self._lock)
        room = urllib.parse.unquote(urllib.parse.urlsplit(self.url).path) or "/"
        self._session = Session(room, name)
        self._state = "closed"
        self._connecting = False  # connect() was called, and has not failed
        self._speaks = False  # the server speaks events
        self._link: Link | None = None  # the newest connection
        self._dialing: dialer.Dialing | None = None
        self._attempts = 0  # to come back, since a connection that has lasted
        self._new_name: tuple[str | None] | None = None  # what rename() asked for
        self._asked: int | None = None  # ref of a "who" that has no answer
        # The answers that publish() waits for, by ref: None, an id, or an exception.
        self._answers: dict[int, str | SendRefused | None] = {}
        self._refused: collections.deque[SendRefused] = collections.deque(maxlen=MAX_REFUSED)
        self._left: tuple[int, str] | None = None  # close() was called, with that code and reason
        self._ended = False  # no more messages come, on no connection
        self._failure: BroadcastServerError | None = None  # why, if not by a Close

    # What the client knows. Any thread.

    @property
    def closed(self) -> bool:
        """Whether the client has ended; messages that came before may still be received."""
        return self._ended

    @property
    def state(self) -> str:
        """Return "connecting", "open", "waiting" (for the next attempt) or "closed"."""
        return self._state

    @property
    def id(self) -> str | None:
        """The client's id in the hub, or None."""
        return self._session.id

    @property
    def name(self) -> str | None:
        """The client's name as the hub has it, or None."""
        return self._session.name

    @property
    def room(self) -> str:
        """The room's path."""
        return self._session.room

    @property
    def newest(self) -> str | None:
        """The id of the newest message in the room that is known, or None."""
        return self._session.newest

    @property
    def members(self) -> list[Member]:
        """Who is in the room, oldest first. Above 100 members it is who was last listed."""
        with self._lock:
            return self._session.members()

    @property
    def member_count(self) -> int:
        """How many are in the room, also above 100."""
        return self._session.count

    @property
    def refused(self) -> list[SendRefused]:
        """The last 100 refusals of what `send` has queued, oldest first."""
        with self._lock:
            return list(self._refused)

    # Connecting and sending. Any thread.

    def connect(self) -> BroadcastClient:
        """Connect and join the room; return the client.

        Raises:
            ConnectFailed: there is no connection; the text says why, `status` which HTTP status.
            UsageError: the client has been connected before.
        """
        with self._lock:
            if self._connecting or self._ended:
                raise UsageError("a client connects once; make a new one")
            self._connecting = True
            self._state = "connecting"
        try:
            sock, chosen = self._dial(self.url).dial()
        except ConnectFailed:
            with self._lock:
                self._state, self._connecting = "closed", False  # it may try again
            raise
        link = self._make_link(sock, chosen)
        thread = threading.Thread(target=self._live, args=(link,), name="client", daemon=True)
        try:
            with self._lock:
                if self._left is not None:
                    raise ConnectFailed(f"{self.url}: closed while it connected")
                self._speaks = link.events is not None
                self._link, self._thread = link, thread
                if link.welcomed:
                    self._state = "open"
                # Under the lock, so that close() finds them alive; the one joins the other.
                link.start_locked()
                thread.start()
        except (ConnectFailed, RuntimeError):  # closed, or no thread is to be had
            with self._lock:
                link.end_locked()
                self._link = None
                self._end_locked(frames.ABNORMAL, "never connected")
            link.channel.close()
            raise
        with self._lock:
            while not (link.welcomed or self._ended):
                self._changed.wait()
            if link.welcomed:
                return self
            failure = self._failure
            why = failure or self._closed_locked()
        thread.join()
        with self._lock:
            if self._left is None:
                # It may try again.
                self._ended = self._connecting = False
                self._link = self._thread = self._failure = self.close_code = None
                self.close_reason = ""
                self._told_state = "connecting"
                self._outbox.clear_locked()
        raise ConnectFailed(f"cannot connect to {self.url}: {why}") from failure

    def send(
        self, data: str | bytes, *, timeout: float | None = None, key: str | None = None
    ) -> None:
        """Queue a message: text for ``str``, binary for ``bytes``.

        It waits while 1 MiB is queued that the peer does not take or, if the client comes back by
        itself, has not acknowledged. Queued is not yet accepted by the hub: `close` tells whether
        all was, and `publish` waits for it. A message that the hub refuses is logged, put into
        `refused` and given to `on_error`.

        Args:
            data: the message.
            timeout: seconds to wait for room in the queue; None for as long as it takes.
            key: makes it safe to send the same message again, from any client: the hub delivers
                only the first one with this key, for ten minutes. 1 to 128 characters.

        Raises:
            TypeError: the data is neither ``str`` nor ``bytes``.
            UnicodeEncodeError: the text holds a lone surrogate, which UTF-8 cannot carry.
            TimeoutError: there was no room in time; nothing was queued. Also without a timeout, if
                the queue of what comes is full as well and nobody receives for ``close_timeout``.
            UsageError: a key for a server that knows none, or a bad one.
            ConnectionClosed: the client has ended, or `close` was called.
        """
        self._send(data, Deadline(timeout), key, wanted=False)

    def publish(
        self, data: str | bytes, *, timeout: float | None = None, key: str | None = None
    ) -> str:
        """Send a message and wait until the hub has accepted it; return its id.

        Args:
            data, key: as for `send`.
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            SendRefused: the hub does not take the message.
            TimeoutError: no answer in time; the message may be accepted yet.
            ConnectionClosed: the client has ended; the message may have been accepted.
            TypeError, UnicodeEncodeError, UsageError: as for `send`; UsageError also where the
                server acknowledges nothing.
        """
        if self._is_own_thread():
            raise UsageError("a callback must not wait for the hub")
        deadline = Deadline(timeout)
        ref = self._send(data, deadline, key, wanted=True)
        assert ref is not None
        with self._lock:
            try:
                while (answer := self._answers[ref]) is None:
                    if self._ended:
                        raise self._closed_locked()
                    self._wait_locked(self._changed, deadline, "the hub does not answer")
            finally:
                del self._answers[ref]
        if isinstance(answer, SendRefused):
            raise answer
        return answer

    def rename(self, name: str | None) -> None:
        """Change the client's name; None takes it away.

        Raises:
            UsageError: the name cannot be one, or the server knows no names.
            ConnectionClosed: the client has ended, or `close` was called.
        """
        if name is not None:
            if not 0 < len(name) <= MAX_NAME_CHARACTERS:
                raise UsageError(f"a name has 1 to {MAX_NAME_CHARACTERS} characters")
            if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name):
                raise UsageError("a name has no control characters")
        payload = client_events.encode_name(name)
        with self._lock:
            self._await_room_locked(Deadline(None))
            self._need_events_locked()
            self._new_name = (name,)
            self._tell_locked(payload)

    def who(self) -> None:
        """Ask the hub who is here; `members` and, with presence, a `Presence` "members" tell.

        Raises:
            UsageError: the server does not tell.
            ConnectionClosed: the client has ended, or `close` was called.
        """
        with self._lock:
            self._await_room_locked(Deadline(None))
            self._need_events_locked()
            self._ask_locked()

    def _send(
        self, data: str | bytes, deadline: Deadline, key: str | None, *, wanted: bool
    ) -> int | None:
        """Queue a message; return its ref, if it has one."""
        if not isinstance(data, (str, bytes)):
            raise TypeError(f"data must be str or bytes, not {type(data).__name__}")
        if key is not None and not 0 < len(key) <= MAX_KEY_CHARACTERS:
            raise UsageError(f"a key has 1 to {MAX_KEY_CHARACTERS} characters")
        item = self._frame_of(data, key, wanted)
        with self._lock:
            self._await_room_locked(deadline)
            if wanted:
                assert item.ref is not None
                self._answers[item.ref] = None
            self._outbox.put_locked(item)
        return item.ref

    def _await_room_locked(self, deadline: Deadline) -> None:
        """Wait until something may be queued."""
        if self._is_own_thread():
            deadline = Deadline(0)  # a callback would wait for itself
        while self._may_send_locked() and self._outbox.full:
            self._wait_locked(self._outbox.space, deadline, "the peer does not take the messages")
        if not self._may_send_locked():
            raise self._closed_locked()

    def _wait_locked(self, condition: threading.Condition, deadline: Deadline, what: str) -> None:
        """Wait a while for what depends on the hub.

        Raises:
            TimeoutError: it is too late, or waiting is in vain: acknowledgements are behind
                messages that nobody receives.
        """
        left = deadline.left()
        if left == 0:
            raise TimeoutError(f"{what} in time")
        if self._speaks and self._inbox.stalled_seconds() > self._close_timeout:
            raise TimeoutError(f"{what}: nobody receives, and no more messages can be queued")
        condition.wait(LOOK_SECONDS if left is None else min(LOOK_SECONDS, left))

    def _frame_of(self, data: str | bytes, key: str | None, wanted: bool) -> Outgoing:
        if not self._speaks:
            if self._link is not None and (wanted or key is not None):
                raise UsageError(f"the server does not speak {SUBPROTOCOL}")
            if isinstance(data, str):
                return Outgoing(frames.TEXT, data.encode("utf-8"), None)
            return Outgoing(frames.BINARY, data, None)
        ref = None
        # Without either a pipe costs the hub no acknowledgements.
        if self._reconnect or wanted:
            ref = next(self._refs)
            key = key or f"{self._key_prefix}-{ref}"
        return Outgoing(frames.TEXT, client_events.encode_send(data, ref, key), ref)

    # Receiving. Any thread.

    def recv(self, timeout: float | None = None) -> Any:
        """Wait for the next message, or with presence for the next `Presence` or `Gap`.

        Args:
            timeout: seconds to wait; None for as long as it takes.

        Raises:
            TimeoutError: none came in time.
            MessagesLost: messages were missed that the hub cannot replay; what comes next is
                behind the gap. With presence a `Gap` is returned instead.
            ConnectionClosed: the client has ended, and every message before that was taken.
            ConnectFailed: as before, because the hub refused to let it come back.
            ProtocolError: as before, because the peer broke the protocol.
        """
        deadline = Deadline(timeout)
        with self._lock:
            while not self._inbox:
                if self._ended or self._link is None:
                    raise self._failure or self._closed_locked()
                # Who was notified when its time was up must take the message: no other one was.
                if not self._inbox.arrived.wait(deadline.left()) and not self._inbox:
                    raise TimeoutError("no message in time")
            item = self._inbox.get_locked()
        if isinstance(item, Gap) and not self._presence:
            raise MessagesLost(item.reason, item.since, item.after)
        return item

    def __iter__(self) -> Iterator[Any]:
        """Yield what `recv` returns until the client is closed in peace: by us, or with 1000 or
        1001.

        Raises:
            ConnectionClosed, ConnectFailed: it ended in any other way.
            ProtocolError: the peer broke the protocol.
            MessagesLost: as for `recv`; another iteration goes on behind the gap.
        """
        while True:
            try:
                item = self.recv()
            except ConnectionClosed as error:
                if self._left is not None or error.code in (1000, 1001):
                    return
                raise
            yield item

    # The end. Any thread.

    def close(
        self,
        code: int = 1000,
        reason: str = "",
        timeout: float | None = None,
        *,
        keep_reading: bool = False,
    ) -> bool:
        """Send all that is queued, then Close; wait for its echo and end the connection.

        A client that comes back by itself does so as well while it closes, as long as something is
        not acknowledged. It may be called again: the first call's code counts.

        Args:
            code: the close code (RFC 6455 §7.4).
            reason: a short text for the peer; what exceeds 123 bytes is cut off.
            timeout: seconds this may take at most; None for as long as bytes move, that is until
                ``close_timeout`` seconds pass without one.
            keep_reading: another thread goes on receiving, so wait for it when the queue of
                messages is full; else what does not fit into it is thrown away.

        Returns:
            True if the hub has accepted everything that was sent: it has acknowledged it all, or
            where it does not acknowledge it has echoed the Close, so that it has read all. False
            if it has not, if a message of `send` was refused, or if there was no connection.

        Raises:
            UsageError: the code must not be sent.
        """
        if not frames.is_sendable_close_code(code):
            raise UsageError(f"{code} is no close code that may be sent")
        with self._lock:
            if self._left is None:
                self._left = (code, reason)
            link, thread = self._link, self._thread
            if link is None or thread is None:
                self._ended = True
                self._state = "closed"
                return False
            if not keep_reading:
                self._inbox.discard_locked()
            self._outbox.space.notify_all()
            if not link.ended:
                link.close_locked(*self._left)
            elif self._dialing is not None and not self._outbox.pending:
                self._end_locked(frames.ABNORMAL, "closed here")
                self._dialing.cut()
            self._changed.notify_all()
        if not self._is_own_thread():
            self._await_end(thread, Deadline(timeout), timeout is None)
        with self._lock:
            if self._resumes:
                return not self._outbox.pending and not self._refused
            return link.echoed and not self._refused

    def __enter__(self) -> BroadcastClient:
        return self.connect()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Who leaves because of an error does not want to wait for a long queue.
        self.close(timeout=None if kind is None else self._close_timeout)

    def _await_end(self, thread: threading.Thread, deadline: Deadline, while_moving: bool) -> None:
        """Wait until both threads have ended; cut the connection when it takes too long."""
        seen: object = None
        silence = Deadline(self._close_timeout)
        while thread.is_alive():
            with self._lock:
                link = self._link
                is_over = self._ended and self._dialing is not None
            assert link is not None
            if is_over:
                # It ends by itself. Looking up a name cannot be interrupted.
                thread.join(LOOK_SECONDS)
                return
            moved = (link, link.channel.progress(), self._inbox.taken)
            if moved != seen:
                seen = moved
                silence = Deadline(self._close_timeout)
            left = (silence if while_moving else deadline).left()
            if left == 0:
                logger.debug("%s: no answer to Close", self.url)
                with self._lock:
                    self.timed_out = not link.echoed
                    link.end_locked()
                    self._end_locked(frames.ABNORMAL, "no answer to Close")
                    self._inbox.discard_locked()
                    if self._dialing is not None:
                        self._dialing.cut()
                        continue
                link.channel.abort()
                thread.join(self._close_timeout)
                return
            thread.join(LOOK_SECONDS if left is None else min(LOOK_SECONDS, left))

    @property
    def _resumes(self) -> bool:
        return self._reconnect and self._speaks

    def _is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _may_send_locked(self) -> bool:
        if self._left is not None or self._ended or self._link is None:
            return False
        return self._resumes or self._link.writing

    def _need_events_locked(self) -> None:
        if not self._speaks:
            raise UsageError(f"the server does not speak {SUBPROTOCOL}")

    def _closed_locked(self) -> ConnectionClosed:
        if self._link is None:
            return ConnectionClosed(frames.ABNORMAL, "not connected")
        if self.close_code is None:
            return ConnectionClosed(frames.ABNORMAL, "closed here" if self._left else "lost")
        return ConnectionClosed(self.close_code, self.close_reason)

    def _tell_locked(self, payload: bytes) -> None:
        """Queue an event that a new connection would make needless."""
        if self._state == "open":
            self._outbox.put_locked(Outgoing(frames.TEXT, payload, None))

    def _ask_locked(self) -> None:
        if self._asked is None:
            self._asked = next(self._refs)
            self._tell_locked(client_events.encode_who(self._asked))

    def _end_locked(
        self, code: int, reason: str, failure: BroadcastServerError | None = None
    ) -> None:
        """Note how the client has ended; the first to know counts."""
        if not self._ended:
            self._ended = True
            self.close_code, self.close_reason = code, reason
            self._failure = failure
            self._state = "closed"
            self._changed.notify_all()
            self._inbox.arrived.notify_all()
            self._outbox.space.notify_all()

    # The client's own thread: connection after connection.

    def _live(self, link: Link) -> None:
        following: Link | None = link
        try:
            while following is not None:
                self._serve(following)
                following = self._come_back()
        finally:
            with self._lock:
                self._end_locked(frames.ABNORMAL, "the client has failed")
                if not self._resumes:
                    self._outbox.clear_locked()  # else close() still has to look into it
            self._tell_state()

    def _dial(self, url: str) -> dialer.Dialing:
        return dialer.Dialing(url, self._headers, SUBPROTOCOL, self._open_timeout, shown=self.url)

    def _make_link(self, sock: Any, chosen: str | None) -> Link:
        with_events = chosen == SUBPROTOCOL
        return Link(sock, self._lock, self._outbox, self._max_message_bytes, with_events, self.url)

    def _come_back(self) -> Link | None:
        """Connect again as the same client, as often as it takes; None when that is over."""
        while self._pause():
            with self._lock:
                url = self._return_url_locked()
                dialing = self._dialing = self._dial(url)
                self._state = "connecting"
            self._tell_state()
            link = None
            try:
                sock, chosen = dialing.dial()
                link = self._make_link(sock, chosen)
                with self._lock:
                    self._begin_locked(link)
                return link
            except (ConnectFailed, RuntimeError) as error:  # RuntimeError: no thread is to be had
                logger.info("%s: cannot come back: %s", self.url, error)
                with self._lock:
                    if isinstance(error, ConnectFailed) and error.status in FINAL_STATUSES:
                        self._end_locked(frames.ABNORMAL, str(error), error)
                    if not self._ended:
                        self._state = "waiting"
                if link is not None:
                    link.channel.close()
            finally:
                with self._lock:
                    self._dialing = None
            self._tell_state()
        return None

    def _begin_locked(self, link: Link) -> None:
        """Let a new connection take the place of the old one."""
        if not self._may_return_locked():
            raise ConnectFailed(f"{self.url}: closed while it connected")
        if link.events is None:
            error = ConnectFailed(f"{self.url}: the server does not speak {SUBPROTOCOL} any more")
            self._end_locked(frames.ABNORMAL, str(error), error)
            raise error
        self._outbox.rewind_locked()
        self._asked = None
        link.start_locked()
        if self._left is not None:
            link.close_locked(*self._left)
        self._link = link

    def _pause(self) -> bool:
        """Wait before the next attempt; return False if there is none."""
        self._tell_state()
        with self._lock:
            deadline = Deadline(back_off(self._attempts, self._max_delay, random.random()))
            self._attempts += 1
            while self._may_return_locked() and (left := deadline.left()):
                self._changed.wait(left)
            if not self._may_return_locked():
                self._end_locked(frames.ABNORMAL, "closed here")
                return False
        return True

    def _may_return_locked(self) -> bool:
        if self._ended:
            return False
        # Who has left comes back only for what was not accepted yet.
        return self._left is None or self._outbox.pending

    def _return_url_locked(self) -> str:
        session = self._session
        wanted = {"history": None, "since": session.resume, "session": session.token}
        if self._new_name is not None:
            wanted["name"] = self._new_name[0]
        return dialer.complete_url(self.url, wanted)

    def _tell_state(self) -> None:
        """Call back if the state has changed since the last time; no lock is held."""
        state = self._state
        if state != self._told_state:
            self._told_state = state
            _call(self._on_state, state)

    # The client's own thread: one connection.

    def _serve(self, link: Link) -> None:
        """Read a connection to its end, and end it in order."""
        begun = Deadline(STABLE_SECONDS)
        why = "the client has failed"
        self._tell_state()
        try:
            why = self._read(link)
        except OSError as error:
            why = error.strerror or str(error)
        finally:
            with self._lock:
                self._end_link_locked(link, frames.ABNORMAL, why)
                if begun.left() == 0:
                    self._attempts = 0
            link.leave(self._close_timeout)

    def _read(self, link: Link) -> str:
        """Read until the end of the connection; return why it has ended."""
        welcome = Deadline(None if link.welcomed else self._open_timeout)
        while not link.ended:
            quiet = Deadline(QUIET_SECONDS if self._resumes else None)
            try:
                data = link.channel.recv(quiet if link.welcomed else welcome)
            except TimeoutError:
                if not link.welcomed:
                    return f"no welcome in {self._open_timeout:g} s"
                if link.pinged:
                    return "no answer to a ping"
                with self._lock:
                    link.ping_locked()
                continue
            if not data:
                return "the stream has ended without a Close"
            link.pinged = False
            self._take(link, data)
        return ""

    def _take(self, link: Link, data: bytes) -> None:
        """Queue what arrived; answer what wants an answer."""
        came, failure = self._decode(link, data)
        troubles: list[SendRefused] = []
        with self._lock:
            for opcode, event, size in came:
                if opcode == frames.PING:
                    link.pong_locked(event)
                elif opcode == frames.CLOSE:
                    self._end_link_locked(link, *link.answer_close_locked(event))
                elif isinstance(event, Message):
                    if self._session.take_message(event):
                        self._inbox.put_locked(event, size)
                elif opcode != frames.PONG:
                    self._take_event_locked(link, event, size, troubles)
            if failure is not None:
                link.close_locked(failure.code, failure.reason, now=True)
                self._end_link_locked(link, frames.ABNORMAL, failure.reason, failure)
        self._tell_state()
        for trouble in troubles:
            _call(self._on_error, trouble)

    def _decode(
        self, link: Link, data: bytes
    ) -> tuple[list[tuple[int, Any, int]], ProtocolError | None]:
        """Return (opcode, payload or event, bytes) of what is complete, and what is wrong then."""
        came: list[tuple[int, Any, int]] = []
        now = None
        for opcode, payload in link.decoder.feed(data):
            event: Any = payload
            if opcode == frames.TEXT or opcode == frames.BINARY:
                if link.events is None:
                    now = now or datetime.datetime.now(datetime.timezone.utc)
                    text = payload.decode("utf-8") if opcode == frames.TEXT else payload
                    event = Message(text, self.room, None, now, None)
                else:
                    try:
                        if opcode == frames.BINARY:
                            raise ProtocolError(1003, "a binary frame where events are spoken")
                        event = link.events.read(payload)
                    except ProtocolError as error:
                        return came, error
                    if event is None:
                        continue
            came.append((opcode, event, len(payload)))
        return came, link.decoder.failure

    def _take_event_locked(
        self,
        link: Link,
        event: Item | Welcome | Ack | Trouble,
        size: int,
        troubles: list[SendRefused],
    ) -> None:
        session = self._session
        if isinstance(event, Ack):
            session.take_ack(event)
            self._outbox.answered_locked(event.ref)
            self._answer_locked(event.ref, event.id)
        elif isinstance(event, Gap):
            logger.warning(
                "%s: messages are lost: %s since %s", self.url, event.reason, event.since
            )
            session.take_gap(event)
            self._inbox.put_locked(event, size)
        elif isinstance(event, Trouble):
            self._take_trouble_locked(event, troubles)
        else:
            if isinstance(event, Welcome):
                event = session.take_welcome(event)
                self._open_locked(link)
            else:
                assert isinstance(event, Presence)
                session.take_presence(event)
                if event.kind == "members":
                    self._asked = None
                elif session.incomplete:
                    self._ask_locked()
            if self._presence:
                self._inbox.put_locked(event, size)

    def _open_locked(self, link: Link) -> None:
        link.welcomed = True
        if not self._ended:
            self._state = "open"
        self._changed.notify_all()
        if self._new_name is not None and self._new_name[0] != self._session.name:
            self._tell_locked(client_events.encode_name(self._new_name[0]))

    def _take_trouble_locked(self, event: Trouble, troubles: list[SendRefused]) -> None:
        if event.ref is not None and event.ref == self._asked:
            self._asked = None
        item = self._outbox.answered_locked(event.ref)
        data = None if item is None else client_events.data_of(item.payload)
        refusal = SendRefused(event.code, event.detail, data)
        logger.warning("%s: the hub does not take a message: %s", self.url, refusal)
        if not self._answer_locked(event.ref, refusal):
            self._refused.append(refusal)
            troubles.append(refusal)

    def _answer_locked(self, ref: int | str | None, answer: str | SendRefused) -> bool:
        """Give an answer to the publish() that waits for it; return whether there is one."""
        if ref not in self._answers:
            return False
        assert isinstance(ref, int)
        self._answers[ref] = answer
        self._changed.notify_all()
        return True

    def _end_link_locked(
        self, link: Link, code: int, reason: str, failure: ProtocolError | None = None
    ) -> None:
        """Note how a connection has ended, and whether another one follows it."""
        if link.ended:
            return
        link.end_locked()
        returns = (
            self._resumes
            and self._session.resume is not None
            and failure is None
            and code in RETURN_CODES
            and not link.echoed
            and self._may_return_locked()
        )
        if returns:
            logger.info("%s: connection lost, coming back: %d %s", self.url, code, reason)
            self._state = "waiting"
        else:
            self._end_locked(code, reason, failure)


def back_off(attempts: int, limit: float, chance: float) -> float:
    """Return the seconds to wait before the next attempt: exponential, with full jitter.

    Args:
        attempts: how many have gone before.
        limit: the longest pause.
        chance: a random number from 0 to 1, so that not all clients come back at once.
    """
    return min(limit, FIRST_DELAY_SECONDS * 2.0 ** min(attempts, 32)) * chance


def _checked_id(since: str) -> str:
    try:
        parse_id(since)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return since


def _checked_history(history: int) -> int:
    if type(history) is not int or history < 0:
        raise UsageError(f"history must be a whole number from 0, not {history!r}")
    return history


def _call(callback: Callable[[Any], object] | None, argument: object) -> None:
    """Run a user's callback: what it raises is logged."""
    if callback is not None:
        try:
            callback(argument)
        except Exception:
            logger.exception("a callback has failed")
