"""`netemu proxy --config FILE`: alone, over HTTP, in the namespace it is started in."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from netemu.client.base import Obj
from netemu.model.errors import UserError
from netemu.proxy.server import SELECTOR, run_standalone
from tests.kernel.proxy_bed import CLIENT, NODE, NODE_OUTSIDE, build, destroy, echoes, in_ns, sh, talk
from tests.unit.proxy_world import endpoint_slice, service

OBJECTS: dict[str, list[Obj]] = {
    "/api/v1/services": [msgspec.to_builtins(service(type="NodePort", node_ports={"http": 30080}))],
    "/apis/discovery.k8s.io/v1/endpointslices": [
        msgspec.to_builtins(endpoint_slice("default/web", [("10.180.0.1", "test-node")]))
    ],
    "/api/v1/nodes": [],
}


@pytest.fixture(autouse=True)
def bed() -> Iterator[None]:
    destroy()
    build(1)
    try:
        yield
    finally:
        destroy()


async def api(asked: list[tuple[str, dict[str, str]]]) -> web.AppRunner:
    """An API server on the node's loopback that has OBJECTS and never changes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, dict(request.query)))
        if "watch" in request.query:
            stream = web.StreamResponse(headers={"Content-Type": "application/json"})
            await stream.prepare(request)
            await asyncio.sleep(60)
            return stream
        return web.json_response({"metadata": {"resourceVersion": "5"}, "items": OBJECTS[request.path]})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.SockSite(runner, _listener()).start()
    return runner


def _listener() -> socket.socket:
    return in_ns(NODE, lambda: socket.create_server(("127.0.0.1", 8001)))


def files(folder: Path) -> Path:
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
        "clientConnection: {kubeconfig: kubeconfig}\nhostnameOverride: ' Test-Node '\n"
    )
    return config


async def start(config: Path, cleanup: bool = False) -> asyncio.subprocess.Process:
    code = (
        "import asyncio, pathlib, sys; from netemu.proxy.server import run_standalone; "
        f"asyncio.run(run_standalone(pathlib.Path(sys.argv[1]), cleanup={cleanup}))"
    )
    return await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", NODE, sys.executable, "-c", code, str(config), cwd=Path(__file__).parents[2]
    )


async def test_runs_alone_and_leaves_its_rules_until_cleanup(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, str]]] = []
    runner, config = await api(asked), files(tmp_path)
    limit = Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text()
    with echoes(1):
        process = await start(config)
        async with asyncio.timeout(20):
            while "10.180.0.1:8080" not in await asyncio.to_thread(sh, NODE, "iptables-save", "-t", "nat"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        while_running = await asyncio.to_thread(talk, CLIENT, NODE_OUTSIDE, 30080)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        after_kill = await asyncio.to_thread(talk, CLIENT, NODE_OUTSIDE, 30080)
        await (await start(config, cleanup=True)).wait()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.to_thread(talk, CLIENT, NODE_OUTSIDE, 30080)
    await runner.cleanup()

    assert while_running[0] == after_kill[0] == "10.180.0.1"
    selectors = {path: query.get("labelSelector") or query.get("fieldSelector") for path, query in asked}
    assert selectors == {
        "/api/v1/services": SELECTOR,
        "/apis/discovery.k8s.io/v1/endpointslices": SELECTOR,
        "/api/v1/nodes": "metadata.name=test-node",
    }
    assert SELECTOR == "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
    assert Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text() == limit


async def test_configuration_error_is_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config.conf"
    config.write_text("kind: Pod\n")

    with pytest.raises(UserError, match=r"^\S+config\.conf: expected apiVersion kubeproxy"):
        await run_standalone(config)
