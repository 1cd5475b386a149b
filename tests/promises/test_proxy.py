"""A proxy that the environment names and that does not lead on: everything that goes to a hub says
so, and what was to be published was certainly not delivered."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence

import pytest

from broadcast_server import BroadcastClient, BroadcastServerError, PublishFailed, publish
from broadcast_server.client.requests import fetch_last

from ..support.beside import in_thread
from ..support.command import assert_fails, run
from ..support.raw_server import SECONDS, Listener, listener, silent_host

URL = "http://hub.example:8765/scores"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what the tests' own environment says about proxies."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextlib.contextmanager
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Listen as the proxy for all that is not encrypted; nobody may come a second time."""
    with listener() as listening:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listening.port}")
        yield listening
        listening.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.sock.accept()


def fetch() -> None:
    """Fetch old messages, as ``/history`` at a terminal does."""
    with pytest.raises(LookupError) as failed:
        fetch_last(URL.replace("http", "ws"), "/scores", 5, {})
    raise BroadcastServerError(failed.value.args[0])


CALLS = {
    "publish()": lambda: publish(URL, "3:1"),
    "client": BroadcastClient(URL.replace("http", "ws")).connect,
    "fetch_last()": fetch,
}
# What a proxy does with a request for a tunnel, and how that is told.
ACTS = [
    (b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n", "answers 407 Proxy Auth", 407),
    (b"HTTP/1.1 403 \x1b[2J\r\n\r\n", "answers 403 Forbidden", 403),
    (b"HTTP/1.1 502 No\r\n\r\n", "answers 502 Bad Gateway", 502),
    (b"HTTP/1.1 599 No\r\n\r\n", "answers 599", 599),
    (b"SSH-2.0-OpenSSH\r\n\r\n", "gives no answer that is HTTP", None),
    (b"", "gives no answer that is HTTP", None),
]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("act", "why", "status"), ACTS)
def test_proxy_that_refuses_is_named(
    name: str, act: bytes, why: str, status: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once, and nothing was delivered."""
    with proxy(monkeypatch) as listening:
        calling = in_thread(CALLS[name])
        sock, head = listening.read_head()
        with sock:
            assert head.startswith("CONNECT hub.example:8765 HTTP/1.1\r\n")
            sock.sendall(act)
        with pytest.raises(BroadcastServerError) as failed:
            calling.result(SECONDS)
        assert f"the proxy 127.0.0.1:{listening.port} {why}" in str(failed.value)
    if isinstance(failed.value, PublishFailed):
        assert failed.value.status == status and not failed.value.maybe_delivered


@pytest.mark.parametrize("name", CALLS)
def test_proxy_that_is_not_there_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody believes that the hub has refused."""
    with socket.socket() as bound:  # bound and not listening: nobody else can take it
        bound.bind(("127.0.0.1", 0))
        shown = f"127.0.0.1:{bound.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", f"http://{shown}")
        with pytest.raises(BroadcastServerError) as failed:
            CALLS[name]()
    assert f"the proxy {shown} cannot be used: Connection refused" in str(failed.value)
    if isinstance(failed.value, PublishFailed):
        assert failed.value.status is None and not failed.value.maybe_delivered


@pytest.mark.parametrize("name", CALLS)
def test_proxy_without_an_address_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is what is not known, not the hub's."""
    monkeypatch.setenv("http_proxy", "http://no-such-proxy.invalid:3128")
    with pytest.raises(BroadcastServerError, match=r"proxy no-such-proxy\.invalid:3128 cannot"):
        CALLS[name]()


def test_proxy_that_is_silent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it has taken the connection, and behind that."""
    with silent_host() as silent, proxy(monkeypatch) as listening:
        ports = [silent.getsockname()[1], listening.port]
        for port in ports:
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
            calls: Sequence[Callable[[], object]] = (
                lambda: publish(URL, "x", timeout=0.2),
                BroadcastClient(URL.replace("http", "ws"), open_timeout=0.2).connect,
            )
            for call in calls:
                with pytest.raises(BroadcastServerError) as failed:
                    call()
                assert f"the proxy 127.0.0.1:{port} cannot be used: no answer in time" in str(
                    failed.value
                )
        for _ in calls:
            listening.read_head()[0].close()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["publish", "who", "listen", "connect"])
@pytest.mark.parametrize(("act", "why", "status"), ACTS[:1])
def test_command_names_the_proxy_that_refuses(
    command: str, act: bytes, why: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With status 1 at once: there is no hub, and nothing was published."""
    with proxy(monkeypatch) as listening:
        text = ["x"] if command == "publish" else []
        running = in_thread(run, command, URL, *text)
        sock, _ = listening.read_head()
        with sock:
            sock.sendall(act)
        result: subprocess.CompletedProcess[str] = running.result(SECONDS)
        assert_fails(result, 1, f"the proxy 127.0.0.1:{listening.port} {why}")
        assert "may have been" not in result.stderr
