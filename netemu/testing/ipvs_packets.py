"""Where a packet goes on a node in ipvs mode: by iptables rules, by the sets they match on, and by IPVS.

The order of hooks is the kernel's. A packet from outside passes nat PREROUTING, then, where its address is one of this
machine, filter INPUT, and only then meets IPVS; one that this node sends passes nat OUTPUT and meets IPVS at once. What
IPVS has translated passes filter OUTPUT and nat POSTROUTING, but for endpoints on this very machine, which get it as it
is. As in `packets`, only first packets of connections are traced, and a rule that the tracer does not know fails it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace

from netemu.model.protocols import WITH_PORTS
from netemu.testing.packets import Chains, Fate, Node, Packet, State


@dataclass(frozen=True)
class IpvsNode:
    """A node's tables, sets, virtual servers and addresses."""

    tables: Mapping[str, Chains]
    sets: Mapping[str, tuple[str, Container[str]]]
    """By name: type and entries, as `ipset save` prints them."""
    servers: Mapping[tuple[str, str, int], Mapping[str, int]]
    """By protocol, address and port: weights by `ip:port`."""
    addresses: frozenset[str] = frozenset()
    """The node's own."""
    bound: frozenset[str] = frozenset()
    """What is on kube-ipvs0."""
    persistent: Mapping[tuple[str, str, int], str] = field(default_factory=dict)
    """Real servers that virtual servers remember for the packet's source."""

    def trace(self, packet: Packet) -> Fate:
        """The fate of the packet; with several real servers all of them are possible. They must agree on the rest.

        An empty source of a packet that this node sends stands for what the kernel chooses: the address it goes to
        where that is on kube-ipvs0, else the first of the node's own.
        """
        if not packet.source:
            own = packet.destination if packet.destination in self.bound else min(self.addresses)
            packet = replace(packet, source=own)
        outcomes = set(self._paths(packet))
        verdicts = {(verdict, masquerade) for verdict, _, masquerade in outcomes}
        if len(verdicts) != 1:
            raise AssertionError(f"chance decides over more than the endpoint: {sorted(outcomes)}")
        ((verdict, masquerade),) = verdicts
        return Fate(verdict, frozenset(target for _, target, _ in outcomes if target), masquerade)

    def _paths(self, packet: Packet) -> Iterator[tuple[str, str, bool]]:
        node = Node(self.tables, self.addresses | self.bound, sets=self.sets)
        comes_in, to_here = bool(packet.interface), node.is_local(packet.destination)
        if comes_in and node.is_local(packet.source):
            # Routing drops what comes from outside with an address of this machine (a "martian").
            yield "drop", "", False
            return
        (state,) = node.walk("nat", "PREROUTING" if comes_in else "OUTPUT", State(packet))
        front = (packet.protocol, packet.destination, packet.port)
        if front in self.servers and (to_here or not comes_in):
            if comes_in and (verdict := self._passes(node, state, "INPUT")) != "accept":
                yield verdict, "", False
                return
            yield from self._balance(node, state, front)
            return
        hooks = (["INPUT"] if to_here else ["FORWARD"]) if comes_in else ["OUTPUT", *(["INPUT"] if to_here else [])]
        for hook in hooks:
            if (verdict := self._passes(node, state, hook)) != "accept":
                yield verdict, "", False
                return
        # What is delivered here does not leave: whichever of its addresses the node talks to itself from is its own.
        yield "accept", "", not to_here and self._masqueraded(node, state)

    def _balance(self, node: Node, state: State, front: tuple[str, str, int]) -> Iterator[tuple[str, str, bool]]:
        weights = self.servers[front]
        targets = [target for target, weight in weights.items() if weight]
        kept = self.persistent.get(front)
        if kept in targets:
            targets = [kept]
        if not targets:
            yield "reject", "", False
        protocol, address, port = front
        for target in targets:
            ip, _, number = target.rpartition(":")
            packet = replace(state.packet, destination=ip.strip("[]"), port=int(number))
            sent = replace(state, packet=packet, virtual=(WITH_PORTS[protocol], address, port), done=False)
            if node.is_local(packet.destination) and packet.interface:
                yield "dnat", target, False
            elif (verdict := self._passes(node, sent, "OUTPUT")) != "accept":
                yield verdict, "", False
            else:
                yield "dnat", target, self._masqueraded(node, sent)

    def _passes(self, node: Node, state: State, hook: str) -> str:
        (end,) = node.walk("filter", hook, replace(state, done=False))
        return end.verdict

    def _masqueraded(self, node: Node, state: State) -> bool:
        return any(end.masquerade for end in node.walk("nat", "POSTROUTING", replace(state, done=False)))
