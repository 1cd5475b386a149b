"""The rival on asyncio: ``websockets`` with its ``broadcast()`` to all other clients.

Compression is off, so that it does the same work as the hub; with it (the library's default) the
figures would be lower. Its other settings are the library's own.
"""

from __future__ import annotations

import asyncio
import threading

import _common
from websockets.asyncio.server import ServerConnection, broadcast, serve

connections: set[ServerConnection] = set()


async def relay(connection: ServerConnection) -> None:
    connections.add(connection)
    try:
        async for message in connection:
            broadcast([other for other in connections if other is not connection], message)
    finally:
        connections.discard(connection)


async def main() -> None:
    options = _common.parser(__doc__).parse_args()
    _common.prepare(options)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def talk(port: int) -> None:
        _common.talk(port)
        loop.call_soon_threadsafe(ended.set)

    async with serve(
        relay, "127.0.0.1", 0, compression=None, ping_interval=options.ping_interval
    ) as server:
        port = server.sockets[0].getsockname()[1]
        threading.Thread(target=talk, args=(port,), daemon=True).start()
        await ended.wait()
        server.close(close_connections=False)


if __name__ == "__main__":
    asyncio.run(main())
