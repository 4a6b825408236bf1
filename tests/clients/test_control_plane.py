"""A control plane of three members as kubectl sees it, while members are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from netemu.lab.paths import LabPaths
from netemu.lab.processes import process_names
from netemu.lab.remains import lab_processes, remains
from netemu.model.resources import CONFIGMAPS
from tests.clients.apiserver import find_kubectl
from tests.clients.labs import LabKubectl
from tests.clients.write_load import WriteLoad
from tests.cluster.labs import api, eventually, netemu, netemu_json, up

TOPOLOGY = """
apiVersion: netemu.dev/v1alpha1
kind: Topology
metadata: {name: t-members}
spec:
  controlPlane: {replicas: 3, store: etcd}
  nodes: [{name: worker}]
"""
_LAB = "t-members"

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabKubectl]:
    program, folder = find_kubectl(), tmp_path_factory.mktemp("lab")
    (folder / "lab.yaml").write_text(TOPOLOGY)
    netemu("up", str(folder / "lab.yaml"), "--timeout", "120", timeout=180)
    yield LabKubectl(_LAB, program, folder / "cache")
    netemu("down", _LAB)
    assert str(remains(_LAB)) == "nothing"


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that failed leaves nothing in the way of the others."""
    yield
    if "members" in request.fixturenames:
        kubectl: LabKubectl = request.getfixturevalue("members")
        kubectl("delete", "configmaps", "--field-selector=metadata.name!=kube-root-ca.crt")
        kubectl("delete", "services,deployments", "kept", "other", "late", "--ignore-not-found")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[str]:
    """A lab of one node on SQLite; its name."""
    with up("t-alone", "apiVersion: netemu.dev/v1alpha1\nkind: Topology\nmetadata: {name: t-alone}\n"
            "spec: {nodes: [{name: one}], dns: {replicas: 1}}\n", tmp_path) as name:  # fmt: skip
        yield name


def killed(process: str) -> None:
    """kill -9, and wait for the successor that the supervisor starts."""
    pid = lab_processes(_LAB)[process]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: lab_processes(_LAB).get(process, pid) != pid, f"a new {process}")


def succeeds(kubectl: LabKubectl, arguments: Sequence[str]) -> bool:
    return kubectl.run(*arguments).returncode == 0


def all_well() -> bool:
    return not netemu_json("status", _LAB)["missing"]


def test_members_are_on_nodes_of_their_own_in_different_zones(members: LabKubectl) -> None:
    nodes = members.get("nodes", "-l", "node-role.kubernetes.io/control-plane")["items"]

    assert [node["metadata"]["name"] for node in nodes] == [f"control-plane-{number}" for number in (1, 2, 3)]
    assert len({node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in nodes}) == 3


def test_service_kubernetes_leads_to_every_api_server(members: LabKubectl) -> None:
    addresses = members.field("endpoints", "kubernetes", path=".subsets[0].addresses[*].ip")

    assert addresses.split() == ["172.18.0.2", "172.18.0.3", "172.18.0.4"]


def test_controllers_and_scheduler_are_led_by_lease(members: LabKubectl) -> None:
    for component in ("kube-controller-manager", "kube-scheduler"):
        lease = members.within("kube-system").get("lease", component)["spec"]

        assert lease["leaseDurationSeconds"] == 15
        assert lease["holderIdentity"].rpartition("_")[0] in [f"control-plane-{number}" for number in (1, 2, 3)]


def test_status_and_list_know_the_members(members: LabKubectl) -> None:
    processes = {row["name"]: row["pid"] for row in netemu_json("status", _LAB)["processes"]}
    [lab] = [lab for lab in netemu_json("list") if lab["lab"] == _LAB]

    assert set(processes) == set(process_names(3))
    assert all(processes.values())
    assert lab["state"] == "Running"
    assert "elected leader" in netemu("logs", "etcd-2", "--lab", _LAB)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["etcd", "control-plane"])
def test_kubectl_goes_on_while_members_are_killed_one_after_the_other(members: LabKubectl, kind: str) -> None:
    for number in (1, 2, 3):
        name = f"{kind}-{number}-was-killed"
        members("create", "configmap", name, "--from-literal=before=1")
        killed(f"{kind}-{number}")

        # What was answered is there, whoever answers now; a request under way at that moment may need a second try.
        write = ("label", "configmap", name, "seen=1")
        eventually(partial(succeeds, members, write), "a write", within=30)
        assert members.field("configmap", name, path=".data.before") == "1"
        eventually(all_well, "everything ready again", within=40)
    created = members("get", "configmaps", "-o", "name").split()
    assert {f"configmap/{kind}-{number}-was-killed" for number in (1, 2, 3)} <= set(created)


