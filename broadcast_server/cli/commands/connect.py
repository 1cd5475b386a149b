"""``broadcast-server connect``: which of the two it is, a conversation at a terminal or a pipe.

The first is ``cli/terminal/app.py``, the other ``cli/commands/pipe.py``. All functions run on the
main thread.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ...errors import UsageError
from ...messages import Message, Received
from ...rules import bearer
from ...transport import tls
from ...wire import urls
from ..io import logs, signals, target
from ..io.streams import complain

# Where somebody sits, and has not said how much of the old they want to see.
TERMINAL_HISTORY = 20
# Nothing that is typed waits for room: a paste of so much, or what is typed while the hub is away,
# is queued at once.
TERMINAL_QUEUE_BYTES = 64 * 1024 * 1024


def connect(values: Mapping[str, Any], sources: Mapping[str, str], url: str | None) -> int:
    """Join a room: talk at a terminal, or pass lines both ways until the input ends.

    Args:
        values: the value of each option by its field name.
        sources: as for `start`.
        url: the room's address; None to make it of host, port and room.

    Returns:
        The exit status: that of `Terminal.run` or `Pipe.run`, 1 if there is no connection, 2 for
        an address that cannot be one.
    """
    # Until it is connected nothing is at stake, and looking up a name cannot be interrupted.
    signals.end_at_once()
    logs.configure(values["log_level"], values["log_format"])
    try:
        if values["history"] is not None and values["history"] < 0:
            raise UsageError(f"{sources['history']} must be at least 0")
        if values["linger"] < 0:
            raise UsageError(f"{sources['linger']} must be at least 0")
        wait = target.wait_of(values, sources)
        destination = target.find("connect", values, sources, url)
        headers = target.offer(destination.headers, values, sources)
        if sys.stdin.isatty() and sys.stdout.isatty():
            return _talk(values, destination, headers, wait)
        return _pass_lines(values, destination, headers, wait)
    except target.FAILURES as error:
        return target.tell("connect", error)
    except Exception as error:
        if values["debug"]:
            raise
        complain("connect", f"it has failed: {error!r}; --debug shows where")
        return 1


def _pass_lines(
    values: Mapping[str, Any], destination: target.Target, headers: Mapping[str, str], wait: float
) -> int:
    from ...client.client import BroadcastClient
    from .pipe import SILENCE_SECONDS, Pipe

    pipe = Pipe(values["linger"])
    client = BroadcastClient(
        destination.url,
        **destination.trust,
        name=values["name"],
        token=destination.token,
        headers=headers,
        presence=True,
        history=_history(destination.url, values["history"] or 0),
        reconnect=not values["no_reconnect"],
        wait=wait,
        close_timeout=SILENCE_SECONDS,
        on_state=pipe.take_state,
        on_error=pipe.refuse,
    )
    with target.awaited("connect", destination.url, wait):
        client.connect()
    return pipe.run(client, signals.descriptor())


def _history(url: str, count: int) -> int:
    """Return how many old messages to begin with, unless the address itself says so."""
    parts = urls.split(url, urls.WEBSOCKET)
    return 0 if any(urls.parameter(parts, key) for key in ("since", "history")) else count


def _talk(
    values: Mapping[str, Any], destination: target.Target, headers: Mapping[str, str], wait: float
) -> int:
    from ...client.client import BroadcastClient
    from ...client.requests import fetch_last
    from ..terminal.app import Terminal

    # Of another room's address the client does not know it any more.
    parts = urls.split(destination.url, urls.WEBSOCKET)
    token = destination.token or urls.parameter(parts, "access_token")
    asked = values["history"]

    def make_client(url: str, **more: Any) -> BroadcastClient[Received]:
        return BroadcastClient(
            url,
            **destination.trust,
            token=token,
            headers=headers,
            presence=True,
            history=_history(url, TERMINAL_HISTORY if asked is None else asked),
            reconnect=not values["no_reconnect"],
            max_queued_bytes=TERMINAL_QUEUE_BYTES,
            **more,
        )

    def fetch_old(url: str, room: str, count: int) -> list[Message]:
        context = tls.context_for(url, **destination.trust)
        return fetch_last(url, room, count, {**destination.headers, **bearer(token)}, context)

    return Terminal(make_client, fetch_old=fetch_old, bell=values["bell"]).run(
        destination.url, values["name"], wait
    )
