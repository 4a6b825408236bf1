"""The rules that acted, in their own words: what `nft` or `iptables-save` prints, and what they have counted.

nf_tables names a rule by its handle, and is asked for the rules of that chain. x_tables names it by its number, and
only a tool can tell what it says: one `iptables-save` per place, before the packet and after it. For iptables-nft it
is both: the rule with the handle has a number in its chain, and that line of `iptables-nft-save` is its text.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from netemu.kernel import process
from netemu.kernel.iptables import IptablesTool
from netemu.kernel.nft_read import NftReader
from netemu.model import nft
from netemu.model.errors import KernelError
from netemu.observe.evidence import Backend, Counter, RuleHit

_LINE: Final = re.compile(r"^\[(\d+):(\d+)\] -A (\S+) ?(.*)$")
_CHAIN: Final = re.compile(r"^:(\S+) (\S+) \[(\d+):(\d+)\]$")
_TARGET: Final = re.compile(r"(?:^| )-(j|g) (\S+)")
_COMMENT: Final = re.compile(r'--comment (?:"((?:[^"\\]|\\.)*)"|(\S+))')
_TOOLS_COMMENT: Final = re.compile(r' ?comment "([^"]*)"$')
_HANDLE: Final = re.compile(r"^\s*(.*\S) # handle (\d+)$", re.MULTILINE)


@dataclass(slots=True)
class SavedChain:
    """A chain as iptables-save tells it. `policy` is "-" for a chain of a person."""

    policy: str
    counter: Counter
    rules: list[tuple[str, Counter]] = field(default_factory=list)


Saved = Mapping[tuple[str, str], SavedChain]
"""By table and chain."""


async def read_saved(netns: str, backend: Backend, *, ipv6: bool) -> Saved:
    """All rules of iptables; nothing where the tool or the kernel has none of that kind."""
    prefix = f"{'ip6' if ipv6 else 'ip'}tables-{backend.removeprefix('iptables-')}"
    try:
        return parse(await IptablesTool(prefix, netns).counted())
    except KernelError:
        return {}


def parse(text: str) -> Saved:
    """Read what `iptables-save -c` prints. Pure."""
    found: dict[tuple[str, str], SavedChain] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif chain := _CHAIN.match(line):
            found[table, chain[1]] = SavedChain(chain[2], Counter(int(chain[3]), int(chain[4])))
        elif rule := _LINE.match(line):
            found[table, rule[3]].rules.append((rule[4], Counter(int(rule[1]), int(rule[2]))))
    return found


def with_iptables_text(hit: RuleHit, after: Saved, before: Saved) -> RuleHit:
    """The hit with what iptables-save says of its rule, or of the policy. Pure."""
    chain = after.get((hit.table, hit.chain))
    if chain is None:
        return hit
    was = before.get((hit.table, hit.chain))
    if hit.policy:
        told = msgspec.structs.replace(hit, verdict=chain.policy.lower(), text=f"policy {chain.policy}")
        if hit.backend == "iptables-nft":  # whose policies count nothing
            return told
        return msgspec.structs.replace(told, after=chain.counter, before=was.counter if was else None)
    if not 0 < hit.number <= len(chain.rules):
        return hit
    text, counter = chain.rules[hit.number - 1]
    verdict, to = verdict_of(text, hit.table, after)
    earlier = was.rules[hit.number - 1] if was and hit.number <= len(was.rules) else None
    comment = _COMMENT.search(text)
    return msgspec.structs.replace(
        hit, text=text, verdict=verdict, to=to, comment=(comment[1] or comment[2]) if comment else "", after=counter,
        before=earlier[1] if earlier and earlier[0] == text else None,
    )  # fmt: skip


def verdict_of(text: str, table: str, saved: Saved) -> tuple[str, str]:
    """What a rule of iptables decides, and the chain it leads to. Pure."""
    target = _TARGET.search(text)
    if not target:
        return "continue", ""
    if (table, target[2]) in saved:
        return ("jump" if target[1] == "j" else "goto"), target[2]
    return target[2].lower(), ""


class Rules:
    """The rules of one place, read as they are asked for."""

    def __init__(self, netns: str, *, ipv6: bool) -> None:
        self._netns, self._ipv6 = netns, ipv6
        self._reader = NftReader(netns)
        self._chains: dict[tuple[str, str, str], list[nft.Rule]] = {}
        self._before: dict[Backend, Saved] = {}
        self._after: dict[Backend, Saved] = {}

    @property
    def reader(self) -> NftReader:
        """For more questions."""
        return self._reader

    def close(self) -> None:
        """Give the socket back."""
        self._reader.close()

    async def before(self, *, xtables: bool) -> None:
        """Read what iptables' rules have counted so far."""
        backends: list[Backend] = ["iptables-legacy"] if xtables else []
        family = "ip6" if self._ipv6 else "ip"
        if any(self._reader.chain(family, "nat" if c != "FORWARD" else "filter", c) for c in ("PREROUTING", "FORWARD")):
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
            hit = msgspec.structs.replace(hit, number=number)
        if hit.backend != "nft":
            return with_iptables_text(hit, self._after.get(hit.backend, {}), self._before.get(hit.backend, {})), None
        if hit.policy:
            return msgspec.structs.replace(hit, text=f"policy {hit.verdict}"), None
        rule = next((rule for rule in self._rules_of(hit) if rule.handle == hit.handle), None)
        if rule is None:
            return hit, None
        if any(isinstance(each, nft.Unknown) for each in rule.expressions):
            return await self._asking_the_tool(hit, rule), None
        count = next((each for each in rule.expressions if isinstance(each, nft.Counter)), None)
        after = Counter(count.packets, count.bytes) if count else None
        return msgspec.structs.replace(hit, text=rule.text(), comment=rule.comment, after=after), rule

    def _rules_of(self, hit: RuleHit) -> Sequence[nft.Rule]:
        key = (hit.family, hit.table, hit.chain)
        if key not in self._chains:
            self._chains[key] = self._reader.rules(*key)
        return self._chains[key]

    async def _asking_the_tool(self, hit: RuleHit, rule: nft.Rule) -> RuleHit:
        """Rules of others may say what is not known here."""
        argv = ["nft", "-a", "list", "chain", hit.family, hit.table, hit.chain]
        try:
            listed = (await process.run(argv, netns=self._netns)).decode()
        except KernelError:
            return msgspec.structs.replace(hit, text=rule.text())
        text = next((found[1] for found in _HANDLE.finditer(listed) if int(found[2]) == hit.handle), rule.text())
        comment = _TOOLS_COMMENT.search(text)
        return msgspec.structs.replace(hit, text=text, comment=comment[1] if comment else "")
