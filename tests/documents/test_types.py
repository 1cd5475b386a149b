"""What type checkers tell the users of the package: mypy and pyright, over programs of theirs."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
import pathlib
import re
import shutil
import subprocess
import typing
from typing import Any

import pytest

import broadcast_server
from broadcast_server import BroadcastClient
from broadcast_server.client.options import ClientOptions
from broadcast_server.settings import HubSettings, Settings

from ..support import PYTHON, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 280  # bound of every process
CHECKERS = {
    # websocket-server has no types, which concerns nobody who has the package installed.
    "mypy": [
        *(PYTHON, "-m", "mypy", "--strict", "--ignore-missing-imports"),
        *("--python-version", "3.10", "--cache-dir", os.devnull, "--show-error-code-links"),
    ],
    "pyright": [str(ROOT / "tests" / "node_modules" / ".bin" / "pyright"), "--pythonpath", PYTHON],
}

# A program of a user's. Each line that ends with `# wrong` has an error to both checkers, and no
# other one has.
PROGRAM = """
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

from broadcast_server import (
    BroadcastClient, BroadcastHub, Gap, Grant, Member, Message, Presence, publish
)
from broadcast_server import BroadcastHubb  # wrong

def plain(client: BroadcastClient) -> None:
    assert_type(client.recv(), Message)
    assert_type(client.recv(timeout=1.0).data, str | bytes)
    for message in client:
        assert_type(message, Message)
    client.recv().dat  # wrong
    client.recv("5")  # wrong
    client.send(5)  # wrong
    client.send("x", key=5)  # wrong
    assert_type(client.publish("x"), str)


def every(client: BroadcastClient[Message | Presence | Gap]) -> None:
    item = client.recv()
    assert_type(item, Message | Presence | Gap)
    item.data  # wrong
    if isinstance(item, Message):
        assert_type(item.id, str | None)
    elif isinstance(item, Presence):
        assert_type(item.members, tuple[Member, ...])
    else:
        assert_type(item, Gap)
    for one in client:
        assert_type(one, Message | Presence | Gap)


class Bot(BroadcastClient):
    def answer(self) -> str:
        return str(self.recv().data)


class Watcher(BroadcastClient[Message | Presence | Gap]):
    def __init__(self, url: str) -> None:
        super().__init__(url, presence=True)


assert_type(Bot("ws://h/").connect(), Bot)
assert_type(Watcher("ws://h/").recv(), Message | Presence | Gap)
with Bot("ws://h/") as bot:
    assert_type(bot, Bot)
with BroadcastClient("ws://h/", presence=False, name="a", ca_file=Path("ca.pem")) as one:
    assert_type(one, BroadcastClient[Message])
    plain(one)
    every(one)
with BroadcastClient("ws://h/", presence=True, headers={"A": "b"}) as two:
    assert_type(two.recv(), Message | Presence | Gap)
    every(two)
    plain(two)  # wrong
flag = bool(input())
assert_type(BroadcastClient("ws://h/", presence=flag).recv(), Message | Presence | Gap)
BroadcastClient(5)  # wrong
BroadcastClient("ws://h/", nick="a")  # wrong
BroadcastClient("ws://h/", since=5)  # wrong
BroadcastClient("ws://h/", headers={"A": 1})  # wrong
BroadcastClient("ws://h/", on_state="x")  # wrong
BroadcastClient("ws://h/", presence="yes")  # wrong
BroadcastClient("ws://h/", "ann")  # wrong
BroadcastClient("ws://h/", presence=True, max_message_bytes="5")  # wrong


def allow(message: Message) -> str | None:
    return None


def heard(message: Message) -> None:
    pass


hub = BroadcastHub(port=0, max_message_bytes=3, allow_origin=["https://a.example"], filter=allow)
BroadcastHub(["127.0.0.1", "::1"], 0, on_message=heard, tls_cert=Path("c"), ping_interval=1)
BroadcastHub(max_mesage_bytes=3)  # wrong
BroadcastHub(max_message_bytes="3")  # wrong
BroadcastHub(allow_origin="https://a.example")  # wrong
BroadcastHub(port="8765")  # wrong
BroadcastHub(on_message=allow, on_join=heard)  # wrong
BroadcastHub(sockets=[5])  # wrong
config: dict[str, Any] = {"port": 0}
BroadcastHub(**config)
hub.members(5)  # wrong
assert_type(hub.members("/a")[0], Member)
hub.send(hub.members()[0], "x")  # wrong
hub.broadcast("x", timeout=None)  # wrong
assert_type(hub.broadcast("x"), Message)
with hub as same:
    assert_type(same, BroadcastHub)
