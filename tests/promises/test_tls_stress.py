"""Both directions of many TLS connections at full speed, on every Python that is there."""

from __future__ import annotations

import configparser
import glob
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ..support import PYTHON, ROOT, python_environment, stress_size
from ..support.certificates import Certificates

pytestmark = pytest.mark.slow


VERSIONS = ("3.10", "3.11", "3.12", "3.13")
SECONDS = 5
FULL_SECONDS = stress_size(60, SECONDS)
# What the clients' own patience and the start of a hub may add.
SPARE_SECONDS = 240


def find_python(version: str) -> str | None:
    """Return a Python of that version that runs, if there is one: on the path, or of pyenv."""
    found = [shutil.which(f"python{version}")]
    root = os.environ.get("PYENV_ROOT")
    if root is None and shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout.strip()
    if root:
        found += glob.glob(f"{root}/versions/{version}.*/bin/python{version}")
    for path in filter(None, found):
        # One of pyenv's shims may be there and refuse.
        check = [path, "-c", "import ssl, sys; print('%d.%d' % sys.version_info[:2])"]
        try:
            result = subprocess.run(check, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if result.stdout.strip() == version:
            return path
    return None


PYTHONS = {version: path for version in VERSIONS if (path := find_python(version))}


def make_environment(python: str, directory: Path) -> str:
    """Return a Python with what the package needs to run, and nothing else."""
    subprocess.run([python, "-m", "venv", directory], check=True)
    made = str(directory / "bin" / "python")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed = re.sub(r"#.*", "", setup["options"]["install_requires"]).split()
    subprocess.run([made, "-m", "pip", "install", "--quiet", *needed], check=True, timeout=300)
    return made


def stress(python: str, seconds: float, certificates: Certificates) -> None:
    """Run the clients and the hub with one Python; all of them must get the same."""
    files = (certificates.cert, certificates.key, certificates.ca)
    result = subprocess.run(
        [python, "-m", "tests.support.tls_stress", str(seconds), *map(str, files)],
        cwd=ROOT,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=seconds + SPARE_SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert found["failures"] == []
    # One number and one checksum: everybody has received the same messages in the same order.
    assert len(found["checksums"]) == len(found["messages"]) == 1
    # Each of the fifty was in the middle of it.
    assert found["messages"][0] > 50 * 40, found
    assert "evicted" not in result.stderr and "Traceback" not in result.stderr, result.stderr
    print(json.dumps(found))


@pytest.mark.timeout(SECONDS + SPARE_SECONDS)
def test_fifty_clients_at_full_speed(certificates: Certificates) -> None:
    """No error, no deadlock, nothing lost, one order."""
    stress(PYTHON, SECONDS, certificates)


@pytest.mark.stress
@pytest.mark.timeout(FULL_SECONDS + 2 * SPARE_SECONDS)
@pytest.mark.parametrize("version", PYTHONS)
def test_fifty_clients_at_full_speed_for_a_minute(
    version: str, certificates: Certificates, tmp_path: Path
) -> None:
    """The same on every Python that is here."""
    python = make_environment(PYTHONS[version], tmp_path / "environment")
    stress(python, FULL_SECONDS, certificates)
