"""What all strangers of a hub share: whoever takes most of it loses first, and not the others.

Addresses other than this machine's come through a listed proxy, which the test is.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import jwt
import pytest

from broadcast_server import BroadcastClient, BroadcastHub, SendRefused
from broadcast_server.hub.backplane import keys

from ..support import RawClient, http_request, running_hub, wait_until
from ..support.inside import bytes_by_maker, fanout_of, sleeps
from ..support.json_peer import OFFER

HONEST = "198.51.100.7"
STRANGER = "203.0.113.5"
SECRET = "a secret of at least thirty-two bytes"
PROXIED = {"trust_proxy": ["127.0.0.1"]}


def post(
    hub: BroadcastHub, path: str, body: bytes, address: str, key: str | None = None, token: str = ""
) -> tuple[int, dict[str, Any]]:
    """Publish for somebody; return status and answer."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        f"Content-Length: {len(body)}",
        f"X-Forwarded-For: {address}",
        "Connection: close",
    ]
    if key is not None:
        lines.append(f"Idempotency-Key: {key}")
    if token:
        lines.append(f"Authorization: Bearer {token}")
    head, _, found = http_request(
        hub.port, "\r\n".join([*lines, "", ""]).encode() + body
    ).partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(found)


def bearer(name: str) -> str:
    """Return the token of somebody who may do everything."""
    rights = {"subscribe": ["*"], "publish": ["*"]}
    claims = {"sub": name, "exp": 1 << 40, "broadcast": rights}
    token: str = jwt.encode(claims, SECRET, "HS256")
    return token


def flood(hub: BroadcastHub, address: str, path: str, count: int, token: str = "") -> None:
    """Send so many messages with keys."""
    headers = [*OFFER, f"X-Forwarded-For: {address}"]
    if token:
        headers.append(f"Authorization: Bearer {token}")
    with RawClient.connect(port=hub.port, path=path, headers=headers) as client:
        assert json.loads(client.recv_message())["type"] == "welcome"
        for number in range(count):
            client.send(json.dumps({"type": "send", "data": "", "key": f"{number}"}))
        client.send(json.dumps({"type": "send", "data": "", "ref": 1}))
        assert json.loads(client.recv_message())["type"] == "ack"


