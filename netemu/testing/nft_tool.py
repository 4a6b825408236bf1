"""A tool `nft` that lists what a text says, without a kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from netemu.model.errors import KernelNotFound

_BLOCK: Final = re.compile(r"^table (\S+) (\S+) \{.*?^\}\n", re.MULTILINE | re.DOTALL)
_CHAIN: Final = re.compile(r"^\tchain (\S+) \{.*?^\t\}\n", re.MULTILINE | re.DOTALL)


class FakeNftTool:
    """See `kernel.nft_tool.NftLister`. `ruleset` is what `nft -a list ruleset` prints."""

    def __init__(self, ruleset: str) -> None:
        self._ruleset = ruleset

    async def tables(self) -> list[tuple[str, str]]:
        """See NftLister."""
        return [(block[1], block[2]) for block in self._blocks()]

    async def listing(self, family: str, table: str, chain: str = "") -> str:
        """See NftLister."""
        block = next((each[0] for each in self._blocks() if each.groups() == (family, table)), "")
        if chain:
            found = next((each[0] for each in _CHAIN.finditer(block) if each[1] == chain), "")
            block = f"table {family} {table} {{\n{found}}}\n" if found else ""  # the tool gives the head no handle here
        if not block:
            raise KernelNotFound(f"list {' '.join(filter(None, (family, table, chain)))}")
        return block

    def _blocks(self) -> Iterator[re.Match[str]]:
        return _BLOCK.finditer(self._ruleset)
