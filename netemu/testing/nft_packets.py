"""Where a packet goes by the nftables rules that a node holds: those of the fake, or those dumped from a kernel.

The counterpart of `netemu.testing.packets`, with the same packets and fates. The tracer walks the base chains of each
hook in the order of their priorities, of all tables together, and routes between hooks as the kernel does. An
expression that it does not know fails the trace, so that no test passes by overlooking a rule. Only first packets of
connections are traced (conntrack state new), as only they consult nat; where chance decides, all outcomes are followed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, NoReturn

from netemu.model import nft
from netemu.model.hosts import endpoint_text
from netemu.model.nft import Field
from netemu.testing.packets import Fate, Packet

Flow = Literal["next", "return", "end"]
_LOOPBACK = "lo"


@dataclass(frozen=True, slots=True)
class State:
    """A packet on its way through a chain. `flow` is what comes after a rule: the next one, the caller, nothing."""

    packet: Packet
    verdict: str = "accept"
    dnat: str = ""
    masquerade: bool = False
    flow: Flow = "next"


@dataclass(frozen=True)
class Node:
    """What a node knows. `remembered` are dynamic sets that hold the packet's source, besides those that say so."""

    tables: Sequence[nft.Ruleset]
    addresses: frozenset[str] = frozenset()
    remembered: frozenset[str] = frozenset()

    def trace(self, packet: Packet) -> Fate:
        """The fate of the packet; with several endpoints all of them are possible. They must agree on the rest."""
        outcomes = set(self._paths(packet))
        verdicts = {(verdict, masquerade) for verdict, _, masquerade in outcomes}
        if len(verdicts) != 1:
            raise AssertionError(f"chance decides over more than the endpoint: {sorted(outcomes)}")
        ((verdict, masquerade),) = verdicts
        return Fate(verdict, frozenset(d for _, d, _ in outcomes if d), masquerade)

    def is_local(self, address: str) -> bool:
        """Whether an address is this node's own."""
        return address in self.addresses or ipaddress.ip_address(address).is_loopback

    def _paths(self, packet: Packet) -> Iterator[tuple[str, str, bool]]:
        for state in self._travel(State(packet)):
            if state.verdict != "accept":
                yield state.verdict, "", False
            else:
                yield ("dnat" if state.dnat else "accept"), state.dnat, state.masquerade

    def _travel(self, start: State) -> Iterator[State]:
        sent = not start.packet.interface
        for state in self._hook("output" if sent else "prerouting", start):
            here = self.is_local(state.packet.destination)
            if sent:
                hooks = ["postrouting", "prerouting", "input"] if here else ["postrouting"]
            else:
                hooks = ["input"] if here else ["forward", "postrouting"]
            yield from self._hooks(hooks, state, sent=sent)

    def _hooks(self, hooks: Sequence[str], state: State, *, sent: bool) -> Iterator[State]:
        if not hooks or state.verdict != "accept":
            yield state
            return
        hook, *rest = hooks
        if sent and hook == "prerouting":  # what a node sends to itself comes in again; nat has been decided
            state = replace(state, packet=replace(state.packet, interface=_LOOPBACK))
        for after in self._hook(hook, state, nat=not (sent and hook in ("prerouting", "input"))):
            yield from self._hooks(rest, after, sent=sent)

    def _hook(self, hook: str, start: State, *, nat: bool = True) -> Iterator[State]:
        """Every state in which the packet can leave a hook."""
        states, translated = [start], False
        for table, chain in self._bases(hook, start.packet):
            if chain.type == "nat" and (not nat or translated):
                continue
            following: list[State] = []
            for state in states:
                if state.verdict == "accept":
                    following += self._base(table, chain, state)
                else:
                    following.append(state)
            states = following
            translated = chain.type == "nat" and any(s.dnat or s.masquerade for s in states)
        yield from states

    def _bases(self, hook: str, packet: Packet) -> list[tuple[_Table, nft.Chain]]:
        family = "ip6" if ":" in packet.destination else "ip"
        found = [(t, chain) for t in self._tables if t.family == family for chain in t.bases if chain.hook == hook]
        return sorted(found, key=lambda pair: pair[1].priority)

    @cached_property
    def _tables(self) -> list[_Table]:
        return [_Table.of(ruleset) for ruleset in self.tables]

    def _base(self, table: _Table, chain: nft.Chain, state: State) -> Iterator[State]:
        for end in self._chain(table, chain.name, state):
            if end.flow == "end":
                yield replace(end, flow="next")
            else:
                yield replace(end, flow="next", verdict=chain.policy)

    def _chain(self, table: _Table, name: str, state: State) -> Iterator[State]:
        """Every state in which the packet can leave a chain: at its end, by a return, or for good."""
        states = [state]
        for rule in table.rules[name]:
            following: list[State] = []
            for current in states:
                if current.flow == "next":
                    following += self._rule(table, rule, 0, current)
                else:
                    following.append(current)
            states = following
        yield from states

    def _rule(self, table: _Table, rule: nft.Rule, at: int, state: State) -> Iterator[State]:
        """The rest of a rule from one expression on."""
        if at == len(rule.expressions):
            yield state
            return
        for after in self._expression(table, rule.expressions[at], state):
            if after is None:
                yield state
            elif after.flow == "next" and not isinstance(rule.expressions[at], nft.Verdict | nft.Vmap):
                yield from self._rule(table, rule, at + 1, after)
            else:
                yield after

    def _expression(self, table: _Table, expression: nft.Expression, state: State) -> Iterator[State | None]:
        """The states after an expression; None where it does not match and the rule is over."""
        packet = state.packet
        match expression:
            case nft.Verdict():
                yield from self._verdict(table, expression, state)
            case nft.Vmap():
                yield from self._vmap(table, expression, state)
            case nft.DnatMap():
                yield from self._dnat_map(table, expression, state)
            case nft.Dnat():
                yield _translated(state, expression.address, expression.port)
            case nft.Masquerade():
                yield replace(state, masquerade=True, flow="end")
            case nft.Reject():
                matches = not expression.tcp_reset or packet.protocol.lower() == "tcp"
                yield replace(state, verdict="reject", flow="end") if matches else None
            case nft.SetMark():
                yield replace(state, packet=replace(packet, mark=_marked(packet.mark, expression)))
            case nft.Counter() | nft.Update():
                yield state
            case nft.Match() | nft.MarkMatch() | nft.Lookup():
                yield state if self._matches(table, expression, state) else None
            case _:
                _unknown(expression)

    def _matches(self, table: _Table, expression: nft.Match | nft.MarkMatch | nft.Lookup, state: State) -> bool:
        match expression:
            case nft.MarkMatch():
                same = state.packet.mark & expression.mask == expression.value
                return same != expression.negated
            case nft.Lookup():
                (key,) = self._keys(expression.key, state)
                found = expression.set in self.remembered or table.find(expression.set, key) is not None
                return found != expression.negated
            case _:
                return self._match(expression, state)

    def _match(self, match: nft.Match, state: State) -> bool:
        protocol = match.field.value.removesuffix(" dport")
        if protocol in ("tcp", "udp", "sctp") and state.packet.protocol.lower() != protocol:
            return False
        value = self._value(match.field, state)
        found = any(_holds(match.field, wanted, value) for wanted in match.values)
        return found != match.negated

    def _value(self, part: Field, state: State) -> nft.Value:
        packet = state.packet
        readers: Mapping[Field, Callable[[], nft.Value]] = {
            Field.IP_SADDR: lambda: packet.source,
            Field.IP6_SADDR: lambda: packet.source,
            Field.IP_DADDR: lambda: packet.destination,
            Field.IP6_DADDR: lambda: packet.destination,
            Field.L4PROTO: lambda: packet.protocol.lower(),
            Field.TH_DPORT: lambda: packet.port,
            Field.TCP_DPORT: lambda: packet.port,
            Field.UDP_DPORT: lambda: packet.port,
            Field.SCTP_DPORT: lambda: packet.port,
            Field.IIFNAME: lambda: packet.interface,  # "" where there is none, which is no other name either
            Field.MARK: lambda: packet.mark,
            Field.CT_STATE: lambda: "new",
            Field.CT_STATUS: lambda: "dnat" if state.dnat else "",
            Field.FIB_SADDR_TYPE: lambda: "local" if self.is_local(packet.source) else "unicast",
            Field.FIB_DADDR_TYPE: lambda: "local" if self.is_local(packet.destination) else "unicast",
        }
        return readers[part]() if part in readers else _unknown(part)

    def _keys(self, key: nft.Key, state: State) -> Iterator[nft.Values]:
        """The key a packet has; with a random number in it, every one it can have."""
        keys: list[nft.Values] = [()]
        for part in key:
            choices = range(part.mod) if isinstance(part, nft.Numgen) else (self._value(part, state),)
            keys = [(*begun, choice) for begun in keys for choice in choices]
        yield from keys

    def _vmap(self, table: _Table, vmap: nft.Vmap, state: State) -> Iterator[State | None]:
        entries = dict(vmap.entries)
        for key in self._keys(vmap.key, state):
            verdict = table.find(vmap.map, key) if vmap.map else entries.get(key)
            if isinstance(verdict, nft.Verdict):
                yield from self._verdict(table, verdict, state)
            else:
                yield None

    def _dnat_map(self, table: _Table, dnat: nft.DnatMap, state: State) -> Iterator[State | None]:
        entries = dict(dnat.entries)
        for key in self._keys(dnat.key, state):
            found = table.find(dnat.map, key) if dnat.map else entries.get(key)
            if isinstance(found, tuple) and found:
                address, port = found
                yield _translated(state, str(address), int(port))
            else:
                yield None

    def _verdict(self, table: _Table, verdict: nft.Verdict, state: State) -> Iterator[State]:
        match verdict.kind:
            case "return":
                yield replace(state, flow="return")
            case "accept" | "drop":
                yield replace(state, verdict=verdict.kind, flow="end")
            case _:
                for after in self._chain(table, verdict.chain, state):
                    if after.flow == "end":
                        yield after
                    else:  # a chain gone to returns to whoever called the one it was gone from
                        yield replace(after, flow="next" if verdict.kind == "jump" else "return")


