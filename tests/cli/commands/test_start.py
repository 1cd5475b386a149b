"""``broadcast-server start`` as the process that it is: options, log, what cannot be."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from broadcast_server.cli.io.capacity import OWN_DESCRIPTORS

from ...support import PYTHON, HandshakeRefused, RawClient, http_request, wait_until
from ...support.command import (
    SECONDS,
    Running,
    assert_fails,
    environment,
    hub_command,
    hub_program,
    run,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "arguments",
    [
        ["start", "--port", "0"],
        ["--port", "0", "start"],
        ["--start", "--port=0"],
        ["--port", "0", "--start"],
    ],
)
def test_start_prints_the_real_address(arguments: list[str]) -> None:
    """Port 0 takes a free one, which the only line on standard output tells."""
    with hub_command(*arguments) as hub:
        assert hub.host == "127.0.0.1"
        with RawClient.connect(port=hub.port) as client:
            client.leave()
        status, output, _ = hub.end()
        assert (status, output) == (0, "")


def test_environment_sets_options() -> None:
    """Every option can come from a variable; what Kubernetes sets is not ours."""
    variables = {
        "BROADCAST_SERVER_PORT": "0",
        "BROADCAST_SERVER_HOST": "tcp://10.0.0.7:8765",
        "BROADCAST_SERVER_MAX_MESSAGE_BYTES": "5",
    }
    with hub_command("start", variables=variables) as hub:
        with RawClient.connect(port=hub.port) as client:
            client.send("123456")
            assert client.recv_close()[0] == 1009


def test_command_line_wins_over_environment() -> None:
    """What is typed now counts more than what was set before."""
    with hub_command("start", "--port", "0", variables={"BROADCAST_SERVER_PORT": "1"}) as hub:
        assert hub.port > 1


def test_json_log_is_json_throughout() -> None:
    """Joins and leaves are logged, one JSON object a line."""
    with hub_command("start", "--port", "0", "--log-format", "json") as hub:
        with RawClient.connect(port=hub.port, path="/scores?name=ann") as client:
            client.leave()
        status, _, log = hub.end()
    assert status == 0
    messages = [json.loads(line)["message"] for line in log.splitlines()]
    assert any("/scores" in message and "joined" in message for message in messages), messages
    assert any("/scores" in message and "left" in message for message in messages), messages


def test_log_level_silences() -> None:
    """At level error a hub that works logs nothing."""
    with hub_command("start", "--port", "0", "--log-level", "error") as hub:
        with RawClient.connect(port=hub.port) as client:
            client.leave()
        assert hub.end() == (0, "", "")


def test_hub_whose_log_nobody_reads_goes_on() -> None:
    """The pipe of standard error is full long before the last of these has come and gone."""
    with hub_command("start", "--port", "0") as hub:
        for _ in range(1000):
            with RawClient.connect(port=hub.port) as client:
                client.leave()
        with RawClient.connect(port=hub.port) as a, RawClient.connect(port=hub.port) as b:
            b.sync()
            a.send("still here")
            assert b.recv_message() == "still here"
        status, _, log = hub.end()
        assert status == 0 and len(log) > 1 << 17


def test_descriptor_limit_bounds_the_clients() -> None:
    """The soft limit is raised to the hard one, and the log says what that one holds."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100))

    with hub_command("start", "--port", "0", preexec_fn=limit) as hub:
        assert resource.prlimit(hub.process.pid, resource.RLIMIT_NOFILE) == (100, 100)
        _, _, log = hub.end()
    expected = 100 - OWN_DESCRIPTORS - 25
    assert f"max-clients is {expected} instead of 10000" in log
    assert "max-handshakes is 25 instead of 1000" in log


# As root: the hub becomes somebody else once all is imported, since RLIMIT_NPROC is not root's.
AS_SOMEBODY = """
import resource, os, sys
from broadcast_server import BroadcastHub
from broadcast_server.cli.commands import entry, start
from broadcast_server.hub import endpoints, metrics
import encodings.idna, prometheus_client.exposition, prometheus_client.process_collector
uid = os.getuid() or 54_321
used = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    except OSError:
        continue  # it has just ended
    if status["Uid"].split()[0] == str(uid):
        used += int(status["Threads"])
resource.setrlimit(resource.RLIMIT_NPROC, (used + int(sys.argv[1]),) * 2)
os.setuid(uid)
if len(sys.argv) > 2:
    # What a limit that nobody knew of does.
    start.capacity.tightest = lambda: None
sys.exit(entry.main(["start", "--port", "0"]))
"""


