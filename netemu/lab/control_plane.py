"""The control plane process of a lab: store, API server, controllers and scheduler in one event loop.

A lab on etcd has several such processes, members of its control plane (`member`).

The controllers and the scheduler call the registry in process; everybody else comes over HTTPS: users through
127.0.0.1 of the host, nodes and Pods through the control-plane node's address, and short-lived commands of root
through a Unix socket. Started again after a crash it continues from the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from netemu import controllers, scheduler
from netemu.apiserver.admission import Admission
from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.audit import AuditLog
from netemu.apiserver.auth.authentication import server_tls
from netemu.apiserver.auth.authorization import ClusterAuthorizer
from netemu.apiserver.auth.escalation import EscalationGuard
from netemu.apiserver.auth.jwt import Keys
from netemu.apiserver.auth.node_restriction import NodeRestriction
from netemu.apiserver.auth.rbac_policy import agent_policy, dns_policy, kubeadm_policy
from netemu.apiserver.auth.service_accounts import ServiceAccountTokens
from netemu.apiserver.bootstrap import bootstrap, ensure_policy
from netemu.apiserver.certificates import CertificateGuard
from netemu.apiserver.http.reach import Reach
from netemu.apiserver.http.server import ApiServer
from netemu.apiserver.kubernetes_service import EndpointReconciler
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.apiserver.rules import Rules
from netemu.apiserver.schema.kinds import Schema
from netemu.client import Informer
from netemu.client.rotation import follow
from netemu.kernel import netns
from netemu.lab import addons, etcd_pki, manifests, pki
from netemu.lab.brought import Announcer, BroughtCertificate, expiration_metrics
from netemu.lab.config import API_PORT, LabConfig
from netemu.lab.member import Member, join_lab, open_etcd, serve_host, unix_socket
from netemu.lab.node_labels import mark_nodes
from netemu.lab.node_local_dns import node_local_dns
from netemu.lab.paths import LabPaths
from netemu.lab.process import run, until
from netemu.lab.renewal import keep_certificates
from netemu.lab.snapshot_server import restore_etcd, serve_snapshots
from netemu.model.errors import ApiError
from netemu.model.hosts import bracketed
from netemu.model.objects import Node
from netemu.model.resources import CLUSTERROLEBINDINGS, CONFIGMAPS, NODES
from netemu.store.etcd import EtcdStore
from netemu.store.sqlite import SqliteStore
from netemu.store.sqlite_snapshot import replace_store

log = logging.getLogger(__name__)

_PATIENCE = 10.0
"""Seconds that manifests wait for nodes that are late."""
_RESTORE_SECONDS = 300.0
"""How long the other members wait for the first, which puts a snapshot into the store."""
_GOODBYE = 1.0
"""Seconds that leaving the endpoints of Service `kubernetes` may take."""


async def control_plane(lab: str, number: int = 0) -> None:
    """Run the control plane of a lab, or the member of it with that number, until cancelled."""
    paths = LabPaths(lab)
    member, on_host = await join_lab(lab, number)
    config = member.config
    etcd_tls = etcd_pki.client_tls(paths.pki) if member.shared else None
    store = await _open_store(member, etcd_tls)
    schema = Schema.load()
    admission = Admission()
    allocator = ServiceAllocator(config.service_cidrs)
    registry = Registry(store, schema, allocator, rules=admission.around(Rules.upstream()))
    await registry.start()
    authorizer = ClusterAuthorizer(registry)
    admission.begin(EscalationGuard(registry, authorizer), NodeRestriction(registry), CertificateGuard(authorizer))
    tls, kubelet_tls = server_tls(*pki.server_certificate(lab)), pki.kubelet_client_tls(lab)
    renewed = {**pki.renewed(lab, tls, kubelet_tls), **_brought(config, tls)}
    renewed |= etcd_pki.renewed(paths.pki, etcd_tls) if etcd_tls else {}
    server = _server(member, registry, schema, authorizer, kubelet_tls)
    client = LocalClient(registry, "kube-apiserver")
    try:
        async with asyncio.TaskGroup() as tasks:
            await _begin(member, client, registry)
            # Nobody is let in before there are roles to judge by.
            if on_host:
                await server.start([on_host], tls)
                await server.start([unix_socket(member.socket)], None)
            else:
                tasks.create_task(serve_host(member, server, store, tls))
            tasks.create_task(_serve_the_node(member, server, tls))
            tasks.create_task(follow(renewed))
            tasks.create_task(serve_snapshots(lab, store, paths.snapshot_socket(member.process)))
            if isinstance(store, EtcdStore):
                tasks.create_task(_stay_among_endpoints(member, client, registry, store))
            _start_components(tasks, member, registry, authorizer)
            if member.first:
                tasks.create_task(mark_nodes(config, LocalClient(registry, "kubeadm")))
                await _post_once(config, LocalClient(registry, "kubectl-client-side-apply"))
            log.info("serving lab %s on 127.0.0.1:%d", lab, config.api_port)
    finally:
        await server.close()
        await registry.close()
        await store.close()


def _server(
    member: Member, registry: Registry, schema: Schema, authorizer: ClusterAuthorizer, kubelet_tls: ssl.SSLContext
) -> ApiServer:
    return ApiServer(
        registry,
        schema,
        authorizer=authorizer,
        tokens=_tokens(member, registry),
        reach=Reach(member.namespace, kubelet_tls),
        audit=AuditLog(LabPaths(member.config.name).audit),
        metrics=partial(expiration_metrics, pki.serving(member.config)),
    )


async def _begin(member: Member, client: LocalClient, registry: Registry) -> None:
    """What has to be there before anybody asks."""
    config = member.config
    if not member.first:
        # The first member makes it, and this binding last; whatever is missing is made here all the same.
        with contextlib.suppress(TimeoutError):
            await until(lambda: registry.find(CLUSTERROLEBINDINGS, pki.NODE_AGENT) is not None)
    await bootstrap(
        client,
        api_address="" if member.shared else member.node.addresses[0],
        api_port=API_PORT,
        service_address=config.api_service_ip,
        service_cidrs=config.service_cidrs,
    )
    policy = [*kubeadm_policy(), *dns_policy(addons.SYSTEM, addons.FAULTS), (CONFIGMAPS, pki.cluster_info(config))]
    await ensure_policy(client, policy)
    await ensure_policy(client, agent_policy(pki.NODE_AGENT, addons.SYSTEM, addons.OUTSIDE_FAULTS))


async def _open_store(member: Member, etcd_tls: ssl.SSLContext | None) -> SqliteStore | EtcdStore:
    paths = LabPaths(member.config.name)
    if etcd_tls is not None:
        store = await open_etcd(member, etcd_tls)
        if member.first and paths.incoming_store.exists():
            await restore_etcd(store, member.config.name)
        await until(lambda: not paths.incoming_store.exists(), within=_RESTORE_SECONDS)
        return store
    if paths.incoming_store.exists():
        replace_store(paths.incoming_store, paths.store)
    return await SqliteStore.open(paths.store)


async def _stay_among_endpoints(member: Member, client: LocalClient, registry: Registry, store: EtcdStore) -> None:
    """Be among the endpoints of Service `kubernetes` until cancelled, and then not any more."""
    reconciler = EndpointReconciler(client, registry, store, member.node.addresses[0], API_PORT)
    try:
        await reconciler.run()
    finally:
        with contextlib.suppress(ApiError, TimeoutError):
            async with asyncio.timeout(_GOODBYE):
                await reconciler.withdraw()


def _start_components(
    tasks: asyncio.TaskGroup, member: Member, registry: Registry, authorizer: ClusterAuthorizer
) -> None:
    """Controllers and scheduler; where there are several members, those of one at a time work."""
    config = member.config
    root_ca = pki.server_certificate(config.name)[2].read_text()
    manager = LocalClient(registry, "kube-controller-manager", authorizer)
    binder = LocalClient(registry, "kube-scheduler")

    async def control() -> None:
        pools, signer = config.load_balancer_pools, pki.authority(config)
        hosts = {node.name: (node.name, *node.addresses) for node in config.nodes}
        async with asyncio.TaskGroup() as both:
            both.create_task(keep_certificates(config, signer))
            if config.certificate:
                told, node = LabPaths(config.name).announced, config.control_planes[0].name
                both.create_task(Announcer(config.name, node, config.certificate, manager, told).run())
            both.create_task(
                controllers.run(manager, load_balancer_pools=pools, root_ca=root_ca, signer=signer, hosts=hosts)
            )

    async def schedule() -> None:
        await scheduler.run(binder)

    tasks.create_task(member.lead(manager, "kube-controller-manager", control))
    tasks.create_task(member.lead(binder, "kube-scheduler", schedule))


def _brought(config: LabConfig, tls: ssl.SSLContext) -> dict[Path, Callable[[], None]]:
    """Show the certificate that somebody brings, if any; what to do when its file is new."""
    if config.certificate is None:
        return {}
    *_, client_ca = pki.server_certificate(config.name)
    return BroughtCertificate(config.certificate, tls, client_ca).renewed()


def _tokens(member: Member, registry: Registry) -> ServiceAccountTokens:
    config = member.config
    issuer = f"https://kubernetes.default.svc.{config.dns_domain}"
    url = f"https://{bracketed(member.node.addresses[0])}:{API_PORT}"
    return ServiceAccountTokens(registry, Keys(pki.service_account_key(config.name).read_bytes()), issuer, url)


async def _serve_the_node(member: Member, server: ApiServer, tls: ssl.SSLContext) -> None:
    """Listen inside the member's node as soon as the node agent has made it."""
    # A namespace's file is there a moment before the namespace is.
    await until(lambda: netns.exists(member.namespace))
    with netns.entered(member.namespace):
        listeners = [_any_address(address) for address in member.node.addresses]
    await server.start(listeners, tls)


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
    run(lambda lab: control_plane(lab, *map(int, sys.argv[2:])))
