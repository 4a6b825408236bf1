"""ipvs mode, the compiler: a service port and its endpoints to virtual servers, ipset entries and addresses.

Theory of operation (`pkg/proxy/ipvs/proxier.go`): each address and port that leads to a service port is a virtual
server of the kernel's load balancer, with one real server per endpoint. Addresses that this node would not have anyhow
are put on the link kube-ipvs0, because IPVS takes only packets that are for this machine. Everything else, such as
masquerading, is done by a few iptables rules (`ipvs_rules`) that match on sets of addresses and ports.

Everything here is pure and knows no kernel interface: entries are written as `ipset save` prints them.

Where this mode differs from the others: a Local policy without an endpoint here uses the endpoints elsewhere instead
of dropping; without any endpoint the kernel itself refuses; session affinity is remembered per address, not per
service port; a port that no Service has on a Service's address is refused; node ports do not answer on loopback.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from netemu.model.hosts import endpoint_text
from netemu.proxy.endpoints import Chosen, Endpoint, choose
from netemu.proxy.facts import NodeFacts
from netemu.proxy.ipvs_sets import NODE_PORT_SETS, IpSet
from netemu.proxy.services import PortKey, ServicePort

DUMMY_LINK = "kube-ipvs0"
DEFAULT_SCHEDULER = "rr"


class Front(NamedTuple):
    """What names a virtual server: where packets go to. `protocol` is lower case."""

    protocol: str
    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.protocol} {endpoint_text(self.address, self.port)}"


@dataclass(frozen=True, slots=True)
class Balancing:
    """How a virtual server spreads its clients."""

    scheduler: str = DEFAULT_SCHEDULER
    persistence: int = 0
    """Seconds for which a client stays with its real server (session affinity); 0: each connection anew."""

    @property
    def source_port_hash(self) -> bool:
        """Whether the scheduler takes the client's port into account: the flag that `mh` wants."""
        return self.scheduler == "mh"


class Server(NamedTuple):
    """A virtual server's settings and the real servers behind it, as `ip:port` in order. Each has weight 1."""

    balancing: Balancing
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compiled:
    """What one service port wants of the kernel."""

    key: PortKey
    servers: Mapping[Front, Server]
    entries: frozenset[tuple[IpSet, str]]
    addresses: frozenset[str]
    """What must be on kube-ipvs0."""
    barred: frozenset[Front] = frozenset()
    """Load balancer addresses that this node itself must not use: no source range holds it."""
    no_local_internal: bool = False
    no_local_external: bool = False
    """Whether a Local policy finds no endpoint here though there are some elsewhere."""


def compile_port(
    port: ServicePort, endpoints: Iterable[Endpoint], node: NodeFacts, scheduler: str = DEFAULT_SCHEDULER
) -> Compiled:
    """Everything of one service port. `node.addresses` are the node's own, those on kube-ipvs0 left out."""
    known = tuple(endpoints)
    return _Port(port, known, choose(port, known, node.labels, node.name), node, scheduler).compile()


def node_port_addresses(node: NodeFacts) -> tuple[str, ...]:
    """Where node ports answer: the node's own addresses, or those inside nodePortAddresses; never loopback."""
    networks = [ipaddress.ip_network(network) for network in node.node_port_networks]
    found = []
    for text in node.addresses:
        address = ipaddress.ip_address(text)
        wanted = not networks or any(address in network for network in networks)
        if wanted and not address.is_loopback and not (address.version == 6 and address.is_link_local):
            found.append(text)
    return tuple(found)


