"""HTTP answers as bytes: their heads, and how an error looks. No I/O."""

from __future__ import annotations

import email.utils
import html
import http
import json
import math
import random

from ...escapes import printable
from .media_types import EVENTS, HTML, prefer
from .models import RETRY, Headers, Join, Refusal, Request, Response, Stream
from .pages import POLICY

_PROBLEM = "application/problem+json"
# Nothing is loaded into it, so that it looks the same below any path and for any refusal.
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{status} {phrase}</title>
<h1>{phrase}</h1>
<p>The hub answered {status}: {text}.</p>
</html>
"""
# With these the same request may be granted later.
_FOR_NOW = (429, 503)
# Those that are turned away together come back at random times within so many more seconds at most.
_JITTER_SECONDS = 10.0

# Said to a connection for which there is no thread, or no place.
BUSY = Refusal(503, "the hub has too much to do now", RETRY)

# What every answer has, unless it says otherwise, as the page does. Nobody may frame it, guess that
# it is a script, load it into a page of another origin without asking (CORS is for those that
# --allow-origin names), or keep it: what is in a room now is not there later.
_SAFE_HEADERS: Headers = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


def refused(refusal: Refusal, request: Request | None) -> Response:
    """Return a refusal as whoever asks can read it: a page for a browser, JSON for a program."""
    try:
        is_browser = request is not None and prefer(request.values("accept")) == HTML
    except ValueError:
        is_browser = False
    return _error_page(refusal) if is_browser else _problem(refusal)


def _error_page(refusal: Refusal) -> Response:
    phrase = http.HTTPStatus(refusal.status).phrase
    body = _PAGE.format(
        status=refusal.status, phrase=phrase, text=html.escape(printable(refusal.text))
    )
    policy = ("Content-Security-Policy", POLICY)
    headers = (*refusal.headers, policy)
    return Response(refusal.status, headers, body.encode(), "text/html; charset=utf-8")


def _problem(refusal: Refusal) -> Response:
    """Return an error as RFC 9457 wants it; the status says all about its type."""
    problem = {
        "type": "about:blank",
        "title": http.HTTPStatus(refusal.status).phrase,
        "status": refusal.status,
        "detail": refusal.text,
    }
    body = json.dumps(problem, ensure_ascii=False).encode() + b"\n"
    return Response(refusal.status, refusal.headers, body, _PROBLEM)


def refused_stream(asked: Stream, refusal: Refusal, seconds: float = 0.0) -> Refusal | Response:
    """Return the answer to a reader of server-sent events that is refused.

    Any status but 200 ends an ``EventSource`` for good (WHATWG HTML §9.2.3). So whoever accepts
    nothing but such a stream and is refused only for now gets one that says when to come back, and
    ends.

    Args:
        asked: what it wants.
        refusal: why it is refused; with a ``Retry-After`` if that is for now.
        seconds: how long it is expected to take, if that is longer.
    """
    if not (asked.only_events and refusal.status in _FOR_NOW):
        return refusal
    told = [value for name, value in refusal.headers if name.lower() == "retry-after"]
    # A program's own refusal may tell a date, or nothing.
    known = [float(value) for value in told if value.isascii() and value.isdigit()]
    wait = max(seconds, *(known or [float(RETRY[0][1])]))
    retry_ms = math.ceil(1000 * random.uniform(wait, wait + min(wait, _JITTER_SECONDS)))
    headers = tuple(header for header in refusal.headers if header[0].lower() != "retry-after")
    why = " ".join(refusal.text.split())
    return Response(
        200,
        (*headers, ("Retry-After", str(math.ceil(wait))), ("X-Accel-Buffering", "no")),
        f"retry: {retry_ms}\n: {why}\n\n".encode(),
        EVENTS,
        ends=True,
    )


def head_of(response: Response, *, keep: bool) -> bytes:
    """Return the head of an answer.

    Args:
        response: the answer.
        keep: whether another request may follow on the connection.
    """
    headers = [*response.headers]
    if response.content_type is not None:
        headers.append(("Content-Type", response.content_type))
    if response.status != 204:  # RFC 9110 §8.6: that one must not have it
        headers.append(("Content-Length", str(response.size)))
    # RFC 9110 §7.8: whoever sends Upgrade lists it in Connection.
    options = ["Upgrade"] * any(name == "Upgrade" for name, _ in headers)
    options += ["close"] * (not keep)
    if options:
        headers.append(("Connection", ", ".join(options)))
    return _head(response.status, tuple(headers))


def switching(join: Join) -> bytes:
    """Return the 101 of a client that may join."""
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + join.accept.encode("ascii") + b"\r\n"
    )
    if join.subprotocol is not None:
        answer += b"Sec-WebSocket-Protocol: " + join.subprotocol.encode("ascii") + b"\r\n"
    return answer + b"\r\n"


def stream_head(headers: Headers) -> bytes:
    """Return the head of a stream of events, with the headers of the decision."""
    own = (
        ("Content-Type", EVENTS),
        # The body has no length and no chunks: it ends with the connection.
        ("Connection", "close"),
        # nginx would keep events until its buffer is full.
        ("X-Accel-Buffering", "no"),
    )
    return _head(200, (*headers, *own))


def busy() -> bytes:
    """Return the answer to a connection for which there is no thread, and so no request that could
    be looked at."""
    return _head(503, (*RETRY, ("Content-Length", "0"), ("Connection", "close")))


def _head(status: int, headers: Headers) -> bytes:
    """Return a status line and headers; those that all answers have are added."""
    given = {name.lower() for name, _ in headers}
    if "access-control-allow-origin" in given:
        # Whoever may read the answer may load it without reading, too.
        given.add("cross-origin-resource-policy")
    common = [("Date", email.utils.formatdate(usegmt=True))]  # RFC 9110 §6.6.1 wants it
    common += [header for header in _SAFE_HEADERS if header[0].lower() not in given]
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in (*common, *headers)]
    # An origin that is sent back goes out with the bytes with which it came.
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
