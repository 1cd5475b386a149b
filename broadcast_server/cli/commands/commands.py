"""What the commands of ``broadcast-server`` do, once the options are known.

Here, and nowhere in the library, the process itself is changed: its signals, its logging, its
descriptor limit, its standard streams. All functions run on the main thread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import resource
import signal
import sys
import urllib.parse
from collections.abc import Mapping
from typing import Any

from ...client import http as exchanges
from ...errors import AccessError, TlsError, UsageError
from ...messages import Message
from ...rules import bearer
from ...transport import tls
from ...transport.deadlines import Deadline
from ...wire import urls
from ..io import logs, systemd
from ..io import signals as interrupts
from ..io import target as targets
from ..io.streams import complain, write_stdout
from . import service

# Descriptors that no client can have: standard streams, listener, poller and wake-up pipe.
OWN_DESCRIPTORS = 32
# How long `who` waits for the hub's list, and how much of it it takes.
WHO_SECONDS = 10.0
WHO_BYTES = 64 * 1024 * 1024
# Where somebody sits, and has not said how much of the old they want to see.
TERMINAL_HISTORY = 20
# Nothing that is typed waits for room: a paste of so much, or what is typed while the hub is away,
# is queued at once.
TERMINAL_QUEUE_BYTES = 64 * 1024 * 1024

logger = logging.getLogger("broadcast_server.cli")


def start(values: Mapping[str, Any], sources: Mapping[str, str]) -> int:
    """Run a hub until SIGINT or SIGTERM.

    Args:
        values: the value of each option by its field name.
        sources: what the user would change to change it: ``--option`` or a variable's name.

    Returns:
        The exit status: 0 stopped by a signal, 1 cannot listen or has failed, 2 a value that
        cannot be.
    """
    from ... import BroadcastHub

    signals = service.catch_signals()
    settings = dict(values)
    restart = settings.pop("restart_on_term")
    logs.configure(settings.pop("log_level"), settings.pop("log_format"))
    notifier = systemd.Notifier(os.environ)
    try:
        sockets = systemd.take_sockets(os.environ)
    except systemd.WrongSockets as error:
        complain("start", str(error))
        return 1
    settings.update(_make_room(settings["max_clients"], settings["max_handshakes"]))
    try:
        hub = BroadcastHub(**settings, sockets=sockets)
    except UsageError as error:
        complain("start", _in_the_users_words(str(error), sources))
        return 2
    try:
        hub.start()
    except (AccessError, TlsError) as error:
        complain("start", str(error))
        return 1
    # socket has its own words for names that cannot be names: UnicodeError.
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        where = getattr(error, "filename", None) or " ".join(values["host"])
        complain("start", f"cannot listen on {where} port {values['port']}: {why}")
        return 1
    # If nobody reads that, the hub serves all the same.
    write_stdout(f"Listening on {' '.join(hub.urls)} (Ctrl-C to stop)\n")
    return service.serve(hub, signals, notifier, restart)


def connect(values: Mapping[str, Any], sources: Mapping[str, str], url: str | None) -> int:
    """Join a room: talk at a terminal, or pass lines both ways until the input ends.

    Args:
        values: the value of each option by its field name.
        sources: as for `start`.
        url: the room's address; None to make it of host, port and room.

    Returns:
        The exit status: that of `Terminal.run` or `Console.run`, 1 if there is no connection, 2 for
        an address that cannot be one.
    """
    # Until it is connected nothing is at stake, and looking up a name cannot be interrupted.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logs.configure(values["log_level"], values["log_format"])
    try:
        if values["history"] is not None and values["history"] < 0:
            raise UsageError(f"{sources['history']} must be at least 0")
        if values["linger"] < 0:
            raise UsageError(f"{sources['linger']} must be at least 0")
        target = targets.find("connect", values, sources, url)
        headers = targets.offer(target.headers, values, sources)
        if sys.stdin.isatty() and sys.stdout.isatty():
            return _talk(values, target, headers)
        return _pass_lines(values, target, headers)
    except targets.FAILURES as error:
        return targets.tell("connect", error)
    except Exception as error:
        if values["debug"]:
            raise
        complain("connect", f"it has failed: {error!r}; --debug shows where")
        return 1


def _pass_lines(
    values: Mapping[str, Any], target: targets.Target, headers: Mapping[str, str]
) -> int:
    from ...client.client import BroadcastClient
    from .pipe import SILENCE_SECONDS, Console

    console = Console(values["linger"])
    client = BroadcastClient(
        target.url,
        **target.trust,
        name=values["name"],
        token=target.token,
        headers=headers,
        presence=True,
        history=_history(target.url, values["history"] or 0),
        reconnect=not values["no_reconnect"],
        close_timeout=SILENCE_SECONDS,
        on_state=console.take_state,
        on_error=console.refuse,
    )
    client.connect()
    return console.run(client, interrupts.descriptor())


def _history(url: str, count: int) -> int:
    """Return how many old messages to begin with, unless the address itself says so."""
    parts = urls.split(url, urls.WEBSOCKET)
    return 0 if any(urls.parameter(parts, key) for key in ("since", "history")) else count


def _talk(values: Mapping[str, Any], target: targets.Target, headers: Mapping[str, str]) -> int:
    from ...client.client import BroadcastClient
    from ...client.requests import fetch_last
    from ..terminal.app import Terminal

    # Of another room's address the client does not know it any more.
    token = target.token or urls.parameter(urls.split(target.url, urls.WEBSOCKET), "access_token")

    asked = values["history"]

    def make_client(url: str, **more: Any) -> BroadcastClient:
        return BroadcastClient(
            url,
            **target.trust,
            token=token,
            headers=headers,
            presence=True,
            history=_history(url, TERMINAL_HISTORY if asked is None else asked),
            reconnect=not values["no_reconnect"],
            max_queued_bytes=TERMINAL_QUEUE_BYTES,
            **more,
        )

    def fetch_old(url: str, room: str, count: int) -> list[Message]:
        context = tls.context_for(url, **target.trust)
        return fetch_last(url, room, count, {**target.headers, **bearer(token)}, context)

    return Terminal(make_client, fetch_old=fetch_old, bell=values["bell"]).run(
        target.url, values["name"]
    )


def who(values: Mapping[str, Any], sources: Mapping[str, str], url: str | None) -> int:
    """Print who is in which room.

    Args:
        values: the value of each option by its field name.
        sources: as for `start`.
        url: the address of a room, or of a hub without a path; None to make it of host, port and
            room.

    Returns:
        The exit status: 0 printed, 1 there is no such list, 2 for an address that cannot be one.
    """
    try:
        target = targets.find("who", values, sources, url)
        parts = urls.split(target.url)
        shown = target.url.partition("?")[0]  # a query may have a secret in it
        room = urllib.parse.unquote(parts.path) or None
        query = "" if room is None else f"?room={urllib.parse.quote(room)}"
        deadline = Deadline(WHO_SECONDS)
        headers = bearer(target.token or urls.parameter(parts, "access_token"))
        context = tls.context_for(target.url, **target.trust)
        answer = exchanges.exchange(
            parts, "GET", f"/-/rooms{query}", headers, None, deadline, WHO_BYTES, context
        )
        text = _who_table(answer, room)
    except targets.FAILURES as error:
        return targets.tell("who", error)
    except LookupError as error:
        complain("who", f"cannot ask {shown}: {error.args[0]}")
        return 1
    # All the ways in which there may be no whole answer.
    except (OSError, http.client.HTTPException, ValueError) as error:
        hint = targets.hint(None, tls.is_untrusted(error))
        complain("who", f"cannot ask {shown}: {exchanges.why(error, WHO_SECONDS)}{hint}")
        return 1
    return 0 if write_stdout(text) else 1


def _who_table(answer: exchanges.Answer, room: str | None) -> str:
    """Return the hub's list for a person to read: a line for each room.

    Raises:
        LookupError: it is no such list; the text says what came instead.
    """
    if answer.status != 200:
        raise LookupError(answer.detail() + targets.hint(answer.status, False))
    lines = [("ROOM", "COUNT", "MEMBERS")]
    try:
        for entry in answer.fields()["rooms"]:
            members = [_who(member) for member in entry["members"]]
            more = int(entry["count"]) - len(members)
            if more > 0:  # the hub lists the first ones only
                members.append(f"and {more} more")
            path = logs.printable(str(entry["room"]))
            lines.append((path, str(int(entry["count"])), ", ".join(members)))
    except (KeyError, TypeError, ValueError):
        raise LookupError("this is no hub: its answer has no rooms") from None
    if len(lines) == 1:
        return f"nobody is in {'any room' if room is None else logs.printable(room)}\n"
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return "".join(
        f"{path:{widths[0]}}  {count:>{widths[1]}}  {members}\n" for path, count, members in lines
    )


def _who(member: Mapping[str, Any]) -> str:
    """Return what a member is called in a list; nobody's name makes two of them."""
    name = member["name"]
    if name is None:
        return logs.printable(str(member["id"]))
    name = logs.printable(str(name))
    return json.dumps(name, ensure_ascii=False) if "," in name else name


