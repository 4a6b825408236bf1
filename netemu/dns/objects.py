"""The cluster's objects as DNS needs them, indexed for lookups.

Each Service, EndpointSlice, Namespace and Pod is stripped to a few octets when it arrives, and found again by
(namespace, name) or by address. A change touches only its own object; a lookup is a few dictionary reads. Pure: no
sockets, no clock, no informers.

Compact, because a cluster may have 100,000 endpoints: an endpoint is two short byte strings in a tuple, equal ports and
namespaces are one object, and an address leads to the slices that list it, not to a container of its own.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from netemu.dns import names
from netemu.model.objects import SERVICE_NAME_LABEL, EndpointSlice, Namespace, Service
from netemu.model.pods import Pod

_MAPPED = bytes(10) + b"\xff\xff"
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
    """4 or 16 octets; in a slice of names, a name in wire form."""


class SliceFacts(NamedTuple):
    service: Key
    endpoints: tuple[EndpointFacts, ...]
    ports: tuple[Port, ...]
    names: bool = False
    """Whether the endpoints are domain names (addressType FQDN), not addresses."""


_Entry = tuple[EndpointFacts, SliceFacts]
Changed = tuple[bytes, ...]
"""Tags of what may be answered differently now (see `service_tag`; an address is its own tag); empty: nothing."""


def service_tag(key: Key) -> bytes:
    """What an answer made of this Service and its endpoints depends on."""
    return key[1] + b"." + key[0]


class Cluster:
    """The objects that DNS sees. `set_*` say which answers may differ now."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._namespaces: set[bytes] = set()
        self._services: dict[Key, ServiceFacts] = {}
        self._slices: dict[Key, dict[Key, SliceFacts]] = {}
        self._owner: dict[Key, Key] = {}
        self._hosts: dict[Key, dict[bytes, list[_Entry]]] = {}
        self._service_at: dict[bytes, Key | list[Key]] = {}
        self._slice_at: dict[bytes, Key | list[Key]] = {}
        self._pods: dict[Key, tuple[bytes, bytes]] = {}
        self._pods_at: dict[bytes, list[bytes]] = {}

    # --- objects in ---

    def set_namespace(self, name: str, present: Namespace | None) -> bool:
        """A namespace came or went, and with it everything beneath its name: returns whether it did."""
        key = name.encode()
        changed = (key in self._namespaces) != (present is not None)
        (self._namespaces.discard if present is None else self._namespaces.add)(key)
        return changed

    def set_service(self, namespace: str, name: str, new: ServiceFacts | None) -> Changed:
        """A Service as it is now, or None."""
        key = _key(namespace, name)
        old = self._services.get(key)
        if old == new:
            return ()
        before, after = old.addresses if old else (), new.addresses if new else ()
        for address in before:
            if address not in after:
                _remove(self._service_at, address, key)
        for address in after:
            if address not in before:
                _add(self._service_at, address, key)
        if new is None:
            del self._services[key]
        else:
            self._services[key] = new
        return (service_tag(key), *before, *after)

    def set_slice(self, namespace: str, name: str, new: SliceFacts | None) -> Changed:
        """An EndpointSlice as it is now, or None. Changes of endpoints that are not ready change nothing."""
        key = _key(namespace, name)
        owner = self._owner.get(key)
        old = self._slices[owner][key] if owner else None
        if old == new:
            return ()
        changed: list[bytes] = []
        before = dict.fromkeys(old.endpoints) if old else {}
        after = dict.fromkeys(new.endpoints) if new else {}
        if old and (new is None or new.service != old.service):
            changed += (service_tag(old.service), *(endpoint.address for endpoint in after if endpoint in before))
            self._disown(old.service, key)
        changed += [each.address for each in (*before, *after) if (each in before) != (each in after)]
        if new:
            self._owner[key] = new.service
            self._slices.setdefault(new.service, {})[key] = new
            self._hosts.pop(new.service, None)
            changed.append(service_tag(new.service))
        self._list_at(key, {each.address for each in before}, {each.address for each in after})
        return tuple(changed)

    def _list_at(self, key: Key, before: set[bytes], after: set[bytes]) -> None:
        for address in before - after:
            _remove(self._slice_at, address, key)
        for address in after - before:
            _add(self._slice_at, address, key)

    def _disown(self, service: Key, key: Key) -> None:
        del self._owner[key]
        slices = self._slices[service]
        del slices[key]
        if not slices:
            del self._slices[service]
        self._hosts.pop(service, None)

    def set_pod(self, namespace: str, name: str, address: bytes) -> Changed:
        """The address of a Pod, empty for none; matters to `pods verified` alone."""
        key = _key(namespace, name)
        new = (key[0], address) if address else None
        old = self._pods.pop(key, None)
        if new:
            self._pods[key] = new
        if old == new:
            return ()
        if old:
            self._pods_at[old[1]].remove(old[0])
            if not self._pods_at[old[1]]:
                del self._pods_at[old[1]]
        if new:
            self._pods_at.setdefault(new[1], []).append(new[0])
        return tuple(each[1] for each in (old, new) if each)

    # --- what questions need ---

    def visible(self, namespace: bytes) -> bool:
        """Whether names beneath this namespace exist."""
        return namespace in self._namespaces and self.shown(namespace)

    def shown(self, namespace: bytes) -> bool:
        """Whether the `namespaces` option lets a namespace be seen, should it exist."""
        return not self.options.namespaces or namespace in self.options.namespaces

    def service(self, key: Key) -> ServiceFacts | None:
        """The Service, unless `ignore empty_service` hides it."""
        found = self._services.get(key)
        if found and self.options.ignore_empty_service and not found.headless and found.external is None:
            return found if any(part.endpoints for part in self._slices.get(key, {}).values()) else None
        return found

    def services(self) -> list[tuple[Key, ServiceFacts]]:
        """Every Service, by name."""
        return sorted(self._services.items(), key=lambda item: item[0][::-1])

    def slices(self, key: Key) -> Iterable[SliceFacts]:
        """The slices of a Service."""
        return self._slices.get(key, {}).values()

    def endpoints(self, key: Key, host: bytes = b"") -> Iterable[_Entry]:
        """The ready endpoints of a Service with their slices, all or those of one host name."""
        if not host:
            return [(each, part) for part in self.slices(key) for each in part.endpoints]
        hosts = self._hosts.get(key)
        if hosts is None:
            hosts = self._hosts[key] = {}
            for each, part in self.endpoints(key):
                hosts.setdefault(each.host, []).append((each, part))
        return hosts.get(host, ())

    def slices_at(self, address: bytes) -> list[SliceFacts]:
        """The slices with a ready endpoint of that address, in any namespace."""
        return [self._slices[self._owner[key]][key] for key in _every(self._slice_at.get(address))]

    def names_of(self, address: bytes) -> list[tuple[bytes, ...]]:
        """Who owns an address: the Service with that cluster IP alone, else each ready endpoint. Labels before the
        zone."""
        for namespace, service in _every(self._service_at.get(address)):
            if self.shown(namespace):
                return [(service, namespace, b"svc")]
        return [
            (each.host, part.service[1], part.service[0], b"svc")
            for part in self.slices_at(address)
            if not part.names and self.shown(part.service[0])
            for each in part.endpoints
            if each.address == address
        ]

    def namespace_of(self, address: bytes) -> bytes:
        """The namespace of a Pod with that address, empty if there is none."""
        return next(iter(self._pods_at.get(address, ())), b"")

    def has_pod(self, namespace: bytes, address: bytes) -> bool:
        """Whether a Pod of that namespace has that address."""
        return namespace in self._pods_at.get(address, ())


