"""A socket that one thread reads and another one writes, plain and TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

import pytest

from broadcast_server.rules import MAX_SECONDS
from broadcast_server.transport.channel import Channel
from broadcast_server.transport.deadlines import Deadline

from ..support.certificates import Certificates
from ..support.inside import socket_of

SECONDS = 10.0


@pytest.fixture
def pair() -> tuple[Channel, socket.socket]:
    """A channel and the other end of it."""
    left, right = socket.socketpair()
    right.settimeout(SECONDS)
    return Channel(left), right


def echo(sock: socket.socket) -> None:
    """Send back what comes, until the end of the stream."""
    while data := sock.recv(1 << 16):
        sock.sendall(data)


def exchange(channel: Channel, total: int) -> None:
    """Send and receive at once, far more than any buffer holds, and compare."""
    piece = bytes(range(256)) * 256
    deadline = Deadline(SECONDS)

    def send() -> None:
        for _ in range(total // len(piece)):
            channel.send(piece, deadline)

    writer = threading.Thread(target=send)
    writer.start()
    received = bytearray()
    while len(received) < total:
        data = channel.recv(deadline)
        assert data
        received += data
    writer.join(SECONDS)
    assert bytes(received) == piece * (total // len(piece))
    assert (channel.received, channel.sent) == (total, total)


def test_deadline_counts_down_to_nothing() -> None:
    """Never below 0; without a time-out it never passes."""
    assert Deadline(None).left() is None
    assert Deadline(0).left() == 0
    assert Deadline(-1).left() == 0
    left = Deadline(100).left()
    assert left is not None and 99 < left <= 100
    for endless in (float("inf"), 1e300):
        left = Deadline(endless).left()
        assert left is not None and MAX_SECONDS - 1 < left <= MAX_SECONDS


def test_both_directions_at_once(pair: tuple[Channel, socket.socket]) -> None:
    """Neither thread holds the other one up."""
    channel, other = pair
    echoing = threading.Thread(target=echo, args=(other,))
    echoing.start()
    exchange(channel, 16 << 20)
    channel.abort()
    echoing.join(SECONDS)
    channel.close()
    other.close()


def test_both_directions_at_once_with_tls(certificates: Certificates) -> None:
    """The same through TLS, whose state two threads must not use at once."""
    context, trusting = certificates.server_context(), certificates.client_context()
    left, right = socket.socketpair()
    right.settimeout(SECONDS)

    def serve() -> None:
        with contextlib.suppress(OSError), context.wrap_socket(right, server_side=True) as sock:
            # A channel on this side as well: an echo by one blocking socket would wait for itself.
            serving, deadline = Channel(sock), Deadline(SECONDS)
            while data := serving.recv(deadline):
                serving.send(data, deadline)

    server = threading.Thread(target=serve)
    server.start()
    left.settimeout(SECONDS)
    channel = Channel(trusting.wrap_socket(left, server_hostname="localhost"))
    exchange(channel, 8 << 20)
    channel.abort()
    channel.close()
    server.join(SECONDS)
    assert not server.is_alive()


def test_recv_and_send_wait_no_longer_than_the_deadline(
    pair: tuple[Channel, socket.socket],
) -> None:
    """TimeoutError, and the channel still works."""
    channel, other = pair
    with pytest.raises(TimeoutError):
        channel.recv(Deadline(0.01))
    with pytest.raises(TimeoutError):
        channel.send(bytes(1 << 24), Deadline(0.1))
    other.sendall(b"x")
    assert channel.recv(Deadline(SECONDS)) == b"x"
    channel.close()
    other.close()


def test_recv_tells_the_end_of_the_stream(pair: tuple[Channel, socket.socket]) -> None:
    """What was sent before it comes first."""
    channel, other = pair
    other.sendall(b"last")
    other.close()
    assert channel.recv(Deadline(SECONDS)) == b"last"
    assert channel.recv(Deadline(SECONDS)) == b""
    channel.close()


def test_progress_changes_while_the_peer_takes_bytes() -> None:
    """What waits in the kernel counts: a slow peer moves although nothing more can be sent."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        left = socket.create_connection(listening.getsockname())
        right, _ = listening.accept()
    channel = Channel(left)
    with pytest.raises(TimeoutError):
        channel.send(bytes(1 << 26), Deadline(0.2))
    before = channel.progress()
    assert before[1] == channel.sent > 0 and before[2] > 0
    right.settimeout(SECONDS)
    taken = 0
    while channel.progress() == before:
        taken += len(right.recv(1 << 20))
    assert channel.progress()[2] < before[2]
    channel.close()
    right.close()
    assert channel.progress()[2] == 0  # of a closed socket there is nothing to tell


def test_abort_ends_a_thread_that_waits(pair: tuple[Channel, socket.socket]) -> None:
    """A blocked recv() returns, from whatever thread the end comes."""
    channel, other = pair
    ends: list[bytes] = []
    reader = threading.Thread(target=lambda: ends.append(channel.recv(Deadline(SECONDS))))
    reader.start()
    channel.abort()
    reader.join(SECONDS)
    assert ends == [b""]
    channel.abort()
    channel.close()
    channel.close()
    other.close()


def tls_pair(certificates: Certificates) -> tuple[Channel, ssl.SSLSocket]:
    """Return a channel over TLS, and the server's end of it."""
    left, right = socket.socketpair()
    left.settimeout(SECONDS)
    right.settimeout(SECONDS)
    made: list[ssl.SSLSocket] = []
    context = certificates.server_context()
    server = threading.Thread(
        target=lambda: made.append(context.wrap_socket(right, server_side=True))
    )
    server.start()
    client = certificates.client_context().wrap_socket(left, server_hostname="localhost")
    server.join(SECONDS)
    return Channel(client), made[0]


def test_error_that_a_callback_has_left_in_openssl_hurts_nobody(
    certificates: Certificates,
) -> None:
    """CPython may take it for that of a read; one of the connection itself is told all the same."""
    channel, server = tls_pair(certificates)
    server.sendall(b"hello")
    assert channel.recv(Deadline(SECONDS)) == b"hello"
    with pytest.raises(ValueError):
        ssl._ASN1Object.fromname("nonsense")  # type: ignore[attr-defined]
    with pytest.raises(TimeoutError):
        channel.recv(Deadline(0.01))
    server.sendall(b"again")
    assert channel.recv(Deadline(SECONDS)) == b"again"
    socket.socket.send(server, b"\x17\x03\x03\x00\x20" + bytes(32))
    with pytest.raises(ssl.SSLError):
        channel.recv(Deadline(SECONDS))
    channel.close()
    server.close()


class Reluctant(socket.socket):
    """A socket whose first writes want to read, as TLS may; no peer can be made to have it so."""

    refusals = 3

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        if self.refusals:
            self.refusals -= 1
            raise ssl.SSLWantReadError
        return super().send(data, flags)


def test_write_that_wants_to_read_is_not_forgotten() -> None:
    """The reader may have taken what it waits for: the socket shows nothing, and it looks again."""
    left, right = socket.socketpair()
    channel = Channel(Reluctant(fileno=left.detach()))
    channel.send(b"hello", Deadline(SECONDS))
    assert right.recv(10) == b"hello"
    socket_of(channel).refusals = 1 << 30
    with pytest.raises(TimeoutError):
        channel.send(b"never", Deadline(0.1))
    channel.close()
    right.close()
