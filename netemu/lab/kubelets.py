"""The kubelets' own API in a lab: port 10250 of every node, inside the node's network namespace."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Mapping

from netemu.apiserver.authentication import server_tls
from netemu.kernel import netns
from netemu.kubelet.kubelet import Kubelet
from netemu.kubelet.server import PORT, KubeletServer
from netemu.lab import pki
from netemu.lab.config import LabConfig, NodeConfig
from netemu.network import names

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def serving(config: LabConfig, kubelets: Mapping[str, Kubelet]) -> AsyncIterator[None]:
    """Every kubelet, by its node's name, can be asked meanwhile."""
    tls = server_tls(*pki.kubelet_certificate(config.name))
    servers = [KubeletServer(kubelet) for kubelet in kubelets.values()]
    nodes = [node for node in config.nodes if node.name in kubelets]
    try:
        for node, server in zip(nodes, servers, strict=True):
            try:
                await server.start(_listeners(config.name, node), tls)
            except OSError as error:  # somebody on the node has the port; the node works all the same
                log.error("kubelet %s: no logs, exec and port-forward: %s", node.name, error)
        yield
    finally:
        await asyncio.gather(*(server.close() for server in servers))


def _listeners(lab: str, node: NodeConfig) -> list[socket.socket]:
    families = {socket.AF_INET6 if ":" in address else socket.AF_INET for address in node.addresses}
    with netns.entered(names.node_netns(lab, node.name)):
        return [_listen(family) for family in families]


def _listen(family: socket.AddressFamily) -> socket.socket:
    return socket.create_server(("::" if family == socket.AF_INET6 else "0.0.0.0", PORT), family=family, backlog=128)
