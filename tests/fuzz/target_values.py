"""Targets: single values that strangers write: media types, queries, addresses, answers of servers.

Each function of the package either returns what it promises or raises what it promises; where the
standard library does the same, both must agree.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import urllib.parse

from broadcast_server import networks, origins, rules
from broadcast_server.client import retries
from broadcast_server.client.http import Answer
from broadcast_server.errors import InvalidRoom, UsageError
from broadcast_server.hub.http import cors, forwarded, host_header, media_types
from broadcast_server.hub.http.forwarded import Address
from broadcast_server.hub.http.models import Request
from broadcast_server.hub.http.query import (
    checked_count,
    checked_flag,
    checked_word,
    decode,
    parse_query,
)
from broadcast_server.hub.http.routes import check_room
from broadcast_server.rules import MAX_SECONDS
from broadcast_server.wire import urls

NAMES = host_header.own_names(["127.0.0.1"], ["hub.example"])
PROXIES = (networks.parse_network("10.0.0.0/8"), networks.parse_network("2001:db8::/64"))
PEER, CLIENT = Address("10.0.0.9", 4711), "192.0.2.55"

_VISIBLE = re.compile("/[!-~]*")


def run_media_types(data: bytes) -> str:
    """Read each line as a Content-Type and all of them as Accept."""
    lines = data.decode("latin-1").split("\n")
    try:
        wanted = media_types.prefer(lines)
    except ValueError as error:
        assert "more than" in str(error)
    else:
        assert wanted in (media_types.HTML, media_types.JSON, media_types.EVENTS, None)
    label = "bad"
    for line in lines:
        try:
            media = media_types.parse(line)
        except ValueError as error:
            assert str(error)
            continue
        label = "good"
        quoted = "".join(
            ';{}="{}"'.format(key, re.sub(r'(["\\])', r"\\\1", value))
            for key, value in media.parameters.items()
        )
        # What was read can be written so that it is read again.
        if "\n" not in quoted and quoted.count('"') < 2 * media_types.MAX_PARAMETERS:
            assert media_types.parse(media.name + quoted) == media
        try:
            assert media_types.is_text(line) in (True, False)
        except LookupError as error:
            assert error.args[0]
            label = "refused"
    return label


def run_queries(data: bytes) -> str:
    """Read the bytes as a path and as a query, and check each parameter."""
    raw = data.decode("latin-1")
    label = "bad"
    try:
        path = decode(raw)
    except ValueError as error:
        assert str(error)
    else:
        assert path == urllib.parse.unquote_to_bytes(raw).decode()
        label = "text"
        try:
            check_room(path)
            label = "room"
        except InvalidRoom as error:
            assert str(error)
    try:
        query = parse_query(raw)
    except ValueError as error:
        assert str(error)
        return label
    known = dict(urllib.parse.parse_qsl(raw, keep_blank_values=True))
    assert {k: v for k, v in query.items() if k} == {k: v for k, v in known.items() if k}
    for check in (
        lambda: rules.checked_name(query.get("name")),
        lambda: rules.checked_session(query.get("session")),
        lambda: checked_flag(query, "echo"),
        lambda: checked_word(query, "view", "board"),
        lambda: checked_count(query, "history", 0, 100),
    ):
        try:
            check()
        except ValueError as error:
            assert str(error)
            label = "refused"
    return label


def run_origins(data: bytes) -> str:
    """Read lines as Host, Origin and the Sec-Fetch headers."""
    names = ("host", "origin", "sec-fetch-site", "sec-fetch-mode", "origin")
    lines = data.decode("latin-1").split("\n")
    headers = tuple((n, v.strip(" \t")) for n, v in zip(names, lines, strict=False) if v)
    request = Request("GET", "/", "1.1", headers)
    usable = cors.may_use(request, ("https://app.example",))
    found = dict(cors.shared_headers(request, ("https://app.example",)))
    foreign = request.values("origin")
    if "Access-Control-Allow-Origin" in found:
        assert usable and origins.parse(foreign[0]) == ("https", "app.example", 443)
    elif usable and len(foreign) == 1:
        # Only the hub's own.
        own = origins.parse(foreign[0])
        assert own is not None and own.host and 0 <= own.port <= 65535
        assert own == origins.of_host(own.scheme, request.values("host")[0])
    return "usable" if usable else "foreign"


def run_hosts(data: bytes) -> str:
    """Read the first line as what a request asks for and the second as its Host."""
    target, _, host = data.decode("latin-1").partition("\n")
    request = host_header.effective(Request("GET", target, "1.1", (("host", host.strip(" \t")),)))
    refusal = host_header.refuse(request, NAMES)
    if refusal is not None:
        assert refusal.status in (400, 421) and refusal.text
        return str(refusal.status)
    (name,) = request.values("host")
    # Nobody's DNS was asked for it, or it is one of ours.
    if name[:1] == "[":
        ipaddress.IPv6Address(name.partition("]")[0][1:].partition("%")[0])
    elif (bare := name.partition(":")[0].lower().removesuffix(".")) not in NAMES:
        ipaddress.IPv4Address(bare)
    return "own"


def run_addresses(data: bytes) -> str:
    """Read the bytes as a network, and as what a client says about where it comes from."""
    text = re.sub(r"[\r\n\0]", "", data.decode("latin-1")).strip(" \t")
    label = "bad"
    try:
        assert networks.network_of(str(networks.parse_network(text).network_address))
        label = "network"
    except ValueError as error:
        assert str(error)
    for name, own in (("x-forwarded-for", CLIENT), ("forwarded", f"for={CLIENT}")):
        # What a client says is not believed, whatever it is: behind it stands what the proxy says.
        assert _client(name, text, own).host == CLIENT
        try:
            assert _client(name, f"{text}, {own}").host == CLIENT
        except ValueError:
            # A quote may be left open, and then nobody is believed.
            assert name == "forwarded"
        assert forwarded.client_of(_request(name, text), Address(CLIENT, 1), PROXIES).port == 1
        try:
            found = _client(name, text)
        except ValueError as error:
            assert str(error)
            continue
        ipaddress.ip_address(found.host)
        assert str(found) and networks.network_of(found.host)
        label = name if found != PEER else label
    return label


def _request(name: str, *values: str) -> Request:
    return Request("GET", "/", "1.1", tuple((name, value) for value in values))


def _client(name: str, *values: str) -> Address:
    return forwarded.client_of(_request(name, *values), PEER, PROXIES)


def run_urls(data: bytes) -> str:
    """Read the bytes as an address that somebody typed."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        parts = urls.split(text)
        with_name = urls.with_parameters(parts, {"name": text, "since": None})
    except UsageError as error:
        assert str(error)
        return "bad"
    for found in (parts, with_name):
        assert found.geturl().isascii()
        assert _VISIBLE.fullmatch(urls.target(found)), found
        assert urls.split(found.geturl()) == found
    assert urls.parameter(with_name, "name") == text
    assert urls.parameter(with_name, "since") is None
    return "good"


def run_answers(data: bytes) -> str:
    """Read the first line as a Retry-After and the rest as the body of a server's answer."""
    first, _, body = data.partition(b"\n")
    seconds = retries.retry_after(first.decode("latin-1"))
    if seconds is not None:
        assert 0 <= seconds <= MAX_SECONDS
        assert 0 <= retries.back_off(3, 30.0, 0.5, seconds) <= 30.0
    answer = Answer(503, "Service Unavailable", http.client.HTTPMessage(), body)
    assert isinstance(answer.fields(), dict)
    detail = answer.detail()
    assert isinstance(detail, str) and detail
    return "none" if seconds is None else "seconds"
