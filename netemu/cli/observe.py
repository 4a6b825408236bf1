"""Commands that look at what packets do: probe, dig."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass
from typing import Literal

import typer

from netemu.cli.labs import pick
from netemu.cli.output import Format, say, say_json
from netemu.cli.root import need_root
from netemu.lab.commands import environment_of, run_command
from netemu.lab.destinations import destination_from
from netemu.lab.targets import Target, find_target
from netemu.observe.probe.prober import Destination, Pace, Place, paced_probe
from netemu.observe.probe.steady import RATE, steadily
from netemu.observe.probe.text import describe
from netemu.observe.probe.timeline import draw


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
    place, to = Place(target.netns, target.resolv_conf, target.hosts), destination_from(target, destination)
    if change:
        _probe_during(lab, target.name, place, to, pace, change, udp=udp, output=output)
        return
    result = asyncio.run(paced_probe(place, to, pace, udp=udp, over=over))
    if output == Format.json:
        say_json(result)
    else:
        for text in describe(target.name, result):
            say(text)
    if not result.answered:
        raise SystemExit(1)


def _probe_during(
    lab: str,
    source: str,
    place: Place,
    destination: Destination,
    pace: Pace,
    change: Change,
    *,
    udp: bool,
    output: Format,
) -> None:
    rate = pace.rate or RATE
    with steadily(
        place, destination, udp=udp, rate=rate, timeout=pace.timeout, keep_alive=pace.keep_alive, margin=change.margin
    ) as steady:
        steady.mark("the command begins")
        done = run_command(["sh", "-c", change.command], env=environment_of(lab), output=sys.stderr)
        exits = done.returncode
        steady.mark("it has ended" if exits == 0 else f"it has ended with exit code {exits}")
    result, line = steady.result, steady.timeline
    if output == Format.json:
        say_json({"command": change.command, "exits": exits, "result": result, "timeline": line})
    else:
        for text in draw(line):
            say(text)
        say("")
        for text in describe(source, result):
            say(text)
    if line.lost or exits:
        raise SystemExit(1)


def dig(lab: str, source: str, namespace: str, name: str, words: list[str], *, resolver: str, output: Format) -> None:
    """`netemu dig`. Exits with 1 if the name was not found."""
    from netemu.observe.resolve.dig import lookup, render

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
