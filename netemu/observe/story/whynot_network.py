"""Why not, of the network between two places: what ended a packet there, or kept it from coming on. Pure.

Theory of operation: one ordered list of checks, each of which holds what happened to the packet (the evidence) against
how the network stands (links, routes, forwarding) and knows one cause. The first that applies is the answer. A link
that is down takes its routes with it, and then the packet goes astray somewhere else: into a circle, or to a place that
has no route. So the state of the links comes before what the packet met. Only links that the packet should have taken
are looked at, and only as far as it came.

The way is predicted from where places stand: a Pod is linked to its node, nodes and clients to the underlay, and the
two ends of a veth pair know each other's numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from netemu.kernel.rtnetlink_answers import Link
from netemu.observe.names import NODE, POD, SERVICE, UNDERLAY, Names
from netemu.observe.reasons import Reason
from netemu.observe.story.cause import WhyNot
from netemu.observe.trace.evidence import NOWHERE, Crossing, Dropped, Evidence, Leg, Routed, RuleHit
from netemu.observe.trace.outcome import answerer, ended
from netemu.observe.trace.standing import Standing

_TAG: Final = 4
"""A link takes in a VLAN tag's length more than its MTU (`is_skb_forwardable`)."""


class End(NamedTuple):
    """One end of a link on the way."""

    place: str
    link: Link
    leaving: bool
    """The packet goes out there; else it comes in."""


@dataclass(frozen=True, slots=True)
class Way:
    """One leg of a packet through the network: `to` is the place that it should reach ("" if nobody's), `address` its
    destination as it was seen last."""

    evidence: Evidence
    names: Names
    network: Mapping[str, Standing]
    source: str
    to: str
    address: str
    leg: Leg = "there"

    @property
    def end(self) -> Dropped | None:
        """Where it ended before its time."""
        return ended(self.evidence, self.leg)

    @property
    def circled(self) -> bool:
        """Whether it went round until its TTL was used up, or came back to its sender, which took it for a forgery."""
        answer = self.evidence.answer
        expired = answer is not None and answer.what.startswith("time exceeded")
        returned = not self.evidence.reached and self.source != self.to and self.entered(self.source) > 1
        return expired or returned

    def entered(self, place: str) -> int:
        """How often it has come into a place, or began there."""
        came = [e.place for e in self.evidence.at(place, self.leg) if isinstance(e, Crossing) and e.direction == "in"]
        return len(came) + (place == self.source)

    @property
    def narrow(self) -> bool:
        """Whether somebody told its sender that it is too long: the sender's own kernel, too, which remembers it."""
        answer, said = self.evidence.answer, ("fragmentation needed", "packet too big")
        return self.leg == "there" and answer is not None and answer.what.startswith(said)

    @property
    def length(self) -> int:
        """Of the packet, as it was seen last."""
        seen = [e.headers.length for e in self.evidence.events if isinstance(e, Crossing) and e.leg == self.leg]
        return max([*seen[-1:], self.evidence.packet.size if self.leg == "there" else 0])

    def who(self, address: str) -> str:
        """`shop/web-1 (10.244.2.3)`; the address alone where nobody has it."""
        name = self.names.text(address)
        return address if name == address else f"{name} ({address})"

    def ends(self) -> Iterator[End]:
        """The ends of the links that it should cross, as far as it came, in order."""
        there, back = [*self._up(self.source)], [*self._up(self.to)] if self.to else []
        joint = next((place for place in there if place in back), "")
        if joint:
            there, back = there[: there.index(joint) + 1], back[: back.index(joint)]
        else:
            back = []
        places = [*there, *reversed(back)]
        last = places.index(self.end.place) + 1 if self.end and self.end.place in places else len(places)
        for number, (one, two) in enumerate(pairwise(places)):
            if number < last or self.circled or self.narrow:
                yield from self._cables(one, two)

    def _up(self, place: str) -> Iterator[str]:
        """A place, the one that it is linked to, and so on up to the underlay."""
        yield place
        party = next((party for party in self.names.parties.values() if str(party) == place), None)
        if party is not None and party.kind == POD and party.node:
            yield f"{NODE}/{party.node}"
        if place != UNDERLAY:
            yield UNDERLAY

    def _cables(self, one: str, two: str) -> Iterator[End]:
        for mine in self._links(one):
            for other in self._links(two):
                if mine.type == other.type == "veth" and (mine.peer, mine.index) == (other.index, other.peer):
                    yield End(one, mine, leaving=True)
                    yield End(two, other, leaving=False)

    def _links(self, place: str) -> Iterable[Link]:
        standing = self.network.get(place)
        return standing.links if standing is not None else ()


