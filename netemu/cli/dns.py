"""Commands about cluster DNS: dns-log, dns-fault."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import typer

from netemu.cli.labs import pick
from netemu.cli.output import Format, note, say, say_json, table
from netemu.cli.root import need_root
from netemu.lab.addons import FAULTS, OUTSIDE_FAULTS, SYSTEM
from netemu.lab.api import LabApi
from netemu.lab.config import load_config
from netemu.lab.targets import find_pod, pods_by_link
from netemu.model.errors import Conflict, UserError
from netemu.model.resources import CONFIGMAPS
from netemu.model.suggest import instead
from netemu.network import names

if TYPE_CHECKING:
    from netemu.dns.fault import Fault, Kind
    from netemu.observe.resolve.dns_log import Client, PodLookups, Query


def log(lab: str, pod: str, namespace: str, *, follow: bool, seconds: float, output: Format) -> None:
    """`netemu dns-log`. Queries as they are finished, then what they sum up to for each Pod."""
    from netemu.observe.resolve.dns_log import Log, Lookups

    need_root()
    lab = pick(lab)
    wanted = find_pod(lab, pod, namespace) if pod else ""
    nodes = [names.node_netns(lab, node.name) for node in load_config(lab).nodes]
    lookups = Lookups()
    shown: list[Query] = []
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
        if log.gone:
            note(f"lab {lab} went down")
        if lost := log.lost():
            note(f"{lost} packets came too fast and are not told here")
    if output == Format.table:
        _print(lookups.summary())
    elif follow:
        say(msgspec.json.encode({"pods": lookups.summary()}).decode())
    else:
        say_json({"queries": shown, "pods": lookups.summary()})


def fault(
    lab: str, words: Sequence[str], *,
    pod: str, namespace: str, seconds: float | None, percent: int | None, key: str, outside: bool, output: Format,
) -> None:  # fmt: skip
    """`netemu dns-fault`: list, switch one on (`KIND [PATTERN]`), or switch off (`off [NAME]...`)."""
    kind = words[0] if words else ""
    given = {"--pod": pod or None, "--seconds": seconds, "--percent": percent, "--as": key or None}
    _refuse_what_means_nothing(kind, [option for option, value in given.items() if value is not None])
    need_root()
    lab = pick(lab)
    table = _FaultTable(LabApi(lab), OUTSIDE_FAULTS if outside else FAULTS)
    if kind == "off":
        table.off(words[1:])
    elif words:
        from netemu.dns.fault import parse_fault

        who = {"pod": _pod_of(lab, pod, namespace)} if pod else {}
        made = _made(words, {**who, "seconds": seconds, "percent": percent})
        text = msgspec.json.encode(made).decode()
        parse_fault(text)
        table.add(key, made.fault, text)
    _print_faults(table.read(), output)


def _refuse_what_means_nothing(kind: str, options: Sequence[str]) -> None:
    """Raises BadParameter for options that would be passed over."""
    if options and not kind:
        raise typer.BadParameter(f"{options[0]}: what for? expected KIND before it, for example drop")
    if options and kind == "off":
        raise typer.BadParameter(f"{options[0]}: `off` takes names of faults alone, as `netemu dns-fault` lists them")
    if "--seconds" in options and kind != "delay":
        raise typer.BadParameter(f"--seconds: only delay takes seconds, not {kind}; `off` ends a fault")


def _made(words: Sequence[str], details: Mapping[str, object]) -> Fault:
    from netemu.dns import fault

    if len(words) > 2:
        raise typer.BadParameter(f"{' '.join(words)}: expected KIND [PATTERN]; quote patterns with *")
    if words[0] not in fault.KINDS:
        raise typer.BadParameter(f"{words[0]}: {instead(words[0], (*fault.KINDS, 'off'), 'must be one of')}")
    given = {field: value for field, value in details.items() if value is not None}
    return fault.Fault(cast("Kind", words[0]), words[1] if len(words) > 1 else "*", **cast("Any", given))


def _pod_of(lab: str, text: str, namespace: str) -> str:
    """NAMESPACE/NAME; one that is not there may come later, so that is only said."""
    try:
        return find_pod(lab, text, namespace)
    except UserError as error:
        pod = text if "/" in text else f"{namespace}/{text}"
        note(f"warning: {error}; the fault waits for {pod}")
        return pod


def _numbered(word: str) -> Iterator[str]:
    yield word
    for number in itertools.count(2):
        yield f"{word}-{number}"


@dataclass(frozen=True, slots=True)
class _FaultTable:
    """A ConfigMap of faults."""

    api: LabApi
    name: str

    def read(self) -> dict[str, str]:
        """The faults, by key."""
        return self.api.get(CONFIGMAPS, self.name, SYSTEM).get("data") or {}

    def add(self, key: str, kind: str, text: str) -> None:
        """Add a fault, or replace the one of that key; without one, under the first name of its kind that is free. That
        name may be taken by somebody else meanwhile: then the next one is looked for."""
        while True:
            found = self.api.get(CONFIGMAPS, self.name, SYSTEM)
            free = key or next(name for name in _numbered(kind) if name not in (found.get("data") or {}))
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            try:
                self.api.merge_patch(CONFIGMAPS, self.name, {"metadata": version, "data": {free: text}}, SYSTEM)
            except Conflict:
                continue
            return

    def off(self, keys: Sequence[str]) -> None:
        """Remove these, or all. Raises UserError for one that is not there."""
        there = self.read()
        for key in keys:
            if key not in there:
                why = instead(key, list(there), "there are") if there else "there is none"
                raise UserError(f"no fault {key!r}; {why}")
        if there:
            self.api.merge_patch(CONFIGMAPS, self.name, {"data": dict.fromkeys(keys or there)}, SYSTEM)


def _print_faults(faults: Mapping[str, str], output: Format) -> None:
    from netemu.dns.fault import parse_fault

    rows, items = [], []
    for key, text in sorted(faults.items()):
        try:
            one = parse_fault(text)
        except UserError as error:
            rows.append((key, "invalid", "", "", "", str(error)))
            items.append({"key": key, "error": str(error)})
            continue
        detail = f"{one.seconds:g} s" if one.fault == "delay" else ""
        rows.append((key, one.fault, one.name, one.pod or "*", f"{one.percent} %", detail))
        items.append({"key": key, **msgspec.structs.asdict(one)})
    if output == Format.json:
        say_json({"faults": items})
    elif rows:
        for line in table(("FAULT", "KIND", "NAMES", "POD", "SHARE", "DETAIL"), rows):
            say(line)
    else:
        say("no faults")


def _clients(lab: str) -> dict[str, Client]:
    from netemu.observe.resolve.dns_log import Client
    from netemu.observe.resolve.resolvers import parse_resolv_conf

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
