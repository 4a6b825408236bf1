"""`netemu trace`: the story of a packet, or of several and which endpoints they took."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, get_args

import msgspec
import typer

from netemu.cli.labs import pick
from netemu.cli.output import Format, note, say, say_json, table, write_file
from netemu.cli.root import need_root_everywhere
from netemu.observe.story.destination import IPV4, IPV6
from netemu.observe.story.story import Story, lines_of
from netemu.observe.trace.evidence import Evidence, Protocol

if TYPE_CHECKING:
    from netemu.lab.trace import Tracer

Word = TypeVar("Word", bound=str)
Told = tuple[Story, Evidence | None]


def trace(
    lab: str, source: str, to: str, namespace: str, *,
    protocol: str, family: str, count: int, size: int, source_port: int, pcap: Path | None, output: Format,
) -> None:  # fmt: skip
    """`netemu trace`. Exits with 1 if a packet was not answered, or not as it should have been."""
    from netemu.lab.trace import Tracer

    kind = _one_of("--proto", protocol.lower(), get_args(Protocol))
    _one_of("--family", family, ("", IPV4, IPV6))
    need_root_everywhere()
    tracer = Tracer(pick(lab), source, namespace)

    async def send() -> list[Told]:
        options = {"protocol": kind, "family": family, "size": size, "source_port": source_port}
        return [await tracer.story(to, **options) for _ in range(count)]

    told = asyncio.run(send())
    stories = [story for story, _ in told]
    if output == Format.json:
        say_json(stories)
    else:
        _print(stories)
    if pcap is not None:
        _write(pcap, tracer, [evidence for _, evidence in told if evidence is not None])
    if any(story.outcome != "answered" or story.why_not for story in stories):
        raise SystemExit(1)


def live(
    lab: str, source: str, to: str, namespace: str, *, protocol: str, family: str, count: int, output: Format
) -> None:
    """`netemu trace --live`: until interrupted, or so many connections (0: any number) were told."""
    from netemu.lab.trace import Tracer

    kind = _one_of("--proto", protocol.lower(), get_args(Protocol))
    _one_of("--family", family, ("", IPV4, IPV6))
    need_root_everywhere()
    tracer = Tracer(pick(lab), source, namespace)

    def ready() -> None:
        note(f"waiting for connections from {source} to {to}")

    async def tell() -> None:
        told = 0
        async with contextlib.aclosing(tracer.live(to, protocol=kind, family=family, ready=ready)) as stories:
            async for story in stories:
                _tell(story, output)
                told += 1
                if told == count:
                    return

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(tell())


def _tell(story: Story, output: Format) -> None:
    """At once, also into a pipe. In JSON, one line each."""
    if output == Format.json:
        say(msgspec.json.encode(story).decode())
    else:
        for line in (*lines_of(story), ""):
            say(line)
    sys.stdout.flush()


def _one_of(option: str, word: str, known: Sequence[Word]) -> Word:
    if word not in known:
        raise typer.BadParameter(f"{option} {word}: must be {', '.join(filter(None, known))}")
    return known[known.index(word)]


def _print(stories: Sequence[Story]) -> None:
    """One story whole; of several a line each, the shares of the endpoints, and the first one that went wrong."""
    if len(stories) == 1:
        for line in lines_of(stories[0]):
            say(line)
        return
    rows = [
        (number, story.outcome, story.endpoint or "-", story.source_seen or "-", f"{1000 * story.seconds:.2f} ms")
        for number, story in enumerate(stories, 1)
    ]
    for line in table(("PACKET", "OUTCOME", "ENDPOINT", "SOURCE SEEN", "TIME"), rows):
        say(line)
    say("")
    shares = Counter(story.endpoint or f"({story.outcome})" for story in stories).most_common()
    for line in table(("ENDPOINT", "COUNT", "SHARE"), [(e, n, f"{100 * n / len(stories):.0f} %") for e, n in shares]):
        say(line)
    if (wrong := next((story for story in stories if story.why_not), None)) is not None:
        say("")
        for line in lines_of(wrong):
            say(line)


def _write(file: Path, tracer: Tracer, found: Sequence[Evidence]) -> None:
    from netemu.observe.trace.evidence_file import pcapng_of

    names = {address: str(party) for address, party in tracer.names.parties.items()}
    write_file(file, pcapng_of(found, names))
    note(f"wrote {file}")
