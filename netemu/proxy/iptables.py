"""iptables mode, the compiler: a service port and its endpoints to chains and rules.

Theory of operation (`pkg/proxy/iptables/proxier.go`): each service port owns chains in table nat,

    KUBE-SVC-x  one of all endpoints          KUBE-SVL-x  one of this node's endpoints
    KUBE-EXT-x  traffic from outside          KUBE-FW-x   who may use the load balancer's addresses
    KUBE-SEP-y  DNAT to one endpoint

and adds rules to chains that all share (KUBE-SERVICES, KUBE-NODEPORTS, ...). Everything here is pure. Rules are written
exactly as `iptables-save` prints them, so that what is wanted and what is there can be compared as text.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from netemu.proxy.endpoints import Chosen, Endpoint, choose
from netemu.proxy.facts import Detector, NodeFacts
from netemu.proxy.rulefiles import Place
from netemu.proxy.services import Family, ServicePort

NAT_SERVICES = ("nat", "KUBE-SERVICES")
NAT_NODE_PORTS = ("nat", "KUBE-NODEPORTS")
FILTER_SERVICES = ("filter", "KUBE-SERVICES")
EXTERNAL_SERVICES = ("filter", "KUBE-EXTERNAL-SERVICES")
FILTER_NODE_PORTS = ("filter", "KUBE-NODEPORTS")
PROXY_FIREWALL = ("filter", "KUBE-PROXY-FIREWALL")
SHARED = (FILTER_SERVICES, EXTERNAL_SERVICES, FILTER_NODE_PORTS, PROXY_FIREWALL, NAT_SERVICES, NAT_NODE_PORTS)
"""Chains that every service port may add to."""

PORT_CHAIN_PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-", "KUBE-XLB-")
"""Chains of table nat that belong to one service port; XLB is what releases before 1.24 called EXT."""

LARGE_CLUSTER = 1000
"""With more endpoints than that, rules per endpoint go without a comment."""

_MARK_MASQ = "-j KUBE-MARK-MASQ"


@dataclass(frozen=True, slots=True)
class Compiled:
    """The rules of one service port."""

    chains: Mapping[str, tuple[str, ...]]
    """Chains in table nat of its own."""
    shared: Mapping[Place, tuple[str, ...]]
    """Rules it adds to shared chains."""
    no_local_internal: bool = False
    no_local_external: bool = False
    """Whether a Local policy finds no endpoint here though there are some elsewhere (two of upstream's gauges)."""
    endpoints: int = 0
    """How many there are, used here or not."""


def source_matches(detector: Detector) -> tuple[str, str]:
    """Options that match Pods' traffic, and all other; both empty where it cannot be told."""
    match = ""
    if detector.network:
        match = f"-s {detector.network}"
    elif detector:
        match = f"-i {detector.interface_name or detector.interface_prefix + '+'}"
    return match, f"! {match}" if match else ""


@lru_cache(maxsize=4096)
def suffix(text: str) -> str:
    """`portProtoHash`: base32 of the sha256, 16 characters. All nodes of a lab ask for the same."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:16]


def endpoint_chain(port: ServicePort, endpoint: Endpoint) -> str:
    """Name of the chain that translates to one endpoint of one service port."""
    return "KUBE-SEP-" + suffix(port.key.text + port.protocol + endpoint.target)


def compile_port(
    port: ServicePort, endpoints: Iterable[Endpoint], node: NodeFacts, *, comments: bool = True
) -> Compiled:
    """Every rule of one service port. Same input, same rules, whatever order the endpoints come in."""
    known = tuple(endpoints)
    compiled = _Port(port, choose(port, known, node.labels, node.name), node, comments).compile()
    return replace(compiled, endpoints=len(known))


def node_port_tail(node: NodeFacts) -> tuple[str, ...]:
    """Last rules of nat KUBE-SERVICES: which addresses lead to node ports."""
    note = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
    jump = f'-m comment --comment "{note}"'
    networks = [ipaddress.ip_network(n) for n in node.node_port_networks]
    ipv4 = node.family is Family.IPV4
    if not networks or any(n.prefixlen == 0 for n in networks):
        except_loopback = ("" if node.localhost_node_ports else "! -d 127.0.0.0/8 ") if ipv4 else "! -d ::1/128 "
        return (f"{except_loopback}{jump} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",)
    chosen = []
    for text in node.addresses:
        address = ipaddress.ip_address(text)
        usable = not address.is_loopback or (ipv4 and node.localhost_node_ports)
        if usable and any(address in network for network in networks):
            chosen.append(text)
    return tuple(f"-d {ip}/{node.family.bits} {jump} -j KUBE-NODEPORTS" for ip in chosen)


def assemble(compiled: Iterable[Compiled], tail: tuple[str, ...]) -> dict[Place, tuple[str, ...]]:
    """The content of the shared chains, ports in the order given."""
    rules: dict[Place, list[str]] = {place: [] for place in SHARED}
    for one in compiled:
        for place, lines in one.shared.items():
            rules[place].extend(lines)
    rules[NAT_SERVICES].extend(tail)
    return {place: tuple(lines) for place, lines in rules.items()}


class _Port:
    """Compiles one service port; splits what would be one long function, and lives for one call."""

    def __init__(self, port: ServicePort, chosen: Chosen, node: NodeFacts, comments: bool) -> None:
        self.port, self.chosen, self.node, self.comments = port, chosen, node, comments
        self.if_local, self.if_not_local = source_matches(node.detector)
        self.text, self.proto, self.bits = port.key.text, port.protocol, node.family.bits
        tail = suffix(self.text + self.proto)
        self.svc, self.svl, self.ext, self.fw = (f"KUBE-{kind}-{tail}" for kind in ("SVC", "SVL", "EXT", "FW"))
        self.internal_chain = self.svl if port.internal_local else self.svc
        self.external_chain = self.svl if port.external_local else self.svc
        self.has_internal = chosen.any and not (port.internal_local and not chosen.local)
        self.has_external = chosen.any and not (port.external_local and not chosen.local)
        self.has_ext = chosen.any and port.externally_accessible
        self.has_fw = chosen.any and bool(port.load_balancer_ips and port.source_ranges)
        self.chains: dict[str, tuple[str, ...]] = {}
        self.shared: dict[Place, list[str]] = {}

    def compile(self) -> Compiled:
        self._cluster_ip()
        self._external_ips()
        self._load_balancer_ips()
        self._node_port()
        self._own_chains()
        port, chosen = self.port, self.chosen
        lonely = chosen.any and not chosen.local
        return Compiled(
            self.chains,
            {place: tuple(lines) for place, lines in self.shared.items()},
            no_local_internal=port.internal_local and lonely,
            no_local_external=port.external_local and port.externally_accessible and lonely,
        )

    def _add(self, place: Place, rule: str) -> None:
        self.shared.setdefault(place, []).append(rule)

    def _match(self, comment: str, *, ip: str = "", port: int, before: str = "") -> str:
        """Destination, protocol and port in the order in which iptables-save prints them."""
        to = f"-d {ip}/{self.bits} " if ip else ""
        kind = " -m addrtype --dst-type LOCAL" if before else ""
        return f'{to}-p {self.proto} -m comment --comment "{comment}"{kind} -m {self.proto} --dport {port}'

    def _refusal(self) -> tuple[str, str]:
        """Why there is nothing to go to, and what happens then: endpoints elsewhere mean silence, none an answer."""
        if self.chosen.any:
            return f"{self.text} has no local endpoints", "-j DROP"
        kind = "icmp-port-unreachable" if self.node.family is Family.IPV4 else "icmp6-port-unreachable"
        return f"{self.text} has no endpoints", f"-j REJECT --reject-with {kind}"

    def _cluster_ip(self) -> None:
        port = self.port
        if self.has_internal:
            match = self._match(f"{self.text} cluster IP", ip=port.cluster_ip, port=port.port)
            self._add(NAT_SERVICES, f"{match} -j {self.internal_chain}")
        else:
            why, target = self._refusal()
            self._add(FILTER_SERVICES, f"{self._match(why, ip=port.cluster_ip, port=port.port)} {target}")

    def _external_ips(self) -> None:
        for ip in self.port.external_ips:
            if self.chosen.any:
                match = self._match(f"{self.text} external IP", ip=ip, port=self.port.port)
                self._add(NAT_SERVICES, f"{match} -j {self.ext}")
            self._refuse_external(ip)

    def _load_balancer_ips(self) -> None:
        number, target = self.port.port, self.fw if self.has_fw else self.ext
        for ip in self.port.load_balancer_ips:
            if self.chosen.any:
                match = self._match(f"{self.text} loadbalancer IP", ip=ip, port=number)
                self._add(NAT_SERVICES, f"{match} -j {target}")
            if self.has_fw:
                match = self._match(f"{self.text} traffic not accepted by {self.fw}", ip=ip, port=number)
                self._add(PROXY_FIREWALL, f"{match} -j DROP")
        for ip in self.port.load_balancer_ips:
            self._refuse_external(ip)

    def _refuse_external(self, ip: str) -> None:
        if not self.has_external:
            why, target = self._refusal()
            self._add(EXTERNAL_SERVICES, f"{self._match(why, ip=ip, port=self.port.port)} {target}")

    def _node_port(self) -> None:
        if number := self.port.node_port:
            if self.chosen.any:
                self._add(NAT_NODE_PORTS, f"{self._match(self.text, port=number)} -j {self.ext}")
            if not self.has_external:
                why, target = self._refusal()
                self._add(EXTERNAL_SERVICES, f"{self._match(why, port=number, before='local')} {target}")
        if health := self.port.health_check_node_port:
            comment = f"{self.text} health check node port"
            rule = f'-p tcp -m comment --comment "{comment}" -m tcp --dport {health} -j ACCEPT'
            self._add(FILTER_NODE_PORTS, rule)

    # --- chains of its own

    def _own_chains(self) -> None:
        masquerade = self._masquerade_cluster_ip()
        if self.chosen.cluster:
            head = masquerade if self.internal_chain == self.svc else ()
            self.chains[self.svc] = (*head, *self._spread(self.chosen.cluster))
        if self.chosen.local:
            head = masquerade if self.internal_chain == self.svl else ()
            self.chains[self.svl] = (*head, *self._spread(self.chosen.local))
        if self.has_ext:
            self.chains[self.ext] = tuple(self._external())
        if self.has_fw:
            self.chains[self.fw] = tuple(self._firewall())
        for endpoint in self.chosen.reachable:
            self.chains[endpoint_chain(self.port, endpoint)] = self._translate(endpoint)

    def _masquerade_cluster_ip(self) -> tuple[str, ...]:
        """The rule about sources that could not be answered otherwise: those outside of the Pod network."""
        source = "" if self.node.masquerade_all else self.if_not_local
        if not self.has_internal or not (source or self.node.masquerade_all):
            return ()
        match = self._match(f"{self.text} cluster IP", ip=self.port.cluster_ip, port=self.port.port)
        return (f"{with_source(source, match)} {_MARK_MASQ}",)

    def _external(self) -> Iterator[str]:
        about = f"for {self.text} external destinations"
        if not self.port.external_local:
            yield f'-m comment --comment "masquerade traffic {about}" {_MARK_MASQ}'
        else:
            # Pods of the cluster and this node itself are as good as inside: any endpoint will do for them.
            if pods := self.if_local:
                yield f'{pods} -m comment --comment "pod traffic {about}" -j {self.svc}'
            here = "-m addrtype --src-type LOCAL"
            yield f'-m comment --comment "masquerade LOCAL traffic {about}" {here} {_MARK_MASQ}'
            yield f'-m comment --comment "route LOCAL traffic {about}" {here} -j {self.svc}'
        if self.has_external:
            yield f"-j {self.external_chain}"

    def _firewall(self) -> Iterator[str]:
        allow = f'-m comment --comment "{self.text} loadbalancer IP" -j {self.ext}'
        node = ipaddress.ip_address(self.node.node_ip) if self.node.node_ip else None
        node_allowed = False
        for network in self.port.source_ranges:
            # The kernel has no match for "every source", so the tool prints none.
            yield f"-s {network} {allow}" if not network.endswith("/0") else allow
            node_allowed = node_allowed or (node is not None and node in ipaddress.ip_network(network))
        if node_allowed:
            # A load balancer on the node's own network may send with its virtual address.
            yield from (f"-s {ip}/{self.bits} {allow}" for ip in self.port.load_balancer_ips)
        yield f'-m comment --comment "other traffic to {self.text} will be dropped by KUBE-PROXY-FIREWALL"'

    def _comment(self, text: str) -> str:
        return f'-m comment --comment "{text}" ' if self.comments else ""

    def _spread(self, endpoints: tuple[Endpoint, ...]) -> Iterator[str]:
        """A client's former endpoint if affinity remembers one, else each with the same chance."""
        named = [(endpoint_chain(self.port, e), self._comment(f"{self.text} -> {e.target}")) for e in endpoints]
        if seconds := self.port.affinity_seconds:
            for chain, comment in named:
                yield f"{comment}-m recent --rcheck --seconds {seconds} --reap {self._recent(chain)} -j {chain}"
        for index, (chain, comment) in enumerate(named):
            left = len(named) - index
            chance = f"-m statistic --mode random --probability {probability(left)} " if left > 1 else ""
            yield f"{comment}{chance}-j {chain}"

    def _translate(self, endpoint: Endpoint) -> tuple[str, ...]:
        note, chain = self._comment(self.text), endpoint_chain(self.port, endpoint)
        remember = f"-m recent --set {self._recent(chain)} " if self.port.affinity_seconds else ""
        return (
            # An endpoint that reaches itself must be answered by way of this node, or it would not know the answer.
            f"-s {endpoint.ip}/{self.bits} {note}{_MARK_MASQ}",
            f"-p {self.proto} {note}{remember}-m {self.proto} -j DNAT --to-destination {endpoint.target}",
        )

    def _recent(self, chain: str) -> str:
        mask = ipaddress.ip_network(f"{'0.0.0.0' if self.bits == 32 else '::'}/{self.bits}").netmask
        full = mask.exploded if self.bits == 128 else str(mask)
        return f"--name {chain} --mask {full} --rsource"


def with_source(source: str, rule: str) -> str:
    """A source or interface match where iptables-save prints it: sources first, interfaces behind `-d`."""
    if not source.startswith(("-i", "! -i")) or not rule.startswith("-d "):
        return f"{source} {rule}" if source else rule
    flag, address, rest = rule.split(" ", 2)
    return f"{flag} {address} {source} {rest}"


@cache
def probability(n: int) -> str:
    """1/n as the kernel keeps it (31 bits of the 10 digits that upstream writes) and iptables-save prints it."""
    return f"{round(float(f'{1 / n:.10f}') * 0x80000000) / 0x80000000:.11f}"
