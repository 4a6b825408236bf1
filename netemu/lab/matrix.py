"""The truth table of a running lab: predicted from what its API server has, measured from its own namespaces."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import time
from collections.abc import Sequence

from netemu.lab.api import LabApi
from netemu.lab.cluster_view import read_cluster, senders
from netemu.lab.config import load_config
from netemu.lab.rules import rules_behind
from netemu.lab.targets import find_target
from netemu.model.errors import UserError
from netemu.model.suggest import instead
from netemu.observe.cluster import Cluster
from netemu.observe.matrix.measure import Ask, measure
from netemu.observe.matrix.table import Cell, Matrix, Row, plan
from netemu.observe.predict import Outcome
from netemu.observe.story.story import Story

_DNS = 53


def run_matrix(
    lab: str, *, namespace: str = "", service: str = "", count: int = 1, timeout: float = 2.0, traces: int = 3
) -> Matrix:  # fmt: skip
    """Predict, measure by `count` connections each, compare; of so many differences tell the story of a packet.

    Raises UserError where there is nothing to look at.
    """
    began = time.monotonic()
    cluster = read_cluster(lab)
    _check(cluster, namespace, service)
    table = plan(cluster, senders(cluster), namespace=namespace, service=service)
    late = rules_behind(LabApi(lab), [node.name for node in load_config(lab).nodes])
    places, gone = find_places(lab, table)
    table = table.without(gone)
    tried = [cell for cell in table.cells if cell.row.measurable]
    asks = [_ask(cell, places[cell.vantage.name]) for cell in tried for _ in range(count)]
    found = iter(asyncio.run(measure(asks, timeout=timeout)))
    by_cell = {(cell.vantage.name, cell.row): list(itertools.islice(found, count)) for cell in tried}
    table = table.measured(by_cell, time.monotonic() - began).noting(late)
    chosen = table.unexplained(traces)
    return table.telling(asyncio.run(_stories(lab, chosen))) if chosen else table


def find_places(lab: str, table: Matrix) -> tuple[dict[str, str], dict[str, str]]:
    """The namespace of each vantage; and of those that went after the cluster was read, why there is none."""
    places, gone = {}, {}
    for each in table.vantages:
        try:
            places[each.name] = find_target(lab, each.name).netns
        except UserError as error:
            gone[each.name] = str(error)
    return places, gone


async def _stories(lab: str, cells: Sequence[Cell]) -> dict[tuple[str, Row], Story]:
    """What becomes of one more packet on the way of each."""
    # A second of imports that only differences need.
    trace = await asyncio.to_thread(importlib.import_module, "netemu.lab.trace")
    scene, told = await asyncio.to_thread(trace.read_scene, lab), {}
    for cell in cells:
        row = cell.row
        try:
            tracer = trace.Tracer(lab, cell.vantage.name, "default", scene)
        except UserError:  # a Pod that went meanwhile; what was measured is told all the same
            continue
        story, _ = await tracer.story(row.destination, protocol=row.protocol.lower())
        told[cell.vantage.name, row] = story
    return told


def _check(cluster: Cluster, namespace: str, service: str) -> None:
    if service and service not in (known := [each.key for each in cluster.services]):
        raise UserError(f"no Service {service!r}; {instead(service, known, 'Services here')}")
    if namespace and namespace not in (known := [each.namespace for each in cluster.services]):
        there = instead(namespace, sorted({*known}), "namespaces with Services")
        raise UserError(f"no Services in namespace {namespace!r}; {there}")


def _ask(cell: Cell, netns: str) -> Ask:
    row, said = cell.row, cell.predicted
    refusals = (each.steps for each in said.endings if each.outcome is Outcome.REFUSED)
    refused_by = next((step.node for steps in refusals for step in steps if step.verdict == "reject"), "")
    speaks_dns = row.port == _DNS or row.port_name.startswith("dns")
    return Ask(netns, row.address, row.port, row.protocol, said.outcomes, refused_by, speaks_dns)
