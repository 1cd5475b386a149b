"""A chat bot: it answers what begins with "!".

    python docs/examples/bot.py ws://127.0.0.1:8765/

Type !help in the room. It comes back by itself when the hub was away.
"""

from __future__ import annotations

import datetime
import random
import sys
from collections.abc import Callable

from broadcast_server import BroadcastClient, BroadcastServerError, Message

# No answer may begin with "!": else two bots would talk to each other for ever.
COMMANDS: dict[str, Callable[[BroadcastClient], str]] = {
    "!help": lambda bot: "I know " + ", ".join(COMMANDS),
    "!ping": lambda bot: "pong",
    "!roll": lambda bot: f"you rolled a {random.randint(1, 6)}",
    "!time": lambda bot: f"it is {datetime.datetime.now():%H:%M}",
    "!who": lambda bot: "here: " + ", ".join(member.name or "?" for member in bot.members),
}


def main(url: str) -> None:
    """Answer until the hub says goodbye for good."""
    # With presence=True a gap is an item like others. Else it would be an exception, MessagesLost.
    with BroadcastClient(url, name="bot", presence=True) as bot:
        for item in bot:
            # What the bot itself says does not come back: the hub leaves it out.
            if isinstance(item, Message) and item.data in COMMANDS:
                bot.send(COMMANDS[item.data](bot))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: bot.py ws://HOST:PORT/ROOM")
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        pass
    except BroadcastServerError as error:
        sys.exit(f"bot: {error}")
