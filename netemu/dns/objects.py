"""The cluster's objects as DNS needs them, indexed for lookups.

Each Service, EndpointSlice, Namespace and Pod is stripped to a few octets when it arrives, and found again by
(namespace, name) or by address. A change touches only its own object; a lookup is a few dictionary reads. Pure: no
sockets, no clock, no informers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from netemu.dns import names
from netemu.model.objects import EndpointSlice, Namespace, Service
from netemu.model.pods import Pod

_SERVICE_LABEL = "kubernetes.io/service-name"
NO_PORT = -1
"""A Service or slice without ports has one of these: addresses resolve, SRV records cannot be made."""

Key = tuple[bytes, bytes]
"""(namespace, name), lower-case as the API keeps them."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a `kubernetes` block says about records."""

    zones: tuple[bytes, ...] = (b"\x07cluster\x05local\0",)
    """Lower-case; PTR records name the first that is not a reverse zone."""
    ttl: int = 5
    pods: str = "disabled"
    """disabled, insecure or verified."""
    endpoint_pod_names: bool = False
    namespaces: frozenset[bytes] = frozenset()
    """Only these are visible; empty means all."""
    ignore_empty_service: bool = False

    @property
    def primary(self) -> bytes:
        """The zone that PTR records point into."""
        return next((zone for zone in self.zones if not names.is_reverse(zone)), names.ROOT)


class Port(NamedTuple):
    name: bytes
    protocol: bytes
    number: int

    def matches(self, name: bytes, protocol: bytes) -> bool:
        """An empty word of the question matches everything."""
        return name in (b"", self.name) and protocol in (b"", self.protocol)


_NAMELESS = (Port(b"", b"", NO_PORT),)


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    addresses: tuple[bytes, ...]
    ports: tuple[Port, ...]
    headless: bool
    external: bytes | None


class EndpointFacts(NamedTuple):
    host: bytes
    address: bytes


@dataclass(frozen=True, slots=True)
class SliceFacts:
    service: Key
    endpoints: tuple[EndpointFacts, ...]
    ports: tuple[Port, ...]


_Hosts = dict[bytes, list[tuple[EndpointFacts, tuple[Port, ...]]]]


class Cluster:
    """The objects that DNS sees. `set_*` and `drop_*` return whether any answer may differ now."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._namespaces: set[bytes] = set()
        self._services: dict[Key, ServiceFacts] = {}
        self._slices: dict[Key, dict[bytes, SliceFacts]] = {}
        self._owner: dict[Key, Key] = {}
        self._hosts: dict[Key, _Hosts] = {}
        self._service_at: dict[bytes, dict[Key, None]] = {}
        self._endpoints_at: dict[bytes, dict[tuple[Key, bytes], None]] = {}
        self._pods: dict[Key, tuple[bytes, bytes]] = {}
        self._pods_at: dict[tuple[bytes, bytes], int] = {}

    # --- objects in ---

    def set_namespace(self, name: str, present: Namespace | None) -> bool:
        """A namespace came or went. While it is absent nothing beneath its name exists."""
        key = name.encode()
        changed = (key in self._namespaces) != (present is not None)
        (self._namespaces.discard if present is None else self._namespaces.add)(key)
        return changed

    def set_service(self, namespace: str, name: str, service: Service | None) -> bool:
        """A Service as it is now, or None."""
        key = (namespace.encode(), name.encode())
        old, new = self._services.get(key), _strip_service(service) if service else None
        if old == new:
            return False
        for address in old.addresses if old else ():
            _drop(self._service_at, address, key)
        for address in new.addresses if new else ():
            self._service_at.setdefault(address, {})[key] = None
        if new is None:
            del self._services[key]
        else:
            self._services[key] = new
        return True

    def set_slice(self, namespace: str, name: str, slice_: EndpointSlice | None) -> bool:
        """An EndpointSlice as it is now, or None. Changes of endpoints that are not ready change nothing."""
        key = (namespace.encode(), name.encode())
        owner = self._owner.get(key)
        old = self._slices[owner][key[1]] if owner else None
        new = _strip_slice(slice_, self.options.endpoint_pod_names) if slice_ else None
        if old == new:
            return False
        if old:
            self._forget(old, key)
        if new:
            self._owner[key] = new.service
            self._slices.setdefault(new.service, {})[key[1]] = new
            self._hosts.pop(new.service, None)
            for endpoint in new.endpoints:
                self._endpoints_at.setdefault(endpoint.address, {})[new.service, endpoint.host] = None
        return True

    def _forget(self, old: SliceFacts, key: Key) -> None:
        del self._owner[key]
        slices = self._slices[old.service]
        del slices[key[1]]
        if not slices:
            del self._slices[old.service]
        self._hosts.pop(old.service, None)
        still = {endpoint for other in slices.values() for endpoint in other.endpoints}
        for endpoint in set(old.endpoints) - still:
            _drop(self._endpoints_at, endpoint.address, (old.service, endpoint.host))

    def set_pod(self, namespace: str, name: str, pod: Pod | None) -> bool:
        """A Pod as it is now, or None; matters to `pods verified` alone. Its first address counts."""
        key = (namespace.encode(), name.encode())
        seen = pod is not None and not pod.deleting and pod.status.phase not in ("Succeeded", "Failed", "Unknown")
        new = (key[0], packed_address(pod.status.pod_ip)) if pod and seen and pod.status.pod_ip else None
        old = self._pods.pop(key, None)
        if new:
            self._pods[key] = new
        if old == new:
            return False
        if old:
            self._pods_at[old] -= 1
            if not self._pods_at[old]:
                del self._pods_at[old]
        if new:
            self._pods_at[new] = self._pods_at.get(new, 0) + 1
        return True

    # --- what questions need ---

    def visible(self, namespace: bytes) -> bool:
        """Whether names beneath this namespace exist."""
        return namespace in self._namespaces and (not self.options.namespaces or namespace in self.options.namespaces)

    def service(self, key: Key) -> ServiceFacts | None:
        """The Service, unless `ignore empty_service` hides it."""
        found = self._services.get(key)
        if found and self.options.ignore_empty_service and not found.headless and found.external is None:
            return found if any(slice_.endpoints for slice_ in self._slices.get(key, {}).values()) else None
        return found

    def endpoints(self, key: Key, host: bytes = b"") -> Iterable[tuple[EndpointFacts, tuple[Port, ...]]]:
        """The ready endpoints of a Service with their slices' ports, all or those of one host name."""
        if not host:
            return [(each, part.ports) for part in self._slices.get(key, {}).values() for each in part.endpoints]
        hosts = self._hosts.get(key)
        if hosts is None:
            hosts = self._hosts[key] = {}
            for each, ports in self.endpoints(key):
                hosts.setdefault(each.host, []).append((each, ports))
        return hosts.get(host, ())

    def names_of(self, address: bytes) -> list[tuple[bytes, ...]]:
        """Who owns an address: the Service with that cluster IP alone, else each ready endpoint. Labels before the
        zone."""
        shown = self.options.namespaces
        for namespace, service in self._service_at.get(address, ()):
            if not shown or namespace in shown:
                return [(service, namespace, b"svc")]
        entries = self._endpoints_at.get(address, ())
        return [(host, key[1], key[0], b"svc") for key, host in entries if not shown or key[0] in shown]

    def has_pod(self, namespace: bytes, address: bytes) -> bool:
        """Whether a Pod of that namespace has that address."""
        return (namespace, address) in self._pods_at


