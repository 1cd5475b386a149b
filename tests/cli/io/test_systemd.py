"""What a hub gets from a service manager and tells it; played with real sockets and processes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest

from broadcast_server import BroadcastHub
from broadcast_server.cli.io.systemd import Notifier, WrongSockets, take_sockets

from ...support import PYTHON, RawClient
from ...support.command import SECONDS, Running, environment

pytestmark = pytest.mark.slow

# Puts the descriptors that it is given at 3 and up, as a manager does, and becomes the hub.
WRAPPER = """
import os, sys
given = [int(number) for number in sys.argv[1].split(",") if number]
high = [os.dup2(number, 100 + number) for number in given]
for place, number in enumerate(high, 3):
    os.dup2(number, place)
    os.close(number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(given))
os.environ["LISTEN_FDNAMES"] = ":".join("web" for _ in given)
os.execv(sys.executable, [sys.executable, "-m", "broadcast_server", *sys.argv[2:]])
"""


@contextlib.contextmanager
def activated(
    handles: Sequence[socket.socket | int], *arguments: str, variables: Mapping[str, str] = {}
) -> Iterator[subprocess.Popen[str]]:
    """Start a hub's process with these descriptors handed over."""
    numbers = [each if isinstance(each, int) else each.fileno() for each in handles]
    with subprocess.Popen(
        [PYTHON, "-c", WRAPPER, ",".join(map(str, numbers)), "start", *arguments],
        env=environment(variables),
        pass_fds=numbers,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def listener(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    return socket.create_server((host, 0), family=family)


# -- Sockets -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "a"},
        {"LISTEN_FDS": "0", "LISTEN_PID": "own", "LISTEN_PIDFDID": "7"},
    ],
)
def test_sockets_that_are_not_ours_are_not_taken(given: dict[str, str]) -> None:
    """Without the variables, or where they mean another process; they go all the same."""
    environ = {"PATH": "/bin", **given}
    if given.get("LISTEN_PID") == "own":
        environ["LISTEN_PID"] = str(os.getpid())
    assert take_sockets(environ) == []
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("count", ["-1", "x", "٣", "1000000"])
def test_count_of_sockets_that_is_none(count: str) -> None:
    """It is told rather than ignored: the hub would listen elsewhere than it should."""
    environ = {"LISTEN_FDS": count, "LISTEN_PID": str(os.getpid())}
    with pytest.raises(WrongSockets, match="LISTEN_FDS must be"):
        take_sockets(environ)
    assert environ == {}


def test_hub_listens_on_the_sockets_that_it_is_given() -> None:
    """All of them, of both families; host and port do not count then."""
    with listener() as one, listener(socket.AF_INET6) as two, listener() as three:
        with activated([one, two, three], "--port", "1", "--host", "192.0.2.1") as process:
            hub = Running(process)
            addresses = [sock.getsockname()[:2] for sock in (one, two, three)]
            urls = [f"ws://[{h}]:{p}/" if ":" in h else f"ws://{h}:{p}/" for h, p in addresses]
            assert hub.line == f"Listening on {' '.join(urls)} (Ctrl-C to stop)\n"
            with contextlib.ExitStack() as stack:
                clients = [
                    stack.enter_context(RawClient.connect(host, port)) for host, port in addresses
                ]
                clients[0].send("to all")
                assert [client.recv_message() for client in clients[1:]] == ["to all"] * 2
                for client in clients:
                    client.leave()
            status, _, log = hub.end()
            assert status == 0 and "Traceback" not in log


def test_who_comes_between_two_hubs_is_served_by_the_second() -> None:
    """The socket outlives the hub: nobody is refused while it is started again."""
    with listener() as sock:
        port = sock.getsockname()[1]
        for _ in range(2):
            with RawClient.open(port=port) as early, activated([sock]) as process:
                hub = Running(process)
                early.upgrade()
                early.sync()
                process.send_signal(signal.SIGTERM)
                assert early.recv_close()[0] == 1001
                early.close()
                assert hub.process.wait(SECONDS) == 0


