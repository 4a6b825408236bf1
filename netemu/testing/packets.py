"""Where a packet goes by the rules that a set of tables holds.

The tracer reads the rules; a match or target that it does not know fails the trace, so that no test passes by
overlooking a rule. Only first packets of connections are traced (conntrack state NEW), as only they consult nat.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

Chains = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection. `interface` is where it comes in; "" means this node sends it."""

    source: str
    destination: str
    port: int
    protocol: str = "tcp"
    interface: str = "eth0"
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Fate:
    """`verdict` is dnat, accept, reject or drop; `destinations` are the possible translations, `ip:port`."""

    verdict: str
    destinations: frozenset[str] = frozenset()
    masquerade: bool = False


@dataclass(frozen=True)
class Node:
    """What a node knows besides rules. `remembered` are lists of xt_recent that hold the packet's source."""

    tables: Mapping[str, Chains]
    addresses: frozenset[str] = frozenset()
    remembered: frozenset[str] = frozenset()
    sets: Mapping[str, tuple[str, Container[str]]] = field(default_factory=dict)
    """ipsets by name: the type, and the entries as `ipset save` prints them."""

    def trace(self, packet: Packet) -> Fate:
        """The fate of the packet; with several endpoints all of them are possible. They must agree on the rest."""
        outcomes = set(self._paths(packet))
        verdicts = {(verdict, masquerade) for verdict, _, masquerade in outcomes}
        if len(verdicts) != 1:
            raise AssertionError(f"chance decides over more than the endpoint: {sorted(outcomes)}")
        ((verdict, masquerade),) = verdicts
        return Fate(verdict, frozenset(d for _, d, _ in outcomes if d), masquerade)

    def _paths(self, packet: Packet) -> Iterator[tuple[str, str, bool]]:
        hook = "PREROUTING" if packet.interface else "OUTPUT"
        for state in self.walk("nat", hook, State(packet)):
            verdict = self._filter(state)
            if verdict != "accept":
                yield verdict, "", False
                continue
            leaving = (
                () if self._ends_here(state.packet) else self.walk("nat", "POSTROUTING", replace(state, done=False))
            )
            masquerade = any(s.masquerade for s in leaving)
            yield ("dnat" if state.dnat else "accept"), state.dnat, masquerade

    def _filter(self, state: State) -> str:
        to_here = self.is_local(state.packet.destination)
        hooks = ["OUTPUT"] if not state.packet.interface else ["INPUT"] if to_here else ["FORWARD"]
        if not state.packet.interface and to_here:
            hooks.append("INPUT")
        for hook in hooks:
            (end,) = self.walk("filter", hook, replace(state, done=False))
            if end.verdict != "accept":
                return end.verdict
        return "accept"

    def _ends_here(self, packet: Packet) -> bool:
        """Whether a packet that came in is delivered, past POSTROUTING; what the node sends itself passes there."""
        return bool(packet.interface) and self.is_local(packet.destination)

    def is_local(self, address: str) -> bool:
        """Whether an address is this node's own."""
        return address in self.addresses or ipaddress.ip_address(address).is_loopback

    def walk(self, table: str, chain: str, state: State) -> Iterator[State]:
        """Every state in which the packet can leave a chain."""
        states = [state]
        for rule in self.tables[table][chain]:
            following: list[State] = []
            for current in states:
                if current.done or current.returned:
                    following.append(current)
                else:
                    following.extend(self._rule(table, _Rule.parse(rule), current))
            states = following
        for end in states:
            yield replace(end, returned=False)

    def _rule(self, table: str, rule: _Rule, state: State) -> Iterator[State]:
        chance = rule.probability
        if not all(match(self, state) for match in rule.matches):
            yield state
            return
        if chance < 1:
            yield state
        if chance > 0:
            yield from self._target(table, rule, state)

    def _target(self, table: str, rule: _Rule, state: State) -> Iterator[State]:
        match rule.target:
            case "":
                yield state
            case "RETURN":
                yield replace(state, returned=True)
            case "ACCEPT" | "DROP" | "REJECT":
                yield replace(state, done=True, verdict=rule.target.lower())
            case "MASQUERADE":
                yield replace(state, done=True, masquerade=True)
            case "MARK":
                value, _, mask = rule.option("--set-xmark").partition("/")
                mark = state.packet.mark & ~int(mask, 16) ^ int(value, 16)
                yield replace(state, packet=replace(state.packet, mark=mark))
            case "DNAT":
                to = rule.option("--to-destination")
                ip, _, port = to.rpartition(":")
                packet = replace(state.packet, destination=ip.strip("[]"), port=int(port))
                yield replace(state, done=True, dnat=to, packet=packet)
            case chain if chain in self.tables[table]:
                yield from self.walk(table, chain, state)
            case other:
                raise AssertionError(f"no such target: {other}")


@dataclass(frozen=True, slots=True)
class State:
    packet: Packet
    done: bool = False
    returned: bool = False
    verdict: str = "accept"
    dnat: str = ""
    masquerade: bool = False
    virtual: tuple[int, str, int] | None = None
    """Protocol number, address and port of the virtual server of IPVS that this packet came to."""


