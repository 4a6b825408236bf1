"""`netemu capture`: packets of many places in one stream, as lines for people or programs, or as a pcapng file."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Protocol

import msgspec

from netemu.cli.labs import pick
from netemu.cli.output import Format, note, say, unwritable
from netemu.cli.root import need_root
from netemu.cli.watching import Watching, limits, named
from netemu.lab.addresses import CurrentNames
from netemu.lab.places import describer, find_places
from netemu.model.errors import UserError
from netemu.observe.capture import pcapng
from netemu.observe.capture.filter import with_addresses
from netemu.observe.capture.packet_text import Told, read_frame
from netemu.observe.capture.pcapng import Packet
from netemu.observe.capture.stream import Capture

_NAMES_AGAIN = 5.0
"""Seconds between looks for new names while a file is written."""


def capture(
    lab: str, where: Sequence[str], namespace: str, *,
    file: str, expression: str, count: int, duration: float, output: Format,
) -> None:  # fmt: skip
    """`netemu capture`. Ends by itself after `count` packets or `duration` seconds (0: never), or with the lab."""
    need_root()
    lab = pick(lab)
    places = find_places(lab, where, namespace)
    names = named(lab)
    program = _compiled(expression, names, namespace)
    with _stream(file) as stream, Capture(
        places, program, expression=expression, describe=describer(lab)
    ) as running:  # fmt: skip
        taken = 0
        with Watching(duration, lambda: running.gone) as watching:
            sink = _sink(stream, file, output, running, names)
            note(f"capturing at {', '.join(map(str, places))}; {limits(duration, count)}")
            for packets in _first(count, running.packets(watching.over, sink.reader)):
                sink.write(packets)
                taken += len(packets)
            sink.end()
        if watching.gone:
            note(f"lab {lab}, or what was captured of it, went away")
        _tell(running, taken)


def _compiled(expression: str, names: CurrentNames, namespace: str) -> bytes:
    from netemu.kernel.libpcap import compile_filter

    return compile_filter(with_addresses(expression, names.now, namespace)) if expression else b""


def _first(count: int, batches: Iterable[list[Packet]]) -> Iterator[list[Packet]]:
    """So many packets; 0: all."""
    left = count or sys.maxsize
    for packets in batches:
        yield packets[:left]
        left -= len(packets)
        if left <= 0:
            return


def _tell(running: Capture, taken: int) -> None:
    note(f"{taken} packets captured, {running.count().dropped} dropped by the kernel")
    for place, counts in running.counts.items():
        if counts.dropped:
            note(f"  {place}: {counts.dropped} of {counts.taken + counts.dropped} came faster than they were read")


class _Sink(Protocol):
    """Where packets go."""

    reader: int | None
    """The descriptor of a pipe that somebody may cease to read."""

    def write(self, packets: Sequence[Packet]) -> None:
        """Some packets, to be seen at once."""

    def end(self) -> None:
        """No more."""


def _sink(stream: int | None, file: str, output: Format, running: Capture, names: CurrentNames) -> _Sink:
    return _Lines(output, running, names) if stream is None else _Pcapng(stream, file, running, names)


@contextlib.contextmanager
def _stream(file: str) -> Iterator[int | None]:
    """The descriptor of what `-w` names."""
    if file == "-":
        if sys.stdout.isatty():
            raise UserError("-w -: packets would go to the terminal; pipe them: -w - | wireshark -k -i -")
        yield sys.stdout.fileno()
    elif file:
        with _opened(file) as opened:
            yield opened.fileno()
    else:
        yield None


def _opened(file: str) -> FileIO:
    try:
        return Path(file).open("wb", buffering=0)
    except OSError as error:
        raise unwritable(file, error) from error


class _Pcapng:
    """A pcapng file, written block by block."""

    def __init__(self, stream: int, file: str, running: Capture, names: CurrentNames) -> None:
        self._file, self._running, self._names = file, running, names
        self.reader: int | None = stream
        self._stream = stream
        self._begin = time.time_ns()
        self._described = len(running.interfaces)
        self._numbers = [0] * self._described
        self._named, self._next_names = self._texts(), time.monotonic() + _NAMES_AGAIN
        self._write(pcapng.head(running.interfaces, self._named))

    def write(self, packets: Sequence[Packet]) -> None:
        """See _Sink."""
        fresh = self._running.interfaces[self._described :]
        self._described += len(fresh)
        self._numbers += [0] * len(fresh)
        for packet in packets:
            self._numbers[packet.interface] += 1
        blocks = [*map(pcapng.interface_block, fresh), *map(pcapng.packet_block, packets)]
        if time.monotonic() > self._next_names:
            blocks += self._new_names()
        if blocks:
            self._write(b"".join(blocks))

    def end(self) -> None:
        """The last names, and what became of each interface's packets."""
        now = time.time_ns()
        self._running.count()
        blocks = self._new_names()
        for number, received in enumerate(self._numbers):
            place = self._running.links.place_of[number]
            dropped = self._running.counts[str(place)].dropped if place.link else None
            blocks.append(pcapng.statistics_block(number, self._begin, now, received, dropped))
        self._write(b"".join(blocks))

    def _new_names(self) -> list[bytes]:
        """Names that came since the last look, of Pods that are new for example."""
        self._next_names = time.monotonic() + _NAMES_AGAIN
        self._names.refresh()
        now = self._texts()
        fresh = {address: name for address, name in now.items() if self._named.get(address) != name}
        self._named |= fresh
        return [pcapng.name_block(fresh)] if fresh else []

    def _texts(self) -> dict[str, str]:
        return {address: str(party) for address, party in self._names.now.parties.items()}

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._stream, left) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise unwritable(self._file, error) from error


