"""What the hub answers over HTTP, and streams of events, on a real hub."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broadcast_server import BroadcastHub, Member, Message, PublishFailed, publish
from broadcast_server.hub import endpoints
from broadcast_server.hub.budget import Budget, Claim
from broadcast_server.hub.incoming import INCOMING_SHARE
from broadcast_server.hub.rooms import encodings
from broadcast_server.messages import parse_id

from ..support import (
    HandshakeRefused,
    RawClient,
    http_request,
    running_hub,
    stress_size,
    wait_until,
)
from ..support.event_stream import Stream
from ..support.inside import core_of, fanout_of, replace_pass
from ..support.json_peer import Peer

SECONDS = 10.0


@pytest.fixture
def connection(hub: BroadcastHub) -> Iterator[http.client.HTTPConnection]:
    """A connection to the hub."""
    found = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=SECONDS)
    yield found
    found.close()


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    **headers: str,
) -> tuple[int, Any]:
    """Make a request; return the status and what is in the JSON body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    response = connection.getresponse()
    data = response.read()
    return response.status, json.loads(data) if data else None


def ask_briefly(hub: BroadcastHub, method: str, path: str) -> tuple[int, str | None, bytes]:
    """Make a request on a connection of its own; return status, Retry-After and body."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers["Retry-After"], response.read()
    finally:
        connection.close()


# -- Publishing --------------------------------------------------------------------------------


def test_post_is_accepted_delivered_and_has_an_id(
    hub: BroadcastHub, connection: http.client.HTTPConnection
) -> None:
    """To every member, as text or as binary, and the answer's id is the message's."""
    with RawClient.connect(port=hub.port, path="/scores") as client:
        client.sync()
        status, answer = ask(connection, "POST", "/scores", b"3:1", Content_Type="text/plain")
        assert (status, answer["room"], answer["duplicate"]) == (200, "/scores", False)
        assert client.recv_message() == "3:1"
        assert ask(connection, "PUT", "/scores", b"\xff")[0] == 200
        assert client.recv_message() == b"\xff"
    assert hub.history("/scores")[0].id == answer["id"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"3:1", "3:1"),
        (b"", ""),
        ("Grüße 👍\r\n\t\x1b[1m".encode(), "Grüße 👍\r\n\t\x1b[1m"),
        (b"\xef\xbb\xbfa", "\ufeffa"),
        (b"a\0b", b"a\0b"),
        (b"\xff", b"\xff"),
        (b"jos\xe9", b"jos\xe9"),
        (b"\xed\xa0\x80", b"\xed\xa0\x80"),  # a surrogate is no character
        (b"abc\xf0\x9f\x91", b"abc\xf0\x9f\x91"),  # cut off
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Content_Type": ""}])
def test_body_without_a_type_is_text_if_it_can_be(
    hub: BroadcastHub,
    connection: http.client.HTTPConnection,
    body: bytes,
    expected: str | bytes,
    headers: dict[str, str],
) -> None:
    """As requests, httpx, Node and ``curl -T`` send texts; a type that is given always counts."""
    for method in ("POST", "PUT"):
        assert ask(connection, method, "/r", body, **headers)[0] == 200
    binary = {"Content_Type": "application/octet-stream"}
    assert ask(connection, "POST", "/r", body, **binary)[0] == 200
    chunks = iter([body]) if body else iter(())
    connection.request("POST", "/r", chunks, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert connection.getresponse().read()
    found = [message.data for message in hub.history("/r")]
    assert found == [expected, expected, body, expected]


def test_key_that_comes_again_is_taken_once(
    hub: BroadcastHub, connection: http.client.HTTPConnection
) -> None:
    """With the id of the first, also after others; in another room it is another key."""
    ids = []
    for _ in range(2):
        status, answer = ask(connection, "POST", "/r", b"a", Idempotency_Key="k")
        assert status == 200
        ids.append((answer["id"], answer["duplicate"]))
    assert ids[0][0] == ids[1][0] and [again for _, again in ids] == [False, True]
    assert not ask(connection, "POST", "/s", b"a", Idempotency_Key="k")[1]["duplicate"]
    assert [message.data for message in hub.history("/r")] == ["a"]


def test_key_of_another_message_is_422(
    hub: BroadcastHub, connection: http.client.HTTPConnection
) -> None:
    """Nothing is delivered, and whoever publishes is told so, not that it was there before."""
    assert ask(connection, "POST", "/r", b"", Idempotency_Key="k")[0] == 200
    for kind, body in (("text/plain", b"17 is paid"), ("x/y", b""), ("x/y", b"17 is paid")):
        status, answer = ask(connection, "POST", "/r", body, Idempotency_Key="k", Content_Type=kind)
        assert (status, answer["status"]) == (422, 422)
        assert answer["detail"].startswith("key_reused: another message was published with this")
    status, answer = ask(connection, "POST", "/r", b"", Idempotency_Key="k")
    assert (status, answer["duplicate"]) == (200, True)
    # Text as well, whether that is said or seen.
    status, answer = ask(
        connection, "POST", "/r", b"", Idempotency_Key="k", Content_Type="text/plain"
    )
    assert (status, answer["duplicate"]) == (200, True)
    assert [message.data for message in hub.history("/r")] == [""]
    with pytest.raises(PublishFailed, match="key_reused") as caught:
        publish(f"{hub.url}r", b"17 is paid", key="k")
    assert caught.value.status == 422


def test_message_that_a_filter_changes_comes_again() -> None:
    """What was sent counts, and not what the program has made of it."""
    numbers = itertools.count()
    with running_hub(filter=lambda message: f"{next(numbers)} {message.data}") as hub:
        ids = [publish(hub.url, "x", key="k") for _ in range(2)]
        assert ids[0] == ids[1]
        with Peer(hub, "/") as peer:
            peer.send(type="send", data="x", key="k", ref=1)
            assert peer.recv() == {"type": "ack", "ref": 1, "id": ids[0], "duplicate": True}
            for _ in range(2):
                peer.send(type="send", data="y", key="l", ref=2)
                assert peer.recv()["type"] == "ack"
        assert [message.data for message in hub.history("/")] == ["0 x", "3 y"]


@pytest.mark.parametrize(
    "count", [1000, pytest.param(stress_size(10_000, 2_000), marks=pytest.mark.stress)]
)
def test_many_posts_on_one_connection(
    hub: BroadcastHub, connection: http.client.HTTPConnection, count: int
) -> None:
    """It is kept open; every one is there in order, and the answers' ids are the messages'."""
    with RawClient.connect(
        port=hub.port, path="/r", headers=["Sec-WebSocket-Protocol: broadcast.v1.json"]
    ) as reader:
        assert json.loads(reader.recv_message())["type"] == "welcome"
        connection.connect()
        sock = connection.sock
        ids = []
        for number in range(count):
            status, answer = ask(
                connection, "POST", "/r", b"%d" % number, Content_Type="text/plain"
            )
            assert status == 200
            ids.append(answer["id"])
            message = json.loads(reader.recv_message())
            assert (message["id"], message["data"]) == (answer["id"], str(number))
        assert connection.sock is sock
    places = [parse_id(id) for id in ids]
    assert all(before < after for before, after in itertools.pairwise(places))
    assert hub.stats()["messages"] == count


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (400, b"\xff", {"Content_Type": "text/plain"}),
        (400, b"x", {"Idempotency_Key": "k" * 129}),
        (403, b"x", {"Origin": "https://evil.example"}),
        (413, bytes(1001), {}),
        (415, b"x", {"Content_Type": "text/plain; charset=latin-1"}),
        (415, b"x", {"Content_Encoding": "gzip"}),
        (417, b"x", {"Expect": "miracles"}),
    ],
)
def test_post_that_cannot_be_is_a_problem(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    """With a body that says why, and nothing is published."""
    with running_hub(max_message_bytes=1000) as hub:
        connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=SECONDS)
        found, problem = ask(connection, "POST", "/r", body, **headers)
        connection.close()
        assert (found, problem["status"]) == (status, status)
        assert problem["detail"] and problem["title"]
        assert hub.stats()["messages"] == 0


def test_more_than_the_rate_is_429() -> None:
    """A burst of a second passes; then the publisher is told when to come back."""
    with running_hub(max_rate=2) as hub:
        connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=SECONDS)
        statuses = [ask(connection, "POST", "/r", b"x")[0] for _ in range(2)]
        connection.request("POST", "/r", b"x")
        response = connection.getresponse()
        response.read()
        connection.close()
        assert statuses == [200, 200] and response.status == 429
        assert response.headers["Retry-After"] == "1"


def test_filter_changes_and_refuses_messages() -> None:
    """Of plain clients, of publishers and of clients with events alike; one that fails refuses."""

    def check(message: Message) -> Message | str | None:
        if message.data == "boom":
            raise RuntimeError("made by the test")
        if message.data == "bad":
            return None
        return f"{message.data}!" if message.data == "loud" else message

    with running_hub(filter=check) as hub:
        for data in ("bad", "boom"):
            with pytest.raises(PublishFailed) as caught:
                publish(hub.url + "r", data)
            assert caught.value.status == 403
        publish(hub.url + "r", "loud", name="cron")
        with RawClient.connect(port=hub.port, path="/r") as client:
            for data in ("bad", "quiet", "boom", "loud"):
                client.send(data)
            client.sync()
        found = hub.history("/r")
        assert [message.data for message in found] == ["loud!", "quiet", "loud!"]
        sender = found[0].sender
        assert isinstance(sender, Member) and (sender.id, sender.name) == ("", "cron")


def test_on_message_hears_of_publishers_once() -> None:
    """With the name that they gave; a repeated message is none."""
    heard: list[tuple[Any, str | None]] = []
    with running_hub(on_message=lambda m: heard.append((m.data, m.sender.name))) as hub:
        for _ in range(2):
            publish(hub.url, "x", name="cron", key="k")
    assert heard == [("x", "cron")]


def test_hub_that_stops_refuses_and_says_so() -> None:
    """While a client takes its time to say goodbye: not ready, with a time to come back; who waits
    for the last numbers gets them."""
    # So long it waits for the client's answer, at most.
    with running_hub(close_timeout=30.0) as hub:
        stopper = threading.Thread(target=hub.stop, args=(30.0,))
        assert ask_briefly(hub, "GET", "/healthz") == (200, None, b"ok\n")
        assert ask_briefly(hub, "HEAD", "/healthz") == (200, None, b"")
        with RawClient.connect(port=hub.port) as client:
            client.sync()
            stopper.start()
            assert client.recv_close()[0] == 1001
            assert ask_briefly(hub, "GET", "/healthz") == (503, "5", b"stopping\n")
            assert ask_briefly(hub, "GET", "/-/rooms")[:2] == (503, "5")
            assert ask_briefly(hub, "POST", "/r")[:2] == (503, "5")
            with pytest.raises(HandshakeRefused, match="503"):
                RawClient.connect(port=hub.port)
            status, _, body = ask_briefly(hub, "GET", "/metrics")
            assert status == 200
            assert b'broadcast_refusals_total{reason="stopping"} 3.0' in body
            client.send_close(1001)
            client.recv_eof()
        stopper.join(SECONDS)
        assert not stopper.is_alive()


def test_hub_that_stops_gives_the_answers_it_owes() -> None:
    """Who has published learns that it was accepted, and does not tell it to the next hub again."""
    entered, go_on = threading.Event(), threading.Event()

    def on_message(message: Message) -> None:
        entered.set()
        assert go_on.wait(SECONDS)

    with running_hub(on_message=on_message) as hub, ThreadPoolExecutor(2) as pool:
        posting = pool.submit(ask_briefly, hub, "POST", "/r")
        assert entered.wait(SECONDS)
        # Who came later is seen off later.
        with RawClient.open(port=hub.port) as idle:
            idle.sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            idle.recv_exact(12)
            stopping = pool.submit(hub.stop, SECONDS)
            with contextlib.suppress(EOFError):
                while True:
                    idle.recv_exact(1)
        go_on.set()
        assert posting.result(SECONDS)[0] == 200
        stopping.result(SECONDS)


def test_answer_that_nobody_takes_does_not_hold_up_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is cut off when the time is over."""
    monkeypatch.setattr(endpoints, "MAX_ANSWER_BYTES", 1 << 30)
    with running_hub(room_log_bytes=1 << 24, history=200) as hub:
        for _ in range(200):
            hub.broadcast("x" * (1 << 16), room="/r")
        with RawClient.open(port=hub.port, rcvbuf=4096) as client:
            client.sock.sendall(b"GET /r?history=200 HTTP/1.1\r\nHost: h\r\n\r\n")
            client.recv_exact(12)
            answers = core_of(hub).answers
            assert answers.used > 200 << 16
            hub.stop(0.1)  # conftest.py fails a test that leaves a thread
            assert wait_until(lambda: answers.used == 0)
            client.recv_exact(1)
            with pytest.raises((EOFError, OSError)):
                client.recv_exact(200 << 16)


