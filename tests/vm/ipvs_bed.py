"""A node of `tests.kernel.proxy_bed` with a kube-proxy that may be in ipvs mode, and one Service behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from netemu.kernel.ipvs import Destination, IpvsNetlink, ServerKey
from netemu.model.meta import decode
from netemu.model.objects import Node
from netemu.proxy.server import ProxyServer
from tests.kernel import proxy_bed
from tests.kernel.proxy_bed import NODE, NODE_OUTSIDE, Api
from tests.unit.proxy_world import endpoint_slice, service

T = TypeVar("T")
VIP, NODE_PORT = "172.30.0.10", 30080
KEY = ServerKey("tcp", VIP, 80)
WEB: dict[str, Any] = {
    "ip": VIP,
    "type": "LoadBalancer",
    "ports": {"http": 80, "dns": "53/UDP"},
    "node_ports": {"http": NODE_PORT, "dns": 30053},
    "ingress": ["1.2.3.4"],
}
PORTS: dict[str, int | str] = {"http": 8080, "dns": "8080/UDP"}
HERE = [(f"10.180.0.{i}", "test-node") for i in (1, 2, 3)]
EVERY = {ip for ip, _ in HERE}
PATIENCE = 120.0
"""Seconds for what takes a blink of an eye where the processor is a real one."""
MODE_ANNOTATION = "netemu.dev/proxy-mode"


async def off(function: Callable[..., T], *args: object, **kwargs: object) -> T:
    """Blocking calls in a thread: the proxy works meanwhile."""
    return await asyncio.to_thread(function, *args, **kwargs)


def proxy(
    api: Api, state_dir: Path, *, annotated: bool = False, **fields: Any
) -> AbstractAsyncContextManager[ProxyServer]:
    """A running kube-proxy, in ipvs mode unless told otherwise, past its first sync."""
    annotation = MODE_ANNOTATION if annotated else ""
    fields = {"mode": "ipvs", **fields}
    return proxy_bed.proxy(api, state_dir, mode_annotation=annotation, patience=PATIENCE, **fields)


def node(mode: str = "") -> Node:
    """The Node, with the wish for a mode."""
    annotations = {MODE_ANNOTATION: mode} if mode else {}
    status = {"addresses": [{"type": "InternalIP", "address": NODE_OUTSIDE}]}
    return decode({"metadata": {"name": "test-node", "annotations": annotations}, "status": status}, Node)


def api_with(at: Sequence[Sequence[str]], **fields: Any) -> Api:
    """An API with the Service and these endpoints."""
    api = Api()
    api.put(node())
    api.put(service(**{**WEB, **fields}))
    api.put(endpoint_slice("default/web", at, PORTS))
    return api


async def put(api: Api, server: ProxyServer, at: Sequence[Sequence[str]]) -> None:
    """These endpoints, programmed."""
    async with asyncio.timeout(PATIENCE):
        await server.until(endpoint_slices=api.put(endpoint_slice("default/web", at, PORTS)))


def behind(key: ServerKey) -> dict[str, Destination]:
    """The real servers behind a virtual server of the node."""
    kernel = IpvsNetlink(NODE)
    try:
        return {each.address: each for each in kernel.destinations(key)}
    finally:
        kernel.close()


async def until(look: Callable[[], T], good: Callable[[T], bool] = bool) -> T:
    """The first good look."""
    async with asyncio.timeout(PATIENCE):
        while not good(found := await off(look)):  # noqa: ASYNC110
            await asyncio.sleep(0.2)  # the kernel has no event for this
    return found
