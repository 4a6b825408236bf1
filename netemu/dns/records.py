"""Which records a cluster's objects mean: the Kubernetes DNS specification 1.1.0, as CoreDNS answers it.

Theory of operation. `Cluster` holds what DNS needs of each object, stripped to bytes, indexed by (namespace, name) and by
address. `answer` splits the question from right to left (zone, `svc` or `pod`, namespace, service, endpoint or port and
protocol) and collects candidates: addresses with a port and the name that owns them. No candidate means NXDOMAIN, none of
the asked type means NODATA. All of it is pure: no sockets, no clock; what depends on the machine (the server's own
addresses, the serial) comes with the question.

Cost: a change touches only its object; a lookup is a few dictionary reads and the size of its answer.
Source of behaviour: `coredns/plugin/kubernetes/kubernetes.go` and `coredns/plugin/backend_lookup.go`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from netemu.dns import names, wire
from netemu.dns.wire import Record
from netemu.model.objects import EndpointSlice, Namespace, Pod, Service

_SERVICE_LABEL = "kubernetes.io/service-name"
_SCHEMA_VERSION = b"1.1.0"
_SCHEMA_TTL = 28800
_NO_PORT = -1
"""A Service or slice without ports has one of these: addresses resolve, SRV records cannot be made."""
_MOST_LINKS = 10
_ADDRESS_TYPES = {4: wire.A, 16: wire.AAAA}

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


class Facts(NamedTuple):
    """What an answer depends on besides the objects."""

    serial: int = 0
    local: tuple[str, ...] = ()
    """The server's own addresses, loopback left out."""


@dataclass(slots=True)
class Answer:
    """`chase` is a name outside the zone whose records of the asked type belong behind the answers."""

    rcode: int = wire.NOERROR
    answers: list[Record] = field(default_factory=list)
    additional: list[Record] = field(default_factory=list)
    chase: bytes = b""


class _Port(NamedTuple):
    name: bytes
    protocol: bytes
    number: int

    def matches(self, name: bytes, protocol: bytes) -> bool:
        """An empty word of the question matches everything."""
        return name in (b"", self.name) and protocol in (b"", self.protocol)


_NAMELESS = (_Port(b"", b"", _NO_PORT),)


@dataclass(frozen=True, slots=True)
class _Service:
    addresses: tuple[bytes, ...]
    ports: tuple[_Port, ...]
    headless: bool
    external: bytes | None


class _Endpoint(NamedTuple):
    host: bytes
    address: bytes


@dataclass(frozen=True, slots=True)
class _Slice:
    service: Key
    endpoints: tuple[_Endpoint, ...]
    ports: tuple[_Port, ...]


class _Candidate(NamedTuple):
    """One address under one port; `owner` is the name that has it, in front of the zone."""

    address: bytes
    port: int
    owner: tuple[bytes, ...]


_Hosts = dict[bytes, list[tuple[_Endpoint, tuple[_Port, ...]]]]


