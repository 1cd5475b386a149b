"""The rival on threads: plain websocket-server, sending to all other clients in a loop.

This is its ``send_message_to_all`` without the sender. It never pings, so ``--ping-interval`` is
accepted and has no effect.
"""

from __future__ import annotations

import threading
from typing import Any

import _common
from websocket_server import WebsocketServer


def relay(sender: dict[str, Any], server: WebsocketServer, message: str) -> None:
    for client in server.clients:
        if client is not sender:
            server.send_message(client, message)


def main() -> None:
    options = _common.parser(__doc__).parse_args()
    _common.prepare(options)
    server = WebsocketServer(host="127.0.0.1", port=0)
    server.set_fn_message_received(relay)
    threading.Thread(target=server.run_forever, daemon=True).start()
    _common.talk(server.port)


if __name__ == "__main__":
    main()
