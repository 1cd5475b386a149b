"""Web origins: what an operator may allow, and what a client sends (RFC 6454).

The origin of a web page is a scheme, a host and a port. What stands in another form, such as
``null``, ``file://`` or ``app://desk``, is compared as it is sent.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import NamedTuple

from .networks import HOST, canonical

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
ANY = "*"

_EXAMPLE = "an origin such as https://example.org"
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>[!-~]*)")
_MAX_PORT = 65_535
_MAX_PORT_DIGITS = 16  # with zeros in front


class Origin(NamedTuple):
    """The origin of a web page.

    Attributes:
        scheme: in lower case, one of ``DEFAULT_PORTS``.
        host: a name in lower case without the root's dot, or an address in its shortest form.
        port: the port, also if it is the default one.
    """

    scheme: str
    host: str
    port: int


def parse(text: str) -> Origin | None:
    """Return the origin of a web page; None if the text is not one.

    A slash at its end does not count: some libraries send the address of a page.
    """
    found = _SCHEME.fullmatch(text)
    if found is None or (scheme := found["scheme"].lower()) not in DEFAULT_PORTS:
        return None
    return _place(scheme, found["rest"].removesuffix("/"))


def of_host(scheme: str, host: str) -> Origin | None:
    """Return the origin of whatever a ``Host`` header names; None if that is not a host."""
    return _place(scheme, host)


def same(sent: str) -> Origin | str:
    """Return what two texts have in common that name one origin."""
    return parse(sent) or sent


@functools.lru_cache(maxsize=64)
def allowed(texts: tuple[str, ...]) -> frozenset[Origin | str]:
    """Return the origins that an operator allows, as `same` gives them."""
    found: set[Origin | str] = set()
    for text in map(_in_ascii, texts):
        scheme, separator, rest = text.partition("://")
        # FILE:/// names what is sent as file://.
        usual = f"{scheme.lower()}://{rest.removesuffix('/')}" if separator else text
        found |= {same(text), same(usual)}
    return frozenset(found)


def check_allowed(text: str) -> None:
    """Check an origin that somebody wants to allow.

    Raises:
        ValueError: no browser could send what would match it.
    """
    if text in (ANY, "null"):
        return
    if "*" in text:
        raise ValueError(f"{text!r}: each origin must be given as a whole; * alone is for all")
    found = _SCHEME.fullmatch(_in_ascii(text))
    if found is None:
        raise ValueError(f"{text!r} is not {_EXAMPLE}")
    scheme, rest = found["scheme"], found["rest"]
    if scheme.lower() not in DEFAULT_PORTS:
        # Such as file:// of an application, or chrome-extension://… of an extension.
        return
    if parse(_in_ascii(text)) is None:
        host = re.match("[^/?#]*", rest)
        if host is not None and _place(scheme.lower(), host[0]) is not None:
            raise ValueError(f"{text!r} has more than an origin has; give {scheme}://{host[0]}")
        raise ValueError(f"{text!r} is not {_EXAMPLE}")


def _place(scheme: str, authority: str) -> Origin | None:
    found = HOST.fullmatch(authority)
    if found is None:
        return None
    host = found["literal"]
    if host is not None:
        try:
            host = str(ipaddress.IPv6Address(host.replace("%25", "%")))
        except ValueError:
            return None
        port = authority.rpartition("]")[2]
    else:
        host = canonical(found["name"])
        port = authority.partition(":")[2]
    digits = port.removeprefix(":")
    if not host or len(digits) > _MAX_PORT_DIGITS:
        return None
    number = int(digits) if digits else DEFAULT_PORTS[scheme]
    return Origin(scheme, host, number) if number <= _MAX_PORT else None


def _in_ascii(text: str) -> str:
    """Return an origin with the name of its host as browsers send it, as far as it can be."""
    scheme, separator, rest = text.partition("://")
    if text.isascii() or not separator:
        return text
    host, colon, port = rest.partition(":")
    try:
        return f"{scheme}://{host.rstrip('/').encode('idna').decode('ascii')}{colon}{port}"
    except UnicodeError:
        return text
