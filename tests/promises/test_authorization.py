"""Access control on a real hub: what gets in by which way, what it may do there, and until when."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import logging
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server import (
    AccessRequest,
    BroadcastClient,
    BroadcastHub,
    ConnectFailed,
    Grant,
    PublishFailed,
    Refusal,
    SendRefused,
    UsageError,
    publish,
)
from broadcast_server.hub.http.keyring import LEEWAY_SECONDS

from ..support import (
    CLOSE,
    SAMPLE_KEY,
    HandshakeRefused,
    RawClient,
    needs_module,
    running_hub,
    wait_until,
)
from ..support.inside import core_of, server_of

jwt = needs_module("jwt")

SECRET = "0123456789abcdef0123456789abcdef"
SUBPROTOCOL = "Sec-WebSocket-Protocol: broadcast.v1.json"
EVENTS = {"Accept": "text/event-stream"}
JSON = {"Accept": "application/json"}


def sign(sub: str | None = "ann", seconds: float = 600, **rights: list[str]) -> str:
    """Return a JSON Web Token."""
    claims: dict[str, Any] = {"exp": time.time() + seconds, "broadcast": rights}
    if sub is not None:
        claims["sub"] = sub
    token: str = jwt.encode(claims, SECRET, "HS256")
    return token


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def as_protocol(token: str) -> str:
    encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
    return f"{SUBPROTOCOL}, broadcast.token.{encoded}"


class Answer:
    """One HTTP answer; of a stream only its head."""

    def __init__(self, hub: BroadcastHub, method: str, path: str, **more: Any) -> None:
        headers = more.pop("headers", {})
        connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers, **more)
            response = connection.getresponse()
            self.status = response.status
            self.headers = response.headers
            is_stream = response.headers["Content-Type"] == "text/event-stream"
            self.body = b"" if is_stream else response.read()
            response.close()

    def json(self) -> Any:
        return json.loads(self.body)


def upgrade(hub: BroadcastHub, path: str, *headers: str) -> int:
    """Return the status with which an upgrade is answered."""
    try:
        RawClient.connect(port=hub.port, path=path, headers=headers).close()
    except HandshakeRefused as refused:
        return refused.status
    return 101


class Events:
    """A member that speaks ``broadcast.v1.json``."""

    def __init__(self, hub: BroadcastHub, path: str, *headers: str) -> None:
        self.raw = RawClient.connect(port=hub.port, path=path, headers=(SUBPROTOCOL, *headers))
        self.welcome = self.read()
        assert self.welcome["type"] == "welcome"

    def read(self) -> Any:
        return json.loads(self.raw.recv_message())

    def say(self, **event: Any) -> None:
        self.raw.send(json.dumps(event))

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()


# -- Nobody without a token --------------------------------------------------------------------

NEEDLE = "only-for-members"
# With every status that one of the requests below gets.
METHODS = {
    "GET": {200, 400, 401, 404, 406},
    "HEAD": {200, 400, 401, 404, 406},
    "POST": {400, 401, 404, 405},
    "PUT": {400, 401, 404, 405},
    "OPTIONS": {204, 400, 404},
    "BREW": {400, 404, 405},
}
PATHS = (
    "/r", "/r?history=100", "/r?since=0-1", "/r?format=json", "/r?view=board", "/r?access_token=",
    "/r?session=x", "/%72", "//r", "/r/", "/", "/-/rooms", "/-/rooms?room=/r", "/-/rooms?room=/",
    "/metrics", "/healthz", "/-/static/app.css", "/-/static/../rooms", "/-/", "/-",
    "/favicon.ico", "http://127.0.0.1/r?history=100",
)  # fmt: skip
ACCEPTS = (None, "application/json", "text/event-stream", "text/html", "image/png")
UPGRADES: tuple[dict[str, str], ...] = (
    {},
    {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": SAMPLE_KEY,
        "Sec-WebSocket-Version": "13",
    },
    {"Upgrade": "h2c", "Connection": "Upgrade"},
)
SHOWN: tuple[dict[str, str], ...] = (
    {},
    {"Authorization": "Bearer wrong"},
    {"Authorization": "Basic dDp0"},
)


@pytest.mark.parametrize(
    "settings", [{"token": "right"}, {"jwt_key": SECRET}], ids=["token", "jwt"]
)
@pytest.mark.parametrize("method", METHODS)
def test_no_request_without_a_token_gets_anything_of_a_room(
    method: str, settings: dict[str, str]
) -> None:
    """All paths, forms and upgrades, with no token and with a wrong one: no message, no
    member, nothing published, nobody joined; and who is refused is told 401."""
    published = set()
    with running_hub(**settings, on_message=lambda message: published.add(message.data)) as hub:
        hub.broadcast(NEEDLE, "/r")
        token = settings.get("token") or sign("needle-member", subscribe=["*"])
        show = f"Authorization: Bearer {token}"
        with Events(hub, "/r?name=needle-member", show):
            connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=10)
            statuses = set()
            for path, accept, up, shown in itertools.product(PATHS, ACCEPTS, UPGRADES, SHOWN):
                headers = {**up, **shown, **({"Accept": accept} if accept else {})}
                body = b"intruder" if method in ("POST", "PUT") and not up else None
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                case = (method, path, headers)
                assert response.status not in (101, 500), case
                content = response.read()
                assert NEEDLE.encode() not in content and b"needle-member" not in content, case
                kind = response.headers.get_content_type()
                assert kind != "text/event-stream", case
                if response.status == 401:
                    assert response.headers["WWW-Authenticate"].startswith("Bearer"), case
                elif response.status == 200 and method == "GET":
                    assert kind in ("text/html", "text/css", "text/plain"), case
                statuses.add(response.status)
            connection.close()
            assert statuses == METHODS[method]
            assert [member.name for member in hub.members("/r")] == ["needle-member"]
    assert published == set()


def test_page_assets_and_health_need_no_token() -> None:
    """The page has to load before it can ask for one."""
    with running_hub(token="right") as hub:
        page = Answer(hub, "GET", "/r", headers={"Accept": "text/html"})
        assert page.status == 200 and b"<!doctype html>" in page.body
        assert Answer(hub, "GET", "/-/static/room.js").status == 200
        assert Answer(hub, "GET", "/healthz").body == b"ok\n"


# -- Ways to show a token ----------------------------------------------------------------------


def test_token_may_be_shown_in_three_ways() -> None:
    """By header, query and subprotocol; the last is for browsers and is never the chosen one."""
    with running_hub(token="right~1?") as hub:
        assert upgrade(hub, "/r") == 401
        assert upgrade(hub, "/r", "Authorization: Bearer right~1?") == 101
        assert upgrade(hub, "/r?access_token=right~1%3F") == 101
        assert upgrade(hub, "/r?access_token=wrong", "Authorization: Bearer right~1?") == 400
        with RawClient.connect(
            port=hub.port, path="/r", headers=[as_protocol("right~1?")]
        ) as client:
            assert client.header("Sec-WebSocket-Protocol") == "broadcast.v1.json"
        assert upgrade(hub, "/r", as_protocol("wrong")) == 401
        for headers in (EVENTS, JSON):
            assert Answer(hub, "GET", "/r?access_token=right~1%3F", headers=headers).status == 200
        assert Answer(hub, "HEAD", "/r", headers=EVENTS).status == 401
        assert Answer(hub, "HEAD", "/r", headers=EVENTS | bearer("right~1?")).status == 200


def test_refusal_is_a_problem_with_a_challenge() -> None:
    """RFC 6750 §3 and RFC 9457: what is missing, in a header and in words."""
    with running_hub(jwt_key=SECRET) as hub:
        found = Answer(hub, "GET", "/r", headers=JSON)
        assert found.headers["WWW-Authenticate"] == "Bearer"
        assert found.headers["Content-Type"] == "application/problem+json"
        assert found.json()["detail"] == "a token is needed here"
        found = Answer(hub, "GET", "/r", headers=JSON | bearer(sign(seconds=-3600)))
        assert found.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert found.json()["detail"] == "the token has expired"
        found = Answer(hub, "GET", "/r", headers=JSON | bearer(sign(subscribe=["/s"])))
        assert found.status == 403
        assert found.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'
        assert core_of(hub).refused["token"] == 3


def test_page_of_an_allowed_origin_may_show_a_token() -> None:
    """The preflight names Authorization and needs no token; the refusal may be read, too."""
    page = {"Origin": "https://page.example"}
    with running_hub(token="right", allow_origin=["https://page.example"]) as hub:
        found = Answer(
            hub,
            "OPTIONS",
            "/r",
            headers={
                **page,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization",
            },
        )
        assert found.status == 204
        assert "Authorization" in found.headers["Access-Control-Allow-Headers"].split(", ")
        for more, status in (({}, 401), (bearer("right"), 200)):
            found = Answer(hub, "POST", "/r", body=b"x", headers={**page, **more})
            assert found.status == status
            assert found.headers["Access-Control-Allow-Origin"] == "https://page.example"
        # A right token does not make up for a foreign page.
        foreign = {"Origin": "https://evil.example"}
        assert Answer(hub, "POST", "/r", body=b"x", headers=foreign | bearer("right")).status == 403


# -- Shared secrets ----------------------------------------------------------------------------


def test_with_a_publish_token_everybody_reads_and_its_holders_write() -> None:
    """The scoreboard: many readers, few writers; a plain reader that writes is sent away."""
    with running_hub(publish_token="writer") as hub:
        with RawClient.connect(port=hub.port, path="/s") as reader, Events(hub, "/s") as page:
            assert page.welcome["rights"] == {"publish": False, "rename": True}
            assert Answer(hub, "POST", "/s", body=b"x").status == 401
            assert Answer(hub, "POST", "/s", body=b"x", headers=bearer("no")).status == 401
            assert Answer(hub, "POST", "/s", body=b"1:0", headers=bearer("writer")).status == 200
            assert reader.recv_message() == "1:0"
            assert page.read()["type"] == "message"
            page.say(type="send", data="x", ref=1)
            error = page.read()
            assert (error["type"], error["code"], error["ref"]) == ("error", "not_allowed", 1)
            page.say(type="name", name="fan")
            assert page.read()["type"] == "rename"
            reader.send("x")
            assert reader.recv_close() == (1008, "you may not write to this room")
        with RawClient.connect(
            port=hub.port, path="/s?echo=1", headers=["Authorization: Bearer writer"]
        ) as writer:
            writer.send("2:0")
            assert writer.recv_message() == "2:0"
        assert [message.data for message in hub.history("/s")] == ["1:0", "2:0"]
        # Names in all rooms at once are more than reading one.
        for path in ("/-/rooms", "/metrics"):
            assert Answer(hub, "GET", path).status == 401
        assert Answer(hub, "GET", "/-/rooms?room=/s").status == 200


def test_with_both_tokens_one_reads_and_the_other_writes() -> None:
    """And nobody without either does anything."""
    with running_hub(token="reader", publish_token="writer") as hub:
        assert upgrade(hub, "/s") == 401
        assert Answer(hub, "POST", "/s", body=b"x", headers=bearer("reader")).status == 403
        assert Answer(hub, "POST", "/s", body=b"x", headers=bearer("writer")).status == 200
        for token in ("reader", "writer"):
            assert Answer(hub, "GET", "/s", headers=JSON | bearer(token)).status == 200
            assert Answer(hub, "GET", "/-/rooms", headers=bearer(token)).status == 200


def test_files_are_read_anew_on_reload(tmp_path: pathlib.Path) -> None:
    """Who is there stays; who comes with what is gone does not get in."""
    path = tmp_path / "tokens"
    path.write_text("old")
    path.chmod(0o600)
    with running_hub(token_file=path) as hub:
        with RawClient.connect(port=hub.port, path="/r?access_token=old") as client:
            path.write_text("new")
            (reload,) = core_of(hub).reloads
            reload()
            assert upgrade(hub, "/r?access_token=old") == 401
            assert upgrade(hub, "/r?access_token=new") == 101
            client.sync()


# -- JSON Web Tokens ---------------------------------------------------------------------------


@pytest.fixture
def guarded() -> Iterator[BroadcastHub]:
    """A hub with per-user tokens."""
    with running_hub(jwt_key=SECRET) as hub:
        yield hub


def test_rights_of_a_token_apply_to_every_way_in(guarded: BroadcastHub) -> None:
    """Reading and writing apart, room by room."""
    reader = bearer(sign(subscribe=["/r"]))
    writer = bearer(sign(publish=["/r"]))
    line = "Authorization: " + reader["Authorization"]
    for room, status in (("/r", 200), ("/q", 403)):
        assert upgrade(guarded, room, line) == (101 if status == 200 else 403)
        for form in (EVENTS, JSON):
            assert Answer(guarded, "GET", room, headers=form | reader).status == status
            assert Answer(guarded, "GET", room, headers=form | writer).status == 403
        for method in ("POST", "PUT"):
            assert Answer(guarded, method, room, body=b"x", headers=writer).status == status
            assert Answer(guarded, method, room, body=b"x", headers=reader).status == 403
        found = Answer(guarded, "GET", f"/-/rooms?room={room}", headers=reader)
        assert found.status == status


def test_list_of_rooms_has_only_what_may_be_read(guarded: BroadcastHub) -> None:
    """Of any holder of a valid token; others' rooms are not even named."""
    everything = sign("root", subscribe=["*"])
    with contextlib.ExitStack() as stack:
        for room in ("/team/red", "/team/blue", "/board"):
            stack.enter_context(
                RawClient.connect(port=guarded.port, path=f"{room}?access_token={everything}")
            )
        for rights, rooms in (
            (["/team/*"], ["/team/blue", "/team/red"]),
            (["/board"], ["/board"]),
            ([], []),
            (["*"], ["/board", "/team/blue", "/team/red"]),
        ):
            found = Answer(guarded, "GET", "/-/rooms", headers=bearer(sign(subscribe=rights)))
            assert [entry["room"] for entry in found.json()["rooms"]] == rooms


