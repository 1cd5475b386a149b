"""What counts as one sender, which networks and origins may be named, what host names may be."""

from __future__ import annotations

import pytest

from broadcast_server import origins
from broadcast_server.networks import (
    check_host_name,
    network_of,
    owner_of,
    parse_network,
    scope_of,
)
from broadcast_server.origins import Origin


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("::1", "::1/128"),
        ("2001:db8::/32", "2001:db8::/32"),
    ],
)
def test_network_is_an_address_or_has_a_prefix(text: str, network: str) -> None:
    """One machine or many."""
    assert str(parse_network(text)) == network


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("proxy.example", "neither an IP address nor a network"),
        ("", "neither"),
        ("*", "neither"),
        ("10.0.0.0/33", "neither"),
        ("10.1.2.3/8", "the network is 10.0.0.0/8"),
        ("2001:db8::1/64", "the network is 2001:db8::/64"),
    ],
)
def test_what_is_no_network_is_told(text: str, why: str) -> None:
    """A slip of the pen must not trust more than was meant."""
    with pytest.raises(ValueError, match=why):
        parse_network(text)


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("2001:db8:1:3::6", "2001:db8:1:3::"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.255.8.9", "127.0.0.1"),
        ("::ffff:127.0.0.2", "127.0.0.1"),
        ("::1", "127.0.0.1"),
        ("::2", "::"),
        ("126.0.0.1", "126.0.0.1"),
        ("128.0.0.1", "128.0.0.1"),
        ("no address", "no address"),
        ("no:address", "no:address"),
    ],
)
def test_one_sender_is_an_ipv4_address_or_a_64(host: str, network: str) -> None:
    """Neighbours count apart, the many addresses of one machine as one."""
    assert network_of(host) == network


@pytest.mark.parametrize("name", ["hub.example", "box", "HUB.example.", "a_b", "127.0.0.1"])
def test_name_that_may_be_allowed(name: str) -> None:
    """Any that a Host header can have."""
    check_host_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "*", "*.example", "hub.example:80", "http://hub", "hub/", "a b", "[::1]"]
)
def test_name_that_could_never_match(name: str) -> None:
    """It is refused at once, and wildcards are never understood."""
    with pytest.raises(ValueError):
        check_host_name(name)


def test_owner_is_whom_a_token_names_or_else_the_network() -> None:
    """No name can pass for an address, and no address for a name."""
    assert owner_of("192.0.2.1", None) == owner_of("::ffff:192.0.2.1", None) == "192.0.2.1"
    assert owner_of("2001:db8::1", None) == owner_of("2001:db8::2", None) == "2001:db8::"
    assert owner_of("192.0.2.1", "ann") == owner_of("192.0.2.2", "ann") != owner_of("ann", None)
    assert owner_of("192.0.2.1", "192.0.2.2") != owner_of("192.0.2.2", None)
    assert scope_of(owner_of("192.0.2.1", None)) == scope_of(owner_of("192.0.2.2", None)) == ""
    names = [scope_of(owner_of("192.0.2.1", name)) for name in ("", "ann", "bob")]
    assert len({*names, ""}) == 4


# -- Web origins: origins.py ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://Example.org", Origin("https", "example.org", 443)),
        ("HTTP://example.org./", Origin("http", "example.org", 80)),
        ("http://example.org:8080", Origin("http", "example.org", 8080)),
        ("wss://example.org:0", Origin("wss", "example.org", 0)),
        ("http://[0::1]:81", Origin("http", "::1", 81)),
        ("http://127.0.0.1", Origin("http", "127.0.0.1", 80)),
        ("null", None),
        ("file://", None),
        ("ftp://example.org", None),
        ("http://", None),
        ("http:///", None),
        ("http://.", None),
        ("http://:80", None),
        ("http://a/b", None),
        ("http://a b", None),
        ("http://a:65536", None),
        ("http://a:" + "0" * 5000, None),
        ("http://[::1", None),
        ("http://[1.2.3.4]", None),
        ("http://a http://b", None),
        ("http://ä", None),
    ],
)
def test_origin_is_parsed(text: str, expected: Origin | None) -> None:
    """The origin of a page has a scheme, a host and a port; what is none is None."""
    assert origins.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "null",
        "file://",
        "app://desk",
        "https://a.example",
        "http://[::1]:8080/",
        "https://ü.example",
    ],
)
def test_origin_that_may_be_allowed_matches_itself(text: str) -> None:
    """Every value that is accepted lets somebody in: in ASCII, as a browser sends it."""
    origins.check_allowed(text)
    sent = text.replace("ü", "xn--tda")
    assert origins.same(sent) in origins.allowed((text,))
