"""Those who join a room, by WebSocket, plain or with JSON events, or by server-sent events.

Each of them comes and goes at random, in order and not, stalls, reads in sips, and resumes by id
where it can. What it reads is checked by its track; what the hub says of itself is checked here.
"""

from __future__ import annotations

import abc
import json
import urllib.parse
from typing import Any

from ..support import CLOSE, PING, PONG, TEXT, client_frame
from .driver import Driver
from .order import Order, Violation, pack_id, unpack_id
from .peers import Peer, http_head, upgrade
from .track import Track
from .wire import Events, Frames, Head, data_of, key_of

# How long it stays before it does something else, on the average; how long it may stall.
STAY_SECONDS = 25.0
STALL_SECONDS = (1.0, 45.0)
AWAY_SECONDS = 4.0
# What one that sips reads, and how often.
_SIP_BYTES = 700
_SIP_SECONDS = 0.1
# Those who may stall, of all.
_SMALL_SHARE = 0.2


class Member(Peer):
    """What members of all kinds have in common.

    Attributes:
        here: it is in the room and nothing has ended that yet.
        sender: the number by which its messages are known; None if it only reads.
    """

    kind = ""
    may_stall = True

    def __init__(self, driver: Driver, order: Order, *, speaks: bool) -> None:
        super().__init__(driver)
        self.order = order
        self.speaks = speaks
        self.here = False
        self.sender: int | None = None
        self.track = self._new_track()
        self._head: Head | None = None
        self._leaving = False  # Close is sent, or the end of the stream
        self._left_at: int | None = None  # the length of the order when it said Close
        self._small = False  # only such a one stalls
        self._stalled = False  # in this connection: the hub may give up on it
        self._told = False  # why the connection ends
        self._received = 0  # in this connection
        self._visit = 0  # a plan of an earlier connection is none

    def _new_track(self) -> Track:
        return Track(self.order, f"{self.kind} in {self.order.path}", self.driver.note_latency)

    def __repr__(self) -> str:
        sender = "" if self.sender is None else f" {self.sender}"
        where = "here" if self.here else "leaving" if self._leaving else "not here"
        return f"<{self.kind}{sender}, {where}, in {self.order.path}>"

    @property
    def is_up_to_date(self) -> bool:
        """Whether it is here and has got all that there is."""
        return self.here and self.track.is_up_to_date

    # -- Coming and going ----------------------------------------------------------------------

    def join(self) -> None:
        """Connect: where it stopped, if it knows where that was."""
        if self.sock is not None or self.driver.over:
            return
        if not self.track.is_settled:
            # It may know its last id in a moment.
            self.driver.after(0.2, self.join)
            return
        driver = self.driver
        self._visit += 1
        self.here = self._leaving = self._stalled = self._told = False
        self._left_at = None
        self._received = 0
        self._head = Head()
        self._small = self.may_stall and not driver.quiet and driver.chance(_SMALL_SHARE)
        self.track.in_time = not self._small
        driver.counts["resumes" if self.track.last is not None else "joins"] += 1
        self.open(self._request(), small=self._small)

    @abc.abstractmethod
    def _request(self) -> bytes:
        """Return what it asks for when it joins."""

    def start_afresh(self) -> None:
        """Forget where it was."""
        self.track = self._new_track()

    def come_back(self, *, afresh: bool = False) -> None:
        """Join again, soon."""
        self.here = False
        if self.driver.over:
            return
        if afresh:
            self.start_afresh()
        self.driver.after(0 if self.driver.quiet else self.driver.pause(AWAY_SECONDS), self.join)

    def _settle_in(self) -> None:
        """It has been let in: go on from here."""
        self.here = True
        self.track.joined(self.driver.tick)
        self._plan()

    def _plan(self) -> None:
        visit = self._visit
        self.driver.after(
            self.driver.pause(STAY_SECONDS), lambda: self._act() if visit == self._visit else None
        )

    def _act(self) -> None:
        """Do one of the things that clients do."""
        driver = self.driver
        if driver.quiet or not self.here or self._leaving:
            return
        if self._small and driver.chance(0.8):
            self._stall()
        else:
            act = driver.random.choice(self._acts())
            driver.counts[act] += 1
            getattr(self, f"_{act}")()
        if self.here and not self._leaving:
            self._plan()

    def _acts(self) -> list[str]:
        return ["vanish", "stay"]

    def _stay(self) -> None:
        """Do nothing."""

    def _vanish(self) -> None:
        """Break the connection off and come back to where it was."""
        self.reset()
        self.come_back()

    def _stall(self) -> None:
        """Read nothing for a while, or little."""
        visit = self._visit
        self._stalled = True
        seconds = self.driver.random.uniform(*STALL_SECONDS) / self.driver.haste
        if self.driver.chance(0.3):
            self.driver.counts["sips"] += 1
            self._sip(visit, self.driver.now + seconds)
        else:
            self.driver.counts["stalls"] += 1
            self.read_slowly(0)
            self.driver.after(seconds, lambda: self.wake(visit))

    def _sip(self, visit: int, until: float) -> None:
        """Read a little each time."""
        if visit != self._visit or self.sock is None:
            return
        if self.driver.now >= until or self.driver.quiet:
            self.wake(visit)
            return
        self.read_slowly(_SIP_BYTES)
        # What has come is taken at the next turn of the loop; then it waits again.
        self.driver.after(0.001, lambda: self.read_slowly(0) if visit == self._visit else None)
        self.driver.after(_SIP_SECONDS, lambda: self._sip(visit, until))

    def wake(self, visit: int | None = None) -> None:
        """Read again."""
        if visit in (None, self._visit) and self.sock is not None:
            self.read_slowly(1 << 16)

    # -- What comes ----------------------------------------------------------------------------

    def on_data(self, data: bytes) -> None:
        """Take the answer to its request, and what comes behind it."""
        if self._head is not None:
            rest = self._head.feed(data)
            if rest is None:
                return
            head, self._head = self._head, None
            if not self._take_head(head):
                return
            self._settle_in()
            data = rest
        if data:
            self._take(data)

    def _take_head(self, head: Head) -> bool:
        """Look at the answer; return whether it is let in."""
        # Whoever reads server-sent events is refused for now with 200.
        if head.status == 503 or (head.status == 200 and "retry-after" in head.headers):
            if "retry-after" not in head.headers:
                raise Violation(f"{self}: 503 without Retry-After")
            self.driver.counts["503"] += 1
            self.close()
            self.come_back()
            return False
        raise Violation(f"{self} got the status {head.status}")

    @abc.abstractmethod
    def _take(self, data: bytes) -> None:
        """Take what comes behind the answer to its request."""

    def _message(self, data: str | bytes, id: int | None) -> int:
        """Take a message; return who has sent it."""
        key, _ = key_of(data)
        self._received += 1
        self.driver.counts["received"] += 1
        self.track.message(key, id, self.driver.now)
        return key >> 32

    def _sent_away(self) -> None:
        """The hub has given up on it: it has not read, or its buffers are too small for a burst, or
        what it has asked for was trimmed before it got anything of it."""
        if not self._small:
            if self._received:
                raise Violation(f"{self} was sent away and has always read")
            self._claimed_trimmed()

    def _claimed_trimmed(self) -> None:
        driver = self.driver
        self.order.claim_trimmed(self.track.place, driver.tick, driver.now, repr(self))

    def on_end(self, error: OSError | None) -> None:
        """Come back, if the connection might end."""
        self.here = False
        if not (self._told or self._stalled or self._leaving):
            raise Violation(f"{self} was cut off: {error or 'end of stream'}")
        self.come_back(afresh=self._leaving and not self._stalled)


