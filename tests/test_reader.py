"""What one client sends: the order of its frames, its rate, and what comes after its end."""

from __future__ import annotations

import pytest

from broadcast_server import BroadcastHub

from .support import BINARY, PING, PONG, TEXT, RawClient, client_frame, running_hub, wait_until


def test_control_frames_keep_their_place_among_messages(hub: BroadcastHub) -> None:
    """When a ping is answered, what was sent before it is accepted."""
    with RawClient.connect(port=hub.port, path="/?echo=1") as client:
        client.sync()
        client.sock.sendall(
            client_frame(TEXT, "one") + client_frame(PING, "!") + client_frame(TEXT, "two")
        )
        frames = [client.recv_frame() for _ in range(3)]
        assert sorted(frames) == sorted(
            [(True, TEXT, b"one"), (True, PONG, b"!"), (True, TEXT, b"two")]
        )
        assert frames.index((True, TEXT, b"one")) < frames.index((True, TEXT, b"two"))
        assert hub.stats()["messages"] == 2


def test_what_comes_after_the_end_is_thrown_away_within_bounds() -> None:
    """A peer that goes on sending after our Close is cut off, and nothing of it is published."""
    with running_hub(max_message_bytes=1000, close_timeout=30) as hub:
        with RawClient.connect(port=hub.port) as client:
            client.send_frame(TEXT, b"\xff")
            assert client.recv_close()[0] == 1007
            with pytest.raises(OSError):
                for _ in range(10_000):
                    client.send_frame(BINARY, bytes(1000))
        assert wait_until(lambda: hub.stats()["clients"] == 0)
        assert hub.stats()["messages"] == 0


def test_rate_is_a_bucket_of_one_second() -> None:
    """A burst passes at once; what exceeds it waits and is not lost."""
    with running_hub(max_rate=200) as hub, RawClient.connect(port=hub.port) as listener:
        listener.sync()
        with RawClient.connect(port=hub.port) as client:
            client.sock.sendall(client_frame(TEXT, "x") * 260)
            for _ in range(260):
                assert listener.recv_message() == "x"
            client.leave()
