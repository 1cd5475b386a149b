"""By which names a hub lets itself be called: RFC 9112's Host header, and DNS rebinding."""

from __future__ import annotations

import pytest

from broadcast_server.hub.http import host_header
from broadcast_server.hub.http.models import Refusal, Request

NAMES = host_header.own_names(["127.0.0.1", "Box.lan"], ["hub.example", "Other.Example."])


def request(*values: str, target: str = "/") -> Request:
    return Request("GET", target, "1.1", tuple(("host", value) for value in values))


def status_of(*values: str) -> int | None:
    refusal = host_header.refuse(request(*values), NAMES)
    return None if refusal is None else refusal.status


@pytest.mark.parametrize(
    "value",
    [
        "127.0.0.1",
        "127.0.0.1:8765",
        "192.0.2.1:1",  # behind a port that is forwarded
        "[::1]",
        "[::1]:8765",
        "[2001:DB8::1]",
        "[::ffff:127.0.0.1]",
        "[fe80::1%25eth0]:8765",
        "localhost",
        "LOCALHOST:8765",
        "localhost.",
        "localhost:",
        "box.lan",
        "BOX.LAN.:80",
        "hub.example",
        "hub.example:443",
        "other.example",
    ],
)
def test_own_name_or_address_may_pass(value: str) -> None:
    """In any case, with any port, with or without the root's dot."""
    assert status_of(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "evil.example",
        "evil.example:8765",
        "hub.example.evil.example",
        "evil-hub.example",
        "sub.hub.example",
        "localhost.evil.example",
        "sub.localhost",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "box",
        "2130706433",  # browsers write such addresses as 127.0.0.1
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "hub.example..",
        "hub%2eexample",
        "::1x.example",
    ],
)
def test_other_name_is_misdirected(value: str) -> None:
    """A page's own name, whatever address it means by now."""
    if value.startswith("::"):
        assert status_of(value) == 400
        return
    refusal = host_header.refuse(request(value), NAMES)
    assert isinstance(refusal, Refusal) and refusal.status == 421 and refusal.reason == "host"
    assert "--allow-host" in refusal.text


@pytest.mark.parametrize(
    "values",
    [
        [""],
        [":8765"],
        ["hub.example:http"],
        ["hub.example:80:80"],
        ["::1"],
        ["[::1"],
        ["[hub.example]"],
        ["[127.0.0.1]x"],
        ["user@hub.example"],
        ["http://hub.example"],
        ["hub.example/"],
        ["hub example"],
        ["hub.example, evil.example"],
        ["hub.exam\u00e9ple"],
        ["hub%2.example"],
        ["hub.example", "hub.example"],
    ],
)
def test_host_that_is_none_is_a_bad_request(values: list[str]) -> None:
    """RFC 9112 §3.2 wants a 400."""
    assert status_of(*values) == 400


def test_bracketed_ipv4_address_is_none() -> None:
    """Nor is an IPv6 address without brackets, or one with the root's dot: only names have that."""
    assert status_of("[127.0.0.1]") == 421
    assert status_of("[::1.]:80") == 421


def test_no_host_is_a_program() -> None:
    """HTTP/1.0 has none, and browsers always send one; in HTTP/1.1 h11 refuses it before."""
    assert status_of() is None


def test_long_name_is_cut() -> None:
    """It goes into an answer and a log."""
    refusal = host_header.refuse(request("a" * 10_000), NAMES)
    assert refusal is not None and len(refusal.text) < 300


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/x", "header.example"),
        ("http://target.example/x", "target.example"),
        ("WS://target.example:80?q", "target.example:80"),
        ("http://user@target.example#f", "target.example"),
        ("http://[::1]:80/", "[::1]:80"),
        ("http:///x", ""),
        ("*", "header.example"),
    ],
)
def test_target_wins_over_the_header(target: str, host: str) -> None:
    """RFC 9112 §3.2.2: where both say it, the header does not count."""
    found = host_header.effective(request("header.example", target=target))
    assert found.values("host") == [host] and found.target == target


def test_names_are_those_of_hosts_and_options() -> None:
    """And localhost, always."""
    assert NAMES == {"localhost", "127.0.0.1", "box.lan", "hub.example", "other.example"}
