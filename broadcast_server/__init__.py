"""A WebSocket broadcast hub for synchronous Python: what one client sends, all others get.

``BroadcastHub`` puts a hub into any threaded program, ``BroadcastClient`` talks to one, ``publish``
sends one message, and the ``broadcast-server`` command does it from a shell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .access import AccessRequest, Grant
from .decisions import Refusal
from .errors import (
    AccessError,
    BroadcastServerError,
    ConnectFailed,
    ConnectionClosed,
    HubBusy,
    HubError,
    HubStopped,
    InvalidRoom,
    MessagesLost,
    MessageTooBig,
    ProtocolError,
    PublishFailed,
    SendRefused,
    TlsError,
    UsageError,
)
from .hub import BroadcastHub
from .messages import Gap, Member, Message, Presence

if TYPE_CHECKING:
    from .client import BroadcastClient
    from .publisher import publish

__version__ = "0.1.0"

__all__ = [
    "AccessError",
    "AccessRequest",
    "BroadcastClient",
    "BroadcastHub",
    "BroadcastServerError",
    "ConnectFailed",
    "ConnectionClosed",
    "Gap",
    "Grant",
    "HubBusy",
    "HubError",
    "HubStopped",
    "InvalidRoom",
    "Member",
    "Message",
    "MessageTooBig",
    "MessagesLost",
    "Presence",
    "ProtocolError",
    "PublishFailed",
    "Refusal",
    "SendRefused",
    "TlsError",
    "UsageError",
    "publish",
]


def __getattr__(name: str) -> Any:
    # A hub alone does not pay for importing what others need.
    if name == "BroadcastClient":
        from .client import BroadcastClient

        return BroadcastClient
    if name == "publish":
        from .publisher import publish

        return publish
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
