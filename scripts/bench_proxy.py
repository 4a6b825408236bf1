"""How fast kube-proxy programs: each case in a namespace of its own, against a small API server, alone.

What is measured is what kube-proxy itself counts (`sync_proxy_rules_duration_seconds`), so that another kube-proxy
(`--peer`) is measured in the same way in the same run: the first sync, one endpoint that changes, memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from netemu.kernel import netns

NAMESPACE = "bench-proxy"
API_PORT, METRICS_PORT = 8001, 10249
CHANGES = 10
AIMS = {
    ("nftables", 1000): (0.5, 10.0), ("nftables", 5000): (8.0, 10.0),
    ("iptables", 1000): (1.5, 50.0), ("iptables", 5000): (15.0, None),
}  # fmt: skip
MEMORY_AIM = 150


@dataclass(frozen=True)
class Case:
    """One proxy, one mode, one size."""

    who: str
    command: tuple[str, ...]
    mode: str
    services: int
    endpoints: int


class Api:
    """Lists Services and EndpointSlices, and tells watchers of changes."""

    def __init__(self, services: int, endpoints: int) -> None:
        self.revision, self._endpoints = 1, endpoints
        self._watchers: list[asyncio.Queue[bytes]] = []
        self.items: dict[str, list[dict[str, Any]]] = {
            "/api/v1/services": [_service(number) for number in range(services)],
            "/apis/discovery.k8s.io/v1/endpointslices": [_slice(number, endpoints) for number in range(services)],
            "/api/v1/nodes": [_node()],
        }

    def change(self, number: int) -> None:
        """One endpoint of one Service moves."""
        self.revision += 1
        piece = _slice(number, self._endpoints)
        piece["metadata"]["resourceVersion"] = str(self.revision)
        piece["endpoints"][0]["addresses"] = [f"10.250.{self.revision // 250}.{self.revision % 250 + 1}"]
        for watcher in self._watchers:
            watcher.put_nowait(json.dumps({"type": "MODIFIED", "object": piece}).encode() + b"\n")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any GET."""
        items = self.items.get(request.path)
        if items is None:
            single = self.items.get(request.path.rpartition("/")[0])
            return web.json_response(single[0]) if single else web.json_response({"kind": "Status"}, status=404)
        if "watch" not in request.query:
            kind, version = _kinds(request.path)
            metadata = {"resourceVersion": str(self.revision)}
            return web.json_response(
                {"kind": f"{kind}List", "apiVersion": version, "metadata": metadata, "items": items}
            )
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        if "endpointslices" in request.path:
            self._watchers.append(queue)
        while True:
            await stream.write(await queue.get())


def _kinds(path: str) -> tuple[str, str]:
    plural = path.rpartition("/")[2]
    kind = {"services": "Service", "endpointslices": "EndpointSlice", "nodes": "Node"}[plural]
    return kind, "discovery.k8s.io/v1" if kind == "EndpointSlice" else "v1"


def _service(number: int) -> dict[str, Any]:
    address = f"10.96.{number // 250}.{number % 250 + 1}"
    spec = {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}  # fmt: skip
    return {"metadata": {"name": f"svc-{number}", "namespace": "default", "resourceVersion": "1"}, "spec": spec}


def _slice(number: int, endpoints: int) -> dict[str, Any]:
    addresses = [divmod(number * endpoints + index, 250) for index in range(endpoints)]
    return {
        "metadata": {"name": f"svc-{number}-x", "namespace": "default", "resourceVersion": "1",
                     "labels": {"kubernetes.io/service-name": f"svc-{number}"}},
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [f"10.{high // 250}.{high % 250}.{low + 1}"],
                       "conditions": {"ready": True, "serving": True, "terminating": False}, "nodeName": "elsewhere"}
                      for high, low in addresses],
    }  # fmt: skip


def _node() -> dict[str, Any]:
    addresses = [{"type": "InternalIP", "address": "192.168.0.2"}]
    return {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "bench", "resourceVersion": "1"},
            "spec": {"podCIDR": "10.0.0.0/24"}, "status": {"addresses": addresses}}  # fmt: skip


def _configuration(mode: str) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": mode,
        "clusterCIDR": "10.0.0.0/8", "hostnameOverride": "bench", "featureGates": {"NFTablesProxyMode": True},
        "clientConnection": {"kubeconfig": "kubeconfig", "contentType": "application/json"},
        "metricsBindAddress": f"127.0.0.1:{METRICS_PORT}", "conntrack": {"maxPerCore": 0, "min": 0},
        "iptables": {"minSyncPeriod": "1ms"}, "nftables": {"minSyncPeriod": "1ms"},
    }  # fmt: skip


