"""``broadcast-server connect`` in a real terminal, as its user sees it.

A tmux of its own is the terminal. Where it says so, a test is a complaint about another client that
must not be one about this.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timezone

import pytest

from broadcast_server import BroadcastHub, publish
from broadcast_server.cli.terminal import commands

from ...support import PING, ROOT, RawClient, code_blocks, lasting_port, running_hub, wait_until
from ...support.hub_process import hub_process
from ...support.raw_server import SUBPROTOCOL, Listener, RawServer, listener
from ...support.tmux import PROMPT, Tmux, terminal

pytestmark = pytest.mark.slow

SECONDS = 20.0
GREETING = "-- you are ann in /; /help lists the commands"


@contextlib.contextmanager
def joined(
    hub: BroadcastHub, options: str = "", *, columns: int = 60, rows: int = 16, **environ: str
) -> Iterator[Tmux]:
    """Run the command in a terminal, as ann in the lobby of a hub."""
    with terminal(columns, rows, **environ) as ann:
        ann.start(f"broadcast-server connect {hub.url} --name ann {options}", "connected")
        yield ann


@contextlib.contextmanager
def joined_raw(options: str = "", **environ: str) -> Iterator[tuple[Tmux, RawServer, Listener]]:
    """Run the command in a terminal, connected to a server of events that the test plays."""
    with listener() as listening, ThreadPoolExecutor(1) as pool, terminal(**environ) as ann:
        accepting = pool.submit(listening.accept_events, "c2")
        ann.start(f"broadcast-server connect {listening.url} --name ann {options}", "connected")
        server = accepting.result(SECONDS)
        with server.sock:
            yield ann, server, listening


def reports(ann: Tmux) -> dict[str, bool]:
    """Return whether the terminal was last asked to report the focus, and what is pasted."""
    written = ann.raw.read_text()
    modes = ("1004", "2004")
    return {mode: written.rfind(f"[?{mode}h") > written.rfind(f"[?{mode}l") for mode in modes}


# -- Typing while others talk ------------------------------------------------------------------


def test_what_comes_does_not_break_the_line_being_typed() -> None:
    """wscat #46: messages were written into the middle of the line."""
    with running_hub() as hub, joined(hub) as ann:
        ann.see(GREETING, "-- 1 here: ann", ">", " / · 1 here · connected")
        ann.type("half a sen")
        ann.wait_for("> half a sen")
        publish(hub.url, "first", name="bob")
        publish(hub.url, "second", name="bob")
        ann.see(
            GREETING,
            "-- 1 here: ann",
            "HH:MM bob: first",
            "HH:MM bob: second",
            "> half a sen",
            " / · 1 here · connected · 2 new",
        )
        with RawClient.connect(port=hub.port) as bob:
            ann.key("Home")
            ann.type("not ")
            ann.key("End")
            ann.type("tence\n")
            assert bob.recv_message() == "not half a sentence"
            ann.wait_for("ann: not half a sentence")
        ann.see(
            "HH:MM bob: first",
            "HH:MM bob: second",
            "-- guest c2 has joined",
            "HH:MM ann: not half a sentence",
            "-- guest c2 has left",
            ">",
            " / · 1 here · connected",
            after=2,
        )


def test_every_message_of_a_flood_is_shown_and_the_line_stays() -> None:
    """websocat #50: what came faster than the output was dropped."""
    with running_hub() as hub, joined(hub) as ann:
        ann.type("typed before")
        with RawClient.connect(port=hub.port) as bob:
            for number in range(5000):
                bob.send(f"number {number}")
            ann.wait_for("number 4999")
            ann.type(", and after")
            screen = ann.wait_for("> typed before, and after")
            assert screen[-1].startswith(" / · 2 here · connected")
        shown = re.findall(r"number (\d+)$", "\n".join(ann.screen(all=True)), re.MULTILINE)
        assert [int(number) for number in shown] == list(range(5000))
        ann.key("C-c")
        assert ann.status() == 0


def test_narrower_and_wider_window_keeps_the_line() -> None:
    """The rows that the terminal breaks anew leave nothing behind; ten columns are enough."""
    with running_hub() as hub, joined(hub) as ann:
        line = "a line that is long enough to be broken in between"
        ann.type(line)
        ann.wait_for(line)
        ann.resize(30, 12)
        # tmux may move rows into what has scrolled out, so the last ones are looked at.
        ann.wait_for(
            lambda screen: (
                screen[-4:]
                == [
                    "-- 1 here: ann",
                    "> a line that is long enough t",
                    "o be broken in between",
                    " / · 1 here · connected",
                ]
            )
        )
        publish(hub.url, "now", name="bob")
        ann.wait_for("bob: now")
        ann.resize(10, 12)
        rows = ["> a line t", "hat is lon", "g enough t", "o be broke", "n in betwe", "en"]
        ann.wait_for(lambda screen: screen[-7:] == [*rows, " 1 new"])
        ann.resize(60, 16)
        ann.wait_for(f"> {line}")
        ann.wait_for(lambda screen: screen[-1] == " / · 1 here · connected · 1 new")
        for text in (f"> {line}", "1 here ·"):
            assert sum(text in row for row in ann.screen()) == 1
        whole = "".join(ann.screen(all=True, joined=True))
        for text in (GREETING, "-- 1 here: ann", "bob: now"):
            assert whole.count(text) == 1
        ann.resize(60, 2)
        ann.wait_for(lambda screen: screen[-1].startswith("> a line"))
        ann.key("C-c")
        ann.resize(60, 16)
        assert ann.status() == 0


