"""The folders of the package import in one direction only, and each library where it belongs."""

from __future__ import annotations

import ast
import contextlib
import pathlib
import re

import pytest
import websocket_server

import broadcast_server
from broadcast_server.hub import handler, server

from .support import ROOT, RawClient, running_hub, wait_until
from .support.inside import server_of

PACKAGE = pathlib.Path(broadcast_server.__file__).parent
MOST_MODULES = 20
MOST_LINES = 620
MOST_TEST_FILES = 10

# Private names of Python and its library.
NOT_OURS = {
    "_ASN1Object",
    "_current_frames",
    "_exit",
    "_fields",
    "_getframe",
    "_handle_request_noblock",
    "_replace",
    "_sslobj",
}
# What a class takes its own private names from; "other" is another object of it.
OWN = {"self", "cls", "other"}

# Modules that import against the directions, to be moved.
KNOWN: set[tuple[str, str]] = set()

# Each library is imported in one place: a module, or two that stand beside each other.
OWNERS = {
    "websocket_server": {"hub.handler"},
    "websocket": {"client.dialer"},
    "h11": {"hub.http.connection"},
    "jwt": {"hub.http.keyring"},
    "cryptography": {"hub.http.keyring"},
    "prometheus_client": {"hub.metrics"},
    "prompt_toolkit": {"cli.terminal.prompt", "cli.terminal.output"},
}

# These only compute: bytes and values in, bytes and values out.
PURE = ["wire", "hub.rooms", "hub.http", "errors", "messages", "rules", "networks", "settings"]
# Of those these have to do with a socket or files.
NOT_PURE = {"hub.http.connection", "hub.http.keyring", "hub.http.pages"}
DOING_IO = {
    "asyncio",
    "http.client",
    "http.server",
    "os",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
}


def block(name: str) -> list[str]:
    """Return the lines of a block of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{name}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return found.splitlines()


def read_directions() -> dict[str, set[str]]:
    """Return for each folder the folders that it may import; "top" are the modules in none."""
    found = {}
    for line in block("directions"):
        folder, _, allowed = line.partition("->")
        found[folder.strip()] = set(re.split(r"[,\s]+", allowed.strip())) - {""}
    return found


def read_tree() -> set[str]:
    """Return the modules that the tree in CONTRIBUTING.md shows."""
    found, folders = set(), [""]
    for line in block("tree"):
        match = re.match(r"((?: {4})*)([a-z_-]+)(/|\.py)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        del folders[depth + 1 :]
        if match[3] == "/":
            folders.append(f"{folders[depth]}{match[2]}.")
        else:
            found.add(folders[depth] + match[2])
    return found


def name_of(path: pathlib.Path) -> str:
    """Return a module's name below the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


TREES = {
    name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")
}
MODULES = sorted(name for name in TREES if name.rpartition(".")[2] not in ("__init__", "__main__"))
FOLDERS = {name.rpartition(".")[0] for name in MODULES} - {""}
DIRECTIONS = read_directions()


def imports_of(module: str) -> set[str]:
    """Return what a module imports, also for the type checker alone; ours without the package."""
    found = set()
    here = module.split(".")[:-1]
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                source = (node.module or "").split(".")
                if source[0] != "broadcast_server":
                    found.add(node.module or "")
                    continue
                source = source[1:]
            else:
                source = here[: len(here) - node.level + 1]
                source += node.module.split(".") if node.module else []
            for alias in node.names:
                name = ".".join([*source, alias.name])
                found.add("." + (name if name in TREES else ".".join(source) or "__init__"))
    return found


def own_imports(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    return {name[1:] for name in imports_of(module) if name.startswith(".")}


def folder_of(module: str) -> str:
    return module.rpartition(".")[0] or "top"


def is_allowed(module: str, imported: str) -> bool:
    """Tell whether the directions let a module import another one."""
    if imported == "__init__":  # the public names, for the command
        return module.startswith("cli.commands.")
    if imported + ".__init__" in TREES:
        return module == "__main__"
    own, other = folder_of(module), folder_of(imported)
    return own == other or other in DIRECTIONS[own]


def circles(arrows: dict[str, set[str]]) -> list[str]:
    """Return the nodes that reach themselves."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = set(arrows.get(start, ()))
        while waiting:
            node = waiting.pop()
            found.add(node)
            waiting |= arrows.get(node, set()) - found
        return found

    return sorted(node for node in arrows if node in reached(node))


def test_every_folder_has_directions() -> None:
    """A new folder must say where it stands."""
    assert set(DIRECTIONS) == FOLDERS | {"top"}


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_directions(module: str) -> None:
    """Also those that are made for the type checker alone."""
    against = {name for name in own_imports(module) if not is_allowed(module, name)}
    assert against == {name for own, name in KNOWN if own == module}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Nor do folders, nor does the drawing of the directions itself have a circle."""
    modules = {module: own_imports(module) - {"__init__"} for module in MODULES}
    assert circles(modules) == []
    folders: dict[str, set[str]] = {}
    for module, imported in modules.items():
        folders.setdefault(folder_of(module), set()).update(map(folder_of, imported))
    for folder, others in folders.items():
        others.discard(folder)
    assert circles(folders) == []
    assert circles(DIRECTIONS) == []


def test_folders_and_files_are_not_too_large() -> None:
    """What cannot be taken in at one look hides what it is for."""
    for folder in FOLDERS | {"top"}:
        count = sum(folder_of(module) == folder for module in MODULES)
        assert count <= MOST_MODULES, folder
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) < MOST_LINES, path
    assert len(list((ROOT / "tests").glob("test_*.py"))) <= MOST_TEST_FILES