# -- Keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["address", "sub", "sub of the same address", "one address"])
def test_key_is_known_whatever_a_stranger_sends(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand more keys than there may be push out the stranger's own; where both have one
    address and no name, those of the stranger's room."""
    monkeypatch.setattr(keys, "MAX_KEY_BYTES", 300 * keys.KEY_BYTES)
    settings = {**PROXIED, "jwt_key": SECRET} if "sub" in who else PROXIED
    tokens = [bearer("ann"), bearer("mallory")] if "sub" in who else ["", ""]
    address = HONEST if who in ("sub of the same address", "one address") else STRANGER
    with running_hub(**settings) as hub:
        status, first = post(hub, "/invoices", b"17 is paid", HONEST, "17", tokens[0])
        assert (status, first["duplicate"]) == (200, False)
        flood(hub, address, "/junk", 1300, tokens[1])
        status, again = post(hub, "/invoices", b"17 is paid", HONEST, "17", tokens[0])
        assert (status, again["duplicate"], again["id"]) == (200, True, first["id"])
        assert [message.data for message in hub.history("/invoices")] == ["17 is paid"]


def test_key_that_somebody_took_first_is_told() -> None:
    """Nobody is told that their message was delivered when it was not; and it is not."""
    with running_hub(**PROXIED) as hub:
        assert post(hub, "/invoices", b"", STRANGER, "18")[0] == 200
        status, answer = post(hub, "/invoices", b"18 is paid", HONEST, "18")
        assert status == 422 and answer["detail"].startswith("key_reused: ")
        assert [message.data for message in hub.history("/invoices")] == [""]
        # With a content that was guessed as well it was delivered, and is not delivered twice.
        assert post(hub, "/invoices", b"19 is paid", STRANGER, "19")[0] == 200
        assert post(hub, "/invoices", b"19 is paid", HONEST, "19")[1]["duplicate"]


def test_key_of_whom_a_token_names_is_theirs() -> None:
    """From any address; others with the same key are others."""
    with running_hub(**PROXIED, jwt_key=SECRET) as hub:
        ann, mallory = bearer("ann"), bearer("mallory")
        assert post(hub, "/invoices", b"", STRANGER, "18", mallory)[0] == 200
        status, first = post(hub, "/invoices", b"18 is paid", HONEST, "18", ann)
        assert (status, first["duplicate"]) == (200, False)
        status, again = post(hub, "/invoices", b"18 is paid", STRANGER, "18", ann)
        assert (status, again["duplicate"], again["id"]) == (200, True, first["id"])
        assert post(hub, "/invoices", b"no", HONEST, "18", ann)[0] == 422


def test_client_is_told_of_a_key_of_another_message(hub: BroadcastHub) -> None:
    """It goes on; what it sends again is no other message."""
    post(hub, "/r", b"17 is paid", HONEST, "18")
    with BroadcastClient(f"{hub.url}r") as client:
        with pytest.raises(SendRefused) as caught:
            client.publish("18 is paid", key="18")
        assert (caught.value.code, caught.value.data) == ("key_reused", "18 is paid")
        assert client.publish("19 is paid", key="19") == client.publish("19 is paid", key="19")
        with pytest.raises(SendRefused, match="key_reused"):
            client.publish("19 is not paid", key="19")
    assert [message.data for message in hub.history("/r")] == ["17 is paid", "19 is paid"]


# -- Rooms and their logs ----------------------------------------------------------------------


def kept(hub: BroadcastHub, paths: list[str]) -> list[str]:
    """Return which of these rooms have messages."""
    return [path for path in paths if hub.history(path)]


@pytest.mark.parametrize("present", [False, True], ids=["empty rooms", "somebody in each"])
@pytest.mark.parametrize("who", ["address", "sub"])
def test_stranger_who_fills_rooms_loses_only_its_own(who: str, present: bool) -> None:
    """Whoever's rooms hold most gives first, whether somebody is in them or not. The program's
    rooms and those of others keep their messages."""
    settings: dict[str, Any] = {
        **PROXIED,
        "max_message_bytes": 1000,
        "room_log_bytes": 20_000,
        "total_log_bytes": 100_000,
    }
    tokens = ["", ""]
    if who == "sub":
        settings["jwt_key"] = SECRET
        tokens = [bearer("ann"), bearer("mallory")]
    address = HONEST if who == "sub" else STRANGER
    with running_hub(**settings) as hub, contextlib.ExitStack() as stack:
        honest = [f"/honest-{number}" for number in range(5)]
        for path in honest:
            assert post(hub, path, bytes(900), HONEST, token=tokens[0])[0] == 200
        hub.broadcast(bytes(900), "/program")
        for number in range(20):
            path = f"/junk-{number}"
            headers = [f"X-Forwarded-For: {address}"]
            if who == "sub":
                headers.append(f"Authorization: Bearer {tokens[1]}")
            if present:
                member = RawClient.connect(port=hub.port, path=path, headers=headers)
                stack.enter_context(member)
            for _ in range(15):
                status, _ = post(hub, path, bytes(900), address, token=tokens[1])
                assert status == 200
        assert wait_until(lambda: 80_000 < hub.stats()["log_bytes"] <= 100_000)
        assert kept(hub, [*honest, "/program"]) == [*honest, "/program"]
        assert sleeps(fanout_of(hub))  # the last message is counted
        by_maker = bytes_by_maker(fanout_of(hub))
        assert sum(by_maker.values()) == hub.stats()["log_bytes"]
        assert len(by_maker) == 3 and max(by_maker.values()) > 80_000


@pytest.mark.parametrize("who", ["program", "publisher", "member"])
def test_room_that_a_stranger_has_looked_into_first_is_not_its_own(who: str) -> None:
    """Else it could make its own what others say, and let it go with the rest of its rooms."""
    settings = {"max_message_bytes": 1000, "room_log_bytes": 20_000, "total_log_bytes": 100_000}
    with running_hub(**PROXIED, **settings) as hub:
        headers = [f"X-Forwarded-For: {STRANGER}"]
        RawClient.connect(port=hub.port, path="/invoices", headers=headers).leave()
        if who == "program":
            hub.broadcast(bytes(900), "/invoices")
        elif who == "publisher":
            assert post(hub, "/invoices", bytes(900), HONEST)[0] == 200
        else:
            headers = [f"X-Forwarded-For: {HONEST}"]
            with RawClient.connect(port=hub.port, path="/invoices", headers=headers) as member:
                member.send(bytes(900))
                member.sync()
        assert wait_until(lambda: not hub.members("/invoices"))
        for number in range(10):
            for _ in range(15):
                assert post(hub, f"/junk-{number}", bytes(900), STRANGER)[0] == 200
        assert wait_until(lambda: 80_000 < hub.stats()["log_bytes"] <= 100_000)
        assert kept(hub, ["/invoices"]) == ["/invoices"]
        assert sleeps(fanout_of(hub))  # the last message is counted
        by_maker = bytes_by_maker(fanout_of(hub))
        assert sum(by_maker.values()) == hub.stats()["log_bytes"] and len(by_maker) == 2


def test_stranger_who_makes_all_rooms_loses_only_its_own() -> None:
    """Also below its own limit of rooms: where there is no place, whoever has most gives first."""
    with running_hub(**PROXIED, max_rooms=30) as hub:
        honest = [f"/honest-{number}" for number in range(5)]
        for path in honest:
            assert post(hub, path, b"x", HONEST)[0] == 200
        for number in range(100):
            assert post(hub, f"/junk-{number}", b"x", STRANGER)[0] == 200
        assert hub.stats()["rooms"] == 30
        assert kept(hub, honest) == honest
