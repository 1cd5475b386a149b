"""The ``broadcast-server`` command, first its pure parts, then as a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from broadcast_server import cli, cli_words, commands, logs, options, streams
from broadcast_server.settings import Settings

from .support import (
    PYTHON,
    RawClient,
    http_request,
    python_environment,
    running_hub,
    wait_until,
)
from .test_publisher import Act, answer, reset, serving

pytestmark = pytest.mark.slow

SECONDS = 20  # bound of every wait for a process


def environment(variables: Mapping[str, str] = {}) -> dict[str, str]:
    """Return an environment in which only these variables of ours are set."""
    without = ("BROADCAST_SERVER_", "PYTHONUNBUFFERED")  # users have buffers
    return {k: v for k, v in python_environment().items() if not k.startswith(without)} | variables


def run(
    *arguments: str,
    variables: Mapping[str, str] = {},
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [PYTHON, "-m", "broadcast_server", *arguments],
        env=environment(variables),
        text=True,
        timeout=SECONDS,
        **{"stdin": subprocess.DEVNULL, "capture_output": True} | options,
    )


def assert_fails(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """Check that a command ended with this status and one line that has these words."""
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("broadcast-server")
    for word in words:
        assert word in line


class Running:
    """A hub that runs as a process, with the address from its first line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        self.process = process
        self.line = process.stdout.readline()
        found = re.fullmatch(r"Listening on wss?://(.*):(\d+)/ \(Ctrl-C to stop\)\n", self.line)
        assert found, (self.line, process.poll())
        self.host, self.port = found[1], int(found[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal; return exit status, the rest of standard output, and the log."""
        self.process.send_signal(number)
        output, log = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, output, log


@contextlib.contextmanager
def hub_command(
    *arguments: str,
    variables: Mapping[str, str] = {},
    **options: Any,
) -> Iterator[Running]:
    """Run a hub as a process."""
    command = [PYTHON, "-m", "broadcast_server", *arguments]
    with hub_program(command, env=environment(variables), **options) as hub:
        yield hub


@contextlib.contextmanager
def hub_program(command: Sequence[str], **options: Any) -> Iterator[Running]:
    """Run a program that is a hub in the end."""
    options = {"env": environment(), "text": True} | options
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


# The table of options.


def test_start_options_are_the_settings() -> None:
    """Every setting of the library is an option of ``start``, with the same default; but secrets
    are never arguments."""
    options = {o.dest: o.default for group in cli.OPTIONS["start"].values() for o in group}
    command_only = {"log_level", "log_format", "restart_on_term"}
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    secrets = {"token", "publish_token", "jwt_key"}
    assert options.keys() - command_only == fields.keys() - secrets | {"host", "port"}
    assert not any(secret in cli.build_parser().format_help() for secret in ("--token ", "--jwt "))
    fields = {name: default for name, default in fields.items() if name not in secrets}
    differing = {name for name in fields if options[name] != fields[name]}
    # The command is a process of its own and may set this for all of it.
    assert differing == {"switch_interval"}


@pytest.mark.parametrize("command", cli.OPTIONS)
def test_option_help_is_a_phrase_with_its_default(command: str) -> None:
    """Help is one lower-case phrase, then the default."""
    for option in (option for group in cli.OPTIONS[command].values() for option in group):
        text = option.full_help()
        assert re.fullmatch(r"[a-zHT][^.]*(\.\w[^.]*)* \(default: [^()]+\)", text), text
        assert option.metavar in options.KINDS


def test_parser_takes_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The man page is the same on every machine."""
    before = cli.build_parser().format_help()
    monkeypatch.setenv("BROADCAST_SERVER_PORT", "1")
    assert cli.build_parser().format_help() == before
    assert vars(cli.build_parser().parse_args(["start"])).keys() <= {"command", "start", "connect"}


# Arguments.


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ("start", "start"),
        ("--start --port 8000", "start --port 8000"),
        ("--port 8000 --start", "start --port 8000"),
        ("--port 8000 start --host h", "start --port 8000 --host h"),
        ("--connect --name start", "connect --name start"),
        ("--name=start connect", "connect --name=start"),
        ("ws://h/ connect", "connect -- ws://h/"),
        ("connect -- start", "connect -- start"),
        ("--room who who", "who --room who"),
        ("ws://h/ who", "who -- ws://h/"),
        ("publish start the --room /x car", "publish --room /x -- start the car"),
        ("-H a:b listen", "listen -H a:b"),
        ("publish - --name -", "publish --name - -- -"),
        ("publish -- -x -- y", "publish -- -x -- y"),
        ("--start --help", "start --help"),
        ("--port 1 --version", "--version"),
        ("-h", "-h"),
    ],
)
def test_command_first_moves_the_command_to_the_front(given: str, parsed: str) -> None:
    """Both spellings work in any place."""
    assert cli.command_first(given.split()) == parsed.split()


@pytest.mark.parametrize(
    "given",
    [
        "",
        "--port 8000",
        "--start --connect",
        "start connect",
        "--start who",
        "--name start",
        "start publish",
    ],
)
def test_command_first_refuses_none_and_two(given: str) -> None:
    """Without exactly one command nothing is guessed."""
    with pytest.raises(ValueError, match="connect, publish, listen or who"):
        cli.command_first(given.split())


