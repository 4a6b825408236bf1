"""What is asked of the tool `nft`, answered by its fake."""

from __future__ import annotations

from netemu.kernel.nft_tool import listing_of_others, rule_text
from netemu.model.errors import KernelNotFound
from netemu.testing.nft_tool import FakeNftTool

RULESET = """\
table inet guard { # handle 1
	chain in { # handle 1
		type filter hook forward priority filter - 5; policy accept;
		tcp dport 22 counter packets 3 bytes 180 drop comment "no # handle 9" # handle 2
	}

	chain more { # handle 3
		ip ttl 7 drop # handle 4
	}
}
table ip nat { # handle 2
}
table ip6 other { # handle 3
}
"""


class NoTool:
    """A machine without it."""

    async def tables(self) -> list[tuple[str, str]]:
        raise KernelNotFound("run nft")

    async def listing(self, family: str, table: str, chain: str = "") -> str:
        raise KernelNotFound("run nft")


async def test_one_rule_in_the_tools_words() -> None:
    tool = FakeNftTool(RULESET)

    assert await rule_text(tool, "inet", "guard", "more", 4) == "ip ttl 7 drop"
    assert (await rule_text(tool, "inet", "guard", "in", 2)).endswith('comment "no # handle 9"')
    assert await rule_text(tool, "inet", "guard", "more", 2) == ""
    assert await rule_text(tool, "inet", "guard", "nowhere", 2) == ""
    assert await rule_text(NoTool(), "inet", "guard", "more", 4) == ""


async def test_tables_of_others_are_those_that_the_family_meets() -> None:
    tool = FakeNftTool(RULESET)

    assert await listing_of_others(tool, "ip", frozenset({"nat"})) == await tool.listing("inet", "guard")
    assert "table ip6 other" in await listing_of_others(tool, "ip6", frozenset())
    assert await listing_of_others(NoTool(), "ip", frozenset()) == ""
