"""Following packets through a running lab: what is known of it, what is watched, and the story that comes of a packet.

What a story needs is read once, when a trace starts: objects from the API server, modes and progress of the proxies
from the node agent, sandboxes from disk. What ought to happen is predicted from that (`observe.predict`), what does
happen the kernel tells (`observe.gather`); a story and, where the two differ, a cause are made of both.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from netemu.dns import names as dns_names
from netemu.dns.wire import build_query
from netemu.lab.addresses import address_names
from netemu.lab.api import LabApi
from netemu.lab.cluster_view import read_view, senders
from netemu.lab.config import LabConfig
from netemu.lab.readiness import rules_missing
from netemu.lab.rules import proxied_revisions
from netemu.lab.targets import Target, find_target
from netemu.model.errors import NetemuError, UserError
from netemu.model.resources import DEPLOYMENTS, SERVICES, STATEFULSETS
from netemu.network import names as networks
from netemu.observe.cluster import Cluster, Sender
from netemu.observe.names import CLIENT, POD, UNDERLAY, Names
from netemu.observe.predict import predict
from netemu.observe.probe.prober import Place
from netemu.observe.reasons import Because, Reason
from netemu.observe.rules.read import read_rules
from netemu.observe.rules.told import meaning
from netemu.observe.story.destination import Destination, Idle, Objects, parse, resolve
from netemu.observe.story.expected import expected_of
from netemu.observe.story.story import Story, Teller, nowhere_story, story_of
from netemu.observe.story.whynot import Facts, nowhere, why_not
from netemu.observe.trace.evidence import Evidence, Packet, Protocol, RuleHit, Watched, pair
from netemu.observe.trace.follow import follow
from netemu.observe.trace.gather import gather
from netemu.observe.trace.outcome import outcome_of
from netemu.observe.trace.standing import read_standings

_DNS = 53
_DNS_A = 1
_RENEW = 1.0


@dataclass(frozen=True)
class Scene:
    """What is known of a lab at one moment."""

    config: LabConfig
    objects: Objects
    cluster: Cluster
    names: Names
    proxies: Mapping[str, str]
    """Nodes whose rules are not those of the newest Services, and why."""

    @cached_property
    def senders(self) -> dict[str, Sender]:
        """Every place that a packet can start from, by its name."""
        return {sender.name: sender for sender in senders(self.cluster)}

    def watched(self, source: Target, destination: str, port: int) -> list[Watched]:
        """The places that a packet may come by: the underlay, the nodes, and those that may be its end."""
        lab, found = self.config.name, {source.name: source.netns, UNDERLAY: networks.underlay_netns(self.config.name)}
        found |= {f"node/{node.name}": networks.node_netns(lab, node.name) for node in self.config.nodes}
        ends = {destination, *self._endpoints(destination, port)}
        for party in filter(None, map(self.names.party, sorted(ends))):
            if party.kind == POD:
                found[party.name] = networks.pod_netns(lab, *party.name.split("/"))
            elif party.kind == CLIENT:
                found[f"client/{party.name}"] = networks.client_netns(lab, party.name)
        return [Watched(name, netns) for name, netns in found.items()]

    def _endpoints(self, destination: str, port: int) -> Iterator[str]:
        """Addresses of the endpoints of every Service that the destination may mean, in whatever state."""
        services = {service.key for service in self.cluster.services_at(port, destination)}
        for piece in self.objects.slices:
            if piece.service_key in services:
                yield from (address for each in piece.endpoints or () for address in each.addresses)


def read_scene(lab: str) -> Scene:
    """Ask the API server and the node agent. Raises UserError, ApiError."""
    api = LabApi(lab)
    newest = proxied_revisions(api)
    view = read_view(lab)  # the node agent after the revisions: it may know of more than was read, but not of less
    behind = rules_missing(view.agent, [node.name for node in view.config.nodes], *newest)
    objects = replace(view.objects, idle=tuple(_idle(api)))
    return Scene(view.config, objects, view.cluster, address_names(lab), behind)


def _idle(api: LabApi) -> Iterator[Idle]:
    for resource in (DEPLOYMENTS, STATEFULSETS):
        for obj in api.list(resource)[0]:
            if obj["spec"].get("replicas") == 0:
                labels = obj["spec"]["template"]["metadata"].get("labels") or {}
                meta = obj["metadata"]
                yield Idle(resource.kind.lower(), meta["namespace"], meta["name"], labels)


class Tracer:
    """Sends packets from one place of a lab and tells what becomes of them."""

    def __init__(self, lab: str, source: str, namespace: str, scene: Scene | None = None) -> None:
        """`scene`: what is known of the lab already. Raises UserError for a lab or a source that is not there."""
        self._source = find_target(lab, source, namespace)
        self._scene = scene or read_scene(lab)
        sender = self._scene.senders.get(self._source.name)
        if sender is None:
            raise UserError(f"Pod {self._source.name} has no address yet, or has ended: nothing can be sent from there")
        self._sender, self._revision, self._renewal = sender, "", asyncio.Lock()

    @property
    def names(self) -> Names:
        """What addresses are called."""
        return self._scene.names

    async def story(
        self,
        to: str,
        *,
        protocol: Protocol = "tcp",
        family: str = "",
        size: int = 0,
        source_port: int = 0,
        timeout: float = 1.0,
    ) -> tuple[Story, Evidence | None]:
        """Send one packet. Raises UserError for a destination that is none."""
        scene, source = self._scene, self._source
        destination = await self._resolve(to, protocol, family)
        if destination.trouble is not None:
            return await self._nowhere(destination, destination.trouble, protocol)
        packet = Packet(
            destination=destination.address, port=destination.port, protocol=protocol, size=size,
            source_port=source_port, payload=_payload(protocol, destination, scene.config.dns_domain),
        )  # fmt: skip
        watched = scene.watched(source, destination.address, destination.port)
        evidence = await gather(packet, Watched(source.name, source.netns), watched, timeout=timeout)
        return await self._tell(evidence, destination, watched), evidence

    async def _nowhere(
        self, destination: Destination, trouble: Because, protocol: Protocol
    ) -> tuple[Story, Evidence | None]:
        """Where nobody answers for a name, a query is traced to the nameserver: why it is not answered is the cause."""
        source, lookup = self._source.name, destination.lookup
        if trouble.reason == Reason.DNS_FAILS and lookup is not None and lookup.resolv_conf.nameservers:
            query, evidence = await self.story(pair(lookup.resolv_conf.nameservers[0], _DNS), protocol="udp")
            if query.why_not is not None:
                cause = nowhere(destination, trouble, query.why_not)
                return nowhere_story(source, destination, protocol, cause, query), evidence
        return nowhere_story(source, destination, protocol, nowhere(destination, trouble)), None

    async def live(
        self, to: str, *, protocol: Protocol = "tcp", family: str = "", ready: Callable[[], None] = lambda: None
    ) -> AsyncGenerator[Story, None]:
        """The story of each connection that somebody opens there. Raises UserError for a destination that is none.

        `ready` is called once nothing that begins can be missed.
        """
        source, destination = self._source, await self._resolve(to, protocol, family)
        if destination.trouble is not None:
            raise UserError(f"destination {to!r}: {destination.trouble.text}")
        address, port, place = destination.address, destination.port, Watched(source.name, source.netns)

        def places() -> list[Watched]:
            return self._scene.watched(source, address, port)

        renewing = asyncio.create_task(self._renew_often())
        try:
            async for evidence in follow(place, places, address, port, protocol, ready):
                await self._renew()
                yield await self._tell(evidence, destination, places())
        finally:
            renewing.cancel()

    async def _renew_often(self) -> None:
        """Pods that come are known before the first connection to them, mostly."""
        while True:
            await asyncio.sleep(_RENEW)
            with contextlib.suppress(NetemuError):  # an API server that is away for a while changes nothing
                await self._renew()

    async def _renew(self) -> None:
        """Know what the lab is now, if it may have changed: asked aside, for what is watched must be read meanwhile."""
        lab = self._scene.config.name
        async with self._renewal:
            revision = await asyncio.to_thread(LabApi(lab).list, SERVICES, limit="1")
            if revision[1] != self._revision or self._scene.proxies:
                self._revision, self._scene = revision[1], await asyncio.to_thread(read_scene, lab)

    async def _resolve(self, to: str, protocol: Protocol, family: str) -> Destination:
        source, is_pod = self._source, bool(self._source.directory)
        place = Place(source.netns, source.resolv_conf, source.hosts)
        wanted, objects = parse(to, protocol), self._scene.objects
        return await resolve(wanted, place, objects, source.namespace, pod=is_pod, family=family)

    async def _tell(self, evidence: Evidence, destination: Destination, watched: Iterable[Watched]) -> Story:
        scene, packet = self._scene, evidence.packet
        prediction = predict(scene.cluster, self._sender, packet.destination, packet.port, packet.protocol.upper())
        passed = {event.place for event in evidence.events if event.leg == "there"}
        expected = expected_of(prediction, passed, scene.names, scene.objects)
        facts = Facts(scene.objects, scene.names, scene.proxies)
        if outcome_of(evidence) != "answered":
            facts = replace(facts, network=read_standings(watched, ipv6=packet.ipv6))
        cause = why_not(evidence, expected, destination, facts)
        hit = {event.place for event in evidence.events if isinstance(event, RuleHit)}
        places = [place for place in watched if place.name in hit]
        rules = await asyncio.gather(*(read_rules(each.netns, scene.names, ipv6=packet.ipv6) for each in places))
        told = meaning({place.name: [found] for place, found in zip(places, rules, strict=True)})
        return story_of(evidence, self._source.name, destination, Teller(scene.names, told), cause)


def _payload(protocol: Protocol, destination: Destination, domain: str) -> bytes:
    """What a datagram carries: something that what usually listens there answers, and that nobody else sends.

    A question for a DNS server; else a word that agnhost's netexec answers, and that is as good as any to an echo.
    """
    if protocol != "udp":
        return b""
    if destination.port == _DNS:
        return build_query(secrets.randbelow(1 << 16), dns_names.parse(f"kubernetes.default.svc.{domain}."), _DNS_A)
    return b"echo " + secrets.token_hex(8).encode()
