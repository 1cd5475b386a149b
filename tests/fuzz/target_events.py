"""Targets: the JSON events of ``broadcast.v1.json``, as the hub reads them and as a client does.

Whatever the hub understands it may have to say to others, so each event that it reads is turned
into the ones that follow from it, and a client reads those: neither may stumble.
"""

from __future__ import annotations

import json

from broadcast_server import rules
from broadcast_server.client.membership import Membership
from broadcast_server.errors import ProtocolError, UsageError
from broadcast_server.hub.rooms.encodings import json_event
from broadcast_server.hub.rooms.entries import Entry, encode
from broadcast_server.messages import Gap, Member, Message, Presence, parse_id
from broadcast_server.wire import client_events, events
from broadcast_server.wire.client_events import Ack, EventReader, Trouble, Welcome

MAX_BYTES = 1000
CODES = frozenset({"bad_json", "unknown_type", "bad_field", "too_big"})

WELCOME = (
    b'{"type":"welcome","id":"c1","session":"s","name":null,"room":"/r","members":[],"count":1,'
    b'"newest":"5-0","after":"5-0"}'
)


def run_hub(data: bytes) -> str:
    """Read the payload of a text frame as the hub does."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "no text"  # the decoder lets none of it through
    client = _welcomed()
    try:
        event = events.parse(data, MAX_BYTES)
    except events.BadFrame as error:
        assert error.code in CODES and error.detail
        trouble = client.read(events.error(error.code, error.detail, error.ref))
        assert trouble == Trouble(error.code, error.detail, error.ref)
        return error.code
    if event.ref is not None:
        assert len(str(event.ref)) <= events.MAX_REF_CHARACTERS
    ack = client.read(events.ack(event.ref, "7-1", False))
    assert ack == Ack(event.ref, "7-1", False)
    if isinstance(event, events.Send):
        frame = encode(event.data)
        assert event.key is None or 1 <= len(event.key) <= events.MAX_KEY_CHARACTERS
        entry = Entry(1, frame, 1_700_000_000_000, 3, len(frame), Member("c1", "ann", "/r", ""))
        message = client.read(json_event(entry))
        assert isinstance(message, Message) and message.data == event.data
        assert message.sender is not None and message.sender.name == "ann"
        return "send"
    if isinstance(event, events.Rename):
        assert event.name is None or not rules.has_control(event.name)
        member = Member("c1", event.name, "/r", "")
        told = client.read(events.presence("rename", member, 1, old=None))
        assert isinstance(told, Presence) and told.member == member
        return "name"
    told = client.read(events.members([Member("c1", "ann", "/r", "")], event.ref))
    assert isinstance(told, Presence) and told.count == 1
    return "who"


def run_client(data: bytes) -> str:
    """Read lines as a client reads the frames of a hub, from the welcome on or behind one."""
    if not data:
        return "short"
    reader = EventReader(MAX_BYTES) if data[0] & 1 else _welcomed()
    membership = Membership("/r", None)
    label = "nothing"
    for line in data[1:].split(b"\n"):
        try:
            event = reader.read(line)
        except ProtocolError as error:
            assert error.code in (1002, 1007, 1009) and error.reason
            return str(error.code)
        if event is None:
            label = "unknown"
            continue
        label = type(event).__name__
        _take(membership, event)
    return label


def run_sent(data: bytes) -> str:
    """Write what a client sends, and read it as the hub does."""
    text = data.decode("utf-8", "surrogatepass") if _is_wide(data) else data.decode("latin-1")
    name = text[:64]
    try:
        written = client_events.encode_send(text, len(text), name or None)
    except UsageError:
        assert any("\ud800" <= character <= "\udfff" for character in text)
        return "surrogates"
    for payload, meant in (
        (written, text),
        (client_events.encode_send(data, None, None), data),
    ):
        assert client_events.data_of(payload) == meant
        event = events.parse(payload, 8 * len(data))
        assert isinstance(event, events.Send) and event.data == meant
    who = events.parse(client_events.encode_who(7), MAX_BYTES)
    assert who == events.Who(7)
    try:
        renamed = events.parse(client_events.encode_name(name, 3), MAX_BYTES)
    except events.BadFrame as error:
        assert error.code == "bad_field" and error.ref == 3 and rules.has_control(name)
        return "bad name"
    assert renamed == events.Rename(name or None, 3)
    return "sent"


def _is_wide(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def _welcomed() -> EventReader:
    reader = EventReader(MAX_BYTES)
    assert isinstance(reader.read(WELCOME), Welcome)
    return reader


def _take(membership: Membership, event: client_events.Event) -> None:
    """Let a membership note an event; its places must stay ids, and its list of members one."""
    if isinstance(event, Message):
        assert len(event.data if isinstance(event.data, bytes) else event.data.encode()) <= (
            MAX_BYTES
        )
        membership.take_message(event)
    elif isinstance(event, Presence):
        membership.take_presence(event)
    elif isinstance(event, Gap):
        membership.take_gap(event)
    elif isinstance(event, Welcome):
        membership.take_welcome(event)
    elif isinstance(event, Ack):
        membership.take_ack(event)
    else:
        json.dumps([event.code, event.detail, event.ref])
    for place in (membership.newest, membership.resume):
        if place is not None:
            parse_id(place)
    assert all(isinstance(member, Member) for member in membership.members())
    assert membership.count >= 0
