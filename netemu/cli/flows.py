"""`netemu flows` and `netemu conntrack`: what the nodes of a lab track, in Services' terms and as it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import typer

from netemu.cli.labs import pick
from netemu.cli.output import Format, note, say, say_json, table
from netemu.cli.root import need_root
from netemu.cli.watching import Watching, limits, named
from netemu.kernel.conntrack_events import ASSURED, SEEN_REPLY, Tracked
from netemu.lab.addresses import CurrentNames
from netemu.lab.api import LabApi
from netemu.lab.cluster_view import read_all
from netemu.lab.config import load_config
from netemu.lab.connections import Followed, count_traffic, forget, held_by
from netemu.lab.node_rules import find_service
from netemu.lab.targets import find_target
from netemu.model.objects import EndpointSlice
from netemu.model.resources import ENDPOINTSLICES
from netemu.observe.conntrack import text as conntrack_text
from netemu.observe.conntrack.flows import (
    Counts,
    Held,
    ServiceFlow,
    Sum,
    age,
    concerns,
    flow_of,
    flows_of,
    state,
    sums_of,
)
from netemu.observe.conntrack.stale import stale_entries
from netemu.observe.names import Names

_UNTRANSLATED = "(not translated)"
_Wanted = Callable[[Tracked, Names], bool]


def flows(
    lab: str, *,
    service: str, of: str, namespace: str, others: bool, summed: bool, follow: bool, duration: float, output: Format,
) -> None:  # fmt: skip
    """`netemu flows`."""
    need_root()
    lab = pick(lab)
    if duration and not follow:
        raise typer.BadParameter("--duration: says how long to --follow")
    if summed and follow:
        raise typer.BadParameter("--sum: adds up what is there, and --follow tells what happens; one of them")
    nodes = [node.name for node in load_config(lab).nodes]
    names = named(lab)
    wanted = _wanted(lab, service, of, namespace, names.now, others=others)
    count_traffic(lab, nodes)
    if follow:
        _follow(lab, nodes, names, wanted, duration=duration, output=output)
        return
    told = flows_of(held_by(lab, nodes), names.now, time.time(), lambda entry: wanted(entry, names.now))
    sums = sums_of(told) if summed else []
    if output == Format.json:
        say_json(sums if summed else told)
    elif not told:
        say("no flows")
    else:
        for line in _sums(sums) if summed else _flows(told):
            say(line)


def conntrack(
    lab: str, node: str, *, all_nodes: bool, service: str, of: str, namespace: str, stale: bool, delete: bool,
    output: Format,
) -> None:  # fmt: skip
    """`netemu conntrack`."""
    if bool(node) == all_nodes:
        raise typer.BadParameter("name one node, or say --all")
    need_root()
    lab = pick(lab)
    nodes = [each.name for each in load_config(lab).nodes] if all_nodes else [_node(lab, node)]
    names = named(lab).now
    wanted = _wanted(lab, service, of, namespace, names, others=True)
    held = [(where, entry) for where, entry in held_by(lab, nodes) if wanted(entry, names)]
    whys: dict[tuple[str, int], str] = {}
    if stale:
        found = stale_entries(held, names, read_all(LabApi(lab), ENDPOINTSLICES, EndpointSlice))
        held = [(each.node, each.entry) for each in found]
        whys = {(each.node, each.entry.id): each.why for each in found}
    if delete:
        held = forget(lab, held)
    if output == Format.json:
        say_json([_as_json(where, entry, names, whys.get((where, entry.id), "")) for where, entry in held])
    else:
        for line in _lines(held, names, whys, with_node=all_nodes):
            say(line)
    if delete:
        note(f"{len(held)} {'entry' if len(held) == 1 else 'entries'} forgotten")


def _node(lab: str, text: str) -> str:
    return find_target(lab, text if text.startswith("node/") else f"node/{text}").name.removeprefix("node/")


def _wanted(lab: str, service: str, of: str, namespace: str, names: Names, *, others: bool) -> _Wanted:
    """Which entries are asked for; `others`: also those that go to no Service."""
    key = find_service(lab, service if "/" in service else f"{namespace}/{service}") if service else ""
    party = find_target(lab, of, namespace).name if of else ""
    addresses = names.addresses(party)

    def wanted(entry: Tracked, names: Names) -> bool:
        original = entry.original
        found = names.service_port(original.protocol, original.destination, original.port)
        if key and (found is None or key not in (found.service, f"{found.service}:{found.port_name}")):
            return False
        return (others or found is not None) and (not party or concerns(entry, addresses))

    return wanted


def _flows(told: Sequence[ServiceFlow]) -> Iterable[str]:
    head = ("PROTO", "CLIENT", "SERVICE", "ENDPOINT", "SOURCE", "NODE", "STATE", "PACKETS", "BYTES", "AGE")
    rows = [
        (
            flow.protocol, str(flow.client), flow.service or _elsewhere(flow),
            str(flow.endpoint) if flow.endpoint else _UNTRANSLATED,
            "kept" if flow.source_seen == flow.client else flow.source_seen.name,
            flow.node, flow.state, *_amounts(flow.there, flow.back), _age(flow.age),
        )
        for flow in told
    ]  # fmt: skip
    return table(head, rows)


def _sums(sums: Sequence[Sum]) -> Iterable[str]:
    head = ("PROTO", "CLIENT", "SERVICE", "ENDPOINT", "CONNECTIONS", "PACKETS", "BYTES")
    return table(
        head,
        (
            (
                each.protocol, each.client, each.service or "-", each.endpoint or _UNTRANSLATED, each.connections,
                *_amounts(each.there, each.back),
            )
            for each in sums
        ),
    )  # fmt: skip


def _elsewhere(flow: ServiceFlow) -> str:
    """What a client wrote that meant no Service, where it was translated all the same."""
    return "-" if flow.endpoint == flow.destination else str(flow.destination)


def _amounts(there: Counts, back: Counts) -> tuple[str, str]:
    if not there.packets:
        return "-", "-"
    return f"{there.packets}/{back.packets}", f"{there.bytes}/{back.bytes}"


def _age(seconds: float | None) -> str:
    """As kubectl tells ages: 12s, 5m, 3h, 2d."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def _follow(
    lab: str, nodes: Sequence[str], names: CurrentNames, wanted: _Wanted, *, duration: float, output: Format
) -> None:
    with Followed(lab, nodes) as followed, Watching(duration, followed.gone) as watching:
        note(f"following {len(nodes)} nodes; {limits(duration)}")
        for events in followed.events(watching.over, sys.stdout.fileno()):
            now = time.time()
            for node, entry in events:
                known = names.know(entry.original.source, entry.original.destination, entry.reply.source)
                if wanted(entry, known):
                    flow = flow_of(node, entry, known, now, entry.event)
                    say(msgspec.json.encode(flow).decode() if output == Format.json else _event(flow, now))
            if events:
                sys.stdout.flush()
    if followed.lost:
        note(f"events were lost {followed.lost} times: they came faster than they were read")
    if watching.gone:
        note(f"lab {lab} went down")


