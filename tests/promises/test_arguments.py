"""What a program gives of a wrong type, or what cannot be sent: an error at the call, by name."""

from __future__ import annotations

import dataclasses
import inspect
import math
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broadcast_server import (
    BroadcastClient,
    BroadcastHub,
    Grant,
    HubStopped,
    InvalidRoom,
    Refusal,
    UsageError,
    publish,
)
from broadcast_server.arguments import check_callable, check_seconds, check_type, utf8
from broadcast_server.settings import Settings

from ..support import run_parent

URL = "ws://127.0.0.1:1/"
SURROGATE = "a\ud800"

HUB = BroadcastHub(port=0)  # neither runs: a wrong type is an error before that is looked at
CLIENT = BroadcastClient(URL)

# Each call with an example of every argument.
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "BroadcastHub": (
        BroadcastHub,
        {
            "host": "127.0.0.1",
            "port": 0,
            "sockets": (),
            "authorize": None,
            "filter": None,
            "on_message": None,
            "on_join": None,
            "on_leave": None,
        },
    ),
    "hub.stop": (HUB.stop, {"timeout": 1.0}),
    "hub.serve_forever": (HUB.serve_forever, {"signals": False}),
    "hub.drain": (HUB.drain, {"timeout": 1.0, "restart": False}),
    "hub.broadcast": (HUB.broadcast, {"data": "x", "room": "/", "timeout": 1.0}),
    "hub.send": (HUB.send, {"client_id": "c1", "data": "x", "timeout": 1.0}),
    "hub.members": (HUB.members, {"room": "/"}),
    "hub.history": (HUB.history, {"room": "/", "count": 1}),
    "hub.disconnect": (HUB.disconnect, {"client_id": "c1", "code": 1000, "reason": ""}),
    "BroadcastClient": (
        BroadcastClient,
        {
            "url": URL,
            "name": "a",
            "since": "1-0",
            "history": 0,
            "token": "t",
            "presence": False,
            "reconnect": True,
            "max_reconnect_delay": 1.0,
            "headers": {},
            "ca_file": None,
            "insecure": False,
            "cert_file": None,
            "key_file": None,
            "ssl_context": None,
            "wait": 0.0,
            "open_timeout": 1.0,
            "close_timeout": 1.0,
            "max_message_bytes": 10,
            "max_queued_bytes": 10,
            "on_state": None,
            "on_error": None,
        },
    ),
    "client.send": (CLIENT.send, {"data": "x", "timeout": 1.0, "key": "k"}),
    "client.publish": (CLIENT.publish, {"data": "x", "timeout": 1.0, "key": "k"}),
    "client.rename": (CLIENT.rename, {"name": "a", "timeout": 1.0}),
    "client.who": (CLIENT.who, {"timeout": 1.0}),
    "client.recv": (CLIENT.recv, {"timeout": 1.0}),
    "client.close": (
        CLIENT.close,
        {"code": 1000, "reason": "", "timeout": 1.0, "keep_reading": False},
    ),
    "publish": (
        publish,
        {
            "url": URL,
            "data": "x",
            "name": "a",
            "key": "k",
            "token": "t",
            "ca_file": None,
            "insecure": False,
            "cert_file": None,
            "key_file": None,
            "ssl_context": None,
            "timeout": 1.0,
            "wait": 0.0,
        },
    ),
    "Grant": (Grant, {"name": "a", "subscribe": (), "publish": (), "expires": 1.0}),
    "Refusal": (Refusal, {"status": 403, "text": "no", "headers": (), "reason": ""}),
}
ARGUMENTS = [(call, name) for call, (_, given) in CALLS.items() for name in given]
# Of these None says nothing, or is the default.
NONE = {"name", "since", "token", "ca_file", "key", "on_state", "on_error", "count", "subscribe"}
NONE |= {"on_message", "on_join", "on_leave", "filter", "authorize", "publish", "expires"}
NONE |= {"headers of BroadcastClient", "timeout of hub.stop", "timeout of hub.drain"}
NONE |= {f"timeout of client.{call}" for call in ("send", "publish", "rename", "who", "recv")}
NONE |= {"timeout of client.close", "cert_file", "key_file", "ssl_context"}
# What none of them may be.
WRONG: list[Any] = [object(), b"x", 5, 1.5, True, "x", ["x"], {"A": 1}, None]


