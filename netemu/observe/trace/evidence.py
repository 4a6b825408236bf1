"""What the kernel itself says of one packet: plain values, in the order of one clock.

One packet is sent, and everything the kernel tells of it, and of what answers it, becomes an event: each link that it
crosses, each rule that acted on it, each element of a map or set by which a rule decided, the real server IPVS chose,
each translation that conntrack holds, each route that was taken, and the place where it ended if it ended early.
Nothing here is inferred from Services or from what a proxy should have programmed; that is the oracle's part, and the
comparison of both is `netemu trace`'s.

An event's `leg` is "there" for the packet that was sent, however it was translated on its way, and "back" for what
answers it, an ICMP error included. `seconds` is the kernel's clock (since the epoch) for crossings. nf_tables and
conntrack stamp nothing, so whatever happened at a place between two crossings is put between these two, in the order
in which the kernel told it, 100 ns apart: the order is true, the small differences are not measurements.

`netemu.observe.trace.gather` makes it.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from netemu.model.hosts import endpoint_text

Protocol: TypeAlias = Literal["tcp", "udp", "icmp"]
Leg: TypeAlias = Literal["there", "back"]
Hook: TypeAlias = Literal["", "prerouting", "input", "forward", "output", "postrouting"]
Backend: TypeAlias = Literal["nft", "iptables-nft", "iptables-legacy"]


NOWHERE: Final = ("blackhole", "unreachable", "prohibit")
"""Types of routes that lead nowhere."""


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """What to send: a TCP SYN, a UDP datagram or an ICMP echo request. `port` is nothing to ICMP."""

    destination: str
    port: int = 0
    protocol: Protocol = "tcp"
    source: str = ""
    """The address it is sent from; "" for the one that routing chooses."""
    source_port: int = 0
    """0: a free one, outside the range from which the kernel gives ports."""
    size: int = 0
    """Length of the whole IP packet, to be filled up to; 0: as small as it can be."""
    payload: bytes = b""
    """What a UDP datagram carries, a DNS query for example; b"": some bytes nobody else sends."""

    @property
    def ipv6(self) -> bool:
        """Whether it is of IPv6."""
        return ":" in self.destination


class Watched(msgspec.Struct, frozen=True):
    """A place on the packet's way: a network namespace, all of whose links and rules are watched."""

    name: str
    """What evidence calls it: `node/worker-1`, `shop/client`, `client/laptop`, `underlay`."""
    netns: str


