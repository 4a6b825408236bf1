"""What the addresses of a lab are called: the Pod, node, client or Service that an address and a port belong to. Pure.

An address alone names a party (a Pod, a machine, or the Service whose cluster IP, external IP or load balancer address
it is); with a protocol and a port it may also name a Service port, which is how a node port on a node's address is
told from the node itself. Where two lay claim to an address, machines come before Pods (a Pod of the host network has
its node's address) and Pods before Services (an external IP may be anybody's).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from msgspec import Struct, field

from netemu.model.hosts import endpoint_text
from netemu.model.objects import Service
from netemu.observe.addresses import canonical
from netemu.observe.service_ports import Via, cluster_ip_of, external_ips_of

POD: Final = "pod"
NODE: Final = "node"
CLIENT: Final = "client"
SERVICE: Final = "service"
UNDERLAY: Final = "underlay"
_FIRST: Final = (NODE, CLIENT, UNDERLAY, POD, SERVICE)


class Party(NamedTuple):
    """Who has an address. `name` is NAMESPACE/NAME of Pods and Services; `node` is where a Pod is."""

    kind: str
    name: str
    node: str = ""

    def __str__(self) -> str:
        """As targets are written on the command line: shop/web-1, node/worker-1, client/laptop, service/shop/web."""
        return self.name if self.kind in (POD, UNDERLAY) else f"{self.kind}/{self.name}"


class ServicePortName(NamedTuple):
    """A port of a Service. `via` is what made an address the Service's: cluster IP, node port, ..."""

    service: str
    """NAMESPACE/NAME."""
    port: int
    port_name: str = ""
    via: Via = Via.CLUSTER_IP

    def __str__(self) -> str:
        return f"service/{self.service}:{self.port}"


_Place = tuple[str, str, int]
"""Protocol in small letters, address ("" for any of a node's), port."""


class Names(Struct, frozen=True):
    """The names of a lab at one moment. Addresses are in canonical text."""

    parties: Mapping[str, Party] = field(default_factory=dict)
    ports: Mapping[_Place, ServicePortName] = field(default_factory=dict)

    def party(self, address: str) -> Party | None:
        """Who has the address."""
        return self.parties.get(address)

    def service_port(self, protocol: str, address: str, port: int) -> ServicePortName | None:
        """The Service port that is reached there, also by a node port on an address of a node."""
        found = self.ports.get((protocol.lower(), address, port))
        party = self.parties.get(address)
        if found is None and party is not None and party.kind == NODE:
            found = self.ports.get((protocol.lower(), "", port))
        return found

    def text(self, address: str) -> str:
        """The name of whoever has the address; the address itself where nobody of the lab has it."""
        party = self.parties.get(address)
        return str(party) if party else address

    def endpoint(self, protocol: str, address: str, port: int) -> str:
        """Name and port, of a Service port where it is one: `service/shop/web:80`, `shop/web-1:8080`, `[::1]:53`.

        Port 0 is no port.
        """
        if service := self.service_port(protocol, address, port):
            return str(service)
        name = self.text(address)
        return endpoint_text(name, port) if port else name

    def addresses(self, name: str) -> list[str]:
        """Those of whoever has this name, written as `text` writes it."""
        return [address for address, party in self.parties.items() if str(party) == name]


def names_of(parties: Iterable[tuple[str, Party]], services: Iterable[Service] = ()) -> Names:
    """The names of these: addresses with who has them, and Services as the API server has them."""
    listed = list(services)
    claims = [*parties, *(claim for service in listed for claim in _claims(service))]
    claims.sort(key=lambda claim: _FIRST.index(claim[1].kind), reverse=True)
    return Names(dict(claims), {place: name for service in listed for place, name in _places(service)})


def service_addresses(service: Service) -> Iterator[tuple[str, Via]]:
    """Every address of a Service's own, with what makes it one.

    Those of its load balancer too that nodes do not take for their own (`ipMode: Proxy`): packets to them have a name.
    """
    yield from ((address, Via.CLUSTER_IP) for like in ("0.0.0.0", "::") if (address := cluster_ip_of(service, like)))
    yield from ((address, Via.EXTERNAL_IP) for address in external_ips_of(service) if address)
    balancer = (canonical(entry.ip) for entry in service.status.load_balancer.ingress)
    yield from ((address, Via.BALANCER_IP) for address in balancer if address)


def _claims(service: Service) -> Iterator[tuple[str, Party]]:
    return ((address, Party(SERVICE, service.key)) for address, _ in service_addresses(service))


def _places(service: Service) -> Iterator[tuple[_Place, ServicePortName]]:
    for port in service.spec.ports:
        protocol = port.protocol.lower()
        for address, via in service_addresses(service):
            yield (protocol, address, port.port), ServicePortName(service.key, port.port, port.name, via)
        if port.node_port:
            yield (protocol, "", port.node_port), ServicePortName(service.key, port.port, port.name, Via.NODE_PORT)