def test_sockets_of_a_program_stay_its_own() -> None:
    """A hub that is started again listens on the same ones, and whoever came between is served."""
    with listener() as one, listener(socket.AF_INET6) as two:
        hub = BroadcastHub(port=1, sockets=[one, two])
        port = one.getsockname()[1]
        assert (hub.host, hub.port) == ("127.0.0.1", port)
        assert hub.urls == (f"ws://127.0.0.1:{port}/", f"ws://[::1]:{two.getsockname()[1]}/")
        for _ in range(2):
            with RawClient.open("::1", two.getsockname()[1]) as early, hub:
                early.upgrade()
                with RawClient.connect(port=port) as client:
                    client.send("x")
                    assert early.recv_message() == "x"
                    client.leave()
                    early.leave()
        assert one.fileno() > 0 and two.fileno() > 0


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("file", "descriptor 3 of LISTEN_FDS is no TCP socket that listens: "),
        ("datagrams", "it is AF_INET SOCK_DGRAM"),
        ("unix", "it is AF_UNIX SOCK_STREAM"),
        ("silent", "it does not listen"),
        ("second", "descriptor 4 of LISTEN_FDS"),
    ],
)
def test_descriptor_that_is_no_listener_is_one_line(
    kind: str, words: str, tmp_path: pathlib.Path
) -> None:
    """The unit is wrong, and its author is told in what."""
    with contextlib.ExitStack() as stack:
        handles: list[socket.socket | int] = []
        if kind in ("file", "second"):
            if kind == "second":
                handles.append(stack.enter_context(listener()))
            handles.append(stack.enter_context(open(os.devnull)).fileno())
        elif kind == "datagrams":
            handles.append(stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)))
        elif kind == "unix":
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.bind(str(tmp_path / "socket"))
            sock.listen()
            handles.append(sock)
        else:
            handles.append(stack.enter_context(socket.socket()))
        with activated(handles, "--log-level", "error") as process:
            output, log = process.communicate(timeout=SECONDS)
        (line,) = log.splitlines()
        assert (process.returncode, output) == (1, "")
        assert line.startswith("broadcast-server start: error: ") and words in line


# -- What the manager is told ------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[socket.socket]:
    """The socket of a service manager, in the file system and without a name in it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        # An empty name lets the kernel choose an abstract one.
        sock.bind(str(tmp_path / "notify") if request.param == "path" else "")
        yield sock


def address_of(manager: socket.socket) -> str:
    name = manager.getsockname()
    return name if isinstance(name, str) else "@" + name[1:].decode()


def test_manager_is_told_of_readiness_reloads_and_the_end(manager: socket.socket) -> None:
    """READY when it listens, RELOADING and READY around a reload, STOPPING when it drains."""
    with listener() as sock:
        variables = {"NOTIFY_SOCKET": address_of(manager)}
        with activated([sock], variables=variables) as process:
            ready = manager.recv(4096).decode().split("\n")
            port = sock.getsockname()[1]
            assert ready == ["READY=1", f"STATUS=listening on ws://127.0.0.1:{port}/"]
            with RawClient.connect(port=port) as client:
                before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                process.send_signal(signal.SIGHUP)
                reloading = manager.recv(4096).decode().split("\n")
                assert reloading[0] == "RELOADING=1"
                name, _, microseconds = reloading[1].partition("=")
                now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                assert name == "MONOTONIC_USEC" and before <= int(microseconds) <= now
                assert manager.recv(4096).decode().split("\n") == ready
                client.sync()
                process.send_signal(signal.SIGTERM)
                stopping = manager.recv(4096).decode().split("\n")
                assert stopping == ["STOPPING=1", "STATUS=draining"]
                assert client.recv_close()[0] == 1001
            assert process.wait(SECONDS) == 0


@pytest.mark.parametrize("address", ["/no/such/socket", "vsock:2:1234"])
def test_manager_that_cannot_be_told_is_logged_once(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The hub serves all the same."""
    environ = {"NOTIFY_SOCKET": address}
    notifier = Notifier(environ)
    assert environ == {}
    notifier.ready("x")
    notifier.reloading()
    notifier.stopping("x")
    (record,) = caplog.records
    assert record.getMessage().startswith("cannot tell the service manager: ")


def test_without_a_manager_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The usual case."""
    notifier = Notifier({})
    notifier.ready("x")
    assert not caplog.records
