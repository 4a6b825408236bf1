"""A kubelet against an API server in memory and a runtime that obeys the test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netemu.client.base import Obj
from netemu.kubelet import Kubelet, KubeletSettings, NodeFacts
from netemu.model.errors import Forbidden, NotFound
from netemu.model.resources import CONFIGMAPS, EVENTS, LEASES, NODES, PODS, Resource
from netemu.runtime.cri import ContainerState, ExecResult
from netemu.testing.client import FakeClient
from netemu.testing.runtime import FakeNetwork, FakeRuntime

WEB = {"name": "web", "image": "shop/web:1"}


class Bed:
    """One node; `run` is its kubelet's life."""

    def __init__(self, directory: Path, runtime: FakeRuntime) -> None:
        self.client, self.runtime, self.network = FakeClient(), runtime, FakeNetwork()
        self.settings = KubeletSettings(pods_dir=str(directory), resolv_conf="", hosts_file="", back_off=(0.05, 0.2))

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        kubelet = Kubelet(
            self.client, NodeFacts("n1", ("127.0.0.1",), ""), {"emulated": self.runtime}, self.network, self.settings,
            lab="t", namespaces=self.network,
        )  # fmt: skip
        task = asyncio.create_task(kubelet.run())
        try:
            await asyncio.wait_for(kubelet.registered.wait(), 5)
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def pod(self, name: str = "p", **spec: Any) -> None:
        meta = {"name": name, "namespace": "shop"}
        spec = {"nodeName": "n1", "containers": [WEB], **spec}
        await self.client.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, "shop")

    async def until(self, holds: Callable[[Obj], Any], name: str = "p", within: float = 5) -> Obj:
        async with asyncio.timeout(within):
            while True:
                pod = await self.client.get(PODS, name, "shop")
                if holds(pod.get("status") or {}):
                    return pod
                events = self.client.watch(PODS, "shop", resource_version=str(self.client.revision))
                try:
                    await anext(events)
                finally:
                    await events.aclose()

    async def gone(self, name: str = "p", within: float = 5) -> None:
        with pytest.raises(NotFound):
            await self.until(lambda status: False, name, within)

    async def said(self, reason: str) -> str:
        async with asyncio.timeout(5):
            while True:
                for event in (await self.client.list(EVENTS)).items:
                    if event["reason"] == reason:
                        return str(event["message"])
                events = self.client.watch(EVENTS, resource_version=str(self.client.revision))
                try:
                    await anext(events)
                finally:
                    await events.aclose()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Bed]:
    bed = Bed(tmp_path, FakeRuntime())
    async with bed.run():
        yield bed


def ready(status: Obj) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))


def first(status: Obj) -> Obj:
    found: Obj = next(iter(status.get("containerStatuses", ())), {})
    return found


def waits(reason: str) -> Callable[[Obj], bool]:
    return lambda status: first(status).get("state", {}).get("waiting", {}).get("reason") == reason


async def test_a_node_registers_with_a_lease(node: Bed) -> None:
    await node.pod()
    await node.until(ready)

    conditions = (await node.client.get(NODES, "n1"))["status"]["conditions"]
    renewed = (await node.client.get(LEASES, "n1", "kube-node-lease"))["spec"]["renewTime"]
    assert ("Ready", "True") in {(c["type"], c["status"]) for c in conditions}
    assert len("2026-01-02T03:04:05.000006Z") == len(renewed)


async def test_a_pod_without_probes_is_ready_after_one_status(node: Bed) -> None:
    await node.pod()

    pod = await node.until(ready)

    assert pod["status"]["phase"] == "Running"
    assert [w for w in node.client.writes if w[:2] == ("patch", "pods")] == [("patch", "pods", "shop/p")]


async def test_init_containers_run_first_and_in_order(node: Bed) -> None:
    await node.pod(initContainers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}])
    await node.until(ready)

    assert [config.name for config in node.runtime.configs.values()] == ["a", "b", "web"]


