"""nginx and Caddy in front of a hub, set up as ``docs/howto/tls.md`` says."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from .certificates import Certificates
from .documents import code_blocks
from .programs import ROOT
from .waiting import wait_until

PAGE = "docs/howto/tls.md"
SECONDS = 20.0
# Where they are looked for; `make proxies` puts them into the last two.
FETCHED = ROOT / "build" / "proxies" / "usr"
PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin", f"{FETCHED}/sbin", f"{FETCHED}/bin"])


def nginx(place: pathlib.Path, port: int, hub_port: int, own: Certificates | None) -> list[str]:
    """Write what nginx reads, the page's block in the middle; return how to run it.

    Without certificates it speaks plain HTTP.
    """
    block = _nginx_block("server {")
    block = block.replace("127.0.0.1:8765", f"127.0.0.1:{hub_port}")
    block = block.replace("listen 443 ssl", f"listen 127.0.0.1:{port}" + (" ssl" if own else ""))
    if own is None:
        block = re.sub(r" *ssl_certificate.*\n", "", block)
        return _write_nginx(place, block)
    block = re.sub(r"/etc/\S*/fullchain\.pem", str(own.cert), block)
    block = re.sub(r"/etc/\S*/privkey\.pem", str(own.key), block)
    return _write_nginx(place, block)


def nginx_below(
    place: pathlib.Path, port: int, hub_port: int, own: Certificates | None
) -> list[str]:
    """The same with the hub below ``/hub/``: the page says which two lines are other ones."""
    location, target = _nginx_block("location /hub/").splitlines()
    command = nginx(place, port, hub_port, own)
    return changed(command, ("location / {", location), ("proxy_pass http://hub;", target))


def changed(command: list[str], *changes: tuple[str, str]) -> list[str]:
    """Put other words into the file of a proxy that is to be run with this command."""
    file = pathlib.Path(command[-1])
    text = file.read_text()
    for before, after in changes:
        assert text.count(before) == 1
        text = text.replace(before, after)
    file.write_text(text)
    return command


def _nginx_block(mark: str) -> str:
    (found,) = [block for block in code_blocks(PAGE, "nginx") if mark in block]
    return found


def _write_nginx(place: pathlib.Path, block: str) -> list[str]:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {place / kind};\n" for kind in kinds)
    file = place / "nginx.conf"
    file.write_text(
        f"daemon off; pid {place / 'pid'}; error_log stderr warn;\n"
        f"events {{}}\nhttp {{ access_log off;\n{folders}{block}}}\n"
    )
    return ["nginx", "-e", "stderr", "-p", str(place), "-c", str(file)]


def caddy(place: pathlib.Path, port: int, hub_port: int, own: Certificates) -> list[str]:
    """The same for Caddy, which here has a certificate instead of asking an authority for one."""
    (block,) = code_blocks(PAGE, "caddyfile")
    block = block.replace("127.0.0.1:8765", f"127.0.0.1:{hub_port}")
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
    """Run a proxy until it has been used; skip the test if there is none."""
    if shutil.which(command[0], path=PATH) is None:
        pytest.skip(f"{command[0]} is missing (make proxies)")
    place.chmod(0o755)  # nginx's worker is another user
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
