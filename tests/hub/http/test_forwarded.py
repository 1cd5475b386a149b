"""Whose request it is: what counts as one sender, and which proxies are believed how far."""

from __future__ import annotations

import pytest

from broadcast_server.hub.http.forwarded import Address, client_of, is_in
from broadcast_server.hub.http.models import Request
from broadcast_server.networks import parse_network

PROXIES = [parse_network(text) for text in ("10.0.0.0/8", "::1", "2001:db8:9::/48")]
PEER = Address("10.0.0.1", 4711)


def request(*headers: tuple[str, str]) -> Request:
    return Request("GET", "/", "1.1", headers)


def xff(*values: str) -> Request:
    return request(*(("x-forwarded-for", value) for value in values))


def forwarded(*values: str) -> Request:
    return request(*(("forwarded", value) for value in values))


# -- Addresses and networks --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (Address("192.0.2.1", 80), "192.0.2.1:80"),
        (Address("192.0.2.1", None), "192.0.2.1"),
        (Address("2001:db8::1", 80), "[2001:db8::1]:80"),
        (Address("fe80::1%eth0", None), "fe80::1%eth0"),
    ],
)
def test_address_reads_as_people_write_it(address: Address, text: str) -> None:
    """In logs, and as ``Member.address``."""
    assert str(address) == text


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("::ffff:10.1.1.1", True),
        ("::1", True),
        ("::2", False),
        ("2001:db8:9:ffff::1%eth0", True),
        ("2001:db8:a::1", False),
        ("localhost", False),
    ],
)
def test_host_is_in_a_listed_network_or_not(host: str, inside: bool) -> None:
    """To the last address of the network, and not one further."""
    assert is_in(host, PROXIES) is inside


# -- Behind a proxy ----------------------------------------------------------------------------


def test_without_listed_proxies_nobody_is_believed() -> None:
    """Everybody can send the header."""
    assert client_of(xff("192.0.2.1"), PEER, []) is PEER


def test_stranger_is_not_believed() -> None:
    """Only what a listed proxy has sent counts."""
    stranger = Address("192.0.2.9", 5)
    assert client_of(xff("192.0.2.1"), stranger, PROXIES) is stranger
    assert client_of(xff("garbage"), stranger, PROXIES) is stranger
    assert client_of(forwarded('for="'), stranger, PROXIES) is stranger


def test_proxy_that_says_nothing_speaks_for_itself() -> None:
    """Such as one that checks the hub's health."""
    assert client_of(request(), PEER, PROXIES) is PEER
    assert client_of(xff(" , "), PEER, PROXIES) is PEER


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["198.51.100.7, 192.0.2.1"], "192.0.2.1"),  # what a client sends stands to the left
        (["garbage, 192.0.2.1"], "192.0.2.1"),
        (["127.0.0.1, 192.0.2.1"], "192.0.2.1"),
        (["10.9.9.9, 192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, 10.0.0.2"], "192.0.2.1"),  # a chain of listed proxies
        (["198.51.100.7, 192.0.2.1, 10.0.0.2,10.0.0.3"], "192.0.2.1"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),  # all of them listed: the first one has asked
        (["198.51.100.7", "192.0.2.1"], "192.0.2.1"),  # two lines are one list
        (["192.0.2.1", "10.0.0.2"], "192.0.2.1"),
        (["192.0.2.1,"], "192.0.2.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["2001:DB8:0::1"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, ::ffff:10.0.0.2"], "192.0.2.1"),
        (["192.0.2.1, 2001:db8:9:1::5"], "192.0.2.1"),
    ],
)
def test_client_is_the_rightmost_that_is_no_listed_proxy(values: list[str], client: str) -> None:
    """Whatever stands left of it was written by the client, or by who knows whom."""
    assert client_of(xff(*values), PEER, PROXIES) == Address(client, None)


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("192.0.2.1:4711", Address("192.0.2.1", 4711)),
        ("192.0.2.1:65535", Address("192.0.2.1", 65535)),
        ("[2001:db8::1]:4711", Address("2001:db8::1", 4711)),
        ("[2001:db8::1]:_obscured", Address("2001:db8::1", None)),
    ],
)
def test_port_is_kept_if_the_proxy_tells_it(value: str, client: Address) -> None:
    """Some proxies write it."""
    assert client_of(xff(value), PEER, PROXIES) == client
    assert client_of(forwarded(f'for="{value}"'), PEER, PROXIES) == client


GARBAGE = [
    "garbage",
    "192.0.2.1 198.51.100.7",
    "192.0.2.256",
    "192.0.2.1:",
    "192.0.2.1:http",
    "192.0.2.1:65536",
    "192.0.2.1:99999",
    "192.0.2.1:123456",
    "[2001:db8::1]:65536",
    "unknown:65536",
    "[2001:db8::1",
    "[2001:db8::1]80",
    "[192.0.2.1]",
    "fe80::1%eth0",
    "2130706433",
    "\N{SUPERSCRIPT TWO}",
]


