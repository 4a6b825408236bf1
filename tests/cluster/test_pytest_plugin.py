"""The pytest plugin as its users meet it: another pytest runs tests of theirs, failing ones included."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from netemu.lab import remains
from netemu.lab.features import findings, lacking_for_mode
from netemu.lab.tear_down import tear_down
from tests.cluster.labs import eventually

pytestmark = pytest.mark.timeout(400)  # a fixture here is a whole run of tests

HERE = Path(__file__).parent
INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
netemu_topology = plugin_lab.yaml
"""
ONE_TEST = """
import time
from pathlib import Path


def test_it(pod):
    pod("client").assert_reaches("web:80")
    Path(f"{pod.__self__.name}.reached").touch()
    while Path("wait").exists():
        time.sleep(0.05)
"""


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """pytest in that folder, in the background."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:looptime_plugin",
        "-W",
        "error",
        *options,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def prepare(folder: Path, tests: str) -> Path:
    """A folder with tests and the topology that they name."""
    shutil.copy(HERE / "plugin_lab.yaml", folder)
    (folder / "test_cases.py").write_text(tests)
    (folder / "pytest.ini").write_text(INI)
    return folder


def labs_of(process: subprocess.Popen[str]) -> list[str]:
    """The labs that a run of tests has started and that are still there."""
    return [lab for lab in remains.known_labs() if lab.startswith(f"pytest-{process.pid}-")]


class Run:
    """What pytest printed: of each test its outcome, and of each that failed its part of the report."""

    def __init__(self, text: str, folder: Path) -> None:
        self.text, self.folder = text, folder
        self.outcomes = dict(re.findall(r"^test_cases\.py::(\S+) (PASSED|FAILED|ERROR|SKIPPED)", text, re.MULTILINE))

    def report(self, test: str) -> str:
        """The part about that test."""
        parts = re.split(r"^_{3,} (\S+) _{3,}$", self.text, flags=re.MULTILINE)
        return dict(zip(parts[1::2], parts[2::2], strict=True))[test]


class Endings(NamedTuple):
    """How runs have ended, and the labs that were there then."""

    beside: Run
    interrupted: int
    told: str
    left_by_the_killed: list[str]
    left_at_the_end: list[list[str]]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """`plugin_cases.py`, run once."""
    folder = prepare(tmp_path_factory.mktemp("cases"), (HERE / "plugin_cases.py").read_text())
    process = start(folder, "--netemu-artifacts", "artifacts")
    yield Run(process.communicate()[0], folder)
    for lab in labs_of(process):
        tear_down(lab)


def test_tests_fare_as_they_should(cases: Run) -> None:
    endings = {"_fails": "FAILED", "_is_an_error": "ERROR"}
    expected = {
        name: next((outcome for ending, outcome in endings.items() if name.endswith(ending)), "PASSED")
        for name in cases.outcomes
    }

    assert len(expected) > 10
    assert cases.outcomes == expected, cases.text


def test_a_lost_rule_is_named_in_the_report(cases: Run) -> None:
    report = cases.report("test_a_lost_rule_fails")

    assert "default/client reaches web:80: 0 of 1 answered" in report
    assert "off on node one: default/web:http: no rule for cluster IP 10.96.0.80:80/tcp" in report
    assert "kube-proxy in iptables mode" in report
    assert "why not: a rule of node/one is missing" in report
    assert "node two," not in report  # its rules are not those that the connection meets


def test_a_capture_of_one_more_try_is_in_the_report(cases: Run) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.utils import rdpcap

    report = cases.report("test_a_lost_rule_fails")
    (file,) = re.findall(r"^(\S+\.pcapng)$", report, re.MULTILINE)
    packets = rdpcap(str(cases.folder / file))

    tried = [packet for packet in packets if TCP in packet and packet[IP].dst == "10.96.0.80"]
    assert file == "artifacts/test_a_lost_rule_fails.pcapng"
    assert "S" in {str(packet[TCP].flags) for packet in tried}


def test_a_failed_spread_is_shown_with_its_counts(cases: Run) -> None:
    report = cases.report("test_a_spread_over_too_many_fails")

    assert "expected 3 servers" in report
    assert re.search(r"^SERVER +COUNT +SHARE$", report, re.MULTILINE)


def test_losses_are_shown_over_time(cases: Run) -> None:
    report = cases.report("test_a_change_that_loses_fails")

    assert re.search(r"default/client loses nothing to web:80: \d+ of \d+ answered", report)
    assert re.search(r"lost +·*[▁▂▃▄▅▆▇█]", report)
    assert "the change begins" in report


def test_a_failed_lookup_is_shown_query_by_query(cases: Run) -> None:
    report = cases.report("test_an_unknown_name_fails")

    assert "nobody.default.svc.cluster.local." in report
    assert "NXDOMAIN" in report


def test_a_place_that_is_not_there_is_told_with_what_is(cases: Run) -> None:
    assert "did you mean client?" in cases.report("test_a_place_that_is_not_there_fails")


def test_what_is_wrong_with_a_topology_is_told_as_netemu_up_tells_it(cases: Run) -> None:
    assert re.search(r"^\S+/nowhere\.yaml: No such file or directory$", cases.text, re.MULTILINE)


def test_the_traceback_ends_in_the_test(cases: Run) -> None:
    report = cases.report("test_a_spread_over_too_many_fails")

    assert "test_cases.py:" in report
    assert "vantage.py" not in report


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Endings:
    """Two runs side by side, of which one is killed; then one that is interrupted while its lab comes up."""
    folder = prepare(tmp_path_factory.mktemp("endings"), ONE_TEST)
    (folder / "wait").touch()
    runs = killed, beside = (
        start(folder),
        start(folder, "--netemu-mode", "nftables,ipvs", "--netemu-scope", "session", "-rs"),
    )
    eventually(lambda: all(any(folder.glob(f"pytest-{run.pid}-*.reached")) for run in runs), "two labs", within=90)
    killed.kill()
    killed.communicate()
    left = labs_of(killed)
    interrupted = start(folder)
    eventually(lambda: labs_of(interrupted), "the beginning of a lab")
    interrupted.send_signal(signal.SIGINT)
    (folder / "wait").unlink()
    told, text = interrupted.communicate()[0], beside.communicate()[0]
    return Endings(
        Run(text, folder), interrupted.returncode, told, left, [labs_of(run) for run in (*runs, interrupted)]
    )


def test_each_mode_of_the_machine_is_tried_and_the_others_say_why_not(endings: Endings) -> None:
    why, run = lacking_for_mode("ipvs", findings()), endings.beside

    assert run.outcomes == {"test_it[nftables]": "PASSED", "test_it[ipvs]": "SKIPPED" if why else "PASSED"}, run.text
    assert why in run.text


def test_runs_side_by_side_leave_nothing_however_they_end(endings: Endings) -> None:
    assert endings.interrupted == pytest.ExitCode.INTERRUPTED, endings.told
    assert len(endings.left_by_the_killed) == 1
    assert endings.left_at_the_end == [[], [], []]
