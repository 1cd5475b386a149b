"""``docs/howto/tls.md``, a proxy in front: nginx and Caddy, set up as on the page."""

from __future__ import annotations

import http.client
import pathlib
from collections.abc import Callable

import pytest

from broadcast_server import BroadcastClient, BroadcastHub, publish

from ..support import lasting_port, running_hub
from ..support.certificates import Certificates
from ..support.proxies import caddy, nginx, proxy

pytestmark = pytest.mark.slow

SECONDS = 20.0


@pytest.mark.parametrize("prepare", [nginx, caddy], ids=["nginx", "caddy"])
def test_proxy_of_the_page_passes_everything_on(
    prepare: Callable[[pathlib.Path, int, BroadcastHub, Certificates], list[str]],
    tmp_path: pathlib.Path,
    certificates: Certificates,
) -> None:
    """WebSockets both ways, streams at once, publishers; own pages come in, and no others."""
    port = lasting_port()  # a proxy cannot tell which one it has taken
    place = f"localhost:{port}"
    with (
        running_hub(trust_proxy=("127.0.0.1",)) as hub,
        proxy(prepare(tmp_path, port, hub, certificates), tmp_path, port),
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
