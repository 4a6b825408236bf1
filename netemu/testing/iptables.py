"""iptables without a kernel: takes iptables-restore input, refuses what the tool refuses, prints iptables-save's text.

A restore is applied to a copy, table by table; a table takes effect at its COMMIT, as with the real tool: when the
second table is refused the first has been applied. `netemu.testing.packets` walks packets through what is held here.
One contract suite runs on this and on the real tools.
"""

from __future__ import annotations

import re
import shlex
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise

from netemu.model.errors import KernelError

BUILTIN = {
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}
_VERDICTS = {"ACCEPT", "DROP", "RETURN"}
_ONLY_IN = {"REJECT": {"filter"}, "DNAT": {"nat"}, "MASQUERADE": {"nat"}, "MARK": {"mangle", "filter", "nat"}}
_NAT_HOOKS = {"DNAT": {"PREROUTING", "OUTPUT"}, "MASQUERADE": {"POSTROUTING"}}
_LONG_COMMENT = re.compile(r'(?<=--comment )("[^"]{255}[^"]+"|[^" ]{256,})')
_ADDRESS = re.compile(r"^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$")

Chains = dict[str, list[str]]


@dataclass
class FakeIptables:
    """Implements `netemu.kernel.iptables.Iptables`. `restores` keeps every input that was applied."""

    tables: dict[str, Chains] = field(
        default_factory=lambda: {table: {chain: [] for chain in chains} for table, chains in BUILTIN.items()}
    )
    restores: list[str] = field(default_factory=list)
    fail_next: str = ""
    """Refuse the next restore with this text."""
    _known: dict[str, Chains] = field(default_factory=dict)
    _changes: int = 0

    async def restore(self, text: str) -> None:
        """See Iptables. Raises KernelError."""
        await self.foreign_changes()
        if self.fail_next:
            why, self.fail_next = self.fail_next, ""
            raise KernelError("iptables-restore", "fake", 1, why)
        table, chains, touched = "", {}, False
        for number, line in enumerate(text.splitlines(), 1):
            try:
                if line.startswith("*"):
                    table = line[1:]
                    if table not in self.tables:
                        raise _Refused(f"can't initialize table `{table}': Table does not exist")
                    chains = {chain: list(rules) for chain, rules in self.tables[table].items()}
                elif line == "COMMIT":
                    _check_table(table, chains)
                    self.tables[table], table, touched = chains, "", True
                elif line and not line.startswith("#"):
                    if not table:
                        raise _Refused("no table")
                    _apply(table, chains, line)
            except _Refused as error:
                raise KernelError("iptables-restore", "fake", 1, f"line {number} failed: {error}: {line}") from error
        if table:
            raise KernelError("iptables-restore", "fake", 1, f"COMMIT expected at line {number + 1}")
        if touched:
            self.restores.append(text)
            self._known = deepcopy(self.tables)

    async def save(self, table: str = "") -> str:
        """See Iptables."""
        lines: list[str] = []
        for name in [table] if table else list(self.tables):
            chains = self.tables[name]
            lines.append(f"*{name}")
            lines += [
                f":{chain} {'ACCEPT' if chain in BUILTIN[name] else '-'} [0:0]" for chain in _ordered(name, chains)
            ]
            lines += [f"-A {chain} {rule}" for chain in _ordered(name, chains) for rule in chains[chain]]
            lines.append("COMMIT")
        return "\n".join(lines) + "\n"

    async def has_chain(self, table: str, chain: str) -> bool:
        """See Iptables."""
        return chain in self.tables[table]

    async def foreign_changes(self) -> int | None:
        """See Iptables: how often the tables were not what the last restore, or the last look, has left."""
        if self.tables != self._known:
            self._known, self._changes = deepcopy(self.tables), self._changes + 1
        return self._changes

    def close(self) -> None:
        """See Iptables."""


class _Refused(Exception):
    """One line cannot be applied."""


def _ordered(table: str, chains: Chains) -> list[str]:
    return [*BUILTIN[table], *sorted(chains.keys() - set(BUILTIN[table]))]


