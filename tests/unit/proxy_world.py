"""Services and EndpointSlices for tests of the proxy, written short.

Addresses: Pods 10.180.N.0/24 on the N-th node, Services 172.30.0.0/16, nodes 192.168.0.0/24 (test-node is .2), outside
203.0.113.0/24.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from netemu.model import meta
from netemu.model.meta import decode
from netemu.model.objects import EndpointSlice, Service
from netemu.proxy import rulefiles
from netemu.proxy.facts import Detector, NodeFacts
from netemu.proxy.iptables_programmer import IptablesProgrammer
from netemu.proxy.services import Family
from netemu.proxy.tracker import Tracker
from netemu.testing.iptables import FakeIptables

DATA = Path(__file__).parent / "data"
NODE = NodeFacts(
    node_ip="192.168.0.2",
    labels={"topology.kubernetes.io/zone": "zone-a"},
    detector=Detector.cidr("10.0.0.0/8"),
)
BASE = ("drop-invalid.rules", "base.rules", "localhost-nodeports.rules")
CONDITIONS = {
    "ready": {"ready": True, "serving": True, "terminating": False},
    "ending": {"ready": False, "serving": True, "terminating": True},
    "ended": {"ready": False, "serving": False, "terminating": True},
    "silent": {"ready": False, "serving": False, "terminating": False},
    "unset": {},
    "published": {"ready": True, "serving": False, "terminating": False},
    "parting": {"ready": True, "serving": True, "terminating": True},
    "warming": {"ready": False, "serving": True, "terminating": False},
    "leaving": {"ready": False, "terminating": True},
}


def port_of(value: int | str) -> tuple[int, str]:
    """80 or "53/UDP"."""
    number, _, protocol = str(value).partition("/")
    return int(number), protocol or "TCP"


def service(
    key: str = "default/web",
    ip: str = "172.30.0.10",
    *,
    type: str = "ClusterIP",
    ports: Mapping[str, int | str] | None = None,
    node_ports: Mapping[str, int] | None = None,
    ingress: Sequence[str | Mapping[str, str]] = (),
    external_ips: Sequence[str] = (),
    ranges: Sequence[str] = (),
    external_policy: str = "",
    internal_policy: str | None = None,
    affinity: int = 0,
    health: int = 0,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> Service:
    """A Service; `spec` are further fields as they stand in the manifest."""
    namespace, _, name = key.partition("/")
    listed = [
        {
            "name": port,
            "port": port_of(value)[0],
            "protocol": port_of(value)[1],
            "nodePort": (node_ports or {}).get(port, 0),
        }
        for port, value in ({"http": 80} if ports is None else ports).items()
    ]
    return decode(
        {
            "metadata": {
                "name": name, "namespace": namespace, "labels": dict(labels or {}),
                "annotations": dict(annotations or {}),
            },
            "spec": {
                "type": type, "clusterIP": ip, "ports": listed, "externalIPs": list(external_ips),
                "loadBalancerSourceRanges": list(ranges), "externalTrafficPolicy": external_policy,
                "internalTrafficPolicy": internal_policy, "healthCheckNodePort": health,
                "sessionAffinity": "ClientIP" if affinity else "None",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": affinity}} if affinity else None,
                **spec,
            },
            "status": {"loadBalancer": {"ingress": [{"ip": i} if isinstance(i, str) else i for i in ingress]}},
        },
        Service,
    )  # fmt: skip


def endpoint_slice(
    key: str,
    at: Sequence[Sequence[str]],
    ports: Mapping[str, int | str] | None = None,
    *,
    suffix: str = "1",
    address_type: str = "IPv4",
    zones: Mapping[str, Sequence[str]] | None = None,
    nodes: Mapping[str, Sequence[str]] | None = None,
) -> EndpointSlice:
    """An EndpointSlice; `at` are (address, node[, one of CONDITIONS]), `zones` and `nodes` the hints by address."""
    namespace, _, name = key.partition("/")
    listed = []
    for address, node, *state in at:
        hints = {
            kind: [{"name": name} for name in (of or {}).get(address, ())]
            for kind, of in (("forZones", zones), ("forNodes", nodes))
        }
        conditions = CONDITIONS[state[0] if state else "ready"]
        listed.append({"addresses": [address], "nodeName": node, "conditions": conditions, "hints": hints})
    numbers = {"http": 8080} if ports is None else ports
    return decode(
        {
            "metadata": {
                "name": f"{name}-{suffix}", "namespace": namespace, "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": address_type,
            "endpoints": listed,
            "ports": [{"name": p, "port": port_of(v)[0], "protocol": port_of(v)[1]} for p, v in numbers.items()],
        },
        EndpointSlice,
    )  # fmt: skip


def world() -> tuple[list[Service], list[EndpointSlice]]:
    """The objects behind iptables-world.save."""
    text = yaml.safe_load((DATA / "proxy-world.yaml").read_text())
    services = [service(key, **fields) for key, fields in text["services"].items()]
    slices = []
    for key, ports in text["endpoints"].items():
        at = ports.pop("at")
        slices.append(endpoint_slice(key, at, ports))
    return services, slices


class Proxy:
    """A tracker and a programmer over fake iptables, driven by hand."""

    def __init__(self, node: NodeFacts = NODE, base: Sequence[str] = BASE, family: Family = Family.IPV4) -> None:
        self.node = node
        self.tracker = Tracker(family, "test-node")
        self.fake = FakeIptables()
        self.programmer = IptablesProgrammer(self.fake, rulefiles.load("iptables", base))

    def add(self, *objs: meta.KubeObject) -> None:
        """Objects appear, or replace what is there."""
        for obj in objs:
            if isinstance(obj, Service):
                self.tracker.service_changed(None, obj)
            elif isinstance(obj, EndpointSlice):
                self.tracker.slice_changed(None, obj)

    def remove(self, *objs: meta.KubeObject) -> None:
        """Objects disappear."""
        for obj in objs:
            if isinstance(obj, Service):
                self.tracker.service_changed(obj, None)
            elif isinstance(obj, EndpointSlice):
                self.tracker.slice_changed(obj, None)

    async def sync(self, *, full: bool = True) -> list[str]:
        """One sync; returns the restore inputs it took."""
        changes, before = self.tracker.take(), len(self.fake.restores)
        await self.programmer.program(self.tracker.table, self.node, None if full else changes.touched)
        return self.fake.restores[before:]