@pytest.mark.timeout(240)
async def test_no_acknowledged_write_is_lost_whichever_process_is_killed(members: LabKubectl) -> None:
    async with WriteLoad(LabPaths(_LAB).kubeconfig) as load:
        await load.more(20)
        for process in (f"{kind}-{number}" for kind in ("etcd", "control-plane") for number in (1, 2, 3)):
            os.kill(lab_processes(_LAB)[process], signal.SIGKILL)
            await load.more(40)
            await asyncio.to_thread(eventually, lambda: process in lab_processes(_LAB), process)  # noqa: B023

        await load.check()
    members("delete", "configmaps", "-l", "load")


@pytest.mark.timeout(120)
async def test_no_acknowledged_write_is_lost_on_sqlite_either(alone: str) -> None:
    async with WriteLoad(LabPaths(alone).kubeconfig) as load:
        for _ in range(3):
            await load.more(100)
            os.kill(lab_processes(alone)["control-plane"], signal.SIGKILL)
            await load.more(20)

        await load.check()


@pytest.mark.timeout(300)
async def test_a_member_whose_zone_is_cut_off_holds_up_nobody(members: LabKubectl) -> None:
    address = "172.18.0.3"
    async with WriteLoad(LabPaths(_LAB).kubeconfig) as load:
        await load.more(20)
        cut = ("exec", "--lab", _LAB, "node/control-plane-2", "--", "iptables")
        rule = ("INPUT", "-i", "eth0", "-j", "DROP")
        netemu(*cut, "-I", *rule)
        try:
            await load.more(100)
            await load.check()
            await asyncio.to_thread(eventually, lambda: address not in members.endpoints("kubernetes"), "its end", 60)
        finally:
            netemu(*cut, "-D", *rule)
    await asyncio.to_thread(eventually, lambda: address in members.endpoints("kubernetes"), "its return", 60)
    members("delete", "configmaps", "-l", "load")


@pytest.mark.timeout(180)
async def test_without_a_majority_writes_are_refused_and_nothing_is_half_written(members: LabKubectl) -> None:
    stopped = [lab_processes(_LAB)[name] for name in ("etcd-1", "etcd-3")]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        created = members.run("create", "configmap", "half", "--from-literal=a=1", "--request-timeout=45s")
        assert created.returncode != 0
        assert "half created" not in created.stdout
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)

    eventually(partial(succeeds, members, ("create", "configmap", "whole")), "a write again", within=60)
    there = members.run("get", "configmap", "half", "-o", "jsonpath={.data.a}")
    assert there.stdout == "1" if there.returncode == 0 else "NotFound" in there.stderr
    async with WriteLoad(LabPaths(_LAB).kubeconfig) as load:
        await load.more(20)
        await load.check()
    members("delete", "configmaps", "-l", "load")
    eventually(all_well, "everything ready again", within=60)


@pytest.mark.timeout(180)
def test_a_snapshot_brings_back_what_was_there(members: LabKubectl, tmp_path: Path) -> None:
    file = tmp_path / "snapshot"
    members("create", "configmap", "kept", "--from-literal=a=1")
    members("create", "configmap", "changed", "--from-literal=a=1")
    members("create", "service", "nodeport", "kept", "--tcp=80", "--node-port=31234")
    saved = netemu_json("snapshot", "save", str(file), "--lab", _LAB)
    members("delete", "configmap", "kept")
    members("delete", "service", "kept")
    members("patch", "configmap", "changed", "-p", '{"data": {"a": "2"}}')
    members("create", "configmap", "later")
    before = int(api(_LAB).list(CONFIGMAPS)[1])

    restored = netemu_json("snapshot", "restore", str(file), "--lab", _LAB)

    assert restored["objects"] == saved["objects"]
    assert not [kind for kind in saved["objects"] if "ranges" in kind or "masterleases" in kind]
    assert members.field("configmap", "changed", path=".data.a") == "1"
    assert {"configmap/kept", "configmap/later"} & set(members("get", "configmaps", "-o", "name").split()) == {
        "configmap/kept"
    }
    assert int(api(_LAB).list(CONFIGMAPS)[1]) > before
    again = members.run("create", "service", "nodeport", "other", "--tcp=80", "--node-port=31234")
    assert "provided port is already allocated" in again.stderr
    eventually(all_well, "everything ready again", within=60)


@pytest.mark.timeout(120)
def test_another_member_leads_when_the_leader_dies(members: LabKubectl) -> None:
    system = members.within("kube-system")
    holder = system.field("lease", "kube-controller-manager", path=".spec.holderIdentity")
    killed(holder.rpartition("_")[0])

    members("create", "deployment", "late", "--image=nginx")
    members("rollout", "status", "deployment/late", "--timeout=45s")

    assert system.field("lease", "kube-controller-manager", path=".spec.holderIdentity") != holder
    members("delete", "deployment", "late", "--cascade=foreground", "--timeout=30s")
    eventually(lambda: not members.pod_networks(), "the end of its Pods")