def test_name_is_that_of_the_token(guarded: BroadcastHub) -> None:
    """Whatever is asked for, on every way in; and it cannot be changed."""
    token = sign("ann", subscribe=["/r"], publish=["/r"])
    show = f"Authorization: Bearer {token}"
    with Events(guarded, "/r?name=bob", show) as ann:
        assert ann.welcome["name"] == "ann"
        assert ann.welcome["rights"] == {"publish": True, "rename": False}
        ann.say(type="name", name="bob", ref=1)
        assert ann.read()["code"] == "not_allowed"
        headers = bearer(token) | {"Broadcast-Name": "bob"}
        assert Answer(guarded, "POST", "/r?name=bob", body=b"x", headers=headers).status == 200
        assert ann.read()["from"] == {"id": None, "name": "ann"}
        with RawClient.connect(port=guarded.port, path="/r?name=bob", headers=[show]):
            assert ann.read()["member"]["name"] == "ann"
        assert guarded.members("/r")[0].name == "ann"


def test_token_without_a_name_leaves_it_to_the_client(guarded: BroadcastHub) -> None:
    """Such as that of a board in a hall."""
    show = f"Authorization: Bearer {sign(None, subscribe=['/r'])}"
    with Events(guarded, "/r?name=board", show) as board:
        assert board.welcome["name"] == "board"
        assert board.welcome["rights"] == {"publish": False, "rename": True}


