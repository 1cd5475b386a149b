"""Races between threads of one hub, each forced to its bad order by holding one of them back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broadcast_server import BroadcastHub
from broadcast_server.connection import Connection
from broadcast_server.core import Core
from broadcast_server.rooms import Room
from broadcast_server.server import HubServer

from .support import HandshakeRefused, RawClient, running_hub, wait_until
from .test_subprotocol import OFFER, Peer


def parts(hub: BroadcastHub) -> tuple[Core, HubServer]:
    """Return what a running hub is made of."""
    assert hub._core is not None and hub._server is not None
    return hub._core, hub._server


@contextlib.contextmanager
def in_thread(function: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run a function on a thread beside the block; yield a list that gets what it returns."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    try:
        yield found
    finally:
        thread.join(10)
        assert not thread.is_alive()


# -- Sessions ----------------------------------------------------------------------------------


def test_session_of_a_client_that_is_refused_is_not_kept() -> None:
    """There is no room for it: nothing would ever end the session that was made for it."""
    with running_hub(max_rooms=1) as hub, Peer(hub, "/a"):
        core, _ = parts(hub)
        for _ in range(3):
            with pytest.raises(HandshakeRefused, match="503"):
                RawClient.connect(port=hub.port, path="/b", headers=OFFER)
        assert len(core.sessions._sessions) == 1