def test_small_window_shows_the_whole_question_and_what_comes() -> None:
    """The question is broken into rows, and a line as long as a book leaves room for messages."""
    with running_hub() as hub, joined(hub) as ann:
        ann.resize(20, 6)
        ann.paste("a\nb\nc\n")
        question = ["3 lines: o = send as", " one, l = line by li", "ne, c = cancel", ">"]
        ann.wait_for(lambda screen: screen[-5:-1] == question)
        ann.type("c")
        ann.paste("x" * 100_000)
        ann.type("end")
        publish(hub.url, "seen", name="bob")
        ann.wait_for(
            lambda screen: (
                screen[-5:-4] and screen[-5].endswith("bob: seen") and screen[-2].endswith("xend")
            )
        )


def test_paste_of_five_thousand_lines_is_sent_in_order() -> None:
    """All of them are shown, none is lost, and the line works meanwhile."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as bob, joined(hub) as ann:
        lines = [f"line {number}" for number in range(5000)]
        ann.paste("\n".join(lines))
        ann.wait_for("5000 lines: ")
        ann.type("l")
        ann.type("more")
        assert [bob.recv_message() for _ in lines] == lines
        ann.wait_for("ann: line 4999")
        ann.wait_for("> more")
        shown = re.findall(r"ann: (line \d+)$", "\n".join(ann.screen(all=True)), re.MULTILINE)
        assert shown == lines


def test_paste_of_several_lines_is_one_question() -> None:
    """As one message, line by line, or not at all; one line is just put in."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as bob, joined(hub) as ann:
        ann.paste("one line\n")
        ann.wait_for("> one line")
        ann.key("C-u")
        question = "3 lines: o = send as one, l = line by line, c = cancel"
        text = "alpha\n/quit\ngamma\n"
        ann.paste(text)
        ann.wait_for(question)
        ann.type("x")
        ann.key("c")
        ann.wait_for(lambda screen: screen[-2] == ">" and question not in screen)
        for key in ("Escape", "C-c"):
            ann.type("typed ")
            ann.paste(text)
            ann.wait_for(question)
            ann.key(key)
            ann.wait_for(lambda screen: screen[-2] == "> typed" and question not in screen)
            ann.key("C-u")
        ann.paste(text)
        ann.wait_for(question)
        ann.type("o")
        assert bob.recv_message() == "alpha\n/quit\ngamma"
        ann.wait_for("    | gamma")
        ann.type("so: ")
        ann.paste(text)
        ann.wait_for(question)
        ann.type("l")
        assert [bob.recv_message() for _ in range(3)] == ["so: alpha", "/quit", "gamma"]
        ann.wait_for("ann: gamma")


def test_paste_is_marked_from_the_first_prompt_on() -> None:
    """A user who sees the prompt may paste."""
    with running_hub() as hub, joined(hub) as ann:
        written = ann.raw.read_text()
        assert written.count("[?2004h") == 1
        assert written.index("[?2004h") < written.index("connected")


def test_paste_that_is_not_marked_is_not_glued_together() -> None:
    """tmux does so on its own, as terminals do that cannot mark it: what a line is refused for is
    no reason to put the next one behind it, nor to carry out what follows."""
    with running_hub() as hub, RawClient.connect(port=hub.port) as bob, joined(hub) as ann:
        lines = ["/usr/bin/python", "/etc/hosts", *(f"line {number}" for number in range(500))]
        ann.paste("\n".join(lines) + "\n", marked=False)
        ann.wait_for("502 lines: o = send as one, l = line by line, c = cancel")
        ann.type("l")
        assert [bob.recv_message() for _ in lines] == lines


