"""The last messages of a room by one HTTP request."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from broadcast_server import publish
from broadcast_server.client import requests
from broadcast_server.client.requests import fetch_last

from ..support import running_hub
from ..support.raw_server import listener


def test_last_messages_of_a_room_come_in_order() -> None:
    """As many as are wanted and there are; other parameters of the address do not matter."""
    with running_hub(token="secret") as hub:
        shown = {"Authorization": "Bearer secret"}
        room = hub.url + "room"
        for number in range(3):
            publish(room, str(number), name="bob", token="secret")
        found = fetch_last(f"{room}?name=ann&since=1-0", "/room", 2, shown)
        assert [message.data for message in found] == ["1", "2"]
        assert [message.id for message in found] == [m.id for m in hub.history("/room")[1:]]
        assert all(message.sender and message.sender.name == "bob" for message in found)
        assert all(message.room == "/room" for message in found)
        assert fetch_last(hub.url + "other", "/other", 5, shown) == []
        with pytest.raises(LookupError, match="token"):
            fetch_last(room, "/room", 2, {})


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Answer one request with these bytes; gives the address."""
    with listener() as listening:

        def serve() -> None:
            sock, _ = listening.read_head()
            with sock:
                sock.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.url
        thread.join(10)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "no hub"),
        (b"{}", "no hub"),
        (b'{"messages": 3}', "no hub"),
        (b'{"messages": [{"type": "message"}]}', "no hub"),
        (b"", "broke before the answer"),
    ],
)
def test_answer_that_is_none_is_told(body: bytes, why: str) -> None:
    """No traceback for whatever a server says."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(head + body) as url, pytest.raises(LookupError, match=why):
        fetch_last(url, "/room", 3, {})


def test_answer_that_is_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a hub, and less could be had."""
    monkeypatch.setattr(requests, "MAX_HISTORY_BYTES", 1000)
    body = b'{"messages": [%s' % (b" " * 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(head + body) as url, pytest.raises(LookupError, match="ask for fewer"):
        fetch_last(url, "/room", 3, {})


def test_events_of_other_types_are_left_out() -> None:
    """A newer hub may say more."""
    event = {"type": "message", "id": "1-0", "time": "2026-11-25T06:00:00Z", "from": None}
    messages = [{"type": "new"}, {**event, "data": "x"}]
    body = json.dumps({"messages": messages}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(head + body) as url:
        assert [message.data for message in fetch_last(url, "/room", 3, {})] == ["x"]