_Index = dict[bytes, Key | list[Key]]
"""Nearly every address has one owner, so a list is only made for the second."""


def _every(owners: Key | list[Key] | None) -> list[Key]:
    return owners if isinstance(owners, list) else [owners] if owners else []


def _add(index: _Index, address: bytes, key: Key) -> None:
    found = index.get(address)
    index[address] = [*_every(found), key] if found else key


def _remove(index: _Index, address: bytes, key: Key) -> None:
    left = [other for other in _every(index[address]) if other != key]
    if left:
        index[address] = left if len(left) > 1 else left[0]
    else:
        del index[address]


@functools.lru_cache(maxsize=4096)
def _namespace(text: str) -> bytes:
    return text.encode()


def _key(namespace: str, name: str) -> Key:
    return _namespace(namespace), name.encode()


def packed_address(address: str) -> bytes:
    """An address as octets, IPv4 inside IPv6 as IPv4; empty for what is none: leading zeros and spaces are not."""
    try:
        # In C, because a large cluster comes with 100,000 of them.
        if ":" not in address:
            return socket.inet_pton(socket.AF_INET, address)
        packed = socket.inet_pton(socket.AF_INET6, address)
    except (OSError, ValueError):
        return b""
    return packed[12:] if packed.startswith(_MAPPED) else packed


