"""Rules for people: a walk as indented lines, a table of Services, and what a rule that a trace hit means. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct, field

from netemu.observe.rules.walk import OLDER, Line, Met, NodeRules, targets_from
from netemu.observe.trace.evidence import MapHit, RuleHit

_STAGES: Final = {
    "prerouting": "What comes in, from outside and from Pods (prerouting)",
    "input": "What is for this node (input)",
    "forward": "What is forwarded (forward)",
    "output": "What this node sends itself (output)",
    "postrouting": "What leaves (postrouting)",
}


def told(met: Iterable[Met], *, texts: bool = True) -> Iterator[str]:
    """Lines: where, what it does, how often it did, and the rule itself."""
    stage = ""
    for each in met:
        if each.stage != stage:
            stage = each.stage
            yield ""
            yield _STAGES[stage]
        line, indent = each.line, "  " * (each.depth + 1)
        count = f"  [{line.packets} packet{'s' * (line.packets != 1)}]" if line.packets else ""
        above = " (see above)" if each.seen else ""
        yield f"{indent}{each.table} {each.chain} {each.number}: {line.sentence}{above}{count}"
        if texts:
            yield f"{indent}    {line.text}"


class PortRules(Struct):
    """What a node has for one Service port. `packets`: taken so far, None where the kernel does not count."""

    port: str
    rules: int = 0
    packets: int | None = None
    places: list[str] = field(default_factory=list)
    endpoints: set[str] = field(default_factory=set)


def by_port(rules: NodeRules) -> list[PortRules]:
    """One entry for each Service port that rules are about."""
    rows: dict[str, PortRules] = {}
    for chain in rules.chains.values():
        for line in chain.lines:
            for port in line.ports:
                row = rows.setdefault(port, PortRules(port))
                row.rules += 1
                if line.takes:
                    row.places += [line.takes] if line.takes not in row.places else []
                    row.packets = line.packets if row.packets is None else row.packets + (line.packets or 0)
                    row.endpoints |= targets_from(rules, chain.table, line)
    return [row for _, row in sorted(rows.items())]


def meaning(rules: Mapping[str, Sequence[NodeRules]]) -> Callable[[RuleHit | MapHit], str]:
    """What tells the sentence of a rule or an element that a trace hit, by place (`node/worker-1`) and family.

    "" for what is not among the rules: a policy, a place without a proxy, a rule that is gone.
    """

    def sentence(hit: RuleHit | MapHit) -> str:
        for family in rules.get(hit.place, ()):
            line = _element(family, hit) if isinstance(hit, MapHit) else _rule(family, hit)
            if line is not None and hit.family in (family.family, "", "inet"):
                return line.sentence
        return ""

    return sentence


def _rule(rules: NodeRules, hit: RuleHit) -> Line | None:
    older = f"{OLDER}{hit.table}"
    if hit.backend == "iptables-legacy" and (older, hit.chain) in rules.chains:
        return rules.line(older, hit.chain, hit.number)
    if hit.backend == "nft":
        tables = (hit.table, f"{hit.family} {hit.table}")
        return next((line for t in tables if (line := rules.with_handle(t, hit.chain, hit.handle))), None)
    return rules.line(hit.table, hit.chain, hit.number)


def _element(rules: NodeRules, hit: MapHit) -> Line | None:
    name = f"{hit.kind} {hit.name}"
    lines = (line for (_, chain), held in rules.chains.items() if chain == name for line in held.lines)
    return next((line for line in lines if line.text == hit.key or line.text.startswith(f"{hit.key} ")), None)
