"""``broadcast-server listen`` as the process that it is."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from ...support import BINARY, PYTHON, TEXT, RawClient, lasting_port, running_hub, wait_until
from ...support.command import SECONDS, assert_fails, environment, run
from ...support.raw_server import SUBPROTOCOL, Listener, RawServer, listener
from ...support.tmux import terminal

pytestmark = pytest.mark.slow

# What is a bound for a command that was told to end, on a busy machine.
LEAVE = SECONDS


@contextlib.contextmanager
def listening(url: str, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run ``listen`` with pipes for what the options do not name."""
    command = [PYTHON, "-m", "broadcast_server", "listen", url, *arguments]
    pipes: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment(), text=True, **pipes | options) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def end_of(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return exit status, standard output and standard error."""
    output, errors = process.communicate(timeout=LEAVE)
    return process.returncode, output, errors


@contextlib.contextmanager
def events(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], RawServer, Listener]]:
    """Run ``listen`` with a raw server that speaks events."""
    with listener() as found, listening(found.url, *arguments) as process:
        server = found.accept_events()
        with server.sock:
            yield process, server, found


# What is written.


def test_each_message_is_written_at_once() -> None:
    """One line for each, though standard output is a pipe."""
    with running_hub() as hub, listening(hub.url) as process:
        assert wait_until(lambda: len(hub.members("/")) == 1, SECONDS)
        for text, line in [("one", "one\n"), ("a\nb\x1b", "a\\nb\\x1b\n"), ("é", "é\n")]:
            hub.broadcast(text)
            assert read_line(process) == line
        process.send_signal(signal.SIGTERM)
        assert end_of(process) == (-signal.SIGTERM, "", "")


@pytest.mark.parametrize(
    ("form", "written"),
    [("text", b"a\\x1b\n[binary message, 2 bytes]\n"), ("raw", b"a\x1b\n\0\xff")],
)
def test_format_is_a_choice(form: str, written: bytes) -> None:
    """For people or for programs."""
    with running_hub() as hub:
        hub.broadcast("a\x1b")
        hub.broadcast(b"\0\xff")
        arguments = ["--history", "9", "--count", "2", "--format", form]
        result = subprocess.run(
            [PYTHON, "-m", "broadcast_server", "listen", hub.url, *arguments],
            env=environment(),
            capture_output=True,
            timeout=SECONDS,
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, written, b"")


def test_json_tells_what_there_is_to_know() -> None:
    """Id, room, sender, time."""
    with running_hub() as hub:
        run("publish", hub.url, "x", "--name", "ann")
        (message,) = hub.history("/")
        result = run("listen", hub.url, "--history", "1", "--count", "1", "--format", "json")
        event = json.loads(result.stdout)
        assert (event["type"], event["id"], event["room"]) == ("message", message.id, "/")
        assert event["from"]["name"] == "ann" and event["data"] == "x"


def test_name_is_shown_to_others() -> None:
    """A listener is a member of the room."""
    with running_hub() as hub, listening(f"{hub.url}r", "--name", "desk") as process:
        assert wait_until(lambda: [m.name for m in hub.members("/r")] == ["desk"], SECONDS)
        process.send_signal(signal.SIGINT)
        assert process.wait(LEAVE) == -signal.SIGINT


# Where it begins and ends.


def test_count_ends_it() -> None:
    """Exactly so many are written, also if there are more."""
    with running_hub() as hub:
        for number in range(9):
            hub.broadcast(str(number))
        result = run("listen", hub.url, "--history", "5", "--count", "3")
        assert (result.returncode, result.stdout, result.stderr) == (0, "4\n5\n6\n", "")


def test_since_begins_behind_a_message() -> None:
    """A script goes on where it ended."""
    with running_hub() as hub:
        ids = [hub.broadcast(str(number)).id for number in range(4)]
        result = run("listen", hub.url, "--since", str(ids[1]), "--count", "2")
        assert (result.returncode, result.stdout) == (0, "2\n3\n")


def test_gap_is_told_and_is_no_end() -> None:
    """What the hub does not hold any more is missing; what it holds is written."""
    with running_hub() as hub:
        hub.broadcast("x")
        result = run("listen", hub.url, "--since", "1-0", "--timeout", "5")
        assert result.returncode == 0
        assert "listen: warning: messages between 1-0 and" in result.stderr


def test_time_over_is_done() -> None:
    """Whoever asks for messages of one second gets them."""
    with running_hub() as hub:
        hub.broadcast("x")
        result = run("listen", hub.url, "--history", "1", "--timeout", "5")
        assert (result.returncode, result.stdout, result.stderr) == (0, "x\n", "")


def test_too_few_messages_in_time_is_1() -> None:
    """`if broadcast-server listen --count 1 --timeout 60` asks just that."""
    with running_hub() as hub:
        hub.broadcast("x")
        result = run("listen", hub.url, "--history", "1", "--count", "2", "--timeout", "5")
        assert (result.returncode, result.stdout) == (1, "x\n")
        assert result.stderr.endswith("listen: error: 1 of 2 messages came in 5 s\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_says_goodbye_and_ends_as_signals_do(number: signal.Signals) -> None:
    """So that the shell's loop around it ends as well."""
    codes: list[int] = []
    with running_hub(on_leave=lambda member, code, reason: codes.append(code)) as hub:
        with listening(hub.url) as process:
            assert wait_until(lambda: len(hub.members("/")) == 1, SECONDS)
            hub.broadcast("x")
            assert read_line(process) == "x\n"  # so it has taken the signals over
            process.send_signal(number)
            assert end_of(process) == (-number, "", "")
        assert wait_until(lambda: codes == [1000], SECONDS)


def test_closed_pipe_ends_it_quietly() -> None:
    """At once, and not only at the next message."""
    with running_hub() as hub, listening(hub.url) as process:
        assert wait_until(lambda: len(hub.members("/")) == 1, SECONDS)
        hub.broadcast("x")
        assert read_line(process) == "x\n"
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(LEAVE) == 0
        assert process.stderr.read() == ""


def test_head_gets_its_line_and_nobody_complains() -> None:
    """What everybody types."""
    with running_hub() as hub:
        for number in range(1000):
            hub.broadcast(f"{number} " + "x" * 1000)
        script = '"$0" -m broadcast_server listen "$1" --history 1000 | head -n 1 | cut -c 1-3'
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", script, PYTHON, hub.url],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, "", "900\n")


def test_full_disk_is_told() -> None:
    """Who writes to a file wants to know."""
    with running_hub() as hub, open("/dev/full", "w") as full:
        hub.broadcast("x")
        with listening(hub.url, "--history", "1", stdout=full) as process:
            status, _, errors = end_of(process)
            assert status == 1 and "No space" in errors and len(errors.splitlines()) == 1


def test_reader_that_does_not_read_does_not_keep_it() -> None:
    """Ctrl-C ends what waits for a full pipe."""
    with running_hub() as hub, listening(hub.url, "--history", "100") as process:
        for _ in range(40):
            hub.broadcast("x" * 100_000)
        assert wait_until(lambda: len(hub.members("/")) == 1, SECONDS)
        assert read_line(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(LEAVE) in (-signal.SIGINT, 128 + signal.SIGINT)


# The connection.


def test_lost_connection_is_taken_up_again() -> None:
    """Nothing is missing and nothing comes twice, whatever the server repeats."""
    with events("--count", "4") as (process, server, found):
        server.message(1)
        server.message(2)
        assert read_line(process) == "1\n" and read_line(process) == "2\n"
        server.reset()
        again = found.accept(SUBPROTOCOL)
        with again.sock:
            assert again.query()["since"] == "1000-2"
            again.welcome(after="1000-2")
            for number in (2, 3, 4):
                again.message(number)
            assert again.accept_close()[0] == 1000
            assert end_of(process) == (0, "3\n4\n", "")


def test_lost_connection_is_told_to_who_sits_at_a_terminal() -> None:
    """Once for the loss and once for the return; a script is told nothing."""
    with listener() as found, terminal(100) as window:
        # No prompt tells that it is there: its messages do.
        window.type(f"clear; broadcast-server listen {found.url}\n")
        server = found.accept_events()
        server.message(1, "first")
        window.wait_for("first")
        server.reset()
        window.wait_for("broadcast-server listen: the connection is lost, trying again")
        found.refuse(503)
        server = found.accept_events()
        with server.sock:
            window.wait_for("connected again")
            server.message(2, "second")
            window.wait_for("second")
            told = "broadcast-server listen:"
            shown = ["first", f"{told} the connection is lost, trying again"]
            shown += [f"{told} connected again", "second"]
            assert window.screen()[-4:] == shown
            window.key("C-c")
            server.accept_close()


def test_hub_that_is_started_anew_is_listened_to_again() -> None:
    """A real one, on the same port; what it has forgotten is told, if there was any."""
    port = lasting_port()
    with (
        running_hub(port=port) as first,
        listening(f"{first.url}r", "--count", "2") as process,
    ):
        assert wait_until(lambda: len(first.members("/r")) == 1, SECONDS)
        first.broadcast("one", room="/r")
        assert read_line(process) == "one\n"
        first.stop()
        with running_hub(port=port) as second:
            assert wait_until(lambda: len(second.members("/r")) == 1, SECONDS)
            second.broadcast("two", room="/r")
            status, output, errors = end_of(process)
            assert (status, output) == (0, "two\n")
            assert "restarted" in errors


def test_lost_connection_without_reconnecting_is_3() -> None:
    """At once, in one line."""
    with events("--no-reconnect") as (process, server, _):
        server.message(1)
        assert read_line(process) == "1\n"
        server.reset()
        status, output, errors = end_of(process)
        assert (status, output) == (3, "")
        assert errors.startswith("broadcast-server listen: error: the connection was lost: ")


@pytest.mark.parametrize(("code", "expected"), [(1008, 1), (1009, 3), (4000, 3)])
def test_close_that_says_not_to_come_back_is_obeyed(code: int, expected: int) -> None:
    """The reason is told; whether it was refused or lost, the exit status tells."""
    with events() as (process, server, _):
        server.send_close(code, "go away")
        server.recv_close()
        server.sock.close()
        status, _, errors = end_of(process)
        assert status == expected and f"{code} go away" in errors


@pytest.mark.parametrize("status", [401, 403, 404])
def test_refusal_to_come_back_is_1(status: int) -> None:
    """It would be the same the next time."""
    with events() as (process, server, found):
        server.reset()
        found.refuse(status)
        code, _, errors = end_of(process)
        assert code == 1 and f"HTTP status {status}" in errors


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--count", "2"], 3)])
def test_goodbye_is_the_end_if_no_more_is_wanted(arguments: list[str], status: int) -> None:
    """Who wants two messages and gets one has not got what they want."""
    with events(*arguments) as (process, server, _):
        server.message(1)
        server.send_close(1000, "bye")
        server.recv_close()
        server.sock.close()
        code, output, errors = end_of(process)
        assert (code, output, bool(errors)) == (status, "1\n", status != 0)


def test_no_hub_and_no_right_are_1(tmp_path: pathlib.Path) -> None:
    """In one line; a token lets it in."""
    assert_fails(run("listen", "ws://127.0.0.1:1/"), 1, "ws://127.0.0.1:1/", "refused")
    assert_fails(run("listen", "--token-file", str(tmp_path / "none")), 1, "cannot read")
    with running_hub(token="right") as hub:
        assert_fails(run("listen", hub.url), 1, "a token is needed")
        hub.broadcast("x")
        variables = {"BROADCAST_SERVER_TOKEN": "right", "BROADCAST_SERVER_CONNECT_HISTORY": "1"}
        result = run("listen", hub.url, "--count", "1", variables=variables)
        assert (result.returncode, result.stdout) == (0, "x\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", "0"], "--count must be at least 1"),
        (["--count", "x"], "--count"),
        (["--timeout", "0"], "--timeout must be more than 0"),
        (["--history", "-1"], "--history must be at least 0"),
        (["--since", "yesterday"], "yesterday"),
        (["--format", "xml"], "--format"),
        (["--exec", ""], "--exec: it is empty"),
        (["--port", "0"], "--port: a hub has a port"),
        (["ftp://127.0.0.1/"], "ftp://127.0.0.1/"),
        (["ws://127.0.0.1/", "--room", "x"], "not both"),
        (["ws://127.0.0.1/", "-H", "x"], "--header"),
        (["ws://127.0.0.1/", "-H", "Origin: x", "--origin", "y"], "--origin"),
        (["ws://127.0.0.1/", "more"], "'more' is not an address"),
        (["/a", "/b", "--room", "x"], "not both"),
        (["/a", "ws://127.0.0.1/", "--port", "80"], "not both"),
        (["/a", "/b c"], "is not an address"),
        (["/a", "--port", "0"], "--port: a hub has a port"),
    ],
)
def test_usage_errors_are_2(arguments: list[str], words: str) -> None:
    """Mistakes that can be seen without a hub."""
    assert_fails(run("listen", *arguments), 2, "listen: error: ", words)


