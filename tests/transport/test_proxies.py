"""A client behind a proxy that the environment names."""

from __future__ import annotations

import base64

import pytest

from broadcast_server import BroadcastClient, ConnectFailed, PublishFailed, publish
from broadcast_server.transport import proxies

from ..support import TEXT, running_hub
from ..support.beside import in_thread
from ..support.certificates import Certificates
from ..support.raw_server import SECONDS, listener, read_head, upgrade


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what the tests' own environment says about proxies."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_proxy_is_found_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what kind of connection it is, and not for hosts that are excepted."""
    assert proxies.find("h", 80, is_tls=False) is None
    monkeypatch.setenv("http_proxy", "http://plain.example:3128")
    monkeypatch.setenv("HTTPS_PROXY", "ann:s%3ax@secret.example")
    monkeypatch.setenv("no_proxy", "near.example,10.0.0.1")
    credentials = "Basic " + base64.b64encode(b"ann:s:x").decode()
    assert proxies.find("h", 80, is_tls=False) == ("plain.example", 3128, None)
    assert proxies.find("h", 80, is_tls=True) == ("secret.example", 80, credentials)
    for host in ("near.example", "a.near.example", "10.0.0.1"):
        assert proxies.find(host, 80, is_tls=True) is None


@pytest.mark.parametrize("variable", ["all_proxy", "ALL_PROXY"])
def test_proxy_for_all_is_for_what_has_none(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As curl and others read it; an empty variable is not set."""
    monkeypatch.setenv(variable, "http://all.example:3128")
    monkeypatch.setenv("https_proxy", "http://secret.example")
    monkeypatch.setenv("http_proxy", "")
    assert proxies.find("h", 80, is_tls=False) == ("all.example", 3128, None)
    assert proxies.find("h", 80, is_tls=True) == ("secret.example", 80, None)
    monkeypatch.setenv("no_proxy", "h")
    assert proxies.find("h", 80, is_tls=False) is None
    assert proxies.find("localhost", 80, is_tls=False) is None


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("socks5://p.example:1080", "socks5"),
        ("socks5h://ann:secret@p.example:1080", "socks5h"),
        ("SOCKS4://p.example", "socks4"),
        ("https://ann:secret@p.example:443", "https"),
        ("ftp://p.example", "ftp"),
    ],
)
def test_proxy_of_another_kind_is_refused_by_name(
    value: str, kind: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not spoken to in HTTP; a password is not shown."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConnectFailed) as refused:
        BroadcastClient("ws://hub.example/").connect()
    with pytest.raises(PublishFailed) as failed:
        publish("http://hub.example/", "x")
    assert failed.value.status is None and not failed.value.maybe_delivered
    for error in (refused.value, failed.value):
        assert f"{variable} names a proxy of the kind {kind}, which is not supported" in str(error)
        assert "secret" not in str(error)
    monkeypatch.setenv("no_proxy", "hub.example")
    assert proxies.find("hub.example", 80, is_tls=False) is None


@pytest.mark.parametrize(
    ("listed", "host", "port", "excepted"),
    [
        ("*", "hub.example", 80, True),
        ("a.example, *", "hub.example", 80, True),
        ("a.example b.example", "b.example", 80, True),
        (" a.example ,b.example, ", "b.example", 80, True),
        ("example", "hub.example", 80, True),
        (".hub.example", "hub.example", 80, True),
        (".example", "hub.example.", 80, True),
        ("*.example", "hub.example", 80, True),
        ("HUB.Example.", "hub.eXample", 80, True),
        ("b\u00fccher.example", "xn--bcher-kva.example", 80, True),
        ("hub.example:8765", "hub.example", 8765, True),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.7/8", "10.1.2.3", 80, True),
        ("10.0.0.0/255.0.0.0", "10.1.2.3", 80, True),
        ("10.0.0.1", "10.0.0.1", 80, True),
        ("10.0.0.1:80", "10.0.0.1", 80, True),
        ("10.0.0.0/8:80", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "::ffff:10.1.2.3", 80, True),
        ("2001:db8::/32", "2001:db8::1", 80, True),
        ("[2001:db8::]/32,2001:DB8::1", "2001:db8::1", 80, True),
        ("[2001:db8::1]", "2001:db8:0::1", 80, True),
        ("[2001:db8::1]:80", "2001:db8::1", 80, True),
        ("ample", "hub.example", 80, False),
        ("hub.example", "example", 80, False),
        ("hub.example:80", "hub.example", 8765, False),
        ("10.0.0.0/8", "11.0.0.1", 80, False),
        ("10.0.0.0/8", "ten.example", 80, False),
        ("10.0.0.0/8:80", "10.1.2.3", 81, False),
        ("10.0.0.0/40", "10.1.2.3", 80, False),
        ("0.0.0.1", "10.0.0.0.1", 80, False),
        ("0.1", "10.0.0.1", 80, False),
        ("2001:db8::/32", "2001:db9::1", 80, False),
        ("2001:db8::1:80", "2001:db8::1", 80, False),
        ("[2001:db8::1]:81", "2001:db8::1", 80, False),
        ("::/0", "10.0.0.1", 80, False),
        (",. :80 [] [", "hub.example", 80, False),
        ("", "hub.example", 80, False),
    ],
)
def test_hosts_and_networks_are_excepted(
    listed: str, host: str, port: int, excepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, domain, address or network, each perhaps with a port; no name is looked up."""
    monkeypatch.setenv("all_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", listed)
    for is_tls in (False, True):
        assert (proxies.find(host, port, is_tls=is_tls) is None) is excepted


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"],
)
def test_no_proxy_leads_to_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look for a hub on its own."""
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert proxies.find(host, 80, is_tls=False) is None


def test_hub_of_this_machine_is_reached_where_others_are_behind_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The address that every command has by default works everywhere."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with running_hub() as hub, BroadcastClient(hub.url) as client:
        assert client.state == "open"


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("host", ["hub.example", "[2001:db8::1]"])
def test_client_goes_through_its_proxy(
    host: str, is_tls: bool, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks for a tunnel, and what is behind it is the server; only the proxy knows the name."""
    with listener() as listening:
        proxy = f"http://ann:secret@127.0.0.1:{listening.port}"
        monkeypatch.setenv("https_proxy" if is_tls else "http_proxy", proxy)
        url = f"{'wss' if is_tls else 'ws'}://{host}:8765/room"
        client = BroadcastClient(url, insecure=is_tls)
        connecting = in_thread(client.connect)
        sock, head = listening.read_head()
        assert head == (
            f"CONNECT {host}:8765 HTTP/1.1\r\nHost: {host}:8765\r\n"
            f"Proxy-Authorization: Basic {base64.b64encode(b'ann:secret').decode()}\r\n\r\n"
        )
        sock.sendall(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
        if is_tls:
            sock = certificates.server_context().wrap_socket(sock, server_side=True)
        server = upgrade(sock, read_head(sock))
        with server.sock:
            assert f"\r\nHost: {host}:8765\r\n" in server.head and "Proxy" not in server.head
            server.send_frame(TEXT, "through")
            assert connecting.result(SECONDS).recv(SECONDS).data == "through"
            client.close(timeout=0)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n", "answers 407"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no answer that is HTTP"),
        (b"HTTP/1.1 20", "no answer that is HTTP"),
        (b"\0" * 20_000, "no answer that is HTTP"),
    ],
)
def test_proxy_that_does_not_lead_on_is_named(
    answer: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its refusal is not taken for the hub's, so there is no status."""
    with listener() as listening:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listening.port}")
        connecting = in_thread(BroadcastClient("ws://hub.example/").connect)
        sock, _ = listening.read_head()
        with sock:
            sock.sendall(answer)
        with pytest.raises(ConnectFailed, match=f"the proxy 127.0.0.1.*{why}") as caught:
            connecting.result(SECONDS)
        assert caught.value.status is None


@pytest.mark.parametrize("value", ["http://", "http://p:x", "http://[::1", "http://p:99999", ":1"])
def test_proxy_that_cannot_be_one_is_told(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One exception for everything that keeps a client from its server, and from a request."""
    monkeypatch.setenv("http_proxy", value)
    with pytest.raises(ConnectFailed, match=r"the environment names no proxy: http_proxy"):
        BroadcastClient("ws://hub.example/").connect()
    with pytest.raises(PublishFailed, match="the environment names no proxy") as failed:
        publish("http://hub.example/", "x")
    assert not failed.value.maybe_delivered
