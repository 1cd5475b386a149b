"""Publishers over HTTP, and those who come to make trouble: what they get is checked as well."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

from ..support import BINARY, CLOSE, PING, TEXT, client_frame
from .driver import Driver
from .order import Order, Violation, make_key, pack_id
from .peers import Peer, http_head, upgrade
from .wire import Frames, Head, payload_of

_SIZES = (1, 60, 400, 2000)


class Publisher(Peer):
    """Publishes one message after the other, again with the same key until it has the answer.

    Args:
        mean: the seconds between its messages.
    """

    def __init__(self, driver: Driver, order: Order, mean: float) -> None:
        super().__init__(driver)
        self.order = order
        self.is_idle = True
        self._mean = mean
        self._sender = driver.new_sender()
        self._seq = 0
        self._request = b""
        self._tries = 0
        self._head: Head | None = None
        self._body = b""

    def __repr__(self) -> str:
        return f"<publisher {self._sender} in {self.order.path}>"

    def start(self) -> None:
        """Publish now and then."""
        self.driver.after(self.driver.pause(self._mean), self._publish)

    def _publish(self) -> None:
        driver = self.driver
        if driver.quiet:
            return
        data = payload_of(self._sender, self._seq, driver.random.choice(_SIZES))
        body = data.encode() if isinstance(data, str) else data
        kind = "text/plain; charset=utf-8" if isinstance(data, str) else "application/octet-stream"
        self._request = (
            http_head(
                f"POST {self.order.path}?name=s{self._sender}",
                [
                    f"Authorization: Bearer {driver.token}",
                    f"Content-Type: {kind}",
                    f"Content-Length: {len(body)}",
                    f"Idempotency-Key: {self._sender}-{self._seq}",
                ],
            )
            + body
        )
        self.is_idle = False
        self._tries = 0
        key = make_key(self._sender, self._seq)
        self.order.sending(key, driver.next_tick(), driver.now, answered=True)
        driver.counts["sent HTTP"] += 1
        self._try()

    def _try(self) -> None:
        self._tries += 1
        self._head, self._body = Head(), b""
        if self._tries > 1:
            self.driver.counts["sent again"] += 1
            key = make_key(self._sender, self._seq)
            self.order.resending(key, self.driver.now)
        half = self.driver.chance(0.02) and not self.driver.quiet
        request = self._request[: len(self._request) // 2] if half else self._request
        if self.sock is None:
            self.open(request)
        else:
            self.write(request)
        if half or (self.driver.chance(0.05) and not self.driver.quiet):
            # Somewhere between the request and its answer.
            self.driver.after(self.driver.pause(0.001), self._break_off)

    def _break_off(self) -> None:
        if self._head is not None:
            self.driver.counts["requests broken off"] += 1
            self.reset()
            self._try()

    def on_data(self, data: bytes) -> None:
        """Take the answer."""
        if self._head is None:
            raise Violation(f"{self} got an answer to nothing: {data[:200]!r}")
        rest: bytes | None = data
        if not self._head.status:
            rest = self._head.feed(data)
        if rest is None:
            return
        self._body += rest
        if len(self._body) < int(self._head.headers["content-length"]):
            return
        head, self._head = self._head, None
        if head.status == 503 and "retry-after" in head.headers:
            self.driver.counts["503"] += 1
            self.driver.after(1.0, self._try)
            return
        if head.status != 200:
            raise Violation(f"{self} got {head.status}: {self._body!r}")
        answer = json.loads(self._body)
        if answer["duplicate"] and self._tries == 1:
            raise Violation(f"{self}: {self._seq} was sent once and is a duplicate")
        self.order.accepted(make_key(self._sender, self._seq), pack_id(answer["id"]))
        self._seq += 1
        self.is_idle = True
        if head.headers.get("connection") == "close":
            self.close()
        self.driver.after(self.driver.pause(self._mean), self._publish)

    def on_end(self, error: OSError | None) -> None:
        """A connection on which nothing is asked may end; else ask again."""
        if self._head is not None:
            self._try()


Check = Callable[[int, bytes], bool]


def _status(expected: int) -> Check:
    return lambda status, rest: status == expected


def _close(code: int) -> Check:
    def check(status: int, rest: bytes) -> bool:
        frames = [frame for frame in Frames().feed(rest) if frame[0] != PING]
        last = frames[-1] if frames else (0, b"")
        return status == 101 and last[0] == CLOSE and last[1][:2] == struct.pack("!H", code)

    return check


_JSON = ("Sec-WebSocket-Protocol: broadcast.v1.json",)
_WRONG = ("Authorization: Bearer wrong",)


def _abuses(path: str, token: str, limit: int) -> dict[str, tuple[bytes, Check | None]]:
    """Return what is sent, and what must come back until the stream ends; None if that is open."""
    good = (f"Authorization: Bearer {token}",)
    join = upgrade(path, good)
    post = (f"POST {path}", "Content-Type: text/plain")
    return {
        "nothing": (b"", None),
        "half a request": (join[:60], None),
        "no request": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", _status(400)),
        "a long head": (join[:-2] + b"X: " + b"y" * 40_000, _status(431)),
        "a wrong token": (upgrade(path, _WRONG), _status(401)),
        "a POST without token": (
            http_head(post[0], (post[1], "Content-Length: 1")) + b"x",
            _status(401),
        ),
        "a POST too big": (
            http_head(post[0], (post[1], *good, f"Content-Length: {limit + 1}")),
            _status(413),
        ),
        "half a body": (http_head(post[0], (post[1], *good, "Content-Length: 9")) + b"x", None),
        "an id that is none": (upgrade(f"{path}?since=9", good), _status(400)),
        "an id to come": (upgrade(f"{path}?since=99999999999999-0", good), _status(410)),
        "a room that is none": (upgrade("/a/../b", good), _status(400)),
        "writing without token": (upgrade(path) + client_frame(TEXT, "x"), _close(1008)),
        "bad UTF-8": (join + client_frame(TEXT, b"\xff"), _close(1007)),
        "half a character": (join + client_frame(TEXT, b"ab\xe2\x82"), _close(1007)),
        "an unmasked frame": (join + client_frame(TEXT, b"x", mask=False), _close(1002)),
        "reserved bits": (join + client_frame(TEXT, b"x", rsv=4), _close(1002)),
        "an unknown opcode": (join + client_frame(11, b"x"), _close(1002)),
        "a long ping": (join + client_frame(PING, bytes(126)), _close(1002)),
        "too big": (join + client_frame(BINARY, bytes(limit + 1)), _close(1009)),
        "2^62 bytes": (join + client_frame(BINARY, b"", claimed=1 << 62), _close(1009)),
        "half a frame": (join + client_frame(TEXT, b"x" * 99)[:50], None),
        "a flood of pings": (join + client_frame(PING, b"?") * 300, None),
        "Close and more": (
            join + client_frame(CLOSE, b"\x03\xe8") + client_frame(TEXT, "late") * 50,
            _close(1000),
        ),
        "no JSON": (upgrade(path, (*_JSON, *good)) + client_frame(TEXT, "{") * 12, _close(1008)),
    }


class Abuser(Peer):
    """Comes again and again, each time with other trouble.

    Args:
        mean: the seconds between two visits.
        limit: the largest message that the hub takes.
    """

    def __init__(self, driver: Driver, order: Order, mean: float, limit: int) -> None:
        super().__init__(driver)
        self._order = order
        self._began_at = 0
        self._mean = mean
        self._abuses = _abuses(order.path, driver.token, limit)
        self._what = ""
        self._check: Check | None = None
        self._got = bytearray()
        self._visit = 0

    def __repr__(self) -> str:
        return f"<abuser: {self._what}>"

    def start(self) -> None:
        """Come soon."""
        self.driver.after(self.driver.pause(self._mean), self._abuse)

    def _abuse(self) -> None:
        driver = self.driver
        if driver.quiet:
            return
        self._what = driver.random.choice(list(self._abuses))
        data, self._check = self._abuses[self._what]
        driver.counts["abuses"] += 1
        self._got.clear()
        self._visit += 1
        visit = self._visit
        self._began_at = len(self._order)
        self.open(data)
        if self._check is None:
            self.driver.after(self.driver.pause(2.0), lambda: self._give_up(visit))

    def _give_up(self, visit: int) -> None:
        if visit == self._visit and self.sock is not None:
            if self.driver.chance(0.5):
                self.reset()
            else:
                self.close()
            self.start()

    def on_data(self, data: bytes) -> None:
        """Keep it for the end, which is near if the answer is no."""
        self._got += data
        if bytes(self._got[9:12]) not in (b"", b"101") and b"\r\n\r\n" in self._got:
            # The connection may be kept, for other requests.
            self.close()
            self.on_end(None)

    def on_end(self, error: OSError | None) -> None:
        """Look at what came."""
        check, self._check = self._check, None
        if check is not None:
            head = Head()
            rest = head.feed(bytes(self._got)) if self._got else None
            if rest is not None and check(head.status, rest):
                self.driver.counts["abuses answered"] += 1
            elif rest is not None and _close(1013)(head.status, rest):
                # The room was so busy that it could not even join.
                driver = self.driver
                driver.counts["evicted"] += 1
                self._order.claim_trimmed(self._began_at, driver.tick, driver.now, repr(self))
            else:
                raise Violation(f"{self._what} got {bytes(self._got[-300:])!r}, {error}")
        self.start()
