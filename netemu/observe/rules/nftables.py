"""nftables rules as the kernel has them: where they lead, which Service they are about, in words. Pure.

Sets and maps become chains of their elements, called `set NAME` and `map NAME`, behind the rule that looks them up.
Names of a Service port's chains tell it in words, so what names a port that no Service has is told by its name alone.
Rules of this mode have no counters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from netemu.model import nft
from netemu.model.hosts import endpoint_text
from netemu.model.lists import listed
from netemu.model.nft import Field
from netemu.observe.rules.walk import Chain, Line, chains_of, share_text
from netemu.observe.rules.words import (
    NO_ENDPOINTS,
    NO_LOCAL_ENDPOINTS,
    NOT_ADMITTED,
    Words,
    claimed_port,
    from_outside,
    refused_port,
    sent_to_port,
    target_of_chain,
)

_SAID: Final = {
    Field.IP_SADDR: ("comes from {}", "does not come from {}"),
    Field.IP6_SADDR: ("comes from {}", "does not come from {}"),
    Field.IP_DADDR: ("goes to {}", "does not go to {}"),
    Field.IP6_DADDR: ("goes to {}", "does not go to {}"),
    Field.IIFNAME: ("comes in by {}", "does not come in by {}"),
    Field.OIFNAME: ("leaves by {}", "does not leave by {}"),
    Field.FIB_SADDR_TYPE: ("comes from an address of type {}", "does not come from an address of type {}"),
    Field.FIB_DADDR_TYPE: ("goes to an address of type {}", "does not go to an address of type {}"),
    Field.CT_STATE: ("is what conntrack calls {}", "is not what conntrack calls {}"),
    Field.CT_STATUS: ("is what conntrack calls {}", "is not what conntrack calls {}"),
    Field.L4PROTO: ("is {}", "is not {}"),
}
"""Matches by field: as they are, and negated."""
_NAMED: Final = {
    (Field.FIB_SADDR_TYPE, "local"): "comes from an address of this node",
    (Field.FIB_DADDR_TYPE, "local"): "goes to an address of this node",
    (Field.CT_STATE, "new"): "begins a connection",
    (Field.CT_STATUS, "dnat"): "was sent to a Service",
}
_SETS: Final = {
    "cluster-ips": "goes to a cluster IP",
    "nodeport-ips": "goes to an address that answers node ports",
    "hairpin-connections": "goes from an endpoint to itself",
}
_ASKS: Final = {
    "services": "asks whether it goes to a Service",
    "service-endpoints-check": "asks whether it goes to an address of a Service without endpoints",
    "nodeport-endpoints-check": "asks whether it goes to a node port of a Service without endpoints",
    "firewall-check": "asks whether source ranges keep it out",
    "cluster-ips-check": "asks whether it goes to a port that no Service has",
    "masquerading": "asks whether it is marked for masquerade",
    "service-ips": "looks up which Service has the address and port",
    "service-nodeports": "looks up which Service has the node port",
    "no-endpoint-services": "looks up whether a Service without endpoints has the address and port",
    "no-endpoint-nodeports": "looks up whether a Service without endpoints has the node port",
    "firewall-ips": "looks up whether a Service with source ranges has the address and port",
}
"""What a shared chain or map is for."""


def chains_of_nftables(ruleset: nft.Ruleset, words: Words) -> dict[tuple[str, str], Chain]:
    """What kube-proxy's table of one family holds."""
    return chains_of(_Table(ruleset, words).chains())


