"""rtnetlink on the wire: requests as values, and their bytes; `rtnetlink_answers` has what comes back. No sockets here.

A request names links by name, as people do; `encode` is given a function from a name to its index. Layouts and numbers
are those of linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h. Attributes are aligned to four bytes; a nested one
carries its bit (0x8000) only where the kernel checks for it, which none of these do.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from msgspec import Struct

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
_REPLACE: Final = 0x100
_EXCL: Final = 0x200
_CREATE: Final = 0x400

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

MAIN_TABLE: Final = 254
_IFF_UP: Final = 0x1
_NUD_PERMANENT: Final = 0x80
_NUD_NOARP: Final = 0x40
_NTF_MASTER: Final = 0x04
_AF_BRIDGE: Final = 7
_IFA_F_NODAD: Final = 0x02
_IFA_F_PERMANENT: Final = 0x80
_IFA_F_NOPREFIXROUTE: Final = 0x200
_RTNH_F_ONLINK: Final = 0x4
_SCOPE_LINK: Final = 253
_KINDS: Final = {"unicast": 1, "local": 2, "broadcast": 3, "multicast": 5, "blackhole": 6, "unreachable": 7}

IndexOf = Callable[[str], int]


class AddVeth(Struct, frozen=True):
    """A pair of links: `name` here, `peer` in the namespace behind the open file `peer_fd` (-1: here too).

    `master` is a bridge here that `name` becomes a port of; both ends get `mtu`; only the end here is set up by `up`.
    """

    name: str
    peer: str
    peer_netns: str = ""
    mac: str = ""
    peer_mac: str = ""
    mtu: int = 1500
    master: str = ""
    up: bool = True
    peer_index: int = 0

    kind: ClassVar[int] = RTM_NEWLINK

    def __str__(self) -> str:
        return f"add link {self.name} type veth peer {self.peer}"

    def encode(self, index_of: IndexOf, peer_fd: int = -1) -> tuple[int, bytes]:
        """Flags and body of the message."""
        # One queue per end: a queue costs memory and a directory in sysfs, and veth gains nothing from a second.
        common = _u32(_IFLA_MTU, self.mtu) + _u32(_IFLA_NUM_TX_QUEUES, 1) + _u32(_IFLA_NUM_RX_QUEUES, 1)
        peer = _ifinfo(self.peer_index) + _text(_IFLA_IFNAME, self.peer) + common + _mac(_IFLA_ADDRESS, self.peer_mac)
        if peer_fd >= 0:
            peer += _u32(_IFLA_NET_NS_FD, peer_fd)
        info = _text(_IFLA_INFO_KIND, "veth") + attribute(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer))
        body = _ifinfo(0, self.up) + _text(_IFLA_IFNAME, self.name) + common + _mac(_IFLA_ADDRESS, self.mac)
        if self.master:
            body += _u32(_IFLA_MASTER, index_of(self.master))
        return _CREATE | _EXCL, body + attribute(_IFLA_LINKINFO, info)


class AddBridge(Struct, frozen=True):
    """A switch, without spanning tree and without multicast snooping: ports forward at once, and everything."""

    name: str
    mac: str = ""
    mtu: int = 1500
    up: bool = True

    kind: ClassVar[int] = RTM_NEWLINK

    def __str__(self) -> str:
        return f"add link {self.name} type bridge"

    def encode(self, index_of: IndexOf) -> tuple[int, bytes]:
        """Flags and body of the message."""
        data = _u32(_IFLA_BR_STP_STATE, 0) + _u32(_IFLA_BR_FORWARD_DELAY, 0)
        data += attribute(_IFLA_BR_MCAST_SNOOPING, b"\0")
        info = _text(_IFLA_INFO_KIND, "bridge") + attribute(_IFLA_INFO_DATA, data)
        body = _ifinfo(0, self.up) + _text(_IFLA_IFNAME, self.name) + _u32(_IFLA_MTU, self.mtu)
        return _CREATE | _EXCL, body + _mac(_IFLA_ADDRESS, self.mac) + attribute(_IFLA_LINKINFO, info)


class AddDummy(Struct, frozen=True):
    """A link that leads nowhere, and is down: addresses on it are this machine's own, and answer to no neighbour."""

    name: str

    kind: ClassVar[int] = RTM_NEWLINK

    def __str__(self) -> str:
        return f"add link {self.name} type dummy"

    def encode(self, index_of: IndexOf) -> tuple[int, bytes]:
        """Flags and body of the message."""
        info = _text(_IFLA_INFO_KIND, "dummy")
        return _CREATE | _EXCL, _ifinfo(0) + _text(_IFLA_IFNAME, self.name) + attribute(_IFLA_LINKINFO, info)


