"""The way to a server through a proxy, where the environment names one.

``http_proxy`` is for plain connections, ``https_proxy`` for those with TLS, and ``all_proxy`` for
both if the other one is not set. ``no_proxy`` lists hosts and networks that are reached without a
proxy. So is this machine: no proxy could lead there. The proxy is asked for a tunnel (CONNECT, RFC
9110 §9.3.6), also for plain connections (RFC 6455 §4.1). Proxies of other kinds, such as SOCKS, are
refused.
"""

from __future__ import annotations

import base64
import contextlib
import http
import ipaddress
import re
import socket
import urllib.parse
import urllib.request
from typing import NamedTuple

from .deadlines import Deadline

DEFAULT_PORT = 80
EXAMPLE = "http://proxy.example:3128"
# What a proxy may say before the tunnel begins.
MAX_ANSWER_BYTES = 16 * 1024


class ProxyError(OSError):
    """A proxy is the reason why there is no connection; the text names it and says why.

    Attributes:
        status: the HTTP status if it has answered with one, else None.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


class Proxy(NamedTuple):
    """A proxy.

    Attributes:
        host, port: its address.
        credentials: what it is shown in ``Proxy-Authorization``; None for nothing.
    """

    host: str
    port: int
    credentials: str | None

    @property
    def shown(self) -> str:
        """What errors call it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"the proxy {host}:{self.port}"


def find(host: str, port: int, *, is_tls: bool) -> Proxy | None:
    """Return the proxy that leads to a host and port, None if there is none. Any thread.

    Raises:
        ProxyError: the environment names one that cannot be.
    """
    found = urllib.request.getproxies()
    kind = "https" if is_tls else "http"
    if not found.get(kind):
        kind = "all"
    value = found.get(kind, "").strip()
    if not value or _is_own(host) or _is_excepted(host, port, found.get("no", "")):
        return None
    # Where the environment names none the system may have settings of its own (macOS, Windows).
    if not urllib.request.getproxies_environment() and urllib.request.proxy_bypass(host):
        return None
    try:
        parts = urllib.parse.urlsplit(value if "//" in value else f"//{value}")
        proxy_port = parts.port or DEFAULT_PORT
        if not parts.hostname:
            raise ValueError
    except ValueError:
        # The value is not shown: there may be a password in it.
        raise ProxyError(
            f"the environment names no proxy: {kind}_proxy is not an address such as {EXAMPLE}"
        ) from None
    if parts.scheme not in ("", "http"):
        raise ProxyError(
            f"{kind}_proxy names a proxy of the kind {parts.scheme}, which is not supported: it "
            f"must be one such as {EXAMPLE}, or no_proxy must list the host {host}"
        )
    credentials = None
    if parts.username:
        pair = ":".join(map(urllib.parse.unquote, (parts.username, parts.password or "")))
        credentials = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, proxy_port, credentials)


def tunnel(sock: socket.socket, host: str, port: int, proxy: Proxy, deadline: Deadline) -> None:
    """Have the proxy at the other end of the socket lead on to a host.

    Raises:
        ProxyError: it refuses, or its answer is not HTTP.
        OSError: the connection to it broke: TimeoutError if the deadline has passed.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: {proxy.credentials}")
    sock.settimeout(deadline.left_or_late())
    sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    head = b""
    # Byte by byte: what follows is the server's.
    while not head.endswith((b"\r\n\r\n", b"\n\n")):
        sock.settimeout(deadline.left_or_late())
        piece = sock.recv(1)
        head += piece
        if not piece or len(head) > MAX_ANSWER_BYTES:
            head = b""
            break
    found = re.match(rb"HTTP/1\.[01] ([0-9]{3})\b", head)
    if found is None:
        raise ProxyError(f"{proxy.shown} gives no answer that is HTTP")
    if found[1][:1] != b"2":
        status = int(found[1])
        raise ProxyError(f"{proxy.shown} answers {status}{_named(status)}", status)


def _named(status: int) -> str:
    """Return the name of a status, to be put behind it. The proxy's own words may be anything."""
    try:
        return f" {http.HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _is_own(host: str) -> bool:
    name = _normal(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and address.is_loopback


def _is_excepted(host: str, port: int, listed: str) -> bool:
    """Tell whether ``no_proxy`` lists a host: by its name, by a domain that it is in, by its
    address, or by a network that the address is in; each perhaps with a port. No name is looked up.
    """
    name = _normal(host)
    address = _address(name)
    for entry in re.split(r"[\s,]+", listed):
        if entry == "*":
            return True
        network = _network(entry)
        if network is None and (found := re.fullmatch("(.+):([0-9]+)", entry)):
            if int(found[2]) != port:
                continue
            entry, network = found[1], _network(found[1])
        if network is not None:
            if address is not None and address in network:
                return True
            continue
        domain = _normal(entry.removeprefix("*").removeprefix("."))
        if address is None and domain and f".{name}".endswith(f".{domain}"):
            return True
    return False


def _normal(name: str) -> str:
    """Return a host as it is compared."""
    name = name.rstrip(".").lower()
    if not name.isascii():
        with contextlib.suppress(UnicodeError):
            return name.encode("idna").decode("ascii")
    return name


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(name)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return what an entry of ``no_proxy`` stands for if it is a network, or one address."""
    if entry.startswith("[") and entry.endswith("]"):
        entry = entry[1:-1]
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None
