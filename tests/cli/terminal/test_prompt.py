"""A terminal drawn by prompt_toolkit, with a pipe for its keys."""

from __future__ import annotations

import contextlib
import io
import pathlib
import re
import threading
from asyncio import get_running_loop
from collections.abc import Callable, Iterator, Sequence

import pytest

from broadcast_server.cli.terminal.commands import Completion
from broadcast_server.cli.terminal.history import HistoryFile
from broadcast_server.cli.terminal.status import Status
from broadcast_server.cli.terminal.view import notice

from ...support import needs_module, wait_until
from ...support.beside import SECONDS, in_thread

needs_module("prompt_toolkit")

from prompt_toolkit.data_structures import Size  # noqa: E402
from prompt_toolkit.input import create_pipe_input  # noqa: E402
from prompt_toolkit.input.posix_pipe import PosixPipeInput  # noqa: E402
from prompt_toolkit.output import DummyOutput  # noqa: E402

from broadcast_server.cli.terminal.output import SteadyOutput  # noqa: E402
from broadcast_server.cli.terminal.prompt import LINES_WAITING, PromptScreen  # noqa: E402

CTRL_C, CTRL_D, LEFT = "\x03", "\x04", "\x1b[D"
PASTE = "\x1b[200~{}\x1b[201~"


