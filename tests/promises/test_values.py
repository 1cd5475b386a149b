"""What programs hand on: exceptions and values, between processes, threads and tools."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import broadcast_server
from broadcast_server import (
    AccessError,
    AccessRequest,
    BroadcastClient,
    BroadcastHub,
    BroadcastServerError,
    ConnectFailed,
    ConnectionClosed,
    Gap,
    Grant,
    HubBusy,
    HubError,
    HubStopped,
    InvalidRoom,
    Member,
    Message,
    MessagesLost,
    MessageTooBig,
    Presence,
    ProtocolError,
    PublishFailed,
    Refusal,
    SendRefused,
    TlsError,
    UsageError,
)

from ..support import run_python

MEMBER = Member("7", "ann", "/a", "127.0.0.1:5000")
TIME = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)

# Of each kind one with every attribute, and one with as few as may be.
ERRORS: list[BroadcastServerError] = [
    *(
        kind("not now\n")
        for kind in (
            *(BroadcastServerError, HubError, HubStopped, HubBusy, AccessError),
            *(UsageError, MessageTooBig, InvalidRoom, TlsError),
        )
    ),
    ProtocolError(1007, "text is not UTF-8"),
    ConnectFailed("no answer"),
    ConnectFailed("refused", 503, 2.5, untrusted=True),
    ConnectionClosed(1000),
    ConnectionClosed(1013, "since=5-0"),
    MessagesLost("trimmed", "1-0", "9-3"),
    SendRefused("refused", "not here"),
    SendRefused("too_big", "x", b"\x00\xff"),
    PublishFailed("no answer"),
    PublishFailed("too many", 429, 0.5, message="cannot publish to x: too many"),
]
VALUES: list[Any] = [
    MEMBER,
    Message("x", "/a", MEMBER, TIME, "1-0"),
    Message(b"x", "/a", None, TIME, None),
    Presence("members", None, 1, (MEMBER,), None),
    Gap("trimmed", "1-0", "9-3"),
    Grant("ann", ("/a",), (), 12.5),
    AccessRequest("subscribe", "/a", "secret", "127.0.0.1:5000", (("cookie", "a=b"),)),
    Refusal(403, "no", (("Retry-After", "5"),), "access"),
]

WAYS: dict[str, Callable[[Any], Any]] = {
    **{
        f"pickle {protocol}": lambda it, protocol=protocol: pickle.loads(pickle.dumps(it, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    # What tools do that send an exception as JSON: its class by name, and its arguments.
    "arguments": lambda it: type(it)(*it.args),
}


class Mine(SendRefused):
    """What a program may make of one of ours."""

    def __init__(self, room: str) -> None:
        super().__init__("refused", f"not in {room}")
        self.room = room


def same(found: BaseException, error: BaseException) -> bool:
    """Tell whether two exceptions tell the same."""
    return (type(found), str(found), repr(found), vars(found)) == (
        *(type(error), str(error), repr(error)),
        vars(error),
    )


def test_every_public_class_is_tried_here() -> None:
    """One that is added is added here, or is none that is handed on."""
    public = {getattr(broadcast_server, name) for name in broadcast_server.__all__}
    classes = {value for value in public if isinstance(value, type)}
    tried = {type(value) for value in (*ERRORS, *VALUES)}
    assert classes - tried == {BroadcastClient, BroadcastHub}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_exception_survives(error: BroadcastServerError, way: str) -> None:
    """With its type, its text and every attribute, whatever carries it."""
    found = WAYS[way](error)
    assert found is not error
    assert same(found, error)


@pytest.mark.parametrize("way", ["pickle 0", f"pickle {pickle.HIGHEST_PROTOCOL}", "deepcopy"])
def test_exception_survives_with_what_a_program_has_added(way: str) -> None:
    """A class of its own with another ``__init__``, and attributes, such as notes."""
    error = Mine("/a")
    error.__dict__["__notes__"] = ["seen"]
    found = WAYS[way](error)
    assert same(found, error) and found.room == "/a" and found.code == "refused"


@pytest.mark.parametrize("way", [way for way in WAYS if way != "arguments"])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_value_survives(value: Any, way: str) -> None:
    """It is equal to the one it was made of, and as little to be changed."""
    found = WAYS[way](value)
    assert found == value and hash(found) == hash(value)
    with pytest.raises(AttributeError):
        setattr(found, dataclasses.fields(found)[0].name, "/b")


def raise_by_number(number: int) -> None:
    """What a program does in another process."""
    raise ERRORS[number]


@pytest.mark.slow
def test_exceptions_come_back_from_a_pool_of_processes() -> None:
    """One that cannot be read breaks a ProcessPoolExecutor, and ``Pool.get`` never returns."""
    finished = run_python(
        """
import concurrent.futures, multiprocessing
from tests.promises.test_values import ERRORS, raise_by_number, same
spawn = multiprocessing.get_context("spawn")
with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as executor:
    for number, error in enumerate(ERRORS):
        found = executor.submit(raise_by_number, number).exception(timeout=30)
        assert same(found, error), found
with spawn.Pool(1) as pool:
    for number, error in enumerate(ERRORS):
        try:
            pool.apply_async(raise_by_number, (number,)).get(timeout=30)
        except type(error) as found:
            assert same(found, error), found
        else:
            raise AssertionError("no exception")
"""
    )
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize("way", [way for way in WAYS if way != "arguments"])
def test_client_and_hub_do_not(way: str) -> None:
    """They are threads and sockets: who copies one is told what to do instead."""
    for one in BroadcastClient("ws://127.0.0.1:1/"), BroadcastHub(port=0):
        with pytest.raises(TypeError, match=f"{type(one).__name__}.*make a new one"):
            WAYS[way](one)
