"""The networks of a topology: what the file says, the defaults for what it leaves out, and what is wrong with either.

`ipFamily` is kind's word: `ipv4`, `ipv6` or `dual`. In a dual-stack lab every network is a pair, written as kubeadm
takes it, `10.244.0.0/16,fd00:10:244::/56`, the primary family, IPv4, first; a file that gives only one of the two gets
the default of the other.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from netemu.lab.topology import TopologySpec
    from netemu.model.yamlfile import Document, Mistake, Where

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FAMILIES: Final[Mapping[str, tuple[int, ...]]] = {"ipv4": (4,), "ipv6": (6,), "dual": (4, 6)}
"""`ipFamily` to IP versions, the primary one first."""
POD_PREFIX: Final = {4: 24, 6: 64}
"""Prefix length of a node's Pod network, by IP version."""
OUTSIDE: Final[Mapping[int, Network]] = {
    4: ipaddress.IPv4Network("203.0.113.0/24"),
    6: ipaddress.IPv6Network("2001:db8:113::/64"),
}
"""Where clients outside the cluster are: networks set aside for documentation."""
_LAST_CLIENT = {4: "203.0.113.254", 6: "2001:db8:113::ffff"}


@dataclass(frozen=True, slots=True)
class _Kind:
    """One of the three networks: how large it must be at least, and what for, by IP version."""

    defaults: Mapping[int, str]
    longest: Mapping[int, int]
    room: Mapping[int, str]


_KINDS: Final[Mapping[str, _Kind]] = {
    "nodeCIDR": _Kind(
        {4: "172.18.0.0/16", 6: "fc00:f853:ccd:e793::/64"},
        {4: 20, 6: 96},
        {4: "for 250 nodes and a /24 of load-balancer addresses", 6: "for nodes and a /112 of load-balancer addresses"},
    ),
    "podCIDR": _Kind(
        {4: "10.244.0.0/16", 6: "fd00:10:244::/56"}, {4: 22, 6: 62}, {4: "for a /24 per node", 6: "for a /64 per node"}
    ),
    "serviceCIDR": _Kind(
        {4: "10.96.0.0/16", 6: "fd00:10:96::/112"},
        {4: 24, 6: 120},
        {4: "for Services to be given addresses", 6: "for Services to be given addresses"},
    ),
}


def networks_of(spec: TopologySpec) -> dict[str, tuple[str, ...]]:
    """`nodeCIDR`, `podCIDR` and `serviceCIDR` of a checked spec, one network of each family."""
    found: dict[str, tuple[str, ...]] = {}
    for name, text in _given(spec).items():
        by_version: dict[int, str] = {net.version: str(net) for net in map(ipaddress.ip_network, _parts(text))}
        defaults = _KINDS[name].defaults
        found[name] = tuple(by_version.get(version, defaults[version]) for version in FAMILIES[spec.ip_family])
    return found


def addresses_of_client(text: str) -> dict[int, str]:
    """The addresses that a checked file gives a client, by IP version."""
    return {address.version: str(address) for address in map(ipaddress.ip_address, _parts(text))}


def check_networks(document: Document, spec: TopologySpec, nodes: int) -> Iterator[Mistake]:
    """What is wrong with `ipFamily` and the networks of a lab of so many nodes."""
    if spec.ip_family not in FAMILIES:
        yield document.mistake(("spec", "ipFamily"), f"{spec.ip_family!r}: must be ipv4, ipv6 or dual")
        return
    nets: dict[tuple[str, int], Network] = {("the outside network", v): net for v, net in OUTSIDE.items()}
    for name, text in _given(spec).items():
        where: Where = ("spec", name)
        parts, mistakes = _read(_parts(text), spec.ip_family)
        yield from (document.mistake(where, mistake) for mistake in mistakes)
        for version in FAMILIES[spec.ip_family] if not mistakes else ():
            net = parts.get(version) or ipaddress.ip_network(_KINDS[name].defaults[version])
            longest = _KINDS[name].longest[version]
            if net.prefixlen > longest:
                room = _KINDS[name].room[version]
                yield document.mistake(where, f"{net} is too small; must be /{longest} or larger, {room}")
            yield from _overlaps(document, name, net, nets)
            nets[name, version] = net
    for version in FAMILIES[spec.ip_family]:
        pods, per_node = nets.get(("podCIDR", version)), POD_PREFIX[version]
        if pods and nodes > (room := 2 ** max(per_node - pods.prefixlen, 0)):
            why = f"{pods} has room for {room} nodes (a /{per_node} each), not {nodes}"
            yield document.mistake(("spec", "podCIDR"), why)


