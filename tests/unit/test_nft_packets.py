"""The tracer of nftables rules: what it says of small tables whose answers are plain to see."""

from __future__ import annotations

import pytest

from netemu.model import nft
from netemu.model.nft import (
    ACCEPT,
    DROP,
    RETURN,
    Add,
    Chain,
    DataType,
    Dnat,
    DnatMap,
    Element,
    Field,
    Limit,
    Lookup,
    Map,
    MarkMatch,
    Masquerade,
    Match,
    Numgen,
    Reject,
    Rule,
    Set,
    SetMark,
    Table,
    Transaction,
    Update,
    Vmap,
    goto,
    jump,
)
from netemu.testing.nft_packets import Node
from netemu.testing.nftables import FakeNft
from netemu.testing.packets import Fate, Packet

TABLE = Table("ip", "t")
SERVICE = (Field.IP_DADDR, Field.L4PROTO, Field.TH_DPORT)
TYPES = (DataType.IPV4_ADDR, DataType.INET_PROTO, DataType.INET_SERVICE)
VIP, OTHER, STICKY, FLAT, GONE = "172.30.0.1", "172.30.0.2", "172.30.0.3", "172.30.0.4", "172.30.0.5"
A, B = "10.0.1.1", "10.0.2.1"
NODE, OUTSIDE = "192.168.0.1", "203.0.113.9"

OPERATIONS: tuple[nft.Operation, ...] = (
    Add(TABLE),
    Add(Chain("pre", "nat", "prerouting", -100)),
    Add(Chain("out", "nat", "output", -100)),
    Add(Chain("post", "nat", "postrouting", 100)),
    Add(Chain("input", "filter", "input", -110)),
    Add(Chain("forward", "filter", "forward", -110)),
    Add(Chain("local-out", "filter", "output", -110)),
    *(Add(Chain(name)) for name in ("services", "web", "sticky", "ep-a", "ep-b", "mark", "check", "flat", "rejected")),
    Add(Map("vips", TYPES)),
    Add(Map("gone", TYPES)),
    Add(Map("endpoints", (*TYPES, DataType.MARK), (DataType.IPV4_ADDR, DataType.INET_SERVICE))),
    Add(Set("seen", (DataType.IPV4_ADDR,), frozenset({"dynamic", "timeout"}), 60, 65535)),
    Add(Set("blocked", (DataType.IPV4_ADDR,), frozenset({"interval"}))),
    Add(Element("blocked", ("198.51.100.0/24",))),
    Add(Element("vips", (VIP, "tcp", 80), goto("web"))),
    Add(Element("vips", (STICKY, "tcp", 80), goto("sticky"))),
    Add(Element("vips", (FLAT, "tcp", 80), goto("flat"))),
    Add(Element("gone", (GONE, "tcp", 80), goto("rejected"))),
    Add(Element("endpoints", (FLAT, "tcp", 80, 0), (A, 1))),
    Add(Element("endpoints", (FLAT, "tcp", 80, 1), (B, 2))),
    Add(Rule("pre", (jump("services"),))),
    Add(Rule("out", (jump("services"),))),
    Add(Rule("services", (Vmap(SERVICE, "vips"),))),
    Add(Rule("services", (Match(Field.FIB_DADDR_TYPE, ("local",)), Match(Field.TCP_DPORT, (30080,)), goto("web")))),
    Add(Rule("web", (Match(Field.IP_SADDR, ("10.0.0.0/8",), negated=True), jump("mark")))),
    Add(Rule("web", (Vmap((Numgen(2),), entries=(((0,), goto("ep-a")), ((1,), goto("ep-b")))),))),
    Add(Rule("sticky", (Lookup((Field.IP_SADDR,), "seen"), goto("ep-a")))),
    Add(Rule("sticky", (Vmap((Numgen(2),), entries=(((0,), goto("ep-a")), ((1,), goto("ep-b")))),))),
    Add(Rule("flat", (DnatMap("ip", (*SERVICE, Numgen(2)), "endpoints"),))),
    Add(Rule("ep-a", (Match(Field.IP_SADDR, (A,)), jump("mark")))),
    Add(Rule("ep-a", (Update("seen", (Field.IP_SADDR,)),))),
    Add(Rule("ep-a", (Match(Field.L4PROTO, ("tcp",)), Dnat(A, 8080)))),
    Add(Rule("ep-b", (Match(Field.L4PROTO, ("tcp",)), Dnat(B, 8080)))),
    Add(Rule("mark", (SetMark(0x4000, "|"),))),
    Add(Rule("post", (MarkMatch(0x4000, 0), RETURN))),
    Add(Rule("post", (SetMark(0x4000, "^"),))),
    Add(Rule("post", (Masquerade(fully_random=True),))),
    Add(Rule("input", (Lookup((Field.IP_SADDR,), "blocked"), DROP))),
    Add(Rule("forward", (Match(Field.CT_STATE, ("new",)), jump("check")))),
    Add(Rule("local-out", (Match(Field.CT_STATE, ("new",)), jump("check")))),
    Add(Rule("check", (Vmap(SERVICE, "gone"),))),
    Add(Rule("check", (Match(Field.IP_DADDR, (OTHER,)), Reject()))),
    Add(Rule("rejected", (Reject(),))),
)


