"""The events of the subprotocol: what the hub writes, against the schema, and what it reads."""

from __future__ import annotations

import base64
import datetime
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadcast_server.hub.rooms.entries import encode
from broadcast_server.messages import Member
from broadcast_server.wire import events

from ..support import code_blocks
from ..support.event_schema import SCHEMA, checked

ANN = Member("c1", "ann", "/r", "127.0.0.1:1")
BOB = Member("c2", None, "/r", "127.0.0.1:2")
NOBODY = Member("", None, "/r", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("data", "sender", "member"),
    [
        ("", None, None),
        ('ä\n"\u2028\0', ANN, {"id": "c1", "name": "ann"}),
        (b"\xff\0", NOBODY, {"id": None, "name": None}),
    ],
)
def test_message_has_its_data_sender_and_time(
    data: str | bytes, sender: Member | None, member: dict[str, str] | None
) -> None:
    """Text as it is, binary in base64; who published over HTTP has no id."""
    event = checked(events.message(encode(data), "1795586400007-3", 1795586400007, sender))
    assert (event["id"], event["time"]) == ("1795586400007-3", "2026-11-25T06:00:00.007Z")
    assert event["from"] == member
    if isinstance(data, str):
        assert event["data"] == data
    else:
        assert event["data_base64"] == "/wA="


def plain_message(data: str | bytes, id: str | None, ms: int, sender: Member | None) -> bytes:
    """Return the event of a message as an encoder of any JSON writes it."""
    seconds, rest = divmod(ms, 1000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    event: dict[str, object] = {
        "type": "message",
        "id": id,
        "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:03d}Z",
        "from": None if sender is None else {"id": sender.id or None, "name": sender.name},
    }
    if isinstance(data, str):
        event["data"] = data
    else:
        event["data_base64"] = base64.b64encode(data).decode("ascii")
    encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    return encoder.encode(event).encode("utf-8")


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
IDS = st.none() | st.builds("{}-{}".format, st.integers(0, 2**64), st.integers(0, 2**64))
MEMBERS = st.builds(Member, st.sampled_from(["", "c1", 'c"\\']), st.none() | TEXT, TEXT, TEXT)


@given(TEXT | st.binary(), IDS, st.integers(0, 253402300799999), st.none() | MEMBERS)
@example("".join(map(chr, range(256))) + "\u2028\U0001f600", None, 0, NOBODY)
@example("x" * 70_000, "1795586400007-3", 1795586400007, ANN)
@example("x" * 126, "1-1", 999, Member("", '"\\\x7f\x00', "/r", ""))
@example(b"\xff" * 70_000, "1-1", 1000, ANN)
def test_message_is_what_a_json_encoder_would_write(
    data: str | bytes, id: str | None, ms: int, sender: Member | None
) -> None:
    """To the byte: it is only faster."""
    expected = plain_message(data, id, ms, sender)
    assert events.message(encode(data), id, ms, sender) == expected


def test_every_other_event_is_as_the_schema_says() -> None:
    """Each kind once, with what it carries."""
    assert checked(events.message(encode("x"), None, 1, None))["id"] is None
    limits = {"max_message_bytes": 1, "max_rate": 0, "history": 100}
    rights = {"publish": True, "rename": False}
    members = [ANN, BOB, ANN]
    welcome = checked(events.welcome(ANN, "t", members, "2-1", "1-0", limits, 2, rights))
    assert welcome["rights"] == rights
    assert (welcome["count"], len(welcome["members"]), welcome["after"]) == (3, 2, "1-0")
    for kind in ("join", "leave"):
        assert checked(events.presence(kind, ANN, 3))["count"] == 3
    assert checked(events.presence("rename", ANN, 3, old=None))["old"] is None
    assert checked(events.count(101)) == {"type": "count", "count": 101}
    assert "ref" not in checked(events.members([ANN]))
    many = checked(events.members([ANN] * 1001, 7))
    assert (len(many["members"]), many["count"], many["ref"]) == (1000, 1001, 7)
    assert checked(events.gap("trimmed", "x", "1-0"))["since"] == "x"
    assert checked(events.ack("r", "1-1", True))["duplicate"] is True
    assert checked(events.error("bad_json", "why"))["ref"] is None


@pytest.mark.parametrize(
    ("frame", "command"),
    [
        ('{"type":"send","data":"ü"}', events.Send("ü", None, None)),
        ('{"type":"send","data_base64":"AP8=","ref":1}', events.Send(b"\0\xff", 1, None)),
        ('{"type":"send","data":"","ref":"a","key":"k","x":[]}', events.Send("", "a", "k")),
        ('{"type":"name","name":"ann"}', events.Rename("ann", None)),
        ('{"type":"name","name":null,"ref":2}', events.Rename(None, 2)),
        ('{"type":"who"}', events.Who(None)),
    ],
)
def test_what_a_client_says_is_understood(frame: str, command: object) -> None:
    """Members that nobody knows are ignored."""
    assert events.parse(frame.encode(), 100) == command


@pytest.mark.parametrize(
    ("frame", "code", "ref"),
    [
        ("", "bad_json", None),
        ("[]", "bad_json", None),
        ("[" * 100_000, "bad_json", None),
        ("{}", "unknown_type", None),
        ('{"type":["send"],"ref":1}', "unknown_type", 1),
        ('{"type":"send","ref":1}', "bad_field", 1),
        ('{"type":"send","data":"a","data_base64":""}', "bad_field", None),
        ('{"type":"send","data":1}', "bad_field", None),
        ('{"type":"send","data":"\\ud800"}', "bad_field", None),
        ('{"type":"send","data_base64":"?"}', "bad_field", None),
        ('{"type":"send","data_base64":1}', "bad_field", None),
        ('{"type":"send","data":"","key":""}', "bad_field", None),
        ('{"type":"send","data":"","key":1}', "bad_field", None),
        ('{"type":"send","data":"","ref":true}', "bad_field", None),
        ('{"type":"send","data":"","ref":"\\ud800"}', "bad_field", None),
        ('{"type":"send","data":"","ref":1.5}', "bad_field", None),
        ('{"type":"name"}', "bad_field", None),
        ('{"type":"name","name":7}', "bad_field", None),
        ('{"type":"name","name":"a\\u0007"}', "bad_field", None),
        ('{"type":"send","data":"' + "x" * 101 + '","ref":1}', "too_big", 1),
    ],
)
def test_what_is_not_understood_has_a_code(frame: str, code: str, ref: object) -> None:
    """And nothing else is raised, whatever comes."""
    with pytest.raises(events.BadFrame) as caught:
        events.parse(frame.encode(), 100)
    assert (caught.value.code, caught.value.ref) == (code, ref)
    checked(events.error(caught.value.code, caught.value.detail, caught.value.ref))


# The page.


def test_examples_of_the_protocol_are_what_it_says() -> None:
    """Each is JSON; the hub's are as the schema says, the hub understands those of clients."""
    decoder = json.JSONDecoder()
    seen = set()
    for block in code_blocks("docs/reference/protocol.md", "json"):
        rest = block.strip()
        while rest:
            event, end = decoder.raw_decode(rest)
            text, rest = rest[:end], rest[end:].strip()
            kind = event.get("type")
            if kind in ("send", "name", "who"):
                events.parse(text.encode(), 1000)
            elif kind is not None:
                checked(json.dumps(event).encode())
            seen.add(kind)
    types = [event["properties"]["type"] for event in SCHEMA["oneOf"]]
    listed = {kind for found in types for kind in found.get("enum", [found.get("const")])}
    assert seen == {None, "send", "name", "who"} | listed
