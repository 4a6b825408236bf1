"""What ipvs mode has beside iptables rules: members of ipsets, virtual servers and their real servers, in words. Pure.

A set is a chain `ipset NAME` behind the rules that look it up. IPVS itself is entered where a packet is for this node
(behind the filter's INPUT) and where the node sends one; it hands the packet to a virtual server's real servers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from netemu.kernel.ipset import Entry, IpSet
from netemu.kernel.ipvs import Destination, ServerKey, VirtualServer
from netemu.model.hosts import endpoint_text
from netemu.observe.rules.walk import Chain, Line, chains_of
from netemu.observe.rules.words import NO_ENDPOINTS, Words, means_of_set, refused_port

Servers = Mapping[ServerKey, tuple[VirtualServer, Sequence[Destination]]]

_FLAGS: Final = {"tcp": "-t", "udp": "-u", "sctp": "--sctp-service"}
_SCHEDULERS: Final = {
    "rr": "in turn",
    "wrr": "in turn, by weight",
    "lc": "the one with the fewest connections",
    "wlc": "the one with the fewest connections, by weight",
    "sh": "by the client's address",
    "dh": "by the destination's address",
    "mh": "by the client's address (Maglev)",
}


def chains_of_ipvs(sets: Iterable[IpSet], servers: Servers, words: Words) -> dict[tuple[str, str], Chain]:
    """The sets, for rules of both tables, and IPVS."""
    targets: dict[tuple[str, str], list[str]] = {}
    for key, (_, destinations) in servers.items():
        port = words.place(key.protocol, key.address, key.port)[1]
        for each in destinations:
            targets.setdefault((key.protocol, each.target), []).append(port)
    chains: list[Chain] = []
    for held in sets:
        lines = tuple(_member(held.spec.name, entry, words, targets) for entry in sorted(held.entries, key=str))
        chains += [Chain(table, f"ipset {held.spec.name}", lines) for table in ("nat", "filter")]
    return chains_of([*chains, *_balancer(servers, words)])


def _balancer(servers: Servers, words: Words) -> Iterable[Chain]:
    enter = Line("ip_vs", "sends what goes to a virtual server to one of its real servers", leads=("virtual servers",))
    # ip_vs_core.c registers at NF_IP_PRI_NAT_SRC - 2 (behind the filter) and NF_IP_PRI_NAT_DST + 1.
    yield Chain("ipvs", "LOCAL_IN", (enter,), "input", 98)
    yield Chain("ipvs", "LOCAL_OUT", (enter,), "output", -99)
    listed = sorted(servers.items(), key=lambda item: str(item[0]))
    yield Chain("ipvs", "virtual servers", tuple(_server(*found, words) for _, found in listed))
    for key, (server, destinations) in listed:
        ports = _ports(words.place(key.protocol, key.address, key.port)[1])
        lines = (_real(server, each, words, ports) for each in sorted(destinations, key=lambda d: d.target))
        yield Chain("ipvs", str(key), tuple(lines))


def _ports(port: str) -> tuple[str, ...]:
    return (port,) if port else ()


def _server(server: VirtualServer, destinations: Sequence[Destination], words: Words) -> Line:
    key = server.key
    text = f"-A {_named(key)} -s {server.scheduler}" + (f" -p {server.persistence}" if server.persistence else "")
    place, port = words.place(key.protocol, key.address, key.port)
    if not any(each.weight for each in destinations):
        sentence = refused_port("refuses", port, f"what goes to {place}", NO_ENDPOINTS)
    else:
        how = _SCHEDULERS.get(server.scheduler, f"chosen by scheduler {server.scheduler}")
        stays = f"; a client stays with its own for {server.persistence} s" if server.persistence else ""
        one = f"one of {len(destinations)} endpoints, {how}{stays}" if len(destinations) > 1 else "its one endpoint"
        sentence = f"sends what goes to {place} to {one}"
    owner = "" if port else f"(a Service at {place})"
    address = "" if place.startswith("node port") else key.address
    takes = f"{endpoint_text(address, key.port)}/{key.protocol}"
    return Line(text, sentence, *server.counted, leads=(str(key),), ports=_ports(port), owner=owner, takes=takes)


def _real(server: VirtualServer, each: Destination, words: Words, ports: tuple[str, ...]) -> Line:
    text = f"-a {_named(server.key)} -r {each.target} -m -w {each.weight}"
    what = "gets new connections" if each.weight else "keeps its connections and gets no new ones"
    counts = f"; {each.active} active, {each.inactive} others now" if each.active or each.inactive else ""
    return Line(
        text, f"{words.endpoint(each.target)} {what}{counts}", *each.counted, ports=ports, targets=(each.target,)
    )


def _named(key: ServerKey) -> str:
    return f"{_FLAGS.get(key.protocol, key.protocol)} {endpoint_text(key.address, key.port)}"


def _member(name: str, entry: Entry, words: Words, targets: Mapping[tuple[str, str], list[str]]) -> Line:
    _, said = means_of_set(name)
    if "LOOP-BACK" in name:
        target = endpoint_text(entry.address, entry.port)
        ports = tuple(dict.fromkeys(port for port in targets.get((entry.protocol, target), ()) if port))
        return Line(str(entry), f"{words.endpoint(target)} {said}", ports=ports, owner="" if ports else target)
    if not entry.port:
        ports = tuple(words.at_address(entry.address))
        return Line(str(entry), f"{entry.address} {said}", ports=ports, owner="" if ports else entry.address)
    protocol = entry.protocol or next((p for p in ("udp", "sctp") if f"-{p.upper()}" in name), "tcp")
    place, port = words.place(protocol, entry.address, entry.port)
    what = f"{place} {said}" + (f": {entry.other}" if entry.other else "")
    checked = "HEALTH-CHECK" in name  # a port of kube-proxy's own, which no Service port is
    return Line(str(entry), what, ports=_ports(port), owner="" if port or checked else place)
