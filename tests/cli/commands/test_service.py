"""A hub as a process: what its signals do, and that none of them loses what was accepted."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import selectors
import signal
import socket
import subprocess
import threading

import pytest

from ...support import (
    CLOSE,
    PYTHON,
    TEXT,
    HandshakeRefused,
    RawClient,
    client_frame,
    stress_size,
    wait_until,
)
from ...support.command import SECONDS, Running, environment, hub_command, hub_program
from ...support.json_peer import OFFER

QUIET = ("start", "--port", "0", "--log-level", "warning")

pytestmark = pytest.mark.slow


# -- Signals -----------------------------------------------------------------------------------


def test_term_drains_and_can_announce_a_restart() -> None:
    """SIGTERM with ``--restart-on-term`` closes with 1012 and the place to go on from."""
    with hub_command(*QUIET, "--restart-on-term") as hub:
        with RawClient.connect(port=hub.port) as client:
            id = publish(hub.port, "x")
            assert client.recv_message() == "x"
            hub.process.send_signal(signal.SIGTERM)
            assert client.recv_close() == (1012, f"since={id}")
        assert hub.process.wait(SECONDS) == 0


def test_int_stops_even_where_term_would_announce_a_restart() -> None:
    """Ctrl-C is a person who wants the hub to end, now and for good."""
    arguments = ("--restart-on-term", "--drain-delay", "1000", "--drain-seconds", "1000")
    with hub_command(*QUIET, *arguments) as hub:
        with RawClient.connect(port=hub.port) as client:
            client.sync()
            hub.process.send_signal(signal.SIGINT)
            assert client.recv_close()[0] == 1001
        assert hub.process.wait(SECONDS) == 0


def test_health_is_told_before_anybody_is_refused() -> None:
    """While ``--drain-delay`` lasts; a second signal ends that, and everything, at once."""
    with hub_command(*QUIET, "--drain-delay", "1000") as hub:
        hub.process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: health(hub.port) == 503, SECONDS)
        with RawClient.connect(port=hub.port) as client:
            client.sync()
            assert wait_until(lambda: signalled(hub, signal.SIGTERM) == 1, SECONDS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_says_goodbye_to_the_clients(number: signal.Signals) -> None:
    """Every client gets 1001, and the command succeeds."""
    with hub_command("start", "--port", "0") as hub:
        with RawClient.connect(port=hub.port) as one, RawClient.connect(port=hub.port) as two:
            hub.process.send_signal(number)
            for client in one, two:
                assert client.recv_close()[0] == 1001
                client.send_close(1001)
                client.recv_eof()
        assert hub.process.wait(SECONDS) == 0


def test_second_signal_ends_at_once() -> None:
    """Who cannot wait for a client that does not answer presses Ctrl-C again."""
    patient = ["--close-timeout", "50", "--stop-timeout", "50"]
    with hub_command("start", "--port", "0", *patient) as hub:
        with RawClient.connect(port=hub.port) as client:
            hub.process.send_signal(signal.SIGINT)
            assert client.recv_close()[0] == 1001
            # Not at the same moment: that would count as one.
            assert wait_until(
                lambda: hub.process.send_signal(signal.SIGINT) or hub.process.poll() == 1, SECONDS
            )


def signalled(hub: Running, number: signal.Signals) -> int | None:
    """Send a signal once more; return the exit status if the process has ended."""
    hub.process.send_signal(number)
    return hub.process.poll()


def test_signal_that_is_sent_twice_at_once_is_one() -> None:
    """``timeout`` and others send it to the process and to its group; the goodbyes are said."""
    with hub_command(*QUIET) as hub, RawClient.connect(port=hub.port) as client:
        client.sync()
        # Two that are there at the same moment: of one kind the kernel would keep only one.
        hub.process.send_signal(signal.SIGSTOP)
        hub.process.send_signal(signal.SIGTERM)
        hub.process.send_signal(signal.SIGINT)
        hub.process.send_signal(signal.SIGCONT)
        assert client.recv_close()[0] == 1001
        client.close()
        assert hub.process.wait(SECONDS) == 0


def health(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


def publish(port: int, data: str) -> str:
    """Publish one message; return its id."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("POST", "/", data, {"Content-Type": "text/plain"})
        id = json.loads(connection.getresponse().read())["id"]
        assert isinstance(id, str)
        return id
    finally:
        connection.close()


def test_hup_reads_files_anew_and_ends_nothing() -> None:
    """Also where there are none, however often, and during a drain."""
    with hub_command("start", "--port", "0", "--drain-delay", "1000") as hub:
        assert hub.process.stderr
        with RawClient.connect(port=hub.port) as client:
            for _ in range(3):
                hub.process.send_signal(signal.SIGHUP)
                while "reloaded nothing" not in (line := hub.process.stderr.readline()):
                    assert line
                client.sync()
            hub.process.send_signal(signal.SIGTERM)
            assert wait_until(lambda: health(hub.port) == 503, SECONDS)
            hub.process.send_signal(signal.SIGHUP)
            client.sync()
        assert wait_until(lambda: signalled(hub, signal.SIGINT) == 1, SECONDS)


