"""The tool `nft` and its fake list the same of the same rules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from netemu.kernel import netns
from netemu.kernel.nft_tool import NftTool
from netemu.model.errors import KernelError
from netemu.testing.nft_tool import FakeNftTool
from tests.kernel.proxy_bed import sh

NAME = "t-nft-tool"
RULES = """
table inet guard {
    set ports { type inet_service; elements = { 22, 80 }; }
    chain in { type filter hook forward priority -5; tcp dport @ports counter drop; }
    chain more { ip ttl 7 drop; }
}
table ip other {
    chain in { counter; }
}
table ip6 empty {
}
"""


@pytest.fixture(scope="module", autouse=True)
def rules() -> Iterator[None]:
    netns.delete(NAME)
    netns.create(NAME)
    try:
        sh(NAME, "nft", "-f", "-", text=RULES)
        yield
    finally:
        netns.delete(NAME)


async def test_the_fake_lists_what_the_tool_lists() -> None:
    tool, fake = NftTool(NAME), FakeNftTool(sh(NAME, "nft", "-a", "list", "ruleset"))

    assert await fake.tables() == await tool.tables() == [("inet", "guard"), ("ip", "other"), ("ip6", "empty")]
    for family, table in await tool.tables():
        assert await fake.listing(family, table) == await tool.listing(family, table)
    for where in (("inet", "guard", "in"), ("inet", "guard", "more"), ("ip", "other", "in")):
        assert await fake.listing(*where) == await tool.listing(*where)


@pytest.mark.parametrize("where", [("ip", "guard"), ("inet", "guard", "nowhere"), ("ip", "nothing", "in")])
async def test_what_is_not_there(where: tuple[str, ...]) -> None:
    for lister in (NftTool(NAME), FakeNftTool(sh(NAME, "nft", "-a", "list", "ruleset"))):
        with pytest.raises(KernelError):
            await lister.listing(*where)