def overlong(obj: Service | EndpointSlice) -> list[str]:
    """Names in an object that do not fit into a label. Kubernetes lets none in, other API servers may; an endpoint with
    such a hostname is known by its address, and what else bears one is left out."""
    words = [obj.namespace, obj.name if isinstance(obj, Service) else obj.labels.get(SERVICE_NAME_LABEL, "")]
    if isinstance(obj, EndpointSlice):
        words += [endpoint.hostname for endpoint in obj.endpoints or () if endpoint.hostname]
    return [word for word in words if not _fits(word)]


def _fits(word: str) -> bool:
    return len(word) <= names.LONGEST_LABEL and (word.isascii() or len(word.encode()) <= names.LONGEST_LABEL)


def service_facts(service: Service) -> ServiceFacts | None:
    """What DNS knows of a Service; None for one whose name is no label."""
    if not (_fits(service.name) and _fits(service.namespace)):
        return None
    spec = service.spec
    external = _domain(spec.external_name) if spec.type == "ExternalName" else None
    addresses = tuple(filter(None, map(packed_address, spec.cluster_ips or (spec.cluster_ip,))))
    ports = _shared(tuple((port.name, port.protocol, port.port) for port in spec.ports))
    return ServiceFacts(addresses if external is None else (), ports, service.headless, external)


def _domain(text: str) -> bytes:
    """A name in wire form; empty for an address and for what is no name."""
    if packed_address(text):
        return b""
    try:
        return names.parse(text)
    except ValueError:
        return b""


@functools.lru_cache(maxsize=4096)
def _shared(ports: tuple[tuple[str, str, int], ...]) -> tuple[Port, ...]:
    found = [
        Port(name.lower().encode() if _fits("_" + name) else b"", protocol.lower().encode(), number)
        for name, protocol, number in ports
    ]
    return tuple(found) or _NAMELESS


def slice_facts(slice_: EndpointSlice, pod_names: bool) -> SliceFacts | None:
    """What DNS knows of an EndpointSlice; None for one that belongs to no Service, or to one whose name is no
    label."""
    service = slice_.labels.get(SERVICE_NAME_LABEL)
    if not service or not (_fits(service) and _fits(slice_.namespace)):
        return None
    of_names = slice_.address_type == "FQDN"
    read = _domain if of_names else packed_address
    endpoints = []
    for endpoint in slice_.endpoints or ():
        if endpoint.conditions.ready is False:
            continue
        pod = endpoint.target_ref.name if pod_names and endpoint.target_ref else ""
        own = endpoint.hostname if endpoint.hostname and _fits(endpoint.hostname) else ""
        for address in endpoint.addresses:
            host = own or (pod if _fits(pod) else "") or _dashed(address)
            if packed := read(address):
                endpoints.append(EndpointFacts(host.lower().encode(), packed))
    ports = _shared(
        tuple((port.name or "", port.protocol or "TCP", port.port or NO_PORT) for port in slice_.ports or ())
    )
    return SliceFacts(_key(slice_.namespace, service), tuple(endpoints), ports, of_names)


def pod_address(pod: Pod) -> bytes:
    """The first address of a Pod that is there to be found; empty for others."""
    gone = pod.deleting or pod.status.phase in ("Succeeded", "Failed", "Unknown")
    return b"" if gone else packed_address(pod.status.pod_ip)


def _dashed(address: str) -> str:
    name = address.replace(".", "-").replace(":", "-")
    return name + "0" if address.endswith(":") else name  # a label must not end in a dash
