"""How a client gets its first connection, and that nothing is left if it does not."""

from __future__ import annotations

import signal
import socket
import threading
from typing import Any

import pytest

from broadcast_server import BroadcastClient, ConnectFailed, ConnectionClosed
from broadcast_server.client import dialer

from ..support import running_hub, wait_until
from ..support.raw_server import SECONDS, SUBPROTOCOL, Listener, RawServer, listener
from .test_client import in_thread


def test_ctrl_c_before_the_welcome_leaves_nothing() -> None:
    """A ``with`` that is not entered is not left either: connect() itself must clean up."""
    main = threading.main_thread().ident
    assert main is not None
    with listener() as listening:
        client = BroadcastClient(listening.url, open_timeout=1000.0)

        def serve() -> RawServer:
            server = listening.accept(SUBPROTOCOL)
            server.ping()  # both threads of the client run
            signal.pthread_kill(main, signal.SIGINT)
            return server

        serving = in_thread(serve)
        with pytest.raises(KeyboardInterrupt), client:
            pass
        with serving.result(SECONDS).sock as sock:
            assert sock.recv(1) == b""
        assert (client.state, client.closed) == ("closed", False)
        again = in_thread(listening.accept_events)
        client.connect()  # it may try again
        assert client.state == "open"
        again.result(SECONDS).sock.close()
        client.close(timeout=0)


def test_close_cuts_off_an_attempt_that_gets_no_answer() -> None:
    """Nobody waits for a server that keeps silent once the client is not wanted any more."""
    with listener() as listening:
        client = BroadcastClient(listening.url, open_timeout=1000.0)
        connecting = in_thread(client.connect)
        sock, _ = listening.read_head()
        with sock:
            assert client.close() is False
            with pytest.raises(ConnectFailed, match="closed while"):
                connecting.result(SECONDS)
            assert sock.recv(1) == b""
        assert (client.state, client.closed) == ("closed", True)


def test_close_in_the_moment_of_success_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of a connection that nobody wants any more."""
    real = dialer.Dialing.dial

    def dial(self: dialer.Dialing) -> tuple[socket.socket, str | None]:
        found = real(self)
        assert client.close() is False
        return found

    with running_hub() as hub:
        client = BroadcastClient(hub.url)
        monkeypatch.setattr(dialer.Dialing, "dial", dial)
        with pytest.raises(ConnectFailed, match="closed while"):
            client.connect()
        assert wait_until(lambda: not hub.members())


def test_publish_during_an_attempt_that_fails_fails_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if it looks only when the client is as it was before, ready for another attempt."""
    with listener() as listening:
        client = BroadcastClient(listening.url)
        core = client._core
        real = core.wait_locked

        def wait_long(*arguments: Any, **options: Any) -> None:
            real(*arguments, **options)
            if core.ended:  # it has heard of it, and is late
                core.lock.release()
                connecting.exception(SECONDS)
                core.lock.acquire()

        monkeypatch.setattr(core, "wait_locked", wait_long)
        connecting = in_thread(client.connect)
        server = listening.accept(SUBPROTOCOL)
        assert wait_until(lambda: core.link is not None)
        publishing = in_thread(client.publish, "x")
        assert wait_until(lambda: bool(core.answers))
        server.sock.close()
        with pytest.raises(ConnectFailed, match=r"without a Close|reset"):
            connecting.result(SECONDS)
        with pytest.raises(ConnectionClosed):
            publishing.result(SECONDS)
        assert core.answers == {}


def test_connecting_that_fails_does_not_wait_for_a_callback_that_hangs() -> None:
    """The client's thread may be held by its user; whoever connects is told all the same."""
    done = threading.Event()
    with listener() as listening:
        client = BroadcastClient(
            listening.url, close_timeout=0.1, on_state=lambda _: done.wait(SECONDS)
        )
        connecting = in_thread(client.connect)
        listening.accept(SUBPROTOCOL).sock.close()
        try:
            with pytest.raises(ConnectFailed):
                connecting.result(SECONDS / 2)
        finally:
            done.set()


@pytest.mark.parametrize("failing", ["client-writer", "client"])
def test_client_without_a_thread_leaves_nothing(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no more threads connecting fails, and may be tried again."""
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name == failing:
            raise RuntimeError("can't start new thread")
        real(self)

    with running_hub() as hub:
        client = BroadcastClient(hub.url)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="new thread"):
                client.connect()
        assert wait_until(lambda: not hub.members())
        with client:
            assert len(hub.members()) == 1


@pytest.mark.parametrize("wish", [None, "7"])
def test_refusal_tells_when_to_try_again(wish: str | None) -> None:
    """What the server asks for is for whoever tries again by himself."""
    with listener() as listening:
        refused = in_thread(listening.refuse, 503, wish)
        with pytest.raises(ConnectFailed) as caught:
            BroadcastClient(listening.url).connect()
        refused.result(SECONDS)
        assert caught.value.status == 503
        assert caught.value.retry_after == (None if wish is None else 7.0)


def test_redirect_is_not_followed() -> None:
    """The header lines may have a secret in them, which is for this server and no other."""

    def redirect(listening: Listener, target: str) -> None:
        sock, _ = listening.read_head()
        with sock:
            sock.sendall(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n".encode())

    with listener() as listening, listener() as other:
        served = in_thread(redirect, listening, other.url)
        with pytest.raises(ConnectFailed, match="HTTP status 302") as caught:
            BroadcastClient(listening.url, headers={"Authorization": "secret"}).connect()
        served.result(SECONDS)
        assert caught.value.status == 302
        other.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.sock.accept()


def test_endless_open_timeout_waits_for_the_welcome() -> None:
    """As long as the system can wait; a poll of "for ever" would fail at once."""
    with listener() as listening:
        client = BroadcastClient(listening.url, open_timeout=float("inf"))
        connecting = in_thread(client.connect)
        server = listening.accept(SUBPROTOCOL)
        with server.sock:
            for _ in range(2):
                server.ping()  # the client waits for more
            server.welcome()
            assert connecting.result(SECONDS).state == "open"
        client.close(timeout=0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_callback_that_ends_its_thread_leaves_no_connection() -> None:
    """sys.exit() in a callback ends the client, and nothing stays behind."""

    def leave(state: str) -> None:
        raise SystemExit

    with listener() as listening:
        accepted = in_thread(listening.accept)
        client = BroadcastClient(listening.url, on_state=leave).connect()
        with accepted.result(SECONDS).sock as sock:
            assert sock.recv(1) == b""
        with pytest.raises(ConnectionClosed):
            client.recv(SECONDS)
        assert wait_until(lambda: client.state == "closed")
        assert client.close() is False