async def test_an_ephemeral_container_starts_once_and_changes_nothing_else(node: Bed) -> None:
    await node.pod()
    await node.until(ready)
    added = {"spec": {"ephemeralContainers": [{"name": "debugger", "image": "busybox"}]}}
    await node.client.patch(PODS, "p", added, "shop")
    await node.until(lambda status: "running" in status.get("ephemeralContainerStatuses", [{"state": {}}])[0]["state"])

    node.runtime.end("debugger", 3)
    status = (await node.until(lambda status: "terminated" in status["ephemeralContainerStatuses"][0]["state"]))[
        "status"
    ]

    assert status["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    assert (status["phase"], ready(status)) == ("Running", True)


async def test_a_container_that_keeps_crashing_waits_longer_and_longer(node: Bed) -> None:
    await node.pod()
    await node.until(ready)

    node.runtime.end("web", 1)
    await node.until(lambda status: first(status).get("restartCount") == 1 and ready(status))
    node.runtime.end("web", 2)
    pod = await node.until(waits("CrashLoopBackOff"))

    assert first(pod["status"])["lastState"]["terminated"]["exitCode"] == 2
    again = await node.until(lambda status: first(status).get("restartCount") == 2 and ready(status))
    assert first(again["status"])["state"].keys() == {"running"}


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (1, "Failed")])
async def test_a_container_that_must_not_restart_ends_the_pod(node: Bed, code: int, phase: str) -> None:
    await node.pod(restartPolicy="Never")
    await node.until(ready)

    node.runtime.end("web", code)
    await node.until(lambda status: status.get("phase") == phase)

    await node.client.delete(PODS, "p", "shop")
    await node.gone()
    assert node.network.namespaces == set()


async def test_a_failed_liveness_probe_restarts_the_container(node: Bed) -> None:
    node.runtime.exec_result = ExecResult(1, "sick")
    probe = {"exec": {"command": ["x"]}, "failureThreshold": 1, "periodSeconds": 1}
    await node.pod(containers=[{**WEB, "livenessProbe": probe}])

    await node.until(lambda status: first(status).get("restartCount", 0) >= 1)

    assert await node.said("Unhealthy") == "Liveness probe failed: sick"
    assert await node.said("Killing") == "Container web failed liveness probe, will be restarted"


async def test_a_startup_probe_holds_readiness_back(node: Bed) -> None:
    node.runtime.exec_result = ExecResult(1, "not yet")
    await node.pod(containers=[{**WEB, "startupProbe": {"exec": {"command": ["x"]}}}])
    pod = await node.until(lambda status: status.get("phase") == "Running")

    node.runtime.exec_result = ExecResult(0, "")
    after = await node.until(ready)

    assert (first(pod["status"])["started"], first(after["status"])["started"]) == (False, True)


async def test_deletion_stops_removes_and_frees_everything(node: Bed) -> None:
    await node.pod()
    await node.until(ready)

    await node.client.delete(PODS, "p", "shop")
    await node.gone()

    assert (await node.runtime.list_pod_sandbox(), node.network.namespaces) == ([], set())


async def test_the_last_that_is_seen_of_a_pod_tells_how_its_containers_ended(node: Bed) -> None:
    await node.pod()
    await node.until(ready)
    events = node.client.watch(PODS, "shop", resource_version=str(node.client.revision))

    await node.client.delete(PODS, "p", "shop")

    async with asyncio.timeout(5), aclosing(events) as stream:
        async for event in stream:
            last = event.object
            if event.type == "DELETED":
                break
    assert "terminated" in first(last["status"])["state"]
    assert not ready(last["status"])


