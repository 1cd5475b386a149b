"""The hub that is attacked: a process of its own (``fuzzed_hub.py``), as seen from outside."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator

from ..support import PYTHON, ROOT, python_environment


class Wrong(Exception):
    """The hub has done what it must not."""


class HubProcess:
    """The hub that is attacked, as seen from outside."""

    def __init__(self, process: subprocess.Popen[str], port: int, errors: pathlib.Path) -> None:
        self.pid = process.pid
        self.port = port
        self._process = process
        self._errors = errors
        self._place = 0

    def counts(self) -> tuple[int, int]:
        """Return how many threads and descriptors it has."""
        base = pathlib.Path(f"/proc/{self.pid}")
        return len(os.listdir(base / "task")), len(os.listdir(base / "fd"))

    def check(self) -> None:
        """Look whether it lives and what it has said since the last look.

        Raises:
            Wrong: it has died, or something in it has failed.
        """
        code = self._process.poll()
        with self._errors.open("rb") as file:
            # From the last whole line on: half a word is none.
            file.seek(self._place)
            new = file.read()
        whole = new.rpartition(b"\n")[0]
        self._place += len(whole)
        check_log(whole if code is None else new)
        if code is not None:
            raise Wrong(f"the hub has ended with {code}: {new[-2000:].decode(errors='replace')}")


def check_log(text: bytes) -> None:
    """Look at what a hub has written to its standard error.

    Raises:
        Wrong: something in it has failed.
    """
    found = re.search(rb"^(?:ERROR|CRITICAL|Traceback|Exception|Fatal).*", text, re.MULTILINE)
    if found is not None:
        raise Wrong("the hub says: " + text[found.start() : found.start() + 4000].decode("latin-1"))


@contextlib.contextmanager
def hub_process() -> Iterator[HubProcess]:
    """Run the hub that is attacked; it must end well."""
    with tempfile.TemporaryDirectory() as folder:
        errors = pathlib.Path(folder) / "stderr"
        with (
            errors.open("wb") as file,
            subprocess.Popen(
                [PYTHON, "-m", "tests.fuzz.fuzzed_hub"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                cwd=ROOT,
                env=python_environment(),
            ) as process,
        ):
            try:
                assert process.stdin is not None and process.stdout is not None
                port = urllib.parse.urlsplit(process.stdout.readline()).port
                if port is None:
                    raise Wrong(f"the hub did not start: {errors.read_text()[-2000:]}")
                hub = HubProcess(process, port, errors)
                yield hub
                hub.check()
                process.stdin.close()
                if process.wait(30) != 0:
                    raise Wrong(f"the hub has ended with {process.returncode}")
            finally:
                if process.poll() is None:
                    process.kill()
