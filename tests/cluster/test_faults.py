"""Killed processes, killed commands, and what must go on meanwhile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netemu.kernel import netns
from netemu.lab.remains import lab_processes
from netemu.lab.supervisor import start_time
from netemu.model.resources import PODS, SERVICES
from netemu.network import names
from tests.cluster.labs import ROOT, api, eventually, host_network, leftovers, netemu, netemu_json, run, start

_QUICKSTART = str(ROOT / "topologies/quickstart.yaml")


@pytest.fixture
def lab(lab_name: str) -> str:
    netemu("up", _QUICKSTART, "--name", lab_name)
    return lab_name


def answered(lab: str, count: int = 20) -> int:
    """How many connections from the client Pod to Service web are answered, by name."""
    result = run("probe", "--lab", lab, "-n", "shop", "client", "web:80", "--count", str(count), "-o", "json")
    return 0 if result.returncode else int(result.stdout.split('"answered": ')[1].split(",")[0])


def killed(lab: str, process: str) -> int:
    """Kill a process of the lab with -9; its pid."""
    pid = lab_processes(lab)[process]
    os.kill(pid, signal.SIGKILL)
    return pid


def test_services_and_dns_work_on_while_the_control_plane_is_dead(lab: str) -> None:
    pid = killed(lab, "control-plane")

    assert answered(lab) == 20

    eventually(lambda: lab_processes(lab).get("control-plane", pid) != pid, "a new control plane")
    eventually(lambda: not netemu_json("status", lab)["missing"], "everything ready again")
    assert api(lab).list(PODS, "shop")[0]


def test_the_control_plane_continues_from_its_store(lab: str) -> None:
    before = {pod["metadata"]["uid"] for pod in api(lab).list(PODS)[0]}
    revision = int(api(lab).list(PODS)[1])

    pid = killed(lab, "control-plane")
    eventually(lambda: lab_processes(lab).get("control-plane", pid) != pid, "a new control plane")
    eventually(lambda: not netemu_json("status", lab)["missing"], "everything ready again")

    pods, after = api(lab).list(PODS)
    assert {pod["metadata"]["uid"] for pod in pods} == before
    assert int(after) >= revision


def test_the_node_agent_comes_back_to_the_same_pods(lab: str) -> None:
    before = {pod["metadata"]["uid"]: pod["status"]["podIP"] for pod in api(lab).list(PODS)[0]}
    restarts = dns_pids(lab)

    pid = killed(lab, "node-agent")
    eventually(lambda: lab_processes(lab).get("node-agent", pid) != pid, "a new node agent")
    eventually(lambda: answered(lab, 5) == 5, "Service web answers again")

    assert {pod["metadata"]["uid"]: pod["status"]["podIP"] for pod in api(lab).list(PODS)[0]} == before
    assert dns_pids(lab) == restarts  # real processes were adopted, not started anew


def test_no_connection_to_an_emulated_pod_is_refused_while_the_node_agent_is_dead(lab: str) -> None:
    service = next(one for one in api(lab).list(SERVICES, "shop")[0] if one["metadata"]["name"] == "web")
    visits = Visits(names.pod_netns(lab, "shop", "client"), (service["spec"]["clusterIP"], 80))
    with visits.going_on():
        eventually(lambda: len(visits.made) > 20, "visits")
        pid = killed(lab, "node-agent")
        eventually(lambda: not start_time(pid), "its end")
        gone = time.monotonic()
        eventually(lambda: lab_processes(lab).get("node-agent", pid) != pid, "a new node agent")
        eventually(lambda: not netemu_json("status", lab)["missing"], "everything ready again")
        seen = len(visits.made)
        eventually(lambda: len(visits.made) > seen + 100, "visits of the new agent")

    answers = [(begun, visits.answer(sock)) for begun, sock in visits.made]
    assert visits.refused == []
    # What the dead agent had accepted went with it; those who came after its end waited for its successor.
    assert [answer for begun, answer in answers if begun > gone and not answer.startswith("HTTP/1.1 200")] == []
    assert sum(not answer.startswith("HTTP/1.1 200") for _, answer in answers) <= 3


class Visits:
    """A client that asks a server every 10 ms on a connection of its own, and reads the answers when all is over."""

    def __init__(self, namespace: str, address: tuple[str, int]) -> None:
        self.made: list[tuple[float, socket.socket]] = []
        """When each began, and its connection."""
        self.refused: list[str] = []
        self._namespace, self._address = namespace, address
        self._over = threading.Event()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        thread = threading.Thread(target=self._visit)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _visit(self) -> None:
        netns.join(self._namespace)  # a thread of its own, that ends there
        while not self._over.wait(0.01):
            begun = time.monotonic()
            sock = socket.socket()
            sock.settimeout(10)
            try:
                sock.connect(self._address)
                sock.sendall(b"GET /hostname HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            except ConnectionResetError:  # accepted, and then its server was killed
                pass
            except OSError as error:
                self.refused.append(str(error))
                sock.close()
                continue
            self.made.append((begun, sock))

    @staticmethod
    def answer(sock: socket.socket) -> str:
        """What came back."""
        with sock:
            try:
                return sock.recv(4096).decode()
            except OSError as error:
                return str(error)


def dns_pids(lab: str) -> set[int]:
    """Pids of the lab's DNS servers."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                inside = any(lab in line for line in (entry / "mountinfo").read_text().splitlines())
            except OSError:
                continue
            if b"dns" in command and b"--conf" in command and inside:
                found.add(int(entry.name))
    return found


