"""The site of the documentation: how Sphinx builds it. ``make docs`` does, into build/site/.

The source directory is the whole checkout, not docs/: so a link means the same here as on GitHub,
also one into the code, and the README is the site's first page. Which pages there are is found,
not listed; they are in the four folders of the navigation, and those of ``FIRST`` come first.
"""

from __future__ import annotations

import html
import pathlib
import re
import shutil
from typing import Any

from docutils import nodes
from pygments.lexers.special import TextLexer

from broadcast_server import __version__

project = "broadcast-server"
release = version = __version__
author = "The broadcast-server maintainers"
project_copyright = f"the maintainers of {project}"

extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/**/*.md"]
# What is never looked into: folders that may be large, and what is in none of the pages.
exclude_patterns = ["build", "dist", "tests", "broadcast_server", "bin", "*.egg-info", ".*"]

# Anchors of headings as GitHub makes them; <img> of the README as a picture that is copied.
myst_heading_anchors = 4
myst_enable_extensions = ["html_image"]

highlight_language = "none"
# Two dashes are an option, not a long one.
smartquotes = False

html_theme = "furo"
html_title = f"{project} {release}"
html_favicon = "../broadcast_server/hub/http/static/icon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
# Nothing that differs from build to build, and no copies of the sources.
html_last_updated_fmt = None
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_use_index = False

NAVIGATION = {
    "Tutorials": "docs/tutorials",
    "How to": "docs/howto",
    "Reference": "docs/reference",
    "Topics": "docs/topics",
    "Examples": "docs/examples",
    "Project": "",
}
FIRST = (
    "docs/tutorials/first-chat",
    "docs/howto/terminal",
    "docs/howto/scripts",
    "docs/howto/many-publishers",
    "docs/howto/tokens",
    "docs/howto/tls",
    "docs/howto/systemd",
    "docs/howto/containers",
    "docs/reference/options",
    "docs/reference/library",
    "docs/reference/protocol",
    "docs/reference/errors",
    "docs/reference/limits",
    "docs/topics/reliability",
    "docs/topics/performance",
    "docs/topics/design",
    "docs/topics/threads-and-locks",
)


def add_navigation(app: Any, name: str, source: list[str]) -> None:
    """Give the first page the navigation, which GitHub would show as a code block."""
    if name != root_doc:
        return
    for caption, folder in NAVIGATION.items():
        found = [page for page in app.env.found_docs if page.rpartition("/")[0] == folder]
        pages = [page for page in FIRST if page in found]
        pages += sorted(set(found) - {*pages, root_doc})
        lines = ["```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]
        source[0] += "\n\n" + "\n".join(lines) + "\n"


def break_names_well(app: Any, doctree: nodes.document, name: str) -> None:
    """Keep options whole, which would be broken behind their dashes, and let long names break.

    In a table the name of a test or a variable, which has no blanks, would make the table wider
    than a page. What is marked is copied and found like any text.
    """
    if app.builder.format != "html":
        return
    for literal in list(doctree.findall(nodes.literal)):
        text = literal.astext()
        if text.startswith("-") and len(text) <= 30:
            literal["classes"].append("option")
        elif len(text) > 20 and " " not in text and isinstance(literal.parent.parent, nodes.entry):
            marked = re.sub(r"(::|[_/.=])", r"\1<wbr>", html.escape(text))
            code = f'<code class="literal">{marked}</code>'
            literal.replace_self(nodes.raw("", code, format="html"))


def copy_first_page(app: Any, failure: Exception | None) -> None:
    """Let the site's address alone lead to its first page."""
    if failure is None and app.builder.name == "html":
        folder = pathlib.Path(app.outdir)
        shutil.copyfile(folder / f"{root_doc}.html", folder / "index.html")


def setup(app: Any) -> None:
    """Sphinx calls this."""
    # What Pygments does not know: CONTRIBUTING.md, which a test reads, and lines for cron.
    for language in ("directions", "tree", "crontab"):
        app.add_lexer(language, TextLexer)
    app.connect("source-read", add_navigation)
    app.connect("doctree-resolved", break_names_well)
    app.connect("build-finished", copy_first_page)