class StreamMember(Member):
    """A reader of server-sent events."""

    kind = "sse"

    def __init__(self, driver: Driver, order: Order, *, as_json: bool) -> None:
        super().__init__(driver, order, speaks=False)
        self._as_json = as_json
        self._events = Events()
        self._begun = False
        self._asked: int | None = None  # after which id it wants to go on

    def _request(self) -> bytes:
        self._events = Events()
        self._begun = False
        self._asked = self.track.last
        query = ["format=json"] if self._as_json else []
        headers = ["Accept: text/event-stream"]
        if self.track.last is not None:
            self.track.resume(None, self.track.last)
            headers.append(f"Last-Event-ID: {unpack_id(self.track.last)}")
        else:
            history = self.driver.random.choice((0, 0, 5))
            query += [f"history={history}"] if history else []
            self.track.begin(None, history)
        return http_head(f"GET {self.order.path}?{'&'.join(query)}", headers)

    def _take_head(self, head: Head) -> bool:
        if head.status == 200 and "retry-after" not in head.headers:
            if head.headers.get("content-type", "").partition(";")[0] != "text/event-stream":
                raise Violation(f"{self} got no stream: {head.headers}")
            return True
        return super()._take_head(head)

    def _take(self, data: bytes) -> None:
        for fields in self._events.feed(data):
            kind = fields.get("event", "message")
            if not self._begun:
                # So long it would wait if it lost the hub without a last word.
                if set(fields) != {"retry"}:
                    raise Violation(f"{self} was not told first how long to wait: {fields}")
                self._begun = True
            elif set(fields) == {"id"}:
                if self._asked not in (None, pack_id(fields["id"])):
                    raise Violation(f"{self} asked for another id than {fields}")
            elif "retry" in fields:
                self._sent_away()
                self._told = True
                self.driver.counts["evicted"] += 1
            elif kind == "gap":
                self.driver.counts["gaps"] += 1
                after = pack_id(json.loads(fields["data"])["after"])
                self.track.gap(after, self.driver.tick, self.driver.now)
            elif self._as_json:
                self._message(data_of(json.loads(fields["data"])), pack_id(fields["id"]))
            else:
                data_or_text: dict[str, Any] = {
                    "data_base64" if kind == "binary" else "data": fields["data"]
                }
                self._message(data_of(data_or_text), pack_id(fields["id"]))


