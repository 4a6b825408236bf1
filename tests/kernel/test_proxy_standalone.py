"""`netemu proxy`: alone, over HTTP, in the namespace it is started in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from netemu.model.errors import UserError
from netemu.model.meta import decode
from netemu.model.objects import EndpointSlice, Node
from netemu.proxy.server import SELECTOR
from netemu.proxy.standalone import run_standalone
from tests.kernel.proxy_api import TROUBLES, PlainServer
from tests.kernel.proxy_bed import CLIENT, NODE, NODE_OUTSIDE, build, destroy, echoes, in_ns, sh, talk
from tests.unit.proxy_world import endpoint_slice, service

WEB = service(type="NodePort", node_ports={"http": 30080})
Process = asyncio.subprocess.Process


def slices(*indexes: int) -> EndpointSlice:
    return endpoint_slice("default/web", [(f"10.180.0.{index}", "test-node") for index in indexes])


def node(*pod_cidrs: str) -> Node:
    return decode({"metadata": {"name": "test-node"}, "spec": {"podCIDRs": pod_cidrs}}, Node)


@pytest.fixture(autouse=True)
def bed() -> Iterator[None]:
    destroy()
    build(2)
    try:
        yield
    finally:
        destroy()


@contextlib.asynccontextmanager
async def serving(*objects: object) -> AsyncIterator[PlainServer]:
    """An API server on the node's loopback."""
    server = PlainServer(lambda: in_ns(NODE, lambda: socket.create_server(("127.0.0.1", 8001))), *objects)  # type: ignore[arg-type]
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def files(folder: Path, more: str = "") -> Path:
    """A configuration whose kubeconfig is named relative to it."""
    kubeconfig = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:8001"}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    config = folder / "config.conf"
    config.write_text(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.180.0.0/16\n"
        f"clientConnection: {{kubeconfig: kubeconfig}}\nhostnameOverride: ' Test-Node '\n{more}"
    )
    return config


