"""Domain names in wire form.

Everywhere in the DNS room a name is `bytes`: length-prefixed labels with the closing zero, uncompressed, in the
spelling it came with. That form hashes, compares and concatenates fast, keeps dots inside labels apart from dots
between them, and `bytes.lower()` folds exactly the ASCII letters of RFC 4343, because no length byte (at most 63) is
a letter.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

ROOT = b"\0"
LONGEST_LABEL = 63
"""Octets (RFC 1035, 2.3.4)."""
_REVERSE4 = b"\x07in-addr\x04arpa\0"
_REVERSE6 = b"\x03ip6\x04arpa\0"


def join(labels: Sequence[bytes], zone: bytes = ROOT) -> bytes:
    """The name with `labels` in front of `zone`."""
    return b"".join([bytes((len(label),)) + label for label in labels]) + zone


def parse(text: str) -> bytes:
    r"""A name from its text, absolute with or without the last dot; `\.` and `\DDD` as in zone files. Raises
    ValueError."""
    if text in ("", "."):
        return ROOT
    raw, labels, label, i = text.encode(), [], bytearray(), 0
    while i < len(raw):
        if raw[i] == 0x5C and i + 1 < len(raw):
            if raw[i + 1 : i + 4].isdigit() and len(raw[i + 1 : i + 4]) == 3:
                label.append(int(raw[i + 1 : i + 4]))
                i += 4
            else:
                label.append(raw[i + 1])
                i += 2
        elif raw[i] == 0x2E:
            labels.append(bytes(label))
            label.clear()
            i += 1
        else:
            label.append(raw[i])
            i += 1
    if label:
        labels.append(bytes(label))
    if any(not 1 <= len(item) <= LONGEST_LABEL for item in labels):
        raise ValueError(f"{text!r} is not a domain name: a label has 1 to 63 characters")
    wire = join(labels)
    if len(wire) > 255:
        raise ValueError(f"{text!r} is not a domain name: longer than 253 characters")
    return wire


def labels(wire: bytes) -> list[bytes]:
    """The labels of a name, or of the part in front of a zone."""
    found, i = [], 0
    while i < len(wire) and (size := wire[i]):
        found.append(wire[i + 1 : i + 1 + size])
        i += 1 + size
    return found


def text(wire: bytes) -> str:
    """The name as zone files spell it, with the last dot."""
    if wire == ROOT:
        return "."
    return "".join([_label_text(label) + "." for label in labels(wire)])


def _label_text(label: bytes) -> str:
    plain = label.decode("latin-1")
    if plain.isascii() and plain.replace("-", "").replace("_", "").isalnum():
        return plain
    return "".join(f"\\{c}" if c in '.\\"();@$' else c if 0x21 <= ord(c) <= 0x7E else f"\\{ord(c):03d}" for c in plain)


def suffixes(wire: bytes) -> Iterator[bytes]:
    """The name itself, then each of its parents down to the root."""
    i = 0
    while wire[i]:
        yield wire[i:]
        i += 1 + wire[i]
    yield ROOT


def within(name: bytes, zone: bytes) -> bool:
    """Whether `name` is `zone` or beneath it; both lower-case."""
    if not name.endswith(zone):
        return False
    at, above = 0, len(name) - len(zone)
    while at < above:
        at += 1 + name[at]
    return at == above  # else the octets only look alike: the zone begins inside a label


def is_reverse(zone: bytes) -> bool:
    """Whether a lower-case name lies in `in-addr.arpa` or `ip6.arpa`."""
    return within(zone, _REVERSE4) or within(zone, _REVERSE6)


def reverse(address: str) -> bytes:
    """The name whose PTR records tell the names of an address."""
    return parse(ipaddress.ip_address(address).reverse_pointer)


def address_of(name: bytes) -> str:
    """The address that a lower-case reverse name spells completely, in canonical text; else empty."""
    parts = labels(name)
    try:
        if len(parts) == 6 and name.endswith(_REVERSE4):
            return str(ipaddress.IPv4Address(b".".join(parts[3::-1]).decode()))
        if len(parts) == 34 and name.endswith(_REVERSE6) and all(len(part) == 1 for part in parts[:32]):
            address = ipaddress.IPv6Address(int(b"".join(parts[31::-1]), 16))
            return str(address.ipv4_mapped or address)
    except (ValueError, UnicodeDecodeError):
        pass
    return ""


def reverse_zones(cidr: str) -> list[bytes]:
    """The reverse zones that cover an address range: several where the mask is not on an octet (nibble) border.

    `coredns/plugin/normalize.go`: `10.0.0.0/17` is 128 zones of /24. Raises ValueError for what is no range.
    """
    network = ipaddress.ip_network(cidr, strict=False)
    step = 8 if network.version == 4 else 4
    border = -(-network.prefixlen // step) * step or step
    keep = (network.max_prefixlen - border) // step
    zones = []
    for subnet in network.subnets(new_prefix=border):
        pointer = subnet.network_address.reverse_pointer.split(".")
        zones.append(parse(".".join(pointer[keep:])))
    return zones


def zones(key: str) -> list[bytes]:
    """The lower-case zones that a word of a Corefile names: a domain, or an address range. Raises ValueError."""
    if "/" in key:
        return reverse_zones(key)
    return [parse(key).lower()]
