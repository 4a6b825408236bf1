"""`netemu rules`: a node's rules as the kernel has them, with a sentence for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import asdict

from netemu.cli.labs import pick
from netemu.cli.output import Format, say, say_json, table
from netemu.cli.root import need_root
from netemu.lab.node_rules import RulesFound, find_service, rules_of_node
from netemu.observe.rules.told import by_port, told
from netemu.observe.rules.walk import Met, fixed, of_service, others

_FAMILIES = {"ip": "IPv4", "ip6": "IPv6"}


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
    rows = [
        (row.port, row.rules, "-" if row.packets is None else row.packets, len(row.endpoints),
         ", ".join(map(_place, row.places)))
        for row in by_port(found.rules)
    ]  # fmt: skip
    yield from table(("SERVICE", "RULES", "TAKEN", "ENDPOINTS", "AT"), rows)
    yield ""
    yield "There whatever Services exist:"
    yield from told(fixed(found.rules), texts=False)
    if met := others(found.rules):
        yield ""
        yield "Not kube-proxy's:"
        yield from told(met)
    yield from _off(found.off)


def _place(taken: str) -> str:
    return f"node port {taken[1:]}" if taken.startswith(":") else taken


def _off(found: Sequence[tuple[str, str]]) -> Iterator[str]:
    if found:
        yield ""
        yield "What is off:"
        yield from (f"  {port}: {what}" for port, what in found)


def _as_json(found: RulesFound, service: str) -> dict[str, Any]:
    common = {"family": found.rules.family, "mode": found.rules.mode}
    if service:
        key = service.partition(":")[0]
        off = [finding._asdict() for finding in found.off if finding.port.partition(":")[0] == key]
        return {**common, "rules": [_met(each) for each in of_service(found.rules, service)], "off": off}
    return {
        **common,
        "services": [{**asdict(row), "endpoints": sorted(row.endpoints)} for row in by_port(found.rules)],
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
