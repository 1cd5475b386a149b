"""What stands in the pages of the checkout."""

from __future__ import annotations

import re

from .programs import ROOT


def code_blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a language in a page, named from the checkout's top."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
