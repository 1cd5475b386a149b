"""What all commands have in common, as processes: help, mistakes, standard output, tokens."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

import pytest

import broadcast_server
from broadcast_server.cli.options.tables import OPTIONS
from broadcast_server.cli.options.words import OPERANDS, USAGES

from ..support import running_hub
from ..support.command import assert_fails, run

pytestmark = pytest.mark.slow

# Information.


def test_version_is_printed() -> None:
    """With or without a command, in any place."""
    for arguments in ["--version"], ["start", "--port", "1", "--version"], ["--version", "connect"]:
        result = run(*arguments)
        expected = (0, f"broadcast-server {broadcast_server.__version__}\n", "")
        assert (result.returncode, result.stdout, result.stderr) == expected


@pytest.mark.parametrize("command", OPTIONS)
def test_help_has_every_option(command: str) -> None:
    """Help comes on standard output, whatever the environment says."""
    result = run(command, "--help", variables={"BROADCAST_SERVER_PORT": "abc"})
    assert (result.returncode, result.stderr) == (0, "")
    for option in (option for group in OPTIONS[command].values() for option in group):
        assert f"--{option.name} {option.metavar}".rstrip() in result.stdout
    general = run("--help").stdout
    assert "--start " in general and "--connect " in general and "--version " in general


@pytest.mark.parametrize("command", [None, *OPTIONS])
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
    for option in (option for group in OPTIONS["start"].values() for option in group):
        assert f"--{option.name} {option.metavar}".rstrip() in text
        assert option.full_help().partition("%")[0] in text.replace("- ", "-")


def test_help_all_without_a_command_describes_all_of_them() -> None:
    """So that one can search through all of it, within 80 columns."""
    result = run("--help-all", variables={"COLUMNS": "80"})
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(run("--help").stdout)
    for command in OPTIONS:
        assert result.stdout.count(f"\nusage: broadcast-server {command} ") == 1
        assert run(command, "--help-all", variables={"COLUMNS": "80"}).stdout in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", OPTIONS)
def test_help_tells_what_is_no_option(command: str) -> None:
    """Each name in the usage line is explained below it, in the short help and in the long one."""
    assert set(re.findall(r"[A-Z]{3,}", USAGES[command])) == set(OPERANDS[command])
    for spelling in ("--help", "--help-all"):
        told = run(command, spelling).stdout
        assert re.findall(r"^  ([A-Z]+) ", told, re.MULTILINE) == list(OPERANDS[command])


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


@pytest.mark.parametrize("option", ["--version", "--help", "--help-all"])
@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_full_disk_is_told(variables: dict[str, str], option: str) -> None:
    """What could not be written is not passed over."""
    with open("/dev/full", "w") as full:
        options = {"capture_output": False, "stdout": full, "stderr": subprocess.PIPE}
        result = run(option, variables=variables, **options)
    assert result.returncode == 1
    assert re.fullmatch(r"broadcast-server: error: cannot write .*No space.*\n", result.stderr)


def test_closed_pipe_is_no_traceback() -> None:
    """`broadcast-server --help | head -1` stays quiet."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        result = run("--help", capture_output=False, stdout=stream, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (1, "")


# Where client commands go.


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