class Cluster:
    """The objects that DNS sees. `set_*` and `drop_*` return whether any answer may differ now."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._namespaces: set[bytes] = set()
        self._services: dict[Key, _Service] = {}
        self._slices: dict[Key, dict[bytes, _Slice]] = {}
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

    def _forget(self, old: _Slice, key: Key) -> None:
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
        new = (key[0], _packed(pod.status.pod_ip)) if pod and seen and pod.status.pod_ip else None
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

    # --- questions ---

    def answer(self, name: bytes, qtype: int, zone: bytes, facts: Facts = Facts()) -> Answer:
        """What the zone says; `zone` is the lower-case zone that `name`, in any case, lies in."""
        return _Question(self, name, qtype, len(zone), facts).answer()

    def visible(self, namespace: bytes) -> bool:
        """Whether names beneath this namespace exist."""
        return namespace in self._namespaces and (not self.options.namespaces or namespace in self.options.namespaces)

    def service(self, key: Key) -> _Service | None:
        """The Service, unless `ignore empty_service` hides it."""
        found = self._services.get(key)
        if found and self.options.ignore_empty_service and not found.headless and found.external is None:
            return found if any(slice_.endpoints for slice_ in self._slices.get(key, {}).values()) else None
        return found

    def endpoints(self, key: Key, host: bytes = b"") -> Iterable[tuple[_Endpoint, tuple[_Port, ...]]]:
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
        """Who owns an address: the Service with that cluster IP alone, else each ready endpoint. Labels before the zone."""
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


def _packed(address: str) -> bytes:
    """An address as octets; empty for what is none."""
    try:
        return ipaddress.ip_address(address).packed
    except ValueError:
        return b""


def _strip_service(service: Service) -> _Service:
    spec = service.spec
    external = None
    if spec.type == "ExternalName":
        external = b""
        if not _packed(spec.external_name):
            try:
                external = names.parse(spec.external_name)
            except ValueError:
                external = b""
    addresses = tuple(filter(None, map(_packed, spec.cluster_ips or (spec.cluster_ip,))))
    ports = tuple(_Port(port.name.encode(), port.protocol.lower().encode(), port.port) for port in spec.ports)
    return _Service(addresses if external is None else (), ports or _NAMELESS, service.headless, external)


def _strip_slice(slice_: EndpointSlice, pod_names: bool) -> _Slice | None:
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
            if packed := _packed(address):
                endpoints.append(_Endpoint(host.lower().encode(), packed))
    ports = [
        _Port((port.name or "").encode(), (port.protocol or "TCP").lower().encode(), port.port or _NO_PORT)
        for port in slice_.ports or ()
    ]
    return _Slice((slice_.namespace.encode(), service.encode()), tuple(endpoints), tuple(ports) or _NAMELESS)


def _dashed(address: str) -> str:
    name = address.replace(".", "-").replace(":", "-")
    return name + "0" if address.endswith(":") else name  # a label must not end in a dash


class _NameError(Exception):
    """The name does not exist."""


class _Question:
    """One walk through the grammar; see the module's docstring."""

    def __init__(
        self, cluster: Cluster, name: bytes, qtype: int, zone_size: int, facts: Facts, followed: tuple[bytes, ...] = ()
    ) -> None:
        self.cluster, self.name, self.qtype, self.facts = cluster, name, qtype, facts
        self.zone_size, self.followed = zone_size, followed
        lower = name.lower()
        self.lower = lower
        self.zone = name[-zone_size:]  # answers spell the zone as the question did
        self.left = names.labels(lower[:-zone_size])
        self.reverse = names.is_reverse(lower[-zone_size:])
        self.as_spelled = lower[-zone_size:] == self.zone

    def answer(self) -> Answer:
        try:
            return self._dispatch()
        except _NameError:
            return Answer(wire.NXDOMAIN)

    def _dispatch(self) -> Answer:
        qtype, ttl = self.qtype, self.cluster.options.ttl
        if qtype in (wire.AXFR, wire.IXFR):
            return Answer(wire.REFUSED)
        if qtype == wire.SOA:
            return Answer(answers=[] if self.left else [self.soa()])
        if qtype == wire.NS and not self.left and self.as_spelled:
            return self._name_servers()
        if qtype == wire.TXT:
            return self._text()
        if self.left == [b"ns", b"dns"] and self.as_spelled:
            addresses = {address: None for _, packed in self._servers() for address in packed}
            return Answer(answers=[self._address(a, ttl) for a in addresses if _ADDRESS_TYPES[len(a)] == qtype])
        if qtype == wire.PTR and self.reverse and (address := names.address_of(self.lower)):
            return self._pointers(_packed(address))
        external, candidates = self._find()
        if external is not None:
            return self._external(external)
        if qtype == wire.SRV:
            return self._srv(candidates)
        if qtype in (wire.A, wire.AAAA):
            found = {c.address: None for c in candidates if _ADDRESS_TYPES[len(c.address)] == qtype}
            return Answer(answers=[Record(self.name, qtype, ttl, address) for address in found])
        return Answer()

    def soa(self) -> Record:
        """The zone's SOA, for its owner and for the authority section of negative answers."""
        ttl = self.cluster.options.ttl
        rdata = wire.soa(
            names.join((b"ns", b"dns"), self.zone),
            names.join((b"hostmaster",), self.zone),
            self.facts.serial, 7200, 1800, 86400, ttl,
        )  # fmt: skip
        return Record(self.zone, wire.SOA, min(ttl, 300), rdata)

    def _address(self, address: bytes, ttl: int, owner: bytes = b"") -> Record:
        return Record(owner or self.name, _ADDRESS_TYPES[len(address)], ttl, address)

    def _text(self) -> Answer:
        """`dns-version` has the only TXT record; structural names are denied for this type, as CoreDNS does."""
        if self.left == [b"dns-version"] and not self.reverse:
            return Answer(answers=[Record(self.name, wire.TXT, _SCHEMA_TTL, wire.txt(_SCHEMA_VERSION))])
        external, candidates = self._find()
        if external is None and not candidates:
            raise _NameError
        return Answer()

    # --- candidates ---

    def _find(self) -> tuple[bytes | None, list[_Candidate]]:
        """(external name or None, candidates). Empty without an error: the name exists and has no data. Raises _NameError."""
        left = self.left
        if not left or left in ([b"svc"], [b"pod"]):
            return None, []
        if left[-1] not in (b"svc", b"pod") or self.reverse or len(left) > 5:
            raise _NameError
        namespace = left[-2]
        if not self.cluster.visible(namespace):
            raise _NameError
        if left[-1] == b"pod":
            return None, self._pod(namespace)
        if len(left) == 2:
            return None, []
        return self._service(namespace, left[-3])

    def _pod(self, namespace: bytes) -> list[_Candidate]:
        mode = self.cluster.options.pods
        if mode == "disabled":
            raise _NameError
        if len(self.left) == 2:
            return []
        label = self.left[-3]
        dotted = label.count(b"-") == 3 and b"--" not in label
        text = label.replace(b"-", b"." if dotted else b":").decode("latin-1")
        address = b"" if "%" in text else _packed(text)
        if not address:
            raise _NameError
        if mode == "verified":
            canonical = str(ipaddress.ip_address(address)) == text
            if not canonical or not self.cluster.has_pod(namespace, address):
                raise _NameError
        return [_Candidate(address, 0, (label, namespace, b"pod"))]

    def _service(self, namespace: bytes, name: bytes) -> tuple[bytes | None, list[_Candidate]]:
        key, front = (namespace, name), self.left[:-3]
        service = self.cluster.service(key)
        if service is None:
            raise _NameError
        host = front[0] if len(front) == 1 else b""
        port, protocol = (part.removeprefix(b"_") for part in front) if len(front) == 2 else (b"", b"")
        if service.external is not None:
            if front or not service.external:
                raise _NameError
            return service.external, []
        owner = (name, namespace, b"svc")
        if service.headless or host:
            found = [
                _Candidate(endpoint.address, each.number, (endpoint.host, *owner))
                for endpoint, ports in self.cluster.endpoints(key, host)
                for each in ports
                if each.matches(port, protocol)
            ]
        else:
            matching = [each for each in service.ports if each.matches(port, protocol)]
            found = [_Candidate(address, each.number, owner) for each in matching for address in service.addresses]
        if not found:
            raise _NameError
        return None, found

    # --- records of one type ---

    def _srv(self, candidates: list[_Candidate]) -> Answer:
        ttl = self.cluster.options.ttl
        weight = max(1, 100 // len(candidates)) if candidates else 0
        answers: dict[tuple[tuple[bytes, ...], int], Record] = {}
        additional: dict[tuple[tuple[bytes, ...], bytes], Record] = {}
        for address, port, owner in candidates:
            if port == _NO_PORT:
                continue
            target = names.join(owner, self.zone)
            rdata = wire.srv(0, weight, port, target)
            answers.setdefault((owner, port), Record(self.name, wire.SRV, ttl, rdata))
            additional.setdefault((owner, address), self._address(address, ttl, target))
        return Answer(answers=list(answers.values()), additional=list(additional.values()))

    def _pointers(self, address: bytes) -> Answer:
        options = self.cluster.options
        found = {names.join(owner, options.primary): None for owner in self.cluster.names_of(address)}
        if not found:
            raise _NameError
        return Answer(answers=[Record(self.name, wire.PTR, options.ttl, name) for name in found])

    def _external(self, target: bytes) -> Answer:
        """CNAME, and what it leads to: inside the zone found here, outside of it left to the caller."""
        alias = Record(self.name, wire.CNAME, self.cluster.options.ttl, target)
        if self.qtype == wire.CNAME:
            return Answer(answers=[alias])
        if self.qtype not in (wire.A, wire.AAAA):
            return Answer()
        lower, zone = target.lower(), self.lower[-self.zone_size :]
        if not names.within(lower, zone):
            return Answer(answers=[alias], chase=target)
        followed = (*self.followed, self.lower)
        if lower in followed or len(followed) > _MOST_LINKS:
            return Answer()
        further = _Question(self.cluster, target, self.qtype, self.zone_size, self.facts, followed).answer()
        if not further.answers:
            return Answer()
        return Answer(answers=[alias, *further.answers], chase=further.chase)

    # --- the servers of the zone ---

    def _servers(self) -> Iterator[tuple[tuple[bytes, ...], tuple[bytes, ...]]]:
        """(owner labels, addresses) of the Services in front of this server, else of itself as `ns.dns`.

        `coredns/plugin/kubernetes/ns.go`: a server finds itself among the endpoints by its own addresses.
        """
        local = [packed for packed in map(_packed, self.facts.local) if packed]
        seen: dict[tuple[bytes, ...], tuple[bytes, ...]] = {}
        for address in local:
            for host, name, namespace, _ in self._entries(address):
                service = self.cluster.service((namespace, name))
                if service is None:
                    continue
                if service.headless:
                    owner = (host, name, namespace, b"svc")
                    seen[owner] = (*seen.get(owner, ()), address)
                else:
                    seen[name, namespace, b"svc"] = service.addresses
        yield from seen.items() if seen else [((b"ns", b"dns"), tuple(local))]

    def _entries(self, address: bytes) -> list[tuple[bytes, bytes, bytes, bytes]]:
        return [owner for owner in self.cluster.names_of(address) if len(owner) == 4]

    def _name_servers(self) -> Answer:
        ttl, answer = self.cluster.options.ttl, Answer()
        for owner, addresses in self._servers():
            target = names.join(owner, self.zone)
            answer.answers.append(Record(self.name, wire.NS, ttl, target))
            answer.additional += [self._address(address, ttl, target) for address in addresses]
        return answer


def soa(cluster: Cluster, name: bytes, zone: bytes, facts: Facts) -> Record:
    """The SOA record for the authority section of a negative answer about `name`."""
    return _Question(cluster, name, wire.SOA, len(zone), facts).soa()
