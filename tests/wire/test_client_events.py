"""The JSON events as a client reads and writes them."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import pytest

from broadcast_server import Gap, Member, Message, Presence, ProtocolError, UsageError
from broadcast_server.wire import client_events
from broadcast_server.wire.client_events import Ack, EventReader, Trouble, Welcome

from ..support.inside import senders_in

UTC = datetime.timezone.utc
LIMIT = 100

WELCOME: dict[str, Any] = {
    "type": "welcome",
    "id": "c7",
    "session": "s",
    "name": "ann",
    "room": "/scores",
    "members": [{"id": "c3", "name": None}, {"id": "c7", "name": "ann"}],
    "count": 2,
    "newest": "5-0",
    "after": "4-0",
    "limits": {"max_message_bytes": 1048576},
}
MESSAGE: dict[str, Any] = {
    "type": "message",
    "id": "1795586400123-7",
    "time": "2026-11-25T06:00:00.123Z",
    "from": {"id": "c7", "name": "ann"},
    "data": "3:1",
}


def read(event: object, *, welcomed: bool = True) -> Any:
    """Read one event, behind a welcome or as the first one."""
    reader = EventReader(LIMIT)
    if welcomed:
        reader.read(json.dumps(WELCOME).encode())
    return reader.read(json.dumps(event).encode())


def test_welcome_has_all_that_a_session_needs() -> None:
    """Who we are, where, with whom, and from where on."""
    assert read(WELCOME, welcomed=False) == Welcome(
        "c7",
        "s",
        "ann",
        "/scores",
        (Member("c3", None, "/scores", ""), Member("c7", "ann", "/scores", "")),
        2,
        "5-0",
        "4-0",
    )


@pytest.mark.parametrize(
    ("changed", "sender"),
    [
        ({}, Member("c7", "ann", "/scores", "")),
        ({"from": None}, None),
        ({"from": {"id": None, "name": "curl"}}, Member("", "curl", "/scores", "")),
        ({"from": {"id": None, "name": None}}, Member("", None, "/scores", "")),
    ],
)
def test_message_tells_who_when_and_which(changed: dict[str, Any], sender: Member | None) -> None:
    """A member of the room, the hub's program, or who published over HTTP."""
    moment = datetime.datetime(2026, 11, 25, 6, 0, 0, 123000, UTC)
    expected = Message("3:1", "/scores", sender, moment, "1795586400123-7")
    assert read(MESSAGE | changed) == expected


def test_message_may_be_binary_and_without_an_id() -> None:
    """Base64 becomes bytes; what is for one client alone has no place in the order."""
    event = MESSAGE | {"id": None, "data_base64": base64.b64encode(b"\0\xff").decode()}
    del event["data"]
    message = read(event)
    assert (message.data, message.id) == (b"\0\xff", None)


def test_presence_and_gap() -> None:
    """Each kind with what it tells."""
    ann, anna = Member("c7", "ann", "/scores", ""), Member("c7", "anna", "/scores", "")
    of_ann, of_anna = {"id": "c7", "name": "ann"}, {"id": "c7", "name": "anna"}
    for event, expected in [
        ({"type": "join", "member": of_ann, "count": 3}, Presence("join", ann, 3, (), None)),
        ({"type": "leave", "member": of_ann, "count": 2}, Presence("leave", ann, 2, (), None)),
        (
            {"type": "rename", "member": of_anna, "old": "ann", "count": 2},
            Presence("rename", anna, 2, (), "ann"),
        ),
        ({"type": "count", "count": 1204}, Presence("count", None, 1204, (), None)),
        (
            {"type": "members", "members": [of_ann], "count": 1, "ref": 5},
            Presence("members", None, 1, (ann,), None),
        ),
        (
            {"type": "gap", "reason": "trimmed", "since": "1-0", "after": "9-3"},
            Gap("trimmed", "1-0", "9-3"),
        ),
        ({"type": "ack", "ref": 4, "id": "5-1", "duplicate": False}, Ack(4, "5-1", False)),
        (
            {"type": "error", "code": "too_big", "detail": "no", "ref": None},
            Trouble("too_big", "no", None),
        ),
    ]:
        assert read(event) == expected


def test_what_is_unknown_is_ignored() -> None:
    """A newer hub may say more: types, and members of events."""
    assert read({"type": "weather", "data": 1}) is None
    assert read(MESSAGE | {"mood": "good", "from": {"id": "c1", "name": None, "age": 3}}).data
    assert read({"type": "weather"}, welcomed=False) is None


