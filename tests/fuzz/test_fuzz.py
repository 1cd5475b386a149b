"""The short form of ``make fuzz``: what it has found, seeded mutations, a hub under attack; and
that it would notice what it is there to notice."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import threading

import pytest

from ..support import wait_until
from . import hub, pair, run, targets, victim, worker
from .attacks import Attack, Attacks, from_line, to_line
from .memory import describe, slope
from .mutation import MAX_BYTES, Mutator
from .targets import TARGETS, Target

pytestmark = pytest.mark.slow

MUTATIONS = 2_500
ATTACKS = 100  # of each attacker

# How the inputs of each corpus end at least: that it still reaches what it is meant to reach.
OUTCOMES = {
    "frames": {"messages", "more", "closed", "1002", "1007", "1009"},
    "http": {"Join", "Stream", "Recall", "Page", "Publish", "Asset", "Metrics", "Preflight",
             "Refusal", "400", "408", "411", "413", "431"},
    "hub_events": {"send", "name", "who", "bad_json", "bad_field", "too_big", "unknown_type"},
    "client_events": {"Welcome", "Message", "Presence", "Ack", "Gap", "Trouble", "unknown", "1002",
                      "1007"},
    "sent_events": {"sent", "bad name", "surrogates"},
    "media_types": {"good", "bad", "refused"},
    "queries": {"room", "text", "bad", "refused"},
    "origins": {"usable", "foreign"},
    "hosts": {"own", "400", "421"},
    "addresses": {"network", "x-forwarded-for", "forwarded", "bad"},
    "urls": {"good", "bad"},
    "answers": {"seconds", "none"},
    "tokens": {"header: shared", "header: 401", "unreadable", "granted", "shared", "401",
               "signed: granted", "signed: 401", "signed: 403"},
    "client": {"ConnectFailed", "ConnectionClosed", "ProtocolError", "PublishFailed", "published",
               "history of 1", "history of 0", "no history"},
}  # fmt: skip


# -- The parsers -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_and_regressions_pass(name: str) -> None:
    """What was found once is not there again, and the corpus still reaches all that it should."""
    outcomes = set()
    for path in targets.seed_files(name):
        with worker.bounded(worker.HANG_SECONDS):
            outcomes.add(TARGETS[name].run(path.read_bytes()))
    assert outcomes >= OUTCOMES[name]


@pytest.mark.parametrize("name", TARGETS)
def test_seeded_mutations_pass(name: str) -> None:
    """The same few thousand inputs every time."""
    mutator = Mutator(("test", name), targets.seeds(name), targets.words(name))
    for _ in range(MUTATIONS):
        data = mutator.make()
        failed = worker.failure_of(TARGETS[name], data)
        assert failed is None, f"{data!r}\n{failed}"


def test_files_belong_to_targets() -> None:
    """A folder of another name would never be read, and each target has its words."""
    for folder in ("corpus", "regressions"):
        assert {path.name for path in (targets.HERE / folder).iterdir()} <= set(TARGETS)
    for name in TARGETS:
        assert targets.seeds(name) and targets.words(name)


def test_same_seed_makes_the_same_inputs() -> None:
    """And another one makes others; none is longer than it may be."""

    def inputs(seed: int) -> list[bytes]:
        mutator = Mutator(seed, targets.seeds("http"), targets.words("http"))
        return [mutator.make() for _ in range(50)]

    def attacks(seed: int) -> list[Attack]:
        source = Attacks(seed)
        return [source.make() for _ in range(50)]

    assert inputs(1) == inputs(1) != inputs(2)
    assert attacks(1) == attacks(1) != attacks(2)
    assert all(len(data) <= MAX_BYTES for data in inputs(1))


def test_input_that_fails_is_saved(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run ends with a status, the traceback and the place of the input."""

    def fail_on_zero(data: bytes) -> str:
        assert b"\0" not in data
        return ""

    (tmp_path / "urls").mkdir()
    (tmp_path / "urls" / "seed").write_bytes(b"abc")
    planted = Target("urls", fail_on_zero, 1)
    findings = tmp_path / "findings"
    assert worker.run_by_chance([planted], 60.0, 1, tmp_path, findings) == 1
    (found,) = findings.iterdir()
    assert b"\0" in found.read_bytes() and found.name.startswith("urls-")
    said = capsys.readouterr().err
    assert "AssertionError" in said and str(found) in said


def test_input_that_takes_too_long_fails() -> None:
    """Also in a loop that would never end."""

    def spin(data: bytes) -> str:
        while True:
            pass

    failed = worker.failure_of(Target("urls", spin, 1), b"", 0.05)
    assert failed is not None and "takes more than 0.05 s" in failed


