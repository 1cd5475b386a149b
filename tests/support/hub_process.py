"""A hub in a process of its own.

``python -m tests.support.hub_process '{"room_log_bytes": 67108864}'`` prints its
URL on one line and stops when its standard input ends, so that it never outlives whoever started
it. Used where a test measures memory or must not share the interpreter.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

from . import PYTHON, ROOT, python_environment


@contextlib.contextmanager
def hub_process(
    *, log: IO[str] | None = None, environment: Mapping[str, str] = {}, **settings: Any
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a hub with these settings elsewhere; gives the process and the hub's URL.

    Args:
        log: takes what the process writes to its standard error.
        environment: more variables for the process.
    """
    command = [PYTHON, "-m", "tests.support.hub_process", json.dumps(settings)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        cwd=ROOT,
        env=python_environment() | environment,
    ) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError(f"the hub's process ended with {process.wait(10)}")
            yield process, url
            process.stdin.close()
            code = process.wait(30)
            if code != 0:
                raise RuntimeError(f"the hub's process ended with {code}")
        finally:
            if process.poll() is None:
                process.kill()


def main() -> None:
    """Run the hub until standard input ends."""
    from broadcast_server import BroadcastHub

    with BroadcastHub(**{"port": 0, **json.loads(sys.argv[1])}) as hub:
        print(hub.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
