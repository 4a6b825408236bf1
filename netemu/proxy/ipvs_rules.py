"""ipvs mode: which of the rules in `rules/ipvs` apply, given what stands in the sets. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from collections.abc import Set as AbstractSet

from netemu.model.protocols import WITH_PORTS
from netemu.proxy.facts import Detector, NodeFacts
from netemu.proxy.ipvs import Front
from netemu.proxy.ipvs_sets import IpSet
from netemu.proxy.rulefiles import Base, Place
from netemu.proxy.services import Family

_ALWAYS = {("filter", "KUBE-NODE-PORT"), ("filter", "KUBE-IPVS-FILTER")}
"""Chains whose rules stay whatever the sets hold."""
_OUT_FILTER = ("filter", "KUBE-IPVS-OUT-FILTER")
_PLACEHOLDER = "! -s 10.244.0.0/16"
_SET = re.compile(r"--match-set (\S+)")
_BY_NAME = {ipset.named(Family.IPV4): ipset for ipset in IpSet}


def files(node: NodeFacts) -> tuple[str, ...]:
    """The files of `rules/ipvs` that apply, in order."""
    if node.masquerade_all:
        return "base.rules", "services-all.rules", "services.rules"
    return "base.rules", "services-outside.rules" if node.detector else "services-node.rules", "services.rules"


def rules(
    base: Base, node: NodeFacts, filled: AbstractSet[IpSet], barred: Iterable[Front]
) -> dict[Place, tuple[str, ...]]:
    """The chains of `base`, as loaded from `files`, with the rules that apply while the sets `filled` are not empty."""
    adapt = _adapter(node)
    chains = {
        place: tuple(adapt(rule) for rule in written if place in _ALWAYS or _applies(rule, filled))
        for place, written in base.chains.items()
    }
    chains[_OUT_FILTER] += tuple(_bar(front) for front in sorted(barred))
    return chains


def _applies(rule: str, filled: Collection[IpSet]) -> bool:
    return all(_BY_NAME[name] in filled for name in _SET.findall(rule))


def _adapter(node: NodeFacts) -> Callable[[str], str]:
    """From a rule as the files have it, for IPv4 and an example's Pod network, to this node's."""
    outside = _not_local(node.detector)

    def adapt(rule: str) -> str:
        rule = rule.replace(_PLACEHOLDER, outside)
        if node.family is Family.IPV6:
            rule = rule.replace("127.0.0.0/8", "::1/128").replace("icmp-port-", "icmp6-port-")
            rule = _SET.sub(lambda match: f"--match-set {_BY_NAME[match[1]].named(node.family)}", rule)
        return rule

    return adapt


def _not_local(detector: Detector) -> str:
    if detector.network:
        return f"! -s {detector.network}"
    return f"! -i {detector.interface_name or detector.interface_prefix + '+'}"


def _bar(front: Front) -> str:
    """What this node sends to a load balancer carries the load balancer's own address as its source."""
    bits = 128 if ":" in front.address else 32
    about = f"--vproto {WITH_PORTS[front.protocol]} --vaddr {front.address} --vport {front.port}"
    return f"-s {front.address}/{bits} -m ipvs {about} -j DROP"
