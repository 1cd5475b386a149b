"""``broadcast-server connect`` in a pipe, after it has connected: lines in, lines out.

Three threads. The *main* one reads standard input and sends its lines. The *printer* writes what
others send. The *watcher* waits for a signal and has the connection ended, whatever the other two
wait for. Each end of the connection ends the printer, which then wakes the main thread.

Standard output gets the messages and nothing else. Where one of the two is a terminal its user is
told the rest on standard error; with both cli/terminal/app.py takes over.

A lost connection is taken up again by the client: what others sent meanwhile is shown then, and
what was read meanwhile is sent, once.

At the end of the input the exit status 0 says that the hub has accepted all of it: it has
acknowledged each line or, where nothing is acknowledged, answered our Close; it reads in order, and
it has refused nothing.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
import threading
import time
from collections.abc import Iterator

from ...client.client import BroadcastClient
from ...errors import BroadcastServerError, ConnectionClosed, MessagesLost, SendRefused, UsageError
from ...escapes import printable
from ...messages import Gap, Member, Message, Presence, Received
from ...transport import waits
from ...transport.deadlines import Deadline
from ..io.endings import ending
from ..io.formats import nameless
from ..io.streams import CUT_OFF, Lines, complain, is_cut_off, warn, write_stdout

# How long the hub may be silent, or away, at the end of the input.
SILENCE_SECONDS = 60.0
# How long leaving, and then writing what came, may take when somebody wants to leave now: with
# Ctrl-C it is over within a second.
LEAVE_SECONDS = 0.7
WRITE_SECONDS = 0.2

# How often to look whether there is room for a line that cannot be sent.
PAUSE_SECONDS = 0.25

READ_BYTES = 64 * 1024
WRITE_CHARACTERS = 64 * 1024


class Pipe:
    """A user, or a pipe, that is connected to a room. It owns the standard streams.

    Args:
        linger: seconds to go on after the end of the input, for answers to it.
    """

    def __init__(self, linger: float = 0.0) -> None:
        self._linger = linger
        self._client: BroadcastClient[Received]
        self._signals: int
        self._typed = sys.stdin.isatty()
        self._shown = sys.stdout.isatty()
        self._wake_reader, self._wake_writer = os.pipe()
        # The main thread's own.
        self._sent = 0
        self._unsent = False  # lines were read that could not be sent
        self._bad_input = False
        self._answered = False  # the server has said goodbye when it had the whole input
        self._warned = False
        self._asked = False  # who is here; the printer takes it back when it has told
        self._refused = False  # set on the client's thread
        self._was_lost = False  # the client's thread's own
        self._leaving = False  # set by the watcher
        # Written by the printer, read by the main thread when the printer has ended.
        self._output_failed = False
        self._ending: BroadcastServerError

    def refuse(self, error: SendRefused) -> None:
        """Take note that the hub did not accept a line; that ends a pipe. Any thread."""
        text = f"the hub did not take a line: {error}"
        if self._typed:
            self._hint(text)
        elif not self._refused:
            complain("connect", text)
            os.write(self._wake_writer, b"!")
        self._refused = True

    def take_state(self, state: str) -> None:
        """Tell a user of a connection that is lost, or there again. The client's own thread."""
        if state == "waiting" and not self._was_lost:
            self._was_lost = True
            self._hint("the connection is lost, trying again")
        elif state == "open" and self._was_lost:
            self._was_lost = False
            self._hint("connected again")

    def run(self, client: BroadcastClient[Received], signals: int) -> int:
        """Pass lines both ways until the user, the input, the hub or the output ends it.

        Args:
            client: a connected client, with `refuse` as its ``on_error`` and `take_state` as its
                ``on_state``; it is closed in the end.
            signals: a descriptor from which a byte can be read when the user wants to leave, and a
                second one when they want so at once.

        Returns:
            The exit status: 0 left, and all input was accepted; 1 left before it was, a line or
            coming back was refused, or a standard stream failed; 3 the connection has ended for
            good, or the hub has not answered.
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
        whole = self._send_input()
        if whole and self._linger:
            whole = self._await_answers()
        ended = self._client.closed and not self._leaving
        if whole:
            accepted = self._client.close(keep_reading=True)
        else:
            accepted = self._client.close(timeout=LEAVE_SECONDS)
        printer.join()
        return self._tell_end(accepted, ended)

    # The main thread.

    def _send_input(self) -> bool:
        """Send line after line; tell whether the input came to its end, or the user to theirs."""
        for line in self._lines():
            if self._typed and is_cut_off(line, sys.stdin.fileno()):
                warn("connect", f"not sent: {CUT_OFF}")
                continue
            text = self._decode(line)
            if self._typed:
                if text == "/quit":
                    return True
                if text == "/who":
                    self._ask()
                    continue
                if not text:
                    continue
            if not self._send(text):
                self._unsent = True
                return False
            self._sent += 1
        return not self._bad_input and not self._refused and not self._client.closed

    def _await_answers(self) -> bool:
        """Go on for a while after the end of the input; tell whether nothing has failed by then."""
        poller = select.poll()
        poller.register(self._wake_reader, select.POLLIN)
        left = Deadline(self._linger).left()  # which is never longer than a poll can be
        poller.poll(None if left is None else left * 1000)
        if self._client.close_code == 1000 and not self._leaving and not self._client.unaccepted:
            self._answered = True
        return not self._refused and not self._client.closed

    def _send(self, text: str) -> bool:
        """Send a line when there is room; return False if there never will be."""
        while True:
            try:
                self._client.send(text)
            except TimeoutError:
                # Nobody reads standard output, and the hub's answers are behind that. So nobody is
                # written to either, until somebody reads, or does not want to go on.
                time.sleep(PAUSE_SECONDS)
            except ConnectionClosed:
                return False
            else:
                return True

    def _ask(self) -> None:
        """Have the printer tell who is here."""
        self._asked = True
        try:
            self._client.who(timeout=0)
        except UsageError:
            self._hint("this server does not tell who is here")
        except TimeoutError:
            self._asked = False
            self._hint("too much waits for the hub already")
        except ConnectionClosed:
            pass  # which is found at the next look

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines of standard input until it ends, cannot be read, or we are woken."""
        descriptor = sys.stdin.fileno()
        lines = Lines()
        while self._wake_reader not in waits.await_readable(descriptor, self._wake_reader):
            try:
                data = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.EIO:  # which says that the terminal has gone
                    self._complain_of_input(f"cannot read standard input: {error.strerror}")
                    return
                data = b""
            try:
                yield from lines.feed(data) if data else lines.end()
            except ValueError as error:
                self._complain_of_input(str(error))
                return
            if not data:
                return
        self._unsent = lines.has_rest

    def _decode(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            if not self._warned:
                self._warned = True
                warn("connect", "the input is not UTF-8; bad bytes are replaced")
            return line.decode(errors="replace")

    def _complain_of_input(self, text: str) -> None:
        self._bad_input = True
        complain("connect", text)

    def _hint(self, text: str) -> None:
        """Tell something that is no error to who sits at a terminal."""
        if self._typed and sys.stderr.isatty():
            with contextlib.suppress(OSError):
                print(printable(text), file=sys.stderr, flush=True)

    def _tell_end(self, accepted: bool, ended: bool) -> int:
        """Say how the connection has ended, if that is worth a word; return the exit status.

        Args:
            accepted: the hub has accepted everything that was sent.
            ended: the connection had ended for good before we wanted to leave.
        """
        if self._output_failed or self._bad_input:
            return 1
        if self._refused and (not self._typed or self._client.close_code == 1000):
            return 0 if self._typed else 1  # each line was told of
        if accepted and not ended:
            if self._unsent:
                complain("connect", "left before all of the input was sent")
                return 1
            return 0
        if self._leaving:
            complain("connect", "left before the hub had accepted all of the input")
            return 1
        if self._client.timed_out and not ended:  # else its goodbye has come
            complain("connect", "the hub does not answer any more; it may not have accepted all")
            return 3
        text, status = ending(self._ending)
        if not status and (self._typed or self._answered or not self._sent):
            self._hint(text)
            return 0
        complain("connect", text)
        return status or 3

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
        except BroadcastServerError as error:
            self._ending = error
        finally:
            if lines and not write_stdout("".join(lines)):
                self._output_failed = True
            os.write(self._wake_writer, b"!")

    def _line_of(self, item: Message | Presence | Gap) -> str:
        """Return what standard output shows of it, "" for nothing."""
        if isinstance(item, Message):
            return self._text_of(item.data)
        if isinstance(item, Gap):
            warn("connect", str(MessagesLost(item.reason, item.since, item.after)))
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
            self._leaving = True
            threading.Thread(target=self._leave, args=(printer,), daemon=True).start()
            if os.read(self._signals, 1):
                os._exit(1)

    def _leave(self, printer: threading.Thread) -> None:
        self._client.close(timeout=LEAVE_SECONDS)
        printer.join(WRITE_SECONDS)
        if printer.is_alive():
            # Nobody reads standard output, and nothing else ends a thread that writes there.
            os._exit(1)


def _called(member: Member) -> str:
    """Return what a user sees of who is here."""
    return printable(member.name) if member.name else nameless(member.id)
