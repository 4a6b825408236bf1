"""Which records a cluster's objects mean: the Kubernetes DNS specification 1.1.0, as CoreDNS answers it.

Theory of operation. `answer` splits the question from right to left (zone, `svc` or `pod`, namespace, service,
endpoint or port and protocol) and collects candidates: addresses with a port and the name that owns them. No
candidate means NXDOMAIN, none of the asked type means NODATA. All of it is pure: no sockets, no clock; what depends
on the machine (the server's own addresses, the serial) comes with the question.

Cost: a change touches only its object; a lookup is a few dictionary reads and the size of its answer.
Source of behaviour: `coredns/plugin/kubernetes/kubernetes.go` and `coredns/plugin/backend_lookup.go`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from netemu.dns import names, wire
from netemu.dns.objects import NO_PORT, Cluster, packed_address, service_tag
from netemu.dns.wire import Record

_SCHEMA_VERSION = b"1.1.0"
_SCHEMA_TTL = 28800
_MOST_LINKS = 10
_ADDRESS_TYPES = {4: wire.A, 16: wire.AAAA}


class Facts(NamedTuple):
    """What an answer depends on besides the objects."""

    serial: int = 0
    local: tuple[str, ...] = ()
    """The server's own addresses, loopback left out."""


@dataclass(slots=True)
class Answer:
    """`chase` is a name outside the zone whose records of the asked type belong behind the answers; `depends` are the
    tags (`objects.Changed`) of what an answer with records was made of, empty for all that exists."""

    rcode: int = wire.NOERROR
    answers: list[Record] = field(default_factory=list)
    additional: list[Record] = field(default_factory=list)
    chase: bytes = b""
    depends: tuple[bytes, ...] = ()


class _Candidate(NamedTuple):
    """One address under one port; `owner` is the name that has it, in front of the zone. With a `target` it is an alias
    instead of an address."""

    address: bytes
    port: int
    owner: tuple[bytes, ...]
    target: bytes = b""


def answer(cluster: Cluster, name: bytes, qtype: int, zone: bytes, facts: Facts) -> Answer:
    """What the zone says; `zone` is the lower-case zone that `name`, in any case, lies in."""
    question = _Question(cluster, name, qtype, len(zone), facts)
    said = question.answer()
    if said.answers:  # a denial carries the serial, which every change moves
        said.depends = tuple(question.depends)
    return said


class _NameError(Exception):
    """The name does not exist."""


