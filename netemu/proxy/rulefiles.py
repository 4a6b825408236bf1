"""The base rule set of a mode, read from `rules/`.

The files are in iptables-restore's syntax and hold what is there whatever Services exist: chains, the jumps to them
from the built-in chains, and fixed rules. Which files apply depends on settings; what stands in them is what the kernel
gets, but for the masquerade mark, whose bit is configurable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import netemu
from netemu.model.errors import UserError

Place = tuple[str, str]
"""(table, chain)."""

DEFAULT_MARK = "0x4000"


@dataclass(frozen=True, slots=True)
class Base:
    """Chains of ours with their fixed rules, and the jumps into them, all in file order."""

    chains: dict[Place, tuple[str, ...]]
    """Rules as `iptables-save` prints them, without `-A CHAIN`."""
    jumps: tuple[tuple[Place, str], ...]


def folder() -> Path:
    """Where `rules/` is: beside the package in a checkout, inside it when installed."""
    inside = Path(netemu.__file__).parent / "rules"
    return inside if inside.is_dir() else inside.parent.parent / "rules"


def load(mode: str, names: Iterable[str], *, mark: str = DEFAULT_MARK) -> Base:
    """Read `rules/MODE/NAME` one after another; rules of the same chain are in that order. Raises UserError."""
    chains: dict[Place, list[str]] = {}
    jumps: list[tuple[Place, str]] = []
    for name in names:
        path, table = folder() / mode / name, ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":"):
                chains.setdefault((table, line[1:].split()[0]), [])
            elif line.startswith(("-A ", "-I ")):
                command, chain, rule = line.replace(DEFAULT_MARK, mark).split(" ", 2)
                if command == "-I":
                    jumps.append(((table, chain), rule))
                else:
                    chains.setdefault((table, chain), []).append(rule)
            elif line and not line.startswith("#") and line != "COMMIT":
                raise UserError(f"{path}:{number}: expected *TABLE, :CHAIN, -A, -I, COMMIT or a comment")
    return Base({place: tuple(rules) for place, rules in chains.items()}, tuple(jumps))


def removal(
    base: Base,
    tables: Mapping[str, Mapping[str, Sequence[str]]],
    *,
    also: Iterable[Place] = (),
    spared: Collection[str] = (),
    successor: Base | None = None,
) -> str:
    """iptables-restore input that takes a mode out of `tables` (table to chain to rules); "" if it is in none.

    `also` are chains besides those of the base, `spared` names of chains that stay. What the mode `successor`, which is
    in force by now, has under the same name is its own. A chain that a foreign rule leads to is emptied and stays.
    """
    kept = successor or Base({}, ())
    there = {place for place in (*base.chains, *also) if place[1] in tables.get(place[0], {})}
    gone = {place for place in there if place[1] not in spared and place not in kept.chains}
    cut: set[tuple[Place, str]] = set()
    for (table, chain), rule in base.jumps:
        leads_to, jump = (table, _target(rule)), ((table, chain), rule)
        if rule in tables.get(table, {}).get(chain, ()) and jump not in kept.jumps:
            cut.update({jump} if leads_to in gone or leads_to in kept.chains else ())
    text = ""
    for table in sorted({table for table, _ in gone} | {table for (table, _), _ in cut}):
        chains = sorted(chain for of, chain in gone if of == table)
        stay = {
            _target(rule)
            for chain, rules in tables[table].items()
            for rule in rules
            if (table, chain) not in gone and ((table, chain), rule) not in cut
        }
        lines = [f":{chain} - [0:0]" for chain in chains]
        lines += [f"-D {chain} {rule}" for (of, chain), rule in sorted(cut) if of == table]
        lines += [f"-X {chain}" for chain in chains if chain not in stay]
        text += "\n".join((f"*{table}", *lines, "COMMIT", ""))
    return text


def _target(rule: str) -> str:
    _, found, rest = rule.rpartition("-j ")
    return rest.split(" ")[0] if found else ""
