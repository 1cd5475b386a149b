"""Where a client command goes, and what it shows there: address, token, header lines, trust.

``connect``, ``publish``, ``listen`` and ``who`` have these options in common. What is wrong with
them is found here, before anything is tried, and told in the words of the option or variable.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import threading
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ... import secret_files
from ...errors import AccessError, ConnectFailed, TlsError, UsageError
from .streams import complain, tell_progress, warn

# After so long a wait for a hub that is not there yet, whoever looks is told.
QUIET_SECONDS = 3.0

TRUST_HINT = " (--ca-file says whom to trust)"
TOKEN_HINT = " (--token-file says which to show)"
TEXT_HINT = " (if the first word is text, put -- before it)"

_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*", re.DOTALL)
# What we say ourselves; anything else there would be another protocol.
_OUR_HEADERS = frozenset(
    "host connection upgrade content-length transfer-encoding expect accept-encoding "
    "idempotency-key sec-websocket-key sec-websocket-version sec-websocket-extensions".split()
)
PROTOCOL_HEADER = "Sec-WebSocket-Protocol"
# A server that takes the first of what is offered, without knowing it, takes this one. So it is
# known for what it is, and spoken to in plain frames.
NO_HUB = "plain"
SUBPROTOCOL = "broadcast.v1.json"


# A host name, which may have letters of any language.
_NAME = re.compile(r"[\w-]+(?:\.[\w-]+)*\.?")
# What stands for an address: a port, mostly with a host, and perhaps a room.
_HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^]\s/?#:@[]*):[0-9]+(?:[/?].*)?")


# The options of TLS, and what the library calls them.
TRUST_ARGUMENTS = {
    "ca_file": "ca_file",
    "insecure": "insecure",
    "cert": "cert_file",
    "cert_key": "key_file",
}


class Target(NamedTuple):
    """What a client needs to get to a room.

    Attributes:
        url: the room's address.
        token: to be shown there; None for none.
        headers: more header lines.
        trust: ``ca_file``, ``insecure``, ``cert_file`` and ``key_file``, as the library takes
            them; only those that are given.
    """

    url: str
    token: str | None
    headers: dict[str, str]
    trust: dict[str, Any]


def find(
    command: str, values: Mapping[str, Any], sources: Mapping[str, str], url: str | None
) -> Target:
    """Return where the options lead.

    Args:
        command: whose options they are.
        values: the value of each option by its field name.
        sources: what the user would change to change it: ``--option`` or a variable's name.
        url: the room's address, or its path alone; None to make it of host, port and room.

    Raises:
        UsageError: this can never work.
        AccessError: the file with the token, or one with header lines, cannot be read.
    """
    url = _address(values, sources, url)
    headers = read_headers(values.get("header", ()), sources.get("header", ""))
    return Target(url, _token(values), headers, _trust(command, values, sources, url))


def find_all(
    command: str, values: Mapping[str, Any], sources: Mapping[str, str], urls: Sequence[str]
) -> list[Target]:
    """Return where several addresses lead; a path is that of a room of the hub before it.

    Args:
        urls: without any there is one target, made of host, port and room.

    Raises:
        UsageError, AccessError: as for `find`.
    """
    found: list[Target] = []
    places: Sequence[str | None] = urls or [None]
    for url in places:
        if found and url is not None and url.startswith("/"):
            parts = urllib.parse.urlsplit(found[-1].url)
            url = f"{parts.scheme}://{parts.netloc}{url}"
        address = _address(values, sources, url)
        # What is said of all of them is read, and warned of, once.
        alike = [target for target in found if _is_tls(target.url) == _is_tls(address)]
        if alike:
            found.append(alike[0]._replace(url=address))
        else:
            found.append(find(command, values, sources, address))
    return found


def _address(values: Mapping[str, Any], sources: Mapping[str, str], url: str | None) -> str:
    """Return the address of a room, complete; the arguments are those of `find`."""
    if url is not None and not url.startswith("/"):
        return completed(url, values["host"])
    if values["port"] == 0:
        raise UsageError(f"{sources['port']}: a hub has a port between 1 and 65535")
    if url is not None:
        return f"ws://{_bracketed(values['host'])}:{values['port']}{url}"
    url = room_url(values["host"], values["port"], values["room"] or "")
    return url if values["room"] is not None else url.removesuffix("/")


def offer(
    headers: dict[str, str], values: Mapping[str, Any], sources: Mapping[str, str]
) -> dict[str, str]:
    """Return the header lines for an upgrade, with what is said of subprotocols and the origin.

    Raises:
        UsageError: something is said twice.
    """
    offered = ", ".join(values["subprotocol"]) or f"{NO_HUB}, {SUBPROTOCOL}"
    more = {PROTOCOL_HEADER: "" if offered == "none" else offered}
    if values["origin"] is not None:
        more["Origin"] = values["origin"]
    for name in more:
        option = {"Origin": "origin"}.get(name, "subprotocol")
        if any(key.lower() == name.lower() for key in headers):
            raise UsageError(f"{name} is what {sources[option]} is for")
    return {**headers, **more}


def read_headers(given: Sequence[str], source: str) -> dict[str, str]:
    """Return header lines by their names; a name that comes again adds to its list.

    Args:
        given: each a line, or ``@`` and the name of a file with lines.
        source: what to call them in errors.

    Raises:
        UsageError: one is none, or says what we say ourselves. It is not repeated: it may be a
            secret.
        AccessError: a file cannot be read.
    """
    lines: list[tuple[str, str]] = []
    for text in given:
        if text.startswith("@"):
            name = text[1:]
            read = secret_files.read_file(name).decode("utf-8", "surrogateescape")
            lines += [(f"{name}, line {n}", line) for n, line in enumerate(read.splitlines(), 1)]
        else:
            lines.append((source, text))
    found: dict[str, tuple[str, str]] = {}
    for where, line in lines:
        if not line.strip():
            continue
        parsed = _HEADER.fullmatch(line)
        if parsed is None or not (parsed[2].isprintable() and parsed[2].isascii()):
            raise UsageError(f"{where}: a header line is a name, a colon and ASCII characters")
        name, value = parsed[1], parsed[2]
        if name.lower() in _OUR_HEADERS:
            raise UsageError(f"{where}: {name} cannot be chosen")
        if name.lower() in found:  # RFC 9110 §5.3
            name, before = found[name.lower()]
            value = f"{before}, {value}"
        found[name.lower()] = (name, value)
    return dict(found.values())


def wait_of(values: Mapping[str, Any], sources: Mapping[str, str]) -> float:
    """Return the seconds to wait for a hub that is not there yet.

    Raises:
        UsageError: it is no time.
    """
    seconds: float = values["wait"]
    if seconds < 0:
        raise UsageError(f"{sources['wait']} must be at least 0")
    return seconds


@contextlib.contextmanager
def awaited(command: str, url: str, seconds: float) -> Iterator[None]:
    """Say in one line that a hub is waited for if what is done takes long.

    Args:
        command: which.
        url: the hub's address.
        seconds: how long the command waits.
    """
    if seconds <= QUIET_SECONDS:
        yield
        return
    shown = url.partition("?")[0]  # a query may have a secret in it
    text = f"waiting for the hub at {shown}, up to {seconds:g} s"
    timer = threading.Timer(QUIET_SECONDS, tell_progress, (command, text))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # nothing is written any more


def tell(command: str, error: Exception, more: str = "") -> int:
    """Tell why a command has not come to its target; return its exit status.

    Args:
        more: what to add to the error.
    """
    if isinstance(error, ConnectFailed):
        complain(command, f"{error}{hint(error.status, error.untrusted)}{more}")
        return 1
    complain(command, f"{error}{more}")
    return 2 if isinstance(error, UsageError) else 1


def hint(status: int | None, untrusted: bool) -> str:
    """Return what to add to an error: the option that would put it right.

    Args:
        status: the HTTP status of the answer; None for none.
        untrusted: whether the certificate of the server is not valid.
    """
    return TRUST_HINT if untrusted else TOKEN_HINT if status == 401 else ""


def text_hint(url: str | None) -> str:
    """Return what to add to an error about the first word of a message that was taken for an
    address: how to make it text. Nobody takes ``ws://`` for text."""
    is_sure = url is None or url.lower().startswith(("ws://", "wss://"))
    return "" if is_sure else TEXT_HINT


