"""rtnetlink without a kernel: namespaces with links, addresses, routes and neighbours, refusing what Linux refuses.

A `FakeHost` is the machine with its namespaces; `FakeNetlink` is what `kernel.netlink.Netlink` is, in one of them.
The contract suite runs on both. Known differences: IPv6 link-local addresses do not appear, MTU is not enforced, and
only the main table exists.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from netemu.kernel import rtnetlink as wire
from netemu.kernel.rtnetlink import Request
from netemu.kernel.rtnetlink_answers import Address, Hop, Link, Neighbour, Route
from netemu.model.errors import KernelError


class _Refused(Exception):
    def __init__(self, code: int, detail: str = "") -> None:
        self.code, self.detail = code, detail


@dataclass
class _Namespace:
    links: dict[int, Link] = field(default_factory=lambda: {1: Link(1, "lo", "", False, 65536, "00:00:00:00:00:00")})
    addresses: list[Address] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    peers: dict[int, tuple[str, int]] = field(default_factory=dict)
    last: int = 1

    def index(self, name: str) -> int:
        for link in self.links.values():
            if link.name == name:
                return link.index
        raise _Refused(errno.ENODEV)

    def number(self, wanted: int) -> int:
        if wanted and wanted in self.links:
            raise _Refused(errno.EBUSY)
        if wanted:
            return wanted
        while self.last in self.links:
            self.last += 1
        return self.last


class FakeHost:
    """A machine's network namespaces."""

    def __init__(self, *namespaces: str) -> None:
        self.namespaces = {name: _Namespace() for name in namespaces}
        self.requests: list[Request] = []
        """Everything asked of it, for tests of how much work was done."""

    def netlink(self, netns: str) -> FakeNetlink:
        """A client in one of the namespaces. Raises KernelNotFound."""
        if netns not in self.namespaces:
            raise KernelError.of("enter namespace", netns, errno.ENOENT, f"no network namespace {netns}")
        return FakeNetlink(self, netns)


class FakeNetlink:
    """See `kernel.netlink.Rtnetlink`."""

    def __init__(self, host: FakeHost, netns: str) -> None:
        self.netns = netns
        self.host, self.space = host, host.namespaces[netns]

    def apply(self, *requests: Request) -> None:
        """Try all requests in order, then raise the first refusal."""
        refusal: KernelError | None = None
        for request in requests:
            self.host.requests.append(request)
            try:
                _HANDLERS[type(request)](self, request)
            except _Refused as err:
                refusal = refusal or KernelError.of(str(request), self.netns, err.code, err.detail)
        if refusal:
            raise refusal

    def links(self) -> list[Link]:
        """All links."""
        return list(self.space.links.values())

    def addresses(self) -> list[Address]:
        """All addresses."""
        return list(self.space.addresses)

    def routes(self, table: int = wire.MAIN_TABLE) -> list[Route]:
        """The routes of a table."""
        return [route for route in self.space.routes if route.table == table]

    def neighbours(self) -> list[Neighbour]:
        """All neighbours."""
        return list(self.space.neighbours)

    def close(self) -> None:
        """Nothing to give back."""


def _new_link(client: FakeNetlink, link: Link) -> None:
    if any(each.name == link.name for each in client.space.links.values()):
        raise _Refused(errno.EEXIST)
    client.space.links[link.index] = link


def _add_bridge(client: FakeNetlink, request: wire.AddBridge) -> None:
    index = client.space.number(0)
    _new_link(client, Link(index, request.name, "bridge", request.up, request.mtu, request.mac))


def _add_dummy(client: FakeNetlink, request: wire.AddDummy) -> None:
    _new_link(client, Link(client.space.number(0), request.name, "dummy", False, 1500, ""))