async def test_a_deletion_without_grace_cuts_a_long_one_short(tmp_path: Path) -> None:
    node = Bed(tmp_path, FakeRuntime(stubborn=frozenset({"web"})))
    async with node.run():
        await node.pod()
        await node.until(ready)
        started = time.monotonic()
        await node.client.delete(PODS, "p", "shop")
        await node.said("Killing")

        await node.client.delete(PODS, "p", "shop", grace_period_seconds=0)
        await node.gone()
        # The name is free at once; the sandbox follows.
        await node.pod()
        await node.until(ready)

    assert time.monotonic() - started < 5


async def test_pre_stop_comes_before_the_end(node: Bed) -> None:
    waits_a_second = {"preStop": {"sleep": {"seconds": 1}}}
    await node.pod(containers=[{**WEB, "lifecycle": waits_a_second}])
    await node.until(ready)
    started = time.monotonic()
    await node.client.delete(PODS, "p", "shop")
    await node.said("Killing")
    meanwhile = [status.state for status in await node.runtime.list_containers()]
    await node.gone()

    assert meanwhile == [ContainerState.RUNNING]
    assert 1 <= time.monotonic() - started < 2


async def test_a_pre_stop_that_fails_is_told_and_holds_nothing_up(node: Bed) -> None:
    node.runtime.exec_result = ExecResult(1, "no such file")
    await node.pod(containers=[{**WEB, "lifecycle": {"preStop": {"exec": {"command": ["rm", "x"]}}}}])
    await node.until(ready)
    await node.client.delete(PODS, "p", "shop")
    await node.gone()

    assert await node.said("FailedPreStopHook") == "PreStopHook failed: no such file"


async def test_a_deletion_without_grace_does_not_wait_for_pre_stop(node: Bed) -> None:
    await node.pod(containers=[{**WEB, "lifecycle": {"preStop": {"sleep": {"seconds": 20}}}}])
    await node.until(ready)
    started = time.monotonic()
    await node.client.delete(PODS, "p", "shop")
    await node.said("Killing")
    await node.client.delete(PODS, "p", "shop", grace_period_seconds=0)
    await node.pod()
    await node.until(ready)

    assert time.monotonic() - started < 5


async def test_a_pod_of_the_same_name_follows_its_predecessor(tmp_path: Path) -> None:
    node = Bed(tmp_path, FakeRuntime())
    async with node.run():
        await node.pod()
        before = await node.until(ready)
        await node.client.delete(PODS, "p", "shop")
        await node.gone()
        await node.pod()
        after = await node.until(ready)

    assert before["metadata"]["uid"] != after["metadata"]["uid"]


async def test_a_restarted_kubelet_adopts_and_removes_orphans(tmp_path: Path) -> None:
    node = Bed(tmp_path, FakeRuntime())
    async with node.run():
        await node.pod("stays")
        await node.pod("goes")
        before = await node.until(ready, "stays")
        await node.until(ready, "goes")
    await node.client.delete(PODS, "goes", "shop", grace_period_seconds=0)

    async with node.run():
        await node.pod("new")
        await node.until(ready, "new")
        after = await node.until(ready, "stays")

    assert before["status"] == after["status"]
    assert node.network.namespaces == {"t.pod.shop.stays", "t.pod.shop.new"}


async def test_a_restarted_kubelet_takes_no_pod_out_of_its_service_before_it_has_asked(tmp_path: Path) -> None:
    node = Bed(tmp_path, FakeRuntime())
    probe = {"exec": {"command": ["x"]}, "periodSeconds": 60}
    async with node.run():
        await node.pod(containers=[{**WEB, "readinessProbe": probe, "startupProbe": probe}])
        await node.until(ready)

    node.runtime.exec_result = ExecResult(1, "busy")
    async with node.run():
        told = await node.said("Unhealthy")
        after = await node.client.get(PODS, "p", "shop")

    assert told == "Readiness probe failed: busy"
    assert ready(after["status"])


async def test_an_image_nobody_knows_backs_off(tmp_path: Path) -> None:
    node = Bed(tmp_path, FakeRuntime(unknown_images=frozenset({"shop/web:1"})))
    async with node.run():
        await node.pod()
        pod = await node.until(waits("ErrImagePull"))

    assert pod["status"]["phase"] == "Pending"


