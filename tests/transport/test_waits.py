"""Waiting for one socket, with what the system has for it: all of it, less, or as macOS has it."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server.transport import waits
from broadcast_server.transport.waits import READ, WRITE

from ..support.beside import in_thread


class NoDevices:
    """The poll of a system that watches sockets only: of all else it says that it is not open."""

    def __init__(self) -> None:
        self._poll = REAL_POLL()
        self._refused: list[int] = []

    def register(self, given: Any, events: int) -> None:
        number = given if isinstance(given, int) else given.fileno()
        if os.isatty(number):
            self._refused.append(number)
        else:
            self._poll.register(number, events)

    def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
        refused = [(number, select.POLLNVAL) for number in self._refused]
        return refused + self._poll.poll(0 if refused else milliseconds)


REAL_POLL: Any = select.poll


@pytest.fixture(params=["poll", "no poll", "no devices"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "no poll":
        monkeypatch.delattr(select, "poll")
    elif name == "no devices":
        monkeypatch.setattr(select, "poll", NoDevices)
    return name


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_socket_is_ready_when_it_can_be_read(
    system: str, pair: tuple[socket.socket, socket.socket]
) -> None:
    """At once, after a while, at the end of the stream; or not in time."""
    ours, theirs = pair
    assert not waits.is_ready(ours, READ) and not waits.is_ready(ours, READ, 0.01)
    waiting = in_thread(waits.is_ready, ours, READ, None)
    theirs.send(b"x")
    assert waiting.result(20) and waits.is_ready(ours, READ)
    ours.recv(1)
    assert not waits.is_ready(ours, READ)
    theirs.close()
    assert waits.is_ready(ours, READ, 20)


def test_socket_is_ready_when_it_can_be_written(
    system: str, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Not while it is full."""
    ours, theirs = pair
    assert waits.is_ready(ours, WRITE)
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            ours.send(bytes(65_536))
    assert not waits.is_ready(ours, WRITE)
    waiting = in_thread(waits.is_ready, ours, WRITE, None)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            theirs.recv(65_536)
    assert waiting.result(20)


@pytest.fixture(params=[REAL_POLL, NoDevices])
def terminal(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[int, int]]:
    """Where a terminal can be polled, and where it cannot."""
    monkeypatch.setattr(select, "poll", request.param)
    ours, theirs = os.openpty()
    yield ours, theirs
    for number in (ours, theirs):
        os.close(number)


def test_terminal_is_waited_for_where_it_cannot_be_polled(terminal: tuple[int, int]) -> None:
    """Nobody reads before there is something, so a wake-up is heard."""
    keys, terminal_end = terminal
    reader, writer = os.pipe()
    try:
        assert not waits.is_ready(terminal_end, READ)
        waiting = in_thread(waits.await_readable, terminal_end, reader)
        os.write(writer, b"!")
        assert waiting.result(20) == {reader}
        os.read(reader, 1)
        waiting = in_thread(waits.await_readable, terminal_end, reader)
        os.write(keys, b"a line\n")
        assert waiting.result(20) == {terminal_end}
        assert waits.is_ready(terminal_end, READ, None)
    finally:
        os.close(reader)
        os.close(writer)
