"""The options of the commands that talk to a hub: ``connect``, ``publish``, ``listen``, ``who``.

Each stands here once; the parser, the environment variables, help, man page, shell completions and
``docs/reference/options.md`` are made from it. Nothing but the standard library is imported: see
``cli/options/option.py``.
"""

from __future__ import annotations

from .option import Option, logging_options

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

HOST = Option("host ADDRESS", "127.0.0.1", "address or host name of the hub")
PORT = Option("port PORT", 8765, "TCP port of the hub")

HEADER = Option(
    "header HEADER",
    (),
    "send this header line, too, such as 'Cookie: a=b'; @FILE sends the lines of a file, which is "
    "the way for secrets, since every user of a machine can read arguments; may be repeated",
    shown="none",
    many=True,
    letter="H",
)

# For servers that are no hubs, or are behind something that wants to be told more.
OTHERS = [
    HEADER,
    Option(
        "subprotocol PROTOCOL",
        (),
        "offer this subprotocol to a server that is no hub, instead of the hub's own; none offers "
        "nothing; may be repeated",
        shown="broadcast.v1.json",
        many=True,
    ),
    Option(
        "origin ORIGIN",
        None,
        "say that this is for a page of that origin, to a server that wants to know",
        shown="none",
    ),
]


def _place(room: str, name: str = "name that the hub shows for this client") -> list[Option]:
    """Return the options that say where a room is and who is there; the texts tell of two of
    them."""
    return [
        HOST,
        PORT,
        Option("room PATH", "/", f"{room}, such as /scores"),
        Option("name NAME", None, name, shown="none"),
        TOKEN_OPTION,
    ]


CONNECT: dict[str, list[Option]] = {
    "where to connect": _place("room to join"),
    "what to do": [
        Option(
            "history COUNT",
            None,
            "old messages of the room to show first, as far as the hub keeps them",
            shown="20 at a terminal, else 0",
        ),
        Option(
            "no-reconnect",
            False,
            "end when the connection is lost, instead of coming back",
            shown="off",
        ),
        Option(
            "linger SECONDS",
            0,
            "in a pipe, go on for so long after the end of the input, for answers to it, or until "
            "the server ends the connection",
        ),
        Option(
            "bell",
            False,
            "at a terminal, ring the bell when somebody says your name",
            shown="off",
        ),
    ],
    "encryption": TRUST,
    "other servers": OTHERS,
    "logging": [
        Option(
            "debug",
            False,
            "show where in the program it has failed, should that happen",
            shown="off",
        ),
        *logging_options("warning"),
    ],
}

PUBLISH: dict[str, list[Option]] = {
    "where to publish": _place("room to publish to", "name that others see as the sender"),
    "how": [
        Option(
            "key KEY",
            None,
            "publish what has this key once, however often the command runs, within ten minutes; "
            "with standard input it is a prefix, and each line's number comes behind it",
            shown="a new one for each message",
        ),
        Option(
            "timeout SECONDS",
            30,
            "time for each message, with all that it takes: a hub that is busy is asked again when "
            "it wishes, a connection that breaks is made anew",
        ),
        Option(
            "no-reconnect",
            False,
            "give up when a connection breaks before the hub has answered",
            shown="off",
        ),
    ],
    "encryption": TRUST,
    "other servers": [HEADER],
    "logging": logging_options("warning"),
}

LISTEN: dict[str, list[Option]] = {
    "where to listen": _place("room to listen to"),
    "what to do with messages": [
        Option(
            "format FORM",
            None,
            "what is written of a message: text is one line, with control characters escaped; json "
            "one JSON object a line; raw the message as it is",
            shown="text; for --exec raw",
        ),
        Option(
            "exec COMMAND",
            None,
            "run this shell command for each message; one after the other, with the message on "
            "its standard input and BROADCAST_ID, BROADCAST_ROOM, BROADCAST_SENDER, "
            "BROADCAST_SENDER_ID and BROADCAST_TIME in its environment; nothing else is written",
            shown="none",
        ),
        Option("count COUNT", None, "end after so many messages", shown="no end"),
        Option(
            "timeout SECONDS",
            None,
            "end after this time; with --count it has failed then",
            shown="no end",
        ),
        Option("since ID", None, "begin with everything after this message", shown="now"),
        Option("history COUNT", 0, "begin with so many old messages"),
        Option("no-reconnect", False, "end when the connection is lost", shown="off"),
    ],
    "encryption": TRUST,
    "other servers": OTHERS,
    "logging": logging_options("warning"),
}

WHO: dict[str, list[Option]] = {
    "where to ask": [
        HOST,
        PORT,
        Option("room PATH", None, "room to list, such as /scores", shown="every room"),
        TOKEN_OPTION,
    ],
    "encryption": TRUST,
}
