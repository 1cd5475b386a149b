"""``broadcast-server connect`` in a terminal that can do nothing: ``TERM=dumb``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
import threading
from unittest.mock import Mock

import pytest

from broadcast_server.cli.terminal.plain import LineScreen

from ...support import RawClient, running_hub, wait_until
from ...support.command import SECONDS, terminal
from ...support.inside import wake_pipe_of
from ...support.raw_server import listener

pytestmark = pytest.mark.slow


def test_lines_go_both_ways() -> None:
    """What the user types stays where the terminal has put it, and is not shown again."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as bob, terminal(hub.url) as ann:
        ann.wait_for("2 here: guest c1, ann\r\n")
        ann.type("hello, h\u00f6rst du?\n\n/nobody\n//who\n")
        ann.wait_for("-- /nobody is no command")
        assert bob.recv_message() == "hello, h\u00f6rst du?"
        assert bob.recv_message() == "/who"
        bob.send("\x1b[2J\u202e")
        ann.wait_for(" guest c1: \\x1b[2J\\u202e\r\n")
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


def test_line_that_the_terminal_cuts_off_is_not_sent() -> None:
    """The system passes on 4,095 bytes of it in silence; the user gets to know, and goes on."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as bob, terminal(hub.url) as ann:
        ann.wait_for("2 here: guest c1, ann\r\n")
        for size in (5003, 4095):
            ann.type("x" * size + "\n")
            ann.wait_for("-- not sent: a line of 4095 bytes or more cannot be typed")
            ann.shown = ""
        for text in ("y" * 4094, "z"):
            ann.type(f"{text}\n")
            assert bob.recv_message() == text


def test_line_without_an_end_is_sent_at_the_end_of_the_input() -> None:
    """Ctrl-D within a line, and once more: nothing that was typed is lost."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as bob, terminal(hub.url) as ann:
        ann.wait_for("2 here: guest c1, ann\r\n")
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


def test_signal_is_not_overslept(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the waiting itself, also if its handler in Python has not run when that begins."""
    reader, writer = os.pipe()
    host = Mock()
    screen = LineScreen(host)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    typist = threading.Timer(0, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        with open(reader) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            os.write(writer, b"a line\n")
            host.enter.side_effect = lambda line: typist.start()
            screen.run()
        host.enter.assert_called_once_with("a line")
    finally:
        typist.join(SECONDS)
        signal.signal(signal.SIGUSR1, before)
        for descriptor in (writer, *wake_pipe_of(screen)):
            os.close(descriptor)


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


def test_who_types_into_a_pipe_is_told_of_a_lost_connection() -> None:
    """On standard error, once, and when it is there again."""
    with listener() as listening, terminal(listening.url, stdout=subprocess.DEVNULL) as ann:
        with listening.accept_events("c2").sock:
            ann.wait_for("Connected to")
        ann.wait_for("the connection is lost, trying again\r\n")
        with listening.accept_events("c2").sock as sock:
            ann.wait_for("connected again\r\n")
            ann.type("/quit\n")
            assert sock.recv(1)  # the Close
        assert ann.shown.count("lost") == 1