async def test_a_missing_config_map_is_waited_for(node: Bed) -> None:
    await node.pod(containers=[{**WEB, "envFrom": [{"configMapRef": {"name": "conf"}}]}])
    await node.until(waits("CreateContainerConfigError"))

    meta = {"name": "conf", "namespace": "shop"}
    await node.client.create(CONFIGMAPS, {"metadata": meta, "data": {"A": "1"}}, "shop")
    await node.until(ready)

    assert ("A", "1") in next(iter(node.runtime.configs.values())).env


async def test_each_start_of_a_container_finds_the_hosts_file_as_it_should_be(node: Bed, tmp_path: Path) -> None:
    await node.pod(hostname="h", subdomain="s", hostAliases=[{"ip": "192.0.2.7", "hostnames": ["x.y"]}])
    pod = await node.until(ready)
    hosts = tmp_path / pod["metadata"]["uid"] / "hosts"
    before = hosts.read_text()

    hosts.write_text("what a container wrote")
    node.runtime.end("web", 1)
    await node.until(lambda status: first(status).get("restartCount") == 1 and ready(status))

    own = f"{pod['status']['podIP']}\th.s.shop.svc.cluster.local\th\n"
    assert before.endswith(f"{own}\n# Entries added by HostAliases.\n192.0.2.7\tx.y\n")
    assert hosts.read_text() == before


async def test_a_container_with_a_hosts_file_of_its_own_leaves_the_pods_alone(node: Bed, tmp_path: Path) -> None:
    mount = {"name": "own", "mountPath": "/etc/hosts"}
    await node.pod(containers=[{**WEB, "volumeMounts": [mount]}], volumes=[{"name": "own", "emptyDir": {}}])
    pod = await node.until(ready)
    hosts = tmp_path / pod["metadata"]["uid"] / "hosts"

    hosts.write_text("as it was")
    node.runtime.end("web", 1)
    await node.until(lambda status: first(status).get("restartCount") == 1 and ready(status))

    assert hosts.read_text() == "as it was"


async def test_a_full_name_the_kernel_would_not_take_keeps_the_pod_from_starting(node: Bed) -> None:
    await node.pod(hostname="h" * 40, subdomain="sub", setHostnameAsFQDN=True)

    said = await node.said("FailedCreatePodSandBox")
    pod = await node.until(lambda status: status.get("phase") == "Pending")
    assert said == (
        "Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster domain, "
        f"FQDN {'h' * 40}.sub.shop.svc.cluster.local is too long (64 characters is the max, 67 characters requested)"
    )
    assert waits("ContainerCreating")(pod["status"])


async def test_a_resolver_file_that_had_to_be_cut_is_told(node: Bed) -> None:
    await node.pod(dnsConfig={"nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3"]})

    assert await node.said("DNSConfigForming") == (
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "
        "10.96.0.10 192.0.2.1 192.0.2.2"
    )


async def test_a_node_without_cluster_dns_is_told_of_itself_too(tmp_path: Path) -> None:
    bed = Bed(tmp_path, FakeRuntime())
    bed.settings = replace(bed.settings, cluster_dns=())
    async with bed.run():
        await bed.pod()
        await bed.until(ready)

    events = [event for event in (await bed.client.list(EVENTS)).items if event["reason"] == "MissingClusterDNS"]
    assert {event["involvedObject"]["kind"]: event["message"].startswith('pod: "p_shop(') for event in events} == {
        "Node": False,
        "Pod": True,
    }


async def test_an_unknown_runtime_class_is_named(node: Bed) -> None:
    await node.pod(runtimeClassName="gvisor")

    assert "gvisor" in await node.said("FailedCreatePodSandBox")


