"""What the hub answers over HTTP: messages, who is where, health, metrics, the page.

Everything here runs on the reader thread of the client that asks, and holds no lock while it
works.
"""

from __future__ import annotations

import contextlib
import math
import time

from ..errors import HubBusy, HubStopped
from ..messages import Member, format_id
from ..networks import network_of, owner_of
from ..wire import events
from . import metrics
from .backplane.interface import KEY_REUSED, KEY_REUSED_TEXT
from .budget import Claim
from .core import Core, Refused
from .http import media_types, pages
from .http.access import Grant
from .http.connection import RESTING, BadRequest, HttpConnection
from .http.forwarded import Address
from .http.models import (
    RETRY,
    Asset,
    Decision,
    Health,
    Metrics,
    Page,
    Preflight,
    Publish,
    Recall,
    Refusal,
    Request,
    Response,
    RoomList,
    Stream,
)
from .incoming import Arrival
from .rates import COPIED_BYTES
from .rooms.encodings import json_view
from .rooms.entries import Entry, Key, fingerprint, to_messages
from .rooms.registry import NoRoom

# How long a publisher may have to wait for the fan-out.
PUBLISH_SECONDS = 5.0
# And for the place of a large message, while others send theirs.
PLACE_SECONDS = 5.0
# The messages of one answer, but one message at least: who wants more asks again. An answer that
# small is not counted among those in hand; for a larger one its client may have to wait so long.
MAX_ANSWER_BYTES = 1024 * 1024
SMALL_ANSWER_BYTES = 16 * 1024
ANSWER_SECONDS = 1.0

_TOO_MANY_ANSWERS = "too many large answers wait to be read"


def respond(
    core: Core,
    request: Request,
    decision: Decision,
    http: HttpConnection,
    address: Address,
    grant: Grant,
    sender: str,
) -> Refusal | Response:
    """Return the answer to a request.

    Args:
        core: the hub's parts.
        request: the request.
        decision: what the policies made of it; no ``Join``, and a ``Stream`` only for HEAD.
        http: where the request came from, for its body.
        address: who sent it.
        grant: what they may do, which is enough for this.
        sender: who pays for a message.

    Raises:
        BadRequest: the body is not to be had.
        OSError: the connection broke.
    """
    if isinstance(decision, (Refusal, Response)):
        return decision
    if isinstance(decision, Preflight):
        return Response(204, decision.headers)
    if isinstance(decision, Health):
        return _health(core)
    if isinstance(decision, Metrics):
        # While it stops, too: the last numbers are those of the goodbyes.
        return _export(core, request, decision)
    if isinstance(decision, (Page, Asset)):
        return _give_page(request, decision)
    if core.draining:
        headers = getattr(decision, "headers", ())
        return Refusal(503, "the hub is stopping", (*RETRY, *headers), "stopping")
    if isinstance(decision, Publish):
        with contextlib.closing(_Place(core, http, sender, decision.headers)) as place:
            return _publish(core, request, decision, http, address, grant, sender, place)
    if isinstance(decision, Recall):
        return _recall(core, decision, http, address)
    if isinstance(decision, RoomList):
        return _list_rooms(core, decision, http, address, grant)
    if isinstance(decision, Stream):
        # Before its first event a stream is nothing but its head.
        return Response(200, decision.headers, content_type=media_types.EVENTS)
    return Refusal(404, "there is nothing here")


def _health(core: Core) -> Response:
    if core.leaving:
        return Response(503, RETRY, b"stopping\n", "text/plain")
    if not core.fanout.is_alive:
        # Nothing will be delivered any more: whoever watches the hub should start it anew.
        return Response(503, RETRY, b"failed\n", "text/plain")
    return Response(200, (), b"ok\n", "text/plain")


