"""What a rule of nftables is made of: fields of packets, keys, matches, statements.

Part of `netemu.model.nft`, where the whole vocabulary is explained; import it from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Literal, TypeAlias

import msgspec

from netemu.model.hosts import endpoint_text

Family: TypeAlias = Literal["ip", "ip6"]
Value: TypeAlias = str | int
Values: TypeAlias = tuple[Value, ...]


class DataType(StrEnum):
    """Types of the parts of keys and data."""

    IPV4_ADDR = "ipv4_addr"
    IPV6_ADDR = "ipv6_addr"
    INET_PROTO = "inet_proto"
    INET_SERVICE = "inet_service"
    MARK = "mark"
    """Also what a set keyed by `numgen` declares: the tool has no word for a plain 32 bit number."""
    IFNAME = "ifname"
    VERDICT = "verdict"


class Field(StrEnum):
    """What a packet can be asked for."""

    IP_SADDR = "ip saddr"
    IP_DADDR = "ip daddr"
    IP6_SADDR = "ip6 saddr"
    IP6_DADDR = "ip6 daddr"
    L4PROTO = "meta l4proto"
    TH_SPORT = "th sport"
    TH_DPORT = "th dport"
    TCP_DPORT = "tcp dport"
    UDP_DPORT = "udp dport"
    SCTP_DPORT = "sctp dport"
    MARK = "meta mark"
    IIFNAME = "iifname"
    OIFNAME = "oifname"
    CT_STATE = "ct state"
    CT_STATUS = "ct status"
    FIB_SADDR_TYPE = "fib saddr type"
    FIB_DADDR_TYPE = "fib daddr type"

    def text(self) -> str:
        """As the tool writes it."""
        return self.value


class Numgen(msgspec.Struct, frozen=True, gc=False):
    """`numgen random mod N`: a number from 0 to N-1."""

    mod: int

    def text(self) -> str:
        """As the tool writes it."""
        return f"numgen random mod {self.mod}"


KeyPart: TypeAlias = Field | Numgen
Key: TypeAlias = tuple[KeyPart, ...]


def saddr(family: Family) -> Field:
    """The source address of a family."""
    return Field.IP_SADDR if family == "ip" else Field.IP6_SADDR


def daddr(family: Family) -> Field:
    """The destination address of a family."""
    return Field.IP_DADDR if family == "ip" else Field.IP6_DADDR


def dport(protocol: str) -> Field:
    """The destination port of `tcp`, `udp` or `sctp`, which also matches the protocol."""
    return Field(f"{protocol.lower()} dport")


def addr_type(family: Family) -> DataType:
    """The type of an address of a family."""
    return DataType.IPV4_ADDR if family == "ip" else DataType.IPV6_ADDR


# --- expressions ----------------------------------------------------------------------------------------------------


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """`accept`, `drop`, `return`, `jump CHAIN`, `goto CHAIN`: a statement, or the data of a verdict map."""

    kind: Literal["accept", "drop", "return", "jump", "goto"]
    chain: str = ""

    def text(self) -> str:
        """As the tool writes it."""
        return f"{self.kind} {self.chain}" if self.chain else self.kind


ACCEPT: Final = Verdict("accept")
DROP: Final = Verdict("drop")
RETURN: Final = Verdict("return")


def jump(chain: str) -> Verdict:
    """Go on in a chain, then come back."""
    return Verdict("jump", chain)


def goto(chain: str) -> Verdict:
    """Go on in a chain and do not come back."""
    return Verdict("goto", chain)


class Match(msgspec.Struct, frozen=True, gc=False):
    """A field equals one of `values` (several: an anonymous set; for `ct state`: any of these bits)."""

    field: Field
    values: Values
    negated: bool = False

    def text(self) -> str:
        """As the tool writes it."""
        shown = [value_text(self.field, value) for value in self.values]
        several = ",".join(shown) if self.field in (Field.CT_STATE, Field.CT_STATUS) else f"{{ {', '.join(shown)} }}"
        return f"{self.field.value} {'!= ' if self.negated else ''}{shown[0] if len(shown) == 1 else several}"


class MarkMatch(msgspec.Struct, frozen=True, gc=False):
    """`meta mark & MASK == VALUE`."""

    mask: int
    value: int
    negated: bool = False

    def text(self) -> str:
        """As the tool writes it."""
        return f"meta mark & 0x{self.mask:08x} {'!=' if self.negated else '=='} 0x{self.value:08x}"


class Lookup(msgspec.Struct, frozen=True, gc=False):
    """The key is (not) in a named set."""

    key: Key
    set: str
    negated: bool = False

    def text(self) -> str:
        """As the tool writes it."""
        return f"{key_text(self.key)} {'!= ' if self.negated else ''}@{self.set}"


class Vmap(msgspec.Struct, frozen=True, gc=False):
    """The verdict that a named map, or one written here, has for the key."""

    key: Key
    map: str = ""
    entries: tuple[tuple[Values, Verdict], ...] = ()

    def text(self) -> str:
        """As the tool writes it."""
        if self.map:
            return f"{key_text(self.key)} vmap @{self.map}"
        shown = ", ".join(f"{_values_of_key(self.key, key)} : {verdict.text()}" for key, verdict in self.entries)
        return f"{key_text(self.key)} vmap {{ {shown} }}"


class Dnat(msgspec.Struct, frozen=True, gc=False):
    """Translate the destination. A port needs a match on the protocol before it in the rule."""

    address: str
    port: int = 0

    def text(self) -> str:
        """As the tool writes it."""
        if not self.port:
            return f"dnat to {self.address}"
        return f"dnat to {endpoint_text(self.address, self.port)}"


class DnatMap(msgspec.Struct, frozen=True, gc=False):
    """Translate to the `address . port` that a named map, or one written here, has for the key."""

    family: Family
    key: Key
    map: str = ""
    entries: tuple[tuple[Values, tuple[str, int]], ...] = ()

    def text(self) -> str:
        """As the tool writes it."""
        shown = ", ".join(f"{_values_of_key(self.key, key)} : {ip} . {port}" for key, (ip, port) in self.entries)
        return f"dnat {self.family} to {key_text(self.key)} map {f'@{self.map}' if self.map else f'{{ {shown} }}'}"


class Masquerade(msgspec.Struct, frozen=True, gc=False):
    """Translate the source to the address of the outgoing interface."""

    random: bool = False
    fully_random: bool = False

    def text(self) -> str:
        """As the tool writes it."""
        flags = ["random"] * self.random + ["fully-random"] * self.fully_random
        return " ".join(["masquerade", ",".join(flags)] if flags else ["masquerade"])


class SetMark(msgspec.Struct, frozen=True, gc=False):
    """`meta mark set`: a value, or the mark with bits set (`|`), flipped (`^`) or kept (`&`)."""

    value: int
    operator: Literal["", "|", "^", "&"] = ""

    def text(self) -> str:
        """As the tool writes it."""
        return f"meta mark set {f'meta mark {self.operator} ' if self.operator else ''}0x{self.value:08x}"


class Reject(msgspec.Struct, frozen=True, gc=False):
    """Refuse with an ICMP port unreachable, or tcp with a reset (and only tcp: the match is part of it)."""

    tcp_reset: bool = False

    def text(self) -> str:
        """As the tool writes it."""
        return "reject with tcp reset" if self.tcp_reset else "reject"


class Update(msgspec.Struct, frozen=True, gc=False):
    """`update @SET { KEY }`: put the key into a dynamic set, or begin its timeout anew."""

    set: str
    key: Key

    def text(self) -> str:
        """As the tool writes it."""
        return f"update @{self.set} {{ {key_text(self.key)} }}"


class Limit(msgspec.Struct, frozen=True, gc=False):
    """At most so many packets in a unit of time (more than that, when `over`)."""

    rate: int
    unit: Literal["second", "minute", "hour", "day"] = "second"
    burst: int = 5
    over: bool = False

    def text(self) -> str:
        """As the tool writes it."""
        burst = f" burst {self.burst} packets" if self.burst != 5 else ""  # 5 is what the tool does not mention
        return f"limit rate {'over ' if self.over else ''}{self.rate}/{self.unit}{burst}"


class Counter(msgspec.Struct, frozen=True, gc=False):
    """Count what comes by."""

    packets: int = 0
    bytes: int = 0

    def text(self) -> str:
        """As the tool writes it."""
        return f"counter packets {self.packets} bytes {self.bytes}"


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """An expression somebody else put into a rule; only ever read back from a kernel, never sent."""

    name: str

    def text(self) -> str:
        """A comment, so that no tool takes it for a rule."""
        return f"# {self.name}"


Expression: TypeAlias = (
    Match | MarkMatch | Lookup | Vmap | Verdict | Dnat | DnatMap | Masquerade | SetMark | Reject | Update | Limit
    | Counter | Unknown
)  # fmt: skip


# --- text ---


def key_text(key: Sequence[KeyPart]) -> str:
    """`ip daddr . meta l4proto . th dport`."""
    return " . ".join(part.text() for part in key)


def values_text(values: Values) -> str:
    """`172.30.0.10 . tcp . 80`."""
    return " . ".join(str(value) for value in values)


def _values_of_key(key: Key, values: Values) -> str:
    return " . ".join(
        value_text(part, value) if isinstance(part, Field) else str(value)
        for part, value in zip(key, values, strict=True)
    )


def value_text(field: Field, value: Value) -> str:
    """One value as the tool writes it beside its field."""
    if field in (Field.IIFNAME, Field.OIFNAME):
        return f'"{value}"'
    if field is Field.MARK:
        return f"0x{int(value):08x}"
    return str(value)
