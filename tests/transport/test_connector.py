"""How a client's socket comes about: several addresses, one deadline, and being cut off."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import Any

import pytest

from broadcast_server import BroadcastClient, ConnectFailed, publish
from broadcast_server.transport import connector, waits
from broadcast_server.transport.connector import Connector
from broadcast_server.transport.deadlines import Deadline

from ..support import lasting_port, running_hub, wait_until
from ..support.beside import in_thread
from ..support.certificates import Certificates
from ..support.inside import client_core_of, connector_of, dialing_of, sockets_of
from ..support.raw_server import SECONDS, event_pair, fall_silent, listener, silent_host

SYN_SENT = 2  # the TCP state of who has asked and got no answer


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[Any, ...]) -> None:
    """Let every name have these addresses: which ones a real name has is not for a test to say."""
    families = {2: socket.AF_INET, 4: socket.AF_INET6}
    found = [(families[len(each)], socket.SOCK_STREAM, 6, "", each) for each in addresses]
    monkeypatch.setattr(connector.socket, "getaddrinfo", lambda *_: found)


def closed_port() -> tuple[str, int]:
    """Return an address at which nobody listens."""
    return ("127.0.0.1", lasting_port())


def is_waiting(connecting: Connector) -> bool:
    """Tell whether a connection was asked for and not answered yet."""
    with contextlib.suppress(OSError, RuntimeError):
        for sock in sockets_of(connecting):
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
            if struct.unpack("B", info) == (SYN_SENT,):
                return True
    return False


def is_dialing(client: BroadcastClient) -> bool:
    """Tell whether a client waits for a server's answer on the level of TCP."""
    dialing = dialing_of(client)
    return dialing is not None and is_waiting(connector_of(dialing))


# -- Several addresses -------------------------------------------------------------------------


def test_address_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is tried beside it, long before the time is up."""
    with silent_host() as silent, listener() as listening:
        resolve_to(monkeypatch, silent.getsockname(), listening.sock.getsockname())
        connecting = in_thread(BroadcastClient("ws://h/", open_timeout=1000.0).connect)
        with listening.accept().sock:
            client = connecting.result(SECONDS)
            assert client.state == "open"
            client.close(timeout=0)


def test_publisher_is_not_held_up_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request gets its connection in the same way."""
    with silent_host() as silent, running_hub() as hub:
        resolve_to(monkeypatch, silent.getsockname(), ("127.0.0.1", hub.port))
        publish("http://hub.test/", "x", timeout=SECONDS)
        assert [message.data for message in hub.history("/")] == ["x"]


def test_first_address_may_answer_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not given up because the others were tried, and have failed."""
    monkeypatch.setattr(connector, "NEXT_ADDRESS_SECONDS", 0.01)
    with silent_host() as silent:
        silent.settimeout(SECONDS)
        resolve_to(monkeypatch, silent.getsockname(), closed_port())
        connecting = Connector("h", 80, None)
        waiting = in_thread(connecting.connect, Deadline(1000))
        assert wait_until(lambda: is_waiting(connecting))
        (asking,) = sockets_of(connecting)
        own = asking.getsockname()
        silent.listen(100)
        while True:  # who was queued goes, until the one is there that asks again
            accepted, peer = silent.accept()
            accepted.close()
            if peer == own:
                break
        with waiting.result(SECONDS) as sock:
            assert sock is asking
            connecting.take(sock)


def test_address_that_refuses_is_followed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong with it: a closed port, or a family that this machine does not route."""
    with listener() as listening:
        nowhere = ("2001:db8::1", 1, 0, 0)
        resolve_to(monkeypatch, closed_port(), nowhere, listening.sock.getsockname())
        connecting = in_thread(BroadcastClient("ws://h/").connect)
        with listening.accept().sock:
            connecting.result(SECONDS).close(timeout=0)


