"""Members that may speak: plain ones, those with JSON events, and the referee of a room."""

from __future__ import annotations

import abc
import json
from typing import Any

from ..support import BINARY, TEXT, client_frame
from .driver import Driver
from .members import SocketMember
from .order import Order, Violation, make_key, pack_id, unpack_id
from .wire import data_of, key_of, payload_of, send_event

_SIZES = (1, 20, 60, 60, 200, 400)
_BURST_SIZE = 6000
_BURST_SECONDS = 0.004
# A JSON client waits for its acknowledgements when so many are missing.
_WINDOW = 64
# A connection that nobody reads from is left open so long, beside the one that has replaced it.
_GHOST_SECONDS = 20.0


class Speaker(SocketMember):
    """A member that sends now and then.

    Args:
        mean: the seconds between its messages.
    """

    def __init__(self, driver: Driver, order: Order, *, speaks: bool, mean: float) -> None:
        super().__init__(driver, order, speaks=speaks)
        self._mean = mean
        self._seq = 0

    def _settle_in(self) -> None:
        super()._settle_in()
        if self.speaks:
            self._say_later()

    @property
    def may_speak(self) -> bool:
        """Whether it can send now."""
        return self.here and self.speaks and not self._leaving and not self.driver.quiet

    def _say_later(self) -> None:
        visit = self._visit
        self.driver.after(self.driver.pause(self._mean), lambda: self._say_now(visit))

    def _say_now(self, visit: int) -> None:
        if visit == self._visit and self.may_speak:
            self._say(self.driver.random.choice(_SIZES))
            self._say_later()

    def burst(self, count: int) -> None:
        """Send many large messages, one each turn of the loop."""
        if count and self.may_speak:
            self._say(_BURST_SIZE)
            self.driver.after(_BURST_SECONDS, lambda: self.burst(count - 1))

    def flood(self, count: int) -> None:
        """Send many small messages at once."""
        for _ in range(count):
            if self.may_speak:
                self._say(1)

    @abc.abstractmethod
    def _say(self, size: int) -> None:
        """Send one message."""


class PlainMember(Speaker):
    """A member without events. As a sender it is another one each time that it connects."""

    kind = "plain"

    def _request(self) -> bytes:
        driver = self.driver
        query: dict[str, str | int] = {}
        if self.speaks:
            self.sender = driver.new_sender()
            self._seq = 0
            query["name"] = f"s{self.sender}"
        exclude = self.sender
        if driver.chance(0.2):
            query["echo"], exclude = 1, None
        if self.track.last is not None:
            self.track.resume(exclude, self.track.last)
            query["since"] = unpack_id(self.track.last)
        else:
            history = driver.random.choice((0, 0, 5))
            if history:
                query["history"] = history
            self.track.begin(exclude, history)
        return self._target(**query)

    def _take_head(self, head: Any) -> bool:
        if head.status == 410 and self.track.last is not None:
            self._claimed_trimmed()
            self.driver.counts["410"] += 1
            self.close()
            self.come_back(afresh=True)
            return False
        return super()._take_head(head)

    def _frame(self, data: str | bytes) -> None:
        self._message(data, None)

    def _say(self, size: int) -> None:
        assert self.sender is not None
        driver = self.driver
        key = make_key(self.sender, self._seq)
        data = payload_of(self.sender, self._seq, size)
        self._seq += 1
        self.order.sending(key, driver.next_tick(), driver.now, answered=False)
        driver.counts["sent plain"] += 1
        self.write(client_frame(TEXT if isinstance(data, str) else BINARY, data))

    @property
    def is_up_to_date(self) -> bool:
        """Whether all that it has sent has come as well."""
        sent = self.sender is None or self.order.has_all(self.sender, self._seq)
        return super().is_up_to_date and sent

    def _all_sent(self) -> None:
        if self.sender is not None:
            self.order.finished(self.sender, self._seq)

    def on_end(self, error: OSError | None) -> None:
        """What was sent before an end in order must have been taken."""
        if self._leaving and not self._told and not self._stalled and error is None:
            self._all_sent()
        super().on_end(error)


