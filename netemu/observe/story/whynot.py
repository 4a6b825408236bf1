"""Why not: the first place where what happened to a packet differs from what should have, and what would mend it.

Theory of operation: the oracle says from API objects alone what ought to become of the packet; the evidence says what
the kernel did. They are held against each other in the order of the packet's way: the name, the rules of the node that
decides, the translation, the way to the endpoint, the endpoint itself, the way back. The first difference is the
cause; what comes after follows from it. Where there is none and the packet failed all the same, it had to, and the
oracle's own reason is the cause, looked into as far as the objects tell (`whynot_service.py`). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from netemu.model.objects import Service
from netemu.observe.cluster import endpoint_text
from netemu.observe.names import NODE, POD, Names
from netemu.observe.reasons import Because, Reason
from netemu.observe.story import whynot_service as services
from netemu.observe.story.destination import Destination, Objects
from netemu.observe.story.expected import Expected
from netemu.observe.trace.evidence import Crossing, Evidence, Routed, RuleHit
from netemu.observe.trace.outcome import arrival, chosen, ended, last_place, outcome_of, translated_at, translations

_NOT_THE_RULES = (Reason.NOT_LISTENING, Reason.NO_ROUTE)
"""What the oracle expects to fail behind the rules: there the evidence knows more."""


class WhyNot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The cause. `reason` is a word for programs, one of those in docs/observe.md."""

    reason: str
    place: str
    """Where the packet's way and the right one part."""
    text: str
    remedy: str = ""

    def lines(self) -> Iterator[str]:
        """For a terminal."""
        yield f"why not: {self.text}"
        yield f"   where: {self.place}"
        if self.remedy:
            yield f"  remedy: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a cause is looked for in, beside evidence and oracle."""

    objects: Objects
    names: Names
    proxies: Mapping[str, str] = field(default_factory=dict)
    """Nodes whose proxy does not keep its rules up to date, and why."""
    mode: str = "iptables"


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
    return case.on_the_way() or case.at_the_endpoint() or case.on_the_way_back()


