"""Runs the Autobahn cases (PyPI kosoku) against the hub or against ``BroadcastClient``.

    python -m tests.conformance.run --role server --groups 1-7,10
    python -m tests.conformance.run --role client --groups 1-7,9,10 --report report.json
    python -m tests.conformance.run --role server --url 'ws://127.0.0.1:9001/{case}'

Server role: the hub runs in a process of its own and each case has a room of its own, joined with
``echo=1``. Client role: kosoku serves, ``client_loop.py`` echoes. Both are graded in ``behavior``
and ``behaviorClose``; a case that fails either, or is not over within its time limit, is listed and
the exit status is 1. NON-STRICT is allowed: in groups 3 and 4 it varies with timing.

Five defects of kosoku 0.1.0 are worked around: it waits for ever on a peer that never closes (a
time limit for each case), it encodes the valid texts of 6.2.4 and 6.5 to 6.23 as UTF-8 twice
(``repair_cases``), importing it patches ``binascii`` (so this is a program, which tests never
import), it has no public list of its cases (the index of its package is read), and its threads may
abort the process at the end of the interpreter (which is left out).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from ..support import PYTHON, ROOT, python_environment
from ..support.hub_process import hub_process

# Autobahn's own waits are 1 to 3 s; group 9 moves up to 16 MiB each way.
CASE_SECONDS = 20.0
BIG_CASE_SECONDS = 100.0

# What the hub needs beyond its defaults: group 9 sends 16 MiB messages.
HUB_SETTINGS = {
    "max_message_bytes": 16 << 20,
    "room_log_bytes": 64 << 20,
    "max_rate": 0,
    "max_control_rate": 0,
}

# One client process plays this many cases; starting one for each would take longer than the cases.
CLIENT_BATCH = 50

GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
GOOD_CLOSE = {"OK", "INFORMATIONAL"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How one case ended."""

    case: str
    behavior: str
    behavior_close: str
    close_code: int | None
    seconds: float
    note: str

    @property
    def passed(self) -> bool:
        """Tell whether both grades are good enough."""
        return self.behavior in GOOD and self.behavior_close in GOOD_CLOSE


def all_cases() -> dict[str, type]:
    """Return kosoku's case classes by id, in the suite's order."""
    from kosoku.cases import CASES

    return dict(CASES)


def repair_cases(cases: dict[str, type]) -> None:
    """Undo one of the two UTF-8 encodings of the valid texts, so that they are what they say."""
    for case, cls in cases.items():
        group, minor = (int(part) for part in case.split(".")[:2])
        exotic = group == 6 and 5 <= minor <= 23 and getattr(cls, "isValid", False)
        if case == "6.2.4" or exotic:
            payload = cls.PAYLOAD  # type: ignore[attr-defined]
            cls.PAYLOAD = payload.encode("latin-1").decode("utf-8")  # type: ignore[attr-defined]


def select(cases: Sequence[str], groups: str) -> list[str]:
    """Return the cases of a list such as ``1-5,6.4,10.1.1``."""
    wanted: list[tuple[str, ...]] = []
    for item in groups.split(","):
        first, dash, last = item.strip().partition("-")
        numbers = range(int(first), int(last) + 1) if dash else [first]
        wanted += [tuple(str(number).split(".")) for number in numbers]
    chosen = [
        case
        for case in cases
        if any(tuple(case.split("."))[: len(prefix)] == prefix for prefix in wanted)
    ]
    if not chosen:
        raise SystemExit(f"no case in {groups!r}")
    return chosen


def limit_of(case: str) -> float:
    """Return the time limit of a case in seconds."""
    return BIG_CASE_SECONDS if case.startswith("9.") else CASE_SECONDS


def verdict_of(result: Any, seconds: float) -> Verdict:
    """Turn kosoku's result into ours."""
    return Verdict(
        result.case_id,
        result.behavior.value,
        result.behavior_close.value,
        result.remote_close_code,
        round(seconds, 3),
        f"{result.result} {result.result_close}",
    )


def hung(case: str, seconds: float, note: str) -> Verdict:
    """Return the verdict on a case that did not end, or that nobody played."""
    return Verdict(case, "FAILED", "FAILED", None, round(seconds, 3), note)


async def run_server_cases(cases: Sequence[str], url: str) -> AsyncIterator[Verdict]:
    """Play the client for each case against the server at a URL with ``{case}`` in it."""
    import kosoku

    for case in cases:
        started = time.monotonic()
        address = url.replace("{case}", case)
        try:
            results = await asyncio.wait_for(
                kosoku.run_fuzzingclient(address, [case]), limit_of(case)
            )
        except kosoku.FailureError as failure:
            results = failure.results
        except asyncio.TimeoutError:
            yield hung(case, time.monotonic() - started, "not over within its time limit")
            continue
        if len(results) != 1:
            yield hung(case, time.monotonic() - started, f"{len(results)} results")
        for result in results:
            yield verdict_of(result, time.monotonic() - started)


