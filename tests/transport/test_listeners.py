"""Listening sockets: on every host that is named, on one port, accepted by one thread."""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from broadcast_server import BroadcastHub
from broadcast_server.hub.server import HubServer
from broadcast_server.transport.listeners import SOCKET_BUFFER_BYTES, Listeners, open_listeners

from ..support import RawClient, running_hub
from ..support.inside import core_of, replace_open, sessions_of


def has_ipv6() -> bool:
    """Tell whether this machine has ::1."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


@contextlib.contextmanager
def listening(hosts: Sequence[str], port: int = 0) -> Iterator[list[socket.socket]]:
    opened = open_listeners(hosts, port)
    try:
        yield opened
    finally:
        for sock in opened:
            sock.close()


def places_of(opened: list[socket.socket]) -> list[str]:
    return [sock.getsockname()[0] for sock in opened]


# -- Opening -----------------------------------------------------------------------------------


@needs_ipv6
@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost."])
def test_localhost_is_both_families(name: str) -> None:
    """Whichever a client tries first."""
    with listening([name]) as opened:
        assert places_of(opened) == ["127.0.0.1", "::1"]
        assert len({sock.getsockname()[1] for sock in opened}) == 1


@pytest.mark.parametrize(
    ("gone", "left"), [(socket.AF_INET6, "127.0.0.1"), (socket.AF_INET, "::1")]
)
@needs_ipv6
def test_localhost_is_one_family_where_the_other_is_missing(
    gone: int, left: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a machine without IPv6; the log says so."""

    def without(family: Any, address: Any, v6only: bool) -> socket.socket:
        if family == gone:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return open_one(family, address, v6only)

    open_one = replace_open(monkeypatch, without)
    with caplog.at_level(logging.INFO), listening(["localhost"]) as opened:
        assert places_of(opened) == [left]
    assert "not listening on" in caplog.text and "Cannot assign" in caplog.text


def test_localhost_of_no_family_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that listens nowhere would only look alive."""

    def without(family: Any, address: Any, v6only: bool) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    replace_open(monkeypatch, without)
    with pytest.raises(OSError, match="not supported"):
        open_listeners(["localhost"], 0)


def test_same_place_is_opened_once() -> None:
    """However often it is named."""
    with listening(["127.0.0.1", "127.0.0.1", "127.0.0.2"]) as opened:
        assert places_of(opened) == ["127.0.0.1", "127.0.0.2"]


@needs_ipv6
def test_all_addresses_of_both_families() -> None:
    """The IPv6 socket leaves IPv4 to the other one; alone it takes both, as the system has it."""
    with listening(["0.0.0.0", "::"]) as opened:
        assert places_of(opened) == ["0.0.0.0", "::"]
    with listening(["::"]) as (alone,):
        assert not alone.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_address_that_is_not_ours_is_named() -> None:
    """And what was opened before it is closed: the check for descriptors sees to it."""
    with pytest.raises(OSError) as caught:
        open_listeners(["127.0.0.1", "192.0.2.1"], 0)
    assert caught.value.filename.startswith("192.0.2.1:")
    with pytest.raises(OSError) as caught:
        open_listeners(["127.0.0.1", "no-such-host.invalid"], 0)
    assert caught.value.filename == "no-such-host.invalid"


def test_given_port_that_is_taken_anywhere_is_an_error() -> None:
    """All or nothing: the port would lead somewhere else on the other address."""
    with socket.create_server(("127.0.0.2", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError) as caught:
            open_listeners(["127.0.0.1", "127.0.0.2"], port)
    assert caught.value.errno == errno.EADDRINUSE and caught.value.filename == f"127.0.0.2:{port}"


def test_any_port_is_one_that_is_free_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel's choice for the first is taken on the second, another one is tried."""
    tried: list[int] = []

    def taken_twice(family: Any, address: Any, v6only: bool) -> socket.socket:
        if address[0] == "127.0.0.2":
            tried.append(address[1])
            if len(tried) <= 2:
                raise OSError(errno.EADDRINUSE, "Address already in use")
        return open_one(family, address, v6only)

    open_one = replace_open(monkeypatch, taken_twice)
    with listening(["127.0.0.1", "127.0.0.2"]) as opened:
        assert [sock.getsockname()[1] for sock in opened] == [tried[2]] * 2