@pytest.fixture(scope="module", autouse=True)
def client_never_connects() -> Iterator[None]:
    """The client of the table does not outlive it."""
    yield
    CLIENT.close()


def may_be(call: str, name: str, value: object) -> bool:
    """Tell whether an argument may have a value's type, by the type of its example."""
    example = CALLS[call][1][name]
    if value is None:
        return name in NONE or f"{name} of {call}" in NONE
    if isinstance(value, bool) or isinstance(example, bool):
        return isinstance(value, bool) and isinstance(example, bool)
    if name == "data":
        return isinstance(value, (str, bytes))
    if name in ("host", "ca_file", "cert_file", "key_file"):
        return isinstance(value, str) or (name == "host" and isinstance(value, (list, dict)))
    if name in ("subscribe", "publish"):
        return value == ["x"]
    if isinstance(example, float):
        return isinstance(value, (int, float))
    return type(value) is type(example) and value != {"A": 1}


def test_every_argument_is_tried_here() -> None:
    """One that is added is checked, and added here."""
    for call, (function, given) in CALLS.items():
        named = set(inspect.signature(function).parameters) - {"settings"}
        assert set(given) == named, call
    for prefix, kind in ("hub", BroadcastHub), ("client", BroadcastClient):
        methods = {
            f"{prefix}.{name}"
            for name, value in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and len(inspect.signature(value).parameters) > 1
        }
        assert methods == {call for call in CALLS if call.startswith(prefix + ".")}


@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_wrong_type_is_a_type_error_at_the_call(call: str, name: str) -> None:
    """It names the argument, whether there is a connection or not."""
    function, given = CALLS[call]
    wrong = [value for value in WRONG if not may_be(call, name, value)]
    assert len(wrong) >= 3
    if name in ("ca_file", "insecure", "cert_file", "key_file", "ssl_context"):
        given = {**given, "url": "wss://127.0.0.1:1/"}
    for value in wrong:
        with pytest.raises(TypeError, match=rf"\b{name.removesuffix('s')}") as caught:
            function(**{**given, name: value})
        assert type(caught.value) is TypeError and "got an unexpected" not in str(caught.value)


@pytest.mark.parametrize("value", [5, "5", object(), [5], b"5"])
def test_every_setting_of_a_wrong_type_is_a_type_error(value: Any) -> None:
    """As an argument is; the type is told, the value of a secret is not."""
    for field in dataclasses.fields(Settings):
        kinds = str(field.type)
        kind = type(value).__name__
        if kind in kinds or (kind == "int" and "float" in kinds) or (kind == "list"):
            continue
        with pytest.raises(TypeError, match=f"^{field.name} must be "):
            BroadcastHub(**{field.name: value})


@pytest.mark.parametrize(
    ("call", "name"), [(call, name) for call, name in ARGUMENTS if name == "timeout"]
)
def test_timeout_that_is_not_a_number_is_a_usage_error(call: str, name: str) -> None:
    """To wait until NaN would be to wait for ever."""
    function, given = CALLS[call]
    with pytest.raises(UsageError, match="timeout"):
        function(**{**given, name: math.nan})


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (call, name)
        for call, name in ARGUMENTS
        if isinstance(CALLS[call][1][name], str)
        and call not in ("Grant", "Refusal")
        and name != "client_id"  # which is looked for, and not sent
    ],
)
def test_lone_surrogate_is_the_same_error_everywhere(call: str, name: str) -> None:
    """A text that UTF-8 cannot carry is a mistake of the caller, wherever it stands."""
    function, given = CALLS[call]
    text = given[name] + SURROGATE
    with BroadcastHub(port=0) as hub, BroadcastClient(hub.url) as client:
        owner: Any = {HUB: hub, CLIENT: client}.get(getattr(function, "__self__", None))
        if owner is not None:
            function = getattr(owner, function.__name__)
        with pytest.raises(UsageError) as caught:
            function(**{**given, name: text})
    assert not isinstance(caught.value, UnicodeError)


def test_lone_surrogate_in_a_header_is_that_error_too() -> None:
    """In its name as in its value."""
    for headers in {"A": SURROGATE}, {SURROGATE: "A"}:
        with pytest.raises(UsageError):
            BroadcastClient(URL, headers=headers)


@pytest.mark.parametrize("name", ["", "a b", "a:", "ä"])
def test_header_has_a_name(name: str) -> None:
    """Else the request would be one that nobody understands (RFC 9110 §5.1)."""
    with pytest.raises(UsageError, match="not the name of a header"):
        BroadcastClient(URL, headers={name: "x"})


