"""Two good clients of a hub under attack, which must not notice."""

from __future__ import annotations

import contextlib
import json
import secrets

from ..support import PING, PONG, TEXT, RawClient

# A bound, no expectation: a busy machine is no hang.
PAIR_SECONDS = 60.0


class Pair:
    """Two clients in a room of their own, a plain one and one with events.

    Raises:
        OSError, EOFError, AssertionError, LookupError: in every method, if the hub does not do what
            it must.
    """

    def __init__(self, port: int) -> None:
        room = f"/pair-{secrets.token_hex(8)}"
        self._count = 0
        with contextlib.ExitStack() as stack:
            self._plain = stack.enter_context(
                RawClient.connect(port=port, path=room, timeout=PAIR_SECONDS)
            )
            self._json = stack.enter_context(
                RawClient.connect(
                    port=port,
                    path=room,
                    headers=["Sec-WebSocket-Protocol: broadcast.v1.json"],
                    timeout=PAIR_SECONDS,
                )
            )
            assert self._event("welcome")["room"] == room
            self._close = stack.pop_all().close

    def talk(self) -> None:
        """Exchange a message in each direction."""
        self._count += 1
        there, back = f"there {self._count}", f"back {self._count}"
        self._plain.send(there)
        assert self._event("message")["data"] == there
        self._json.send(json.dumps({"type": "send", "data": back, "ref": self._count}))
        assert self._event("ack")["ref"] == self._count
        assert _receive(self._plain) == back

    def leave(self) -> None:
        """Say goodbye, both."""
        for client in (self._plain, self._json):
            client.send_close()
        self.close()

    def close(self) -> None:
        """Close both sockets."""
        self._close()

    def _event(self, kind: str) -> dict[str, object]:
        while True:
            event: dict[str, object] = json.loads(_receive(self._json))
            if event["type"] == kind:
                return event
            if event["type"] not in ("join", "leave", "members", "count"):
                raise LookupError(f"{event} came instead of {kind}")


def _receive(client: RawClient) -> str:
    while True:
        _, opcode, payload = client.recv_frame()
        if opcode == PING:
            client.send_frame(PONG, payload)
        elif opcode == TEXT:
            return payload.decode()
        else:
            raise LookupError(f"a frame with opcode {opcode}: {payload[:200]!r}")
