"""Why not: the first place where what happened to a packet differs from what should have, and what would mend it.

Theory of operation: the oracle says from API objects alone what ought to become of the packet; the evidence says what
the kernel did. They are held against each other in the order of the packet's way: the name, the rules of the node that
decides, the translation, the way to the endpoint, the endpoint itself, the way back. The first difference is the
cause; what comes after follows from it. Where there is none and the packet failed all the same, it had to, and the
oracle's own reason is the cause, looked into as far as the objects tell (`whynot_service.py`). What the network did to
it is asked in `whynot_network.py`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from netemu.model.hosts import endpoint_text
from netemu.model.objects import Service
from netemu.observe.names import NODE, POD, SERVICE, Names
from netemu.observe.reasons import Because, Reason
from netemu.observe.service_ports import Via
from netemu.observe.story import whynot_network as network
from netemu.observe.story import whynot_service as services
from netemu.observe.story.cause import WhyNot
from netemu.observe.story.destination import Destination, Objects
from netemu.observe.story.expected import Expected
from netemu.observe.story.whynot_network import last_hit
from netemu.observe.trace.evidence import Crossing, Evidence, Routed, RuleHit
from netemu.observe.trace.outcome import arrival, chosen, ended, last_place, outcome_of, translated_at, translations
from netemu.observe.trace.standing import Standing

_NOT_THE_RULES = (Reason.NOT_LISTENING, Reason.NO_ROUTE)
"""What the oracle expects to fail behind the rules: there the evidence knows more."""

_TRANSLATING = frozenset({"dnat", "snat", "masquerade", "redirect", "netmap"})


@dataclass(frozen=True, slots=True)
class Facts:
    """What a cause is looked for in, beside evidence and oracle."""

    objects: Objects
    names: Names
    proxies: Mapping[str, str] = field(default_factory=dict)
    """Nodes whose proxy does not keep its rules up to date, and why."""
    network: Mapping[str, Standing] = field(default_factory=dict)
    """How links and routes stand, by the names of places."""


def why_not(evidence: Evidence, expected: Expected, destination: Destination, facts: Facts) -> WhyNot | None:
    """The cause why a packet was not answered, or was by somebody who should not have; None if all is as it should."""
    case = _Case(evidence, expected, destination, facts)
    if (wrong := case.decided_wrongly()) is not None:
        return wrong
    if (wrong := case.seen_wrongly()) is not None or outcome_of(evidence) == "answered":
        return wrong
    foreseen = expected.verdict not in ("dnat", "direct") and expected.reason not in _NOT_THE_RULES
    if foreseen or case.has_no_such_port():
        return case.rightly_refused()
    return network.on_the_way(case.way()) or case.at_the_endpoint() or case.on_the_way_back()


def nowhere(destination: Destination, because: Because, query: WhyNot | None = None) -> WhyNot:
    """The cause where there is no address to send to; `query`: the one why a query does not come to its server."""
    lookup = destination.lookup
    if query is not None:
        return msgspec.structs.replace(query, text=f"{because.text}, because a query gets no answer: {query.text}")
    place = f"resolver, nameserver {' '.join(lookup.resolv_conf.nameservers)}" if lookup else destination.owner
    return _cause(place, because)


def _cause(place: str, because: Because) -> WhyNot:
    return WhyNot(reason=because.reason, place=place, text=because.text, remedy=because.remedy)


@dataclass(frozen=True, slots=True)
class _Case:
    evidence: Evidence
    expected: Expected
    destination: Destination
    facts: Facts

    # --- the rules that choose an endpoint

    def decided_wrongly(self) -> WhyNot | None:
        """A translation that is not the oracle's: from an old entry, by old rules, or none at all."""
        expected, found = self.expected, chosen(self.evidence)
        node = f"node/{expected.node}"
        if found is None:
            return self._untranslated(node) if expected.verdict == "dnat" else None
        target = endpoint_text(found.after.destination, found.after.port)
        if target in expected.endpoints:
            return None
        seen = f"was sent on to {self._named(target)}"
        should = f"should have been {self._should()}"
        if not found.new:
            text = f"conntrack on {found.place} has an entry from before, so the packet {seen}; it {should}"
            node = found.place.removeprefix("node/")
            remedy = f"`netemu conntrack {node} --stale --delete` forgets it"
            return WhyNot(reason=Reason.STALE_CONNTRACK, place=found.place, text=text, remedy=remedy)
        return self._rules(found.place, f"the packet {seen}; it {should}")

    def _untranslated(self, node: str) -> WhyNot | None:
        """Nothing was translated though it should have been: it never got there, was dropped before, or by no rule."""
        end, passed = ended(self.evidence), self.evidence.at(node, "there")
        foreign = end is not None and end.by in ("rule", "policy") and not self._kube_refusal()
        if not passed or foreign or translated_at(self.evidence, node):
            return None
        what = "refused or dropped by a rule" if self._kube_refusal() else "translated by no rule"
        return self._rules(node, f"the packet was {what}; it should have been {self._should()}")

    def _kube_refusal(self) -> bool:
        """Whether kube-proxy's own rules ended the packet."""
        hit = last_hit(self.evidence)
        return hit is not None and hit.verdict in ("drop", "reject") and _is_kube(hit)

    def _rules(self, place: str, difference: str) -> WhyNot:
        name = place.removeprefix("node/")
        if (hit := _foreign_nat(self.evidence, place)) is not None:
            did = "translates the packet" if _translates(hit) else "lets the packet past kube-proxy's"
            text = f"the rule `{hit.text}` of {hit.table} {hit.chain} on {place} {did}: {difference}"
            remedy = "remove the rule: it is not kube-proxy's, which leaves it where it is"
            return WhyNot(reason=Reason.FOREIGN_RULE, place=place, text=text, remedy=remedy)
        if why := self.facts.proxies.get(name):
            text = f"the rules of {place} are not those of the newest Services ({why}): {difference}"
            return WhyNot(
                reason=Reason.PROXY_STOPPED, place=place, text=text, remedy="`netemu status` tells of every proxy"
            )
        text = f"a rule of {place} is missing or somebody changed it: {difference}"
        remedy = f"`netemu rules {name}` shows what is there; kube-proxy mends it at its next full sync"
        return WhyNot(reason=Reason.MISSING_RULE, place=place, text=text, remedy=remedy)

    def _should(self) -> str:
        expected = self.expected
        if expected.verdict in ("reject", "drop"):
            return f"{'refused' if expected.verdict == 'reject' else 'dropped'} ({expected.text})"
        targets = sorted(expected.endpoints)
        if not targets:
            return f"left as it is ({expected.text})"
        shown = ", ".join(map(self._named, targets[:3])) + (f" or {len(targets) - 3} more" if len(targets) > 3 else "")
        return f"sent to {shown}" + (f" ({expected.text})" if expected.text else "")

    def seen_wrongly(self) -> WhyNot | None:
        """It reached whom it should, but with another source than it should have had."""
        flow, expected = arrival(self.evidence), self.expected
        target = endpoint_text(flow.destination, flow.port) if flow is not None else ""
        right = sorted(source for endpoint, source in expected.sources if endpoint == target)
        if flow is None or not right or flow.source in right:
            return None
        text = f"{self._named(target)} saw the source {flow.source}; it should have seen {' or '.join(right)}"
        found = self._rules(f"node/{expected.node}" if expected.node else self.evidence.reached, text)
        return (
            msgspec.structs.replace(found, reason=Reason.WRONG_SOURCE) if found.reason == Reason.MISSING_RULE else found
        )

    # --- what had to fail

    def has_no_such_port(self) -> bool:
        """Whether the destination is a Service's address, with a port that is none of its: two of three modes do not
        refuse that, and the packet goes where routes lead."""
        return self.expected.service is not None and self.expected.port is None

    def rightly_refused(self) -> WhyNot:
        """The oracle's own reason, as far as the objects tell it."""
        expected, packet, service = self.expected, self.evidence.packet, self.expected.service
        place = f"node/{expected.node}" if expected.node else last_place(self.evidence)
        if service is None:
            return WhyNot(reason=expected.reason, place=place, text=expected.text)
        family = "IPv6" if packet.ipv6 else "IPv4"
        match expected.reason:
            case Reason.NO_ENDPOINTS | Reason.NOT_READY if expected.port is not None:
                return _cause(place, services.no_endpoints(service, expected.port, self.facts.objects, family))
            case Reason.NO_LOCAL_ENDPOINT:
                internal = expected.via == Via.CLUSTER_IP
                return _cause(place, services.no_local(service, expected.node, internal=internal))
            case _ if self.has_no_such_port():
                return _cause(place, services.wrong_port(service, packet.port, packet.protocol.upper()))
            case Reason.SOURCE_RANGE:
                ranges = ", ".join(service.spec.load_balancer_source_ranges)
                text = f"loadBalancerSourceRanges of Service {service.key} do not have the source {packet.source}"
                return WhyNot(reason=expected.reason, place=place, text=text, remedy=f"they are {ranges}")
            case _:
                return WhyNot(reason=expected.reason, place=place, text=expected.text)

    # --- the way to the endpoint, the endpoint, and the way back

    def way(self) -> network.Way:
        """The packet's way through the network."""
        seen = [self.evidence.packet.destination]
        for event in self.evidence.events:
            if event.leg == "there" and isinstance(event, Crossing | Routed):
                seen.append(event.headers.destination if isinstance(event, Crossing) else event.destination)
        address = seen[-1]
        party = self.facts.names.party(address)
        to = str(party) if party is not None and party.kind != SERVICE else ""
        return network.Way(self.evidence, self.facts.names, self.facts.network, self.evidence.source.name, to, address)

    def at_the_endpoint(self) -> WhyNot | None:
        """It arrived, and was refused."""
        flow = arrival(self.evidence)
        if flow is None or outcome_of(self.evidence) not in ("refused", "rejected"):
            return None
        party = self.facts.names.party(flow.destination)
        if party is not None and party.kind == NODE:
            text = f"node {party.name} refused: it has no node port {flow.port}, and nothing listens there"
            return WhyNot(reason=Reason.NOT_LISTENING, place=self.evidence.reached, text=text)
        pod = self.facts.objects.pod(*party.name.split("/")) if party is not None and party.kind == POD else None
        return _cause(
            self.evidence.reached, services.not_listening(self._who(flow.destination), flow.port, pod, self._meant())
        )

    def _meant(self) -> Service | None:
        """The Service that was asked for, by object or by DNS name."""
        if self.expected.service is not None:
            return self.expected.service
        kind, _, key = self.destination.owner.partition(" ")
        if kind == "Service":
            return self.facts.objects.service(*key.split("/"))
        lookup = self.destination.lookup
        parts = lookup.result.name.split(".") if lookup is not None else []
        found = [i for i, part in enumerate(parts) if part == "svc" and i >= 2]
        return self.facts.objects.service(parts[found[0] - 1], parts[found[0] - 2]) if found else None

    def on_the_way_back(self) -> WhyNot:
        """It arrived and nothing came of it: no answer was sent, or the answer was lost."""
        evidence = self.evidence
        flow, back = arrival(evidence), [event for event in evidence.events if event.leg == "back"]
        if flow is None:
            place = last_place(evidence)
            return WhyNot(
                reason=Reason.LOST, place=place, text=f"the packet was seen last at {place}, and did not come on"
            )
        way = network.Way(
            evidence, self.facts.names, self.facts.network, evidence.reached, evidence.source.name, flow.source, "back"
        )
        if (cause := network.on_the_way_back(way)) is not None:
            return cause
        who = self._named(endpoint_text(flow.destination, flow.port))
        if not back:
            text = f"the packet reached {who}, which sent no answer"
            remedy = "a server without a word for this, or one that hangs" if evidence.packet.protocol == "udp" else ""
            return WhyNot(reason=Reason.NO_ANSWER, place=evidence.reached, text=text, remedy=remedy)
        end, place = ended(evidence, "back"), last_place(evidence, "back")
        ended_there = end is not None and end.by != "unknown"
        if not ended_there and translations(evidence) and not translations(evidence, "back"):
            text = f"the answer of {who} took a way on which nobody translates it back, and was lost at {place}"
            return WhyNot(reason=Reason.ANSWER_ASTRAY, place=place, text=text)
        detail = f" ({end.by}{f': {end.detail}' if end.detail else ''})" if end else ""
        return WhyNot(reason=Reason.ANSWER_LOST, place=place, text=f"the answer of {who} was lost at {place}{detail}")

    def _who(self, address: str) -> str:
        """`shop/web-1 (10.244.2.3)`; the address alone where nobody has it."""
        name = self.facts.names.text(address)
        return address if name == address else f"{name} ({address})"

    def _named(self, target: str) -> str:
        address, _, port = target.rpartition(":")
        named = self.facts.names.text(address.strip("[]"))
        return target if named == address.strip("[]") else f"{named}:{port} ({target})"


def _foreign_nat(evidence: Evidence, place: str) -> RuleHit | None:
    """The first rule of somebody else there that translated the packet, or ended table nat before kube-proxy's did."""
    others = (e for e in evidence.at(place, "there") if isinstance(e, RuleHit) and not (e.policy or _is_kube(e)))
    return next((hit for hit in others if _translates(hit) or (hit.table, hit.verdict) == ("nat", "accept")), None)


def _translates(hit: RuleHit) -> bool:
    return not _TRANSLATING.isdisjoint((hit.verdict, *hit.text.lower().split()))


def _is_kube(hit: RuleHit) -> bool:
    return hit.chain.startswith("KUBE-") or hit.table == "kube-proxy"