class JsonMember(Speaker):
    """A member with events. It is the same client over all its connections, by its session, and
    what was not acknowledged it sends again."""

    kind = "json"

    def __init__(self, driver: Driver, order: Order, *, speaks: bool, mean: float) -> None:
        super().__init__(driver, order, speaks=speaks, mean=mean)
        self._begin_afresh()

    def _begin_afresh(self) -> None:
        self._id: str | None = None
        self._session: str | None = None
        self._unacked: dict[int, str] = {}
        # Before it knows that it has come back as itself, and has sent again what was not
        # acknowledged, it sends nothing new.
        self._welcomed = False
        self._resent_below = 0
        self._last_ack = 0
        self._asked: int | None = None  # the id that it has asked to go on from
        self._after: int | None = None  # another one was promised: a gap must come
        self._seq = 0
        self.sender = self.driver.new_sender() if self.speaks else None

    def start_afresh(self) -> None:
        """Be another client from now on."""
        super().start_afresh()
        self._begin_afresh()

    def come_back(self, *, afresh: bool = False) -> None:
        """Join again; what was not acknowledged must not be forgotten."""
        super().come_back(afresh=afresh and not self._unacked)

    @property
    def is_up_to_date(self) -> bool:
        """Whether it also knows that the hub has all that it has sent."""
        return super().is_up_to_date and not self._unacked

    def _acts(self) -> list[str]:
        return [*super()._acts(), "haunt"]

    def _haunt(self) -> None:
        """Come back while the old connection is still open: it is replaced."""
        sock = self.leave_behind()
        if sock is not None:
            self.driver.haunt(sock, _GHOST_SECONDS)
        self.come_back()

    def _leave(self) -> None:
        """Not before its `welcome` has come: what it sends again then would be behind its Close,
        where the hub takes nothing any more."""
        if self._welcomed:
            super()._leave()

    # -- Joining -------------------------------------------------------------------------------

    def _headers(self) -> list[str]:
        return ["Sec-WebSocket-Protocol: broadcast.v1.json", *super()._headers()]

    def _request(self) -> bytes:
        driver = self.driver
        query: dict[str, str | int] = {}
        exclude = self.sender
        if self.speaks:
            query["name"] = f"s{self.sender}"
        if driver.chance(0.2):
            query["echo"], exclude = 1, None
        if self._session is not None:
            query["session"] = self._session
        self._welcomed = False
        self._after = None
        self._asked = self.track.last
        if self._asked is not None:
            if exclude is not None:
                # Of who mostly sends the newest acknowledgement is newer than what it has got.
                self._asked = max(self._asked, self._last_ack)
            self.track.resume(exclude, self._asked)
            query["since"] = unpack_id(self._asked)
        else:
            history = driver.random.choice((0, 0, 5))
            if history:
                query["history"] = history
            self.track.begin(exclude, history)
        return self._target(**query)

    def _welcome(self, event: dict[str, Any]) -> None:
        name = f"s{self.sender}" if self.speaks else None
        if (event["room"], event["name"]) != (self.order.path, name):
            raise Violation(f"{self} was welcomed as {event['name']} to {event['room']}")
        if self._session is not None and event["id"] != self._id:
            raise Violation(f"{self} came back as {event['id']} and was {self._id}")
        self._id, self._session = event["id"], event["session"]
        after = pack_id(event["after"])
        if self._asked is None:
            self.track.reached(after)
            self.track.last = after
        elif after != self._asked:
            self._after = after
        self._welcomed = True
        self._resent_below = self._seq
        for seq, text in self._unacked.items():
            assert self.sender is not None
            self.driver.counts["sent again"] += 1
            self.order.resending(make_key(self.sender, seq), self.driver.now)
            self.write(client_frame(TEXT, text))

    # -- Events --------------------------------------------------------------------------------

    def _frame(self, data: str | bytes) -> None:
        event = json.loads(data)
        kind = event["type"]
        if self._after is not None and kind != "gap":
            raise Violation(f"{self} got no gap before {kind}, and not all from where it was")
        if kind == "message":
            sender = self._message(data_of(event), pack_id(event["id"]))
            if event["from"]["name"] != f"s{sender}":
                raise Violation(f"{self} got a message of {sender} from {event['from']}")
        elif kind == "ack":
            self._acknowledged(event["ref"], pack_id(event["id"]), event["duplicate"])
        elif kind == "welcome":
            self._welcome(event)
        elif kind == "gap":
            self.driver.counts["gaps"] += 1
            after = pack_id(event["after"])
            if self._after not in (None, after):
                raise Violation(f"{self}: the gap ends elsewhere than the welcome has said")
            self._after = None
            self.track.gap(after, self.driver.tick, self.driver.now)
        elif kind == "error":
            raise Violation(f"{self} got {data!r}")
        else:
            self.driver.counts["presence"] += 1

    def _acknowledged(self, seq: int, id: int, duplicate: bool) -> None:
        if seq != next(iter(self._unacked), None):
            raise Violation(f"{self} got an acknowledgement of {seq}, out of turn")
        if duplicate and seq >= self._resent_below:
            raise Violation(f"{self}: {seq} was sent once and is a duplicate")
        assert self.sender is not None
        del self._unacked[seq]
        self.order.accepted(make_key(self.sender, seq), id)
        if not duplicate:
            self._last_ack = id
            self.track.reached(id)

    def _say(self, size: int) -> None:
        assert self.sender is not None
        if len(self._unacked) >= _WINDOW or not self._welcomed:
            return
        driver = self.driver
        seq = self._seq
        self._seq += 1
        text = self._unacked[seq] = send_event(self.sender, seq, size)
        key = make_key(self.sender, seq)
        self.order.sending(key, driver.next_tick(), driver.now, answered=True)
        driver.counts["sent JSON"] += 1
        self.write(client_frame(TEXT, text))

    def _all_sent(self) -> None:
        if self._unacked:
            raise Violation(f"{self} was let go before {list(self._unacked)} were acknowledged")
        if self.sender is not None:
            self.order.finished(self.sender, self._seq)


class Referee(JsonMember):
    """The member whose messages are the order of its room. It always reads and says nothing."""

    kind = "referee"
    may_stall = False

    def __init__(self, driver: Driver, order: Order) -> None:
        super().__init__(driver, order, speaks=False, mean=1.0)

    def _plan(self) -> None:
        """It does nothing else."""

    def _message(self, data: str | bytes, id: int | None) -> int:
        key, size = key_of(data)
        assert id is not None
        self.order.append(id, key, size)
        self.driver.counts["messages"] += 1
        return super()._message(data, id)

    def on_end(self, error: OSError | None) -> None:
        """Only at the end of all."""
        if not self._leaving:
            raise Violation(f"{self} was cut off: {error or 'end of stream'}")