def test_hup_without_a_reload_of_the_certificate_is_one_line() -> None:
    """What cannot be read anew is told once, and the hub serves on."""
    program = """
import sys
from broadcast_server import BroadcastHub, cli
from tests.support.inside import core_of

def reload_tokens():
    raise OSError("no such file")

real = BroadcastHub.start
def start(hub):
    real(hub)
    core_of(hub).reloads.append(reload_tokens)
    return hub
BroadcastHub.start = start
sys.exit(cli.main(["start", "--port", "0", "--log-level", "warning"]))
"""
    with hub_program([PYTHON, "-c", program]) as hub:
        hub.process.send_signal(signal.SIGHUP)
        assert hub.process.stderr
        line = hub.process.stderr.readline()
        assert line.endswith(" cannot reload tokens, the old stays in use: no such file\n")
        with RawClient.connect(port=hub.port) as client:
            client.sync()
            client.leave()
        assert hub.end() == (0, "", "")


def test_hup_changes_who_may_come_in(tmp_path: pathlib.Path) -> None:
    """From then on the new tokens count; who is there stays."""
    tokens = tmp_path / "tokens"
    tokens.write_text("first-secret-of-the-hub\n")
    with hub_command("start", "--port", "0", "--token-file", str(tokens)) as hub:
        assert hub.process.stderr

        def join(token: str) -> RawClient:
            return RawClient.connect(port=hub.port, headers=[f"Authorization: Bearer {token}"])

        with join("first-secret-of-the-hub") as early:
            for text, reported in (
                ("second-secret-of-the-hub\n", "reloaded keyring"),
                (None, "cannot reload keyring, the old stays in use: "),
            ):
                tokens.unlink()
                if text is not None:
                    tokens.write_text(text)
                hub.process.send_signal(signal.SIGHUP)
                while reported not in (line := hub.process.stderr.readline()):
                    assert line
                with join("second-secret-of-the-hub") as late:
                    late.sync()
                    late.leave()
                with pytest.raises(HandshakeRefused) as refused:
                    join("first-secret-of-the-hub")
                assert refused.value.status == 401
            early.sync()
            early.leave()


