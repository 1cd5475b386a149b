"""How a client gets its first connection, and that nothing is left if it does not; how it ends,
also where nobody closes it: dropped by its program, or left at the program's end."""

from __future__ import annotations

import concurrent.futures
import gc
import signal
import socket
import subprocess
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from broadcast_server import (
    BroadcastClient,
    ConnectFailed,
    ConnectionClosed,
    Presence,
    UsageError,
)
from broadcast_server.client import dialer

from ..support import PYTHON, lasting_port, python_environment, running_hub, wait_until
from ..support.beside import in_thread
from ..support.inside import client_core_of, link_of, lock_of, waiters_of
from ..support.raw_server import (
    SECONDS,
    SUBPROTOCOL,
    Listener,
    RawServer,
    event_pair,
    listener,
)

# -- Connecting --------------------------------------------------------------------------------


def test_ctrl_c_before_the_welcome_leaves_nothing() -> None:
    """A ``with`` that is not entered is not left either: connect() itself must clean up."""
    main = threading.main_thread().ident
    assert main is not None
    with listener() as listening:
        client = BroadcastClient(listening.url, open_timeout=1000.0)

        def serve() -> RawServer:
            server = listening.accept(SUBPROTOCOL)
            server.ping()  # both threads of the client run
            signal.pthread_kill(main, signal.SIGINT)
            return server

        serving = in_thread(serve)
        with pytest.raises(KeyboardInterrupt), client:
            pass
        with serving.result(SECONDS).sock as sock:
            assert sock.recv(1) == b""
        assert (client.state, client.closed) == ("closed", False)
        again = in_thread(listening.accept_events)
        client.connect()  # it may try again
        assert client.state == "open"
        again.result(SECONDS).sock.close()
        client.close(timeout=0)


def break_off(listening: Listener) -> None:
    listening.read_head()[0].close()


def refuse_503(listening: Listener) -> None:
    listening.refuse(503, "0")


def refuse_502(listening: Listener) -> None:
    listening.refuse(502)


def refuse_504(listening: Listener) -> None:
    listening.refuse(504)


def end_before_the_welcome(listening: Listener) -> None:
    listening.accept(SUBPROTOCOL).sock.close()


def go_away_before_the_welcome(listening: Listener) -> None:
    with listening.accept(SUBPROTOCOL).sock as sock:
        sock.sendall(b"\x88\x02" + (1001).to_bytes(2, "big"))
        assert sock.recv(100)  # the answer


@pytest.mark.parametrize(
    "act",
    [
        break_off,
        refuse_502,
        refuse_503,
        refuse_504,
        end_before_the_welcome,
        go_away_before_the_welcome,
    ],
)
def test_a_hub_that_is_not_there_yet_is_waited_for(act: Callable[[Listener], None]) -> None:
    """Each time something else is in the way, in front of the hub or the hub itself."""
    with listener() as listening:
        client = BroadcastClient(listening.url, wait=SECONDS)
        connecting = in_thread(client.connect)
        act(listening)
        act(listening)
        server = listening.accept_events()
        assert connecting.result(SECONDS) is client
        assert client.state == "open"
        server.sock.close()
        client.close(timeout=0)


