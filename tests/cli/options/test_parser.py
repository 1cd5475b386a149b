"""The command line without a process: options, operands, environment, what is asked for."""

from __future__ import annotations

import dataclasses
import re

import pytest

from broadcast_server.cli.options import parser
from broadcast_server.cli.options.option import KINDS
from broadcast_server.cli.options.tables import OPTIONS
from broadcast_server.settings import Settings

# The table of options.


def test_start_options_are_the_settings() -> None:
    """Every setting of the library is an option of ``start``, with the same default; but secrets
    are never arguments."""
    options = {o.dest: o.default for group in OPTIONS["start"].values() for o in group}
    command_only = {"log_level", "log_format", "restart_on_term"}
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    secrets = {"token", "publish_token", "jwt_key"}
    assert options.keys() - command_only == fields.keys() - secrets | {"host", "port"}
    assert not any(
        secret in parser.build_parser().format_help() for secret in ("--token ", "--jwt ")
    )
    fields = {name: default for name, default in fields.items() if name not in secrets}
    differing = {name for name in fields if options[name] != fields[name]}
    # The command is a process of its own and may set this for all of it.
    assert differing == {"switch_interval"}


@pytest.mark.parametrize("command", OPTIONS)
def test_option_help_is_a_phrase_with_its_default(command: str) -> None:
    """Help is one lower-case phrase, then the default."""
    for option in (option for group in OPTIONS[command].values() for option in group):
        text = option.full_help()
        assert re.fullmatch(r"[a-zHT][^.]*(\.\w[^.]*)* \(default: [^()]+\)", text), text
        assert option.metavar in KINDS


def test_parser_takes_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The man page is the same on every machine."""
    before = parser.build_parser().format_help()
    monkeypatch.setenv("BROADCAST_SERVER_PORT", "1")
    assert parser.build_parser().format_help() == before
    assert vars(parser.build_parser().parse_args(["start"])).keys() <= {
        "command",
        "start",
        "connect",
    }


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
    assert parser.command_first(given.split()) == parsed.split()


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ("publish a b", 0),
        ("publish -- a b", 2),
        ("publish a -- b -- c", 3),
        ("-- publish", 1),
        ("publish --name -- a b", 0),
    ],
)
def test_count_literal_counts_what_stands_behind_the_dashes(given: str, count: int) -> None:
    """A dash that is the value of an option is not one of them."""
    assert parser.count_literal(given.split()) == count


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
        parser.command_first(given.split())


def test_resolve_prefers_command_line_to_environment_to_default() -> None:
    """Each source is looked at in turn, and it is known which one spoke."""
    variables = {"BROADCAST_SERVER_PORT": "1", "BROADCAST_SERVER_HOST": "::1"}
    found = parser.resolve("start", {"port": 2}, variables)
    assert found.values["port"] == 2 and found.sources["port"] == "--port"
    assert found.values["host"] == ["::1"] and found.sources["host"] == "BROADCAST_SERVER_HOST"
    assert found.values["history"] == 100 and found.sources["history"] == "--history"


@pytest.mark.parametrize("text", ["", "tcp://10.0.0.7:8765"])
def test_resolve_ignores_values_that_nobody_meant_for_us(text: str) -> None:
    """Kubernetes sets such variables, compose files leave empty ones."""
    found = parser.resolve("start", {}, {"BROADCAST_SERVER_PORT": text})
    assert found.values["port"] == 8765 and found.sources["port"] == "--port"


def test_resolve_keeps_the_client_and_the_hub_apart() -> None:
    """The hub may listen where no client can connect."""
    variables = {"BROADCAST_SERVER_HOST": "0.0.0.0", "BROADCAST_SERVER_CONNECT_PORT": "81"}
    values = parser.resolve("connect", {}, variables).values
    assert (values["host"], values["port"]) == ("127.0.0.1", 81)


def test_resolve_splits_a_list() -> None:
    """A repeatable option takes several values from one variable."""
    variables = {"BROADCAST_SERVER_ALLOW_ORIGIN": "https://a.example, https://b.example"}
    found = parser.resolve("start", {}, variables)
    assert found.values["allow_origin"] == ["https://a.example", "https://b.example"]


def test_resolve_takes_secrets_from_the_environment_only() -> None:
    """A file that is named, on the command line or in a variable, wins over a token in one."""
    variables = {"BROADCAST_SERVER_TOKEN": "t", "BROADCAST_SERVER_PUBLISH_TOKEN": "p"}
    found = parser.resolve("start", {}, variables)
    assert (found.values["token"], found.values["publish_token"]) == ("t", "p")
    assert found.sources["token"] == "BROADCAST_SERVER_TOKEN"
    found = parser.resolve("start", {"token_file": "/t"}, variables)
    assert (found.values["token"], found.values["token_file"]) == (None, "/t")
    variables["BROADCAST_SERVER_PUBLISH_TOKEN_FILE"] = "/p"
    assert parser.resolve("start", {}, variables).values["publish_token"] is None
    for command in ("connect", "who"):
        assert parser.resolve(command, {}, variables).values["token"] == "t"
        assert parser.resolve(command, {"token_file": "/t"}, variables).values["token"] is None
        assert parser.resolve(command, {}, {"BROADCAST_SERVER_TOKEN": ""}).values["token"] is None


# What is told instead of run.


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [
        (["--version"], "broadcast-server 1.2\n"),
        (["who", "--version"], "broadcast-server 1.2\n"),
        (["--help"], "usage: broadcast-server COMMAND"),
        (["listen", "-h"], "usage: broadcast-server listen [URL...]"),
        (["publish", "--help-all"], "usage: broadcast-server publish [URL]"),
    ],
)
def test_what_is_asked_for_is_raised(
    arguments: list[str], begins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed here: the text goes out where a full disk is told."""
    with pytest.raises(parser.Asked) as raised:
        parser.parse(arguments, "1.2")
    assert raised.value.text.startswith(begins)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["start", "--port", "x"], "argument --port: 'x' is not a whole number"),
        (["start", "--prot", "1"], "unrecognized arguments: --prot (did you mean --port?)"),
        (["who", "--port"], "argument --port: expected one argument"),
    ],
)
def test_mistake_is_raised(arguments: list[str], told: str) -> None:
    """The parser does not end the process either."""
    with pytest.raises(ValueError) as raised:
        parser.parse(arguments, "")
    assert str(raised.value) == told