class _Question:
    """One walk through the grammar; see the module's docstring."""

    def __init__(
        self, cluster: Cluster, name: bytes, qtype: int, zone_size: int, facts: Facts, followed: tuple[bytes, ...] = ()
    ) -> None:
        self.cluster, self.name, self.qtype, self.facts = cluster, name, qtype, facts
        self.zone_size, self.followed = zone_size, followed
        self.depends: list[bytes] = []
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
        if self.left == [b"ns", b"dns"] and self.as_spelled and qtype != wire.PTR:
            addresses = {address: None for _, packed in self._servers() for address in packed}
            return Answer(answers=[self._address(a, ttl) for a in addresses if _ADDRESS_TYPES[len(a)] == qtype])
        if qtype == wire.PTR and self.reverse and (address := names.address_of(self.lower)):
            return self._pointers(packed_address(address))
        candidates = self._find()
        if candidates and candidates[0].target:
            return self._alias(candidates[0].target)
        if qtype == wire.SRV:
            return self._srv(candidates)
        if qtype in (wire.A, wire.AAAA):
            size = 4 if qtype == wire.A else 16
            found = {c.address: None for c in candidates if len(c.address) == size}
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
        if self.left == [b"dns-version"]:
            return Answer(answers=[Record(self.name, wire.TXT, _SCHEMA_TTL, wire.txt(_SCHEMA_VERSION))])
        if not self._find():
            raise _NameError
        return Answer()

    # --- candidates ---

    def _find(self) -> list[_Candidate]:
        """What the name stands for; empty: it exists and has no data. Raises _NameError."""
        left = self.left
        if not left:
            return []
        if left[-1] not in (b"svc", b"pod") or self.reverse or len(left) > 5:
            raise _NameError
        if len(left) == 1:
            return []
        namespace = left[-2]
        if not self.cluster.visible(namespace):
            raise _NameError
        if left[-1] == b"pod":
            return self._pod(namespace)
        if len(left) == 2:
            return []
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
        address = b"" if "%" in text else packed_address(text)
        if not address:
            raise _NameError
        if mode == "verified":
            canonical = str(ipaddress.ip_address(address)) == text
            if not canonical or not self.cluster.has_pod(namespace, address):
                raise _NameError
        self.depends.append(address)
        return [_Candidate(address, 0, (label, namespace, b"pod"))]

    def _service(self, namespace: bytes, name: bytes) -> list[_Candidate]:
        key, front = (namespace, name), self.left[:-3]
        service = self.cluster.service(key)
        if service is None:
            raise _NameError
        self.depends.append(service_tag(key))
        owner = (name, namespace, b"svc")
        if service.external is not None:
            if front or not service.external:
                raise _NameError
            return [_Candidate(b"", 0, owner, service.external)]
        host = front[0] if len(front) == 1 else b""
        port, protocol = (part.removeprefix(b"_") for part in front) if len(front) == 2 else (b"", b"")
        if service.headless or host:
            found = [
                _Candidate(b"", number, owner, endpoint.address)
                if part.names
                else _Candidate(endpoint.address, number, (endpoint.host, *owner))
                for endpoint, part in self.cluster.endpoints(key, host)
                for number in [each.number for each in part.ports if each.matches(port, protocol)]
            ]
        else:
            matching = [each.number for each in service.ports if each.matches(port, protocol)]
            found = [_Candidate(address, number, owner) for number in matching for address in service.addresses]
        if not found:
            raise _NameError
        return found

    # --- records of one type ---

    def _srv(self, candidates: list[_Candidate]) -> Answer:
        ttl = self.cluster.options.ttl
        weight = max(1, 100 // len(candidates)) if candidates else 0
        answers: dict[tuple[tuple[bytes, ...], int], Record] = {}
        additional: dict[tuple[tuple[bytes, ...], bytes], Record] = {}
        for address, port, owner, _ in candidates:
            if port == NO_PORT or not address:
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
        self.depends.append(address)
        return Answer(answers=[Record(self.name, wire.PTR, options.ttl, name) for name in found])

    def _alias(self, target: bytes) -> Answer:
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
        question = _Question(self.cluster, target, self.qtype, self.zone_size, self.facts, followed)
        further = question.answer()
        self.depends += question.depends
        if not further.answers:
            return Answer()
        return Answer(answers=[alias, *further.answers], chase=further.chase)

    # --- the servers of the zone ---

    def _servers(self) -> Iterator[tuple[tuple[bytes, ...], tuple[bytes, ...]]]:
        """(owner labels, addresses) of the Services in front of this server, else of itself as `ns.dns`.

        `coredns/plugin/kubernetes/ns.go`: a server finds itself among the endpoints by its own addresses.
        """
        local = [packed for packed in map(packed_address, self.facts.local) if packed]
        seen: dict[tuple[bytes, ...], tuple[bytes, ...]] = {}
        for part in [part for address in local for part in self.cluster.slices_at(address)]:
            namespace, name = part.service
            service = self.cluster.service(part.service)
            if service is None or service.external is not None:
                continue
            if not service.headless:
                seen[name, namespace, b"svc"] = service.addresses
                continue
            for endpoint in part.endpoints:
                owner = (endpoint.host, name, namespace, b"svc")
                seen[owner] = tuple(dict.fromkeys((*seen.get(owner, ()), endpoint.address)))
        yield from seen.items() if seen else [((b"ns", b"dns"), tuple(local))]

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