class _Port:
    """Compiles one service port; splits what would be one long function, and lives for one call."""

    def __init__(
        self, port: ServicePort, endpoints: tuple[Endpoint, ...], chosen: Chosen, node: NodeFacts, scheduler: str
    ) -> None:
        self.port, self.endpoints, self.node, self.proto = port, endpoints, node, port.protocol
        # Better an endpoint elsewhere than none (kubernetes PR 97081), though answers to clients outside may get lost.
        self.internal = _targets((chosen.local or chosen.cluster) if port.internal_local else chosen.cluster)
        self.external = _targets((chosen.local or chosen.cluster) if port.external_local else chosen.cluster)
        self.lonely = chosen.any and not chosen.local
        self.balancing = Balancing(scheduler, port.affinity_seconds)
        self.servers: dict[Front, Server] = {}
        self.entries: set[tuple[IpSet, str]] = set()
        self.addresses: set[str] = set()
        self.barred: set[Front] = set()

    def compile(self) -> Compiled:
        port = self.port
        for endpoint in self.endpoints:
            if endpoint.local:
                self._add(IpSet.LOOP_BACK, f"{endpoint.ip},{self.proto}:{endpoint.port},{endpoint.ip}")
        self._add(IpSet.CLUSTER_IP, self._entry(port.cluster_ip))
        self._serve(port.cluster_ip, port.port, self.internal)
        self._bind(port.cluster_ip)
        for ip in port.external_ips:
            self._add(IpSet.EXTERNAL_IP_LOCAL if port.external_local else IpSet.EXTERNAL_IP, self._entry(ip))
            self._serve_external(ip)
        for ip in port.load_balancer_ips:
            self._load_balancer(ip)
        self._node_port()
        if port.health_check_node_port:
            self._add(IpSet.HEALTH_CHECK_NODE_PORT, str(port.health_check_node_port))
        return Compiled(
            port.key,
            self.servers,
            frozenset(self.entries),
            frozenset(self.addresses),
            frozenset(self.barred),
            no_local_internal=port.internal_local and self.lonely,
            no_local_external=port.external_local and port.externally_accessible and self.lonely,
        )

    def _add(self, ipset: IpSet, entry: str) -> None:
        self.entries.add((ipset, entry))

    def _entry(self, ip: str) -> str:
        return f"{ip},{self.proto}:{self.port.port}"

    def _serve(self, ip: str, number: int, targets: tuple[str, ...]) -> None:
        self.servers[Front(self.proto, ip, number)] = Server(self.balancing, targets)

    def _bind(self, ip: str) -> None:
        self.addresses.add(ip)
        self._add(IpSet.IPVS_IPS, ip)

    def _serve_external(self, ip: str) -> None:
        self._serve(ip, self.port.port, self.external)
        if ip not in self.node.addresses:
            self._bind(ip)

    def _load_balancer(self, ip: str) -> None:
        entry = self._entry(ip)
        self._add(IpSet.LOAD_BALANCER, entry)
        if self.port.external_local:
            self._add(IpSet.LOAD_BALANCER_LOCAL, entry)
        if self.port.source_ranges:
            self._add(IpSet.LOAD_BALANCER_FW, entry)
            self._source_ranges(ip, entry)
        self._serve_external(ip)

    def _source_ranges(self, ip: str, entry: str) -> None:
        node = ipaddress.ip_address(self.node.node_ip) if self.node.node_ip else None
        allowed = False
        for text in self.port.source_ranges:
            network = ipaddress.ip_network(text)
            allowed = allowed or (node is not None and node in network)
            # A set cannot hold a network of prefix length 0, but it can hold both halves of it.
            for part in network.subnets() if network.prefixlen == 0 else (network,):
                self._add(IpSet.LOAD_BALANCER_SOURCE_CIDR, f"{entry},{_network(part)}")
        if allowed:
            # A load balancer on the node's own network may send with its virtual address.
            self._add(IpSet.LOAD_BALANCER_SOURCE_IP, f"{entry},{ip}")
        else:
            self.barred.add(Front(self.proto, ip, self.port.port))

    def _node_port(self) -> None:
        number, where = self.port.node_port, node_port_addresses(self.node)
        if not number or not where:
            return
        every, local = NODE_PORT_SETS[self.proto]
        for ipset in (every, local) if self.port.external_local else (every,):
            for ip in where:
                self._add(ipset, f"{ip},sctp:{number}" if self.proto == "sctp" else str(number))
        for ip in where:
            self._serve(ip, number, self.external)


def _targets(endpoints: Iterable[Endpoint]) -> tuple[str, ...]:
    return tuple(endpoint.target for endpoint in endpoints)


def _network(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    """As `ipset save` prints it: a single host without its prefix length."""
    return str(network) if network.prefixlen < network.max_prefixlen else str(network.network_address)
