"""``python -m tests.soak``."""

from __future__ import annotations

import argparse
import random
import sys

from .order import Violation
from .run import Plan, soak


def main() -> int:
    """Run what the arguments say; return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Use and abuse a hub at random, and check that it keeps its promises.",
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="(default: %(default)g)")
    parser.add_argument("--clients", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, help="repeat the choices of a run (default: any)")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    plan = Plan(60 * arguments.minutes, arguments.clients, seed)
    say(f"seed {seed}, {plan.clients} clients, {arguments.minutes:g} minutes")
    try:
        soak(plan, say)
    except Violation as violation:
        say(f"FAILED with the seed {seed}: {violation}")
        return 1
    say("all promises were kept")
    return 0


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