# --- the checks, in their order --------------------------------------------------------------------------------------


def rule(way: Way) -> WhyNot | None:
    """A rule that kube-proxy did not make ended it."""
    end, hit = way.end, last_hit(way.evidence, way.leg)
    if end is None or end.by not in ("rule", "policy") or hit is None:
        return None
    what = "the policy of" if hit.policy else "the rule" if not hit.text else f"the rule `{hit.text}` of"
    did = "rejects" if end.rejected else "drops"
    text = f"{what} {hit.table} {hit.chain} on {end.place} {did} the packet; kube-proxy made no such rule"
    return WhyNot(reason=Reason.DROPPED_BY_RULE, place=end.place, text=text, remedy="remove the rule")


def link_is_down(way: Way) -> WhyNot | None:
    """A link of the way is down, or the bridge that has it."""
    for end in way.ends():
        bridge = next((each for each in way.network[end.place].links if each.index == end.link.master), None)
        for link in (end.link, bridge):
            if link is not None and not link.up:
                text = f"link {link.name} of {end.place}, on the way to {way.who(way.address)}, is down"
                remedy = f"`ip link set {link.name} up` there, and routes that went with it have to be set again"
                return WhyNot(reason=Reason.LINK_DOWN, place=end.place, text=text, remedy=remedy)
    return None


def too_long(way: Way) -> WhyNot | None:
    """It does not fit through a link: somebody says so, or only the link's MTU does."""
    answer, end, remedy = way.evidence.answer, way.end, "send shorter packets"
    for each in way.ends():
        link = each.link
        if way.length > link.mtu + (0 if each.leaving else _TAG):
            text = f"the packet of {way.length} bytes is too long for link {link.name} of {each.place}, MTU {link.mtu}"
            silently = "" if each.leaving else ", which drops what is longer without a word"
            return WhyNot(reason=Reason.MTU, place=each.place, text=text + silently, remedy=remedy)
    if answer is not None and way.narrow:
        place = answerer(way.evidence, way.names)
        text = f"the packet of {way.length} bytes is too long for a link of {place}: {answer.what}"
        if place == way.source:
            text = f"{place} remembers that the packet of {way.length} bytes is too long for its way: {answer.what}"
            remedy += ", or `ip route flush cache` there"
        return WhyNot(reason=Reason.MTU, place=place, text=text, remedy=remedy)
    if end is not None and end.by == "link" and ("MTU" in end.detail or "too long" in end.detail):
        text = f"the packet of {way.length} bytes does not fit through a link of {end.place}: {end.detail}"
        return WhyNot(reason=Reason.MTU, place=end.place, text=text, remedy=remedy)
    return None


def does_not_forward(way: Way) -> WhyNot | None:
    """It came into a place that forwards nothing."""
    end = way.end
    standing = way.network.get(end.place) if end is not None else None
    if end is None or standing is None or standing.forwards or end.place in (way.source, way.to):
        return None
    text = f"{end.place} forwards no packets: {standing.forwarding} is 0"
    return WhyNot(
        reason=Reason.NO_FORWARDING, place=end.place, text=text, remedy=f"`sysctl -w {standing.forwarding}=1` there"
    )


def route_refuses(way: Way) -> WhyNot | None:
    """The route to it says that nothing goes there."""
    end = way.end
    standing = way.network.get(end.place) if end is not None else None
    route = standing.route(way.address) if standing is not None else None
    if end is None or end.by != "route" or route is None or route.type not in NOWHERE:
        return None
    named = f"{route.type} {route.to}"
    does = "drops" if route.type == "blackhole" else "refuses"
    text = f"the route `{named}` of {end.place} {does} what goes to {way.who(way.address)}"
    reason = Reason.BLACKHOLE if route.type == "blackhole" else Reason.NO_ROUTE
    return WhyNot(reason=reason, place=end.place, text=text, remedy=f"`ip route del {named}` there")


