"""``broadcast-server publish`` as the process that it is."""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server import BroadcastHub

from ...support import PYTHON, RawClient, lasting_port, running_hub, wait_until
from ...support.command import SECONDS, assert_fails, environment, run
from ...support.http_server import GOOD, answer, keeping
from ...support.pseudo_terminal import PseudoTerminal

pytestmark = pytest.mark.slow


def texts(hub: BroadcastHub) -> list[str | bytes]:
    """Return what was published in the lobby."""
    return [message.data for message in hub.history("/")]


def feed(given: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Publish what is on standard input."""
    return subprocess.run(
        [PYTHON, "-m", "broadcast_server", "publish", *arguments, "-"],
        input=given,
        capture_output=True,
        env=environment(),
        timeout=SECONDS,
    )


@contextlib.contextmanager
def publishing(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Publish line by line what is written to the process."""
    command = [PYTHON, "-m", "broadcast_server", "publish", *arguments, "-"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=environment(), text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def write(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


# From the arguments.


def test_short_address_is_where_it_goes() -> None:
    """As for the other commands; a text alone cannot be one, and with a room it is a text."""
    with running_hub() as hub:
        short = f"127.0.0.1:{hub.port}/"
        assert run("publish", short, "goal").returncode == 0
        assert feed(b"line\n", short).returncode == 0
        port = ("--port", str(hub.port))
        assert run("publish", *port, "3:1/2:0", short).returncode == 0
        assert texts(hub) == ["goal", "line", f"3:1/2:0 {short}"]
        assert_fails(run("publish", short), 2, "give a text")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_first_word_before_a_text_is_the_address(host: str) -> None:
    """As `connect`, `listen` and `who` take it; nothing goes to the hub at the default port."""
    with running_hub() as hub, running_hub() as other:
        default = {"BROADCAST_SERVER_CONNECT_PORT": str(other.port)}
        word = f"{host}:{hub.port}"
        for arguments in ([word, "hello"], [word, "--", ":1"], [word + "/?name=ann", "3:1"]):
            result = run("publish", *arguments, variables=default)
            assert (result.returncode, result.stderr) == (0, "")
        assert feed(b"line\n", word).returncode == 0
        assert texts(hub) == ["hello", ":1", "3:1", "line"]
        assert texts(other) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["3:1"], "3:1"),
        (["12:30", "lunch"], "12:30 lunch"),
        (["v1.2:3", "is", "out"], "v1.2:3 is out"),
        ([":8811"], ":8811"),
        (["--", ":8811", "hello"], ":8811 hello"),
        (["--", "hub.example:80", "hello"], "hub.example:80 hello"),
        (["--", "http://a.example/", "is down"], "http://a.example/ is down"),
        (["--name", "ann", "--", "[::1]:80", "-"], "[::1]:80 -"),
        (["--", "-"], "-"),
        (["--room", "/", ":8811", "hello"], ":8811 hello"),
    ],
)
def test_first_word_that_is_no_address_is_text(arguments: list[str], text: str) -> None:
    """A score, a time, a version, and whatever stands behind the dashes."""
    with running_hub() as hub:
        default = {"BROADCAST_SERVER_CONNECT_PORT": str(hub.port)}
        result = run("publish", *arguments, variables=default)
        assert (result.returncode, result.stderr) == (0, "")
        assert texts(hub) == [text]


@pytest.mark.parametrize(
    ("word", "status"),
    [("127.0.0.1:1", 1), ("localhost:1/x", 1), ("http://127.0.0.1:1", 1), (":99999", 2)],
)
def test_address_that_cannot_be_reached_may_have_been_text(word: str, status: int) -> None:
    """The error says how to send it."""
    hint = "if the first word is text, put -- before it"
    assert_fails(run("publish", word, "hello"), status, hint)
    assert_fails(run("publish", word, "-", input="line\n", stdin=None), status, hint)


def test_words_are_one_message() -> None:
    """Joined by blanks, in the room, with the name; nobody joins, and nothing is printed."""
    joined: list[Any] = []
    with running_hub(on_join=joined.append) as hub:
        port = ["--port", str(hub.port)]
        result = run("publish", "goal", *port, "by", "--room", "/scores", "ann", "--name", "bob")
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        (message,) = hub.history("/scores")
        assert message.data == "goal by ann"
        assert message.sender is not None and message.sender.name == "bob"
        assert joined == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["URL", "start", "the", "car"], "start the car"),
        (["URL", "--", "-5", "--room"], "-5 --room"),
        (["URL", ""], ""),
        (["URL", "http://a.example"], "http://a.example"),
        (["URL", "-", "-"], "- -"),
        (["--port", "PORT", "http://a.example/"], "http://a.example/"),
        (["--port", "PORT", "--room", "/", "é\nü"], "é\nü"),
    ],
)
def test_text_is_taken_as_it_is(arguments: list[str], text: str) -> None:
    """What is a URL, a command, an option or standard input can be said."""
    with running_hub() as hub:
        given = [w.replace("URL", hub.url).replace("PORT", str(hub.port)) for w in arguments]
        result = run("publish", *given)
        assert (result.returncode, result.stderr) == (0, "")
        assert texts(hub) == [text]


