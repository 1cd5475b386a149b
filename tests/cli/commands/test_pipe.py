"""``broadcast-server connect`` in a pipe, as the process that it is."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from broadcast_server import BroadcastHub

from ...support import (
    BINARY,
    PYTHON,
    TEXT,
    RawClient,
    lasting_port,
    python_environment,
    running_hub,
    stress_size,
    wait_until,
)
from ...support.hub_process import hub_process
from ...support.pseudo_terminal import PseudoTerminal
from ...support.raw_server import Listener, RawServer, listener

pytestmark = pytest.mark.slow


SECONDS = 20.0


def environment() -> dict[str, str]:
    """Return an environment without variables of ours; users' streams have buffers."""
    without = ("BROADCAST_SERVER_", "PYTHONUNBUFFERED")
    found = {k: v for k, v in python_environment().items() if not k.startswith(without)}
    found.pop("NO_COLOR", None)
    return found | {"TERM": "xterm"}


@contextlib.contextmanager
def console(
    url: str, *arguments: str, program: str | None = None, **options: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``broadcast-server connect URL`` with pipes for what the options do not name.

    Args:
        program: runs the command instead.
    """
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    python = ["-m", "broadcast_server"] if program is None else ["-c", program]
    command = [PYTHON, *python, "connect", url, *arguments]
    with subprocess.Popen(command, env=environment(), **pipes | options) as process:
        try:
            yield process
        finally:
            process.kill()


def end_of(process: subprocess.Popen[bytes], given: bytes | None = None) -> tuple[int, bytes, str]:
    """Give the rest of the input; return exit status, standard output and standard error."""
    output, errors = process.communicate(given, timeout=SECONDS)
    return process.returncode, output, errors.decode()


def write(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Give a piece of the input at once."""
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def is_joined(hub: BroadcastHub, count: int) -> bool:
    """Wait until so many clients are in the lobby."""
    return wait_until(lambda: len(hub.members("/")) == count, SECONDS)


# -- In a pipe ---------------------------------------------------------------------------------


def send_lines(count: int, **settings: Any) -> None:
    """Pipe lines through one command and see them, all and in order, come out of another."""
    given = b"".join(b"line %d\n" % number for number in range(count))
    with hub_process(**settings) as (_, url), console(url) as reader:
        assert reader.stdout is not None
        # It must have joined before the first line is sent: send until it shows a word.
        with console(url) as prober:
            assert prober.stdin is not None
            while not select.select([reader.stdout], [], [], 0.05)[0]:
                prober.stdin.write(b"ready\n")
                prober.stdin.flush()
            assert end_of(prober)[::2] == (0, "")
        with console(url, stdout=subprocess.DEVNULL) as sender:
            shown: list[bytes] = []
            assert sender.stdin is not None and sender.stderr is not None
            os.set_blocking(sender.stdin.fileno(), False)
            rest, size = memoryview(given), 0
            watched = [reader.stdout]
            while size < len(given):
                writing = [sender.stdin] if rest else []
                can_read, can_write, _ = select.select(watched, writing, [], SECONDS)
                assert can_read or can_write, "nothing moves"
                if can_write:
                    rest = rest[os.write(sender.stdin.fileno(), rest[: 1 << 16]) :]
                    if not rest:
                        sender.stdin.close()
                if can_read:
                    shown.append(os.read(reader.stdout.fileno(), 1 << 16))
                    assert shown[-1], "the reader has ended"
                    if not size:
                        shown[-1] = re.sub(rb"^(ready\n)+", b"", shown[-1])
                    size += len(shown[-1])
            assert sender.wait(SECONDS) == 0
            assert sender.stderr.read() == b""
        assert end_of(reader) == (0, b"", "")
        assert b"".join(shown) == given


def test_piped_lines_are_all_accepted_and_shown() -> None:
    """The short form: 20,000 lines at the default rate."""
    send_lines(20_000)


@pytest.mark.stress
@pytest.mark.timeout(400)
@pytest.mark.parametrize("max_rate", [10_000, 0])
def test_million_piped_lines_are_all_accepted_and_shown(max_rate: int) -> None:
    """At the default rate; and as fast as it goes, with a log that holds all of it: a listener that
    others leave too little of the machine would fall behind, and be told so."""
    log_bytes = 1 << 23 if max_rate else 1 << 30
    send_lines(
        stress_size(1_000_000, 100_000),
        max_rate=max_rate,
        room_log_bytes=log_bytes,
        total_log_bytes=max(log_bytes, 1 << 28),
    )


def test_lines_are_what_stands_between_line_ends() -> None:
    """Also with CR, empty, without an end at the end of the input, and far longer than a read."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as listening:
        with console(hub.url) as process:
            long = "x" * 300_000
            given = f"a\r\n\n/quit\n{long}\n\u00fc\nlast".encode()
            assert end_of(process, given) == (0, b"", "")
        for line in ("a", "", "/quit", long, "\u00fc", "last"):
            assert listening.recv_message() == line


def test_input_that_is_not_utf_8_is_sent_with_a_warning() -> None:
    """Bad bytes are replaced, and the user is told once."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as listening:
        with console(hub.url) as process:
            status, output, errors = end_of(process, b"\xe9t\xe9\nna\xefve\n")
        assert (status, output) == (0, b"")
        assert errors.count("\n") == 1 and "not UTF-8" in errors
        assert listening.recv_message() == "\ufffdt\ufffd"
        assert listening.recv_message() == "na\ufffdve"


def test_pipe_gets_messages_as_they_are() -> None:
    """Text and a line end, with nothing escaped; binary is only mentioned."""
    with running_hub() as hub, console(hub.url) as process:
        assert is_joined(hub, 1)
        hub.broadcast("\x1b[31mred\x1b[0m\tand\nmore")
        hub.broadcast(b"\0" * 7)
        expected = b"\x1b[31mred\x1b[0m\tand\nmore\n[binary message, 7 bytes]\n"
        assert process.stdout is not None
        assert process.stdout.read(len(expected)) == expected  # while it still runs
        assert end_of(process) == (0, b"", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_pipe_in_order(number: signal.Signals) -> None:
    """`tail -f log | broadcast-server connect` ends with Ctrl-C, its lines accepted."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as listening:
        with console(hub.url) as process:
            write(process, b"one\n")
            assert listening.recv_message() == "one"
            process.send_signal(number)
            assert process.wait(SECONDS) == 0
            assert end_of(process)[1:] == (b"", "")
        assert is_joined(hub, 1)


def test_ctrl_c_ends_although_nobody_reads_the_output() -> None:
    """`broadcast-server connect | less`, not scrolled: not all was shown, so it is no success."""
    with running_hub() as hub, console(hub.url) as process:
        assert is_joined(hub, 1)
        for _ in range(100):
            hub.broadcast("x" * 10_000)
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], SECONDS)[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 1


def test_line_above_the_hubs_limit_is_an_error() -> None:
    """The hub's reason is told, and the exit status is not 0."""
    with running_hub(max_message_bytes=1000) as hub, console(hub.url) as process:
        status, _, errors = end_of(process, b"fine\n" + b"x" * 1001 + b"\nlost\n")
        assert status == 1
        assert re.fullmatch(r".*error: the hub did not take a line: too_big.*\n", errors)


def test_line_without_an_end_is_bounded() -> None:
    """A pipe of zeros does not fill the memory."""
    with running_hub() as hub, open("/dev/zero", "rb") as zeros:
        with console(hub.url, stdin=zeros) as process:
            status, _, errors = end_of(process)
        assert status == 1
        assert "a line has more than" in errors and errors.count("\n") == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", ["a", "one\r\ntwo\r\n"])
def test_input_that_is_utf_16_is_an_error(encoding: str, text: str) -> None:
    """Nothing of it is sent; each of its lines would be rubbish."""
    with running_hub() as hub, console(hub.url) as process:
        status, _, errors = end_of(process, text.encode(encoding))
        assert status == 1
        assert errors.startswith("broadcast-server connect: error: the input is UTF-16")
        assert errors.count("\n") == 1 and not hub.history("/")


def test_byte_order_mark_is_no_part_of_the_input() -> None:
    """Windows' editors put it before a text in UTF-8."""
    with running_hub() as hub, console(hub.url) as process:
        status, _, errors = end_of(process, "one\ntwo".encode("utf-8-sig"))
        assert (status, errors) == (0, "")
        assert [message.data for message in hub.history("/")] == ["one", "two"]


def test_line_that_the_terminal_cuts_off_is_not_sent() -> None:
    """The user gets to know, and goes on."""
    command = [PYTHON, "-m", "broadcast_server", "connect"]
    with running_hub() as hub, open(os.devnull, "wb") as nowhere:
        with PseudoTerminal(
            [*command, hub.url], env=environment(), echo=False, stdout=nowhere
        ) as typed:
            typed.wait_for("Connected to")
            typed.type("x" * 5003 + "\n")
            typed.wait_for("warning: not sent: a line of 4095 bytes or more cannot be typed")
            typed.type("one\n/quit\n")
            assert typed.end() == 0
        assert [message.data for message in hub.history("/")] == ["one"]


def test_input_that_cannot_be_read_is_an_error(tmp_path: pathlib.Path) -> None:
    """Standard input is open for writing only."""
    with running_hub() as hub, open(tmp_path / "file", "wb") as wrong:
        with console(hub.url, stdin=wrong) as process:
            status, _, errors = end_of(process)
        assert status == 1
        assert "cannot read standard input" in errors and errors.count("\n") == 1


def test_output_that_is_full_is_an_error() -> None:
    """One line on standard error; the connection is closed in order."""
    with running_hub() as hub, open("/dev/full", "wb") as full:
        with console(hub.url, stdout=full) as process:
            assert is_joined(hub, 1)
            hub.broadcast("x")
            assert process.wait(SECONDS) == 1
            _, _, errors = end_of(process)
        assert "No space left" in errors and errors.count("\n") == 1


def test_output_that_nobody_reads_any_more_ends_it() -> None:
    """`broadcast-server connect | head -1`: no word about it."""
    with running_hub() as hub, console(hub.url) as process:
        assert is_joined(hub, 1)
        assert process.stdout is not None
        process.stdout.close()
        hub.broadcast("x")
        assert process.wait(SECONDS) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_without_reconnecting_a_hub_that_stops_is_an_error() -> None:
    """What was sent may not have been accepted: never exit status 0."""
    with running_hub(close_timeout=0.2) as hub:
        with (
            RawClient.connect(port=hub.port) as listening,
            console(hub.url, "--no-reconnect") as process,
        ):
            write(process, b"one\n")
            assert listening.recv_message() == "one"
            hub.stop()
            assert process.wait(SECONDS) == 3
            _, _, errors = end_of(process)
        assert "1001 the hub stops" in errors and errors.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--no-reconnect"]])
def test_listener_that_falls_behind_misses_nothing_in_silence(arguments: list[str]) -> None:
    """A reader that is stopped is cut off, and gets the rest later; or it has all up to a point,
    the close code, and exit status 3."""
    with running_hub(room_log_bytes=1 << 20, max_message_bytes=1 << 17) as hub:
        with console(hub.url, *arguments) as process:
            assert is_joined(hub, 1)
            # A member is written to once its 101 is sent: on a busy machine the ring might be full
            # before that.
            hub.broadcast("0 the first")
            assert wait_until(lambda: hub.stats()["deliveries"] == 1)
            count = 1
            while hub.members("/"):
                hub.broadcast(f"{count} ".ljust(1 << 16, "."))
                count += 1
                assert count < 5000
            if arguments:
                status, output, errors = end_of(process)
            else:
                assert process.stdout is not None
                output = b"".join(process.stdout.readline() for _ in range(count))
                status, rest, errors = end_of(process)
                assert rest == b""
        numbers = [int(line.split()[0]) for line in output.decode().splitlines()]
        assert numbers == list(range(len(numbers)))
        if arguments:
            assert 0 < len(numbers) < count and status == 3
            assert re.search(r"1013 .*since=", errors) and errors.count("\n") == 1
        else:
            assert (len(numbers), status, errors) == (count, 0, "")


def test_lines_wait_until_somebody_reads_the_output() -> None:
    """The hub's answers are behind messages that nobody takes: however long that lasts, what is
    read is not thrown away."""
    program = """
import sys, time
from broadcast_server.cli import main
from broadcast_server.cli.commands import pipe
pipe.SILENCE_SECONDS = 2.0
def pause(seconds, sleep=time.sleep):
    print("pause", seconds, file=sys.stderr, flush=True)
    sleep(seconds)
time.sleep = pause
sys.exit(main())
"""
    lines = [b"%d " % number + b"." * 1000 + b"\n" for number in range(3000)]
    with running_hub(room_log_bytes=1 << 26, write_timeout=300) as hub:
        with console(hub.url, program=program) as process, ThreadPoolExecutor(1) as pool:
            assert is_joined(hub, 1)
            for number in range(400):
                hub.broadcast(f"{number} ".ljust(1 << 16, "."))
            feeding = pool.submit(write, process, b"".join(lines))
            assert process.stderr is not None and process.stdout is not None
            assert process.stderr.readline() == b"pause 0.25\n"
            for number in range(400):
                assert process.stdout.readline().startswith(b"%d " % number)
            feeding.result(SECONDS)
            status, output, errors = end_of(process)
            assert (status, output) == (0, b"") and set(errors.split()) <= {"pause", "0.25"}
        assert hub.history("/")[-1].data == lines[-1].decode().rstrip()
        assert hub.stats()["messages"] == 400 + len(lines)


def test_old_messages_come_first_if_asked_for() -> None:
    """A pipe gets none by itself; what the address says wins over ``--history``."""
    with running_hub() as hub:
        for number in range(5):
            hub.broadcast(str(number))
        for arguments, expected in (
            ([hub.url], b""),
            ([hub.url, "--history", "2"], b"3\n4\n"),
            ([f"{hub.url}?history=1", "--history", "2"], b"4\n"),
        ):
            with console(*arguments) as process:
                assert is_joined(hub, 1)
                assert end_of(process) == (0, expected, "")
            assert is_joined(hub, 0)


# -- A connection that is lost -----------------------------------------------------------------


def test_pipe_goes_on_with_a_hub_that_is_started_anew() -> None:
    """What was read meanwhile is sent then, and what others send is shown."""
    port = lasting_port()
    with running_hub(port=port) as first, console(first.url) as process:
        write(process, b"one\n")
        assert wait_until(lambda: [m.data for m in first.history("/")] == ["one"], SECONDS)
        first.stop()
        write(process, b"two\n")
        with running_hub(port=port) as second:
            assert wait_until(lambda: [m.data for m in second.history("/")] == ["two"], SECONDS)
            second.broadcast("shown")
            assert process.stdout is not None and process.stdout.readline() == b"shown\n"
            status, output, errors = end_of(process, b"three\nfour")
            assert [m.data for m in second.history("/")] == ["two", "shown", "three", "four"]
        assert (status, output) == (0, b"")
        # The new hub knows nothing of the old one's messages.
        assert re.fullmatch(r".*: warning: messages between .* are lost: restarted\n", errors)


def test_lost_connection_is_taken_up_where_it_has_ended() -> None:
    """No line twice, though it may be sent twice: the hub knows it by its key."""
    with console_of_event_server() as (process, server, listening):
        write(process, b"a\nb\n")
        sent = [server.recv_event() for _ in range(2)]
        server.message(1)
        server.ack(sent[0], 2)
        server.sock.close()
        server = listening.accept_events("c2", after="1000-2")
        with server.sock:
            assert server.query()["since"] == "1000-2"
            assert server.recv_event() == sent[1]
            server.message(3)
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None
            server.ack(sent[1], 4)
            server.accept_close()
            assert end_of(process) == (0, b"1\n3\n", "")


def test_input_that_ends_while_the_hub_is_away_is_sent_all_the_same() -> None:
    """It is not lost because there was nobody at that moment."""
    with console_of_event_server() as (process, server, listening):
        server.reset()
        write(process, b"a\n")
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        server = listening.accept_events("c2")
        with server.sock:
            event = server.recv_event()
            assert event["data"] == "a"
            server.ack(event, 1)
            server.accept_close()
            assert end_of(process) == (0, b"", "")


def test_ctrl_c_while_the_hub_is_away() -> None:
    """It ends at once; that not all was accepted is told."""
    with console_of_event_server() as (process, server, listening):
        write(process, b"ready\n")
        assert server.recv_event()["data"] == "ready"
        listening.sock.close()
        server.reset()
        process.send_signal(signal.SIGINT)
        status, output, errors = end_of(process)
        assert (status, output) == (1, b"")
        assert "left before the hub had accepted all" in errors and errors.count("\n") == 1


@pytest.mark.parametrize("code", [401, 403])
def test_pipe_that_may_not_come_back_has_failed(code: int) -> None:
    """A token has expired meanwhile: no more attempts, and exit status 1."""
    with console_of_event_server() as (process, server, listening):
        server.reset()
        listening.refuse(code)
        assert process.wait(SECONDS) == 1  # while there could be more to send
        _, output, errors = end_of(process)
        assert output == b""
        assert "does not let us come back" in errors and errors.count("\n") == 1


@pytest.mark.parametrize(("code", "expected"), [(1000, 3), (1008, 1), (1009, 3)])
def test_close_that_says_not_to_come_back_is_obeyed(code: int, expected: int) -> None:
    """Also a polite one is an error while there is something to send."""
    with console_of_event_server() as (process, server, _):
        write(process, b"a\n")
        server.ack(server.recv_event(), 1)
        server.send_close(code, "go away")
        server.recv_close()
        server.sock.close()
        assert process.wait(SECONDS) == expected
        _, output, errors = end_of(process)
        assert output == b""
        assert f"{code} go away" in errors and errors.count("\n") == 1


def test_lost_connection_without_reconnecting_is_3() -> None:
    """At once, in one line."""
    with console_of_event_server("--no-reconnect") as (process, server, _):
        server.message(1)
        server.sock.close()
        assert process.wait(SECONDS) == 3
        _, output, errors = end_of(process)
        assert output == b"1\n"
        assert "the connection was lost" in errors and errors.count("\n") == 1


# -- Answers to the input ----------------------------------------------------------------


# Tells when the input has come to its end.
LINGERING = """
import sys
from broadcast_server.cli import main
from tests.support.inside import replace_await_answers
def told(pipe):
    print("lingering", file=sys.stderr, flush=True)
    return wait(pipe)
wait = replace_await_answers(told)
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("end", "status", "word"),
    [("close", 0, ""), ("reset", 3, "connection was lost"), ("signal", 0, ""), ("1011", 3, "1011")],
)
def test_answer_that_takes_its_time_is_waited_for(end: str, status: int, word: str) -> None:
    """websocat #245: `echo question | …` ended before the answer, or never. A server that is no hub
    answers when it likes, and ends the connection or not."""
    with listener() as listening:
        arguments = ("--linger", "3600")
        with console(listening.url, *arguments, program=LINGERING) as process:
            server = listening.accept()
            assert process.stdin is not None and process.stderr is not None
            process.stdin.write(b"question\n")
            process.stdin.close()
            process.stdin = None
            with server.sock:
                assert server.recv_frame() == (TEXT, b"question")
                assert process.stderr.readline() == b"lingering\n"
                server.ping()  # else our Close would be here
                server.send_frame(TEXT, "answer")
                assert process.stdout is not None and process.stdout.readline() == b"answer\n"
                if end == "reset":
                    server.reset()
                elif end == "signal":
                    process.send_signal(signal.SIGINT)
                    server.accept_close()
                else:
                    server.send_close(1000 if end == "close" else int(end))
                    server.recv_close()
            code, output, errors = end_of(process)
            assert (code, output) == (status, b"") and word in errors
            assert errors.count("\n") == (1 if word else 0)


def test_lingering_may_take_as_long_as_anybody_wants() -> None:
    """A poll that is told to wait for a month fails when it begins."""
    with listener() as listening:
        arguments = ("--linger", "3e6")
        with console(listening.url, *arguments, program=LINGERING) as process:
            server = listening.accept()
            assert process.stdin is not None and process.stderr is not None
            process.stdin.close()
            process.stdin = None
            with server.sock:
                assert process.stderr.readline() == b"lingering\n"
                server.send_frame(TEXT, "answer")
                assert process.stdout is not None and process.stdout.readline() == b"answer\n"
                server.send_close()
                server.recv_close()
            assert end_of(process) == (0, b"", "")


def test_lingering_comes_to_its_end() -> None:
    """Then it ends as it would have ended before."""
    with running_hub() as hub, console(hub.url, "--linger", "0.01") as process:
        assert end_of(process, b"line\n") == (0, b"", "")
        assert [message.data for message in hub.history("/")] == ["line"]


# -- Events -----------------------------------------------------------------------------


@contextlib.contextmanager
def console_of_event_server(
    *arguments: str,
) -> Iterator[tuple[subprocess.Popen[bytes], RawServer, Listener]]:
    """Connect the command in pipes to a server of events that the test plays."""
    with listener() as listening, console(listening.url, *arguments) as process:
        server = listening.accept_events("c2")
        with server.sock:
            yield process, server, listening


@pytest.mark.parametrize("arguments", [[], ["--no-reconnect"]])
def test_pipe_of_events_gets_messages_as_they_are(arguments: list[str]) -> None:
    """No names and no notices; a line that is never sent again costs no acknowledgement."""
    with console_of_event_server(*arguments) as (process, server, _):
        server.message(1, "\x1b[31mred\nmore")
        server.send_event("join", member={"id": "c3", "name": None}, count=3)
        server.send_event("members", members=[], count=3)
        server.message(2, data_base64="AAA=")
        assert process.stdin is not None
        process.stdin.write(b"a\n/who\n")
        process.stdin.close()
        process.stdin = None
        for number, text in enumerate(("a", "/who"), 3):
            event = server.recv_event()
            assert (event["type"], event["data"]) == ("send", text)
            if arguments:
                assert set(event) == {"type", "data"}
            else:
                server.ack(event, number)
        server.accept_close()
        expected = b"\x1b[31mred\nmore\n[binary message, 2 bytes]\n"
        assert end_of(process) == (0, expected, "")


def test_gap_is_told_on_standard_error() -> None:
    """A pipe that asked for old messages does not get fewer in silence."""
    with console_of_event_server() as (process, server, _):
        server.send_event("gap", reason="trimmed", since="1-0", after="999-0")
        server.message(1)
        server.send_close(1000)
        server.recv_close()
        server.sock.close()
        status, output, errors = end_of(process)
        assert (status, output) == (0, b"1\n")
        assert re.fullmatch(r".*: warning: messages between 1-0 and 999-0 are lost: .*\n", errors)


@pytest.mark.parametrize("late", [False, True])
def test_line_that_is_refused_ends_a_pipe(late: bool) -> None:
    """With one word and exit status 1, while lines are read or when all were sent."""
    with console_of_event_server("--no-reconnect") as (process, server, _):
        write(process, b"a\n")
        assert server.recv_event()["data"] == "a"
        if late:
            process.stdin.close()
            process.stdin = None
            assert server.recv_close()[0] == 1000
        for _ in range(2):
            server.send_event("error", code="refused", detail="no", ref=None)
        if late:
            server.send_close(1000)
            server.sock.shutdown(socket.SHUT_WR)
        else:
            server.accept_close()
        status, _, errors = end_of(process)
        assert status == 1
        assert errors.endswith("error: the hub did not take a line: refused: no\n")
        assert errors.count("\n") == 1


# -- A hub that does wrong ---------------------------------------------------------------------


@contextlib.contextmanager
def console_of_raw_server() -> Iterator[tuple[subprocess.Popen[bytes], RawServer]]:
    """Connect the command to a server that the test plays."""
    with listener() as listening, console(listening.url) as process:
        server = listening.accept()
        with server.sock:
            yield process, server


def wait_for_a_line(process: subprocess.Popen[bytes], server: RawServer) -> None:
    """Wait until the command sends what it reads, and so is ready for signals, too."""
    write(process, b"ready\n")
    assert server.recv_frame() == (TEXT, b"ready")


def test_hub_without_a_word_is_an_error() -> None:
    """A connection that breaks off is told, with what the system says."""
    with console_of_raw_server() as (process, server):
        server.send_frame(TEXT, "shown all the same")
        server.sock.close()
        status, output, errors = end_of(process)
        assert (status, output) == (3, b"shown all the same\n")
        assert "the connection was lost" in errors and errors.count("\n") == 1


def test_goodbye_counts_although_the_stream_does_not_end() -> None:
    """A server that has said goodbye answers; that it keeps the connection is no matter."""
    with console_of_raw_server() as (process, server):
        server.send_close(1000)
        assert server.recv_close() == (1000, "")
        assert end_of(process) == (0, b"", "")


def test_hub_that_breaks_the_protocol_is_an_error() -> None:
    """One line, and no traceback."""
    with console_of_raw_server() as (process, server):
        server.send_frame(BINARY, b"x", masked=True)
        assert server.recv_close()[0] == 1002
        server.sock.close()
        status, _, errors = end_of(process)
        assert status == 3
        assert "broke the protocol: 1002" in errors and errors.count("\n") == 1


def test_lines_that_the_hub_does_not_confirm_are_an_error() -> None:
    """All lines were sent; the hub ends the stream instead of echoing Close."""
    with console_of_raw_server() as (process, server):
        assert process.stdin is not None
        process.stdin.write(b"one\n")
        process.stdin.close()
        process.stdin = None
        assert server.recv_frame() == (TEXT, b"one")
        assert server.recv_close() == (1000, "")
        server.sock.close()
        status, _, errors = end_of(process)
        assert status == 3
        assert "the connection was lost" in errors and errors.count("\n") == 1


def test_silent_hub_and_ctrl_c() -> None:
    """Who wants to leave does not wait for long, and learns that nobody has answered."""
    with console_of_raw_server() as (process, server):
        wait_for_a_line(process, server)
        process.send_signal(signal.SIGINT)
        assert server.recv_close() == (1000, "")
        status, _, errors = end_of(process)
        assert status == 1
        assert "left before the hub had accepted all" in errors and errors.count("\n") == 1


def test_second_ctrl_c_ends_at_once() -> None:
    """Exit status 1: nothing was waited for."""
    with console_of_raw_server() as (process, server):
        wait_for_a_line(process, server)
        process.send_signal(signal.SIGINT)
        assert server.recv_close() == (1000, "")
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 1


def test_ctrl_c_while_connecting_ends_at_once() -> None:
    """Nothing is at stake yet; no traceback."""
    listening = Listener()
    with listening.sock, console(listening.url) as process:
        sock, _ = listening.read_head()
        with sock:
            process.send_signal(signal.SIGINT)
            status, output, errors = end_of(process)
        assert (status, output, errors) == (-signal.SIGINT, b"", "")
