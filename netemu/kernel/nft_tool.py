"""Tables of nf_tables as the tool `nft` prints them, for rules of others, which may say more than is decoded here.

`kernel.nft_read` and `kernel.nftables` read rules by netlink, at a hundredth of the cost; the tool knows every word.
"""

from __future__ import annotations

from typing import Protocol

from netemu.kernel import process
from netemu.model import nft
from netemu.model.errors import KernelError
from netemu.model.nft_listing import lines_with_handles


class NftLister(Protocol):
    """The tables of one namespace. Implemented by `NftTool` and `netemu.testing.nft_tool.FakeNftTool`."""

    async def tables(self) -> list[tuple[str, str]]:
        """Family and name of each. Raises KernelError without the tool."""
        ...

    async def listing(self, family: str, table: str, chain: str = "") -> str:
        """A table, or of that one chain alone, with handles. Raises KernelError for what is not there."""
        ...


class NftTool:
    """The tool in the namespace `netns`."""

    def __init__(self, netns: str) -> None:
        self._netns = netns

    async def tables(self) -> list[tuple[str, str]]:
        """See NftLister."""
        words = [line.split() for line in (await self._list("tables")).splitlines()]
        return [(family, name) for _, family, name in words]

    async def listing(self, family: str, table: str, chain: str = "") -> str:
        """See NftLister."""
        return await self._list(*(("chain", family, table, chain) if chain else ("table", family, table)))

    async def _list(self, *what: str) -> str:
        return (await process.run(["nft", "-a", "list", *what], netns=self._netns)).decode()


async def rule_text(tool: NftLister, family: str, table: str, chain: str, handle: int) -> str:
    """What the tool says of one rule; "" where there is no such rule, or no tool."""
    try:
        listed = await tool.listing(family, table, chain)
    except KernelError:
        return ""
    return next((text for text, number in lines_with_handles(listed) if number == handle), "")


async def listing_of_others(tool: NftLister, family: nft.Family, own: frozenset[str]) -> str:
    """All tables that packets of the family meet but its `own`; "" without the tool."""
    try:
        met = [(of, name) for of, name in await tool.tables() if of == "inet" or (of == family and name not in own)]
        return "".join([await tool.listing(*table) for table in met])
    except KernelError:
        return ""
