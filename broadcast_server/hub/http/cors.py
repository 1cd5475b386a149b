"""Which web pages may use the hub, and how their browsers are told.

A hub on a desk's own machine is within reach of every page that is open there. Browsers let any
page send what a form could send (a POST of plain text, a GET for a picture) without asking, so the
hub itself looks where a request comes from. Three headers tell, all out of a page's reach:

- ``Origin`` comes with every upgrade, POST and PUT, and with a GET whose answer a page of another
  origin wants to read. It must be the hub's own, or one that is allowed.
- ``Sec-Fetch-Site`` comes with every request to https and to this machine, and tells of those
  without an ``Origin``: a picture, a script, a ``fetch`` in the mode ``no-cors``. The page could
  not read the answer, but it could fill the hub with readers. It must be ``same-origin``, or
  ``none`` for what a person has typed. Another port of the same host is ``same-site`` and foreign
  as well; without an ``Origin`` nobody knows whether it would be an allowed one.
- ``Sec-Fetch-Mode: navigate`` is a person who follows a link; the answer is shown to them only.

A program sends none of them and may do everything: a page cannot pass for one.
"""

from __future__ import annotations

from ... import origins
from .models import Headers, Preflight, Refusal, Request
from .reasons import cut

# What a page of another origin may send along, and for how long its browser need not ask again.
_CORS_HEADERS = "Content-Type, Broadcast-Name, Idempotency-Key, Last-Event-ID, Authorization"
_CORS_SECONDS = "7200"


def may_use(request: Request, allow_origin: tuple[str, ...]) -> bool:
    """Tell whether whoever sent the request may use the hub (RFC 6455 §10.2).

    Args:
        request: the request.
        allow_origin: origins that may use the hub besides its own; ``*`` for all.
    """
    if "*" in allow_origin:
        return True
    sent = request.values("origin")
    if not sent:
        is_navigation = request.tokens("sec-fetch-mode") == ["navigate"]
        if is_navigation and request.method in ("GET", "HEAD"):
            return True
        return {"same-origin", "none"}.issuperset(request.tokens("sec-fetch-site"))
    if len(sent) != 1:
        return False
    return origins.same(sent[0]) in origins.allowed(allow_origin) or _is_own(request)


def shared_headers(request: Request, allow_origin: tuple[str, ...], *vary: str) -> Headers:
    """Return the header lines that every answer to this request has, a refusal as well.

    Args:
        request, allow_origin: as for `may_use`.
        vary: request headers on which the answer depends, besides ``Origin``.
    """
    headers: Headers = ()
    sent = request.values("origin")
    if sent and not _is_own(request):
        if may_use(request, allow_origin):
            headers = (("Access-Control-Allow-Origin", _named(sent, allow_origin)),)
        vary = (*vary, "Origin")
    return (*headers, ("Vary", ", ".join(vary))) if vary else headers


def decide_options(
    request: Request, allow_origin: tuple[str, ...], methods: tuple[str, ...]
) -> Preflight | Refusal:
    """Answer OPTIONS, and the question of a browser whose page is of another origin.

    Args:
        request, allow_origin: as for `may_use`.
        methods: what the path understands, without OPTIONS.
    """
    sent = request.values("origin")
    if not sent or not request.values("access-control-request-method"):
        return Preflight((("Allow", ", ".join((*methods, "OPTIONS"))),))
    if not may_use(request, allow_origin):
        return foreign(request)
    return Preflight(
        (
            ("Access-Control-Allow-Origin", _named(sent, allow_origin)),
            # HEAD needs no permission (Fetch §4.8).
            ("Access-Control-Allow-Methods", ", ".join(m for m in methods if m != "HEAD")),
            ("Access-Control-Allow-Headers", _CORS_HEADERS),
            ("Access-Control-Max-Age", _CORS_SECONDS),
            ("Vary", "Origin"),
        )
    )


def foreign(request: Request) -> Refusal:
    """Return the answer to whoever may not use the hub; it is not for others to be kept.

    It tells the host as well: a proxy that passes another one on makes the hub's own page foreign.
    """
    sent, hosts = request.values("origin"), request.values("host")
    if len(sent) == 1:
        origin = cut(sent[0])
        text = (
            f"the origin {origin} may not use the hub, which was called {_shown(hosts)}: start the "
            f"hub with --allow-origin {origin}; if it is the hub's own page, the proxy in front "
            "must pass on the Host"
        )
    elif sent:
        text = "a request has one Origin at most"
    else:
        site = _shown(request.values("sec-fetch-site"))
        text = (
            f"the browser says that a page of another origin asks (Sec-Fetch-Site: {site}); only "
            "a request with an Origin can be let in, by --allow-origin"
        )
    return Refusal(403, text, (("Vary", "Origin"),), "origin")


def _shown(values: list[str]) -> str:
    return cut(", ".join(values)) or "nothing"


def _named(sent: list[str], allow_origin: tuple[str, ...]) -> str:
    return "*" if "*" in allow_origin else sent[0]


def _is_own(request: Request) -> bool:
    """Tell whether the one origin is the hub's own host and port, as the client calls them."""
    sent, hosts = request.values("origin"), request.values("host")
    if len(sent) != 1 or len(hosts) != 1:
        return False
    origin = origins.parse(sent[0])
    # A request may come without a host (RFC 9110 §7.2), but no page does.
    return origin is not None and origin == origins.of_host(origin.scheme, hosts[0])