class SetLink(Struct, frozen=True):
    """Change a link; None and "" leave a property as it is."""

    name: str
    up: bool | None = None
    mtu: int = 0
    mac: str = ""
    master: str = ""

    kind: ClassVar[int] = RTM_NEWLINK

    def __str__(self) -> str:
        return f"set link {self.name}"

    def encode(self, index_of: IndexOf) -> tuple[int, bytes]:
        """Flags and body of the message."""
        body = _ifinfo(index_of(self.name), self.up) + (_u32(_IFLA_MTU, self.mtu) if self.mtu else b"")
        body += _mac(_IFLA_ADDRESS, self.mac)
        return 0, body + (_u32(_IFLA_MASTER, index_of(self.master)) if self.master else b"")


class DelLink(Struct, frozen=True):
    """Remove a link; the other end of a veth pair goes with it."""

    name: str

    kind: ClassVar[int] = RTM_DELLINK

    def __str__(self) -> str:
        return f"delete link {self.name}"

    def encode(self, index_of: IndexOf) -> tuple[int, bytes]:
        """Flags and body of the message."""
        return 0, _ifinfo(index_of(self.name))


class AddAddress(Struct, frozen=True):
    """`address` as 10.244.1.5/24 on `dev`; `prefix_route=False` leaves out the route to its network.

    With `replace` an address that is there already is no error. IPv6 ones are added with nodad: a tentative address
    cannot be used for a second, and nobody else has it.
    """

    dev: str
    address: str
    prefix_route: bool = True
    replace: bool = False

    kind: ClassVar[int] = RTM_NEWADDR

    def __str__(self) -> str:
        return f"add address {self.address} dev {self.dev}"

    def encode(self, index_of: IndexOf) -> tuple[int, bytes]:
        """Flags and body of the message."""
        flags = _IFA_F_PERMANENT | (0 if self.prefix_route else _IFA_F_NOPREFIXROUTE)
        family, raw, length = _prefix(self.address)
        if family == socket.AF_INET6:
            flags |= _IFA_F_NODAD
        body = _address_body(index_of(self.dev), family, raw, length)
        if family == socket.AF_INET and length < 31:
            host = (1 << (32 - length)) - 1
            body += attribute(_IFA_BROADCAST, (int.from_bytes(raw, "big") | host).to_bytes(4, "big"))
        return _CREATE | (_REPLACE if self.replace else _EXCL), body + _u32(_IFA_FLAGS, flags)


class DelAddress(Struct, frozen=True):
    """Take an address from a link."""

    dev: str
    address: str

    kind: ClassVar[int] = RTM_DELADDR

    def __str__(self) -> str:
        return f"delete address {self.address} dev {self.dev}"

    def encode(self, index_of: IndexOf) -> tuple[int, bytes]:
        """Flags and body of the message."""
        return 0, _address_body(index_of(self.dev), *_prefix(self.address))


class NextHop(Struct, frozen=True):
    """One of several ways: packets are spread by `weight`, per flow."""

    via: str
    dev: str = ""
    weight: int = 1
    onlink: bool = False


class AddRoute(Struct, frozen=True):
    """A route to `to` (a prefix, an address, or default), through `via`, `dev`, or several `nexthops`.

    `type` is iproute2's: unicast, blackhole, unreachable, local. `onlink` takes `via` for a neighbour whatever the
    other routes say. `replace` overwrites a route to the same prefix, where otherwise KernelExists is raised.
    """

    to: str
    dev: str = ""
    via: str = ""
    src: str = ""
    type: str = "unicast"
    nexthops: tuple[NextHop, ...] = ()
    onlink: bool = False
    replace: bool = False
    table: int = MAIN_TABLE

    kind: ClassVar[int] = RTM_NEWROUTE

    def __str__(self) -> str:
        return f"add route {self.to}{f' via {self.via}' if self.via else ''}{f' dev {self.dev}' if self.dev else ''}"

    def encode(self, index_of: IndexOf) -> tuple[int, bytes]:
        """Flags and body of the message."""
        return _CREATE | (_REPLACE if self.replace else _EXCL), _route_body(self, index_of)