class Line(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A packet as `-o json` tells it, one object a line."""

    time: float
    """Seconds since the epoch."""
    interface: str
    direction: str
    protocol: str
    length: int
    """Of the frame on the wire."""
    source: str = ""
    source_port: int = 0
    source_name: str = ""
    destination: str = ""
    port: int = 0
    destination_name: str = ""
    info: str = ""


class _Lines:
    """A line for each packet, with names in place of addresses."""

    def __init__(self, output: Format, running: Capture, names: CurrentNames) -> None:
        self._json, self._running, self._names = output == Format.json, running, names
        self.reader: int | None = sys.stdout.fileno()
        self._widths = [max((len(interface.name) for interface in running.interfaces), default=0), 0]

    def write(self, packets: Sequence[Packet]) -> None:
        """See _Sink."""
        for packet in packets:
            interface = self._running.interfaces[packet.interface]
            told = read_frame(packet.data, ethernet=interface.link_type == pcapng.ETHERNET)
            line = _line(packet, interface.name, told, self._names)
            say(msgspec.json.encode(line).decode() if self._json else self._text(line, packet.nanoseconds))
        if packets:
            sys.stdout.flush()

    def end(self) -> None:
        """See _Sink."""

    def _text(self, line: Line, nanoseconds: int) -> str:
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        moment = time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{rest // 1000:06}"
        way = f"{line.source_name} > {line.destination_name}" if line.source_name else ""
        for column, text in enumerate((line.interface, way)):
            self._widths[column] = max(self._widths[column], len(text))
        place, way = line.interface.ljust(self._widths[0]), way.ljust(self._widths[1])
        return f"{moment}  {place}  {line.direction:3}  {way}  {line.protocol}  {line.info}"


def _line(packet: Packet, interface: str, told: Told, names: CurrentNames) -> Line:
    known = names.know(*filter(None, (told.source, told.destination)))
    source, destination = (
        known.endpoint(told.protocol, address, port) if address else ""
        for address, port in ((told.source, told.source_port), (told.destination, told.port))
    )
    return Line(
        packet.nanoseconds / 1e9, interface, "out" if packet.outgoing else "in", told.protocol,
        packet.length or len(packet.data), told.source, told.source_port, source,
        told.destination, told.port, destination, told.info,
    )  # fmt: skip
