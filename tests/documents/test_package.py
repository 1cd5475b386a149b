"""What is shipped: the package as it imports, the pages made from it, its wheel and its sdist."""

from __future__ import annotations

import ast
import email
import importlib
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

from ..support import PYTHON, ROOT, code_blocks, run_python, running_hub

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


def run_failing(*command: str | os.PathLike[str], cwd: pathlib.Path) -> str:
    """Run a command that must fail with 1; return its standard error."""
    result = subprocess.run(
        [os.fspath(part) for part in command],
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=SECONDS,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stderr


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
        for name, value in vars(importlib.import_module("broadcast_server.errors")).items()
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


# Takes away what only POSIX systems have, before a program that must do without it.
WITHOUT_POSIX = """
import os, select, selectors, signal, socket, sys
for module, names in {
    os: "register_at_fork fork set_blocking",
    select: "poll epoll",
    selectors: "PollSelector EpollSelector",
    signal: "SIGHUP",
    socket: "MSG_DONTWAIT MSG_NOSIGNAL AF_UNIX",
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
selectors.DefaultSelector = selectors.SelectSelector
for name in "fcntl", "termios", "resource", "pwd", "grp", "tty", "pty":
    sys.modules[name] = None
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import broadcast_server.errors",
        "from broadcast_server import publish",
        "from broadcast_server import BroadcastClient",
    ],
)
def test_client_side_is_imported_without_what_only_posix_has(statement: str) -> None:
    """A program that only talks to a hub may be imported where no hub can run."""
    run(PYTHON, "-c", WITHOUT_POSIX + statement)


def test_publish_works_without_what_only_posix_has() -> None:
    """It connects, sends and reads the answer with what every system has."""
    program = "import broadcast_server as b\nprint(b.publish(sys.argv[1], 'x', timeout=30))"
    with running_hub() as hub:
        id = run(PYTHON, "-c", WITHOUT_POSIX + program, hub.url).strip()
        assert [(message.id, message.data) for message in hub.history("/")] == [(id, "x")]


def test_publish_imports_neither_a_client_nor_a_hub() -> None:
    """A script that sends one message does not pay for threads and queues."""
    program = """
import sys
from broadcast_server import publish
parts = ("hub", "cli", "client.client", "client.core", "client.link", "transport.tls_stream")
assert not {f"broadcast_server.{part}" for part in parts} & set(sys.modules)
"""
    run(PYTHON, "-c", program)


def test_parser_needs_only_the_standard_library(tmp_path: pathlib.Path) -> None:
    """The man page is made in a build that has none of the packages that we use."""
    (tmp_path / "broadcast_server").symlink_to(PACKAGE)
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from broadcast_server.cli.options.parser import build_parser
build_parser().format_long_help()
others = {{name.partition(".")[0] for name in sys.modules}} - sys.stdlib_module_names
assert others <= {{"broadcast_server", "__main__"}}, others
"""
    # Without site, hence without what is installed.
    run(PYTHON, "-I", "-S", "-c", program)


def test_package_runs_from_a_zip_file(tmp_path: pathlib.Path) -> None:
    """The page is read by the import system: a frozen program has no files beside its modules."""
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for path in PACKAGE.rglob("*"):
            if "__pycache__" not in path.parts:
                made.write(path, path.relative_to(PACKAGE.parent))
    program = f"""
import sys, urllib.request
sys.path.insert(0, {str(archive)!r})
from broadcast_server import BroadcastHub, publish
with BroadcastHub(port=0) as hub:
    assert {str(archive)!r} in sys.modules[BroadcastHub.__module__].__file__
    address = f"http://127.0.0.1:{{hub.port}}"
    for path in "/-/static/room.js", "/-/static/app.css":
        assert urllib.request.urlopen(address + path, timeout=10).read()
    publish(address, "hello")
"""
    run(PYTHON, "-c", program)


def test_name_that_is_missing_is_an_attribute_error() -> None:
    """The names that are imported when asked for do not hide a misspelt one."""
    with pytest.raises(AttributeError, match="has no attribute 'BroadcastHubb'"):
        _ = getattr(broadcast_server, "BroadcastHub" + "b")
    with pytest.raises(ImportError):
        exec("from broadcast_server import BroadcastHubb")
    assert set(broadcast_server.__all__) <= set(dir(broadcast_server))


def test_each_public_name_is_imported_from_where_type_checkers_see_it() -> None:
    """The list for type checkers and the one of the running package are the same."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    homes = {
        alias.name: f"broadcast_server.{node.module}"
        for node in seen.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(homes) == set(broadcast_server.__all__)
    for name, home in homes.items():
        value = getattr(broadcast_server, name)
        assert getattr(importlib.import_module(home), name) is value


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
    from broadcast_server.cli.options.tables import OPTIONS

    for groups in OPTIONS.values():
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
    web = {
        f"broadcast_server/hub/http/static/{path.name}"
        for path in (PACKAGE / "hub/http/static").iterdir()
    }
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


@pytest.mark.package
def test_frozen_program_has_all_its_parts(
    built: dict[str, pathlib.Path], tmp_path: pathlib.Path
) -> None:
    """PyInstaller finds the page's files, and what is imported when it is needed."""
    venv.create(tmp_path / "venv", with_pip=True)
    binaries = tmp_path / "venv" / "bin"
    run(binaries / "pip", "install", "--quiet", built[".whl"], "pyinstaller>=6", cwd=tmp_path)
    (tmp_path / "program.py").write_text("""
import sys
from urllib.request import Request, urlopen
from broadcast_server import BroadcastClient, BroadcastHub, publish
from broadcast_server.cli import main
if len(sys.argv) > 1:
    sys.exit(main())
with BroadcastHub(port=0) as hub, BroadcastClient(hub.url) as client:
    address = hub.url.replace("ws:", "http:")
    publish(address, "hello")
    print(client.recv(timeout=10).data)
    with urlopen(Request(address, headers={"Accept": "text/html"}), timeout=10) as answer:
        assert b"<html" in answer.read()
    with urlopen(address + "metrics", timeout=10) as answer:
        assert b"broadcast_messages_total 1.0" in answer.read()
""")
    run(binaries / "pyinstaller", "--noconfirm", "--log-level=ERROR", "program.py", cwd=tmp_path)
    frozen = tmp_path / "dist" / "program" / "program"
    assert run(frozen, cwd=tmp_path) == "hello\n"
    version = f"broadcast-server {broadcast_server.__version__}\n"
    assert run(frozen, "--version", cwd=tmp_path) == version
    assert "refused" in run_failing(frozen, "who", "127.0.0.1:1", cwd=tmp_path)