def test_whole_run_of_one_target(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In processes of its own, guided where atheris is installed; it leaves nothing behind."""
    arguments = ["--minutes", "0.02", "--target", "answers", "--seed", "3"]
    assert run.main([*arguments, "--findings", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "seed 3" in said and "nothing was found" in said
    assert list(tmp_path.iterdir()) == []
    if not worker.has_atheris():
        assert "not guided by coverage" in said


def test_replay_tries_a_file_again(
    capsys: pytest.CaptureFixture[str], tmp_path: pathlib.Path
) -> None:
    """By the folder or by the beginning of the name; another one is no input of a target."""
    seed = targets.seed_files("frames")[0]
    assert run.main(["--replay", str(seed)]) == 0
    saved = worker.save(tmp_path, "hub_events", b"{}")
    assert run.main(["--replay", str(saved)]) == 0
    assert capsys.readouterr().out.count("nothing is wrong with it") == 2
    with pytest.raises(SystemExit, match="its name does not begin with that of a target"):
        run.main(["--replay", str(tmp_path / "x")])


# -- Memory ------------------------------------------------------------------------------------


def test_growth_is_the_slope_of_a_line() -> None:
    """In bytes a minute; a single peak does not make one, and a short time says nothing."""
    steady = [(float(second), 1000) for second in range(61)]
    rising = [(float(second), 1000 + 10 * second) for second in range(61)]
    assert slope(steady) == 0.0
    assert slope(rising) == pytest.approx(600.0)
    peak = [*steady[:30], (30.0, 5000), *steady[31:]]
    assert slope(peak) == pytest.approx(0.0)
    assert slope(rising[:20]) is None and slope([]) is None
    assert describe(None) == "growth not judged"
    assert describe(-1024.0 * 1024) == "-1.00 MiB a minute"


# -- A hub -------------------------------------------------------------------------------------


def test_hub_under_attack_serves_its_good_clients() -> None:
    """Broken requests, frames and events from six threads; afterwards nothing is left of them."""
    report = hub.attack_hub(1, attacks=ATTACKS)
    assert report.wrong == [], report.attack_log
    assert report.attacks == ATTACKS * hub.ATTACKERS
    assert report.talks > 0


def test_finding_can_be_replayed(tmp_path: pathlib.Path) -> None:
    """The file has what was wrong as comments, and the attacks before it."""
    source = Attacks(7)
    attacks = [source.make() for _ in range(5)]
    report = hub.Report(wrong=["two\nlines"], attack_log=attacks)
    path = hub.save(report, tmp_path, 7)
    assert path.read_text().startswith("# two\n# lines\n")
    assert hub.load(path) == attacks
    assert from_line(to_line(attacks[0])) == attacks[0]
    assert run.main(["--replay", str(path)]) == 0


@pytest.mark.parametrize(
    "said",
    [
        b"WARNING x\nTraceback (most recent call last):\n",
        b"Exception in thread Thread-7:\n",
        b"ERROR the session of ('127.0.0.1', 1) has failed\n",
        b"Fatal Python error: Segmentation fault\n",
    ],
)
def test_what_a_hub_says_of_its_faults_is_noticed(said: bytes) -> None:
    """A fault that it survives is a finding, too."""
    with pytest.raises(victim.Wrong):
        victim.check_log(said)
    victim.check_log(b"WARNING ERROR is not at the beginning here\n")


def test_hub_that_dies_is_noticed() -> None:
    """Whatever it was doing."""
    with pytest.raises(victim.Wrong, match="the hub has ended with -9"):
        with victim.hub_process() as process:
            pair.Pair(process.port).close()
            os.kill(process.pid, signal.SIGKILL)
            assert wait_until(lambda: process.check() is not None)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "did not end a connection"),
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", "the hub answers"),
        (b"what is this, I do not know\r\n", "the hub answers"),
    ],
)
def test_bad_answer_and_none_are_noticed(
    answer: bytes, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that keeps a connection open for ever, one that fails, and one that speaks no
    HTTP."""
    if not answer:
        monkeypatch.setattr(hub, "HANG_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as accepted:
                accepted.sendall(answer)
                while accepted.recv(4096):
                    pass
                if not answer:
                    released.wait(30)

        released = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with pytest.raises(victim.Wrong, match=why):
                hub.perform(Attack("request", [b"GET / HTTP/1.1\r\n\r\n"], "half"),
                            server.getsockname()[1])  # fmt: skip
        finally:
            released.set()
            thread.join(30)
