"""What any `Nft` must do: the same cases for the fake and for the kernel."""

from __future__ import annotations

import errno
from itertools import pairwise

import pytest

from netemu.kernel.nftables import Nft
from netemu.model import nft
from netemu.model.errors import KernelError
from netemu.model.nft import (
    ACCEPT,
    DROP,
    RETURN,
    Add,
    Chain,
    Create,
    DataType,
    Delete,
    Destroy,
    Dnat,
    DnatMap,
    Element,
    Field,
    Flush,
    Insert,
    Limit,
    Lookup,
    Map,
    MarkMatch,
    Masquerade,
    Match,
    Numgen,
    Reject,
    Replace,
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

ADDR, PROTO, PORT, MARK = DataType.IPV4_ADDR, DataType.INET_PROTO, DataType.INET_SERVICE, DataType.MARK
ADDR6 = DataType.IPV6_ADDR
TABLE = Table("ip", "t-contract", "a table")
TABLE6 = Table("ip6", "t-contract", "a table")
SERVICE = (Field.IP_DADDR, Field.L4PROTO, Field.TH_DPORT)
SERVICE6 = (Field.IP6_DADDR, Field.L4PROTO, Field.TH_DPORT)
LONG = "c" * 256


def deep(length: int) -> list[nft.Operation]:
    """Chains that jump to each other in a row, the first of them entered from a hook."""
    names = [f"deep-{number}" for number in range(length)]
    made: list[nft.Operation] = [Add(Chain(name)) for name in names]
    made += [Add(Rule(name, (jump(to),))) for name, to in pairwise(names)]
    return [*made, Add(Rule("input", (jump(names[0]),)))]


START: list[nft.Operation] = [
    Add(TABLE),
    Add(Chain("input", "filter", "input", -110)),
    Add(Chain("post", "nat", "postrouting", 100)),
    Add(Chain("pre", "nat", "prerouting", -100)),
    Add(Chain("a", comment="one chain")),
    Add(Chain("b")),
    Add(Chain("c")),
    Add(Set("ips", (ADDR,), comment="some addresses")),
    Add(Set("used", (ADDR,))),
    Add(Set("ranges", (ADDR,), frozenset({"interval"}))),
    Add(Set("seen", (ADDR,), frozenset({"dynamic", "timeout"}), 10800, 65535)),
    Add(Map("services", (ADDR, PROTO, PORT), comment="services")),
    Add(Map("endpoints", (ADDR, PROTO, PORT, MARK), (ADDR, PORT))),
    Add(Element("ips", ("10.0.0.1",))),
    Add(Element("ranges", ("10.0.0.0/8",))),
    Add(Element("services", ("10.0.0.1", "tcp", 80), goto("b"), "default/web:http")),
    Add(Rule("a", (Match(Field.CT_STATE, ("new",)), jump("c")), "to c")),
    Add(Rule("input", (Vmap(SERVICE, "services"),))),
    Add(Rule("input", (Lookup((Field.IP_SADDR,), "used"), ACCEPT))),
    Add(Rule("b", (DROP,))),
]

REFUSED = [
    pytest.param([Create(TABLE)], errno.EEXIST, id="create a table twice"),
    pytest.param([Create(Chain("a"))], errno.EEXIST, id="create a chain twice"),
    pytest.param([Create(Set("ips", (ADDR,)))], errno.EEXIST, id="create a set twice"),
    pytest.param([Create(Element("ips", ("10.0.0.1",)))], errno.EEXIST, id="create an element twice"),
    pytest.param([Add(Set("ips", (PORT,)))], errno.EEXIST, id="add a set again with another type"),
    pytest.param([Add(Chain("input", "filter", "forward", -110))], errno.EOPNOTSUPP, id="move a chain to another hook"),
    pytest.param([Add(Chain("a", "filter", "input", 0))], errno.EOPNOTSUPP, id="make a regular chain a base chain"),
    pytest.param([Add(Rule("none", (ACCEPT,)))], errno.ENOENT, id="rule in a missing chain"),
    pytest.param([Add(Rule("a", (jump("none"),)))], errno.ENOENT, id="jump to a missing chain"),
    pytest.param([Add(Rule("a", (goto("none"),)))], errno.ENOENT, id="goto a missing chain"),
    pytest.param([Add(Rule("a", (jump("input"),)))], errno.EOPNOTSUPP, id="jump to a base chain"),
    pytest.param([Add(Rule("a", (Lookup(SERVICE, "none"),)))], errno.ENOENT, id="lookup in a missing set"),
    pytest.param([Add(Rule("a", (Vmap(SERVICE, "none"),)))], errno.ENOENT, id="vmap of a missing map"),
    pytest.param([Add(Rule("a", (Vmap((Field.IP_SADDR,), "ips"),)))], errno.EINVAL, id="vmap of a set"),
    pytest.param([Add(Rule("a", (Update("none", (Field.IP_SADDR,)),)))], errno.ENOENT, id="update a missing set"),
    pytest.param(
        [Add(Rule("a", (Vmap((Numgen(1),), entries=(((0,), goto("none")),)),)))],
        errno.ENOENT,
        id="goto a missing chain from a list",
    ),
    pytest.param([Delete(Chain("b"))], errno.EBUSY, id="delete a chain that an element goes to"),
    pytest.param([Delete(Chain("c"))], errno.EBUSY, id="delete a chain that a rule jumps to"),
    pytest.param([Delete(Chain("none"))], errno.ENOENT, id="delete a missing chain"),
    pytest.param([Delete(Set("used", (ADDR,)))], errno.EBUSY, id="delete a set that a rule asks"),
    pytest.param([Delete(Map("services", (ADDR, PROTO, PORT)))], errno.EBUSY, id="delete a map in use"),
    pytest.param([Delete(Set("none", (ADDR,)))], errno.ENOENT, id="delete a missing set"),
    pytest.param([Delete(Element("ips", ("10.0.0.9",)))], errno.ENOENT, id="delete a missing element"),
    pytest.param([Delete(Rule("a", (), handle=99999))], errno.ENOENT, id="delete a missing rule"),
    pytest.param([Replace(Rule("a", (ACCEPT,), handle=99999))], errno.ENOENT, id="replace a missing rule"),
    pytest.param([Delete(TABLE), Delete(TABLE)], errno.ENOENT, id="delete a table twice"),
    pytest.param([Delete(TABLE), Add(Chain("a"))], errno.ENOENT, id="a chain in a table that has gone"),
    pytest.param([Flush(Chain("none"))], errno.ENOENT, id="flush a missing chain"),
    pytest.param([Flush(Set("none", (ADDR,)))], errno.ENOENT, id="flush a missing set"),
    pytest.param([Add(Element("none", ("10.0.0.1",)))], errno.ENOENT, id="element of a missing set"),
    pytest.param([Add(Element("ips", ("10.0.0.300",)))], errno.EINVAL, id="bad address"),
    pytest.param([Add(Element("ips", ("fd00::1",)))], errno.EINVAL, id="address of the other family"),
    pytest.param([Add(Element("services", ("10.0.0.2", "tcp", 99999), DROP))], errno.EINVAL, id="bad port"),
    pytest.param([Add(Element("services", ("10.0.0.2", "tcp"), DROP))], errno.EINVAL, id="key with a part missing"),
    pytest.param([Add(Element("services", ("10.0.0.2", "tcp", 80)))], errno.EINVAL, id="no data in a map"),
    pytest.param([Add(Element("ips", ("10.0.0.2",), DROP))], errno.EINVAL, id="data in a set"),
    pytest.param(
        [Add(Element("services", ("10.0.0.2", "tcp", 80), goto("none")))], errno.ENOENT, id="element to a missing chain"
    ),
    pytest.param(
        [Add(Element("services", ("10.0.0.1", "tcp", 80), DROP))], errno.EEXIST, id="other data for a key that is there"
    ),
    pytest.param([Add(Element("ranges", ("10.1.0.0/16",)))], errno.EEXIST, id="range within a range"),
    pytest.param([Add(Rule("c", (jump("a"),))), Add(Rule("input", (jump("a"),)))], errno.EMLINK, id="loop"),
    pytest.param([Add(Rule("b", (jump("b"),)))], errno.EMLINK, id="chain that jumps to itself"),
    pytest.param(deep(16), errno.EMLINK, id="sixteen jumps in a row"),
    pytest.param([Add(Rule("b", (Masquerade(),)))], errno.EOPNOTSUPP, id="masquerade reached from input"),
    pytest.param([Add(Rule("post", (Dnat("10.0.0.1"),)))], errno.EOPNOTSUPP, id="dnat in postrouting"),
    pytest.param([Add(Rule("post", (Reject(),)))], errno.EOPNOTSUPP, id="reject in postrouting"),
    pytest.param([Add(Chain(LONG))], errno.ERANGE, id="name of 256 characters"),
    pytest.param([Add(Rule("a", (ACCEPT,), "x" * 300))], errno.EINVAL, id="comment of 300 characters"),
]


async def begin(tool: Nft) -> None:
    """The table the cases start from."""
    await tool.run(Transaction(TABLE, tuple(START)))


async def held(tool: Nft, table: Table = TABLE) -> nft.Ruleset:
    """What the table holds."""
    found = await tool.dump(table)
    assert found is not None
    return found


def texts(ruleset: nft.Ruleset, chain: str) -> list[str]:
    """The rules of a chain as the tool writes them."""
    return [rule.text() for rule in ruleset.rules_of(chain)]


def keys(ruleset: nft.Ruleset, name: str) -> set[nft.Values]:
    """The keys in a set."""
    return {element.key for element in ruleset.elements_of(name)}


async def check_refusal(tool: Nft, operations: list[nft.Operation], code: int) -> None:
    """The last operation is refused with that errno, after one that was fine, and nothing changes."""
    await begin(tool)
    before = await held(tool)
    fine = Add(Element("ips", ("10.9.9.9",)))

    with pytest.raises(KernelError) as refused:
        await tool.run(Transaction(TABLE, (fine, *operations)))

    assert refused.value.code == code
    assert nft.operation_text(TABLE, operations[-1]) in str(refused.value) or "find set" in str(refused.value)
    assert comparable(await held(tool)) == comparable(before)


def comparable(ruleset: nft.Ruleset) -> tuple[object, ...]:
    """A dump without the order of elements, which only the kernel knows."""
    return ruleset.table, ruleset.chains, ruleset.rules, ruleset.sets, set(ruleset.elements)


async def check_everything_comes_back(tool: Nft) -> None:
    """A dump tells what was put in."""
    await begin(tool)
    found = await held(tool)

    put = [operation.object for operation in START]
    assert found.table == TABLE
    assert set(found.chains) == {one for one in put if isinstance(one, Chain)}
    assert set(found.sets) == {one for one in put if isinstance(one, Set | Map)}
    assert set(found.elements) == {one for one in put if isinstance(one, Element)}
    told = {(rule.chain, rule.expressions, rule.comment) for rule in found.rules}
    assert told == {(rule.chain, rule.expressions, rule.comment) for rule in put if isinstance(rule, Rule)}


EXPRESSIONS: list[tuple[nft.Expression, ...]] = [
    (Match(Field.IP_SADDR, ("10.0.0.1",)), DROP),
    (Match(Field.IP_SADDR, ("10.0.0.0/8",), negated=True), DROP),
    (Match(Field.IP_SADDR, ("10.0.0.0/13",)), DROP),
    (Match(Field.IP_SADDR, ("1.2.3.4", "192.168.0.0/24"), negated=True), DROP),
    (Match(Field.IP_SADDR, ("1.2.3.4", "1.2.3.9")), DROP),
    (Match(Field.IP_DADDR, ("10.0.0.1",)), Match(Field.TCP_DPORT, (80,)), jump("c")),
    (Match(Field.UDP_DPORT, (53,)), RETURN),
    (Match(Field.SCTP_DPORT, (9, 10)), RETURN),
    (Match(Field.L4PROTO, ("tcp", "udp")), RETURN),
    (Match(Field.IIFNAME, ("veth*",), negated=True), RETURN),
    (Match(Field.IIFNAME, ("eth0",)), RETURN),
    (Match(Field.CT_STATE, ("established", "related")), ACCEPT),
    (Match(Field.CT_STATUS, ("dnat",)), ACCEPT),
    (Match(Field.FIB_DADDR_TYPE, ("local",)), Match(Field.IP_DADDR, ("127.0.0.0/8",), negated=True), RETURN),
    (Match(Field.FIB_SADDR_TYPE, ("local",)), jump("c")),
    (MarkMatch(0x4000, 0), RETURN),
    (MarkMatch(0x4000, 0, negated=True), RETURN),
    (SetMark(0x4000, "|"),),
    (SetMark(0x4000, "^"),),
    (SetMark(0x4000, "&"),),
    (SetMark(0x4000),),
    (Lookup((Field.IP_SADDR,), "ips", negated=True), DROP),
    (Lookup((Field.IP_SADDR,), "ips"), goto("c")),
    (Update("seen", (Field.IP_SADDR,)),),
    (Vmap((Field.L4PROTO, Field.TH_DPORT), entries=((("udp", 53), goto("c")), (("tcp", 80), DROP))),),
    (Vmap((Numgen(2),), entries=(((0,), goto("b")), ((1,), goto("c")))),),
    (Limit(10), Limit(3, "minute", 7, over=True), DROP),
    (Reject(),),
    (Reject(tcp_reset=True),),
]
NAT_EXPRESSIONS: list[tuple[nft.Expression, ...]] = [
    (Match(Field.L4PROTO, ("tcp",)), Dnat("10.0.0.1", 8080)),
    (Dnat("10.0.0.1"),),
    (Match(Field.L4PROTO, ("tcp",)),
     DnatMap("ip", (Numgen(2),), entries=(((0,), ("10.0.0.1", 80)), ((1,), ("10.0.0.2", 81))))),
    (DnatMap("ip", (*SERVICE, Numgen(2)), "endpoints"),),
]  # fmt: skip
MASQUERADES: list[tuple[nft.Expression, ...]] = [
    (Masquerade(),),
    (Masquerade(fully_random=True),),
    (Masquerade(random=True, fully_random=True),),
]


async def check_expressions_come_back(tool: Nft) -> None:
    """Every expression is told as it was put."""
    await begin(tool)
    by_chain = {"a": EXPRESSIONS, "pre": NAT_EXPRESSIONS, "post": MASQUERADES}
    made = [Add(Rule(chain, rule)) for chain, rules in by_chain.items() for rule in rules]
    await tool.run(Transaction(TABLE, (Flush(Chain("a")), *made)))
    found = await held(tool)

    for chain, rules in by_chain.items():
        assert [rule.expressions for rule in found.rules_of(chain)] == rules


async def check_six(tool: Nft) -> None:
    """The same in ip6."""
    await tool.run(Transaction(TABLE6, tuple(SIX)))
    found = await held(tool, TABLE6)

    put = [operation.object for operation in SIX]
    assert [rule.expressions for rule in found.rules] == [rule.expressions for rule in put if isinstance(rule, Rule)]
    assert set(found.elements) == {one for one in put if isinstance(one, Element)}


SIX: list[nft.Operation] = [
    Add(TABLE6),
    Add(Chain("pre", "nat", "prerouting", -100)),
    Add(Chain("a")),
    Add(Set("ips", (ADDR6,))),
    Add(Map("services", (ADDR6, PROTO, PORT))),
    Add(Map("endpoints", (ADDR6, PROTO, PORT, MARK), (ADDR6, PORT))),
    Add(Element("ips", ("fd00::1",))),
    Add(Element("services", ("fd00::1", "tcp", 80), goto("a"), "default/web:http")),
    Add(Element("endpoints", ("fd00::1", "tcp", 80, 0), ("fd00:1::9", 8080))),
    Add(Rule("pre", (Vmap(SERVICE6, "services"),))),
    Add(Rule("pre", (Lookup((Field.IP6_SADDR, Field.IP6_DADDR), "pairs"), ACCEPT))),
    Add(Rule("pre", (Match(Field.IP6_DADDR, ("::1",), negated=True), ACCEPT))),
    Add(Rule("pre", (Match(Field.IP6_SADDR, ("fd00::/8",), negated=True), ACCEPT))),
    Add(Rule("pre", (Match(Field.IP6_SADDR, ("fd00::/57",)), ACCEPT))),
    Add(Rule("pre", (Match(Field.IP6_SADDR, ("fd00::1", "fd01::/64")), DROP))),
    Add(Rule("a", (Match(Field.L4PROTO, ("tcp",)), Dnat("fd00:1::1", 8080)))),
    Add(Rule("a", (DnatMap("ip6", (*SERVICE6, Numgen(2)), "endpoints"),))),
    Add(
        Rule(
            "a",
            (
                Match(Field.L4PROTO, ("tcp",)),
                DnatMap("ip6", (Numgen(1),), entries=(((0,), ("fd00:1::1", 80)),)),
            ),
        )
    ),
]
SIX.insert(6, Add(Set("pairs", (ADDR6, ADDR6))))


async def check_adding_again_changes_nothing(tool: Nft) -> None:
    """Add is idempotent for all but rules."""
    await begin(tool)
    before = await held(tool)
    again = [each for each in START if not isinstance(each.object, Rule)]
    await tool.run(Transaction(TABLE, tuple(again)))

    assert comparable(await held(tool)) == comparable(before)


async def check_rules_by_handle(tool: Nft) -> None:
    """Rules are put before, behind and in the place of others, and removed, by handle."""
    await begin(tool)
    (there,) = (await held(tool)).rules_of("a")
    await tool.run(
        Transaction(
            TABLE,
            (
                Insert(Rule("a", (ACCEPT,), "first")),
                Add(Rule("a", (ACCEPT,), "behind", position=there.handle)),
                Insert(Rule("a", (ACCEPT,), "before", position=there.handle)),
                Replace(Rule("a", (DROP,), "instead", handle=there.handle)),
                Add(Rule("a", (ACCEPT,), "last")),
            ),
        )
    )
    found = (await held(tool)).rules_of("a")
    assert [rule.comment for rule in found] == ["first", "before", "instead", "behind", "last"]

    await tool.run(Transaction(TABLE, (Delete(Rule("a", (), handle=found[1].handle)),)))
    assert [rule.comment for rule in (await held(tool)).rules_of("a")] == ["first", "instead", "behind", "last"]


async def check_chain_goes_with_its_last_reference(tool: Nft) -> None:
    """A chain can go in the transaction that takes the last jump to it away."""
    await begin(tool)
    gone = Element("services", ("10.0.0.1", "tcp", 80))
    await tool.run(Transaction(TABLE, (Flush(Chain("a")), Delete(Chain("c")), Delete(gone), Delete(Chain("b")))))

    assert {chain.name for chain in (await held(tool)).chains} == {"input", "pre", "post", "a"}


async def check_chain_that_only_itself_needs_goes(tool: Nft) -> None:
    """A chain is deleted with its rules."""
    await begin(tool)
    await tool.run(Transaction(TABLE, (Delete(Chain("a")),)))

    assert "a" not in {chain.name for chain in (await held(tool)).chains}


async def check_element_changes_in_one_transaction(tool: Nft) -> None:
    """Other data for a key: delete and add."""
    await begin(tool)
    key = ("10.0.0.1", "tcp", 80)
    await tool.run(Transaction(TABLE, (Delete(Element("services", key)), Add(Element("services", key, DROP)))))

    (element,) = (await held(tool)).elements_of("services")
    assert element == Element("services", key, DROP)


async def check_flushing(tool: Nft) -> None:
    """A flushed set is empty, a flushed table has no rules; everything else stays."""
    await begin(tool)
    await tool.run(Transaction(TABLE, (Flush(Set("ips", (ADDR,))), Flush(TABLE))))

    found = await held(tool)
    assert (keys(found, "ips"), keys(found, "ranges"), found.rules) == (set(), {("10.0.0.0/8",)}, ())


async def check_destroying(tool: Nft) -> None:
    """Destroy removes what is there and does not mind what is not."""
    await begin(tool)
    await tool.run(
        Transaction(
            TABLE,
            (
                Destroy(Chain("none")),
                Destroy(Chain("a")),
                Destroy(Element("ips", ("10.0.0.9",))),
                Destroy(Element("ips", ("10.0.0.1",))),
                Destroy(Set("none", (ADDR,))),
            ),
        )
    )
    found = await held(tool)
    assert ("a" in {chain.name for chain in found.chains}, keys(found, "ips")) == (False, set())

    await tool.run(Transaction(TABLE, (Destroy(TABLE),)))
    await tool.run(Transaction(TABLE, (Destroy(TABLE),)))
    assert await tool.dump(TABLE) is None


async def check_intervals(tool: Nft) -> None:
    """Prefixes and ranges in a named set come back in the shortest words; the last address is no special case."""
    await begin(tool)
    put = ["11.0.0.1", "11.0.0.4-11.0.0.7", "12.0.0.0-12.0.0.9", "255.255.255.0/24", "0.0.0.0/8"]
    await tool.run(Transaction(TABLE, tuple(Add(Element("ranges", (each,))) for each in put)))
    wanted = {"11.0.0.1", "11.0.0.4/30", "12.0.0.0-12.0.0.9", "255.255.255.0/24", "0.0.0.0/8", "10.0.0.0/8"}
    assert keys(await held(tool), "ranges") == {(each,) for each in wanted}

    await tool.run(Transaction(TABLE, (Delete(Element("ranges", ("255.255.255.0/24",))),)))
    assert keys(await held(tool), "ranges") == {(each,) for each in wanted - {"255.255.255.0/24"}}


async def check_generation(tool: Nft) -> None:
    """A transaction that says what it has seen is refused when somebody was there meanwhile."""
    await begin(tool)
    seen = await tool.generation()
    await tool.run(Transaction(TABLE, (Add(Chain("one")),)), generation=seen)

    with pytest.raises(KernelError) as refused:
        await tool.run(Transaction(TABLE, (Add(Chain("two")),)), generation=seen)

    assert refused.value.code == errno.ERESTART
    assert (await tool.generation()) == seen + 1


async def check_missing_table(tool: Nft) -> None:
    """There is no dump of what is not there."""
    assert await tool.dump(Table("ip", "t-none")) is None


async def check_deep(tool: Nft) -> None:
    """Fifteen jumps in a row are allowed."""
    await begin(tool)
    await tool.run(Transaction(TABLE, tuple(deep(15))))

    assert texts(await held(tool), "deep-13") == ["jump deep-14"]


async def check_loop_out_of_reach(tool: Nft) -> None:
    """Chains that no packet reaches may go in circles, as the kernel only looks at what hooks reach."""
    await begin(tool)
    await tool.run(Transaction(TABLE, (Add(Rule("c", (jump("a"),))),)))

    assert texts(await held(tool), "c") == ["jump a"]


async def check_nothing(tool: Nft) -> None:
    """A transaction of nothing is fine."""
    await begin(tool)
    before = await held(tool)
    await tool.run(Transaction(TABLE, ()))

    assert comparable(await held(tool)) == comparable(before)


BEHAVIOUR = [
    pytest.param(check_everything_comes_back, id="a dump tells what was put"),
    pytest.param(check_expressions_come_back, id="a dump tells expressions as they were put"),
    pytest.param(check_six, id="ip6"),
    pytest.param(check_adding_again_changes_nothing, id="adding again changes nothing"),
    pytest.param(check_rules_by_handle, id="rules by handle"),
    pytest.param(check_chain_goes_with_its_last_reference, id="a chain goes with its last reference"),
    pytest.param(check_chain_that_only_itself_needs_goes, id="a chain goes with its rules"),
    pytest.param(check_element_changes_in_one_transaction, id="an element gets other data"),
    pytest.param(check_flushing, id="flush"),
    pytest.param(check_destroying, id="destroy"),
    pytest.param(check_intervals, id="intervals"),
    pytest.param(check_generation, id="generation"),
    pytest.param(check_missing_table, id="missing table"),
    pytest.param(check_deep, id="fifteen jumps"),
    pytest.param(check_loop_out_of_reach, id="loop out of reach"),
    pytest.param(check_nothing, id="empty transaction"),
]