def test_a_hub_that_starts_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at first."""
    port = lasting_port()
    url = f"ws://127.0.0.1:{port}/r"
    with pytest.raises(ConnectFailed, match="refused"):
        BroadcastClient(url).connect()
    client = BroadcastClient(url, wait=SECONDS)
    core = client_core_of(client)
    real = core.dial
    attempts = threading.Semaphore(0)

    def dial(to: str) -> dialer.Dialing:
        attempts.release()
        return real(to)

    monkeypatch.setattr(core, "dial", dial)
    connecting = in_thread(client.connect)
    for _ in range(2):
        assert attempts.acquire(timeout=SECONDS)
    with running_hub(port=port) as hub:
        connecting.result(SECONDS)
        assert [member.id for member in hub.members("/r")] == [client.id]
        client.close()


@pytest.mark.parametrize("status", [401, 403, 404, 421, 429, 500])
def test_a_refusal_is_not_waited_for(status: int) -> None:
    """A hub that is there has said what it thinks."""
    with listener() as listening:
        client = BroadcastClient(listening.url, wait=1000.0)
        connecting = in_thread(client.connect)
        listening.refuse(status)
        with pytest.raises(ConnectFailed) as failed:
            connecting.result(SECONDS)
        assert failed.value.status == status
        assert (client.state, client.closed) == ("closed", False)


def test_waiting_ends_with_its_time_and_the_last_failure() -> None:
    """And the client may try again later."""
    client = BroadcastClient(f"ws://127.0.0.1:{lasting_port()}/", wait=0.3)
    with pytest.raises(ConnectFailed, match="refused"):
        client.connect()
    assert (client.state, client.closed) == ("closed", False)


def wait_for_nobody(client: BroadcastClient) -> concurrent.futures.Future[Any]:
    """Have a client wait for a hub that does not come; return when it is between two attempts."""
    connecting = in_thread(client.connect)
    core = client_core_of(client)

    def pauses() -> bool:
        with core.lock:
            return bool(waiters_of(core.changed))

    assert wait_until(pauses)
    assert client.state == "connecting"
    with pytest.raises(UsageError):
        client.connect()  # somebody does so already
    return connecting


def test_close_ends_the_wait() -> None:
    """Between two attempts as during one."""
    client = BroadcastClient(f"ws://127.0.0.1:{lasting_port()}/", wait=1000.0)
    connecting = wait_for_nobody(client)
    assert client.close() is False
    with pytest.raises(ConnectFailed, match="closed while"):
        connecting.result(SECONDS)
    assert (client.state, client.closed) == ("closed", True)


def test_ctrl_c_ends_the_wait() -> None:
    """And the client may try again later."""
    main = threading.main_thread().ident
    assert main is not None
    client = BroadcastClient(f"ws://127.0.0.1:{lasting_port()}/", wait=1000.0)
    core = client_core_of(client)

    def interrupt() -> None:
        assert wait_until(lambda: bool(waiters_of(core.changed)))
        signal.pthread_kill(main, signal.SIGINT)

    interrupting = in_thread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        client.connect()
    interrupting.result(SECONDS)
    assert (client.state, client.closed) == ("closed", False)


def test_close_cuts_off_an_attempt_that_gets_no_answer() -> None:
    """Nobody waits for a server that keeps silent once the client is not wanted any more."""
    with listener() as listening:
        client = BroadcastClient(listening.url, open_timeout=1000.0)
        connecting = in_thread(client.connect)
        sock, _ = listening.read_head()
        with sock:
            assert client.close() is False
            with pytest.raises(ConnectFailed, match="closed while"):
                connecting.result(SECONDS)
            assert sock.recv(1) == b""
        assert (client.state, client.closed) == ("closed", True)


def test_close_in_the_moment_of_success_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of a connection that nobody wants any more."""
    real = dialer.Dialing.dial

    def dial(self: dialer.Dialing) -> tuple[socket.socket, str | None]:
        found = real(self)
        assert client.close() is False
        return found

    with running_hub() as hub:
        client = BroadcastClient(hub.url)
        monkeypatch.setattr(dialer.Dialing, "dial", dial)
        with pytest.raises(ConnectFailed, match="closed while"):
            client.connect()
        assert wait_until(lambda: not hub.members())