@pytest.mark.parametrize(
    "raw",
    [b"", b"x", b"[]", b"1", b'"x"', b"null", b'{"type":"count"', b"[" * 100_000, b"1" * 10_000],
)
def test_what_is_no_json_object_is_1007(raw: bytes) -> None:
    """Also when it is too deep or too long a number to be read."""
    reader = EventReader(LIMIT)
    with pytest.raises(ProtocolError) as caught:
        reader.read(raw)
    assert caught.value.code == 1007


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": None},
        {"type": ["message"]},
        MESSAGE | {"data": 1},
        MESSAGE | {"data": None},
        MESSAGE | {"data_base64": "AA=="},
        MESSAGE | {"data": "\ud800"},
        MESSAGE | {"id": 5},
        MESSAGE | {"id": "x"},
        MESSAGE | {"time": "yesterday"},
        MESSAGE | {"time": 1},
        MESSAGE | {"time": "2026-11-25T06:00:00+01:00"},
        MESSAGE | {"from": "ann"},
        MESSAGE | {"from": {}},
        MESSAGE | {"from": {"id": [], "name": None}},
        MESSAGE | {"from": {"id": 1, "name": None}},
        {key: value for key, value in MESSAGE.items() if key != "from"},
        {key: value for key, value in MESSAGE.items() if key != "data"} | {"data_base64": "?"},
        {"type": "join", "member": None, "count": 1},
        {"type": "join", "member": {"id": "c1", "name": None}},
        {"type": "count", "count": "1"},
        {"type": "count", "count": True},
        {"type": "count", "count": -1},
        {"type": "members", "members": {}, "count": 1},
        {"type": "members", "members": [1], "count": 1},
        {"type": "ack", "ref": 1},
        {"type": "ack", "ref": [], "id": "1-0"},
        {"type": "gap", "reason": "trimmed", "since": "1-0", "after": "now"},
        {"type": "error", "code": 1, "detail": "x"},
        WELCOME,
    ],
)
def test_event_that_the_protocol_does_not_allow_is_1002(event: dict[str, Any]) -> None:
    """Missing or wrong members, and a second welcome."""
    with pytest.raises(ProtocolError) as caught:
        read(event)
    assert caught.value.code == 1002
    assert len(caught.value.reason.encode()) <= 123


@pytest.mark.parametrize("event", [MESSAGE, {"type": "count", "count": 1}, WELCOME | {"after": ""}])
def test_first_event_is_a_good_welcome(event: dict[str, Any]) -> None:
    """Nothing else may come before it."""
    with pytest.raises(ProtocolError) as caught:
        read(event, welcomed=False)
    assert caught.value.code == 1002


@pytest.mark.parametrize("data", ["x" * 101, "\u00fc" * 51, b"x" * 101])
def test_message_above_the_limit_is_1009(data: str | bytes) -> None:
    """The limit is on the message, in bytes, and not on its escapes."""
    event = {key: value for key, value in MESSAGE.items() if key != "data"}
    if isinstance(data, str):
        assert len(read(event | {"data": data[:50]}).data) == 50
        event["data"] = data
    else:
        event["data_base64"] = base64.b64encode(data).decode()
    with pytest.raises(ProtocolError) as caught:
        read(event)
    assert caught.value.code == 1009


@pytest.mark.parametrize("data", ["", "3:1", '"\\\n\0\u00fc\U0001f600', b"", b"\0\xff"])
def test_what_is_written_can_be_read(data: str | bytes) -> None:
    """Text as text, binary as base64, ref and key only where they are given."""
    bare = client_events.encode_send(data, None, None)
    full = client_events.encode_send(data, 4, 'k"')
    body = {"data": data} if isinstance(data, str) else {
        "data_base64": base64.b64encode(data).decode()
    }  # fmt: skip
    assert json.loads(bare) == {"type": "send", **body}
    assert json.loads(full) == {"type": "send", **body, "ref": 4, "key": 'k"'}
    assert client_events.data_of(bare) == client_events.data_of(full) == data


def test_text_that_utf_8_cannot_carry_is_refused() -> None:
    """No escape makes half a character a whole one."""
    with pytest.raises(UsageError, match=r"^data has a lone surrogate"):
        client_events.encode_send("\ud800", None, None)
    with pytest.raises(UsageError, match=r"^key has a lone surrogate"):
        client_events.encode_send("x", 1, "\ud800")


def test_name_and_who() -> None:
    """The two other things that a client may say."""
    event = {"type": "name", "name": "\u00fc", "ref": 7}
    assert json.loads(client_events.encode_name("\u00fc", 7)) == event
    assert json.loads(client_events.encode_name(None, 7)) == event | {"name": None}
    assert json.loads(client_events.encode_who(5)) == {"type": "who", "ref": 5}


