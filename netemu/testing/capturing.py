"""Packets at a place of a lab, for tests: taken while a block runs, as scapy's packets; sent, and their answers.

What is taken comes from `observe.capture`; scapy only reads and crafts. It is imported where it is first needed,
because that takes a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, overload

from netemu.kernel import packet_socket, raw_ip
from netemu.model.errors import NetemuError
from netemu.observe.capture.pcapng import ETHERNET, Packet
from netemu.observe.capture.stream import Capture, Place

if TYPE_CHECKING:
    from scapy.packet import Packet as ScapyPacket

_PAUSE = 0.01


class Sniffed(Sequence["ScapyPacket"]):
    """The packets that were taken so far, in the order of their times; complete once the block has ended."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._taken: list[Packet] = []
        self._read: list[ScapyPacket] = []
        self._failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Nothing more will be taken, and why."""
        self._failure = error

    def check(self) -> None:
        """Raises what ended the taking, and NetemuError where packets were lost: then seeing none tells nothing."""
        if self._failure:
            raise self._failure
        if dropped := self._capture.count().dropped:
            places = ", ".join(map(str, self._capture.places))
            raise NetemuError(f"{dropped} packets at {places} came faster than they were taken: sniff with a filter")

    def take(self, packets: Sequence[Packet]) -> None:
        """More of them."""
        self._taken += packets

    def __len__(self) -> int:
        return len(self._taken)

    @overload
    def __getitem__(self, index: int) -> ScapyPacket: ...
    @overload
    def __getitem__(self, index: slice) -> list[ScapyPacket]: ...
    def __getitem__(self, index: int | slice) -> ScapyPacket | list[ScapyPacket]:
        for packet in self._taken[len(self._read) :]:
            self._read.append(as_scapy(packet, self._capture))
        return self._read[index]

    def wait(self, count: int, timeout: float = 5.0) -> None:
        """Return once there are so many. Raises TimeoutError, and what `check` raises."""
        end = time.monotonic() + timeout
        while len(self) < count:
            self.check()
            if time.monotonic() > end:
                raise TimeoutError(f"{len(self)} packets within {timeout:g} s, expected {count}")
            time.sleep(_PAUSE)


@contextmanager
def sniffing(place: Place, expression: str = "") -> Iterator[Sniffed]:
    """Take all packets of a place while the block runs; `expression` chooses, as tcpdump's do.

    Raises UserError for an expression that is wrong, and when the block has ended NetemuError where packets were lost.
    """
    from netemu.kernel.libpcap import compile_filter

    done = threading.Event()
    with Capture([place], compile_filter(expression) if expression else b"") as capture:
        sniffed = Sniffed(capture)

        def work() -> None:
            try:
                for packets in capture.packets(done.is_set):
                    sniffed.take(packets)
            except Exception as error:  # told to whoever waits for packets
                sniffed.fail(error)

        thread = threading.Thread(target=work, name="netemu-sniff")
        thread.start()
        try:
            yield sniffed
        finally:
            done.set()
            thread.join()
        sniffed.check()


def send(place: Place, addresses: Sequence[str], packet: ScapyPacket, timeout: float) -> ScapyPacket | None:
    """Send a packet from a place; its first answer, None if there is none in time.

    A packet that begins with Ethernet goes out on the link as it is; one that begins with IP takes the way that the
    place's routes give it, from the first of the place's `addresses` unless it says otherwise. Raises NetemuError for
    a packet that cannot be sent.
    """
    packet = packet.copy()
    transmit = _transmit(place, addresses, packet)
    with sniffing(place) as sniffed:
        transmit()
        end, looked = time.monotonic() + timeout, 0
        while True:
            for answer in sniffed[looked:]:
                looked += 1
                if found := _answer(answer, packet):
                    return found
            if time.monotonic() > end:
                return None
            time.sleep(_PAUSE)


def _transmit(place: Place, addresses: Sequence[str], packet: Any) -> Callable[[], None]:
    """What sends the packet. Raises NetemuError for one that cannot be sent."""
    scapy = load_scapy()
    if isinstance(packet, scapy.Ether):
        return lambda: packet_socket.send_frame(place.netns, place.link or "eth0", bytes(packet))
    if not isinstance(packet, (scapy.IP, scapy.IPv6)):
        raise NetemuError(f"{packet.summary()}: must begin with Ether, IP or IPv6 to be sent")
    ipv6 = isinstance(packet, scapy.IPv6)
    if "src" not in packet.fields:
        own = [address for address in addresses if (":" in address) == ipv6]
        if not own:
            raise NetemuError(f"{place.name} has no IPv{6 if ipv6 else 4} address to send {packet.summary()} from")
        packet.src = own[0]
    return lambda: raw_ip.send(place.netns, bytes(packet), str(packet.dst))


def _answer(seen: Any, sent: Any) -> ScapyPacket | None:
    """The part of a packet that answers the one that was sent, by what scapy knows of its protocols."""
    layer = seen.getlayer(type(sent))
    return layer if layer is not None and layer.answers(sent) else None


def as_scapy(packet: Packet, capture: Capture) -> ScapyPacket:
    """A captured packet, with its time and, as `sniffed_on`, the interface."""
    scapy = load_scapy()
    interface = capture.interfaces[packet.interface]
    if interface.link_type == ETHERNET:
        read = scapy.Ether(packet.data)
    else:
        read = (scapy.IPv6 if packet.data[:1] >= b"\x60" else scapy.IP)(packet.data)
    read.time = packet.nanoseconds / 1e9
    read.sniffed_on = interface.name
    return read  # type: ignore[no-any-return]


def load_scapy() -> Any:
    """scapy.all without its remarks about this machine's own network, which is none of a lab's."""
    logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
    import scapy.all

    return scapy.all
