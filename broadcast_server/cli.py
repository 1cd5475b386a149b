"""The ``broadcast-server`` command line: commands ``start``, ``connect`` and ``who``, and options.

Every option stands once, in ``START``, ``CONNECT`` or ``WHO`` below. The parser, the environment
variables, ``--help``, the man page and ``docs/reference/options.md`` are all made from there.
Values are looked up after parsing, so that nobody's environment leaks into the man page: the
command line wins over the environment, the environment over the default.

argparse-manpage runs this file outside the package, in a build that has none of our dependencies:
at its top it may import nothing but the standard library. What the commands do stands in
``commands.py``.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

PROG = "broadcast-server"
MIB = 1024 * 1024


def _port(text: str) -> int:
    number = _whole(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not between 0 and 65535")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("it is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from None
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return check


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither 1 nor 0")


# What a value stands for says how it is read. An option without one is a flag; only its variable
# has a value.
KINDS: dict[str, Callable[[str], Any]] = {
    "": _flag,
    "ADDRESS": _text,
    "BYTES": _whole,
    "COUNT": _whole,
    "FILE": _text,
    "FORMAT": _one_of("text", "json"),
    "LEVEL": _one_of("debug", "info", "warning", "error"),
    "NAME": _text,
    "NETWORK": _text,
    "ORIGIN": _text,
    "PATH": _text,
    "PORT": _port,
    "SECONDS": _seconds,
}


class Option(NamedTuple):
    """One option of a command."""

    # Its name without dashes, a space, and what its value is: a key of KINDS. Of a flag the name.
    spec: str
    default: Any
    help: str
    shown: str = ""  # how the default reads, where str() does not say it
    many: bool = False

    @property
    def name(self) -> str:
        return self.spec.partition(" ")[0]

    @property
    def metavar(self) -> str:
        return self.spec.partition(" ")[2]

    @property
    def type(self) -> Callable[[str], Any]:
        return KINDS[self.metavar]

    @property
    def dest(self) -> str:
        return self.name.replace("-", "_")

    def variable(self, command: str) -> str:
        """The environment variable that sets this option of `command`."""
        # A shell that runs both wants them apart: the hub listens on 0.0.0.0, no client can
        # connect there.
        apart = command != "start" and self.name in ("host", "port")
        return "BROADCAST_SERVER_" + ("CONNECT_" if apart else "") + self.dest.upper()

    def parse_variable(self, text: str) -> Any:
        """The value of a variable; a repeatable option takes a list parted by commas or spaces."""
        if self.many:
            return [self.type(word) for word in re.split(r"[\s,]+", text.strip()) if word]
        return self.type(text)

    def full_help(self) -> str:
        return f"{self.help} (default: {self.shown or self.default})"

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        """Let a parser take it."""
        name, text = f"--{self.name}", self.full_help()
        if not self.metavar:
            group.add_argument(name, action="store_true", default=argparse.SUPPRESS, help=text)
            return
        group.add_argument(
            name,
            action="append" if self.many else "store",
            type=self.type,
            metavar=self.metavar,
            default=argparse.SUPPRESS,
            help=text,
        )


def _logging_options(level: str) -> list[Option]:
    return [
        Option(
            "log-level LEVEL",
            level,
            "least serious log records to write to standard error: debug, info, warning or error",
        ),
        Option(
            "log-format FORMAT",
            "text",
            "form of the log: text for people, json for one JSON object a line",
        ),
    ]


START: dict[str, list[Option]] = {
    "where to listen": [
        Option(
            "host ADDRESS",
            ("127.0.0.1",),
            "address or host name to listen on; localhost is this machine over IPv4 and IPv6; "
            "0.0.0.0 lets every machine in that can reach this one; without one of the options "
            "below everybody may then read and write; may be repeated",
            shown="127.0.0.1",
            many=True,
        ),
        Option("port PORT", 8765, "TCP port to listen on; 0 takes a free one"),
        Option(
            "allow-origin ORIGIN",
            (),
            "let web pages of this origin in, too, such as https://example.org, or * for all; may "
            "be repeated; programs other than browsers always come in",
            shown="only pages of the hub's own host and port",
            many=True,
        ),
        Option(
            "allow-host NAME",
            (),
            "answer to this host name, too, such as hub.example; a request that calls the hub by "
            "another name is refused with 421, since a page whose owner controls the name could "
            "have sent it; may be repeated",
            shown="only addresses, localhost and the names that --host gives",
            many=True,
        ),
        Option(
            "trust-proxy NETWORK",
            (),
            "believe a proxy at this address or in this network, such as 10.0.0.0/8, when it says "
            "in X-Forwarded-For or Forwarded for whom it calls; may be repeated",
            shown="nobody is believed",
            many=True,
        ),
    ],
    "who may come in": [
        Option(
            "token-file FILE",
            None,
            "file of tokens, one in each line; who shows one of them may read all rooms, and write "
            "if there are no publish tokens; nobody else may; a token may also be in the variable "
            "BROADCAST_SERVER_TOKEN, and none is ever an argument",
            shown="none",
        ),
        Option(
            "publish-token-file FILE",
            None,
            "file of tokens, one in each line, with which all rooms may be read and written; where "
            "this is the only control everybody may read; also BROADCAST_SERVER_PUBLISH_TOKEN",
            shown="none",
        ),
        Option(
            "jwt-key-file FILE",
            None,
            "file with what verifies JSON Web Tokens that say who may do what: a public key in PEM "
            "for RS256 or ES256, else a secret of at least 32 bytes for HS256",
            shown="none",
        ),
    ],
    "encryption": [
        Option(
            "tls-cert FILE",
            None,
            "speak TLS (https and wss) only, with the certificate in this PEM file, which may also "
            "hold those between it and its authority",
            shown="none, no TLS",
        ),
        Option(
            "tls-key FILE",
            None,
            "file with the private key of the certificate, in PEM form and without a password",
            shown="the file of --tls-cert",
        ),
    ],
    "limits": [
        Option(
            "max-clients COUNT",
            10_000,
            "clients at a time; one more is answered 503; each costs a thread and a descriptor",
        ),
        Option(
            "max-clients-per-address COUNT",
            2_500,
            "clients at a time of one IPv4 address or one IPv6 /64, 0 for no limit; one more is "
            "answered 429",
        ),
        Option(
            "max-handshakes COUNT",
            1_000,
            "connections at a time that are no clients: still in their handshake, or publishing; "
            "for one more, the one that has waited longest of the address with most is cut off",
        ),
        Option(
            "max-rooms COUNT",
            10_000,
            "rooms at a time; one more takes the place of the empty room that was opened the "
            "longest ago, and is answered 503 if none is empty",
        ),
        Option(
            "max-rooms-per-address COUNT",
            1_000,
            "rooms at a time that one IPv4 address or one IPv6 /64 has made, 0 for no limit; one "
            "more takes the place of an empty one of these, and is answered 503 if none is empty",
        ),
        Option(
            "max-message-bytes BYTES",
            MIB,
            "largest message taken; the sender of a bigger one is closed with 1009",
            shown="1048576, 1 MiB",
        ),
        Option(
            "max-fragments COUNT",
            131_072,
            "frames that one message may be split into; the sender of more is closed with 1009",
        ),
        Option(
            "max-header-bytes BYTES",
            16 * 1024,
            "largest HTTP request head taken; a bigger one is answered 431",
            shown="16384, 16 KiB",
        ),
        Option(
            "max-rate COUNT",
            10_000,
            "messages taken from one client in a second, 0 for no limit; a faster sender is slowed "
            "down, and nothing is lost",
        ),
        Option(
            "max-control-rate COUNT",
            10_000,
            "pings, pongs and fragments below 126 bytes taken from one client in a second, 0 for "
            "no limit; a faster sender is slowed down",
        ),
    ],
    "memory": [
        Option("history COUNT", 100, "messages of each room that a newcomer may ask to be shown"),
        Option(
            "room-log-bytes BYTES",
            8 * MIB,
            "memory for the messages of one room; a client that is more than half of it behind is "
            "closed with 1013; at least four times --max-message-bytes",
            shown="8388608, 8 MiB",
        ),
        Option(
            "total-log-bytes BYTES",
            256 * MIB,
            "memory for the messages of all rooms; above it empty rooms go first",
            shown="268435456, 256 MiB",
        ),
    ],
    "times": [
        Option(
            "handshake-timeout SECONDS",
            10,
            "time for the whole opening handshake; a slower client is answered 408",
        ),
        Option(
            "http-idle-timeout SECONDS",
            15,
            "time for which an HTTP connection may wait for its next request",
        ),
        Option(
            "ping-interval SECONDS",
            20,
            "silence after which a client is sent a ping; shorter finds dead clients sooner",
        ),
        Option("ping-timeout SECONDS", 20, "silence after a ping that closes the client with 1011"),
        Option(
            "write-timeout SECONDS",
            20,
            "time for which a client may take no byte while data waits for it; then it is closed",
        ),
        Option(
            "close-timeout SECONDS",
            5,
            "time for a client to answer a close; then its connection is cut",
        ),
        Option(
            "stop-timeout SECONDS",
            10,
            "time to deliver what was accepted and to say goodbye when the hub stops",
        ),
        Option(
            "drain-seconds SECONDS",
            5,
            "time over which SIGTERM spreads the goodbyes, so that not all clients come back at "
            "once; up to 100 clients get them at once, more at 200 in a second or faster",
        ),
        Option(
            "drain-delay SECONDS",
            0,
            "time after SIGTERM in which clients are still let in while /healthz says 503 already, "
            "for a load balancer to notice",
        ),
        Option(
            "restart-on-term",
            False,
            "on SIGTERM close with 1012 and the id to resume from, for a hub that will be started "
            "again, instead of 1001",
            shown="off",
        ),
        Option(
            "switch-interval SECONDS",
            0.0001,
            "time for which one thread may keep the interpreter from the others; shorter keeps "
            "latency low beside busy threads",
        ),
    ],
    "logging": _logging_options("info"),
}

TRUST = [
    Option(
        "ca-file FILE",
        None,
        "for wss: trust only hubs whose certificate is in this PEM file, or comes from one in it",
        shown="the authorities that the system trusts",
    ),
    Option(
        "insecure",
        False,
        "for wss: trust whoever answers, without a look at the certificate; whoever is between can "
        "read and change everything",
        shown="off",
    ),
]

TOKEN_OPTION = Option(
    "token-file FILE",
    None,
    "file whose first line is the token to show to the hub; it may also be in the variable "
    "BROADCAST_SERVER_TOKEN",
    shown="none",
)

CONNECT: dict[str, list[Option]] = {
    "where to connect": [
        Option("host ADDRESS", "127.0.0.1", "address or host name of the hub"),
        Option("port PORT", 8765, "TCP port of the hub"),
        Option("room PATH", "/", "room to join, such as /scores"),
        Option("name NAME", None, "name that the hub shows for this client", shown="none"),
        TOKEN_OPTION,
    ],
    "encryption": TRUST,
    "logging": _logging_options("warning"),
}

WHO: dict[str, list[Option]] = {
    "where to ask": [
        *CONNECT["where to connect"][:2],
        Option("room PATH", None, "room to list, such as /scores", shown="every room"),
        TOKEN_OPTION,
    ],
    "encryption": TRUST,
}

OPTIONS: dict[str, dict[str, list[Option]]] = {"start": START, "connect": CONNECT, "who": WHO}

# Secrets are no options: the arguments of a process can be read by every user of a machine. Each of
# these comes from BROADCAST_SERVER_ and its name, unless its file is given.
SECRETS = {"start": ("token", "publish_token"), "connect": ("token",), "who": ("token",)}

SUMMARIES = {
    "start": "run a hub",
    "connect": "join a room of a hub",
    "who": "list who is in which room of a hub",
}

DESCRIPTIONS = {
    "start": "Start a hub and run it until SIGINT (Ctrl-C) or SIGTERM. It prints the address that "
    "it listens on as its only line on standard output, and logs to standard error.",
    "connect": "Join a room of a hub. At a terminal, each line that you type is sent to all others "
    "in the room and what they send is shown; /who lists who is here, and /quit, Ctrl-D or Ctrl-C "
    "leaves. Input that is not a terminal is sent line by line, and the command ends when the hub "
    "has accepted all of it.",
    "who": "List the rooms of a hub that have members, how many, and their names; a member without "
    "a name is listed with its id.",
}

# What the operand of a command is. It says the same as --host, --port and --room.
URLS = {
    "connect": "address of the room, such as ws://127.0.0.1:8765/scores, or wss://… for a hub that "
    "speaks TLS, instead of --host, --port and --room",
    "who": "address of the room, such as ws://127.0.0.1:8765/scores, or of the hub without a path, "
    "for every room; instead of --host, --port and --room",
}


class _Parser(argparse.ArgumentParser):
    """Tells a usage error in one line, without repeating the usage."""

    def error(self, message: str) -> NoReturn:
        from broadcast_server import streams

        streams.complain(self.prog.partition(" ")[2], message)
        raise SystemExit(2)


class _Version(argparse.Action):
    """Prints the version; the package is imported only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from broadcast_server import __version__, streams

        raise SystemExit(0 if streams.write_stdout(f"{PROG} {__version__}\n") else 1)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line. It reads nothing and changes nothing."""
    parser = _Parser(
        prog=PROG,
        usage=f"{PROG} (start | connect [URL] | who [URL]) [options]",
        description="Run a WebSocket broadcast hub, or join one: what one client sends, all others "
        "in its room get. The path of a client's URL is its room. Options may stand in any order.",
        allow_abbrev=False,
    )
    parser.add_argument("--start", action="store_true", help="the same as the command start")
    parser.add_argument("--connect", action="store_true", help="the same as the command connect")
    _add_version(parser, "show the version and exit")
    commands = parser.add_subparsers(
        title="commands",
        dest="command",
        metavar="COMMAND",
        required=True,
        prog=PROG,  # else each command would be called by the whole usage line
    )
    for command, groups in OPTIONS.items():
        *_, (*_, last) = groups.values()
        operand = " [URL]" if command in URLS else ""
        sub = commands.add_parser(
            command,
            usage=f"{PROG} {command}{operand} [options]",
            help=SUMMARIES[command],
            description=DESCRIPTIONS[command],
            epilog="Each option can also be set by an environment variable: BROADCAST_SERVER_ and "
            f"its name, such as {last.variable(command)}. The command line wins. See {PROG}(1).",
            allow_abbrev=False,
        )
        _add_version(sub, argparse.SUPPRESS)
        if operand:
            sub.add_argument(
                "url",
                metavar="URL",
                nargs="?",
                default=argparse.SUPPRESS,
                help=URLS[command],
            )
        for title, options in groups.items():
            group = sub.add_argument_group(title)
            for option in options:
                option.add_to(group)
    return parser


def _add_version(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help=text)


def command_first(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the command, in either spelling and from any place, in front.

    Raises:
        ValueError: there is no command, or more than one.
    """
    options = [o for groups in OPTIONS.values() for group in groups.values() for o in group]
    valued = {f"--{option.name}" for option in options if option.metavar}
    commands, others = [], []
    rest = iter(arguments)
    for argument in rest:
        if argument in OPTIONS or argument in ("--start", "--connect"):
            commands.append(argument.lstrip("-"))
            continue
        others.append(argument)
        if argument in valued:  # its value may read like a command: --name start
            others.extend(value for value in [next(rest, None)] if value is not None)
        elif argument == "--":
            others.extend(rest)
    if not commands:
        for argument in others:
            if argument in ("-h", "--help", "--version"):
                return [argument]
    if len(commands) != 1:
        raise ValueError("give one command: start, connect or who (or --start, --connect)")
    return commands + others


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with `argv` (default: the process's) and return its exit status.

    It takes over the signals and the logging of the process: call it where it is the program, in
    the main thread.
    """
    from broadcast_server import commands, streams

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
                raise ValueError(f"unrecognized arguments: {' '.join(unknown)}")
            if "url" in given and not given.keys().isdisjoint(("host", "port", "room")):
                raise ValueError("give a URL or --host, --port and --room, not both")
            found = resolve(command, given, os.environ)
        except ValueError as error:
            streams.complain(command, str(error))
            return 2
        if command == "start":
            status = commands.start(*found)
        elif command == "connect":
            status = commands.connect(*found, given.get("url"))
        else:
            status = commands.who(*found, given.get("url"))
    except SystemExit as end:  # argparse ends this way, after --help as after an error
        status = end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:  # before a command has taken the signals over
        status = 130
    return status if streams.write_stdout() else status or 1
