"""Evidence of packets written short, as the kernel tells it of a lab with two nodes.

shop/client 10.244.1.2 on worker-1        shop/web-1 10.244.2.3 on worker-2, behind Service shop/web, 10.96.0.9:80
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from netemu.model.objects import Service
from netemu.model.pods import Pod
from netemu.observe.names import NODE, POD, Names, Party, names_of
from netemu.observe.story.destination import Objects
from netemu.observe.trace.evidence import (
    Crossing,
    Dropped,
    Event,
    Evidence,
    Flow,
    Headers,
    Leg,
    Packet,
    Protocol,
    Routed,
    RuleHit,
    Translation,
    Watched,
)
from tests.unit.objects_world import a_pod, a_service

CLIENT, WEB, VIP = "10.244.1.2", "10.244.2.3", "10.96.0.9"
POD_1, NODE_1, NODE_2, POD_2 = "shop/client", "node/worker-1", "node/worker-2", "shop/web-1"
SERVICE = a_service(ports=[{"port": 80, "targetPort": 8080, "name": "http"}])
TO_VIP = Flow(CLIENT, 61001, VIP, 80)
PARTIES = (
    (CLIENT, Party(POD, POD_1, "worker-1")),
    (WEB, Party(POD, POD_2, "worker-2")),
    ("172.18.0.3", Party(NODE, "worker-1")),
    ("172.18.0.4", Party(NODE, "worker-2")),
)
HTTP = [{"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}]


def objects(service: Service = SERVICE, *pods: Pod) -> Objects:
    """The Service with its Pod, or others."""
    return Objects((service,), (), pods or (a_pod("web-1", WEB, node="worker-2", containers=HTTP),))


def names(service: Service = SERVICE) -> Names:
    """Who has which address."""
    return names_of(PARTIES, [service])


@dataclass
class Journey:
    """A packet under way: each method adds what the kernel says, and the packet is then as it says."""

    flow: Flow = TO_VIP
    protocol: Protocol = "tcp"
    what: str = "SYN"
    size: int = 0
    leg: Leg = "there"
    reached: str = ""
    answer: Headers | None = None
    events: list[Event] = field(default_factory=list)
    first: Flow | None = None

    def __post_init__(self) -> None:
        self.first = self.flow

    @property
    def headers(self) -> Headers:
        flow = self.flow
        return Headers(
            protocol=self.protocol, source=flow.source, source_port=flow.source_port,
            destination=flow.destination, port=flow.port, what=self.what,
        )  # fmt: skip

    def link(self, place: str, link: str, direction: Literal["in", "out"]) -> Journey:
        """It crosses an end of a link."""
        return self._add(
            Crossing(
                seconds=self._now, place=place, leg=self.leg, link=link, direction=direction, headers=self.headers,
                frame=b"frame",
            )
        )  # fmt: skip

    def rule(self, place: str, table: str, chain: str, verdict: str, text: str = "", to: str = "") -> Journey:
        """A rule acts on it."""
        return self._add(
            RuleHit(
                seconds=self._now, place=place, leg=self.leg, backend="iptables-nft", family="ip", table=table,
                chain=chain, verdict=verdict, to=to, text=text,
            )
        )  # fmt: skip

    def translate(self, place: str, flow: Flow, *, new: bool = True) -> Journey:
        """Its addresses are changed."""
        before, self.flow = self.flow, flow
        kinds: list[Literal["dnat", "snat"]] = []
        if (before.destination, before.port) != (flow.destination, flow.port):
            kinds.append("dnat")
        if (before.source, before.source_port) != (flow.source, flow.source_port):
            kinds.append("snat")
        return self._add(
            Translation(
                seconds=self._now, place=place, leg=self.leg, before=before, after=flow, protocol=self.protocol,
                kinds=tuple(kinds), new=new,
            )
        )  # fmt: skip

    def dnat(self, place: str, address: str = WEB, port: int = 8080, *, new: bool = True) -> Journey:
        """Its destination is changed."""
        return self.translate(place, Flow(self.flow.source, self.flow.source_port, address, port), new=new)

    def route(
        self, place: str, out: str = "", via: str = "", error: str = "", kind: str = "unicast", *, silent: bool = False
    ) -> Journey:
        """It is routed, or not."""
        return self._add(
            Routed(
                seconds=self._now, place=place, leg=self.leg, destination=self.flow.destination, out_link=out, via=via,
                silent=silent, error=error, type="" if error else kind,
            )
        )  # fmt: skip

    def drop(
        self, place: str, by: Literal["rule", "policy", "route", "link", "unknown"], link: str = "", *,
        rejected: bool = False, detail: str = "",
    ) -> Journey:  # fmt: skip
        """It ends."""
        return self._add(
            Dropped(seconds=self._now, place=place, leg=self.leg, by=by, link=link, rejected=rejected, detail=detail)
        )

    def to_worker_2(self) -> Journey:
        """Out of worker-1 and into worker-2."""
        return self.route(NODE_1, "eth0", "172.18.0.4").link(NODE_1, "eth0", "out").link(NODE_2, "eth0", "in")

    def begin(self) -> Journey:
        """Out of the Pod and into worker-1."""
        return self.link(POD_1, "eth0", "out").link(NODE_1, "veth1", "in")

    def arrive(self) -> Journey:
        """Out of worker-2 and into the Pod, which takes it."""
        self.route(NODE_2, "veth2").link(NODE_2, "veth2", "out").link(POD_2, "eth0", "in")
        self.reached = POD_2
        return self

    def back(self, what: str = "SYN-ACK") -> Journey:
        """Whoever has it sends an answer."""
        self.leg, self.what, self.flow = "back", what, self.flow.reversed
        return self

    def home(self) -> Journey:
        """The answer takes the whole way back and is taken by the sender."""
        self.link(POD_2, "eth0", "out").link(NODE_2, "veth2", "in").link(NODE_2, "eth0", "out").link(
            NODE_1, "eth0", "in"
        )
        assert self.first is not None
        if self.flow.reversed != self.first:
            self.translate(NODE_1, self.first.reversed, new=False)
        return self.link(NODE_1, "veth1", "out").link(POD_1, "eth0", "in").told()

    def told(self, headers: Headers | None = None) -> Journey:
        """The sender gets an answer."""
        self.answer = headers or self.headers
        return self

    def icmp(self, what: str, source: str = "172.18.0.3") -> Journey:
        """The sender gets an ICMP error."""
        return self.told(Headers(protocol="icmp", source=source, destination=CLIENT, what=what, about=self.headers))

    def evidence(self) -> Evidence:
        """All of it."""
        assert self.first is not None
        packet = Packet(
            destination=self.first.destination, port=self.first.port, protocol=self.protocol,
            source=self.first.source, source_port=self.first.source_port, size=self.size,
        )  # fmt: skip
        return Evidence(
            packet=packet, source=Watched(POD_1, ""), sent=100.0, events=tuple(self.events), answer=self.answer,
            reached=self.reached, seconds=0.0005 if self.answer else 0.0,
        )  # fmt: skip

    @property
    def _now(self) -> float:
        return 100.0 + len(self.events) / 1e5

    def _add(self, event: Event) -> Journey:
        self.events.append(event)
        return self


def through_the_rules(journey: Journey | None = None) -> Journey:
    """To the Service's cluster IP, translated on worker-1."""
    found = (journey or Journey()).begin()
    found.rule(NODE_1, "nat", "PREROUTING", "jump", "-j KUBE-SERVICES", "KUBE-SERVICES")
    found.rule(NODE_1, "nat", "KUBE-SEP-X", "dnat", f"-p tcp -j DNAT --to-destination {WEB}:8080")
    return found
