"""What decides in ipvs mode, asked right behind a packet: entries of ipsets, and the real server that IPVS chose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Final

from netemu.kernel.ipset import Entry, IpSet, IpsetNetlink
from netemu.kernel.ipvs import IpvsNetlink, ServerKey
from netemu.kernel.ipvs_connections import Connection
from netemu.model.errors import KernelError
from netemu.observe.trace.evidence import Balanced, Headers, MapHit, RuleHit, pair
from netemu.observe.trace.passages import Passage

_MATCH_SET: Final = re.compile(r"(!\s)?--match-set (\S+) (\S+)")


def set_entries(netns: str, hit: RuleHit) -> Iterator[MapHit]:
    """The entries by which a rule of iptables matched, as far as its sets are still there."""
    for negated, name, directions in _MATCH_SET.findall(hit.text):
        held = None if negated or not hit.headers else _ipset(netns, name)
        if held is None or hit.headers is None:
            continue
        wanted = wanted_entry(held.spec.type, directions.split(","), hit.headers)
        entry = next((entry for entry in held.entries if _covers(entry, wanted)), None)
        if entry:
            yield MapHit(
                seconds=0.0, place=hit.place, leg=hit.leg, kind="ipset", family=hit.family, table="", name=name,
                key=str(entry), comment=held.comments.get(entry, ""),
            )  # fmt: skip


def balanced(netns: str, passage: Passage, held: Iterable[Connection]) -> Iterator[Balanced]:
    """The real server of the passage's packet, where one of the connections is its."""
    flow = passage.headers.flow if passage.headers else None
    for each in held:
        if flow is None or (each.server, each.server_port) != (flow.destination, flow.port):
            continue
        if each.client_port == flow.source_port:
            scheduler, weight = _server(netns, each)
            yield Balanced(
                seconds=0.0, place=passage.place, leg=passage.leg,
                server=f"{each.protocol.upper()} {pair(each.server, each.server_port)}", scheduler=scheduler,
                destination=pair(each.destination, each.destination_port), weight=weight, state=each.state,
                client=pair(each.client, each.client_port),
            )  # fmt: skip


def _ipset(netns: str, name: str) -> IpSet | None:
    ipsets = IpsetNetlink(netns)
    try:
        return ipsets.get(name)
    except KernelError:  # it went away meanwhile
        return None
    finally:
        ipsets.close()


def _server(netns: str, connection: Connection) -> tuple[str, int]:
    """Scheduler of the virtual server and weight of the real one."""
    key = ServerKey(connection.protocol, connection.server, connection.server_port)
    ipvs = IpvsNetlink(netns)
    try:
        scheduler = next((each.scheduler for each in ipvs.servers() if each.key == key), "")
        target = (connection.destination, connection.destination_port)
        found = (each for each in ipvs.destinations(key) if (each.address, each.port) == target)
        return scheduler, next((each.weight for each in found), 0)
    except KernelError:  # it went away meanwhile
        return "", 0
    finally:
        ipvs.close()


def wanted_entry(kind: str, directions: Sequence[str], headers: Headers) -> Entry:
    """The entry that a packet would be, in an ipset of a type, looked at in these directions (`src`, `dst`)."""
    addresses = {"src": headers.source, "dst": headers.destination}
    ports = {"src": headers.source_port, "dst": headers.port}
    address = protocol = other = ""
    port = 0
    parts = kind.partition(":")[2].split(",")
    for part, direction in zip(parts, directions, strict=False):
        if part == "port":
            port, protocol = ports[direction], "" if kind.startswith("bitmap") else headers.protocol
        elif not address:
            address = addresses[direction]
        else:
            other = addresses[direction]
    return Entry(address, protocol, port, other)


def _covers(entry: Entry, wanted: Entry) -> bool:
    if entry == wanted:
        return True
    if "/" not in entry.other or entry[:3] != wanted[:3]:
        return False
    return ip_address(wanted.other) in ip_network(entry.other)
