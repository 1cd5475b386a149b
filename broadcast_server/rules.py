"""What names, sessions, tokens and times may be: each rule once, for the hub and for its clients.

Every ``checked`` function raises ``ValueError`` with a text for the one who sent the value.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata

from .arguments import TEXT_OR_NONE, check_type
from .errors import UsageError

MAX_NAME_CHARACTERS = 64
MAX_SESSION_CHARACTERS = 256
# No time may be longer: eleven days. The system's polls count milliseconds in 31 bits, so that a
# wait of 25 days fails when it begins; a ping may wait for a quarter more than its interval.
MAX_SECONDS = 1_000_000

# A client that comes back offers this subprotocol, too, with its session in base64url (RFC 4648 §5)
# behind it: an address would be in the logs of proxies. It is never the one that is chosen.
SESSION_PROTOCOL = "broadcast.session."

# RFC 6750 §2.1 allows less; what others give out as tokens is seen in this range.
_TOKEN = re.compile("[!-~]+")


def checked_name(name: str | None) -> str | None:
    """Return a member's name; an empty one is none."""
    if not name:
        return None
    if len(name) > MAX_NAME_CHARACTERS:
        raise ValueError(f"a name has at most {MAX_NAME_CHARACTERS} characters")
    if has_control(name):
        raise ValueError("a name has no control characters")
    return name


def checked_session(token: str | None) -> str | None:
    """Return a session's token; an empty one is none, an unknown one is not for us to find out."""
    if not token:
        return None
    if len(token) > MAX_SESSION_CHARACTERS or has_control(token):
        raise ValueError(f"session must be a token of at most {MAX_SESSION_CHARACTERS} characters")
    return token


def encode_offered(text: str) -> str:
    """Return a secret as it stands behind the name of a subprotocol: its UTF-8 in base64url without
    padding."""
    return base64.urlsafe_b64encode(text.encode("utf-8")).decode("ascii").rstrip("=")


def decode_offered(text: str) -> str:
    """Return what `encode_offered` was given.

    Raises:
        ValueError: this is no such text.
    """
    padded = text + "=" * (-len(text) % 4)
    try:
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise ValueError("a secret among the subprotocols is not base64url") from None


def has_control(text: str) -> bool:
    """Tell whether a text has characters that are not to be seen, or end a line."""
    # Zl and Zp are U+2028 and U+2029, which end a line as control characters do.
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def bearer(token: str | None) -> dict[str, str]:
    """Return the header line with which a client shows a token (RFC 6750 §2.1), none without one.

    Raises:
        UsageError: it is no token.
        TypeError: it is no text.
    """
    if token is None:
        return {}
    check_type("token", token, TEXT_OR_NONE)
    if not _TOKEN.fullmatch(token):
        raise UsageError("token must be visible ASCII characters")
    return {"Authorization": f"Bearer {token}"}
