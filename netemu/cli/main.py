"""The `netemu` command: every subcommand is a module beside this one."""

from __future__ import annotations


def main() -> None:
    """Entry point of the console script."""
    raise SystemExit("not built yet")
