"""Two more worlds for golden dumps: the first world as a dual-stack cluster's IPv6, and what that world has not.

The dumps are what the compilers make, read against the specification by eye. Tests on a real kernel load those of
iptables and nftables mode and compare what it prints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from netemu.model.objects import EndpointSlice, Service
from netemu.proxy import iptables_mode, nftables_mode
from netemu.proxy.config import API_VERSION, KIND, KubeProxyConfiguration, parse
from netemu.proxy.facts import Detector, NodeFacts
from netemu.proxy.iptables_programmer import IptablesProgrammer
from netemu.proxy.ipvs_edge import IpvsEdge
from netemu.proxy.ipvs_programmer import IpvsProgrammer
from netemu.proxy.modes import mode_of
from netemu.proxy.nftables_programmer import NftablesProgrammer
from netemu.proxy.programmer import Programmer
from netemu.proxy.services import Family
from netemu.proxy.tracker import Table, Tracker
from netemu.testing.iptables import FakeIptables
from netemu.testing.nftables import FakeNft
from tests.unit import ipvs_dump
from tests.unit.ipvs_world import OWN, IpvsBed
from tests.unit.proxy_world import DATA, NODE, endpoint_slice, service

SUFFIXES = {"iptables": "save", "nftables": "nft", "ipvs": "dump"}
_ADDRESS = re.compile(r"\b(\d+)\.(\d+)\.(\d+)\.(\d+)(?:/(\d+))?")
_ADDRESSES = ("127.0.0.1", "192.168.0.2", "192.168.7.2")
_SETTINGS: dict[str, dict[str, Any]] = {
    "world6": {},
    "second": {
        "nodePortAddresses": ["192.168.0.0/24", "127.0.0.0/8"],
        "iptables": {"masqueradeAll": True, "localhostNodePorts": False},
        "nftables": {"masqueradeAll": True},
    },
}
NAMES = tuple(_SETTINGS)
_OWN6 = ("fd00::192:168:0:2/112", "fd00::192:168:7:2/112")


@dataclass(frozen=True, slots=True)
class Golden:
    """A world as one family's programmer of one mode sees it, and the file with what it makes of it."""

    name: str
    mode: str

    @property
    def family(self) -> Family:
        """Which family the world is about."""
        return Family.IPV6 if self.name == "world6" else Family.IPV4

    @property
    def path(self) -> Path:
        """The golden dump's file."""
        return DATA / f"{self.mode}-{self.name}.{SUFFIXES[self.mode]}"

    @property
    def text(self) -> str:
        """The golden dump."""
        return self.path.read_text()

    @property
    def config(self) -> KubeProxyConfiguration:
        """kube-proxy's configuration."""
        return parse({"apiVersion": API_VERSION, "kind": KIND, "mode": self.mode, **_SETTINGS[self.name]})

    def node(self) -> NodeFacts:
        """What kube-proxy finds out about the node."""
        of_mode, config, six = mode_of(self.mode), self.config, self.family is Family.IPV6
        primary = sixth(NODE.node_ip) if six else NODE.node_ip
        networks = of_mode.node_port_networks(config, self.family, primary)
        cidr = "172.30.0.0/16"
        return replace(
            NODE,
            family=self.family,
            node_ip=primary,
            name="test-node",
            detector=Detector.cidr(sixth("10.0.0.0/8") if six else "10.0.0.0/8"),
            masquerade_all=of_mode.masquerade_all(config),
            localhost_node_ports=config.iptables.localhost_node_ports,
            node_port_networks=networks,
            addresses=_ADDRESSES if networks and not six else (),
            service_cidrs=(sixth(cidr) if six else cidr,) if self.mode == "nftables" else (),
        )

    def table(self) -> Table:
        """Services and endpoints of its family."""
        services, slices = dual_stack() if self.name == "world6" else second()
        return table_of(self.family, services, slices)

    async def programmed(self) -> str:
        """What a first sync leaves in the fakes, as text."""
        if self.mode == "iptables":
            tool = FakeIptables()
            rules = iptables_mode.base_rules(self.config, self.family, liberal=False)
            await self._sync(IptablesProgrammer(tool, rules))
            return await tool.save()
        if self.mode == "nftables":
            fake = FakeNft()
            await self._sync(NftablesProgrammer(fake, nftables_mode.base_rules(self.config)))
            return fake.listing()
        bed = IpvsBed(_OWN6 if self.family is Family.IPV6 else OWN)
        edge = IpvsEdge(bed.balancer, bed.sets, bed.links, self.family)
        await self._sync(IpvsProgrammer(lambda: edge, bed.iptables))
        sets, servers = ipvs_dump.saved_sets(bed.sets), ipvs_dump.saved_servers(bed.balancer)
        return ipvs_dump.dump(sets, servers, bed.iptables.tables, bed.bound)

    async def _sync(self, programmer: Programmer) -> None:
        await programmer.program(self.table(), self.node(), None)


def table_of(family: Family, services: list[Service], slices: list[EndpointSlice]) -> Table:
    """Objects as a programmer of that family sees them."""
    tracker = Tracker(family, "test-node")
    for each in services:
        tracker.service_changed(None, each)
    for piece in slices:
        tracker.slice_changed(None, piece)
    tracker.take()
    return tracker.table


def sixth(text: str) -> str:
    """The IPv6 address or network that stands for an IPv4 one: 10.180.0.1 is fd00::10:180:0:1, its /24 a /112."""

    def mapped(found: re.Match[str]) -> str:
        *groups, length = found.groups()
        bits = f"/{64 + 16 * (int(length) // 8) + int(length) % 8}" if length else ""
        return f"fd00::{':'.join(groups)}{bits}"

    return _ADDRESS.sub(mapped, text)


def dual_stack() -> tuple[list[Service], list[EndpointSlice]]:
    """The world of the other golden dumps, each Service and endpoint with an address of either family."""
    text = yaml.safe_load((DATA / "proxy-world.yaml").read_text())
    services = [service(key, **_dual(fields)) for key, fields in text["services"].items()]
    slices = []
    for key, ports in text["endpoints"].items():
        at = ports.pop("at")
        six = [[sixth(address), *others] for address, *others in at]
        slices.append(endpoint_slice(key, at, ports))
        slices.append(endpoint_slice(key, six, ports, suffix="6", address_type="IPv6"))
    return services, slices


def _dual(fields: Mapping[str, Any]) -> dict[str, Any]:
    lists = {name: fields[name] for name in ("ingress", "external_ips", "ranges") if name in fields}
    both = {name: [*texts, *map(sixth, texts)] for name, texts in lists.items()}
    ip = fields["ip"]
    families = {"ipFamilies": ["IPv4", "IPv6"], "clusterIPs": [ip, sixth(ip)]} if "." in ip else {}
    return {**fields, **both, **families}


def second() -> tuple[list[Service], list[EndpointSlice]]:
    """The objects of proxy-world-second.yaml."""
    text = yaml.safe_load((DATA / "proxy-world-second.yaml").read_text())
    services = [service(key, **fields) for key, fields in text["services"].items()]
    slices = []
    for key, fields in text["endpoints"].items():
        about = {name: fields.pop(name) for name in ("zones", "nodes") if name in fields}
        at = fields.pop("at")
        slices.append(endpoint_slice(key, at, fields, **about))
    return services, slices


GOLDEN = [Golden(name, mode) for name in NAMES for mode in SUFFIXES]