def test_lines_are_kept_between_runs(tmp_path: pathlib.Path) -> None:
    """wscat #128: no history. Up brings the last line of the last run back, Ctrl-R finds others."""
    with running_hub() as hub, joined(hub) as ann:
        ann.type("the first line\nthe second line\n")
        ann.wait_for("ann: the second line")
        ann.type("/quit\n")
        assert ann.status() == 0
        kept = ann.folder / "broadcast-server" / "history"
        assert kept.read_text() == "the first line\nthe second line\n/quit\n"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        ann.start(f"broadcast-server connect {hub.url} --name ann", "connected")
        ann.key("Up", "Up")
        ann.wait_for("> the second line")
        ann.key("C-u", "C-r")
        ann.type("first")
        ann.wait_for("> the first line")
        ann.key("Enter", "Enter")
        ann.wait_for("ann: the first line")


# -- What is shown -----------------------------------------------------------------------------


def test_messages_have_the_local_time() -> None:
    """websocat #71: no times. They are those of the messages, in the user's zone."""
    with running_hub() as hub:
        hub.broadcast("old")
        moment = hub.history("/")[0].time.astimezone(timezone.utc)
        with joined(hub, TZ="XXX-05:30") as ann:
            ann.wait_for("old")
            (shown,) = [line for line in ann.screen() if line.endswith("*: old")]
        hour, minute = map(int, re.findall(r"\d\d", shown)[:2])
        minutes = moment.hour * 60 + moment.minute + 330
        assert (hour * 60 + minute) % 1440 == minutes % 1440


def test_last_messages_are_shown_on_joining_and_again_when_asked() -> None:
    """As many as `--history` says; `/history N` asks the hub once more."""
    with running_hub() as hub:
        for number in range(5):
            publish(hub.url, f"old {number}", name="bob")
        with joined(hub, "--history 2") as ann:
            ann.see(
                GREETING,
                "-- 1 here: ann",
                "HH:MM bob: old 3",
                "HH:MM bob: old 4",
                ">",
                " / · 1 here · connected",
            )
            ann.type("/history 3\n")
            ann.wait_for("so far the old messages")
            assert ann.talk()[4:9] == [
                "-- the last 3 messages of /",
                *(f"HH:MM bob: old {number}" for number in (2, 3, 4)),
                "-- so far the old messages",
            ]
            ann.type("/room /empty\n")
            ann.wait_for("you are ann in /empty")
            ann.wait_for(" /empty · 1 here · connected")
            ann.type("/history\n")
            ann.wait_for("-- there are no old messages in /empty")


def test_who_comes_goes_and_changes_the_name_is_told() -> None:
    """One line each; `/who` lists who is here, `/name` changes one's own name."""
    with running_hub() as hub, joined(hub) as ann:
        with joined(hub, "--history 0") as bob:
            bob.type("/name bob\n")
            bob.wait_for("you are now bob")
            ann.type("/who\n")
            ann.wait_for("2 here: ann, bob")
            bob.type("/quit\n")
            assert bob.status() == 0
        ann.wait_for("bob has left")
        assert ann.talk()[2:6] == [
            "-- ann (c2) has joined",
            "-- ann (c2) is now bob",
            "-- 2 here: ann, bob",
            "-- bob has left",
        ]


def test_tricks_of_others_are_escaped() -> None:
    """No clearing, no turned direction, nothing unseen, no line that looks like somebody else's."""
    with running_hub() as hub, joined(hub) as ann:
        publish(hub.url, "\x1b[2J\x1b]0;x\x07\u202egnp.exe\u200b\u3164.", name="eve")
        publish(hub.url, "a\n12:00 bob: forged\r\x9b1A", name="eve")
        publish(hub.url, "\U0001f469\u200d\U0001f4bb \u05e9\u05dc\u05d5\u05dd", name="ev\u00e9")
        ann.wait_for("ev\u00e9: ")
        screen = ann.talk()[2:]
        joined_up = "".join(screen)
        assert "\\x1b[2J\\x1b]0;x\\x07\\u202egnp.exe\\u200b\\u3164." in joined_up
        assert "    | 12:00 bob: forged\\r\\x9b1A" in screen
        assert not ann.rang()


def test_tricks_of_a_hub_are_escaped() -> None:
    """Names, the room, what it says of a refusal and at the end: all of it may be a stranger's."""
    evil = "e\u202e\x1b[2J"
    seen = "e\\u202e\\x1b[2J"
    with terminal(100) as ann, listener() as listening, ThreadPoolExecutor(1) as pool:
        accepting = pool.submit(listening.accept_events, room=f"/{evil}")
        ann.start(f"broadcast-server connect {listening.url} --name ann", "connected")
        server = accepting.result(SECONDS)
        with server.sock:
            ann.wait_for(f"-- you are ann in /{seen}")
            ann.wait_for(f" /{seen} · 1 here")
            server.message(1, "hello", **{"from": {"id": "c2", "name": evil}})
            ann.wait_for(f"{seen}: hello")
            member = {"id": "c2", "name": evil}
            server.send_event("join", member=member, count=2)
            ann.wait_for(f"-- {seen} has joined")
            ann.type(f"E\n{evil[0]}")
            ann.key("Tab")  # such a name is not put into the line
            server.send_event("error", code="x", detail=evil, ref=server.recv_event()["ref"])
            ann.wait_for(f"-- the hub did not take 'E': {seen}")
            ann.wait_for("> e")
            server.send_close(1000, evil[:-4])
            ann.wait_for("-- the hub closed the connection: 1000 e\\u202e")
            assert ann.status() == 0
        assert "\u202e" not in ann.raw.read_text()


