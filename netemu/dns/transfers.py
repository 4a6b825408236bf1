"""A cluster as a whole zone, for transfers.

Less than what questions find: no endpoints of Services with a cluster IP, no pointers, no Pods, no `dns-version`, and
weights of SRV records that are counted per slice (`coredns/plugin/kubernetes/xfr.go`).
"""

from __future__ import annotations

from collections.abc import Iterator

from netemu.dns import names, records, wire
from netemu.dns.objects import NO_PORT, Cluster, Key, Port, ServiceFacts, SliceFacts
from netemu.dns.records import Facts
from netemu.dns.wire import Record


def zone_records(cluster: Cluster, zone: bytes, facts: Facts) -> list[Record]:
    """SOA, NS with glue, then every visible Service by name. A zone in between has the cluster's names put in front of
    it as they are (`svc.svc.cluster.local`), as upstream does."""
    servers = records.answer(cluster, zone, wire.NS, zone, facts)
    found = [records.soa(cluster, zone, zone, facts), *servers.answers]
    found += [record._replace(ttl=0) for record in servers.additional]
    for key, service in cluster.services():
        if cluster.shown(key[0]):
            found += _service(cluster, key, service, names.join((key[1], key[0], b"svc"), zone))
    return found


def _service(cluster: Cluster, key: Key, service: ServiceFacts, name: bytes) -> Iterator[Record]:
    ttl = cluster.options.ttl
    if service.external:
        yield Record(name, wire.CNAME, ttl, service.external)
    elif service.headless:
        for part in cluster.slices(key):
            if not part.names:
                yield from _slice(part, name, ttl)
    elif service.external is None:
        yield from (_address(name, address, ttl) for address in service.addresses)
        for port in service.ports:
            if port.number != NO_PORT:
                rdata = wire.srv(0, 100, port.number, name)
                owners = [name, _port_name(port, name)] if port.name else [name]
                yield from (Record(owner, wire.SRV, ttl, rdata) for owner in owners)


def _slice(part: SliceFacts, name: bytes, ttl: int) -> Iterator[Record]:
    weight = max(1, 100 // len(part.endpoints)) if part.endpoints else 0
    for endpoint in part.endpoints:
        own = names.join((endpoint.host,), name)
        yield _address(name, endpoint.address, ttl)
        yield _address(own, endpoint.address, ttl)
        for port in part.ports:
            if port.name and port.number != NO_PORT:
                yield Record(_port_name(port, name), wire.SRV, ttl, wire.srv(0, weight, port.number, own))


def _port_name(port: Port, name: bytes) -> bytes:
    return names.join((b"_" + port.name, b"_" + port.protocol), name)


def _address(name: bytes, address: bytes, ttl: int) -> Record:
    return Record(name, wire.A if len(address) == 4 else wire.AAAA, ttl, address)