class _Place:
    """The place of a large message until it is in its log, if it needs one."""

    def __init__(
        self, core: Core, http: HttpConnection, payer: str, headers: tuple[tuple[str, str], ...]
    ) -> None:
        self._core = core
        self._http = http
        self._payer = payer
        self._headers = headers
        self._arrival: Arrival | None = None

    def make(self, size: int) -> None:
        """Wait for a place.

        Raises:
            BadRequest: there was none in time.
        """
        core, http = self._core, self._http
        # A connection that waits until others have sent their messages is idle, not busy.
        http.awaits = RESTING
        try:
            self._arrival = core.incoming.take(
                size,
                self._payer,
                lambda: core.stopping or http.makes_way,
                seconds=PLACE_SECONDS,
            )
        finally:
            http.awaits = 0
        if self._arrival is None:
            text = "too many large messages are coming in"
            raise BadRequest(Refusal(503, text, (*RETRY, *self._headers), "busy"))

    def close(self) -> None:
        """Give the place back, if there is one."""
        if self._arrival is not None:
            self._core.incoming.give(self._arrival)


def _publish(
    core: Core,
    request: Request,
    decision: Publish,
    http: HttpConnection,
    address: Address,
    grant: Grant,
    payer: str,
    place: _Place,
) -> Refusal | Response:
    settings = core.settings
    try:
        body = http.read_body(
            request, settings.max_message_bytes, settings.handshake_timeout, place.make
        )
    except BadRequest:
        core.rates.take(payer)  # what cannot be a message costs as one
        raise
    wait = core.rates.take(payer, 1 + core.rates.bytes_cost(len(body), COPIED_BYTES))
    if wait > 0:
        later = (("Retry-After", str(math.ceil(wait))), *decision.headers)
        text = "more messages in a second than one sender may publish"
        return Refusal(429, text, later, "rate")
    try:
        data = _data_of(body, decision.is_text)
    except UnicodeDecodeError:
        return Refusal(400, "the text is not UTF-8", decision.headers)
    # Who publishes is no member: without an id.
    sender = Member("", grant.name or decision.name, decision.room, str(address))
    owner = owner_of(address.host, grant.name)
    key = Key(decision.key, owner, fingerprint(data)) if decision.key is not None else None
    try:
        data = core.pass_filter(data, decision.room, sender)
        draft = core.draft(0, data, sender, key)
        # Many may wait with a large message: one copy of it is enough.
        del body, data
        deadline = time.monotonic() + PUBLISH_SECONDS
        ids = core.publish_one(decision.room, draft, deadline, owner, lambda: http.makes_way)
    except Refused as error:
        return Refusal(403, str(error), decision.headers)
    except NoRoom as error:
        return Refusal(503, str(error), (*RETRY, *decision.headers), error.reason)
    except HubStopped as error:
        return Refusal(503, str(error), (*RETRY, *decision.headers), "stopping")
    except HubBusy as error:
        return Refusal(503, str(error), (*RETRY, *decision.headers), "busy")
    ((id, repeated),) = ids.ids(1)
    if id is None:
        return Refusal(422, f"{KEY_REUSED}: {KEY_REUSED_TEXT}", decision.headers, "key_reused")
    if core.on_message is not None:
        for message in to_messages(decision.room, [draft], ids):
            core.call(core.on_message, message)
    answer = {"id": format_id(*id), "room": decision.room, "duplicate": repeated}
    return Response(200, decision.headers, events.encode(answer) + b"\n", media_types.JSON)


def _data_of(body: bytes, is_text: bool | None) -> str | bytes:
    """Return a message as text or as binary.

    Most programs that publish without a ``Content-Type`` send text. UTF-8 without a NUL is hardly
    ever anything else.

    Args:
        body: the message.
        is_text: what its ``Content-Type`` says; None if there is none.

    Raises:
        UnicodeDecodeError: it is said to be text and is not UTF-8.
    """
    if is_text:
        return body.decode("utf-8")
    if is_text is None and b"\0" not in body:
        with contextlib.suppress(UnicodeDecodeError):
            return body.decode("utf-8")
    return body


def _recall(
    core: Core, decision: Recall, http: HttpConnection, address: Address
) -> Refusal | Response:
    room = core.rooms.find(decision.room)
    reason = core.gap_of(decision.since)
    entries: list[Entry] = []
    newest = after = core.backplane.newest()
    if room is not None:
        since = (0, 0) if reason is not None else decision.since
        entries, newest, after, trimmed = room.last(decision.history, since)
        reason = reason or ("trimmed" if trimmed else None)
    gap = b"null"
    if reason is not None:
        gap = events.gap(reason, decision.since_text or "", format_id(*after))
    claim = _claim(core, _most_bytes(entries), http, address)
    if claim is None:
        return Refusal(503, _TOO_MANY_ANSWERS, (*RETRY, *decision.headers), "busy")
    try:
        pieces, given = _messages(entries)
        claim.cut_to(sum([len(piece) for piece in pieces]))
    except BaseException:
        claim.give()
        raise
    head = events.encode({"room": decision.room, "newest": format_id(*newest)})
    more = b""
    if given < len(entries):
        last = entries[given - 1]
        more = b',"more":true,"after":"%d-%d"' % (last.ms, last.seq)
    body = b'%s,"gap":%s%s,"messages":[' % (head[:-1], gap, more)
    return Response(
        200,
        decision.headers,
        body,
        media_types.JSON,
        (*pieces, b"]}\n"),
        claim.give,
    )


