"""``broadcast-server connect`` in a terminal that can do nothing: ``TERM=dumb``."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from typing import Any

from .raw_server import listener
from .support import PYTHON, RawClient, command_environment, running_hub, wait_until

SECONDS = 20.0


class Terminal:
    """A terminal with the command in it, and its user.

    Args:
        url: where the command goes.
        environ: more variables for it.
        streams: what is to take the terminal's place.

    Attributes:
        shown: what the terminal has shown so far.
        attributes: the terminal's modes at first.
    """

    def __init__(self, url: str, environ: dict[str, str], **streams: Any) -> None:
        self.master, slave = pty.openpty()
        self.shown = ""
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO  # so that what is shown is what the command writes
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.attributes = attributes
        # A session of its own, whose terminal this is: Ctrl-C then is what it is for a user.
        self.process = subprocess.Popen(
            [PYTHON, "-m", "broadcast_server", "connect", url, "--name", "ann"],
            env=command_environment(**{"TERM": "dumb"} | environ),
            **{"stdin": slave, "stdout": slave, "stderr": slave} | streams,
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),
        )
        os.close(slave)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.master, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until the terminal has shown a text."""
        deadline = time.monotonic() + SECONDS
        while text not in self.shown:
            left = deadline - time.monotonic()
            assert select.select([self.master], [], [], max(0, left))[0], self.shown
            self.shown += os.read(self.master, 1 << 16).decode()

    def end(self) -> int:
        """Return the exit status; what was shown until then is in `shown`."""
        status = self.process.wait(SECONDS)
        with contextlib.suppress(OSError):  # the terminal's end
            while select.select([self.master], [], [], 0)[0]:
                self.shown += os.read(self.master, 1 << 16).decode()
        return status

    def hang_up(self) -> None:
        """Close the window."""
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


@contextlib.contextmanager
def terminal(url: str, environ: dict[str, str] | None = None, **streams: Any) -> Iterator[Terminal]:
    """Run the command in a terminal; the arguments are those of `Terminal`."""
    found = Terminal(url, environ or {}, **streams)
    try:
        yield found
    finally:
        found.hang_up()
        found.process.kill()
        found.process.wait(SECONDS)


def test_lines_go_both_ways() -> None:
    """What the user types stays where the terminal has put it, and is not shown again."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as bob, terminal(hub.url) as ann:
        ann.wait_for("2 here: c1, ann\r\n")
        ann.type("hello, h\u00f6rst du?\n\n/nobody\n//who\n")
        ann.wait_for("-- /nobody is no command")
        assert bob.recv_message() == "hello, h\u00f6rst du?"
        assert bob.recv_message() == "/who"
        bob.send("\x1b[2J\u202e")
        ann.wait_for(" c1: \\x1b[2J\\u202e\r\n")
        assert "hello" not in ann.shown and "\x1b" not in ann.shown
        ann.type("\x04")
        assert ann.end() == 0
        assert wait_until(lambda: len(hub.members("/")) == 1)


def test_ctrl_c_leaves_in_order() -> None:
    """A proper Close, exit status 0, no other word; the modes are what they were."""
    with running_hub() as hub, terminal(hub.url) as ann:
        ann.wait_for("1 here: ann\r\n")
        before = ann.shown
        ann.type("\x03")
        assert ann.end() == 0
        assert ann.shown.replace("^C", "") == before
        assert termios.tcgetattr(ann.master) == ann.attributes
        assert wait_until(lambda: hub.members("/") == [])


def test_line_without_an_end_is_sent_at_the_end_of_the_input() -> None:
    """Ctrl-D within a line, and once more: nothing that was typed is lost."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as bob, terminal(hub.url) as ann:
        ann.wait_for("2 here: c1, ann\r\n")
        ann.type("no end\x04\x04")
        assert bob.recv_message() == "no end"
        assert ann.end() == 0


def test_signal_leaves_in_order() -> None:
    """SIGTERM and SIGHUP are what Ctrl-C is."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        with running_hub() as hub, terminal(hub.url) as ann:
            ann.wait_for("1 here: ann\r\n")
            ann.process.send_signal(number)
            assert ann.end() == 0
            assert wait_until(lambda hub=hub: hub.members("/") == [])


def test_terminal_that_hangs_up_ends_it() -> None:
    """No process is left behind when its window is closed."""
    with running_hub() as hub, terminal(hub.url) as ann:
        ann.wait_for("1 here: ann\r\n")
        ann.hang_up()
        ann.process.wait(SECONDS)
        assert wait_until(lambda: hub.members("/") == [])


def test_lost_connection_is_taken_up_again() -> None:
    """As in every terminal: one line for the loss, one for the return, nothing lost."""
    with listener() as listening, terminal(listening.url) as ann:
        server = listening.accept_events("c2")
        server.message(1, "one")
        ann.wait_for("bob: one\r\n")
        server.reset()
        ann.wait_for("-- connection lost, trying again\r\n")
        ann.type("typed meanwhile\n")
        again = listening.accept_events("c2")
        with again.sock:
            assert again.query()["since"] == "1000-1"
            assert again.recv_event()["data"] == "typed meanwhile"
            again.message(2, "two")
            ann.wait_for("bob: two\r\n")
        assert ann.shown.count("connected again") == 1
        assert ann.shown.count("connection lost") == 1


def test_terminal_whose_output_is_a_pipe_is_told_on_standard_error() -> None:
    """`broadcast-server connect > file`: messages there, the rest here."""
    with running_hub() as hub, terminal(hub.url, stdout=subprocess.PIPE) as ann:
        ann.wait_for("Connected to")
        ann.type("/who\n")
        ann.wait_for("1 here: ann\r\n")
        hub.broadcast("for the file")
        assert ann.process.stdout is not None
        with ann.process.stdout as output:
            assert output.readline() == b"for the file\n"
            ann.type("/quit\n")
            assert ann.end() == 0