def test_resolve_prefers_command_line_to_environment_to_default() -> None:
    """Each source is looked at in turn, and it is known which one spoke."""
    variables = {"BROADCAST_SERVER_PORT": "1", "BROADCAST_SERVER_HOST": "::1"}
    found = cli.resolve("start", {"port": 2}, variables)
    assert found.values["port"] == 2 and found.sources["port"] == "--port"
    assert found.values["host"] == ["::1"] and found.sources["host"] == "BROADCAST_SERVER_HOST"
    assert found.values["history"] == 100 and found.sources["history"] == "--history"


@pytest.mark.parametrize("text", ["", "tcp://10.0.0.7:8765"])
def test_resolve_ignores_values_that_nobody_meant_for_us(text: str) -> None:
    """Kubernetes sets such variables, compose files leave empty ones."""
    found = cli.resolve("start", {}, {"BROADCAST_SERVER_PORT": text})
    assert found.values["port"] == 8765 and found.sources["port"] == "--port"


def test_resolve_keeps_the_client_and_the_hub_apart() -> None:
    """The hub may listen where no client can connect."""
    variables = {"BROADCAST_SERVER_HOST": "0.0.0.0", "BROADCAST_SERVER_CONNECT_PORT": "81"}
    values = cli.resolve("connect", {}, variables).values
    assert (values["host"], values["port"]) == ("127.0.0.1", 81)


def test_resolve_splits_a_list() -> None:
    """A repeatable option takes several values from one variable."""
    variables = {"BROADCAST_SERVER_ALLOW_ORIGIN": "https://a.example, https://b.example"}
    found = cli.resolve("start", {}, variables)
    assert found.values["allow_origin"] == ["https://a.example", "https://b.example"]


def test_resolve_takes_secrets_from_the_environment_only() -> None:
    """A file that is named, on the command line or in a variable, wins over a token in one."""
    variables = {"BROADCAST_SERVER_TOKEN": "t", "BROADCAST_SERVER_PUBLISH_TOKEN": "p"}
    found = cli.resolve("start", {}, variables)
    assert (found.values["token"], found.values["publish_token"]) == ("t", "p")
    assert found.sources["token"] == "BROADCAST_SERVER_TOKEN"
    found = cli.resolve("start", {"token_file": "/t"}, variables)
    assert (found.values["token"], found.values["token_file"]) == (None, "/t")
    variables["BROADCAST_SERVER_PUBLISH_TOKEN_FILE"] = "/p"
    assert cli.resolve("start", {}, variables).values["publish_token"] is None
    for command in ("connect", "who"):
        assert cli.resolve(command, {}, variables).values["token"] == "t"
        assert cli.resolve(command, {"token_file": "/t"}, variables).values["token"] is None
        assert cli.resolve(command, {}, {"BROADCAST_SERVER_TOKEN": ""}).values["token"] is None


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("port", "abc"),
        ("port", "-1"),
        ("port", "65536"),
        ("host", "\udcff"),
        ("ping-interval", "nan"),
        ("ping-interval", "soon"),
        ("max-clients", "1.5"),
        ("log-level", "loud"),
    ],
)
def test_bad_value_names_its_source(
    option: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same value is refused in the command line and in the environment."""
    variable = "BROADCAST_SERVER_" + option.upper().replace("-", "_")
    with pytest.raises(ValueError, match=f"{variable}: "):
        cli.resolve("start", {}, {variable: text})
    assert cli.main(["start", f"--{option}={text}"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    start = f"broadcast-server start: error: argument --{option}: "
    assert printed.err.startswith(start)
    assert len(printed.err.splitlines()) == 1


def test_empty_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty address would be every interface of the machine."""
    assert cli.main(["start", "--host", ""]) == 2
    assert "--host: it is empty" in capsys.readouterr().err


# The log.


def record_of(message: str, **extra: Any) -> logging.LogRecord:
    fields = {"name": "broadcast_server.hub", "levelname": "INFO", "msg": message, "created": 0.25}
    return logging.makeLogRecord(fields | extra)


def test_text_log_escapes_what_a_peer_could_have_sent() -> None:
    """A client's name can neither forge a line nor steer the terminal."""
    line = logs.TextFormatter().format(record_of("n\nm\x1b[2J\u202e é"))
    assert line == "1970-01-01T00:00:00.250Z INFO broadcast_server.hub: n\\nm\\x1b[2J\\u202e é"


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2J",
        "\r\n",
        "\u202e",
        "\u2066",
        "\u200b",
        "\ufeff",
        "\u2028",
        "\u3164",
        "\u115f",
        "\u034f",
    ],
)
def test_what_nobody_sees_is_escaped(text: str) -> None:
    """Control, direction and no width, one by one; letters of all scripts stay."""
    assert logs.printable(f"a{text}b").isascii() and logs.printable(text).isprintable()
    assert logs.printable("h\u00f6rst \u05d3\u05d5 \u4f60") == "h\u00f6rst \u05d3\u05d5 \u4f60"