# What `tell` is for.
FAILURES = (UsageError, AccessError, TlsError, ConnectFailed)


def room_url(host: str, port: int, room: str) -> str:
    """Return the address of a room, its parts given as people write them."""
    return f"ws://{_bracketed(host)}:{port}/{urllib.parse.quote(room.removeprefix('/'))}"


def is_room(word: str, *, has_text: bool) -> bool:
    """Tell whether the first word of a message is the address of a room instead.

    It is one if it has a scheme. It is also one if it has a host and a port, as in ``hub:8765`` or
    ``:8765``. ``12:30`` is a time, ``3:1/2:0`` a score and ``v1.2:3`` a version.

    Args:
        has_text: whether more words follow. One word alone is the message, unless it has a path
            and its host can be nothing else.
    """
    if word.lower().startswith(("ws://", "wss://", "http://", "https://")):
        return True
    found = _HOST_AND_PORT.fullmatch(word)
    if found is None or not _is_host(found["host"]):
        return False
    # A single word before the colon may belong to a message, as in "ratio:3/4".
    is_plain = found["host"] not in ("", "localhost") and found["host"].isalnum()
    return has_text or ("/" in word and not is_plain)


def _is_host(text: str) -> bool:
    """Tell whether what stands before a port is a host, and not part of a message."""
    if text == "" or text.startswith("["):
        return True
    try:
        return bool(ipaddress.IPv4Address(text))
    except ValueError:
        last = text.removesuffix(".").rpartition(".")[2]
        return _NAME.fullmatch(text) is not None and any(map(str.isalpha, last))


