"""``broadcast-server start``: a hub is made of the options, and runs as ``service`` says.

Here and in ``service``, and nowhere in the library, the process itself is changed: its signals, its
logging, its descriptor limit, its standard streams. All functions run on the main thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
from collections.abc import Mapping
from typing import Any

from ...errors import AccessError, TlsError, UsageError
from ...records import get_logger
from ..io import logs, systemd
from ..io.streams import complain, write_stdout
from . import service

# Descriptors that no client can have: standard streams, listener, poller and wake-up pipe.
OWN_DESCRIPTORS = 32

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
        where = getattr(error, "filename", None) or f"{' '.join(values['host'])}:{values['port']}"
        complain("start", f"cannot listen on {where}: {why}")
        return 1
    # If nobody reads that, the hub serves all the same.
    write_stdout(f"Listening on {' '.join(hub.urls)} (Ctrl-C to stop)\n")
    return service.serve(hub, signals, notifier, restart)


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
