"""A hub with any selector, and one whose threads die or are not its own."""

from __future__ import annotations

import contextlib
import logging
import select
import selectors
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from broadcast_server import BroadcastHub, HubStopped

from ..support import PYTHON, RawClient, python_environment, running_hub, wait_until
from ..support.beside import in_thread
from ..support.hub_process import hub_process
from ..support.inside import fanout_of, replace_pass, server_of
from ..support.libraries import needs_installed

if TYPE_CHECKING:
    from _pytest.logging import LogCaptureFixture

SELECTORS = ["SelectSelector", "PollSelector", "EpollSelector"]


@pytest.fixture(params=SELECTORS)
def selector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have the system's best selector be another one, as where there is no better one."""
    name: str = request.param
    monkeypatch.setattr(selectors, "DefaultSelector", getattr(selectors, name))
    if name != "EpollSelector":
        monkeypatch.delattr(selectors, "EpollSelector")
        monkeypatch.delattr(select, "epoll")
    return name


def test_hub_serves_with_any_selector(selector: str) -> None:
    """On two addresses: whoever comes is let in, whoever is slow gets all of it, and it ends."""
    data = bytes(100_000)
    with running_hub(host=["127.0.0.1", "127.0.0.2"]) as hub:
        with urllib.request.urlopen(f"http://127.0.0.2:{hub.port}/healthz", timeout=10) as answer:
            assert answer.status == 200
        with (
            RawClient.connect(port=hub.port, path="/r", rcvbuf=4096) as slow,
            RawClient.connect("127.0.0.2", hub.port, path="/r") as client,
        ):
            for _ in range(20):
                hub.broadcast(data, "/r")
                assert client.recv_message() == data
            client.send("behind it")
            for _ in range(20):
                assert slow.recv_message() == data
            assert slow.recv_message() == "behind it"
            client.leave()
            slow.leave()
        assert wait_until(lambda: not hub.members("/r"))
    with contextlib.suppress(ConnectionRefusedError):
        RawClient.open(port=hub.port).close()
        raise AssertionError("it still listens")


def test_hub_without_epoll_begins_again(selector: str) -> None:
    """With the same address, and no descriptor left of the last time (conftest looks)."""
    hub = BroadcastHub(port=0)
    for _ in range(3):
        with hub, RawClient.connect(port=hub.port) as client:
            client.leave()


# -- A thread that dies ------------------------------------------------------------------------


def fail(*_: Any) -> bool:
    raise RuntimeError("made by the test")


def kill_accept_thread(hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_of(hub), "get_request", fail)
    with contextlib.suppress(OSError, EOFError), RawClient.open(port=hub.port) as newcomer:
        newcomer.fill()


def kill_fanout(hub: BroadcastHub, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_pass(monkeypatch, fanout_of(hub), fail)
    hub.broadcast("x")


DEATHS = {"accept": kill_accept_thread, "fan-out": kill_fanout}


@pytest.mark.parametrize("thread", DEATHS)
def test_thread_that_dies_ends_the_hub(
    thread: str, monkeypatch: pytest.MonkeyPatch, caplog: LogCaptureFixture
) -> None:
    """All clients are cut off, each call says so, and nobody waits for an answer."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as client:
        client.sync()
        DEATHS[thread](hub, monkeypatch)
        assert client.sock.recv(100) == b""
        assert wait_until(lambda: not fanout_of(hub).is_alive)
        for call in (hub.stats, hub.members, lambda: hub.broadcast("y"), hub.reload):
            with pytest.raises(HubStopped):
                call()
        if thread == "accept":
            with pytest.raises(ConnectionRefusedError):
                RawClient.open(port=hub.port)
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert [record.exc_info is not None for record in critical] == [True]
    assert "has failed" in critical[0].getMessage()


@pytest.mark.parametrize("thread", DEATHS)
def test_program_that_serves_for_ever_hears_of_it(
    thread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for ever for a hub that serves nobody; and the hub may be started again."""
    with running_hub() as hub:
        served = in_thread(hub.serve_forever)
        DEATHS[thread](hub, monkeypatch)
        with pytest.raises(HubStopped, match="its log says why"):
            served.result(20)
        with hub, RawClient.connect(port=hub.port) as client:
            client.leave()


# -- gevent and eventlet -----------------------------------------------------------------------

GREEN = """
import sys, threading, time, warnings
library, moment, url = sys.argv[1:]
if moment == "late":
    import broadcast_server.client.client, broadcast_server.client.requests
warnings.simplefilter("ignore")
if library == "gevent":
    from gevent import monkey
    monkey.patch_all()
else:
    import eventlet
    eventlet.monkey_patch()
from broadcast_server import BroadcastClient, BroadcastHub, UsageError, publish

ticks = []
def tick():
    while not ticks or ticks[-1]:
        ticks.append(True)
        time.sleep(0.01)
threading.Thread(target=tick, daemon=True).start()
with BroadcastClient(url) as client:
    publish(url.replace("ws:", "http:", 1), "by hand")
    print(client.recv(timeout=20).data)
    before = len(ticks)
    try:
        client.recv(timeout=0.3)
    except TimeoutError:
        print("nothing more", len(ticks) > before + 3)
    client.send("by a client")
ticks.append(False)
hub = BroadcastHub(port=0)
try:
    hub.start()
except UsageError as error:
    print(error)
"""


@pytest.fixture
def hub_elsewhere() -> Iterator[str]:
    with hub_process(host=["localhost"]) as (_, url):
        yield url + "green"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["early", "late"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_clients_work_where_threads_are_replaced_and_a_hub_says_that_it_cannot(
    library: str, moment: str, hub_elsewhere: str
) -> None:
    """Whichever was imported first; and other green threads go on while a client waits."""
    needs_installed(library)  # not imported here: eventlet changes what a fork does
    with RawClient.connect(
        port=int(hub_elsewhere.split(":")[2].split("/")[0]), path="/green"
    ) as raw:
        ended = subprocess.run(
            [PYTHON, "-c", GREEN, library, moment, hub_elsewhere],
            env=python_environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        said = ended.stdout.splitlines()
        assert said[:2] == ["by hand", "nothing more True"]
        assert said[2:] == [
            f"a hub needs real threads and sockets, and {library} has replaced them: run the hub "
            "in a process of its own; clients and publish() work here"
        ]
        assert [raw.recv_message(), raw.recv_message()] == ["by hand", "by a client"]


WITHOUT = """
import select, selectors, sys
url, names = sys.argv[1], sys.argv[2:]
for name in names:
    module, _, attribute = name.partition(".")
    delattr(sys.modules[module], attribute)
if hasattr(selectors, "PollSelector") is False:
    selectors.DefaultSelector = selectors.SelectSelector
from broadcast_server import BroadcastClient, publish
with BroadcastClient(url) as client:
    publish(url.replace("ws:", "http:", 1), "without")
    print(client.recv(timeout=20).data)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ["select.poll"],
        ["select.poll", "select.epoll", "selectors.PollSelector", "selectors.EpollSelector"],
    ],
    ids=["poll", "all"],
)
def test_clients_work_without_poll(names: list[str], hub_elsewhere: str) -> None:
    """As eventlet leaves it, and Windows."""
    ended = subprocess.run(
        [PYTHON, "-c", WITHOUT, hub_elsewhere, *names],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.stdout, ended.stderr) == ("without\n", "")
