"""Addresses and networks as the text that API objects hold."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


def is_address(text: str) -> bool:
    """Whether a text is an address of either family; one of IPv6 may have a zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def network_of(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The network that a text means, host bits passed over; None for one that is none."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def inside(address: str, networks: Iterable[str]) -> bool:
    """Whether one of the networks has the address."""
    ip = ipaddress.ip_address(address)
    return any((n := network_of(text)) is not None and ip in n for text in networks)


def canonical(address: str) -> str:
    """Canonical text; IPv4 may come with leading zeros. "" for what is no address, or has a zone."""
    if "%" in address:
        return ""
    if ":" not in address:
        address = ".".join(part.lstrip("0") or "0" for part in address.strip().split("."))
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return ""
