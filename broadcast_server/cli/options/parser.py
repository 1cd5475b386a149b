"""The ``broadcast-server`` command line: its commands and their options.

Every option stands once, in ``cli/options/hub_tables.py`` or ``cli/options/client_tables.py``. The parser, the
environment variables, ``--help``, the man page, the shell completions and
``docs/reference/options.md`` are all made from there. Values are looked up after parsing, so that
nobody's environment leaks into the man page: the command line wins over the environment, the
environment over the default.

The man page is made from it in a build that has none of our dependencies: what is imported at its
top may import nothing but the standard library. What the commands do stands in ``cli/commands/commands.py`` and
in modules of their own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from . import client_tables as client_options
from . import help as short_help
from . import hub_tables as hub_options
from . import words as cli_words
from .option import Option, did_you_mean

PROG = "broadcast-server"

OPTIONS: dict[str, dict[str, list[Option]]] = {
    "start": hub_options.START,
    "connect": client_options.CONNECT,
    "publish": client_options.PUBLISH,
    "listen": client_options.LISTEN,
    "who": client_options.WHO,
}

# Secrets are no options: the arguments of a process can be read by every user of a machine. Each of
# these comes from BROADCAST_SERVER_ and its name, unless its file is given.
SECRETS = dict.fromkeys(OPTIONS, ("token",)) | {"start": ("token", "publish_token")}


class _Parser(argparse.ArgumentParser):
    """Tells a usage error in one line, without repeating the usage."""

    def error(self, message: str) -> NoReturn:
        from ..io import streams

        streams.complain(self.prog.partition(" ")[2], message)
        raise SystemExit(2)


class _CommandParser(_Parser):
    """The parser of one command: its help is one screen, see ``short_help``."""

    command: str

    def format_help(self) -> str:
        command = self.command
        return short_help.page(
            f"usage: {PROG} {command} {cli_words.USAGES[command]}",
            cli_words.DESCRIPTIONS[command],
            cli_words.OPERANDS[command],
            OPTIONS[command],
            cli_words.COMMON[command].split(),
            cli_words.EXAMPLES[command],
            f"All of this at length: --help-all, or man {PROG}. {_variables(command)}",
            _help_width(),
        )

    def format_long_help(self) -> str:
        """Return what argparse makes of the options."""
        return super().format_help()


class _ProgramParser(_Parser):
    """The parser of all commands."""

    # By their names.
    commands: dict[str, _CommandParser]

    def format_help(self) -> str:
        own = {
            ", ".join(action.option_strings): action.help or ""
            for action in self._actions
            if action.option_strings
        }
        return short_help.overview(
            f"usage: {self.usage}",
            f"{cli_words.DESCRIPTION} {cli_words.ANY_ORDER}",
            {"commands": cli_words.SUMMARIES, "options": own},
            cli_words.EXAMPLES[""],
            f"All of this at length: --help-all, or man {PROG}. Each command has its own --help.",
            _help_width(),
        )

    def format_long_help(self) -> str:
        """Return the long help of every command, too."""
        pages = [self.format_help()]
        pages += [parser.format_long_help() for parser in self.commands.values()]
        return "\n\n".join(pages)


def _help_width() -> int:
    return min(80, shutil.get_terminal_size().columns) - 1


class _HelpAll(argparse.Action):
    """Describes every option."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from ..io import streams

        assert isinstance(parser, (_CommandParser, _ProgramParser))
        raise SystemExit(0 if streams.write_stdout(parser.format_long_help()) else 1)


class _Version(argparse.Action):
    """Prints the version; the package is imported only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from ... import __version__
        from ..io import streams

        raise SystemExit(0 if streams.write_stdout(f"{PROG} {__version__}\n") else 1)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line. It reads nothing and changes nothing."""
    parser = _ProgramParser(
        prog=PROG,
        usage=f"{PROG} COMMAND [options]",
        description=f"{cli_words.DESCRIPTION} {cli_words.ANY_ORDER}",
        allow_abbrev=False,
    )
    parser.add_argument("--start", action="store_true", help="the same as the command start")
    parser.add_argument("--connect", action="store_true", help="the same as the command connect")
    _add_help_all(parser, "describe every option of every command and exit")
    _add_version(parser, "show the version and exit")
    commands = parser.add_subparsers(
        title="commands",
        dest="command",
        metavar="COMMAND",
        required=True,
        parser_class=_CommandParser,
        prog=PROG,  # else each command would be called by the whole usage line
    )
    for command, groups in OPTIONS.items():
        sub = commands.add_parser(
            command,
            usage=f"{PROG} {command} {cli_words.USAGES[command]}",
            help=cli_words.SUMMARIES[command],
            description=cli_words.DESCRIPTIONS[command],
            epilog=f"{_variables(command)} See {PROG}(1).",
            allow_abbrev=False,
        )
        sub.command = command
        _add_version(sub, argparse.SUPPRESS)
        _add_help_all(sub, "describe every option and exit")
        _add_operands(sub, cli_words.OPERANDS[command])
        for title, options in groups.items():
            group = sub.add_argument_group(title)
            for option in options:
                option.add_to(group)
    parser.commands = commands.choices
    return parser


def _variables(command: str) -> str:
    """Return what to know of the environment."""
    *_, (*_, last) = OPTIONS[command].values()
    return (
        "Each option can also be set by an environment variable, such as "
        f"{last.variable(command)}; the command line wins."
    )


