"""The control plane process of a lab: store, API server, controllers and scheduler in one event loop.

The controllers and the scheduler call the registry in process; everybody else comes over HTTPS: users through
127.0.0.1 of the host, nodes and Pods through the control-plane node's address, and short-lived commands of root
through a Unix socket. Started again after a crash it continues from the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

import msgspec

from netemu import controllers, scheduler
from netemu.apiserver.admission import Admission
from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.audit import AuditLog
from netemu.apiserver.authentication import server_tls
from netemu.apiserver.authorization import ClusterAuthorizer
from netemu.apiserver.bootstrap import bootstrap, ensure_policy
from netemu.apiserver.certificates import CertificateGuard
from netemu.apiserver.escalation import EscalationGuard
from netemu.apiserver.jwt import Keys
from netemu.apiserver.local import LocalClient
from netemu.apiserver.node_restriction import NodeRestriction
from netemu.apiserver.rbac_policy import agent_policy, dns_policy, kubeadm_policy
from netemu.apiserver.reach import Reach
from netemu.apiserver.registry import Registry
from netemu.apiserver.rules import Rules
from netemu.apiserver.schema import Schema
from netemu.apiserver.server import ApiServer
from netemu.apiserver.service_accounts import ServiceAccountTokens
from netemu.client import Informer
from netemu.kernel import netns
from netemu.lab import addons, manifests, pki
from netemu.lab.config import API_PORT, LabConfig, load_config, save_config
from netemu.lab.node_labels import mark_nodes
from netemu.lab.node_local_dns import node_local_dns
from netemu.lab.paths import LabPaths
from netemu.lab.process import run, until
from netemu.lab.snapshot_server import serve_snapshots
from netemu.model.errors import UserError
from netemu.model.objects import Node
from netemu.model.resources import NODES
from netemu.network import names
from netemu.store.sqlite import SqliteStore
from netemu.store.sqlite_snapshot import replace_store

log = logging.getLogger(__name__)

_PORTS = 1000
_PATIENCE = 10.0
"""Seconds that manifests wait for nodes that are late."""


async def control_plane(lab: str) -> None:
    """Run the control plane of a lab until cancelled."""
    paths = LabPaths(lab)
    host, config = _host_socket(load_config(lab))
    pki.ensure_pki(config)
    if paths.incoming_store.exists():
        replace_store(paths.incoming_store, paths.store)
    store = await SqliteStore.open(paths.store)
    schema = Schema.load()
    admission = Admission()
    allocator = ServiceAllocator(config.service_cidrs)
    registry = Registry(store, schema, allocator, rules=admission.around(Rules.upstream()))
    await registry.start()
    authorizer = ClusterAuthorizer(registry)
    admission.begin(EscalationGuard(registry, authorizer), NodeRestriction(registry), CertificateGuard(authorizer))
    node = names.node_netns(config.name, config.control_plane.name)
    reach = Reach(node, pki.kubelet_client_tls(lab))
    tokens = _tokens(config, registry)
    server = ApiServer(registry, schema, authorizer=authorizer, tokens=tokens, reach=reach, audit=AuditLog(paths.audit))
    client = LocalClient(registry, "kube-apiserver")
    try:
        async with asyncio.TaskGroup() as tasks:
            await _begin(config, client)
            # Nobody is let in before there are roles to judge by.
            await server.start([host], server_tls(*pki.server_certificate(lab)))
            await server.start([_unix_socket(paths.api_socket)], None)
            tasks.create_task(_serve_the_node(config, server))
            tasks.create_task(serve_snapshots(lab, store))
            root_ca = pki.server_certificate(lab)[2].read_text()
            manager = LocalClient(registry, "kube-controller-manager", authorizer)
            tasks.create_task(
                controllers.run(
                    manager,
                    load_balancer_pools=config.load_balancer_pools,
                    root_ca=root_ca,
                    signer=pki.authority(lab),
                )
            )
            tasks.create_task(mark_nodes(config, LocalClient(registry, "kubeadm")))
            tasks.create_task(scheduler.run(LocalClient(registry, "kube-scheduler")))
            await _post_once(config, LocalClient(registry, "kubectl-client-side-apply"))
            log.info("serving lab %s on 127.0.0.1:%d", lab, config.api_port)
    finally:
        await server.close()
        await registry.close()
        await store.close()


async def _begin(config: LabConfig, client: LocalClient) -> None:
    """What has to be there before anybody asks."""
    await bootstrap(
        client,
        api_address=config.control_plane.addresses[0],
        api_port=API_PORT,
        service_address=config.api_service_ip,
        service_cidrs=config.service_cidrs,
    )
    await ensure_policy(client, kubeadm_policy())
    await ensure_policy(client, dns_policy(addons.SYSTEM, addons.FAULTS))
    await ensure_policy(client, agent_policy(pki.NODE_AGENT, addons.SYSTEM, addons.OUTSIDE_FAULTS))


def _host_socket(config: LabConfig) -> tuple[socket.socket, LabConfig]:
    """Listen on the lab's port of 127.0.0.1: at the first start the first that is free, which it keeps from then on.

    Raises UserError if there is none, OSError if somebody else has taken the lab's.
    """
    if config.api_port:
        return socket.create_server(("127.0.0.1", config.api_port), backlog=128), config
    for port in range(API_PORT, API_PORT + _PORTS):
        with contextlib.suppress(OSError):
            listener = socket.create_server(("127.0.0.1", port), backlog=128)
            config = msgspec.structs.replace(config, api_port=port)
            save_config(config)
            return listener, config
    raise UserError(f"no free port on 127.0.0.1 from {API_PORT} to {API_PORT + _PORTS - 1} for the API server")


def _tokens(config: LabConfig, registry: Registry) -> ServiceAccountTokens:
    issuer = f"https://kubernetes.default.svc.{config.dns_domain}"
    address = config.control_plane.addresses[0]
    url = f"https://[{address}]:{API_PORT}" if ":" in address else f"https://{address}:{API_PORT}"
    return ServiceAccountTokens(registry, Keys(pki.service_account_key(config.name).read_bytes()), issuer, url)


def _unix_socket(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(128)
    return listener


async def _serve_the_node(config: LabConfig, server: ApiServer) -> None:
    """Listen inside the control-plane node as soon as the node agent has made it."""
    node = names.node_netns(config.name, config.control_plane.name)
    # A namespace's file is there a moment before the namespace is.
    await until(lambda: netns.exists(node))
    with netns.entered(node):
        listeners = [_any_address(address) for address in config.control_plane.addresses]
    await server.start(listeners, server_tls(*pki.server_certificate(config.name)))


def _any_address(like: str) -> socket.socket:
    """Listen on all addresses of the family of one."""
    if ":" in like:
        return socket.create_server(("::", API_PORT), family=socket.AF_INET6, backlog=128)
    return socket.create_server(("0.0.0.0", API_PORT), backlog=128)


async def _post_once(config: LabConfig, client: LocalClient) -> None:
    """Post cluster DNS and the topology's manifests, at the first start only: later they are the user's.

    They wait until every node can take Pods, so that the scheduler spreads them over all nodes and not over those that
    happened to be first.
    """
    paths = LabPaths(config.name)
    if paths.posted.exists():
        return
    wanted = msgspec.json.decode(paths.manifests.read_bytes())
    await _nodes_ready(config, client)
    # DNS first: its processes need longest to start.
    await manifests.post(client, addons.cluster_dns(config))
    if config.node_local_dns:
        await manifests.post(client, node_local_dns(config))
    await manifests.post(client, map(manifests.as_applied, wanted))
    paths.posted.touch()


async def _nodes_ready(config: LabConfig, client: LocalClient) -> None:
    names_left = {node.name for node in config.nodes}
    nodes = Informer(client, NODES, Node)
    every_node = asyncio.Event()

    def changed(_: Node | None, new: Node | None) -> None:
        if new is not None and new.ready:
            names_left.discard(new.name)
        if not names_left:
            every_node.set()

    nodes.on_change(changed)
    watching = asyncio.create_task(nodes.run())
    try:
        await asyncio.wait_for(every_node.wait(), _PATIENCE)
    except TimeoutError:
        log.warning("nodes not Ready after %.0f s: %s; posting manifests all the same", _PATIENCE, sorted(names_left))
    finally:
        watching.cancel()


if __name__ == "__main__":
    run(control_plane)
