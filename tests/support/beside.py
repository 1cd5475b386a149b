"""What runs beside a test: functions on a thread of their own, programs with all they start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

SECONDS = 20.0

T = TypeVar("T")


def in_thread(function: Callable[..., T], *arguments: Any, **options: Any) -> Future[T]:
    """Call a function on a thread of its own."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function, *arguments, **options)
    pool.shutdown(wait=False)
    return future


@contextlib.contextmanager
def during(function: Callable[..., T], *arguments: Any, **options: Any) -> Iterator[list[T]]:
    """Call a function on a thread beside the block, at whose end it must have returned; gives a
    list that gets what it returns."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(function(*arguments, **options)))
    thread.start()
    try:
        yield found
    finally:
        thread.join(SECONDS)
        assert not thread.is_alive()


@contextlib.contextmanager
def process_group(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a session of its own, with pipes for what the options do not name; it and
    all that it has started are ended in the end."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes | options) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
