"""What the tests share: bounded waits, a raw WebSocket client, counts of threads and descriptors.

``RawClient`` speaks RFC 6455 over a bare socket, so that a test can break any rule it likes. As a
reader it is strict: a masked, oddly flagged or wastefully long frame from the hub fails the test.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import pathlib
import re
import secrets
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broadcast_server import BroadcastHub

CONTINUATION, TEXT, BINARY = 0x0, 0x1, 0x2
CLOSE, PING, PONG = 0x8, 0x9, 0xA

# The key of RFC 6455 §1.3 and what a server must make of it.
SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SAMPLE_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

PYTHON = sys.executable
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

MASK = b"\x11\x22\x33\x44"


def stress_size(full: int, short: int) -> int:
    """Return the size of a stress test: the stated one, or where ``STRESS=short`` is set, one
    that is small enough to be run at each change."""
    chosen = os.environ.get("STRESS") or "full"
    return {"full": full, "short": short}[chosen]


def wait_until(predicate: Callable[[], bool], timeout: float = 5.0) -> bool:
    """Ask again and again until the predicate is true; return whether it became so in time."""
    deadline = time.monotonic() + timeout
    pause = 0.0005
    while not predicate():
        if time.monotonic() >= deadline:
            return bool(predicate())
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True


def lasting_port() -> int:
    """Return a free port that the kernel gives to nobody else, for a hub whose port must stay its
    own while it is stopped and started again: tests that run at the same time ask for port 0."""
    limits = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    lowest, highest = 10_000, int(limits[0])
    if highest - lowest < 1000:  # where nearly all ports are given to whoever asks for any
        lowest, highest = 0, 1
    while True:
        port = lowest + secrets.randbelow(highest - lowest)
        with contextlib.suppress(OSError), socket.socket() as tried:
            tried.bind(("127.0.0.1", port))
            found: int = tried.getsockname()[1]
            return found


def thread_count() -> int:
    """Return how many threads the kernel counts in this process."""
    return len(os.listdir("/proc/self/task"))


def descriptor_count() -> int:
    """Return how many descriptors are open in this process."""
    return len(descriptors())


def descriptors() -> dict[int, str]:
    """Return every open descriptor and what it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that listed the directory
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def mask_payload(payload: bytes, mask: bytes) -> bytes:
    """Return the payload masked (RFC 6455 §5.3)."""
    length = len(payload)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big")


def client_frame(
    opcode: int,
    payload: bytes | str = b"",
    fin: bool = True,
    mask: bool = True,
    rsv: int = 0,
    *,
    length_bytes: int | None = None,
    claimed: int | None = None,
) -> bytes:
    """Return a frame as a client sends it, or as it should not.

    Args:
        length_bytes: 1, 2 or 8 to force the size of the length field; None for the shortest.
        claimed: a length for the header other than the payload's.
    """
    if isinstance(payload, str):
        payload = payload.encode()
    length = len(payload) if claimed is None else claimed
    if length_bytes is None:
        length_bytes = 1 if length < 126 else 2 if length < 0x10000 else 8
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask else 0
    if length_bytes == 1:
        head = struct.pack("!BB", first, bit | length)
    elif length_bytes == 2:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    return head + (MASK + mask_payload(payload, MASK) if mask else payload)