class _Table:
    """One table: its rules, and what the rest of it tells of them."""

    def __init__(self, ruleset: nft.Ruleset, words: Words) -> None:
        self.ruleset, self.words, self.table = ruleset, words, ruleset.table.name
        self.timeouts = {held.name: held.timeout for held in ruleset.sets}
        self.by_target: dict[tuple[str, str], list[str]] = {}
        for rule in ruleset.rules:
            protocol = next((str(match.values[0]) for match in _protocols(rule)), "")
            for target in _targets(rule):
                self.by_target.setdefault((protocol, target), []).append(claimed_port(rule.chain))

    def chains(self) -> Iterator[Chain]:
        for chain in self.ruleset.chains:
            lines = tuple(self._rule(rule) for rule in self.ruleset.rules_of(chain.name))
            yield Chain(self.table, chain.name, lines, chain.hook, chain.priority, chain.policy if chain.hook else "")
        for held in self.ruleset.sets:
            elements = tuple(self._element(element) for element in self.ruleset.elements_of(held.name))
            yield Chain(self.table, f"{'map' if isinstance(held, nft.Map) else 'set'} {held.name}", elements)

    # --- rules

    def _rule(self, rule: nft.Rule) -> Line:
        port = claimed_port(rule.chain)
        counter = next((e for e in rule.expressions if isinstance(e, nft.Counter)), None)
        return self._owned(
            Line(
                rule.text(),
                self._sentence(rule, port),
                counter.packets if counter else None,
                counter.bytes if counter else None,
                rule.handle,
                tuple(_leads(rule)),
                targets=tuple(_translations(rule)),
            ),
            [port] if port else [],
        )

    def _owned(self, line: Line, ports: Iterable[str]) -> Line:
        """The line with the Service ports it is about, or the name of one that no Service has."""
        listed_ports = list(dict.fromkeys(ports))
        known = tuple(port for port in listed_ports if self.words.knows(port))
        owner = listed_ports[0] if listed_ports and not known else ""
        return replace(line, ports=known, owner=owner)

    def _sentence(self, rule: nft.Rule, port: str) -> str:
        about = self._about(rule)
        of = {type(expression): expression for expression in rule.expressions}
        if nft.Masquerade in of:
            what = "what is marked, and takes the mark off" if nft.MarkMatch in of else about
            return f"masquerades {what}: the source becomes this node's address"
        if targets := list(_targets(rule)):
            return self._translated(rule, targets)
        if mark := of.get(nft.SetMark):
            for_masquerade = isinstance(mark, nft.SetMark) and mark.operator == "|"
            return f"marks for masquerade {from_outside(about)}" if for_masquerade else f"marks {about} ({mark.text()})"
        if nft.Update in of:
            return "remembers the client for this endpoint"
        for expression in rule.expressions:
            if isinstance(expression, nft.Vmap):
                what = _ASKS.get(expression.map, f"looks it up in {expression.map or 'a list'}")
                return what if about == _ANYTHING else f"of {about}, {what}"
            if isinstance(expression, nft.Verdict):
                return self._verdict(expression, about, port)
        return f"refuses {about}" if nft.Reject in of else f"counts {about}, and does nothing"

    def _translated(self, rule: nft.Rule, targets: list[str]) -> str:
        named = [self.words.endpoint(target) for target in targets]
        affinity = next((e.set for e in rule.expressions if isinstance(e, nft.Lookup)), "")
        if affinity:
            return f"sends a client that was sent to {named[0]} within the last {self.timeouts[affinity]} s there again"
        if any(isinstance(expression, nft.Dnat) for expression in rule.expressions):
            return f"changes the destination to {named[0]}"
        each = "each of " if len(named) > 1 else ""
        return f"sends {share_text(1 / len(named))} to {each}{listed(named)}"

    def _verdict(self, verdict: nft.Verdict, about: str, port: str) -> str:
        if verdict.chain:
            return self._to_chain(verdict.chain, about)
        if verdict == nft.DROP and port:
            return refused_port("drops", port, about, NOT_ADMITTED)
        return {
            "accept": f"lets {about} through", "drop": f"drops {about}", "return": f"leaves this chain with {about}",
        }[verdict.kind]  # fmt: skip

    def _to_chain(self, chain: str, about: str) -> str:
        if chain in _ASKS:
            return _ASKS[chain] if about == _ANYTHING else f"of {about}, {_ASKS[chain]}"
        if port := claimed_port(chain):
            return sent_to_port(chain.split("-", 1)[0], port, about)
        return f"refuses {about}" if chain == "reject-chain" else f"hands {about} to {chain}"

    def _about(self, rule: nft.Rule) -> str:
        parts, translates = [], any(_targets(rule))
        for expression in rule.expressions:
            if isinstance(expression, nft.Match) and not (translates and expression.field is Field.L4PROTO):
                parts.append(_matched(expression))
            elif isinstance(expression, nft.MarkMatch):
                parts.append("is marked for masquerade")
            elif isinstance(expression, nft.Lookup):
                parts.append(_SETS.get(expression.set, f"is {'not ' * expression.negated}in set {expression.set}"))
        return f"what {listed(parts)}" if parts else _ANYTHING

    # --- elements

    def _element(self, element: nft.Element) -> Line:
        leads = (element.data.chain,) if isinstance(element.data, nft.Verdict) and element.data.chain else ()
        sentence, ports = self._said(element)
        line = Line(element.text(), sentence, leads=leads, takes=_taken(element))
        return self._owned(line, ports)

    def _said(self, element: nft.Element) -> tuple[str, list[str]]:
        """What an element does, and the Service ports it is about."""
        key, verdict = element.key, element.data
        if isinstance(verdict, nft.Verdict):
            address, protocol, number = key if len(key) == 3 else ("", *key)
            place, port = self.words.place(str(protocol), str(address), int(number))
            claim = claimed_port(verdict.chain) or element.comment or port
            return self._entry(element, f"what goes to {place}", verdict, claim), [claim]
        if element.set == "hairpin-connections":
            target = endpoint_text(str(key[0]), int(key[3]))
            ports = self.by_target.get((str(key[2]), target), [])
            return f"is how it looks when {self.words.endpoint(target)} reaches itself", ports
        if element.set == "cluster-ips":
            ports = self.words.at_address(str(key[0]))
            return "is a cluster IP", ports or [f"(a Service with {key[0]})"]
        if claim := claimed_port(element.set):
            return f"sent {self.words.who(str(key[0]))} to {self.words.endpoint(target_of_chain(element.set))}", [claim]
        return "answers node ports" if element.set == "nodeport-ips" else "is in the set", []

    def _entry(self, element: nft.Element, about: str, verdict: nft.Verdict, port: str) -> str:
        if verdict.chain == "reject-chain":
            return refused_port("refuses", port, about, NO_ENDPOINTS)
        if verdict == nft.DROP and element.set.startswith("no-endpoint"):
            return refused_port("drops", port, about, NO_LOCAL_ENDPOINTS)
        return self._verdict(verdict, about, "")