def test_log_is_redirected_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who draws on the terminal gets its lines, all of them before it ends."""
    reader, writer = os.pipe()
    handler = logs.BackgroundHandler(writer)
    monkeypatch.setattr(logs, "_handler", handler)
    shown: list[str] = []
    try:
        with logs.redirected(shown.append):
            for text in ("one", "two\nthree"):
                handler.handle(logging.LogRecord("n", logging.INFO, "f", 1, text, None, None))
        handler.handle(logging.LogRecord("n", logging.INFO, "f", 1, "four", None, None))
        handler.close()
        assert shown == ["one", "two", "three"]
        assert os.read(reader, 100) == b"four\n"
    finally:
        os.close(reader)
        os.close(writer)
    monkeypatch.setattr(logs, "_handler", None)
    with logs.redirected(shown.append):
        pass


@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JSONFormatter()])
def test_log_has_the_traceback(formatter: logging.Formatter) -> None:
    """A failure in user code can be found by its log."""
    try:
        raise KeyError("gone")
    except KeyError as error:
        record = record_of("failed", exc_info=(KeyError, error, error.__traceback__))
    assert "KeyError: 'gone'" in formatter.format(record)


def test_traceback_in_the_log_is_escaped() -> None:
    """An exception may repeat what somebody has sent."""
    try:
        raise ValueError("\x1b[2J\u202e")
    except ValueError as error:
        record = record_of("failed", exc_info=(ValueError, error, error.__traceback__))
    lines = logs.TextFormatter().format(record).split("\n")
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: \\x1b[2J\\u202e"


def test_json_log_is_one_object_a_line() -> None:
    """A machine gets every field of a record, also those of ``extra``."""
    line = logs.JSONFormatter().format(record_of("a\nb", client="c1"))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "info",
        "logger": "broadcast_server.hub",
        "message": "a\nb",
        "client": "c1",
    }


def test_log_that_nobody_reads_holds_nobody_up() -> None:
    """Who logs goes on; what was left out is counted in its place, and the rest is in order."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writer, bytes(4096))
    os.set_blocking(writer, True)
    handler = logs.BackgroundHandler(writer, limit=100)
    handler.setFormatter(logging.Formatter("%(message)s"))
    try:
        handler.handle(record_of("in the making"))
        assert wait_until(handler._waiting.empty)
        for number in range(150):
            handler.handle(record_of(str(number)))
        with open(reader, "rb", closefd=False) as log:
            assert log.read(filled) == bytes(filled)
            expected = ["in the making", *map(str, range(100))]
            assert [log.readline().decode().strip() for _ in expected] == expected
            handler.handle(record_of("late"))
            assert log.readline() == b"50 records were left out: the log is read too slowly\n"
            assert log.readline() == b"late\n"
    finally:
        os.close(reader)
        handler.close()
        os.close(writer)


# Standard streams.


def test_write_stdout_tells_when_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed write the stream leads nowhere, so that the interpreter's own cannot fail."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert not commands.write_stdout("text")
        assert commands.write_stdout("more")


def test_complain_survives_a_closed_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nobody left to tell."""
    reader, writer = os.pipe()
    os.close(reader)
    with io.TextIOWrapper(open(writer, "wb", buffering=0), write_through=True) as stream:
        monkeypatch.setattr("sys.stderr", stream)
        streams.complain("start", "nothing")


# As a process: information.


def test_version_is_printed() -> None:
    """With or without a command, in any place."""
    import broadcast_server

    for arguments in ["--version"], ["start", "--port", "1", "--version"], ["--version", "connect"]:
        result = run(*arguments)
        expected = (0, f"broadcast-server {broadcast_server.__version__}\n", "")
        assert (result.returncode, result.stdout, result.stderr) == expected


@pytest.mark.parametrize("command", cli.OPTIONS)
def test_help_has_every_option(command: str) -> None:
    """Help comes on standard output, whatever the environment says."""
    result = run(command, "--help", variables={"BROADCAST_SERVER_PORT": "abc"})
    assert (result.returncode, result.stderr) == (0, "")
    for option in (option for group in cli.OPTIONS[command].values() for option in group):
        assert f"--{option.name} {option.metavar}".rstrip() in result.stdout
    general = run("--help").stdout
    assert "--start " in general and "--connect " in general and "--version " in general


@pytest.mark.parametrize("command", [None, *cli.OPTIONS])
def test_help_fits_a_screen(command: str | None) -> None:
    """At most 40 lines of 80 columns, in which there are examples and the way to the rest."""
    arguments = ["--help"] if command is None else [command, "--help"]
    for columns in ("80",) if command is None else ("80", "300"):
        result = run(*arguments, variables={"COLUMNS": columns})
        lines = result.stdout.splitlines()
        assert len(lines) <= 40 and max(map(len, lines)) <= 80
        assert "man broadcast-server" in result.stdout
        if command is not None:
            assert f"\n  broadcast-server {command} " in result.stdout.partition("examples:")[2]
            assert "--help-all" in result.stdout


def test_help_all_describes_every_option() -> None:
    """With its default, as the man page does."""
    result = run("start", "--help-all", variables={"COLUMNS": "80"})
    assert (result.returncode, result.stderr) == (0, "")
    text = " ".join(result.stdout.split())
    for option in (option for group in cli.OPTIONS["start"].values() for option in group):
        assert f"--{option.name} {option.metavar}".rstrip() in text
        assert option.full_help().partition("%")[0] in text.replace("- ", "-")


def test_help_all_without_a_command_describes_all_of_them() -> None:
    """So that one can search through all of it, within 80 columns."""
    result = run("--help-all", variables={"COLUMNS": "80"})
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(run("--help").stdout)
    for command in cli.OPTIONS:
        assert result.stdout.count(f"\nusage: broadcast-server {command} ") == 1
        assert run(command, "--help-all", variables={"COLUMNS": "80"}).stdout in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", cli.OPTIONS)
def test_help_tells_what_is_no_option(command: str) -> None:
    """Each name in the usage line is explained below it, in the short help and in the long one."""
    assert set(re.findall(r"[A-Z]{3,}", cli_words.USAGES[command])) == set(
        cli_words.OPERANDS[command]
    )
    for spelling in ("--help", "--help-all"):
        told = run(command, spelling).stdout
        assert re.findall(r"^  ([A-Z]+) ", told, re.MULTILINE) == list(cli_words.OPERANDS[command])


def test_help_names_what_can_be_typed() -> None:
    """Nobody finds a command at the prompt that is told of nowhere."""
    text = run("connect", "--help").stdout
    assert "/help" in text and "/quit" in text


@pytest.mark.parametrize(
    "arguments", [[], ["--start", "--connect"], ["start", "connect"], ["serve"], ["--port", "1"]]
)
def test_without_one_command_it_is_a_usage_error(arguments: list[str]) -> None:
    """One line says what to give."""
    assert_fails(run(*arguments), 2, "give one command: start, connect, publish, listen or who")


def test_unknown_option_is_a_usage_error() -> None:
    """Options are not abbreviated: a later one might make the short form mean another."""
    told = "error: unrecognized arguments: --max-client (did you mean --max-clients?)"
    assert_fails(run("start", "--max-client", "5"), 2, told)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["connect", "--romm", "/x", "ws://h/"], "arguments: --romm (did you mean --room?)"),
        (["listen", "--fromat=json"], "arguments: --fromat=json (did you mean --format?)"),
        (["who", "--xyzzy"], "arguments: --xyzzy"),
        (["connect", "a", "b"], "arguments: b"),
        (["konnect", "ws://h/"], "(did you mean connect?)"),
        (["xyzzy"], "(or --start, --connect)"),
    ],
)
def test_typing_mistake_is_told_with_what_was_meant(arguments: list[str], told: str) -> None:
    """What is like something that there is; what stands beside it is no mistake."""
    result = run(*arguments)
    assert_fails(result, 2)
    assert result.stderr.rstrip().endswith(told)


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_full_disk_is_told(variables: dict[str, str]) -> None:
    """What could not be written is not passed over."""
    with open("/dev/full", "w") as full:
        options = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        result = run("--version", variables=variables, **options)
    assert result.returncode == 1
    assert re.fullmatch(r"broadcast-server: error: cannot write .*No space.*\n", result.stderr)


def test_closed_pipe_is_no_traceback() -> None:
    """`broadcast-server --help | head -1` stays quiet."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        result = run("--help", capture_output=False, stdout=stream, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (1, "")


