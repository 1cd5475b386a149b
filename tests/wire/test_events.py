"""The events of the subprotocol: what the hub writes, against the schema, and what it reads."""

from __future__ import annotations

import base64
import datetime
import json
from itertools import count

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broadcast_server.hub.rooms.entries import encode
from broadcast_server.messages import Member
from broadcast_server.wire import events

from ..support import code_blocks
from ..support.event_schema import SCHEMA, checked
from ..support.inside import load_long, note_parsed, read_text

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


def test_list_costs_no_more_than_what_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: whoever asks for it pays for a thousand."""
    shown: list[Member] = []
    identity = events.identity

    def show(member: Member) -> dict[str, str | None]:
        shown.append(member)
        return identity(member)

    monkeypatch.setattr(events, "identity", show)
    assert checked(events.members([ANN] * 10_000))["count"] == 10_000
    assert len(shown) == events.MAX_LISTED


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


# Large events.

BIG = 2**20
SEND = '{"type":"send","data":"'


MANY = ",".join(["[]"] * BIG)


@pytest.mark.parametrize(
    ("frame", "code", "ref"),
    [
        ('{"type":"who","ref":1,"x":[' + MANY + "]}", "too_big", 1),
        ('{"type":"who","x":"' + "a" * BIG + '"}', "too_big", None),
        ('{"type":"send","data":[' + MANY + "]}", "too_big", None),
        ('{"type":"send","ref":"' + "a" * BIG + '","data":"x"}', "too_big", None),
        ('{"type":"send","ref":7,"key":"' + "a" * BIG + '","data":"x"}', "too_big", 7),
        ('{"type":"name","name":"' + "a" * BIG + '"}', "too_big", None),
        (SEND + 'x","data":"' + "a" * BIG + '"}', "too_big", None),
        ('{"' + "a" * BIG + '":1}', "bad_json", None),
        ("{" + '"a":1,' * BIG + '"b":1}', "too_big", None),
        ('{"x":' + "[" * BIG, "bad_json", None),
        ('{"x":' + "1" * BIG + "}", "too_big", None),
        ('{"type":"who"' + " " * BIG + "}", "too_big", None),
        (SEND + "a" * BIG + '"' + " " * 5000 + "}", "too_big", None),
        ("[" + MANY + "]", "bad_json", None),
        ("x" * BIG, "bad_json", None),
        (SEND + "a" * BIG, "bad_json", None),
        (SEND + "a" * BIG + "\\", "bad_json", None),
        (SEND + "a" * BIG + '"', "bad_json", None),
        (SEND + "a" * BIG + '"}}', "bad_json", None),
        (SEND + "a" * BIG + '"]', "bad_json", None),
        (SEND + "a" * BIG + '","ref":}', "bad_json", None),
        (SEND + "a" * BIG + '"{"ref":1}', "bad_json", None),
        (SEND + "a\n" * BIG + '"}', "bad_json", None),
        (SEND + "a" * (BIG + 1) + '","ref":5}', "too_big", 5),
        (SEND + "\\n" * 3 * BIG + '","ref":6}', "too_big", 6),
        (SEND + "ä" * BIG + '","ref":6}', "too_big", 6),
        ('{"type":"send","data_base64":"' + "A" * 5 * BIG + '","ref":6}', "too_big", 6),
        ('{"type":"send","data_base64":"' + "A" * (4 * (BIG // 3 + 1)) + '"}', "too_big", None),
        (SEND + "a" * BIG + "\\ud83d" + '"}', "too_big", None),
    ],
    ids=count(),
)
def test_large_event_is_not_taken_apart_before_its_size_is_known(
    monkeypatch: pytest.MonkeyPatch, frame: str, code: str, ref: object
) -> None:
    """Beside its data nothing of it becomes an object; the data is read in small pieces, and who
    has sent it is told which event it was."""
    sizes = note_parsed(monkeypatch)
    with pytest.raises(events.BadFrame) as caught:
        events.parse(frame.encode(), BIG)
    if code == "too_big" or caught.value.code == "too_big":
        assert (caught.value.code, caught.value.ref) == ("too_big", ref)
    else:
        assert caught.value.code == code
    assert max(sizes, default=0) <= events.PIECE_CHARACTERS + 1
    others = [size for size in sizes if size <= events.MAX_BESIDE_BYTES]
    assert sum(others) <= 2 * events.MAX_BESIDE_BYTES + 10


def test_large_message_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two of them others may run."""
    sizes = note_parsed(monkeypatch)
    frame = SEND + "\\u0001" * BIG + '","ref":9,"key":"k","x":[1,{"a":"b"}] } '
    assert events.parse(frame.encode(), BIG) == events.Send("\x01" * BIG, 9, "k")
    pieces = [size for size in sizes if size > 100]
    assert max(pieces) <= events.PIECE_CHARACTERS + 1
    assert len(pieces) <= 6 * BIG // events.PIECE_CHARACTERS + 2


PARTS = st.sampled_from(
    r"""\\ \" \n \/ \u0001 \ud83d\ude00 \ud83d \ude00 \\u12 u ud8 a ä 😀 d83d""".split()
)


@given(st.lists(PARTS, min_size=1, max_size=40), st.integers(14, 30), st.integers(0, 16))
def test_pieces_give_what_the_whole_gives(parts: list[str], size: int, before: int) -> None:
    """Wherever a text is cut: no escape and no surrogate pair is torn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "PIECE_CHARACTERS", size)
        text = '"' + "x" * before + "".join(parts) + '",'
        expected = json.loads(text[:-1])
        assert read_text(text, 1, 1000) == (expected, len(text) - 1)


@given(
    st.dictionaries(
        st.sampled_from(["type", "ref", "x", "data", "data_base64", 'a"\\', "ü"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
            lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
        ),
        min_size=1,
    ),
    st.booleans(),
    st.sampled_from([None, 1, "\t"]),
)
def test_large_events_are_read_as_any_other(
    event: dict[str, object], ascii_only: bool, indent: int | str | None
) -> None:
    """Within the bounds there is no difference."""
    text = json.dumps(event, ensure_ascii=ascii_only, indent=indent)
    if len(text) <= events.MAX_BESIDE_BYTES:
        assert load_long(text, 10_000) == json.loads(text)


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
