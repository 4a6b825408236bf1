"""What rules name by number, in words: Service ports behind addresses and chains, Pods behind endpoints. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cached_property
from typing import Final

from netemu.model.hosts import endpoint_text
from netemu.observe.names import NODE, POD, SERVICE, Names, ServicePortName

_HASHED: Final = re.compile(r"KUBE-(?:SVC|SVL|EXT|FW|XLB)-([A-Z2-7]{16})$")
_NFT: Final = re.compile(
    r"(?:service|local|external|firewall|endpoint|affinity)-[A-Z2-7]{8}-(?P<service>[^/]+/[^/]+)/(?P<protocol>[a-z]+)/"
    r"(?P<port>[^/_]*)(?:__(?P<endpoint>.+))?$"
)


class Words:
    """The names of a lab, as sentences about rules use them."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._known = {port_text(name): name for name in names.ports.values()}

    @cached_property
    def _hashes(self) -> dict[str, str]:
        """Ports by the 16 characters that end the names of their chains."""
        return {chain_hash(port_text(name) + place[0]): port_text(name) for place, name in self.names.ports.items()}

    def knows(self, port: str) -> bool:
        """Whether there is a Service port NAMESPACE/NAME:PORT."""
        return port in self._known

    def port_of_chain(self, chain: str) -> str:
        """The Service port whose chain it is by name; "" where the name does not tell, or no Service has it.

        iptables mode names chains by a hash, nftables mode by the Service port in words.
        """
        if found := _HASHED.match(chain):
            return self._hashes.get(found[1], "")
        return claim if (claim := claimed_port(chain)) in self._known else ""

    def place(self, protocol: str, address: str, port: int) -> tuple[str, str]:
        """`cluster IP 10.96.0.10:53/udp of kube-system/kube-dns:dns` and its port; where no Service is, address and "".

        Address "" is any of the node's: a node port.
        """
        name = self._at(protocol, address, port)
        where = f"{endpoint_text(address, port).removeprefix(':')}/{protocol}"
        if name is None:
            return (where if address else f"port {where}"), ""
        return f"{name.via} {where} of {port_text(name)}", port_text(name)

    def _at(self, protocol: str, address: str, port: int) -> ServicePortName | None:
        return self.names.ports.get((protocol, address, port)) or (
            self.names.service_port(protocol, address, port) if address else None
        )

    def at_address(self, address: str) -> list[str]:
        """The Service ports that have an address."""
        return list(dict.fromkeys(port_text(name) for (_, at, _), name in self.names.ports.items() if at == address))

    def who(self, address: str) -> str:
        """`Pod shop/web-1 on worker-2 (10.244.2.3)`; the address where nobody is known to have it."""
        party = self.names.party(address)
        if party is None:
            return address
        kind = {POD: "Pod ", NODE: "node ", SERVICE: "Service "}.get(party.kind, f"{party.kind} ")
        where = f" on {party.node}" if party.node else ""
        return f"{kind}{party.name}{where} ({address})"

    def endpoint(self, target: str) -> str:
        """`Pod shop/web-1 on worker-2 (10.244.2.3:8080)`, of what is written `10.244.2.3:8080`."""
        address, port = split_target(target)
        named = self.who(address)
        return target if named == address else f"{named.rpartition(' (')[0]} ({target})" if port else named


def port_text(name: ServicePortName) -> str:
    """`shop/web:http`, `shop/web` where the port has no name: as kube-proxy's comments have it."""
    return f"{name.service}:{name.port_name}" if name.port_name else name.service