def test_same_key_is_published_once() -> None:
    """A cron job that runs twice, and one that reads lines."""
    with running_hub() as hub:
        for _ in range(2):
            assert run("publish", hub.url, "--key", "day-1", "done").returncode == 0
            assert feed(b"a\nb\n", hub.url, "--key", "lines").returncode == 0
        assert texts(hub) == ["done", "a", "b"]


def test_publishing_in_a_loop_keeps_the_order() -> None:
    """Each is accepted before the next begins."""
    with running_hub() as hub:
        script = f'for n in 1 2 3 4; do "$0" -m broadcast_server publish {hub.url} $n || exit; done'
        done = subprocess.run(["sh", "-c", script, PYTHON], env=environment(), timeout=2 * SECONDS)
        assert done.returncode == 0 and texts(hub) == ["1", "2", "3", "4"]


# From standard input.


def test_each_line_is_a_message() -> None:
    """Empty ones, those that end as on Windows, and the last one without an end, too."""
    with running_hub() as hub:
        result = feed("one\r\n\n zwölf \nlast".encode(), hub.url)
        assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
        assert texts(hub) == ["one", "", " zwölf ", "last"]


def test_line_is_published_as_soon_as_it_is_there() -> None:
    """`tail -f` never ends; Ctrl-C ends all of it, as a shell's loop wants to see."""
    with running_hub() as hub, RawClient.connect(port=hub.port, timeout=SECONDS) as listener:
        with publishing(hub.url) as process:
            for text in ("one", "two"):
                write(process, f"{text}\n")
                assert listener.recv_message() == text
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=SECONDS)
            assert (process.returncode, errors) == (-signal.SIGINT, "")


def test_input_that_is_not_utf8_is_replaced_and_told() -> None:
    """One warning for all of it."""
    with running_hub() as hub:
        result = feed(b"a\xff\nb\xfe\n", hub.url)
        assert result.returncode == 0 and result.stderr.count(b"not UTF-8") == 1
        assert texts(hub) == ["a\ufffd", "b\ufffd"]


def test_no_input_is_no_message() -> None:
    """And no error: there was nothing to do."""
    with running_hub() as hub:
        assert feed(b"", hub.url).returncode == 0
        assert texts(hub) == []


def test_input_that_cannot_be_read_is_one_line(tmp_path: pathlib.Path) -> None:
    """What was opened for writing, for instance."""
    with running_hub() as hub:
        with open(tmp_path / "out", "wb") as output:
            result = run("publish", hub.url, "-", stdin=output)
        assert_fails(result, 1, "cannot read standard input: Bad file descriptor")


# What goes wrong.


def test_refused_line_ends_it_with_its_number() -> None:
    """What was before it is published, nothing behind it is."""
    with running_hub(max_message_bytes=10) as hub:
        result = feed(b"one\n" + b"x" * 11 + b"\nthree\n", hub.url)
        assert result.returncode == 1
        (line,) = result.stderr.decode().splitlines()
        assert line.startswith("broadcast-server publish: error: line 2: cannot publish to ws://")
        assert texts(hub) == ["one"]


def test_no_right_to_write_is_a_refusal(tmp_path: pathlib.Path) -> None:
    """A token from a file lets it in; the right to read is not needed."""
    path = tmp_path / "token"
    path.write_text("w\n")
    path.chmod(0o600)
    with running_hub(token="r", publish_token="w") as hub:
        assert_fails(run("publish", hub.url, "x"), 1, "a token is needed")
        variables = {"BROADCAST_SERVER_TOKEN": "r"}
        assert_fails(run("publish", hub.url, "x", variables=variables), 1, "cannot publish to")
        assert run("publish", hub.url, "x", "--token-file", str(path)).returncode == 0
        assert run("publish", f"{hub.url}?access_token=w", "x").returncode == 0
        assert texts(hub) == ["x", "x"]


def test_hub_that_wants_it_slower_gets_it_slower() -> None:
    """More than its rate allows: every line is accepted in the end, in order."""
    with running_hub(max_rate=10) as hub:
        lines = [f"{number}" for number in range(25)]
        result = feed("\n".join(lines).encode(), hub.url, "--timeout", "50")
        assert (result.returncode, result.stderr) == (0, b"")
        assert texts(hub) == lines


