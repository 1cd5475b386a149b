"""The server's end of a TLS connection over a pair of sockets, with every fault of a peer."""

from __future__ import annotations

import _ssl
import contextlib
import ctypes
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from broadcast_server.transport.channel import Channel
from broadcast_server.transport.deadlines import Deadline
from broadcast_server.transport.tls_stream import (
    MAX_BARREN_BYTES,
    MAX_PENDING_BYTES,
    PIECE_BYTES,
    Certificate,
    TlsStream,
)

from ..support import wait_until
from ..support.certificates import Certificates
from ..support.inside import lock_of

SECONDS = 20.0


class Pair:
    """A stream, and the other end: a client's ``SSLSocket`` after its handshake."""

    def __init__(self, certificates: Certificates, context: ssl.SSLContext | None = None) -> None:
        self.raw, theirs = socket.socketpair()
        theirs.settimeout(SECONDS)
        server = Certificate(certificates.cert, certificates.key)
        self.stream = server.wrap(self.raw)
        self.stream.settimeout(SECONDS)
        self.theirs = theirs
        self._context = context or certificates.client_context()

    def shake_hands(self) -> ssl.SSLSocket:
        """Make the handshake, and pass a byte in both directions."""
        made: list[ssl.SSLSocket] = []

        def connect() -> None:
            sock = self._context.wrap_socket(
                self.theirs, server_hostname="localhost", suppress_ragged_eofs=False
            )
            sock.sendall(b"!")
            made.append(sock)

        thread = threading.Thread(target=connect)
        thread.start()
        assert self.stream.recv(1) == b"!"
        thread.join(SECONDS)
        (client,) = made
        self.theirs = client
        self.stream.sendall(b"?")
        assert client.recv(1) == b"?"
        return client

    def close(self) -> None:
        self.stream.close()
        self.theirs.close()


@pytest.fixture
def pair(certificates: Certificates) -> Iterator[Pair]:
    """A stream and its peer, before the handshake."""
    found = Pair(certificates)
    yield found
    found.close()


def send_all(stream: TlsStream, data: bytes) -> list[int]:
    """Send like the fan-out: offer the rest whenever the socket takes more. Return all results."""
    results: list[int] = []
    rest = memoryview(data)
    poller = select.poll()
    poller.register(stream, select.POLLOUT)
    while rest:
        try:
            results.append(stream.send(rest))
        except BlockingIOError:
            results.append(0)
        rest = rest[results[-1] :]
        if rest:
            assert poller.poll(SECONDS * 1000)
    return results


def key_update(client: ssl.SSLSocket) -> None:
    """Use new keys, and ask the other end to do so, too; Python has no call for that."""
    library = ctypes.CDLL(_ssl.__file__)
    library.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.SSL_do_handshake.argtypes = [ctypes.c_void_p]
    # The C structure begins with a reference count, a type and the socket.
    assert client._sslobj is not None  # type: ignore[attr-defined]
    place = id(client._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)  # type: ignore[attr-defined]
    pointer = ctypes.c_void_p.from_address(place).value
    assert library.SSL_key_update(pointer, 1) == 1
    if library.SSL_do_handshake(pointer) != 1:
        raise ConnectionError("the other end does not take it")


# Before the handshake, and the handshake.


def test_nothing_passes_before_the_handshake(pair: Pair) -> None:
    """Not a byte goes out that is not encrypted, and to look costs no time."""
    with pytest.raises(OSError, match="outside of TLS"):
        pair.stream.send(b"secret")
    with pytest.raises(BlockingIOError):
        pair.stream.recv(10, socket.MSG_DONTWAIT)
    pair.stream.shutdown(socket.SHUT_WR)
    assert pair.theirs.recv(10) == b""


def test_handshake_that_does_not_come_is_in_time(pair: Pair) -> None:
    """The time-out of the first recv() is for the handshake and the first byte together."""
    pair.stream.settimeout(0.05)
    pair.theirs.sendall(b"\x16\x03\x01")
    with pytest.raises(TimeoutError):
        pair.stream.recv(10)
    with pytest.raises(OSError, match="outside of TLS"):
        pair.stream.sendall(b"HTTP/1.1 408 x\r\n\r\n")