def test_session_is_of_its_user_only(guarded: BroadcastHub) -> None:
    """Who has stolen the secret of a session, but not the token, is another client."""
    ann = f"Authorization: Bearer {sign('ann', subscribe=['/r'])}"
    bob = f"Authorization: Bearer {sign('bob', subscribe=['/r'])}"
    nobody = f"Authorization: Bearer {sign(None, subscribe=['/r'])}"
    other = f"Authorization: Bearer {sign('ann', subscribe=['/q'])}"
    with Events(guarded, "/r", ann) as first:
        path = f"/r?session={first.welcome['session']}"
        assert upgrade(guarded, path) == 401
        assert upgrade(guarded, path, other) == 403
        for show in (bob, nobody):
            with Events(guarded, path, show) as thief:
                assert thief.welcome["id"] != first.welcome["id"]
                assert thief.welcome["session"] != first.welcome["session"]
        first.raw.sock.sendall(b"")
        with Events(guarded, path, ann) as again:
            assert again.welcome["id"] == first.welcome["id"]


def test_expired_token_gets_nobody_in(guarded: BroadcastHub) -> None:
    """Neither to read nor to write."""
    token = sign(seconds=-LEEWAY_SECONDS - 1, subscribe=["*"], publish=["*"])
    assert upgrade(guarded, "/r", f"Authorization: Bearer {token}") == 401
    assert Answer(guarded, "POST", "/r", body=b"x", headers=bearer(token)).status == 401
    assert Answer(guarded, "GET", "/r", headers=EVENTS | bearer(token)).status == 401


