"""nf_tables of one namespace tells which rules one packet meets.

Theory of operation: a packet whose nftrace bit is set is told to every listener of a netlink group, once per rule that
acted on it. What sets the bit are rules of a table of our own, at the beginning of a packet's way (before table raw)
and without any verdict. They look for the packet by its signature (`netemu.kernel.signature`), which no translation
changes. What answers a datagram bears no signature, so the address and port that the packet is sent from are put into
a set, as they come and again after masquerade has changed them; what goes to one of these is an answer. All of that
happens in the kernel, so no answer is too fast for it. The same bit makes tables of x_tables (iptables-legacy) tell
their rules, elsewhere: `netemu.kernel.nflog`.

The table belongs to the socket that made it (flag `owner`): when that is closed, or its process is killed, the kernel
removes the table by itself. While no such table exists nothing looks at packets.

A message names a rule by table, chain and handle. Only the first one of a base chain carries the packet, as it is then;
so a message with a packet is where a base chain begins.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from netemu.kernel import nft_expressions as expressions
from netemu.kernel.nfnetlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    Nfnetlink,
    attribute,
    attributes,
    be32,
    drain,
    listen,
    message,
    nested,
    text,
)  # fmt: skip
from netemu.kernel.nft_decode_elements import as_number, as_text
from netemu.kernel.nft_encode import FAMILIES, NEW_RULE, NEW_TABLE, SUBSYSTEM, Batch
from netemu.kernel.signature import Signature
from netemu.model import nft
from netemu.model.errors import KernelError, KernelNotFound
from netemu.model.nft import DataType, Field

TABLE: Final = "netemu-trace-"
"""What the names of our tables begin with; each trace has one of its own, so that several may go on."""
_TALKERS: Final = "talkers"
_BEFORE_RAW, _AFTER_NAT = -310, 300
_OWNER: Final = 2
_TRACE: Final = SUBSYSTEM << 8 | 17
_GROUP: Final = 9
_META_NFTRACE: Final = 12
_TRANSPORT: Final = 2
_FLAGS: Final = 13
_OPENING: Final = (0x02, 0x12, 0x04, 0x14)
"""Flags of TCP: SYN, SYN-ACK, RST, RST-ACK."""
_KINDS: Final = {1: "policy", 2: "return", 3: "rule"}
_VERDICTS: Final = {
    0: "drop", 1: "accept", 2: "stolen", 3: "queue", 4: "repeat", 5: "accept",
    -1: "continue", -2: "continue", -3: "jump", -4: "goto", -5: "return",
}  # fmt: skip
_FAMILY_NAMES: Final = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}


class Step(Struct, frozen=True):
    """What nf_tables tells of one rule or policy."""

    id: int
    """Of the packet while it is in the stack; another one may have it later."""
    kind: str
    """`rule`; `policy` (of a base chain); `return`: the end of another chain, and in older kernels (6.1) a rule with
    that verdict too. Whether a rule is meant, its handle tells."""
    family: str
    table: str
    chain: str
    handle: int
    verdict: str
    to: str
    mark: int
    in_index: int
    out_index: int
    packet: bytes
    """From the IP header on, where a base chain begins; else b""."""


class NftTrace:
    """The trace of what bears the signature, in the namespace `netns`, until it is closed. Calls block shortly.

    Raises KernelNotFound for a namespace that is not there, KernelDenied without CAP_NET_ADMIN, KernelError where the
    kernel has no nf_tables.
    """

    def __init__(self, netns: str, signature: Signature) -> None:
        name = TABLE + secrets.token_hex(4)
        self._owner = Nfnetlink(netns)
        try:
            self._socket = listen(netns, [_GROUP])
            for refusal in self._owner.batch(SUBSYSTEM, marking(signature, name)):
                raise KernelError.of(f"add table {name}", netns, refusal.code, refusal.detail)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when something is told."""
        return self._socket.fileno()

    def read(self) -> tuple[list[Step], int]:
        """What has been told since the last call, our own table's chains included; how often messages were lost."""
        told, lost = drain(self._socket)
        return [step(payload) for _, kind, _, payload in told if kind == _TRACE], lost

    def close(self) -> None:
        """Listen no more, and let the kernel remove the table."""
        self._owner.close()
        if hasattr(self, "_socket"):
            self._socket.close()