async def test_a_deadline_ends_the_pod(node: Bed) -> None:
    await node.pod(activeDeadlineSeconds=1)

    pod = await node.until(lambda status: status.get("phase") == "Failed")

    assert pod["status"]["reason"] == "DeadlineExceeded"


async def test_a_readiness_gate_opens_when_somebody_says_so(node: Bed) -> None:
    await node.pod(readinessGates=[{"conditionType": "lb"}])
    pod = await node.until(lambda status: status.get("phase") == "Running")

    conditions = [*pod["status"]["conditions"], {"type": "lb", "status": "True"}]
    await node.client.patch(PODS, "p", {"status": {"conditions": conditions}}, "shop", subresource="status")
    after = await node.until(ready)

    assert "lb" in {condition["type"] for condition in after["status"]["conditions"]}


async def until_file(path: Path, contents: str | None) -> None:
    """Wait until the file holds this, or is gone."""
    async with asyncio.timeout(5):
        while (path.read_text() if path.exists() else None) != contents:  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.01)


async def test_files_of_a_volume_follow_the_configmap(node: Bed, tmp_path: Path) -> None:
    data = {"a": "one", "b": "two"}
    await node.client.create(CONFIGMAPS, {"metadata": {"name": "settings"}, "data": data}, "shop")
    await node.pod(volumes=[{"name": "v", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {}}])
    pod = await node.until(ready)
    volumes = tmp_path / pod["metadata"]["uid"] / "volumes"
    (volumes / "scratch" / "mine").write_text("kept")

    await node.client.patch(CONFIGMAPS, "settings", {"data": {"a": "other", "b": None, "c": "three"}}, "shop")
    await until_file(volumes / "v" / "c", "three")
    await until_file(volumes / "v" / "b", None)

    assert (volumes / "v" / "a").read_text() == "other"
    assert (volumes / "scratch" / "mine").read_text() == "kept"


async def test_a_server_that_learns_of_a_pod_late_makes_no_event(node: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    get, refusals = node.client.get, [Forbidden("it is not the node's"), Forbidden("not yet")]

    async def late(resource: Resource, name: str, namespace: str = "") -> Obj:
        if resource is CONFIGMAPS and refusals:
            raise refusals.pop()
        return await get(resource, name, namespace)

    monkeypatch.setattr(node.client, "get", late)
    await node.client.create(CONFIGMAPS, {"metadata": {"name": "settings"}, "data": {"a": "one"}}, "shop")
    await node.pod(volumes=[{"name": "v", "configMap": {"name": "settings"}}])
    await node.until(ready)

    assert not refusals
    assert not [event for event in (await node.client.list(EVENTS)).items if event["type"] == "Warning"]


async def test_files_outlive_their_configmap(node: Bed, tmp_path: Path) -> None:
    await node.client.create(CONFIGMAPS, {"metadata": {"name": "settings"}, "data": {"a": "one"}}, "shop")
    await node.pod(volumes=[{"name": "v", "configMap": {"name": "settings"}}])
    pod = await node.until(ready)
    await node.client.delete(CONFIGMAPS, "settings", "shop")

    assert "not found" in await node.said("FailedMount")
    assert (tmp_path / pod["metadata"]["uid"] / "volumes" / "v" / "a").read_text() == "one"
    assert ready((await node.client.get(PODS, "p", "shop"))["status"])


async def test_nobody_watches_what_no_pod_has_mounted(node: Bed) -> None:
    await node.client.create(CONFIGMAPS, {"metadata": {"name": "settings"}, "data": {"a": "one"}}, "shop")
    await node.pod(volumes=[{"name": "v", "configMap": {"name": "settings"}}])
    await node.until(ready)
    watching = [task for task in asyncio.all_tasks() if task.get_name() == "mounted settings"]
    await node.client.delete(PODS, "p", "shop")
    await node.gone()
    await asyncio.wait(watching, timeout=5)

    assert [task.cancelled() for task in watching] == [True]