_ANYTHING: Final = "whatever comes here"


def _protocols(rule: nft.Rule) -> Iterator[nft.Match]:
    yield from (each for each in rule.expressions if isinstance(each, nft.Match) and each.field is Field.L4PROTO)


def _matched(match: nft.Match) -> str:
    value = ", ".join(str(value) for value in match.values)
    if not match.negated and (match.field, value) in _NAMED:
        return _NAMED[match.field, value]
    positive, negative = _SAID.get(match.field, (f"has {match.field} {{}}", f"does not have {match.field} {{}}"))
    return (negative if match.negated else positive).format(value)


def _taken(element: nft.Element) -> str:
    """The place of a Service that an element decides about."""
    if not isinstance(element.data, nft.Verdict) or element.set == "firewall-ips":
        return ""
    address, protocol, number = element.key if len(element.key) == 3 else ("", *element.key)
    return f"{endpoint_text(str(address), int(number))}/{protocol}"


def _translations(rule: nft.Rule) -> Iterator[str]:
    """The endpoints that a rule itself translates to."""
    for expression in rule.expressions:
        if isinstance(expression, nft.Dnat):
            yield endpoint_text(expression.address, expression.port)
        elif isinstance(expression, nft.DnatMap):
            yield from (endpoint_text(address, port) for _, (address, port) in expression.entries)


def _targets(rule: nft.Rule) -> Iterator[str]:
    """The endpoints that a rule translates to, or whose chains it chooses from."""
    yield from _translations(rule)
    for expression in rule.expressions:
        yield from (target for chain in _chains(expression) if (target := target_of_chain(chain)))


def _chains(expression: nft.Expression) -> Iterator[str]:
    if isinstance(expression, nft.Verdict) and expression.chain:
        yield expression.chain
    elif isinstance(expression, nft.Vmap):
        yield from (verdict.chain for _, verdict in expression.entries if verdict.chain)


def _leads(rule: nft.Rule) -> Iterator[str]:
    for expression in rule.expressions:
        if isinstance(expression, nft.Vmap | nft.DnatMap) and expression.map:
            yield f"map {expression.map}"
        elif isinstance(expression, nft.Lookup):
            yield f"set {expression.set}"
        yield from _chains(expression)