def _add_veth(client: FakeNetlink, request: wire.AddVeth) -> None:
    other = request.peer_netns or client.netns
    if other not in client.host.namespaces:
        raise _Refused(errno.ENOENT, f"no network namespace {other}")
    there = client.host.namespaces[other]
    master = client.space.index(request.master) if request.master else 0
    names = {link.name for link in there.links.values()} | ({request.name} if there is client.space else set())
    if request.peer in names or any(link.name == request.name for link in client.space.links.values()):
        raise _Refused(errno.EEXIST)
    number = there.number(request.peer_index)
    there.links[number] = Link(number, request.peer, "veth", False, request.mtu, request.peer_mac)
    index = client.space.number(0)
    _new_link(client, Link(index, request.name, "veth", request.up, request.mtu, request.mac, master, number))
    there.links[number] = replace(there.links[number], peer=index)
    there.peers[number], client.space.peers[index] = (client.netns, index), (other, number)


def _set_link(client: FakeNetlink, request: wire.SetLink) -> None:
    index = client.space.index(request.name)
    link = client.space.links[index]
    up = link.up if request.up is None else request.up
    master = client.space.index(request.master) if request.master else link.master
    changed = replace(link, up=up, mtu=request.mtu or link.mtu, mac=request.mac or link.mac, master=master)
    client.space.links[index] = changed
    if request.name == "lo" and up and not link.up:
        client.space.addresses.append(Address(1, "127.0.0.1/8", "host"))
    if not up:
        client.space.routes = [r for r in client.space.routes if all(hop.index != index for hop in r.hops)]


def _del_link(client: FakeNetlink, request: wire.DelLink) -> None:
    index = client.space.index(request.name)
    if index == 1:
        raise _Refused(errno.EOPNOTSUPP)
    other = client.space.peers.get(index)
    _forget(client.space, index)
    if other:
        _forget(client.host.namespaces[other[0]], other[1])


def _add_address(client: FakeNetlink, request: wire.AddAddress) -> None:
    index = client.space.index(request.dev)
    held = [each for each in client.space.addresses if (each.index, each.address) == (index, request.address)]
    if held and request.replace:
        return
    if held:
        raise _Refused(errno.EEXIST, "Address already assigned (EEXIST)")
    client.space.addresses.append(Address(index, request.address))
    interface = ipaddress.ip_interface(request.address)
    if request.prefix_route and interface.network.num_addresses > 1 and client.space.links[index].up:
        src = str(interface.ip) if interface.version == 4 else ""
        scope = "link" if interface.version == 4 else "global"
        client.space.routes.append(Route(str(interface.network), (Hop(index),), "unicast", src, scope))


def _del_address(client: FakeNetlink, request: wire.DelAddress) -> None:
    index = client.space.index(request.dev)
    for each in client.space.addresses:
        if (each.index, each.address) == (index, request.address):
            client.space.addresses.remove(each)
            network, ip = _network(request.address), request.address.partition("/")[0]
            client.space.routes = [
                r for r in client.space.routes if r.src != ip and not (r.to == network and r.hops == (Hop(index),))
            ]
            return
    raise _Refused(errno.EADDRNOTAVAIL, "Address not found (EADDRNOTAVAIL)")


def _add_route(client: FakeNetlink, request: wire.AddRoute) -> None:
    route = Route(
        _network(request.to), tuple(_hops(client, request)), request.type, request.src, _scope(request), request.table
    )
    if route.src and not any(each.address.partition("/")[0] == route.src for each in client.space.addresses):
        raise _Refused(errno.EINVAL, "Invalid prefsrc address (EINVAL)")
    same = [each for each in client.space.routes if _key(each) == _key(route)]
    if same and not request.replace:
        raise _Refused(errno.EEXIST)
    if same:
        client.space.routes.remove(same[0])
    client.space.routes.append(route)


def _key(route: Route) -> tuple[str, bool, int]:
    """What two routes must not share; a default route is of its gateway's family."""
    return route.to, ":" in route.to or ":" in route.hops[0].via, route.table