def test_tree_in_contributing_shows_every_module() -> None:
    """And none that is not there."""
    assert read_tree() == set(MODULES) | {"__main__"}


def test_class_names_mean_one_thing() -> None:
    """A reader who has learnt a name in one module does not learn it anew in another."""
    found: dict[str, list[str]] = {}
    for module in MODULES:
        for node in TREES[module].body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in found.items() if len(modules) > 1} == {}


@pytest.mark.parametrize("library", OWNERS)
def test_library_is_imported_only_by_its_owner(library: str) -> None:
    """What we take from a library goes through one place."""
    users = {m for m in MODULES for name in imports_of(m) if name.split(".")[0] == library}
    assert users == OWNERS[library]


@pytest.mark.parametrize(
    "module", [m for m in MODULES if (folder_of(m) in PURE or m in PURE) and m not in NOT_PURE]
)
def test_pure_module_does_no_io_and_starts_no_thread(module: str) -> None:
    """The decisions can be tested without a socket, a clock or a thread."""
    imported = imports_of(module)
    assert (imported | {name.split(".")[0] for name in imported}) & DOING_IO == set()
    nodes = list(ast.walk(TREES[module]))
    words = {node.id for node in nodes if isinstance(node, ast.Name)}
    words |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert words & {"Thread", "Timer", "open", "sleep", "print"} == set()


# -- The tests ---------------------------------------------------------------------------------


def read_tests() -> dict[str, ast.AST]:
    """Return the modules below ``tests``, by their paths there."""
    top = ROOT / "tests"
    paths = [path for path in top.rglob("*.py") if "node_modules" not in path.parts]
    return {
        path.relative_to(top).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in paths
    }


def imported_tests(tree: ast.AST) -> set[str]:
    """Return the test modules that a module imports, or imports from."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += (node.module or "").split(".")
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [part for alias in node.names for part in alias.name.split(".")]
    return {part for part in found if part.startswith("test_")}


def is_own(node: ast.expr) -> bool:
    """Tell whether an object is one of the class whose method names it."""
    if isinstance(node, ast.Call):
        node = node.func
        return isinstance(node, ast.Name) and node.id == "super"
    return isinstance(node, ast.Name) and node.id in OWN


def private_names(tree: ast.AST) -> set[str]:
    """Return the private names of other objects that a module uses, also in programs that it runs
    and in calls such as ``setattr``."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not is_own(node.value):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and node.args and not is_own(node.args[0]):
            function = ast.unparse(node.func).rpartition(".")[2]
            if function in ("getattr", "setattr", "delattr", "hasattr", "attrgetter"):
                texts = [ast.literal_eval(a) for a in node.args if isinstance(a, ast.Constant)]
                found |= {text.rpartition(".")[2] for text in texts if isinstance(text, str)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
            with contextlib.suppress(SyntaxError, ValueError):
                found |= private_names(ast.parse(node.value))
    return {name for name in found if re.match("_[^_]", name)} - NOT_OURS


def test_no_test_module_imports_from_another_one() -> None:
    """What several use is in ``tests/support``; one module runs the tests of others again."""
    found = {name: imported_tests(tree) for name, tree in read_tests().items()}
    del found["promises/test_over_tls.py"]
    assert {name: modules for name, modules in found.items() if modules} == {}


def test_private_names_are_known_in_one_place() -> None:
    """Tests ask ``tests/support/inside.py``: what is private may change with that module alone."""
    found = {name: private_names(tree) for name, tree in read_tests().items()}
    del found["support/inside.py"]
    assert {name: names for name, names in found.items() if names} == {}


# -- Libraries ---------------------------------------------------------------------------------


def test_websocket_server_classes_are_the_running_ones() -> None:
    """The hub's server and its sessions are websocket-server's classes, subclassed once each."""
    assert issubclass(server.HubServer, websocket_server.WebsocketServer)
    assert issubclass(handler.HubHandler, websocket_server.WebSocketHandler)
    # What docs/topics/dependencies.md says to stay in use as it is, is not overridden.
    assert "handle" not in vars(handler.HubHandler)
    assert "__init__" not in vars(handler.HubHandler)
    assert "serve_forever" not in vars(server.HubServer)
    with running_hub() as hub, RawClient.connect(port=hub.port) as client:
        client.sync()
        running = server_of(hub)
        assert isinstance(running, websocket_server.WebsocketServer)
        (entry,) = running.clients
        assert isinstance(entry["handler"], websocket_server.WebSocketHandler)
        assert running.handler_to_client(entry["handler"]) is entry
        assert entry["handler"].handshake_done and entry["handler"].keep_alive
        client.leave()
        assert wait_until(lambda: not running.clients)
