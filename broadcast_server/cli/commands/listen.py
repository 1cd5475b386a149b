"""``broadcast-server listen``: writes messages, or runs a command for each.

Two threads beside the client's own. The *main* one takes messages and writes them. The *watcher*
waits for what may end that from outside: a signal, the end of the time, or that nobody reads
standard output any more, which a pipe tells at once, and not only when the next message comes. It
then ends what the main thread waits for, the connection and the user's command.

A lost connection is taken up again by the client, where it has ended.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import BroadcastServerError, ConnectFailed, MessagesLost, UsageError
from ...messages import Message
from ...transport.deadlines import Deadline
from ..io import formats, logs, signals, target
from ..io.endings import ending
from ..io.streams import complain, hint, warn, write_bytes
from .runner import Runner

if TYPE_CHECKING:
    from ...client.client import BroadcastClient

# How long each step may take when it is to end: saying goodbye, the user's command, what hangs.
LEAVE_SECONDS = 1.0
WRITE_BYTES = 64 * 1024

OUTPUT_CLOSED, TIME_OVER = "output closed", "time over"


def listen(values: Mapping[str, Any], sources: Mapping[str, str], urls: Sequence[str]) -> int:
    """Write the messages of a room, or of several, until there is an end.

    Args:
        values: the value of each option by its field name.
        sources: what the user would change to change it: ``--option`` or a variable's name.
        urls: the rooms' addresses, or their paths; without any it is made of host, port and room.

    Returns:
        The exit status: 0 done; 1 no connection, or it was refused, too few messages in time, or a
        command or standard output has failed; 2 a value that cannot be; 3 the connection was lost
        for good.
    """
    # Until it is connected nothing is at stake, and looking up a name cannot be interrupted.
    signals.end_at_once()
    logs.configure(values["log_level"], values["log_format"])
    try:
        _check(values, sources)
        wait = target.wait_of(values, sources)
        destinations = target.find_all("listen", values, sources, urls)
        several = len(destinations) > 1
        clients = [_make(place, values, sources, wait, several) for place in destinations]
        with target.awaited("listen", destinations[0].url, wait):
            _connect(clients)
    except target.FAILURES as error:
        return target.tell("listen", error)
    from .several import SeveralRooms

    room: Any = SeveralRooms(clients) if several else clients[0]
    deadline = Deadline(values["timeout"])
    return Listener(room, values, deadline, several=several).run(signals.descriptor())


def _make(
    place: target.Target,
    values: Mapping[str, Any],
    sources: Mapping[str, str],
    wait: float,
    several: bool,
) -> BroadcastClient:
    """Return a client for a room, not connected yet."""
    from ...client.client import BroadcastClient

    return BroadcastClient(
        place.url,
        **place.trust,
        name=values["name"],
        token=place.token,
        headers=target.offer(place.headers, values, sources),
        since=values["since"],
        history=values["history"],
        reconnect=not values["no_reconnect"],
        on_state=_StateTeller(place.url.partition("?")[0] if several else "").take,
        wait=wait,
    )


def _connect(clients: Sequence[BroadcastClient]) -> None:
    """Connect all of them, or none.

    Raises:
        ConnectFailed: one of them cannot.
    """
    for number, client in enumerate(clients):
        try:
            client.connect()
        except ConnectFailed:
            for connected in clients[:number]:
                connected.close(timeout=LEAVE_SECONDS)
            raise


class _StateTeller:
    """Tells a user at a terminal that the connection is lost, and that it is there again.

    Its method runs on the client's own thread.

    Args:
        where: which connection, if there are several.
    """

    def __init__(self, where: str = "") -> None:
        self._where = f"{where}: " if where else ""
        self._lost = False

    def take(self, state: str) -> None:
        """Take note of the client's state; another attempt that has failed is no news."""
        if state == "waiting" and not self._lost:
            self._lost = True
            hint("listen", f"{self._where}the connection is lost, trying again")
        elif state == "open" and self._lost:
            self._lost = False
            hint("listen", f"{self._where}connected again")


def _check(values: Mapping[str, Any], sources: Mapping[str, str]) -> None:
    """Raise UsageError for what can be seen to be wrong."""
    if values["count"] is not None and values["count"] < 1:
        raise UsageError(f"{sources['count']} must be at least 1")
    if values["timeout"] is not None and not values["timeout"] > 0:
        raise UsageError(f"{sources['timeout']} must be more than 0")
    if values["history"] < 0:
        raise UsageError(f"{sources['history']} must be at least 0")