def test_hub_whose_fan_out_has_failed_is_not_healthy(
    hub: BroadcastHub, connection: http.client.HTTPConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It delivers nothing any more, so whoever watches it must be told."""

    def fail(*_: Any) -> bool:
        raise RuntimeError("made by the test")

    fanout = fanout_of(hub)
    replace_pass(monkeypatch, fanout, fail)
    hub.broadcast("x")
    assert wait_until(lambda: not fanout.is_alive)
    connection.request("GET", "/healthz")
    response = connection.getresponse()
    assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert response.read() == b"failed\n"


# -- Origins, HEAD and curl ---------------------------------------------------------------------

PAGE = "https://page.example"
JSON, EVENTS, HTML = "application/json", "text/event-stream", "text/html"


def answer_to(
    hub: BroadcastHub, method: str, accept: str = "*/*", path: str = "/r", **headers: str
) -> Any:
    """Make a request of a connection of its own; return the answer with ``body`` in it."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=SECONDS)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = b"x" if method in ("POST", "PUT") else None
    connection.request(method, path, body, {"Accept": accept} | named)
    answer: Any = connection.getresponse()
    # A stream does not end.
    is_stream = answer.headers["Content-Type"] == EVENTS and method == "GET"
    answer.found = b"" if is_stream else answer.read()
    answer.close()
    connection.close()
    return answer


@pytest.mark.parametrize(
    ("method", "accept"),
    [("POST", "*/*"), ("PUT", "*/*"), ("GET", JSON), ("HEAD", JSON), ("GET", EVENTS)],
)
def test_page_of_an_allowed_origin_may_ask_and_do(method: str, accept: str) -> None:
    """Its browser's question and then the request itself; for any other page both are refused."""
    with running_hub(allow_origin=(PAGE,)) as hub:
        asked = {"Access_Control_Request_Method": method}
        may = answer_to(hub, "OPTIONS", Origin=PAGE, **asked)
        assert (may.status, may.found) == (204, b"")
        assert may.headers["Access-Control-Allow-Origin"] == PAGE
        assert may.headers["Access-Control-Allow-Methods"] == "GET, POST, PUT"
        named = may.headers["Access-Control-Allow-Headers"].split(", ")
        assert {"Content-Type", "Idempotency-Key", "Last-Event-ID"} <= set(named)
        done = answer_to(hub, method, accept, Origin=PAGE)
        assert (done.status, done.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
        assert "Origin" in done.headers["Vary"]
        published = hub.stats()["messages"]
        for other in ("https://evil.example", "null", "http://"):
            for refused in (
                answer_to(hub, "OPTIONS", Origin=other, **asked),
                answer_to(hub, method, accept, Origin=other),
            ):
                assert refused.status == 403
                assert refused.headers["Access-Control-Allow-Origin"] is None
        assert hub.stats()["messages"] == published == (method in ("POST", "PUT"))
        assert answer_to(hub, "OPTIONS").headers["Allow"] == "GET, HEAD, POST, PUT, OPTIONS"


@pytest.mark.parametrize("accept", [JSON, EVENTS, HTML])
def test_head_is_get_without_the_body(hub: BroadcastHub, accept: str) -> None:
    """RFC 9110 §9.3.2: the same header lines, and nobody has joined."""
    hub.broadcast("3:1", "/r")
    got, asked = (answer_to(hub, method, accept) for method in ("GET", "HEAD"))
    assert (got.status, asked.status, asked.found) == (200, 200, b"")
    # Their times may differ, and a stream ends with its connection.
    for name in ("Content-Type", "Content-Length", "Vary", "Cache-Control", "ETag"):
        if not (name == "Content-Length" and accept == EVENTS):
            assert asked.headers[name] == got.headers[name]
    if accept != EVENTS:
        assert int(asked.headers["Content-Length"]) == len(got.found) > 0
    assert wait_until(lambda: not hub.members("/r"))


def curl(*arguments: str, body: bytes) -> tuple[list[int], str]:
    """Post by curl, which waits for 100 without end; return each status, and what it prints."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("curl is not installed")
    command = [
        program,
        "-sv",
        "--expect100-timeout",
        "300",
        "--data-binary",
        "@-",
        "-w",
        "%{num_connects}\n",
    ]
    result = subprocess.run(
        [*command, *arguments], input=body, capture_output=True, timeout=50, check=True
    )
    statuses = re.findall(rb"^< HTTP/1\.1 (\d+)", result.stderr, re.MULTILINE)
    return [int(status) for status in statuses], result.stdout.decode()


@pytest.mark.parametrize("more", [[], ["-H", "Transfer-Encoding: chunked"]])
def test_curl_that_waits_for_100_gets_it(hub: BroadcastHub, more: list[str]) -> None:
    """Twice on one connection, with a length or in chunks."""
    url = f"http://127.0.0.1:{hub.port}/r"
    body = b"x" * (1 << 20)
    statuses, printed = curl("-H", "Expect: 100-continue", *more, url, url, body=body)
    assert statuses == [100, 200, 100, 200]
    assert re.findall(r"^\d+$", printed, re.MULTILINE) == ["1", "0"]  # connections made
    assert [message.data for message in hub.history("/r")] == [body.decode()] * 2


def test_curl_that_waits_for_100_is_told_413_instead(hub: BroadcastHub) -> None:
    """And keeps what is too big to itself."""
    url = f"http://127.0.0.1:{hub.port}/r"
    body = b"x" * ((1 << 20) + 1)
    assert curl("-H", "Expect: 100-continue", url, body=body)[0] == [413]
    assert hub.stats()["messages"] == 0


# -- Looking -----------------------------------------------------------------------------------


def test_last_messages_can_be_had_as_json(
    hub: BroadcastHub, connection: http.client.HTTPConnection
) -> None:
    """The newest one, so many, or all after an id; what was lost is a gap; no room is made."""
    ids = [hub.broadcast(str(number), "/r").id for number in range(5)]
    _, answer = ask(connection, "GET", "/r", Accept="application/json")
    assert [m["data"] for m in answer["messages"]] == ["4"]
    assert (answer["newest"], answer["gap"]) == (ids[4], None)
    _, answer = ask(connection, "GET", "/r?history=3")
    assert [m["id"] for m in answer["messages"]] == ids[2:]
    _, answer = ask(connection, "GET", f"/r?since={ids[0]}")
    assert [m["id"] for m in answer["messages"]] == ids[1:]
    _, answer = ask(connection, "GET", "/r?since=1-1")
    assert answer["gap"]["reason"] == "restarted" and len(answer["messages"]) == 5
    _, answer = ask(connection, "GET", "/nobody")
    assert answer["messages"] == []
    assert hub.stats()["rooms"] == 1


def test_long_answer_says_from_where_to_go_on(
    hub: BroadcastHub, connection: http.client.HTTPConnection
) -> None:
    """No answer has more than its bound of messages; who goes on gets them all, each once."""
    ids = [hub.broadcast(str(number) * 300_000, "/r").id for number in range(8)]
    path, found = "/r?history=8", []
    for count in (3, 3, 2):
        _, answer = ask(connection, "GET", path)
        found += [message["id"] for message in answer["messages"]]
        assert len(answer["messages"]) == count and answer["newest"] == ids[-1]
        assert len(json.dumps(answer["messages"])) <= endpoints.MAX_ANSWER_BYTES
        assert (answer.get("more"), answer.get("after")) == (
            (True, found[-1]) if count == 3 else (None, None)
        )
        path = f"/r?since={answer.get('after')}"
    assert found == ids
    assert wait_until(lambda: core_of(hub).answers.used == 0)


def test_message_that_is_larger_than_an_answer_comes_alone(
    hub: BroadcastHub, connection: http.client.HTTPConnection
) -> None:
    """Else nobody could go on after it."""
    for _ in range(2):
        hub.broadcast("\x01" * (1 << 20), "/r")
    _, answer = ask(connection, "GET", "/r?history=2")
    assert len(answer["messages"]) == 1 and answer["more"] is True
    _, answer = ask(connection, "GET", f"/r?since={answer['after']}")
    assert len(answer["messages"]) == 1 and "more" not in answer


def test_answer_is_made_of_what_the_log_holds(
    hub: BroadcastHub, connection: http.client.HTTPConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a JSON client got is not made once more, and no entry keeps what was made for an
    answer."""
    made: list[object] = []
    make = encodings.json_event
    monkeypatch.setattr(encodings, "json_event", lambda entry: made.append(entry) or make(entry))
    hub.broadcast("before", "/r")
    with Peer(hub) as peer:
        for number in range(5):
            hub.broadcast(str(number), "/r")
            assert peer.recv()["data"] == str(number)
        assert len(made) == 5
        _, answer = ask(connection, "GET", "/r?history=6")
        assert [m["data"] for m in answer["messages"]] == ["before", *"01234"]
        ask(connection, "GET", "/r?history=6")
    assert len(made) == 7


def test_large_answers_in_hand_have_a_bound_and_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address whose answers wait to be read gets 503; small ones, and those of others, do
    not."""
    monkeypatch.setattr(endpoints, "ANSWER_SECONDS", 0.0)
    with running_hub(trust_proxy=["127.0.0.1"]) as hub:
        hub.broadcast("x" * 10_000, "/r")
        answers = core_of(hub).answers = Budget(100_000, 70_000)

        def look(path: str, address: str) -> int:
            return answer_to(hub, "GET", path=path, X_Forwarded_For=address).status

        claim = Claim(answers, "192.0.2.1")
        assert claim.take(60_000, lambda: False, 0.0)
        assert look("/r", "192.0.2.1") == 503 and look("/r", "192.0.2.2") == 503
        claim.cut_to(30_000)
        assert look("/r", "192.0.2.1") == 503 and look("/r", "192.0.2.2") == 200
        assert look("/empty", "192.0.2.1") == look("/-/rooms", "192.0.2.1") == 200
        claim.give()
        assert look("/r", "192.0.2.1") == 200
        assert wait_until(lambda: answers.used == 0)
        assert core_of(hub).counts().refused == {"busy": 3}


def test_large_bodies_take_a_place_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender without a place in time gets 503 before its body is asked for. Small bodies
    need none, and other senders have theirs."""
    monkeypatch.setattr(endpoints, "PLACE_SECONDS", 0.0)
    with running_hub(trust_proxy=["127.0.0.1"]) as hub:
        places = core_of(hub).incoming
        body = b"x" * 200_000

        def request(address: str, body: bytes, field: str = "") -> bytes:
            field = field or f"Content-Length: {len(body)}"
            lines = ["POST /r HTTP/1.1", "Host: 127.0.0.1", f"X-Forwarded-For: {address}", field]
            return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body

        with contextlib.ExitStack() as stack:
            first = []
            for _ in range(INCOMING_SHARE // len(body)):
                client = stack.enter_context(RawClient.open(port=hub.port))
                client.sock.sendall(request("192.0.2.1", body)[:-100])
                first.append(client)
            assert wait_until(lambda: places.used == len(body) * len(first))
            answer = http_request(hub.port, request("192.0.2.1", body))
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"too many large messages are coming in" in answer
            chunked = b"%x\r\n%s\r\n0\r\n\r\n"
            for address, data in (("192.0.2.1", b"small"), ("192.0.2.2", body)):
                chunks = chunked % (len(data), data)
                for asked in (
                    request(address, data),
                    request(address, chunks, "Transfer-Encoding: chunked"),
                ):
                    assert http_request(hub.port, asked).startswith(b"HTTP/1.1 200 ")
            for client in first:
                client.sock.sendall(body[-100:])
                assert client.sock.recv(12) == b"HTTP/1.1 200"
        assert wait_until(lambda: places.used == 0)
        assert hub.stats()["messages"] == len(first) + 4
        assert core_of(hub).counts().refused == {"busy": 1}


def test_rooms_tell_who_is_where(hub: BroadcastHub, connection: http.client.HTTPConnection) -> None:
    """Rooms with members only, with their names."""
    hub.broadcast("x", "/empty")
    with RawClient.connect(port=hub.port, path="/r?name=ann") as client:
        client.sync()
        _, answer = ask(connection, "GET", "/-/rooms")
        (member,) = hub.members("/r")
        expected = [{"room": "/r", "count": 1, "members": [{"id": member.id, "name": "ann"}]}]
        assert answer == {"rooms": expected}
        assert ask(connection, "GET", "/-/rooms?room=/r")[1]["rooms"] == expected
        assert ask(connection, "GET", "/-/rooms?room=/x")[1]["rooms"] == []


def test_page_and_its_files_are_given_out(hub: BroadcastHub) -> None:
    """To browsers; what they have already is not sent again."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=SECONDS)
    connection.request("GET", "/r", headers={"Accept": "text/html"})
    response = connection.getresponse()
    assert response.status == 200 and b"<html" in response.read()
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]
    assert len(response.headers.get_all("X-Content-Type-Options") or []) == 1
    tag = response.headers["ETag"]
    connection.request("GET", "/r", headers={"Accept": "text/html", "If-None-Match": tag})
    response = connection.getresponse()
    assert (response.status, response.read()) == (304, b"")
    for path, status in (("/-/static/app.css", 200), ("/-/static/nothing.css", 404)):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()
    assert hub.stats()["rooms"] == 0


# -- Streams of events -------------------------------------------------------------------------


def test_stream_has_history_live_messages_and_their_ids(hub: BroadcastHub) -> None:
    """It is a member, gets text and binary, and goes on after the id that it names."""
    first = hub.broadcast("old", "/r")
    with Stream(hub, "/r?history=1&name=desk") as stream:
        assert "200 OK" in stream.head and "text/event-stream" in stream.head
        assert stream.event() == f"id: {first.id}\ndata: old"
        assert [member.name for member in hub.members("/r")] == ["desk"]
        second = hub.broadcast("a\nb", "/r")
        assert stream.event() == f"id: {second.id}\ndata: a\ndata: b"
        third = hub.broadcast(b"\xff", "/r")
        assert stream.event() == f"id: {third.id}\nevent: binary\ndata: /w=="
    assert wait_until(lambda: not hub.members("/r"))
    with Stream(hub, "/r", f"Last-Event-ID: {first.id}") as stream:
        assert stream.event().startswith(f"id: {second.id}\n")
    with Stream(hub, f"/r?format=json&since={second.id}") as stream:
        line = stream.event().split("\n")[1]
        assert json.loads(line.removeprefix("data: "))["data_base64"] == "/w=="


def test_stream_after_an_unknown_id_begins_with_a_gap(hub: BroadcastHub) -> None:
    """An EventSource that was refused would never come back."""
    message = hub.broadcast("x", "/r")
    for last, reason in (("nonsense", "unknown"), ("1-1", "restarted")):
        with Stream(hub, "/r", f"Last-Event-ID: {last}") as stream:
            id_line, kind, data = stream.event().split("\n")
            gap = json.loads(data.removeprefix("data: "))
            assert (kind, gap["reason"], gap["since"]) == ("event: gap", reason, last)
            assert id_line == f"id: {gap['after']}"
            assert stream.event().startswith(f"id: {message.id}\n")


def test_stream_begins_with_the_id_after_which_it_begins(hub: BroadcastHub) -> None:
    """As `after` in ``welcome`` says it: of a new room, of a new reader, before the history, its
    own id where it resumes. Where a gap is, the gap has it."""
    with Stream(hub, "/new") as stream:
        assert stream.after and parse_id(stream.after) <= parse_id(hub.broadcast("x", "/new").id)
    first, second, third = [hub.broadcast(text, "/r").id for text in "abc"]
    elsewhere = hub.broadcast("d", "/other").id
    cases = {
        "/r": third,
        "/r?history=2": first,
        "/r?history=0": third,
        f"/r?since={second}": second,
        f"/r?since={second}&history=1": second,
        # Newer than all that the room has: its own, which is still known when the room is not.
        f"/r?since={elsewhere}": elsewhere,
        "/r?since=1-0": "",
    }
    for path, after in cases.items():
        for form in ("", "&format=json" if "?" in path else "?format=json"):
            with Stream(hub, path + form) as stream:
                assert stream.after == after, path
        offer = ["Sec-WebSocket-Protocol: broadcast.v1.json"]
        with RawClient.connect(port=hub.port, path=path, headers=offer) as client:
            welcome = json.loads(client.recv_message())
            assert after in ("", welcome["after"])


@pytest.mark.parametrize("query", ["", "?history=2"])
def test_stream_that_is_cut_before_its_first_message_loses_nothing(
    hub: BroadcastHub, query: str
) -> None:
    """It comes back with the id with which it began, as an EventSource does, and misses nothing of
    what came meanwhile; so also if it is cut again between that id and what is replayed."""
    old = [hub.broadcast(text, "/r").id for text in ("a", "b")]
    with Stream(hub, f"/r{query}") as stream:
        last = stream.after
    missed = [hub.broadcast(text, "/r").id for text in ("c", "d")]
    for _ in range(2):
        with Stream(hub, f"/r{query}", f"Last-Event-ID: {last}") as stream:
            assert stream.after == last
    with Stream(hub, f"/r{query}", f"Last-Event-ID: {last}") as stream:
        for id in [*(old if query else []), *missed]:
            assert stream.event().startswith(f"id: {id}\n")


def test_stream_that_is_cut_before_a_gap_is_told_again(hub: BroadcastHub) -> None:
    """Nothing before the gap sets another id: the reader comes back with its old one."""
    hub.broadcast("a", "/r")
    for _ in range(2):
        with Stream(hub, "/r", "Last-Event-ID: 1-0") as stream:
            assert stream.after == ""
    with Stream(hub, "/r", "Last-Event-ID: 1-0") as stream:
        assert "event: gap" in stream.event()


def test_quiet_stream_gets_comments_and_the_last_word_is_retry() -> None:
    """A heartbeat for proxies; when the hub stops, a time to come back and the end."""
    with running_hub(ping_interval=0.05) as hub:
        with Stream(hub, "/r") as stream:
            assert stream.event() == ":"
            assert stream.event() == ":"
            hub.stop()
            while (event := stream.event()) == ":":
                pass
            assert event.startswith("retry: ")
            stream.raw.recv_eof()


def test_each_form_is_made_once_however_many_read_it(hub: BroadcastHub) -> None:
    """Four kinds of readers, three of each: one encode for each message and kind."""
    writer = fanout_of(hub).writer
    paths = ["/r", "/r?format=json"]
    plain = [RawClient.connect(port=hub.port, path="/r") for _ in range(3)]
    streams = [Stream(hub, path) for path in paths for _ in range(3)]
    events = []
    for _ in range(3):
        client = RawClient.connect(
            port=hub.port, path="/r", headers=["Sec-WebSocket-Protocol: broadcast.v1.json"]
        )
        events.append(client)
    for number in range(5):
        hub.broadcast(str(number), "/r")
    for client in plain:
        assert [client.recv_message() for _ in range(5)] == list("01234")
    for stream in streams:
        assert "4" in [stream.event() for _ in range(5)][-1]
    for client in events:
        found = []
        while len(found) < 5:
            event = json.loads(client.recv_message())
            if event["type"] == "message":
                found.append(event["data"])
        assert found == list("01234")
    counts = {form.name: count for form, count in writer.encodes.items()}
    assert counts == {"raw": 0, "json": 5, "sse": 5, "sse_json": 5}
    assert hub.stats()["encodes"] == 5
    for each in (*plain, *events):
        each.close()
    for stream in streams:
        stream.raw.close()


def test_request_that_is_no_http_gets_an_answer(hub: BroadcastHub) -> None:
    """And no traceback."""
    assert http_request(hub.port, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