def test_hub_that_is_started_anew_gets_the_rest() -> None:
    """What was accepted is not sent again; what was not is."""
    port = lasting_port()
    with (
        running_hub(port=port) as first,
        publishing(first.url, "--timeout", str(SECONDS)) as process,
    ):
        write(process, "one\n")
        assert wait_until(lambda: texts(first) == ["one"], SECONDS)
        first.stop()
        write(process, "two\n")
        with running_hub(port=port) as second:
            write(process, "three\n")
            _, errors = process.communicate(timeout=2 * SECONDS)
            assert (errors, process.returncode) == ("", 0)
            assert texts(second) == ["two", "three"]


@pytest.mark.parametrize(
    ("acts", "status"),
    [([GOOD], 1), ([GOOD, b""], 3)],
    ids=["before the message", "before its answer"],
)
def test_hub_that_has_gone_for_good_is_1_or_3(acts: list[bytes], status: int) -> None:
    """3 where nobody knows whether the last message was published: it was sent. A message that was
    not sent was certainly not published."""
    with keeping(acts) as server, contextlib.ExitStack() as stack:
        process = stack.enter_context(publishing(server.url, "--timeout", "0.5"))
        write(process, "one\n")
        assert wait_until(lambda: len(server.asked) == 1, SECONDS)
        server.listening.close()
        _, errors = process.communicate("two\n", timeout=SECONDS)
    assert process.returncode == status
    (line,) = errors.splitlines()
    assert "line 2: " in line
    assert line.endswith("; it may have been published") is (status == 3)


def test_connection_that_breaks_is_3_without_reconnecting() -> None:
    """At once, however much time there would be."""
    with keeping([b""]) as server:
        assert_fails(run("publish", server.url, "x", "--no-reconnect"), 3, "the connection broke")


def test_no_hub_is_1() -> None:
    """There, nothing can have been published."""
    result = run("publish", "ws://127.0.0.1:1/", "x")
    assert_fails(result, 1, "cannot publish to ws://127.0.0.1:1/: Connection refused")
    assert "may have been" not in result.stderr and "--" not in result.stderr


def test_answer_of_somebody_else_is_1() -> None:
    """A server that says 200 to everything is no hub."""
    with keeping([answer("hello")]) as server:
        assert_fails(run("publish", server.url, "x"), 1, "this is no hub")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a text, or -"),
        (["ws://127.0.0.1:1/"], "give a text, or -"),
        (["x", "--timeout", "0"], "--timeout must be more than 0"),
        (["x", "--file", "f"], "give a text or --file, not both"),
        (["-", "--file", "f"], "give a text or --file, not both"),
        (["ws://127.0.0.1:1/", "x", "--file", "f"], "give a text or --file, not both"),
        (["x", "--room", "/r", "--file", "f"], "give a text or --file, not both"),
        (["--file", ""], "--file: it is empty"),
        (["x", "--key", "a b"], "--key must be"),
        (["x", "--key", "k" * 101], "--key must be"),
        (["x", "--name", "n" * 65], "name"),
        (["x", "--port", "0"], "--port: a hub has a port"),
        (["x", "-H", "secret"], "--header: a header line"),
        (["x", "--ca-file", "f"], "--ca-file is for"),
        (["ftp://a/", "--timeout", "x"], "--timeout: "),
        (["ws://a b/", "x"], "is not an address"),
        (["ws://127.0.0.1:1/", "x", "--room", "/y", "--count", "5"], "arguments: --count"),
    ],
)
def test_usage_errors_are_2(arguments: list[str], words: str) -> None:
    """Mistakes that can be seen without a hub."""
    result = run("publish", *arguments)
    assert_fails(result, 2, "publish: error: ", words)
    assert "secret" not in result.stderr


def test_header_lines_go_along(tmp_path: pathlib.Path) -> None:
    """From the arguments, a file and the variable."""
    path = tmp_path / "headers"
    path.write_text("X-B: 2\n")
    with keeping([GOOD], [GOOD]) as server:
        run("publish", server.url, "x", "-H", "X-A: 1", f"-H@{path}")
        run("publish", server.url, "x", variables={"BROADCAST_SERVER_HEADER": "X-C: 3 4\nX-D: 5"})
    first, second = (asked.headers for asked in server.asked)
    assert (first["x-a"], first["x-b"]) == ("1", "2")
    assert (second["x-c"], second["x-d"]) == ("3 4", "5")


