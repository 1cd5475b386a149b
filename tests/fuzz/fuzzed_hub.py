"""The hub that is attacked: ``python -m tests.fuzz.fuzzed_hub``, a process of its own.

It prints its URL and stops when its standard input ends. Its limits are low, so that an attack
reaches them, and its times are short. What a hub remembers for ten minutes by design it remembers
here for five seconds, so that a growth of its memory within minutes is a leak and nothing else.
"""

from __future__ import annotations

import logging
import sys

from broadcast_server import BroadcastHub
from broadcast_server.hub.backplane import keys

REMEMBERED_SECONDS = 5.0

SETTINGS = {
    "max_message_bytes": 4096,
    "max_fragments": 64,
    "history": 20,
    "room_log_bytes": 64 * 1024,
    "total_log_bytes": 512 * 1024,
    "max_clients": 200,
    "max_rooms": 60,
    "handshake_timeout": 2.0,
    "http_idle_timeout": 1.0,
    "max_header_bytes": 2048,
    "ping_interval": 2.0,
    "close_timeout": 1.0,
    # The names that stand in the corpus, and the word of its X-Forwarded-For.
    "allow_host": ("h", "hub.example"),
    "allow_origin": ("https://app.example",),
    "trust_proxy": ("127.0.0.1",),
}


def main() -> None:
    """Run the hub until standard input ends."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    keys.KEY_SECONDS = REMEMBERED_SECONDS
    with BroadcastHub(port=0, **SETTINGS) as hub:
        print(hub.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
