"""Commands about cluster DNS: dns-log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from netemu.cli.labs import pick
from netemu.cli.output import Format, note, say, say_json, table
from netemu.cli.root import need_root
from netemu.lab.config import load_config
from netemu.lab.targets import pods_by_link
from netemu.network import names

if TYPE_CHECKING:
    from netemu.observe.dns_log import Client, PodLookups, Query


def log(lab: str, pod: str, namespace: str, *, follow: bool, seconds: float, output: Format) -> None:
    """`netemu dns-log`. Queries as they are finished, then what they sum up to for each Pod."""
    from netemu.observe.dns_log import Log, Lookups

    need_root()
    lab = pick(lab)
    nodes = [names.node_netns(lab, node.name) for node in load_config(lab).nodes]
    lookups = Lookups()
    shown: list[Query] = []
    wanted = f"{namespace}/{pod}" if pod else ""
    with Log(nodes, lambda: _clients(lab)) as log:
        if not follow:
            note(f"listening for {seconds:g} s; --follow goes on until interrupted")
        with contextlib.suppress(KeyboardInterrupt):
            for query in log.queries(None if follow else seconds):
                if wanted and query.pod != wanted:
                    continue
                lookups.add(query, log.search(query))
                if output == Format.table:
                    say(_line(query))
                elif follow:
                    say(msgspec.json.encode(query).decode())
                else:
                    shown.append(query)
                sys.stdout.flush()
        if lost := log.lost():
            note(f"{lost} packets came too fast and are not told here")
    if output == Format.table:
        _print(lookups.summary())
    elif not follow:
        say_json({"queries": shown, "pods": lookups.summary()})


def _clients(lab: str) -> dict[str, Client]:
    from netemu.observe.dns_log import Client
    from netemu.observe.resolvers import parse_resolv_conf

    found = {}
    for link, pod in pods_by_link(lab).items():
        try:
            search = parse_resolv_conf(Path(pod.resolv_conf).read_text()).search
        except OSError:  # a Pod that is being made or taken away
            search = ()
        found[link] = Client(pod.name, search)
    return found


def _line(query: Query) -> str:
    moment = time.strftime("%H:%M:%S", time.localtime(query.time)) + f".{int(query.time * 1000) % 1000:03}"
    said = query.outcome + (" " + ", ".join(query.answers) if query.answers else "")
    where = f"{query.server} {query.transport}, {query.seconds * 1000:.1f} ms"
    return f"{moment}  {query.pod}  {query.name} {query.type}  ->  {said}  [{where}]"


def _print(pods: Sequence[PodLookups]) -> None:
    if not pods:
        say("no queries")
        return
    say("")
    rows = [
        (
            row.pod, row.lookups, row.queries, f"{row.amplification:g}", row.not_found, row.unanswered,
            f"{row.median_seconds * 1000:.1f} ms", f"{row.worst} ({row.worst_queries})",
        )
        for row in pods
    ]  # fmt: skip
    head = ("POD", "LOOKUPS", "QUERIES", "PER LOOKUP", "NXDOMAIN", "NO ANSWER", "MEDIAN", "WORST")
    for line in table(head, rows):
        say(line)
