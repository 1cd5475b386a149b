"""SIGTERM in a program with a hub of its own; what its signal handlers may call, and where."""

from __future__ import annotations

import contextlib
import functools
import itertools
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from broadcast_server import BroadcastHub, HubStopped, UsageError
from broadcast_server.hub.signals import has_interrupted_us

from ..support import PYTHON, RawClient, python_environment, running_hub, wait_until
from ..support.beside import in_thread
from ..support.inside import fanout_of, has_ended, sleeps
from ..support.raw_client import is_listening

pytestmark = pytest.mark.slow

# A program that embeds a hub; what it does with signals follows, and then its end.
PROGRAM = """
import os, signal, sys, threading, time
from broadcast_server import BroadcastHub
hub = BroadcastHub(port=0, close_timeout=300, stop_timeout=300)
said = lambda *_: os.write(1, b"mine\\n")
signal.signal(signal.SIGTERM, said)
hub.start()
print(hub.port, flush=True)
set_handler = signal.signal
def tell(number, handler):
    before = set_handler(number, handler)
    if number == signal.SIGTERM and handler is not said:
        os.write(1, b"ready\\n")
    return before
signal.signal = tell
"""
END = """
print("end", signal.getsignal(signal.SIGTERM) is said, flush=True)
"""


@contextlib.contextmanager
def program(text: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a program with a hub; give the process and the port, once it is ready for SIGTERM."""
    with subprocess.Popen(
        [PYTHON, "-W", "error", "-c", PROGRAM + text],
        env=python_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            if "signals=True" in text or "signal.SIGTERM" in text:
                assert process.stdout.readline() == "ready\n"
            yield process, port
        finally:
            process.kill()


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Return how a process ends, and what it has written since."""
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


# -- serve_forever(signals=True) ---------------------------------------------------------------


def test_sigterm_drains_and_the_old_handler_is_put_back() -> None:
    """Clients are told 1001, the call returns, and the program goes on to its own end."""
    with program("hub.serve_forever(signals=True)" + END) as (process, port):
        with RawClient.connect(port=port) as client:
            client.sync()
            process.terminate()
            assert client.recv_close()[0] == 1001
            client.send_close()
            client.recv_eof()
        assert outcome(process) == (0, "end True\n", "")


def test_second_sigterm_ends_at_once() -> None:
    """Although a client does not answer, and the hub would wait for it for five minutes."""
    text = "hub.serve_forever(signals=True)" + END + "sys.stdin.readline()"
    with program(text) as (process, port):
        assert process.stdout is not None
        # One may have come when the old handler was back.
        end = in_thread(lambda out: next(line for line in out if line != "mine\n"), process.stdout)
        with RawClient.connect(port=port) as client:
            client.sync()
            process.terminate()
            assert client.recv_close()[0] == 1001

            def has_ended() -> bool:
                if not end.done():
                    # Those that come at the same moment as the first one count as one.
                    process.terminate()
                return end.done()

            assert wait_until(has_ended, 30)
        assert end.result(0) == "end True\n"
        code, out, err = outcome(process)
        assert (code, out.replace("mine\n", ""), err) == (0, "", "")


def test_two_signals_at_the_same_moment_are_one() -> None:
    """Who sends one to a process and to its group means it once."""
    text = """
class Twice(BroadcastHub):
    def start(self):
        signal.raise_signal(signal.SIGTERM)  # also when it does not serve yet
        signal.raise_signal(signal.SIGTERM)
        return super().start()
hub.stop()
hub = Twice(port=0)
hub.serve_forever(signals=True)
"""
    with program(text + END) as (process, _):
        assert outcome(process) == (0, "end True\n", "")


def test_stop_elsewhere_ends_it_as_well() -> None:
    """Without a signal the handler is put back, too."""
    text = """
threading.Thread(target=lambda: (sys.stdin.readline(), hub.stop())).start()
hub.serve_forever(signals=True)
"""
    with program(text + END) as (process, _):
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert outcome(process) == (0, "end True\n", "")


def test_stop_before_it_serves_is_not_forgotten() -> None:
    """The hub ran when it was to be served, so it is not started again."""
    text = """
class Early:
    def __enter__(self):
        stopper = threading.Thread(target=hub.stop)
        stopper.start()
        stopper.join()
        return entered.__enter__()
    def __exit__(self, *given):
        return entered.__exit__(*given)
from broadcast_server.hub import hub as module
entered = module.Terminations()
module.Terminations = Early
hub.serve_forever(signals=True)
"""
    with program(text + END) as (process, _):
        assert outcome(process) == (0, "end True\n", "")


def test_interrupt_is_pythons_own() -> None:
    """Ctrl-C raises, and the handler for SIGTERM is put back."""
    text = """
try:
    hub.serve_forever(signals=True)
except KeyboardInterrupt:
    hub.stop()
"""
    with program(text + END) as (process, port):
        with RawClient.connect(port=port) as client:
            client.sync()
            process.send_signal(signal.SIGINT)
            assert client.recv_close()[0] == 1001
            client.send_close()
            client.recv_eof()
        assert outcome(process) == (0, "end True\n", "")


def test_start_that_fails_puts_the_handler_back() -> None:
    """Before anything is served."""
    before = signal.getsignal(signal.SIGTERM)
    with running_hub() as hub, pytest.raises(OSError):
        BroadcastHub(port=hub.port).serve_forever(signals=True)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_get_no_signals() -> None:
    """They are told so, and nothing is started."""
    hub = BroadcastHub(port=0)
    with pytest.raises(UsageError, match="main thread"):
        in_thread(lambda: hub.serve_forever(signals=True)).result(10)
    assert has_ended(hub)


# -- A handler of the program's own ------------------------------------------------------------


@pytest.mark.parametrize("call", ["stop", "drain"])
@pytest.mark.parametrize("waits", ["hub.serve_forever()", "done.wait()", "time.sleep(300)"])
def test_handler_may_end_the_hub(call: str, waits: str) -> None:
    """As everybody writes it, whatever the main thread does at the moment."""
    text = f"""
done = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: (hub.{call}(), done.set(), sys.exit()
              if "sleep" in {waits!r} else None))
{waits}
"""
    with program(text) as (process, port):
        with RawClient.connect(port=port) as client:
            client.sync()
            process.terminate()
            assert client.recv_close()[0] == 1001
            client.send_close()
            client.recv_eof()
        assert outcome(process) == (0, "", "")


def handled(call: Callable[[], object], after: int, handler: Callable[[], object]) -> bool:
    """Make a call, and have it interrupted by a handler after so many of the points where Python
    calls one; return False if there are fewer."""
    left = after
    done = False

    def look(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal left, done
        ours = frame.f_globals.get("__name__", "").startswith(("broadcast_server", "threading"))
        if ours and event in ("call", "c_return"):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                done = True
                handler()

    sys.setprofile(look)
    try:
        call()
    except HubStopped:
        assert done
    finally:
        sys.setprofile(None)
    return done


CALLS: dict[str, Callable[[BroadcastHub], object]] = {
    "broadcast": lambda hub: hub.broadcast("x", "/r"),
    "send": lambda hub: hub.send("c1", "x"),
    "disconnect": lambda hub: hub.disconnect("c1"),
    "stop": lambda hub: hub.stop(),
    "stats": lambda hub: hub.stats(),
}


@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.stress)])
@pytest.mark.parametrize("call", CALLS)
def test_stop_in_a_handler_waits_for_no_lock(call: str, step: int) -> None:
    """At whichever point the signal has interrupted a call: the hub ends, and says goodbye."""
    for after in itertools.count(0, step):
        hub = BroadcastHub(port=0, close_timeout=0.2).start()
        port = hub.port
        with RawClient.connect(port=port, path="/r") as client:
            client.sync()
            assert sleeps(fanout_of(hub))
            has_more = handled(functools.partial(CALLS[call], hub), after, hub.stop)
            if has_more:
                assert client.recv_until_close()[1] in (1000, 1001)
            hub.stop()
        assert has_ended(hub) and not is_listening(port)
        if not has_more:
            return


