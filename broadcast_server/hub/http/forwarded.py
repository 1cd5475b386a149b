"""Whose request it is: the peer of the socket, or who a proxy says that may be believed.

A proxy appends the address from which it was called to
``X-Forwarded-For`` or ``Forwarded`` (RFC 7239). Everybody can send such a header, so only the part
that a listed proxy has written is believed: beginning with the peer of the socket, and as long as
an address is a listed proxy's, the next element from the right is who called it. The first one that
is no listed proxy is the client, and what stands left of it is never even looked at.

An element that is looked at was written by a listed proxy. If it is no address, the proxy is set up
wrongly, and the request is refused: with a guess, one stranger could pass for another. RFC 7239
lets a proxy hide an address, as ``unknown`` or ``_text`` (§6.2, §6.3); then the proxy's own counts.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...networks import Network
from .models import Request

# RFC 7239 §4: pairs of a token and a value, a value being a token or a quoted string; and some
# values that are no tokens, but are seen all the same: an address with a colon and without quotes.
_PAIR = re.compile(
    r"""\s*(?P<name>[-!#$%&'*+.^_`|~0-9A-Za-z]+)=
    (?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[-!#$%&'*+.^_`|~0-9A-Za-z:\[\]]+))
    \s*(?P<end>[;,]|$)""",
    re.VERBOSE,
)
_PORT = re.compile(r"[0-9]{1,5}|_[A-Za-z0-9._-]+")
_MAX_PORT = 65535
_HIDDEN = re.compile(r"unknown|_[A-Za-z0-9._-]+", re.IGNORECASE)


# Hops that are looked at, pairs of a line of ``Forwarded``, and characters of an address with its
# zone and its port: more than any chain of proxies writes.
MAX_HOPS = 64
MAX_PAIRS = 256
MAX_HOP_CHARACTERS = 128


class Address(NamedTuple):
    """Where a request comes from.

    Attributes:
        host: an IP address; an IPv6 address of a link has its zone behind a ``%``.
        port: the TCP port; None where a proxy does not tell it.
    """

    host: str
    port: int | None

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_in(host: str, networks: Sequence[Network]) -> bool:
    """Tell whether an address is in one of the networks."""
    if not networks:
        # To parse an address takes the stack of a client's thread a page deeper.
        return False
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def client_of(request: Request, peer: Address, trusted: Sequence[Network]) -> Address:
    """Return who has sent a request.

    Args:
        request: the request.
        peer: the other end of the socket.
        trusted: the proxies whose word counts.

    Raises:
        ValueError: a listed proxy tells nonsense, or two headers tell of different clients.
    """
    if not is_in(peer.host, trusted):
        return peer
    found = []
    for name, elements in (("x-forwarded-for", _listed), ("forwarded", _forwarded)):
        values = request.values(name)
        if values:
            found.append(_walk(elements(values), peer, trusted))
    if len(found) == 2 and found[0].host != found[1].host:
        # The proxy writes one of them and lets the other pass, and nobody here knows which.
        raise ValueError("X-Forwarded-For and Forwarded tell of different clients")
    return found[0] if found else peer


def _walk(elements: Iterator[str], peer: Address, trusted: Sequence[Network]) -> Address:
    """Return the first hop from the right that is no listed proxy; the last one if all are."""
    hop = peer
    for element in elements:
        if _HIDDEN.fullmatch(_without_port(element)):
            return hop
        hop = _parse_hop(element)
        if not is_in(hop.host, trusted):
            return hop
    return hop


def _listed(values: list[str]) -> Iterator[str]:
    """Yield the elements of ``X-Forwarded-For`` from the right.

    Raises:
        ValueError: there are too many, all of them of proxies that are listed.
    """
    for value in reversed(values):
        elements = value.rsplit(",", MAX_HOPS)
        for element in reversed(elements[-MAX_HOPS:]):
            # RFC 9110 §5.6.1.2: empty elements of a list do not count.
            if element.strip(" \t"):
                yield element.strip(" \t")
        if len(elements) > MAX_HOPS:
            raise ValueError(f"X-Forwarded-For names more than {MAX_HOPS} proxies")


def _forwarded(values: list[str]) -> Iterator[str]:
    """Yield what is named ``for`` in each element of ``Forwarded``, from the right.

    A line is looked at when it is its turn, but then as a whole: a quote that a client has left
    open would else swallow what the proxy has written behind it.
    """
    for value in reversed(values):
        if value.count(",") + value.count(";") >= MAX_PAIRS:
            raise ValueError(f"Forwarded has more than {MAX_PAIRS} pairs in a line")
        hops: list[str] = []
        hop: str | None = None
        position, more = 0, True
        while more:
            pair = _PAIR.match(value, position)
            if pair is None:
                raise ValueError("Forwarded is not as RFC 7239 wants it")
            if pair["name"].lower() == "for":
                if hop is not None:
                    raise ValueError("Forwarded names two clients in one element")
                plain = pair["plain"]
                hop = re.sub(r"\\(.)", r"\1", pair["quoted"]) if plain is None else plain
            position, more = pair.end(), pair["end"] != ""
            if pair["end"] != ";":
                # A proxy that does not say who has called it hides that.
                hops.append("unknown" if hop is None else hop)
                hop = None
        yield from reversed(hops)


def _without_port(text: str) -> str:
    name, colon, port = text.rpartition(":")
    return name if colon and _is_port(port) else text


def _is_port(text: str) -> bool:
    """Tell whether a text is a TCP port, or a name that hides one (RFC 7239 §6)."""
    return bool(_PORT.fullmatch(text)) and (not text.isdigit() or int(text) <= _MAX_PORT)


def _parse_hop(text: str) -> Address:
    """Return the address in an element, with its port if it has one.

    Raises:
        ValueError: there is none.
    """
    if len(text) > MAX_HOP_CHARACTERS:
        raise ValueError(f"{text[:80]!r} is no address")
    host, end = text, ""
    if text.startswith("["):
        host, bracket, end = text[1:].partition("]")
        if not bracket or ":" not in host:
            raise ValueError(f"{text[:80]!r} is no address")
    elif text.count(":") == 1:
        host, end = text.split(":")
        end = ":" + end
    port = end[1:]
    if end and not (end.startswith(":") and _is_port(port)):
        raise ValueError(f"{text[:80]!r} is no address")
    try:
        # A zone means something on the proxy's machine only.
        if "%" in host:
            raise ValueError
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{text[:80]!r} is no address") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    number = int(port) if port.isdigit() else None
    return Address(str(address), number)
