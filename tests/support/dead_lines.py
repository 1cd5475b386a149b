"""A relay in front of a server whose connections can die without a word.

The way a mobile network or a firewall loses connections: what is there stays open at both ends and
passes nothing on, while new connections work.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator

_PIECE = 1 << 16


class DeadLines:
    """A relay to a port of this machine.

    Attributes:
        port: where it listens.
        swallowed: the bytes from clients that came after their connection had died.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.swallowed = 0
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._cut = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        # The other end of each connection; None when it has died. Only the thread uses it.
        self._peers: dict[socket.socket, socket.socket | None] = {}
        self._clients: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self) -> None:
        """Let all connections die that there are."""
        self._cut.clear()
        self._wake_writer.send(b"c")
        assert self._cut.wait(10)

    def close(self) -> None:
        """End the thread, close everything."""
        self._wake_writer.send(b"e")
        self._thread.join(10)
        self._selector.close()
        for sock in (*self._peers, self._listener, self._wake_reader, self._wake_writer):
            sock.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(60):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._listener:
                    self._accept()
                elif sock is self._wake_reader:
                    if sock.recv(1) == b"e":
                        return
                    self._peers = dict.fromkeys(self._peers)
                    self._cut.set()
                elif sock in self._peers:
                    self._pass_on(sock)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(("127.0.0.1", self._target), 10)
        for sock, peer in ((near, far), (far, near)):
            sock.settimeout(10)
            self._peers[sock] = peer
            self._selector.register(sock, selectors.EVENT_READ)
        self._clients.add(near)

    def _pass_on(self, sock: socket.socket) -> None:
        peer = self._peers[sock]
        with contextlib.suppress(OSError):
            data = sock.recv(_PIECE)
            if data and peer is None:
                self.swallowed += len(data) if sock in self._clients else 0
                return
            if data and peer is not None:
                peer.sendall(data)
                return
        # The end: of a live connection for both sides, of a dead one for nobody else.
        for one in (sock, peer):
            if one in self._peers:
                del self._peers[one]
                self._selector.unregister(one)
                self._clients.discard(one)
                one.close()


@contextlib.contextmanager
def dead_lines(port: int) -> Iterator[DeadLines]:
    """Run such a relay in front of a port."""
    with contextlib.closing(DeadLines(port)) as relay:
        yield relay
