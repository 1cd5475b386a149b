"""``broadcast-server start``: a hub is made of the options, and runs as ``service`` says.

Here and in ``service``, and nowhere in the library, the process itself is changed: its signals, its
logging, its descriptor limit, its standard streams. All functions run on the main thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from ...errors import AccessError, TlsError, UsageError
from ...records import get_logger
from ..io import capacity, logs, systemd
from ..io.streams import complain, write_stdout
from . import service

logger = get_logger("broadcast_server.cli")


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
    with logs.held() as write_log:
        _make_room(settings)
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
            where = getattr(error, "filename", None)
            where = where or f"{' '.join(values['host'])}:{values['port']}"
            complain("start", f"cannot listen on {where}: {why}")
            return 1
        write_log()
    # If nobody reads that, the hub serves all the same.
    write_stdout(f"Listening on {' '.join(hub.urls)} (Ctrl-C to stop)\n")
    return service.serve(hub, signals, notifier, restart)


def _make_room(settings: dict[str, Any]) -> None:
    """Raise the limits of this process as far as we may, and let the settings ask for no more
    clients, and connections that are no clients, than they allow.

    A hub that ran out of descriptors would leave clients waiting for an answer; a full hub gives
    one.
    """
    limit = capacity.tightest()
    if limit is None:
        return
    clients, handshakes = settings["max_clients"], settings["max_handshakes"]
    # Without these, a full hub could not even say so: at most a quarter of all.
    spare = min(handshakes, max(1, limit.most // 4))
    room = max(1, limit.room - spare)
    if spare < handshakes:
        settings["max_handshakes"] = spare
        logger.warning(
            "max-handshakes is %d instead of %d: a quarter of %s", spare, handshakes, limit.name
        )
    if room < clients:
        settings["max_clients"] = room
        logger.warning(
            "max-clients is %d instead of %d: %s allows no more", room, clients, limit.name
        )
    else:
        logger.info("max-clients is %d; %s allows it", clients, limit.name)


def _in_the_users_words(text: str, sources: Mapping[str, str]) -> str:
    """Return an error text with each setting's field name replaced by what the user can change."""
    return re.sub(r"\b[a-z_]+\b", lambda word: sources.get(word[0], word[0]), text)
