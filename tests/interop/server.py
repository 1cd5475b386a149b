"""A server made of ``websockets``: greets with what it was told, and sends back what it gets.

``python -m tests.interop.server`` prints its port. The greeting is a JSON object with the path, the
subprotocol, the origin and the header line X-A; ``close=CODE`` in the query closes behind it.
"""

from __future__ import annotations

import json
import re

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol


def serve_one(connection: ServerConnection) -> None:
    """Talk to one client until it leaves."""
    request = connection.request
    assert request is not None
    hello = {
        "path": re.sub("&.*", "", request.path),
        "protocol": connection.subprotocol,
        "origin": request.headers.get("Origin"),
        "x-a": request.headers.get("X-A"),
    }
    connection.send(json.dumps(hello))
    code = re.search(r"close=(\d+)", request.path)
    if code is not None:
        connection.close(int(code[1]))
    try:
        for message in connection:
            connection.send(message)
    except ConnectionClosed:
        pass


def main() -> None:
    """Serve until the process is killed."""
    with serve(
        serve_one,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol("chat")],
        # By default it refuses who offers only others.
        select_subprotocol=lambda _, offered: Subprotocol("chat") if "chat" in offered else None,
    ) as server:
        print(server.socket.getsockname()[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
