"""The frames of evidence as a pcapng file: every capture of every packet, merged on one clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from netemu.observe.capture.pcapng import Interface, Packet, pcapng
from netemu.observe.trace.evidence import Crossing, Evidence


def pcapng_of(found: Sequence[Evidence], names: Mapping[str, str]) -> Iterator[bytes]:
    """The file, block by block. An interface is an end of a link, called `PLACE LINK`; `names` are of addresses."""
    crossings = [event for each in found for event in each.events if isinstance(event, Crossing)]
    ends = {(each.place, each.link): number for number, each in enumerate(_firsts(crossings))}
    interfaces = [Interface(f"{place} {link}") for place, link in ends]
    packets = [
        Packet(ends[each.place, each.link], round(each.seconds * 1e9), each.frame, each.direction == "out")
        for each in crossings
    ]
    return pcapng(interfaces, packets, names, comment="netemu trace")


def _firsts(crossings: Sequence[Crossing]) -> list[Crossing]:
    """One crossing of each end of a link."""
    return list({(each.place, each.link): each for each in reversed(crossings)}.values())[::-1]