def test_reason_is_that_of_the_last_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused where all refuse; no answer where one of them gives none, and then in time."""
    with silent_host() as silent:
        resolve_to(monkeypatch, closed_port(), closed_port())
        with pytest.raises(ConnectFailed, match="refused"):
            BroadcastClient("ws://h/").connect()
        resolve_to(monkeypatch, silent.getsockname(), closed_port(), silent.getsockname())
        with pytest.raises(ConnectFailed, match=r"no answer in 0\.6 s"):
            BroadcastClient("ws://h/", open_timeout=0.6).connect()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_hub_on_one_family_is_found_under_a_name_with_both(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """The client goes on to the family of the hub when the other one refuses."""
    with running_hub(host=host) as hub:
        addresses: list[tuple[Any, ...]] = [("127.0.0.1", hub.port), ("::1", hub.port, 0, 0)]
        resolve_to(monkeypatch, *sorted(addresses, key=lambda address: address[0] == host))
        with BroadcastClient(f"ws://localhost:{hub.port}/") as client:
            assert client.state == "open"


# -- Cutting off -------------------------------------------------------------------------------


def test_close_cuts_off_who_waits_for_a_connection() -> None:
    """A host that answers nothing at all keeps neither thread nor descriptor."""
    with silent_host() as silent:
        host, port = silent.getsockname()
        client = BroadcastClient(f"ws://{host}:{port}/", open_timeout=1000.0)
        connecting = in_thread(client.connect)
        assert wait_until(lambda: is_dialing(client))
        assert client.close() is False
        with pytest.raises(ConnectFailed, match="closed while"):
            connecting.result(SECONDS)


def test_close_cuts_off_also_where_a_socket_cannot_be_shut_down_before_it_is_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on macOS, which says ENOTCONN and lets it wait."""

    def shut_down(sock: socket.socket) -> None:
        raise OSError(errno.ENOTCONN, "Socket is not connected")

    monkeypatch.setattr(waits, "shut_down", shut_down)
    with silent_host() as silent:
        host, port = silent.getsockname()
        connecting = Connector(host, port, None)
        waiting = in_thread(connecting.connect, Deadline(1000.0))
        assert wait_until(lambda: is_waiting(connecting))
        connecting.cut()
        with pytest.raises(ConnectionAbortedError):
            waiting.result(SECONDS)
        connecting.close()


def test_close_cuts_off_a_client_that_comes_back() -> None:
    """Its thread ends with it, and not when the time for connecting is up."""
    with (
        contextlib.ExitStack() as stack,
        event_pair(max_reconnect_delay=0.01, open_timeout=1000.0) as (client, server, listening),
    ):
        fall_silent(listening.sock, stack)
        server.sock.close()
        assert wait_until(lambda: is_dialing(client))
        assert client.close() is True
        thread = client_core_of(client).thread
        assert thread is not None
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_close_cuts_off_the_handshake_of_tls(certificates: Certificates) -> None:
    """A server that keeps silent where TLS would begin."""
    with listener() as listening:
        url = listening.url.replace("ws:", "wss:")
        client = BroadcastClient(url, ca_file=certificates.ca, open_timeout=1000.0)
        connecting = in_thread(client.connect)
        sock, _ = listening.sock.accept()
        with sock:
            sock.settimeout(SECONDS)
            assert sock.recv(1) == b"\x16"  # a handshake has begun
            assert client.close() is False
            with pytest.raises(ConnectFailed, match="closed while"):
                connecting.result(SECONDS)


def test_close_during_a_lookup_is_heard_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can interrupt it; but nothing is done with what it has found."""
    with listener() as listening:
        client = BroadcastClient(listening.url)

        def look_up(*_: object) -> list[Any]:
            assert client.close() is False
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listening.sock.getsockname())]

        monkeypatch.setattr(connector.socket, "getaddrinfo", look_up)
        with pytest.raises(ConnectFailed, match="closed while"):
            client.connect()
        listening.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.sock.accept()


def test_what_is_taken_is_cut_off_no_more() -> None:
    """It belongs to whoever has taken it; before that cutting off wins."""
    with listener() as listening:
        host, port = listening.sock.getsockname()
        connecting = Connector(host, port, None)
        with connecting.connect(Deadline(SECONDS)) as sock:
            connecting.take(sock)
            connecting.cut()
            connecting.close()
            sock.sendall(b"x")
        late = Connector(host, port, None)
        sock = late.connect(Deadline(SECONDS))
        late.cut()
        with pytest.raises(ConnectionAbortedError):
            late.take(sock)
        late.close()
        assert sock.fileno() < 0
        with pytest.raises(ConnectionAbortedError):
            late.connect(Deadline(SECONDS))


def test_silence_is_noticed_by_the_kernel() -> None:
    """Of a server that speaks no events nobody else would ever know that it has gone."""
    with listener() as listening:
        host, port = listening.sock.getsockname()
        connecting = Connector(host, port, None)
        with connecting.connect(Deadline(SECONDS)) as sock:
            for level, name, value in connector.SOCKET_OPTIONS:
                assert sock.getsockopt(level, getattr(socket, name)) == value
            connecting.take(sock)
