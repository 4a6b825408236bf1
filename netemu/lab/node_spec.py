"""What a topology file says of nodes and links: types alone, for those who need not read files."""

from __future__ import annotations

import msgspec


class Spec(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """Base of the file's own types."""


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
    """`control-plane` or `worker`; without any control-plane, the first node is it."""
    labels: dict[str, str] = {}
    taints: tuple[TaintSpec, ...] | None = None
    """None: as kubeadm, the control-plane node takes no Pods if there are others."""
    zone: str = ""
    """Label topology.kubernetes.io/zone."""
    link: LinkSpec | None = None
    """Overrides spec.links for this node."""


def node_names(node: NodeSpec) -> list[str]:
    """The names one entry of spec.nodes stands for."""
    return [node.name] if node.count is None else [f"{node.name}-{index}" for index in range(1, node.count + 1)]