def test_connection_ends_when_its_signed_token_does(guarded: BroadcastHub) -> None:
    """At exp and the leeway: 1008, whatever was going on; nobody is left in the list."""
    while True:  # however slow this machine is, some token lives long enough to join
        token = sign(seconds=2 - LEEWAY_SECONDS, subscribe=["/r"], publish=["/r"])
        with contextlib.suppress(HandshakeRefused):
            client = RawClient.connect(
                port=guarded.port, path="/r", headers=[f"Authorization: Bearer {token}"]
            )
            break
    with client:
        assert client.recv_close() == (1008, "token expired")
        assert wait_until(lambda: guarded.members("/r") == [])
    assert Answer(guarded, "POST", "/r", body=b"x", headers=bearer(token)).status == 401


# -- The program decides -----------------------------------------------------------------------


def grant_for(seconds: float) -> Any:
    """Return an authorize whose grants end soon after they were given."""
    return lambda request: Grant(expires=time.time() + seconds)


def frames_of(client: RawClient) -> list[tuple[bool, int, bytes]]:
    """Return all frames up to the end of the stream."""
    frames = []
    while True:
        try:
            frames.append(client.recv_frame())
        except EOFError:
            return frames


@pytest.mark.parametrize("subprotocol", [True, False])
def test_connection_ends_when_its_grant_does(subprotocol: bool) -> None:
    """1008 by a timer, with the heartbeat far away; the members hear of it."""
    ended = []
    settings: dict[str, Any] = {"ping_interval": 1000}
    with running_hub(
        authorize=lambda request: Grant(
            expires=time.time() + 0.3 if request.token == "short" else None
        ),
        on_leave=lambda member, code, reason: ended.append((member.name, code, reason)),
        **settings,
    ) as hub:
        with Events(hub, "/r?name=stays") as stays:
            path = "/r?name=goes&access_token=short"
            headers = [SUBPROTOCOL] if subprotocol else []
            with RawClient.connect(port=hub.port, path=path, headers=headers) as goes:
                *before, (_, opcode, payload) = frames_of(goes)
                assert (opcode, payload) == (CLOSE, b"\x03\xf0token expired")
                # A machine that is very slow has no time for the welcome.
                assert len(before) <= subprotocol
            assert [stays.read()["type"] for _ in range(2)] == ["join", "leave"]
            assert wait_until(lambda: ended == [("goes", 1008, "token expired")])
            stays.say(type="who", ref=1)
            assert stays.read()["count"] == 1


