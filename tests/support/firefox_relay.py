"""A program between Playwright and Firefox: it starts Firefox and passes on what the two say.

Playwright drives Firefox by WebDriver BiDi, asks for commands that Debian's release does not know
yet, and gives up when one is refused. All frames are passed on as they are, but an answer
``unknown command`` to a command ``emulation.…``, which only sets how a window looks, becomes that
of a browser that has done it. ``browser.py`` runs this program.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve

LISTENING = re.compile(r"WebDriver BiDi listening on (ws://\S+)")


class Relay:
    """One connection of Playwright with Firefox."""

    def __init__(self, playwright: ServerConnection, firefox: ClientConnection) -> None:
        self._playwright = playwright
        self._firefox = firefox
        # The ids of commands without which a test can do; each operation on it is atomic.
        self._optional: set[int] = set()

    def run(self) -> None:
        """Pass on in both directions until one end closes."""
        back = threading.Thread(target=self._pass_answers, daemon=True)
        back.start()
        with contextlib.suppress(ConnectionClosed):
            for frame in self._playwright:
                command = json.loads(frame)
                if command["method"].startswith("emulation."):
                    self._optional.add(command["id"])
                self._firefox.send(frame)
        self._firefox.close()
        back.join(10)

    def _pass_answers(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for frame in self._firefox:
                self._playwright.send(self._softened(str(frame)))
        self._playwright.close()

    def _softened(self, frame: str) -> str:
        if '"unknown command"' not in frame:
            return frame
        number = json.loads(frame).get("id")
        if number not in self._optional:
            return frame
        return json.dumps({"type": "success", "id": number, "result": {}})


def listen_for(place: str) -> int:
    """Serve relays to that address on threads that end with the program; return the port."""

    def relay(playwright: ServerConnection) -> None:
        assert playwright.request is not None
        url = place + playwright.request.path
        with connect(url, max_size=None, compression=None, proxy=None) as firefox:
            Relay(playwright, firefox).run()

    server = serve(relay, "127.0.0.1", 0, max_size=None, compression=None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port: int = server.socket.getsockname()[1]
    return port


def main(path: str, *arguments: str) -> int:
    """Run Firefox; tell Playwright the relay's address where Firefox tells its own."""
    process = subprocess.Popen(
        [path, *arguments], stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert process.stderr is not None
    for line in process.stderr:
        found = LISTENING.search(line)
        if found is not None:
            line = f"WebDriver BiDi listening on ws://127.0.0.1:{listen_for(found[1])}\n"
        print(line, end="", file=sys.stderr, flush=True)
    return process.wait()


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]))