def test_senders_are_kept_once_and_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sender is the same object; many different ones do not fill the memory."""
    monkeypatch.setattr(client_events, "MAX_SENDERS", 3)
    reader = EventReader(LIMIT)
    reader.read(json.dumps(WELCOME).encode())
    seen = []
    for number in (1, 1, 2, 3, 4, 5):
        event = MESSAGE | {"from": {"id": f"n{number}", "name": None}}
        message = reader.read(json.dumps(event).encode())
        assert isinstance(message, Message) and message.sender is not None
        seen.append(message.sender)
        assert len(senders_in(reader)) <= 3
    assert seen[0] is seen[1]
    assert [member.id for member in seen] == ["n1", "n1", "n2", "n3", "n4", "n5"]


@pytest.mark.parametrize(
    "event",
    [
        MESSAGE | {"from": {"id": "c7", "name": "n" * 65}},
        MESSAGE | {"from": {"id": "c7", "name": "\ud800"}},
        MESSAGE | {"from": {"id": "c" * 257, "name": None}},
        MESSAGE | {"from": {"id": "\ud800", "name": None}},
        {"type": "count", "count": 2**53 + 1},
        {"type": "gap", "reason": "r" * 257, "since": "1-0", "after": "2-0"},
        {"type": "gap", "reason": "", "since": "1" * 257, "after": "2-0"},
        {"type": "error", "code": "c" * 257, "detail": "", "ref": None},
        {"type": "error", "code": "", "detail": "\ud800", "ref": None},
        {"type": "ack", "id": "2-0", "ref": "r" * 257},
        {"type": "rename", "member": {"id": "c7", "name": "b"}, "old": "\ud800", "count": 1},
    ],
)
def test_what_is_kept_is_short(event: dict[str, Any]) -> None:
    """A hub fills no client with names, ids and reasons, and none that cannot go out again."""
    with pytest.raises(ProtocolError) as caught:
        read(event)
    assert caught.value.code == 1002


@pytest.mark.parametrize(
    "changed",
    [{"session": "s" * 257}, {"session": "\ud800"}, {"room": "/\ud800"}, {"room": "/" * 1025},
     {"name": "\ud800"}, {"id": "\ud800"}],
)  # fmt: skip
def test_welcome_whose_words_cannot_be_kept_is_1002(changed: dict[str, Any]) -> None:
    """With such a session or name the client could not come back: its request would be none."""
    with pytest.raises(ProtocolError) as caught:
        read(WELCOME | changed, welcomed=False)
    assert caught.value.code == 1002


def test_detail_of_an_error_is_cut() -> None:
    """It is a sentence, and a client keeps a hundred of them."""
    event = {"type": "error", "code": "bad_field", "detail": "d" * 5000, "ref": 3}
    assert read(event) == Trouble("bad_field", "d" * 1000, 3)


@pytest.mark.parametrize(
    "more",
    ['"x":[' + "[]," * 100_000 + "0]", '"x":' + "[" * 100_000, '"x":"' + "x" * 2_000_000 + '"',
     '"x":[' + '"",' * 40_000 + "0]"],
    ids=["lists", "nested", "long", "strings"],
)  # fmt: skip
def test_event_of_too_many_parts_is_1009_and_not_parsed(
    more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any type: as objects it would have thirty times its size."""
    reader = EventReader(LIMIT)
    reader.read(json.dumps(WELCOME).encode())
    parsed: list[bytes] = []
    monkeypatch.setattr(json, "loads", parsed.append)
    with pytest.raises(ProtocolError) as caught:
        reader.read(f'{{"type":"new",{more}}}'.encode())
    assert caught.value.code == 1009 and parsed == []


def test_longest_lawful_events_are_read() -> None:
    """A thousand members with the longest names, and a message of escapes only."""
    here = [{"id": f"c{number}", "name": "\U0001f600" * 64} for number in range(1000)]
    for escaped in (True, False):
        for indent in (None, 4):
            event = {"type": "members", "members": here, "count": 1000}
            reader = EventReader(LIMIT)
            reader.read(json.dumps(WELCOME).encode())
            text = json.dumps(event, ensure_ascii=escaped, indent=indent).encode()
            listed = reader.read(text)
            assert isinstance(listed, Presence) and len(listed.members) == 1000
    reader = EventReader(1 << 20)
    reader.read(json.dumps(WELCOME).encode())
    for data in ("\x01" * (1 << 20), "x" * (1 << 20)):
        message = reader.read(json.dumps(MESSAGE | {"data": data}).encode())
        assert isinstance(message, Message) and message.data == data
    binary = {key: MESSAGE[key] for key in MESSAGE if key != "data"}
    binary["data_base64"] = base64.b64encode(bytes(1 << 20)).decode()
    message = reader.read(json.dumps(binary).encode())
    assert isinstance(message, Message) and message.data == bytes(1 << 20)
