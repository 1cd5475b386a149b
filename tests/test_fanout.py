"""The fan-out's thread: when it wakes, and what happens when it fails."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from broadcast_server import BroadcastHub, HubStopped
from broadcast_server.fanout import FanOut
from broadcast_server.timers import NEVER

from .support import RawClient, running_hub, wait_until


def fanout_of(hub: BroadcastHub) -> FanOut:
    """Return the hub's fan-out."""
    assert hub._core is not None
    return hub._core.fanout


def sleeps(fanout: FanOut) -> bool:
    """Wait until it has nothing to do."""
    return wait_until(lambda: fanout._sleeping)


def count_wakes(fanout: FanOut, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Return a list that grows when the thread is woken."""
    wakes: list[None] = []
    wake = fanout._wake
    monkeypatch.setattr(fanout, "_wake", lambda: (wakes.append(None), wake()))
    return wakes


def test_first_client_wakes_and_the_next_ones_do_not(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any client it would sleep for ever; with one it wakes in time for the pings."""
    fanout = fanout_of(hub)
    assert sleeps(fanout) and fanout._wakes_by == NEVER
    wakes = count_wakes(fanout, monkeypatch)
    with RawClient.connect(port=hub.port), RawClient.connect(port=hub.port) as second:
        assert wait_until(lambda: len(hub.members("/")) == 2 and len(wakes) >= 1)
        assert sleeps(fanout)
        count = len(wakes)
        with RawClient.connect(port=hub.port) as third:
            assert wait_until(lambda: bool(fanout._posts))
            assert len(wakes) == count and fanout._sleeping
            # What comes now wakes it, and finds the new clients.
            hub.broadcast("x")
            assert second.recv_message() == third.recv_message() == "x"
            assert len(wakes) == count + 1


def test_client_that_needs_something_wakes(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """History does not wait for somebody to talk."""
    fanout = fanout_of(hub)
    with RawClient.connect(port=hub.port) as first:
        hub.broadcast("old")
        assert first.recv_message() == "old"
        assert sleeps(fanout)
        with RawClient.connect(port=hub.port, path="/?history=1") as second:
            assert second.recv_message() == "old"


def test_unwoken_client_is_pinged_in_time() -> None:
    """And is evicted if it does not answer: the heartbeat knows it although nothing was sent."""
    left: list[tuple[int, str]] = []
    with running_hub(
        ping_interval=0.2,
        ping_timeout=0.2,
        close_timeout=0.2,
        on_leave=lambda member, code, reason: left.append((code, reason)),
    ) as hub:
        with RawClient.connect(port=hub.port), RawClient.connect(port=hub.port):
            assert wait_until(lambda: len(left) == 2)
    assert left == [(1011, "ping timeout")] * 2


def test_unwoken_client_that_leaves_is_forgotten(hub: BroadcastHub) -> None:
    """Join and leave are both posted when the thread wakes for the leave."""
    fanout = fanout_of(hub)
    with RawClient.connect(port=hub.port) as first:
        first.sync()
        for _ in range(20):
            assert sleeps(fanout)
            with RawClient.connect(port=hub.port) as client:
                client.leave()
        assert wait_until(lambda: len(fanout.writer.connections) == 1)


def test_join_and_broadcast_at_once_lose_nothing(hub: BroadcastHub) -> None:
    """Every client that is a member when a message is accepted gets it, woken or not."""
    stop = threading.Event()

    def talk() -> None:
        while not stop.wait(0.0005):
            hub.broadcast("tick")

    talking = threading.Thread(target=talk)
    talking.start()
    try:
        for _ in range(100):
            with RawClient.connect(port=hub.port) as client:
                hub.broadcast("mine")
                while client.recv_message() != "mine":
                    pass
    finally:
        stop.set()
        talking.join(10)


def test_failure_ends_the_hub_for_everybody_to_see(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in the one thread that writes: clients are cut off, calls say so, no hang."""
    with running_hub(close_timeout=0.2) as hub:
        fanout = fanout_of(hub)
        with RawClient.connect(port=hub.port) as client:
            client.sync()

            def fail(*_: Any) -> bool:
                raise RuntimeError("made by the test")

            monkeypatch.setattr(fanout, "_pass", fail)
            hub.broadcast("x")
            assert wait_until(lambda: not fanout.is_alive)
            assert client.sock.recv(100) == b""
            with pytest.raises(HubStopped):
                hub.broadcast("y")
        assert "the fan-out has failed" in caplog.text


def test_late_wake_up_reaches_no_stranger(hub: BroadcastHub) -> None:
    """The pipe's number may be somebody else's by the time when a publisher gets to write to it."""
    fanout = fanout_of(hub)
    number = fanout._wake_writer
    hub.stop()
    reader, writer = os.pipe()
    try:
        os.dup2(writer, number)
        os.set_blocking(reader, False)
        fanout._wake()
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    finally:
        for descriptor in {reader, writer, number}:
            os.close(descriptor)
