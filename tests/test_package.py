"""What is shipped: the package as it imports, the pages made from it, its wheel and its sdist."""

from __future__ import annotations

import email
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator

import pytest

import broadcast_server

from .support import PYTHON, ROOT, code_blocks, run_python

pytestmark = pytest.mark.slow

PACKAGE = pathlib.Path(broadcast_server.__file__).parent
MAN_PAGE = ROOT / "docs" / "man" / "broadcast-server.1"
# Where shells look for what completes the command.
COMPLETIONS = {
    "share/bash-completion/completions/broadcast-server": "bash/broadcast-server",
    "share/zsh/site-functions/_broadcast-server": "zsh/_broadcast-server",
    "share/fish/vendor_completions.d/broadcast-server.fish": "fish/broadcast-server.fish",
}
SECONDS = 280  # bound of every process that builds or installs


def run(*command: str | os.PathLike[str], cwd: pathlib.Path = ROOT) -> str:
    """Run a command that must succeed; return its standard output."""
    result = subprocess.run(
        [os.fspath(part) for part in command],
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=SECONDS,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# The package as it imports.


def test_import_leaves_logging_alone() -> None:
    """websocket-server calls logging.basicConfig() on import; ours must not show that."""
    program = """
import logging, sys, threading
root = logging.getLogger()
before = (root.level, list(root.handlers), logging.raiseExceptions, sys.getswitchinterval())
import broadcast_server
from broadcast_server import BroadcastClient, BroadcastHub
assert (root.level, root.handlers, logging.raiseExceptions, sys.getswitchinterval()) == before
assert threading.active_count() == 1
assert not logging.getLogger("broadcast_server").handlers
assert logging.getLogger("broadcast_server").level == logging.NOTSET
"""
    run(PYTHON, "-c", program)


def test_every_public_name_is_there() -> None:
    """What ``__all__`` promises exists, and holds all errors."""
    for name in broadcast_server.__all__:
        assert getattr(broadcast_server, name)
    errors = {
        name
        for name, value in vars(broadcast_server.errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    wanted = errors | {"BroadcastHub", "BroadcastClient"}
    wanted |= {"Message", "Member", "Presence", "Gap"}
    assert wanted <= set(broadcast_server.__all__)


def test_module_and_script_are_the_same_command() -> None:
    """``python -m broadcast_server``, the checkout's script and the installed one agree."""
    installed = pathlib.Path(sys.executable).with_name("broadcast-server")
    for command in (
        [PYTHON, "-m", "broadcast_server"],
        [PYTHON, "bin/broadcast-server"],
        [installed],
    ):
        assert run(*command, "--version") == f"broadcast-server {broadcast_server.__version__}\n"


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_while_modules_are_loaded_is_no_traceback(
    tmp_path: pathlib.Path, ignored: bool
) -> None:
    """It ends the command as it ends any program, unless whoever has started it ignores it."""
    # Stands for the package, and presses Ctrl-C.
    (tmp_path / "broadcast_server").mkdir()
    (tmp_path / "broadcast_server" / "__init__.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    )
    (tmp_path / "broadcast_server" / "cli.py").write_text("def main():\n    return 7\n")
    shell = "trap '' INT; " if ignored else ""
    result = subprocess.run(
        ["sh", "-c", f'{shell}exec "$@"', "sh", PYTHON, str(ROOT / "bin" / "broadcast-server")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.stdout, result.stderr) == ("", "")
    assert result.returncode == (7 if ignored else -signal.SIGINT)


def test_library_imports_nothing_of_the_console() -> None:
    """Who embeds a hub or a client pays neither for prompt_toolkit nor for an event loop."""
    program = """
import sys
import broadcast_server
broadcast_server.BroadcastHub, broadcast_server.BroadcastClient
assert not {"prompt_toolkit", "wcwidth", "asyncio"} & set(sys.modules)
"""
    run(PYTHON, "-c", program)


# Pages made from the code.


def make_man_page(tmp_path: pathlib.Path) -> str:
    """Return the man page that the present parser gives."""
    specification = re.search(r"manpages =\s*(.*)", (ROOT / "setup.cfg").read_text())
    assert specification
    _, _, rest = specification[1].partition(":")
    page = tmp_path / "page.1"
    run(PYTHON, "setup.py", "--quiet", "build_manpages", f"--manpages={page}:{rest}")
    return page.read_text()


def test_man_page_is_fresh(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The committed page is what the parser gives, in any terminal and on any day (make man)."""
    monkeypatch.setenv("COLUMNS", "47")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert make_man_page(tmp_path) == MAN_PAGE.read_text()


def test_man_page_has_what_a_reader_looks_for() -> None:
    """All sections are there, in the usual order, and every option with its default."""
    page = MAN_PAGE.read_text().replace("\\-", "-")
    sections = re.findall(r"^\.SH\s+(.*)", page, re.MULTILINE)
    wanted = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "COMMANDS", "EXIT STATUS"]
    wanted += ["AT A TERMINAL", "IN A PIPE", "SIGNALS", "CLOSE CODES", "ENVIRONMENT", "FILES"]
    wanted += ["EXAMPLES", "SEE ALSO", "AUTHOR"]
    assert sections == wanted
    from broadcast_server import cli

    for groups in cli.OPTIONS.values():
        for option in (option for group in groups.values() for option in group):
            heading = rf"\fB--{option.name}\fR"
            if option.metavar:  # a flag has none
                heading += rf" \fI\,{option.metavar}\/\fR"
            _, found, text = page.partition(heading)
            assert found and "(default: " in text.partition(".TP")[0].replace("\n", " ")


def test_man_page_is_clean_troff() -> None:
    """man has nothing to complain about."""
    command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", os.fspath(MAN_PAGE)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("columns", [80, 120])
def test_man_page_fits_its_terminal(columns: int) -> None:
    """No line is longer, commands included, and no name is broken by a hyphen."""
    command = ["man", "-E", "UTF-8", "-l", os.fspath(MAN_PAGE)]
    width = {"MANWIDTH": str(columns), "MANPAGER": "cat", "MAN_KEEP_FORMATTING": ""}
    result = subprocess.run(
        command, env={**os.environ, **width}, capture_output=True, text=True, timeout=SECONDS
    )
    assert result.returncode == 0 and len(result.stdout.splitlines()) > 300
    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "\N{HYPHEN}" not in result.stdout


def test_changelog_begins_with_this_version() -> None:
    """A release has its notes."""
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first and first[1] == broadcast_server.__version__


# The README's words.


@pytest.mark.parametrize("number", range(len(code_blocks("README.md", "python"))))
def test_readme_python_runs(number: int) -> None:
    """Each Python example of the README runs as it stands, but on a free port."""
    program = code_blocks("README.md", "python")[number].replace("8765", "0")
    result = run_python(program, "-W", "error")
    assert (result.returncode, result.stderr) == (0, "")
    for shown in re.findall(r"# prints: (.*)", program):
        assert shown in result.stdout


# Wheel and sdist.


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, pathlib.Path]]:
    """An sdist of this checkout, and a wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    before = MAN_PAGE.read_bytes()
    run(PYTHON, "-m", "build", "--outdir", folder, ROOT)
    assert MAN_PAGE.read_bytes() == before, "a build must not change the checkout"
    yield {path.suffix: path for path in folder.iterdir()}


@pytest.mark.package
def test_sdist_can_build_and_test(built: dict[str, pathlib.Path]) -> None:
    """The sdist holds what a distribution's packager needs, and nothing that was installed."""
    with tarfile.open(built[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ["setup.py", "Makefile", "docs/man/extra.inc", "tests/conftest.py", "LICENSE"]:
        assert name in names
    assert not [name for name in names if "node_modules" in name or name.endswith(".pyc")]


@pytest.mark.package
def test_wheel_has_its_parts(built: dict[str, pathlib.Path]) -> None:
    """Package, type marker, command and man page are in; tests are not."""
    with zipfile.ZipFile(built[".whl"]) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        fields = email.message_from_bytes(archive.read(metadata))
        (page,) = (name for name in names if name.endswith("share/man/man1/broadcast-server.1"))
        assert archive.read(page) == MAN_PAGE.read_bytes()
    assert fields["Version"] == broadcast_server.__version__
    required = [text for text in fields.get_all("Requires-Dist", []) if "extra" not in text]
    assert {re.split(r"[<>=]", text)[0] for text in required} == {
        "websocket-server",
        "websocket-client",
        "h11",
        "prometheus-client",
        "prompt_toolkit",
    }
    assert "broadcast_server/py.typed" in names
    web = {f"broadcast_server/web/{path.name}" for path in (PACKAGE / "web").iterdir()}
    assert len(web) > 5 and web <= set(names)
    assert any(name.endswith("scripts/broadcast-server") for name in names)
    for place in COMPLETIONS:
        assert any(name.endswith(f".data/data/{place}") for name in names), place
    assert {name.split("/")[0].split("-")[0] for name in names} == {"broadcast_server"}


@pytest.mark.package
@pytest.mark.parametrize("suffix", [".whl", ".gz"])
def test_installs_into_an_empty_environment(
    built: dict[str, pathlib.Path], suffix: str, tmp_path: pathlib.Path
) -> None:
    """The command, the library and the man page work where nothing else is installed."""
    venv.create(tmp_path, with_pip=True)
    binaries = tmp_path / "bin"
    run(binaries / "pip", "install", "--quiet", built[suffix], cwd=tmp_path)
    version = f"broadcast-server {broadcast_server.__version__}\n"
    assert run(binaries / "broadcast-server", "--version", cwd=tmp_path) == version
    page = tmp_path / "share" / "man" / "man1" / "broadcast-server.1"
    assert page.read_bytes() == MAN_PAGE.read_bytes()
    for place, source in COMPLETIONS.items():
        text = (ROOT / "docs" / "completions" / source).read_text(encoding="utf-8")
        assert (tmp_path / place).read_text(encoding="utf-8") == text
    program = """
from urllib.request import urlopen
from broadcast_server import BroadcastHub, BroadcastClient
with BroadcastHub(port=0) as hub, BroadcastClient(hub.url) as one, BroadcastClient(hub.url) as two:
    one.send("hello")
    print(two.recv(timeout=10).data)
    with urlopen(hub.url.replace("ws:", "http:") + "metrics", timeout=10) as answer:
        assert b"broadcast_messages_total 1.0" in answer.read()
"""
    assert run(binaries / "python", "-c", program, cwd=tmp_path) == "hello\n"
