"""One target for some time: ``python -m tests.fuzz.worker frames --seconds 60 --seed 1``.

Where atheris is installed it runs the target: it sees which branches an input reaches and goes on
from those that reach new ones. Elsewhere inputs are made by chance (``mutation.py``). Either way an
input that raises, or takes longer than ``HANG_SECONDS``, is written to the folder of findings and
the exit status is not 0. atheris never returns from a run, so this is a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from typing import Any

from .mutation import MAX_BYTES, Mutator

# Of processor time where that can be had: a busy machine is no hang.
HANG_SECONDS = 10


class Hang(BaseException):
    """An input takes too long; no target may catch it."""


def has_atheris() -> bool:
    """Tell whether inputs can be guided by coverage here."""
    return importlib.util.find_spec("atheris") is not None


def save(folder: pathlib.Path, name: str, data: bytes) -> pathlib.Path:
    """Write an input that failed to the findings, and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{hashlib.sha1(data, usedforsecurity=False).hexdigest()[:16]}"
    path.write_bytes(data)
    return path


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise ``Hang`` in whatever runs inside for longer than so many seconds of processor time; to
    be called on the main thread."""

    def interrupt(*_: object) -> None:
        raise Hang(f"takes more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def try_one(target: Any, data: bytes, folder: pathlib.Path) -> pathlib.Path | None:
    """Give a target one input; return where it was saved if it failed."""
    try:
        with bounded(HANG_SECONDS):
            target.run(data)
    except (Exception, Hang):
        traceback.print_exc()
        return save(folder, target.name, data)
    return None


def run_by_chance(target: Any, seconds: float, seed: int, folder: pathlib.Path) -> int:
    """Run a target without guidance; return the exit status."""
    from . import targets

    seeds = targets.seeds(target.name)
    mutator = Mutator((target.name, seed), seeds, targets.words(target.name))
    runs = 0
    deadline = time.monotonic() + seconds
    for data in seeds:
        if (found := try_one(target, data, folder)) is not None:
            return _tell(found)
    while time.monotonic() < deadline:
        runs += 1
        if (found := try_one(target, mutator.make(), folder)) is not None:
            return _tell(found)
    print(f"Done {runs} runs", flush=True)
    return 0


def run_guided(name: str, seconds: float, seed: int, folder: pathlib.Path) -> int:
    """Run a target under atheris, in new memory: only what is imported here is instrumented."""
    import atheris

    with atheris.instrument_imports(include=["broadcast_server", "h11"]):
        from . import targets
    target = targets.TARGETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as grown:
        # atheris leaves by os._exit(), so the folder is emptied by whoever started this process.
        begin = pathlib.Path(grown) / "begin"
        begin.mkdir()
        for path in targets.seed_files(name):
            shutil.copy(path, begin / path.name)
        # libFuzzer keeps the first byte of nothing: an input of no bytes is tried here.
        arguments = [
            sys.argv[0],
            f"-max_total_time={max(1, int(seconds))}",
            f"-seed={seed or 1}",
            f"-max_len={MAX_BYTES}",
            f"-timeout={HANG_SECONDS}",
            f"-dict={targets.dictionary_file(name)}",
            f"-artifact_prefix={folder}/{name}-",
            "-verbosity=0",
            "-print_final_stats=1",
            str(begin),
        ]
        atheris.Setup(arguments, lambda data: target.run(data))
        atheris.Fuzz()
    return 0


def _tell(found: pathlib.Path) -> int:
    print(f"saved {found}", flush=True)
    return 1


def main() -> int:
    """Run one target."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.worker", description="run one target")
    parser.add_argument("target")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=pathlib.Path, required=True)
    parser.add_argument("--by-chance", action="store_true")
    args = parser.parse_args()
    if not args.by_chance and has_atheris():
        return run_guided(args.target, args.seconds, args.seed, args.findings)
    from . import targets

    return run_by_chance(targets.TARGETS[args.target], args.seconds, args.seed, args.findings)


if __name__ == "__main__":
    sys.exit(main())