async def node(*more: nft.Operation, remembered: frozenset[str] = frozenset()) -> Node:
    fake = FakeNft()
    await fake.run(Transaction(TABLE, (*OPERATIONS, *more)))
    return Node(fake.rulesets(), frozenset({NODE}), remembered)


BOTH = frozenset({f"{A}:8080", f"{B}:8080"})


@pytest.mark.parametrize(
    ("packet", "fate"),
    [
        pytest.param(Packet(B, VIP, 80), Fate("dnat", BOTH), id="a Pod reaches any endpoint with its own address"),
        pytest.param(Packet(OUTSIDE, VIP, 80), Fate("dnat", BOTH, True), id="from outside it is masqueraded"),
        pytest.param(Packet(NODE, VIP, 80, interface=""), Fate("dnat", BOTH, True), id="from the node itself"),
        pytest.param(Packet(OUTSIDE, NODE, 30080), Fate("dnat", BOTH, True), id="a port of the node"),
        pytest.param(Packet(B, VIP, 80, "udp"), Fate("accept"), id="another protocol"),
        pytest.param(Packet(B, VIP, 81), Fate("accept"), id="another port"),
        pytest.param(Packet(B, OTHER, 81), Fate("reject"), id="rejected on the way through"),
        pytest.param(Packet(NODE, OTHER, 81, interface=""), Fate("reject"), id="rejected on the way out"),
        pytest.param(Packet(B, GONE, 80), Fate("reject"), id="rejected by a map"),
        pytest.param(Packet("198.51.100.7", NODE, 22), Fate("drop"), id="dropped on the way in"),
        pytest.param(Packet("198.51.100.7", A, 22), Fate("accept"), id="not dropped on the way through"),
        pytest.param(Packet(NODE, NODE, 22, interface=""), Fate("accept"), id="from the node to itself"),
        pytest.param(Packet(B, FLAT, 80), Fate("dnat", frozenset({f"{A}:1", f"{B}:2"})), id="a map of endpoints"),
    ],
)
async def test_fate(packet: Packet, fate: Fate) -> None:
    assert (await node()).trace(packet) == fate


async def test_hairpin_is_chance_over_more_than_the_endpoint() -> None:
    with pytest.raises(AssertionError, match="more than the endpoint"):
        (await node()).trace(Packet(A, VIP, 80))


async def test_client_that_a_set_holds_stays_with_its_endpoint() -> None:
    held = await node(Add(Element("seen", (B,))))

    assert held.trace(Packet(B, STICKY, 80)).destinations == {f"{A}:8080"}


async def test_client_that_is_said_to_be_remembered_stays_with_its_endpoint() -> None:
    held = await node(remembered=frozenset({"seen"}))

    assert held.trace(Packet(B, STICKY, 80)).destinations == {f"{A}:8080"}


async def test_chain_gone_to_returns_to_the_caller_of_the_one_before() -> None:
    held = await node(
        Add(Chain("one")),
        Add(Chain("two")),
        Add(Rule("forward", (jump("one"),))),
        Add(Rule("forward", (Match(Field.IP_DADDR, (A,)), Reject()))),
        Add(Rule("one", (goto("two"),))),
        Add(Rule("one", (DROP,))),
    )

    assert held.trace(Packet(B, A, 22)) == Fate("reject")


async def test_accept_ends_one_base_chain_and_not_the_next() -> None:
    held = await node(
        Add(Chain("early", "filter", "forward", -150)),
        Add(Rule("early", (ACCEPT,))),
        Add(Rule("early", (DROP,))),
    )

    assert held.trace(Packet(B, OTHER, 81)) == Fate("reject")


async def test_policy_of_a_base_chain_counts_at_its_end() -> None:
    held = await node(
        Add(Chain("strict", "filter", "forward", 0, "drop")),
        Add(Rule("strict", (Match(Field.IIFNAME, ("veth*",)), ACCEPT))),
    )

    assert held.trace(Packet(B, A, 22)) == Fate("drop")
    assert held.trace(Packet(B, A, 22, interface="veth1")) == Fate("accept")


async def test_tracer_fails_on_an_expression_it_does_not_know() -> None:
    held = await node(Add(Rule("forward", (Limit(1), DROP))))

    with pytest.raises(AssertionError, match="limit rate"):
        held.trace(Packet(B, A, 22))