@pytest.mark.parametrize("value", GARBAGE)
def test_nonsense_of_a_listed_proxy_is_refused(value: str) -> None:
    """With a guess one stranger could pass for another, or for the proxy."""
    for header in (xff(value), xff(f"198.51.100.7, {value}"), xff(f"{value}, 10.0.0.2")):
        with pytest.raises(ValueError, match="is no address"):
            client_of(header, PEER, PROXIES)


def test_long_nonsense_is_cut() -> None:
    """The text goes into an answer and a log."""
    with pytest.raises(ValueError) as caught:
        client_of(xff("x" * 5000), PEER, PROXIES)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("values", "client"),
    [
        (["for=192.0.2.1"], "192.0.2.1"),
        (["For=192.0.2.1;proto=https;by=10.0.0.1"], "192.0.2.1"),
        (["by=10.0.0.1; for=192.0.2.1"], "192.0.2.1"),
        (['for="[2001:db8::1]:4711"'], "2001:db8::1"),
        (["for=[2001:db8::1]"], "2001:db8::1"),  # not lawful without quotes, but seen
        (['for="192.0.2.\\1"'], "192.0.2.1"),
        (["for=198.51.100.7, for=192.0.2.1"], "192.0.2.1"),
        (["for=192.0.2.1, for=10.0.0.2"], "192.0.2.1"),
        (['for=192.0.2.1;host="a,b;for=198.51.100.7"'], "192.0.2.1"),
        (["for=198.51.100.7", "for=192.0.2.1"], "192.0.2.1"),
        (['for="', "for=192.0.2.1"], "192.0.2.1"),  # a client's line is not looked at
    ],
)
def test_forwarded_tells_the_same(values: list[str], client: str) -> None:
    """RFC 7239, with all that its grammar allows."""
    assert client_of(forwarded(*values), PEER, PROXIES).host == client


@pytest.mark.parametrize(
    "value",
    [
        'for=", for=192.0.2.1',  # a quote that the client has left open
        'for=198.51.100.7;x=", for="[2001:db8::1]"',
        'for=198.51.100.7;x=", for=192.0.2.1;proto="https"',
        "for",
        "for=",
        "=192.0.2.1",
        "for=192.0.2.1 x",
        "for=192.0.2.1;",
        "for=192.0.2.1;for=198.51.100.7",
        "for=192.0.2.1,",
        'for="192.0.2.1" for="198.51.100.7"',
        "",
    ],
)
def test_forwarded_that_is_none_is_refused(value: str) -> None:
    """Else a client could swallow or double what the proxy says."""
    with pytest.raises(ValueError, match="Forwarded"):
        client_of(forwarded(value), PEER, PROXIES)


@pytest.mark.parametrize("value", ["unknown", "_hidden", "Unknown", "_SEVKISEK:80", "proto=https"])
def test_proxy_that_hides_its_client_counts_itself(value: str) -> None:
    """RFC 7239 §6.2 and §6.3 let it."""
    line = value if "=" in value else f'for="{value}"'
    assert client_of(forwarded(line), PEER, PROXIES) == PEER
    chain = f"for=192.0.2.1, {line}, for=10.0.0.2"
    assert client_of(forwarded(chain), PEER, PROXIES) == Address("10.0.0.2", None)


def test_both_headers_must_tell_of_the_same_client() -> None:
    """Most proxies write one of them and let a client's own other one pass."""
    both = request(("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1"))
    assert client_of(both, PEER, PROXIES).host == "192.0.2.1"
    forged = request(("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=198.51.100.7"))
    with pytest.raises(ValueError, match="different clients"):
        client_of(forged, PEER, PROXIES)


@pytest.mark.parametrize("name", ["x-forwarded-for", "forwarded"])
def test_what_stands_far_left_is_not_taken_apart(name: str) -> None:
    """A client may send a header as long as it likes, to which the proxy appends."""
    if name == "forwarded":
        with pytest.raises(ValueError, match="256 pairs"):
            client_of(request((name, "for=1," * 4000 + "for=192.0.2.1")), PEER, PROXIES)
        line = "for=1," * 255 + "for=192.0.2.1"
    else:
        line = "1," * 8000 + "192.0.2.1"
    assert client_of(request((name, line)), PEER, PROXIES).host == "192.0.2.1"
    with pytest.raises(ValueError, match="no address"):
        client_of(request((name, line + "1" * 200)), PEER, PROXIES)


def test_more_proxies_than_there_are_is_an_error() -> None:
    """Nobody looks for the end of such a chain."""
    line = ", ".join(["192.0.2.1", *["10.0.0.2"] * 64])
    with pytest.raises(ValueError, match="64 proxies"):
        client_of(request(("x-forwarded-for", line)), PEER, PROXIES)
    shorter = ", ".join(["192.0.2.1", *["10.0.0.2"] * 63])
    found = client_of(request(("x-forwarded-for", shorter)), PEER, PROXIES)
    assert found.host == "192.0.2.1"
