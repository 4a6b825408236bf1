"""How fast netemu shows what packets do, on labs made for it. One function for each thing measured; see MEASURES."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
NETEMU = [sys.executable, "-m", "netemu"]
LAB = f"bench-observe-{os.getpid()}"
NODES, PODS, SERVICES = 5, 10, 50
"""A Pod on each node and the node itself are ten vantages."""


def netemu(*args: str, fails: tuple[int, ...] = (0,)) -> str:
    """The standard output of a command."""
    done = subprocess.run([*NETEMU, *args], capture_output=True, text=True)
    if done.returncode not in fails:
        raise SystemExit(f"netemu {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def lab(file: Path) -> Iterator[str]:
    """A lab of that file, up; its name."""
    try:
        netemu("up", str(file), "--name", LAB, "--timeout", "120")
        yield LAB
    finally:
        subprocess.run([*NETEMU, "down", LAB], capture_output=True)


def many_services(folder: Path) -> Path:
    """A topology of five nodes, ten Pods and fifty Services of all kinds, three Pods behind each."""
    topology = {
        "apiVersion": "netemu.dev/v1alpha1",
        "kind": "Topology",
        "metadata": {"name": LAB},
        "spec": {"nodes": [{"name": "node", "count": NODES}]},
    }
    pods = [_pod(number) for number in range(PODS)]
    services = [_service(number, ("ClusterIP", "NodePort", "LoadBalancer")[number % 3]) for number in range(SERVICES)]
    file = folder / "observe.yaml"
    file.write_text(yaml.safe_dump_all([topology, *pods, *services]))
    return file


def _pod(number: int) -> dict[str, Any]:
    labels = {f"s{(number + step) % PODS}": "yes" for step in range(3)}
    spec = {
        "nodeName": f"node-{number % NODES + 1}",
        "containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 8080}]}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"web-{number}", "labels": labels}, "spec": spec}


def _service(number: int, kind: str) -> dict[str, Any]:
    spec = {"type": kind, "selector": {f"s{number % PODS}": "yes"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"service-{number:02}"}, "spec": spec}


def bench_matrix(runs: int) -> Iterator[dict[str, Any]]:
    """The truth table of a shop on three nodes, and of 50 Services from 10 vantages."""
    with tempfile.TemporaryDirectory() as folder:
        yield _matrix("Online Boutique on three nodes", ROOT / "topologies/shop.yaml", runs, 20)
        yield _matrix(f"{SERVICES} Services x {2 * NODES} vantages", many_services(Path(folder)), runs, 60)


def _matrix(what: str, file: Path, runs: int, aim: float) -> dict[str, Any]:
    times, count = [], 0
    with lab(file) as name:
        for _ in range(runs):
            begin = time.perf_counter()
            told = json.loads(netemu("matrix", "--lab", name, "-o", "json", fails=(0, 1)))
            times.append(time.perf_counter() - begin)
            count = told["count"]
            if told["different"]:
                raise SystemExit(f"matrix of {what}: {told['different']} of {count} connections are not as predicted")
    return row(f"matrix of {what}: {count} connections, s", times, aim)


def bench_trace(runs: int) -> Iterator[dict[str, Any]]:
    """One packet, from a Pod to a Service and back, in every mode that a kernel without IPVS has: the whole command,
    the processor time that it and its tools take, and the story alone, in a process that has loaded everything."""
    times = max(runs, 5)
    for mode in ("iptables", "nftables"):
        with tempfile.TemporaryDirectory() as folder:
            documents = list(yaml.safe_load_all((ROOT / "topologies/quickstart.yaml").read_text()))
            next(each for each in documents if each["kind"] == "Topology")["spec"]["proxy"] = {"mode": mode}
            file = Path(folder) / "quickstart.yaml"
            file.write_text(yaml.safe_dump_all(documents))
            with lab(file) as name:
                # The first one reads its modules from disk.
                taken = [_trace(name) for _ in range(times + 1)][1:]
                stories = list(_stories(name, times))
        what = f"trace of a packet on three nodes, {mode}"
        yield row(f"{what}, s", [wall for wall, _ in taken], 0.5)
        yield row(f"{what}: processor time, s", [processor for _, processor in taken], 0.35)
        yield row(f"{what}: the story alone, s", stories, 0.2)


def _trace(name: str) -> tuple[float, float]:
    begin, before = time.perf_counter(), _processor_time()
    (story,) = json.loads(netemu("trace", "--lab", name, "-n", "shop", "client", "web:80", "-o", "json"))
    taken = time.perf_counter() - begin, _processor_time() - before
    if story["outcome"] != "answered":
        raise SystemExit(f"trace: {story['summary']}")
    return taken


def _processor_time() -> float:
    """Of all commands that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def _stories(name: str, times: int) -> Iterator[float]:
    from netemu.lab.trace import Tracer

    tracer = Tracer(name, "client", "shop")
    for _ in range(times):
        begin = time.perf_counter()
        asyncio.run(tracer.story("web:80"))
        yield time.perf_counter() - begin


def capture(runs: int) -> Iterator[dict[str, Any]]:
    """Packets of ten Pods at a steady rate; whether they all come into the file."""
    from bench_capture import bench_capture

    yield from bench_capture(runs)


def row(measure: str, values: list[float], aim: float) -> dict[str, Any]:
    """As `scripts/bench` prints it."""
    return {
        "measure": measure,
        "min": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
        "aim": aim,
    }


MEASURES: tuple[Callable[[int], Iterator[dict[str, Any]]], ...] = (bench_matrix, bench_trace, capture)
"""Each takes the number of runs and gives rows."""


def bench_observe(runs: int) -> list[dict[str, Any]]:
    """All of it."""
    return [each for measure in MEASURES for each in measure(runs)]