class Headers(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a packet says of itself. For ICMP `source_port` is the echo's identifier."""

    protocol: str
    """`tcp`, `udp`, `icmp`, `icmpv6`, or the number of another."""
    source: str
    destination: str
    source_port: int = 0
    port: int = 0
    what: str = ""
    """`SYN`, `SYN-ACK`, `RST`, `datagram`, `echo request`, `port unreachable`, `fragmentation needed, mtu 1400`."""
    length: int = 0
    """Of the IP packet."""
    ttl: int = 0
    about: Headers | None = None
    """The packet that an ICMP error quotes."""

    @property
    def flow(self) -> Flow:
        """Its addresses and ports."""
        return Flow(self.source, self.source_port, self.destination, self.port)


class Flow(msgspec.Struct, frozen=True):
    """Addresses and ports of a packet."""

    source: str
    source_port: int
    destination: str
    port: int

    @property
    def reversed(self) -> Flow:
        """What an answer to it bears."""
        return Flow(self.destination, self.port, self.source, self.source_port)

    def __str__(self) -> str:
        return f"{pair(self.source, self.source_port)} -> {pair(self.destination, self.port)}"


class Counter(msgspec.Struct, frozen=True):
    """What a rule has counted."""

    packets: int
    bytes: int


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", omit_defaults=True):
    seconds: float
    place: str
    leg: Leg


class Crossing(_Event, frozen=True, kw_only=True, tag="crossing"):
    """A frame on one end of a link, as it was captured there."""

    link: str
    direction: Literal["in", "out"]
    headers: Headers
    frame: bytes
    """With its Ethernet header."""


class RuleHit(_Event, frozen=True, kw_only=True, tag="rule"):
    """A rule that acted on the packet, or a base chain's policy (`policy`): rules that did not match do not appear."""

    backend: Backend
    family: str
    """`ip`, `ip6`, `inet`."""
    table: str
    chain: str
    verdict: str
    """What it decided, in nftables' words: `accept`, `drop`, `jump`, `goto`, `return`, `continue` (it did something and
    the next rule follows), and for iptables `reject`, `dnat`, `masquerade`, `mark` or another target."""
    to: str = ""
    """The chain of a jump or goto."""
    hook: Hook = ""
    """Where in the kernel's way the packet was."""
    handle: int = 0
    """nf_tables' number of the rule, which `nft -a list` shows."""
    number: int = 0
    """The rule's position in its chain from 1, as `iptables -L --line-numbers` counts; 0 for a policy."""
    policy: bool = False
    """It was the base chain's policy, not a rule."""
    text: str = ""
    """The rule as `nft` or `iptables-save` prints it, without its chain; "" where it had gone before it was read."""
    comment: str = ""
    in_link: str = ""
    out_link: str = ""
    mark: int = 0
    """The packet's mark when the rule had acted (nf_tables) or when it saw the packet (iptables-legacy)."""
    headers: Headers | None = None
    """The packet as this chain saw it, translations before it included."""
    before: Counter | None = None
    after: Counter | None = None
    """What the rule had counted before the packet and after it; None: no counter, or (before) not of iptables."""


class MapHit(_Event, frozen=True, kw_only=True, tag="map"):
    """An element by which the rule before it decided: of a map or set of nf_tables, or of an ipset."""

    kind: Literal["map", "set", "ipset"]
    family: str
    table: str
    """"" for an ipset."""
    name: str
    key: str
    """`10.96.0.10 . udp . 53` (nftables), `10.96.0.10,udp:53` (ipset)."""
    data: str = ""
    """Of a map: `goto service-...`."""
    comment: str = ""


class Balanced(_Event, frozen=True, kw_only=True, tag="balanced"):
    """IPVS gave the connection to a real server."""

    server: str
    """The virtual server: `TCP 10.96.0.1:443`."""
    scheduler: str
    destination: str
    """`10.244.1.2:8080`."""
    weight: int
    state: str
    """Of the connection: `SYN_RECV`, `UDP`."""
    client: str
    """`10.244.1.5:61001`, as IPVS saw it."""


class Translation(_Event, frozen=True, kw_only=True, tag="translation"):
    """What conntrack made of the packet's addresses at a place; also "nothing" (`before == after`), which says that the
    connection is tracked there as it is."""

    before: Flow
    after: Flow
    protocol: str
    kinds: tuple[Literal["dnat", "snat"], ...]
    new: bool
    """The packet began the entry; False: the entry was there before it, so tables `nat` were not asked."""


class Routed(_Event, frozen=True, kw_only=True, tag="route"):
    """What routing says there for the packet as it was then, asked from the kernel as it would be for the packet."""

    destination: str
    source: str = ""
    in_link: str = ""
    """"" for what begins here."""
    mark: int = 0
    type: str = ""
    """`unicast` (goes on), `local` (for this place), `blackhole`, `unreachable`, `prohibit`; "" with `error`."""
    out_link: str = ""
    via: str = ""
    """The next hop's address; "" where the destination is on the link itself."""
    preferred: str = ""
    """The source address that goes with the route."""
    mtu: int = 0
    """Of the outgoing link."""
    silent: bool = False
    """The neighbour that it goes on to was asked for and has not answered: its entry is INCOMPLETE or FAILED."""
    error: str = ""
    """The kernel's refusal: `Network is unreachable`."""

    @property
    def leads_nowhere(self) -> bool:
        """Whether there is no way on."""
        return bool(self.error) or self.type in NOWHERE


class Dropped(_Event, frozen=True, kw_only=True, tag="dropped"):
    """The packet ended here, by a rule, a policy, a route, or for a reason that no evidence tells (`by` "unknown")."""

    by: Literal["rule", "policy", "route", "link", "unknown"]
    rejected: bool = False
    """It was refused by an answer (ICMP unreachable, RST), which is on its way back."""
    link: str = ""
    """Where it was seen last, or the link it should have left through."""
    detail: str = ""


Event: TypeAlias = Crossing | RuleHit | MapHit | Balanced | Translation | Routed | Dropped


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that was seen of one packet, in order."""

    packet: Packet
    """As it was sent: source and source port filled in."""
    source: Watched
    sent: float
    """When, in seconds since the epoch."""
    events: tuple[Event, ...]
    answer: Headers | None
    """What came back to where it was sent from (SYN-ACK, RST, a datagram, an ICMP error), with the addresses that a
    program there sees; None: nothing in time."""
    reached: str = ""
    """The place whose kernel took the packet in as its own; "" where it ended on the way."""
    seconds: float = 0.0
    """From sending to the answer's arrival; 0 without one."""
    lost: int = 0
    """Messages of the kernel that were too many to be read: more than 0 means that events may be missing."""

    def at(self, place: str, leg: Leg | None = None) -> tuple[Event, ...]:
        """The events of one place, of one leg if given."""
        return tuple(event for event in self.events if event.place == place and leg in (None, event.leg))


def pair(address: str, port: int) -> str:
    """`10.0.0.1:80`, `[fd00::1]:80`; without a port only the address."""
    return endpoint_text(address, port) if port else address
