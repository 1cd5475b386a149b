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
import urllib.parse
from collections.abc import Mapping
from typing import Any

from . import exchanges, logs, service, systemd, tls, tokens, urls
from .access import bearer
from .deadlines import Deadline
from .errors import AccessError, ConnectFailed, TlsError, UsageError
from .streams import complain, warn, write_stdout

# Descriptors that no client can have: standard streams, listener, poller and wake-up pipe.
OWN_DESCRIPTORS = 32
# How long `who` waits for the hub's list, and how much of it it takes.
WHO_SECONDS = 10.0
WHO_BYTES = 64 * 1024 * 1024

logger = logging.getLogger(__name__)


def start(values: Mapping[str, Any], sources: Mapping[str, str]) -> int:
    """Run a hub until SIGINT or SIGTERM.

    Args:
        values: the value of each option by its field name.
        sources: what the user would change to change it: ``--option`` or a variable's name.

    Returns:
        The exit status: 0 stopped by a signal, 1 cannot listen or has failed, 2 a value that
        cannot be.
    """
    from . import BroadcastHub

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
    """Join a room and pass lines both ways until the user or the input ends it.

    Args:
        values: the value of each option by its field name.
        sources: as for `start`.
        url: the room's address; None to make it of host, port and room.

    Returns:
        The exit status: that of `Console.run`, 1 if there is no connection, 2 for an address that
        cannot be one.
    """
    from .client import BroadcastClient
    from .console import SILENCE_SECONDS, Console

    # Until it is connected nothing is at stake, and looking up a name cannot be interrupted.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logs.configure(values["log_level"], values["log_format"])
    if url is None:
        if values["port"] == 0:
            complain("connect", f"{sources['port']}: a hub has a port between 1 and 65535")
            return 2
        url = room_url(values["host"], values["port"], values["room"])
    console = Console()
    try:
        client = BroadcastClient(
            url,
            **_trust("connect", values, sources, url),
            name=values["name"],
            token=_token(values),
            presence=True,
            reconnect=False,
            close_timeout=SILENCE_SECONDS,
            on_error=console.refuse,
        )
        client.connect()
    except UsageError as error:
        complain("connect", str(error))
        return 2
    except (AccessError, TlsError) as error:
        complain("connect", str(error))
        return 1
    except ConnectFailed as error:
        complain("connect", f"{error}{_TRUST_HINT if error.untrusted else ''}")
        return 1
    return console.run(client, _signal_descriptor())


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
    if url is None:
        if values["port"] == 0:
            complain("who", f"{sources['port']}: a hub has a port between 1 and 65535")
            return 2
        url = room_url(values["host"], values["port"], values["room"] or "")
        if values["room"] is None:
            url = url.removesuffix("/")
    shown = url.partition("?")[0]  # a query may have a secret in it
    try:
        parts = urls.split(url)
        room = urllib.parse.unquote(parts.path) or None
        target = "/-/rooms" if room is None else f"/-/rooms?room={urllib.parse.quote(room)}"
        deadline = Deadline(WHO_SECONDS)
        headers = bearer(_token(values) or urls.parameter(parts, "access_token"))
        context = tls.context_for(url, **_trust("who", values, sources, url))
        answer = exchanges.exchange(
            parts, "GET", target, headers, None, deadline, WHO_BYTES, context
        )
        text = _who_table(answer, room)
    except UsageError as error:
        complain("who", str(error))
        return 2
    except (AccessError, TlsError) as error:
        complain("who", str(error))
        return 1
    except LookupError as error:
        complain("who", f"cannot ask {shown}: {error.args[0]}")
        return 1
    # All the ways in which there may be no whole answer.
    except (OSError, http.client.HTTPException, ValueError) as error:
        hint = _TRUST_HINT if tls.is_untrusted(error) else ""
        complain("who", f"cannot ask {shown}: {exchanges.why(error, WHO_SECONDS)}{hint}")
        return 1
    return 0 if write_stdout(text) else 1


_TRUST_HINT = " (--ca-file says whom to trust)"


def _trust(
    command: str, values: Mapping[str, Any], sources: Mapping[str, str], url: str
) -> dict[str, Any]:
    """Return `ca_file` and `insecure` for an address; say so loudly if nobody is asked for proof.

    Raises:
        UsageError: one of them is given for an address without TLS: somebody would feel safe.
    """
    wanted = {name: values[name] for name in ("ca_file", "insecure") if values[name]}
    if url.partition(":")[0].lower() not in ("wss", "https"):
        for name in wanted:
            # A variable is there for all addresses.
            if sources[name].startswith("-"):
                raise UsageError(f"{sources[name]} is for addresses that begin with wss://")
        return {}
    if len(wanted) == 2:
        both = " and ".join(sources[name] for name in wanted)
        raise UsageError(f"{both} contradict each other")
    if "insecure" in wanted:
        warn(command, "INSECURE: the hub's certificate is not checked; whoever is between can read")
        # It was said, and at a level that cannot be turned off.
        logging.getLogger(tls.__name__).setLevel(logging.ERROR)
    return wanted


def _token(values: Mapping[str, Any]) -> str | None:
    """Return the token that a client is to show.

    Raises:
        AccessError: its file has none.
    """
    if values["token_file"] is None:
        token: str | None = values["token"]
        return token
    return tokens.read_first_token(values["token_file"])


def _who_table(answer: exchanges.Answer, room: str | None) -> str:
    """Return the hub's list for a person to read: a line for each room.

    Raises:
        LookupError: it is no such list; the text says what came instead.
    """
    if answer.status != 200:
        raise LookupError(answer.detail())
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


def room_url(host: str, port: int, room: str) -> str:
    """Return the address of a room, its parts given as people write them."""
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"  # RFC 3986 §3.2.2: an IPv6 address
    return f"ws://{host}:{port}/{urllib.parse.quote(room.removeprefix('/'))}"


def _signal_descriptor() -> int:
    """Return a descriptor that gets a byte for each SIGINT and SIGTERM.

    A handler in Python runs on the main thread, and not before that has stopped waiting for
    something that the signal has come too early to interrupt.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return reader


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