def upgrade_request(
    path: str = "/",
    headers: Iterable[str] = (),
    *,
    host: str = "127.0.0.1",
    key: str = SAMPLE_KEY,
) -> bytes:
    """Return an opening handshake with some header lines added."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class HandshakeRefused(Exception):
    """The server answered the upgrade with something other than 101."""

    def __init__(self, status: int, head: str) -> None:
        super().__init__(head)
        self.status = status
        self.head = head


class RawClient:
    """A WebSocket client over a bare socket. ``buffer`` holds what was read too much.

    Attributes:
        sock: the socket, for whatever a test wants to do to it.
        head: the server's answer to the upgrade, status line and headers.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.head = ""

    @classmethod
    def connect(
        cls,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "/",
        headers: Iterable[str] = (),
        rcvbuf: int | None = None,
        *,
        timeout: float = 10.0,
        extra: bytes = b"",
    ) -> RawClient:
        """Open a connection and make the upgrade.

        Args:
            rcvbuf: size of the kernel's receive buffer, set before connecting so that it counts.
            timeout: bound of every later read and write, in seconds.
            extra: bytes sent in the same call as the request.
        """
        client = cls.open(host, port, rcvbuf, timeout=timeout)
        try:
            client.upgrade(path, headers, extra=extra)
        except BaseException:
            client.close()
            raise
        return client

    @classmethod
    def open(
        cls,
        host: str = "127.0.0.1",
        port: int = 0,
        rcvbuf: int | None = None,
        *,
        timeout: float = 10.0,
    ) -> RawClient:
        """Open the TCP connection only."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            if rcvbuf is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            sock.settimeout(timeout)
            sock.connect((host, port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def upgrade(self, path: str = "/", headers: Iterable[str] = (), *, extra: bytes = b"") -> None:
        """Make the opening handshake; ``HandshakeRefused`` if the answer is not 101."""
        address = self.sock.getpeername()
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        self.sock.sendall(upgrade_request(path, headers, host=f"{host}:{address[1]}") + extra)
        while b"\r\n\r\n" not in self.buffer:
            self._fill()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        status = int(self.head.split(" ", 2)[1])
        if status != 101:
            raise HandshakeRefused(status, self.head)
        assert self.header("Sec-WebSocket-Accept") == SAMPLE_ACCEPT, self.head

    def header(self, name: str) -> str | None:
        """Return the value of a header of the server's answer."""
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    def _fill(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError("the server ended the connection")
        self.buffer += data

    def recv_exact(self, count: int) -> bytes:
        """Return exactly that many bytes; EOFError if the stream ends before."""
        if len(self.buffer) >= count:
            data, self.buffer = self.buffer[:count], self.buffer[count:]
            return data
        pieces, have = [self.buffer], len(self.buffer)
        while have < count:
            piece = self.sock.recv(max(1 << 16, min(count - have, 1 << 20)))
            if not piece:
                self.buffer = b"".join(pieces)
                raise EOFError(f"the stream ended {count - have} bytes early")
            pieces.append(piece)
            have += len(piece)
        data = b"".join(pieces)
        self.buffer = data[count:]
        return data[:count]

    def recv_frame(self) -> tuple[bool, int, bytes]:
        """Return (fin, opcode, payload) of the next frame, which must be a lawful server's."""
        first, second = self.recv_exact(2)
        assert not first & 0x70, f"reserved bits in a server's frame: {first:#x}"
        assert not second & 0x80, "a server must not mask (RFC 6455 §5.1)"
        length = second
        if length == 126:
            (length,) = struct.unpack("!H", self.recv_exact(2))
            assert length >= 126, f"{length} is not in its shortest form"
        elif length == 127:
            (length,) = struct.unpack("!Q", self.recv_exact(8))
            assert length >= 0x10000, f"{length} is not in its shortest form"
        return bool(first & 0x80), first & 0x0F, self.recv_exact(length)

    def recv_message(self) -> str | bytes:
        """Return the next message; every other frame than an unfragmented message is an error."""
        fin, opcode, payload = self.recv_frame()
        assert fin and opcode in (TEXT, BINARY), (fin, opcode, payload[:200])
        return payload.decode() if opcode == TEXT else payload

    def recv_close(self) -> tuple[int, str]:
        """Return code and reason of the Close frame that must come next; 1005 if it has none."""
        fin, opcode, payload = self.recv_frame()
        assert fin and opcode == CLOSE, (fin, opcode, payload[:200])
        assert len(payload) != 1 and len(payload) <= 125
        if not payload:
            return 1005, ""
        return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def recv_eof(self) -> None:
        """Check that the stream ends here, in order: no more bytes, and no reset."""
        assert not self.buffer, self.buffer[:200]
        data = self.sock.recv(1 << 16)
        assert not data, data[:200]

    def send_frame(
        self,
        opcode: int,
        payload: bytes | str = b"",
        fin: bool = True,
        rsv: int = 0,
    ) -> None:
        """Send one frame."""
        self.sock.sendall(client_frame(opcode, payload, fin, rsv=rsv))

    def send(self, data: bytes | str) -> None:
        """Send one message."""
        self.send_frame(TEXT if isinstance(data, str) else BINARY, data)

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Send a Close frame."""
        self.send_frame(CLOSE, struct.pack("!H", code) + reason.encode())

    def sync(self) -> None:
        """Return when the hub has read and answered everything sent until now, by ping and pong.

        Whatever else arrives meanwhile is an error.
        """
        token = os.urandom(8)
        self.send_frame(PING, token)
        frame = self.recv_frame()
        assert frame == (True, PONG, token), frame

    def leave(self, code: int = 1000) -> None:
        """Make the closing handshake as a good client does."""
        self.send_close(code)
        assert self.recv_close()[0] == code
        self.recv_eof()
        self.close()

    def reset(self) -> None:
        """Vanish: close with a TCP reset instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Close the socket without any WebSocket manners."""
        self.sock.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def accept_for(key: str) -> str:
    """Return what a server must answer to a key (RFC 6455 §4.2.2), worked out here once more."""
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest).decode()


def http_request(port: int, raw: bytes, *, eof: bool = False) -> bytes:
    """Send bytes and return everything that comes back until the server ends the stream.

    Args:
        eof: end our side of the stream after the request.
    """
    with RawClient.open(port=port) as client:
        client.sock.sendall(raw)
        if eof:
            client.sock.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := client.sock.recv(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)


@contextlib.contextmanager
def running_hub(**settings: Any) -> Iterator[BroadcastHub]:
    """Run a hub on a free loopback port; settings are those of ``BroadcastHub``."""
    from broadcast_server import BroadcastHub

    settings.setdefault("port", 0)
    # What the tests of other things call a hub in their requests.
    settings.setdefault("allow_host", ("h", "x", "hub", "hub.test"))
    # A raw client answers no ping, and on a slow machine a test may take longer than the default.
    settings.setdefault("ping_interval", 3600.0)
    with BroadcastHub(**settings) as hub:
        yield hub


def needs_module(name: str) -> Any:
    """Import a peer's library; where it is not installed the test is skipped with a reason."""
    import pytest

    return pytest.importorskip(name, reason=f"{name} is not installed (make .venv)")


def resident_bytes(pid: int) -> int:
    """Return how much memory a process holds (VmRSS)."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has no VmRSS")


def code_blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a language in a page, named from the checkout's top."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def python_environment() -> dict[str, str]:
    """Return an environment for a Python subprocess that finds the checkout first."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def command_environment(*folders: pathlib.Path, **variables: str) -> dict[str, str]:
    """Return an environment in which the checkout's command is found first, after the folders.

    Variables of ours that are set where the tests run are left out.
    """
    path = [*map(str, folders), str(ROOT / "bin"), os.path.dirname(PYTHON), os.environ["PATH"]]
    own = {k: v for k, v in python_environment().items() if not k.startswith("BROADCAST_SERVER_")}
    return own | {"PATH": os.pathsep.join(path)} | variables


def run_python(program: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end, with these options of the interpreter."""
    return subprocess.run(
        [PYTHON, *options, "-c", program],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_parent(program: str) -> None:
    """Run a Python program that forks; it must say that the parent is well, and nothing else."""
    finished = run_python(program)
    assert (finished.stdout, finished.stderr) == ("parent is well\n", "")