async def run_client_cases(cases: Sequence[str]) -> AsyncIterator[Verdict]:
    """Play the server for ``client_loop.py``, in batches, and singly where a batch hangs."""
    for start in range(0, len(cases), CLIENT_BATCH):
        batch = cases[start : start + CLIENT_BATCH]
        verdicts = await run_client_batch(batch)
        for case in batch:
            if case not in verdicts:  # the batch hung or broke off: find out at which case
                verdicts.update(await run_client_batch([case]))
            yield verdicts.get(case) or hung(case, limit_of(case), "never finished by the client")


async def run_client_batch(batch: Sequence[str]) -> dict[str, Verdict]:
    """Let one client process play some cases; without a verdict for all, return none."""
    import kosoku

    started = time.monotonic()
    limit = max(limit_of(case) for case in batch) + 3 * len(batch)
    async with kosoku.run_fuzzingserver(list(batch), port=0) as server:
        client = await asyncio.create_subprocess_exec(
            PYTHON,
            str(pathlib.Path(__file__).with_name("client_loop.py")),
            f"ws://{server.address}:{server.port}",
            cwd=ROOT,
            env=python_environment(),
        )
        try:
            results = await asyncio.wait_for(_result_or_end(server, client), limit)
        except kosoku.FailureError as failure:
            results = failure.results
        except asyncio.TimeoutError:
            results = []
        finally:
            with contextlib.suppress(ProcessLookupError):
                client.kill()
            await client.wait()
    seconds = (time.monotonic() - started) / len(batch)
    return {result.case_id: verdict_of(result, seconds) for result in results}


async def _result_or_end(server: Any, client: asyncio.subprocess.Process) -> list[Any]:
    """Return the server's results; none if the client ends without having asked for the reports."""
    result = asyncio.ensure_future(server.get_result())
    end = asyncio.ensure_future(client.wait())
    try:
        await asyncio.wait({result, end}, return_when=asyncio.FIRST_COMPLETED)
        # Results come out a moment after the client's last connection is closed.
        done, _ = await asyncio.wait({result}, timeout=2.0)
        return list(await result) if done else []
    finally:
        result.cancel()
        end.cancel()


@contextlib.contextmanager
def server_under_test(url: str | None) -> Iterator[str]:
    """Give the URL to test: the one asked for, or that of a hub started here."""
    if url is not None:
        yield url
        return
    with hub_process(**HUB_SETTINGS) as (_, hub_url):
        yield hub_url.rstrip("/") + "/case-{case}?echo=1"


async def run(arguments: argparse.Namespace, cases: Sequence[str]) -> list[Verdict]:
    """Run the cases and return their verdicts."""
    verdicts = []
    with contextlib.ExitStack() as stack:
        if arguments.role == "server":
            url = stack.enter_context(server_under_test(arguments.url))
            stream = run_server_cases(cases, url)
        else:
            stream = run_client_cases(cases)
        async for verdict in stream:
            verdicts.append(verdict)
            if not verdict.passed:
                print(
                    f"{verdict.case}: {verdict.behavior} / {verdict.behavior_close}"
                    f" (close code {verdict.close_code}): {verdict.note}",
                    flush=True,
                )
    return verdicts


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="tests.conformance.run", description=__doc__)
    parser.add_argument("--role", choices=("server", "client"), required=True, help="ours")
    parser.add_argument("--groups", default="1-7,9,10", help="for example 1-5,6.4,10.1.1")
    parser.add_argument("--report", type=pathlib.Path, help="write the verdicts here as JSON")
    parser.add_argument("--url", help="test this server instead; {case} becomes the case's id")
    arguments = parser.parse_args()
    cases = all_cases()
    repair_cases(cases)
    chosen = select(list(cases), arguments.groups)
    started = time.monotonic()
    verdicts = asyncio.run(run(arguments, chosen))
    failed = [verdict.case for verdict in verdicts if not verdict.passed]
    missing = sorted(set(chosen) - {verdict.case for verdict in verdicts})
    if arguments.report:
        report = {
            "role": arguments.role,
            "failed": failed,
            "missing": missing,
            "cases": {verdict.case: dataclasses.asdict(verdict) for verdict in verdicts},
        }
        arguments.report.write_text(json.dumps(report, indent=1) + "\n")
    counts = {
        name: sum(1 for verdict in verdicts if verdict.behavior == name)
        for name in sorted({verdict.behavior for verdict in verdicts})
    }
    print(
        f"{arguments.role}: {len(verdicts)} cases in {time.monotonic() - started:.0f} s, {counts},"
        f" {len(failed)} not passed, {len(missing)} missing"
    )
    return 1 if failed or missing else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Its threads are Rust's, and one that calls back into an interpreter that is being taken apart
    # aborts the process, with a report that is written and right.
    os._exit(status)
