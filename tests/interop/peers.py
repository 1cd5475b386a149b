"""Clients of other makes that send back whatever they get.

``python -m tests.interop.peers MAKE URL``

Each one joins the room of the URL with its library's defaults, sends the text ``joined``, returns
every message with its type, and on the text ``leave`` makes the closing handshake, prints the code
that it ended with, and exits.
"""

from __future__ import annotations

import asyncio
import sys


def websocket_client(url: str) -> int:
    """Use websocket-client's ``WebSocket``."""
    import websocket

    peer = websocket.create_connection(url, timeout=20)
    peer.send("joined")
    while True:
        opcode, data = peer.recv_data()
        if data == b"leave":
            break
        peer.send(data, opcode)
    peer.send_close(1000)
    frame = peer.recv_frame()
    assert frame is not None and frame.opcode == websocket.ABNF.OPCODE_CLOSE, frame
    code = int.from_bytes(frame.data[:2], "big")
    assert peer.sock.recv(1) == b""
    peer.shutdown()
    return code


def websockets_sync(url: str) -> int:
    """Use the threaded client of ``websockets``."""
    from websockets.sync.client import connect

    with connect(url, open_timeout=20) as peer:
        peer.send("joined")
        for message in peer:
            if message == "leave":
                break
            peer.send(message)
    assert peer.close_code is not None
    return peer.close_code


def websockets_asyncio(url: str) -> int:
    """Use the asyncio client of ``websockets``."""
    from websockets.asyncio.client import connect

    async def play() -> int:
        async with connect(url, open_timeout=20) as peer:
            await peer.send("joined")
            async for message in peer:
                if message == "leave":
                    break
                await peer.send(message)
        assert peer.close_code is not None
        return peer.close_code

    return asyncio.run(play())


MAKES = {
    "websocket-client": websocket_client,
    "websockets-sync": websockets_sync,
    "websockets-asyncio": websockets_asyncio,
}


if __name__ == "__main__":
    print(MAKES[sys.argv[1]](sys.argv[2]), flush=True)
