"""Where a probe, a check or a claim connects to, said as for a trace: addresses, DNS names and objects of the API."""

from __future__ import annotations

import asyncio

from netemu.lab.api import LabApi
from netemu.lab.cluster_view import read_all
from netemu.lab.config import load_config
from netemu.lab.targets import Target
from netemu.model.objects import EndpointSlice, Node, Service
from netemu.model.pods import Pod
from netemu.model.resources import ENDPOINTSLICES, NODES, PODS, SERVICES
from netemu.observe.probe.prober import Destination, Place
from netemu.observe.story.destination import Objects, to_probe


def read_objects(lab: str) -> Objects:
    """What destinations are found in. Raises UserError, ApiError."""
    api, clients = LabApi(lab), load_config(lab).clients
    return Objects(
        read_all(api, SERVICES, Service), read_all(api, ENDPOINTSLICES, EndpointSlice), read_all(api, PODS, Pod),
        read_all(api, NODES, Node), {client.name: client.addresses for client in clients},
    )  # fmt: skip


def destination_from(source: Target, to: str) -> Destination:
    """What TO:PORT means there. Raises UserError."""
    place = Place(source.netns, source.resolv_conf, source.hosts)
    return asyncio.run(
        to_probe(to, place, lambda: read_objects(source.lab), source.namespace, pod=bool(source.directory))
    )
