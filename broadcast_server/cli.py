"""The ``broadcast-server`` command: its parser and its two commands, start and connect."""

from __future__ import annotations

import argparse


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    return argparse.ArgumentParser(prog="broadcast-server")


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    build_parser().parse_args(argv)
    return 0
