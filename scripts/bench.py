"""How fast netemu is on this machine. Each measure is repeated; minimum, median and maximum are told, with the aim."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NETEMU = [sys.executable, "-m", "netemu"]
LAB = "bench"


def netemu(*args: str) -> str:
    """Run a netemu command; its standard output. A failure ends the measuring."""
    done = subprocess.run([*NETEMU, *args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"netemu {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def api(path: str) -> Any:
    """The answer of the lab's API server."""
    from netemu.lab.api import LabApi

    return LabApi(LAB).request("GET", path)


def until_served(file: Path) -> float:
    """`up`, and then a Pod that resolves a Service's name and is answered by a Pod behind it."""

    def work() -> None:
        netemu("up", str(file), "--name", LAB)
        netemu("exec", "-n", "shop", "--lab", LAB, "client", "--", "curl", "-sf", "-o", "/dev/null", "http://web")

    return timed(work)


def memory() -> float:
    """MiB that the control plane and the node agent hold together (resident set sizes)."""
    from netemu.lab.remains import lab_processes

    total = 0
    for name, pid in lab_processes(LAB).items():
        if name != "supervisor":
            status = Path(f"/proc/{pid}/status").read_text()
            total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return total / 1024


def apply_until_ready(manifest: Path, namespace: str) -> float:
    """From posting a manifest's objects until every Pod is Ready and every Deployment available."""
    import yaml

    from netemu.lab.paths import LabPaths
    from netemu.lab.readiness import workloads_missing

    objects = [o for o in yaml.safe_load_all(manifest.read_text()) if o and o["kind"] != "Topology"]
    kubectl = os.environ.get("NETEMU_KUBECTL")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "objects.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        begin = time.perf_counter()
        if kubectl:
            command = [kubectl, "--kubeconfig", str(LabPaths(LAB).kubeconfig), "--cache-dir", folder, "-n", namespace]
            subprocess.run([*command, "apply", "-f", str(file)], check=True, capture_output=True)
        else:
            _post(objects, namespace)
        while True:
            deployments = api(f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"]
            pods = api(f"/api/v1/namespaces/{namespace}/pods")["items"]
            if deployments and not workloads_missing(deployments, pods):
                return time.perf_counter() - begin
            time.sleep(0.02)


def _post(objects: list[dict[str, Any]], namespace: str) -> None:
    import asyncio

    from netemu.client import HttpClient, load_kubeconfig
    from netemu.lab.manifests import post
    from netemu.lab.paths import LabPaths

    async def work() -> None:
        async with HttpClient(load_kubeconfig(LabPaths(LAB).kubeconfig)) as client:
            for obj in objects:
                obj["metadata"].setdefault("namespace", namespace)
            await post(client, objects)

    asyncio.run(work())


def bench_lab(runs: int, manifest: Path) -> list[dict[str, Any]]:
    """The measures of a lab's life."""
    figures: dict[str, list[float]] = {}

    def keep(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    for _ in range(max(runs, 3)):
        keep("help, s", timed(lambda: netemu("--help")))
    for run in range(runs):
        print(f"run {run + 1} of {runs}", file=sys.stderr)
        keep("up until a Pod reaches a Service by name, s", until_served(ROOT / "topologies/quickstart.yaml"))
        keep("memory of both processes, MiB", memory())
        keep(f"{manifest.stem} until all Ready, s", apply_until_ready(manifest, "default"))
        keep("down, s", timed(lambda: netemu("down", LAB)))
    aims = {"help, s": 0.2, "memory of both processes, MiB": 150, "down, s": 1}
    return [
        {
            "measure": name,
            "min": round(min(values), 3),
            "median": round(statistics.median(values), 3),
            "max": round(max(values), 3),
            "aim": aims.get(name, 3),
        }
        for name, values in figures.items()
    ]


def _lab_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    try:
        return bench_lab(options.runs, options.manifest)
    finally:
        subprocess.run([*NETEMU, "down", LAB], capture_output=True)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure netemu on this machine. Needs root.")
    parser.add_argument("what", nargs="?", choices=["lab", "api", "proxy", "dns", "observe"], default="lab",
                        help="lab: up, apply, memory, down; api: how fast the API server creates, lists and tells; "
                             "proxy: how fast rules are programmed; "
                             "dns: how fast names are answered, beside unbound and dnsmasq if installed; "
                             "observe: how fast netemu shows what packets do")  # fmt: skip
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--manifest", type=Path, default=ROOT / "topologies/shop.yaml",
                        help="the application that is applied (with kubectl, if NETEMU_KUBECTL names one)")  # fmt: skip
    parser.add_argument("--store", choices=["sqlite", "etcd"], default="sqlite",
                        help="api: what it keeps objects in; etcd: three members on this machine")  # fmt: skip
    parser.add_argument("--objects", type=int, default=10_000, help="api: how many Services there are at the end")
    parser.add_argument("--modes", nargs="+", default=["nftables", "iptables"], help="proxy: which modes")
    parser.add_argument(
        "--services", nargs="+", type=int, default=[1000, 5000], help="proxy: how many, of 10 endpoints"
    )
    parser.add_argument("--peer", type=Path, help="another kube-proxy (dns: a CoreDNS) to measure in the same run")
    parser.add_argument("--seconds", type=float, default=5, help="dns: how long each load lasts")
    parser.add_argument("--within", type=float, default=180, help="proxy: give up a case after so many seconds")
    parser.add_argument(
        "--writes", type=int, default=200, help="proxy: how many writes to a lab of 10 nodes; 0: no lab"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    # Whoever ends it wants what it made to go, too: both signals unwind, also where a shell put it into the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        _print(_rows(options), as_json=options.json)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    if options.what == "api":
        from bench_apiserver import bench_apiserver

        return bench_apiserver(options.store, options.objects, options.runs)
    if options.what == "proxy":
        from bench_proxy import bench_proxy

        return bench_proxy(options.modes, options.services, options.peer, options.within, options.writes)
    if options.what == "dns":
        from bench_dns import bench_dns

        return bench_dns(options.peer, options.seconds)
    if options.what == "observe":
        from bench_observe import bench_observe

        return bench_observe(options.runs)
    return _lab_rows(options)


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = [key for key in rows[0] if key != "measure"]
    for row in [dict(zip(rows[0], rows[0], strict=True)), *rows]:
        print(f"{row['measure']:<76}" + "".join(f"{row[key]!s:>10}" for key in columns))


if __name__ == "__main__":
    main()