def _add_operands(parser: argparse.ArgumentParser, operands: Mapping[str, str]) -> None:
    for name, text in operands.items():
        # What is behind a URL: the first of the words may be one, `take_url` tells.
        many = name == "TEXT"
        parser.add_argument(
            "words" if many else "url",
            metavar=name,
            nargs="*" if many else "?",
            default=argparse.SUPPRESS,
            help=text,
        )


def _add_help_all(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--help-all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help=text
    )


def _add_version(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help=text)


def _flags(command: str) -> list[str]:
    """Return what the options of a command are called."""
    groups = OPTIONS[command].values()
    own = ["--help", "--help-all", "--version"]
    return [flag for group in groups for option in group for flag in option.flags] + own


def command_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the command, in either spelling and from any place, in front.

    What is no option comes last, behind ``--``, so that options may stand between words. The words
    after ``publish`` are its message, whatever they are.

    Raises:
        ValueError: there is no command, or more than one.
    """
    valued = {
        flag
        for groups in OPTIONS.values()
        for group in groups.values()
        for option in group
        if option.metavar
        for flag in option.flags
    }
    commands: list[str] = []
    options: list[str] = []
    operands: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--start", "--connect"):
            commands.append(argument.lstrip("-"))
        elif argument in OPTIONS and commands != ["publish"]:
            commands.append(argument)
        elif argument == "--":
            operands.extend(rest)
        elif argument.startswith("-") and argument != "-":
            options.append(argument)
            if argument in valued:  # its value may read like a command: --name start
                options.extend(value for value in [next(rest, None)] if value is not None)
        else:
            operands.append(argument)
    if not commands:
        for argument in options:
            if argument in ("-h", "--help", "--help-all", "--version"):
                return [argument]
    if len(commands) != 1:
        *others, last = OPTIONS
        meant = "" if commands else did_you_mean(operands[:1], OPTIONS)
        raise ValueError(
            f"give one command: {', '.join(others)} or {last} (or --start, --connect){meant}"
        )
    return [*commands, *options, *(["--", *operands] if operands else [])]


class Values(NamedTuple):
    """What a command runs with: the value of each option by its field name, and who said so."""

    values: dict[str, Any]
    sources: dict[str, str]  # field name -> --option or VARIABLE, for error messages


def resolve(command: str, given: Mapping[str, Any], environ: Mapping[str, str]) -> Values:
    """Return the value of every option of `command`: command line, else environment, else default.

    Raises:
        ValueError: a variable has a value that its option cannot have.
    """
    found = Values({}, {})
    for option in (option for group in OPTIONS[command].values() for option in group):
        name, variable = option.dest, option.variable(command)
        found.values[name] = option.default
        found.sources[name] = f"--{option.name}"
        text = environ.get(variable, "")
        if name in given:
            found.values[name] = given[name]
        # Kubernetes sets BROADCAST_SERVER_PORT=tcp://… in every pod beside a service of our name.
        elif text and not text.startswith("tcp://"):
            try:
                found.values[name] = option.parse_variable(text)
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"{variable}: {error}") from None
            found.sources[name] = variable
    for name in SECRETS[command]:
        variable = f"BROADCAST_SERVER_{name.upper()}"
        has_file = found.values[f"{name}_file"] is not None
        found.values[name] = None if has_file else environ.get(variable) or None
        found.sources[name] = variable
    return found


def take_url(given: dict[str, Any]) -> str | None:
    """Return the URL among the arguments, None if there is none; what is left of `words` is text.

    Raises:
        ValueError: the room is given twice.
    """
    from ..io import target as targets

    apart = not given.keys().isdisjoint(("host", "port", "room"))
    url: str | None = given.get("url")
    # Where there is a text, its first word stands in the place of a URL that is not given.
    has_text = "TEXT" in cli_words.OPERANDS[given["command"]]
    if url is not None and has_text and (apart or not targets.is_room(url)):
        given["words"] = [url, *given.get("words", [])]
        url = None
    if url is not None and apart:
        raise ValueError("give a URL or --host, --port and --room, not both")
    return url


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's) and return its exit status.

    It takes over the signals and the logging of the process: call it where it is the program, in
    the main thread.
    """
    from ..commands import commands
    from ..commands import listen as listening
    from ..commands import publish as publishing
    from ..io import streams

    streams.open_standard_streams()
    parser = build_parser()
    try:
        try:
            arguments = command_first(sys.argv[1:] if argv is None else argv)
        except ValueError as error:
            parser.error(str(error))
        namespace, unknown = parser.parse_known_args(arguments)
        given = vars(namespace)
        command = given["command"]
        try:
            if unknown:
                wrong = [word for word in unknown if word.startswith("-") and word != "--"]
                told = " ".join(wrong or [word for word in unknown if word != "--"])
                meant = did_you_mean(wrong, _flags(command))
                raise ValueError(f"unrecognized arguments: {told}{meant}")
            url = take_url(given)
            found = resolve(command, given, os.environ)
        except ValueError as error:
            streams.complain(command, str(error))
            return 2
        if command == "start":
            status = commands.start(*found)
        elif command == "publish":
            status = publishing.publish(*found, url, given.get("words", []))
        elif command == "listen":
            status = listening.listen(*found, url)
        elif command == "connect":
            status = commands.connect(*found, url)
        else:
            status = commands.who(*found, url)
    except SystemExit as end:  # argparse ends this way, after --help as after an error
        status = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:  # before a command has taken the signals over
        status = 130
    return status if streams.write_stdout() else status or 1