# As a process: the hub.


@pytest.mark.parametrize(
    "arguments",
    [
        ["start", "--port", "0"],
        ["--port", "0", "start"],
        ["--start", "--port=0"],
        ["--port", "0", "--start"],
    ],
)
def test_start_prints_the_real_address(arguments: list[str]) -> None:
    """Port 0 takes a free one, which the only line on standard output tells."""
    with hub_command(*arguments) as hub:
        assert hub.host == "127.0.0.1"
        with RawClient.connect(port=hub.port) as client:
            client.leave()
        status, output, _ = hub.end()
        assert (status, output) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_says_goodbye_to_the_clients(number: signal.Signals) -> None:
    """Every client gets 1001, and the command succeeds."""
    with hub_command("start", "--port", "0") as hub:
        with RawClient.connect(port=hub.port) as one, RawClient.connect(port=hub.port) as two:
            hub.process.send_signal(number)
            for client in one, two:
                assert client.recv_close()[0] == 1001
                client.send_close(1001)
                client.recv_eof()
        assert hub.process.wait(SECONDS) == 0


def test_second_signal_ends_at_once() -> None:
    """Who cannot wait for a client that does not answer presses Ctrl-C again."""
    patient = ["--close-timeout", "50", "--stop-timeout", "50"]
    with hub_command("start", "--port", "0", *patient) as hub:
        with RawClient.connect(port=hub.port) as client:
            hub.process.send_signal(signal.SIGINT)
            assert client.recv_close()[0] == 1001
            # Not at the same moment: that would count as one.
            assert wait_until(
                lambda: hub.process.send_signal(signal.SIGINT) or hub.process.poll() == 1, SECONDS
            )


def test_environment_sets_options() -> None:
    """Every option can come from a variable; what Kubernetes sets is not ours."""
    variables = {
        "BROADCAST_SERVER_PORT": "0",
        "BROADCAST_SERVER_HOST": "tcp://10.0.0.7:8765",
        "BROADCAST_SERVER_MAX_MESSAGE_BYTES": "5",
    }
    with hub_command("start", variables=variables) as hub:
        with RawClient.connect(port=hub.port) as client:
            client.send("123456")
            assert client.recv_close()[0] == 1009


def test_command_line_wins_over_environment() -> None:
    """What is typed now counts more than what was set before."""
    with hub_command("start", "--port", "0", variables={"BROADCAST_SERVER_PORT": "1"}) as hub:
        assert hub.port > 1


