"""A client's own thread: it reads one connection after the other, and comes back in between.

It queues what comes, and answers what wants an answer. When a connection is lost that may come
back, it waits for a pause drawn at random, so that not all clients of a hub return at once, and
connects as the same client, from the last message that has come. What was not acknowledged goes out
again with the same keys. The user's callbacks run here, with no lock held.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from typing import Any

from ..errors import ConnectFailed, ProtocolError, SendRefused
from ..messages import Gap, Message, Presence
from ..records import get_logger
from ..transport import tls
from ..transport.deadlines import Deadline
from ..wire import client_events, frames, urls
from ..wire.client_events import SUBPROTOCOL, Ack, Renewal, Trouble, Welcome
from .core import ClientCore
from .link import Link
from .queues import Item, held_bytes
from .retries import RETURN_CODES, back_off

# A connection that has lasted so long was a good one: the pauses begin anew.
STABLE_SECONDS = 10.0
# After so long a silence the peer is asked whether it is there, which also keeps proxies from
# cutting the connection off; after another one it is not there, for a client that can come back.
QUIET_SECONDS = 30.0
# How long a peer that says goodbye may take to end the stream. Who has more patience with one that
# is silent (`close_timeout`) does not want to come back later for that.
LEAVE_SECONDS = 5.0
# Refusals that will not change by asking again.
FINAL_STATUSES = frozenset({400, 401, 403, 404, 410, 421})

logger = get_logger("broadcast_server.client")


class ClientLife:
    """What the thread does. Its methods run there.

    Args:
        core: what it shares with the user's threads.
        link: the first connection.
    """

    def __init__(self, core: ClientCore, link: Link) -> None:
        self._core = core
        self._first = link
        self._told_state = "connecting"
        self._attempts = 0  # to come back, since a connection that has lasted
        self._is_hurried = False  # has come back without a pause, for close()
        self._wished_pause = 0.0  # what the hub has asked for when it refused the last one

    # Connection after connection.

    def run(self) -> None:
        """Serve connection after connection, to the end."""
        following: Link | None = self._first
        try:
            while following is not None:
                self._serve(following)
                following = self._come_back()
        finally:
            with self._core.lock:
                self._core.end_life_locked()
            try:
                self._tell_state()
            finally:
                with self._core.lock:
                    self._core.is_living = False
                    self._core.changed.notify_all()

    def _come_back(self) -> Link | None:
        """Connect again as the same client, as often as it takes; None when that is over."""
        while self._pause():
            with self._core.lock:
                if not self._core.may_return_locked():
                    continue
                url = self._return_url_locked()
                dialing = self._core.dialing = self._core.dial(url, self._core.membership.token)
                self._core.state = "connecting"
            self._tell_state()
            link = None
            try:
                sock, chosen = dialing.dial()
                link = self._core.make_link(sock, chosen)
                with self._core.lock:
                    self._begin_locked(link)
                return link
            except (ConnectFailed, RuntimeError) as error:  # RuntimeError: no thread is to be had
                self._note_failure(error)
                if link is not None:
                    link.channel.close()
            finally:
                with self._core.lock:
                    self._core.dialing = None
            self._tell_state()
        return None

    def _note_failure(self, error: ConnectFailed | RuntimeError) -> None:
        """Decide whether an attempt that has failed is followed by another one, and when."""
        logger.info("%s: cannot come back: %s", self._core.url, error)
        with self._core.lock:
            if isinstance(error, ConnectFailed):
                self._wished_pause = error.retry_after or 0.0
                is_refused = tls.is_refused(error.__cause__)
                if error.untrusted or is_refused or error.status in FINAL_STATUSES:
                    self._core.end_locked(frames.ABNORMAL, str(error), error)
            if not self._core.ended:
                self._core.state = "waiting"

    def _begin_locked(self, link: Link) -> None:
        """Let a new connection take the place of the old one."""
        if not self._core.may_return_locked():
            raise ConnectFailed(f"{self._core.url}: closed while it connected")
        if link.events is None:
            error = ConnectFailed(
                f"{self._core.url}: the server does not speak {SUBPROTOCOL} any more"
            )
            self._core.end_locked(frames.ABNORMAL, str(error), error)
            raise error
        link.start_locked()
        if self._core.left is not None:
            link.close_locked(*self._core.left)
        self._core.link = link

    def _pause(self) -> bool:
        """Wait before the next attempt; return False if there is none."""
        self._tell_state()
        with self._core.lock:
            at_least, self._wished_pause = self._wished_pause, 0.0
            pause = back_off(self._attempts, self._core.max_delay, random.random(), at_least)
            self._attempts += 1
            deadline = Deadline(pause)
            while self._core.may_return_locked() and (left := deadline.left()):
                # Who closes waits for what is pending, and not for long: once it is tried at once.
                if self._core.left is not None and not (self._is_hurried or at_least):
                    self._is_hurried, self._attempts = True, 0
                    break
                self._core.changed.wait(left)
            if not self._core.may_return_locked():
                self._core.end_locked(frames.ABNORMAL, "closed here")
                return False
        return True

    def _return_url_locked(self) -> str:
        membership = self._core.membership
        wanted = {"history": None, "since": membership.resume, "session": None}
        if self._core.new_name is not None:
            wanted["name"] = self._core.new_name[0]
        return urls.with_parameters(urls.split(self._core.url), wanted).geturl()

    def _tell_state(self) -> None:
        """Call back if the state has changed since the last time; no lock is held."""
        state = self._core.state
        if state != self._told_state:
            self._told_state = state
            _call(self._core.on_state, state)

    # One connection.

    def _serve(self, link: Link) -> None:
        """Read a connection to its end, and end it in order."""
        begun = Deadline(STABLE_SECONDS)
        why = "the client has failed"
        try:
            self._tell_state()
            why = self._read(link)
        except OSError as error:
            why = error.strerror or str(error)
        finally:
            with self._core.lock:
                self._end_link_locked(link, frames.ABNORMAL, why)
                if begun.left() == 0:
                    self._attempts = 0
            link.leave(min(LEAVE_SECONDS, self._core.close_timeout))
            with self._core.lock:
                if self._core.resumes:
                    self._core.outbox.rewind_locked()  # the writer has ended

    def _read(self, link: Link) -> str:
        """Read until the end of the connection; return why it has ended."""
        welcome = Deadline(None if link.welcomed else self._core.open_timeout)
        while not link.ended:
            quiet = Deadline(QUIET_SECONDS)
            try:
                data = link.channel.recv(quiet if link.welcomed else welcome)
            except TimeoutError:
                if not link.welcomed:
                    return f"no welcome in {self._core.open_timeout:g} s"
                if link.pinged and self._core.resumes:
                    return "no answer to a ping"
                with self._core.lock:
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
        with self._core.lock:
            for opcode, event, size in came:
                if opcode == frames.PING:
                    link.pong_locked(event)
                elif opcode == frames.CLOSE:
                    self._end_link_locked(link, *link.answer_close_locked(event))
                elif isinstance(event, Message):
                    if self._core.membership.take_message(event):
                        self._core.inbox.put_locked(event, held_bytes(event, size))
                elif opcode != frames.PONG:
                    self._take_event_locked(link, event, size, troubles)
            if failure is not None:
                link.close_locked(failure.code, failure.reason, now=True)
                self._end_link_locked(link, frames.ABNORMAL, failure.reason, failure)
        self._tell_state()
        for trouble in troubles:
            _call(self._core.on_error, trouble)

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
                    event = Message(text, self._core.membership.room, None, now, None)
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
        event: Item | Welcome | Renewal | Ack | Trouble,
        size: int,
        troubles: list[SendRefused],
    ) -> None:
        membership = self._core.membership
        if isinstance(event, Ack):
            membership.take_ack(event)
            self._core.outbox.answered_locked(event.ref)
            self._core.answer_locked(event.ref, event.id)
        elif isinstance(event, Gap):
            logger.info("%s: lost after %s: %s", self._core.url, event.since, event.reason)
            membership.take_gap(event)
            self._core.inbox.put_locked(event, held_bytes(event, size))
        elif isinstance(event, Trouble):
            self._take_trouble_locked(event, troubles)
        elif isinstance(event, Renewal):
            membership.token = event.session
        else:
            if isinstance(event, Welcome):
                event = membership.take_welcome(event)
                self._open_locked(link)
            else:
                assert isinstance(event, Presence)
                membership.take_presence(event)
                if event.kind == "members":
                    self._core.asked = None
                elif membership.incomplete:
                    self._core.ask_locked()
            if self._core.presence:
                self._core.inbox.put_locked(event, held_bytes(event, size))

    def _open_locked(self, link: Link) -> None:
        link.welcomed = True
        if not self._core.ended:
            self._core.state = "open"
        self._core.changed.notify_all()
        # The list of who is here answers what was asked before, also while we connected.
        self._core.asked = None
        # The hub may have kept the old name with the session: no name is in no query.
        if self._core.new_name is not None and self._core.new_name[0] != self._core.membership.name:
            self._core.tell_locked(client_events.encode_name(*self._core.new_name))

    def _take_trouble_locked(self, event: Trouble, troubles: list[SendRefused]) -> None:
        if event.ref is not None and event.ref == self._core.asked:
            self._core.asked = None
        if self._core.new_name is not None and event.ref == self._core.new_name[1]:
            # We come back as who we are: a hub may not let us in under a name that it refuses.
            self._core.new_name = (self._core.membership.name, event.ref)
        item = self._core.outbox.answered_locked(event.ref)
        data = None if item is None else client_events.data_of(item.payload)
        refusal = SendRefused(event.code, event.detail, data)
        if not self._core.answer_locked(event.ref, refusal):
            self._core.refused_locked(refusal)
            troubles.append(refusal)
            if self._core.on_error is None:  # else somebody is told
                logger.warning("%s: the hub does not take a message: %s", self._core.url, refusal)

    def _end_link_locked(
        self, link: Link, code: int, reason: str, failure: ProtocolError | None = None
    ) -> None:
        """Note how a connection has ended, and whether another one follows it."""
        if link.ended:
            return
        link.end_locked()
        returns = (
            self._core.resumes
            and self._core.membership.resume is not None
            and failure is None
            and code in RETURN_CODES
            and not link.echoed
            and self._core.may_return_locked()
        )
        if returns:
            logger.info("%s: connection lost, coming back: %d %s", self._core.url, code, reason)
            self._core.state = "waiting"
        else:
            self._core.end_locked(code, reason, failure)


def _call(callback: Callable[[Any], object] | None, argument: object) -> None:
    """Run a user's callback: what it raises is logged."""
    if callback is not None:
        try:
            callback(argument)
        except Exception:
            logger.exception("a callback has failed")
