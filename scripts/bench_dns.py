"""How fast cluster DNS answers: each server alone in a namespace of its own, on one core, with dnsperf on another.

Every server is asked the same questions by the same load in the same run. netemu and CoreDNS (`--peer`) learn their
names from the same small API server; unbound and dnsmasq, where Debian's packages are installed, get them in their
own files. Next to queries per second stands how many a server answers in a second of processor time: what it could do
on a core of its own, and the better figure on a machine that has other work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from bench_api import API_PORT, served

from netemu.kernel import netns

NAMESPACE = f"bench-dns-{os.getpid()}"
DNS_PORT = 5300
SERVICES, ENDPOINTS, CLUSTER_IPS = 10_000, 10, 200
CHANGES = 200
CORES = sorted(os.sched_getaffinity(0))
ZONE = "default.svc.cluster.local"
COREFILE = """
.:%d {
    errors
    health 127.0.0.1:8080
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        endpoint http://127.0.0.1:%d
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus 127.0.0.1:9153
    cache 30 {
        %s
    }
    reload
    loadbalance
}
"""
"""kubeadm's, without `forward` and `loop`: nobody is asked further."""
NOT_CACHED = "disable success cluster.local\n        disable denial cluster.local"
CACHED, UNCACHED, TCP = "UDP, names asked before", "UDP, every name new", "TCP, names asked before"
AIMS = {CACHED: 130_000, UNCACHED: 15_000, TCP: 20_000}
HALF_LOAD = 30_000
"""Queries per second at which latency is measured while no peer's half is known: half of what CoreDNS does."""


@dataclass(frozen=True)
class Server:
    """A DNS server and how it is started; `command` may name files in the folder it is started in."""

    name: str
    command: tuple[str, ...]
    write: Callable[[Path], None]
    clustered: bool
    """Whether it learns names from the API server."""


