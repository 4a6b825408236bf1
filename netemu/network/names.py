"""What the namespaces of a lab are called: LAB.underlay, LAB.node.NODE, LAB.pod.NAMESPACE.POD, LAB.client.NAME.

A lab's name is a DNS label and has no dot, so a lab's namespaces are exactly those that begin with its name and a dot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

# The name is a file under /run/netns.
_LONGEST: Final = 255
# IFNAMSIZ, 16, counts the closing zero byte.
_LONGEST_LINK: Final = 15


def underlay_netns(lab: str) -> str:
    """The namespace of the switches between nodes, clients and the world outside."""
    return f"{lab}.underlay"


def node_netns(lab: str, node: str) -> str:
    """The namespace that is a node's host network."""
    return _fitting(f"{lab}.node.{node}")


def pod_netns(lab: str, namespace: str, pod: str) -> str:
    """The namespace that all containers of a Pod share."""
    return _fitting(f"{lab}.pod.{namespace}.{pod}")


def client_netns(lab: str, name: str) -> str:
    """The namespace of a client outside the cluster."""
    return _fitting(f"{lab}.client.{name}")


def lab_of(netns: str) -> str:
    """The lab that a namespace belongs to, by its name; empty for anybody else's."""
    lab, _, rest = netns.partition(".")
    return lab if rest == "underlay" or rest.startswith(("node.", "pod.", "client.")) else ""


def of_lab(lab: str, netns: Iterable[str]) -> list[str]:
    """Those of the names that belong to the lab."""
    return [name for name in netns if lab_of(name) == lab]


def labs(netns: Iterable[str]) -> list[str]:
    """The labs whose underlay is among the names."""
    return sorted(
        name.removesuffix(".underlay") for name in netns if name.endswith(".underlay") and name.count(".") == 1
    )


def host_veth(netns: str) -> str:
    """The node's end of the link into a Pod's namespace: `veth` and eight hex digits, as CNI plugins call it.

    Derived from the namespace's name, so that whoever deletes the Pod needs no notes from whoever made it.
    """
    return "veth" + hashlib.sha1(netns.encode(), usedforsecurity=False).hexdigest()[:8]


def link_name(name: str, taken: Iterable[str], netns: str) -> str:
    """A readable name for a port of a switch: the machine's own where it fits a link and is free, else a `veth` one."""
    return host_veth(netns) if len(name) > _LONGEST_LINK or name in taken else name


def _fitting(name: str) -> str:
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:10]
    return f"{name[: _LONGEST - 11]}-{digest}"
