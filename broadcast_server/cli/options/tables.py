"""The options of every command: those of ``start``, which are the settings of a hub, then those of
the commands that talk to one, ``connect``, ``publish``, ``listen`` and ``who``.

Each stands here once; the parser, the environment variables, help, man page, shell completions and
``docs/reference/options.md`` are made from it. Nothing but the standard library is imported: see
``cli/options/option.py``.
"""

from __future__ import annotations

from .option import Option, logging_options

MIB = 1024 * 1024

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
            "rooms at a time; one more takes the place of an empty room of the address that has "
            "made most, and is answered 503 if none is empty",
        ),
        Option(
            "max-rooms-per-address COUNT",
            1_000,
            "rooms at a time that one IPv4 address, one IPv6 /64 or the bearer of a named token "
            "has made, 0 for no limit; one more takes the place of an empty one of these, and is "
            "answered 503 if none is empty",
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
            "messages taken from one person or address in a second, 0 for no limit; a faster "
            "sender is slowed down, and nothing is lost",
        ),
        Option(
            "max-control-rate COUNT",
            10_000,
            "pings, pongs and fragments below 126 bytes taken from one person or address in a "
            "second, 0 for no limit; a faster sender is slowed down",
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
            "memory for the messages of all rooms; above it those of the address whose rooms hold "
            "most go first",
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
            "latency low beside busy threads; with many connections it grows, up to 0.005",
        ),
    ],
    "logging": logging_options("info"),
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
    Option(
        "cert FILE",
        None,
        "for wss: show the certificate in this PEM file to a hub, or a proxy before it, that asks "
        "for one; the file may also hold the key",
        shown="none",
    ),
]
CERT_KEY = Option(
    "cert-key FILE",
    None,
    "file with the private key of that certificate, in PEM form and without a password",
    shown="the file of --cert",
    alias="key",
)

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


WAIT = Option(
    "wait SECONDS",
    0,
    "time to wait for a hub that is not there yet, because it or its machine still starts; while "
    "its name is not known, nobody listens, the connection is cut or silent, or the answer is 502, "
    "503 or 504, it is tried again",
)


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
        WAIT,
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
    "encryption": [*TRUST, CERT_KEY],
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
            "file FILE",
            None,
            "publish this file, or standard input if -, as one message; as text if it is UTF-8 "
            "without null bytes, else as binary data",
            shown="none",
        ),
        Option(
            "binary",
            False,
            "publish binary messages, whatever is in them; bytes go out as they are",
            shown="off",
        ),
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
            "it wishes, a connection that breaks is made anew; --wait comes before it",
        ),
        WAIT,
        Option(
            "no-reconnect",
            False,
            "give up when a connection breaks",
            shown="off",
        ),
    ],
    "encryption": [
        *TRUST,
        # --key is the key of the message.
        CERT_KEY._replace(
            help=f"{CERT_KEY.help}; --key may name it as well, if the file has a private key in it",
            alias="",
        ),
    ],
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
            "end this time after it has connected; with --count it has failed then",
            shown="no end",
        ),
        WAIT,
        Option("since ID", None, "begin with everything after this message", shown="now"),
        Option("history COUNT", 0, "begin with so many old messages"),
        Option("no-reconnect", False, "end when the connection is lost", shown="off"),
    ],
    "encryption": [*TRUST, CERT_KEY],
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
    "encryption": [*TRUST, CERT_KEY],
}

OPTIONS: dict[str, dict[str, list[Option]]] = {
    "start": START,
    "connect": CONNECT,
    "publish": PUBLISH,
    "listen": LISTEN,
    "who": WHO,
}

# Secrets are no options: the arguments of a process can be read by every user of a machine. Each of
# these comes from BROADCAST_SERVER_ and its name, unless its file is given.
SECRETS = dict.fromkeys(OPTIONS, ("token",)) | {"start": ("token", "publish_token")}
