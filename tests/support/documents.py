"""The pages for people, and what stands in them."""

from __future__ import annotations

import pathlib
import re

from .programs import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def name_of(page: pathlib.Path) -> str:
    """Return a page's path from the checkout's top."""
    return page.relative_to(ROOT).as_posix()


def code_blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a language in a page, named from the checkout's top."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
