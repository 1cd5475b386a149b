"""What counts as one sender, which networks an operator may name, and what host names may be.

Limits that count by address count an IPv4 address for itself and an IPv6 address by its /64, which
is what one household or one machine is given: a client with 2⁶⁴ addresses would have no limit
otherwise. An IPv4 address in IPv6's form counts as the IPv4 address. A program on the hub's own
machine may call from each of the 2²⁴ addresses of 127.0.0.0/8 and from ::1; all of these are one.
"""

from __future__ import annotations

import ipaddress
import re

# What begins like this is no address.
SUBJECT = "sub:"
# What every loopback address counts as.
LOOPBACK = "127.0.0.1"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 9110 §7.2 and RFC 3986 §3.2.2: uri-host [ ":" port ]; an empty host is none (RFC 9110 §4.2.1).
HOST = re.compile(
    r"(?:\[(?P<literal>[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?)\]"
    r"|(?P<name>(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+))(?::[0-9]*)?"
)


def parse_network(text: str) -> Network:
    """Return the network of an address or of a network in CIDR notation.

    Raises:
        ValueError: it is neither, such as a name, or a network with bits set behind its prefix.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is neither an IP address nor a network") from None
    raise ValueError(f"{text!r} has bits set behind its prefix; the network is {meant}")


def network_of(host: str) -> str:
    """Return what counts as one sender.

    Args:
        host: as the socket tells it, such as ``192.0.2.1`` or ``fe80::1%eth0``.
    """
    if ":" not in host:
        return LOOPBACK if host.startswith("127.") else host
    try:
        found = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if found.ipv4_mapped is not None:
        # So an IPv4 peer of a socket that listens for both looks.
        return network_of(str(found.ipv4_mapped))
    if found.is_loopback:
        return LOOPBACK
    return str(ipaddress.IPv6Address(int(found) >> 64 << 64))


def owner_of(host: str, subject: str | None) -> str:
    """Return who counts as the owner of what somebody has in a hub: the one that a token names,
    from wherever they come, or else their address.

    Args:
        host: as for `network_of`.
        subject: the name that their token gives them; None if it gives none.
    """
    return network_of(host) if subject is None else SUBJECT + subject


def scope_of(owner: str) -> str:
    """Return where an owner's keys count: whom a token names has keys of its own. The others have
    theirs together, since people change networks."""
    return owner if owner.startswith(SUBJECT) else ""


def canonical(name: str) -> str:
    """Return a host name as names are compared: in lower case, without the root's dot."""
    return name.lower().removesuffix(".")


def check_host_name(name: str) -> None:
    """Check a name that somebody wants to allow.

    Raises:
        ValueError: no ``Host`` header could match it.
    """
    if "*" in name:
        raise ValueError(f"{name!r}: each name must be given as a whole, without '*'")
    found = HOST.fullmatch(name)
    if found is None or found["name"] is None or ":" in name or not canonical(name):
        raise ValueError(f"{name!r} is no name; give the name alone, such as hub.example")