@dataclass(frozen=True)
class _Table:
    """A table, indexed."""

    family: nft.Family
    bases: list[nft.Chain]
    rules: dict[str, list[nft.Rule]]
    plain: dict[str, dict[nft.Values, nft.Verdict | nft.Values]]
    ranges: dict[str, list[nft.Element]] = field(default_factory=dict)

    @staticmethod
    def of(ruleset: nft.Ruleset) -> _Table:
        """Index what a table holds."""
        made = _Table(ruleset.table.family, [chain for chain in ruleset.chains if chain.hook], {}, {})
        for chain in ruleset.chains:
            made.rules[chain.name] = []
        for rule in ruleset.rules:
            made.rules[rule.chain].append(rule)
        intervals = {held.name for held in ruleset.sets if "interval" in held.flags}
        for held in ruleset.sets:
            made.plain[held.name] = {}
        for element in ruleset.elements:
            if element.set in intervals:
                made.ranges.setdefault(element.set, []).append(element)
            else:
                made.plain[element.set][element.key] = element.data or ()
        return made

    def find(self, name: str, key: nft.Values) -> nft.Verdict | nft.Values | None:
        """What a set or map has for a key: its data, () for a set; None where it has nothing."""
        if name not in self.ranges:
            return self.plain[name].get(key)
        for element in self.ranges[name]:
            if all(_within(wanted, part) for wanted, part in zip(element.key, key, strict=True)):
                return element.data or ()
        return None