Grant(subscribe=("/a",), publish=None)
publish("http://h/", "x", key="k", timeout=1)
publish("http://h/", 5)  # wrong
"""


@functools.cache
def is_installed(checker: str) -> bool:
    return shutil.which(CHECKERS[checker][0]) is not None


def run_checker(
    checker: str, folder: pathlib.Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run a checker that must be installed, in a folder of the user's."""
    if not is_installed(checker):
        pytest.skip(f"{checker} is not installed (make test installs it)")
    (folder / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "extraPaths": [str(ROOT)],
                "pythonVersion": "3.10",
                "typeCheckingMode": "strict",
                "reportMissingModuleSource": False,
                "reportUnusedExpression": False,
                "reportUnusedClass": False,
                "reportUnusedFunction": False,
            }
        )
    )
    return subprocess.run(
        [*CHECKERS[checker], *arguments],
        cwd=folder,
        env={**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        timeout=SECONDS,
    )


@pytest.mark.parametrize("checker", CHECKERS)
def test_checker_finds_what_is_wrong_and_nothing_else(checker: str, tmp_path: pathlib.Path) -> None:
    """Misspelt names and settings, wrong types; what a client receives follows from presence."""
    (tmp_path / "program.py").write_text(PROGRAM)
    result = run_checker(checker, tmp_path, "program.py")
    found = {
        int(line) for line in re.findall(r"program\.py:(\d+)(?::\d+)?(?: -|:) error", result.stdout)
    }
    lines = PROGRAM.splitlines()
    wanted = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert found == wanted, result.stdout + result.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_every_public_name_is_there(checker: str, tmp_path: pathlib.Path) -> None:
    """Checkers know of no ``__getattr__``."""
    names = ", ".join(broadcast_server.__all__)
    (tmp_path / "names.py").write_text(f"from broadcast_server import {names}\nprint({names})\n")
    result = run_checker(checker, tmp_path, "names.py")
    assert result.returncode == 0, result.stdout + result.stderr


def test_types_of_the_public_names_are_complete(tmp_path: pathlib.Path) -> None:
    """No type that a user meets is left to be guessed."""
    result = run_checker("pyright", tmp_path, "--verifytypes", "broadcast_server", "--outputjson")
    symbols = json.loads(result.stdout)["typeCompleteness"]["symbols"]
    public = [getattr(broadcast_server, name) for name in broadcast_server.__all__]
    homes = tuple(f"{value.__module__}.{value.__name__}" for value in public)
    homes += tuple(f"broadcast_server.{name}" for name in broadcast_server.__all__)
    homes += ("broadcast_server.settings.HubSettings", "broadcast_server.client.options")
    concerned = [
        symbol
        for symbol in symbols
        if symbol["name"] in homes or symbol["name"].startswith(tuple(f"{h}." for h in homes))
    ]
    assert len(concerned) > 150
    assert [symbol for symbol in concerned if not symbol["isTypeKnown"]] == []


def test_options_for_checkers_are_those_of_the_client() -> None:
    """All arguments by name but ``presence``, each with the same type."""
    wanted = {
        name: parameter.annotation.replace("tls.StrPath", "StrPath")
        for name, parameter in inspect.signature(BroadcastClient).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "presence"
    }
    assert annotations_of(ClientOptions) == wanted


def test_settings_for_checkers_are_those_of_the_hub() -> None:
    """Each with the same type, but for lists, which may be given as such."""
    wanted = {
        field.name: "Texts" if str(field.type).startswith("tuple") else str(field.type)
        for field in dataclasses.fields(Settings)
    }
    assert annotations_of(HubSettings) == wanted


def annotations_of(kind: Any) -> dict[str, str]:
    """Return the types of a TypedDict as they are written."""
    return {
        name: getattr(value, "__forward_arg__", value)
        for name, value in kind.__annotations__.items()
    }


def test_types_cost_the_running_program_nothing() -> None:
    """A class that is generic to checkers is one at run time, and needs no typing_extensions."""
    assert typing.get_origin(BroadcastClient[broadcast_server.Message]) is BroadcastClient
    program = """
import sys
sys.modules["typing_extensions"] = None
from broadcast_server import BroadcastClient, BroadcastHub, Message
with BroadcastHub(port=0) as hub, BroadcastClient[Message](hub.url) as client:
    hub.broadcast("x")
    assert client.recv(10).data == "x"
"""
    subprocess.run(
        [PYTHON, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )
