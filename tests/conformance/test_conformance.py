"""The Autobahn suite against hub and client, and a proof that its driver can fail."""

from __future__ import annotations

import json
import pathlib
import subprocess
import threading
from typing import Any

import pytest
from websocket_server import WebsocketServer

from ..support import PYTHON, ROOT, needs_module, python_environment

pytestmark = pytest.mark.slow

CORE = "1-7,10"
CORE_CASES = 247
BIG = "9"
BIG_CASES = 54


def drive(tmp_path: pathlib.Path, *arguments: str, timeout: float) -> tuple[int, dict[str, Any]]:
    """Run the driver; return its exit status and its report."""
    needs_module("websockets")
    report = tmp_path / "report.json"
    finished = subprocess.run(
        [PYTHON, "-m", "tests.conformance.run", *arguments, "--report", str(report)],
        cwd=ROOT,
        env=python_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    print(finished.stdout)
    assert report.exists(), finished.stdout
    return finished.returncode, json.loads(report.read_text())


@pytest.mark.timeout(240)
@pytest.mark.parametrize("role", ["server", "client"])
def test_core_cases_pass(role: str, tmp_path: pathlib.Path) -> None:
    """Groups 1 to 7 and 10: nothing fails, closes uncleanly or hangs."""
    code, report = drive(tmp_path, "--role", role, "--groups", CORE, timeout=220)
    assert report["failed"] == [] and report["missing"] == []
    assert len(report["cases"]) == CORE_CASES
    assert code == 0


@pytest.mark.stress
@pytest.mark.timeout(900)
@pytest.mark.parametrize("role", ["server", "client"])
def test_big_cases_pass(role: str, tmp_path: pathlib.Path) -> None:
    """Group 9: messages of up to 16 MiB, whole and in up to 65,536 fragments."""
    code, report = drive(tmp_path, "--role", role, "--groups", BIG, timeout=880)
    assert report["failed"] == [] and report["missing"] == []
    assert len(report["cases"]) == BIG_CASES
    assert code == 0


def test_driver_reports_a_broken_server(tmp_path: pathlib.Path) -> None:
    """Against websocket-server, which knows no fragments and echoes no Close, the driver fails."""
    server = WebsocketServer(host="127.0.0.1", port=0, loglevel=50)
    server.set_fn_message_received(lambda client, hub, text: hub.send_message(client, text))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        url = f"ws://127.0.0.1:{server.port}/{{case}}"
        code, report = drive(
            tmp_path, "--role", "server", "--groups", "1.1.1,4.1,5.3", "--url", url, timeout=50
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
    assert code == 1
    cases = report["cases"]
    assert cases["1.1.1"]["behavior"] == "OK"
    assert cases["5.3"]["behavior"] == "FAILED"
    assert "5.3" in report["failed"]
    # It echoes no Close: the message came back, but the case is not clean.
    assert cases["1.1.1"]["behavior_close"] == "UNCLEAN"
    assert "1.1.1" in report["failed"]
