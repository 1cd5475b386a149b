"""Who may come back as the client that it was: signed tokens, and no memory of them.

A token is given out in each ``welcome``, and again before it ends. A client that shows it in the
same room gets the same number, and so the same id. All that is to be known of a session stands in
its token, signed with a secret that this run of the hub has made. So there is no list of sessions
that somebody could fill, and a token of another hub, or of an earlier run, is none.

Each connection has a generation, one more than that of the token with which it came. Of two
connections with one session the room keeps the one of the higher generation; of the same, the
later one. Any thread; there is no state, and so no lock.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

from ..rules import MAX_SESSION_CHARACTERS

# How long a token counts, and after what time a client that stays gets a new one.
KEEP_SECONDS = 24 * 3600
RENEW_SECONDS = KEEP_SECONDS // 2

# Number, generation, and when it ends in seconds of the hub's clock; the name's UTF-8 follows.
_HEAD = struct.Struct(">QQI")
_SIGNATURE_BYTES = 16
# A longer name has no place in the token: its owner gives it again.
_NAME_BYTES = MAX_SESSION_CHARACTERS * 3 // 4 - _HEAD.size - _SIGNATURE_BYTES


class Session(NamedTuple):
    """One connection of a client that may come back.

    Attributes:
        number: the client's number in the hub.
        room: the path of its room.
        user: the name that its token of access gave it; nobody of another name can come back with
            it.
        generation: grows with each connection that continues this client.
        name: what it called itself when the token was made, if that is known.
    """

    number: int
    room: str
    user: str | None
    generation: int = 0
    name: str | None = None


class Sessions:
    """Makes and reads the tokens of one run of a hub.

    Args:
        clock: seconds that only grow; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)

    def open(self, token: str | None, number: int, room: str, user: str | None = None) -> Session:
        """Return the session that a token continues, or a new one if it continues none.

        Args:
            token: what the client shows; of another room or user it counts as none.
            number: for a new one.
            room: the room's path.
            user: the name that nobody but the client can have; None if it may choose one.
        """
        found = self._read(token, room, user) if token else None
        return found or Session(number, room, user)

    def token(self, session: Session, name: str | None) -> str:
        """Return what continues a session, for a day from now.

        Args:
            session: the connection.
            name: what the client calls itself now.
        """
        ends = int(self._clock()) + KEEP_SECONDS
        body = _HEAD.pack(session.number, session.generation, ends)
        shown = (name or "").encode("utf-8")
        if len(shown) <= _NAME_BYTES:
            body += shown
        signed = body + self._sign(body, session.room, session.user)
        return base64.urlsafe_b64encode(signed).rstrip(b"=").decode("ascii")

    def _read(self, token: str, room: str, user: str | None) -> Session | None:
        try:
            padded = token + "=" * (-len(token) % 4)
            signed = base64.b64decode(padded.encode("ascii"), b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            return None
        body, signature = signed[:-_SIGNATURE_BYTES], signed[-_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(body, room, user)):
            return None
        number, generation, ends = _HEAD.unpack_from(body)
        if self._clock() >= ends:
            return None
        name = body[_HEAD.size :].decode("utf-8") or None
        return Session(number, room, user, generation + 1, name)

    def _sign(self, body: bytes, room: str, user: str | None) -> bytes:
        """Return the signature of a token for this room and user, which it does not contain."""
        # Each part with its length, so that no two sessions are signed as the same bytes.
        parts = [body, room.encode("utf-8")]
        if user is not None:
            parts.append(user.encode("utf-8"))
        signed = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._secret, signed, hashlib.sha256)[:_SIGNATURE_BYTES]
