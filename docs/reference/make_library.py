"""Writes ``docs/reference/library.md`` from the signatures and docstrings of the public names.

Run it as ``make docs``; a test fails when the committed page differs. A docstring that breaks the
form (sections such as ``Args:``, each item on a line of its own, what follows indented further), or
that names an argument which is not there, ends this with an error: the page is their test as well.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import broadcast_server
import broadcast_server.errors

HEAD = """\
<!-- Made by make_library.py from the docstrings: edit those, then run `make docs`. -->
# The library

All that `from broadcast_server import …` gives; anything else may change at any time. What a hub
can be set to is in [options](options.md), what goes wrong and what to do about it in
[errors](errors.md), what the hub and the client log in [logging](logging.md).
"""

GROUPS = {
    "A hub in your program": ["BroadcastHub"],
    "A client": ["BroadcastClient"],
    "One message, once": ["publish"],
    "What you are given": ["Message", "Member", "Presence", "Gap"],
    "Who may come in": ["AccessRequest", "Grant", "Refusal"],
    "Exceptions": [
        name
        for name, value in vars(broadcast_server.errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    ],
}

# Names for types that are not public: shown as what they stand for.
ALIASES = {
    "Filter": "hub.core",
    "Authorize": "hub.http.access",
    "Action": "hub.http.access",
    "Headers": "hub.http.models",
    "Data": "hub.hub",
    "StrPath": "transport.tls",
    "Received": "messages",
}

TITLES = {"Args": "Arguments", "Attributes": "Attributes", "Returns": "Returns", "Raises": "Raises"}


class Page:
    """The page as it grows; an exception tells what is wrong with a docstring."""

    def __init__(self) -> None:
        self.parts = [HEAD]
        self.owner: type | None = None  # whose members are being described
        self.member = ""  # which one of them: it has no link to itself
        self.aliases = {name: _alias(name, module) for name, module in ALIASES.items()}

    def add(self, text: str) -> None:
        self.parts.append(f"\n{text}\n")

    # -- Things --------------------------------------------------------------------------------

    def add_public(self, name: str) -> None:
        thing = getattr(broadcast_server, name)
        self.add(f"### `{name}`")
        if not isinstance(thing, type):
            self.owner = None
            self.add_callable(name, thing)
            return
        self.owner, self.member = thing, ""
        if issubclass(thing, Exception):
            bases = ", ".join(self.link(base.__name__) for base in thing.__bases__)
            self.add(f"A kind of {bases}.")
        else:
            self.add(self.signature(name, thing))
        self.add_docstring(thing)
        if not issubclass(thing, Exception):
            self.add_members(thing)

    def add_members(self, owner: type) -> None:
        """Properties as a table, then each method; what is inherited comes first."""
        found: dict[str, Any] = {}
        for base in reversed(owner.__mro__):
            if base.__module__.startswith("broadcast_server"):
                found |= vars(base)
        # As seen from the owner, which may define anew what a base class has.
        members = [(name, vars_of(owner, name)) for name in found if _is_shown(found[name], name)]
        rows = []
        for name, value in members:
            if isinstance(value, property):
                cells = f"`{name}`", f"`{self.annotation(value.fget)}`", self.inline(summary(value))
                # In a table this is a column's end, also in code.
                rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        if rows:
            self.add("| property | type | what it is |\n|---|---|---|\n" + "\n".join(rows))
        for name, value in members:
            if inspect.isfunction(value):
                self.add(f"#### `{owner.__name__}.{name}()`")
                self.add_callable(name, value)

    def add_callable(self, name: str, function: Any) -> None:
        self.member = name
        self.add(self.signature(name, function))
        self.add_docstring(function)

    # -- Signatures ----------------------------------------------------------------------------

    def signature(self, name: str, thing: Any) -> str:
        """Return a call as a code block: one line, or one for each argument."""
        signature = inspect.signature(thing)
        words: list[str] = []
        kind = None
        for parameter in signature.parameters.values():
            if parameter.name == "self":
                continue
            if parameter.kind is parameter.KEYWORD_ONLY and kind != parameter.kind:
                words.append("*")
            kind = parameter.kind
            text = "**" * (kind is parameter.VAR_KEYWORD) + parameter.name
            if kind is not parameter.VAR_KEYWORD:  # they are in options.md
                text += f": {self.typed(parameter.annotation)}"
            if parameter.default is not parameter.empty:
                text += f" = {shown(parameter.default)}"
            words.append(text)
        end = "" if isinstance(thing, type) else f" -> {self.typed(signature.return_annotation)}"
        line = f"{name}({', '.join(words)}){end}"
        if len(line) > 88:
            inner = "".join(f"    {word},\n" for word in words)
            line = f"{name}(\n{inner}){end}"
        return f"```py\n{line}\n```"

    def annotation(self, function: Any) -> str:
        return self.typed(inspect.signature(function).return_annotation)

    def typed(self, annotation: str) -> str:
        if not isinstance(annotation, str):
            raise TypeError(f"an annotation is missing or no text: {annotation!r}")
        names = dict(self.aliases)
        if self.owner is not None:
            names["Hub"] = names["Client"] = self.owner.__name__
            names["Item"] = names["Received"]
        type_name = r"\b(?:tls\.)?([A-Z]\w+)"
        return re.sub(type_name, lambda word: names.get(word[1], word[0]), annotation)

    # -- Docstrings ----------------------------------------------------------------------------

    def add_docstring(self, thing: Any) -> None:
        text, sections = split(thing)
        for paragraph in re.split(r"\n{2,}(?! )", text):
            if paragraph.startswith("Example::"):
                code = inspect.cleandoc(paragraph.removeprefix("Example::"))
                self.add(f"```py\n{code}\n```")
            else:
                self.add(self.inline(paragraph))
        for title, lines in sections.items():
            self.add(f"**{TITLES[title]}**")
            if title == "Returns":
                self.add(self.inline("\n".join(lines)))
                continue
            items = list(split_items(thing, lines))
            if title == "Args":
                check_arguments(thing, [name for names, _ in items for name in names])
            self.add(
                "\n".join(
                    f"- {', '.join(map(self.link, names))}: {self.inline(text)}"
                    for names, text in items
                )
            )

    def inline(self, text: str) -> str:
        """Return prose as Markdown: code marked as code, and names of ours as links."""
        text = " ".join(text.split())
        text = re.sub(r"docs/reference/(\w+)\.md", r"[\1](\1.md)", text)
        return re.sub(r"(``?)([^`]+)\1", lambda found: self.link(found[2]), text)

    def link(self, name: str) -> str:
        """Return a name as code, and as a link if this page tells more of it."""
        plain = name.removesuffix("()")
        if plain in broadcast_server.__all__ and plain != "publish":
            return f"[`{name}`](#{plain.lower()})"
        is_method = self.owner is not None and inspect.isfunction(vars_of(self.owner, plain))
        if is_method and plain != self.member:
            return f"[`{name}`](#{self.owner.__name__.lower()}{plain.lower()})"
        return f"`{name}`"


def shown(value: Any) -> str:
    """Return a default as our code is written."""
    return json.dumps(value) if isinstance(value, str) else repr(value)


def split(thing: Any) -> tuple[str, dict[str, list[str]]]:
    """Return the prose of a docstring and the lines of each section."""
    prose: list[str] = []
    sections: dict[str, list[str]] = {}
    lines = prose
    for line in (inspect.getdoc(thing) or "").splitlines():
        title = line.removesuffix(":")
        if line.endswith(":") and title in TITLES:
            lines = sections[title] = []
        elif line and not line.startswith(" ") and lines is not prose:
            lines = prose  # a paragraph behind a section
            lines += ["", line]
        else:
            lines.append(line)
    text = "\n".join(prose).strip()
    if not text:
        raise ValueError(f"{thing!r} has no docstring")
    return text, sections


def split_items(thing: Any, lines: list[str]) -> Iterator[tuple[list[str], str]]:
    """Yield the names and the text of each item of a section."""
    items: list[str] = []
    for line in filter(None, lines):
        if line.startswith(" " * 8):
            items[-1] += " " + line.strip()
        else:
            items.append(line.strip())
    for item in items:
        found = re.fullmatch(r"(\w+(?:, \w+)*): (.*)", item)
        if found is None:
            raise ValueError(f"{thing!r}: this is no item: {item}")
        yield found[1].split(", "), found[2]


def check_arguments(thing: Any, named: list[str]) -> None:
    """Raise ValueError if a docstring does not have just the arguments that there are."""
    wanted = [name for name in inspect.signature(thing).parameters if name != "self"]
    if sorted(named) != sorted(wanted):
        raise ValueError(f"{thing!r}: its arguments are {wanted}, described are {named}")


def summary(thing: Any) -> str:
    """Return the prose of a docstring that has nothing else."""
    text, sections = split(thing)
    if sections:
        raise ValueError(f"{thing!r}: a property has no sections")
    return text


def vars_of(owner: type, name: str) -> Any:
    """Return a member of a class as it is written, not as it is looked up; None for none."""
    return next((vars(base)[name] for base in owner.__mro__ if name in vars(base)), None)


def _is_shown(value: Any, name: str) -> bool:
    is_described = bool(getattr(value, "__doc__", None)) and (
        not name.startswith("_") or name == "__iter__"
    )
    return is_described and (isinstance(value, property) or inspect.isfunction(value))


def _alias(name: str, module: str) -> str:
    """Return what a name for a type stands for, as it is written in its module."""
    source = inspect.getsource(importlib.import_module(f"broadcast_server.{module}"))
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
            # A type in quotes stands there without them.
            return re.sub(r"'([^']* \| [^']*)'", r"\1", ast.unparse(statement.value))
    raise ValueError(f"{module} has no {name}")


def page() -> str:
    """Return the page as Markdown."""
    names = [name for group in GROUPS.values() for name in group]
    if sorted(names) != sorted(broadcast_server.__all__):
        raise ValueError(f"not in both: {set(names) ^ set(broadcast_server.__all__)}")
    made = Page()
    for title, group in GROUPS.items():
        made.add(f"## {title}")
        for name in group:
            made.add_public(name)
    return "".join(made.parts)


if __name__ == "__main__":
    pathlib.Path(__file__).with_name("library.md").write_text(page(), encoding="utf-8")
