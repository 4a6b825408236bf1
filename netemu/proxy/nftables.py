"""nftables mode, the compiler: a service port and its endpoints to chains, sets and map elements.

Theory of operation (`pkg/proxy/nftables/proxier.go`): packets find their service port by one look-up in a map, however
many there are: `service-ips` by destination address, protocol and port, `service-nodeports` by protocol and port. The
verdict found there goes to a chain of the port's own,

    service-x   DNAT to one of all endpoints  local-x     DNAT to one of this node's endpoints
    external-x  traffic from outside          firewall-x  who may use the load balancer's addresses

DNAT to one of some endpoints is one rule, with a map from random numbers to endpoints. Where affinity has clients come
back to their endpoint, the numbers lead to chains instead, which remember the client:

    endpoint-y  DNAT to one endpoint          affinity-y  a set: clients that this endpoint served lately

What leads nowhere stands in `no-endpoint-services` and `no-endpoint-nodeports`, looked at after DNAT; endpoints, which
may reach themselves, in `hairpin-connections`. The layout is that of 1.36; everything here is pure.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from netemu.model import nft
from netemu.model.nft import Element, Expression, Field, Lookup, Match, Verdict
from netemu.proxy.endpoints import Endpoint, choose
from netemu.proxy.facts import Detector, NodeFacts, listed_addresses
from netemu.proxy.services import Family, ServicePort

TABLE_NAME = "kube-proxy"
CLUSTER_IPS, NODE_PORT_IPS = "cluster-ips", "nodeport-ips"
NO_ENDPOINT_SERVICES, NO_ENDPOINT_NODE_PORTS = "no-endpoint-services", "no-endpoint-nodeports"
FIREWALL_IPS, SERVICE_IPS, SERVICE_NODE_PORTS = "firewall-ips", "service-ips", "service-nodeports"
HAIRPIN_CONNECTIONS = "hairpin-connections"
REJECT_CHAIN = "reject-chain"
DEFAULT_MARK = 0x4000
"""What stands in a packet's mark until it leaves, when it is to be masqueraded."""

_LONGEST_NAME = 240
_AFFINITY_SIZE = 65535

Line = tuple[tuple[Expression, ...], str]
"""A rule: its expressions and its comment."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What one service port has in the table."""

    chains: Mapping[str, tuple[Line, ...]]
    """Chains of its own."""
    sets: Mapping[str, nft.Set] = field(default_factory=dict)
    """Affinity sets."""
    elements: tuple[Element, ...] = ()
    """What it adds to shared sets and maps."""
    no_local_internal: bool = False
    no_local_external: bool = False
    """Whether a Local policy finds no endpoint here though there are some elsewhere (two of upstream's gauges)."""


def family_name(family: Family) -> nft.Family:
    """nftables' word for a family."""
    return "ip" if family is Family.IPV4 else "ip6"


def hashed(text: str) -> str:
    """`hash-text`, cut where it would not leave room for a prefix."""
    name = f"{base64.b32encode(hashlib.sha256(text.encode()).digest()[:5]).decode()}-{text}"
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 3] + "..."


def service_base(port: ServicePort) -> str:
    """`namespace/name/protocol/portname`."""
    return f"{port.key.namespace}/{port.key.name}/{port.protocol}/{port.key.port}"


def endpoint_name(base: str, endpoint: Endpoint) -> str:
    """What stands behind `endpoint-` and `affinity-`; nftables names cannot hold colons."""
    return hashed(f"{base}__{endpoint.ip}/{endpoint.port}".replace(":", "."))


def compile_port(
    port: ServicePort, endpoints: Iterable[Endpoint], node: NodeFacts, mark: int = DEFAULT_MARK
) -> Compiled:
    """Everything of one service port. Same input, same result, whatever order the endpoints come in."""
    return _Port(port, endpoints, node, mark).compile()


def interface_pattern(detector: Detector) -> str:
    """The interfaces by which Pods' packets come in, as nftables writes it; "" where Pods are not told by interface."""
    return detector.interface_name or (detector.interface_prefix and detector.interface_prefix + "*")