def _translated(state: State, address: str, port: int) -> State:
    port = port or state.packet.port
    shown = endpoint_text(address, port)
    return replace(state, dnat=shown, flow="end", packet=replace(state.packet, destination=address, port=port))


def _marked(mark: int, change: nft.SetMark) -> int:
    match change.operator:
        case "|":
            return mark | change.value
        case "^":
            return mark ^ change.value
        case "&":
            return mark & change.value
        case _:
            return change.value


def _holds(part: Field, wanted: nft.Value, value: nft.Value) -> bool:
    if part in (Field.IIFNAME, Field.OIFNAME):
        prefix = str(wanted).removesuffix("*")
        return str(value).startswith(prefix) if prefix != wanted else value == wanted
    return _within(wanted, value)


def _within(wanted: nft.Value, value: nft.Value) -> bool:
    """Whether a value is what is wanted, or in the prefix or range that is wanted."""
    if wanted == value or isinstance(wanted, int):
        return wanted == value
    if "/" in wanted:
        return ipaddress.ip_address(value) in ipaddress.ip_network(wanted, strict=False)
    first, dash, last = wanted.partition("-")
    if not dash or isinstance(value, int):
        return bool(dash) and int(first) <= int(value) <= int(last)
    low, high = (int(ipaddress.ip_address(end)) for end in (first, last))
    return low <= int(ipaddress.ip_address(value)) <= high


def _unknown(what: nft.Expression | Field) -> NoReturn:
    raise AssertionError(f"the tracer does not know: {what.text()}")