def test_publish_during_an_attempt_that_fails_fails_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if it looks only when the client is as it was before, ready for another attempt."""
    with listener() as listening:
        client = BroadcastClient(listening.url)
        core = client_core_of(client)
        real = core.wait_locked

        def wait_long(*arguments: Any, **options: Any) -> None:
            real(*arguments, **options)
            if core.ended:  # it has heard of it, and is late
                core.lock.release()
                connecting.exception(SECONDS)
                core.lock.acquire()

        monkeypatch.setattr(core, "wait_locked", wait_long)
        connecting = in_thread(client.connect)
        server = listening.accept(SUBPROTOCOL)
        assert wait_until(lambda: core.link is not None)
        publishing = in_thread(client.publish, "x")
        assert wait_until(lambda: bool(core.answers))
        server.sock.close()
        with pytest.raises(ConnectFailed, match=r"without a Close|reset"):
            connecting.result(SECONDS)
        with pytest.raises(ConnectionClosed):
            publishing.result(SECONDS)
        assert core.answers == {}


def test_connecting_that_fails_does_not_wait_for_a_callback_that_hangs() -> None:
    """The client's thread may be held by its user; whoever connects is told all the same."""
    done = threading.Event()
    with listener() as listening:
        client = BroadcastClient(
            listening.url, close_timeout=0.1, on_state=lambda _: done.wait(SECONDS)
        )
        connecting = in_thread(client.connect)
        listening.accept(SUBPROTOCOL).sock.close()
        try:
            with pytest.raises(ConnectFailed):
                connecting.result(SECONDS / 2)
        finally:
            done.set()


