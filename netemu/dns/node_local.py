"""NodeLocal DNSCache: the node's own addresses for a DNS server, and rules that keep its traffic out of conntrack.

The cache of a node listens on a link-local address and on the cluster IP of `kube-dns` itself, so Pods need not know of
it. Both are addresses of the node's `lo`; NOTRACK in the raw table means that no connection is tracked and so none is
translated, which makes the node itself answer for the cluster IP. As long as the rules stand and nobody listens, DNS
is a black hole on that node: so they are put up last, looked at every minute, and removed at the end.

Source: `kubernetes/dns/cmd/node-cache/app`. What is a dummy link there is `lo` here, which every kernel has.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress

from netemu.kernel.iptables import IptablesTool, choose, parse_save
from netemu.kernel.netlink import Netlink
from netemu.kernel.rtnetlink import AddAddress, DelAddress
from netemu.model.errors import KernelError, UserError

log = logging.getLogger(__name__)

_LINK = "lo"
_AGAIN = 60.0
_TABLES = ("raw", "filter")


def parse_addresses(text: str) -> tuple[str, ...]:
    """`169.254.20.10,10.96.0.10`. Raises UserError."""
    try:
        addresses = tuple(str(ipaddress.IPv4Address(part.strip())) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"{text!r}: must be IPv4 addresses like 169.254.20.10,10.96.0.10") from error
    return addresses


def rules(addresses: Sequence[str]) -> list[tuple[str, str, str]]:
    """(table, chain, rule as iptables-save prints it)."""
    return [rule for address in addresses for rule in _rules(f"{address}/32")]


def _rules(address: str) -> Iterator[tuple[str, str, str]]:
    for proto in ("udp", "tcp"):
        to, back = f"-d {address} -p {proto} -m {proto} --dport 53", f"-s {address} -p {proto} -m {proto} --sport 53"
        for chain, match in (("PREROUTING", to), ("OUTPUT", to), ("OUTPUT", back)):
            yield "raw", chain, f'{match} -m comment --comment "NodeLocal DNS Cache: skip conntrack" -j CT --notrack'
        for chain, match in (("INPUT", to), ("OUTPUT", back)):
            yield (
                "filter", chain, f'{match} -m comment --comment "NodeLocal DNS Cache: allow DNS traffic" -j ACCEPT'
            )  # fmt: skip


@asynccontextmanager
async def addresses_here(addresses: Sequence[str]) -> AsyncIterator[None]:
    """The addresses are this namespace's own meanwhile. Raises KernelError."""
    with Netlink() as netlink:
        netlink.apply(*(AddAddress(_LINK, f"{address}/32", replace=True) for address in addresses))
    try:
        yield
    finally:
        with Netlink() as netlink:
            for address in addresses:
                with suppress(KernelError):
                    netlink.apply(DelAddress(_LINK, f"{address}/32"))


@asynccontextmanager
async def untracked(addresses: Sequence[str]) -> AsyncIterator[None]:
    """DNS to and from the addresses is not tracked meanwhile. Raises KernelError, UserError without iptables."""
    tool = await choose()
    wanted = rules(addresses)
    await _add(tool, wanted)
    keeping = asyncio.create_task(_keep(tool, wanted), name="dns node-local rules")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await _apply(tool, "-D", await _present(tool, wanted))


async def _keep(tool: IptablesTool, wanted: Sequence[tuple[str, str, str]]) -> None:
    while True:
        await asyncio.sleep(_AGAIN)
        try:
            await _add(tool, wanted)
        except KernelError as error:
            log.error("node-local rules: %s", error)


async def _add(tool: IptablesTool, wanted: Sequence[tuple[str, str, str]]) -> None:
    there = set(await _present(tool, wanted))
    await _apply(tool, "-A", [rule for rule in wanted if rule not in there])


async def _present(tool: IptablesTool, wanted: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    there = {table: parse_save(await tool.save(table)).get(table, {}) for table in _TABLES}
    return [rule for rule in wanted if rule[2] in there[rule[0]].get(rule[1], ())]


async def _apply(tool: IptablesTool, command: str, changed: Sequence[tuple[str, str, str]]) -> None:
    for table in _TABLES:
        lines = [f"{command} {chain} {rule}" for of, chain, rule in changed if of == table]
        if lines:
            await tool.restore("\n".join((f"*{table}", *lines, "COMMIT", "")))
