"""System calls that keep the GIL: they do what the standard library's do, and keep it."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import struct
import subprocess
import textwrap
from collections.abc import Iterator

import pytest

from broadcast_server.transport import gil

from ..support import PYTHON, python_environment

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["kept", "given away"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ends]:
    """A TCP connection; once with the calls as they are, once where there are none."""
    if request.param == "given away":
        monkeypatch.setattr(gil, "calls", None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    theirs.settimeout(10)
    with ours, theirs:
        yield ours, theirs


def test_calls_are_found_here() -> None:
    """Else all tests below would show the standard library alone."""
    assert gil.calls is not None


def test_bytes_and_views_arrive(ends: Ends) -> None:
    """Whatever part of whatever they are, and none of it is a copy."""
    ours, theirs = ends
    data = bytes(range(256)) * 4
    for piece in (data, memoryview(data), memoryview(data)[7:], memoryview(data)[100:200]):
        assert gil.send(ours, piece) == len(piece)
        assert theirs.recv(len(piece), socket.MSG_WAITALL) == bytes(piece)
    assert gil.send(ours, memoryview(bytearray(b"xyz"))[1:]) == 2
    assert theirs.recv(10) == b"yz"


def test_ranges_arrive_as_one(ends: Ends) -> None:
    """In their order."""
    ours, theirs = ends
    data = bytes(range(256))
    ranges = [(0, 3), (10, 11), (250, 256)]
    assert gil.send_ranges(ours, data, ranges) == 10
    assert theirs.recv(100) == data[0:3] + data[10:11] + data[250:256]
    many = [(at, at + 1) for at in range(64)]
    assert gil.send_ranges(ours, data, many) == 64
    assert theirs.recv(100) == data[:64]


def test_full_socket_says_so(ends: Ends) -> None:
    """It takes a part, and then nothing, and nobody waits; also with ranges."""
    ours, theirs = ends
    data = bytes(1 << 20)
    taken = 0
    with pytest.raises(BlockingIOError):
        while True:
            taken += gil.send(ours, data)
    with pytest.raises(BlockingIOError):
        gil.send(ours, memoryview(data)[1:])
    with pytest.raises(BlockingIOError):
        gil.send_ranges(ours, data, [(0, 9), (20, 29)])
    assert 0 < taken
    while taken:
        taken -= len(theirs.recv(1 << 20))


def test_reset_raises_what_a_socket_raises(ends: Ends) -> None:
    """The first call learns of the reset, the next ones that the connection is none any more."""
    ours, theirs = ends
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(ConnectionResetError):
        ours.recv(1)
    for data in (b"x", memoryview(b"x")):
        with pytest.raises(BrokenPipeError):
            gil.send(ours, data)
    with pytest.raises(BrokenPipeError):
        gil.send_ranges(ours, b"xy", [(0, 1)])


def test_closed_socket_sends_nothing_to_a_stranger(ends: Ends) -> None:
    """Its number may be somebody else's by then: it is asked for at each send."""
    ours, _ = ends
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stranger = socket.create_connection(listening.getsockname())
        peer, _ = listening.accept()
        with stranger, peer:
            number = ours.fileno()
            ours.close()
            os.dup2(stranger.fileno(), number)
            try:
                for data in (b"x", memoryview(b"x")):
                    with pytest.raises(OSError, match="Bad file descriptor"):
                        gil.send(ours, data)
                with pytest.raises(OSError, match="Bad file descriptor"):
                    gil.send_ranges(ours, b"x", [(0, 1)])
                peer.setblocking(False)
                with pytest.raises(BlockingIOError):
                    peer.recv(1)
            finally:
                os.close(number)


def test_what_is_no_plain_socket_sends_by_itself() -> None:
    """A TLS stream encrypts: nothing may go past it."""

    class Stream(socket.socket):
        def send(self, data: object, flags: int = 0, /) -> int:
            return 42

        def sendmsg(self, *_: object) -> int:  # type: ignore[override]
            return 43

    with Stream() as stream:
        assert gil.send(stream, b"x") == 42
        assert gil.send_ranges(stream, b"x", [(0, 1)]) == 43


