"""Targets for some time, in a process of their own: ``python -m tests.fuzz.worker frames …``.

Where atheris is installed it runs the target: it sees which branches an input reaches and goes on
from those that reach new ones. By chance alone (``mutation.py``) it goes where there is no atheris,
and where memory is measured, since the collection of a guided run grows by itself. Either way an
input that raises, or takes longer than ``HANG_SECONDS``, is written to the folder of findings, and
the exit status is not 0.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import pathlib
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .mutation import MAX_BYTES, Mutator

if TYPE_CHECKING:
    from .targets import Target

HANG_SECONDS = 10
MAX_RSS_MIB = 512


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
    """Raise ``Hang`` in whatever runs inside for longer than so many seconds of processor time: a
    busy machine is no hang. To be called on the main thread."""

    def interrupt(*_: object) -> None:
        raise Hang(f"takes more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def failure_of(target: Target, data: bytes, seconds: float = HANG_SECONDS) -> str | None:
    """Give a target one input; return the traceback if it fails."""
    try:
        with bounded(seconds):
            target.run(data)
    except (Exception, Hang):
        return traceback.format_exc()
    return None


def run_by_chance(
    chosen: Sequence[Target], seconds: float, seed: int, corpus: pathlib.Path, folder: pathlib.Path
) -> int:
    """Run targets in turn without guidance; return the exit status.

    Args:
        chosen: the targets.
        seconds: for so long.
        seed: makes the inputs repeatable.
        corpus: has a folder of inputs to begin with for each target.
        folder: of the findings.
    """
    from . import targets

    sources = []
    runs = 0
    for target in chosen:
        seeds = [path.read_bytes() for path in sorted((corpus / target.name).iterdir())]
        for data in seeds:
            runs += 1
            if (failed := failure_of(target, data)) is not None:
                return _tell(failed, save(folder, target.name, data))
        sources.append((target, Mutator((target.name, seed), seeds, targets.words(target.name))))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for target, mutator in sources:
            runs += 1
            data = mutator.make()
            if (failed := failure_of(target, data)) is not None:
                return _tell(failed, save(folder, target.name, data))
    print(f"stat::number_of_executed_units: {runs}", flush=True)
    return 0


def run_guided(
    name: str, seconds: float, seed: int, corpus: pathlib.Path, folder: pathlib.Path
) -> int:
    """Run a target under atheris, which ends the process. What reaches something new is added to
    the corpus. Only what is imported here is instrumented."""
    import atheris

    with atheris.instrument_imports(include=["broadcast_server", "h11"]):
        from . import targets
    target = targets.TARGETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0],
        f"-max_total_time={max(1, int(seconds))}",
        f"-seed={seed or 1}",  # 0 would be a seed of its choice
        f"-max_len={MAX_BYTES}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={MAX_RSS_MIB}",
        f"-dict={targets.dictionary_file(name)}",
        f"-artifact_prefix={folder}/{name}-",
        "-verbosity=0",
        "-print_final_stats=1",
        str(corpus / name),
    ]
    atheris.Setup(arguments, lambda data: target.run(data))
    atheris.Fuzz()
    return 0


def _tell(failed: str, path: pathlib.Path) -> int:
    print(failed, file=sys.stderr)
    print(f"saved {path}", file=sys.stderr, flush=True)
    return 1


def main() -> int:
    """Run the targets."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.worker", description="run targets")
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--corpus", type=pathlib.Path, required=True)
    parser.add_argument("--findings", type=pathlib.Path, required=True)
    parser.add_argument("--guided", action="store_true", help="with atheris; one target only")
    args = parser.parse_args()
    rest = (args.seconds, args.seed, args.corpus, args.findings)
    if args.guided:
        (name,) = args.targets
        return run_guided(name, *rest)
    from . import targets

    return run_by_chance([targets.TARGETS[name] for name in args.targets], *rest)


if __name__ == "__main__":
    sys.exit(main())