def circle(way: Way) -> WhyNot | None:
    """Routes lead to whom nobody is."""
    if not way.circled:
        return None
    crossed = [e.place for e in way.evidence.events if isinstance(e, Crossing) and e.leg == way.leg]
    places = [place for place in dict.fromkeys(crossed) if way.entered(place) > 1]
    between = f" between {' and '.join(places)}" if len(places) > 1 else ""
    text = f"the packet went in a circle{between}: routes lead to {way.who(way.address)}, and nobody there has it"
    remedy = "ask for an address that somebody has: `kubectl get pods -A -o wide`"
    # Where its TTL ended is chance; the node that sends it back is where it should have been.
    nodes = [place for place in places if place.startswith(f"{NODE}/")]
    place = (nodes or places or [answerer(way.evidence, way.names)])[0]
    return WhyNot(reason=Reason.LOOP, place=place, text=text, remedy=remedy)


def no_neighbour(way: Way) -> WhyNot | None:
    """Nobody on the link has the next address."""
    end = way.end
    routes = [e for e in way.evidence.at(end.place, way.leg) if isinstance(e, Routed)] if end is not None else []
    if end is None or end.by != "link" or not routes or not routes[-1].silent:
        return None
    asked = routes[-1]
    text = f"nobody on link {asked.out_link} of {end.place} has {way.who(asked.via or asked.destination)}"
    remedy = "`ip neigh` there has its entry, which no neighbour has answered"
    return WhyNot(reason=Reason.NO_NEIGHBOUR, place=end.place, text=text, remedy=remedy)


def no_route(way: Way) -> WhyNot | None:
    """Routing knows no way."""
    end = way.end
    if end is None or end.by != "route":
        return None
    routes = [e for e in way.evidence.at(end.place, way.leg) if isinstance(e, Routed)]
    to = routes[-1].destination if routes else way.evidence.packet.destination
    why = end.detail or (routes[-1].error or routes[-1].type if routes else "")
    text = f"{end.place} has no route to {way.who(to)}" + (f": {why}" if why else "")
    party = way.names.party(to)
    if party is not None and party.kind == SERVICE and not end.place.startswith(f"{NODE}/"):
        text += "; addresses of Services are made by the rules of nodes, and none of these was on the way"
        remedy = "from outside of the cluster use a node port, or an external or load balancer IP that is routed"
        return WhyNot(reason=Reason.NO_ROUTE, place=end.place, text=text, remedy=remedy)
    if party is None:
        return WhyNot(reason=Reason.NO_ROUTE, place=end.place, text=f"{text}; nothing in this lab has that address")
    return WhyNot(reason=Reason.NO_ROUTE, place=end.place, text=text, remedy="`ip route` there shows what is left")


def lost(way: Way) -> WhyNot | None:
    """Nothing tells why it ended where it did."""
    end = way.end
    if end is None:
        return None
    if end.by == "link":
        text = f"a link of {end.place} is down or loses packets: {end.detail}"
        remedy = "`ip link` there, and at its other end, shows which"
        return WhyNot(reason=Reason.LINK_DOWN, place=end.place, text=text, remedy=remedy)
    link, why = f", link {end.link}" if end.link else "", f": {end.detail}" if end.detail else ""
    text = f"the packet was seen last at {end.place}{link}, and did not come on{why}"
    return WhyNot(reason=Reason.LOST, place=end.place, text=text)


Check = Callable[[Way], WhyNot | None]
_STANDS: Final[tuple[Check, ...]] = (link_is_down, too_long, does_not_forward, route_refuses)
"""What explains by how the network stands, on either leg."""
CHECKS: Final[tuple[Check, ...]] = (rule, *_STANDS, circle, no_neighbour, no_route, lost)


def on_the_way(way: Way) -> WhyNot | None:
    """What ended a packet on its way there."""
    if way.end is None and not way.circled and way.evidence.reached:
        return None
    return next((cause for check in CHECKS if (cause := check(way)) is not None), None)


def on_the_way_back(way: Way) -> WhyNot | None:
    """What kept the answer of a server from coming back: that it had no route, or something on its way."""
    standing = way.network.get(way.source)
    route = standing.route(way.address) if standing is not None else None
    answered = any(event.leg == "back" for event in way.evidence.events)
    if standing is not None and not answered and (route is None or route.type in NOWHERE):
        text = f"{way.source} took the packet, and has no route back to {way.who(way.address)}"
        remedy = "`ip route` there shows what is left"
        return WhyNot(reason=Reason.NO_ROUTE_BACK, place=way.source, text=text, remedy=remedy)
    return next((cause for check in _STANDS if (cause := check(way)) is not None), None)


def last_hit(evidence: Evidence, leg: Leg = "there") -> RuleHit | None:
    """The rule that acted last on a leg."""
    return next((e for e in reversed(evidence.events) if isinstance(e, RuleHit) and e.leg == leg), None)