_Match = Callable[[Node, State], bool]


@dataclass
class _Rule:
    text: str
    words: list[str]
    matches: list[_Match] = field(default_factory=list)
    probability: float = 1.0
    target: str = ""
    options: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def parse(text: str) -> _Rule:
        rule = _Rule(text, shlex.split(text))
        rule._read()
        return rule

    def option(self, name: str) -> str:
        return self.options.get(name) or self._unknown(f"{self.target} without {name}")

    def _unknown(self, what: str) -> NoReturn:
        raise AssertionError(f"the tracer does not know {what} in: {self.text}")

    def _next(self) -> str:
        return self.words.pop(0)

    def _read(self) -> None:
        while self.words:
            negated = self.words[0] == "!"
            word = self.words.pop(1 if negated else 0)
            if negated:
                self._next()
            if word == "-j":
                self.target = self._next()
                self._read_target()
            elif word == "-m":
                self._read_match(self._next())
            else:
                self._add(self._basic(word), negated)

    def _add(self, match: _Match, negated: bool) -> None:
        self.matches.append((lambda n, s: not match(n, s)) if negated else match)

    def _basic(self, word: str) -> _Match:
        value = self._next()
        match word:
            case "-s" | "-d":
                network, source = ipaddress.ip_network(value), word == "-s"
                return lambda n, s: ipaddress.ip_address(s.packet.source if source else s.packet.destination) in network
            case "-p":
                return lambda n, s: s.packet.protocol == value
            case "-i":
                prefix = value.rstrip("+")
                if value.endswith("+"):
                    return lambda n, s: s.packet.interface.startswith(prefix)
                return lambda n, s: s.packet.interface == value
            case "--dport":
                return lambda n, s: s.packet.port == int(value)
            case "--mark":
                wanted, _, mask = value.partition("/")
                return lambda n, s: s.packet.mark & int(mask, 16) == int(wanted, 16)
            case "--ctstate":
                states = set(value.split(","))
                return lambda n, s: "NEW" in states or ("DNAT" in states and bool(s.dnat))
            case "--src-type" | "--dst-type" if value == "LOCAL":
                source = word == "--src-type"
                return lambda n, s: n.is_local(s.packet.source if source else s.packet.destination)
        return self._unknown(word)

    def _read_match(self, name: str) -> None:
        match name:
            case "tcp" | "udp" | "sctp" | "conntrack" | "mark" | "addrtype":
                pass
            case "set":
                self._expect("--match-set")
                self._add(_in_set(self._next(), self._next().split(",")), False)
            case "physdev":
                # No traced packet comes over a bridge.
                self._expect("!", "--physdev-is-in")
            case "ipvs":
                self._expect("--vproto")
                protocol = int(self._next())
                self._expect("--vaddr")
                address = self._next()
                self._expect("--vport")
                wanted = (protocol, address, int(self._next()))
                self._add(lambda n, s: s.virtual == wanted, False)
            case "comment":
                self._expect("--comment")
                self._next()
            case "statistic":
                self._expect("--mode", "random", "--probability")
                self.probability = float(self._next())
            case "recent":
                self._read_recent()
            case _:
                self._unknown(f"-m {name}")

    def _read_recent(self) -> None:
        kind = self._next()
        if kind == "--rcheck":
            self._expect("--seconds")
            self._next()
            self._expect("--reap")
        elif kind != "--set":
            self._unknown(kind)
        self._expect("--name")
        name = self._next()
        self._expect("--mask")
        self._next()
        self._expect("--rsource")
        if kind == "--rcheck":
            self._add(lambda n, s: name in n.remembered, False)

    def _expect(self, *words: str) -> None:
        for word in words:
            if (found := self._next()) != word:
                self._unknown(found)

    def _read_target(self) -> None:
        while self.words:
            option = self._next()
            if option in ("--set-xmark", "--to-destination", "--reject-with"):
                self.options[option] = self._next()
            elif option != "--random-fully":
                self._unknown(option)


def _in_set(name: str, directions: list[str]) -> _Match:
    """`-m set`: one direction per part of an entry, so `dst,dst,src` on (address, port, address)."""

    def match(node: Node, state: State) -> bool:
        kind, entries = node.sets[name]
        packet, parts = state.packet, []
        for part, direction in zip(kind.partition(":")[2].split(","), directions, strict=True):
            if part == "port" and direction == "src":
                raise AssertionError(f"the tracer knows no source ports: {name}")
            ip = packet.source if direction == "src" else packet.destination
            number = f"{packet.protocol}:{packet.port}" if kind.startswith("hash") else str(packet.port)
            parts.append(number if part == "port" else ip)
        if not kind.endswith(",net"):
            return ",".join(parts) in entries
        address = ipaddress.ip_address(parts.pop())
        # The kernel looks an address up at every prefix length.
        lengths = range(address.max_prefixlen + 1)
        networks = (ipaddress.ip_network(f"{address}/{length}", strict=False) for length in lengths)
        texts = (str(n) if n.prefixlen < n.max_prefixlen else str(n.network_address) for n in networks)
        return any(",".join((*parts, text)) in entries for text in texts)

    return match
