"""Addresses of LoadBalancer Services, in the place of a cloud's load balancer.

All Services are looked at together, so that no address is ever given twice. A Service gets one address of each of its
IP families for which there is a pool. An address that it has stays its own; `spec.loadBalancerIP` is honoured where it
is in the pool and free. A Service with a `loadBalancerClass` belongs to somebody else. Addresses are a property of the
Service object alone, so nothing has to be released.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence

from netemu.controllers import podendpoints
from netemu.controllers.actions import Action, Actions, Patch, Say
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model.objects import Service
from netemu.model.resources import SERVICES

_ALL = "all"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def reconcile(services: Iterable[Service], pools: Sequence[str]) -> Actions:
    """Status patches that give each LoadBalancer Service its addresses of `pools` and take them from all others."""
    networks = {f"IPv{network.version}": network for network in map(ipaddress.ip_network, pools)}
    ordered = sorted(services, key=lambda s: (s.metadata.creation_timestamp or "", s.key))
    taken: dict[str, str] = {}
    for service in filter(_ours, ordered):
        for network in _networks(service, networks):
            if has := _keeps(service, network):
                taken.setdefault(has, service.key)
    free = {network: _free(network, taken) for network in networks.values()}
    actions: Actions = []
    for service in ordered:
        if _ours(service):
            actions += _assign(service, _networks(service, networks), taken, free)
        elif service.status.load_balancer.ingress and service.spec.type != "LoadBalancer":
            # Another class's addresses are its own business; without the type nobody has a claim.
            actions.append(_write(service, []))
    return actions


def _assign(
    service: Service, networks: Sequence[Network], taken: dict[str, str], free: Mapping[Network, Iterator[str]]
) -> Actions:
    """What gives one Service the addresses that it lacks; `taken` and `free` are kept up to date."""
    wanted = service.spec.load_balancer_ip
    if wanted and not any(_inside(wanted, network) for network in networks):
        return [_failed(service, f"{wanted} is not an address of the pool {' or '.join(map(str, networks))}")]
    addresses: list[str] = []
    for network in networks:
        has = _keeps(service, network)
        if taken.get(has) == service.key:
            addresses.append(has)
            continue
        asked = wanted if _inside(wanted, network) else ""
        if asked in taken:
            return [_failed(service, f"{asked} is in use by {taken[asked]}")]
        address = asked or next(free[network], "")
        if not address:
            return [_failed(service, f"no address left in {network}")]
        taken[address] = service.key
        addresses.append(address)
    return [] if addresses == _ingress(service) else [_write(service, addresses)]


def _ours(service: Service) -> bool:
    spec = service.spec
    return spec.type == "LoadBalancer" and not spec.load_balancer_class and not service.deleting


def _networks(service: Service, networks: Mapping[str, Network]) -> list[Network]:
    """The pools of the Service's families, in its order."""
    return [networks[family] for family in podendpoints.address_types(service) if family in networks]


def _ingress(service: Service) -> list[str]:
    return [item.ip for item in service.status.load_balancer.ingress if item.ip]


def _keeps(service: Service, network: Network) -> str:
    """The address of that pool that the Service has and may keep."""
    has = next((address for address in _ingress(service) if _inside(address, network)), "")
    wanted = service.spec.load_balancer_ip
    return has if wanted in ("", has) or not _inside(wanted, network) else ""


def _inside(address: str, network: Network) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:
        return False


def _free(network: Network, taken: Mapping[str, str]) -> Iterator[str]:
    for address in network.hosts():
        if str(address) not in taken:
            yield str(address)


def _failed(service: Service, why: str) -> Say:
    text = f"Error syncing load balancer: failed to ensure load balancer: {why}"
    return Say(service, "Warning", "SyncLoadBalancerFailed", text)


def _write(service: Service, addresses: Sequence[str]) -> Patch:
    ingress = [{"ip": address, "ipMode": "VIP"} for address in addresses]
    done = Say(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer") if addresses else None
    patch = {"status": {"loadBalancer": {"ingress": ingress or None}}}
    return Patch(SERVICES, service.name, patch, service.namespace, "status", service.metadata.resource_version, done)


class ServiceLBController:
    """Watches Services; one key for all of them."""

    name = "service-controller"
    needs = (SERVICES,)

    def __init__(self, cache: Cache, pools: Sequence[str]) -> None:
        self._services = cache.of(SERVICES, Service)
        self._pools = pools

    def watch(self, queue: Queue) -> None:
        """Any change that has to do with load balancers."""

        def change(old: Service | None, new: Service | None) -> None:
            if any(s.spec.type == "LoadBalancer" or s.status.load_balancer.ingress for s in (old, new) if s):
                queue.mark(_ALL)

        self._services.on_change(change)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        return reconcile(self._services.objects.values(), self._pools)