_SETS: Final = {
    "LOOP-BACK": ("goes from an endpoint to itself", "is masqueraded when it reaches itself"),
    "CLUSTER-IP": ("goes to a cluster IP", "is a cluster IP"),
    "EXTERNAL-IP-LOCAL": ("goes to an external IP, policy Local", "keeps its sender's address (policy Local)"),
    "EXTERNAL-IP": ("goes to an external IP", "is an external IP"),
    "LOAD-BALANCER-LOCAL": ("goes to a load balancer IP, policy Local", "keeps its sender's address (policy Local)"),
    "LOAD-BALANCER-FW": ("goes to a load balancer IP with source ranges", "has source ranges"),
    "LOAD-BALANCER-SOURCE-CIDR": ("comes from a source range", "admits this source range"),
    "LOAD-BALANCER-SOURCE-IP": ("comes from the load balancer", "admits the load balancer's own address"),
    "LOAD-BALANCER": ("goes to a load balancer IP", "is a load balancer IP"),
    "NODE-PORT-LOCAL": ("goes to a node port, policy Local", "keeps its sender's address (policy Local)"),
    "NODE-PORT": ("goes to a node port", "is a node port"),
    "HEALTH-CHECK-NODE-PORT": ("goes to a health check node port", "answers a load balancer's health checks"),
    "IPVS-IPS": ("goes to an address of a Service", "is on kube-ipvs0, so this node takes packets for it in"),
}
"""ipsets of kube-proxy by how their names begin behind KUBE-: what a packet found there does, what a member is."""


def means_of_set(name: str) -> tuple[str, str]:
    """What a packet that is found in an ipset of kube-proxy's does, and what a member is.

    Names of sets of IPv6 begin with KUBE-6- and are cut.
    """
    kind = name.removeprefix("KUBE-").removeprefix("6-")
    of = next((known for known in sorted(_SETS, key=len, reverse=True) if kind.startswith(known)), "")
    return _SETS.get(of, ("", "is in the set"))


def chain_hash(text: str) -> str:
    """What ends the name of a chain: base32 of the sha256, 16 characters."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:16]


def claimed_port(chain: str) -> str:
    """The Service port in the name of a chain, map or set of nftables mode, whether there is one or not; or ""."""
    found = _NFT.match(chain)
    return (f"{found['service']}:{found['port']}" if found["port"] else found["service"]) if found else ""


def target_of_chain(chain: str) -> str:
    """The endpoint in the name of a chain or set of nftables mode, `10.244.1.2:8080`; or ""."""
    found = _NFT.match(chain)
    if not found or not found["endpoint"]:
        return ""
    address, _, port = found["endpoint"].rpartition("/")
    # Names cannot hold the colons of an IPv6 address.
    return f"{address}:{port}" if re.fullmatch(r"[\d.]+", address) and address.count(".") == 3 else (
        f"[{address.replace('.', ':')}]:{port}"
    )  # fmt: skip


def split_target(target: str) -> tuple[str, str]:
    """`10.0.0.1:80` or `[::1]:80` to address and port."""
    address, _, port = target.rpartition(":")
    return address.strip("[]"), port


def sent_to_port(kind: str, port: str, about: str) -> str:
    """That packets go to a Service port's chain of a kind: any (endpoint), local, external, firewall."""
    named = about.endswith(f" of {port}")
    match kind:
        case "firewall":
            return f"has source ranges looked at, for {about}{'' if named else f', by those of {port}'}"
        case "external":
            return f"takes {about}, as traffic from outside{'' if named else f' to {port}'}"
        case "local":
            return f"sends {about} to {'its endpoints' if named else f'endpoints of {port}'} on this node"
        case _:
            return f"sends {about} to {'any of its endpoints' if named else f'any endpoint of {port}'}"


def refused_port(verb: str, port: str, about: str, why: str) -> str:
    """That packets to a Service port are refused or dropped, and why."""
    named = about.endswith(f" of {port}")
    who, whose = ("it", "its") if named else (port, f"{port}'s")
    return f"{verb} {about}: {why.format(who=who, whose=whose)}"


def from_outside(about: str) -> str:
    """A negated match of a source, said as what kube-proxy means by it."""
    return re.sub(r"does not come from ([0-9a-f.:]+/\d+)", r"comes from outside the Pod network (\1)", about)


NO_ENDPOINTS: Final = "{who} has no endpoints"
NO_LOCAL_ENDPOINTS: Final = "{who} has no endpoint on this node, and its traffic policy is Local"
NOT_ADMITTED: Final = "the sender is in none of {whose} source ranges"
