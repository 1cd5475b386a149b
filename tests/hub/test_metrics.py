"""``/metrics`` on a real hub, read with Prometheus' own parsers."""

from __future__ import annotations

import ast
import http.client
import json
import pathlib
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

import prometheus_client
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

import broadcast_server
from broadcast_server import BroadcastHub, PublishFailed, publish
from broadcast_server.hub import endpoints, metrics

from ..support import (
    ROOT,
    HandshakeRefused,
    RawClient,
    http_request,
    run_python,
    running_hub,
    upgrade_request,
    wait_until,
)
from ..support.event_stream import Stream
from ..support.inside import core_of
from ..support.json_peer import Peer

SECONDS = 10.0
PAGE = (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
CLOSING = ["Connection: close"]
JSON_CLIENT = ["Sec-WebSocket-Protocol: broadcast.v1.json"]


def ask(
    hub: BroadcastHub, method: str = "GET", path: str = "/metrics", **headers: str
) -> tuple[http.client.HTTPResponse, str]:
    """Make a request on a connection of its own; return the answer and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=SECONDS)
    try:
        connection.request(
            method, path, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )
        response = connection.getresponse()
        return response, response.read().decode()
    finally:
        connection.close()


def families(hub: BroadcastHub) -> dict[str, Metric]:
    """Return what a hub exports, by name, from its OpenMetrics text."""
    response, text = ask(hub, Accept=OPENMETRICS)
    assert response.status == 200
    return {family.name: family for family in openmetrics.text_string_to_metric_families(text)}


def values(hub: BroadcastHub) -> dict[str, float]:
    """Return every value that a hub exports, such as ``disconnects_total 1001``, in its text
    format."""
    response, text = ask(hub)
    assert response.status == 200
    return {
        " ".join([sample.name.removeprefix("broadcast_"), *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(hub: BroadcastHub, name: str) -> float:
    """Return one of them."""
    return values(hub)[name]


# -- The page ----------------------------------------------------------------------------------


def listed(head: str) -> list[list[str]]:
    """Return the rows of the page's tables whose first column has that head."""
    rows = []
    inside = False
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if cells[0] == head:
            inside = True
        elif inside and not cells[0].startswith("---"):
            rows.append(cells)
    return rows


def unit_of(name: str) -> str:
    """Return the unit that a name ends with."""
    return next((u for u in ("bytes", "seconds") if name.removesuffix("_total").endswith(u)), "")


def test_page_lists_exactly_what_a_hub_exports(hub: BroadcastHub) -> None:
    """Name, type, labels and unit of each, both ways; every name in an alert is one of them."""
    exported = []
    for family in families(hub).values():
        name = family.name + "_total" * (family.type == "counter")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        unit = unit_of(name)
        kind = family.type + f" of {unit}" * bool(unit)
        kind += f" by {', '.join(f'`{label}`' for label in sorted(labels))}" * bool(labels)
        exported.append([name, kind.strip("`")])
        # The unit is told by the library's own process collector in the name only.
        assert family.unit == ("" if name.startswith("process_") else unit_of(name))
        assert family.documentation
    assert sorted(row[:2] for row in listed("metric")) == sorted(exported)
    names = {row[0] for row in exported}
    used = set(re.findall(r"\b(?:broadcast|process)_[a-z_]+", PAGE))
    assert {name.removesuffix("_bucket") for name in used} == names


def reasons_in_the_code() -> set[str]:
    """Return every reason that stands in the package."""
    found = set()
    for path in pathlib.Path(broadcast_server.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            given: list[ast.expr] = []
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("count_refusal"):
                given = node.args
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "Refusal":
                given = [*node.args[3:], *(k.value for k in node.keywords if k.arg == "reason")]
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "NoRoom":
                given = node.args[1:]
            for constant in (part for argument in given for part in ast.walk(argument)):
                if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                    found.add(constant.value)
    return found


def test_every_reason_of_a_refusal_is_listed(hub: BroadcastHub) -> None:
    """Those in the code, those on the page, and those that are 0 before the first are the same."""
    assert reasons_in_the_code() == set(metrics.REFUSALS)
    assert [row[0] for row in listed("reason")] == sorted(metrics.REFUSALS)
    exported = {sample.labels["reason"] for sample in families(hub)["broadcast_refusals"].samples}
    assert exported == set(metrics.REFUSALS)


# -- Values ------------------------------------------------------------------------------------


def test_known_traffic_gives_exact_counts() -> None:
    """Three clients, four messages and one that comes twice; the same numbers as ``stats``."""
    with running_hub() as hub:
        clients = [RawClient.connect(port=hub.port, path="/r") for _ in range(3)]
        for number in range(3):
            clients[0].send(f"abc{number}")
        for client in clients[1:]:
            assert [client.recv_message() for _ in range(3)] == ["abc0", "abc1", "abc2"]
        for _ in range(2):
            publish(hub.url + "r", b"binary", key="k")
        for client in clients:
            assert client.recv_message() == b"binary"
        assert wait_until(lambda: value(hub, "deliveries_total") == 9)
        found = values(hub)
        stats = hub.stats()
        assert found["messages_total"] == stats["messages"] == 4
        assert found["duplicates_total"] == 1
        assert found["deliveries_total"] == stats["deliveries"]
        # Frames of a server have two bytes of head here. A repeated message is taken, not sent.
        assert found["received_bytes_total"] == 3 * 6 + 2 * 8
        assert found["sent_bytes_total"] == stats["bytes_out"] == 2 * 3 * 6 + 3 * 8
        assert found["encodes_total raw"] == stats["encodes"] == 5
        assert found["sends_total"] == stats["sends"]
        assert found["clients"] == stats["clients"] == 3
        assert found["rooms"] == stats["rooms"] == 1
        assert found["log_bytes"] == stats["log_bytes"] == 3 * 6 + 8 + 4 * 256
        assert found["evictions_total"] == found["fanout_lag_bytes"] == 0
        assert found["clients_limit"] == found["rooms_limit"] == 10_000
        assert found["log_limit_bytes"] == 256 << 20
        for client in clients:
            client.leave()
        assert wait_until(lambda: value(hub, "disconnects_total 1000") == 3)
        assert value(hub, "clients") == 0 and value(hub, "rooms") == 1


def test_encodes_are_counted_for_each_form(hub: BroadcastHub) -> None:
    """One for each message, however many clients get it in that form."""
    clients = [RawClient.connect(port=hub.port, headers=JSON_CLIENT) for _ in range(2)]
    for number in range(3):
        hub.broadcast(str(number))
    for client in clients:
        while json.loads(client.recv_frame()[2]).get("data") != "2":
            pass
    forms = ("raw", "json", "sse", "sse_json")
    assert wait_until(lambda: value(hub, "deliveries_total") == 6)
    found = values(hub)
    assert [found[f"encodes_total {form}"] for form in forms] == [3, 3, 0, 0]
    for client in clients:
        client.close()


def test_passes_are_a_histogram(hub: BroadcastHub) -> None:
    """Every pass is in one bucket, in the sum and in the count."""
    with RawClient.connect(port=hub.port) as client:
        for number in range(20):
            hub.broadcast(str(number))
            assert client.recv_message() == str(number)
    fanout = core_of(hub).fanout
    assert wait_until(lambda: value(hub, "clients") == 0)
    found = values(hub)
    count = found["fanout_pass_seconds_count"]
    assert count == sum(fanout.passes) >= 20
    assert found["fanout_pass_seconds_bucket +Inf"] == count
    assert found["fanout_pass_seconds_sum"] == pytest.approx(fanout.pass_seconds)
    (family,) = (f for f in families(hub).values() if f.type == "histogram")
    buckets = [sample.value for sample in family.samples if "le" in sample.labels]
    assert buckets == sorted(buckets) and len(buckets) == len(fanout.passes)


def test_lag_is_told_for_all_rooms_and_the_worst(hub: BroadcastHub) -> None:
    """What the fan-out still has to offer: a place that is kept counts from then on."""
    rooms = core_of(hub).rooms
    for path, cost in (("/a", 1000), ("/b", 500)):
        assert rooms.open(path).reserve(cost, None, lambda: False)
    found = values(hub)
    assert (found["fanout_lag_bytes"], found["fanout_lag_max_bytes"]) == (1500, 1000)
    rooms.open("/a").release(1000)
    rooms.open("/b").release(500)
    found = values(hub)
    assert (found["fanout_lag_bytes"], found["fanout_lag_max_bytes"]) == (0, 0)


def test_disconnects_are_counted_by_code(hub: BroadcastHub) -> None:
    """Codes of the RFC each, all that a client can make up together: labels stay few."""
    for code in (1000, 1000, 1008, 3000, 4321, 4999):
        RawClient.connect(port=hub.port).leave(code)
    with RawClient.connect(port=hub.port) as client:
        client.send_frame(8)
        assert client.recv_close()[0] == 1005
    with RawClient.connect(port=hub.port) as client:
        client.send_frame(2, b"x", rsv=1)
        assert client.recv_close()[0] == 1002
    client = RawClient.connect(port=hub.port)
    client.sync()
    client.reset()
    expected = {"1000": 2, "1002": 1, "1005": 1, "1006": 1, "1008": 1, "other": 3}

    def ended() -> dict[str, float]:
        samples = families(hub)["broadcast_disconnects"].samples
        return {sample.labels["code"]: sample.value for sample in samples if sample.value}

    assert wait_until(lambda: ended() == expected), ended()
    # What has not happened yet is 0, so that the first of its kind is seen as an increase.
    assert value(hub, "disconnects_total 1013") == 0


def test_reader_of_a_stream_that_leaves_counts_as_1000() -> None:
    """A reader of server-sent events cannot send a Close, so its end is a normal one."""
    left: list[tuple[int, str]] = []
    with running_hub(on_leave=lambda member, code, reason: left.append((code, reason))) as hub:
        with Stream(hub, "/r"):
            assert len(hub.members("/r")) == 1
        assert wait_until(lambda: left == [(1000, "")]), left
        assert value(hub, "disconnects_total 1000") == 1


def test_evictions_are_counted() -> None:
    """A client that does not read, once in the one and once in the other counter."""
    with running_hub(room_log_bytes=4 << 20, close_timeout=0.2) as hub:
        with RawClient.connect(port=hub.port, rcvbuf=4096):
            while hub.stats()["evictions"] == 0:
                hub.broadcast(bytes(100_000))
            assert wait_until(lambda: value(hub, "disconnects_total 1013") == 1)
        assert value(hub, "evictions_total") == 1


# -- Refusals ----------------------------------------------------------------------------------


def refuse_origin(hub: BroadcastHub) -> None:
    with pytest.raises(HandshakeRefused, match="403"):
        RawClient.connect(port=hub.port, headers=["Origin: http://elsewhere.example"])


def refuse_malformed(hub: BroadcastHub) -> None:
    answer = http_request(hub.port, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")


def refuse_client(hub: BroadcastHub) -> None:
    with RawClient.connect(port=hub.port), pytest.raises(HandshakeRefused, match="503"):
        RawClient.connect(port=hub.port)


def refuse_slow(hub: BroadcastHub) -> None:
    assert http_request(hub.port, b"GET / HT").startswith(b"HTTP/1.1 408")


def post(hub: BroadcastHub, path: str, body: bytes) -> int:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    answer = http_request(hub.port, head.encode() + b"Connection: close\r\n\r\n" + body)
    return int(answer.split(b" ")[1])


def refuse_room(hub: BroadcastHub) -> None:
    with RawClient.connect(port=hub.port, path="/r"):
        assert post(hub, "/other", b"x") == 503


def refuse_joining_a_room(hub: BroadcastHub) -> None:
    with RawClient.connect(port=hub.port, path="/r"), pytest.raises(HandshakeRefused, match="503"):
        RawClient.connect(port=hub.port, path="/other")


def refuse_key(hub: BroadcastHub) -> None:
    publish(hub.url, "x", key="k")
    with pytest.raises(PublishFailed, match="key_reused"):
        publish(hub.url, "y", key="k")


def refuse_key_of_event(hub: BroadcastHub) -> None:
    publish(hub.url, "x", key="k")
    with Peer(hub, "/") as peer:
        peer.send(type="send", data="y", key="k")
        assert peer.recv()["code"] == "key_reused"


def refuse_fast(hub: BroadcastHub) -> None:
    assert [post(hub, "/", b"x") for _ in range(2)] == [200, 429]


def refuse_big(hub: BroadcastHub) -> None:
    assert post(hub, "/", bytes(65)) == 413


def refuse_big_event(hub: BroadcastHub) -> None:
    with RawClient.connect(port=hub.port, headers=JSON_CLIENT) as client:
        assert json.loads(client.recv_frame()[2])["type"] == "welcome"
        client.send(json.dumps({"type": "send", "data": "x" * 65}))
        assert json.loads(client.recv_frame()[2])["code"] == "too_big"


def refuse_by_filter(hub: BroadcastHub) -> None:
    assert post(hub, "/", b"x") == 403


def refuse_behind(hub: BroadcastHub) -> None:
    room = core_of(hub).rooms.open("/r")
    cost = room.ring_bytes
    assert room.reserve(cost, None, lambda: False)
    assert post(hub, "/r", b"x") == 503
    room.release(cost)


def refuse_waiting(hub: BroadcastHub) -> None:
    with RawClient.open(port=hub.port) as first, RawClient.connect(port=hub.port):
        first.recv_eof()


def refuse_host(hub: BroadcastHub) -> None:
    answer = http_request(hub.port, upgrade_request(host="evil.example", headers=CLOSING))
    assert answer.startswith(b"HTTP/1.1 421 ")


def refuse_forwarded(hub: BroadcastHub) -> None:
    answer = http_request(hub.port, upgrade_request(headers=["X-Forwarded-For: x", *CLOSING]))
    assert answer.startswith(b"HTTP/1.1 400 ")


def refuse_address(hub: BroadcastHub) -> None:
    with RawClient.connect(port=hub.port), pytest.raises(HandshakeRefused, match="429"):
        RawClient.connect(port=hub.port)


def refuse_fragments(hub: BroadcastHub) -> None:
    with RawClient.connect(port=hub.port) as client:
        for opcode in (1, 0):
            client.send_frame(opcode, b"x", fin=False)
        assert client.recv_close()[0] == 1009


def refuse_header(hub: BroadcastHub) -> None:
    answer = http_request(hub.port, upgrade_request(headers=["X: " + "x" * 300]))
    assert answer.startswith(b"HTTP/1.1 431 ")


def refuse_big_frame(hub: BroadcastHub) -> None:
    with RawClient.connect(port=hub.port) as client:
        client.send(bytes(65))
        assert client.recv_close()[0] == 1009


def hold_back(hub: BroadcastHub) -> None:
    with RawClient.connect(port=hub.port) as client:
        client.send("x")
        assert wait_until(lambda: core_of(hub).refused["rate"] > 0)


def hold_pings_back(hub: BroadcastHub) -> None:
    with RawClient.connect(port=hub.port) as client:
        client.send_frame(9)
        assert wait_until(lambda: core_of(hub).refused["control_rate"] > 0)


@pytest.mark.parametrize(
    ("reason", "refuse", "settings"),
    [
        ("origin", refuse_origin, {}),
        ("bad_request", refuse_malformed, {}),
        ("max_clients", refuse_client, {"max_clients": 1}),
        ("timeout", refuse_slow, {"handshake_timeout": 0.1}),
        ("max_rooms", refuse_room, {"max_rooms": 1}),
        ("max_rooms", refuse_joining_a_room, {"max_rooms": 1}),
        ("rate", refuse_fast, {"max_rate": 0.001}),
        ("too_big", refuse_big, {"max_message_bytes": 64}),
        ("too_big", refuse_big_event, {"max_message_bytes": 64}),
        ("filter", refuse_by_filter, {"filter": lambda message: None}),
        ("filter", refuse_by_filter, {"filter": lambda message: 1}),
        ("filter", refuse_by_filter, {"filter": lambda message: 1 / 0}),
        ("filter", refuse_by_filter, {"filter": lambda message: "\ud800"}),
        ("busy", refuse_behind, {}),
        ("key_reused", refuse_key, {}),
        ("key_reused", refuse_key_of_event, {}),
        ("too_big", refuse_big_frame, {"max_message_bytes": 64}),
        ("handshake_slots", refuse_waiting, {"max_handshakes": 1}),
        ("host", refuse_host, {}),
        ("forwarded", refuse_forwarded, {"trust_proxy": ["127.0.0.1"]}),
        ("per_address", refuse_address, {"max_clients_per_address": 1}),
        ("rooms_per_address", refuse_room, {"max_rooms_per_address": 1}),
        ("rooms_per_address", refuse_joining_a_room, {"max_rooms_per_address": 1}),
        ("max_fragments", refuse_fragments, {"max_fragments": 1}),
        ("max_header_bytes", refuse_header, {"max_header_bytes": 256}),
        ("rate", hold_back, {"max_rate": 0.1}),
        ("control_rate", hold_pings_back, {"max_control_rate": 0.1}),
    ],
)
def test_refusal_is_counted_once(
    reason: str,
    refuse: Callable[[BroadcastHub], None],
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under its own reason and no other."""
    monkeypatch.setattr(endpoints, "PUBLISH_SECONDS", 0.05)
    with running_hub(**settings) as hub:
        refuse(hub)
        assert core_of(hub).counts().refused == {reason: 1}
        text = metrics.expose(core_of(hub), "")[0].decode()
        assert f'broadcast_refusals_total{{reason="{reason}"}} 1.0' in text


# -- The request -------------------------------------------------------------------------------


def test_text_and_openmetrics_are_chosen_by_accept(hub: BroadcastHub) -> None:
    """As Prometheus asks for them; caches are told."""
    response, text = ask(hub, Accept=OPENMETRICS)
    assert str(response.headers["Content-Type"]).startswith(OPENMETRICS)
    assert text.endswith("# EOF\n")
    response, text = ask(hub)
    assert str(response.headers["Content-Type"]).startswith("text/plain; version=0.0.4")
    assert "# EOF" not in text
    assert response.headers["Vary"] == "Accept"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=new", "text/plain;version=1.x", ";=,;", "é"]
)
def test_odd_accept_gets_an_answer(hub: BroadcastHub, accept: str) -> None:
    """In one of the formats; older libraries look at no version, newer ones stumble."""
    response, text = ask(hub, Accept=accept)
    assert response.status == 200
    assert re.match(r"text/plain|application/openmetrics-text", response.headers["Content-Type"])
    assert "broadcast_messages_total 0.0\n" in text


def test_head_has_no_body(hub: BroadcastHub) -> None:
    """But the headers of the body that GET would get."""
    response, text = ask(hub, "HEAD")
    assert (response.status, text) == (200, "")
    assert int(response.headers["Content-Length"]) > 1000


def test_foreign_page_may_not_read_metrics() -> None:
    """The rule for origins holds; whom it lets in may read the answer."""
    with running_hub(allow_origin=("https://ops.example",)) as hub:
        response, _ = ask(hub, Origin="https://elsewhere.example")
        assert response.status == 403
        response, _ = ask(hub, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")
        assert response.status == 403
        response, _ = ask(hub, Origin=f"http://127.0.0.1:{hub.port}")
        assert response.status == 200
        response, _ = ask(hub, Origin="https://ops.example")
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == "https://ops.example"
        assert response.headers["Vary"] == "Accept, Origin"
        assert value(hub, "refusals_total origin") == 2


def test_hubs_in_one_process_do_not_mix() -> None:
    """Each has its own numbers, begins anew at a start, and leaves the global registry alone."""
    with running_hub() as one, running_hub() as two:
        one.broadcast("x")
        assert value(one, "messages_total") == 1
        assert value(two, "messages_total") == 0
        assert core_of(one).registry is not core_of(two).registry
    one.start()
    assert value(one, "messages_total") == 0
    one.stop()
    text = prometheus_client.generate_latest().decode()
    assert "broadcast_" not in text


def test_looking_while_messages_pass_is_safe(hub: BroadcastHub) -> None:
    """Counters never go back, however many look while rooms and clients come and go."""
    failures: list[str] = []

    def look() -> None:
        before: dict[str, float] = {}
        for _ in range(15):
            now = values(hub)
            for name, number in before.items():
                if name.partition(" ")[0].endswith(("_total", "_count")) and now[name] < number:
                    failures.append(name)
            before = now

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    number = 0
    while any(thread.is_alive() for thread in threads):
        number += 1
        with RawClient.connect(port=hub.port, path=f"/{number}") as client:
            hub.broadcast("x", f"/{number}")
            assert client.recv_message() == "x"
    for thread in threads:
        thread.join(SECONDS)
    assert failures == []
    assert wait_until(lambda: value(hub, "deliveries_total") == number)


# -- The library -------------------------------------------------------------------------------


def test_hub_without_the_library_says_so(
    hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """501 and a sentence; all else works."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    response, text = ask(hub)
    assert response.status == 501
    assert "prometheus-client is not installed" in json.loads(text)["detail"]
    with RawClient.connect(port=hub.port) as client:
        hub.broadcast("x")
        assert client.recv_message() == "x"


def test_library_is_imported_when_somebody_asks() -> None:
    """A hub that nobody asks does not pay for it."""
    program = """
import sys, urllib.request
from broadcast_server import BroadcastHub
with BroadcastHub(port=0) as hub:
    hub.broadcast("x")
    hub.stats()
    assert "prometheus_client" not in sys.modules
    url = hub.url.replace("ws:", "http:") + "metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert b"broadcast_messages_total 1.0" in answer.read()
    assert "prometheus_client" in sys.modules
"""
    result = run_python(program)
    assert result.returncode == 0, result.stderr