def test_two_of_the_same_name_are_told_apart() -> None:
    """Whoever calls themselves ann is not taken for the other one; own messages are bold."""
    with running_hub() as hub, joined(hub) as ann:
        with RawClient.connect(port=hub.port, path="/?name=ann") as other:
            ann.wait_for("-- ann (c2) has joined")
            other.send("I am ann")
            ann.wait_for("ann (c2): I am ann")
            ann.type("No, I am\n")
            ann.wait_for("ann: No, I am")
            ann.type("/who\n")
            ann.wait_for("-- 2 here: ann (c1), ann (c2)")
            ann.type("/history\n")
            ann.wait_for("so far the old messages")
            shown = "\n".join(ann.screen(styles=True))
            assert len(re.findall(r"\x1b\[1m(?:\x1b\[39m)?ann: \x1b.*No, I am", shown)) == 2
            assert shown.count("ann (c2): ") == 2
        ann.wait_for("-- ann (c2) has left")


def test_crowd_is_counted_and_told_once() -> None:
    """Above a hundred members nobody tells who comes and goes, which is not passed over."""
    with joined_raw() as (ann, server, _):
        for count in (101, 250):
            server.send_event("count", count=count)
            ann.wait_for(f" /room · {count} here · connected")
        told = [line for line in ann.screen() if "not told any more" in line]
        assert told == ["-- 101 here: who comes and goes is not told any more"]


def test_names_have_colours_unless_they_are_not_wanted() -> None:
    """The same name has the same one everywhere; `NO_COLOR` takes them all."""
    with running_hub() as hub:
        publish(hub.url, "x", name="bob")
        publish(hub.url, "x", name="cem")
        with joined(hub) as ann, joined(hub, NO_COLOR="1") as plain:
            colours = [
                re.search(rf"\x1b\[([0-9;]*)m{name}: ", "\n".join(ann.screen(styles=True)))
                for name in ("bob", "cem")
            ]
            assert all(colours) and len({found[1] for found in colours if found}) == 2
            shown = "\n".join(plain.screen(styles=True))
            assert "bob: x" in shown
            assert not re.search(r"\x1b\[[0-9;]*[34]\d[;m]", shown)


def test_unread_messages_are_counted_until_the_user_looks() -> None:
    """Since the last key, or since the window has lost the focus where the terminal tells that."""
    with running_hub() as hub, joined(hub) as ann:
        publish(hub.url, "one")
        ann.wait_for("connected · 1 new")
        ann.type("x")
        ann.wait_for(lambda screen: screen[-1].endswith("connected"))
        ann.type("\x1b[I")  # as a terminal tells that its window has the focus
        publish(hub.url, "two")
        ann.wait_for("guest: two")
        ann.wait_for(lambda screen: screen[-1].endswith("connected"))
        ann.type("\x1b[O")

        # Nothing on the screen tells when it has taken that.
        def is_counted() -> bool:
            publish(hub.url, "three")
            return ann.screen()[-1].endswith(" new")

        assert wait_until(is_counted, SECONDS)
        publish(hub.url, "the last of these")
        ann.wait_for("guest: the last of these")
        ann.type("y")
        ann.wait_for(lambda screen: screen[-1].endswith("connected"))
        publish(hub.url, "four")
        publish(hub.url, "five")
        ann.wait_for("connected · 2 new")
        ann.type("\x1b[I")
        ann.wait_for(lambda screen: screen[-1].endswith("connected"))
        assert ann.screen()[-2] == "> xy"


def test_bell_rings_for_ones_own_name_only_when_asked() -> None:
    """Not for other words, not for old messages, and never without `--bell`."""
    with running_hub() as hub:
        publish(hub.url, "ann is old news")
        with joined(hub, "--bell") as ann, joined(hub) as quiet:
            publish(hub.url, "annual meeting")
            ann.wait_for("annual meeting")
            assert not ann.rang()
            publish(hub.url, "@Ann: your turn")
            quiet.wait_for("your turn")
            assert wait_until(ann.rang)
            assert not quiet.rang()


# -- Commands ----------------------------------------------------------------------------------