def test_json_log_is_json_throughout() -> None:
    """Joins and leaves are logged, one JSON object a line."""
    with hub_command("start", "--port", "0", "--log-format", "json") as hub:
        with RawClient.connect(port=hub.port, path="/scores?name=ann") as client:
            client.leave()
        status, _, log = hub.end()
    assert status == 0
    messages = [json.loads(line)["message"] for line in log.splitlines()]
    assert any("/scores" in message and "joined" in message for message in messages), messages
    assert any("/scores" in message and "left" in message for message in messages), messages


def test_log_level_silences() -> None:
    """At level error a hub that works logs nothing."""
    with hub_command("start", "--port", "0", "--log-level", "error") as hub:
        with RawClient.connect(port=hub.port) as client:
            client.leave()
        assert hub.end() == (0, "", "")


def test_hub_whose_log_nobody_reads_goes_on() -> None:
    """The pipe of standard error is full long before the last of these has come and gone."""
    with hub_command("start", "--port", "0") as hub:
        for _ in range(1000):
            with RawClient.connect(port=hub.port) as client:
                client.leave()
        with RawClient.connect(port=hub.port) as a, RawClient.connect(port=hub.port) as b:
            b.sync()
            a.send("still here")
            assert b.recv_message() == "still here"
        status, _, log = hub.end()
        assert status == 0 and len(log) > 1 << 17


def test_descriptor_limit_bounds_the_clients() -> None:
    """The soft limit is raised to the hard one, and the log says what that one holds."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100))

    with hub_command("start", "--port", "0", preexec_fn=limit) as hub:
        assert resource.prlimit(hub.process.pid, resource.RLIMIT_NOFILE) == (100, 100)
        _, _, log = hub.end()
    expected = 100 - commands.OWN_DESCRIPTORS - 25
    assert f"max-clients is {expected} instead of 10000" in log
    assert "max-handshakes is 25 instead of 1000" in log


def test_hosts_are_listened_on_with_one_port() -> None:
    """Also where they come from the environment; the one line of output names them all."""
    hosts = {"BROADCAST_SERVER_HOST": "127.0.0.2 127.0.0.3"}
    for arguments, variables in (
        (("--host", "127.0.0.2", "--host", "127.0.0.3"), {}),
        ((), hosts),
    ):
        with hub_command("start", "--port", "0", *arguments, variables=variables) as hub:
            first, second = re.findall(r"ws://(127\.0\.0\.[23]):(\d+)/", hub.line)
            assert (first[0], second[0]) == ("127.0.0.2", "127.0.0.3")
            assert first[1] == second[1]
            for host, port in (first, second):
                with RawClient.connect(host, int(port)) as client:
                    client.leave()


def test_allowed_names_and_proxies_are_options() -> None:
    """What may be repeated is taken each time."""
    names = ("--allow-host", "hub.example", "--allow-host", "box", "--trust-proxy", "127.0.0.1")
    with hub_command("start", "--port", "0", *names) as hub:
        for name, status in (("hub.example", 200), ("box", 200), ("evil.example", 421)):
            raw = f"GET /healthz HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
            assert http_request(hub.port, raw.encode()).startswith(b"HTTP/1.1 %d " % status)
        with RawClient.connect(port=hub.port, headers=["X-Forwarded-For: 192.0.2.7"]) as client:
            client.leave()
        _, _, log = hub.end()
    assert "from 192.0.2.7" in log
    assert "start it with --allow-host evil.example" in log


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("allow-host", "*.example", "without '\\*'"),
        ("allow-host", "http://hub.example", "is no name; give"),
        ("trust-proxy", "proxy.example", "neither an IP address nor a network"),
        ("trust-proxy", "10.0.0.1/8", "the network is 10.0.0.0/8"),
        ("max-handshakes", "0", "at least 1"),
        ("max-clients-per-address", "-1", "at least 0"),
    ],
)
def test_limit_that_cannot_be_is_one_line(option: str, value: str, why: str) -> None:
    """The user is told which option, and what would do."""
    result = run("start", "--port", "0", f"--{option}={value}", "--log-level", "error")
    assert_fails(result, 2, f"--{option}")
    assert re.search(why, result.stderr)


def test_port_in_use_is_one_line() -> None:
    """The user is told which address is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("start", "--port", port, "--log-level", "error")
        assert_fails(result, 1, "cannot listen on 127.0.0.1", port, "in use")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "256.1.1.1", "x" * 70, "192.0.2.1"])
def test_bad_host_is_one_line(host: str) -> None:
    """An address that is not this machine's, or no address at all."""
    result = run("start", "--host", host, "--port", "0", "--log-level", "error")
    assert_fails(result, 1, f"cannot listen on {host} port 0: ")


@pytest.mark.parametrize("port", ["-1", "65536", "abc", "1e3", "99999999999999999999"])
def test_bad_port_is_one_line(port: str) -> None:
    """Numbers beyond 16 bits and words are refused alike."""
    assert_fails(run("start", "--port", port), 2, "--port: ", port)
    variables = {"BROADCAST_SERVER_PORT": port}
    assert_fails(run("start", variables=variables), 2, "BROADCAST_SERVER_PORT: ", port)


@pytest.mark.parametrize("option", ["--token-file", "--publish-token-file", "--jwt-key-file"])
def test_file_of_secrets_that_cannot_be_used_is_one_line(
    option: str, tmp_path: pathlib.Path
) -> None:
    """No hub runs without the control that it was told to have."""
    quiet = ["start", "--port", "0", "--log-level", "error", option]
    path = tmp_path / "token"
    assert_fails(run(*quiet, str(path)), 1, f"cannot read {path}: No such file")
    path.write_text("\n")
    assert_fails(run(*quiet, str(path)), 1, f"{path} is empty")


