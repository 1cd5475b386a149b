"""Other systems than Linux, simulated: what they lack is taken away, what they say is said."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from ..support import PYTHON, python_environment, wait_until
from ..support.beside import process_group
from ..support.hub_process import hub_process
from ..support.programs import run_python

if TYPE_CHECKING:
    from subprocess import CompletedProcess

pytestmark = pytest.mark.slow


@pytest.fixture
def url() -> Iterator[str]:
    """The address of a room of a hub elsewhere, on Linux."""
    with hub_process() as (_, found):
        yield f"{found}r"


def run(program: str, *arguments: str) -> CompletedProcess[str]:
    """Run a Python program to its end."""
    return subprocess.run(
        [PYTHON, "-c", program, *arguments],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


# -- macOS -------------------------------------------------------------------------------------

# Python 3.10 to 3.12 there has no waitid; poll says POLLNVAL of devices; a socket that connects
# cannot be shut down. The GIL is let go of in each send, as on each system but Linux.
MACOS = """
import os, select, selectors, subprocess, sys, urllib.request
sys.platform = "darwin"
del os.waitid
real = select.poll
class Poll:
    def __init__(self):
        self.poller, self.devices = real(), set()
    def register(self, given, events=select.POLLIN):
        number = given if isinstance(given, int) else given.fileno()
        if number <= 2:
            self.devices.add(number)
        else:
            self.poller.register(number, events)
    def unregister(self, number):
        self.devices.discard(number)
    def poll(self, milliseconds=None):
        found = [(number, select.POLLNVAL) for number in self.devices]
        return found + self.poller.poll(0 if found else milliseconds)
select.poll = Poll
del select.epoll, selectors.EpollSelector
selectors.DefaultSelector = selectors.PollSelector
"""
LISTEN = (
    MACOS
    + """
from broadcast_server.cli import main
sys.exit(main(["listen", *sys.argv[1:], "--timeout", "50"]))
"""
)


@pytest.mark.parametrize("how", ["standard output", "exec"])
def test_listen_on_macos(how: str, url: str) -> None:
    """It goes on until it has what it is to have, and runs its command."""
    from broadcast_server import BroadcastClient, publish

    more = [] if how == "standard output" else ["--exec", "cat"]
    with (
        BroadcastClient(url, presence=True) as watcher,
        process_group(
            [PYTHON, "-c", LISTEN, url, "--count", "2", *more], env=python_environment()
        ) as process,
    ):
        assert wait_until(lambda: len(watcher.members) == 2, 30.0)
        for text in ("one", "two"):
            publish(url.replace("ws:", "http:", 1), text)
        output, errors = process.communicate(timeout=60)
        assert (output, errors, process.returncode) == ("one\ntwo\n", "", 0)


HUB_ON_MACOS = (
    MACOS
    + """
from broadcast_server import BroadcastClient, BroadcastHub
with BroadcastHub(port=0) as hub, BroadcastClient(hub.url) as one, BroadcastClient(hub.url) as two:
    one.send("hello")
    print(two.recv(timeout=20).data)
"""
)


def test_hub_on_macos() -> None:
    """Without epoll; Kqueue is one more selector with a descriptor."""
    ended = run_python(HUB_ON_MACOS)
    assert (ended.stdout, ended.stderr) == ("hello\n", "")


# -- Windows -----------------------------------------------------------------------------------

WINDOWS = """
import ctypes, os, select, selectors, signal, socket, sys, tempfile, pathlib
import asyncio, http.client, logging, platform, random, ssl, subprocess, threading, urllib.request
for module, names in (
    (os, "fork forkpty getuid geteuid getgid killpg pipe2 register_at_fork set_blocking waitid "
         "writev sendfile environb WNOHANG"),
    (select, "poll epoll POLLIN POLLOUT POLLERR POLLHUP POLLNVAL"),
    (selectors, "PollSelector EpollSelector"),
    (signal, "SIGHUP SIGKILL SIGUSR1 SIGPIPE pthread_kill pthread_sigmask"),
    (socket, "AF_UNIX MSG_DONTWAIT MSG_NOSIGNAL SO_REUSEPORT TCP_INFO"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
selectors.DefaultSelector = selectors.SelectSelector
for name in ("fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[name] = None
sys.platform = "win32"
"""


def test_clients_on_windows(url: str) -> None:
    """As far as names can tell: whatever is imported and called is there."""
    program = (
        WINDOWS
        + """
import broadcast_server
from broadcast_server import BroadcastClient, PublishFailed, publish
with BroadcastClient(sys.argv[1]) as client:
    print(publish(sys.argv[1].replace("ws:", "http:", 1), "hello") == client.recv(timeout=20).id)
    client.send("and back")
for name in broadcast_server.__all__:
    getattr(broadcast_server, name)
try:
    publish("http://127.0.0.1:1/", "x")
except PublishFailed as error:
    print(error.sent if hasattr(error, "sent") else "refused")
"""
    )
    ended = run(program, url)
    assert (ended.stdout, ended.stderr) == ("True\nrefused\n", "")


def test_hub_on_windows_says_what_it_needs() -> None:
    """In one sentence, before anything is opened; so does the command."""
    program = (
        WINDOWS
        + """
from broadcast_server import BroadcastHub, UsageError
try:
    BroadcastHub(port=0).start()
except UsageError as error:
    print(error)
from broadcast_server.cli.commands.entry import main
os.name = "nt"  # not before: pathlib would make paths of its own
for arguments in (["start"], ["listen", "/r"], ["--help"]):
    print(main(arguments), flush=True)
"""
    )
    ended = run(program)
    assert ended.stdout.splitlines() == [
        "a hub needs Linux, macOS or another POSIX system; clients and publish() work here",
        "1",
        "1",
        "1",
    ], ended.stderr
    line = "broadcast-server: error: the command needs Linux, macOS or another POSIX system"
    assert ended.stderr.splitlines() == [line] * 3
