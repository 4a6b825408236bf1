"""How fast the API server is: creates, lists, watches and memory, over HTTPS, with nothing but the load at work.

The server is a process of its own, and two more are its clients, on whatever cores this machine has. Next to creates
per second stands what one costs in the server's processor time, which is the better figure on a machine that has other
work.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench_apiserver_load import WATCHED, Connection, create, fetch, watch, write

CLIENTS, PROCESSES = 10, 2
FEW_WATCHERS, MANY_WATCHERS = 200, 2000
PODS = 100
_PATIENCE = 60.0
_FOLDERS = {"ConfigMaps": WATCHED, "Pods": "/api/v1/namespaces/default/pods",
            "Services": "/api/v1/namespaces/default/services"}  # fmt: skip
_forks = multiprocessing.get_context("fork")


def bench_apiserver(store: str, objects: int, runs: int) -> list[dict[str, Any]]:
    """The measures, on `sqlite` or on three members of `etcd`."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # every watcher has a connection
    with tempfile.TemporaryDirectory(prefix="netemu-bench-") as name, ExitStack() as opened:
        folder = Path(name)
        endpoints = opened.enter_context(_etcd(folder)) if store == "etcd" else ()
        pid = opened.enter_context(_server(folder, endpoints))
        clients = opened.enter_context(_forks.Pool(PROCESSES, initializer=_begin))
        bench = _Bench(store, folder / "kubeconfig", pid, clients)
        bench.creates("Services", objects, runs)
        bench.keep(f"memory with {objects:,} Services, MiB", _memory(pid), 250)
        for _ in range(runs):
            seconds = clients.apply(fetch, (bench.kubeconfig, "/api/v1/services"))
            bench.keep(f"list of {objects:,} Services, s", seconds, 0.3)
        bench.creates("ConfigMaps", objects // 3, runs)
        bench.creates("Pods", max(PODS, objects // 10), runs)
        bench.watches(FEW_WATCHERS, writes=60, pause=0.05, aim=30)
        bench.watches(MANY_WATCHERS, writes=10, pause=1.0)
        bench.kubectl(runs)
        return bench.rows()


class _Bench:
    """The figures so far."""

    def __init__(self, store: str, kubeconfig: Path, pid: int, clients: Any) -> None:
        self.kubeconfig = kubeconfig
        self._store, self._pid, self._clients = store, pid, clients
        self._figures: dict[str, list[float]] = {}
        self._aims: dict[str, float | str] = {}

    def keep(self, measure: str, value: float, aim: float | str = "") -> None:
        """One figure more."""
        self._figures.setdefault(measure, []).append(value)
        self._aims[measure] = aim

    def creates(self, kind: str, objects: int, runs: int) -> None:
        """As many objects in as many runs, from all clients at once."""
        aim = 500 if self._store == "etcd" else 1500
        share = max(CLIENTS, objects // runs // PROCESSES)
        for run in range(runs):
            used = _processor_seconds(self._pid)
            begins = range(run * share * PROCESSES, (run + 1) * share * PROCESSES, share)
            clients = CLIENTS // PROCESSES
            numbers = [range(begin, begin + share) for begin in begins]
            work = [(self.kubeconfig, _FOLDERS[kind], _MADE[kind], each, clients) for each in numbers]
            took = self._clients.starmap(create, work, chunksize=1)
            seconds = max(end for _, end in took) - min(begin for begin, _ in took)
            used = _processor_seconds(self._pid) - used
            self.keep(f"creates of {kind}, {CLIENTS} clients, /s", share * PROCESSES / seconds, aim)
            self.keep(f"a create of {kind}, ms of the server's processor time", used * 1000 / share / PROCESSES)

    def watches(self, watchers: int, *, writes: int, pause: float, aim: float | str = "") -> None:
        """How long a write is on its way to watchers, each of whom has a connection, and what one takes in memory."""
        name, memory = f"watched-by-{watchers}", _memory(self._pid)
        Connection(self.kubeconfig).ask("POST", WATCHED, {"metadata": {"name": name}})
        all_watch, telling = _forks.Pipe(duplex=False)
        with _forks.Pool(1, initializer=_begin, initargs=(telling,)) as watching:
            took = watching.apply_async(_watch, (self.kubeconfig, name, watchers, writes))
            if not all_watch.poll(_PATIENCE):
                raise SystemExit(f"{watchers} watches have not begun within {_PATIENCE:.0f} s")
            self.keep(f"memory per watcher, of {watchers:,}, KiB", (_memory(self._pid) - memory) * 1024 / watchers)
            self._clients.apply(write, (self.kubeconfig, name, writes, pause))
            by_write = took.get()
        percentiles = statistics.quantiles([one for each in by_write for one in each], n=100)
        self.keep(f"a write to {watchers:,} watchers, p50, ms", percentiles[49])
        self.keep(f"a write to {watchers:,} watchers, p99, ms", percentiles[98], aim)
        for each in by_write:
            self.keep(f"a write to the last of {watchers:,} watchers, ms", max(each))

    def kubectl(self, runs: int) -> None:
        """`kubectl get pods` beside a command of it that asks nobody, if there is a kubectl."""
        program = os.environ.get("NETEMU_KUBECTL") or shutil.which("kubectl")
        if program is None:
            return
        cache = self.kubeconfig.with_name("cache")
        common = [program, "--kubeconfig", str(self.kubeconfig), "--cache-dir", str(cache)]
        commands = {f"kubectl get pods, of {PODS}, s": ["get", "pods", "-l", "bench=few"],
                    "kubectl alone (version --client), s": ["version", "--client"]}  # fmt: skip
        subprocess.run([*common, "get", "pods", "-l", "bench=few"], check=True, capture_output=True)  # discovery, once
        for _ in range(runs):
            for measure, command in commands.items():
                begin = time.perf_counter()
                subprocess.run([*common, *command], check=True, capture_output=True)
                self.keep(measure, time.perf_counter() - begin)

    def rows(self) -> list[dict[str, Any]]:
        """One row per measure."""
        return [
            {
                "measure": f"{self._store}: {name}",
                "min": _short(min(values)),
                "median": _short(statistics.median(values)),
                "max": _short(max(values)),
                "aim": self._aims[name],
            }
            for name, values in self._figures.items()
        ]


def _short(value: float) -> float:
    return round(value) if value >= 100 else round(value, 3)


def _service(number: int) -> dict[str, Any]:
    spec = {"selector": {"app": f"app-{number}"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return {"metadata": {"name": f"service-{number}", "labels": {"app": f"app-{number}"}}, "spec": spec}


def _config_map(number: int) -> dict[str, Any]:
    return {"metadata": {"name": f"configmap-{number}"}, "data": {"key": "value"}}


def _pod(number: int) -> dict[str, Any]:
    container = {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}],
                 "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}  # fmt: skip
    labels = {"app": "web", "bench": "few" if number < PODS else "many"}
    return {"metadata": {"name": f"pod-{number}", "labels": labels}, "spec": {"containers": [container]}}


_MADE: dict[str, Callable[[int], dict[str, Any]]] = {"ConfigMaps": _config_map, "Pods": _pod, "Services": _service}
_telling: Any = None


def _begin(telling: Any = None) -> None:
    """What a client's process does first: it ends when it is told to, whatever its parent would do."""
    global _telling
    _telling = telling
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _watch(kubeconfig: Path, name: str, watchers: int, writes: int) -> list[list[float]]:
    return watch(kubeconfig, name, watchers, writes, lambda: _telling.send(True))


@contextmanager
def _server(folder: Path, endpoints: Sequence[str]) -> Iterator[int]:
    """Its process id, once it serves."""
    program = Path(__file__).with_name("bench_apiserver_process.py")
    with subprocess.Popen([sys.executable, str(program), str(folder), *endpoints]) as process:
        try:
            deadline = time.monotonic() + _PATIENCE
            while not (folder / "kubeconfig").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the API server does not start")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()


@contextmanager
def _etcd(folder: Path) -> Iterator[Sequence[str]]:
    """The addresses of three members on this machine."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.kernel.etcd_members import members

    with members(folder, 3) as cluster:
        yield cluster.endpoints


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024