@pytest.mark.parametrize("failing", ["client-writer", "client"])
def test_client_without_a_thread_leaves_nothing(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has no more threads connecting fails, and may be tried again."""
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name == failing:
            raise RuntimeError("can't start new thread")
        real(self)

    with running_hub() as hub:
        client = BroadcastClient(hub.url)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="new thread"):
                client.connect()
        assert wait_until(lambda: not hub.members())
        with client:
            assert len(hub.members()) == 1


@pytest.mark.parametrize("wish", [None, "7"])
def test_refusal_tells_when_to_try_again(wish: str | None) -> None:
    """What the server asks for is for whoever tries again by himself."""
    with listener() as listening:
        refused = in_thread(listening.refuse, 503, wish)
        with pytest.raises(ConnectFailed) as caught:
            BroadcastClient(listening.url).connect()
        refused.result(SECONDS)
        assert caught.value.status == 503
        assert caught.value.retry_after == (None if wish is None else 7.0)


def test_redirect_is_not_followed() -> None:
    """The header lines may have a secret in them, which is for this server and no other."""

    def redirect(listening: Listener, target: str) -> None:
        sock, _ = listening.read_head()
        with sock:
            sock.sendall(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n".encode())

    with listener() as listening, listener() as other:
        served = in_thread(redirect, listening, other.url)
        with pytest.raises(ConnectFailed, match="HTTP status 302") as caught:
            BroadcastClient(listening.url, headers={"Authorization": "secret"}).connect()
        served.result(SECONDS)
        assert caught.value.status == 302
        other.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.sock.accept()


def test_endless_open_timeout_waits_for_the_welcome() -> None:
    """As long as the system can wait; a poll of "for ever" would fail at once."""
    with listener() as listening:
        client = BroadcastClient(listening.url, open_timeout=float("inf"))
        connecting = in_thread(client.connect)
        server = listening.accept(SUBPROTOCOL)
        with server.sock:
            for _ in range(2):
                server.ping()  # the client waits for more
            server.welcome()
            assert connecting.result(SECONDS).state == "open"
        client.close(timeout=0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_callback_that_ends_its_thread_leaves_no_connection() -> None:
    """sys.exit() in a callback ends the client, and nothing stays behind."""

    def leave(state: str) -> None:
        raise SystemExit

    with listener() as listening:
        accepted = in_thread(listening.accept)
        client = BroadcastClient(listening.url, on_state=leave).connect()
        with accepted.result(SECONDS).sock as sock:
            assert sock.recv(1) == b""
        with pytest.raises(ConnectionClosed):
            client.recv(SECONDS)
        assert wait_until(lambda: client.state == "closed")
        assert client.close() is False


pytestmark = pytest.mark.slow

# -- Closed ------------------------------------------------------------------------------------


def test_close_with_a_timeout_is_bounded_although_a_callback_hangs() -> None:
    """The client has ended, and only its thread has not."""
    inside, done = threading.Event(), threading.Event()

    def hang(_: str) -> None:
        inside.set()
        done.wait()

    with running_hub() as hub:
        client = BroadcastClient(hub.url, close_timeout=1000.0, on_state=hang).connect()
        assert inside.wait(SECONDS)
        try:
            closing = in_thread(client.close, timeout=0)
            assert closing.result(SECONDS) is True  # nothing was sent
            assert (client.state, client.timed_out) == ("closed", True)
        finally:
            done.set()


def test_close_that_was_interrupted_may_be_called_again() -> None:
    """Ctrl-C ends the wait and nothing else: the second call waits like the first."""
    main = threading.main_thread().ident
    assert main is not None
    with event_pair(close_timeout=1000.0) as (client, server, _):
        client.send("x")
        event = server.recv_event()

        def interrupt() -> None:
            server.recv_close()
            signal.pthread_kill(main, signal.SIGINT)

        interrupting = in_thread(interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.close()
        interrupting.result(SECONDS)
        closing = in_thread(client.close)
        with pytest.raises(concurrent.futures.TimeoutError):  # not the built-in one in Python 3.10
            closing.result(0.1)
        server.ack(event, 1)
        server.send_close(1000)
        server.sock.shutdown(socket.SHUT_WR)
        assert closing.result(SECONDS) is True


# -- Dropped -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_cycle", [False, True])
def test_client_that_is_dropped_is_closed(is_cycle: bool) -> None:
    """With a warning, as a file is; what it has sent arrives, and the others see it leave."""
    with running_hub() as hub, BroadcastClient(hub.url, presence=True) as watching:
        client = BroadcastClient(hub.url).connect()
        for number in range(100):
            client.send(str(number))
        if is_cycle:
            client.itself = client  # type: ignore[attr-defined]
        thread = client_core_of(client).thread
        assert thread is not None
        with pytest.warns(ResourceWarning, match="unclosed client of ws://127.0.0.1"):
            del client
            gc.collect()
        thread.join(SECONDS)
        assert not thread.is_alive()
        told = [watching.recv(SECONDS) for _ in range(103)]
        assert [item.data for item in told[2:-1]] == [str(number) for number in range(100)]
        kinds = [item.kind for item in told if isinstance(item, Presence)]
        assert kinds == ["members", "join", "leave"]


def test_finalizer_takes_no_lock() -> None:
    """It may run anywhere, also where the thread that runs it holds a lock of the client."""
    with listener() as listening:
        accepted = in_thread(listening.accept)
        client = BroadcastClient(listening.url).connect()
        server = accepted.result(SECONDS)
        core, link = client_core_of(client), link_of(client)
        assert link is not None
        with pytest.warns(ResourceWarning), core.lock, lock_of(link.channel):
            del client
        assert server.accept_close() == (1001, "")
        server.recv_eof()
        server.sock.close()
        assert wait_until(lambda: core.thread is not None and not core.thread.is_alive())


def test_client_that_is_dropped_by_its_own_thread_is_closed() -> None:
    """A callback may have the last reference."""
    held: list[BroadcastClient] = []
    others_are_gone = threading.Event()
    droppers: list[threading.Thread] = []

    def drop(_: str) -> None:
        assert others_are_gone.wait(SECONDS)
        droppers.append(threading.current_thread())
        held.clear()

    with warnings.catch_warnings(record=True) as found, listener() as listening:
        warnings.simplefilter("always")
        accepted = in_thread(listening.accept)
        held.append(BroadcastClient(listening.url, on_state=drop))
        held[0].connect()
        core = client_core_of(held[0])
        others_are_gone.set()
        server = accepted.result(SECONDS)
        assert server.accept_close() == (1001, "")
        server.recv_eof()
        server.sock.close()
        assert wait_until(lambda: core.state == "closed")
        assert droppers[0] is core.thread
        assert [warning.category for warning in found] == [ResourceWarning]


def test_client_that_has_ended_is_dropped_without_a_word() -> None:
    """Closed, ended by its peer, or never connected: it holds nothing any more."""
    with warnings.catch_warnings(record=True) as found, running_hub() as hub:
        warnings.simplefilter("always")
        with BroadcastClient(hub.url):
            pass
        ended = BroadcastClient(hub.url, reconnect=False).connect()
        assert ended.id is not None
        hub.disconnect(ended.id)
        with pytest.raises(ConnectionClosed):
            ended.recv(SECONDS)
        unused = BroadcastClient(hub.url)
        with pytest.raises(UsageError):
            BroadcastClient("no address")
        del ended, unused
        gc.collect()
        assert found == []


# -- At the end of the program -----------------------------------------------------------------


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [PYTHON, "-c", program, *arguments],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


SENDER = """
import sys
from broadcast_server import BroadcastClient
client = BroadcastClient(sys.argv[1], reconnect=sys.argv[2] == "True").connect()
for number in range(2000):
    client.send(str(number))
"""


@pytest.mark.parametrize("reconnect", [False, True])
@pytest.mark.parametrize(("end", "status"), [("", 0), ("sys.exit(3)", 3), ("1 / 0", 1)])
def test_program_that_ends_has_sent_everything(end: str, status: int, reconnect: bool) -> None:
    """Whatever it ends by, and a goodbye; it should have closed its client, but a queue is one."""
    seen: list[Any] = []
    left: list[Any] = []

    def note(*told: Any) -> None:
        left.append(told)

    with running_hub(on_message=seen.append, on_leave=note, max_rate=0) as hub:
        finished = run(SENDER + end, hub.url, str(reconnect))
        assert finished.returncode == status
        assert wait_until(lambda: bool(left))
        assert left[0][1] == 1001
        assert [message.data for message in seen] == [str(number) for number in range(2000)]
    assert ("ZeroDivisionError" in finished.stderr) is (status == 1)
    assert "taken" not in finished.stderr


def test_program_ends_although_its_server_is_silent() -> None:
    """After a bounded time, and it says that something may be missing."""
    with listener() as listening:
        program = SENDER.replace("reconnect=", "close_timeout=0.3, reconnect=")
        running = in_thread(run, program, listening.url, "True")
        server = listening.accept(SUBPROTOCOL)
        server.welcome()
        with server.sock:
            finished = running.result(60)
    assert finished.returncode == 0
    assert "may not have taken everything" in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_program_whose_close_is_interrupted_ends_at_once() -> None:
    """Who does not want to wait for a silent server, and says so once, need not say it twice."""
    program = """
import sys
from broadcast_server import BroadcastClient
from broadcast_server.client import lifecycle
lifecycle.EXIT_SECONDS = 1000.0
client = BroadcastClient(sys.argv[1], close_timeout=1000.0).connect()
client.send("x")
try:
    client.close()
except KeyboardInterrupt:
    print("interrupted")
"""
    with listener() as listening:
        process = subprocess.Popen(
            [PYTHON, "-c", program, listening.url],
            env=python_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        server = listening.accept_events()
        with process, server.sock:
            assert server.recv_event()["data"] == "x"
            assert server.recv_close() == (1000, "")
            process.send_signal(signal.SIGINT)
            try:
                output, complaints = process.communicate(timeout=30)
            finally:
                process.kill()
    assert (process.returncode, output) == (0, "interrupted\n")
    assert "may not have taken everything" in complaints


def test_program_ends_although_a_callback_does_not() -> None:
    """The client's thread is left where it is."""
    program = """
import sys, threading
from broadcast_server import BroadcastClient
inside = threading.Event()
def hang(state):
    inside.set()
    threading.Event().wait()
client = BroadcastClient(sys.argv[1], close_timeout=0.3, on_state=hang).connect()
inside.wait()
print("end")
"""
    with running_hub() as hub:
        finished = run(program, hub.url)
    assert (finished.returncode, finished.stdout) == (0, "end\n")


def test_forked_child_that_ends_leaves_the_connection_alone() -> None:
    """It is the parent's: the child neither closes nor waits."""
    program = """
import os, sys, warnings
warnings.simplefilter("ignore")  # fork in a process with threads: on purpose
from broadcast_server import BroadcastClient
client = BroadcastClient(sys.argv[1]).connect()
child = os.fork()
if child == 0:
    sys.exit(7)
_, status = os.waitpid(child, 0)
assert status == 7 << 8, status
client.publish("still mine", timeout=10)
client.close()
"""
    with running_hub() as hub:
        finished = run(program, hub.url)
    assert (finished.returncode, finished.stderr) == (0, "")


# What a thread of the program does: ends when the client is closed.
RECEIVER = """
import concurrent.futures, sys, threading
from broadcast_server import BroadcastClient, BroadcastHub
hub = BroadcastHub(port=0).start()
seen = []
got_one = threading.Event()
def receive(client):
    for message in client:
        seen.append(message.data)
        got_one.set()
def ready(client):
    hub.broadcast("x")
    assert got_one.wait(20)
"""
ENDS = {
    "daemon thread, never closed": """
client = BroadcastClient(hub.url).connect()
threading.Thread(target=receive, args=(client,), daemon=True).start()
ready(client)
""",
    "ordinary thread, closed": """
client = BroadcastClient(hub.url).connect()
threading.Thread(target=receive, args=(client,)).start()
ready(client)
client.close()
""",
    "ordinary thread, with": """
with BroadcastClient(hub.url) as client:
    threading.Thread(target=receive, args=(client,)).start()
    ready(client)
""",
    "executor around the client": """
with concurrent.futures.ThreadPoolExecutor() as executor, BroadcastClient(hub.url) as client:
    executor.submit(receive, client)
    ready(client)
""",
    "executor of the module": """
executor = concurrent.futures.ThreadPoolExecutor()
with BroadcastClient(hub.url) as client:
    executor.submit(receive, client)
    ready(client)
""",
    "executor, many wait": """
with concurrent.futures.ThreadPoolExecutor(4) as executor, BroadcastClient(hub.url) as client:
    for _ in range(4):
        executor.submit(receive, client)
    ready(client)
""",
    "client that is dropped by nobody": """
class Owner:
    client = BroadcastClient(hub.url).connect()
threading.Thread(target=receive, args=(Owner.client,), daemon=True).start()
ready(Owner.client)
""",
    # The program goes on without its main thread, and ends with its last ordinary one.
    "ordinary thread, closes itself": """
def bot(client):
    main.join()
    hub.broadcast("y", timeout=20)
    assert client.recv(20).data == "y"
    client.close()
main = threading.main_thread()
client = BroadcastClient(hub.url).connect()
threading.Thread(target=bot, args=(client,)).start()
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_program_with_a_thread_that_waits_ends_as_documented(end: str) -> None:
    """With no warning, no exception on any thread and nothing on standard error."""
    finished = subprocess.run(
        [PYTHON, "-W", "error", "-c", RECEIVER + ENDS[end]],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_waiting_thread_keeps_the_program_until_the_hub_says_goodbye() -> None:
    """One that is ordinary, and has a client that nobody closes."""
    program = """
import sys, threading
from broadcast_server import BroadcastClient
def receive(client):
    for message in client:
        print(message.data, flush=True)
client = BroadcastClient(sys.argv[1], reconnect=False).connect()
threading.Thread(target=receive, args=(client,)).start()
"""
    with running_hub() as hub:
        with subprocess.Popen(
            [PYTHON, "-W", "error", "-c", program, hub.url],
            env=python_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert wait_until(lambda: bool(hub.members()))
                assert process.stdout is not None
                for text in "a", "b":
                    hub.broadcast(text)
                    assert process.stdout.readline() == f"{text}\n"
                hub.stop()
                out, err = process.communicate(timeout=30)
            finally:
                process.kill()
        assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("client", ["connected", "closed", "never connected", "failed"])
def test_client_that_outlives_the_modules_says_nothing(client: str) -> None:
    """An object may be found when the names of every module are gone: its finalizer needs none."""
    program = f"""
import __main__, sys
from broadcast_server import BroadcastClient, BroadcastHub
sys.keeps = __main__  # so the interpreter clears it last
hub = BroadcastHub(port=0).start()
kind = {client!r}
try:
    client = BroadcastClient(hub.url if kind != "failed" else "ws://127.0.0.1:1/")
    if kind != "never connected":
        client.connect()
except Exception:
    assert kind == "failed"
if kind == "closed":
    client.close()
"""
    finished = subprocess.run(
        [PYTHON, "-W", "error", "-c", program],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")
