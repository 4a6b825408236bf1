"""The contract of `Nft`, on the kernel; and what only it can show."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Iterator

import pytest

from netemu.kernel import netns
from netemu.kernel.nftables import Nft, NftNetlink
from netemu.model import nft
from netemu.model.errors import KernelError, KernelExists, KernelNotFound
from netemu.model.nft_listing import listing
from netemu.testing.nftables import FakeNft
from tests.unit.nft_contract import (
    BEHAVIOUR,
    EXPRESSIONS,
    MASQUERADES,
    NAT_EXPRESSIONS,
    REFUSED,
    SIX,
    START,
    TABLE,
    TABLE6,
    begin,
    check_refusal,
    held,
    keys,
)

NAMESPACE, OTHER = "t-nft-a", "t-nft-b"


@pytest.fixture(autouse=True)
def namespaces() -> Iterator[None]:
    for name in (NAMESPACE, OTHER):
        netns.delete(name)
        netns.create(name)
    try:
        yield
    finally:
        for name in (NAMESPACE, OTHER):
            netns.delete(name)


@pytest.fixture
def tool() -> Iterator[NftNetlink]:
    made = NftNetlink(NAMESPACE)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(("operations", "code"), REFUSED)
async def test_refuses(tool: NftNetlink, operations: list[nft.Operation], code: int) -> None:
    await check_refusal(tool, operations, code)


@pytest.mark.parametrize("check", BEHAVIOUR)
async def test_behaves(tool: NftNetlink, check: Callable[[Nft], Awaitable[None]]) -> None:
    await check(tool)


def nft_tool(namespace: str, *arguments: str, text: str = "") -> str:
    """What the `nft` tool prints in a namespace."""
    argv = ["ip", "netns", "exec", namespace, "nft", *arguments]
    done = subprocess.run(argv, input=text, text=True, check=False, capture_output=True)
    assert not done.stderr
    return done.stdout


def numbered(held: nft.Object) -> bool:
    """Whether it is a rule that asks a named map by a random number."""
    return isinstance(held, nft.Rule) and any(isinstance(e, nft.DnatMap) and e.map for e in held.expressions)


def everything(family: str) -> tuple[nft.Transaction, ...]:
    """Every object and expression that the contract knows."""
    if family == "ip6":  # the tool has no word for the type of a key with a number in it
        writable = [each for each in SIX if not numbered(each.object)]
        return (nft.Transaction(TABLE6, tuple(writable)),)
    by_chain = {"a": EXPRESSIONS, "pre": NAT_EXPRESSIONS[:3], "post": MASQUERADES}
    rules = [nft.Add(nft.Rule(chain, rule)) for chain, made in by_chain.items() for rule in made]
    more = [f"10.1.{number}.7" for number in (3, 1, 2, 200, 150, 0)]
    elements = [nft.Add(nft.Element("ips", (each,))) for each in more]
    elements += [
        nft.Add(nft.Element("services", ("10.0.0.1", protocol, port), nft.DROP, comment))
        for protocol, port, comment in (("udp", 53, "dns"), ("tcp", 53, ""), ("sctp", 9, ""), ("tcp", 8080, "x"))
    ]
    ranges = ("11.0.0.4-11.0.0.9", "12.0.0.0/9", "255.255.255.0/24", "13.0.0.1")
    elements += [nft.Add(nft.Element("ranges", (each,))) for each in ranges]
    return (nft.Transaction(TABLE, (*START, *rules, *elements)),)


@pytest.mark.parametrize("family", ["ip", "ip6"])
async def test_tool_lists_what_we_wrote_as_what_it_wrote_itself(tool: NftNetlink, family: str) -> None:
    for transaction in everything(family):
        await tool.run(transaction)
        nft_tool(OTHER, "-f", "-", text=transaction.text())

    assert nft_tool(NAMESPACE, "list", "ruleset") == nft_tool(OTHER, "list", "ruleset")


@pytest.mark.parametrize("family", ["ip", "ip6"])
async def test_what_the_tool_wrote_is_told_as_what_we_wrote(tool: NftNetlink, family: str) -> None:
    other = NftNetlink(OTHER)
    for transaction in everything(family):
        await tool.run(transaction)
        nft_tool(OTHER, "-f", "-", text=transaction.text())
    ours, theirs = await held(tool, transaction.table), await held(other, transaction.table)
    other.close()

    assert [rule.text() for rule in theirs.rules] == [rule.text() for rule in ours.rules]
    assert (ours.chains, ours.sets, set(ours.elements)) == (theirs.chains, theirs.sets, set(theirs.elements))


@pytest.mark.parametrize("family", ["ip", "ip6"])
async def test_our_listing_is_the_tools(tool: NftNetlink, family: str) -> None:
    (transaction,) = everything(family)
    await tool.run(transaction)

    assert listing(await held(tool, transaction.table)) == nft_tool(NAMESPACE, "list", "ruleset")


async def test_a_hundred_thousand_elements_in_one_transaction(tool: NftNetlink) -> None:
    many = [nft.Add(nft.Element("ips", (f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}",))) for n in range(100_000)]
    await tool.run(nft.Transaction(TABLE, (*START[:8], *many)))

    assert len((await held(tool)).elements_of("ips")) == 100_000


async def test_element_refused_among_many_is_named(tool: NftNetlink) -> None:
    many = [nft.Create(nft.Element("ips", (f"11.{n >> 8}.{n & 255}.1",))) for n in range(10_000)]
    await begin(tool)
    with pytest.raises(KernelExists, match=r"create element ip t-contract ips \{ 11\.30\.7\.1 \}"):
        await tool.run(nft.Transaction(TABLE, (*many, many[30 * 256 + 7], *many[:5])))

    assert len((await held(tool)).elements_of("ips")) == 1


async def test_more_refusals_than_the_socket_holds_name_the_first(tool: NftNetlink) -> None:
    await begin(tool)
    wrong = [nft.Add(nft.Rule("a", (nft.jump(f"none-{number}"),))) for number in range(50_000)]
    with pytest.raises(KernelNotFound, match="jump none-0 "):
        await tool.run(nft.Transaction(TABLE, tuple(wrong)))

    await tool.run(nft.Transaction(TABLE, (nft.Add(nft.Chain("still-works")),)))
    assert "still-works" in {chain.name for chain in (await held(tool)).chains}


async def test_two_at_a_time_do_not_take_each_others_answers(tool: NftNetlink) -> None:
    await begin(tool)
    good = [tool.run(nft.Transaction(TABLE, (nft.Add(nft.Chain(f"good-{number}")),))) for number in range(20)]
    bad = [tool.run(nft.Transaction(TABLE, (nft.Create(nft.Chain("a")),))) for _ in range(20)]
    answers = await asyncio.gather(*(each for pair in zip(good, bad, strict=True) for each in pair), tool.dump(TABLE),
                                   return_exceptions=True)  # fmt: skip

    assert [type(answer) for answer in answers[:40:2]] == [type(None)] * 20
    assert [type(answer) for answer in answers[1:40:2]] == [KernelExists] * 20


async def test_set_that_somebody_made_anew_is_asked_for_again(tool: NftNetlink) -> None:
    await begin(tool)
    nft_tool(NAMESPACE, "delete set ip t-contract ips; add set ip t-contract ips { type inet_service; }")
    port = nft.Transaction(TABLE, (nft.Add(nft.Element("ips", (80,))),))
    with pytest.raises(KernelError):
        await tool.run(port)
    await tool.run(port)

    assert keys(await held(tool), "ips") == {(80,)}


async def test_foreign_rules_are_told_as_unknown_and_left_alone(tool: NftNetlink) -> None:
    await begin(tool)
    nft_tool(NAMESPACE, 'add rule ip t-contract a ip ttl 64 tcp flags syn log prefix "x" meta priority set 1:1')
    ruleset = await held(tool)
    await tool.run(nft.Transaction(TABLE, (nft.Add(nft.Element("ips", ("10.0.0.7",))),)))

    assert any(isinstance(each, nft.Unknown) for each in ruleset.rules_of("a")[-1].expressions)
    assert "ip ttl 64 tcp flags syn" in nft_tool(NAMESPACE, "list", "ruleset")


async def test_update_remembers_who_came_by(tool: NftNetlink) -> None:
    """The set's element of a packet that a rule saw has what is left of the set's timeout, and is told without it."""
    await begin(tool)
    await tool.run(nft.Transaction(TABLE, (nft.Add(nft.Element("seen", ("10.0.0.7",))),)))
    await tool.run(nft.Transaction(TABLE, (nft.Add(nft.Element("seen", ("10.0.0.8",), timeout=60)),)))

    assert (await held(tool)).elements_of("seen") in (
        (nft.Element("seen", ("10.0.0.7",)), nft.Element("seen", ("10.0.0.8",), timeout=60)),
        (nft.Element("seen", ("10.0.0.8",), timeout=60), nft.Element("seen", ("10.0.0.7",))),
    )


async def test_missing_namespace_is_named() -> None:
    with pytest.raises(KernelNotFound, match="t-nft-none"):
        await NftNetlink("t-nft-none").generation()


@pytest.mark.parametrize("family", ["ip", "ip6"])
async def test_fake_lists_what_the_tool_lists(tool: NftNetlink, family: str) -> None:
    fake = FakeNft()
    for transaction in everything(family):
        await tool.run(transaction)
        await fake.run(transaction)

    assert fake.listing() == nft_tool(NAMESPACE, "list", "ruleset")