def test_stream_ends_when_its_grant_does() -> None:
    """The stream just ends; a browser that comes back is refused and stays away."""
    with running_hub(authorize=grant_for(0.3), ping_interval=1000) as hub:
        with RawClient.open(port=hub.port) as raw:
            raw.sock.sendall(b"GET /r HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
            got = b""
            while piece := raw.sock.recv(4096):
                got += piece
            assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"\n\n")
        assert wait_until(lambda: hub.members("/r") == [])


def test_message_after_the_end_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the reader is faster than the timer."""
    from broadcast_server.hub.delivery.liveness import Liveness

    monkeypatch.setattr(Liveness, "check", lambda self, connection, now: None)
    with running_hub(authorize=grant_for(0.2)) as hub:
        with RawClient.connect(port=hub.port, path="/r") as client:
            (connection,) = server_of(hub).connections()
            assert wait_until(lambda: time.monotonic() >= connection.expires)
            client.send("late")
            assert client.recv_close() == (1008, "token expired")
        assert hub.history("/r") == []


def test_authorize_is_asked_before_anything_happens() -> None:
    """Once for each request that needs a right, with what it needs to know, without a lock."""
    asked: list[AccessRequest] = []

    def authorize(request: AccessRequest) -> Grant:
        hub.members("/r")  # every method may be called in here
        asked.append(request)
        return Grant(name="ann")

    with running_hub(authorize=authorize) as hub:
        headers = JSON | {"Cookie": "id=7"} | bearer("t")
        assert Answer(hub, "GET", "/r", headers=headers).status == 200
        assert upgrade(hub, "/r?access_token=q") == 101
        assert Answer(hub, "POST", "/s", body=b"x").status == 200
        assert Answer(hub, "GET", "/-/rooms").status == 200
        assert Answer(hub, "GET", "/r", headers={"Accept": "text/html"}).status == 200
    seen = [(request.action, request.room, request.token) for request in asked]
    assert seen == [
        ("subscribe", "/r", "t"),
        ("subscribe", "/r", "q"),
        ("publish", "/s", None),
        ("look", None, None),
    ]
    assert ("cookie", "id=7") in asked[0].headers
    assert asked[0].address.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Grant(), 200),
        (Grant(subscribe=("/other",)), 403),
        (Grant(expires=1.0), 401),
        (None, 401),
        (Refusal(403, "not on Sundays"), 403),
        (Refusal(429, "later", (("Retry-After", "5"),)), 429),
        (Refusal(200, "come in"), 500),
        (Refusal(42, "x"), 500),
        (True, 500),
        ("ann", 500),
    ],
)
def test_answer_of_authorize_is_carried_out(answer: Any, status: int) -> None:
    """What is no answer refuses."""
    with running_hub(authorize=lambda request: answer) as hub:
        found = Answer(hub, "GET", "/r", headers=JSON)
        assert found.status == status
        if isinstance(answer, Refusal) and status != 500:
            assert found.json()["detail"] == answer.text
        assert upgrade(hub, "/r") == (101 if status == 200 else status)


def test_authorize_that_fails_refuses_and_its_secrets_stay_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The text of a KeyError is the key: of what was raised only the kind and place are told."""
    users: dict[str | None, Grant] = {}
    with running_hub(authorize=lambda request: users[request.token]) as hub:
        assert upgrade(hub, "/r?access_token=s3cret") == 500
        assert Answer(hub, "POST", "/r", body=b"x", headers=bearer("s3cret")).status == 500
        assert hub.history("/r") == []
    told = [message for message in caplog.messages if message.startswith("authorize failed: ")]
    assert len(told) == 2 and "KeyError at " in told[0] and "test_authorization.py:" in told[0]
    assert "s3cret" not in caplog.text


