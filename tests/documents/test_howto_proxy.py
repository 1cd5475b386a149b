"""``docs/howto/tls.md``, a proxy in front: nginx and Caddy, set up as on the page."""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from broadcast_server import BroadcastClient, BroadcastHub, PublishFailed, publish

from ..support import ROOT, code_blocks, lasting_port, running_hub, wait_until
from ..support.certificates import Certificates
from ..support.command import run

pytestmark = pytest.mark.slow


PAGE = "docs/howto/tls.md"
SECONDS = 20.0
# Where they are looked for; `make proxies` puts them into the last two.
FETCHED = ROOT / "build" / "proxies" / "usr"
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", f"{FETCHED}/sbin", f"{FETCHED}/bin"])


def nginx(place: pathlib.Path, port: int, hub: BroadcastHub, own: Certificates) -> list[str]:
    """Write what nginx reads, the page's block in the middle; return how to run it."""
    (block,) = code_blocks(PAGE, "nginx")
    block = block.replace("127.0.0.1:8765", f"127.0.0.1:{hub.port}")
    block = block.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    block = re.sub(r"/etc/\S*/fullchain\.pem", str(own.cert), block)
    block = re.sub(r"/etc/\S*/privkey\.pem", str(own.key), block)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {place / kind};\n" for kind in kinds)
    file = place / "nginx.conf"
    file.write_text(
        f"daemon off; pid {place / 'pid'}; error_log stderr warn;\n"
        f"events {{}}\nhttp {{ access_log off;\n{folders}{block}}}\n"
    )
    return ["nginx", "-e", "stderr", "-p", str(place), "-c", str(file)]


def caddy(place: pathlib.Path, port: int, hub: BroadcastHub, own: Certificates) -> list[str]:
    """The same for Caddy, which here has a certificate instead of asking an authority for one."""
    (block,) = code_blocks(PAGE, "caddyfile")
    block = block.replace("127.0.0.1:8765", f"127.0.0.1:{hub.port}")
    block = block.replace(
        "hub.example {",
        f"https://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls {own.cert} {own.key}",
    )
    file = place / "Caddyfile"
    settings = "admin off\n\tauto_https disable_redirects"
    file.write_text(f"{{\n\t{settings}\n}}\n{block}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]


@contextlib.contextmanager
def proxy(command: list[str], place: pathlib.Path, port: int) -> Iterator[None]:
    """Run a proxy until it has been used."""
    log = place / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command,
            cwd=place,
            env={**os.environ, "HOME": str(place), "XDG_DATA_HOME": str(place), "PATH": PATH},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        ) as process,
    ):

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        try:
            assert wait_until(answers, SECONDS), log.read_text()
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("prepare", [nginx, caddy], ids=["nginx", "caddy"])
def test_proxy_of_the_page_passes_everything_on(
    prepare: Callable[[pathlib.Path, int, BroadcastHub, Certificates], list[str]],
    tmp_path: pathlib.Path,
    certificates: Certificates,
) -> None:
    """WebSockets both ways, streams at once, publishers; own pages come in, and no others."""
    if shutil.which(prepare.__name__, path=PATH) is None:
        pytest.skip(f"{prepare.__name__} is missing (make proxies)")
    tmp_path.chmod(0o755)  # nginx's worker is another user
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


def test_nginx_that_asks_for_certificates_gets_them(
    tmp_path: pathlib.Path, certificates: Certificates
) -> None:
    """With the two lines of the page; who shows none is refused, in a sentence."""
    if shutil.which("nginx", path=PATH) is None:
        pytest.skip("nginx is missing (make proxies)")
    tmp_path.chmod(0o755)
    port = lasting_port()
    lines = re.findall(r"^    (ssl_(?:client|verify).*;)$", (ROOT / PAGE).read_text(), re.MULTILINE)
    assert len(lines) == 2
    cert, key = certificates.issue("ann.example")
    shown = {"ca_file": certificates.ca, "cert_file": cert, "key_file": key}
    with running_hub(trust_proxy=("127.0.0.1",)) as hub:
        command = nginx(tmp_path, port, hub, certificates)
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