def test_socket_never_has_a_timeout_of_its_own() -> None:
    """With one of Python's a send that must not wait would wait; a program may set a default."""
    socket.setdefaulttimeout(5)
    try:
        left, right = socket.socketpair()
    finally:
        socket.setdefaulttimeout(None)
    stream = TlsStream(left, lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert left.gettimeout() is None
    stream.settimeout(3.0)
    assert (stream.gettimeout(), left.gettimeout()) == (3.0, None)
    stream.close()
    right.close()


def test_http_without_tls_is_told_what_to_speak(pair: Pair) -> None:
    """A person sees it in the browser; nothing of the request is answered."""
    pair.theirs.sendall(b"GET /scores HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ssl.SSLError, match="HTTP_REQUEST"):
        pair.stream.recv(100)
    pair.stream.shutdown(socket.SHUT_WR)
    answer = b""
    while data := pair.theirs.recv(1000):
        answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head
    assert body == b"this port speaks TLS: use https or wss\n"


def test_garbage_is_answered_with_an_alert(pair: Pair) -> None:
    """RFC 8446 §6: a record of type 21."""
    pair.theirs.sendall(b"\x16\x03\x01\x00\x05hello")
    with pytest.raises(ssl.SSLError):
        pair.stream.recv(100)
    assert pair.theirs.recv(100)[:1] == b"\x15"


def test_peer_that_leaves_in_the_handshake_is_an_error(pair: Pair) -> None:
    """An OSError like any other, so nobody sees a traceback."""
    pair.theirs.close()
    with pytest.raises(OSError):
        pair.stream.recv(100)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_versions_from_1_2_on_are_spoken(certificates: Certificates, version: str) -> None:
    """With HTTP/1.1 as the protocol inside, whatever else was offered."""
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_alpn_protocols(["h2", "http/1.1"])
    pair = Pair(certificates, context)
    client = pair.shake_hands()
    assert client.version() == version.replace("_", ".")
    assert client.selected_alpn_protocol() == "http/1.1"
    pair.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_version_1_1_is_refused(certificates: Certificates) -> None:
    """RFC 8996, whatever the client puts up with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    pair = Pair(certificates, context)
    failed: list[OSError] = []

    def connect() -> None:
        try:
            context.wrap_socket(pair.theirs).close()
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        pair.stream.recv(100)
    thread.join(SECONDS)
    assert "PROTOCOL_VERSION" in str(failed[0])  # the alert that says why
    pair.close()


# Both directions.


def test_both_directions_at_once(pair: Pair) -> None:
    """One thread reads, one writes, far more than any buffer holds: all of it, in order."""
    client = Channel(pair.shake_hands())
    total, piece = 8 << 20, bytes(range(256)) * 300
    count = total // len(piece)
    failed: list[BaseException] = []

    def run(work: Callable[[], object]) -> threading.Thread:
        def target() -> None:
            try:
                work()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=target)
        thread.start()
        return thread

    def receive(take: Callable[[], bytes]) -> None:
        received = bytearray()
        while len(received) < count * len(piece):
            data = take()
            assert data
            received += data
        assert received == piece * count

    deadline = Deadline(SECONDS)
    threads = [
        run(lambda: [send_all(pair.stream, piece) for _ in range(count)]),
        run(lambda: [client.send(piece, deadline) for _ in range(count)]),
        run(lambda: receive(lambda: pair.stream.recv(5000))),
        run(lambda: receive(lambda: client.recv(deadline))),
    ]
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert failed == []


def test_recv_gives_what_it_holds_without_the_socket(pair: Pair) -> None:
    """A record has more than was asked for: the rest is here, though the socket shows nothing."""
    client = pair.shake_hands()
    client.sendall(bytes(range(100)))
    assert pair.stream.recv(30) == bytes(range(30))
    assert select.select([pair.stream], [], [], 0)[0] == []
    assert pair.stream.recv(30, socket.MSG_DONTWAIT) == bytes(range(30, 60))
    assert pair.stream.recv(4096) == bytes(range(60, 100))
    with pytest.raises(BlockingIOError):
        pair.stream.recv(30, socket.MSG_DONTWAIT)
    pair.stream.settimeout(0.01)
    with pytest.raises(TimeoutError):
        pair.stream.recv(30)


def test_recv_with_peek_tells_whether_the_socket_has_anything(pair: Pair) -> None:
    """The heartbeat asks so, on another thread, and takes nothing away."""
    client = pair.shake_hands()
    flags = socket.MSG_PEEK | socket.MSG_DONTWAIT
    with pytest.raises(BlockingIOError):
        pair.stream.recv(1, flags)
    client.sendall(b"pong")
    assert len(pair.stream.recv(1, flags)) == 1
    assert pair.stream.recv(100) == b"pong"


def test_full_socket_takes_the_rest_later(pair: Pair) -> None:
    """No send waits; what is reported as sent is never offered again, and nothing is lost."""
    client = pair.shake_hands()
    pair.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = bytes(range(251)) * 2000
    received = bytearray()

    def read() -> None:
        while len(received) < len(data):
            received.extend(client.recv(1000))

    reader = threading.Thread(target=read)
    reader.start()
    results = send_all(pair.stream, data)
    reader.join(SECONDS)
    assert received == data
    assert len(results) > 10 and sum(results) == len(data)


def test_last_byte_is_reported_when_it_is_out(pair: Pair) -> None:
    """Else nobody would wait for the socket, and a message's end would stay here for ever."""
    client = pair.shake_hands()
    pair.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = b"0123456789" * 100
    sent = 0
    while True:  # until one is encrypted as a whole and taken in part, or not at all
        try:
            result = pair.stream.send(data)
        except BlockingIOError:
            result = 0
        sent += result
        if result != len(data):
            break
    assert result == len(data) - 1
    with pytest.raises(BlockingIOError):
        pair.stream.send(data[-1:])
    with pytest.raises(BlockingIOError):
        pair.stream.send(data[-1:] + b"and more")
    received = bytearray()
    while len(received) < sent - result:
        received += client.recv(1000)
    with pytest.raises(ConnectionAbortedError, match="something else"):
        pair.stream.send(b"x" + data)
    assert pair.stream.send(data[-1:] + b"and more") == 9
    while len(received) < sent + 9:
        received += client.recv(1000)
    assert received == data * (sent // len(data) + 1) + b"and more"


def test_sendmsg_and_sendall_send_everything(pair: Pair) -> None:
    """Several pieces as one record; much in many."""
    client = pair.shake_hands()
    assert pair.stream.sendmsg([b"ab", memoryview(b"cd"), b""], (), socket.MSG_DONTWAIT) == 4
    assert client.recv(10) == b"abcd"
    data = bytes(1 << 20)
    thread = threading.Thread(target=pair.stream.sendall, args=(data,))
    thread.start()
    received = 0
    while received < len(data):
        received += len(client.recv(1 << 16))
    thread.join(SECONDS)
    assert not thread.is_alive()
    pair.stream.settimeout(0.05)
    with pytest.raises(TimeoutError):
        pair.stream.sendall(bytes(1 << 24))


def test_send_to_a_peer_that_has_gone_is_an_error(pair: Pair) -> None:
    """And no signal ends the process."""
    pair.shake_hands().close()
    with pytest.raises(OSError):
        send_all(pair.stream, bytes(1 << 20))


# What TLS says on its own.


def test_key_update_is_answered(pair: Pair) -> None:
    """RFC 8446 §4.6.3, in the middle of things; the messages around it arrive."""
    client = pair.shake_hands()
    for number in range(20):
        key_update(client)
        client.sendall(b"to %d" % number)
        assert pair.stream.recv(100) == b"to %d" % number
        send_all(pair.stream, b"back %d" % number)
        assert client.recv(100) == b"back %d" % number


def test_key_update_while_the_socket_is_full(pair: Pair) -> None:
    """The answer waits behind what was there before; OpenSSL itself cannot do that to a socket."""
    client = pair.shake_hands()
    pair.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = bytes(100_000)
    sent = pair.stream.send(data)
    assert sent < len(data)
    key_update(client)
    client.sendall(b"x")
    assert pair.stream.recv(10) == b"x"
    sender = threading.Thread(target=send_all, args=(pair.stream, data[sent:] + b"end"))
    sender.start()
    received = bytearray()
    while not received.endswith(b"end"):
        received += client.recv(1 << 16)
    sender.join(SECONDS)
    assert len(received) == len(data) + 3


def test_peer_that_only_talks_tls_is_ended(pair: Pair) -> None:
    """It would cost time for nothing, and no limit on messages would see it."""
    client = pair.shake_hands()
    client.settimeout(None)

    def flood() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                key_update(client)

    thread = threading.Thread(target=flood)
    thread.start()
    with pytest.raises(ConnectionAbortedError, match="nothing but words of TLS"):
        while pair.stream.recv(100):
            pass
    pair.stream.shutdown(socket.SHUT_RDWR)
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert MAX_BARREN_BYTES >= 2 * PIECE_BYTES and MAX_PENDING_BYTES >= 2 * PIECE_BYTES


def test_peer_that_does_not_take_the_answers_is_ended(pair: Pair) -> None:
    """Each of its key updates is answered; between them it sends something, and it never reads."""
    client = pair.shake_hands()
    pair.raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    received = 0
    with pytest.raises(ConnectionAbortedError, match="does not take the answers"):
        while True:
            key_update(client)
            client.sendall(b"x")
            received += len(pair.stream.recv(10))
    assert received > 1000


def test_error_that_a_callback_has_left_in_openssl_hurts_nobody(pair: Pair) -> None:
    """OpenSSL keeps errors for each thread, and CPython may take an old one for that of a read."""
    client = pair.shake_hands()
    with pytest.raises(ValueError):
        ssl._ASN1Object.fromname("nonsense")  # type: ignore[attr-defined]
    client.sendall(b"hello")
    assert pair.stream.recv(100) == b"hello"
    client.sendall(b"again")
    assert pair.stream.recv(100) == b"again"


def test_damaged_record_is_an_error_after_what_came_before(pair: Pair) -> None:
    """Nobody in the middle can change a bit unseen."""
    client = pair.shake_hands()
    client.sendall(b"good")
    socket.socket.send(client, b"\x17\x03\x03\x00\x20" + bytes(32))
    assert wait_until(lambda: len(pair.raw.recv(1000, socket.MSG_PEEK)) > 37)
    assert pair.stream.recv(100) == b"good"
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        pair.stream.recv(100)


# The end.


def test_shutdown_says_goodbye_and_goes_on_reading(pair: Pair) -> None:
    """Also with data that has come, but was not read: TLS would take it for an error."""
    client = pair.shake_hands()
    client.sendall(b"unread")
    assert pair.stream.recv(2) == b"un"
    client.sendall(b"more")
    pair.stream.shutdown(socket.SHUT_WR)
    assert client.recv(10) == b""  # close_notify: a cut would raise
    client.sendall(b" comes")
    received = b""
    while len(received) < 14:
        received += pair.stream.recv(100)
    assert received == b"readmore comes"
    with pytest.raises(OSError, match="outside of TLS"):
        pair.stream.send(b"too late")
    with contextlib.suppress(OSError):
        client.unwrap()
    assert pair.stream.recv(100) == b""
    pair.stream.shutdown(socket.SHUT_WR)  # again, which does nothing


def test_peer_may_go_on_reading_after_its_goodbye(pair: Pair) -> None:
    """Its end is told, and what is sent still arrives."""
    client = pair.shake_hands()
    client.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        client.unwrap()
    assert pair.stream.recv(100) == b""
    assert pair.stream.send(b"last word") == 9
    client.settimeout(SECONDS)
    assert client.recv(100) == b"last word"


def test_cut_without_goodbye_is_the_end(pair: Pair) -> None:
    """What was sent before it comes first; the Close of WebSocket tells the difference."""
    client = pair.shake_hands()
    client.sendall(b"last")
    socket.socket.shutdown(client, socket.SHUT_WR)
    assert pair.stream.recv(100) == b"last"
    assert pair.stream.recv(100) == b""
    assert pair.stream.recv(100) == b""


def test_peer_that_ends_its_stream_without_goodbye_gets_its_answer(pair: Pair) -> None:
    """Many programs half-close the socket below TLS; OpenSSL would answer with an alert."""
    client = pair.shake_hands()
    client.sendall(b"question")
    socket.socket.shutdown(client, socket.SHUT_WR)
    assert pair.stream.recv(100) == b"question"
    assert pair.stream.recv(100) == b""
    pair.stream.sendall(b"answer")
    pair.stream.shutdown(socket.SHUT_WR)
    assert client.recv(100) == b"answer"
    assert client.recv(100) == b""


def test_abort_wakes_the_reader_and_says_goodbye(pair: Pair) -> None:
    """From another thread, as a stop or an eviction does it."""
    client = pair.shake_hands()
    pair.stream.settimeout(None)
    ends: list[bytes] = []
    reader = threading.Thread(target=lambda: ends.append(pair.stream.recv(100)))
    reader.start()
    pair.stream.shutdown(socket.SHUT_RDWR)
    reader.join(SECONDS)
    assert ends == [b""]
    assert client.recv(10) == b""


def test_abort_waits_for_nobody(pair: Pair) -> None:
    """Even where somebody is busy in the middle of a read or a write."""
    client = pair.shake_hands()
    with lock_of(pair.stream):
        pair.stream.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ssl.SSLEOFError):
        client.recv(10)