def _write_files(folder: Path, mode: str) -> Path:
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}], "users": [{"name": "x", "user": {}}],
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{API_PORT}"}}],
    }  # fmt: skip
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    config = _configuration(mode)
    config["clientConnection"]["kubeconfig"] = str(folder / "kubeconfig")
    (folder / "config.json").write_text(json.dumps(config))
    return folder / "config.json"


@contextlib.asynccontextmanager
async def _served(api: Api) -> AsyncIterator[None]:
    with netns.entered(NAMESPACE):
        listener = socket.create_server(("127.0.0.1", API_PORT))
    app = web.Application()
    app.router.add_get("/{path:.*}", api.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    try:
        yield
    finally:
        await runner.cleanup()


def _syncs() -> tuple[float, float] | None:
    """(number of syncs, seconds they took) so far, of all address families; None while it does not answer."""
    try:
        with netns.entered(NAMESPACE):
            sock = socket.create_connection(("127.0.0.1", METRICS_PORT), 5)
        connection = http.client.HTTPConnection("127.0.0.1")
        connection.sock = sock
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return None
    name = r"^kubeproxy_sync_proxy_rules_duration_seconds_{}(?:{{[^}}]*}})? (\S+)$"
    count, total = (re.findall(name.format(part), text, re.MULTILINE) for part in ("count", "sum"))
    return sum(map(float, count)), sum(map(float, total))


async def _more_syncs(than: float, within: float) -> tuple[float, float]:
    """Wait until there were more, and none has come for a while: two families make two."""
    deadline = time.monotonic() + within
    settled: tuple[float, float] | None = None
    while time.monotonic() < deadline:
        found = await asyncio.to_thread(_syncs)
        if found and found[0] > than:
            if found == settled:
                return found
            settled = found
            await asyncio.sleep(0.25)
        await asyncio.sleep(0.05)
    raise TimeoutError


async def measure(case: Case, within: float) -> list[dict[str, Any]]:
    """The measures of one case, as rows. A case that takes longer than `within` seconds has no figures."""
    api = Api(case.services, case.endpoints)
    if NAMESPACE in netns.names():
        netns.delete(NAMESPACE)  # left by a run that was killed
    netns.create(NAMESPACE)
    await (await asyncio.create_subprocess_exec("ip", "-n", NAMESPACE, "link", "set", "lo", "up")).wait()
    with tempfile.TemporaryDirectory() as folder:
        config = _write_files(Path(folder), case.mode)
        process = None
        try:
            async with _served(api):
                command = ("ip", "netns", "exec", NAMESPACE, *case.command, "--config", str(config))
                with (Path(folder) / "log").open("wb") as log:
                    process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
                count, total = await _more_syncs(0, within)
                first, changes = total, []
                for number in range(CHANGES):
                    before = total
                    api.change(number * 7 % case.services)
                    count, total = await _more_syncs(count, within)
                    changes.append((total - before) * 1000)
                memory = _resident(process.pid)
        except TimeoutError:
            return [_row(case, f"not done within {within:.0f} s", (), None)]
        finally:
            if process and process.returncode is None:
                process.kill()
                await process.wait()
            netns.delete(NAMESPACE)
    aims = AIMS.get((case.mode, case.services), (None, None)) if case.endpoints == 10 else (None, None)
    return [
        _row(case, "first sync, s", [first], aims[0]),
        _row(case, "one endpoint changes, ms", changes, aims[1]),
        _row(case, "memory, MiB", [memory], MEMORY_AIM),
    ]


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def _row(case: Case, what: str, values: Sequence[float], aim: float | None) -> dict[str, Any]:
    figures = [round(f(values), 3) if values else None for f in (min, statistics.median, max)]
    name = f"{case.who} {case.mode} {case.services}x{case.endpoints}: {what}"
    return dict(zip(("measure", "min", "median", "max", "aim"), (name, *figures, aim), strict=True))


def bench_proxy(modes: Sequence[str], sizes: Sequence[int], peer: Path | None, within: float) -> list[dict[str, Any]]:
    """Every mode and size, ours and the peer's side by side."""
    proxies = [("netemu", (sys.executable, "-m", "netemu", "proxy"))]
    proxies += [("peer", (str(peer),))] if peer else []
    rows = []
    for mode in modes:
        for size in sizes:
            for who, command in proxies:
                print(f"{who}, {mode}, {size} Services", file=sys.stderr)
                rows += asyncio.run(measure(Case(who, command, mode, size, 10), within))
    return rows
