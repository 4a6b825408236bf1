"""Addresses of LoadBalancer Services, in the place of a cloud's load balancer.

All Services are looked at together, so that no address is ever given twice. An address that a Service has stays its
own; `spec.loadBalancerIP` is honoured where it is in the pool and free. A Service with a `loadBalancerClass` belongs
to somebody else. The address is a property of the Service object alone, so nothing has to be released.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from netemu.controllers.actions import Action, Actions, Patch, Say
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model.objects import Service
from netemu.model.resources import SERVICES

_ALL = "all"


def reconcile(services: Iterable[Service], pool: str) -> Actions:
    """Status patches that give each LoadBalancer Service one address of `pool` and take it from all others."""
    network = ipaddress.ip_network(pool)
    actions: Actions = []
    ordered = sorted(services, key=lambda s: (s.metadata.creation_timestamp or "", s.key))
    taken: dict[str, str] = {}
    for service in ordered:
        if _ours(service) and (has := _keeps(service, network)):
            taken.setdefault(has, service.key)
    free = _free(network, taken)
    for service in ordered:
        if not _ours(service):
            # Another class's addresses are its own business; without the type nobody has a claim.
            if service.status.load_balancer.ingress and service.spec.type != "LoadBalancer":
                actions.append(_write(service, None))
            continue
        if taken.get(_keeps(service, network)) == service.key:
            continue
        wanted = service.spec.load_balancer_ip
        if wanted and (wanted in taken or not _inside(wanted, network)):
            why = f"is in use by {taken[wanted]}" if wanted in taken else f"is not an address of the pool {pool}"
            text = f"Error syncing load balancer: failed to ensure load balancer: {wanted} {why}"
            actions.append(Say(service, "Warning", "SyncLoadBalancerFailed", text))
            continue
        address = wanted or next(free, "")
        if not address:
            text = f"Error syncing load balancer: failed to ensure load balancer: no address left in {pool}"
            actions.append(Say(service, "Warning", "SyncLoadBalancerFailed", text))
            continue
        taken[address] = service.key
        actions.append(_write(service, address))
    return actions


def _ours(service: Service) -> bool:
    spec = service.spec
    return spec.type == "LoadBalancer" and not spec.load_balancer_class and not service.deleting


def _keeps(service: Service, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    """The address that the Service has and may keep."""
    has = next((item.ip for item in service.status.load_balancer.ingress if item.ip), "")
    wanted = service.spec.load_balancer_ip
    return has if has and _inside(has, network) and wanted in ("", has) else ""


def _inside(address: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False


def _free(network: ipaddress.IPv4Network | ipaddress.IPv6Network, taken: dict[str, str]) -> Iterator[str]:
    for address in network.hosts():
        if str(address) not in taken:
            yield str(address)


def _write(service: Service, address: str | None) -> Patch:
    balancer = {"ingress": [{"ip": address, "ipMode": "VIP"}]} if address else {"ingress": None}
    done = None
    if address:
        done = Say(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer")
    patch = {"status": {"loadBalancer": balancer}}
    return Patch(SERVICES, service.name, patch, service.namespace, "status", service.metadata.resource_version, done)


class ServiceLBController:
    """Watches Services; one key for all of them."""

    name = "service-controller"
    needs = (SERVICES,)

    def __init__(self, cache: Cache, pool: str) -> None:
        self._services = cache.of(SERVICES, Service)
        self._pool = pool

    def watch(self, queue: Queue) -> None:
        """Any change that has to do with load balancers."""

        def change(old: Service | None, new: Service | None) -> None:
            if any(s.spec.type == "LoadBalancer" or s.status.load_balancer.ingress for s in (old, new) if s):
                queue.mark(_ALL)

        self._services.on_change(change)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        return reconcile(self._services.objects.values(), self._pool)