class Listener:
    """Takes the messages of a connected client.

    Args:
        client: it is closed in the end.
        values: the value of each option by its field name.
        deadline: when to end.
        several: the client is `SeveralRooms`, and what is told has to say of which.
    """

    def __init__(
        self, client: Any, values: Mapping[str, Any], deadline: Deadline, *, several: bool = False
    ) -> None:
        self._client = client
        self._several = several
        self._deadline = deadline
        self._timeout: float | None = values["timeout"]
        self._wanted: int | None = values["count"]
        command = values["exec"]
        self._runner = None if command is None else Runner(command)
        self._form: str = values["format"] or ("text" if command is None else "raw")
        # The main thread's own.
        self._taken = 0
        self._written: bool | None = True  # as `write_bytes` has told the last time
        # Set once, by the watcher: a signal's number or a word.
        self._reason: int | str | None = None
        self._done_reader, self._done_writer = os.pipe()

    def run(self, caught: int) -> int:
        """Listen to the end; return the exit status.

        Args:
            caught: a descriptor that gets the number of each signal.
        """
        watcher = threading.Thread(target=self._watch, args=(caught,), name="watcher", daemon=True)
        watcher.start()
        failure = self._take_all()
        self._client.close(timeout=LEAVE_SECONDS)
        os.write(self._done_writer, b"!")
        watcher.join()
        return self._tell_end(failure)

    # The main thread.

    def _take_all(self) -> BroadcastServerError | None:
        """Take messages until there is an end; return how the connection has ended, if it has."""
        while self._wants_more():
            try:
                message = self._client.recv()
                if self._runner is None:
                    self._write(message)
                else:
                    self._execute(self._runner, message)
            except MessagesLost as error:
                warn("listen", f"{self._where()}{error}")
            except BroadcastServerError as error:
                return error
        return None

    def _wants_more(self) -> bool:
        return self._reason is None and bool(self._written) and self._taken != self._wanted

    def _execute(self, runner: Runner, message: Message) -> None:
        self._taken += 1
        failure = runner.run(message, formats.encode(self._form, message))
        if failure is not None:
            complain("listen", f"message {message.id}: the command {failure}")

    def _write(self, message: Message) -> None:
        """Write a message and those that are there already, at once."""
        data = bytearray()
        try:
            while True:
                self._taken += 1
                data += formats.encode(self._form, message)
                if self._taken == self._wanted or len(data) > WRITE_BYTES:
                    break
                message = self._client.recv(timeout=0)
        except TimeoutError:
            pass
        finally:
            # What ends the connection, or is lost, comes after what was there before.
            self._written = write_bytes(bytes(data))

    def _tell_end(self, failure: BroadcastServerError | None) -> int:
        """Say how it has ended, if that is worth a word; return the exit status."""
        failures = 0 if self._runner is None else self._runner.failures
        reason = self._reason
        if isinstance(reason, int):
            signals.die(reason)
        if self._written is False:
            return 1
        if self._written is None or reason == OUTPUT_CLOSED:
            return 0
        if reason == TIME_OVER:
            if self._wanted is not None and self._taken < self._wanted:
                complain(
                    "listen",
                    f"{self._taken} of {self._wanted} messages came in {self._timeout:g} s",
                )
                return 1
        elif failure is not None:
            text, status = ending(failure)
            if status or self._wanted is not None:
                complain("listen", f"{self._where()}{text}")
                return status or 3
        return 1 if failures else 0

    def _where(self) -> str:
        """Return what to put before a text about what was just received."""
        return f"{self._client.room}: " if self._several else ""

    # The watcher.

    def _watch(self, caught: int) -> None:
        """Wait for a reason to end, and then for the end; the process does not outlive it long."""
        reason = self._wait(caught, self._deadline, sys.stdout.fileno())
        if reason is None:
            return
        self._reason = reason
        if self._runner is not None:
            self._runner.stop(signal.SIGTERM)
        leaving = threading.Thread(target=self._client.close, kwargs={"timeout": LEAVE_SECONDS})
        leaving.daemon = True
        leaving.start()
        if self._wait(caught, Deadline(LEAVE_SECONDS)) is None:
            return
        if self._runner is not None:
            self._runner.stop(signal.SIGKILL)
        if self._wait(caught, Deadline(LEAVE_SECONDS)) is not None:
            # Nobody reads standard output, and nothing else ends a thread that writes there.
            os._exit(128 + reason if isinstance(reason, int) else 1)

    def _wait(self, caught: int, deadline: Deadline, output: int = -1) -> int | str | None:
        """Return why to end now, None if the main thread has ended.

        Args:
            caught: as for `run`.
            deadline: until when.
            output: the descriptor whose reader may go away, -1 for none.
        """
        poller = select.poll()
        poller.register(caught, select.POLLIN)
        poller.register(self._done_reader, select.POLLIN)
        if output >= 0:
            poller.register(output, 0)  # which are POLLERR and POLLHUP
        while True:
            left = deadline.left()
            ready = dict(poller.poll(None if left is None else left * 1000))
            if self._done_reader in ready:
                return None
            if caught in ready:
                return os.read(caught, 1)[0]
            if ready.get(output, 0) & (select.POLLERR | select.POLLHUP):
                return OUTPUT_CLOSED
            if output in ready:  # what macOS says of a device: it cannot be watched
                poller.unregister(output)
                output = -1
            if deadline.left() == 0:
                return TIME_OVER