def bare_environment() -> dict[str, str]:
    """Return an environment without what measures coverage: somebody may not write where that
    writes, and it would need a thread."""
    return {k: v for k, v in environment().items() if not k.startswith("COVERAGE_")}


def answers_of_a_crowd(port: int, count: int) -> tuple[list[int], list[RawClient]]:
    """Connect that many clients; return their answers, and those that got 101."""
    statuses, joined = [], []
    for _ in range(count):
        try:
            joined.append(RawClient.connect(port=port, path="/r"))
            statuses.append(101)
        except HandshakeRefused as error:
            statuses.append(error.status)
            assert "\r\nRetry-After: " in error.head
    return statuses, joined


def refused_for_threads(port: int) -> int:
    """Return how many connections the hub has counted that got no thread."""
    head = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    answer = http_request(port, head).decode()
    found = re.search(r'broadcast_refusals_total{reason="no_thread"} (\d+)', answer)
    assert found, answer
    return int(found[1])


@contextlib.contextmanager
def group_of(tasks: int) -> Iterator[Callable[[], None]]:
    """A control group that may have so many tasks; gives what puts a new process into it."""
    group = pathlib.Path("/sys/fs/cgroup/pids", f"broadcast-test-{os.getpid()}")
    group.mkdir()
    try:
        (group / "pids.max").write_text(f"{tasks}\n")

        def enter() -> None:
            (group / "cgroup.procs").write_text("0")

        yield enter
        assert wait_until(lambda: (group / "cgroup.procs").read_text() == "")
    finally:
        group.rmdir()


may_make_groups = os.access("/sys/fs/cgroup/pids", os.W_OK)


def check_threads_bound(hub: Running, limit: str) -> None:
    """More clients come than there are threads: each of them gets an answer, and the log has said
    at the start how many there may be."""
    statuses, joined = answers_of_a_crowd(hub.port, 80)
    assert set(statuses) == {101, 503}
    for client in joined:
        client.sync()
        client.close()
    assert wait_until(lambda: refused_for_threads(hub.port) == 0)
    status, _, log = hub.end()
    found = re.search(rf"max-clients is (\d+) instead of 10000: {limit} allows no more", log)
    assert found and int(found[1]) == len(joined), log
    assert status == 0 and "Traceback" not in log


@pytest.mark.skipif(not may_make_groups, reason="no control group can be made here")
def test_threads_of_the_group_bound_the_clients() -> None:
    """As in a container: a full hub says so, whoever is refused gets 503."""
    with group_of(60) as enter, hub_command("start", "--port", "0", preexec_fn=enter) as hub:
        limit = r"the limit of 60 threads of its control group \(pids.max\)"
        check_threads_bound(hub, limit)


def test_threads_of_the_user_bound_the_clients() -> None:
    """The same for a user who may have only so many."""
    with hub_program([PYTHON, "-c", AS_SOMEBODY, "60"], env=bare_environment()) as hub:
        check_threads_bound(hub, r"the limit of \d+ threads of its user \(RLIMIT_NPROC\)")


def test_connections_without_a_thread_get_an_answer_and_are_counted() -> None:
    """Where the limit is one that the hub does not know, or others have used it up since."""
    command = [PYTHON, "-c", AS_SOMEBODY, "40", "unknown"]
    with hub_program(command, env=bare_environment()) as hub:
        statuses, joined = answers_of_a_crowd(hub.port, 80)
        assert set(statuses) == {101, 503}
        for client in joined:
            client.sync()
            client.close()
        assert wait_until(lambda: http_request(hub.port, b"").startswith(b"HTTP/1.1 4"))
        assert refused_for_threads(hub.port) >= statuses.count(503)
        status, _, log = hub.end()
        assert status == 0 and "Traceback" not in log
        assert "connections got no thread and were refused" in log


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_start_without_threads_fails_in_one_line(threads: int) -> None:
    """Whichever of the hub's own threads it is that is not to be had."""
    result = subprocess.run(
        [PYTHON, "-c", AS_SOMEBODY, str(threads)],
        env=bare_environment(),
        text=True,
        capture_output=True,
        timeout=SECONDS,
    )
    assert_fails(result, 1, "no more threads", "ulimit -u")


