"""Pods on a real node: sandbox, sockets, probes, processes, restarts, removal."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from netemu.kernel import netns
from netemu.network.plan import NodePlan
from tests.kernel.kubelet_bed import Bed, bed

WEB = {
    "name": "web",
    "image": "shop/web:1",
    "ports": [{"containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}],
}
GET = b"GET /cart?x=1 HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Bed]:
    async with bed(f"t-kubelet-{os.getpid()}", tmp_path) as made:
        yield made


async def test_an_echo_pod_says_who_it_is_and_who_asked(node: Bed) -> None:
    await node.pod("web", {"containers": [WEB]})
    pod = await node.ready("web")

    answer = await node.ask(pod["status"]["podIP"], 8080, GET)

    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (body["pod"], body["namespace"], body["node"]) == ("web", "shop", "n1")
    assert body["client"] in (*node.node.addresses, *node.node.gateways)


async def test_bytes_of_no_known_protocol_come_back_after_the_identity(node: Bed) -> None:
    await node.pod("web", {"containers": [WEB]})
    pod = await node.ready("web")

    first, _, rest = (await node.ask(pod["status"]["podIP"], 8080, b"\x00\x01hello")).partition(b"\n")

    assert json.loads(first)["pod"] == "web"
    assert rest == b"\x00\x01hello"


async def test_probes_make_a_pod_ready_at_once(node: Bed) -> None:
    probe = {"initialDelaySeconds": 20, "grpc": {"port": 8080}}
    http = {"initialDelaySeconds": 20, "httpGet": {"path": "/healthz", "port": 8080}}
    await node.pod("web", {"containers": [{**WEB, "readinessProbe": probe, "livenessProbe": http}]})

    pod = await node.ready("web", within=2)

    assert pod["status"]["containerStatuses"][0]["ready"]


async def test_a_pod_whose_probe_fails_runs_and_is_not_ready(node: Bed) -> None:
    probe = {"tcpSocket": {"port": 81, "host": "127.0.0.1"}}
    await node.pod("web", {"containers": [{**WEB, "readinessProbe": probe}]})

    pod = await node.until("web", lambda pod: (pod.get("status") or {}).get("phase") == "Running")

    conditions = {c["type"]: c for c in pod["status"]["conditions"]}
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("False", "ContainersNotReady")


async def test_a_port_taken_within_the_pod_ends_the_container(node: Bed) -> None:
    await node.pod("twice", {"containers": [WEB, {**WEB, "name": "other"}]})

    def crashes(pod: dict[str, dict[str, list[dict[str, dict[str, dict[str, str]]]]]]) -> bool:
        states = [one["state"] for one in (pod.get("status") or {}).get("containerStatuses", ())]
        return any(state.get("waiting", {}).get("reason") == "CrashLoopBackOff" for state in states)

    pod = await node.until("twice", crashes)

    assert pod["status"]["phase"] == "Running"
    assert pod["status"]["containerStatuses"][1]["restartCount"] == 1


async def test_a_deleted_pod_leaves_nothing(node: Bed) -> None:
    await node.pod("web", {"containers": [WEB]})
    pod = await node.ready("web")

    await node.remove("web", within=3)

    assert not [name for name in netns.names() if name.startswith(f"{node.lab}.pod.")]
    assert not Path(node.pods_dir, pod["metadata"]["uid"]).exists()


async def test_a_restarted_kubelet_keeps_pods_and_serves_them_again(node: Bed) -> None:
    await node.pod("web", {"containers": [WEB]})
    before = await node.ready("web")

    await node.stop()
    await node.start()
    await node.pod("later", {"containers": [WEB]})
    await node.ready("later")

    after = await node.ready("web")
    assert before["status"]["podIP"] == after["status"]["podIP"]
    assert before["status"]["containerStatuses"] == after["status"]["containerStatuses"]
    assert b"200 OK" in await node.ask(after["status"]["podIP"], 8080, GET)


async def test_a_process_sees_its_own_files_and_cannot_write_the_machines(node: Bed, tmp_path: Path) -> None:
    script = (
        "hostname; cat /etc/resolv.conf; cat /etc/hosts; touch /etc/netemu-was-here; echo $GREETING $(id -u); "
        'trap "exit 3" TERM; while true; do sleep 0.1; done'
    )
    container = {
        "name": "sh",
        "image": "any",
        "command": ["/bin/sh", "-c", script],
        "env": [{"name": "WHO", "value": "you"}, {"name": "GREETING", "value": "hello $(WHO)"}],
    }
    await node.pod("tool", {"runtimeClassName": "process", "containers": [container], "hostname": "own"})
    pod = await node.ready("tool")
    log = node.pods_dir / pod["metadata"]["uid"] / "logs" / "sh" / "0.log"

    said = await _said(log, "hello you")

    assert "stdout F own\n" in said
    assert "search shop.svc.cluster.local svc.cluster.local cluster.local example.org\n" in said
    assert f"{pod['status']['podIP']}\town\n" in said
    assert not Path("/etc/netemu-was-here").exists()


async def test_a_process_that_ends_is_started_again(node: Bed) -> None:
    container = {"name": "sh", "image": "any", "command": ["/bin/sh", "-c", "echo bye; exit 3"]}
    await node.pod("tool", {"runtimeClassName": "process", "containers": [container]})

    def waiting(pod: dict[str, dict[str, list[dict[str, dict[str, dict[str, str]]]]]]) -> bool:
        states = [one["state"] for one in (pod.get("status") or {}).get("containerStatuses", ())]
        return any(state.get("waiting", {}).get("reason") == "CrashLoopBackOff" for state in states)

    pod = await node.until("tool", waiting)

    status = pod["status"]["containerStatuses"][0]
    assert (status["restartCount"], status["lastState"]["terminated"]["exitCode"]) == (1, 3)


async def test_a_process_survives_its_kubelet(node: Bed) -> None:
    script = 'trap "exit 0" TERM; while true; do sleep 0.1; done'
    container = {"name": "sh", "image": "any", "command": ["/bin/sh", "-c", script]}
    await node.pod("tool", {"runtimeClassName": "process", "containers": [container]})
    before = await node.ready("tool")

    await node.stop()
    await node.start()
    await node.pod("later", {"containers": [WEB]})
    await node.ready("later")

    after = await node.ready("tool")
    assert (
        before["status"]["containerStatuses"][0]["containerID"]
        == after["status"]["containerStatuses"][0]["containerID"]
    )
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0


async def test_exec_probes_run_in_the_process(node: Bed) -> None:
    script = 'touch /tmp/up; trap "exit 0" TERM; while true; do sleep 0.1; done'
    probe = {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1}
    container = {"name": "sh", "image": "any", "command": ["/bin/sh", "-c", script], "readinessProbe": probe}
    await node.pod("tool", {"runtimeClassName": "process", "containers": [container]})

    pod = await node.ready("tool")

    assert pod["status"]["containerStatuses"][0]["started"]


async def test_a_job_like_process_succeeds(node: Bed) -> None:
    container = {"name": "sh", "image": "any", "command": ["/bin/sh", "-c", "echo done"]}
    spec = {"runtimeClassName": "process", "restartPolicy": "Never", "containers": [container]}
    await node.pod("job", spec)

    pod = await node.until("job", lambda pod: (pod.get("status") or {}).get("phase") == "Succeeded")

    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"


async def test_two_hundred_echo_pods_come_up_in_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    big = NodePlan("n1", ("172.18.0.2",), ("10.244.0.0/22",))
    async with bed(f"t-kubelet-{os.getpid()}", tmp_path, big) as node:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.monotonic()
        for number in range(200):
            await node.pod(f"web-{number}", {"containers": [WEB]})
        await asyncio.gather(*(node.ready(f"web-{number}", within=30) for number in range(200)))
        took = time.monotonic() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        with capsys.disabled():
            print(f"200 echo Pods: {took:.2f} s, {grown:.1f} MiB")  # noqa: T201

    assert took < 20


async def _said(log: Path, text: str) -> str:
    async with asyncio.timeout(5):
        while text not in (said := log.read_text() if log.exists() else ""):  # noqa: ASYNC110 - files tell nobody
            await asyncio.sleep(0.02)
    return said