def test_bad_token_in_a_variable_names_the_variable() -> None:
    """And does not repeat it."""
    variables = {"BROADCAST_SERVER_PUBLISH_TOKEN": "s3cret word"}
    result = run("start", "--port", "0", "--log-level", "error", variables=variables)
    assert_fails(result, 2, "BROADCAST_SERVER_PUBLISH_TOKEN must consist of visible ASCII")
    assert "s3cret" not in result.stderr


def test_open_hub_on_a_network_says_so() -> None:
    """One line on standard error, unless there is a control."""
    for variables, count in (({}, 1), ({"BROADCAST_SERVER_TOKEN": "t"}, 0)):
        arguments = ["start", "--host", "0.0.0.0", "--port", "0", "--log-level", "warning"]
        with hub_command(*arguments, variables=variables) as hub:
            _, _, log = hub.end()
        assert log.count("no access control: anyone who can reach ws://0.0.0.0:") == count
        assert len(log.splitlines()) == count


def test_value_that_cannot_be_names_its_source() -> None:
    """A limit that makes no sense is told in the words in which it was given."""
    quiet = ["start", "--port", "0", "--log-level", "error"]
    assert_fails(run(*quiet, "--max-rooms", "0"), 2, "--max-rooms must be at least 1")
    result = run(*quiet, variables={"BROADCAST_SERVER_ROOM_LOG_BYTES": "5"})
    assert_fails(result, 2, "BROADCAST_SERVER_ROOM_LOG_BYTES (5) must be", "--max-message-bytes")


def test_hub_that_has_failed_ends_the_command() -> None:
    """Whatever watches the process can only start it again if it ends."""
    program = """
import sys
import broadcast_server
from broadcast_server import cli, service

class FailedHub(broadcast_server.BroadcastHub):
    def stats(self):
        raise broadcast_server.HubStopped("failed")

broadcast_server.BroadcastHub = FailedHub
service.CHECK_SECONDS = 0.001
sys.exit(cli.main(["start", "--port", "0", "--log-level", "error"]))
"""
    result = subprocess.run(
        [PYTHON, "-c", program],
        env=environment(),
        text=True,
        capture_output=True,
        timeout=SECONDS,
    )
    assert result.returncode == 1
    assert result.stderr == "broadcast-server start: error: the hub has failed, its log says why\n"


def test_hub_runs_without_standard_streams() -> None:
    """No client gets the number of a closed standard stream."""
    shell = 'exec "$@" <&- >&- 2>&-'
    command = [PYTHON, "-m", "broadcast_server", "start", "--port", "0"]
    with subprocess.Popen(["sh", "-c", shell, "sh", *command], env=environment()) as process:

        def descriptors() -> dict[str, str]:
            found, folder = {}, f"/proc/{process.pid}/fd"
            for name in os.listdir(folder):
                with contextlib.suppress(OSError):
                    found[name] = os.readlink(f"{folder}/{name}")
            return found

        try:
            assert wait_until(
                lambda: any(what.startswith("socket:") for what in descriptors().values()), SECONDS
            )
            assert {descriptors()[number] for number in "012"} == {"/dev/null"}
            # It may still be about to listen: the signal is taken all the same.
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def test_hub_serves_though_nobody_reads_its_output() -> None:
    """A closed pipe costs the line with the address and nothing else."""
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [PYTHON, "-m", "broadcast_server", "start", "--port", "0"],
        env=environment(),
        text=True,
        stdout=writer,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(writer)
        try:
            assert process.stderr
            log = iter(process.stderr.readline, "")
            port = next(int(m[1]) for line in log if (m := re.search(r"ws://.*:(\d+)/", line)))
            with RawClient.connect(port=port) as client:
                client.leave()
            process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=SECONDS)
            assert process.returncode == 0 and "Traceback" not in rest
        finally:
            process.kill()


# As a process: the client.


