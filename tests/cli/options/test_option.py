"""What an option of the command is."""

from __future__ import annotations

import argparse

import pytest

from broadcast_server.cli.options.option import Option

HEADER = Option("header HEADER", (), "header line", shown="none", many=True, letter="H")
FORM = Option("format FORM", None, "form", shown="text")
FLAG = Option("no-reconnect", False, "end", shown="off")


def parse(*arguments: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    group = parser.add_argument_group("all")
    for option in (HEADER, FORM, FLAG):
        option.add_to(group)
    return vars(parser.parse_args(arguments))


def test_option_has_its_names_and_its_help() -> None:
    """Long, short, in the program, and with the default."""
    assert HEADER.flags == ["-H", "--header"] and FLAG.flags == ["--no-reconnect"]
    assert (FLAG.name, FLAG.dest, FLAG.metavar) == ("no-reconnect", "no_reconnect", "")
    assert FORM.full_help() == "form (default: text)"


def test_only_what_is_given_is_in_the_result() -> None:
    """So that the environment and the default have their turn."""
    assert parse() == {}
    given = parse("-H", "a: 1", "--header", "b: 2", "--no-reconnect", "--format", "raw")
    assert given == {"header": ["a: 1", "b: 2"], "no_reconnect": True, "format": "raw"}


def test_one_of_a_few_words_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """And those are told."""
    with pytest.raises(SystemExit):
        parse("--format", "xml")
    assert "'xml' is not one of text, json, raw" in capsys.readouterr().err


def test_variable_is_read_as_its_option_is() -> None:
    """Header lines are parted by line ends, other lists by blanks or commas; a flag has a word."""
    assert HEADER.parse_variable("a: 1, 2\nb: 3") == ["a: 1, 2", "b: 3"]
    assert Option("x NAME", (), "x", many=True).parse_variable("a, b c") == ["a", "b", "c"]
    assert FLAG.parse_variable("yes") is True and FLAG.parse_variable("0") is False
    with pytest.raises(argparse.ArgumentTypeError):
        FLAG.parse_variable("maybe")


def test_client_and_hub_have_variables_of_their_own_where_they_must() -> None:
    """What a hub keeps is not what a listener wants to see."""
    history = Option("history COUNT", 0, "messages")
    assert history.variable("start") == "BROADCAST_SERVER_HISTORY"
    assert history.variable("listen") == "BROADCAST_SERVER_CONNECT_HISTORY"
    assert FORM.variable("listen") == "BROADCAST_SERVER_FORMAT"
