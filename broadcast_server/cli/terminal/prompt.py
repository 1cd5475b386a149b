"""A terminal with a line that is edited below what comes, drawn by prompt_toolkit.

prompt_toolkit runs its loop on the main thread; others hand over lines, which are drawn above the
prompt, many at once: the prompt is taken away, they are written, and it is drawn again from what
is in the buffer. The terminal stays in raw mode for all of it, so that no key is echoed in between,
and each drawing is one write. It is never asked where its cursor is: an answer that comes late
would end up in the user's shell.

Pasted text of several lines is one question: what to do with it. A terminal that does not mark what
is pasted sends it as if it were typed, line by line. When one of these lines is refused, such as a
command that is none, the question is about that line and all behind it.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import BufferControl, HSplit, Layout, Window
from prompt_toolkit.layout.containers import AnyContainer, ConditionalContainer
from prompt_toolkit.layout.controls import FormattedTextControl
from prompt_toolkit.layout.dimension import Dimension
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import get_cwidth
from prompt_toolkit.widgets import SearchToolbar

from ...transport import waits
from .history import HistoryFile
from .output import ReflowedApplication, SteadyOutput, terminal_output
from .screen import ENDING_SIGNALS, Host
from .view import STYLES, Line, columns, notice, visible

PROMPT = "> "
# What is drawn before keys are looked at again, and what waits before who brings it has to wait.
LINES_AT_ONCE = 200
LINES_WAITING = 2000
LOOK_SECONDS = 0.25
# A paste that the terminal does not mark has ended after so long a silence.
PASTE_SECONDS = 0.1
# Focus in and out are reported (xterm's FocusIn and FocusOut); what is pasted is marked as such.
MODES = "\x1b[?1004{0}\x1b[?2004{0}"

_LINE_ENDS = re.compile("\r\n?|\n")
_TEXT_KEYS = (Keys.BracketedPaste, Keys.ControlI, Keys.ControlJ, Keys.ControlM)


class PromptScreen:
    """A `Screen` with a prompt and a status line.

    Args:
        host: whose screen it is.
        history: what was typed before.
        input, output: the terminal; None for the process's own.
    """

    keeps_typed = False

    def __init__(
        self,
        host: Host,
        history: HistoryFile,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self._host = host
        self._question: str | None = None  # what was pasted, with what was typed around it
        # A refused line and what comes behind it, while a paste that is not marked goes on.
        self._unmarked: str | None = None
        self._keys_seen = 0  # of such a paste
        self._looking = False  # `_look_again` will be called
        # Guards the five below, and the output when the prompt is gone.
        self._lock = threading.Lock()
        self._space = threading.Condition(self._lock)
        self._waiting: collections.deque[Line] = collections.deque()
        self._bell = False
        self._scheduled = False  # somebody has asked for `_draw`
        self._over = False  # the prompt is gone: whoever brings lines writes them
        self._left = False  # `leave` was called
        self._thread: threading.Thread | None = None  # that of `run`
        self._attributes: list[Any] | None = None  # the terminal's, before `run`
        self._failure: BaseException | None = None
        self._output = output or terminal_output()
        kept = _History(history, lambda text: self.show([notice(visible(text), "warning")]))
        self._buffer = Buffer(multiline=False, history=kept, accept_handler=self._accept)
        self._app = ReflowedApplication(
            layout=self._layout(),
            key_bindings=self._bindings(),
            style=Style.from_dict({**STYLES, "status": "reverse", "question": "bold"}),
            erase_when_done=True,
            terminal_size_polling_interval=None,  # SIGWINCH tells
            input=input or create_input(),
            output=self._output,
        )
        self._app.key_processor.before_key_press += lambda _: host.take_key()

    # Any thread.

    def leave(self) -> None:
        """Have `run` return."""
        # No lock: a signal handler may have interrupted who holds it.
        self._left = True
        self._call(self._exit)

    def give_back(self) -> None:
        """Put the terminal back, waiting for nothing: the process ends. For a signal handler."""
        with contextlib.suppress(termios.error, OSError):
            if self._attributes is not None:
                termios.tcsetattr(sys.stdin, termios.TCSANOW, self._attributes)
            # What nobody has read yet may be in the way.
            termios.tcflush(sys.stdout, termios.TCOFLUSH)
            poller = select.poll()
            poller.register(sys.stdout, select.POLLOUT)
            if poller.poll(0):
                os.write(sys.stdout.fileno(), MODES.format("l").encode())

    def show(
        self,
        lines: Sequence[Line],
        *,
        bell: bool = False,
        still: Callable[[], bool] = lambda: True,
    ) -> None:
        """Draw lines above the prompt."""
        with self._lock:
            while (
                len(self._waiting) >= LINES_WAITING
                and not self._left
                and threading.current_thread() is not self._thread
            ):
                self._space.wait(LOOK_SECONDS)
            if not still():
                return
            self._waiting.extend(lines)
            self._bell |= bell
            is_over = self._over
            if self._scheduled and not is_over:
                return
            self._scheduled = True
        if is_over:
            with contextlib.suppress(OSError):  # the terminal has gone
                self._draw_rest()
        else:
            self._call(self._draw)

    def update(self) -> None:
        """Draw the status line again."""
        # Application.invalidate() may be called by any thread, but not while the loop ends.
        self._call(self._app.invalidate)

    def _call(self, function: Callable[[], None]) -> None:
        """Have a function called by the loop; nothing if it does not run yet, or any more."""
        loop = self._app.loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(function)

    # The thread of `run`.

    def run(self) -> None:
        """Draw and read keys until somebody wants to leave."""
        self._thread = threading.current_thread()
        with contextlib.suppress(termios.error, OSError):  # it has gone, or is none
            self._attributes = termios.tcgetattr(sys.stdin)
        try:
            # The user's modes come back whatever happens: prompt_toolkit sees to it.
            self._app.run(pre_run=self._begin, set_exception_handler=False, handle_sigint=False)
        except EOFError:
            pass  # the terminal has gone
        finally:
            self._left = True
            self._set_modes(False)
        if self._failure is not None:
            raise self._failure
        self._draw_rest()

    def _begin(self) -> None:
        loop = self._app.loop
        assert loop is not None
        # Else a fault in a callback would be written over the screen, and go on.
        loop.set_exception_handler(
            lambda _, context: self._fail(
                context.get("exception") or RuntimeError(context["message"])
            )
        )
        # With the first drawing: a user who sees the prompt may paste. The terminal is in raw mode
        # by then: a program that was started in the background has been stopped on the way there,
        # and must not change what the shell's terminal reports.
        if isinstance(self._output, SteadyOutput):
            self._output.first_modes = MODES.format("h")
        loop.call_soon(self._draw)
        if self._left:
            loop.call_soon(self._exit)

    def _set_modes(self, on: bool) -> None:
        if isinstance(self._output, SteadyOutput):
            self._output.write_modes(MODES.format("h" if on else "l"))

    def _fail(self, failure: BaseException) -> None:
        self._failure = self._failure or failure
        self._exit()

    def _exit(self) -> None:
        if self._app.future is not None and not self._app.future.done():
            self._app.exit()

    def _take(self) -> tuple[list[Line], bool]:
        """Return the next lines, and whether to ring; ask for more of it if that is not all."""
        with self._lock:
            count = min(LINES_AT_ONCE, len(self._waiting))
            lines = [self._waiting.popleft() for _ in range(count)]
            bell, self._bell = self._bell, False
            self._scheduled = bool(self._waiting)
            self._space.notify_all()
            again = self._scheduled
        if again:
            self._call(self._draw)
        return lines, bell

    def _draw(self) -> None:
        """Write what waits above the prompt."""
        lines, bell = self._take()
        if not lines or self._app.future is None or self._app.future.done():
            with self._lock:  # left to `_draw_rest`
                self._waiting.extendleft(reversed(lines))
            return
        output = self._output
        whole = output.one_write() if isinstance(output, SteadyOutput) else contextlib.nullcontext()
        with whole:
            self._app.renderer.erase()
            self._write(lines)
            if bell:
                output.bell()
        self._app.invalidate()

    def _draw_rest(self) -> None:
        """Write what has come when the prompt was gone already. Any thread."""
        with self._lock:
            self._over = True
            lines = list(self._waiting)
            self._waiting.clear()
            self._space.notify_all()
            self._write(lines)

    def _write(self, lines: Iterable[Line]) -> None:
        pieces: StyleAndTextTuples = [
            (f"class:{style}" if style else "", text)
            for line in lines
            for style, text in (*line, ("", "\n"))
        ]
        if pieces:
            self._app.print_text(pieces)

    # What is drawn.

    def _layout(self) -> Layout:
        search = SearchToolbar()
        line = Window(
            BufferControl(
                self._buffer,
                input_processors=[BeforeInput(PROMPT)],
                search_buffer_control=search.control,
                preview_search=True,
            ),
            # What comes is to be seen, too, also while somebody types a page.
            height=lambda: Dimension(max=max(3, self._output.get_size().rows // 2)),
            wrap_lines=True,
            dont_extend_height=True,
        )
        question = Window(
            FormattedTextControl(self._question_text),
            style="class:question",
            wrap_lines=True,
            dont_extend_height=True,
        )
        status = Window(FormattedTextControl(self._status_text), height=1)
        # In fewer rows nothing but the line fits.
        is_high = Condition(lambda: self._output.get_size().rows > 2)
        rows: list[AnyContainer] = [
            ConditionalContainer(question, Condition(self._is_asking)),
            line,
            search,
            ConditionalContainer(status, is_high),
        ]
        return Layout(HSplit(rows), line)

    def _status_text(self) -> StyleAndTextTuples:
        status = self._host.status()
        loop = self._app.loop
        if status.unsent and not self._looking and loop is not None:
            self._looking = True
            loop.call_later(LOOK_SECONDS, self._look_again)
        # The last column stays free: some terminals wrap there.
        text = status.line(self._output.get_size().columns - 3)
        return [("class:status", f" {text} ")] if text else []

    def _look_again(self) -> None:
        """Draw the status line again: nobody tells when the hub has accepted a message."""
        self._looking = False
        self._app.invalidate()

    def _question_text(self) -> str:
        assert self._question is not None
        count = len(_LINE_ENDS.split(self._question))
        return f"{count} lines: o = send as one, l = line by line, c = cancel"

    # What keys do.

    def _is_asking(self) -> bool:
        return self._question is not None

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        asking = Condition(self._is_asking)
        pasting = Condition(lambda: self._unmarked is not None)
        empty = Condition(lambda: not self._buffer.text)

        @bindings.add("c-c", filter=~asking, eager=True)
        @bindings.add("c-d", filter=empty & ~asking & ~pasting)
        def leave(event: KeyPressEvent) -> None:
            self._exit()

        @bindings.add("c-z", filter=~asking)
        def suspend(event: KeyPressEvent) -> None:
            run_in_terminal(self._suspend)

        @bindings.add("tab", filter=~asking)
        def complete(event: KeyPressEvent) -> None:
            self._complete()

        @bindings.add(Keys.BracketedPaste, filter=~asking & ~pasting, eager=True)
        def paste(event: KeyPressEvent) -> None:
            self._paste(event.data)

        @bindings.add("escape", "[", "I")
        @bindings.add("escape", "[", "O")
        def focus(event: KeyPressEvent) -> None:
            self._host.take_focus(event.key_sequence[-1].key == "I")

        @bindings.add("o", filter=asking, eager=True)
        @bindings.add("l", filter=asking, eager=True)
        @bindings.add("c", filter=asking, eager=True)
        def answer(event: KeyPressEvent) -> None:
            self._answer(event.key_sequence[0].key)

        @bindings.add("c-c", filter=asking, eager=True)
        def cancel(event: KeyPressEvent) -> None:
            self._answer("c")

        @bindings.add("escape", filter=asking, eager=True)
        def escape(event: KeyPressEvent) -> None:
            # Else it begins what the terminal reports, or a key that we do not know.
            if not self._app.key_processor.input_queue:
                self._answer("c")

        @bindings.add("<any>", filter=pasting, eager=True)
        def collect(event: KeyPressEvent) -> None:
            self._collect(event.key_sequence[0].key, event.data)

        # Eager, as the answers are, or Enter and the like would do what they always do.
        @bindings.add("<any>", filter=asking, eager=True)
        def ignore(event: KeyPressEvent) -> None:
            pass

        return bindings

    def _suspend(self) -> None:
        """Stop until the user's shell lets us go on, the terminal theirs meanwhile."""
        self._set_modes(False)
        # There is nothing to put back now: signals end us as they end any program. Who leaves in
        # order would take the terminal again, and be stopped for that.
        handlers = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING_SIGNALS}
        os.kill(0, signal.SIGTSTP)

        def go_on() -> None:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._set_modes(True)

        # In raw mode again, as in `_begin`.
        loop = self._app.loop
        assert loop is not None
        loop.call_soon(go_on)

    def _accept(self, buffer: Buffer) -> bool:
        if self._host.enter(buffer.text):
            return False
        if not self._more_is_typed():
            return True  # the text stays
        # Else the next line would be put behind this one.
        self._unmarked = f"{buffer.text}\n"
        self._await_silence()
        return False

    def _more_is_typed(self) -> bool:
        """Whether keys are there already that nobody can have pressed since the last one."""
        if self._app.key_processor.input_queue:
            return True
        return waits.is_ready(self._app.input.fileno(), waits.READ)

    def _collect(self, key: Keys | str, data: str) -> None:
        """Take a key of a paste that is not marked."""
        assert self._unmarked is not None
        self._keys_seen += 1
        if len(key) == 1 or key in _TEXT_KEYS:
            self._unmarked += data

    def _await_silence(self) -> None:
        """Ask about a paste that is not marked when no more of it comes."""
        loop = self._app.loop
        assert loop is not None
        seen = self._keys_seen

        def look() -> None:
            if self._keys_seen != seen or self._more_is_typed():
                self._await_silence()
                return
            text, self._unmarked = self._unmarked or "", None
            self._paste(text)
            self._app.invalidate()

        loop.call_later(PASTE_SECONDS, look)

    def _complete(self) -> None:
        before = self._buffer.document.text_before_cursor
        found = self._host.complete(before)
        if before[len(before) - found.length :] != found.insert:
            self._buffer.delete_before_cursor(found.length)
            self._buffer.insert_text(found.insert)
        elif len(found.candidates) > 1:
            self.show(columns(found.candidates, self._output.get_size().columns, get_cwidth))

    def _paste(self, text: str) -> None:
        """Put a pasted line into the line; ask about several."""
        text = text.rstrip("\r\n") if _LINE_ENDS.search(text.rstrip("\r\n")) is None else text
        if _LINE_ENDS.search(text) is None:
            self._buffer.insert_text(text)
            return
        document = self._buffer.document
        whole = document.text_before_cursor + text.rstrip("\r\n") + document.text_after_cursor
        self._question = whole

    def _answer(self, key: str) -> None:
        assert self._question is not None
        lines = _LINE_ENDS.split(self._question)
        if key == "c":
            self._question = None
            return
        self._buffer.reset()
        texts = ["\n".join(lines)] if key == "o" else [line for line in lines if line]
        # What is not sent stays to be asked about.
        self._question = "\n".join(texts[self._host.say(texts) :]) or None


class _History(History):
    """prompt_toolkit's view of the file."""

    def __init__(self, file: HistoryFile, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._file = file
        self._tell: Callable[[str], None] | None = tell  # None once it has told

    def load_history_strings(self) -> Iterable[str]:
        """Yield what was typed, the newest first."""
        strings = self._file.load()
        self._tell_failure()
        return reversed(strings)

    def store_string(self, string: str) -> None:
        """Keep a line."""
        self._file.append(string)
        self._tell_failure()

    def _tell_failure(self) -> None:
        if self._tell is not None and self._file.failure is not None:
            self._tell(f"what you type is not kept: {self._file.failure}")
            self._tell = None
