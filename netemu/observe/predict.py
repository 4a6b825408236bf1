"""What ought to become of a connection in the whole cluster, from API objects and the plan of the network alone.

Theory of operation. A packet is followed as the network would carry it: from its sender to a node, whose rules `oracle`
judges; on to an endpoint, or by routes to another node, which judges again, or to the router, which knows nodes, Pods'
ranges, clients and the load balancer's pools. Wherever there is a choice (endpoints, nodes behind a load balancer)
every branch is followed, so the result is a set of endings. What changes a packet is noted with its node: an answer
must come past the same nodes in reverse, or its receiver does not know it. An endpoint of a Service is believed to
answer if it counts as ready; what is reached directly, if a Pod declares the port or an EndpointSlice has it.

Masquerade takes an address of the link that the packet leaves by: the Pods' gateway on the way to a Pod of the same
node, the node's own on all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from netemu.model.hosts import endpoint_text
from netemu.observe.addresses import inside
from netemu.observe.cluster import Cluster, HostPort, Machine, PodPlace, Port, Sender, of_family
from netemu.observe.oracle import Judgement, Origin, Source, judge
from netemu.observe.reasons import Reason
from netemu.observe.service_ports import reached_at

_LOOPBACK = ("127.0.0.0/8", "::1/128")


class Outcome(StrEnum):
    """What whoever connects sees."""

    ANSWERED = "answered"
    REFUSED = "refused"
    DROPPED = "dropped"
    UNREACHABLE = "unreachable"


class Step(Struct, frozen=True):
    """A node judged a packet."""

    node: str
    verdict: str
    reason: Reason
    words: str


class Ending(Struct, frozen=True):
    """One thing that may happen. `endpoint` and `source`: who answers, and the address that he sees."""

    outcome: Outcome
    reason: Reason
    words: str
    endpoint: str = ""
    server: str = ""
    """The Pod (NAMESPACE/NAME), node or client behind the endpoint, where that is known."""
    source: str = ""
    steps: tuple[Step, ...] = ()


class Prediction(Struct, frozen=True):
    """All that may happen to a connection; `source` is the address that it is sent with."""

    sender: str
    destination: str
    port: int
    protocol: str
    source: str
    endings: tuple[Ending, ...]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What may happen, the best first; more than one where it depends on the endpoint or node that is chosen."""
        return tuple(one for one in Outcome if any(ending.outcome is one for ending in self.endings))

    @property
    def answers(self) -> tuple[Ending, ...]:
        """The endings with an answer."""
        return tuple(ending for ending in self.endings if ending.outcome is Outcome.ANSWERED)

    @property
    def endpoints(self) -> frozenset[str]:
        """Who may answer, as `ip:port`."""
        return frozenset(ending.endpoint for ending in self.answers)

    @property
    def reason(self) -> Reason:
        """Of the worst that may happen: what somebody would ask about."""
        return self._worst.reason

    @property
    def words(self) -> str:
        """The same in words."""
        return self._worst.words

    @property
    def _worst(self) -> Ending:
        return next(ending for ending in self.endings if ending.outcome is self.outcomes[-1])


def predict(cluster: Cluster, sender: Sender, destination: str, port: int, protocol: str = "TCP") -> Prediction:
    """What becomes of a connection. The destination is an address in canonical text."""
    walk = _Walk(cluster, protocol)
    source = walk.source(sender, destination)
    endings = dict.fromkeys(walk.begin(sender, source, destination, port))
    return Prediction(sender.name, destination, port, protocol, source, tuple(endings))


class _Change(Struct, frozen=True):
    """A node has changed a packet that had this source."""

    node: str
    source: str


class _Packet(Struct, frozen=True):
    source: str
    destination: str
    port: int
    steps: tuple[Step, ...] = ()
    changes: tuple[_Change, ...] = ()
    reason: Reason = Reason.DIRECT
    seen: frozenset[tuple[str, str, str, str]] = frozenset()
    """Where it has been, by which link it came, and its source and destination there."""

    def was_at(self, place: str, interface: str = "") -> bool:
        """Whether it has been there, as it is now."""
        return (place, interface, self.source, self.destination) in self.seen

    def noted(self, place: str, interface: str = "") -> _Packet:
        """It is there."""
        return replace(self, seen=self.seen | {(place, interface, self.source, self.destination)})

    @property
    def words(self) -> str:
        """What nodes have said of it, where it had anything to do with a Service."""
        return "; ".join(f"{step.node}: {step.words}" for step in self.steps if step.reason is not Reason.NO_SERVICE)


