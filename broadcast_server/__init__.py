"""A WebSocket broadcast hub for synchronous Python: what one client sends, all others get.

``BroadcastHub`` puts a hub into any threaded program, ``BroadcastClient`` talks to one, ``publish``
sends one message, and the ``broadcast-server`` command does it from a shell.

Nothing else in here is public. Each name is imported when it is first asked for, so that a program
pays for what it uses: a publisher for one HTTP request, not for a hub.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Type checkers read this, and know of no __getattr__: so a misspelt name is an error to them.
if TYPE_CHECKING:
    from .client.client import BroadcastClient
    from .client.requests import publish
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
    from .hub.http.access import AccessRequest, Grant
    from .hub.http.models import Refusal
    from .hub.hub import BroadcastHub
    from .messages import Gap, Member, Message, Presence
else:
    # The same for the running program. Every other public name is an exception.
    _HOMES = {
        "AccessRequest": "hub.http.access",
        "BroadcastClient": "client.client",
        "BroadcastHub": "hub.hub",
        "Gap": "messages",
        "Grant": "hub.http.access",
        "Member": "messages",
        "Message": "messages",
        "Presence": "messages",
        "Refusal": "hub.http.models",
        "publish": "client.requests",
    }

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        try:
            home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
        except AttributeError as error:  # `from … import` would take it for a missing name
            raise ImportError(f"cannot import {name}: {error}") from error
        value = globals()[name] = getattr(home, name)  # asked for once
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


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