def _make_room(max_clients: int, max_handshakes: int) -> dict[str, int]:
    """Raise the descriptor limit as far as we may; return how many clients, and connections that
    are no clients, it really holds.

    Running out of descriptors would leave clients waiting for an answer; a full hub gives one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says "unlimited" and refuses it. The old limit then stays.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return {}
    # Without these, a full hub could not even say so: at most a quarter of all.
    spare = min(max_handshakes, max(1, soft // 4))
    room = max(1, soft - OWN_DESCRIPTORS - spare)
    if spare < max_handshakes:
        logger.warning(
            "max-handshakes is %d instead of %d: a quarter of the limit of %d descriptors",
            spare,
            max_handshakes,
            soft,
        )
    if room < max_clients:
        logger.warning(
            "max-clients is %d instead of %d: the limit of %d descriptors holds no more",
            room,
            max_clients,
            soft,
        )
        return {"max_clients": room, "max_handshakes": spare}
    logger.info("max-clients is %d; the limit of %d descriptors holds it", max_clients, soft)
    return {"max_handshakes": spare}


def _in_the_users_words(text: str, sources: Mapping[str, str]) -> str:
    """Return an error text with each setting's field name replaced by what the user can change."""
    return re.sub(r"\b[a-z_]+\b", lambda word: sources.get(word[0], word[0]), text)