@contextlib.asynccontextmanager
async def started(config: Path | None, *options: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
    """`netemu proxy` in the node's namespace; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/env", "ip", "netns", "exec", NODE, sys.executable, "-m", "netemu", "proxy",
        *(("--config", str(config)) if config else ()), *options, cwd=Path(__file__).parents[2],
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **(env or {})},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def refusal(process: Process) -> str:
    """What a proxy that must end by itself said last; its exit code is 1."""
    async with asyncio.timeout(20):
        _, said = await process.communicate()
    assert process.returncode == 1, said.decode()
    return said.decode().splitlines()[-1]


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(look):  # noqa: ASYNC110 - another process programs
            await asyncio.sleep(0.1)


def targets(text: str) -> Callable[[], bool]:
    return lambda: text in sh(NODE, "iptables-save", "-t", "nat")


async def test_runs_alone_and_leaves_its_rules_until_cleanup(tmp_path: Path) -> None:
    config = files(tmp_path, "oomScoreAdj: 321\n")  # to make it smaller takes a capability that containers lack
    limit = Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text()
    async with serving(WEB, slices(1)) as server:
        with echoes(1):
            async with started(config) as process:
                await until(targets("10.180.0.1:8080"))
                while_running = await asyncio.to_thread(talk, CLIENT, NODE_OUTSIDE, 30080)
                score = Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip()
                process.send_signal(signal.SIGKILL)
                await process.wait()
            after_kill = await asyncio.to_thread(talk, CLIENT, NODE_OUTSIDE, 30080)
            async with started(None, "--cleanup") as process:
                await process.communicate()
                assert process.returncode == 0
            with pytest.raises(ConnectionRefusedError):
                await asyncio.to_thread(talk, CLIENT, NODE_OUTSIDE, 30080)

    assert while_running[0] == after_kill[0] == "10.180.0.1"
    assert score == "321"
    asked = {path: query.get("labelSelector") or query.get("fieldSelector") for path, query in server.asked if query}
    assert asked == {
        "/api/v1/services": SELECTOR,
        "/apis/discovery.k8s.io/v1/endpointslices": SELECTOR,
        "/apis/networking.k8s.io/v1/servicecidrs": SELECTOR,
        "/api/v1/nodes": "metadata.name=test-node",
    }
    assert SELECTOR == "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
    ((reason, about),) = [(event["reason"], event["involvedObject"]) for event in server.posted]
    assert (reason, about["kind"], about["name"]) == ("Starting", "Node", "test-node")
    assert Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text() == limit


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_rules_outlive_a_server_in_trouble_and_catch_up_after_it(trouble: str, tmp_path: Path) -> None:
    async with serving(WEB, slices(1)) as server, started(files(tmp_path)) as process:
        with echoes(2):
            await until(targets("10.180.0.1:8080"))
            await server.begin(trouble)
            server.put(slices(2))
            asked = len(server.asked)
            if trouble != "away":
                await until(lambda: len(server.asked) > asked)
            meanwhile = await asyncio.to_thread(talk, CLIENT, NODE_OUTSIDE, 30080)
            await server.end()
            await until(targets("10.180.0.2:8080"))
            afterwards = await asyncio.to_thread(talk, CLIENT, NODE_OUTSIDE, 30080)

        assert process.returncode is None

    assert meanwhile[0] in {"10.180.0.1", "10.180.0.2"} if trouble == "410" else meanwhile[0] == "10.180.0.1"
    assert afterwards[0] == "10.180.0.2"


async def test_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    async with started(files(tmp_path)) as process:
        assert process.stderr
        async with asyncio.timeout(30):
            while b"still no list of services" not in (line := await process.stderr.readline()):
                assert line, "it ended"

    assert b"http://127.0.0.1:8001: Cannot connect" in line


async def test_what_is_wrong_in_objects_is_left_out_and_named_once(tmp_path: Path) -> None:
    bad = service(
        "default/bad", "172.30.0.77", external_ips=["1.2.3.999"], ranges=["10.0.0.0/99"], ports={"far": 70000, "ok": 80}
    )
    odd = endpoint_slice("default/bad", [("nonsense", "n"), ("fd00::1", "n"), ("10.180.0.2", "n")], {"ok": 8080})
    worse = service("default/worse", "172.30.0.300")
    async with serving(bad, odd, worse, WEB, slices(1)) as server, started(files(tmp_path)) as process:
        with echoes(2):
            await until(targets("10.180.0.1:8080"))
            answers = [
                await asyncio.to_thread(talk, CLIENT, *to) for to in (("172.30.0.77", 80), (NODE_OUTSIDE, 30080))
            ]
            server.put(bad)
            server.put(slices(2))
            await until(targets("10.180.0.2:8080"))
        process.terminate()
        said = (await process.communicate())[1].decode()

    assert [who for who, _ in answers] == ["10.180.0.2", "10.180.0.1"]
    for text in (
        "Service default/bad: externalIP '1.2.3.999' is no address",
        "Service default/bad: loadBalancerSourceRange '10.0.0.0/99' is no CIDR",
        "Service default/bad: port 'far' 70000/TCP is no port",
        "Service default/worse: clusterIP '172.30.0.300' is no address",
        "EndpointSlice default/bad-1: endpoint 'nonsense' is no IPv4 address",
        "EndpointSlice default/bad-1: endpoint 'fd00::1' is no IPv4 address",
    ):
        assert said.count(text) == 1, text
    assert "Traceback" not in said
    told = {event["reason"]: event["message"] for event in server.posted}
    assert "'fd00::1' is no IPv4 address" in told["KubeProxyIncorrectIPVersion"]


async def test_a_missing_tool_is_named(tmp_path: Path) -> None:
    async with serving(WEB), started(files(tmp_path), env={"PATH": str(_without_iptables(tmp_path))}) as process:
        said = await refusal(process)

    assert said.startswith("error: ")
    assert "iptables" in said


def _without_iptables(folder: Path) -> Path:
    """A directory of tools in which there is `ip`, and no iptables."""
    (tools := folder / "tools").mkdir()
    (tools / "ip").symlink_to("/sbin/ip")
    return tools


@pytest.mark.parametrize("options", [(), ("--cleanup",)])
async def test_a_second_proxy_in_the_namespace_refuses(options: tuple[str, ...], tmp_path: Path) -> None:
    async with serving(WEB, slices(1)), started(files(tmp_path)) as first:
        await until(targets("10.180.0.1:8080"))
        async with started(files(tmp_path), *options) as second:
            said = await refusal(second)

        assert first.returncode is None
        assert targets("10.180.0.1:8080")()
    assert said == "error: another kube-proxy of netemu runs in this network namespace; stop it first"


async def test_with_node_cidr_it_ends_when_the_pod_cidrs_change(tmp_path: Path) -> None:
    config = files(tmp_path, "detectLocalMode: NodeCIDR\n")
    async with serving(WEB, slices(1), node()) as server, started(config) as process:
        await until(lambda: any("watch" in query and "nodes" in path for path, query in server.asked))
        before = await asyncio.to_thread(targets("10.180.0.1:8080"))
        server.put(node("10.180.0.0/24"))
        await until(targets("! -s 10.180.0.0/24"))
        server.put(node("10.180.7.0/24"))
        said = await refusal(process)

    assert not before
    assert said == "error: the podCIDRs of node test-node are 10.180.7.0/24 instead of 10.180.0.0/24; start again"


@pytest.mark.parametrize(
    ("field", "port", "reason"),
    [
        ("healthzBindAddress", 10256, "FailedToStartProxierHealthcheck"),
        ("metricsBindAddress", 10249, "FailedToStartMetricServer"),
    ],
)
async def test_an_address_that_is_taken_ends_it_if_it_was_told_to(
    field: str, port: int, reason: str, tmp_path: Path
) -> None:
    config = files(tmp_path, f"bindAddressHardFail: true\n{field}: 127.0.0.1:{port}\n")
    taken = in_ns(NODE, lambda: socket.create_server(("127.0.0.1", port)))
    with taken:
        async with serving(WEB) as server, started(config) as process:
            said = await refusal(process)

    assert said == f"error: listen on 127.0.0.1:{port}: Address already in use"
    assert reason in [event["reason"] for event in server.posted]


async def test_init_only_sets_sysctls_and_ends(tmp_path: Path) -> None:
    config = files(tmp_path, "conntrack: {tcpCloseWaitTimeout: 77s}\n")
    async with started(config, "--init-only") as process:
        _, said = await process.communicate()
    close_wait = sh(NODE, "sysctl", "-n", "net.netfilter.nf_conntrack_tcp_timeout_close_wait").strip()

    assert (process.returncode, said.decode(), close_wait) == (0, "", "77")
    assert "KUBE-" not in sh(NODE, "iptables-save")


async def test_fields_without_effect_are_told_once(tmp_path: Path) -> None:
    config = files(tmp_path, "configSyncPeriod: 1m\nlogging: {verbosity: 9}\n")
    async with serving(WEB, slices(1)), started(config) as process:
        await until(targets("10.180.0.1:8080"))
        process.terminate()
        said = (await process.communicate())[1].decode()

    assert said.count("without effect here: configSyncPeriod, logging\n") == 1


async def test_configuration_error_is_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config.conf"
    config.write_text("kind: Pod\n")

    with pytest.raises(UserError, match=r"^\S+config\.conf: expected apiVersion kubeproxy"):
        await run_standalone(config)