def nowhere(destination: Destination, because: Because) -> WhyNot:
    """The cause where there is no address to send to."""
    lookup = destination.lookup
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
            return WhyNot(reason="stale-conntrack", place=found.place, text=text, remedy=remedy)
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
        hit = _last_hit(self.evidence)
        return hit is not None and hit.verdict in ("drop", "reject") and _is_kube(hit)

    def _rules(self, place: str, difference: str) -> WhyNot:
        name = place.removeprefix("node/")
        if why := self.facts.proxies.get(name):
            text = f"the rules of {place} are not those of the newest Services ({why}): {difference}"
            return WhyNot(reason="proxy-stopped", place=place, text=text, remedy="`netemu status` tells of every proxy")
        text = f"a rule of {place} is missing or somebody changed it: {difference}"
        remedy = f"`netemu rules {name}` shows what is there; kube-proxy mends it at its next full sync"
        return WhyNot(reason="missing-rule", place=place, text=text, remedy=remedy)

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
        return found if found.reason == "proxy-stopped" else msgspec.structs.replace(found, reason="wrong-source")

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
                internal = expected.via == "cluster IP"
                return _cause(place, services.no_local(service, expected.node, internal=internal))
            case _ if self.has_no_such_port():
                return _cause(place, services.wrong_port(service, packet.port, packet.protocol.upper()))
            case Reason.SOURCE_RANGE:
                ranges = ", ".join(service.spec.load_balancer_source_ranges)
                text = f"loadBalancerSourceRanges of Service {service.key} do not have the source {packet.source}"
                return WhyNot(reason=expected.reason, place=place, text=text, remedy=f"they are {ranges}")
            case _:
                return WhyNot(reason=expected.reason, place=place, text=expected.text)

    # --- the way to the endpoint

    def on_the_way(self) -> WhyNot | None:
        """Something between sender and endpoint ended the packet."""
        answer, packet = self.evidence.answer, self.evidence.packet
        if answer is not None and ("fragmentation needed" in answer.what or "too big" in answer.what):
            text = f"the packet of {packet.size} bytes is too long for a link on its way: {answer.what}"
            place = end.place if (end := ended(self.evidence)) else last_place(self.evidence)
            return WhyNot(reason="mtu", place=place, text=text, remedy="its sender must learn the path's MTU")
        if answer is not None and answer.what.startswith("time exceeded"):
            to = self._who(self._sought())
            text = (
                f"the packet went in a circle until its TTL was used up: routes lead to {to}, and nobody there has it"
            )
            return WhyNot(reason="loop", place=self.facts.names.text(answer.source), text=text)
        end = ended(self.evidence)
        if end is None:
            return None
        hit = _last_hit(self.evidence)
        match end.by:
            case "rule" | "policy" if hit is not None:
                what = "the policy of" if hit.policy else "the rule" if not hit.text else f"the rule `{hit.text}` of"
                did = "rejects" if end.rejected else "drops"
                text = f"{what} {hit.table} {hit.chain} on {end.place} {did} the packet; kube-proxy made no such rule"
                return WhyNot(reason="dropped-by-rule", place=end.place, text=text, remedy="remove the rule")
            case "route":
                return self._no_route(end.place, end.detail)
            case "link" if "MTU" in end.detail or "too long" in end.detail:
                text = f"the packet of {packet.size} bytes does not fit through a link of {end.place}: {end.detail}"
                return WhyNot(reason="mtu", place=end.place, text=text, remedy="send shorter packets")
            case "link" if (asked := _asked_in_vain(self.evidence, end.place)) is not None:
                text = f"nobody on link {asked.out_link} of {end.place} has {self._who(asked.via or asked.destination)}"
                remedy = "`ip neigh` there has its entry, which no neighbour has answered"
                return WhyNot(reason="no-neighbour", place=end.place, text=text, remedy=remedy)
            case "link":
                text = f"a link of {end.place} is down or loses packets: {end.detail}"
                remedy = "`ip link` there, and at its other end, shows which"
                return WhyNot(reason="link-down", place=end.place, text=text, remedy=remedy)
            case _:
                link, why = f", link {end.link}" if end.link else "", f": {end.detail}" if end.detail else ""
                text = f"the packet was seen last at {end.place}{link}, and did not come on{why}"
                return WhyNot(reason="lost", place=end.place, text=text)

    def _no_route(self, place: str, detail: str) -> WhyNot:
        routes = [e for e in self.evidence.at(place, "there") if isinstance(e, Routed)]
        to = routes[-1].destination if routes else self.evidence.packet.destination
        why = detail or (routes[-1].error or routes[-1].type if routes else "")
        text = f"{place} has no route to {self._who(to)}" + (f": {why}" if why else "")
        if self.facts.names.party(to) is None:
            return WhyNot(reason="no-route", place=place, text=f"{text}; nothing in this lab has that address")
        return WhyNot(reason="no-route", place=place, text=text, remedy="`ip route` there shows what is left")

    # --- the endpoint, and the way back

    def at_the_endpoint(self) -> WhyNot | None:
        """It arrived, and was refused."""
        flow = arrival(self.evidence)
        if flow is None or outcome_of(self.evidence) not in ("refused", "rejected"):
            return None
        party = self.facts.names.party(flow.destination)
        if party is not None and party.kind == NODE:
            text = f"node {party.name} refused: it has no node port {flow.port}, and nothing listens there"
            return WhyNot(reason="not-listening", place=self.evidence.reached, text=text)
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
            return WhyNot(reason="lost", place=place, text=f"the packet was seen last at {place}, and did not come on")
        who = self._named(endpoint_text(flow.destination, flow.port))
        if not back:
            text = f"the packet reached {who}, which sent no answer"
            remedy = "a server without a word for this, or one that hangs" if evidence.packet.protocol == "udp" else ""
            return WhyNot(reason="no-answer", place=evidence.reached, text=text, remedy=remedy)
        end, place = ended(evidence, "back"), last_place(evidence, "back")
        ended_there = end is not None and end.by != "unknown"
        if not ended_there and translations(evidence) and not translations(evidence, "back"):
            text = f"the answer of {who} took a way on which nobody translates it back, and was lost at {place}"
            return WhyNot(reason="answer-astray", place=place, text=text)
        detail = f" ({end.by}{f': {end.detail}' if end.detail else ''})" if end else ""
        return WhyNot(reason="answer-lost", place=place, text=f"the answer of {who} was lost at {place}{detail}")

    def _sought(self) -> str:
        """The address that the packet had as its destination when it was seen last."""
        crossed = [e for e in self.evidence.events if isinstance(e, Crossing) and e.leg == "there"]
        return crossed[-1].headers.destination if crossed else self.evidence.packet.destination

    def _who(self, address: str) -> str:
        """`shop/web-1 (10.244.2.3)`; the address alone where nobody has it."""
        name = self.facts.names.text(address)
        return address if name == address else f"{name} ({address})"

    def _named(self, target: str) -> str:
        address, _, port = target.rpartition(":")
        named = self.facts.names.text(address.strip("[]"))
        return target if named == address.strip("[]") else f"{named}:{port} ({target})"


def _last_hit(evidence: Evidence) -> RuleHit | None:
    """The rule that acted last on the way there."""
    return next((e for e in reversed(evidence.events) if isinstance(e, RuleHit) and e.leg == "there"), None)


def _asked_in_vain(evidence: Evidence, place: str) -> Routed | None:
    """The route from there to a neighbour that does not answer."""
    routes = [event for event in evidence.at(place, "there") if isinstance(event, Routed)]
    return routes[-1] if routes and routes[-1].silent else None


def _is_kube(hit: RuleHit) -> bool:
    return hit.chain.startswith("KUBE-") or hit.table == "kube-proxy"
