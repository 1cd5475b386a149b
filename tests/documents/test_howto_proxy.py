"""``docs/howto/tls.md``, a proxy in front: nginx and Caddy, set up as on the page."""

from __future__ import annotations

import contextlib
import http.client
import pathlib
import re
import socket
import threading
from collections.abc import Callable

import pytest

from broadcast_server import BroadcastClient, PublishFailed, publish
from broadcast_server.settings import Settings

from ..support import lasting_port, running_hub
from ..support.certificates import Certificates
from ..support.command import run
from ..support.http_server import GOOD, read_request
from ..support.programs import ROOT
from ..support.proxies import PAGE, caddy, nginx, proxy

pytestmark = pytest.mark.slow

SECONDS = 20.0


def test_nginx_of_the_page_keeps_event_sources_alive_while_the_hub_is_down(
    tmp_path: pathlib.Path, certificates: Certificates
) -> None:
    """They get 200 and a time to come back; everybody else gets 502, as before."""
    port = lasting_port()
    with running_hub() as hub:
        command = nginx(tmp_path, port, hub.port, certificates)
    with proxy(command, tmp_path, port):
        times = set()
        for method, accept, status in (
            *[("GET", "text/event-stream", 200)] * 20,
            ("GET", "application/json", 502),
            ("GET", "text/event-stream, */*", 502),
            ("POST", "*/*", 502),
        ):
            context = certificates.client_context()
            asker = http.client.HTTPSConnection(
                f"localhost:{port}", timeout=SECONDS, context=context
            )
            body = b"x" if method == "POST" else None
            asker.request(method, "/scores", body, {"Accept": accept})
            answer = asker.getresponse()
            assert answer.status == status, (method, accept)
            if status == 200:
                assert answer.headers["Content-Type"] == "text/event-stream"
                assert answer.headers["Cache-Control"] == "no-store"
                found = re.fullmatch(rb"retry: (\d+)\n: [ a-z]+\n\n", answer.read())
                assert found
                times.add(int(found[1]))
            asker.close()
        assert times <= {3000, 5000, 7000, 9000} and len(times) > 1


@pytest.mark.parametrize("prepare", [nginx, caddy], ids=["nginx", "caddy"])
def test_proxy_of_the_page_passes_everything_on(
    prepare: Callable[[pathlib.Path, int, int, Certificates], list[str]],
    tmp_path: pathlib.Path,
    certificates: Certificates,
) -> None:
    """WebSockets both ways, streams at once, publishers; own pages come in, and no others."""
    port = lasting_port()  # a proxy cannot tell which one it has taken
    place = f"localhost:{port}"
    with (
        running_hub(trust_proxy=("127.0.0.1",)) as hub,
        proxy(prepare(tmp_path, port, hub.port, certificates), tmp_path, port),
        BroadcastClient(f"wss://{place}/scores", name="ann", ca_file=certificates.ca) as ann,
    ):
        # The proxy tells whom it calls for; an address without a port is what it has told.
        (member,) = hub.members("/scores")
        assert member.address == "127.0.0.1"
        context = certificates.client_context()
        reader = http.client.HTTPSConnection(place, timeout=SECONDS, context=context)
        reader.request("GET", "/scores", headers={"Accept": "text/event-stream"})
        stream = reader.getresponse()
        assert stream.status == 200
        publish(f"https://{place}/scores", "3:1", ca_file=certificates.ca)
        assert ann.recv(timeout=SECONDS).data == "3:1"
        # While the stream is open: what a proxy collects would come at its end.
        line = b""
        while line != b"data: 3:1\n":
            line = stream.readline()
        ann.send("thanks")
        while line != b"data: thanks\n":
            line = stream.readline()
        reader.close()
        for origin, status in ((f"https://{place}", 200), ("https://evil.example", 403)):
            asker = http.client.HTTPSConnection(place, timeout=SECONDS, context=context)
            asker.request("POST", "/scores", b"4:1", {"Origin": origin})
            assert asker.getresponse().status == status
            asker.close()


def test_nginx_that_asks_for_certificates_gets_them(
    tmp_path: pathlib.Path, certificates: Certificates
) -> None:
    """With the two lines of the page; who shows none is refused, in a sentence."""
    port = lasting_port()
    lines = re.findall(r"^    (ssl_(?:client|verify).*;)$", (ROOT / PAGE).read_text(), re.MULTILINE)
    assert len(lines) == 2
    cert, key = certificates.issue("ann.example")
    shown = {"ca_file": certificates.ca, "cert_file": cert, "key_file": key}
    with running_hub(trust_proxy=("127.0.0.1",)) as hub:
        command = nginx(tmp_path, port, hub.port, certificates)
        file = tmp_path / "nginx.conf"
        asks = re.sub(r"/etc/\S*\.pem", str(certificates.ca), "\n".join(lines))
        file.write_text(file.read_text().replace("    location / {", f"{asks}\n    location / {{"))
        with proxy(command, tmp_path, port):
            url = f"wss://localhost:{port}/scores"
            with BroadcastClient(url, **shown) as client:
                assert publish(url, "3:1", **shown)
                assert client.recv(timeout=SECONDS).data == "3:1"
            options = ("--ca-file", str(certificates.ca), "--cert", str(cert))
            for keys in (("--key", str(key)), ("--cert-key", str(key))):
                assert run("publish", url, *options, *keys, "4:1").returncode == 0
            with pytest.raises(PublishFailed) as failed:
                publish(url, "x", ca_file=certificates.ca)
            assert failed.value.status == 400
        assert [message.data for message in hub.history("/scores")] == ["3:1", "4:1", "4:1"]


class _Upstream:
    """What a proxy takes for a hub: it answers one POST and keeps the connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self._sock: socket.socket | None = None
        self._thread = threading.Thread(target=self._answer)

    def __enter__(self) -> _Upstream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(SECONDS)
        if self._sock is not None:
            self._sock.close()

    def _answer(self) -> None:
        try:
            self._sock, _ = self._listener.accept()
        except OSError:
            return  # the test has ended before
        with self._sock.makefile("rb") as file:
            assert read_request(file).first.startswith("POST ")
        self._sock.sendall(GOOD)

    def ends_first(self, seconds: float) -> bool:
        """Tell whether the proxy ends the connection within that time."""
        assert self._sock is not None
        self._sock.settimeout(seconds)
        try:
            return self._sock.recv(1) == b""
        except TimeoutError:
            return False


def test_proxies_of_the_page_drop_quiet_connections_before_the_hub(
    tmp_path: pathlib.Path, certificates: Certificates
) -> None:
    """Else they send a POST on a connection that the hub is closing, and answer 502: they do not
    repeat a POST."""
    with contextlib.ExitStack() as stack:
        upstreams = []
        for prepare in (nginx, caddy):
            place, port = tmp_path / prepare.__name__, lasting_port()
            place.mkdir()
            upstream = stack.enter_context(_Upstream())
            stack.enter_context(
                proxy(prepare(place, port, upstream.port, certificates), place, port)
            )
            publish(f"https://localhost:{port}/scores", "3:1", ca_file=certificates.ca)
            upstreams.append(upstream)
        for upstream in upstreams:
            assert upstream.ends_first(Settings().http_idle_timeout)
