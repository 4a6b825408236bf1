"""Random Services, endpoints, policies and settings: every mode's rules do what the oracle says, and agree."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from netemu.model.meta import KubeObject
from netemu.model.objects import Service
from netemu.observe.oracle import Origin, Settings, Source
from netemu.testing.packets import Packet
from tests.unit.proxy_modes import MODES, Proxy, family_of
from tests.unit.proxy_scene import (
    AWAY,
    CLIENT,
    DEFAULT,
    LOOP,
    NODE_IP,
    NODE_OUTSIDE,
    OUT,
    POD,
    SELF,
    To,
    World,
    away,
    judged,
    outside,
    pod,
)
from tests.unit.proxy_world import CONDITIONS, endpoint_slice, service

MODE = "service.kubernetes.io/topology-mode"
# Ports of the N-th Service are its own, so that Services may share addresses without taking them from each other.
PORTS = {"http": (8000, "TCP"), "dns": (8000, "UDP"), "sctp": (8100, "SCTP"), "": (8200, "TCP")}
EXTERNAL, BALANCERS = ("198.51.100.7", "198.51.100.8", NODE_IP), ("1.2.3.4", "1.2.3.5", NODE_OUTSIDE)
RANGES = ("203.0.113.0/25", "10.180.0.0/24", "192.168.0.0/24", f"{CLIENT}/32", "0.0.0.0/0", "fd00::/8", "nonsense")
SOURCES = (
    OUT, POD, AWAY, SELF, LOOP, outside("203.0.113.200"), outside("1.2.3.4"), pod("10.180.0.9", "veth9"),
    away("10.180.1.7"), outside("192.168.0.77"),
)  # fmt: skip
# Shrinking takes minutes, because each attempt programs a world; what is found tells source, destination and fates.
PROFILE = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Drawn:
    """A world and packets into it."""

    world: World
    packets: tuple[tuple[Source, To], ...]


@st.composite
def services(draw: st.DrawFn, index: int) -> Service:
    chosen = draw(st.sets(st.sampled_from(sorted(PORTS)), min_size=1))
    kind = draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"]))
    return service(
        f"default/s{index}",
        f"172.30.0.{10 + index}",
        type=kind,
        ports={name: f"{PORTS[name][0] + index}/{PORTS[name][1]}" for name in chosen},
        node_ports={name: PORTS[name][0] + 22000 + index for name in chosen} if kind != "ClusterIP" else {},
        external_ips=draw(some(EXTERNAL)),
        ingress=draw(some(BALANCERS)) if kind == "LoadBalancer" else (),
        ranges=draw(some(RANGES)) if kind == "LoadBalancer" else (),
        external_policy=draw(st.sampled_from(["Cluster", "Local"])),
        internal_policy=draw(st.sampled_from([None, "Cluster", "Local"])),
        affinity=draw(st.sampled_from([0, 0, 60])),
        annotations=draw(st.sampled_from([{}, {MODE: "Auto"}, {MODE: "Disabled"}])),
        trafficDistribution=draw(st.sampled_from([None, None, "PreferClose", "PreferSameNode"])),
    )


def some(of: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    """None, one or several of these."""
    return st.lists(st.sampled_from(of), unique=True, max_size=2)


@st.composite
def slices(draw: st.DrawFn, index: int) -> list[KubeObject]:
    """Two slices; an endpoint may stand in both, and then says the same in both."""
    states = st.tuples(st.sampled_from(["test-node", "node-b", ""]), st.sampled_from(sorted(CONDITIONS)))
    known = draw(st.dictionaries(st.integers(20, 25), states, max_size=4))
    zones = {f"10.180.1.{n}": draw(st.sampled_from([["zone-a"], ["zone-b"], []])) for n in known}
    nodes = {f"10.180.1.{n}": [node] if node and draw(st.booleans()) else [] for n, (node, _) in known.items()}
    every = [(f"10.180.1.{number}", *state) for number, state in known.items()]
    made: list[KubeObject] = []
    for suffix in "12":
        at = [e for e in every if draw(st.booleans())]
        numbers: dict[str, int | str] = {n: f"{draw(st.sampled_from([80, 90]))}/{PORTS[n][1]}" for n in PORTS}
        made.append(endpoint_slice(f"default/s{index}", at, numbers, suffix=suffix, zones=zones, nodes=nodes))
    return made


@st.composite
def situations(draw: st.DrawFn) -> Settings:
    """Settings of the proxy."""
    mode, interface = draw(
        st.sampled_from(
            [("ClusterCIDR", ""), ("NodeCIDR", ""), ("BridgeInterface", "cbr0"), ("InterfaceNamePrefix", "veth")]
        )
    )
    return Settings(
        cluster_cidr=draw(st.sampled_from([DEFAULT.cluster_cidr, DEFAULT.cluster_cidr, ""])),
        detect_local_mode=mode,
        interface=interface,
        masquerade_all=draw(st.booleans()),
        localhost_node_ports=draw(st.booleans()),
        node_port_addresses=draw(
            st.sampled_from([(), ("192.168.0.0/24",), ("203.0.113.0/24",), ("0.0.0.0/0",), ("primary",)])
        ),
        service_cidrs=draw(st.sampled_from([(), ("172.30.0.0/16",)])),
    )


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    made = [draw(services(i)) for i in range(draw(st.integers(1, 3)))]
    objects = [*made, *(piece for i in range(len(made)) for piece in draw(slices(i)))]
    targets = [to for each in made for to in claimed(each)]
    strays = [To(to.address, to.port + 1, to.protocol) for to in targets]
    strays += [To(EXTERNAL[0], 8000), To("172.30.9.9", 80)]
    sent = st.tuples(st.sampled_from(SOURCES), st.sampled_from(targets) | st.sampled_from([*targets, *strays]))
    packets = draw(st.lists(sent, min_size=8, max_size=16, unique=True))
    # Loopback is talked to from loopback, and from there to nothing else.
    looped = ((source, replace(to, address="127.0.0.1") if source is LOOP else to) for source, to in packets)
    return Drawn(World(tuple(objects), draw(situations())), tuple(looped))


def claimed(of: Service) -> Iterator[To]:
    """What a Service may answer."""
    ingress = [i.ip for i in of.status.load_balancer.ingress]
    for port in of.spec.ports:
        for address in (of.spec.cluster_ip, *of.spec.external_ips, *ingress):
            yield To(address, port.port, port.protocol.lower())
        for address in (NODE_IP, NODE_OUTSIDE) if port.node_port else ():
            yield To(address, port.node_port, port.protocol.lower())


def packets(case: Drawn) -> Iterator[tuple[Source, To, Packet]]:
    for source, to in case.packets:
        yield source, to, Packet(source.address, to.address, to.port, to.protocol, source.interface)


@pytest.mark.parametrize("mode", MODES)
@PROFILE
@given(case=drawn())
def test_rules_do_what_the_oracle_says(mode: str, case: Drawn) -> None:
    traces = asyncio.run(_traced(mode, case))
    wrong = [(at, traces[at], fate) for at in case.packets if traces[at] != (fate := judged(case.world, mode, *at))]

    assert wrong == []


async def _traced(mode: str, case: Drawn) -> dict[tuple[Source, To], Any]:
    proxy: Proxy | None = None
    fates = {}
    for source, to, sent in packets(case):
        if proxy is None:
            proxy = Proxy(mode, case.world, family_of(sent))
            await proxy.show(case.world)
        fates[source, to] = proxy.trace(sent)
    return fates


@PROFILE
@given(case=drawn())
def test_modes_agree_where_they_do_not_differ_by_design(case: Drawn) -> None:
    fates = {mode: asyncio.run(_traced(mode, case)) for mode in MODES}
    for source, to in case.packets:
        if same_by_design(case.world, source, to):
            assert len({fates[mode][source, to] for mode in MODES}) == 1, (source, to)


def same_by_design(world: World, source: Source, to: To) -> bool:
    """Neither Local policies nor source ranges; the cluster IP, or a node port on the node's IP; not from the node."""
    spec = next((s.spec for s in world.services if any(to.port in (p.port, p.node_port) for p in s.spec.ports)), None)
    plain = spec is not None and "Local" not in (spec.external_traffic_policy, spec.internal_traffic_policy)
    if spec is None or not plain or spec.load_balancer_source_ranges or source.origin is Origin.NODE:
        return False
    if to.address == spec.cluster_ip and any(p.port == to.port for p in spec.ports):
        return bool(world.settings.cluster_cidr)
    node_port = any(p.node_port == to.port for p in spec.ports) and to.address == NODE_IP
    return node_port and not world.settings.node_port_addresses