class DelRoute(Struct, frozen=True):
    """Remove the route to `to`, the one through `dev` or `via` where they are given."""

    to: str
    dev: str = ""
    via: str = ""
    src: str = ""
    type: str = ""
    nexthops: tuple[NextHop, ...] = ()
    onlink: bool = False
    table: int = MAIN_TABLE

    kind: ClassVar[int] = RTM_DELROUTE

    def __str__(self) -> str:
        return f"delete route {self.to}"

    def encode(self, index_of: IndexOf) -> tuple[int, bytes]:
        """Flags and body of the message."""
        return 0, _route_body(self, index_of)


class AddNeighbour(Struct, frozen=True):
    """`address` is at `mac` on `dev`, for ever: permanent entries do not count towards the ARP table's limit."""

    address: str
    mac: str
    dev: str

    kind: ClassVar[int] = RTM_NEWNEIGH

    def __str__(self) -> str:
        return f"add neighbour {self.address} dev {self.dev}"

    def encode(self, index_of: IndexOf) -> tuple[int, bytes]:
        """Flags and body of the message. An entry that is there is overwritten: the kernel may have learnt it."""
        body = _neighbour_body(self.address, index_of(self.dev), _NUD_PERMANENT)
        return _CREATE | _REPLACE, body + _mac(_NDA_LLADDR, self.mac)


class DelNeighbour(Struct, frozen=True):
    """Forget where `address` is."""

    address: str
    dev: str

    kind: ClassVar[int] = RTM_DELNEIGH

    def __str__(self) -> str:
        return f"delete neighbour {self.address} dev {self.dev}"

    def encode(self, index_of: IndexOf) -> tuple[int, bytes]:
        """Flags and body of the message."""
        return 0, _neighbour_body(self.address, index_of(self.dev), 0)


class AddBridgeEntry(Struct, frozen=True):
    """`mac` is behind `port` of its bridge, for ever: frames to it are not flooded until the bridge has learnt it."""

    mac: str
    port: str

    kind: ClassVar[int] = RTM_NEWNEIGH

    def __str__(self) -> str:
        return f"add bridge entry {self.mac} dev {self.port}"

    def encode(self, index_of: IndexOf) -> tuple[int, bytes]:
        """Flags and body of the message. An entry that is there is overwritten."""
        body = struct.pack("=BxxxiHBB", _AF_BRIDGE, index_of(self.port), _NUD_NOARP, _NTF_MASTER, 0)
        return _CREATE | _REPLACE, body + _mac(_NDA_LLADDR, self.mac)


Request = (
    AddVeth | AddBridge | AddDummy | SetLink | DelLink | AddAddress | DelAddress
    | AddRoute | DelRoute | AddNeighbour | DelNeighbour | AddBridgeEntry
)  # fmt: skip


def link_request(name: str) -> bytes:
    """The body of RTM_GETLINK for one link."""
    return _ifinfo(0) + _text(_IFLA_IFNAME, name)


def dump_request(kind: int, family: int) -> bytes:
    """The body of a request for everything of one kind; with strict checking headers must have their full length."""
    size = {RTM_GETLINK: 16, RTM_GETADDR: 8, RTM_GETROUTE: 12, RTM_GETNEIGH: 12}[kind]
    return bytes([family]) + bytes(size - 1)