class SocketMember(Member):
    """A member by WebSocket; see also ``senders``."""

    def __init__(self, driver: Driver, order: Order, *, speaks: bool) -> None:
        super().__init__(driver, order, speaks=speaks)
        self._frames = Frames()

    def _target(self, **query: str | int) -> bytes:
        self._frames = Frames()
        return upgrade(f"{self.order.path}?{urllib.parse.urlencode(query)}", self._headers())

    def _headers(self) -> list[str]:
        return [f"Authorization: Bearer {self.driver.token}"] if self.speaks else []

    def _acts(self) -> list[str]:
        return ["vanish", "stay", "leave", "end", "break_off"]

    def _leave(self) -> None:
        """Make the closing handshake; all that was there before must come first."""
        self._leaving = True
        self._left_at = len(self.order)
        self.write(client_frame(CLOSE, b"\x03\xe8"))

    leave = _leave

    def _end(self) -> None:
        """End its side of the stream without a word. What it has sent must arrive."""
        if self.has_sent_all:
            self._leaving = True
            self.end_stream()

    def _break_off(self) -> None:
        """Vanish in the middle of a frame."""
        self.write(client_frame(TEXT, b"x" * 50)[:20])
        self._vanish()

    def _take_head(self, head: Head) -> bool:
        return True if head.status == 101 else super()._take_head(head)

    def _take(self, data: bytes) -> None:
        for opcode, payload in self._frames.feed(data):
            if opcode == CLOSE:
                self._closed(int.from_bytes(payload[:2], "big"), payload[2:].decode())
                return
            if opcode == PING:
                self.write(client_frame(PONG, payload))
            elif opcode == PONG:
                raise Violation(f"{self} got a pong that it has not asked for")
            else:
                self._frame(payload.decode() if opcode == TEXT else payload)
            if self.sock is None:
                return

    @abc.abstractmethod
    def _frame(self, data: str | bytes) -> None:
        """Take what is in a data frame."""

    def _closed(self, code: int, reason: str) -> None:
        """Take the hub's Close; the end of the stream follows."""
        self.here = False
        self._told = True
        if code == 1013:
            self.driver.counts["evicted"] += 1
            self._sent_away()
            self.track.reached(pack_id(reason.removeprefix("since=")), exactly=True)
            self._leaving = False
        elif code == 1011 and reason == "ping timeout" and self._stalled:
            self.driver.counts["ping time-outs"] += 1
            self._leaving = False
        elif code == 1000 and self._leaving:
            self.track.complete(self._left_at)
            self._all_sent()
            self.driver.counts["left in order"] += 1
        else:
            raise Violation(f"{self} got Close {code} {reason!r}")

    def _all_sent(self) -> None:
        """All that it has sent was taken."""
