"""rtnetlink on the wire, the way back: links, addresses, routes and neighbours as dumps tell them. No sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from netemu.kernel.rtnetlink import MAIN_TABLE, attributes

_IFF_UP: Final = 0x1
_NUD_PERMANENT: Final = 0x80
_NUD_SILENT: Final = 0x01 | 0x20  # incomplete, failed
_TYPES: Final = {
    1: "unicast", 2: "local", 3: "broadcast", 5: "multicast",
    6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw",
}  # fmt: skip
_SCOPES: Final = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 5, 10, 18
_IFLA_INFO_KIND, _IFA_ADDRESS, _IFA_LOCAL = 1, 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 5, 7, 9, 15
_NDA_DST, _NDA_LLADDR = 1, 2


class Link(Struct, frozen=True):
    """A link as the kernel describes it. `type` is "" for a physical one and for loopback; `peer` is an index."""

    index: int
    name: str
    type: str
    up: bool
    mtu: int
    mac: str
    master: int = 0
    peer: int = 0


class Address(Struct, frozen=True):
    """An address of the link with number `index`, with its prefix length: 10.244.1.5/24."""

    index: int
    address: str
    scope: str = "global"


class Hop(Struct, frozen=True):
    """A next hop as the kernel describes it."""

    index: int
    via: str = ""
    weight: int = 1


class Route(Struct, frozen=True):
    """A route as the kernel describes it: prefixes always with their length, the default route as "default"."""

    to: str
    hops: tuple[Hop, ...]
    type: str = "unicast"
    src: str = ""
    scope: str = "global"
    table: int = MAIN_TABLE


class Neighbour(Struct, frozen=True):
    """An entry of the ARP or neighbour discovery table."""

    index: int
    address: str
    mac: str
    permanent: bool
    silent: bool = False
    """It was asked for and has not answered: INCOMPLETE or FAILED."""


def parse_link(body: bytes) -> Link:
    """A link of an RTM_NEWLINK message."""
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", body)
    found = attributes(body, 16)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    return Link(
        index, _string(found[_IFLA_IFNAME]), _string(info.get(_IFLA_INFO_KIND, b"")), bool(flags & _IFF_UP),
        _int(found.get(_IFLA_MTU)), found.get(_IFLA_ADDRESS, b"").hex(":"), _int(found.get(_IFLA_MASTER)),
        _int(found.get(_IFLA_LINK)),
    )  # fmt: skip


def parse_address(body: bytes) -> Address:
    """An address of an RTM_NEWADDR message; on a point-to-point link the local one."""
    family, length, _, scope, index = struct.unpack_from("=BBBBI", body)
    found = attributes(body, 8)
    raw = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    return Address(index, f"{socket.inet_ntop(family, raw)}/{length}", _SCOPES.get(scope, str(scope)))


def parse_route(body: bytes) -> Route:
    """A route of an RTM_NEWROUTE message."""
    family, length, _, _, table, _, scope, kind = struct.unpack_from("=BBBBBBBB", body)
    found = attributes(body, 12)
    to = f"{_ip(family, found[_RTA_DST])}/{length}" if _RTA_DST in found else "default"
    if _RTA_MULTIPATH in found:
        hops = tuple(_parse_hops(family, found[_RTA_MULTIPATH]))
    else:
        hops = (Hop(_int(found.get(_RTA_OIF)), _ip(family, found.get(_RTA_GATEWAY, b""))),)
    return Route(
        to, hops, _TYPES.get(kind, str(kind)), _ip(family, found.get(_RTA_PREFSRC, b"")),
        _SCOPES.get(scope, str(scope)), _int(found.get(_RTA_TABLE)) or table,
    )  # fmt: skip


def parse_neighbour(body: bytes) -> Neighbour:
    """An entry of an RTM_NEWNEIGH message."""
    family, index, state = struct.unpack_from("=BxxxiH", body)
    found = attributes(body, 12)
    mac = found.get(_NDA_LLADDR, b"").hex(":")
    return Neighbour(
        index, _ip(family, found.get(_NDA_DST, b"")), mac, bool(state & _NUD_PERMANENT), bool(state & _NUD_SILENT)
    )


def _parse_hops(family: int, raw: bytes) -> Iterator[Hop]:
    offset = 0
    while offset + 8 <= len(raw):
        size, _, weight, index = struct.unpack_from("=HBBi", raw, offset)
        found = attributes(raw[offset + 8 : offset + size])
        yield Hop(index, _ip(family, found.get(_RTA_GATEWAY, b"")), weight + 1)
        offset += (size + 3) & ~3


def _ip(family: int, raw: bytes) -> str:
    return socket.inet_ntop(family, raw) if raw and family in (socket.AF_INET, socket.AF_INET6) else ""


def _int(raw: bytes | None) -> int:
    return int.from_bytes(raw, "little") if raw else 0


def _string(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode()
