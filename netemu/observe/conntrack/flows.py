"""Connections of all nodes as flows of Services: who asked which Service port, and which endpoint got it. Pure.

Every node that a connection crosses has an entry for it in its conntrack table. The one whose rules translated it knows
all of it: the original direction is what the client wrote, and the source of the reply direction is the endpoint that
was chosen; where the reply goes to somebody else than the client, the source was masqueraded. Nodes further on see a
connection from one address to another, and bear it in their own entry as the translating one's reply direction turned
round: those are the same flow, and told once. IPVS writes its choice into conntrack, too, so all modes look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

from netemu.kernel.conntrack_events import ASSURED, SEEN_REPLY, Tracked, Tuple
from netemu.observe.names import Names

Event: TypeAlias = Literal["", "new", "update", "destroy"]
Held: TypeAlias = tuple[str, Tracked]
"""A node's name, and an entry of its table."""


class End(msgspec.Struct, frozen=True, rename="camel"):
    """One end of a flow: the name of whoever it is (the address where nobody has it), address and port."""

    name: str
    address: str
    port: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.port}" if self.port else self.name


class Counts(msgspec.Struct, frozen=True):
    """What went in one direction."""

    packets: int
    bytes: int


class ServiceFlow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One connection. `service` is "" for one that goes to no Service port."""

    protocol: str
    client: End
    service: str
    """NAMESPACE/NAME:PORT."""
    via: str
    """What the client's destination is to the Service: cluster IP, node port, external IP, load balancer IP."""
    destination: End
    """As the client wrote it."""
    endpoint: End | None
    """Who got it; None where no rule translated what went to a Service."""
    source_seen: End
    """The client as the endpoint sees it."""
    node: str
    """Whose table it is from: where it was translated, or the first that it crossed."""
    state: str
    """Of TCP the kernel's; of others `unreplied`, `replied`, or `assured` (it went both ways for a while)."""
    there: Counts
    back: Counts
    age: float | None = None
    """Seconds; None where the node does not note when connections begin."""
    event: Event = ""
    """What has just become of it, where flows are followed."""


def flows_of(
    held: Sequence[Held], names: Names, now: float, wanted: Callable[[Tracked], bool] = lambda entry: True
) -> list[ServiceFlow]:
    """The flows among all entries of all nodes whose (first) entry is wanted, each once, by Service, client and age.

    `now` is in seconds since the epoch.
    """
    after = {_after(entry) for _, entry in held if _translated(entry)}
    first: dict[Tuple, str] = {}
    for node, entry in sorted(held, key=lambda each: _home(each, names)):
        first.setdefault(entry.original, node)
    flows = []
    for node, entry in held:
        translated = _translated(entry)
        continued = not translated and (entry.original in after or first[entry.original] != node)
        if wanted(entry) and not continued:
            flows.append(flow_of(node, entry, names, now))
    return sorted(flows, key=lambda flow: (flow.service, flow.client.name, flow.client.port, flow.age or 0))


class Sum(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """All connections of one client to one endpoint through one Service port."""

    protocol: str
    client: str
    service: str
    endpoint: str
    """"" where no rule translated them."""
    connections: int
    there: Counts
    back: Counts


def sums_of(flows: Iterable[ServiceFlow]) -> list[Sum]:
    """The same by client, Service and endpoint, those with the most connections first."""
    groups: dict[tuple[str, str, str, str], list[ServiceFlow]] = {}
    for flow in flows:
        endpoint = str(flow.endpoint or "")
        groups.setdefault((flow.protocol, flow.client.name, flow.service, endpoint), []).append(flow)
    sums = [
        Sum(
            protocol=protocol, client=client, service=service, endpoint=endpoint, connections=len(members),
            there=_total(flow.there for flow in members), back=_total(flow.back for flow in members),
        )
        for (protocol, client, service, endpoint), members in groups.items()
    ]  # fmt: skip
    return sorted(sums, key=lambda each: (-each.connections, each.service, each.client, each.endpoint))


def _total(counts: Iterable[Counts]) -> Counts:
    listed = list(counts)
    return Counts(sum(each.packets for each in listed), sum(each.bytes for each in listed))


def flow_of(node: str, entry: Tracked, names: Names, now: float, event: Event = "") -> ServiceFlow:
    """The flow that one entry tells of."""
    original, reply = entry.original, entry.reply
    service = names.service_port(original.protocol, original.destination, original.port)
    untouched = (reply.source, reply.source_port) == (original.destination, original.port)
    return ServiceFlow(
        protocol=original.protocol,
        client=_end(names, original.source, original.source_port),
        service=f"{service.service}:{service.port}" if service else "",
        via=service.via if service else "",
        destination=_end(names, original.destination, original.port),
        endpoint=None if service and untouched else _end(names, reply.source, reply.source_port),
        source_seen=_end(names, reply.destination, reply.port),
        node=node,
        state=state(entry),
        there=Counts(entry.packets[0], entry.bytes[0]),
        back=Counts(entry.packets[1], entry.bytes[1]),
        age=age(entry, now),
        event=event,
    )


def state(entry: Tracked) -> str:
    """See ServiceFlow.state."""
    if entry.state and entry.state != "NONE":
        return entry.state
    if not entry.status & SEEN_REPLY:
        return "unreplied"
    return "assured" if entry.status & ASSURED else "replied"


def age(entry: Tracked, now: float) -> float | None:
    """See ServiceFlow.age."""
    return max(round(now - entry.began / 1e9, 3), 0.0) if entry.began else None


def concerns(entry: Tracked, addresses: Iterable[str]) -> bool:
    """Whether one of these addresses is in the entry, in either direction."""
    original, reply = entry.original, entry.reply
    mine = {original.source, original.destination, reply.source, reply.destination}
    return not mine.isdisjoint(addresses)


def _translated(entry: Tracked) -> bool:
    return _after(entry) != entry.original


def _after(entry: Tracked) -> Tuple:
    """The first direction as it leaves the node: the reply direction turned round."""
    reply = entry.reply
    return Tuple(reply.protocol, reply.destination, reply.port, reply.source, reply.source_port)


def _home(held: Held, names: Names) -> tuple[int, str]:
    """Sorts the node that a connection begins at before others: the client's own."""
    node, entry = held
    party = names.party(entry.original.source)
    return int(party is None or node not in (party.node, party.name)), node


def _end(names: Names, address: str, port: int) -> End:
    return End(names.text(address), address, port)
