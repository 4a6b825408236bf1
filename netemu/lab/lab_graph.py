"""A running lab as a graph: machines and links from its configuration and the kernel, the rest from its API server."""

from __future__ import annotations

import time

from netemu.kernel import netns as namespaces
from netemu.kernel.netlink import Netlink
from netemu.lab.addresses import address_names
from netemu.lab.api import LabApi
from netemu.lab.cluster_view import read_all
from netemu.lab.config import LabConfig, load_config
from netemu.lab.connections import held_by
from netemu.lab.node_spec import LinkSpec
from netemu.model.objects import EndpointSlice, Node, Service
from netemu.model.pods import Pod
from netemu.model.resources import ENDPOINTSLICES, NODES, PODS, SERVICES
from netemu.network import names
from netemu.network.node import LINK
from netemu.observe.conntrack.flows import flows_of
from netemu.observe.graph.model import Graph, Machine, graph_of, with_flows


def read_graph(lab: str, *, flows: bool = False) -> Graph:
    """The whole lab, as it is now, perhaps with what is going on. Raises UserError, ApiError, KernelError."""
    config, api = load_config(lab), LabApi(lab)
    nodes = [_machine(names.node_netns(lab, n.name), n.name, n.addresses, n.link) for n in config.nodes]
    clients = [_machine(names.client_netns(lab, c.name), c.name, c.addresses, LinkSpec()) for c in config.clients]
    graph = graph_of(
        lab, underlay=_underlay(config), nodes=nodes, clients=clients,
        objects=read_all(api, NODES, Node), pods=read_all(api, PODS, Pod),
        services=read_all(api, SERVICES, Service), slices=read_all(api, ENDPOINTSLICES, EndpointSlice),
    )  # fmt: skip
    if not flows:
        return graph
    known = address_names(lab)
    held = held_by(lab, [node.name for node in config.nodes])
    return with_flows(graph, (flow for flow in flows_of(held, known, time.time()) if flow.service))


def _underlay(config: LabConfig) -> list[str]:
    return [
        f"nodes {', '.join(config.node_cidrs)}",
        f"Pods {', '.join(config.pod_cidrs)}",
        f"Services {', '.join(config.service_cidrs)}",
        f"load balancers {', '.join(config.load_balancer_pools)}",
    ]


def _machine(netns: str, name: str, addresses: tuple[str, ...], spec: LinkSpec) -> Machine:
    """With its link as the kernel has it now; rate, delay and loss as the topology file asked for them."""
    asked = (("rate", spec.rate), ("delay", spec.delay), ("loss", spec.loss))
    wanted = tuple(f"{what} {value}" for what, value in asked if value)
    if not namespaces.exists(netns):
        return Machine(name=name, addresses=addresses, link=wanted, up=False)
    with Netlink(netns) as netlink:
        link = next((link for link in netlink.links() if link.name == LINK), None)
    mtu = (f"mtu {link.mtu}",) if link else ()
    return Machine(name=name, addresses=addresses, link=(*mtu, *wanted), up=link is not None and link.up)
