"""The rules that acted, in their own words: what `nft` or `iptables-save` prints, and what they have counted.

nf_tables names a rule by its handle, and is asked for the rules of that chain. x_tables names it by its number, and
only a tool can tell what it says: one `iptables-save` per place, before the packet and after it. For iptables-nft it
is both: the rule with the handle has a number in its chain, and that line of `iptables-nft-save` is its text.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Container, Mapping, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from netemu.kernel.iptables import IptablesTool
from netemu.kernel.nft_tool import NftTool, rule_text
from netemu.model import nft
from netemu.model.errors import KernelError
from netemu.observe.rules.iptables_saved import Saved as SavedRule
from netemu.observe.rules.iptables_saved import Tables, options_of, parse_counted
from netemu.observe.trace.evidence import Backend, Counter, RuleHit
from netemu.observe.trace.sources import Reader

_KEPT_BY_IPTABLES_NFT: Final = (("nat", "PREROUTING"), ("nat", "OUTPUT"), ("filter", "FORWARD"), ("filter", "INPUT"))
_TOOLS_COMMENT: Final = re.compile(r' ?comment "([^"]*)"$')


class Saved(NamedTuple):
    """What iptables-save tells: rules by table and chain, and the policies of built-in chains."""

    tables: Tables
    policies: Mapping[tuple[str, str], str]

    def rule(self, table: str, chain: str, number: int) -> SavedRule | None:
        """The rule at a position, from 1."""
        rules = self.tables.get(table, {}).get(chain, [])
        return rules[number - 1] if 0 < number <= len(rules) else None


NOTHING: Final = Saved({}, {})


async def read_saved(netns: str, backend: Backend, *, ipv6: bool) -> Saved:
    """All rules of iptables; nothing where the tool or the kernel has none of that kind."""
    prefix = f"{'ip6' if ipv6 else 'ip'}tables-{backend.removeprefix('iptables-')}"
    try:
        return Saved(*parse_counted(await IptablesTool(prefix, netns).save(counters=True)))
    except KernelError:
        return NOTHING


def with_iptables_text(hit: RuleHit, after: Saved, before: Saved = NOTHING) -> RuleHit:
    """The hit with what iptables-save says of its rule, or of the policy. Pure."""
    if hit.policy:
        policy = after.policies.get((hit.table, hit.chain), "")
        return replace(hit, verdict=policy.lower(), text=f"policy {policy}") if policy else hit
    rule = after.rule(hit.table, hit.chain, hit.number)
    if rule is None:
        return hit
    verdict, to = verdict_of(rule.text, after.tables.get(hit.table, {}))
    was = before.rule(hit.table, hit.chain, hit.number)
    same = was if was and was.text == rule.text else None
    return replace(
        hit, text=rule.text, verdict=verdict, to=to, comment=options_of(rule.text).comment, after=_counter(rule),
        before=_counter(same),
    )  # fmt: skip


def verdict_of(text: str, chains: Container[str]) -> tuple[str, str]:
    """What a rule of iptables decides, and which of the chains it leads to. Pure."""
    target = options_of(text).target
    if target in chains:
        return "goto" if f" -g {target}" in f" {text}" else "jump", target
    return target.lower() or "continue", ""


def _counter(rule: SavedRule | None) -> Counter | None:
    if rule is None or rule.packets is None or rule.bytes is None:
        return None
    return Counter(rule.packets, rule.bytes)


class Rules:
    """The rules of one place, read as they are asked for."""

    def __init__(self, netns: str, reader: Reader, *, ipv6: bool) -> None:
        self._netns, self._ipv6 = netns, ipv6
        self._reader = reader
        self._tool = NftTool(netns)
        self._chains: dict[tuple[str, str, str], list[nft.Rule]] = {}
        self._before: dict[Backend, Saved] = {}
        self._after: dict[Backend, Saved] = {}

    @property
    def reader(self) -> Reader:
        """For more questions."""
        return self._reader

    def close(self) -> None:
        """Give the socket back."""
        self._reader.close()

    async def before(self, *, xtables: bool) -> None:
        """Read what iptables' rules have counted so far."""
        backends: list[Backend] = ["iptables-legacy"] if xtables else []
        family = "ip6" if self._ipv6 else "ip"
        if any(self._reader.chain(family, *where) for where in _KEPT_BY_IPTABLES_NFT):
            backends.append("iptables-nft")
        saved = await asyncio.gather(*(read_saved(self._netns, each, ipv6=self._ipv6) for each in backends))
        self._before = dict(zip(backends, saved, strict=True))

    async def after(self, backends: frozenset[Backend]) -> None:
        """Read the rules of iptables of these kinds as they are now."""
        kinds: list[Backend] = [each for each in backends if each != "nft"]
        saved = await asyncio.gather(*(read_saved(self._netns, each, ipv6=self._ipv6) for each in kinds))
        self._after = dict(zip(kinds, saved, strict=True))

    async def told(self, hit: RuleHit) -> tuple[RuleHit, nft.Rule | None]:
        """The hit in its rule's own words, and the rule itself where nf_tables could tell all of it."""
        if hit.backend == "iptables-nft":
            handles = [rule.handle for rule in self._rules_of(hit)] if not hit.policy else []
            number = handles.index(hit.handle) + 1 if hit.handle in handles else 0
            hit = replace(hit, number=number)
        if hit.backend != "nft":
            return with_iptables_text(
                hit, self._after.get(hit.backend, NOTHING), self._before.get(hit.backend, NOTHING)
            ), None
        if hit.policy:
            return replace(hit, text=f"policy {hit.verdict}"), None
        rule = next((rule for rule in self._rules_of(hit) if rule.handle == hit.handle), None)
        if rule is None:
            return hit, None
        if any(isinstance(each, nft.Unknown) for each in rule.expressions):
            return await self._asking_the_tool(hit, rule), None
        count = next((each for each in rule.expressions if isinstance(each, nft.Counter)), None)
        after = Counter(count.packets, count.bytes) if count else None
        return replace(hit, text=rule.text(), comment=rule.comment, after=after), rule

    def _rules_of(self, hit: RuleHit) -> Sequence[nft.Rule]:
        key = (hit.family, hit.table, hit.chain)
        if key not in self._chains:
            self._chains[key] = self._reader.rules(*key)
        return self._chains[key]

    async def _asking_the_tool(self, hit: RuleHit, rule: nft.Rule) -> RuleHit:
        """Rules of others may say what is not known here."""
        text = await rule_text(self._tool, hit.family, hit.table, hit.chain, hit.handle)
        if not text:
            return replace(hit, text=rule.text())
        comment = _TOOLS_COMMENT.search(text)
        return replace(hit, text=text, comment=comment[1] if comment else "")
