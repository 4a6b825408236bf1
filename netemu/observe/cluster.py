"""A cluster as `predict` sees it: API objects, and the plain facts of the network they are in.

Nothing here is asked of a kernel or of a proxy: addresses are those of Nodes and Pods, and the rest is the lab's plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from msgspec import Struct

from netemu.model.hosts import endpoint_text
from netemu.model.objects import EndpointSlice, Service
from netemu.observe.addresses import inside
from netemu.observe.oracle import NodeView, Settings
from netemu.observe.service_ports import balancer_ips_of, cluster_ip_of, external_ips_of, proxied

Port = tuple[int, str]
"""Number and protocol, as in (53, "UDP")."""


class Machine(Struct, frozen=True):
    """A node with its kube-proxy."""

    view: NodeView
    settings: Settings
    gateways: tuple[str, ...] = ()
    """What its Pods route through: addresses on the node's end of each Pod's link, one of a family."""
    listening: frozenset[Port] = frozenset()
    """Where its own processes answer."""
    caches: frozenset[str] = frozenset()
    """Addresses of its DNS cache, which conntrack and so the proxy's rules never see."""


class HostPort(Struct, frozen=True):
    """A port of a node that leads to a port of a Pod; an empty address means every one of the node."""

    address: str
    port: int
    protocol: str
    container_port: int


class PodPlace(Struct, frozen=True):
    """A Pod that has its addresses. `name` is NAMESPACE/NAME."""

    name: str
    node: str
    addresses: tuple[str, ...]
    host_network: bool = False
    ports: frozenset[Port] = frozenset()
    """What its containers declare."""
    host_ports: tuple[HostPort, ...] = ()


class Host(Struct, frozen=True):
    """A machine outside the cluster, or the router between."""

    name: str
    addresses: tuple[str, ...]
    listening: frozenset[Port] = frozenset()


class Sender(Struct, frozen=True):
    """Where a connection starts: a Pod (`node` is the one it is on), a node (`is_node`), or a client outside."""

    name: str
    addresses: tuple[str, ...]
    node: str = ""
    is_node: bool = False

    def address(self, like: str) -> str:
        """The one of the family of another address, "" if it has none."""
        return of_family(self.addresses, like)


class Cluster(Struct, frozen=True, dict=True):
    """Everything a prediction looks at. `pools` are the load balancer's networks, routed to the nodes."""

    services: Sequence[Service]
    slices: Sequence[EndpointSlice]
    nodes: Mapping[str, Machine]
    pods: Sequence[PodPlace] = ()
    clients: Sequence[Host] = ()
    router: Host = Host("router", ())
    pools: tuple[str, ...] = ()

    def services_at(self, port: int, *addresses: str) -> list[Service]:
        """The Services that have one of the addresses, or the port as a node port: what a judge has to look at."""
        found = [each for address in addresses for each in self._by_address.get(address, ())]
        return list({each.key: each for each in (*found, *self._by_node_port.get(port, ()))}.values())

    def slices_of(self, services: Sequence[Service]) -> list[EndpointSlice]:
        """Their EndpointSlices."""
        return [piece for service in services for piece in self._by_service.get(service.key, ())]

    def pod_at(self, address: str) -> PodPlace | None:
        """The Pod with a network of its own that has an address."""
        return self._pods.get(address)

    def node_of(self, address: str) -> str:
        """The node that has an address, or whose Pods' range has it; "" for none."""
        if address not in self._nodes:
            of_pods = (n for n, each in self.nodes.items() if inside(address, each.view.pod_cidrs))
            self._nodes[address] = next(of_pods, "")
        return self._nodes[address]

    def is_pod_address(self, address: str) -> bool:
        """Whether it is in any node's range of Pod addresses."""
        return any(inside(address, each.view.pod_cidrs) for each in self.nodes.values())

    def ways(self, address: str) -> list[str]:
        """The nodes that the load balancer sends an address of its pools to.

        All of them, or, as health checks tell a cloud's, those with ready endpoints where a Service wants no others.
        """
        for service in self.services_at(0, address):
            spec = service.spec
            ours = spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"
            if ours and any(item.ip == address for item in service.status.load_balancer.ingress):
                endpoints = [each for piece in self.slices_of([service]) for each in piece.endpoints or ()]
                healthy = {each.node_name for each in endpoints if each.conditions.ready is not False}
                if chosen := [name for name in self.nodes if name in healthy]:
                    return chosen
        return list(self.nodes)

    @cached_property
    def endpoints(self) -> frozenset[str]:
        """`ip:port/PROTOCOL` of every endpoint of any Service, in whatever condition."""
        return frozenset(
            f"{endpoint_text(address, port.port)}/{port.protocol or 'TCP'}"
            for piece in self.slices
            for endpoint in piece.endpoints or ()
            for address in endpoint.addresses
            for port in piece.ports or ()
            if port.port
        )

    @cached_property
    def _by_address(self) -> dict[str, list[Service]]:
        found: dict[str, list[Service]] = {}
        for service in filter(proxied, self.services):
            own = {cluster_ip_of(service, "0.0.0.0"), cluster_ip_of(service, "::")}
            for address in own | set(external_ips_of(service)) | set(balancer_ips_of(service)):
                found.setdefault(address, []).append(service)
        return found

    @cached_property
    def _by_node_port(self) -> dict[int, list[Service]]:
        found: dict[int, list[Service]] = {}
        for service in filter(proxied, self.services):
            for port in {each.node_port for each in service.spec.ports} - {0}:
                found.setdefault(port, []).append(service)
        return found

    @cached_property
    def _by_service(self) -> dict[str, list[EndpointSlice]]:
        found: dict[str, list[EndpointSlice]] = {}
        for piece in self.slices:
            found.setdefault(piece.service_key, []).append(piece)
        return found

    @cached_property
    def _pods(self) -> dict[str, PodPlace]:
        return {address: pod for pod in self.pods if not pod.host_network for address in pod.addresses}

    @cached_property
    def _nodes(self) -> dict[str, str]:
        return {address: name for name, each in self.nodes.items() for address in each.view.ips}


def of_family(addresses: Sequence[str], like: str) -> str:
    """The first address of the family of another one, "" if there is none."""
    return next((address for address in addresses if (":" in address) == (":" in like)), "")