@pytest.mark.parametrize("spelling", ["connect", "--connect"])
def test_connect_sends_each_line_of_its_input(spelling: str) -> None:
    """wscat #4: what was in the pipe before there was a connection was lost. It is sent line by
    line, and at its end all of it has been accepted."""
    with running_hub() as hub, RawClient.connect(port=hub.port, path="/scores") as listener:
        result = run(
            spelling, "--port", str(hub.port), "--room", "scores", stdin=None, input="one\ntwo\n"
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert [listener.recv_message(), listener.recv_message()] == ["one", "two"]


def test_connect_in_the_background_reads_what_a_script_writes(tmp_path: pathlib.Path) -> None:
    """wscat #126: without a terminal it was gone before it was there. A FIFO is its input here."""
    script = 'mkfifo f; "$@" < f > /dev/null & echo one > f; wait $!'
    with running_hub() as hub:
        command = [PYTHON, "-m", "broadcast_server", "connect", hub.url]
        result = subprocess.run(
            ["sh", "-c", script, "sh", *command],
            env=environment(),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert [message.data for message in hub.history("/")] == ["one"]


def test_connect_takes_a_url_and_a_name() -> None:
    """The other side sees the name."""
    joined: list[Any] = []
    with running_hub(on_join=joined.append) as hub:
        assert run("connect", f"{hub.url}den", "--name", "ann").returncode == 0
        assert [(member.name, member.room) for member in joined] == [("ann", "/den")]


def test_connect_completes_a_short_url() -> None:
    """Host and port, a mere port, and the address of the room's web page."""
    with running_hub() as hub:
        port = hub.port
        for number, url in enumerate(
            (f"127.0.0.1:{port}/n", f":{port}/n", f"http://127.0.0.1:{port}/n")
        ):
            result = run("connect", url, stdin=None, input=f"{number}\n")
            assert (result.returncode, result.stderr) == (0, "")
        assert [message.data for message in hub.history("/n")] == ["0", "1", "2"]


def test_connect_takes_its_port_from_the_environment() -> None:
    """The client has variables of its own."""
    joined: list[Any] = []
    with running_hub(on_join=joined.append) as hub:
        variables = {
            "BROADCAST_SERVER_CONNECT_PORT": str(hub.port),
            "BROADCAST_SERVER_PORT": "1",
            "BROADCAST_SERVER_ROOM": "/env",
        }
        assert run("connect", variables=variables).returncode == 0
        assert [member.room for member in joined] == ["/env"]


def test_connect_without_a_hub_is_one_line() -> None:
    """A closed port and a name that is none."""
    with socket.socket() as bound:  # bound and not listening: nobody else can take it
        bound.bind(("127.0.0.1", 0))
        port = str(bound.getsockname()[1])
        assert_fails(run("connect", "--port", port), 1, port)
    assert_fails(run("connect", "--host", "no-such-host.invalid"), 1, "no-such-host.invalid")


def test_connect_refused_by_http_is_one_line() -> None:
    """A path that is no room; the address is what was typed, and not what we have added."""
    with running_hub() as hub:
        for command in ("connect", "listen"):
            result = run(command, f"{hub.url}healthz", "--history", "3", "--name", "ann")
            told = f"cannot connect to {hub.url}healthz: the answer is HTTP status 404 (there is "
            assert_fails(result, 1, told)


@pytest.mark.parametrize("command", ["connect", "who"])
def test_name_that_the_hub_does_not_have_is_one_line(command: str) -> None:
    """As on a network where the machine has a name: the user is told the option that lets it."""
    with running_hub() as hub:
        # The system takes this for 127.0.0.1, the hub for a name like any other.
        result = run(command, "--host", "127.1", "--port", str(hub.port))
    assert_fails(result, 1, "--allow-host")


@pytest.mark.parametrize("command", ["connect", "who"])
def test_client_commands_show_a_token(command: str, tmp_path: pathlib.Path) -> None:
    """From a file, a variable or the URL; without a good one it is one line and the end."""
    path = tmp_path / "token"
    path.write_text("right\nother\n")
    path.chmod(0o600)
    with running_hub(token="right") as hub:
        url = f"{hub.url}r"
        variables = {"BROADCAST_SERVER_TOKEN": "right"}
        for result in (
            run(command, url, "--token-file", str(path)),
            run(command, url, variables=variables),
            run(command, f"{url}?access_token=right"),
        ):
            assert (result.returncode, result.stderr) == (0, "")
        refused = run(command, url)
        assert_fails(refused, 1, "a token is needed here", "--token-file")
        refused = run(command, f"{url}?access_token=s3cret")
        assert_fails(refused, 1, "the token is not valid")
        assert "s3cret" not in refused.stderr
        variables = {"BROADCAST_SERVER_TOKEN": "s3 cret"}
        assert_fails(run(command, url, variables=variables), 2, "visible ASCII characters")
        path.unlink()
        assert_fails(run(command, url, "--token-file", str(path)), 1, f"cannot read {path}: ")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["ftp://127.0.0.1/"], "ftp://127.0.0.1/"),
        (["127.0.0.1"], "127.0.0.1"),
        (["--port", "0"], "--port"),
        (["--history", "-1"], "--history must be at least 0"),
        (["--linger", "-1"], "--linger must be at least 0"),
        (["ws://127.0.0.1/", "--port", "80"], "not both"),
        (["ws://127.0.0.1/", "ws://127.0.0.1/"], "unrecognized"),
    ],
)
def test_connect_to_what_is_no_address_is_a_usage_error(arguments: list[str], word: str) -> None:
    """Mistakes that can be seen without a network."""
    assert_fails(run("connect", *arguments), 2, "connect: error: ", word)


# As a process: the list of who is where.


@pytest.mark.parametrize("how", ["options", "URL", "http URL", "variables"])
def test_who_lists_the_rooms_of_a_hub(how: str) -> None:
    """Each room that has members, how many, and names, or ids where there is no name."""
    with running_hub() as hub:
        port = str(hub.port)
        arguments = {
            "options": ["--port", port],
            "URL": [f"ws://127.0.0.1:{port}"],
            "http URL": [f"http://127.0.0.1:{port}"],
            "variables": [],
        }[how]
        variables = {"BROADCAST_SERVER_CONNECT_PORT": port, "BROADCAST_SERVER_PORT": "1"}
        with (
            RawClient.connect(port=hub.port, path="/scores?name=ann"),
            RawClient.connect(port=hub.port, path="/scores"),
            RawClient.connect(port=hub.port, path="/den?name=Zo%C3%AB"),
        ):
            ids = {member.name: member.id for member in hub.members("/scores")}
            result = run("who", *arguments, variables=variables)
    assert (result.returncode, result.stderr) == (0, "")
    head, *lines = result.stdout.splitlines()
    assert head == "ROOM     COUNT  MEMBERS"
    assert sorted(lines) == ["/den         1  Zoë", f"/scores      2  ann, {ids[None]}"]