def _from_pods(detector: Detector, family: nft.Family) -> tuple[Expression, ...]:
    """Matches Pods' traffic; empty where it cannot be told."""
    if detector.network:
        return (Match(nft.saddr(family), (detector.network,)),)
    return (Match(Field.IIFNAME, (interface_pattern(detector),)),) if detector else ()


def node_port_elements(node: NodeFacts) -> tuple[Element, ...]:
    """Addresses that answer node ports, never loopback. A CIDR of one address need not be found on an interface."""
    return tuple(Element(NODE_PORT_IPS, (address,)) for address in listed_addresses(node))


def matches_all(node: NodeFacts) -> bool:
    """Whether node ports answer on every address of the node but loopback."""
    return not node.node_port_networks or any(n.endswith("/0") for n in node.node_port_networks)


class _Port:
    """Compiles one service port; splits what would be one long function, and lives for one call."""

    def __init__(self, port: ServicePort, endpoints: Iterable[Endpoint], node: NodeFacts, mark: int) -> None:
        self.port, self.node = port, node
        self.mark = nft.SetMark(mark, "|")
        self.chosen = chosen = choose(port, endpoints, node.labels, node.name)
        self.family = family_name(node.family)
        self.base = service_base(port)
        name = hashed(self.base)
        self.service, self.local = f"service-{name}", f"local-{name}"
        self.external, self.firewall = f"external-{name}", f"firewall-{name}"
        remembered = chosen.reachable if port.affinity_seconds else ()
        self.names = {e: endpoint_name(self.base, e) for e in remembered}
        self.has_internal = chosen.any and not (port.internal_local and not chosen.local)
        self.has_external = chosen.any and not (port.external_local and not chosen.local)
        self.has_firewall = bool(port.load_balancer_ips and port.source_ranges)

    def compile(self) -> Compiled:
        port, chosen = self.port, self.chosen
        lonely = chosen.any and not chosen.local
        return Compiled(
            dict(self._chains()),
            self._affinity_sets(),
            tuple(self._elements()),
            no_local_internal=port.internal_local and lonely,
            no_local_external=port.external_local and port.externally_accessible and lonely,
        )

    # --- elements of shared sets and maps

    def _elements(self) -> Iterator[Element]:
        port, reachable = self.port, self.chosen.any
        yield Element(CLUSTER_IPS, (port.cluster_ip,))
        for endpoint in self.chosen.reachable:
            yield Element(HAIRPIN_CONNECTIONS, (endpoint.ip, endpoint.ip, port.protocol, endpoint.port))
        internal = self.local if port.internal_local else self.service
        if self.has_internal:
            yield self._address(SERVICE_IPS, port.cluster_ip, nft.goto(internal))
        else:
            yield self._address(NO_ENDPOINT_SERVICES, port.cluster_ip, self._refusal(), comment=port.key.text)
        for ip in port.load_balancer_ips if self.has_firewall else ():
            yield self._address(FIREWALL_IPS, ip, nft.goto(self.firewall), comment=port.key.text)
        for ip in dict.fromkeys((*port.external_ips, *port.load_balancer_ips)):
            if reachable:
                yield self._address(SERVICE_IPS, ip, nft.goto(self.external))
            if not self.has_external:
                yield self._address(NO_ENDPOINT_SERVICES, ip, self._refusal(), comment=port.key.text)
        if port.node_port:
            key = (port.protocol, port.node_port)
            if reachable:
                yield Element(SERVICE_NODE_PORTS, key, nft.goto(self.external))
            if not self.has_external:
                yield Element(NO_ENDPOINT_NODE_PORTS, key, self._refusal(), comment=port.key.text)

    def _address(self, name: str, ip: str, verdict: Verdict, comment: str = "") -> Element:
        return Element(name, (ip, self.port.protocol, self.port.port), verdict, comment=comment)

    def _refusal(self) -> Verdict:
        """Endpoints elsewhere mean silence, none an answer."""
        return nft.DROP if self.chosen.any else nft.goto(REJECT_CHAIN)

    # --- chains and sets of its own

    def _chains(self) -> Iterator[tuple[str, tuple[Line, ...]]]:
        port, chosen = self.port, self.chosen
        for endpoint, name in self.names.items():
            yield f"endpoint-{name}", tuple(self._remember(endpoint, name))
        if chosen.cluster:
            yield self.service, tuple(self._spread(chosen.cluster))
        if chosen.local:
            yield self.local, tuple(self._spread(chosen.local))
        if chosen.any and port.externally_accessible:
            yield self.external, tuple(self._external())
        if self.has_firewall:
            yield self.firewall, tuple(self._firewall())

    def _external(self) -> Iterator[Line]:
        if not self.port.external_local:
            yield (self.mark,), ""
        else:
            # Pods of the cluster and this node itself are as good as inside: any endpoint will do for them.
            everywhere = nft.goto(self.service)
            pods = _from_pods(self.node.detector, self.family)
            here = Match(Field.FIB_SADDR_TYPE, ("local",))
            if pods:
                yield (*pods, everywhere), "short-circuit pod traffic"
            yield (here, self.mark), "masquerade local traffic"
            yield (here, everywhere), "short-circuit local traffic"
        if self.has_external:
            yield (nft.goto(self.local if self.port.external_local else self.service),), ""

    def _firewall(self) -> Iterator[Line]:
        """Everybody else is dropped. A range of all addresses leaves nobody else."""
        ranges = [ipaddress.ip_network(n) for n in self.port.source_ranges]
        node = ipaddress.ip_address(self.node.node_ip) if self.node.node_ip else None
        if node is not None and any(node in network for network in ranges):
            # A load balancer on the node's own network may send with its virtual address.
            ranges += [ipaddress.ip_network(ip) for ip in self.port.load_balancer_ips]
        if any(network.prefixlen == 0 for network in ranges):
            return
        allowed = tuple(_shortest(n) for n in _collapsed(ranges))
        yield (Match(nft.saddr(self.family), allowed, negated=True), nft.DROP), ""

    def _spread(self, endpoints: tuple[Endpoint, ...]) -> Iterator[Line]:
        """Each endpoint with the same chance; but a client's former one, if affinity remembers it."""
        key = (nft.Numgen(len(endpoints)),)
        if not self.names:
            targets = tuple(((i,), (e.ip, e.port)) for i, e in enumerate(endpoints))
            yield (self._protocol, nft.DnatMap(self.family, key, entries=targets)), ""
            return
        names = [self.names[e] for e in endpoints]
        client = (nft.saddr(self.family),)
        for name in names:
            yield (Lookup(client, f"affinity-{name}"), nft.goto(f"endpoint-{name}")), ""
        chains = tuple(((i,), nft.goto(f"endpoint-{name}")) for i, name in enumerate(names))
        yield (nft.Vmap(key, entries=chains),), ""

    def _remember(self, endpoint: Endpoint, name: str) -> Iterator[Line]:
        yield (nft.Update(f"affinity-{name}", (nft.saddr(self.family),)),), ""
        yield (self._protocol, nft.Dnat(endpoint.ip, endpoint.port)), ""

    @property
    def _protocol(self) -> Match:
        """A translation with a port needs to know of which protocol."""
        return Match(Field.L4PROTO, (self.port.protocol,))

    def _affinity_sets(self) -> dict[str, nft.Set]:
        seconds = self.port.affinity_seconds
        kind, flags = (nft.addr_type(self.family),), frozenset({"dynamic", "timeout"})
        names = (f"affinity-{name}" for name in self.names.values())
        return {n: nft.Set(n, kind, flags, timeout=seconds, size=_AFFINITY_SIZE) for n in names}


def _collapsed(
    networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network],
) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Without those that others contain, in order: intervals of one set must not overlap."""
    kept: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for network in sorted(networks, key=lambda n: (int(n.network_address), n.prefixlen)):
        if not kept or int(network.network_address) > int(kept[-1].broadcast_address):
            kept.append(network)
    return kept


def _shortest(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)