class Api:
    """Lists Namespaces, Services and EndpointSlices, and tells watchers of changed EndpointSlices."""

    def __init__(self) -> None:
        self._revision = 1
        self._watchers: list[asyncio.Queue[bytes]] = []
        services = [_service(f"svc-{number}", "None") for number in range(SERVICES)]
        services += [_service(f"web-{number}", _cluster_ip(number)) for number in range(CLUSTER_IPS)]
        lists = {
            "/api/v1/namespaces": ("v1", "Namespace", [{"metadata": {"name": "default", "resourceVersion": "1"}}]),
            "/api/v1/services": ("v1", "Service", services),
            "/apis/discovery.k8s.io/v1/endpointslices":
                ("discovery.k8s.io/v1", "EndpointSlice", [_slice(number) for number in range(SERVICES)]),
        }  # fmt: skip
        self._lists = {
            path: (version, kind, [json.dumps(item) for item in items])
            for path, (version, kind, items) in lists.items()
        }

    def change(self, number: int, address: str) -> None:
        """The first endpoint of a Service moves."""
        self._revision += 1
        piece = _slice(number)
        piece["metadata"]["resourceVersion"] = str(self._revision)
        piece["endpoints"][0]["addresses"] = [address]
        for watcher in self._watchers:
            watcher.put_nowait(json.dumps({"type": "MODIFIED", "object": piece}).encode() + b"\n")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any GET."""
        if request.path not in self._lists:
            return web.json_response({"kind": "Status", "code": 404}, status=404)
        if "watch" not in request.query:
            return web.Response(text=self._list(request), content_type="application/json")
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        if "endpointslices" in request.path:
            self._watchers.append(queue)
        while True:
            await stream.write(await queue.get())

    def _list(self, request: web.Request) -> str:
        """A list, in pieces for who wants it so."""
        version, kind, items = self._lists[request.path]
        begin = int(request.query.get("continue", 0))
        end = begin + int(request.query.get("limit", 0)) if "limit" in request.query else len(items)
        rest = str(end) if end < len(items) else ""
        head = json.dumps({"kind": f"{kind}List", "apiVersion": version,
                           "metadata": {"resourceVersion": "1", "continue": rest}})  # fmt: skip
        return f'{head[:-1]}, "items": [{",".join(items[begin:end])}]}}'


def _service(name: str, address: str) -> dict[str, Any]:
    spec = {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}  # fmt: skip
    return {"metadata": {"name": name, "namespace": "default", "resourceVersion": "1"}, "spec": spec}


def _cluster_ip(number: int) -> str:
    return f"10.96.0.{number + 1}"


def _endpoint(number: int, index: int) -> str:
    high, low = divmod(number * ENDPOINTS + index, 250)
    return f"10.{high // 250}.{high % 250}.{low + 1}"


def _slice(number: int) -> dict[str, Any]:
    return {
        "metadata": {"name": f"svc-{number}-x", "namespace": "default", "resourceVersion": "1",
                     "labels": {"kubernetes.io/service-name": f"svc-{number}"}},
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [_endpoint(number, index)], "nodeName": "elsewhere",
                       "conditions": {"ready": True, "serving": True, "terminating": False}}
                      for index in range(ENDPOINTS)],
    }  # fmt: skip


def _endpoint_name(number: int, index: int) -> str:
    return f"{_endpoint(number, index).replace('.', '-')}.svc-{number}.{ZONE}"


# --- servers ---


def _servers(peer: Path | None) -> list[Server]:
    python = (sys.executable, "-m", "netemu", "dns", "--conf", "Corefile")
    found = []
    if peer:  # first: half its load is where everybody's latency is measured
        # kubeadm's Corefile has CoreDNS answer from objects each time; its cache is of interest too.
        found.append(Server("peer", (str(peer), "-conf", "Corefile"), _write_corefile(NOT_CACHED), True))
        found.append(Server("peer with cache", (str(peer), "-conf", "Corefile"), _write_corefile("success 9984"), True))
    found.append(Server("netemu", python, _write_corefile(NOT_CACHED), True))
    if path := shutil.which("unbound"):
        found.append(Server("unbound", (path, "-d", "-c", "unbound.conf"), _write_unbound, False))
    if path := shutil.which("dnsmasq"):
        found.append(Server("dnsmasq", (path, "-k", "-C", "dnsmasq.conf"), _write_dnsmasq, False))
    return found


def _write_corefile(cache: str) -> Callable[[Path], None]:
    return lambda folder: _write(folder / "Corefile", [COREFILE % (DNS_PORT, API_PORT, cache)])


def _addresses() -> Iterator[tuple[str, str]]:
    for number in range(CLUSTER_IPS):
        yield f"web-{number}.{ZONE}", _cluster_ip(number)
    for number in range(SERVICES):
        for index in range(ENDPOINTS):
            yield _endpoint_name(number, index), _endpoint(number, index)


def _write_unbound(folder: Path) -> None:
    head = ["server:", " username: root", ' chroot: ""', ' pidfile: ""', " do-daemonize: no", " use-syslog: no",
            f" port: {DNS_PORT}", " interface: 127.0.0.1", " num-threads: 1", " minimal-responses: yes",
            f' directory: "{folder}"', " module-config: iterator", " incoming-num-tcp: 1000",
            ' local-zone: "cluster.local." static']  # fmt: skip
    _write(folder / "unbound.conf", [*head, *(f' local-data: "{name}. 30 IN A {a}"' for name, a in _addresses())])


def _write_dnsmasq(folder: Path) -> None:
    _write(folder / "names", [f"{address} {name}" for name, address in _addresses()])
    options = ("user=root", f"port={DNS_PORT}", "no-resolv", "no-hosts", "local=/cluster.local/", "pid-file=",
               "cache-size=10000", f"addn-hosts={folder}/names")  # fmt: skip
    _write(folder / "dnsmasq.conf", list(options))


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


# --- load ---


@dataclass(frozen=True)
class Load:
    """What dnsperf reports, and what the server spent."""

    queries: float
    """Answered per second."""
    lost: int
    microseconds: float
    """Processor time of the server per query."""


def _pinned(core: int, *command: str) -> tuple[str, ...]:
    """A command on a processor of its own, where there are two."""
    return ("ip", "netns", "exec", NAMESPACE, "taskset", "-c", str(CORES[core % len(CORES)]), *command)


async def _dnsperf(*options: str) -> str:
    command = _pinned(1, "dnsperf", "-s", "127.0.0.1", "-p", str(DNS_PORT), *options)
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"dnsperf ended with {process.returncode}")
    return out.decode(errors="replace")


async def _load(pid: int, *options: str) -> Load:
    before = _processor_seconds(pid)
    text = await _dnsperf(*options)
    spent = _processor_seconds(pid) - before
    completed = int(_figure(text, "Queries completed"))
    return Load(
        _figure(text, "Queries per second"), int(_figure(text, "Queries lost")), max(spent, 0.01) / completed * 1e6
    )


def _figure(text: str, name: str) -> float:
    found = re.search(rf"{name}:\s+([\d.]+)", text)
    if not found:
        raise SystemExit(f"dnsperf said nothing of {name}: {text[-300:]}")
    return float(found[1])


async def _p99(questions: Path, rate: float, seconds: float) -> float:
    """Milliseconds within which 99 of 100 replies came, at a rate."""
    text = await _dnsperf("-d", str(questions), "-l", str(seconds), "-Q", str(int(rate)), "-v")
    taken = sorted(float(word) for word in re.findall(r"^> NOERROR \S+ \S+ ([\d.]+)$", text, re.MULTILINE))
    return taken[len(taken) * 99 // 100] * 1000 if taken else float("nan")


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


class Asker:
    """Asks one question at a time."""

    def __init__(self) -> None:
        with netns.entered(NAMESPACE):
            self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.settimeout(0.2)
        self._sock.connect(("127.0.0.1", DNS_PORT))

    def addresses(self, name: str) -> bytes:
        """The whole reply to a question for addresses; empty when there is none, or it is a failure."""
        labels = b"".join(bytes((len(part),)) + part.encode() for part in name.split("."))
        with contextlib.suppress(OSError):
            self._sock.send(struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1")
            reply = self._sock.recv(4096)
            return b"" if reply[3] & 15 else reply
        return b""

    def close(self) -> None:
        """Let go of the socket."""
        self._sock.close()


# --- one server ---


async def measure(server: Server, api: Api, seconds: float, rate: float) -> list[dict[str, Any]]:
    """All measures of one server, as rows."""
    rows: list[dict[str, Any]] = []

    def row(what: str, values: list[float], aim: float | None = None) -> None:
        figures = [round(f(values), 3 if max(values) < 1000 else None) for f in (min, statistics.median, max)]
        columns = ("measure", "min", "median", "max", "aim")
        rows.append(dict(zip(columns, (f"{server.name}: {what}", *figures, aim), strict=True)))

    ours = server.name == "netemu"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server.write(folder)
        _write(folder / "cached", [f"web-{number}.{ZONE} A" for number in range(CLUSTER_IPS)])
        new = [f"{_endpoint_name(n, index)} A" for n in range(SERVICES) for index in range(ENDPOINTS)]
        _write(folder / "new", new)
        begin = time.perf_counter()
        async with _running(server, folder) as pid, _asker() as asker:
            await _until(lambda: bool(asker.addresses(_endpoint_name(SERVICES - 1, 0))), 120)
            if server.clustered:
                row(f"{SERVICES} Services x {ENDPOINTS} headless endpoints, ready, s", [time.perf_counter() - begin],
                    3 if ours else None)  # fmt: skip
                row("the same, processor time, s", [_processor_seconds(pid)], 3 if ours else None)
                row("the same, memory, MiB", [_resident(pid)], 200 if ours else None)
                row("one endpoint changes, processor time, ms", await _changes(pid, api, asker), 1 if ours else None)
            cached, fresh = str(folder / "cached"), str(folder / "new")
            await _dnsperf("-d", cached, "-l", "1")
            loads = {
                CACHED: ("-d", cached, "-l", str(seconds)),
                TCP: ("-d", cached, "-l", str(seconds), "-m", "tcp"),
                UNCACHED: ("-d", fresh, "-l", str(seconds)),
            }
            for what, options in loads.items():
                found = await _load(pid, *options)
                row(f"{what}, queries/s", [found.queries], AIMS[what] if ours else None)
                row(f"{what}, queries per processor second", [1e6 / found.microseconds], AIMS[what] if ours else None)
                if found.lost:
                    row(f"{what}, queries lost", [found.lost], 0)
            row(f"{CACHED}, p99 at {rate:.0f} queries/s, ms", [await _p99(Path(cached), rate, seconds)])
            row("memory in the end, MiB", [_resident(pid)])
    return rows


async def _changes(pid: int, api: Api, asker: Asker) -> list[float]:
    """Milliseconds of processor time for each change, from the event to the question that sees it."""
    address = "10.200.0.1"
    before = _processor_seconds(pid)
    for number in range(CHANGES):
        api.change(number * 7 % SERVICES, address)
    last = (CHANGES - 1) * 7 % SERVICES
    await _until(lambda: socket.inet_aton(address) in asker.addresses(f"svc-{last}.{ZONE}"), 30)
    return [(_processor_seconds(pid) - before) / CHANGES * 1000]


async def _until(true: Callable[[], bool], within: float) -> None:
    deadline = time.monotonic() + within
    while not await asyncio.to_thread(true):
        if time.monotonic() > deadline:
            raise SystemExit("the server does not answer")
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def _asker() -> AsyncIterator[Asker]:
    asker = Asker()
    try:
        yield asker
    finally:
        asker.close()


@contextlib.asynccontextmanager
async def _running(server: Server, folder: Path) -> AsyncIterator[int]:
    """The server's process id."""
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *_pinned(0, *server.command), cwd=folder, stdout=log, stderr=log
        )  # fmt: skip
    try:
        yield process.pid
    except SystemExit as error:
        said = (folder / "log").read_text(errors="replace")[-500:]
        raise SystemExit(f"{server.name}: {error}\n{said}") from None
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _bench(servers: list[Server], seconds: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    rate = HALF_LOAD
    for server in servers:
        print(server.name, file=sys.stderr)
        api = Api()
        async with served(api.answer, NAMESPACE):
            found = await measure(server, api, seconds, rate)
        rows += found
        if server.name == "peer":
            rate = next(row["median"] for row in found if row["measure"].endswith(f"{CACHED}, queries/s")) / 2
    return rows


def bench_dns(peer: Path | None, seconds: float) -> list[dict[str, Any]]:
    """Every server, side by side."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # the API server keeps off the measured one's processor
    netns.create(NAMESPACE)
    try:
        subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
        return asyncio.run(_bench(_servers(peer), seconds))
    finally:
        netns.delete(NAMESPACE)
