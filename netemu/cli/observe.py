"""Commands that look at what packets do: probe, dig."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import typer

from netemu.cli.labs import pick
from netemu.cli.output import Format, say, say_json, table
from netemu.cli.root import need_root
from netemu.lab.paths import LabPaths
from netemu.lab.targets import Target, find_target
from netemu.observe.probe import Pace, Place, paced_probe
from netemu.observe.probe_result import Percentiles, ProbeResult
from netemu.observe.steady import RATE, steadily
from netemu.observe.timeline import draw


def _place(lab: str, source: str, namespace: str) -> Target:
    need_root()
    return find_target(pick(lab), source, namespace)


@dataclass(frozen=True, slots=True)
class Change:
    """What `netemu probe --during` does meanwhile: a command line, and how long to probe before and after it."""

    command: str
    margin: float


def probe(
    lab: str, source: str, namespace: str, destination: str, *,
    pace: Pace, udp: bool, over: int, change: Change | None, output: Format,
) -> None:  # fmt: skip
    """`netemu probe`. Exits with 1 if nothing answered; during a change, if anything was lost or the command failed."""
    lab = pick(lab)
    target = _place(lab, source, namespace)
    place = Place(target.netns, target.resolv_conf, target.hosts)
    if change:
        _probe_during(lab, target.name, place, destination, pace, change, udp=udp, output=output)
        return
    result = asyncio.run(paced_probe(place, destination, pace, udp=udp, over=over))
    if output == Format.json:
        say_json(result)
    else:
        _print(target.name, result)
    if not result.answered:
        raise SystemExit(1)


def _probe_during(
    lab: str, source: str, place: Place, destination: str, pace: Pace, change: Change, *, udp: bool, output: Format
) -> None:
    rate = pace.rate or RATE
    with steadily(
        place, destination, udp=udp, rate=rate, timeout=pace.timeout, keep_alive=pace.keep_alive, margin=change.margin
    ) as steady:
        steady.mark("the command begins")
        exits = _run(lab, change.command)
        steady.mark("it has ended" if exits == 0 else f"it has ended with exit code {exits}")
    result, line = steady.result, steady.timeline
    if output == Format.json:
        say_json({"command": change.command, "exits": exits, "result": result, "timeline": line})
    else:
        for text in draw(line):
            say(text)
        say("")
        _print(source, result)
    if line.lost or exits:
        raise SystemExit(1)


def _run(lab: str, command: str) -> int:
    """A command line in a shell, with the lab's kubeconfig; its exit code. What it prints goes to standard error."""
    environment = os.environ | {"KUBECONFIG": str(LabPaths(lab).kubeconfig)}
    return subprocess.run(
        ["sh", "-c", command], env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr
    ).returncode


def _print(source: str, result: ProbeResult) -> None:
    say(f"{source} to {result.destination} over {result.protocol}: {result.answered} of {result.count} answered")
    sections = {"SERVER": result.servers, "SOURCE SEEN": result.sources, "ADDRESS": result.addresses}
    for head, counts in sections.items():
        if any(counts):
            _shares(head, counts, result.answered if head != "ADDRESS" else result.count)
    if result.errors:
        say("")
        rows = [(kind, number, result.details.get(kind, "")) for kind, number in result.errors.items()]
        for line in table(("ERROR", "COUNT", "FIRST"), rows):
            say(line)
    say("")
    if (even := result.evenness) is not None:
        tested = f"chi-square {even.statistic:.2f}, {even.degrees} degrees of freedom, p = {even.p:.4g}"
        say(f"spread: {even.words} ({tested})")
    for name, times in (("answer", result.latency), ("lookup", result.lookup)):
        if times:
            say(f"{name}: {_milliseconds(times)}")
    if result.rate:
        say(f"rate: {result.rate:g} attempts per second on {result.connections} connections, {result.seconds:.2f} s")


def _shares(head: str, counts: Mapping[str, int], whole: int) -> None:
    say("")
    rows = [(name or "(not told)", number, f"{100 * number / max(whole, 1):.0f} %") for name, number in counts.items()]
    for line in table((head, "COUNT", "SHARE"), rows):
        say(line)


def _milliseconds(times: Percentiles) -> str:
    parts = (("min", times.min), ("p50", times.p50), ("p90", times.p90), ("p99", times.p99), ("max", times.max))
    return ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in parts)


def dig(lab: str, source: str, namespace: str, name: str, words: list[str], *, resolver: str, output: Format) -> None:
    """`netemu dig`. Exits with 1 if the name was not found."""
    from netemu.observe.dig import lookup, render

    types = tuple(word.upper() for word in words if not word.startswith("+")) or ("A", "AAAA")
    transport, edns = _switches([word for word in words if word.startswith("+")])
    target = _place(lab, source, namespace)
    try:
        found = asyncio.run(
            lookup(
                name, types=types, resolv_conf=target.resolv_conf, hosts=target.hosts, netns=target.netns,
                resolver=resolver, transport=transport, edns=edns,
            )
        )  # fmt: skip
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if output == Format.json:
        say_json(found)
    else:
        for line in render(found):
            say(line)
    if found.result.status != "found":
        raise SystemExit(1)


def _switches(words: list[str]) -> tuple[Literal["tcp"] | None, int | None]:
    """dig's words with a plus: the transport, and the buffer size of EDNS (0: without). Raises UsageError."""
    transport: Literal["tcp"] | None = None
    edns: int | None = None
    for word in words:
        if word == "+tcp":
            transport = "tcp"
        elif word == "+noedns":
            edns = 0
        elif match := re.fullmatch(r"\+edns(?:=(\d{1,5}))?", word):
            edns = int(match[1] or 1232)
        else:
            raise typer.BadParameter(f"{word}: expected +tcp, +edns, +edns=BYTES or +noedns")
        if edns is not None and not (edns == 0 or 512 <= edns <= 65535):
            raise typer.BadParameter(f"{word}: a buffer size must be 512 to 65535")
    return transport, edns
