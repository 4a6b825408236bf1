"""The rules of a node of a running lab, as the kernel has them, held against what the API server says now."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from netemu.lab.addresses import address_names
from netemu.lab.api import LabApi
from netemu.lab.cluster_view import read_cluster
from netemu.lab.config import load_config
from netemu.lab.targets import find_target
from netemu.model.errors import UserError
from netemu.model.resources import SERVICES
from netemu.model.suggest import instead
from netemu.observe.names import Names
from netemu.observe.rules.check import Finding, findings
from netemu.observe.rules.read import read_rules
from netemu.observe.rules.walk import NodeRules
from netemu.observe.rules.words import Words


class RulesFound(NamedTuple):
    """The rules of one IP family of a node, and what is off about them."""

    rules: NodeRules
    off: list[Finding]


def rules_of_node(lab: str, node: str) -> list[RulesFound]:
    """One entry for each IP family of the lab. Raises UserError, ApiError, KernelError."""
    place = find_target(lab, node if node.startswith("node/") else f"node/{node}")
    cluster, names = read_cluster(lab), address_names(lab)
    families = [":" in cidr for cidr in load_config(lab).service_cidrs]
    read = asyncio.run(_read(place.netns, names, families))
    words = Words(names)
    view = cluster.nodes[place.name.removeprefix("node/")].view
    return [RulesFound(rules, findings(rules, view, cluster.services, cluster.slices, words)) for rules in read]


async def _read(netns: str, names: Names, families: list[bool]) -> list[NodeRules]:
    return [await read_rules(netns, names, ipv6=ipv6) for ipv6 in families]


def find_service(lab: str, text: str) -> str:
    """NAMESPACE/NAME or NAMESPACE/NAME:PORT, of what may be written without `default/`, and with a port's number.

    Raises UserError naming the Services or ports there are instead.
    """
    key, _, port = (text if "/" in text else f"default/{text}").partition(":")
    listed: list[dict[str, Any]] = LabApi(lab).list(SERVICES)[0]
    known = {f"{each['metadata']['namespace']}/{each['metadata']['name']}": each for each in listed}
    if key not in known:
        raise UserError(f"no Service {key}; {instead(key, sorted(known), 'there are')}")
    if not port:
        return key
    ports = known[key]["spec"].get("ports") or ()
    found = [each.get("name", "") for each in ports if port in (each.get("name"), str(each["port"]))]
    if not found:
        listed_ports = [str(each.get("name") or each["port"]) for each in ports]
        raise UserError(f"Service {key} has no port {port!r}; {instead(port, listed_ports, 'it has')}")
    return f"{key}:{found[0]}".removesuffix(":")
