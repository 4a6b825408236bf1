"""Where a probe, a check or a claim connects to, said as for a trace: addresses, DNS names and objects of the API."""

from __future__ import annotations

import asyncio

from netemu.lab.cluster_view import read_objects
from netemu.lab.targets import Target
from netemu.observe.probe.prober import Destination, Place
from netemu.observe.story.destination import to_probe


def destination_from(source: Target, to: str) -> Destination:
    """What TO:PORT means there. Raises UserError."""
    place = Place(source.netns, source.resolv_conf, source.hosts)
    return asyncio.run(
        to_probe(to, place, lambda: read_objects(source.lab), source.namespace, pod=bool(source.directory))
    )
