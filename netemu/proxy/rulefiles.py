"""The base rule set of a mode, read from `rules/`.

The files are in iptables-restore's syntax and hold what is there whatever Services exist: chains, the jumps to them
from the built-in chains, and fixed rules. Which files apply depends on settings; what stands in them is what the kernel
gets, but for the masquerade mark, whose bit is configurable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import netemu
from netemu.model.errors import UserError

Place = tuple[str, str]
"""(table, chain)."""

_DEFAULT_MARK = "0x4000"


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


def load(mode: str, names: Iterable[str], *, mark: str = _DEFAULT_MARK) -> Base:
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
                command, chain, rule = line.replace(_DEFAULT_MARK, mark).split(" ", 2)
                if command == "-I":
                    jumps.append(((table, chain), rule))
                else:
                    chains.setdefault((table, chain), []).append(rule)
            elif line and not line.startswith("#") and line != "COMMIT":
                raise UserError(f"{path}:{number}: expected *TABLE, :CHAIN, -A, -I, COMMIT or a comment")
    return Base({place: tuple(rules) for place, rules in chains.items()}, tuple(jumps))
