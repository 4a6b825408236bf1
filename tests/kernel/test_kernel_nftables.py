"""The contract of `Nft`, on the kernel; and what only it can show."""

from __future__ import annotations

import subprocess
from collections.abc import Awaitable, Callable, Iterator

import pytest

from netemu.kernel import netns
from netemu.kernel.nftables import Nft, NftNetlink
from netemu.model import nft
from netemu.model.nft_listing import listing
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
    check_refusal,
    held,
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
