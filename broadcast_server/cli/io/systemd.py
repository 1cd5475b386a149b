"""What a service manager and a hub tell each other, as systemd defines it; without its library.

The manager may open the listening sockets and hand them over as descriptors 3 and up
(sd_listen_fds(3)); so nobody is refused while the hub is started again. And it may want to be told
when the hub is ready, reads its files anew, or ends (sd_notify(3)): one datagram for each, on a
Unix socket. All of it is asked for by environment variables, which are taken away: a process that
the hub's program starts is not meant by them.

Nothing here changes what a hub does where no manager asks for it. The main thread only.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

from ...records import get_logger

logger = get_logger("broadcast_server.cli")

FIRST_DESCRIPTOR = 3
# A manager that does not read must not hold up the hub.
_SEND_SECONDS = 1.0


class WrongSockets(ValueError):
    """What was handed over is not what a hub can listen on."""


def take_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets that were handed over to this process; none is the usual case.

    Args:
        environ: the environment; the variables are taken out of it.

    Raises:
        WrongSockets: one is no TCP socket that listens, or the variables make no sense.
    """
    process = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    environ.pop("LISTEN_PIDFDID", None)
    # Meant for a process that has started this one.
    if not count or process != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdecimal() and len(count) < 6):
        raise WrongSockets(f"LISTEN_FDS must be a number of sockets, not {count!r}")
    found: list[socket.socket] = []
    try:
        for number in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)):
            found.append(_adopt(number))
    except BaseException:
        for sock in found:
            sock.close()
        raise
    return found


def _adopt(number: int) -> socket.socket:
    wrong = f"descriptor {number} of LISTEN_FDS is no TCP socket that listens"
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        raise WrongSockets(f"{wrong}: {error.strerror}") from None
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            raise WrongSockets(f"{wrong}: it is {_kind(sock)}")
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise WrongSockets(f"{wrong}: it does not listen (Accept=yes?)")
        sock.set_inheritable(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _kind(sock: socket.socket) -> str:
    return " ".join(getattr(value, "name", str(value)) for value in (sock.family, sock.type))


class Notifier:
    """Tells the service manager about the hub. What cannot be told is logged once.

    Args:
        environ: the environment; the variable is taken out of it.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        self._address: str | None = address or None
        if address and address[0] not in "/@":
            self._give_up(f"{address!r} is no address of a Unix socket")

    def ready(self, status: str) -> None:
        """Tell that the hub serves, or serves again."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Tell that the files are being read; ``ready`` follows."""
        # Type=notify-reload compares the time with that of its signal.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reading its files")

    def stopping(self, status: str) -> None:
        """Tell that the hub is on its way to its end."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def _tell(self, *lines: str) -> None:
        address = self._address
        if address is None:
            return
        if address.startswith("@"):
            address = "\0" + address[1:]  # unix(7): an abstract address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_SEND_SECONDS)
                sock.connect(address)
                sock.send("\n".join(lines).encode())
        except OSError as error:
            self._give_up(error.strerror or str(error))

    def _give_up(self, why: str) -> None:
        logger.warning("cannot tell the service manager: %s", why)
        self._address = None
