"""How long a change takes from the API into the kernels: an EndpointSlice is written, a rule appears on every node.

A lab comes up in the usual way. Its one hand-made EndpointSlice is patched again and again, each time with an endpoint
whose address was never used before. The clock starts when the request is sent; it stops when the kernel of the last
node has announced (nfnetlink, group nftables, a socket in each node's namespace) a rule or an element that holds those
four bytes. Nothing of netemu's own is asked. Writes come further apart than a lab's proxies pause between two syncs,
so what is measured is the way, not the queue; where x_tables hold the rules, nothing is announced and nothing measured.
"""

from __future__ import annotations

import ipaddress
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from netemu.kernel import netns
from netemu.kernel.iptables import IptablesTool
from netemu.lab.api import LabApi
from netemu.network.names import node_netns

LAB = f"bench-writes-{os.getpid()}"
NODES, ENDPOINTS, PAUSE, PATIENCE = 10, 10, 0.15, 10.0
WARM_UP = 5
_GROUP_NFTABLES, _SOL_NETLINK, _ADD_MEMBERSHIP = 7, 270, 1
_NEW_RULE, _NEW_ELEMENT = 10 << 8 | 6, 10 << 8 | 12
_SLICE = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/moving-1"


def announced(mode: str) -> bool:
    """Whether the rules of a mode are in nf_tables, which announces them."""
    return mode == "nftables" or (mode == "iptables" and not IptablesTool("iptables").legacy)


def bench_writes(mode: str, netemu: Sequence[str], writes: int) -> list[float]:
    """Milliseconds of each write, from its request to the last node's rule."""
    with _lab(mode, netemu), ExitStack() as opened:
        heard = [opened.enter_context(_announcements(node_netns(LAB, name))) for name in _node_names()]
        took = [_write(turn, heard) for turn in range(WARM_UP + writes)]
    return took[WARM_UP:]


@contextmanager
def _lab(mode: str, netemu: Sequence[str]) -> Iterator[None]:
    documents: list[dict[str, Any]] = [
        {"apiVersion": "netemu.dev/v1alpha1", "kind": "Topology", "metadata": {"name": LAB},
         "spec": {"nodes": [{"name": "control-plane", "role": "control-plane"},
                            {"name": "worker", "count": NODES - 1}], "proxy": {"mode": mode}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "moving"},
         "spec": {"ports": [{"name": "http", "port": 80}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
         "metadata": {"name": "moving-1", "labels": {"kubernetes.io/service-name": "moving"}},
         "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": _endpoints(0)},
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lab.yaml"
        file.write_text("\n---\n".join(map(json.dumps, documents)))
        try:
            subprocess.run([*netemu, "up", str(file)], check=True, stdout=subprocess.DEVNULL)
            yield
        finally:
            subprocess.run([*netemu, "down", LAB], check=True, stdout=subprocess.DEVNULL)


def _node_names() -> list[str]:
    return ["control-plane", *(f"worker-{number}" for number in range(1, NODES))]


def _address(number: int) -> str:
    return str(ipaddress.ip_address("10.250.0.1") + number)


def _endpoints(first: int) -> list[dict[str, Any]]:
    numbers = [first, *range(1000, 1000 + ENDPOINTS - 1)]
    return [{"addresses": [_address(number)], "conditions": {"ready": True}} for number in numbers]


@contextmanager
def _announcements(namespace: str) -> Iterator[socket.socket]:
    """A socket that hears of every transaction of nf_tables in a namespace."""
    with netns.entered(namespace):
        heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    with heard:
        heard.bind((0, 0))
        heard.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        yield heard


def _write(turn: int, heard: Sequence[socket.socket]) -> float:
    wanted = ipaddress.ip_address(_address(turn + 1)).packed
    waiting = {one.fileno(): one for one in heard}
    poll = select.poll()
    for one in heard:
        poll.register(one, select.POLLIN)
    begin = time.perf_counter()
    LabApi(LAB).request("PATCH", _SLICE, {"endpoints": _endpoints(turn + 1)})
    while waiting:
        ready = poll.poll(max(0.0, begin + PATIENCE - time.perf_counter()) * 1000)
        if not ready:
            raise SystemExit(f"{len(waiting)} of {len(heard)} nodes have no rule {PATIENCE:.0f} s after a write")
        for number, _ in ready:
            if _announces(waiting[number].recv(1 << 16), wanted):
                poll.unregister(number)
                del waiting[number]
    took = (time.perf_counter() - begin) * 1000
    time.sleep(max(0.0, PAUSE - took / 1000))
    for one in heard:
        _drain(one)
    return took


def _announces(data: bytes, wanted: bytes) -> bool:
    """Whether a message about a new rule or element holds the address."""
    while len(data) >= 16:
        size, kind = int.from_bytes(data[:4], sys.byteorder), int.from_bytes(data[4:6], sys.byteorder)
        if kind in (_NEW_RULE, _NEW_ELEMENT) and wanted in data[16:size]:
            return True
        data = data[max(16, size + 3 & ~3) :]
    return False


def _drain(heard: socket.socket) -> None:
    try:
        while True:
            heard.recv(1 << 16, socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass
