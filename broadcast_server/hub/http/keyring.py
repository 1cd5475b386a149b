"""The hub's own access control: shared secrets and signed tokens, from values or from files.

A ``Keyring`` is read at the start and again when the hub is told to reload. It is an ``authorize``:
asked with an ``AccessRequest`` it answers with a ``Grant`` or a ``Refusal``. Three kinds of secrets
may be there:

- *tokens*: who shows one may read and, if there are no publish tokens, write;
- *publish tokens*: who shows one may read and write. Where they are the only secrets, everybody may
  read;
- a *key*: who shows a JSON Web Token (RFC 7519) that it has signed may do what stands in there.

What kind of key it is says which algorithm signs: the token is not asked, or it could choose one
for which a public key counts as a secret (RFC 8725 §2.1). PyJWT is imported where a key is used.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import AccessError
from ...records import get_logger
from ...secret_files import read_file, read_tokens
from ...settings import Settings
from .access import AccessRequest, Grant, forbidden, unknown
from .models import Refusal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

logger = get_logger("broadcast_server.access")

# Clocks of issuer and hub may differ by so much: a token counts that much longer, and earlier.
LEEWAY_SECONDS = 30
# RFC 7518 §3.2: a secret has at least as many bytes as the hash; §3.3: an RSA key, so many bits.
MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2048
# A token that says whom it is for (RFC 7519 §4.1.3) must name us so.
AUDIENCE = "broadcast-server"
# The claim that holds our own: nobody else's token gives rights here by accident.
CLAIM = "broadcast"

_WITHOUT_JWT = "needs PyJWT and cryptography: pip install 'broadcast-server[jwt]'"


class Signer(NamedTuple):
    """A key and the one algorithm that it is for."""

    algorithm: str
    key: Any


class Secrets(NamedTuple):
    """What a keyring holds at one time. Exchanged as a whole, so it needs no lock."""

    tokens: tuple[bytes, ...]
    publish_tokens: tuple[bytes, ...]
    signer: Signer | None


class Keyring:
    """The secrets of one hub. All methods may be called from any thread.

    Args:
        settings: the hub's; the fields of tokens and keys count.

    Raises:
        AccessError: a file cannot be read or used: nobody may be let in.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secrets = self._read()

    def reload(self) -> None:
        """Read all files anew. What fails changes nothing.

        Connections stay as they are: a token that is gone does not let anybody in from now on.

        Raises:
            AccessError: a file cannot be read or used.
        """
        self._secrets = self._read()
        logger.info("tokens and keys are read anew")

    def authorize(self, request: AccessRequest) -> Grant | Refusal:
        """Return what the shown token allows."""
        tokens, publish_tokens, signer = self._secrets
        if request.token is None:
            # Where only writing is protected everybody may read.
            if request.action == "subscribe" and not tokens and signer is None:
                return Grant(publish=())
            return unknown()
        shown = request.token.encode("utf-8", "surrogatepass")
        # Both lists to their end: how long it takes tells nothing.
        may_publish = _holds(publish_tokens, shown)
        may_read = _holds(tokens, shown)
        if may_publish:
            return Grant()
        if may_read:
            return Grant(publish=() if publish_tokens else None)
        if signer is None:
            return unknown("the token is not valid", invalid=True)
        return _verify(signer, request.token)

    def _read(self) -> Secrets:
        settings = self._settings
        key, name = settings.jwt_key, "jwt_key"
        if settings.jwt_key_file is not None:
            name = os.fspath(settings.jwt_key_file)
            # Who writes a file ends its last line, and does not mean that.
            key = read_file(settings.jwt_key_file).rstrip(b"\r\n")
        return Secrets(
            read_tokens(settings.token, settings.token_file, "token"),
            read_tokens(settings.publish_token, settings.publish_token_file, "publish_token"),
            None if key is None else read_key(key, name),
        )


# -- Shared secrets ----------------------------------------------------------------------------