def _drop(
    index: dict[bytes, dict[tuple[Key, bytes], None]] | dict[bytes, dict[Key, None]], at: bytes, key: object
) -> None:
    entries: dict[object, None] = index[at]  # type: ignore[assignment]
    entries.pop(key, None)
    if not entries:
        del index[at]


def packed_address(address: str) -> bytes:
    """An address as octets; empty for what is none."""
    try:
        return ipaddress.ip_address(address).packed
    except ValueError:
        return b""


def _strip_service(service: Service) -> ServiceFacts:
    spec = service.spec
    external = None
    if spec.type == "ExternalName":
        external = b""
        if not packed_address(spec.external_name):
            try:
                external = names.parse(spec.external_name)
            except ValueError:
                external = b""
    addresses = tuple(filter(None, map(packed_address, spec.cluster_ips or (spec.cluster_ip,))))
    ports = tuple(Port(port.name.encode(), port.protocol.lower().encode(), port.port) for port in spec.ports)
    return ServiceFacts(addresses if external is None else (), ports or _NAMELESS, service.headless, external)


def _strip_slice(slice_: EndpointSlice, pod_names: bool) -> SliceFacts | None:
    service = slice_.labels.get(_SERVICE_LABEL)
    if not service or slice_.address_type == "FQDN":
        return None
    endpoints = []
    for endpoint in slice_.endpoints or ():
        if endpoint.conditions.ready is False:
            continue
        pod = endpoint.target_ref.name if pod_names and endpoint.target_ref else ""
        for address in endpoint.addresses:
            host = endpoint.hostname or (pod if 0 < len(pod) < 64 else "") or _dashed(address)
            if packed := packed_address(address):
                endpoints.append(EndpointFacts(host.lower().encode(), packed))
    ports = [
        Port((port.name or "").encode(), (port.protocol or "TCP").lower().encode(), port.port or NO_PORT)
        for port in slice_.ports or ()
    ]
    return SliceFacts((slice_.namespace.encode(), service.encode()), tuple(endpoints), tuple(ports) or _NAMELESS)


def _dashed(address: str) -> str:
    name = address.replace(".", "-").replace(":", "-")
    return name + "0" if address.endswith(":") else name  # a label must not end in a dash