def completed(url: str, host: str) -> str:
    """Return an address as people write it with the scheme of a WebSocket; what cannot be one is
    left as it is, to be refused.

    Args:
        url: it may be that of a room's web page, or begin with its host or its port.
        host: where a mere port is.
    """
    scheme, separator, rest = url.partition("://")
    if separator:
        return {"http": "ws", "https": "wss"}.get(scheme.lower(), scheme) + separator + rest
    found = _HOST_AND_PORT.fullmatch(url)
    if found is None:
        return url
    return f"ws://{'' if found['host'] else _bracketed(host)}{url}"


def _bracketed(host: str) -> str:
    # RFC 3986 §3.2.2: an IPv6 address
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _token(values: Mapping[str, Any]) -> str | None:
    """Return the token that a client is to show.

    Raises:
        AccessError: its file has none.
    """
    if values["token_file"] is None:
        token: str | None = values["token"]
        return token
    return secret_files.read_first_token(values["token_file"])


def _trust(
    command: str, values: Mapping[str, Any], sources: Mapping[str, str], url: str
) -> dict[str, Any]:
    """Return whom to trust at an address and what to show there; say so loudly if nobody is asked
    for proof.

    Raises:
        UsageError: an option is given for an address without TLS: somebody would feel safe. Or two
            options do not go together.
    """
    wanted = {name: values[name] for name in TRUST_ARGUMENTS if values[name]}
    if not _is_tls(url):
        for name in wanted:
            # A variable is there for all addresses.
            if sources[name].startswith("-"):
                raise UsageError(f"{sources[name]} is for addresses that begin with wss://")
        return {}
    if "ca_file" in wanted and "insecure" in wanted:
        raise UsageError(f"{sources['ca_file']} and {sources['insecure']} contradict each other")
    if "cert_key" in wanted and "cert" not in wanted:
        raise UsageError(f"{sources['cert_key']} is the key of a certificate: give --cert as well")
    if "insecure" in wanted:
        warn(command, "INSECURE: the hub's certificate is not checked; whoever is between can read")
        # That was the command's word for it, at a level that cannot be turned off.
        logging.getLogger("broadcast_server.client").addFilter(_is_not_insecure)
    return {TRUST_ARGUMENTS[name]: value for name, value in wanted.items()}


def _is_tls(url: str) -> bool:
    return url.partition(":")[0].lower() in ("wss", "https")


def _is_not_insecure(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("insecure: ")
