"""What any `Iptables` must do: the same cases for the fake and for both kinds of the real tool."""

from __future__ import annotations

import pytest

from netemu.kernel.iptables import Iptables, parse_save
from netemu.model.errors import KernelError

START = "*filter\n:A - [0:0]\n:B - [0:0]\n-A A -j B\n-A B -p tcp -m tcp --dport 80 -j DROP\nCOMMIT\n"

REFUSED = [
    pytest.param("*filter\n-A A -j NONE\nCOMMIT\n", id="jump to a missing chain"),
    pytest.param("*filter\n-A NONE -j ACCEPT\nCOMMIT\n", id="append to a missing chain"),
    pytest.param("*filter\n:B - [0:0]\n-X B\nCOMMIT\n", id="delete a chain that is jumped to"),
    pytest.param("*filter\n-X NONE\nCOMMIT\n", id="delete a missing chain"),
    pytest.param("*filter\n-N A\nCOMMIT\n", id="create a chain twice"),
    pytest.param("*filter\n-D A -j ACCEPT\nCOMMIT\n", id="delete a missing rule"),
    pytest.param(
        "*nat\n-A PREROUTING -j DNAT --to-destination 10.0.0.1:80\nCOMMIT\n", id="DNAT to a port of no protocol"
    ),
    pytest.param(
        "*nat\n-A PREROUTING -p tcp -m tcp -j DNAT --to-destination 10.0.0.300:80\nCOMMIT\n", id="bad address"
    ),
    pytest.param("*nat\n-A PREROUTING -p tcp -m tcp --dport 99999 -j ACCEPT\nCOMMIT\n", id="bad port"),
    pytest.param("*nat\n-A PREROUTING -j REJECT\nCOMMIT\n", id="REJECT in nat"),
    pytest.param("*nat\n-A PREROUTING -j MASQUERADE\nCOMMIT\n", id="MASQUERADE before routing"),
    pytest.param("*filter\n:L1 - [0:0]\n:L2 - [0:0]\n-A L1 -j L2\n-A L2 -j L1\n-A INPUT -j L1\nCOMMIT\n", id="loop"),
    pytest.param("*filter\n:ABCDEFGHIJKLMNOPQRSTUVWXYZABC - [0:0]\nCOMMIT\n", id="chain name of 29 characters"),
    pytest.param("*filter\n-A A -j ACCEPT\n", id="no COMMIT"),
]


async def kept(tool: Iptables) -> dict[str, list[str]]:
    """The chains of table filter."""
    return parse_save(await tool.save("filter"))["filter"]


async def check_refusal(tool: Iptables, text: str) -> None:
    """The input is refused and leaves the table as it was."""
    await tool.restore(START)
    before = await kept(tool)

    with pytest.raises(KernelError):
        await tool.restore(text)

    assert await kept(tool) == before


async def check_declaring_flushes(tool: Iptables) -> None:
    """`:CHAIN` empties that chain and no other."""
    await tool.restore(START)
    await tool.restore("*filter\n:A - [0:0]\nCOMMIT\n")

    chains = await kept(tool)
    assert (chains["A"], chains["B"]) == ([], ["-p tcp -m tcp --dport 80 -j DROP"])


async def check_delete_after_unlinking(tool: Iptables) -> None:
    """A chain can go in the restore that takes the last jump to it away."""
    await tool.restore(START)
    await tool.restore("*filter\n:A - [0:0]\n:B - [0:0]\n-X B\nCOMMIT\n")

    assert "B" not in await kept(tool)


async def check_insert_order(tool: Iptables) -> None:
    """What is inserted last stands first; foreign rules stay behind."""
    await tool.restore("*filter\n:A - [0:0]\n:B - [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n")
    await tool.restore("*filter\n-I INPUT 1 -j A\n-I INPUT 1 -j B\nCOMMIT\n")

    assert (await kept(tool))["INPUT"] == ["-j B", "-j A", "-j ACCEPT"]


async def check_long_comments_are_cut(tool: Iptables) -> None:
    """The kernel keeps 255 bytes of a comment."""
    words = "a " * 140
    await tool.restore(
        f'*filter\n:A - [0:0]\n-A A -m comment --comment {"c" * 260}\n-A A -m comment --comment "{words}"\nCOMMIT\n'
    )

    assert (await kept(tool))["A"] == [f"-m comment --comment {c}" for c in ("c" * 255, f'"{words[:255]}"')]


async def check_tables_are_separate(tool: Iptables) -> None:
    """A refused second table does not undo the first."""
    with pytest.raises(KernelError):
        await tool.restore("*filter\n:FIRST - [0:0]\nCOMMIT\n*nat\n-A NONE -j ACCEPT\nCOMMIT\n")

    assert await tool.has_chain("filter", "FIRST")
    assert not await tool.has_chain("nat", "FIRST")


async def check_own_changes_are_not_foreign(tool: Iptables) -> None:
    """What this object restores, reads or is refused does not look like somebody else's change."""
    await tool.restore(START)
    before = await tool.foreign_changes()
    await tool.restore("*filter\n:A - [0:0]\n-A A -j B\n-A A -j RETURN\nCOMMIT\n*nat\n:C - [0:0]\nCOMMIT\n")
    await tool.save()
    with pytest.raises(KernelError):
        await tool.restore("*filter\n-A NONE -j ACCEPT\nCOMMIT\n")

    assert await tool.foreign_changes() == before


BEHAVIOUR = [
    check_own_changes_are_not_foreign,
    check_declaring_flushes,
    check_delete_after_unlinking,
    check_insert_order,
    check_long_comments_are_cut,
    check_tables_are_separate,
]