def _apply(table: str, chains: Chains, line: str) -> None:
    if line.startswith(":"):
        name = line[1:].split()[0]
        if len(name) > 28:
            raise _Refused(f"chain name `{name}' too long (must be under 29 chars)")
        chains[name] = []
        return
    command, chain, *rest = line.split(" ", 2)
    if command == "-N":
        if chain in chains:
            raise _Refused("Chain already exists.")
        chains[chain] = []
        return
    if chain not in chains:
        raise _Refused("No chain/target/match by that name.")
    rule = _LONG_COMMENT.sub(_cut, rest[0] if rest else "")
    if command == "-A":
        _check_rule(table, chains, rule)
        chains[chain].append(rule)
    elif command == "-I":
        position, _, after = rule.partition(" ")
        index, rule = (int(position) - 1, after) if position.isdigit() else (0, rule)
        _check_rule(table, chains, rule)
        chains[chain].insert(index, rule)
    elif command == "-D":
        if rule not in chains[chain]:
            raise _Refused("Bad rule (does a matching rule exist in that chain?).")
        chains[chain].remove(rule)
    elif command == "-F":
        chains[chain].clear()
    elif command == "-X":
        _check_deletable(table, chains, chain)
        del chains[chain]
    else:
        raise _Refused(f"unknown command {command}")


def _cut(comment: re.Match[str]) -> str:
    """The first 255 bytes, which is what the kernel keeps."""
    quote = '"' if comment[0].startswith('"') else ""
    return f"{quote}{comment[0].strip(quote)[:255]}{quote}"


def _check_deletable(table: str, chains: Chains, chain: str) -> None:
    if chain in BUILTIN[table] or chains[chain] or any(chain == target(r) for rules in chains.values() for r in rules):
        raise _Refused("CHAIN_DEL failed (Device or resource busy)")


def target(rule: str) -> str:
    """What a rule jumps to, "" if nowhere."""
    _, found, rest = rule.rpartition("-j ")
    return rest.split(" ")[0] if found else ""


def _check_rule(table: str, chains: Chains, rule: str) -> None:
    words, to = shlex.split(rule), target(rule)
    if to in BUILTIN[table]:
        raise _Refused(f"Chain '{to}' is a built-in one")
    if to and to not in _VERDICTS and to not in _ONLY_IN and to not in chains:
        raise _Refused(f"Chain '{to}' does not exist")
    if to in _ONLY_IN and table not in _ONLY_IN[to]:
        raise _Refused("RULE_APPEND failed (Invalid argument)")
    if to == "DNAT" and not {"tcp", "udp", "sctp"} & set(words) and ":" in words[-1]:
        raise _Refused("Need TCP, UDP, SCTP or DCCP with port specification")
    for word, value in pairwise(words):
        if word in ("-s", "-d") or (word == "--to-destination" and value[0] != "["):
            _check_address(value.split("/")[0] if word != "--to-destination" else value.split(":")[0])
        if word == "--dport" and not (value.isdigit() and int(value) <= 65535):
            raise _Refused(f"invalid port/service `{value}' specified")


def _check_address(text: str) -> None:
    match = _ADDRESS.match(text)
    if ":" not in text and not (match and all(int(part) <= 255 for part in match.groups())):
        raise _Refused(f'Bad IP address "{text}"')


def _check_table(table: str, chains: Chains) -> None:
    """What the kernel checks with the whole table at hand: loops, and targets that only some hooks allow."""
    for hook in BUILTIN[table]:
        reached = _reach(chains, hook, ())
        for name in reached:
            for rule in chains[name]:
                if (to := target(rule)) in _NAT_HOOKS and hook not in _NAT_HOOKS[to]:
                    raise _Refused(f"RULE_APPEND failed (Invalid argument): {to} reached from {hook}")


def _reach(chains: Chains, chain: str, path: tuple[str, ...]) -> set[str]:
    if chain in path:
        raise _Refused("RULE_APPEND failed (Too many links)")
    found = {chain}
    for to in {target(rule) for rule in chains[chain]} & chains.keys() - found:
        found |= _reach(chains, to, (*path, chain))
    return found
