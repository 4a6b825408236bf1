"""All controllers in one process, on one set of informers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from netemu.client.base import Client
from netemu.controllers.bootstraptokens import BootstrapSigner, TokenCleaner
from netemu.controllers.cache import Cache
from netemu.controllers.certificates import CertificateController, Signer
from netemu.controllers.clusterroles import ClusterRoleAggregation
from netemu.controllers.daemonset import DaemonSetController
from netemu.controllers.deployment import DeploymentController
from netemu.controllers.disruption import DisruptionController, StalePodDisruption
from netemu.controllers.endpoints import EndpointsController
from netemu.controllers.endpointslice import EndpointSliceController
from netemu.controllers.endpointslicemirroring import EndpointSliceMirroringController
from netemu.controllers.garbage import GarbageCollector
from netemu.controllers.loop import Controller, Loop
from netemu.controllers.namespace import NamespaceController
from netemu.controllers.nodelifecycle import NodeLifecycleController
from netemu.controllers.replicaset import ReplicaSetController
from netemu.controllers.rootca import RootCAPublisher
from netemu.controllers.serviceaccount import ServiceAccountController
from netemu.controllers.servicecidrs import ServiceCIDRController
from netemu.controllers.servicelb import ServiceLBController
from netemu.controllers.servicepods import ServicePods
from netemu.controllers.statefulset import StatefulSetController
from netemu.controllers.tainteviction import TaintEvictionController


def controllers(
    client: Client,
    cache: Cache,
    load_balancer_pools: Sequence[str],
    root_ca: str = "",
    signer: Signer | None = None,
    hosts: Mapping[str, Collection[str]] | None = None,
) -> Sequence[Controller]:
    """Every controller, ready to be run by a loop."""
    service_pods = ServicePods(cache)
    publisher = (RootCAPublisher(cache, root_ca),) if root_ca else ()
    certificates = (CertificateController(client, cache, signer, hosts),) if signer else ()
    return (
        DeploymentController(cache),
        ReplicaSetController(cache),
        DaemonSetController(cache),
        StatefulSetController(cache),
        EndpointSliceController(cache, service_pods),
        EndpointsController(cache, service_pods),
        EndpointSliceMirroringController(cache),
        NamespaceController(client, cache),
        ServiceAccountController(cache),
        GarbageCollector(client, cache),
        NodeLifecycleController(cache),
        TaintEvictionController(cache),
        ServiceLBController(cache, load_balancer_pools),
        ClusterRoleAggregation(cache),
        TokenCleaner(cache),
        BootstrapSigner(cache),
        DisruptionController(cache),
        StalePodDisruption(cache),
        ServiceCIDRController(cache),
        *publisher,
        *certificates,
    )


async def run(
    client: Client,
    *,
    load_balancer_pools: Sequence[str] = ("172.18.255.0/24",),
    root_ca: str = "",
    signer: Signer | None = None,
    hosts: Mapping[str, Collection[str]] | None = None,
) -> None:
    """Run all controllers against the API server of `client` until cancelled.

    LoadBalancer Services get addresses of `load_balancer_pools`, at most one pool of each IP family. The first address
    of a pool, and of IPv4 the last one, stay unused. `root_ca` (PEM) is published in every namespace.
    `signer` signs CertificateSigningRequests; kubelets that ask to serve with their own `hosts` need nobody's approval.
    """
    cache = Cache(client)
    cache.follow_definitions()
    # Loops ask the cache for their informers, so they are made before it runs.
    every = controllers(client, cache, load_balancer_pools, root_ca, signer, hosts)
    loops = [Loop(controller, client, cache) for controller in every]
    async with asyncio.TaskGroup() as group:
        group.create_task(cache.run(), name="informers")
        for loop in loops:
            group.create_task(loop.run())