def route_query(to: str, source: str, in_index: int, mark: int) -> bytes:
    """The body of RTM_GETROUTE for one packet: on which link it came in (0: it begins here), and its mark."""
    family, packed, length = _family(to), _packed(to), 8 * len(_packed(to))
    parts = attribute(_RTA_DST, packed)
    parts += attribute(_RTA_SRC, _packed(source)) if source else b""
    parts += _u32(_RTA_IIF, in_index) if in_index else b""
    parts += _u32(_RTA_MARK, mark) if mark else b""
    flags = _RTM_F_LOOKUP_TABLE if family == socket.AF_INET else 0  # for IPv6 it is refused
    head = struct.pack("=BBBBBBBBI", family, length, length if source else 0, 0, 0, 0, 0, 0, flags)
    return head + parts


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def attributes(raw: bytes, offset: int = 0) -> Mapping[int, bytes]:
    """The attributes of a message from `offset` on, by type."""
    found: dict[int, bytes] = {}
    while offset + 4 <= len(raw):
        size, kind = struct.unpack_from("=HH", raw, offset)
        if size < 4:
            break
        found[kind & 0x3FFF] = raw[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_NET_NS_FD, _IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 18, 28, 31, 32
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFLA_BR_FORWARD_DELAY, _IFLA_BR_STP_STATE, _IFLA_BR_MCAST_SNOOPING = 1, 5, 23
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_TABLE = 1, 4, 5, 7, 9, 15
_RTA_SRC, _RTA_IIF, _RTA_MARK, _RTM_F_LOOKUP_TABLE = 2, 3, 16, 0x1000
_NDA_DST, _NDA_LLADDR = 1, 2


def _ifinfo(index: int, up: bool | None = None) -> bytes:
    flags, change = (_IFF_UP if up else 0), (0 if up is None else _IFF_UP)
    return struct.pack("=BxHiII", 0, 0, index, flags, change)


def _address_body(index: int, family: int, raw: bytes, length: int) -> bytes:
    return (
        struct.pack("=BBBBI", family, length, 0, 0, index) + attribute(_IFA_LOCAL, raw) + attribute(_IFA_ADDRESS, raw)
    )


def _route_body(route: AddRoute | DelRoute, index_of: IndexOf) -> bytes:
    family, raw, length = _prefix(route.to, route.via or (route.nexthops[0].via if route.nexthops else ""))
    adding = isinstance(route, AddRoute)
    # iproute2's rule: a route without a gateway leads to the link itself; for deletion "nowhere" matches any scope.
    scope = 0 if route.via or route.nexthops or route.type in ("blackhole", "unreachable") else _SCOPE_LINK
    scope, protocol = (scope, 4) if adding else (255, 0)
    if family == socket.AF_INET6:
        scope = 0
    flags = _RTNH_F_ONLINK if route.onlink else 0
    kind = _KINDS[route.type] if route.type else 0
    body = struct.pack("=BBBBBBBBI", family, length, 0, 0, min(route.table, 255), protocol, scope, kind, flags)
    body += attribute(_RTA_DST, raw) if length else b""
    body += _u32(_RTA_OIF, index_of(route.dev)) if route.dev else b""
    body += attribute(_RTA_GATEWAY, _packed(route.via)) if route.via else b""
    body += attribute(_RTA_PREFSRC, _packed(route.src)) if route.src else b""
    body += _u32(_RTA_TABLE, route.table) if route.table > 255 else b""
    if route.nexthops:
        body += attribute(_RTA_MULTIPATH, b"".join(_hop(hop, index_of) for hop in route.nexthops))
    return body


def _hop(hop: NextHop, index_of: IndexOf) -> bytes:
    gateway = attribute(_RTA_GATEWAY, _packed(hop.via))
    flags = _RTNH_F_ONLINK if hop.onlink else 0
    index = index_of(hop.dev) if hop.dev else 0
    return struct.pack("=HBBi", 8 + len(gateway), flags, hop.weight - 1, index) + gateway


def _neighbour_body(address: str, index: int, state: int) -> bytes:
    raw = _packed(address)
    return struct.pack("=BxxxiHBB", _family(address), index, state, 0, 0) + attribute(_NDA_DST, raw)


def _prefix(text: str, like: str = "") -> tuple[int, bytes, int]:
    """Family, address and length; the family of the default route is that of its gateway, `like`."""
    if text == "default":
        family = _family(like)
        return family, b"", 0
    address, slash, length = text.partition("/")
    raw = _packed(address)
    return _family(address), raw, int(length) if slash else len(raw) * 8


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _packed(address: str) -> bytes:
    return socket.inet_pton(_family(address), address)


def _u32(kind: int, value: int) -> bytes:
    return struct.pack("=HHI", 8, kind, value)


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def _mac(kind: int, value: str) -> bytes:
    return attribute(kind, bytes.fromhex(value.replace(":", ""))) if value else b""
