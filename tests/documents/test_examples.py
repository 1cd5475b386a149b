"""The examples in ``docs/examples/``, each as the program that it is, on a real hub."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from broadcast_server import BroadcastClient, BroadcastHub

from ..support import (
    PYTHON,
    ROOT,
    command_environment,
    lasting_port,
    needs_module,
    running_hub,
    wait_until,
)
from ..support.beside import process_group

pytestmark = pytest.mark.slow


SECONDS = 20.0
EXAMPLES = ROOT / "docs" / "examples"


def running(
    *command: str | pathlib.Path, **options: Any
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """Run a program, which is ended with all that it has started."""
    return process_group(list(map(str, command)), env=command_environment(), **options)


def is_joined(hub: BroadcastHub, room: str, count: int) -> bool:
    """Wait until so many clients are in a room."""
    return wait_until(lambda: len(hub.members(room)) == count, SECONDS)


def test_every_example_is_listed() -> None:
    """Who looks into the folder's page finds each file."""
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    assert set(re.findall(r"\]\((\w[\w.]*)\)", text)) == names


# -- The scoreboard ----------------------------------------------------------------------------


@contextlib.contextmanager
def scoreboard() -> Iterator[tuple[str, str]]:
    """Run the app; gives its address and the board's. It must end in peace by Ctrl-C."""
    needs_module("flask")
    script = EXAMPLES / "scoreboard.py"
    with running(PYTHON, script, "--port", "0", "--hub-port", "0", stdin=None) as process:
        assert process.stdout is not None and process.stderr is not None
        board = process.stdout.readline().removeprefix("The board: ").strip()
        said = ""
        while not (found := re.search(r"Running on (http://\S+)", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        yield found[1], board
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0 and "Traceback" not in errors, errors


def test_score_of_the_app_is_on_the_board(browser: Any) -> None:
    """What is sent to the app, by a program or in its form, is what the wall shows."""
    from playwright.sync_api import expect

    with scoreboard() as (app, board):
        body = urllib.parse.urlencode({"score": "1:0"}).encode()
        with urllib.request.urlopen(f"{app}/score", body, timeout=SECONDS) as answer:
            assert answer.url == f"{app}/" and answer.status == 200
        context = browser.new_context()
        try:
            wall, referee = context.new_page(), context.new_page()
            wall.goto(board)
            # Who opens the board late sees the score.
            expect(wall.locator("#newest")).to_have_text("1:0", timeout=SECONDS * 1000)
            referee.goto(app)
            referee.fill("input[name=score]", "2:0")
            referee.press("input[name=score]", "Enter")
            expect(wall.locator("#newest")).to_have_text("2:0", timeout=SECONDS * 1000)
        finally:
            context.close()


def test_score_that_the_hub_cannot_take_is_503(hub: BroadcastHub) -> None:
    """The app's client is told to come back; a request without a score is its own mistake."""
    needs_module("flask")
    import runpy

    app = runpy.run_path(str(EXAMPLES / "scoreboard.py"))["create_app"](hub)
    client = app.test_client()
    assert client.post("/score").status_code == 400
    assert client.post("/score", data={"score": "1:0"}).status_code == 303
    hub.stop()
    answer = client.post("/score", data={"score": "2:0"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


# -- The log -----------------------------------------------------------------------------------


def test_log_is_on_every_terminal(tmp_path: pathlib.Path) -> None:
    """From its end on, in order and once, also after a rotation and while the hub was away. What
    websocketd was asked for five times: #50, #95, #133, #289, #345."""
    log = tmp_path / "app.log"
    log.write_text("before\n")
    with contextlib.ExitStack() as stack:
        port = lasting_port()
        hub = stack.enter_context(running_hub(port=port))
        room = hub.url + "log"
        desks = [
            stack.enter_context(running("broadcast-server", "connect", room)) for _ in range(3)
        ]
        assert is_joined(hub, "/log", 3)
        tail = stack.enter_context(running("sh", EXAMPLES / "tail_log.sh", log, room))
        # What is written until tail has looked at the file is not from its end on.
        number = 0

        def is_followed() -> bool:
            nonlocal number
            with log.open("a") as file:
                file.write(f"warm-up {number}\n")
            number += 1
            return bool(hub.history("/log"))

        assert wait_until(is_followed, SECONDS)
        log.rename(tmp_path / "app.log.1")
        log.write_text("first of the new file\nlast\n")
        for desk in desks:
            assert desk.stdout is not None
            lines = list(iter(desk.stdout.readline, "last\n"))
            assert "before\n" not in lines
            assert lines[-1] == "first of the new file\n"
            numbers = [int(line.removeprefix("warm-up ")) for line in lines[:-1]]
            assert numbers == list(range(numbers[0], number))
        hub.stop()
        meanwhile = [f"{number} while the hub is away" for number in range(3)]
        with log.open("a") as file:
            file.write("\n".join(meanwhile) + "\n")
        with running_hub(port=port) as again:
            assert wait_until(lambda: len(again.history("/log")) == len(meanwhile), SECONDS)
            assert [message.data for message in again.history("/log")] == meanwhile
            os.killpg(tail.pid, signal.SIGTERM)
            assert tail.wait(SECONDS) == -signal.SIGTERM


def test_log_for_an_address_that_is_none_ends(tmp_path: pathlib.Path) -> None:
    """There is no use in trying that again."""
    log = tmp_path / "app.log"
    log.touch()
    with running("sh", EXAMPLES / "tail_log.sh", log, "http:///log") as tail:
        output, errors = tail.communicate(timeout=SECONDS)
        assert (tail.returncode, output) == (2, "") and "is not an address" in errors


# -- The cron job ------------------------------------------------------------------------------


class Forgetful:
    """A proxy in front of a hub that breaks the first connection where the answer would be."""

    def __init__(self, hub: BroadcastHub) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.settimeout(SECONDS)
        self.port: int = self.listening.getsockname()[1]
        self.heads: list[str] = []
        self._hub = hub
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for is_last in (False, True):
            sock, _ = self.listening.accept()
            with sock, socket.create_connection(("127.0.0.1", self._hub.port), SECONDS) as onward:
                sock.settimeout(SECONDS)
                request = b""
                while not request.endswith(b"gone wrong"):
                    request += sock.recv(1 << 16)
                self.heads.append(request.decode())
                onward.sendall(request)
                answer = onward.recv(1 << 16)
                if is_last:
                    sock.sendall(answer)
                else:
                    reset = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)

    def __enter__(self) -> Forgetful:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(SECONDS)
        self.listening.close()


def notify(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    return subprocess.run(
        ["sh", str(EXAMPLES / "notify.sh"), *arguments],
        env=command_environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_notice_is_delivered_once_when_its_answer_is_lost(hub: BroadcastHub) -> None:
    """curl tries again with the same key, and the script is silent."""
    with Forgetful(hub) as proxy:
        result = notify(f"http://127.0.0.1:{proxy.port}/alerts", "@gone wrong")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    keys = [re.findall(r"(?im)^idempotency-key: (\S+)", head) for head in proxy.heads]
    assert len(keys) == 2 and keys[0] == keys[1] != []
    (message,) = hub.history("/alerts")
    assert message.data == "@gone wrong"
    assert message.sender is not None and message.sender.name == "cron"


def test_notice_that_is_refused_fails_aloud(hub: BroadcastHub) -> None:
    """So that cron sends a mail; and without its arguments it says how it is called."""
    result = notify(f"http://127.0.0.1:{hub.port}/favicon.ico", "x", RETRIES="0")
    assert result.returncode == 22 and "404" in result.stderr and result.stdout == ""
    result = notify(f"http://127.0.0.1:{hub.port}/alerts")
    assert result.returncode != 0 and "usage: notify.sh" in result.stderr
    assert hub.history("/alerts") == []


def test_crontab_line_tells_of_a_job_that_fails(hub: BroadcastHub, tmp_path: pathlib.Path) -> None:
    """As cron runs it: five fields, then a command for /bin/sh, with the variables above it."""
    lines = (EXAMPLES / "crontab").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines[:-1])
    *fields, command = lines[-1].split(maxsplit=5)
    assert len(fields) == 5 and all(re.fullmatch(r"[\d*,/-]+", field) for field in fields)
    assert "%" not in command, "cron would take it for a line's end"
    assert set(variables) == {"PATH", "HUB"}
    (tmp_path / "notify.sh").symlink_to(EXAMPLES / "notify.sh")
    job = tmp_path / "backup"
    for status, expected in ((0, []), (1, ["the backup has failed"])):
        job.write_text(f"#!/bin/sh\nexit {status}\n")
        job.chmod(0o755)
        subprocess.run(
            ["/bin/sh", "-c", command],
            env={"PATH": f"{tmp_path}:{variables['PATH']}", "HUB": f"http://127.0.0.1:{hub.port}"},
            check=True,
            timeout=60,
        )
        assert [message.data for message in hub.history("/alerts")] == expected


# -- The bot -----------------------------------------------------------------------------------


def test_bot_answers() -> None:
    """What it knows and nothing else, also after the hub was away; Ctrl-C ends it quietly."""
    port = lasting_port()

    def ask(room: str, question: str) -> str:
        with BroadcastClient(room, name="ann") as ann:
            ann.send("hello")
            ann.send(question)
            message = ann.recv(timeout=SECONDS)
            assert message.sender.name == "bot"
            return str(message.data)

    with running_hub(port=port) as hub, running(PYTHON, EXAMPLES / "bot.py", hub.url) as bot:
        assert is_joined(hub, "/", 1)
        assert ask(hub.url, "!ping") == "pong"
        assert ask(hub.url, "!who") == "here: bot, ann"
        assert re.fullmatch(r"you rolled a [1-6]", ask(hub.url, "!roll"))
        assert re.fullmatch(r"it is \d\d:\d\d", ask(hub.url, "!time"))
        hub.stop()
        with running_hub(port=port) as again:
            assert is_joined(again, "/", 1)
            answer = ask(again.url, "!help")
            assert "!ping" in answer and not answer.startswith("!")
            bot.send_signal(signal.SIGINT)
            output, errors = bot.communicate(timeout=SECONDS)
            assert (bot.returncode, output, errors) == (0, "", "")


def test_bot_without_a_hub_says_so(hub: BroadcastHub) -> None:
    """One line, no traceback."""
    url = hub.url
    hub.stop()
    for arguments in ([], [url]):
        with running(PYTHON, EXAMPLES / "bot.py", *arguments) as bot:
            output, errors = bot.communicate(timeout=SECONDS)
            assert (bot.returncode, output) == (1, "")
            assert errors.count("\n") == 1 and "Traceback" not in errors