def test_closed_terminal_ends_a_hub_that_was_started_there() -> None:
    """It sends the same signal; nobody would find the hub again."""
    ours, theirs = os.openpty()
    program = (
        "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [PYTHON, "-m", "broadcast_server", *QUIET]
    with subprocess.Popen(
        [PYTHON, "-c", program, *command],
        env=environment(),
        text=True,
        stdin=theirs,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            os.close(theirs)
            hub = Running(process)
            # By hand it is the usual signal, as long as the terminal is there.
            process.send_signal(signal.SIGHUP)
            with RawClient.connect(port=hub.port) as client:
                client.sync()
                os.close(ours)
                assert client.recv_close()[0] == 1001
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


# -- Nothing that was accepted is lost ---------------------------------------------------------


class Listeners:
    """Clients that read until the stream ends, all on one thread, and understand it afterwards."""

    def __init__(self, port: int, count: int) -> None:
        self._clients = [RawClient.connect(port=port) for _ in range(count)]
        self._heads = [client.buffer for client in self._clients]
        self._streams: list[list[bytes]] = [[head] for head in self._heads]
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            for client, pieces in zip(self._clients, self._streams, strict=True):
                selector.register(client.sock, selectors.EVENT_READ, pieces)
            while selector.get_map():
                for key, _ in selector.select(SECONDS):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    data = sock.recv(1 << 18)
                    if data:
                        key.data.append(data)
                    else:
                        selector.unregister(sock)
                        sock.close()

    def results(self) -> list[tuple[list[str], int, str]]:
        """Wait for the end of all; return for each the messages, the code and the reason."""
        self._thread.join(3 * SECONDS)
        assert not self._thread.is_alive()
        found = []
        for client, pieces in zip(self._clients, self._streams, strict=True):
            client.buffer = b"".join(pieces)
            messages = []
            while True:
                fin, opcode, payload = client.recv_frame()
                assert fin and opcode in (TEXT, CLOSE)
                if opcode == CLOSE:
                    break
                messages.append(payload.decode())
            assert not client.buffer
            found.append((messages, int.from_bytes(payload[:2], "big"), payload[2:].decode()))
        return found


class Publishers:
    """Threads that publish as fast as they are acknowledged, until they are not any more.

    Attributes:
        over_http, members: what was acknowledged, with its id.
    """

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self.over_http: dict[str, str] = {}
        self.members: dict[str, str] = {}
        self._threads = [
            threading.Thread(target=function, args=(number,))
            for number in range(count)
            for function in (self._post, self._send)
        ]
        for thread in self._threads:
            thread.start()

    def _post(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        try:
            for count in range(1_000_000):
                data = f"http {number} {count}"
                connection.request("POST", "/", data, {"Content-Type": "text/plain"})
                response = connection.getresponse()
                body = json.loads(response.read())
                if response.status == 503:
                    assert response.headers["Retry-After"]
                    return
                assert response.status == 200, body
                self.over_http[data] = body["id"]
        except (OSError, http.client.HTTPException):
            pass  # cut off at the very end: not acknowledged
        finally:
            connection.close()

    def _send(self, number: int) -> None:
        """Keep twenty messages on their way; what others send is read as well."""
        with RawClient.connect(port=self._port, path="/", headers=OFFER) as client:
            sent = 0
            try:
                while sent < 20:
                    self._send_one(client, number, sent)
                    sent += 1
                while True:
                    _, opcode, payload = client.recv_frame()
                    if opcode == CLOSE:
                        return
                    event = json.loads(payload) if opcode == TEXT else {}
                    if event.get("type") == "ack":
                        self.members[f"member {number} {event['ref']}"] = event["id"]
                        self._send_one(client, number, sent)
                        sent += 1
            except OSError:
                pass

    def _send_one(self, client: RawClient, number: int, count: int) -> None:
        event = {"type": "send", "data": f"member {number} {count}", "ref": count}
        client.sock.sendall(client_frame(TEXT, json.dumps(event)))

    def join(self) -> None:
        for thread in self._threads:
            thread.join(3 * SECONDS)
            assert not thread.is_alive()


def order(id: str) -> tuple[int, int]:
    """Return what an id is compared by."""
    ms, _, sequence = id.partition("-")
    return int(ms), int(sequence)


def end_under_load(listeners: int, publishers: int, messages: int) -> None:
    """End a hub with SIGTERM while everybody publishes; compare what was promised with what came.

    Whoever stays to its Close has everything that was acknowledged over HTTP at any time, since
    such publishers are refused before the first goodbye; and of what members published, everything
    up to the id in its own Close. Without a spread that is everything at all.
    """
    arguments = ("--restart-on-term", "--drain-seconds", "2", "--write-timeout", "60")
    with hub_command(*QUIET, *arguments) as hub:
        all_listeners = Listeners(hub.port, listeners)
        load = Publishers(hub.port, publishers)
        try:
            assert wait_until(
                lambda: min(len(load.over_http), len(load.members)) >= messages, 3 * SECONDS
            )
        finally:
            status, output, log = hub.end()
            load.join()
            results = all_listeners.results()
        assert (status, output, log) == (0, "", "")
    acknowledged = load.over_http | load.members
    assert len(set(acknowledged.values())) == len(acknowledged)
    longest: list[str] = max((messages for messages, _, _ in results), key=len)
    for received, code, reason in results:
        assert code == 1012, (code, reason)
        since = order(reason.removeprefix("since="))
        assert len(set(received)) == len(received)
        assert received == longest[: len(received)]  # one order, and no hole
        there = set(received)
        assert load.over_http.keys() <= there
        promised = {data for data, id in load.members.items() if order(id) <= since}
        assert promised <= there
        if listeners + publishers <= 100:
            assert acknowledged.keys() <= there


@pytest.mark.parametrize("listeners", [90, 120])
def test_term_under_full_load_loses_nothing_that_was_accepted(listeners: int) -> None:
    """With few clients, who are told at once, and with so many that the goodbyes are spread."""
    end_under_load(listeners, publishers=3, messages=200)


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("listeners", [50, 400])
def test_term_under_full_load_loses_nothing_again_and_again(listeners: int) -> None:
    """The same with more of everything, three times in a row."""
    for _ in range(stress_size(3, 1)):
        end_under_load(listeners, publishers=8, messages=stress_size(1500, 500))


def test_hub_that_has_failed_ends_the_command() -> None:
    """Whatever watches the process can only start it again if it ends."""
    program = """
import sys
import broadcast_server
from broadcast_server.cli import main
from broadcast_server.cli.commands import service

class FailedHub(broadcast_server.BroadcastHub):
    def stats(self):
        raise broadcast_server.HubStopped("failed")

broadcast_server.BroadcastHub = FailedHub
service.CHECK_SECONDS = 0.001
sys.exit(main(["start", "--port", "0", "--log-level", "error"]))
"""
    result = subprocess.run(
        [PYTHON, "-c", program],
        env=environment(),
        text=True,
        capture_output=True,
        timeout=SECONDS,
    )
    assert result.returncode == 1
    assert result.stderr == "broadcast-server start: error: the hub has failed, its log says why\n"
