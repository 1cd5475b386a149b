"""The modules of the package import downwards only, and each library where it belongs."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest
import websocket_server

import broadcast_server
from broadcast_server.hub import handler, server

from .support import ROOT, RawClient, running_hub, wait_until

PACKAGE = pathlib.Path(broadcast_server.__file__).parent


def read_layers() -> list[list[str]]:
    """Return the lines of the list in CONTRIBUTING.md; a line may use the lines below it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(r"^```layers\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert found
    return [re.split(r" {2,}", line)[0].split() for line in found[1].splitlines()]


LAYERS = read_layers()
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}

# These only compute: bytes and values in, bytes and values out.
PURE = [
    "terminal_status", "terminal_view", "terminal_commands",
    "registry", "rooms", "presence", "plain_request", "policies", "access", "origins", "queries",
    "media_types", "rates", "decisions", "bells", "places", "batches", "messages", "frames",
    "urls", "settings", "errors",
]  # fmt: skip
DOING_IO = {"asyncio", "http", "os", "select", "selectors", "signal", "socket", "ssl", "subprocess"}

# Each library is imported in one place: a module, or two that stand beside each other.
OWNERS = {
    "websocket_server": {"handler"},
    "websocket": {"dialer"},
    "h11": {"handshake"},
    "jwt": {"tokens"},
    "cryptography": {"tokens"},
    "prometheus_client": {"metrics"},
    "prompt_toolkit": {"terminal_prompt", "terminal_output"},
}


def tree_of(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def walk_running(node: ast.AST) -> list[ast.AST]:
    """Return the nodes that exist when the program runs: not those only a type checker sees."""
    found = [node]
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child):
            found += walk_running(child)
    return found


def imports_of(module: str) -> set[str]:
    """Return what a module imports, its own package's modules as ``.name``."""
    found = set()
    for node in walk_running(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            if source in (".", "broadcast_server"):
                # A name that is no module stands in __init__.
                found |= {
                    f".{alias.name if alias.name in RANK else '__init__'}" for alias in node.names
                }
            else:
                found.add(source)
    return {
        name.replace("broadcast_server.", ".") if name.startswith("broadcast_server.") else name
        for name in found
    }


def test_every_module_has_a_layer() -> None:
    """A new module must say where it stands."""
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(RANK)


@pytest.mark.parametrize("module", RANK)
def test_imports_go_downwards(module: str) -> None:
    """No module imports one of its own layer or of a layer above."""
    own = {name[1:] for name in imports_of(module) if name.startswith(".")}
    assert {name for name in own if RANK[name] <= RANK[module]} == set()


def test_hub_and_client_do_not_import_each_other() -> None:
    """What both use is below them, so that either can change without a look at the other."""

    def needed(module: str) -> set[str]:
        found, waiting = set(), {module}
        while waiting:
            module = waiting.pop()
            found.add(module)
            waiting |= {n[1:] for n in imports_of(module) if n.startswith(".")} - found
        return found

    hub, client = needed("hub"), needed("client")
    assert "core" in hub and "client_core" in client
    assert {module for module in hub if module.startswith("client")} == set()
    assert client & {"hub", "core", "rooms", "connection", "settings", "handshake"} == set()


@pytest.mark.parametrize("library", OWNERS)
def test_library_is_imported_only_by_its_owner(library: str) -> None:
    """What we take from a library goes through one place."""
    users = {m for m in RANK for name in imports_of(m) if name.split(".")[0] == library}
    assert users == OWNERS[library]


@pytest.mark.parametrize("module", PURE)
def test_pure_module_does_no_io_and_starts_no_thread(module: str) -> None:
    """The decisions can be tested without a socket, a clock or a thread."""
    assert {name.split(".")[0] for name in imports_of(module)} & DOING_IO == set()
    words = {node.id for node in walk_running(tree_of(module)) if isinstance(node, ast.Name)}
    words |= {n.attr for n in walk_running(tree_of(module)) if isinstance(n, ast.Attribute)}
    assert words & {"Thread", "Timer", "open", "sleep", "print"} == set()


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
        running = hub._server
        assert isinstance(running, websocket_server.WebsocketServer)
        (entry,) = running.clients
        assert isinstance(entry["handler"], websocket_server.WebSocketHandler)
        assert running.handler_to_client(entry["handler"]) is entry
        assert entry["handler"].handshake_done and entry["handler"].keep_alive
        client.leave()
        assert wait_until(lambda: not running.clients)
