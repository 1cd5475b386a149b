"""What the threads of one client share: settings, queues, and the state that its lock guards.

``BroadcastClient`` (client/client.py) changes it from the user's threads, ``ClientLife``
(client/loop.py) from the client's own one.
"""

from __future__ import annotations

import collections
import itertools
import os
import socket
import ssl
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping

from ..errors import BroadcastServerError, ConnectionClosed, SendRefused
from ..records import get_logger
from ..transport.deadlines import Deadline
from ..wire import client_events, frames
from . import dialer
from .link import Link
from .membership import Membership
from .queues import Inbox, Outbox, Outgoing

# How often who waits looks whether waiting is still of use.
LOOK_SECONDS = 0.25
MAX_REFUSED = 100
MAX_REFUSED_BYTES = 4 * 1024 * 1024

logger = get_logger("broadcast_server.client")


class ClientCore:
    """One client's state.

    Args:
        url: the address, complete.
        room: the room's path as far as the URL tells it.
        name: what the client calls itself.
        context: what TLS handshakes are made with; None where there are none.
        (the others as for ``BroadcastClient``)
    """

    def __init__(
        self,
        url: str,
        room: str,
        name: str | None,
        *,
        presence: bool,
        reconnect: bool,
        max_reconnect_delay: float,
        headers: Mapping[str, str],
        context: ssl.SSLContext | None,
        wait: float,
        open_timeout: float,
        close_timeout: float,
        max_message_bytes: int,
        max_queued_bytes: int,
        on_state: Callable[[str], object] | None,
        on_error: Callable[[SendRefused], object] | None,
    ) -> None:
        self.url = url
        self.presence = presence
        self.reconnect = reconnect
        self.max_delay = max_reconnect_delay
        self.headers = headers
        self.context = context
        self.wait = wait
        self.open_timeout = open_timeout
        self.close_timeout = close_timeout
        self.max_message_bytes = max_message_bytes
        self.max_queued_bytes = max_queued_bytes
        self.on_state = on_state
        self.on_error = on_error
        self.refs = itertools.count(1)  # next() is one step, whatever the number of threads
        self._begin_empty()
        self.membership = Membership(room, name or None)
        self.state = "closed"
        self.connecting = False  # connect() was called, and has not failed
        self.speaks = False  # the server speaks events
        self.thread: threading.Thread | None = None  # the client's own
        # Whether it runs. It says so itself: for Python before 3.13 a thread has ended once Ctrl-C
        # has interrupted a `join` of it (CPython issue 90882).
        self.is_living = False
        self.link: Link | None = None  # the newest connection
        self.dialing: dialer.Dialing | None = None  # the attempt to come back
        # What rename() asked for, and the ref of that.
        self.new_name: tuple[str | None, int] | None = None
        self.asked: int | None = None  # ref of a "who" that has no answer
        self.refused: collections.deque[SendRefused] = collections.deque(maxlen=MAX_REFUSED)
        self.left: tuple[int, str] | None = None  # close() was called, with that code and reason
        self.is_given_up = False  # Ctrl-C has interrupted close()
        self.ended = False  # no more messages come, on no connection
        self.close_code: int | None = None
        self.close_reason = ""
        self.timed_out = False  # close() has given up
        self.failure: BroadcastServerError | None = None  # why, if not by a Close
        _clients[id(self)] = self

    def _begin_empty(self) -> None:
        """Be a client to which nothing has come, and which sends nothing."""
        # A key is never used by anybody else, and not twice by us.
        self.key_prefix = uuid.uuid4().hex
        # Guards everything below, the fields that __init__ adds, and the `Link`. A single one of
        # them, such as the state, is read without it where what it was a moment ago will do.
        # Nobody takes it twice. But a plain lock that a condition takes again after a wait can be
        # interrupted by Ctrl-C, is then released without having been taken, and so taken away from
        # the thread that holds it; this one cannot.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)  # the state, an answer, an end
        self.inbox = Inbox(self.lock)
        self.outbox = Outbox(self.lock, self.max_queued_bytes)
        # The answers that publish() waits for, by ref: None, an id, or an exception.
        self.answers: dict[int, str | BroadcastServerError | None] = {}

    def leave_to_parent(self) -> None:
        """Be ended, in a forked child: the threads, the messages and the connection are the
        parent's. A client that was not connected may be.

        What is inherited may be locked by threads that the child does not have.
        """
        self._begin_empty()
        with self.lock:
            self.is_living = False
            if self.dialing is not None:
                self.dialing.leave_to_parent()
                self.dialing = None
            if self.link is not None:
                self.link.leave_to_parent(self.lock, self.outbox)
            if self.connecting and not self.ended:
                self.reconnect = False
                self.end_locked(frames.ABNORMAL, "the connection is that of the parent process")

    def dial(self, url: str, session: str | None = None) -> dialer.Dialing:
        """Return an attempt to connect, not begun yet; with a session, to come back with it."""
        return dialer.Dialing(
            url,
            self.headers,
            client_events.SUBPROTOCOL,
            self.open_timeout,
            session=session,
            shown=self.url,
            context=self.context,
        )

    def make_link(self, sock: socket.socket, chosen: str | None) -> Link:
        """Return what `dial` gave as a connection; its writer is not started."""
        with_events = chosen == client_events.SUBPROTOCOL
        return Link(sock, self.lock, self.outbox, self.max_message_bytes, with_events, self.url)

    def end_life_locked(self) -> None:
        """Note that the client's own thread ends, for whatever reason."""
        self.end_locked(frames.ABNORMAL, "the client has failed")
        if not self.resumes:
            self.outbox.clear_locked()  # else close() still has to look into it

    def await_thread(self, deadline: Deadline) -> bool:
        """Wait for the end of the client's own thread; return whether it has come. Any other
        thread; no lock is held."""
        with self.lock:
            while self.is_living and (left := deadline.left()) != 0:
                self.changed.wait(left)
            return not self.is_living

    def forget_locked(self) -> None:
        """Be as before connect()."""
        # Who waits for one may not have seen the end, which is forgotten now.
        self.answers = dict.fromkeys(self.answers, self.closed_locked())
        self.ended = self.connecting = False
        self.link = self.thread = self.failure = self.close_code = None
        self.close_reason = ""
        self.outbox.clear_locked()

    @property
    def resumes(self) -> bool:
        """Whether the client comes back by itself."""
        return self.reconnect and self.speaks

    def is_own_thread(self) -> bool:
        """Whether a callback asks."""
        return threading.current_thread() is self.thread

    def may_send_locked(self) -> bool:
        """Whether what is queued may still be sent."""
        if self.left is not None or self.ended or self.link is None:
            return False
        return self.resumes or self.link.writing

    def may_return_locked(self) -> bool:
        """Whether a new connection is wanted."""
        if self.ended:
            return False
        # Who has left comes back only for what was not accepted yet.
        return self.left is None or self.outbox.pending

    def closed_locked(self) -> ConnectionClosed:
        """Return what to raise when there is no connection any more, or none yet."""
        if self.link is None:
            return ConnectionClosed(frames.ABNORMAL, "not connected")
        if self.close_code is None:
            return ConnectionClosed(frames.ABNORMAL, "closed here" if self.left else "lost")
        return ConnectionClosed(self.close_code, self.close_reason)

    def ending_locked(self) -> BroadcastServerError:
        """Return what to raise when there is nothing more to receive."""
        # It is raised again and again: each time it would keep one more frame of each caller.
        return self.failure.with_traceback(None) if self.failure else self.closed_locked()

    def rename_locked(self, name: str | None) -> None:
        """Ask for another name, now or when there is a connection."""
        self.new_name = (name, next(self.refs))
        self.tell_locked(client_events.encode_name(*self.new_name))

    def tell_locked(self, payload: bytes) -> None:
        """Queue an event that a new connection would make needless."""
        if self.state == "open":
            self.outbox.put_locked(Outgoing(frames.TEXT, payload, None))

    def ask_locked(self) -> None:
        """Ask who is here, unless that is asked already, or the hub takes nothing at present: it
        could have us ask again and again."""
        if self.asked is None and not self.outbox.full:
            self.asked = next(self.refs)
            self.tell_locked(client_events.encode_who(self.asked))

    def end_locked(
        self, code: int, reason: str, failure: BroadcastServerError | None = None
    ) -> None:
        """Note how the client has ended; the first to know counts."""
        if not self.ended:
            self.ended = True
            self.close_code, self.close_reason = code, reason
            self.failure = failure
            self.state = "closed"
            self.changed.notify_all()
            self.inbox.arrived.notify_all()
            self.outbox.space.notify_all()

    def await_room_locked(self, deadline: Deadline) -> None:
        """Wait until something may be queued.

        Raises:
            TimeoutError: there was no room in time.
            ConnectionClosed: there never will be.
        """
        if self.is_own_thread():
            deadline = Deadline(0)  # a callback would wait for itself
        while self.may_send_locked() and self.outbox.full:
            self.wait_locked(
                self.outbox.space,
                deadline,
                "the peer does not take the messages",
                for_answer=self.resumes,
            )
        if not self.may_send_locked():
            raise self.closed_locked()

    def wait_locked(
        self, condition: threading.Condition, deadline: Deadline, what: str, *, for_answer: bool
    ) -> None:
        """Wait a while for what depends on the hub.

        Args:
            condition: what to wait for.
            deadline: until when.
            what: has not happened.
            for_answer: whether the hub must answer before it can.

        Raises:
            TimeoutError: it is too late, or waiting is in vain: the answers are behind messages
                that nobody receives.
        """
        left = deadline.left()
        if left == 0:
            raise TimeoutError(f"{what} in time")
        if for_answer and self.inbox.stalled_seconds() > self.close_timeout:
            raise TimeoutError(f"{what}: nobody receives, and no more messages can be queued")
        condition.wait(LOOK_SECONDS if left is None else min(LOOK_SECONDS, left))

    def accepted_locked(self) -> bool:
        """Whether the hub is known to have taken all that was sent."""
        if self.refused or self.link is None:
            return False
        return not self.outbox.pending if self.resumes else self.link.echoed

    def refused_locked(self, refusal: SendRefused) -> None:
        """Keep what the hub has refused, for who asks: the last ones, within bounds."""
        self.refused.append(refusal)
        size = sum(len(kept.data or "") for kept in self.refused)
        while size > MAX_REFUSED_BYTES and len(self.refused) > 1:
            size -= len(self.refused.popleft().data or "")

    def answer_locked(self, ref: int | str | None, answer: str | SendRefused) -> bool:
        """Give an answer to the publish() that waits for it; return whether there is one."""
        if ref not in self.answers:
            return False
        assert isinstance(ref, int)
        self.answers[ref] = answer
        self.changed.notify_all()
        return True


# Not a WeakSet: to go through one fails when another thread adds to it meanwhile.
_clients: weakref.WeakValueDictionary[int, ClientCore] = weakref.WeakValueDictionary()


def all_clients() -> list[ClientCore]:
    """Return the clients of this process, ended or not. Any thread."""
    return [core for core in (ref() for ref in _clients.valuerefs()) if core is not None]


def _leave_all_to_parent() -> None:
    for core in all_clients():
        core.leave_to_parent()


if hasattr(os, "register_at_fork"):  # else no process forks
    os.register_at_fork(after_in_child=_leave_all_to_parent)