def test_any_port_is_not_looked_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bounded number of times, then the error is told."""
    tried: list[int] = []

    def taken(family: Any, address: Any, v6only: bool) -> socket.socket:
        if address[0] == "127.0.0.2":
            tried.append(address[1])
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return open_one(family, address, v6only)

    open_one = replace_open(monkeypatch, taken)
    with pytest.raises(OSError, match="in use"):
        open_listeners(["127.0.0.1", "127.0.0.2"], 0)
    assert len(tried) == 16


# -- All as one --------------------------------------------------------------------------------


def wait_readable(ours: Listeners, timeout: float) -> bool:
    with selectors.PollSelector() as selector:  # what socketserver waits with
        selector.register(ours, selectors.EVENT_READ)
        return bool(selector.select(timeout))


def test_connections_to_all_sockets_are_accepted_in_turns() -> None:
    """One descriptor to wait for, and a busy address does not keep the others waiting."""
    opened = open_listeners(["127.0.0.1", "127.0.0.2", "127.0.0.3"], 0)
    ours = Listeners(opened)
    port = opened[0].getsockname()[1]
    with contextlib.ExitStack() as stack:
        stack.callback(ours.close)
        assert not wait_readable(ours, 0)
        with pytest.raises(BlockingIOError):
            ours.accept()
        for host, count in (("127.0.0.1", 4), ("127.0.0.2", 1), ("127.0.0.3", 1)):
            for _ in range(count):
                stack.enter_context(socket.create_connection((host, port), 10))
        called = []
        for _ in range(6):
            assert wait_readable(ours, 10)
            request, address = ours.accept()
            with request:
                assert request.gettimeout() is None and address[0] == "127.0.0.1"
                assert request.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                called.append(request.getsockname()[0][-1])
        assert called == ["1", "2", "3", "1", "1", "1"]
        assert not wait_readable(ours, 0)


def test_wake_makes_it_readable_without_a_connection() -> None:
    """And leaves the sockets alone: others may share them."""
    with listening(["127.0.0.1"]) as (shared,):
        ours = Listeners([shared.dup()])
        ours.wake()
        assert wait_readable(ours, 10)
        with pytest.raises(BlockingIOError):
            ours.accept()
        ours.close()
        ours.close()
        ours.wake()
        # The other owner's socket still listens.
        with socket.create_connection(shared.getsockname(), 10):
            shared.setblocking(True)
            shared.settimeout(10)
            shared.accept()[0].close()


# -- A hub -------------------------------------------------------------------------------------


@needs_ipv6
def test_hub_serves_on_all_its_hosts() -> None:
    """Members of one room, whichever way they came."""
    with running_hub(host=["localhost", "127.0.0.2"]) as hub:
        assert hub.host == "localhost"
        assert hub.url == hub.urls[0] == f"ws://localhost:{hub.port}/"
        assert hub.urls[1] == f"ws://127.0.0.2:{hub.port}/"
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(RawClient.connect(host, hub.port))
                for host in ("127.0.0.1", "::1", "127.0.0.2")
            ]
            hub.broadcast("hello")
            for client in clients:
                assert client.recv_message() == "hello"
            addresses = [member.address.rpartition(":")[0] for member in hub.members()]
            assert addresses == ["127.0.0.1", "[::1]", "127.0.0.1"]
            for client in clients:
                client.leave()


@pytest.mark.parametrize("hosts", [[], [""], ["127.0.0.1", ""]])
def test_hosts_that_cannot_be_are_a_usage_error(hosts: list[str]) -> None:
    """Said when the hub is made."""
    with pytest.raises(ValueError, match="host must be"):
        BroadcastHub(hosts)


@pytest.mark.parametrize("hosts", [["127.0.0.1", 5], b"::1", 5, None])
def test_hosts_of_a_wrong_type_are_a_type_error(hosts: Any) -> None:
    """As for any argument."""
    with pytest.raises(TypeError, match="host must be"):
        BroadcastHub(hosts)


def test_server_takes_sockets_that_listen_already(hub: BroadcastHub) -> None:
    """Such as those of a service manager: they are served, and closed in the end."""
    with listening(["127.0.0.1", "127.0.0.2"]) as opened:
        port = opened[0].getsockname()[1]
        server = HubServer(["h"], 1, core_of(hub), sockets=[sock.dup() for sock in opened])
        try:
            assert server.port == port and "h" in server.names
            with socket.create_connection(("127.0.0.2", port), 10):
                server._handle_request_noblock()
                (request,) = sessions_of(server)
                assert request.getsockname() == ("127.0.0.2", port)
            server.join(time.monotonic() + 10)
        finally:
            server.server_close()


@pytest.mark.parametrize("to_peer", [True, False])
def test_kernel_keeps_a_bounded_share_of_a_connection(to_peer: bool) -> None:
    """Of what a peer does not read, and of what it sends while it is not read."""
    with listening(["127.0.0.1"]) as opened:
        (port,) = {sock.getsockname()[1] for sock in opened}
        box = Listeners(opened)
        with socket.socket() as theirs, contextlib.closing(box):
            small = socket.SO_RCVBUF if to_peer else socket.SO_SNDBUF
            theirs.setsockopt(socket.SOL_SOCKET, small, 4096)
            theirs.connect(("127.0.0.1", port))
            ours, _ = box.accept()
            with ours:
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    kept = ours.getsockopt(socket.SOL_SOCKET, option)
                    assert kept <= 2 * SOCKET_BUFFER_BYTES
                sender = ours if to_peer else theirs
                sender.setblocking(False)
                poll = select.poll()
                poll.register(sender, select.POLLOUT)
                sent = 0
                while poll.poll(500):
                    with contextlib.suppress(BlockingIOError):
                        sent += sender.send(bytes(65536))
                # Besides, the small end's own buffer and the last packet, of 64 KiB on loopback.
                assert 0 < sent <= 2 * SOCKET_BUFFER_BYTES + 2 * 65536
