"""The command line of ``broadcast-server``: from the arguments to the value of each option.

Every option stands once, in ``cli/options/tables.py``. The parser, the environment variables,
``--help``, the man page, the shell completions and ``docs/reference/options.md`` are all made from
there. Values are looked up after parsing, so that nobody's environment leaks into the man page: the
command line wins over the environment, the environment over the default.

The man page is made from it in a build that has none of our dependencies: nothing but the standard
library is imported. Nothing is written and nothing is run here either: what there is to be told is
raised, for ``cli/commands/entry.py``.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from . import words
from .help import overview, page
from .option import did_you_mean
from .tables import OPTIONS, SECRETS

PROG = "broadcast-server"


class Asked(Exception):
    """The arguments ask for a text, such as the help, and for no command to be run.

    Attributes:
        text: what to print.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print, and does not end the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def print_help(self, file: object = None) -> NoReturn:
        raise Asked(self.format_help())


class _CommandParser(_Parser):
    """The parser of one command: its help is one screen, see ``cli/options/help.py``."""

    command: str

    def format_help(self) -> str:
        command = self.command
        return page(
            f"usage: {PROG} {command} {words.USAGES[command]}",
            words.DESCRIPTIONS[command],
            words.OPERANDS[command],
            OPTIONS[command],
            words.COMMON[command].split(),
            words.EXAMPLES[command],
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
        return overview(
            f"usage: {self.usage}",
            f"{words.DESCRIPTION} {words.ANY_ORDER}",
            {"commands": words.SUMMARIES, "options": own},
            words.EXAMPLES[""],
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
        assert isinstance(parser, (_CommandParser, _ProgramParser))
        raise Asked(parser.format_long_help())


class _Version(argparse.Action):
    """Tells the version, which is its ``const``."""

    def __call__(self, *_: Any) -> NoReturn:
        raise Asked(f"{PROG} {self.const}\n")


def build_parser(version: str = "") -> argparse.ArgumentParser:
    """Return the parser of the whole command line. It reads nothing and changes nothing.

    Args:
        version: what ``--version`` tells.
    """
    parser = _ProgramParser(
        prog=PROG,
        usage=f"{PROG} COMMAND [options]",
        description=f"{words.DESCRIPTION} {words.ANY_ORDER}",
        allow_abbrev=False,
    )
    parser.add_argument("--start", action="store_true", help="the same as the command start")
    parser.add_argument("--connect", action="store_true", help="the same as the command connect")
    _add_help_all(parser, "describe every option of every command and exit")
    _add_version(parser, "show the version and exit", version)
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
            usage=f"{PROG} {command} {words.USAGES[command]}",
            help=words.SUMMARIES[command],
            description=words.DESCRIPTIONS[command],
            epilog=f"{_variables(command)} See {PROG}(1).",
            allow_abbrev=False,
        )
        sub.command = command
        _add_version(sub, argparse.SUPPRESS, version)
        _add_help_all(sub, "describe every option and exit")
        _add_operands(sub, command)
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


def _add_operands(parser: argparse.ArgumentParser, command: str) -> None:
    for name, text in words.OPERANDS[command].items():
        # What is behind a URL. The first of the words may be one: cli/commands/entry.py tells.
        is_text = name == "TEXT"
        many = is_text or command in words.SEVERAL_ROOMS
        parser.add_argument(
            "words" if is_text else "urls" if many else "url",
            metavar=name,
            nargs="*" if many else "?",
            default=argparse.SUPPRESS,
            help=text,
        )


def _add_help_all(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--help-all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help=text
    )


def _add_version(parser: argparse.ArgumentParser, text: str, version: str) -> None:
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        const=version,
        default=argparse.SUPPRESS,
        help=text,
    )


def command_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the command, in either spelling and from any place, in front.

    What is no option comes last, behind ``--``, so that options may stand between words. The words
    after ``publish`` are its message, whatever they are.

    Raises:
        ValueError: there is no command, or more than one.
    """
    commands, options, operands, texts = _sorted(arguments)
    operands = operands + texts
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


def count_literal(arguments: Sequence[str]) -> int:
    """Return how many words stand behind ``--``: of a message they are text, whatever they look
    like."""
    return len(_sorted(arguments).texts)


class _Sorted(NamedTuple):
    """The arguments by what they are, each kind in its order."""

    commands: list[str]
    options: list[str]
    operands: list[str]
    texts: list[str]  # the operands behind --


def _sorted(arguments: Sequence[str]) -> _Sorted:
    found = commands, options, operands, texts = _Sorted([], [], [], [])
    valued = {
        flag
        for groups in OPTIONS.values()
        for group in groups.values()
        for option in group
        if option.metavar
        for flag in option.flags
    }
    rest = iter(arguments)
    for argument in rest:
        if argument in ("--start", "--connect"):
            commands.append(argument.lstrip("-"))
        elif argument in OPTIONS and commands != ["publish"]:
            commands.append(argument)
        elif argument == "--":
            texts.extend(rest)
        elif argument.startswith("-") and argument != "-":
            options.append(argument)
            if argument in valued:  # its value may read like a command: --name start
                options.extend(value for value in [next(rest, None)] if value is not None)
        else:
            operands.append(argument)
    return found


def parse(arguments: Sequence[str], version: str) -> dict[str, Any]:
    """Return what was given on the command line, by field name; the name of the command, too.

    Args:
        arguments: as ``command_first`` returns them.
        version: what ``--version`` tells.

    Raises:
        Asked: they ask for help or the version.
        ValueError: there is an option too many, or a value is wrong.
    """
    namespace, unknown = build_parser(version).parse_known_args(arguments)
    given = vars(namespace)
    if unknown:
        wrong = [word for word in unknown if word.startswith("-") and word != "--"]
        told = " ".join(wrong or [word for word in unknown if word != "--"])
        meant = did_you_mean(wrong, _flags(given["command"]))
        raise ValueError(f"unrecognized arguments: {told}{meant}")
    return given


def _flags(command: str) -> list[str]:
    """Return what the options of a command are called."""
    groups = OPTIONS[command].values()
    own = ["--help", "--help-all", "--version"]
    return [flag for group in groups for option in group for flag in option.flags] + own


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
