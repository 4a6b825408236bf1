"""How fast kube-proxy programs: each case in a namespace of its own, against a small API server, alone.

What is measured is what kube-proxy itself counts (`sync_proxy_rules_duration_seconds`), so that another kube-proxy
(`--peer`) is measured in the same way in the same run: the first sync, one endpoint that changes, memory (resident, of
the process and those it keeps running). The peer is any command that takes `--config FILE` as kube-proxy does.

One row at the end is about a whole lab: see bench_writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from bench_api import API_PORT, served
from bench_writes import announced, bench_writes

from netemu.kernel import netns

NAMESPACE = f"bench-proxy-{os.getpid()}"
METRICS_PORT = 10249
CHANGES = 10
FIRST, CHANGE, MEMORY, WRITE = "first sync, s", "one endpoint changes, ms", "memory, MiB", "write to rules, ms"
AIMS = {
    ("nftables", 1000, FIRST): 0.5, ("nftables", 5000, FIRST): 8.0,
    ("nftables", 1000, CHANGE): 10.0, ("nftables", 5000, CHANGE): 10.0,
    ("iptables", 1000, FIRST): 1.5, ("iptables", 5000, FIRST): 15.0, ("iptables", 1000, CHANGE): 50.0,
    ("nftables", 5000, MEMORY): 150.0, ("iptables", 5000, MEMORY): 150.0,
}  # fmt: skip
WRITE_AIM = 50.0
REFERENCE = {
    ("nftables", 1000, FIRST): "1.3", ("nftables", 5000, FIRST): "45", ("nftables", 1000, CHANGE): "2100",
    ("iptables", 1000, FIRST): "8.3", ("iptables", 5000, FIRST): ">127", ("iptables", 1000, CHANGE): "70-150",
    ("nftables", 5000, MEMORY): "150", ("iptables", 5000, MEMORY): "150",
}  # fmt: skip
"""Measured elsewhere: kube-proxy 1.30 with 10 endpoints per Service, 2 cores, iptables-nft 1.8.9."""


@dataclass(frozen=True)
class Case:
    """One proxy, one mode, one size."""

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


async def measure(case: Case, within: float) -> dict[str, list[float]]:
    """What is measured to figures; empty where the case takes longer than `within` seconds."""
    api = Api(case.services, case.endpoints)
    netns.create(NAMESPACE)
    process = None
    try:
        await (await asyncio.create_subprocess_exec("ip", "-n", NAMESPACE, "link", "set", "lo", "up")).wait()
        with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
            config = _write_files(Path(folder), case.mode)
            command = ("ip", "netns", "exec", NAMESPACE, *case.command, "--config", str(config))
            async with served(api.answer, NAMESPACE):
                # A session of its own: what it starts is found, and ended, with it.
                process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, start_new_session=True)
                try:
                    return await _figures(api, case, process.pid, within)
                except TimeoutError:
                    last = (Path(folder) / "log").read_text(errors="replace").splitlines()[-1:]
                    print(f"not done within {within:.0f} s; its last words: {''.join(last)}", file=sys.stderr)
                    return {}
    finally:
        if process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        netns.delete(NAMESPACE)


async def _figures(api: Api, case: Case, pid: int, within: float) -> dict[str, list[float]]:
    count, first = await _more_syncs(1, within)  # one of each family; that of IPv6 has nothing to do and may be early
    total, changes = first, []
    for number in range(CHANGES):
        before = total
        api.change(number * 7 % case.services)
        count, total = await _more_syncs(count, within)
        changes.append((total - before) * 1000)
    return {FIRST: [first], CHANGE: changes, MEMORY: [_resident(pid)]}


def _resident(session: int) -> float:
    """MiB of all processes of a session."""
    pages = 0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            pages += int(fields[21]) if int(fields[3]) == session else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _row(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float] | None,
    reference: str,
    aim: float | None,
    p99: float | None = None,
) -> dict[str, Any]:
    """A line of the table; `peer` None: there is none, empty: it was not done in time."""
    figures = [round(f(ours), 1) if ours else "-" for f in (min, statistics.median, max)]
    judged = p99 if p99 is not None else statistics.median(ours) if ours else None
    return {
        "measure": name,
        **dict(zip(("min", "median", "max"), figures, strict=True)),
        "p99": "-" if p99 is None else round(p99, 1),
        "peer": "-" if peer is None else round(statistics.median(peer), 1) if peer else "too long",
        "reference": reference,
        "aim": "-" if aim is None else aim,
        "met": "-" if aim is None else "yes" if judged is not None and judged <= aim else "no",
    }


def bench_proxy(
    modes: Sequence[str], sizes: Sequence[int], peer: Path | None, within: float, writes: int
) -> list[dict[str, Any]]:
    """Every mode and size, ours and the peer's side by side; then a lab, where the mode is one that announces rules."""
    rows = []
    for mode in modes:
        for size in sizes:
            print(f"{mode}, {size} Services", file=sys.stderr)
            ours = asyncio.run(measure(Case((sys.executable, "-m", "netemu", "proxy"), mode, size, 10), within))
            theirs = asyncio.run(measure(Case((str(peer),), mode, size, 10), within)) if peer else None
            rows += [
                _row(
                    f"{mode} {size}x10: {what}",
                    ours.get(what, ()),
                    None if theirs is None else theirs.get(what, ()),
                    REFERENCE.get((mode, size, what), "-"),
                    AIMS.get((mode, size, what)),
                )
                for what in (FIRST, CHANGE, MEMORY)
            ]
        if writes and announced(mode):
            print(f"{mode}, {writes} writes to a lab of 10 nodes", file=sys.stderr)
            took = bench_writes(mode, (sys.executable, "-m", "netemu"), writes)
            p99 = statistics.quantiles(took, n=100, method="inclusive")[98]
            rows.append(_row(f"{mode}, lab of 10 nodes: {WRITE}", took, None, "-", WRITE_AIM, p99))
    return rows