def _given(spec: TopologySpec) -> dict[str, str]:
    return {"nodeCIDR": spec.node_cidr, "podCIDR": spec.pod_cidr, "serviceCIDR": spec.service_cidr}


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []


def _read(parts: list[str], family: str) -> tuple[dict[int, Network], list[str]]:
    """Networks by IP version, and what is wrong with the text."""
    found: dict[int, Network] = {}
    mistakes: list[str] = []
    for part in parts:
        try:
            net = ipaddress.ip_network(part)
        except ValueError as error:
            mistakes.append(f"{part!r}: {_why_no_network(part, family, error)}")
            continue
        if net.version not in FAMILIES[family]:
            right = f"must be {_example(family)}, or ipFamily dual"
            mistakes.append(f"{part} is IPv{net.version} and the lab's ipFamily {family}; {right}")
        elif net.version in found:
            mistakes.append(f"{part} is a second IPv{net.version} network; must be {_example(family)}")
        found[net.version] = net
    if not mistakes and list(found) != sorted(found):
        mistakes.append(f"{','.join(parts)}: must begin with the IPv4 network, the primary one")
    return found, mistakes


def _example(family: str) -> str:
    pods = _KINDS["podCIDR"].defaults
    return " and ".join(f"an IPv{version} network such as {pods[version]}" for version in FAMILIES[family])


def _why_no_network(text: str, family: str, error: ValueError) -> str:
    if "host bits" in str(error):
        return f"has host bits set; must be {ipaddress.ip_interface(text).network}"
    return f"must be {_example(family)}"


def _overlaps(
    document: Document, name: str, net: Network, nets: Mapping[tuple[str, int], Network]
) -> Iterator[Mistake]:
    from netemu.model.yamlfile import Mistake  # who reads files has it loaded; the processes of a lab need no YAML

    for (other, version), taken in nets.items():
        if version == net.version and net.overlaps(taken):
            # Blame what the file says, not a default.
            where: Where = ("spec", name)
            written = where if where in document.lines else ("spec", other)
            text = f"{name} {net} overlaps {other} {taken}; must be disjoint"
            yield Mistake(document.file, document.line(written), f"spec.{text}")


def check_client_addresses(document: Document, where: Where, text: str, family: str) -> Iterator[Mistake]:
    """What is wrong with the addresses that a file gives a client."""
    versions = FAMILIES.get(family, (4, 6))
    ranges = " or ".join(f"{OUTSIDE[version][2]} to {_LAST_CLIENT[version]}" for version in versions)
    seen: set[int] = set()
    for part in _parts(text):
        try:
            address = ipaddress.ip_address(part)
        except ValueError:
            yield document.mistake(where, f"{part!r}: must be {ranges}")
            continue
        low, high = OUTSIDE[address.version][2], ipaddress.ip_address(_LAST_CLIENT[address.version])
        if address.version not in versions or not int(low) <= int(address) <= int(high):
            yield document.mistake(where, f"{part!r}: must be {ranges}")
        elif address.version in seen:
            yield document.mistake(where, f"{part}: a second IPv{address.version} address; must be one of each family")
        seen.add(address.version)
