"""The pages for people: their links, what is made from the code, what must agree with it."""

from __future__ import annotations

import ast
import html
import os
import pathlib
import re
import runpy
import urllib.parse
from collections import Counter
from collections.abc import Iterator

import pytest

from broadcast_server import errors
from broadcast_server.cli.options.tables import OPTIONS
from broadcast_server.cli.options.words import OPERANDS

from ..support import ROOT, code_blocks, run_python
from ..support.documents import PAGES, name_of

PACKAGE = ROOT / "broadcast_server"


def prose(page: pathlib.Path) -> str:
    """Return a page without its blocks of code."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^(```|~~~).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)


# -- Links -------------------------------------------------------------------------------------


def links(page: pathlib.Path) -> Iterator[str]:
    """Yield the target of each link and picture that is on no other host."""
    text = re.sub(r"`[^`\n]*`", lambda code: code[0] if "](" in code[0] else "", prose(page))
    found = re.findall(r"\]\(\s*<?([^)>\s]+)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return (target for target in found if not re.match(r"[a-z]+:", target))


def anchors(page: pathlib.Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    seen: Counter[str] = Counter()
    found = set()
    for title in re.findall(r"^#{1,6} +(.*?)(?: +#+)?$", prose(page), re.MULTILINE):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        anchor = re.sub(r"[^\w\- ]", "", html.unescape(shown).lower()).strip().replace(" ", "-")
        found.add(anchor if not seen[anchor] else f"{anchor}-{seen[anchor]}")
        seen[anchor] += 1
    return found


def target_of(page: pathlib.Path, link: str) -> tuple[pathlib.Path, str]:
    """Return the file that a link leads to, and the anchor in it."""
    path, _, anchor = urllib.parse.unquote(link).partition("#")
    return (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    """Each link within the repository names a file that is there, and a heading of it."""
    for link in links(page):
        path, anchor = target_of(page, link)
        assert path.exists() and path.is_relative_to(ROOT), f"{link}: there is no such file"
        if anchor:
            assert path.suffix == ".md" and anchor in anchors(path), f"{link}: no such heading"


def test_every_page_can_be_found() -> None:
    """From the README, by links alone."""
    found: set[pathlib.Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in found and page.suffix == ".md":
            found.add(page)
            waiting += [target_of(page, link)[0] for link in links(page)]
    assert set(PAGES) <= found


def test_every_page_has_one_title() -> None:
    """It is the first heading and the only one of its rank; the navigation shows it."""
    for page in PAGES:
        ranks = [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]
        assert ranks[0] == 1 and ranks.count(1) == 1, name_of(page)


# -- Code in pages -----------------------------------------------------------------------------


def test_every_page_with_code_is_run() -> None:
    """A page whose code can be run is named in the tests; a topic may show a run of an hour."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for page in PAGES:
        if page.parent.name == "topics":
            continue
        if any(code_blocks(name_of(page), language) for language in ("sh", "python", "console")):
            assert page.name in tests, name_of(page)


def test_logging_example_logs_what_it_says() -> None:
    """The page's program runs as it stands, but on a free port."""
    (program,) = code_blocks("docs/reference/logging.md", "python")
    (shown,) = re.findall(r"# logs: (.*)", program)
    done = run_python(program.replace("8765", "0"), "-W", "error")
    assert done.returncode == 0, done.stderr
    assert shown.partition("127")[0] in done.stderr


# -- Pages made from the code ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["library", "options"])
def test_generated_reference_is_fresh(name: str) -> None:
    """The committed page is what the code gives (make docs)."""
    folder = ROOT / "docs" / "reference"
    page = runpy.run_path(os.fspath(folder / f"make_{name}.py"))["page"]()
    assert page == (folder / f"{name}.md").read_text(encoding="utf-8")


def test_options_are_listed_as_they_can_be_typed() -> None:
    """In each spelling, with default and variable, and what is no option, too."""
    page = (ROOT / "docs" / "reference" / "options.md").read_text(encoding="utf-8")
    for command, groups in OPTIONS.items():
        part = page.partition(f"## `broadcast-server {command}`")[2].partition("\n## ")[0]
        for option in (option for group in groups.values() for option in group):
            spellings = ", ".join(option.flags) + f" {option.metavar}".rstrip()
            entry = part.partition(f"\n- **`{spellings}`**")[2].partition("\n- ")[0]
            assert "default: " in entry and f"`{option.variable(command)}`" in entry, spellings
        assert re.findall(r"^- `([A-Z]+)`: ", part, re.MULTILINE) == [*OPERANDS[command]]
    assert "**`-H, --header HEADER`**" in page


# -- Pages that must agree with the code -------------------------------------------------------


def logged() -> set[tuple[str, str, str]]:
    """Return level, message and logger of each record that the package may log."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        name = re.search(r'^logger = get_logger\("broadcast_server\.(\w+)"\)', text, re.MULTILINE)
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or ast.unparse(call.func)[:7] != "logger.":
                continue
            method = ast.unparse(call.func).removeprefix("logger.")
            message = call.args[method == "log"]
            assert isinstance(message, ast.Constant), f"{path.name}:{call.lineno}: no constant"
            levels = {"error" if method == "exception" else method}
            if method == "log":  # each level that its first argument may be given
                level = ast.unparse(call.args[0])
                levels = {
                    word.lower()
                    for step in ast.walk(tree)
                    if isinstance(step, ast.Assign) and ast.unparse(step.targets[0]) == level
                    for word in re.findall(r"logging\.([A-Z]+)", ast.unparse(step.value))
                }
            text = re.sub(r"(%(\.\d)?[sdrf])+", "…", message.value)
            assert name, path
            found |= {(level, text, name[1]) for level in levels}
    return found


def test_every_record_is_in_the_table_of_its_level() -> None:
    """And nothing is there that is never logged."""
    page = (ROOT / "docs" / "reference" / "logging.md").read_text(encoding="utf-8")
    parts = re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    listed = {
        (level, message, logger)
        for level, part in parts
        for message, logger in re.findall(r"^\| `(.*?)` \| `(\w+)` \| \S", part, re.MULTILINE)
    }
    assert listed == logged()


def test_every_exception_is_on_the_page_of_errors() -> None:
    """In the tree as it is in the code, and all that can be caught in a row of the table."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    assert errors.__doc__ is not None
    (tree,) = code_blocks("docs/reference/errors.md", "text")
    drawn = re.findall(r"^    (\S.*)$", errors.__doc__, re.MULTILINE)
    assert tree.splitlines() == [re.split(r"  +(?=[a-z])", line)[0] for line in drawn]
    found = {name for name, value in vars(errors).items() if isinstance(value, type)}
    for name in found:
        parents = {base.__name__ for base in vars(errors)[name].__bases__} - {"Exception"}
        line = next(line for line in tree.splitlines() if re.search(rf"\b{name}\b", line))
        assert re.findall(r"\((\w+)\)", line) == sorted(parents - found)
    rows = set(re.findall(r"^\| `([A-Z]\w+)` \|", page, re.MULTILINE))
    assert rows == found - {"BroadcastServerError", "HubError"}
