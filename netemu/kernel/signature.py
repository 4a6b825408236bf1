"""What tells one packet, and what answers it, from all others: for filters in the kernel that look for it. Pure.

Addresses and ports will not do: every translation changes them. What none changes is TCP's sequence number, and the
first bytes that a datagram or an echo request carries. An answer acknowledges the number (TCP), carries the bytes back
(echo), or quotes the packet's beginning (ICMP errors); a datagram's answer can only be told by its addresses.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from netemu.model.protocols import ICMP, ICMPV6, NUMBERS

_PAYLOAD: Final = 8
"""Where the payload of a datagram and of an echo begins, and how long an ICMP error's own header is."""
_SEQUENCE, _ACKNOWLEDGED = 4, 8
_LONGEST: Final = 16


class Signature(Struct, frozen=True):
    """`value` stands `offset` bytes into the transport header, wherever the packet goes."""

    ipv6: bool
    protocol: str
    """`tcp`, `udp`, `icmp`."""
    value: bytes
    every: bool = False
    """Of no packet in particular: every first packet of a connection, and every answer to one."""

    @staticmethod
    def beginnings(protocol: str, *, ipv6: bool) -> Signature:
        """Of all packets that begin a connection and that answer these: segments with SYN or RST, all datagrams, all of
        ICMP. Which of them belong together is for who reads them to find out."""
        return Signature(ipv6, protocol, b"", every=True)

    @staticmethod
    def tcp(sequence: int, *, ipv6: bool) -> Signature:
        """Of a SYN."""
        return Signature(ipv6, "tcp", sequence.to_bytes(4, "big"))

    @staticmethod
    def payload(protocol: str, data: bytes, *, ipv6: bool) -> Signature:
        """Of a datagram or an echo request. Raises ValueError for nothing, which is like any other nothing."""
        if not data:
            raise ValueError("an empty packet cannot be told from others")
        return Signature(ipv6, protocol, data[:_LONGEST])

    @property
    def number(self) -> int:
        """The protocol's number."""
        return self.icmp if self.protocol == "icmp" else NUMBERS[self.protocol]

    @property
    def icmp(self) -> int:
        """The number of the family's ICMP."""
        return ICMPV6 if self.ipv6 else ICMP

    @property
    def offset(self) -> int:
        """Where the value is in the packet itself."""
        return _SEQUENCE if self.protocol == "tcp" else _PAYLOAD

    @property
    def quoted_offset(self) -> int:
        """Where the value is in an ICMP error about the packet."""
        return _PAYLOAD + (40 if self.ipv6 else 20) + self.offset

    @property
    def answer(self) -> tuple[int, bytes]:
        """Where an answer has which value; (0, b"") for datagrams, whose answers are anything."""
        if self.protocol == "tcp":
            following = (int.from_bytes(self.value, "big") + 1) & 0xFFFFFFFF
            return _ACKNOWLEDGED, following.to_bytes(4, "big")
        return (_PAYLOAD, self.value) if self.protocol == "icmp" else (0, b"")