class _Walk:
    def __init__(self, cluster: Cluster, protocol: str) -> None:
        self._cluster, self._protocol = cluster, protocol

    def source(self, sender: Sender, destination: str) -> str:
        """The address that the sender's kernel puts in, "" if it has none of the family."""
        own = sender.address(destination)
        if inside(destination, _LOOPBACK):
            return "::1" if ":" in destination else "127.0.0.1"
        if destination in sender.addresses:
            return destination
        if not sender.is_node or not own:
            return own
        machine = self._cluster.nodes[sender.node]
        services = self._cluster.services_at(0, destination)
        if machine.view.owns(destination) or (machine.settings.mode == "ipvs" and reached_at(services, destination)):
            return destination
        return self._leaving(sender.node, destination)

    def begin(self, sender: Sender, source: str, destination: str, port: int) -> Iterator[Ending]:
        """Everything that may happen."""
        packet = _Packet(source, destination, port)
        if not source:
            yield _end(packet, Outcome.UNREACHABLE, Reason.NO_ADDRESS, f"{sender.name} has no address of that family")
        elif sender.is_node:
            yield from self._at_node(sender.node, packet, Source(Origin.NODE, source))
        elif source == destination or inside(destination, _LOOPBACK):
            yield self._served(packet, self._own_ports(sender), sender.name, sender.node)
        elif sender.node:
            yield from self._at_node(sender.node, packet, Source(Origin.POD_HERE, source, "veth"))
        else:
            yield from self._at_router(packet)

    # --- on the way ---------------------------------------------------------------------------------------------

    def _at_node(self, name: str, packet: _Packet, source: Source) -> Iterator[Ending]:
        """Rules decide."""
        if packet.was_at(name, source.interface):
            yield _end(packet, Outcome.UNREACHABLE, Reason.LOOP, f"it goes in circles past {name}")
            return
        packet, machine = packet.noted(name, source.interface), self._cluster.nodes[name]
        if source.interface and machine.view.owns(packet.source) and ":" not in packet.source:
            yield _end(packet, Outcome.DROPPED, Reason.FORGED, _forgery(name))
            return
        if packet.destination in machine.caches and packet.port == 53:
            yield self._served(packet, frozenset({(53, self._protocol)}), f"node/{name}", name)
            return
        said = self._judge(machine, packet, source)
        packet = replace(packet, steps=(*packet.steps, Step(name, said.verdict, said.code, said.reason)))
        match said.verdict:
            case "drop":
                yield _end(packet, Outcome.DROPPED, said.code)
            case "reject":
                yield _end(packet, Outcome.REFUSED, said.code)
            case "dnat":
                for target in sorted(said.endpoints):
                    changed = self._translated(name, packet, target, masquerade=target in said.masqueraded)
                    yield from self._route(name, replace(changed, reason=said.code), source)
            case _:
                yield from self._untouched(name, packet, source)

    def _judge(self, machine: Machine, packet: _Packet, source: Source) -> Judgement:
        services = self._cluster.services_at(packet.port, packet.destination, packet.source)
        slices = self._cluster.slices_of(services)
        to = packet.destination
        return judge(services, slices, machine.view, machine.settings, source, to, packet.port, self._protocol)

    def _untouched(self, name: str, packet: _Packet, source: Source) -> Iterator[Ending]:
        """No Service: a host port, or where routes lead."""
        if self._cluster.nodes[name].view.owns(packet.destination):
            for pod, host_port in self._host_ports(name, packet):
                target = endpoint_text(of_family(pod.addresses, packet.destination), host_port.container_port)
                own = packet.source in pod.addresses or inside(packet.source, _LOOPBACK)
                changed = self._translated(name, packet, target, masquerade=own)
                yield from self._route(name, replace(changed, reason=Reason.HOST_PORT), source)
                return
        yield from self._route(name, packet, source)

    def _host_ports(self, name: str, packet: _Packet) -> Iterator[tuple[PodPlace, HostPort]]:
        for pod in self._cluster.pods:
            for each in pod.host_ports if pod.node == name and of_family(pod.addresses, packet.destination) else ():
                same = (each.port, each.protocol) == (packet.port, self._protocol)
                if same and each.address in ("", packet.destination):
                    yield pod, each

    def _translated(self, name: str, packet: _Packet, target: str, *, masquerade: bool) -> _Packet:
        ip, _, port = target.rpartition(":")
        ip = ip.strip("[]")
        source = self._leaving(name, ip) if masquerade else packet.source
        changes = (*packet.changes, _Change(name, packet.source))
        return replace(packet, source=source, destination=ip, port=int(port), changes=changes)

    def _leaving(self, name: str, destination: str) -> str:
        """The address of the link by which a node sends there."""
        machine, pod = self._cluster.nodes[name], self._cluster.pod_at(destination)
        gateway = of_family(machine.gateways, destination)
        return gateway if pod and pod.node == name and gateway else machine.view.primary(destination)

    def _route(self, name: str, packet: _Packet, source: Source) -> Iterator[Ending]:
        """A node passes a packet on, or keeps it."""
        to, machine, pod = packet.destination, self._cluster.nodes[name], self._cluster.pod_at(packet.destination)
        if machine.view.owns(to):
            own = source.origin is not Origin.NODE and machine.view.owns(packet.source)
            yield self._served(packet, self._node_ports(name), f"node/{name}", name, forged=own)
        elif pod and pod.node == name:
            forged = packet.source in pod.addresses
            yield self._served(packet, pod.ports, pod.name, name, forged=forged)
        elif inside(to, machine.view.pod_cidrs):
            yield _end(packet, Outcome.UNREACHABLE, Reason.NO_ROUTE, f"no Pod of {name} has {to}")
        elif other := self._cluster.node_of(to):
            yield from self._at_node(other, packet, self._arriving(packet))
        else:
            yield from self._at_router(packet)

    def _at_router(self, packet: _Packet) -> Iterator[Ending]:
        """The network between nodes and clients. It sends packets of one connection the same way each time."""
        to, cluster = packet.destination, self._cluster
        if packet.was_at(cluster.router.name):
            yield _end(packet, Outcome.UNREACHABLE, Reason.LOOP, f"nobody takes {to}, and routes lead in a circle")
            return
        packet = packet.noted(cluster.router.name)
        outside = next((host for host in (*cluster.clients, cluster.router) if to in host.addresses), None)
        if name := cluster.node_of(to):
            yield from self._at_node(name, packet, self._arriving(packet))
        elif outside:
            yield self._served(packet, outside.listening, outside.name, "")
        elif inside(to, cluster.pools):
            for way in cluster.ways(to):
                yield from self._at_node(way, packet, self._arriving(packet))
        else:
            yield _end(packet, Outcome.UNREACHABLE, Reason.NO_ROUTE, f"no route leads to {to}, or nobody has it")

    def _arriving(self, packet: _Packet) -> Source:
        origin = Origin.POD_ELSEWHERE if self._cluster.is_pod_address(packet.source) else Origin.OUTSIDE
        return Source(origin, packet.source, "eth0")

    # --- at the end ---------------------------------------------------------------------------------------------

    def _served(
        self, packet: _Packet, ports: frozenset[Port], server: str, node: str, *, forged: bool = False
    ) -> Ending:
        """Somebody has the address; whether he answers, and whether the answer arrives.

        `forged`: the packet came in by a link with an address of the server's own.
        """
        endpoint = endpoint_text(packet.destination, packet.port)
        if forged and ":" not in packet.source:
            return _end(packet, Outcome.DROPPED, Reason.FORGED, _forgery(server))
        # Of IPv6 nobody minds, and the answer stays where it is.
        astray = f"{server} sees its own address, and answers itself" if forged else self._astray(packet, node)
        if astray:
            return _end(packet, Outcome.DROPPED, Reason.ANSWER_ASTRAY, astray)
        listens = packet.changes or (packet.port, self._protocol) in ports
        if not listens and f"{endpoint}/{self._protocol}" not in self._cluster.endpoints:
            why = f"nothing says that {server} listens on {packet.port}/{self._protocol}"
            return _end(packet, Outcome.REFUSED, Reason.NOT_LISTENING, why)
        answered = _end(packet, Outcome.ANSWERED, packet.reason, "" if packet.words else f"{server} itself")
        return replace(answered, endpoint=endpoint, server=server, source=packet.source)

    def _astray(self, packet: _Packet, node: str) -> str:
        """Why the answer is not known to the sender; "" if it is. `node`: where the server is, "" outside."""
        at, to = node, packet.source
        for change in reversed(packet.changes):
            if change.node not in (at, self._cluster.node_of(to)):
                return f"the answer goes to {to} without passing {change.node}, which would translate it back"
            at, to = change.node, change.source
        return ""

    def _own_ports(self, sender: Sender) -> frozenset[Port]:
        if sender.node:
            return next((pod.ports for pod in self._cluster.pods if pod.name == sender.name), frozenset())
        return next((host.listening for host in self._cluster.clients if host.name == sender.name), frozenset())

    def _node_ports(self, name: str) -> frozenset[Port]:
        """Where a node answers: its own processes, Pods of its network, and health checks of Services."""
        of_pods = (pod.ports for pod in self._cluster.pods if pod.host_network and pod.node == name)
        checks = {(each.spec.health_check_node_port, "TCP") for each in self._cluster.services}
        return self._cluster.nodes[name].listening.union(checks - {(0, "TCP")}, *of_pods)


def _forgery(where: str) -> str:
    return f"{where} takes a packet that comes from its own address for a forgery"


def _end(packet: _Packet, outcome: Outcome, reason: Reason, why: str = "") -> Ending:
    words = "; ".join(part for part in (packet.words, why) if part)
    return Ending(outcome, reason, words, source=packet.source, steps=packet.steps)