def test_running_hub_refuses_what_is_no_room_or_member() -> None:
    """Where it has said before that nobody is there, and that nothing was sent."""
    with BroadcastHub(port=0) as hub, BroadcastClient(hub.url, presence=True) as client:
        (member,) = hub.members()
        for call in hub.members, hub.history, lambda room: hub.broadcast("x", room):
            for room in "scores", "", "/a//b", "/-/x", "/a\n":
                with pytest.raises(InvalidRoom):
                    call(room)
        for call in lambda who: hub.send(who, "x"), hub.disconnect:
            with pytest.raises(TypeError, match="client_id must be str, not Member: give the mem"):
                call(member)
        with pytest.raises(UsageError, match="count must be at least 0"):
            hub.history(count=-1)
        assert hub.send(member.id, "x") and not hub.send("nobody", "x")
        assert [item for item in (client.recv(10), client.recv(10)) if hasattr(item, "data")]


def test_address_in_use_is_told_with_its_port() -> None:
    """Another program may have the same address with another port, which is no trouble."""
    with BroadcastHub(port=0) as hub:
        for host, shown in ("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"):
            with pytest.raises(OSError, match=f"in use: '{shown}:{hub.port}'"):
                BroadcastHub(host, hub.port).start()


def test_sockets_must_be_tcp_and_listen() -> None:
    """The accept thread would fail later, where only the log tells."""
    with socket.socket() as bound, socket.socket(type=socket.SOCK_DGRAM) as udp:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(UsageError, match="does not listen"):
            BroadcastHub(sockets=[bound])
        with pytest.raises(UsageError, match="not a TCP socket"):
            BroadcastHub(sockets=[udp])
    with pytest.raises(UsageError, match="is closed"):
        BroadcastHub(sockets=[bound])
    left, right = socket.socketpair()
    with left, right, pytest.raises(UsageError, match="not a TCP socket"):
        BroadcastHub(sockets=[left])


def test_refusal_takes_a_list_of_headers() -> None:
    """The answer has them behind those of its own."""
    refusal = Refusal(403, "no", [("Retry-After", "5")])  # type: ignore[arg-type]
    assert refusal.with_headers((("A", "b"),)).headers == (("Retry-After", "5"), ("A", "b"))
    for headers in [("A",)], [("A", 5)], ["ab"], [("A", "b", "c")]:
        with pytest.raises(TypeError, match="header"):
            Refusal(403, "no", headers)  # type: ignore[arg-type]


def test_forked_child_is_told_that_the_hub_is_its_parents() -> None:
    """It has the object, but none of the threads; it can start a hub of its own."""
    run_parent(
        """
import os
from broadcast_server import BroadcastHub, HubStopped
with BroadcastHub(port=0) as hub:
    child = os.fork()
    if not child:
        try:
            for call in (lambda: hub.broadcast("x"), hub.members, hub.history, hub.rooms,
                         hub.stats, hub.reload, lambda: hub.send("c1", "x"),
                         lambda: hub.disconnect("c1")):
                try:
                    call()
                except HubStopped as error:
                    assert "parent process" in str(error), error
                else:
                    os._exit(1)
            hub.start()
            hub.broadcast("x")
            hub.stop()
            try:
                hub.broadcast("x")
            except HubStopped as error:
                assert "parent" not in str(error), error
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    hub.broadcast("x")
print("parent is well")
"""
    )


def test_hub_that_does_not_run_says_so() -> None:
    """That it is the parent's is told in a child only."""
    with pytest.raises(HubStopped, match="does not run"):
        HUB.members()


def test_check_type_names_the_types() -> None:
    """A bool is a number to Python, and a mistake here."""
    check_type("n", 5, (int,))
    check_type("n", None, (int, None))
    for value, shown in (True, "bool"), ("5", "str"), (None, "None"):
        with pytest.raises(TypeError, match=f"^n must be int or float, not {shown}$"):
            check_type("n", value, (int, float))
    with pytest.raises(TypeError, match=r"^f must be callable or None, not int$"):
        check_callable("f", 5)
    check_callable("f", print)
    check_seconds("t", None)
    check_seconds("t", math.inf)
    with pytest.raises(TypeError, match=r"^t must be a number of seconds, not None$"):
        check_seconds("t", None, optional=False)
    assert utf8("t", "ä") == b"\xc3\xa4"
