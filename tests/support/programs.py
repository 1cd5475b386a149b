"""Programs that a test runs, and the environment in which they find the checkout."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

PYTHON = sys.executable
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def python_environment() -> dict[str, str]:
    """Return an environment for a Python subprocess that finds the checkout first."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def command_environment(*folders: pathlib.Path, **variables: str) -> dict[str, str]:
    """Return an environment in which the checkout's command is found first, after the folders.

    Variables of ours that are set where the tests run are left out.
    """
    path = [*map(str, folders), str(ROOT / "bin"), os.path.dirname(PYTHON), os.environ["PATH"]]
    own = {k: v for k, v in python_environment().items() if not k.startswith("BROADCAST_SERVER_")}
    return own | {"PATH": os.pathsep.join(path)} | variables


def run_python(program: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end, with these options of the interpreter."""
    return subprocess.run(
        [PYTHON, *options, "-c", program],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_parent(program: str) -> None:
    """Run a Python program that forks; it must say that the parent is well, and nothing else."""
    # Python 3.12 and later warn about a fork in a process with threads; here that is the point.
    finished = run_python(program, "-W", "ignore::DeprecationWarning")
    assert (finished.stdout, finished.stderr) == ("parent is well\n", "")
