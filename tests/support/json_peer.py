"""A client of ``broadcast.v1.json`` over a bare socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .event_schema import checked
from .frames import PING, TEXT
from .raw_client import RawClient

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub

OFFER = ["Sec-WebSocket-Protocol: broadcast.v1.json"]


class Peer:
    """A client that speaks events over a bare socket, and holds each against the schema."""

    def __init__(
        self,
        hub: BroadcastHub,
        path: str = "/r",
        rcvbuf: int | None = None,
        *,
        validate: bool = True,
    ) -> None:
        self._validate = validate
        self.raw = RawClient.connect(port=hub.port, path=path, headers=OFFER, rcvbuf=rcvbuf)
        assert self.raw.header("Sec-WebSocket-Protocol") == "broadcast.v1.json"
        self.welcome = self.recv()
        assert self.welcome["type"] == "welcome"

    def recv(self) -> dict[str, Any]:
        """Return the next event."""
        while True:
            fin, opcode, payload = self.raw.recv_frame()
            if opcode == PING:
                continue
            assert fin and opcode == TEXT, (opcode, payload)
            if self._validate:
                return checked(payload)
            event: dict[str, Any] = json.loads(payload)
            return event

    def send(self, **event: Any) -> None:
        """Send an event."""
        self.raw.send(json.dumps(event))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()
