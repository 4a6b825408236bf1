"""The numbers of IP protocols, by the names that conntrack gives them. Source: IANA's protocol numbers."""

from __future__ import annotations

from typing import Final

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132

NUMBERS: Final = {"icmp": ICMP, "tcp": TCP, "udp": UDP, "icmpv6": ICMPV6, "sctp": SCTP}
NAMES: Final = {number: name for name, number in NUMBERS.items()}
WITH_PORTS: Final = {"tcp": TCP, "udp": UDP, "sctp": SCTP}
"""Those that Services may have."""
OF_NFT: Final = WITH_PORTS | {"icmp": ICMP, "ipv6-icmp": ICMPV6, "dccp": 33, "udplite": 136}
"""As nft spells them, which knows some more."""


def name_of(number: int) -> str:
    """What it is called; the number itself where it has no name here."""
    return NAMES.get(number, str(number))
