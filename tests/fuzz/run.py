"""``make fuzz``: every target for its share of the time, then their memory, then a whole hub.

    python -m tests.fuzz.run                             ten minutes
    python -m tests.fuzz.run --minutes 60 --seed 7       longer, and with inputs of that seed
    python -m tests.fuzz.run --target frames --minutes 5
    python -m tests.fuzz.run --replay tests/fuzz/findings/frames-0123456789abcdef

Half of the time goes to the targets, each in a process of its own, guided by coverage where atheris
is installed. What reached something new is then taken by all of them in one process, by chance, for
a fifth of the time: its memory must not grow. The rest is for the hub (``hub.py``). A finding is
written to ``tests/fuzz/findings/`` and the exit status is 1; the other parts still have their turn.
Mend it, move the file to ``tests/fuzz/regressions/TARGET/`` under a name that says what it is, and
write a test where the module has its own.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from ..support import PYTHON, ROOT, python_environment
from . import hub, targets, worker
from .memory import MIB, Growth, describe

FINDINGS = targets.HERE / "findings"
HUB = "hub"

# The parts of the time; what a part does not need goes to nobody.
_TARGETS_PART, _MEMORY_PART, _HUB_PART = 0.5, 0.2, 0.3
# So much of the time of a part that is watched does not count: caches, arenas and logs fill.
_WARM_UP_PART, _MIN_WARM_UP_SECONDS = 0.25, 30.0
# What starting, and ending behind a hang, may take beyond the time that a process was given.
_GRACE_SECONDS = 120.0
_SAMPLE_SECONDS = 0.5
_TAIL_BYTES = 4000

_RUNS = re.compile(rb"number_of_executed_units: (\d+)")


def run_worker(
    names: Sequence[str],
    seconds: float,
    seed: int,
    corpus: pathlib.Path,
    findings: pathlib.Path,
    *,
    guided: bool,
) -> str | None:
    """Run targets in a process of their own and print a line about it; return what is wrong."""
    command = [
        *(PYTHON, "-m", "tests.fuzz.worker", *names, "--seconds", str(seconds)),
        *("--seed", str(seed), "--corpus", str(corpus), "--findings", str(findings)),
        *(["--guided"] if guided else []),
    ]
    output = corpus / "output"
    begin = time.monotonic()
    with (
        output.open("wb") as file,
        subprocess.Popen(
            command, stdout=file, stderr=file, cwd=ROOT, env=python_environment()
        ) as process,
    ):
        growth = Growth(process.pid, _warm_up(seconds))
        try:
            while True:
                try:
                    code = process.wait(_SAMPLE_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    growth.sample()
                    if time.monotonic() - begin > seconds + _GRACE_SECONDS:
                        raise
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            if process.poll() is None:
                process.kill()
    said = output.read_bytes()
    runs = _RUNS.search(said)
    label = names[0] if len(names) == 1 else f"all {len(names)}"
    grown = "" if guided else f", {describe(growth.per_minute())}, {growth.last / MIB:.0f} MiB"
    print(
        f"{label:14} {time.monotonic() - begin:4.0f} s  {'guided' if guided else 'by chance':9}  "
        f"{int(runs[1]) if runs else 0:>9,} inputs{grown}",
        flush=True,
    )
    if code != 0:
        return f"{label}: exit status {code}\n{said[-_TAIL_BYTES:].decode(errors='replace')}"
    per_minute = None if guided else growth.per_minute()
    if per_minute is not None and per_minute > hub.MAX_GROWTH_BYTES:
        return f"{label}: memory grows by {per_minute / MIB:.2f} MiB a minute"
    return None


def _warm_up(seconds: float) -> float:
    return max(seconds * _WARM_UP_PART, _MIN_WARM_UP_SECONDS)


def run_targets(
    names: Sequence[str], seconds: float, memory_seconds: float, seed: int, findings: pathlib.Path
) -> list[str]:
    """Run each target for its share of the time, then all of them for the other time; return what
    is wrong."""
    wrong = []
    guided = worker.has_atheris()
    with tempfile.TemporaryDirectory() as folder:
        corpus = pathlib.Path(folder)
        for name in names:
            (corpus / name).mkdir()
            for path in targets.seed_files(name):
                shutil.copy(path, corpus / name / path.name)
        total = sum(targets.TARGETS[name].share for name in names)
        for name in names:
            share = seconds * targets.TARGETS[name].share / total
            wrong.append(run_worker([name], share, seed, corpus, findings, guided=guided))
        found = [text for text in wrong if text is not None]
        # A finding of before would only be found again.
        if not found:
            last = run_worker(names, memory_seconds, seed, corpus, findings, guided=False)
            found += [last] if last is not None else []
    return found


def run_hub(seconds: float, seed: int, findings: pathlib.Path) -> list[str]:
    """Attack a hub and print a line about it; return what is wrong."""
    begin = time.monotonic()
    report = hub.attack_hub(seed, seconds=seconds, warm_up=_warm_up(seconds))
    print(
        f"{HUB:14} {time.monotonic() - begin:4.0f} s  {report.attacks:,} connections, the good "
        f"pair talked {report.talks:,} times, {describe(report.growth)}, "
        f"{report.resident / MIB:.0f} MiB",
        flush=True,
    )
    if not report.wrong:
        return []
    return [f"hub: {'; '.join(report.wrong)}\nsaved {hub.save(report, findings, seed)}"]


def replay(path: pathlib.Path) -> list[str]:
    """Try a finding again; return what is wrong."""
    if path.name.startswith(HUB + "-") and path.suffix == ".txt":
        return hub.attack_hub(0, replay=hub.load(path)).wrong
    names = [
        name
        for name in sorted(targets.TARGETS, key=len)
        if path.parent.name == name or path.name.startswith(name + "-")
    ]
    if not names:
        raise SystemExit(f"{path}: its name does not begin with that of a target")
    failed = worker.failure_of(targets.TARGETS[names[-1]], path.read_bytes())
    return [] if failed is None else [failed]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line says; return the exit status."""
    every = [*targets.TARGETS, HUB]
    parser = argparse.ArgumentParser(prog="make fuzz", description="fuzz the parsers and a hub")
    parser.add_argument("--minutes", type=float, default=10.0, help="in total (default: 10)")
    parser.add_argument("--seed", type=int, help="of all chance (default: drawn, and told)")
    parser.add_argument(
        "--target", action="append", choices=every, help="only this; may be repeated"
    )
    parser.add_argument("--findings", type=pathlib.Path, default=FINDINGS, metavar="FOLDER")
    parser.add_argument("--replay", type=pathlib.Path, metavar="FILE", help="try a finding again")
    args = parser.parse_args(argv)
    if not args.minutes > 0:
        parser.error("--minutes must be more than 0")
    if args.replay is not None:
        wrong = replay(args.replay)
        print("\n".join(wrong) or "nothing is wrong with it")
        return bool(wrong)
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1, 2**31)
    chosen = args.target or every
    names = [name for name in targets.TARGETS if name in chosen]
    seconds = args.minutes * 60
    parts = (_TARGETS_PART, _MEMORY_PART) if names else (0.0, 0.0)
    scale = seconds / (sum(parts) + (_HUB_PART if HUB in chosen else 0.0))
    print(f"seed {seed}, about {args.minutes:g} minutes", flush=True)
    if names and not worker.has_atheris():
        print("atheris is not installed: inputs are made by chance, not guided by coverage")
    wrong = []
    if names:
        wrong += run_targets(names, parts[0] * scale, parts[1] * scale, seed, args.findings)
    if HUB in chosen:
        wrong += run_hub(_HUB_PART * scale, seed, args.findings)
    for text in wrong:
        print(f"\nFOUND {text}")
    print(f"{len(wrong)} findings in {args.findings}" if wrong else "nothing was found")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