def test_commands_names_and_slashes() -> None:
    """Tab completes both; two slashes send one; what is no command stays to be changed."""
    with running_hub() as hub, RawClient.connect(port=hub.port, path="/?name=Barbara") as other:
        with joined(hub) as ann:
            ann.type("ba")
            ann.key("Tab")
            ann.type("hi\n")
            assert other.recv_message() == "Barbara: hi"
            ann.type("/h")
            ann.key("Tab")
            ann.wait_for("-- /help     /history")
            ann.type("e")
            ann.key("Tab", "Enter")
            ann.wait_for("list the commands")
            ann.type("//usr/bin\n")
            assert other.recv_message() == "/usr/bin"
            ann.type("/usr/bin\n")
            ann.wait_for("-- /usr/bin is no command")
            ann.wait_for("> /usr/bin")
            ann.key("Home")
            ann.type("/")
            ann.key("Enter")
            assert other.recv_message() == "/usr/bin"


def test_room_is_changed_without_leaving() -> None:
    """The old room is left, the new one's last messages are shown; one that cannot be is told."""
    with running_hub() as hub, joined(hub) as ann:
        publish(hub.url + "scores", "3:1", name="referee")
        ann.type("/room scores\n")
        ann.wait_for("referee: 3:1")
        assert [member.name for member in hub.members("/scores")] == ["ann"]
        assert wait_until(lambda: hub.members("/") == [])
        ann.wait_for(" /scores · 1 here · connected")
        ann.type("/room /healthz\n")
        ann.wait_for("still in /scores")
        ann.type("here\n")
        assert wait_until(lambda: [m.data for m in hub.history("/scores")] == ["3:1", "here"])
        assert hub.history("/") == []


def test_room_that_was_left_has_its_time_to_accept() -> None:
    """What was said there goes out, also over a new connection; of that the new room tells
    nothing. Who leaves before that is told."""
    with joined_raw() as (ann, server, listening), ThreadPoolExecutor(1) as pool:
        ann.type("said there\n")
        said = server.recv_event()
        accepting = pool.submit(listening.accept_events, room="/b")
        ann.type("/room /b\n")
        with accepting.result(SECONDS).sock:
            ann.wait_for("you are ann in /b")
            server.reset()
            with listening.accept_events().sock:
                pass
            again = listening.accept_events()
            with again.sock:
                event = again.recv_event()
                assert (event["data"], event["key"]) == ("said there", said["key"])
                ann.key("C-c")
                ann.wait_for("left before the hub had accepted 1 message")
                assert ann.status() == 1
        assert not any("connection lost" in line for line in ann.screen(all=True))


