"""The kubelets' own API in a lab: port 10250 of every node, inside the node's network namespace."""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from netemu.apiserver.auth.authentication import server_tls
from netemu.client.rotation import follow
from netemu.kernel import netns
from netemu.kubelet.kubelet import Kubelet
from netemu.lab import pki
from netemu.lab.config import LabConfig, NodeConfig
from netemu.network import names

log = logging.getLogger(__name__)


async def serve_kubelets(config: LabConfig, kubelets: Mapping[str, Kubelet]) -> None:
    """Every kubelet, by its node's name, can be asked until this is cancelled."""
    # An HTTP server is a tenth of a second to load, and Pods can start meanwhile.
    server = await asyncio.to_thread(importlib.import_module, "netemu.kubelet.server")
    servers = [server.KubeletServer(kubelet) for kubelet in kubelets.values()]
    nodes = [node for node in config.nodes if node.name in kubelets]
    renewed: dict[Path, Callable[[], None]] = {}
    try:
        for node, each in zip(nodes, servers, strict=True):
            certificate, key, _ = files = pki.kubelet_certificate(config.name, node.name)
            tls = server_tls(*files)
            renewed[certificate] = partial(tls.load_cert_chain, certificate, key)
            try:
                await each.start(_listeners(config.name, node, server.PORT), tls)
            except OSError as error:  # somebody on the node has the port; the node works all the same
                log.error("kubelet %s: no logs, exec and port-forward: %s", node.name, error)
        await follow(renewed)
    finally:
        await asyncio.gather(*(each.close() for each in servers))


def _listeners(lab: str, node: NodeConfig, port: int) -> list[socket.socket]:
    families = {socket.AF_INET6 if ":" in address else socket.AF_INET for address in node.addresses}
    with netns.entered(names.node_netns(lab, node.name)):
        return [_listen(family, port) for family in families]


def _listen(family: socket.AddressFamily, port: int) -> socket.socket:
    return socket.create_server(("::" if family == socket.AF_INET6 else "0.0.0.0", port), family=family, backlog=128)