def _holds(secrets: tuple[bytes, ...], shown: bytes) -> bool:
    """Tell whether a secret is among others, in a time that does not depend on which one."""
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(secret, shown)
    return found


# -- Signed tokens -----------------------------------------------------------------------------


def read_key(key: str | bytes, name: str) -> Signer:
    """Return what verifies signatures.

    Args:
        key: a public key in PEM, RSA or on the curve P-256, else a shared secret.
        name: what errors call it.

    Raises:
        AccessError: it is no such key, too weak, or PyJWT is missing.
    """
    data = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    try:
        import jwt  # noqa: F401
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_der_public_key
    except ImportError:
        raise AccessError(f"{name} {_WITHOUT_JWT}") from None
    if b"-----BEGIN" in data:
        return _read_pem(data, name)
    # A public key that somebody meant as such would be a secret that everybody knows.
    if data.lstrip().startswith((b"ssh-", b"ecdsa-", b"sk-", b"{")):
        raise AccessError(f"{name}: a public key must be in PEM")
    try:
        load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        pass
    else:
        raise AccessError(f"{name}: a public key must be in PEM, not DER")
    if len(data) < MIN_SECRET_BYTES:
        raise AccessError(f"{name}: a secret for HS256 has at least {MIN_SECRET_BYTES} bytes")
    return Signer("HS256", data)


def _read_pem(data: bytes, name: str) -> Signer:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY-----" in data:
        raise AccessError(f"{name} is a private key: give the hub the public one only")
    try:
        key: PublicKeyTypes = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise AccessError(f"{name}: this is no public key in PEM") from None
    if isinstance(key, RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise AccessError(f"{name}: an RSA key has at least {MIN_RSA_BITS} bits")
        return Signer("RS256", key)
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return Signer("ES256", key)
    raise AccessError(f"{name}: a public key must be RSA, or EC on the curve P-256")


def _verify(signer: Signer, token: str) -> Grant | Refusal:
    """Return what a signed token allows."""
    import jwt

    try:
        claims = jwt.decode(
            token,
            signer.key,
            algorithms=[signer.algorithm],
            leeway=LEEWAY_SECONDS,
            # The audience is looked at below: PyJWT wants it either always or never.
            options={"require": ["exp"], "verify_aud": False},
        )
    except jwt.ExpiredSignatureError:
        return unknown("the token has expired", invalid=True)
    # The signature is looked at first, so the details of the others are for who may sign.
    except jwt.MissingRequiredClaimError:
        return unknown("the token has no exp", invalid=True)
    except jwt.ImmatureSignatureError:
        return unknown("the token is not valid yet", invalid=True)
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        return unknown("the token is not valid", invalid=True)
    try:
        return _read_claims(claims)
    except (TypeError, ValueError, OverflowError) as error:
        return unknown(f"the token is not valid: {error}", invalid=True)


def _read_claims(claims: dict[str, Any]) -> Grant | Refusal:
    """Return what the claims allow; a list that is not there allows nothing.

    Raises:
        TypeError, ValueError, OverflowError: a claim is not what it must be.
    """
    audience = claims.get("aud")
    if audience is not None:
        named = audience if isinstance(audience, list) else [audience]
        if AUDIENCE not in named:
            raise ValueError(f"it is not for {AUDIENCE}")
    rights = claims.get(CLAIM)
    if rights is None:
        return forbidden(f"the token has no claim {CLAIM!r}: it allows nothing here")
    if not isinstance(rights, dict):
        raise TypeError(f"{CLAIM} must be an object")
    lists = {}
    for field in ("subscribe", "publish"):
        patterns = rights.get(field, [])
        if not isinstance(patterns, list):
            raise TypeError(f"{field} must be a list of patterns")
        lists[field] = tuple(patterns)
    return Grant(claims.get("sub"), **lists, expires=float(claims["exp"]) + LEEWAY_SECONDS)
