"""Target: tokens as strangers show them, and claims as an issuer may have signed them.

Of an input the first byte chooses: header lines with a token somewhere in them, the token alone, or
claims, which are signed here so that they get past the signature. What must hold: a grant or a 401
or 403 and nothing else; and nobody is let in without a secret of this keyring or a signature by its
key, which is worked out here once more.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time

from broadcast_server.hub.http import access
from broadcast_server.hub.http.access import AccessRequest, Grant
from broadcast_server.hub.http.keyring import Keyring
from broadcast_server.hub.http.models import Refusal, Request
from broadcast_server.settings import Settings

TOKEN = "secret-token"
PUBLISH_TOKEN = "other-token"
KEY = b"a key of at least thirty-two bytes"

HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")

_keyring = Keyring(Settings(token=TOKEN, publish_token=PUBLISH_TOKEN, jwt_key=KEY))


def run(data: bytes) -> str:
    """Show a token, or claims, and see who is let in."""
    if not data:
        return "short"
    kind, rest = data[0] % 3, data[1:]
    if kind == 0:
        return _run_headers(rest.decode("latin-1"))
    if kind == 1:
        return _ask(rest.decode("latin-1"))
    claims = base64.urlsafe_b64encode(rest).rstrip(b"=")
    signed = HEADER + b"." + claims
    token = signed + b"." + base64.urlsafe_b64encode(_sign(signed)).rstrip(b"=")
    return "signed: " + _ask(token.decode("ascii"))


def _run_headers(text: str) -> str:
    target, *lines = text.split("\n")
    headers = []
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers.append((name.lower(), value.strip(" \t")))
    try:
        token = access.find_token(Request("GET", target, "1.1", tuple(headers)))
    except ValueError as error:
        assert str(error)
        return "unreadable"
    return "header: " + _ask(token)


def _ask(token: str | None) -> str:
    found = _keyring.authorize(AccessRequest("subscribe", "/r", token, "127.0.0.1:1", ()))
    if isinstance(found, Refusal):
        assert found.status in (401, 403) and found.text.isprintable()
        assert found.headers[0][0] == "WWW-Authenticate"
        return str(found.status)
    assert isinstance(found, Grant) and token is not None
    for action in ("subscribe", "publish", "look"):
        refusal = access.judge(found, action, "/r", time.time())
        assert refusal is None or refusal.status in (401, 403)
    if token in (TOKEN, PUBLISH_TOKEN):
        return "shared"
    assert found.expires is not None
    signed, _, signature = token.encode("latin-1").rpartition(b".")
    try:
        shown = base64.urlsafe_b64decode(signature + b"=" * (-len(signature) % 4))
    except binascii.Error:
        raise AssertionError("a token without a signature is let in") from None
    assert shown == _sign(signed), "a token with a wrong signature is let in"
    return "granted"


def _sign(signed: bytes) -> bytes:
    return hmac.digest(KEY, signed, hashlib.sha256)