def test_handler_that_interrupted_nothing_of_ours_does_the_work() -> None:
    """When it returns the hub has stopped, and no thread is needed."""
    with running_hub() as hub:
        previous = signal.signal(signal.SIGTERM, lambda *_: hub.stop())
        try:
            signal.raise_signal(signal.SIGTERM)
            assert has_ended(hub)
        finally:
            signal.signal(signal.SIGTERM, previous)
        assert "hub-end" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("module", "ours"),
    [
        ("broadcast_server.hub.core", True),
        ("broadcast_server.client.client", True),
        ("broadcast_server.wire.frames", True),
        # These call the hub on the main thread, and hold no lock.
        ("broadcast_server.cli", False),
        ("broadcast_server.cli.commands.service", False),
        ("broadcast_server.exits", False),
        ("broadcast_serverless", False),
        ("__main__", False),
    ],
)
def test_code_of_ours_is_told_from_others(module: str, ours: bool) -> None:
    """By the module of each function on the stack, on the main thread."""
    names: dict[str, Any] = {"__name__": module}
    exec("def run(function): return function()", names)

    def method() -> bool:
        return has_interrupted_us(frozenset())

    def handler() -> bool:
        return method()

    assert names["run"](handler) is ours
    assert in_thread(names["run"], handler).result(10) is False
