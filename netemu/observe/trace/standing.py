"""How the network stands at each place of a packet's way: its links, its routes, whether it forwards.

Read when a packet was not answered, right behind it: what is down, too narrow or switched off then explains what the
packet met. Of routes the main table is read, which is all that a lab has by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from netemu.kernel import sysctl
from netemu.kernel.netlink import Netlink
from netemu.kernel.rtnetlink_answers import Link, Route
from netemu.model.errors import KernelNotFound
from netemu.observe.trace.evidence import Watched

_FORWARDING: Final = {False: "net.ipv4.ip_forward", True: "net.ipv6.conf.all.forwarding"}


@dataclass(frozen=True, slots=True)
class Standing:
    """Of one place, for one IP family."""

    links: tuple[Link, ...] = ()
    routes: tuple[Route, ...] = ()
    forwards: bool = True
    forwarding: str = ""
    """The sysctl that says so."""

    def route(self, address: str) -> Route | None:
        """The most specific route to an address, of whatever type; None: there is none. Pure."""
        wanted = ip_address(address)
        default = "::/0" if wanted.version == 6 else "0.0.0.0/0"
        found: tuple[int, Route] | None = None
        for route in self.routes:
            prefix = ip_network(default if route.to == "default" else route.to, strict=False)
            if wanted in prefix and (found is None or prefix.prefixlen > found[0]):
                found = (prefix.prefixlen, route)
        return found[1] if found else None


def read_standings(places: Iterable[Watched], *, ipv6: bool) -> dict[str, Standing]:
    """By the places' names; without those that have gone meanwhile, as Pods do."""
    found: dict[str, Standing] = {}
    for place in places:
        with contextlib.suppress(KernelNotFound):
            found[place.name] = _read(place.netns, ipv6=ipv6)
    return found


def _read(netns: str, *, ipv6: bool) -> Standing:
    name = _FORWARDING[ipv6]
    with Netlink(netns) as netlink:
        links, routes = netlink.links(), netlink.routes()
    routes = [route for route in routes if _is_ipv6(route, ipv6) == ipv6]
    return Standing(tuple(links), tuple(routes), sysctl.read(name, netns) != "0", name)


def _is_ipv6(route: Route, else_: bool) -> bool:
    """A default route has no prefix that would tell its family, and without a gateway it may be of either."""
    told = route.to if route.to != "default" else next((hop.via for hop in route.hops if hop.via), "")
    return ":" in told if told else else_