class User:
    """A `Host` that writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.said: list[list[str]] = []
        self.room = 100  # for so many messages at once
        self.focus: list[bool] = []
        self.keys = 0
        self.now = Status("/", 1, "open", 0, 0)
        self.completion = Completion(0, "", [])
        self.fault: Exception | None = None
        self.then: Callable[[], None] | None = None  # is called after the next line

    def enter(self, line: str) -> bool:
        if self.fault is not None:
            raise self.fault
        self.lines.append(line)
        if self.then is not None:
            then, self.then = self.then, None
            # When all keys that are there are done with: else what is to come is taken for a paste.
            get_running_loop().call_soon(then)
        return not line.startswith("keep")

    def say(self, texts: Sequence[str]) -> int:
        self.said.append(list(texts[: self.room]))
        return len(self.said[-1])

    def complete(self, before: str) -> Completion:
        self.lines.append(f"complete {before}")
        return self.completion

    def status(self) -> Status:
        return self.now

    def take_key(self) -> None:
        self.keys += 1

    def take_focus(self, focused: bool) -> None:
        self.focus.append(focused)


class Typed:
    """A screen, its user, and the pipe for the keys."""

    def __init__(
        self, folder: pathlib.Path, keys: PosixPipeInput, drawn: io.StringIO | None
    ) -> None:
        self.user = User()
        self.keys = keys
        self.history = HistoryFile(folder / "history")
        output = DummyOutput() if drawn is None else SteadyOutput(drawn, lambda: Size(10, 80))
        if isinstance(output, SteadyOutput):
            output.enable_cpr = False
        self.screen = PromptScreen(self.user, self.history, keys, output)

    def run(self, keys: str) -> User:
        """Type and wait for the end."""
        self.keys.send_text(keys)
        self.screen.run()
        return self.user


@contextlib.contextmanager
def typed(folder: pathlib.Path, drawn: io.StringIO | None = None) -> Iterator[Typed]:
    """Make a screen that draws into a text, or nowhere."""
    with create_pipe_input() as keys:
        assert isinstance(keys, PosixPipeInput)
        yield Typed(folder, keys, drawn)


def test_lines_are_entered_and_kept(tmp_path: pathlib.Path) -> None:
    """One that is not done with stays in the line."""
    with typed(tmp_path) as screen:
        more = f"\x05!\r{CTRL_C}"
        screen.user.then = lambda: screen.keys.send_text(more)
        user = screen.run(f"one\rkeep{LEFT}{LEFT}\r")
        assert user.lines == ["one", "keep", "keep!"]
        assert user.keys >= 10
        assert screen.history.load() == ["one", "keep", "keep!"]


@pytest.mark.parametrize(
    "keys", [CTRL_C, CTRL_D, f"half{CTRL_C}", f"ab\x01{CTRL_D}{CTRL_D}{CTRL_D}"]
)
def test_keys_that_leave(tmp_path: pathlib.Path, keys: str) -> None:
    """Ctrl-C always, Ctrl-D when the line is empty."""
    with typed(tmp_path) as screen:
        assert screen.run(keys).lines == []


def test_leave_before_and_after_run(tmp_path: pathlib.Path) -> None:
    """A signal may come at any time."""
    with typed(tmp_path) as screen:
        screen.screen.leave()
        assert screen.run("").lines == []
        screen.screen.leave()
        screen.screen.update()


def test_end_of_the_terminal_ends_it(tmp_path: pathlib.Path) -> None:
    """Its window was closed."""
    with typed(tmp_path) as screen:
        screen.keys.close()
        screen.screen.run()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("o", [["a b\n/quit\n\nd c"]]),
        ("l", [["a b", "/quit", "d c"]]),
        ("c", []),
        (f"x\r\t{CTRL_D}{LEFT}{PASTE.format('more')}{PASTE.format('2 lines')}", []),
        (f"x\r{PASTE.format('more')}o", [["a b\n/quit\n\nd c"]]),
    ],
)
def test_pasted_lines_are_one_question(
    tmp_path: pathlib.Path, answer: str, said: list[list[str]]
) -> None:
    """With what was typed around them; nothing else is done until it is answered."""
    with typed(tmp_path) as screen:
        pasted = PASTE.format("b\r\n/quit\r\n\r\nd\n")
        user = screen.run(f"a  c{LEFT}{LEFT}{pasted}{answer}{CTRL_C}{CTRL_C}")
        assert user.said == said
        assert user.lines == []


def test_ctrl_c_at_the_question_keeps_what_was_typed(tmp_path: pathlib.Path) -> None:
    """Only what was pasted is given up; a second one leaves."""
    with typed(tmp_path) as screen:
        pasted = PASTE.format("b\nc\n")
        user = screen.run(f"typed{pasted}{CTRL_C}!\r{CTRL_C}")
        assert (user.said, user.lines) == ([], ["typed!"])


@pytest.mark.parametrize(
    ("keys", "entered", "said"),
    [
        ("keep /1\rtwo\rkeep 3\rfour", ["keep /1"], ["keep /1", "two", "keep 3", "four"]),
        ("one\rkeep /2\nthree\tx\r\r", ["one", "keep /2"], ["keep /2", "three\tx"]),
        (f"keep\rtwo{LEFT}{PASTE.format('more')}\r", ["keep"], ["keep", "twomore"]),
    ],
)
def test_refused_line_of_a_paste_that_is_not_marked_is_asked_about(
    tmp_path: pathlib.Path, keys: str, entered: list[str], said: list[str]
) -> None:
    """With all lines behind it: none is glued to it, and none is carried out. Terminals without
    bracketed paste, and ``tmux send-keys``, send such pastes."""
    drawn = io.StringIO()
    with typed(tmp_path, drawn) as screen:
        running = in_thread(screen.run, keys)
        try:
            assert wait_until(lambda: f"{len(said)} lines: o = send as one" in drawn.getvalue())
        finally:
            screen.keys.send_text(f"l{CTRL_C}{CTRL_C}")
        assert running.result(SECONDS).said == [said]
        assert screen.user.lines == entered


def test_pasted_lines_that_are_not_sent_stay(tmp_path: pathlib.Path) -> None:
    """Too much waited for the hub; the rest is asked about once more."""
    with typed(tmp_path) as screen:
        screen.user.room = 2
        user = screen.run(f"{PASTE.format('a b c d e'.replace(' ', chr(10)))}lll{CTRL_C}")
        assert user.said == [["a", "b"], ["c", "d"], ["e"]]
    with typed(tmp_path) as screen:
        screen.user.room = 0
        screen.keys.send_text(PASTE.format("a\nb") + "o")
        user = screen.run(f"{LEFT}lc{CTRL_C}")
        assert user.said == [[], []] and user.lines == []


def test_pasted_line_is_put_into_the_line(tmp_path: pathlib.Path) -> None:
    """With or without its end, and nothing is sent by that."""
    with typed(tmp_path) as screen:
        text = PASTE.format("one\n") + PASTE.format(" two") + PASTE.format("\r\n")
        assert screen.run(f"{text}!\r{CTRL_C}").lines == ["one two!"]


def test_completion_takes_the_place_of_the_word(tmp_path: pathlib.Path) -> None:
    """Candidates are listed when there is nothing to put in."""
    drawn = io.StringIO()
    with typed(tmp_path, drawn) as screen:
        screen.user.completion = Completion(2, "Berta: ", ["Berta"])
        assert screen.run(f"x be\t!\r{CTRL_C}").lines == ["complete x be", "x Berta: !"]
    with typed(tmp_path, drawn) as screen:
        screen.user.completion = Completion(2, "be", ["Bert", "Berta"])
        assert screen.run(f"be\t\r{CTRL_C}").lines == ["complete be", "be"]
    assert "-- Bert   Berta" in drawn.getvalue()


def test_focus_is_told(tmp_path: pathlib.Path) -> None:
    """And is no text."""
    with typed(tmp_path) as screen:
        user = screen.run(f"a\x1b[Ob\x1b[I\r{CTRL_C}")
        assert (user.focus, user.lines) == ([False, True], ["ab"])


def test_lines_are_drawn_above_the_prompt(tmp_path: pathlib.Path) -> None:
    """What came before the start and what is left at the end as well, each once; no escapes of
    others."""
    drawn = io.StringIO()
    with typed(tmp_path, drawn) as screen:
        screen.screen.show([notice(f"early {number}") for number in range(300)])
        threading.Timer(0, lambda: screen.screen.show([notice("late\x1b")], bell=True)).start()
        thread = threading.Thread(target=screen.run, args=("",))
        thread.start()
        assert wait_until(lambda: "late?" in drawn.getvalue())
        screen.keys.send_text(CTRL_C)
        thread.join(10)
        screen.screen.show([notice("at the end")])
    text = drawn.getvalue()
    assert text.index("at the end") > text.index("\x1b[?2004l")
    assert re.findall(r"early (\d+)", text) == [str(number) for number in range(300)]
    assert text.count("late?") == 1 and "\a" in text
    for mode in ("1004", "2004"):
        # Once on, once off: drawing does not switch them.
        assert re.findall(rf"\x1b\[\?{mode}([hl])", text) == ["h", "l"]
    assert "\x1b[6n" not in text  # never asked where the cursor is


def test_who_brings_more_than_can_be_drawn_waits(tmp_path: pathlib.Path) -> None:
    """And goes on when somebody leaves."""
    with typed(tmp_path) as screen:
        screen.screen.show([notice("x")] * LINES_WAITING)
        thread = threading.Thread(target=lambda: screen.screen.show([notice("more")]))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        screen.screen.leave()
        thread.join(10)
        assert not thread.is_alive()


def test_what_is_not_wanted_any_more_when_its_turn_comes_is_left_out(
    tmp_path: pathlib.Path,
) -> None:
    """The user has gone to another room while it waited."""
    drawn = io.StringIO()
    is_here = True
    asked = threading.Event()
    with typed(tmp_path, drawn) as screen:
        screen.screen.show([notice("x")] * LINES_WAITING)

        def still() -> bool:
            asked.set()
            return is_here

        thread = threading.Thread(
            target=lambda: screen.screen.show([notice("old room")], still=still)
        )
        thread.start()
        assert not asked.wait(0.3)
        is_here = False
        running = threading.Thread(target=screen.run, args=("",), daemon=True)
        running.start()
        thread.join(10)
        assert asked.is_set()
        screen.screen.show([notice("new room")])
        assert wait_until(lambda: "new room" in drawn.getvalue())
        screen.keys.send_text(CTRL_C)
        running.join(10)
    assert "old room" not in drawn.getvalue()


def test_fault_of_the_host_is_raised(tmp_path: pathlib.Path) -> None:
    """It is not written over the screen, and the conversation does not go on."""
    with typed(tmp_path) as screen:
        screen.user.fault = ZeroDivisionError("boom")
        with pytest.raises(ZeroDivisionError, match="boom"):
            screen.run("x\r")


def test_status_is_looked_at_again_while_something_waits(tmp_path: pathlib.Path) -> None:
    """Nobody tells when the hub has accepted a message."""
    drawn = io.StringIO()
    with typed(tmp_path, drawn) as screen:
        screen.user.now = Status("/", 1, "waiting", 2, 0)
        thread = threading.Thread(target=screen.run, args=("",))
        thread.start()
        assert wait_until(lambda: "2 not sent yet" in drawn.getvalue())
        screen.user.now = Status("/QQQQ", 1, "open", 0, 0)
        # Only what has changed is drawn.
        assert wait_until(lambda: "QQQQ" in drawn.getvalue())
        screen.keys.send_text(CTRL_C)
        thread.join(10)


def test_history_that_cannot_be_kept_is_told_once(tmp_path: pathlib.Path) -> None:
    """And nothing else is lost."""
    (tmp_path / "history").mkdir()
    drawn = io.StringIO()
    with typed(tmp_path, drawn) as screen:
        assert screen.run(f"one\rtwo\r{CTRL_C}").lines == ["one", "two"]
    assert drawn.getvalue().count("what you type is not kept") == 1
