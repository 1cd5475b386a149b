"""``broadcast-server connect`` in a pipe, after it has connected: lines in, lines out.

Three threads. The *main* one reads standard input and sends its lines. The *printer* writes what
others send. The *watcher* waits for a signal and has the connection ended, whatever the other two
wait for. Each end of the connection ends the printer, which then wakes the main thread.

Standard output gets the messages and nothing else. Where one of the two is a terminal its user is
told the rest on standard error; with both terminal.py takes over.

At the end of the input the exit status 0 says that the hub has accepted all of it: it has answered
our Close, it reads in order, and it has refused nothing.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
import threading
from collections.abc import Iterator

from .client import BroadcastClient
from .errors import ConnectionClosed, ProtocolError, SendRefused, UsageError
from .frames import ABNORMAL
from .logs import printable
from .messages import Gap, Member, Message, Presence
from .streams import Lines, complain, write_stdout

# How long the hub may be silent at the end of the input, and how long leaving may take in all when
# somebody wants to leave now.
SILENCE_SECONDS = 60.0
LEAVE_SECONDS = 2.0

READ_BYTES = 64 * 1024
WRITE_CHARACTERS = 64 * 1024


class Console:
    """A user, or a pipe, that is connected to a room. It owns the standard streams."""

    def __init__(self) -> None:
        self._client: BroadcastClient
        self._signals: int
        self._typed = sys.stdin.isatty()
        self._shown = sys.stdout.isatty()
        self._wake_reader, self._wake_writer = os.pipe()
        # The main thread's own.
        self._sent = 0
        self._unsent = False  # lines were read that could not be sent
        self._bad_input = False
        self._warned = False
        self._asked = False  # who is here; the printer takes it back when it has told
        self._refused = False  # set on the client's thread
        # Written by the printer, read by the main thread when the printer has ended.
        self._output_failed = False
        self._failure: ProtocolError | None = None

    def refuse(self, error: SendRefused) -> None:
        """Take note that the hub did not accept a line; that ends a pipe. Any thread."""
        text = f"the hub did not take a line: {error}"
        if self._typed:
            self._hint(text)
        elif not self._refused:
            complain("connect", text)
            os.write(self._wake_writer, b"!")
        self._refused = True

    def run(self, client: BroadcastClient, signals: int) -> int:
        """Pass lines both ways until the user, the input, the hub or the output ends it.

        Args:
            client: a connected client, with `refuse` as its ``on_error``; it is closed in the end.
            signals: a descriptor from which a byte can be read when the user wants to leave, and a
                second one when they want so at once.

        Returns:
            The exit status: 0 left, and all input was accepted; 1 no answer, a line was refused, or
            a standard stream failed; 3 the connection has ended before its time.
        """
        self._client, self._signals = client, signals
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        printer = threading.Thread(target=self._print, name="printer", daemon=True)
        watcher = threading.Thread(target=self._watch, args=(printer,), name="watcher", daemon=True)
        printer.start()
        watcher.start()
        self._hint(
            f"Connected to {client.url}. Enter sends a line, /who lists who is here, /quit leaves."
        )
        if self._send_input():
            accepted = self._client.close(keep_reading=True)
        else:
            accepted = self._client.close(timeout=LEAVE_SECONDS)
        printer.join()
        return self._tell_end(accepted)

    # The main thread.

    def _send_input(self) -> bool:
        """Send line after line; tell whether the input came to its end, or the user to theirs."""
        for line in self._lines():
            text = self._decode(line)
            if self._typed:
                if text == "/quit":
                    return True
                if text == "/who":
                    self._ask()
                    continue
                if not text:
                    continue
            try:
                self._client.send(text)
            except ConnectionClosed:
                self._unsent = True
                return False
            self._sent += 1
        return not self._bad_input and not self._refused and not self._client.closed

    def _ask(self) -> None:
        """Have the printer tell who is here."""
        self._asked = True
        try:
            self._client.who()
        except UsageError:
            self._hint("this server does not tell who is here")
        except ConnectionClosed:
            pass  # which is found at the next look

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines of standard input until it ends, cannot be read, or we are woken."""
        descriptor = sys.stdin.fileno()
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.register(self._wake_reader, select.POLLIN)
        lines = Lines()
        while self._wake_reader not in dict(poller.poll()):
            try:
                data = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.EIO:  # which says that the terminal has gone
                    self._complain_of_input(f"cannot read standard input: {error.strerror}")
                    return
                data = b""
            if not data:
                yield from lines.end()
                return
            try:
                yield from lines.feed(data)
            except ValueError as error:
                self._complain_of_input(str(error))
                return
        self._unsent = bool(lines.end())

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            if not self._warned:
                self._warned = True
                self._hint("warning: the input is not UTF-8; bad bytes are replaced", always=True)
            return line.decode(errors="replace")

    def _complain_of_input(self, text: str) -> None:
        self._bad_input = True
        complain("connect", text)

    def _hint(self, text: str, *, always: bool = False) -> None:
        """Tell something that is no error to who sits at a terminal; nothing if it is empty."""
        if text and (always or (self._typed and sys.stderr.isatty())):
            with contextlib.suppress(OSError):
                print(printable(text), file=sys.stderr, flush=True)

    def _tell_end(self, accepted: bool) -> int:
        """Say how the connection has ended, if that is worth a word; return the exit status."""
        client = self._client
        if self._output_failed or self._bad_input:
            return 1
        if self._refused and (not self._typed or client.close_code == 1000):
            return 0 if self._typed else 1  # each line was told of
        if accepted:
            if self._unsent:
                complain("connect", "left before all of the input was sent")
                return 1
            return 0
        if client.timed_out:
            complain("connect", "the hub does not answer any more; it may not have accepted all")
            return 1
        if self._failure is not None:
            complain("connect", f"the hub broke the protocol: {self._failure}")
            return 3
        if client.close_code == ABNORMAL:
            complain("connect", f"the connection was lost: {client.close_reason}")
            return 3
        text = f"the hub closed the connection: {client.close_code} {client.close_reason}"
        if client.close_code in (1000, 1001) and (self._typed or not self._sent):
            self._hint(text)
            return 0
        complain("connect", text)
        return 3

    # The printer.

    def _print(self) -> None:
        """Write messages until there will be no more, as many at once as there are."""
        lines: list[str] = []
        size = 0
        try:
            while True:
                try:
                    item = self._client.recv(timeout=None if not lines else 0)
                except TimeoutError:
                    pass
                else:
                    line = self._line_of(item)
                    if not line:
                        continue
                    lines.append(line)
                    size += len(lines[-1])
                    if size < WRITE_CHARACTERS:
                        continue
                if not write_stdout("".join(lines)):
                    self._output_failed = True
                    os.write(self._wake_writer, b"!")
                    # We go on: what nobody takes would keep the hub's Close from us. From now on
                    # it is written to /dev/null.
                lines, size = [], 0
        except ConnectionClosed:
            pass
        except ProtocolError as error:
            self._failure = error
        finally:
            if lines and not write_stdout("".join(lines)):
                self._output_failed = True
            os.write(self._wake_writer, b"!")

    def _line_of(self, item: Message | Presence | Gap) -> str:
        """Return what standard output shows of it, "" for nothing."""
        if isinstance(item, Message):
            return self._text_of(item.data)
        if isinstance(item, Gap):
            self._hint(
                f"warning: messages before {item.after} are lost: {item.reason}", always=True
            )
            return ""
        if item.kind == "members" and self._asked:
            self._asked = False
            names = ", ".join(_called(member) for member in item.members)
            more = ", …" if item.count > len(item.members) else ""
            self._hint(f"{item.count} here: {names}{more}")
        return ""

    def _text_of(self, data: str | bytes) -> str:
        if isinstance(data, bytes):
            return f"[binary message, {len(data)} bytes]\n"
        if not self._shown:
            return data + "\n"
        # What steers a terminal is for its user, not for others in the room.
        return "\t".join(printable(part) for part in data.split("\t")) + "\n"

    # The watcher, and who leaves for it.

    def _watch(self, printer: threading.Thread) -> None:
        if os.read(self._signals, 1):
            threading.Thread(target=self._leave, args=(printer,), daemon=True).start()
            if os.read(self._signals, 1):
                os._exit(1)

    def _leave(self, printer: threading.Thread) -> None:
        self._client.close(timeout=LEAVE_SECONDS)
        printer.join(LEAVE_SECONDS)
        if printer.is_alive():
            # Nobody reads standard output, and nothing else ends a thread that writes there.
            os._exit(1)


def _called(member: Member) -> str:
    """Return what a user sees of who is here."""
    return printable(member.name or member.id)
