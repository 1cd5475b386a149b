"""How-to pages for systemd and containers: what they tell to copy is taken from them and run."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess

import pytest

from broadcast_server.cli.options import parser
from broadcast_server.cli.options.tables import OPTIONS
from broadcast_server.settings import Settings

from ..support import PYTHON, ROOT, RawClient
from ..support.command import SECONDS, environment, hub_program

pytestmark = pytest.mark.slow

HUB = "/opt/broadcast-server/bin/broadcast-server"
COMMAND = os.fspath(ROOT / "bin" / "broadcast-server")

# systemd calls an exposure below 2 OK; the tool counts in tenths.
MOST_EXPOSURE = 20


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a how-to page."""
    text = (ROOT / "docs" / "howto" / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def seconds_to_end() -> float:
    """Return how long a hub with the default settings may take to end."""
    settings = Settings()
    return settings.drain_delay + settings.drain_seconds + settings.stop_timeout + 1


def accepted(arguments: list[str]) -> dict[str, object]:
    """Return what the command line makes of arguments; it ends the test if it refuses them."""
    return vars(parser.build_parser().parse_args(parser.command_first(arguments)))


# -- systemd -----------------------------------------------------------------------------------

SOCKET, SERVICE, SECRETS = blocks("systemd.md", "ini")


def assignments(unit: str) -> list[tuple[str, str, str]]:
    """Return section, name and value of each line of a unit; anything else fails."""
    section, found = "", []
    for line in unit.splitlines():
        if head := re.fullmatch(r"\[(\w+)\]", line):
            section = head[1]
        elif line:
            pair = re.fullmatch(r"([A-Z]\w+)=(.*)", line)
            assert pair, line
            found.append((section, pair[1], pair[2]))
    return found


def values(unit: str, name: str) -> list[str]:
    return [value for _, key, value in assignments(unit) if key == name]


def test_units_start_a_command_line_that_is_one() -> None:
    """The options exist, and the socket's port is the default one."""
    (start,) = values(SERVICE, "ExecStart")
    program, *arguments = shlex.split(start)
    assert program == HUB
    assert accepted(arguments) == {
        "start": False, "connect": False, "command": "start", "restart_on_term": True,
    }  # fmt: skip
    port = {option.name: option.default for option in OPTIONS["start"]["where to listen"]}["port"]
    assert values(SOCKET, "ListenStream") == [str(port)]


def test_units_leave_the_hub_its_time_and_its_descriptors() -> None:
    """systemd kills what takes longer, and counts one descriptor for each client."""
    assert int(values(SERVICE, "TimeoutStopSec")[0]) > seconds_to_end()
    assert int(values(SERVICE, "LimitNOFILE")[0]) > Settings().max_clients
    assert int(values(SERVICE, "TasksMax")[0]) > Settings().max_clients
    assert values(SERVICE, "Type") == ["notify"]
    assert "AF_UNIX" in values(SERVICE, "RestrictAddressFamilies")[0]  # for the notification


def test_unit_gives_the_hub_no_rights() -> None:
    """Each line of the hardening is there once, and none of them is off."""
    hardening = [
        "DynamicUser", "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges",
        "PrivateDevices", "PrivateTmp", "PrivateUsers", "ProtectClock", "ProtectControlGroups",
        "ProtectHome", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules",
        "ProtectKernelTunables", "RemoveIPC", "RestrictNamespaces", "RestrictRealtime",
        "RestrictSUIDSGID",
    ]  # fmt: skip
    assert {name: values(SERVICE, name) for name in hardening} == {
        name: ["yes"] for name in hardening
    }
    assert values(SERVICE, "CapabilityBoundingSet") == [""]
    assert values(SERVICE, "ProtectSystem") == ["strict"]
    names = [name for _, name, _ in assignments(SERVICE) if name != "SystemCallFilter"]
    assert len(set(names)) == len(names)


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: pathlib.Path) -> None:
    """Its own tools, where they are installed, with a command that is there; else what is above."""
    analyze = shutil.which("systemd-analyze")
    units = {"broadcast-server.socket": SOCKET, "broadcast-server.service": SERVICE}
    assert {section for unit in units.values() for section, _, _ in assignments(unit)} == {
        "Unit", "Socket", "Service", "Install",
    }  # fmt: skip
    if analyze is None:
        return
    for name, unit in units.items():
        (tmp_path / name).write_text(unit.replace(HUB, COMMAND))
    paths = [os.fspath(tmp_path / name) for name in units]
    for arguments in (
        ["verify", "--man=no", *paths],
        ["security", "--offline=true", f"--threshold={MOST_EXPOSURE}", "--no-pager", paths[1]],
    ):
        result = subprocess.run(
            [analyze, *arguments], capture_output=True, text=True, timeout=SECONDS
        )
        assert result.returncode == 0, result.stdout + result.stderr
        # What it does not know it only warns of.
        assert not re.search("unknown|ignoring", result.stderr, re.IGNORECASE), result.stderr


