"""How a conversation with a hub has ended: what to tell, and the exit status that says the same.

One place for ``connect`` at a terminal and in a pipe. Pure; any thread.
"""

from __future__ import annotations

from ...errors import BroadcastServerError, ConnectFailed, ConnectionClosed, ProtocolError
from ...wire.frames import ABNORMAL


def ending(error: BroadcastServerError) -> tuple[str, int]:
    """Return what to tell of the end of a connection for good, and the exit status."""
    if isinstance(error, ConnectFailed):
        return f"the hub does not let us come back: {error}", 1
    if isinstance(error, ProtocolError):
        return f"the hub broke the protocol: {error}", 3
    if not isinstance(error, ConnectionClosed):
        return str(error), 3
    if error.code == ABNORMAL:
        return f"the connection was lost: {error.reason}", 3
    text = f"the hub closed the connection: {error.code} {error.reason}".rstrip()
    if error.code in (1000, 1001):
        return text, 0
    return text, 1 if error.code == 1008 else 3  # which says that it is not allowed
