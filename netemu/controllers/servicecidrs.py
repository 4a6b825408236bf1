"""ServiceCIDRs: in use they cannot go (`pkg/controller/servicecidrs`).

Each gets a finalizer and the condition Ready. One that is deleted waits until no cluster IP needs it: its addresses are
free, or another ServiceCIDR has them too. Then ten seconds more, for every API server to learn that it gives no more
addresses of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

from netemu.controllers.actions import Action, Actions, Again, Patch
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model import times
from netemu.model.meta import Condition, KubeObject, encode
from netemu.model.objects import IP_ALLOCATOR, MANAGED_BY, ServiceCIDR
from netemu.model.resources import IPADDRESSES, SERVICECIDRS

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
_GRACE = timedelta(seconds=10)
_IN_USE = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"


def reconcile(cidr: ServiceCIDR, every: Iterable[ServiceCIDR], ips: Iterable[str], now: datetime) -> Actions:
    """Keep the finalizer and the condition of a ServiceCIDR, or let it go. `ips`: all cluster IPs there are."""
    if not cidr.deleting:
        actions: Actions = []
        if FINALIZER not in cidr.metadata.finalizers:
            actions.append(_patch(cidr, {"metadata": {"finalizers": [*cidr.metadata.finalizers, FINALIZER]}}))
        if _ready(cidr) != "True":
            actions.append(_condition(cidr, "True", "", "Kubernetes Service CIDR is ready", now))
        return actions
    if FINALIZER not in cidr.metadata.finalizers:
        return []
    if needed(cidr, [other for other in every if other.name != cidr.name], ips):
        return [] if _ready(cidr) == "False" else [_condition(cidr, "False", "Terminating", _IN_USE, now)]
    left = (times.parse(cidr.metadata.deletion_timestamp or times.time_text(now)) + _GRACE - now).total_seconds()
    if left > 0:
        return [Again(left)]
    others = [name for name in cidr.metadata.finalizers if name != FINALIZER]
    return [_patch(cidr, {"metadata": {"finalizers": others or None}})]


def needed(cidr: ServiceCIDR, others: Sequence[ServiceCIDR], ips: Iterable[str]) -> bool:
    """Whether a cluster IP would be of no ServiceCIDR any more without this one."""
    mine = [ip_network(text) for text in cidr.spec.cidrs]
    theirs = [ip_network(text) for other in others for text in other.spec.cidrs]
    addresses = map(ip_address, ips)
    return any(
        any(address in network for network in mine) and not any(address in network for network in theirs)
        for address in addresses
    )


def _ready(cidr: ServiceCIDR) -> str:
    return next((c.status for c in cidr.status.conditions if c.type == "Ready"), "")


def _condition(cidr: ServiceCIDR, status: str, reason: str, message: str, now: datetime) -> Patch:
    ready = Condition(
        type="Ready", status=status, reason=reason, message=message, last_transition_time=times.time_text(now)
    )
    others = [encode(c) for c in cidr.status.conditions if c.type != "Ready"]
    return _patch(cidr, {"status": {"conditions": [*others, {**encode(ready), "reason": reason}]}}, "status")


def _patch(cidr: ServiceCIDR, patch: dict[str, Any], subresource: str = "") -> Patch:
    return Patch(SERVICECIDRS, cidr.name, patch, subresource=subresource)


class ServiceCIDRController:
    """Watches ServiceCIDRs, and the IPAddresses that keep one from going."""

    name = "service-cidr-controller"
    needs = (SERVICECIDRS, IPADDRESSES)

    def __init__(self, cache: Cache) -> None:
        self._cidrs = cache.of(SERVICECIDRS, ServiceCIDR)
        self._addresses = cache.any(IPADDRESSES)

    def watch(self, queue: Queue) -> None:
        """Whichever ServiceCIDR changes, others may go; an address that goes may let one go too."""

        def changed(*_: object) -> None:
            for cidr in self._cidrs.objects.values():
                queue.mark(cidr.name)

        def of_address(_: KubeObject | None, new: KubeObject | None) -> None:
            for cidr in self._cidrs.objects.values():
                if new is None and cidr.deleting:
                    queue.mark(cidr.name)

        self._cidrs.on_change(changed)
        self._addresses.on_change(of_address)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        cidr = self._cidrs.get(key)
        if cidr is None:
            return ()
        # Those that a user made by hand keep nothing from going.
        addresses = self._addresses.objects.values()
        ours = (address.name for address in addresses if address.labels.get(MANAGED_BY) == IP_ALLOCATOR)
        return reconcile(cidr, self._cidrs.objects.values(), ours, datetime.now(UTC))