@pytest.mark.parametrize(
    "arguments",
    [["--room", "a b"], ["--room", "/a b"], ["URL/a%20b"], ["URL/a b"]],
)
def test_who_lists_one_room(arguments: list[str]) -> None:
    """The path of the URL, or the option, with or without its slash; nobody there is no error."""
    with running_hub() as hub, RawClient.connect(port=hub.port, path="/other"):
        url = f"ws://127.0.0.1:{hub.port}"
        given = [word.replace("URL", url) for word in arguments]
        if given == arguments:
            given += ["--port", str(hub.port)]
        if " " in given[0]:
            assert_fails(run("who", *given), 2, "is not an address")
            return
        result = run("who", *given)
        assert (result.returncode, result.stdout) == (0, "nobody is in /a b\n")
        with RawClient.connect(port=hub.port, path="/a%20b?name=ann"):
            result = run("who", *given)
        assert result.stdout == "ROOM  COUNT  MEMBERS\n/a b      1  ann\n"


def test_who_tells_an_empty_hub_and_its_lobby() -> None:
    """``/`` is a room like others."""
    with running_hub() as hub:
        port = ["--port", str(hub.port)]
        assert run("who", *port).stdout == "nobody is in any room\n"
        assert run("who", *port, "--room", "/").stdout == "nobody is in /\n"
        assert run("who", hub.url).stdout == "nobody is in /\n"


def ask_who(*acts: Act, room: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``who`` on a server that does these things, one for each connection."""
    with serving(*acts) as server:
        return run("who", f"ws://127.0.0.1:{server.port}{room}")


def test_who_escapes_what_a_peer_has_written() -> None:
    """No name steers the terminal, forges a line or passes for two; the rest is counted."""
    members = [{"id": "c1", "name": name} for name in ("a\x1b[2J", "b\nc", "d, e", 'f"')]
    rooms = [
        {"room": "/x\u202ey", "count": 1204, "members": members},
        {"room": "/z", "count": 0, "members": []},
    ]
    result = ask_who(answer(json.dumps({"rooms": rooms})))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "ROOM       COUNT  MEMBERS",
        '/x\\u202ey   1204  a\\x1b[2J, b\\nc, "d, e", f", and 1200 more',
        "/z             0  ",
    ]


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (answer('{"detail": "not\\u001b now"}', "503 x"), "not\\x1b now"),
        (answer("", "404 Not Found"), "HTTP status 404 Not Found"),
        (answer("[]"), "no hub"),
        (answer("hello"), "no hub"),
        (answer('{"rooms": 5}'), "no hub"),
        (answer('{"rooms": [{"room": "/"}]}'), "no hub"),
        (answer('{"rooms": [{"room": "/", "count": "x", "members": []}]}'), "no hub"),
        (answer('{"rooms": [{"room": "/", "count": 1, "members": [5]}]}'), "no hub"),
        (answer("", "302 Found", "Location: http://other.example/"), "HTTP status 302"),
        (b"220 mail.example ESMTP\r\n", "no HTTP"),
        (b"", "broke"),
        (reset, "broke"),
    ],
)
def test_who_tells_what_is_no_list(act: Act, words: str) -> None:
    """One line, whatever is at the other end, and what it says is escaped."""
    assert_fails(ask_who(act), 1, "who: error: cannot ask ws://127.0.0.1:", words)


def test_who_asks_for_the_room_in_its_query() -> None:
    """Percent-encoded as a query wants it."""
    with serving(answer('{"rooms": []}')) as server:
        result = run("who", f"ws://127.0.0.1:{server.port}/a+b%26c%C3%A9")
    assert result.stdout == "nobody is in /a+b&cé\n"
    assert server.asked[0].first == "GET /-/rooms?room=/a%2Bb%26c%C3%A9 HTTP/1.1"


def test_who_without_a_hub_is_one_line() -> None:
    """A closed port and a name that is none."""
    with socket.socket() as bound:  # bound and not listening: nobody else can take it
        bound.bind(("127.0.0.1", 0))
        port = str(bound.getsockname()[1])
        assert_fails(run("who", "--port", port), 1, port, "refused")
    assert_fails(run("who", "--host", "no-such-host.invalid"), 1, "no-such-host.invalid")


def test_who_that_nobody_reads_has_failed() -> None:
    """A full disk is told."""
    with running_hub() as hub, open("/dev/full", "w") as full:
        options = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        result = run("who", "--port", str(hub.port), **options)
    assert result.returncode == 1 and "No space" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["ftp://127.0.0.1/"], "ftp://127.0.0.1/"),
        (["127.0.0.1"], "127.0.0.1"),
        (["--port", "0"], "--port"),
        (["ws://127.0.0.1/", "--room", "x"], "not both"),
        (["--name", "ann"], "--name"),
    ],
)
def test_who_of_what_is_no_address_is_a_usage_error(arguments: list[str], word: str) -> None:
    """Mistakes that can be seen without a network."""
    assert_fails(run("who", *arguments), 2, "who: error: ", word)
