"""iptables in one namespace, through its own tools.

Theory of operation: one `iptables-restore --noflush` applies any number of changes, each table in one go: the filter
table may be applied and nat refused. There are two kinds of the tool, over nf_tables and over the older x_tables;
rules of both are in force at the same time, so a node must stay with one. Which one is decided once per node, as the
wrapper in kube-proxy's image does: by whose tables already hold chains of the kubelet or of kube-proxy, or else more
rules. A node without any rules takes what the system calls `iptables` (`update-alternatives --config iptables`).

Neither kind is the better one for all uses. With 5,000 Services of 10 endpoints (Linux 6.18, iptables 1.8.9) the first
load takes 1 s with x_tables and 6 s with nf_tables in pieces, every later change 300 ms against 180 ms; with ten
Services a change takes 1 ms and 5 ms. x_tables write whole tables, nf_tables check all chains that can be reached.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct

from netemu.kernel import netns as namespaces
from netemu.kernel import process
from netemu.kernel.nftables import NftNetlink
from netemu.model.errors import KernelError, UserError

Tables = dict[str, dict[str, list[str]]]
"""Table to chain to rules, each as `iptables-save` prints it without `-A CHAIN `."""

_HINT = re.compile(r"^:(KUBE-IPTABLES-HINT|KUBE-KUBELET-CANARY|KUBE-PROXY-CANARY) ", re.MULTILINE)
_RULE = re.compile(r"^-A ", re.MULTILINE)
KINDS = ("nft", "legacy")
_WAIT_SECONDS = "5"
RESTORE_SECONDS = 600.0
"""A restore of tens of thousands of rules takes minutes over nf_tables; nothing is gained by giving up on it."""


class Iptables(Protocol):
    """One node's tables. Implemented by `IptablesTool`, `iptables_resident.ResidentIptables` and
    `netemu.testing.iptables.FakeIptables`."""

    async def restore(self, text: str) -> None:
        """Apply iptables-restore input, keeping what it does not name. Raises KernelError; a table is applied whole
        or not at all, but one table may be applied and a later one refused."""
        ...

    async def save(self, table: str = "") -> str:
        """All rules, or those of one table, in iptables-save's syntax."""
        ...

    async def has_chain(self, table: str, chain: str) -> bool:
        """Whether a chain is there."""
        ...

    async def foreign_changes(self) -> int | None:
        """A number that stays the same as long as nobody but this object changes rules in the namespace.

        It may differ for no reason. None where the kernel does not tell, as for the x_tables kind.
        """
        ...

    def close(self) -> None:
        """Give processes back; rules stay."""
        ...


class IptablesTool(Struct, frozen=True):
    """The tool of one kind and family, in one namespace."""

    prefix: str
    """`iptables`, `iptables-nft`, `iptables-legacy`, or the same with `ip6tables`."""
    netns: str = ""
    lock_file: Path | None = None
    """Own lock file of the x_tables kind; None: the machine's, which is right in the machine's own namespace."""

    async def restore(self, text: str) -> None:
        """See Iptables."""
        try:
            await self._run(*self.restore_command, text=text)
        except KernelError as error:
            raise naming_line(error, text) from error

    async def save(self, table: str = "", *, counters: bool = False) -> str:
        """See Iptables. With counters, each rule begins with `[PACKETS:BYTES]`."""
        options = (*(("-t", table) if table else ()), *(("-c",) if counters else ()))
        return await self._run(f"{self.prefix}-save", *options)

    async def has_chain(self, table: str, chain: str) -> bool:
        """See Iptables."""
        try:
            await self._run(self.prefix, "-w", _WAIT_SECONDS, "-t", table, "-S", chain)
        except KernelError:
            return False
        return True

    async def foreign_changes(self) -> int | None:
        """See Iptables: a tool that runs for one change knows of nothing between two."""
        return None

    def close(self) -> None:
        """See Iptables."""

    async def answers(self) -> bool:
        """Whether machine and kernel have this kind of the tool; what they lack cannot have left rules."""
        try:
            await self.save()
        except (KernelError, UserError):
            return False
        return True

    @property
    def legacy(self) -> bool:
        """Whether it is of the x_tables kind."""
        return "legacy" in os.path.realpath(shutil.which(self.prefix) or self.prefix)

    @property
    def restore_command(self) -> tuple[str, ...]:
        """What applies iptables-restore input."""
        return f"{self.prefix}-restore", "-w", _WAIT_SECONDS, "--noflush", "--counters"

    @property
    def environment(self) -> dict[str, str] | None:
        """Environment variables of the tool; None: those of this process."""
        return {**os.environ, "XTABLES_LOCKFILE": str(self.lock_file)} if self.lock_file else None

    async def _run(self, *argv: str, text: str = "") -> str:
        answer = await process.run(
            list(argv), netns=self.netns, input=text.encode(), env=self.environment, timeout=RESTORE_SECONDS
        )
        return answer.decode()


