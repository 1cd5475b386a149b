"""What the hub tells strangers, and whom it believes: headers, names, files, proxies."""

from __future__ import annotations

import json
import logging
import re
import socket

import pytest

from broadcast_server import BroadcastHub, Member, Message

from ..support import RawClient, http_request, running_hub, upgrade_request, wait_until
from ..support.inside import server_of, set_max_waiting

SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}


def request(line: str, *headers: str, body: bytes = b"", host: str = "x") -> bytes:
    lines = [f"{line} HTTP/1.1", f"Host: {host}", *headers, "Connection: close"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of an answer; no header may come twice."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        assert name.lower() not in headers, f"{name} comes twice"
        headers[name.lower()] = value
    return int(first.split(" ")[1]), headers, body


# -- Headers -----------------------------------------------------------------------------------

ANSWERS: dict[str, tuple[int, bytes]] = {
    "page": (200, request("GET /", "Accept: text/html")),
    "board": (200, request("GET /?view=board", "Accept: text/html")),
    "head of the page": (200, request("HEAD /", "Accept: text/html")),
    "page that is current": (304, request("GET /", "Accept: text/html", "If-None-Match: *")),
    "script": (200, request("GET /-/static/room.js")),
    "style": (200, request("GET /-/static/app.css")),
    "picture": (200, request("GET /-/static/icon.svg")),
    "no such file": (404, request("GET /-/static/no.js")),
    "last messages": (200, request("GET /", "Accept: application/json")),
    "rooms": (200, request("GET /-/rooms")),
    "health": (200, request("GET /healthz")),
    "metrics": (200, request("GET /metrics")),
    "published": (200, request("POST /", body=b"x")),
    "preflight": (
        204,
        request("OPTIONS /", "Origin: http://friend.example", "Access-Control-Request-Method: PUT"),
    ),
    "options": (204, request("OPTIONS /")),
    "friend": (200, request("GET /", "Origin: http://friend.example")),
    "foreign": (403, request("GET /", "Origin: http://evil.example")),
    "no room": (404, request("GET /favicon.ico", "Accept: text/html")),
    "bad path": (400, request("GET /a/../b")),
    "wrong method": (405, request("DELETE /")),
    "not acceptable": (406, request("GET /", "Accept: image/png")),
    "too big": (413, request("POST /", body=bytes(2000))),
    "packed": (415, request("POST /", "Content-Encoding: gzip", body=b"x")),
    "wrong name": (421, request("GET /", "Accept: text/html", host="evil.example")),
    "head too long": (431, request("GET /", "X: " + "x" * 20_000)),
    "upgrade without a key": (400, request("GET /", "Upgrade: websocket")),
    "other version": (426, upgrade_request(host="x").replace(b"Version: 13", b"Version: 8")),
    "gone": (410, upgrade_request("/?since=9999999999999-0", ["Connection: close"], host="x")),
    "no HTTP": (400, b"\x16\x03\x01\r\n\r\n"),
    "slow": (408, b"GET / HTTP/1.1\r\nHost: x\r\n"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_answer_has_the_headers_that_keep_pages_off(kind: str) -> None:
    """Whatever is answered: no guessing of types, no frames, no loading by other origins' pages."""
    status, raw = ANSWERS[kind]
    settings = {"handshake_timeout": 0.3 if kind == "slow" else 10, "max_message_bytes": 1000}
    with running_hub(allow_origin=["http://friend.example"], **settings) as hub:
        answer = http_request(hub.port, raw, eof=kind in ("gone", "other version"))
    found, headers, _ = parse(answer)
    assert found == status, answer[:500]
    safe = dict(SAFE)
    if "access-control-allow-origin" in headers:
        assert kind in ("friend", "preflight")
        del safe["cross-origin-resource-policy"]
    assert {name: headers[name] for name in headers.keys() & SAFE.keys()} == safe
    assert headers["cache-control"] in ("no-store", "no-cache")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "*" not in policy


def test_stream_of_events_has_them_too(hub: BroadcastHub) -> None:
    """Its head is sent in another place."""
    with RawClient.open(port=hub.port) as client:
        client.sock.sendall(request("GET /", "Accept: text/event-stream"))
        while b"\r\n\r\n" not in client.buffer:
            client.fill()
        status, headers, _ = parse(client.buffer)
    assert status == 200 and {name: headers.get(name) for name in SAFE} == SAFE
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_connection_without_a_place_gets_them_too(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is made without a thread."""
    set_max_waiting(monkeypatch, server_of(hub), 0)
    status, headers, _ = parse(http_request(hub.port, b""))
    assert status == 503 and headers["retry-after"] == "5"
    assert {name: headers.get(name) for name in SAFE} == SAFE


# -- Files -------------------------------------------------------------------------------------

ABOVE = [
    "../app.css",
    "../../../../etc/passwd",
    "..%2fpage.py",
    "..%2F..%2f..%2F..%2Fetc%2Fpasswd",
    "%2e%2e/page.py",
    "%2e%2e%2fpage.py",
    "%2E%2E%5cpage.py",
    "..\\hub/http/pages.py",
    "..%5cpage.py",
    "%252e%252e%252fpage.py",
    "..%252fpage.py",
    "..;/page.py",
    ".%2e/page.py",
    "....//page.py",
    "%c0%ae%c0%ae/page.py",
    "%c0%ae%c0%ae%c0%afpage.py",
    "..%c0%afpage.py",
    "..%ef%bc%8fpage.py",
    "%uff0e%uff0e/page.py",
    "room.js%00.css",
    "room.js/../../page.py",
    "./room.js",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "file:///etc/passwd",
    "C:%5cwindows%5cwin.ini",
    "index.html",
    "room.js/",
    "room.js%20",
    "ROOM.JS",
    ".",
    "..",
    "",
    "~root",
    "__init__.py",
]


@pytest.mark.parametrize("name", ABOVE)
@pytest.mark.parametrize("prefix", ["/-/static/", "http://x/-/static/", "/-%2fstatic%2F"])
def test_no_file_but_the_pages_own(hub: BroadcastHub, prefix: str, name: str) -> None:
    """However it is written: on the wire as it stands here, no client has tidied it up."""
    raw = request(f"GET {prefix}{name}", "Accept: */*")
    status, headers, body = parse(http_request(hub.port, raw))
    assert status in (400, 404), body[:200]
    assert headers["content-type"] == "application/problem+json"
    assert b"root:" not in body and b"import" not in body
    assert hub.stats()["rooms"] == 0


def test_files_of_the_page_are_there(hub: BroadcastHub) -> None:
    """Else the test above would show nothing."""
    for name in ("room.js", "app.css", "icon.svg", "room%2ejs"):
        assert parse(http_request(hub.port, request(f"GET /-/static/{name}")))[0] == 200


# -- Names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        upgrade_request("/r", ["Connection: close"], host="evil.example:8765"),
        upgrade_request("/r", ["Origin: http://evil.example"], host="evil.example"),
        request("POST /r", "Origin: http://evil.example", body=b"x", host="evil.example"),
        request("GET /r", "Accept: text/event-stream", host="evil.example"),
        request("GET /r", "Accept: application/json", host="evil.example"),
        request("GET /r", "Accept: text/html", host="evil.example"),
        request("GET /-/rooms", host="evil.example"),
        request("GET /-/static/room.js", host="evil.example"),
        request("GET /healthz", host="evil.example"),
        request("GET http://evil.example/r", host="localhost"),
        request("OPTIONS /r", host="evil.example"),
    ],
)
def test_strange_name_gets_nothing(raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """DNS rebinding: the request looks like one to the page's own server, but for the name."""
    with caplog.at_level(logging.INFO), running_hub() as hub:
        hub.broadcast("secret", "/r")
        status, headers, body = parse(http_request(hub.port, raw, eof=True))
        assert status == 421 and b"secret" not in body
        assert "access-control-allow-origin" not in headers
        if b"text/html" in raw:
            assert b"Misdirected Request" in body and headers["content-type"].startswith(
                "text/html"
            )
        else:
            assert json.loads(body)["title"] == "Misdirected Request"
        assert b"--allow-host evil.example" in body
        assert hub.stats()["messages"] == 1 and hub.members("/r") == []
    assert "--allow-host evil.example" in caplog.text


@pytest.mark.parametrize(
    ("settings", "name", "status"),
    [
        ({}, "localhost", 200),
        ({}, "127.0.0.1:1", 200),
        ({}, "192.0.2.1", 200),
        ({}, "[::1]", 200),
        ({}, socket.gethostname() + ".example", 421),
        ({"allow_host": ["box.lan"]}, "BOX.lan:8765", 200),
        ({"allow_host": ["box.lan"]}, "x.box.lan", 421),
        ({"host": "localhost"}, "localhost", 200),
        ({}, "a b", 400),
        ({}, "", 400),
    ],
)
def test_own_names_are_answered(settings: dict[str, object], name: str, status: int) -> None:
    """Addresses, localhost, and what the options name."""
    with running_hub(**settings) as hub:
        assert parse(http_request(hub.port, request("GET /healthz", host=name)))[0] == status


def test_name_given_as_host_is_an_own_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lets the hub listen on a name calls it by that name."""
    look_up = socket.getaddrinfo

    def known(host: str, *rest: object, **more: object) -> object:
        return look_up("127.0.0.1" if host == "box.example" else host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", known)
    with running_hub(host="box.example") as hub:
        assert parse(http_request(hub.port, request("GET /", host="box.example")))[0] == 200


def test_program_of_http_1_0_needs_no_host(hub: BroadcastHub) -> None:
    """No browser is one."""
    assert parse(http_request(hub.port, b"GET /healthz HTTP/1.0\r\n\r\n"))[0] == 200


# -- Proxies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "header", "address"),
    [
        ((), "X-Forwarded-For: 192.0.2.1", "127.0.0.1"),
        (("127.0.0.2",), "X-Forwarded-For: 192.0.2.1", "127.0.0.1"),
        (("127.0.0.0/8",), "X-Forwarded-For: 192.0.2.1", "192.0.2.1"),
        (("127.0.0.1", "::1"), "X-Forwarded-For: 198.51.100.7, 192.0.2.1", "192.0.2.1"),
        (("127.0.0.1",), "Forwarded: for=192.0.2.1;proto=https", "192.0.2.1"),
        (("127.0.0.1",), 'Forwarded: for="[2001:db8::1]:4711"', "[2001:db8::1]:4711"),
        (("127.0.0.1", "192.0.2.0/24"), "X-Forwarded-For: 203.0.113.5, 192.0.2.1", "203.0.113.5"),
        ((), "X-Forwarded-For: garbage", "127.0.0.1"),
    ],
)
def test_address_of_a_member(
    trusted: tuple[str, ...], header: str, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The client that a listed proxy names, in callbacks, lists and logs; else the peer."""
    joined: list[Member] = []
    published: list[Message] = []
    with (
        caplog.at_level(logging.INFO),
        running_hub(trust_proxy=trusted, on_join=joined.append, on_message=published.append) as hub,
        RawClient.connect(port=hub.port, headers=[header]) as client,
    ):
        (member,) = hub.members()
        http_request(hub.port, request("POST /", header, body=b"x"))
        assert client.recv_message() == "x"
        assert wait_until(lambda: len(published) == 1 and len(joined) == 1)
        sender = published[0].sender
        assert sender is not None
        for found in (member, joined[0], sender):
            seen = found.address if ":4711" in address else re.sub(r":\d+$", "", found.address)
            assert seen == address
        assert f"joined / from {address}" in caplog.text


def test_each_request_of_a_connection_has_its_own_client() -> None:
    """A proxy keeps connections open and sends requests of many through each."""
    senders: list[str] = []

    def note(message: Message) -> None:
        assert message.sender is not None
        senders.append(message.sender.address)

    with (
        running_hub(trust_proxy=["127.0.0.1"], on_message=note) as hub,
        RawClient.open(port=hub.port) as proxy,
    ):
        for header in ("X-Forwarded-For: 192.0.2.1\r\n", "X-Forwarded-For: 192.0.2.2\r\n", ""):
            raw = f"POST / HTTP/1.1\r\nHost: x\r\n{header}Content-Length: 1\r\n\r\nx"
            proxy.sock.sendall(raw.encode())
            while b"}\n" not in proxy.buffer:
                proxy.fill()
            assert proxy.buffer.startswith(b"HTTP/1.1 200 ")
            proxy.buffer = b""
    assert senders[:2] == ["192.0.2.1", "192.0.2.2"]
    assert senders[2].startswith("127.0.0.1:")


@pytest.mark.parametrize(
    "headers",
    [
        ["X-Forwarded-For: garbage"],
        ["X-Forwarded-For: 192.0.2.1, 10.0.0.256"],
        ['Forwarded: for="'],
        ["X-Forwarded-For: 192.0.2.1", "Forwarded: for=198.51.100.7"],
    ],
)
def test_nonsense_of_a_listed_proxy_is_told(
    headers: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """400 to whoever asks, a warning to who runs the hub."""
    with caplog.at_level(logging.WARNING), running_hub(trust_proxy=["127.0.0.1"]) as hub:
        status, _, body = parse(http_request(hub.port, request("POST /", *headers, body=b"x")))
        assert status == 400 and "bad header: " in json.loads(body)["detail"]
        assert hub.stats()["messages"] == 0
    assert "the proxy 127.0.0.1:" in caplog.text and "cannot be believed" in caplog.text


def test_page_behind_a_proxy_that_speaks_tls_is_the_hubs_own() -> None:
    """The browser's Origin has https, and the proxy hands the Host on."""
    with running_hub(trust_proxy=["127.0.0.1"], allow_host=["hub.example"]) as hub:
        for host, origin, status in (
            ("hub.example", "https://hub.example", 101),
            ("hub.example:8443", "https://hub.example:8443", 101),
            ("hub.example", "https://hub.example:8443", 403),
            ("hub.example", "https://evil.example", 403),
        ):
            with RawClient.open(port=hub.port) as client:
                proxied = [f"Origin: {origin}", "X-Forwarded-For: 192.0.2.1"]
                client.sock.sendall(upgrade_request("/", proxied, host=host))
                while b"\r\n\r\n" not in client.buffer:
                    client.fill()
                assert client.buffer.startswith(b"HTTP/1.1 %d " % status)


def test_log_tells_what_came_and_what_would_let_it_in(caplog: pytest.LogCaptureFixture) -> None:
    """In one line that nothing of the request can forge, and without its query."""
    caplog.set_level(logging.INFO)
    raw = upgrade_request(
        "/r?access_token=secret", ["Origin: https://\xe9vil\t.example"], host="127.0.0.1:1"
    )
    with running_hub() as hub:
        status, _, body = parse(http_request(hub.port, raw, eof=True))
    assert status == 403 and "--allow-origin" in json.loads(body)["detail"]
    (line,) = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    for part in ("vil\\t.example", "Host: 127.0.0.1:1", "GET /r;", "--allow-origin"):
        assert part in line, line
    assert "secret" not in line
