"""What help, man page and options.md say of the program and of each command.

The words about a single option stand with it, in ``cli/options/tables.py``. Nothing is imported:
see ``cli/options/option.py``.
"""

from __future__ import annotations

DESCRIPTION = (
    "Run a WebSocket broadcast hub, or use one: what one client sends, all others in its room get. "
    "The path of a client's URL is its room."
)
ANY_ORDER = "Options may stand in any order."

SUMMARIES = {
    "start": "run a hub",
    "connect": "join a room of a hub",
    "publish": "send messages from a script",
    "listen": "write messages, or run a command for each",
    "who": "list who is in which room of a hub",
}

DESCRIPTIONS = {
    "start": "Start a hub and run it until SIGINT (Ctrl-C) or SIGTERM. It prints the address that "
    "it listens on as its only line on standard output, and logs to standard error.",
    "connect": "Join a room of a hub. At a terminal, each line that you type is sent to all others "
    "in the room, and what they send is drawn above it; /help lists the commands, and /quit, "
    "Ctrl-D or Ctrl-C leaves. Input that is not a terminal is sent line by line, and the command "
    "ends when the hub has accepted all of it. A lost connection is taken up again.",
    "publish": "Send one message, the words of TEXT or a file, or with - each line of standard "
    "input as one. It succeeds when the hub has accepted all of them, and what it sends twice, "
    "because no answer came, is delivered once.",
    "listen": "Write the messages of a room, or of several, to standard output, one a line and "
    "each at once, or run a command for each. A lost connection is taken up again where it has "
    "ended.",
    "who": "List the rooms of a hub that have members, how many, and their names; a member without "
    "a name is listed as guest, with its id.",
}

_ROOM_URL = (
    "address of the room, such as ws://127.0.0.1:8765/scores, or wss://… for a hub that speaks "
    "TLS, instead of --host, --port and --room"
)
_SHORT_URL = f"{_ROOM_URL}; so is that of its web page, and a mere 127.0.0.1:8765/scores or :8765"
_OR_PATH = (
    f"{_SHORT_URL}; a path such as /scores is that of a room of the hub that --host and --port name"
)

# What is no option. A URL says the same as --host, --port and --room.
OPERANDS: dict[str, dict[str, str]] = {
    "start": {},
    "connect": {"URL": _OR_PATH},
    "publish": {
        "URL": f"{_SHORT_URL}, before a text",
        "TEXT": "the message, or - for each line of standard input; several words are joined by "
        "blanks; a first word that looks like an address is one, unless --host, --port or --room "
        "is given or -- stands before it",
    },
    "listen": {
        "URL": f"{_OR_PATH}, or the address before it; of several addresses all rooms are "
        "listened to"
    },
    "who": {
        "URL": "address of the room, such as ws://127.0.0.1:8765/scores, or of the hub without a "
        "path, for every room; instead of --host, --port and --room; a path such as /scores is "
        "that of a room of the hub that --host and --port name"
    },
}

# Commands that take several addresses.
SEVERAL_ROOMS = frozenset({"listen"})

USAGES = {
    "start": "[options]",
    "connect": "[URL] [options]",
    "publish": "[URL] [options] ([--] TEXT... | - | --file F)",
    "listen": "[URL...] [options]",
    "who": "[URL] [options]",
}

EXAMPLES = {
    "": (
        "broadcast-server start",
        "broadcast-server connect --name ann",
    ),
    "start": (
        "broadcast-server start --port 8000",
        "broadcast-server start --host 0.0.0.0 --token-file token",
    ),
    "connect": (
        "broadcast-server connect --room /scores --name ann",
        "tail -F app.log | broadcast-server connect ws://127.0.0.1:8765/log",
    ),
    "publish": (
        "broadcast-server publish --room /scores 3:1",
        "broadcast-server publish --room /jobs --key backup-$(date +%F) backup done",
        "tail -F app.log | broadcast-server publish --room /log -",
        "broadcast-server publish --room /log --file app.log",
    ),
    "listen": (
        "broadcast-server listen --room /log --history 20 | grep ERROR",
        "broadcast-server listen --format json --count 1 | jq -r .data",
        "broadcast-server listen /log /jobs --format json",
        "broadcast-server listen --room /jobs --exec 'mail -s \"$BROADCAST_SENDER\" ops'",
    ),
    "who": ("broadcast-server who", "broadcast-server who --room /scores"),
}

# The options that `--help` describes; the others it names.
COMMON = {
    "start": "host port token-file publish-token-file tls-cert tls-key",
    "connect": "host port room name token-file history wait no-reconnect",
    "publish": "host port room name token-file file key timeout wait no-reconnect",
    "listen": "host port room token-file format exec count timeout wait since history no-reconnect",
    "who": "host port room token-file",
}