def test_drop_in_for_secrets_changes_only_the_command_line() -> None:
    """The first, empty line takes the unit's own away: without it there would be two."""
    (credential,) = values(SECRETS, "LoadCredential")
    name, _, path = credential.partition(":")
    assert path.startswith("/etc/")
    empty, start = values(SECRETS, "ExecStart")
    assert empty == ""
    assert start.startswith(values(SERVICE, "ExecStart")[0])
    assert accepted(shlex.split(start)[1:])["token_file"] == f"%d/{name}"


# -- Containers --------------------------------------------------------------------------------

(DOCKERFILE,) = blocks("containers.md", "dockerfile")
(KUBERNETES,) = blocks("containers.md", "yaml")


def instructions(name: str) -> list[str]:
    """Return the arguments of each instruction of that name."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def test_unit_and_image_bound_what_the_c_library_keeps() -> None:
    """Both with the value whose effect docs/topics/reliability.md tells; the tests below run it."""
    assert values(SERVICE, "Environment") == instructions("ENV") == ["MALLOC_ARENA_MAX=2"]


def test_image_has_no_root_and_no_shell_between() -> None:
    """The hub is the process that gets the signal, whichever the base image would say."""
    (user,) = instructions("USER")
    uid, gid = map(int, user.split(":"))
    assert uid > 0 and gid > 0
    (entry,), (health,), (signal_name,) = map(
        instructions, ("ENTRYPOINT", "HEALTHCHECK", "STOPSIGNAL")
    )
    assert signal.Signals[signal_name] == signal.SIGTERM
    arguments = accepted(json.loads(entry)[1:])
    assert arguments["command"] == "start" and arguments["host"] in ("0.0.0.0", ["0.0.0.0"])
    assert json.loads(health.partition("CMD ")[2])[1] == "-c"
    assert instructions("EXPOSE") == ["8765"]


def play(python: str, command: str, without: str = "") -> None:
    """Do what a container runtime does with the image: start, check, stop, check.

    Args:
        python: the interpreter.
        command: the hub's command.
        without: a variable that the environment is not to have.
    """
    variables = {name: value for name, value in environment().items() if name != without}
    variables |= dict(line.split("=") for line in instructions("ENV"))
    (entry,), (health,), (signal_name,) = map(
        instructions, ("ENTRYPOINT", "HEALTHCHECK", "STOPSIGNAL")
    )
    program, *arguments = json.loads(entry)
    assert program == "/opt/hub/bin/broadcast-server"
    # On loopback, and on a free port: more than one of these runs at a time.
    arguments[arguments.index("--host") + 1] = "127.0.0.1"
    with hub_program([python, command, *arguments, "--port", "0"], env=variables) as hub:
        check_program, *check = json.loads(health.partition("CMD ")[2])
        assert check_program == "/opt/hub/bin/python"
        check = [python, *(each.replace(":8765/", f":{hub.port}/") for each in check)]

        def run_check() -> int:
            return subprocess.run(check, capture_output=True, timeout=SECONDS).returncode

        assert run_check() == 0
        with RawClient.connect(port=hub.port) as client:
            hub.process.send_signal(signal.Signals[signal_name])
            assert client.recv_close()[0] == 1001
            client.close()
        assert hub.process.wait(SECONDS) == 0
        assert run_check() != 0


def test_commands_of_the_image_do_what_they_should() -> None:
    """Entry point, health check and stop signal, with this checkout in the image's place."""
    play(PYTHON, COMMAND)


@pytest.mark.package
def test_image_can_be_built_and_run(tmp_path: pathlib.Path) -> None:
    """Its RUN lines in a directory; what they install there is what runs."""
    source, target = tmp_path / "src", tmp_path / "hub"
    # What a build leaves behind belongs into no checkout.
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "node_modules")
    shutil.copytree(ROOT, source, ignore=left_out)
    for line in instructions("RUN"):
        words = [
            word.replace("/opt/hub", os.fspath(target)).replace("/src", os.fspath(source))
            for word in shlex.split(line)
        ]
        if words[0] == "python":
            words[0] = PYTHON
        subprocess.run(words, check=True, timeout=240, stdout=subprocess.DEVNULL)
    # Without the checkout in the module path, what was installed is what runs.
    programs = (os.fspath(target / "bin" / name) for name in ("python", "broadcast-server"))
    play(*programs, without="PYTHONPATH")


def test_pod_has_the_time_that_its_hub_takes() -> None:
    """Else it would be killed in the middle of its goodbyes."""
    (grace,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", KUBERNETES)
    (arguments,) = re.findall(r"args: (\[.*\])", KUBERNETES)
    given = accepted(["start", *json.loads(arguments)])
    delay = given["drain_delay"]
    assert isinstance(delay, float) and delay > 0
    assert int(grace) > delay + seconds_to_end()
    period = re.search(r"path: /healthz, port: 8765}\n +periodSeconds: (\d+)", KUBERNETES)
    assert period
    # Three failures are what Kubernetes wants before it believes that a pod is not ready.
    assert 3 * int(period[1]) <= delay


def test_health_is_what_the_probes_ask_for() -> None:
    """The path of the page's probes exists in every hub."""
    from ..support import running_hub

    with running_hub() as hub:
        connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=SECONDS)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