def _most_bytes(entries: list[Entry]) -> int:
    """Return how much the answer with messages takes at most while it is made."""
    most = 0
    for entry in entries:
        made = entry.json
        # As many as a message of control characters has, and what stands beside its data.
        most += 6 * len(entry.frame) + 512 if made is None else len(made)
        if most > MAX_ANSWER_BYTES:
            break
    return most


def _messages(entries: list[Entry]) -> tuple[list[bytes | memoryview], int]:
    """Return the first messages that fit into an answer, but one at least, with what stands between
    them; and how many they are."""
    pieces: list[bytes | memoryview] = []
    size = given = 0
    for entry in entries:
        # Before it is made: JSON is no shorter than what is in it.
        if given and size + len(entry.frame) > MAX_ANSWER_BYTES:
            break
        piece = json_view(entry)
        size += len(piece)
        if given and size > MAX_ANSWER_BYTES:
            break
        pieces += (b",", piece) if given else (piece,)
        given += 1
    return pieces, given


def _claim(core: Core, size: int, http: HttpConnection, address: Address) -> Claim | None:
    """Wait a moment until an answer of so many bytes at most may be made; None if that is too
    long. Small ones are not counted."""
    claim = Claim(core.answers, network_of(address.host))
    if size <= SMALL_ANSWER_BYTES:
        return claim
    # A connection that waits until other answers are read is idle, not busy.
    http.awaits = RESTING
    try:
        taken = claim.take(size, lambda: core.stopping or http.makes_way, ANSWER_SECONDS)
    finally:
        http.awaits = 0
    return claim if taken else None


def _list_rooms(
    core: Core, decision: RoomList, http: HttpConnection, address: Address, grant: Grant
) -> Refusal | Response:
    if decision.room is None:
        found = sorted(core.rooms.all(), key=lambda room: room.path)
    else:
        one = core.rooms.find(decision.room)
        found = [one] if one is not None else []
    found = [room for room in found if room.members and grant.may_subscribe(room.path)]
    most = sum([1024 + 512 * min(len(room.members), events.MAX_LISTED) for room in found])
    claim = _claim(core, most, http, address)
    if claim is None:
        return Refusal(503, _TOO_MANY_ANSWERS, (*RETRY, *decision.headers), "busy")
    pieces: list[bytes] = []
    try:
        for room in found:
            members = room.member_list()
            if members:
                listed = [events.identity(member) for member in members[: events.MAX_LISTED]]
                told = {"room": room.path, "count": len(members), "members": listed}
                pieces += (b"," if pieces else b"", events.encode(told))
    except BaseException:
        claim.give()
        raise
    return Response(
        200,
        decision.headers,
        b'{"rooms":[',
        media_types.JSON,
        (*pieces, b"]}\n"),
        claim.give,
    )


def _export(core: Core, request: Request, decision: Metrics) -> Refusal | Response:
    try:
        body, kind = metrics.expose(core, ", ".join(request.values("accept")))
    except metrics.MetricsMissing as error:
        return Refusal(501, str(error), decision.headers)
    return Response(200, decision.headers, body, kind)


def _give_page(request: Request, decision: Page | Asset) -> Refusal | Response:
    if isinstance(decision, Page):
        found: pages.WebFile | None = pages.page(request.target, decision.board)
    else:
        found = pages.asset(decision.name)
    if found is None:
        return Refusal(404, "there is nothing here")
    headers = found.headers
    tags = request.values("if-none-match")
    if found.is_current(", ".join(tags) if tags else None):
        return Response(304, headers)
    return Response(200, headers, found.body, found.content_type)