# Several rooms.


def test_several_rooms_are_listened_to_at_once() -> None:
    """By their paths at one hub; each line says in which room it was."""
    with running_hub() as hub:
        command = ["/a", "/b", "/c", "--port", str(hub.port), "--format", "json", "--count", "4"]
        with listening(*command) as process:
            rooms = ("/a", "/b", "/c")
            assert wait_until(lambda: all(hub.members(room) for room in rooms), SECONDS)
            sent = [("one", "/a"), ("two", "/c"), ("three", "/b"), ("four", "/a")]
            for text, room in sent:
                hub.broadcast(text, room)
                event = json.loads(read_line(process))
                assert (event["data"], event["room"]) == (text, room)
            assert end_of(process) == (0, "", "")
        assert wait_until(lambda: not any(hub.members(room) for room in rooms))


def test_several_rooms_may_be_at_several_hubs() -> None:
    """A path is at the hub of the address before it."""
    with running_hub() as first, running_hub() as second:
        for number, (hub, room) in enumerate([(first, "/x"), (first, "/y"), (second, "/z")]):
            hub.broadcast(str(number), room)
        urls = [f"{first.url}x", "/y", f":{second.port}/z"]
        result = run("listen", *urls, "--history", "1", "--count", "3")
        assert (result.returncode, result.stderr) == (0, "")
        assert sorted(result.stdout.split()) == ["0", "1", "2"]