def test_how_to_is_what_there_is() -> None:
    """Its command works as it stands, but for the port, and its table has every command."""
    page = "docs/howto/terminal.md"
    (command,) = code_blocks(page, "sh")
    with running_hub() as hub, terminal() as ann:
        ann.start(command.strip().replace("8765", str(hub.port)), " /team · 1 here · connected")
        ann.key("C-c")
        assert ann.status() == 0
    told = re.findall(r"^\| `/(\w+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert told == list(commands.COMMANDS)


# -- Connections that end ----------------------------------------------------------------------


def test_lost_connection_is_shown_and_what_was_typed_is_sent_once() -> None:
    """ntfy #1895: lost messages. The hub is killed and started anew; nothing is sent twice."""
    port = lasting_port()
    with terminal(70) as ann:
        with (
            pytest.raises(RuntimeError, match="ended with -9"),
            hub_process(port=port, history=100) as (process, url),
        ):
            ann.start(f"broadcast-server connect {url} --name ann", "connected")
            process.kill()
            ann.wait_for("-- connection lost, trying again")
            ann.type("typed meanwhile\n")
            ann.wait_for("/ · 1 here · connection lost, trying again · 1 not sent yet")
            ann.type("/who\n")
            ann.wait_for("-- there is no connection now; this waits until it is there again")
            ann.type("half")
        with hub_process(port=port) as (_, url):
            ann.wait_for("-- messages are missing here")
            ann.see(
                "-- connection lost, trying again",
                "HH:MM ann: typed meanwhile",
                "-- there is no connection now; this waits until it is there again",
                "-- connected again",
                "-- 1 here: ann",
                "-- messages are missing here: the hub was started anew",
                "> half",
                " / · 1 here · connected",
                after=2,
            )
            with RawClient.connect(port=port, path="/?history=100") as late:
                assert late.recv_message() == "typed meanwhile"
                late.sync()
        ann.key("C-c")
        assert ann.status() == 0


def test_message_without_an_answer_is_sent_again_with_its_key() -> None:
    """The connection breaks before the ack: the same key goes out on the next connection."""
    with joined_raw() as (ann, server, listening):
        ann.type("once\n")
        first = server.recv_event()
        server.reset()
        with listening.accept_events("c2").sock as sock:
            second = RawServer(sock, "").recv_event()
            assert second["key"] == first["key"] and second["data"] == "once"
            RawServer(sock, "").ack(second, 1)
            ann.wait_for("connected again")
            ann.wait_for(lambda screen: screen[-1].endswith("connected"))


def test_hub_that_is_down_is_not_asked_all_the_time() -> None:
    """websocat #186: it span. A hub that asks to wait is not asked again before."""
    with joined_raw() as (ann, server, listening):
        server.reset()
        listening.refuse(503, "3600")
        ann.wait_for("connection lost, trying again")
        listening.sock.settimeout(3)
        with pytest.raises(socket.timeout):
            listening.sock.accept()
        ann.key("C-c")
        assert ann.status() == 0


def test_server_that_pings_is_answered_while_a_line_is_typed() -> None:
    """They are answered whatever the user does."""
    with joined_raw() as (ann, server, _):
        ann.type("half a line")
        ann.wait_for("> half a line")
        server.ping(b"there?")
        ann.key("C-c")
        server.accept_close()
        assert ann.status() == 0


def test_connection_that_is_lost_at_once_is_not_there_again() -> None:
    """What it has said before it was lost is read later, and is no return."""
    with listener() as listening, ThreadPoolExecutor(1) as pool, terminal() as ann:
        ann.type(f"clear; broadcast-server connect {listening.url}\n")
        pool.submit(listening.accept_events).result(SECONDS).sock.close()
        ann.wait_for("1 here: guest c1")
        ann.wait_for("connection lost")
        with listening.accept_events("c2").sock:
            ann.wait_for("2 here")
            ann.wait_for("connected again")
            lines = [line for line in ann.screen() if line.startswith("-- ")]
        assert sorted(lines[1:3]) == ["-- 1 here: guest c1", "-- connection lost, trying again"]
        assert lines[3:] == ["-- connected again"]


def test_quiet_connection_is_kept_alive(tmp_path: pathlib.Path) -> None:
    """wscat #50: no keep-alive, and a proxy cut it off. A server that is silent is pinged."""
    (tmp_path / "sitecustomize.py").write_text(
        "from broadcast_server.client import loop\nloop.QUIET_SECONDS = 0.1\n"
    )
    with listener() as listening, ThreadPoolExecutor(1) as pool, terminal(100) as ann:
        accepting = pool.submit(listening.accept)
        ann.type(f"PYTHONPATH={tmp_path}:$PYTHONPATH\n")
        ann.start(f"broadcast-server connect {listening.url}", "tells no names")
        server = accepting.result(SECONDS)
        with server.sock:
            for _ in range(3):
                assert server.recv_frame() == (PING, b"")
            ann.wait_for(lambda screen: screen[-1] == " /room · connected")


def test_broken_connection_is_no_crash() -> None:
    """With `--no-reconnect` one line says why it ends."""
    with joined_raw("--no-reconnect") as (ann, server, _):
        server.reset()
        ann.wait_for("error: the connection was lost")
        assert ann.status() == 3
        assert not any("Traceback" in line for line in ann.screen())


@pytest.mark.parametrize("code, status", [(1008, 1), (1000, 0), (1009, 3)])
def test_close_that_says_not_to_come_back_is_obeyed(code: int, status: int) -> None:
    """A line says why, and the exit status says what it means."""
    with joined_raw() as (ann, server, _):
        server.send_close(code, "go away")
        ann.wait_for(f"the hub closed the connection: {code} go away")
        assert ann.status() == status


@pytest.mark.parametrize("code", [401, 403])
def test_refusal_to_let_the_client_back_is_obeyed(code: int) -> None:
    """A token has expired meanwhile: no more attempts."""
    with joined_raw() as (ann, server, listening):
        server.reset()
        listening.refuse(code)
        ann.wait_for("error: the hub does not let us come back")
        assert ann.status() == 1


def test_no_connection_at_all_is_told_in_one_line() -> None:
    """The terminal was never touched."""
    port = lasting_port()
    with terminal(120) as ann:
        ann.start(f"broadcast-server connect ws://127.0.0.1:{port}/", "error: cannot connect")
        assert ann.status() == 1


def test_message_that_the_hub_refuses_is_told() -> None:
    """With its beginning, so that the user knows which."""
    with running_hub(filter=lambda message: None) as hub, joined(hub) as ann:
        ann.type("rude\n")
        ann.wait_for("the hub did not take 'rude'")


# -- Leaving -----------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", ["", "half a line"])
def test_ctrl_c_leaves_the_terminal_as_it_was(typed: str) -> None:
    """Its modes, and what it was asked to report; the hub gets a proper Close."""
    with running_hub() as hub, terminal() as ann:
        before = ann.settings()
        ann.start(f"broadcast-server connect {hub.url} --name ann", "connected")
        ann.type(typed)
        ann.key("C-c")
        assert ann.status() == 0
        assert ann.screen()[0] == GREETING and not any("connected" in x for x in ann.screen())
        assert ann.settings() == before
        assert wait_until(lambda: hub.members("/") == [])
        assert reports(ann) == {"1004": False, "2004": False}


def test_ctrl_c_ends_it_although_nobody_answers() -> None:
    """A hub that hangs holds nobody: what it has not accepted is told, with exit status 1."""
    with terminal() as ann, listener() as listening, ThreadPoolExecutor(1) as pool:
        before = ann.settings()
        accepting = pool.submit(listening.accept_events, "c2")
        ann.start(f"broadcast-server connect {listening.url}", "connected")
        with accepting.result(SECONDS).sock:
            ann.type("never taken\n")
            ann.wait_for("1 not sent yet")
            ann.key("C-c")
            ann.wait_for("left before the hub had accepted 1 message")
            assert ann.status() == 1
        assert ann.settings() == before


def test_ctrl_c_ends_it_while_another_room_is_gone_to() -> None:
    """An errand that takes its time holds nobody."""
    with joined_raw() as (ann, server, listening):
        ann.type("/room /elsewhere\n")
        sock, _ = listening.read_head()
        with sock:
            ann.type("/room /other\n")
            ann.wait_for("wait, still going to /elsewhere")
            ann.key("C-c")
            server.accept_close()
            assert ann.status() == 0


def test_ctrl_c_ends_it_while_another_room_does_not_say_welcome() -> None:
    """It is left as the room where the user is: the end of the program need not wait for it."""
    with joined_raw() as (ann, server, listening):
        ann.type("/room /elsewhere\n")
        other = listening.accept(SUBPROTOCOL)
        with other.sock:
            ann.key("C-c")
            server.accept_close()
            assert other.recv_close() == (1000, "")  # 1001 is what the end of a program says
            assert ann.status() == 0
            assert not any("still in" in row for row in ann.screen())


def test_end_of_file_is_an_empty_line_and_ctrl_d() -> None:
    """An end of file at the keyboard; within a line it deletes a character."""
    with running_hub() as hub, joined(hub) as ann:
        ann.type("ab")
        ann.key("Left", "C-d")
        ann.wait_for(lambda screen: screen[-2] == "> a")
        ann.key("C-u", "C-d")
        assert ann.status() == 0


def test_window_that_is_closed_ends_it() -> None:
    """No process is left behind, and the hub gets a proper Close."""
    with joined_raw() as (ann, server, _):
        ann.close_window()
        server.accept_close()


def test_job_control_gives_the_terminal_back() -> None:
    """Ctrl-Z stops it with the terminal as the shell wants it; fg goes on with the line."""
    with running_hub() as hub, terminal() as ann:
        ann.type("clear; set -m\n")
        ann.start(f"broadcast-server connect {hub.url} --name ann", "connected")
        ann.type("half")
        ann.key("C-z")
        ann.wait_for(lambda screen: screen[-1] == PROMPT)
        ann.type("fg\n")
        ann.wait_for("> half")
        publish(hub.url, "on we go")
        ann.wait_for("guest: on we go")
        ann.key("C-c")
        assert ann.status() == 0


def test_signal_while_it_is_stopped_ends_it() -> None:
    """To leave in order it would take the shell's terminal, and be stopped for that."""
    with running_hub() as hub, terminal() as ann:
        ann.type("clear; set -m\n")
        ann.start(f"broadcast-server connect {hub.url} --name ann", "connected")
        assert reports(ann) == {"1004": True, "2004": True}
        ann.key("C-z")
        ann.wait_for(lambda screen: screen[-1] == PROMPT)
        ann.type("kill %1; kill -CONT %1\n")
        assert wait_until(lambda: hub.members("/") == [], SECONDS)
        assert reports(ann) == {"1004": False, "2004": False}


def test_in_the_background_it_leaves_the_terminal_alone() -> None:
    """It is stopped before it changes what the shell's terminal reports; fg lets it begin."""

    def is_stopped() -> bool:
        ann.type("clear; jobs\n")
        return any("Stopped" in row for row in ann.screen())

    with running_hub() as hub, terminal() as ann:
        ann.type("clear; set -m\n")
        ann.type(f"broadcast-server connect {hub.url} --name ann &\n")
        assert wait_until(is_stopped, SECONDS)
        assert not any(reports(ann).values())
        ann.type("fg\n")
        ann.wait_for("connected")
        ann.key("C-z")
        ann.wait_for(lambda screen: screen[-1] == PROMPT)
        ann.type("clear\n")
        ann.see(PROMPT)
        ann.type("bg\n")
        assert wait_until(is_stopped, SECONDS)
        assert not any(reports(ann).values())
        ann.type("fg\n")
        ann.wait_for(lambda screen: screen[-1].startswith(" / "))
        ann.key("C-c")
        assert ann.status() == 0


# -- Terminals that can do less ----------------------------------------------------------------


def test_dumb_terminal_talks_in_plain_lines() -> None:
    """No escape sequence at all; the commands are there."""
    with running_hub() as hub, terminal() as ann:
        ann.start(f"TERM=dumb broadcast-server connect {hub.url} --name ann")
        written = len(ann.raw.read_bytes())
        with RawClient.connect(port=hub.port) as bob:
            ann.type("hello\n")
            assert bob.recv_message() == "hello"
            bob.send("\x1b[2Jhow are you?")
            ann.wait_for("\\x1b[2Jhow are you?")
            ann.type("/who\n")
            ann.wait_for("2 here: ann, ")
            assert b"\x1b" not in ann.raw.read_bytes()[written:]
            ann.type("/quit\n")
            assert ann.status() == 0


def test_without_prompt_toolkit_one_line_says_so(tmp_path: pathlib.Path) -> None:
    """The library does not need it, and the command can do without."""
    (tmp_path / "prompt_toolkit.py").write_text(
        "raise ModuleNotFoundError('gone', name='prompt_toolkit')"
    )
    with running_hub() as hub, terminal(100) as ann:
        ann.type(f"PYTHONPATH={tmp_path}:$PYTHONPATH\n")
        ann.start(f"broadcast-server connect {hub.url} --name ann")
        assert ann.screen()[0].startswith("-- prompt_toolkit is not installed")
        publish(hub.url, "all the same")
        ann.wait_for("guest: all the same")
        ann.key("C-d")
        assert ann.status() == 0


def test_plain_server_is_talked_to_without_names() -> None:
    """Any WebSocket server: one's own lines and others' are told apart."""
    with listener() as listening, ThreadPoolExecutor(1) as pool, terminal(100) as ann:
        accepting = pool.submit(listening.accept)
        ann.start(f"broadcast-server connect {listening.url}", "tells no names")
        server = accepting.result(SECONDS)
        with server.sock:
            ann.type("to you\n")
            assert server.recv_frame()[1] == b"to you"
            server.send_frame(1, "to me")
            ann.see(
                "HH:MM you: to you",
                "HH:MM to me",
                ">",
                " /room · connected · 1 new",
                after=1,
            )
            ann.type("/who\n/history\n")
            ann.wait_for("this server has no old messages")
            ann.type("/name ann\n")
            ann.wait_for(lambda screen: screen.count("-- this server knows no names") == 2)
            ann.key("C-u", "C-d")
            server.accept_close()
            assert ann.status() == 0


@pytest.mark.parametrize("option", ["", "--debug"])
def test_fault_in_the_program_is_one_line(tmp_path: pathlib.Path, option: str) -> None:
    """With `--debug` it is a traceback; the terminal is as it was in either case."""
    (tmp_path / "sitecustomize.py").write_text(
        "from broadcast_server.cli.terminal import view\n"
        "def who(*_):\n    raise ZeroDivisionError('boom')\n"
        "view.who = who\n"
    )
    with running_hub() as hub, terminal(100, 40) as ann:
        before = ann.settings()
        ann.type(f"PYTHONPATH={tmp_path}:$PYTHONPATH\n")
        ann.start(f"broadcast-server connect {hub.url} {option}", "boom")
        assert ann.status() == 1
        shown = "\n".join(ann.screen())
        assert ("Traceback" in shown) is bool(option)
        assert ("--debug shows where" in shown) is not bool(option)
        assert ann.settings() == before


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_fault_of_the_system_is_told(tmp_path: pathlib.Path, term: str) -> None:
    """Only what says that the terminal has gone is an end like any other."""
    (tmp_path / "sitecustomize.py").write_text(
        "from broadcast_server.cli.terminal import commands\n"
        "def parse(line):\n    raise OSError(28, 'boom')\n"
        "commands.parse = parse\n"
    )
    with running_hub() as hub, terminal(100) as ann:
        ann.type(f"PYTHONPATH={tmp_path}:$PYTHONPATH\n")
        ann.start(f"TERM={term} broadcast-server connect {hub.url}", "1 here")
        ann.type("x\n")
        ann.wait_for("it has failed: OSError(28, 'boom')")
        assert ann.status() == 1


def test_log_is_drawn_above_the_line() -> None:
    """What the library has to say does not break the line either."""
    with joined_raw("--log-level info") as (ann, server, listening):
        ann.type("half a line")
        ann.wait_for("> half a line")
        server.reset()
        with listening.accept_events("c2").sock:
            ann.wait_for("connected again")
            ann.wait_for("INFO broadcast_server.client")
            ann.wait_for(lambda screen: screen[-2] == "> half a line")
            ann.key("C-c")
            assert ann.status() == 0
