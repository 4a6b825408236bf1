"""The load balancer outside: to which nodes the lab's router sends what is meant for a Service's ingress address.

The pool as a whole is spread over all nodes (`network.underlay`), any of which passes packets on. A Service whose
`externalTrafficPolicy` is Local is answered only by nodes that have an endpoint of it. A cloud's balancer finds them by
asking every node's healthCheckNodePort; here the same is read from the EndpointSlices, and the address gets a route
of its own. Without such a node the pool's route stands, and the nodes drop what comes. Routes are the kernel's, so
they hold while nobody watches, and a restarted agent brings them up to date.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network

from netemu.client import Client, Informer
from netemu.client.index import Index
from netemu.kernel.netlink import Netlink
from netemu.kernel.rtnetlink import AddRoute, DelRoute, NextHop, Request
from netemu.kernel.rtnetlink_answers import Route
from netemu.lab.config import LabConfig
from netemu.model.errors import KernelError
from netemu.model.objects import EndpointSlice, Service
from netemu.model.resources import ENDPOINTSLICES
from netemu.network import names
from netemu.network.plan import NODE_BRIDGE, same_family

log = logging.getLogger(__name__)


def only_local(service: Service) -> bool:
    """Whether an ingress address of the Service is answered by some nodes only."""
    return service.spec.type == "LoadBalancer" and service.spec.external_traffic_policy == "Local"


def ways(
    services: Iterable[Service], slices: Mapping[str, Sequence[EndpointSlice]], nodes: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Ingress address to the addresses of the nodes that answer it, where those are some but not all of `nodes`.

    `slices` by the key of their Service, `nodes` name to addresses. Pure.
    """
    found: dict[str, tuple[str, ...]] = {}
    for service in filter(only_local, services):
        endpoints = (each for piece in slices.get(service.key, ()) for each in piece.endpoints or ())
        healthy = {each.node_name for each in endpoints if each.conditions.ready is not False} & nodes.keys()
        if 0 < len(healthy) < len(nodes):
            for address in (item.ip for item in service.status.load_balancer.ingress if item.ip):
                found[address] = tuple(same_family(nodes[name], address) for name in nodes if name in healthy)
    return found


def difference(wanted: Mapping[str, Sequence[str]], routes: Iterable[Route], pools: Sequence[str]) -> list[Request]:
    """What brings the routes of single addresses of the pools in line."""
    networks = [ip_network(pool) for pool in pools]
    there: dict[str, set[str]] = {}
    for route in routes:
        address, _, length = route.to.partition("/")
        if length == ("128" if ":" in address else "32") and any(ip_address(address) in net for net in networks):
            there[address] = {hop.via for hop in route.hops}
    requests: list[Request] = [DelRoute(address) for address in there if address not in wanted]
    for address, gateways in wanted.items():
        if there.get(address) != set(gateways):
            hops = tuple(NextHop(gateway, NODE_BRIDGE) for gateway in gateways)
            requests.append(AddRoute(address, nexthops=hops, replace=True))
    return requests


async def balance(config: LabConfig, client: Client, services: Informer[Service]) -> None:
    """Keep the router's routes in line until cancelled. `services` is an informer that somebody else runs."""
    slices = Informer(client, ENDPOINTSLICES, EndpointSlice)
    by_service = Index(slices, lambda piece: (piece.service_key,))
    nodes = {node.name: node.addresses for node in config.nodes}
    needed, changed = asyncio.Event(), asyncio.Event()

    def of_service(old: Service | None, new: Service | None) -> None:
        if any(only_local(service) for service in (old, new) if service):
            needed.set()
            changed.set()

    services.on_change(of_service)
    slices.on_change(lambda _old, _new: changed.set())
    if not await asyncio.to_thread(_own_routes, config):  # what an earlier run has left may have to go
        await needed.wait()  # most labs have no such Service, and then nobody pays for one more watch
    changed.set()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(slices.run())
        await services.synced.wait()
        await slices.synced.wait()
        while True:
            await changed.wait()
            changed.clear()
            chosen = [service for service in services.objects.values() if only_local(service)]
            wanted = ways(chosen, {service.key: by_service[service.key] for service in chosen}, nodes)
            await asyncio.to_thread(_apply, config, wanted)


def _own_routes(config: LabConfig) -> bool:
    """Whether any address of the pools has a route of its own."""
    with Netlink(names.underlay_netns(config.name)) as router:
        return bool(difference({}, router.routes(), config.load_balancer_pools))


def _apply(config: LabConfig, wanted: Mapping[str, Sequence[str]]) -> None:
    with Netlink(names.underlay_netns(config.name)) as router:
        try:
            router.apply(*difference(wanted, router.routes(), config.load_balancer_pools))
        except KernelError as error:
            log.error("load balancer: %s", error)