def test_hosts_are_listened_on_with_one_port() -> None:
    """Also where they come from the environment; the one line of output names them all."""
    hosts = {"BROADCAST_SERVER_HOST": "127.0.0.2 127.0.0.3"}
    for arguments, variables in (
        (("--host", "127.0.0.2", "--host", "127.0.0.3"), {}),
        ((), hosts),
    ):
        with hub_command("start", "--port", "0", *arguments, variables=variables) as hub:
            first, second = re.findall(r"ws://(127\.0\.0\.[23]):(\d+)/", hub.line)
            assert (first[0], second[0]) == ("127.0.0.2", "127.0.0.3")
            assert first[1] == second[1]
            for host, port in (first, second):
                with RawClient.connect(host, int(port)) as client:
                    client.leave()


def test_allowed_names_and_proxies_are_options() -> None:
    """What may be repeated is taken each time."""
    names = ("--allow-host", "hub.example", "--allow-host", "box", "--trust-proxy", "127.0.0.1")
    with hub_command("start", "--port", "0", *names) as hub:
        for name, status in (("hub.example", 200), ("box", 200), ("evil.example", 421)):
            raw = f"GET /healthz HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
            assert http_request(hub.port, raw.encode()).startswith(b"HTTP/1.1 %d " % status)
        with RawClient.connect(port=hub.port, headers=["X-Forwarded-For: 192.0.2.7"]) as client:
            client.leave()
        _, _, log = hub.end()
    assert "from 192.0.2.7" in log
    assert "start it with --allow-host evil.example" in log


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("allow-host", "*.example", "without '\\*'"),
        ("allow-host", "http://hub.example", "is no name; give"),
        ("trust-proxy", "proxy.example", "neither an IP address nor a network"),
        ("trust-proxy", "10.0.0.1/8", "the network is 10.0.0.0/8"),
        ("max-handshakes", "0", "at least 1"),
        ("max-clients-per-address", "-1", "at least 0"),
    ],
)
def test_limit_that_cannot_be_is_one_line(option: str, value: str, why: str) -> None:
    """The user is told which option, and what would do."""
    result = run("start", "--port", "0", f"--{option}={value}", "--log-level", "debug")
    assert_fails(result, 2, f"--{option}")
    assert re.search(why, result.stderr)


def test_port_in_use_is_one_line() -> None:
    """The user is told which address is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("start", "--port", port, "--log-level", "debug")
        assert_fails(result, 1, f"cannot listen on 127.0.0.1:{port}: ", "in use")


def test_nothing_is_logged_before_a_start_that_fails(tmp_path: pathlib.Path) -> None:
    """Neither what is well nor what may not be wanted: limits, a file that others can read, an
    address that this machine has not. A start that succeeds tells of it."""
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o644)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    arguments = ["start", "--token-file", str(token), "--log-level", "debug"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run(*arguments, "--port", port, preexec_fn=limit)
        assert_fails(result, 1, "cannot listen on 127.0.0.1", port, "in use")
        result = run(*arguments, "--max-clients", "0", preexec_fn=limit)
        assert_fails(result, 2, "--max-clients must be at least 1")
    with hub_command(*arguments, "--port", "0", preexec_fn=limit) as hub:
        _, _, log = hub.end()
    assert "max-clients is" in log and "max-handshakes is" in log and "can read" in log


@pytest.mark.parametrize("host", ["no-such-host.invalid", "256.1.1.1", "x" * 70, "192.0.2.1"])
def test_bad_host_is_one_line(host: str) -> None:
    """An address that is not this machine's, or no address at all."""
    result = run("start", "--host", host, "--port", "0", "--log-level", "debug")
    assert_fails(result, 1, f"cannot listen on {host}")