def test_pipe_is_drained(ends: Ends) -> None:
    """Whatever is in it, also nothing."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(reader, False)
        for size in (0, 1, 4096, 10_000):
            assert os.write(writer, bytes(size)) == size
            gil.drain(reader)
            with pytest.raises(BlockingIOError):
                os.read(reader, 1)
    finally:
        os.close(reader)
        os.close(writer)


def test_selector_with_news_is_seen() -> None:
    """A look at it, which gives the GIL away, is saved when there are none."""
    ours, theirs = socket.socketpair()
    with ours, theirs, selectors.EpollSelector() as selector:
        selector.register(ours, selectors.EVENT_READ)
        assert not gil.is_readable(selector.fileno())
        theirs.send(b"x")
        assert gil.is_readable(selector.fileno())
        assert selector.select(0)
        assert gil.is_readable(selector.fileno())
        ours.recv(1)
        assert not gil.is_readable(selector.fileno())


@pytest.mark.parametrize("kept", [True, False])
def test_no_other_thread_runs_in_a_send(kept: bool) -> None:
    """With a switch interval of hours another thread gets the GIL only when it is given away: not
    once in many calls, and sooner or later in those of the standard library."""
    program = textwrap.dedent(
        f"""
        import os, socket, sys, threading
        from broadcast_server.transport import gil
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        if not {kept}:
            gil.calls = None
        turns, done = [0], []
        def other():
            while not done:
                turns[0] += 1
                os.sched_yield()
        sys.setswitchinterval(3600)
        thread = threading.Thread(target=other)
        thread.start()
        before = turns[0]
        for _ in range(50 if {kept} else 1_000_000):
            if turns[0] > before:
                break
            gil.send(ours, b"x")
            gil.send(ours, memoryview(b"xy")[1:])
            gil.send_ranges(ours, b"xyz", [(0, 1), (2, 3)])
            gil.drain(reader)
            gil.is_readable(reader)
            if not {kept}:
                theirs.recv(100)
        print(turns[0] - before)
        done.append(None)
        thread.join()
        """
    )
    done = subprocess.run(
        [PYTHON, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env=python_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) == 0) == kept


def test_peer_that_resets_raises_no_signal() -> None:
    """In a program that has set SIGPIPE to its default, which would end it."""
    program = textwrap.dedent(
        """
        import signal, socket, struct
        from broadcast_server.transport import gil
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        for data in (b"xy", memoryview(b"xy")[1:], None):
            for reset in (True, False):
                with socket.create_server(("127.0.0.1", 0)) as listening:
                    ours = socket.create_connection(listening.getsockname())
                    theirs, _ = listening.accept()
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                else:
                    ours.shutdown(socket.SHUT_WR)
                theirs.close()
                found = []
                while len(found) < 2:
                    try:
                        if data is None:
                            gil.send_ranges(ours, b"xy", [(0, 1)])
                        else:
                            gil.send(ours, data)
                    except OSError as error:
                        found.append(type(error).__name__)
                assert set(found) <= {"ConnectionResetError", "BrokenPipeError"}, found
                ours.close()
        print("lived")
        """
    )
    done = subprocess.run(
        [PYTHON, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env=python_environment(),
    )
    assert (done.returncode, done.stdout) == (0, "lived\n"), (done.returncode, done.stderr)
    assert done.returncode != -signal.SIGPIPE


class Clock:
    """Time that passes in a send."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lasts = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(socket.socket):
    """A socket whose sends take their time. It is no plain one, so none goes past it."""

    clock: Clock

    def send(self, data: object, flags: int = 0, /) -> int:
        self.clock.now += self.clock.lasts
        return 1

    def sendmsg(self, *_: object) -> int:  # type: ignore[override]
        self.clock.now += self.clock.lasts
        return 1


@pytest.mark.parametrize("ranges", [False, True])
def test_gil_is_kept_when_it_was_missed(ranges: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After one send that took as long as if another thread had computed; not after the others;
    and only for a while, since who keeps the GIL pays for it."""
    kept = []
    monkeypatch.setattr(gil, "send", lambda sock, data: kept.append(data) or len(data))
    monkeypatch.setattr(gil, "send_ranges", lambda sock, data, _: kept.append(data) or len(data))
    with Timed() as sock:
        sock.clock = clock = Clock()
        sends = gil.Sends(clock)

        def send() -> int:
            if ranges:
                return sends.send_ranges(sock, b"xy", [(0, 1), (1, 2)])
            return sends.send(sock, b"xy")

        clock.lasts = gil.SEND_SECONDS
        for _ in range(1000):
            assert send() == 1
        clock.lasts = 0.005
        assert send() == 1 and not kept
        for _ in range(100):
            clock.now += gil.KEEP_SECONDS / 101
            assert send() == 2
        assert len(kept) == 100
        clock.now += gil.KEEP_SECONDS / 50
        assert send() == 1 and len(kept) == 100


def test_many_short_waits_are_as_one_long() -> None:
    """Readers that each take the GIL for a moment would hold up a pass as long together."""
    clock = Clock()
    sends = gil.Sends(clock)
    keeps, limit = sends.begin()
    assert not keeps
    count = 0
    while clock.now <= limit:
        clock.now += 4 * gil.SEND_SECONDS
        limit += gil.SEND_SECONDS
        count += 1
    assert count == pytest.approx(gil.LOST_SECONDS / gil.SEND_SECONDS / 3, abs=1)
    assert sends.keep() and sends.begin()[0]
