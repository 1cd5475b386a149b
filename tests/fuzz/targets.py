"""The list of targets, and the files that belong to each.

``corpus/NAME/`` holds what a target begins with, one input a file; ``regressions/NAME/`` what has
once failed; ``dictionaries/NAME.dict`` the words of its grammar, in the form that libFuzzer reads.
"""

from __future__ import annotations

import codecs
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

from . import target_client, target_events, target_frames, target_http, target_tokens, target_values

HERE = pathlib.Path(__file__).resolve().parent

_WORD = re.compile(r'^\s*(?:[A-Za-z0-9_]+\s*=\s*)?"((?:[^"\\]|\\.)+)"\s*$')


class Target(NamedTuple):
    """One thing to be fuzzed.

    Attributes:
        name: of the target and of its files.
        run: takes an input; raises if something is wrong, else says in a word how it ended.
        share: its part of the time of a whole run.
    """

    name: str
    run: Callable[[bytes], str]
    share: float


TARGETS = {
    target.name: target
    for target in (
        Target("frames", target_frames.run, 4),
        Target("http", target_http.run, 6),
        Target("hub_events", target_events.run_hub, 2),
        Target("client_events", target_events.run_client, 2),
        Target("sent_events", target_events.run_sent, 1),
        Target("media_types", target_values.run_media_types, 1),
        Target("queries", target_values.run_queries, 1),
        Target("origins", target_values.run_origins, 1),
        Target("hosts", target_values.run_hosts, 1),
        Target("addresses", target_values.run_addresses, 1),
        Target("urls", target_values.run_urls, 1),
        Target("answers", target_values.run_answers, 1),
        Target("tokens", target_tokens.run, 2),
        Target("client", target_client.run, 4),
    )
}


def seeds(name: str) -> list[bytes]:
    """Return what a target begins with: its corpus and its regressions, in the order of names."""
    return [path.read_bytes() for path in seed_files(name)]


def seed_files(name: str) -> list[pathlib.Path]:
    """Return the files of a target's corpus and regressions."""
    folders = (HERE / "corpus" / name, HERE / "regressions" / name)
    return sorted(path for folder in folders for path in folder.glob("*"))


def dictionary_file(name: str) -> pathlib.Path:
    """Return where the words of a target stand."""
    return HERE / "dictionaries" / f"{name}.dict"


def words(name: str) -> list[bytes]:
    """Return the words of a target.

    Raises:
        ValueError: a line is neither a word nor a comment.
    """
    found = []
    for line in dictionary_file(name).read_text(encoding="ascii").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word = _WORD.match(line)
        if word is None:
            raise ValueError(f"{name}.dict: {line!r} is no word")
        found.append(codecs.escape_decode(word[1].encode("ascii"))[0])
    return found