def _event(flow: ServiceFlow, now: float) -> str:
    moment = time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03}"
    way = f"{flow.client} > {'service/' + flow.service if flow.service else str(flow.destination)}"
    if flow.endpoint and flow.endpoint != flow.destination:
        way += f" > {flow.endpoint}"
    line = f"{moment}  {flow.event:7}  {flow.protocol}  {way}  on {flow.node}"
    if flow.event == "destroy" and flow.there.packets:
        packets, sizes = _amounts(flow.there, flow.back)
        return f"{line}  {packets} packets, {sizes} bytes" + (f", {flow.age:.1f} s" if flow.age is not None else "")
    return f"{line}  {flow.state}"


def _lines(
    held: Iterable[Held], names: Names, whys: Mapping[tuple[str, int], str], *, with_node: bool
) -> Iterable[str]:
    """`whys`: what makes an entry stale, by its node and number."""
    now = time.time()
    for node, entry in held:
        line = f"{conntrack_text.line(entry, now)}  # {conntrack_text.in_names(entry, names)}"
        line += f": {whys[node, entry.id]}" if (node, entry.id) in whys else ""
        yield f"{node}  {line}" if with_node else line


def _as_json(node: str, entry: Tracked, names: Names, stale: str) -> dict[str, Any]:
    directions = (("original", entry.original, 0), ("reply", entry.reply, 1))
    return {
        "node": node, "id": entry.id, "protocol": entry.original.protocol, "state": state(entry),
        "timeout": entry.timeout, "age": age(entry, time.time()), "seenReply": bool(entry.status & SEEN_REPLY),
        "assured": bool(entry.status & ASSURED), "mark": entry.mark, "zone": entry.zone,
        **{
            word: {
                "source": one.source, "sourcePort": one.source_port, "destination": one.destination, "port": one.port,
                "packets": entry.packets[index], "bytes": entry.bytes[index],
            }
            for word, one, index in directions
        },
        "names": conntrack_text.in_names(entry, names), **({"stale": stale} if stale else {}),
    }  # fmt: skip
