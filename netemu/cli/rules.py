"""`netemu rules`: a node's rules as the kernel has them, with a sentence for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from netemu.cli.labs import pick
from netemu.cli.output import Format, say, say_json, table
from netemu.cli.root import need_root
from netemu.lab.node_rules import RulesFound, find_service, rules_of_node
from netemu.observe.rules import Met, NodeRules, fixed, of_service, others, targets_from

_FAMILIES = {"ip": "IPv4", "ip6": "IPv6"}
_STAGES = {
    "prerouting": "What comes in, from outside and from Pods (prerouting)",
    "input": "What is for this node (input)",
    "forward": "What is forwarded (forward)",
    "output": "What this node sends itself (output)",
    "postrouting": "What leaves (postrouting)",
}


def rules(lab: str, node: str, service: str, output: Format) -> None:
    """`netemu rules`."""
    need_root()
    lab = pick(lab)
    wanted = find_service(lab, service) if service else ""
    found = rules_of_node(lab, node)
    if output == Format.json:
        say_json({"node": node.removeprefix("node/"), "families": [_as_json(each, wanted) for each in found]})
        return
    for each in found:
        say(f"node {node.removeprefix('node/')}, {_FAMILIES[each.rules.family]}, {each.rules.mode} mode")
        for line in _of_one(each, wanted) if wanted else _of_all(each):
            say(line)
        say("")


def _of_one(found: RulesFound, service: str) -> Iterator[str]:
    yield from told(of_service(found.rules, service))
    key = service.partition(":")[0]
    yield from _off([finding for finding in found.off if finding.port.partition(":")[0] == key])


def _of_all(found: RulesFound) -> Iterator[str]:
    yield ""
    yield from table(("SERVICE", "RULES", "TAKEN", "ENDPOINTS", "AT"), (
        (row["port"], row["rules"], "-" if row["packets"] is None else row["packets"], row["endpoints"],
         ", ".join(row["places"])) for row in summary(found.rules)
    ))  # fmt: skip
    yield ""
    yield "There whatever Services exist:"
    yield from told(fixed(found.rules), texts=False)
    if met := others(found.rules):
        yield ""
        yield "Not kube-proxy's:"
        yield from told(met)
    yield from _off(found.off)


def told(met: Iterable[Met], *, texts: bool = True) -> Iterator[str]:
    """Lines for people: where, what it does, how often it did, and the rule itself."""
    stage = ""
    for each in met:
        if each.stage != stage:
            stage = each.stage
            yield ""
            yield _STAGES[stage]
        line, indent = each.line, "  " * (each.depth + 1)
        count = f"  [{line.packets} packets]" if line.packets else ""
        above = " (see above)" if each.seen else ""
        yield f"{indent}{each.table} {each.chain} {each.number}: {line.sentence}{above}{count}"
        if texts:
            yield f"{indent}    {line.text}"


def _off(found: Sequence[tuple[str, str]]) -> Iterator[str]:
    if found:
        yield ""
        yield "What is off:"
        yield from (f"  {port}: {what}" for port, what in found)


def summary(found: NodeRules) -> list[dict[str, Any]]:
    """A row per Service port: how many rules, places, endpoints, and packets taken (None where nothing counts)."""
    rows: dict[str, dict[str, Any]] = {}
    targets: dict[str, set[str]] = {}
    for chain in found.chains.values():
        for line in chain.lines:
            for port in line.ports:
                row = rows.setdefault(port, {"port": port, "rules": 0, "packets": None, "places": []})
                row["rules"] += 1
                if line.takes:
                    row["places"] += [line.takes] if line.takes not in row["places"] else []
                    row["packets"] = line.packets if row["packets"] is None else row["packets"] + (line.packets or 0)
                    targets.setdefault(port, set()).update(targets_from(found, chain.table, line))
    return [{**row, "endpoints": len(targets.get(port, ()))} for port, row in sorted(rows.items())]


def _as_json(found: RulesFound, service: str) -> dict[str, Any]:
    common = {"family": found.rules.family, "mode": found.rules.mode}
    if service:
        key = service.partition(":")[0]
        off = [finding._asdict() for finding in found.off if finding.port.partition(":")[0] == key]
        return {**common, "rules": [_met(each) for each in of_service(found.rules, service)], "off": off}
    return {
        **common,
        "services": summary(found.rules),
        "fixed": [_met(each) for each in fixed(found.rules)],
        "others": [_met(each) for each in others(found.rules)],
        "off": [finding._asdict() for finding in found.off],
    }


def _met(each: Met) -> dict[str, Any]:
    line = each.line
    return {
        "stage": each.stage, "table": each.table, "chain": each.chain, "number": each.number, "depth": each.depth,
        "text": line.text, "sentence": line.sentence, "packets": line.packets, "bytes": line.bytes,
        "handle": line.handle or None, "ports": line.ports, "toldAbove": each.seen,
    }  # fmt: skip