def test_one_path_is_a_room_of_the_hub() -> None:
    """For each command that joins a room or asks for one."""
    with running_hub() as hub:
        hub.broadcast("x", "/é/b")
        port = ["--port", str(hub.port)]
        result = run("listen", "/é/b", *port, "--history", "1", "--count", "1")
        assert (result.returncode, result.stdout) == (0, "x\n")
        result = run("connect", "/r", *port, stdin=None, input="one\n")
        assert (result.returncode, result.stderr) == (0, "")
        assert [message.data for message in hub.history("/r")] == ["one"]
        result = run("who", "/r", variables={"BROADCAST_SERVER_CONNECT_PORT": str(hub.port)})
        assert (result.returncode, result.stdout) == (0, "nobody is in /r\n")


def test_exec_runs_for_the_messages_of_all_rooms() -> None:
    """One after the other, and each command knows the room."""
    with running_hub() as hub:
        for number in range(200):
            hub.broadcast(str(number), f"/{number % 2}")
        arguments = ["--port", str(hub.port), "--history", "100", "--count", "200"]
        command = 'echo "$BROADCAST_ROOM $(cat)"'
        result = run("listen", "/0", "/1", *arguments, "--exec", command)
        assert (result.returncode, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        for room in ("0", "1"):
            expected = [f"/{room} {number}" for number in range(200) if number % 2 == int(room)]
            assert [line for line in lines if line.startswith(f"/{room}")] == expected


def test_room_that_refuses_ends_all() -> None:
    """Nothing is written of the others, and nobody stays there."""
    with running_hub() as hub:
        hub.broadcast("x", "/a")
        result = run("listen", f"{hub.url}a", "/healthz", "--history", "1")
        assert_fails(result, 1, f"cannot connect to {hub.url}healthz: ")
        assert wait_until(lambda: not hub.members("/a"))


def test_room_that_ends_ends_all_and_nothing_that_came_is_lost(tmp_path: pathlib.Path) -> None:
    """What waits for the command by then is still given to it; it is said which room it was."""
    go = tmp_path / "go"
    os.mkfifo(go)
    with running_hub() as hub, listener() as found:
        # Its first command holds up all that comes.
        command = f"read line; [ $line != 0 ] || cat {go} > /dev/null; echo $line"
        with listening(f"{hub.url}a", found.url, "--no-reconnect", "--exec", command) as process:
            server = found.accept_events()
            assert wait_until(lambda: bool(hub.members("/a")), SECONDS)
            for number in range(20):
                hub.broadcast(str(number), "/a")
            assert wait_until(lambda: hub.history("/a")[-1].data == "19", SECONDS)
            server.sock.close()
            assert wait_until(lambda: not hub.members("/a"), SECONDS)
            go.write_text("")
            status, output, errors = end_of(process)
        assert output.split() == list(map(str, range(20)))
        assert status == 3
        assert errors.startswith("broadcast-server listen: error: /room: the connection was lost: ")


def test_gap_of_one_room_is_told_with_its_name() -> None:
    """The others go on."""
    with running_hub() as hub:
        for room in ("/a", "/b"):
            hub.broadcast("x", room)
        arguments = ["--port", str(hub.port), "--since", "1-0", "--count", "2"]
        result = run("listen", "/a", "/b", *arguments)
        assert (result.returncode, result.stdout) == (0, "x\nx\n")
        told = sorted(result.stderr.splitlines())
        for line, room in zip(told, ("/a", "/b"), strict=True):
            assert line.startswith(f"broadcast-server listen: warning: {room}: messages between")


def test_signal_leaves_all_rooms() -> None:
    """With a goodbye, and then as a signal ends any program."""
    with running_hub() as hub:
        with listening("/a", "/b", "--port", str(hub.port)) as process:
            assert wait_until(lambda: bool(hub.members("/a") and hub.members("/b")), SECONDS)
            process.send_signal(signal.SIGTERM)
            assert end_of(process) == (-signal.SIGTERM, "", "")
        assert wait_until(lambda: not (hub.members("/a") or hub.members("/b")))


def test_reader_that_goes_ends_all_rooms() -> None:
    """`| head` ends it although no more messages come."""
    with (
        running_hub() as hub,
        listening("/a", "/b", "--port", str(hub.port)) as process,
    ):
        assert wait_until(lambda: bool(hub.members("/a") and hub.members("/b")), SECONDS)
        hub.broadcast("x", "/b")
        assert read_line(process) == "x\n"
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(LEAVE) == 0


def test_slow_command_holds_up_a_room_and_loses_nothing() -> None:
    """What comes waits in the clients, and then at the hub."""
    with running_hub() as hub:
        arguments = ["--port", str(hub.port), "--count", "150", "--exec", "cat"]
        with listening("/a", "/b", *arguments) as process:
            assert wait_until(lambda: bool(hub.members("/a") and hub.members("/b")), SECONDS)
            for number in range(150):
                hub.broadcast(str(number), "/a")
            assert end_of(process)[:2] == (0, "".join(f"{number}\n" for number in range(150)))


# --exec.


def test_exec_runs_in_order_with_what_is_known() -> None:
    """The next command begins when the one before has ended; nothing else is written."""
    with running_hub() as hub:
        for number in range(3):
            run("publish", f"{hub.url}r", f"{number}\n$(x)", "--name", "ann")
        ids = [str(message.id) for message in hub.history("/r")]
        command = 'printf "%s %s %s:" "$BROADCAST_ID" "$BROADCAST_ROOM" "$BROADCAST_SENDER"; cat'
        result = run("listen", f"{hub.url}r", "--history", "9", "--count", "3", "--exec", command)
        assert (result.returncode, result.stderr) == (0, "")
        expected = [f"{id} /r ann:{number}\n$(x)\n" for number, id in enumerate(ids)]
        assert result.stdout == "".join(expected)


def test_exec_may_have_the_message_as_json() -> None:
    """In the form that was asked for."""
    with running_hub() as hub:
        hub.broadcast("x")
        arguments = ["--history", "1", "--count", "1", "--format", "json", "--exec", "cat"]
        assert json.loads(run("listen", hub.url, *arguments).stdout)["data"] == "x"


def test_command_that_fails_is_told_and_the_next_one_runs() -> None:
    """In the end the status says that something has failed."""
    with running_hub() as hub:
        for text in ("good", "bad", "good again"):
            hub.broadcast(text)
        command = 'read line; echo "$line"; test "$line" != bad'
        result = run("listen", hub.url, "--history", "3", "--count", "3", "--exec", command)
        assert (result.returncode, result.stdout) == (1, "good\nbad\ngood again\n")
        (line,) = result.stderr.splitlines()
        assert f"message {hub.history('/')[-2].id}: the command ended with 1" in line


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_command_that_hangs_ends_with_a_signal(trap: str) -> None:
    """Also one that does not listen to it."""
    with running_hub() as hub:
        hub.broadcast("x")
        command = f"{trap}echo $$; while :; do sleep 1000; done"
        with listening(hub.url, "--history", "1", "--exec", command) as process:
            pid = int(read_line(process))
            process.send_signal(signal.SIGINT)
            assert end_of(process) == (-signal.SIGINT, "", "")
            assert not os.path.exists(f"/proc/{pid}")


def test_command_that_hangs_ends_with_the_time() -> None:
    """The time is for all of it."""
    with running_hub() as hub:
        hub.broadcast("x")
        arguments = ["--history", "1", "--exec", "sleep 1000", "--timeout", "5"]
        result = run("listen", hub.url, *arguments)
        assert (result.returncode, result.stderr) == (0, "")


def test_slow_command_loses_no_message() -> None:
    """What comes meanwhile waits."""
    with running_hub() as hub:
        with listening(hub.url, "--count", "20", "--exec", "sleep 0.02; cat") as process:
            assert wait_until(lambda: len(hub.members("/")) == 1, SECONDS)
            for number in range(20):
                hub.broadcast(str(number))
            status, output, errors = end_of(process)
            assert (status, errors) == (0, "")
            assert output.split() == [str(number) for number in range(20)]


# Servers that are no hubs.


@pytest.mark.parametrize("chosen", [None, "plain"])
def test_other_server_is_listened_to_in_plain_frames(chosen: str | None) -> None:
    """One that chooses no subprotocol, and one that takes the first without a look."""
    with listener() as found, listening(found.url, "--format", "json") as process:
        server = found.accept(chosen)
        with server.sock:
            server.send_frame(TEXT, "hello")
            event = json.loads(read_line(process))
            assert (event["data"], event["id"], event["from"]) == ("hello", None, None)
            server.send_frame(BINARY, b"\xff")
            assert json.loads(read_line(process))["data_base64"] == "/w=="
            server.send_close(1001)
            server.recv_close()
        assert end_of(process) == (0, "", "")


@pytest.mark.parametrize("command", ["listen", "connect"])
def test_other_server_is_told_what_it_wants(command: str) -> None:
    """Header lines, a subprotocol, an origin; what was not offered must not be chosen."""
    arguments = ["-H", "X-A: 1", "--subprotocol", "chat", "--origin", "https://a.example"]
    with listener() as found:
        for chosen, status in (("chat", 0), ("other", 1)):
            with subprocess.Popen(
                [PYTHON, "-m", "broadcast_server", command, found.url, *arguments],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                server = found.accept(chosen)
                with server.sock:
                    assert server.offered() == ["chat"]
                    assert "\r\nX-A: 1\r\n" in server.head
                    assert "\r\nOrigin: https://a.example\r\n" in server.head
                    if status == 0:
                        server.send_frame(TEXT, "hello")
                        server.send_close(1000)
                        server.recv_close()
                code, output, errors = end_of(process)
                assert code == status, errors
                if status == 0:
                    assert output == "hello\n"
                else:
                    assert "a subprotocol nobody offered" in errors


def test_none_offers_nothing() -> None:
    """For a server that refuses what it does not know."""
    with listener() as found, listening(found.url, "--subprotocol", "none") as process:
        server = found.accept()
        with server.sock:
            assert server.offered() == []
            server.send_close(1000)
            server.recv_close()
        assert process.wait(LEAVE) == 0


def test_publisher_of_plain_frames_is_heard() -> None:
    """A hub's room has members of all kinds."""
    with running_hub() as hub, listening(hub.url, "--count", "1") as process:
        assert wait_until(lambda: len(hub.members("/")) == 1, SECONDS)
        with RawClient.connect(port=hub.port) as other:
            other.send("hello")
            assert end_of(process) == (0, "hello\n", "")