def test_down_cleans_up_after_everything_was_killed(lab: str) -> None:
    for pid in lab_processes(lab).values():
        os.kill(pid, signal.SIGKILL)

    netemu("down", lab)

    assert leftovers(lab) == "nothing"


@pytest.mark.parametrize("after", [0.05, 0.3, 0.6, 0.9, 1.2, 1.6, 2.0])
def test_an_up_that_is_killed_at_any_stage_leaves_what_down_finds(lab_name: str, after: float) -> None:
    before = host_network()
    command = start("up", _QUICKSTART, "--name", lab_name)
    time.sleep(after)  # the moment of the accident, not a wait for a state
    command.kill()
    command.wait()

    run("down", lab_name)

    assert leftovers(lab_name) == "nothing"
    assert host_network() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_control_c_and_a_request_to_end_take_everything_back(lab_name: str, number: signal.Signals) -> None:
    command = start("up", _QUICKSTART, "--name", lab_name)
    eventually(lambda: lab_processes(lab_name), "the lab's processes")
    command.send_signal(number)

    assert command.wait(20) == 130
    assert leftovers(lab_name) == "nothing"


@pytest.mark.parametrize(
    ("elsewhere", "ours"),
    [pytest.param((), True, id="here"), pytest.param(("unshare", "--mount"), False, id="in a container")],
)
def test_processes_of_a_lab_of_that_name_are_ours(
    lab_name: str, tmp_path: Path, elsewhere: tuple[str, ...], ours: bool
) -> None:
    """A shell that looks like a supervisor and waits for its input to end; a container has a /run of its own."""
    (tmp_path / "netemu.lab.supervisor").write_text("echo; read line\n")
    prepare = f"mount -t tmpfs tmpfs /run; mkdir -p /run/netemu/{lab_name};" if elsewhere else ""
    command = (*elsewhere, "sh", "-c", f"{prepare} exec sh -m netemu.lab.supervisor {lab_name} x")
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        found = lab_processes(lab_name)
        process.communicate()

    assert found == ({"supervisor": process.pid} if ours else {})


def test_down_of_no_lab_says_so(lab_name: str) -> None:
    refused = run("down", lab_name)

    assert refused.returncode == 1
    assert f"no lab named '{lab_name}'" in refused.stderr


@pytest.mark.timeout(180)
def test_up_and_down_ten_times_leave_nothing(lab_name: str) -> None:
    before = host_network()
    for _ in range(10):
        netemu("up", _QUICKSTART, "--name", lab_name)
        assert answered(lab_name, 3) == 3
        netemu("down", lab_name)
        assert leftovers(lab_name) == "nothing"

    assert host_network() == before
