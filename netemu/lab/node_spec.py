"""What a topology file says of nodes and links: types alone, for those who need not read files."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from netemu.lab.certificate_spec import CertificateSpec


class Spec(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Base of the file's own types."""


SEVERAL = (3, 5)
"""How many members a control plane of several can have: a majority of two or four is no better than of one or three."""


class ControlPlaneSpec(Spec, frozen=True, kw_only=True):
    """How many members the control plane has, and where it keeps the cluster's objects."""

    replicas: int = 1
    """1, 3 or 5; more than one need the store etcd."""
    certificate_validity_period: str = "8760h"
    """Of every certificate that the lab's authority signs; all are renewed before they end."""
    certificate: CertificateSpec | None = None
    """One that somebody brings, for the names in it."""
    store: str = "sqlite"
    """`sqlite`, or `etcd` with a member beside each API server."""


class LinkSpec(Spec, frozen=True, kw_only=True):
    """How a link treats packets; nothing set means a plain veth pair."""

    mtu: int = 1500
    """Bytes."""
    rate: str = ""
    """As tc writes it: `100mbit`."""
    delay: str = ""
    """One way: `5ms`. Needs the kernel's netem."""
    loss: str = ""
    """`0.5%`. Needs the kernel's netem."""


class TaintSpec(Spec, frozen=True, kw_only=True):
    key: str
    effect: str
    value: str = ""


class NodeSpec(Spec, frozen=True, kw_only=True):
    """One node, or `count` nodes NAME-1, NAME-2, ..."""

    name: str
    count: int | None = None
    role: str = ""
    """`control-plane` or `worker`; without any control-plane, the first node is it, or, where the control plane has
    several members, nodes of their own are added (`planned_nodes`)."""
    labels: dict[str, str] = {}
    taints: tuple[TaintSpec, ...] | None = None
    """None: as kubeadm, the control-plane node takes no Pods if there are others."""
    zone: str = ""
    """Label topology.kubernetes.io/zone."""
    link: LinkSpec | None = None
    """Overrides spec.links for this node."""


ZONE_LABEL = "topology.kubernetes.io/zone"


def planned_nodes(nodes: Sequence[NodeSpec], control_plane: ControlPlaneSpec) -> tuple[NodeSpec, ...]:
    """The nodes of a lab: those listed, and before them control-plane-1, control-plane-2, ... for a control plane of
    several members of which none is listed.

    Each of these is in another zone: in those of the listed nodes, and where they do not suffice in zone-1, zone-2, ...
    """
    if control_plane.replicas not in SEVERAL or any(node.role == "control-plane" for node in nodes):
        return tuple(nodes)
    named = dict.fromkeys(zone for node in nodes if (zone := node.zone or node.labels.get(ZONE_LABEL)))
    more = (zone for number in itertools.count(1) if (zone := f"zone-{number}") not in named)
    zones = itertools.chain(named, more)
    numbers = range(1, control_plane.replicas + 1)
    members = [NodeSpec(name=f"control-plane-{number}", role="control-plane", zone=next(zones)) for number in numbers]
    return (*members, *nodes)


def node_names(node: NodeSpec) -> list[str]:
    """The names one entry of spec.nodes stands for."""
    return [node.name] if node.count is None else [f"{node.name}-{index}" for index in range(1, node.count + 1)]
