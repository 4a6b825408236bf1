"""Commands that look at what packets do: probe, dig."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Literal

import typer

from netemu.cli.labs import pick
from netemu.cli.output import Format, say, say_json, table
from netemu.cli.root import need_root
from netemu.lab.targets import Target, find_target
from netemu.observe.probe_result import Percentiles, ProbeResult


def _place(lab: str, source: str, namespace: str) -> Target:
    need_root()
    return find_target(pick(lab), source, namespace)


def probe(
    lab: str, source: str, namespace: str, destination: str, *,
    count: int, concurrency: int, udp: bool, timeout: float, output: Format,
) -> None:  # fmt: skip
    """`netemu probe`. Exits with 1 if nothing answered."""
    from netemu.observe.probe import Place
    from netemu.observe.probe import probe as run

    target = _place(lab, source, namespace)
    place = Place(target.netns, target.resolv_conf, target.hosts)
    result = asyncio.run(run(place, destination, udp=udp, count=count, concurrency=concurrency, timeout=timeout))
    if output == Format.json:
        say_json(result)
    else:
        _print(target.name, result)
    if not result.answered:
        raise SystemExit(1)


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
    for name, times in (("answer", result.latency), ("lookup", result.lookup)):
        if times:
            say(f"{name}: {_milliseconds(times)}")


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
