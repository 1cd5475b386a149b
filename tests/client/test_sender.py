"""What a client's user sends, before it is in the queue."""

from __future__ import annotations

import pytest

from broadcast_server import BroadcastClient, ConnectionClosed
from broadcast_server.client import queues as client_queues

from ..support import wait_until
from ..support.raw_server import SECONDS, event_pair, listener
from .test_client import in_thread


def test_message_that_is_sent_while_it_connects_is_refused_or_right() -> None:
    """Before a connection is there nobody knows whether it speaks events: nothing is queued.

    A message that was encoded for a plain server would reach a hub as nonsense, and be lost.
    """
    with listener() as listening:
        client = BroadcastClient(listening.url)

        class Slow(str):
            def encode(self, *_: str) -> bytes:
                serving = in_thread(listening.accept_events)
                client.connect()
                servers.append(serving.result(SECONDS))
                return b"encoded too early"

        servers = []
        with pytest.raises(ConnectionClosed, match="not connected"):
            client.send(Slow("x"))
        assert servers == []
        serving = in_thread(listening.accept_events)
        client.connect()
        server = serving.result(SECONDS)
        with server.sock:
            client.send("y")
            assert server.recv_event()["data"] == "y"
        client.close(timeout=0)


def test_send_that_wants_no_answer_waits_although_nobody_receives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without reconnecting there are no acknowledgements to wait for: only the hub's reading."""
    monkeypatch.setattr(client_queues, "READ_AHEAD_BYTES", 10_000)
    with event_pair(reconnect=False, close_timeout=0.05) as (client, server, _):
        for number in range(1, 41):
            server.message(number, "x" * 500)
        assert wait_until(lambda: client._core.inbox.stalled_seconds() > 0.05)
        with pytest.raises(TimeoutError, match=r"the peer does not take the messages in time"):
            while True:
                client.send(bytes(1 << 19), timeout=0.2)
        waiting = in_thread(client.send, "last")
        while server.recv_event().get("data") != "last":
            pass
        waiting.result(SECONDS)