def marking(signature: Signature, name: str) -> list[bytes]:
    """The messages that make the table. Pure."""
    table = nft.Table("ip6" if signature.ipv6 else "ip", name)
    family = table.family
    batch = Batch(table, _no_other_set)
    chains = [
        nft.Chain("prerouting", "filter", "prerouting", _BEFORE_RAW),
        nft.Chain("output", "filter", "output", _BEFORE_RAW),
        nft.Chain("postrouting", "filter", "postrouting", _AFTER_NAT),
    ]
    kinds = (nft.addr_type(family), DataType.INET_SERVICE)
    talkers = nft.Set(_TALKERS, kinds, frozenset(("dynamic", "timeout")), timeout=60, size=1024)
    batch.add_all([*(nft.Add(chain) for chain in chains), nft.Add(talkers)])
    head = message(
        SUBSYSTEM << 8 | NEW_TABLE, NLM_F_REQUEST | NLM_F_CREATE, 0, FAMILIES[family], text(1, name) + be32(2, _OWNER)
    )
    rules = [_rule(table, chain, body) for chain in ("prerouting", "output") for body in _marks(family, signature)]
    if signature.protocol != "icmp" and not signature.every:
        rules.append(_rule(table, "postrouting", _sent(signature) + _remember(family)))
    return [head, *batch.messages, *rules]


def step(payload: bytes) -> Step:
    """One message of the group."""
    at = attributes(payload, 4)
    verdict = attributes(at.get(5, b""))
    code = int.from_bytes(verdict.get(1, at.get(16, b"")), "big", signed=True)
    return Step(
        id=as_number(at.get(6, b"")),
        kind=_KINDS.get(as_number(at[4]), ""),
        family=_FAMILY_NAMES.get(payload[0], str(payload[0])),
        table=as_text(at.get(1, b"")),
        chain=as_text(at.get(2, b"")),
        handle=as_number(at.get(3, b"")),
        verdict=_VERDICTS.get(code if code < 0 else code & 0xFF, str(code)),
        to=as_text(verdict[2]) if 2 in verdict else "",
        mark=as_number(at.get(14, b"")),
        in_index=as_number(at.get(10, b"")),
        out_index=as_number(at.get(12, b"")),
        packet=at.get(8, b"") + at.get(9, b""),
    )


def _marks(family: nft.Family, signature: Signature) -> Iterator[bytes]:
    """The rules that set the bit: answers first, so that an answer that repeats the packet is not taken for it."""
    traced = _constant_one() + expressions.instruction("meta", be32(2, _META_NFTRACE), be32(3, 1))
    if signature.every:
        yield from (match + traced for match in _beginnings(signature))
        return
    if signature.protocol != "icmp":
        to_talker = nft.Lookup((nft.daddr(family), Field.TH_DPORT), _TALKERS)
        done = expressions.encode(family, nft.RETURN, _no_list)
        yield _protocol(signature.number) + expressions.encode(family, to_talker, _no_list) + traced + done
        yield _sent(signature) + traced + _remember(family)
    else:
        yield _sent(signature) + traced
    yield _protocol(signature.icmp) + _bytes_are(signature.quoted_offset, signature.value) + traced


def _beginnings(signature: Signature) -> Iterator[bytes]:
    """What begins or answers any connection. Answers are not known by a talker here: that would be all its packets."""
    if signature.protocol == "tcp":
        yield from (_protocol(signature.number) + _bytes_are(_FLAGS, bytes((flags,))) for flags in _OPENING)
    elif signature.protocol == "udp":
        yield _protocol(signature.number)
    yield _protocol(signature.icmp)


def _sent(signature: Signature) -> bytes:
    return _protocol(signature.number) + _bytes_are(signature.offset, signature.value)


def _remember(family: nft.Family) -> bytes:
    return expressions.encode(family, nft.Update(_TALKERS, (nft.saddr(family), Field.TH_SPORT)), _no_list)


def _protocol(number: int) -> bytes:
    load = expressions.instruction("meta", be32(2, expressions.META_KEYS[Field.L4PROTO]), be32(1, 1))
    return load + expressions.comparison(expressions.EQ, bytes((number,)))


def _bytes_are(offset: int, value: bytes) -> bytes:
    where = (be32(1, 1), be32(2, _TRANSPORT), be32(3, offset), be32(4, len(value)))
    return expressions.instruction("payload", *where) + expressions.comparison(expressions.EQ, value)


def _constant_one() -> bytes:
    return expressions.instruction("immediate", be32(1, 1), nested(2, attribute(1, b"\1")))


def _rule(table: nft.Table, chain: str, instructions: bytes) -> bytes:
    body = text(1, table.name) + text(2, chain) + nested(4, instructions)
    flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND
    return message(SUBSYSTEM << 8 | NEW_RULE, flags, 0, FAMILIES[table.family], body)


def _no_other_set(name: str) -> nft.Set:
    raise KernelNotFound(f"find set {name}", detail="the table has no other set")


def _no_list(held: nft.Set | nft.Map, number: int, entries: expressions.Entries) -> bytes:
    raise ValueError("no lists in these rules")