@pytest.mark.parametrize("port", ["-1", "65536", "abc", "1e3", "99999999999999999999"])
def test_bad_port_is_one_line(port: str) -> None:
    """Numbers beyond 16 bits and words are refused alike."""
    assert_fails(run("start", "--port", port), 2, "--port: ", port)
    variables = {"BROADCAST_SERVER_PORT": port}
    assert_fails(run("start", variables=variables), 2, "BROADCAST_SERVER_PORT: ", port)


@pytest.mark.parametrize("option", ["--token-file", "--publish-token-file", "--jwt-key-file"])
def test_file_of_secrets_that_cannot_be_used_is_one_line(
    option: str, tmp_path: pathlib.Path
) -> None:
    """No hub runs without the control that it was told to have."""
    quiet = ["start", "--port", "0", "--log-level", "debug", option]
    path = tmp_path / "token"
    assert_fails(run(*quiet, str(path)), 1, f"cannot read {path}: No such file")
    path.write_text("\n")
    assert_fails(run(*quiet, str(path)), 1, f"{path} is empty")


def test_bad_token_in_a_variable_names_the_variable() -> None:
    """And does not repeat it."""
    variables = {"BROADCAST_SERVER_PUBLISH_TOKEN": "s3cret word"}
    result = run("start", "--port", "0", "--log-level", "debug", variables=variables)
    assert_fails(result, 2, "BROADCAST_SERVER_PUBLISH_TOKEN must consist of visible ASCII")
    assert "s3cret" not in result.stderr


def test_open_hub_on_a_network_says_so() -> None:
    """One line on standard error, unless there is a control."""
    for variables, count in (({}, 1), ({"BROADCAST_SERVER_TOKEN": "t"}, 0)):
        arguments = ["start", "--host", "0.0.0.0", "--port", "0", "--log-level", "warning"]
        with hub_command(*arguments, variables=variables) as hub:
            _, _, log = hub.end()
        assert log.count("no access control: anyone who can reach ws://0.0.0.0:") == count
        assert len(log.splitlines()) == count


def test_value_that_cannot_be_names_its_source() -> None:
    """A limit that makes no sense is told in the words in which it was given."""
    quiet = ["start", "--port", "0", "--log-level", "debug"]
    assert_fails(run(*quiet, "--max-rooms", "0"), 2, "--max-rooms must be at least 1")
    result = run(*quiet, variables={"BROADCAST_SERVER_ROOM_LOG_BYTES": "5"})
    assert_fails(result, 2, "BROADCAST_SERVER_ROOM_LOG_BYTES (5) must be", "--max-message-bytes")


def test_hub_runs_without_standard_streams() -> None:
    """No client gets the number of a closed standard stream."""
    shell = 'exec "$@" <&- >&- 2>&-'
    command = [PYTHON, "-m", "broadcast_server", "start", "--port", "0"]
    with subprocess.Popen(["sh", "-c", shell, "sh", *command], env=environment()) as process:

        def descriptors() -> dict[str, str]:
            found, folder = {}, f"/proc/{process.pid}/fd"
            for name in os.listdir(folder):
                with contextlib.suppress(OSError):
                    found[name] = os.readlink(f"{folder}/{name}")
            return found

        try:
            assert wait_until(
                lambda: any(what.startswith("socket:") for what in descriptors().values()), SECONDS
            )
            assert {descriptors()[number] for number in "012"} == {"/dev/null"}
            # It may still be about to listen: the signal is taken all the same.
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def test_hub_serves_though_nobody_reads_its_output() -> None:
    """A closed pipe costs the line with the address and nothing else."""
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [PYTHON, "-m", "broadcast_server", "start", "--port", "0"],
        env=environment(),
        text=True,
        stdout=writer,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(writer)
        try:
            assert process.stderr
            log = iter(process.stderr.readline, "")
            port = next(int(m[1]) for line in log if (m := re.search(r"ws://.*:(\d+)/", line)))
            with RawClient.connect(port=port) as client:
                client.leave()
            process.send_signal(signal.SIGTERM)
            _, rest = process.communicate(timeout=SECONDS)
            assert process.returncode == 0 and "Traceback" not in rest
        finally:
            process.kill()