async def choose(netns: str = "", *, ipv6: bool = False, lock_file: Path | None = None) -> IptablesTool:
    """The kind this node already uses, for both families; plain `iptables` (the system's default) where it uses none.

    Raises UserError where no iptables is installed.
    """
    names = ("iptables", "ip6tables")
    if shutil.which(f"{names[ipv6]}-restore") is None:
        raise UserError(
            f"{names[ipv6]}-restore is not installed: kube-proxy's iptables mode needs it (Debian: iptables)"
        )
    used = [kind for kind in await _used(netns) if shutil.which(f"iptables-{kind}-save")]

    async def saved(table: str) -> dict[str, str]:
        """What each kind holds, both families in one text."""
        tools = [(kind, IptablesTool(f"{name}-{kind}", netns, lock_file)) for kind in used for name in names]
        texts = await asyncio.gather(*(_text(tool, table) for _, tool in tools))
        return {kind: "".join(t for (of, _), t in zip(tools, texts, strict=True) if of == kind) for kind in used}

    kind = hinted(await saved("mangle")) or (fuller(await saved("")) if used else "")
    return IptablesTool(f"{names[ipv6]}-{kind}" if kind else names[ipv6], netns, lock_file)


def hinted(mangle: Mapping[str, str]) -> str:
    """The first kind whose table mangle holds a chain of the kubelet or of kube-proxy; "" if none does."""
    return next((kind for kind, text in mangle.items() if _HINT.search(text)), "")


def fuller(tables: Mapping[str, str]) -> str:
    """The kind with more rules; "" if there are as many."""
    counts = {kind: len(_RULE.findall(text)) for kind, text in tables.items()}
    most = [kind for kind, count in counts.items() if count and count == max(counts.values())]
    return most[0] if len(most) == 1 else ""


async def _used(netns: str) -> list[str]:
    """Kinds that may hold rules; a new namespace is known to hold none without starting a tool."""

    nft = NftNetlink(netns)
    try:
        generations = await nft.generation()
    except KernelError:  # a kernel without nf_tables
        generations = 0
    finally:
        nft.close()
    return ["nft"] * (generations > 1) + ["legacy"] * await asyncio.to_thread(has_xtables, netns)


def has_xtables(netns: str = "", families: Sequence[str] = ("ip", "ip6")) -> bool:
    """Whether there are tables of x_tables, even empty ones."""
    with namespaces.entered(netns):
        files = (Path(f"/proc/thread-self/net/{family}_tables_names") for family in families)
        return any(file.exists() and file.read_text() for file in files)


async def _text(tool: IptablesTool, table: str) -> str:
    try:
        return await tool.save(table)
    except KernelError:  # a kernel without this kind or this family
        return ""


def naming_line(error: KernelError, text: str) -> KernelError:
    """The tool tells the number of the line it refused; a reader wants the line."""
    lines, found = text.splitlines(), re.search(r"line (\d+)", error.detail)
    if not found or not 0 < int(found[1]) <= len(lines):
        return error
    return KernelError.of(error.operation, error.where, error.code, f"{error.detail}: {lines[int(found[1]) - 1]}")


def parse_save(text: str) -> Tables:
    """Read iptables-save's output, counters or not."""
    tables: Tables = {}
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("-A "):
            _, chain, rule = (line + " ").split(" ", 2)
            chains[chain].append(rule.rstrip())
        elif line.startswith(":"):
            chains[line[1:].split(" ", 1)[0]] = []
        elif line.startswith("*"):
            chains = tables.setdefault(line[1:], {})
    return tables


def restore_text(
    declare: Mapping[tuple[str, str], tuple[str, ...]],
    *,
    insert: tuple[tuple[tuple[str, str], str], ...] = (),
    delete: tuple[tuple[str, str], ...] = (),
    edit: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType({}),
) -> str:
    """iptables-restore input: chains with their new content, rules to put at position 1, chains to remove, commands.

    Chains are keyed by (table, chain). Empty where there is nothing to do.
    """
    tables: dict[str, list[str]] = {}
    for table in ("mangle", "filter", "nat"):
        lines = [f":{chain} - [0:0]" for of, chain in (*declare, *delete) if of == table]
        lines += [f"-I {chain} 1 {rule}" for (of, chain), rule in insert if of == table]
        lines += [f"-A {chain} {rule}" for (of, chain), rules in declare.items() if of == table for rule in rules]
        lines += [command for (of, _), commands in edit.items() if of == table for command in commands]
        lines += [f"-X {chain}" for of, chain in delete if of == table]
        if lines:
            tables[table] = lines
    return "".join("\n".join((f"*{table}", *lines, "COMMIT", "")) for table, lines in tables.items())


def edits(chain: str, old: Sequence[str], new: Sequence[str]) -> tuple[str, ...] | None:
    """Commands that turn a chain's rules into others without touching (or resetting the counters of) those that stay.

    None where that cannot be said rule by rule: rules that occur twice, or that change places.
    """
    before, after = set(old), set(new)
    stay_old, stay_new = [r for r in old if r in after], [r for r in new if r in before]
    if stay_old != stay_new or len(before) != len(old) or len(after) != len(new):
        return None
    removed = (f"-D {chain} {rule}" for rule in old if rule not in after)
    added = (f"-I {chain} {index} {rule}" for index, rule in enumerate(new, 1) if rule not in before)
    return (*removed, *added)
