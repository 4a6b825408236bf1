"""What changed since the last sync.

Theory of operation (`servicechangetracker.go`, `endpointschangetracker.go`): per Service and per EndpointSlice the
tracker keeps the value that was last taken and the newest one. Equal means there is nothing to do, so a Service that
flaps back between two syncs costs nothing. `take` applies what is pending to the table and names what was touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from netemu.model.objects import EndpointSlice, Service
from netemu.proxy.endpoints import Endpoint, Slice, merge, service_of, slice_endpoints
from netemu.proxy.services import Family, PortKey, ServicePort, service_ports

Ports = Mapping[PortKey, ServicePort]


@dataclass(slots=True)
class Table:
    """Everything a sync works from: service ports, and endpoints by service port (also for ports nobody has)."""

    ports: dict[PortKey, ServicePort] = field(default_factory=dict)
    endpoints: dict[PortKey, tuple[Endpoint, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """What one `take` applied."""

    touched: frozenset[PortKey] = frozenset()
    """Ports whose value or endpoints differ, new and gone ones included."""
    udp_endpoints: frozenset[PortKey] = frozenset()
    """UDP ports among them whose flows may be stale."""
    udp_removed: tuple[ServicePort, ...] = ()
    """Former values of UDP ports that are gone or have lost addresses: whatever flows to those is stale."""

    def __or__(self, later: Changes) -> Changes:
        """Both, for when the first could not be programmed."""
        return Changes(
            self.touched | later.touched,
            self.udp_endpoints | later.udp_endpoints,
            self.udp_removed + later.udp_removed,
        )


class Tracker:
    """Takes Services and EndpointSlices of one family in, gives changes out; `table` is what was taken so far."""

    def __init__(self, family: Family, node_name: str) -> None:
        self.family, self.node_name = family, node_name
        self.table = Table()
        self._services: dict[str, Ports] = {}
        self._pending_services: dict[str, Ports] = {}
        self._slices: dict[str, dict[str, Slice]] = {}
        self._pending_slices: dict[str, dict[str, Slice]] = {}
        self._ports_of: dict[str, set[PortKey]] = {}

    @property
    def pending(self) -> tuple[int, int]:
        """How many Services, and how many Services' endpoints, wait to be taken."""
        return len(self._pending_services), len(self._pending_slices)

    def service_changed(self, old: Service | None, new: Service | None) -> bool:
        """Take note of a Service; whether a sync is needed. `None` means it was not, or is no longer, there."""
        obj = new or old
        if obj is None:
            return False
        current: Ports = service_ports(new, self.family) if new else {}
        if current == self._services.get(obj.key, {}):
            self._pending_services.pop(obj.key, None)
        else:
            self._pending_services[obj.key] = current
        return bool(self._pending_services)

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> bool:
        """Take note of an EndpointSlice; whether a sync is needed. It may move from one Service to another."""
        before, after = service_of(old) if old else "", service_of(new) if new else ""
        if old and before and before != after:
            self._note_slice(before, old.name, {})
        if new and after:
            self._note_slice(after, new.name, slice_endpoints(new, self.family, self.node_name))
        return bool(self._pending_slices)

    def _note_slice(self, service: str, name: str, current: Slice) -> None:
        pending = self._pending_slices.setdefault(service, {})
        if current == self._slices.get(service, {}).get(name, {}):
            pending.pop(name, None)
        else:
            pending[name] = current
        if not pending:
            del self._pending_slices[service]

    def take(self) -> Changes:
        """Apply everything pending to `table`."""
        touched: set[PortKey] = set()
        gone: list[ServicePort] = []
        for service, ports in self._pending_services.items():
            touched |= self._take_service(service, ports, gone)
        moved: set[PortKey] = set()
        for service, slices in self._pending_slices.items():
            moved |= self._take_slices(service, slices)
        self._pending_services, self._pending_slices = {}, {}
        touched |= moved & self.table.ports.keys()
        udp = frozenset(k for k in touched if k.protocol == "UDP" and k in self.table.ports)
        return Changes(frozenset(touched), udp, tuple(gone))

    def _take_service(self, service: str, ports: Ports, gone: list[ServicePort]) -> set[PortKey]:
        before = self._services.pop(service, {})
        if ports:
            self._services[service] = ports
        touched = {key for key in before.keys() | ports.keys() if before.get(key) != ports.get(key)}
        for key in touched:
            if key.protocol == "UDP" and key in before:
                gone.append(before[key])
            if key in ports:
                self.table.ports[key] = ports[key]
            else:
                del self.table.ports[key]
        return touched

    def _take_slices(self, service: str, pending: Mapping[str, Slice]) -> set[PortKey]:
        slices = self._slices.setdefault(service, {})
        for name, value in pending.items():
            slices[name] = value
            if not value:
                del slices[name]
        if not slices:
            del self._slices[service]
        merged = merge(service, slices.values())
        known = self._ports_of.pop(service, set())
        if merged:
            self._ports_of[service] = set(merged)
        endpoints = self.table.endpoints
        touched = {key for key in known | merged.keys() if endpoints.get(key, ()) != merged.get(key, ())}
        for key in touched:
            if merged.get(key):
                endpoints[key] = merged[key]
            else:
                endpoints.pop(key, None)
        return touched
