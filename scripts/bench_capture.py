"""Whether `netemu capture` of ten Pods keeps up: datagrams from Pod to Pod at a steady rate, each seen at both.

The sender is a process of its own with a socket in every Pod; receivers have sockets that nobody reads, so the kernel
drops what does not fit and answers nothing. What was sent and what the file has is counted independently.
"""

from __future__ import annotations

import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_observe import NETEMU, PODS, lab, many_services, row

RATES = (50_000, 100_000)
"""Packets per second, of all Pods together."""
SECONDS = 5.0
PORT = 9
_PAYLOAD = bytes(100)
_PACE = 0.002


def bench_capture(runs: int) -> Iterator[dict[str, Any]]:
    """Ten Pods at each rate: what was sent, what was lost on the way into the file, and what that cost."""
    with tempfile.TemporaryDirectory() as folder, lab(many_services(Path(folder))) as name:
        for rate in RATES:
            figures = [_once(name, rate, Path(folder, "capture.pcapng")) for _ in range(runs)]
            rates, lost, busy = map(list, zip(*figures, strict=True))
            yield row(f"capture of ten Pods at {rate} packets/s: sent, 1/s", rates, rate)
            yield row("  of them not in the file", lost, 0)
            yield row("  processors that sender and capture kept busy", busy, 1)


def _once(name: str, rate: int, file: Path) -> tuple[float, float, float]:
    pods = [f"web-{number}" for number in range(PODS)]
    command = [*NETEMU, "capture", *pods, "--lab", name, "-w", str(file), "--filter", f"udp port {PORT}"]
    before = _processor_time()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as capture:
        assert capture.stderr is not None
        capture.stderr.readline()  # its sockets are open
        begin = time.perf_counter()
        sender = [sys.executable, __file__, name, str(rate // 2)]
        sent = 2 * int(subprocess.run(sender, check=True, capture_output=True, text=True).stdout)
        took = time.perf_counter() - begin
        capture.send_signal(signal.SIGINT)
        said = capture.stderr.read()
    found = re.match(r"(\d+) packets captured", said)
    if not found:
        raise SystemExit(f"netemu capture: {said.strip()}")
    return sent / SECONDS, sent - int(found[1]), (_processor_time() - before) / took


def _processor_time() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _send(name: str, rate: int) -> int:
    """So many datagrams per second, from each Pod to the next; how many there were."""
    from netemu.kernel import netns
    from netemu.lab.paths import LabPaths
    from netemu.runtime.sandboxes import load_all

    pods = [pod.config for pod in load_all(LabPaths(name).pods) if pod.config.pod_namespace == "default"]
    senders, receivers = [], []
    for pod in pods:
        with netns.entered(pod.netns):
            receivers.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            senders.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receivers[-1].bind(("", PORT))
    for sender, to in zip(senders, [*pods[1:], pods[0]], strict=True):
        sender.connect((to.addresses[0], PORT))
    sent, begin = 0, time.perf_counter()
    while (now := time.perf_counter() - begin) < SECONDS:
        while sent < now * rate:
            senders[sent % len(senders)].send(_PAYLOAD)
            sent += 1
        time.sleep(_PACE)
    return sent


if __name__ == "__main__":
    print(_send(sys.argv[1], int(sys.argv[2])))