def _hops(client: FakeNetlink, request: wire.AddRoute) -> Iterator[Hop]:
    if request.type in ("blackhole", "unreachable"):
        # The kernel keeps no device with IPv4 routes that lead nowhere; with IPv6 it names loopback.
        yield Hop(1 if ":" in request.to else 0)
        return
    given = request.nexthops or (wire.NextHop(request.via, request.dev, 1, request.onlink),)
    for hop in given:
        index = client.space.index(hop.dev) if hop.dev else 0
        if index and not client.space.links[index].up:
            raise _Refused(errno.ENETDOWN, "Device for nexthop is not up (ENETDOWN)")
        if not hop.via and not index:
            raise _Refused(errno.ENODEV)
        if hop.via and not (hop.onlink and index):
            index = _way(client, hop.via, index)
        yield Hop(index, hop.via, hop.weight)


def _way(client: FakeNetlink, gateway: str, index: int) -> int:
    """The link on which a gateway is a neighbour."""
    for route in client.space.routes:
        near = route.to != "default" and (route.scope == "link" or (":" in gateway and not route.hops[0].via))
        on_it = near and ipaddress.ip_address(gateway) in ipaddress.ip_network(route.to)
        if on_it and index in (0, route.hops[0].index):
            return route.hops[0].index
    raise _Refused(errno.ENETUNREACH, "Nexthop has invalid gateway (ENETUNREACH)")


def _del_route(client: FakeNetlink, request: wire.DelRoute) -> None:
    for route in client.space.routes:
        matches = (route.to, route.table) == (_network(request.to), request.table)
        if request.dev:
            matches = matches and route.hops[0].index == client.space.index(request.dev)
        if matches and request.via in ("", route.hops[0].via):
            client.space.routes.remove(route)
            return
    raise _Refused(errno.ESRCH)


def _add_neighbour(client: FakeNetlink, request: wire.AddNeighbour) -> None:
    index = client.space.index(request.dev)
    if not client.space.links[index].up:
        raise _Refused(errno.ENETDOWN)
    kept = [each for each in client.space.neighbours if (each.index, each.address) != (index, request.address)]
    client.space.neighbours = [*kept, Neighbour(index, request.address, request.mac, True)]


def _del_neighbour(client: FakeNetlink, request: wire.DelNeighbour) -> None:
    index = client.space.index(request.dev)
    for each in client.space.neighbours:
        if (each.index, each.address) == (index, request.address):
            client.space.neighbours.remove(each)
            return
    raise _Refused(errno.ENOENT)


def _add_bridge_entry(client: FakeNetlink, request: wire.AddBridgeEntry) -> None:
    # Nothing can be read back: what a switch knows changes nothing about where frames arrive in the end.
    if not client.space.links[client.space.index(request.port)].master:
        raise _Refused(errno.EINVAL)


_HANDLERS: dict[type[Any], Callable[[FakeNetlink, Any], None]] = {
    wire.AddVeth: _add_veth,
    wire.AddBridge: _add_bridge,
    wire.AddDummy: _add_dummy,
    wire.SetLink: _set_link,
    wire.DelLink: _del_link,
    wire.AddAddress: _add_address,
    wire.DelAddress: _del_address,
    wire.AddRoute: _add_route,
    wire.DelRoute: _del_route,
    wire.AddNeighbour: _add_neighbour,
    wire.DelNeighbour: _del_neighbour,
    wire.AddBridgeEntry: _add_bridge_entry,
}


def _forget(space: _Namespace, index: int) -> None:
    """A link goes, and with it whatever leads through it."""
    space.links.pop(index, None)
    space.peers.pop(index, None)
    space.addresses = [each for each in space.addresses if each.index != index]
    space.neighbours = [each for each in space.neighbours if each.index != index]
    space.routes = [each for each in space.routes if all(hop.index != index for hop in each.hops)]


def _network(text: str) -> str:
    return text if text == "default" else str(ipaddress.ip_interface(text).network)


def _scope(request: wire.AddRoute) -> str:
    far = request.via or request.nexthops or request.type in ("blackhole", "unreachable") or ":" in request.to
    return "global" if far else "link"
