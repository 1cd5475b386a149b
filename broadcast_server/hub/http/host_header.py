"""By which names the hub lets itself be called: the ``Host`` header, and DNS rebinding.

A web page may talk to its own origin without asking. Whoever owns the page's name can let it mean
the hub's address once the page is loaded (DNS rebinding): the browser then takes the hub for the
page's own server, sends the page's requests without any sign of a foreign origin, and shows it the
answers. What still gives it away is the name, which comes with each request. So the hub answers to
names of its own only:

- an IP address: to call the hub by it nobody's DNS was asked;
- ``localhost``, which browsers never look up;
- a name that ``--host`` gives, and those of ``--allow-host``.

The port is not looked at: it tells nothing about the name, and proxies and containers change it.
HTTP/1.0 knows requests without ``Host``, which no browser sends; they may pass.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterable

from ...networks import HOST, canonical
from .models import Refusal, Request

# RFC 1035 §2.3.4: no name is longer, and no address.
MAX_HOST_CHARACTERS = 255

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?P<authority>[^/?#]*)")


def own_names(hosts: Iterable[str], allow_host: Iterable[str]) -> frozenset[str]:
    """Return the names to which a hub answers, besides addresses.

    Args:
        hosts: where it listens, names and addresses.
        allow_host: further names.
    """
    return frozenset(map(canonical, ("localhost", *hosts, *allow_host)))


def effective(request: Request) -> Request:
    """Return the request with the host that it really is for.

    In the absolute form of a request the target has it, and the header does not count (RFC 9112
    §3.2.2).
    """
    found = _ABSOLUTE.match(request.target)
    if found is None:
        return request
    headers = tuple(header for header in request.headers if header[0] != "host")
    host = found["authority"].rpartition("@")[2]
    return dataclasses.replace(request, headers=(("host", host), *headers))


def refuse(request: Request, names: frozenset[str]) -> Refusal | None:
    """Return the answer to a request that calls the hub by a name that is none of its own.

    Args:
        request: the request, as ``effective`` gives it.
        names: what ``own_names`` gives.
    """
    values = request.values("host")
    if not values:
        return None
    found = HOST.fullmatch(values[0])
    if len(values) > 1 or found is None:
        # RFC 9112 §3.2.
        return Refusal(400, "the Host header is not one host with or without a port")
    # Only a name may end with the root's dot.
    name = found["literal"] or canonical(found["name"])
    if found["literal"] is None and name in names:
        return None
    try:
        if len(name) > MAX_HOST_CHARACTERS:
            raise ValueError("longer than any address")
        address = ipaddress.ip_address(name.replace("%25", "%"))
        if (found["literal"] is None) == (address.version == 4):
            return None
    except ValueError:
        pass
    return Refusal(
        421,
        f"this hub does not answer to the name {name[:80]!r}; call it by its address, or start it "
        f"with --allow-host {name[:80]}",
        reason="host",
    )