def test_authorize_takes_the_place_of_tokens() -> None:
    """Two who decide would be one too many."""
    with pytest.raises(UsageError, match="give authorize, or tokens and keys, not both"):
        BroadcastHub(authorize=lambda request: Grant(), token="t")


# -- Nothing is told -----------------------------------------------------------------------


def test_no_log_line_has_a_token(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, whatever is shown where, right or wrong, refused or failed."""
    caplog.set_level(logging.DEBUG)
    right, wrong = "s3cret-right", "s3cret-wrong"
    signed = sign(subscribe=["/r"], publish=["/r"])
    with running_hub(token=right, jwt_key=SECRET) as hub:
        for token in (right, wrong, signed, signed + "x"):
            is_right = token in (right, signed)
            upgrade(hub, "/r", f"Authorization: Bearer {token}")
            upgrade(hub, f"/r?access_token={token}")
            upgrade(hub, f"/r?access_token={token}&since=x")
            upgrade(hub, f"/r/%zz?access_token={token}")
            upgrade(hub, f"/q?access_token={token}&access_token={token}", "Authorization: Bearer x")
            upgrade(hub, "/r", as_protocol(token))
            upgrade(hub, "/r", f"{SUBPROTOCOL}, broadcast.token.{token}")
            for method, headers in (("POST", {}), ("GET", EVENTS), ("GET", JSON)):
                Answer(hub, method, "/r", headers=headers | bearer(token))
                Answer(hub, method, f"/r?access_token={token}", headers=headers)
            with RawClient.open(port=hub.port) as raw:
                raw.sock.sendall(f"GET /r?access_token={token} HTTP/9\r\n\r\n".encode())
                assert raw.sock.recv(4096).startswith(b"HTTP/1.1 400 ")
            url = f"ws://127.0.0.1:{hub.port}/r"
            for address, shown in ((url, token), (f"{url}?access_token={token}", None)):
                with contextlib.nullcontext() if is_right else pytest.raises(ConnectFailed):
                    with BroadcastClient(address, token=shown, history=1) as client:
                        assert token not in client.url
                        client.publish("x")
                        hub.disconnect(client.id or "", 1013, "come back")
                        client.publish("y")
                with contextlib.nullcontext() if is_right else pytest.raises(PublishFailed):
                    publish(address, "x", token=shown)
    assert "joined /r" in caplog.text and "refused: " in caplog.text
    shown_as = {right, wrong, signed, signed.rpartition(".")[2], SECRET}
    shown_as |= {base64.urlsafe_b64encode(token.encode()).decode()[:12] for token in shown_as}
    for record in caplog.records:
        line = logging.Formatter().format(record)
        assert not [token for token in shown_as if token in line], line


# -- Clients -----------------------------------------------------------------------------------


def test_client_shows_its_token_and_comes_back_with_it() -> None:
    """Also after a lost connection; what it may not write is a refusal."""
    with running_hub(token="reader", publish_token="writer") as hub:
        url = hub.url + "r"
        with BroadcastClient(url, token="writer") as writer:
            writer.publish("one")
            assert writer.id is not None
            assert hub.disconnect(writer.id, 1012, "restart")
            writer.publish("two")
        with BroadcastClient(url, token="reader", since=None, history=5) as reader:
            assert [reader.recv(timeout=10).data for _ in range(2)] == ["one", "two"]
            with pytest.raises(SendRefused) as caught:
                reader.publish("three")
            assert caught.value.code == "not_allowed"
        assert publish(url, "four", token="writer")
        with pytest.raises(PublishFailed) as failed:
            publish(url, "five", token="reader")
        assert failed.value.status == 403


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [
        (None, 401, "HTTP status 401 (a token is needed here)"),
        ("wrong", 401, "HTTP status 401 (the token is not valid)"),
        (sign(subscribe=["/q"]), 403, "HTTP status 403 (you may not read this room)"),
    ],
)
def test_client_that_is_refused_says_why(
    guarded: BroadcastHub, token: str | None, status: int, words: str
) -> None:
    """In the hub's own words; and it does not try again."""
    with pytest.raises(ConnectFailed) as caught:
        BroadcastClient(guarded.url + "r", token=token).connect()
    assert caught.value.status == status
    assert str(caught.value).endswith(words)


def test_client_whose_token_has_ended_does_not_come_back() -> None:
    """1008 is for good, and so is a refusal after a lost connection."""
    tokens = {"short": 2.0, "long": None}

    def authorize(request: AccessRequest) -> Grant | None:
        if request.token not in tokens:
            return None
        seconds = tokens[request.token]
        return Grant(expires=None if seconds is None else time.time() + seconds)

    with running_hub(authorize=authorize) as hub:
        with BroadcastClient(hub.url, token="short") as client:
            assert wait_until(lambda: client.closed)
            assert (client.close_code, client.close_reason) == (1008, "token expired")
        with BroadcastClient(hub.url, token="long", max_reconnect_delay=0.1) as client:
            del tokens["long"]
            assert client.id is not None and hub.disconnect(client.id, 1013, "come back")
            assert wait_until(lambda: client.closed)
            assert "401" in client.close_reason


def test_token_is_not_shown_to_where_a_redirect_leads() -> None:
    """It is for the hub that was named."""
    seen: list[AccessRequest] = []

    def note(request: AccessRequest) -> Grant:
        seen.append(request)
        return Grant()

    with running_hub(authorize=note) as other:
        elsewhere = Refusal(302, "elsewhere", (("Location", other.url),))
        with running_hub(authorize=lambda request: elsewhere) as hub:
            with pytest.raises(ConnectFailed, match="HTTP status 302"):
                BroadcastClient(hub.url, token="s3cret").connect()
            with pytest.raises(PublishFailed):
                publish(hub.url, "x", token="s3cret")
    assert seen == []


def test_token_and_header_are_one_too_many() -> None:
    """And what cannot be a token is said without repeating it."""
    with pytest.raises(UsageError, match="not both"):
        BroadcastClient("ws://127.0.0.1:1/", token="t", headers={"authorization": "Bearer x"})
    with pytest.raises(UsageError, match="token must be visible ASCII"):
        BroadcastClient("ws://127.0.0.1:1/", token="a\r\nb")


# -- The start ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "settings", "warned"),
    [
        ("127.0.0.1", {}, False),
        ("0.0.0.0", {}, True),
        ("0.0.0.0", {"token": "t"}, False),
        ("0.0.0.0", {"publish_token": "t"}, False),
        ("0.0.0.0", {"authorize": lambda request: None}, False),
        ("localhost", {}, False),
        ("::", {}, True),
        ("::1", {}, False),
    ],
)
def test_open_hub_on_a_network_is_warned_of(
    host: str, settings: dict[str, Any], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """One line that says what is open."""
    with running_hub(host=host, **settings) as hub:
        expected = [
            f"no access control: anyone who can reach {hub.url} may read and write every room"
        ]
    found = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert found == (expected if warned else [])


def test_hub_without_its_tokens_does_not_start(tmp_path: pathlib.Path) -> None:
    """And leaves nothing behind: it may be started when the file is there."""
    from broadcast_server import AccessError

    path = tmp_path / "tokens"
    hub = BroadcastHub(port=0, token_file=path)
    with pytest.raises(AccessError, match="No such file"):
        hub.start()
    path.write_text("t")
    path.chmod(0o600)
    with hub:
        assert upgrade(hub, "/r") == 401
