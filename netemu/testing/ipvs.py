"""IPVS without a kernel: virtual servers and destinations, refusing what Linux refuses.

The contract suite runs on this and on the kernel. Connections are made by `connect`, which also remembers the client
where the virtual server is persistent; `candidates` says who may serve a new connection. The sysctls are as kube-proxy
sets them: a destination without weight loses the clients that persistence kept for it. Known differences: time does not
pass, a scheduler's choice among the candidates is not modelled, and a lower threshold has no effect.
"""

from __future__ import annotations

import errno
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from netemu.kernel import ipvs
from netemu.kernel.ipvs import Destination, Request, ServerKey, Timeouts, VirtualServer
from netemu.model.errors import KernelError

SCHEDULERS: Final = frozenset(
    {"rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "twos"}
)
_Target = tuple[str, int]


class _Refused(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


@dataclass
class _Server:
    settings: VirtualServer
    destinations: dict[_Target, Destination] = field(default_factory=dict)
    active: Counter[_Target] = field(default_factory=Counter)
    inactive: Counter[_Target] = field(default_factory=Counter)
    remembered: dict[str, _Target] = field(default_factory=dict)

    def network(self, client: str) -> str:
        """The clients that persistence takes for one."""
        return str(ipaddress.ip_network(f"{client}/{self.settings.prefix_length}", strict=False))


class FakeIpvs:
    """See `kernel.ipvs.Ipvs`."""

    def __init__(self, schedulers: Iterable[str] = SCHEDULERS) -> None:
        self.requests: list[Request] = []
        """Everything asked of it, for tests of how much work was done."""
        self._schedulers = frozenset(schedulers)
        self._servers: dict[ServerKey, _Server] = {}
        self._timeouts = Timeouts(900, 120, 300)

    def servers(self) -> list[VirtualServer]:
        """See Ipvs."""
        return [each.settings for each in self._servers.values()]

    def destinations(self, key: ServerKey) -> list[Destination]:
        """See Ipvs."""
        if key not in self._servers:
            raise KernelError.of(f"list destinations of {key}", "fake", errno.ESRCH, "no such virtual server")
        server = self._servers[key]
        return [
            replace(each, active=server.active[target], inactive=server.inactive[target])
            for target, each in server.destinations.items()
        ]

    def timeouts(self) -> Timeouts:
        """See Ipvs."""
        return self._timeouts

    def attempt(self, requests: Iterable[Request]) -> list[tuple[Request, KernelError]]:
        """See Ipvs."""
        refused: list[tuple[Request, KernelError]] = []
        for request in requests:
            self.requests.append(request)
            try:
                _HANDLERS[type(request)](self, request)
            except _Refused as error:
                refused.append((request, ipvs.refusal(request, "fake", error.code)))
        return refused

    def apply(self, *requests: Request) -> None:
        """See Ipvs."""
        for _, error in self.attempt(requests):
            raise error

    def close(self) -> None:
        """Nothing to give back."""

    @property
    def weights(self) -> dict[tuple[str, str, int], dict[str, int]]:
        """By protocol, address and port: weights by `ip:port`; what the packet tracer reads."""
        return {
            (key.protocol, key.address, key.port): {each.target: each.weight for each in server.destinations.values()}
            for key, server in self._servers.items()
            if not key.fwmark
        }

    def candidates(self, key: ServerKey, client: str = "") -> set[str]:
        """Who may serve a new connection (of `client`), as `ip:port`; nobody: the kernel refuses the packet."""
        server = self._servers.get(key)
        if server is None:
            return set()
        kept = server.remembered.get(server.network(client)) if client and server.settings.persistence else None
        if kept in server.destinations and server.destinations[kept].weight:
            return {server.destinations[kept].target}
        return {
            each.target
            for target, each in server.destinations.items()
            if each.weight and not (each.upper and server.active[target] + server.inactive[target] >= each.upper)
        }

    def remembered(self, client: str) -> dict[tuple[str, str, int], str]:
        """By protocol, address and port: whom a persistent virtual server remembers for the client."""
        return {
            (key.protocol, key.address, key.port): server.destinations[kept].target
            for key, server in self._servers.items()
            if (kept := server.remembered.get(server.network(client))) in server.destinations
        }  # fmt: skip

    def connect(self, key: ServerKey, client: str, target: str, *, active: int = 1, inactive: int = 0) -> None:
        """Let connections of a client be with a destination."""
        assert target in self.candidates(key, client), f"{target} would not be chosen for {client}"
        server = self._servers[key]
        (found,) = (place for place, each in server.destinations.items() if each.target == target)
        server.active[found] += active
        server.inactive[found] += inactive
        if server.settings.persistence:
            server.remembered[server.network(client)] = found

    def disconnect(self, key: ServerKey, target: str) -> None:
        """Let all connections with a destination end."""
        server = self._servers[key]
        for place, each in server.destinations.items():
            if each.target == target:
                server.active[place] = server.inactive[place] = 0

    def _server(self, key: ServerKey) -> _Server:
        if key not in self._servers:
            raise _Refused(errno.ESRCH)
        return self._servers[key]

    def _check(self, server: VirtualServer) -> None:
        if server.scheduler not in self._schedulers:
            raise _Refused(errno.ENOENT)
        if server.key.ipv6 and not 1 <= server.prefix_length <= 128:
            raise _Refused(errno.EINVAL)

    def _add_server(self, request: ipvs.AddServer) -> None:
        if request.server.key in self._servers:
            raise _Refused(errno.EEXIST)
        self._check(request.server)
        self._servers[request.server.key] = _Server(request.server)

    def _edit_server(self, request: ipvs.EditServer) -> None:
        held = self._server(request.server.key)
        self._check(request.server)
        held.settings = request.server

    def _del_server(self, request: ipvs.DelServer) -> None:
        self._server(request.key)
        del self._servers[request.key]

    def _add_destination(self, request: ipvs.AddDestination) -> None:
        server, target = self._server(request.key), _target(request.destination)
        if target in server.destinations:
            raise _Refused(errno.EEXIST)
        _check_destination(request.key, request.destination)
        server.destinations[target] = request.destination

    def _edit_destination(self, request: ipvs.EditDestination) -> None:
        server, target = self._server(request.key), _target(request.destination)
        if target not in server.destinations:
            raise _Refused(errno.ENOENT)
        _check_destination(request.key, request.destination)
        server.destinations[target] = request.destination

    def _del_destination(self, request: ipvs.DelDestination) -> None:
        server, target = self._server(request.key), _target(request.destination)
        if server.destinations.pop(target, None) is None:
            raise _Refused(errno.ENOENT)
        server.active.pop(target, None)
        server.inactive.pop(target, None)

    def _set_timeouts(self, request: ipvs.SetTimeouts) -> None:
        old, new = self._timeouts, request.timeouts
        self._timeouts = Timeouts(new.tcp or old.tcp, new.tcp_fin or old.tcp_fin, new.udp or old.udp)

    def _flush(self, request: ipvs.Flush) -> None:
        self._servers.clear()


_HANDLERS: dict[type[Any], Callable[[FakeIpvs, Any], None]] = {
    ipvs.AddServer: FakeIpvs._add_server,
    ipvs.EditServer: FakeIpvs._edit_server,
    ipvs.DelServer: FakeIpvs._del_server,
    ipvs.AddDestination: FakeIpvs._add_destination,
    ipvs.EditDestination: FakeIpvs._edit_destination,
    ipvs.DelDestination: FakeIpvs._del_destination,
    ipvs.SetTimeouts: FakeIpvs._set_timeouts,
    ipvs.Flush: FakeIpvs._flush,
}


def _target(destination: Destination) -> _Target:
    return destination.address, destination.port


def _check_destination(key: ServerKey, destination: Destination) -> None:
    if destination.weight < 0 or destination.lower > destination.upper:
        raise _Refused(errno.ERANGE)
    address = ipaddress.ip_address(destination.address)
    if (address.version == 6) != key.ipv6 or address.is_multicast:
        raise _Refused(errno.EINVAL)
