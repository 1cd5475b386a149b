"""docs/howto/tokens.md is run as it stands there, block after block, in an empty directory."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import subprocess
from typing import Any

import pytest

from ..support import PYTHON, ROOT, needs_module, python_environment

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/howto/tokens.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SECONDS = 30


class Reader:
    """Somebody who does what the page says; the hub listens on a free port instead of 8765."""

    def __init__(self, place: pathlib.Path) -> None:
        self.place = place
        self.hub: subprocess.Popen[str] | None = None
        self.port = "0"
        command = place / "bin" / "broadcast-server"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {PYTHON} -m broadcast_server "$@"\n')
        command.chmod(0o755)
        kept = {k: v for k, v in python_environment().items() if not k.startswith("BROADCAST_")}
        self.environment = {**kept, "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}

    def start(self, line: str) -> None:
        """Run a hub in another terminal, as it were; the one before is stopped."""
        self.stop()
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        words = line.replace("8765", "0").split()
        self.hub = subprocess.Popen(
            words, cwd=self.place, env=self.environment, text=True, **options
        )
        assert self.hub.stdout is not None
        found = re.search(r":(\d+)/", self.hub.stdout.readline())
        assert found is not None
        self.port = found[1]

    def stop(self) -> None:
        """End the hub, if there is one; it had nothing to complain about."""
        if self.hub is not None:
            self.hub.send_signal(signal.SIGTERM)
            _, log = self.hub.communicate(timeout=SECONDS)
            assert self.hub.returncode == 0
            assert "WARNING" not in log and "ERROR" not in log, log
            self.hub = None

    def run(self, kind: str, text: str) -> str:
        """Run a block to its end; return what it prints."""
        text = text.replace("8765", self.port)
        words = ["sh", "-eu", "-c", text] if kind == "sh" else [PYTHON, "-c", text]
        done = subprocess.run(
            words,
            cwd=self.place,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, (text, done.stderr)
        return done.stdout


@pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("curl")), reason="openssl or curl is missing"
)
def test_page_does_what_it_says(tmp_path: pathlib.Path) -> None:
    """Each command succeeds, and what a program prints is what stands beside it."""
    needs_module("jwt")
    reader = Reader(tmp_path)
    printed = []
    try:
        for kind, text in BLOCKS:
            if text.startswith("broadcast-server start"):
                reader.start(text)
                continue
            output = reader.run(kind, text)
            expected = re.findall(r"# prints: (.*)", text)
            if expected:
                assert output.splitlines() == expected
            printed.append(output)
    finally:
        if reader.hub is not None and reader.hub.poll() is None:
            reader.stop()
    assert len(BLOCKS) == 11 and any('"room":"/scores"' in output for output in printed)
    for name in ("publish-token", "token", "private.pem"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
