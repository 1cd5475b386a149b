"""The web page: what a browser gets at the URL of a room, and the files below ``/-/static/``.

The files lie in ``static/`` as they are sent, and they load nothing from elsewhere. The page finds
out by its own address which room it is for. It names its files relative to that address, so that it
works below a prefix of a proxy that the hub does not know; only as many ``../`` as the room's path
has folders are put into it. They are read when this module is imported; then there is no I/O.

Two things keep a room's messages from becoming part of the page: its scripts handle them as text
only, and the browser is told to run nothing but these files (Content-Security-Policy, without
``unsafe-inline``, and with Trusted Types where the browser has them).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.resources

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

# connect-src 'self' covers ws: and wss: to the page's own host and port (CSP 3, §6.7.2.8).
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)

# Everything that a page can ask for and that Chromium knows the name of.
_NO_FEATURES = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "camera",
        "display-capture",
        "geolocation",
        "gyroscope",
        "magnetometer",
        "microphone",
        "midi",
        "payment",
        "usb",
    )
)

# no-cache: the browser asks each time, and gets a 304. A page and its scripts that are of two
# versions would be worse than a request.
_FILE_HEADERS = (
    ("Cache-Control", "no-cache"),
    ("Content-Security-Policy", POLICY),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)

# A room's URL answers with other things than the page when it is asked otherwise.
_PAGE_HEADERS = (
    *_FILE_HEADERS,
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Permissions-Policy", _NO_FEATURES),
    ("Vary", "Accept"),
)


@dataclasses.dataclass(frozen=True)
class WebFile:
    """A file as it goes over the wire.

    Attributes:
        body: its bytes.
        content_type: the value of ``Content-Type``.
        headers: all other headers that belong to it, ``ETag`` among them. A 304 has the same.
        etag: the value of ``ETag``, with its quotes.
    """

    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...]
    etag: str

    def is_current(self, if_none_match: str | None) -> bool:
        """Tell whether the browser has this file already, so that the answer is a 304.

        Args:
            if_none_match: the value of ``If-None-Match``; None if there is none.
        """
        if if_none_match is None:
            return False
        # RFC 9110 §13.1.2: weak comparison. Our tags have no comma in them.
        tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        return "*" in tags or self.etag in tags


def _make(body: bytes, suffix: str) -> WebFile:
    etag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    headers = _PAGE_HEADERS if suffix == ".html" else _FILE_HEADERS
    return WebFile(body, _TYPES[suffix], (*headers, ("ETag", etag)), etag)


def _load() -> dict[str, WebFile]:
    assets = {}
    for file in (importlib.resources.files(__package__) / "static").iterdir():
        suffix = "." + file.name.rpartition(".")[2]
        if suffix not in _TYPES:
            continue  # an editor's backup
        assets[file.name] = _make(file.read_bytes(), suffix)
    return assets


_ASSETS = _load()
_ROOM, _BOARD = _ASSETS.pop("index.html"), _ASSETS.pop("board.html")


def page(target: str, board: bool = False) -> WebFile:
    """Return the page of a room. May be called from any thread.

    Args:
        target: the target of the request for a room that exists: a path and perhaps a query, before
            it is decoded, for a browser counts the slashes as they stand there. No part of it gets
            into the page.
        board: whether it is the one that shows the newest message only (``?view=board``).
    """
    path = target.partition("?")[0]
    if not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]  # RFC 9112 §3.2.2
    return _at_depth(path.count("/") - 1, board)


@functools.lru_cache(maxsize=32)
def _at_depth(depth: int, board: bool) -> WebFile:
    found = _BOARD if board else _ROOM
    if not depth:
        return found
    return _make(found.body.replace(b'"-/static/', b'"' + b"../" * depth + b"-/static/"), ".html")


def asset(name: str) -> WebFile | None:
    """Return a file below ``/-/static/``. May be called from any thread.

    Args:
        name: what follows ``/-/static/`` in the path, as it came: it is looked up, never opened.

    Returns:
        None if there is no such file.
    """
    return _ASSETS.get(name)