def test_line_that_the_terminal_cuts_off_is_1() -> None:
    """What was typed before it is published, and nothing of it."""
    with running_hub() as hub:
        command = [PYTHON, "-m", "broadcast_server", "publish", hub.url, "-"]
        with PseudoTerminal(command, env=environment(), echo=False) as typed:
            typed.type("one\n")
            assert wait_until(lambda: texts(hub) == ["one"], SECONDS)
            typed.type("x" * 5003 + "\n")
            typed.wait_for("publish: error: a line of 4095 bytes or more cannot be typed: ")
            assert typed.end() == 1
        assert texts(hub) == ["one"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_that_is_utf_16_is_1(encoding: str) -> None:
    """Nothing of it is published; each of its lines would be rubbish."""
    with running_hub() as hub:
        result = feed("one\r\ntwo\r\n".encode(encoding), hub.url)
        assert (result.returncode, result.stdout) == (1, b"")
        assert result.stderr.startswith(b"broadcast-server publish: error: the input is UTF-16")
        assert texts(hub) == []


def test_byte_order_mark_is_no_part_of_the_text() -> None:
    """Windows' editors put it before a text in UTF-8."""
    with running_hub() as hub:
        assert feed("one\n\ufefftwo\n".encode("utf-8-sig"), hub.url).returncode == 0
        assert texts(hub) == ["one", "\ufefftwo"]


# A file.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ""),
        (b"one\ntwo\n", "one\ntwo\n"),
        ("é\r\n".encode(), "é\r\n"),
        (b"\xef\xbb\xbf{}", "{}"),
        (b"a\0b", b"a\0b"),
        (b"\x89PNG\xff", b"\x89PNG\xff"),
        ("é\n".encode("latin-1"), "é\n".encode("latin-1")),
        ("hi\n".encode("utf-16"), "hi\n".encode("utf-16")),
        ("hi\n".encode("utf-16-be"), "hi\n".encode("utf-16-be")),
    ],
)
@pytest.mark.parametrize("is_input", [False, True])
def test_file_is_one_message(
    content: bytes, message: str | bytes, is_input: bool, tmp_path: pathlib.Path
) -> None:
    """A text or not, as its content is; so is standard input as a whole."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with running_hub() as hub, path.open("rb") as opened:
        name = "-" if is_input else str(path)
        result = run("publish", hub.url, "--file", name, stdin=opened)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
        assert texts(hub) == [message]


def test_binary_is_what_is_asked_for(tmp_path: pathlib.Path) -> None:
    """Whatever is in a file, a text, or the lines of standard input; each byte stays."""
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfx\n")
    with running_hub() as hub:
        assert run("publish", hub.url, "--file", str(path), "--binary").returncode == 0
        assert run("publish", hub.url, "--binary", "3:1", "é").returncode == 0
        assert feed(b"\xff\xfea\nb", hub.url, "--binary").returncode == 0
        assert texts(hub) == [b"\xef\xbb\xbfx\n", "3:1 é".encode(), b"\xff\xfea", b"b"]


def test_file_goes_to_an_address_and_has_the_key(tmp_path: pathlib.Path) -> None:
    """What is no option can only be the address, in each of its forms; the key is that of the
    message, since there is only one."""
    path = tmp_path / "file"
    path.write_text("x")
    with running_hub() as hub:
        for address in ([f":{hub.port}"], [f"127.0.0.1:{hub.port}/"], ["--port", str(hub.port)]):
            result = run("publish", *address, "--file", str(path), "--key", "k")
            assert (result.returncode, result.stderr) == (0, "")
        run("publish", hub.url, variables={"BROADCAST_SERVER_FILE": str(path)})
        run("publish", hub.url, "y", variables={"BROADCAST_SERVER_FILE": str(path)})
        assert texts(hub) == ["x", "x", "y"]
    with keeping([GOOD]) as server:
        run("publish", server.url, "--file", str(path), "--key", "k")
    assert server.keys() == ["k"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("missing", "No such file"), (".", "Is a directory"), ("/dev/zero", "has more than")],
)
def test_file_that_cannot_be_read_is_1(
    name: str, why: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is published."""
    with running_hub() as hub:
        result = run("publish", hub.url, "--file", name, cwd=tmp_path)
        assert_fails(result, 1, "publish: error: ", name, why)
        assert texts(hub) == []


def test_file_that_is_too_large_for_the_hub_is_1(tmp_path: pathlib.Path) -> None:
    """The hub says so."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    with running_hub(max_message_bytes=999) as hub:
        assert_fails(run("publish", hub.url, "--file", str(path)), 1, "999")


def test_full_error_output_is_no_traceback() -> None:
    """Nobody is left to tell, but the status is."""
    with open("/dev/full", "w") as full:
        result = run(
            "publish", "ws://127.0.0.1:1/", "x", capture_output=False, stdout=full, stderr=full
        )
    assert result.returncode == 1


def test_room_with_a_store_of_events_sees_the_id() -> None:
    """What is published this way has an id like all others."""
    with running_hub() as hub:
        run("publish", hub.url, "x")
        result = run("listen", hub.url, "--history", "1", "--count", "1", "--format", "json")
        assert json.loads(result.stdout)["id"] == hub.history("/")[0].id
