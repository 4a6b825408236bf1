"""The `netemu` command: all commands, in the order in which `--help` lists them.

Each command is a function, in a module `*_commands` for its topic, that reads its options; the work is in the modules
that it imports.

Imports inside the functions are on purpose: `netemu --help` and every short command pay only for what they use.
Exit codes: 0 done, 1 refused (one line says why), 2 wrong usage.
"""

from __future__ import annotations

import os
import sys

import typer

from netemu.cli import lab_commands, observing_commands, part_commands
from netemu.model.errors import NetemuError, UserError

app = typer.Typer(
    name="netemu",
    help="A Kubernetes network you can hold in your hand: real packets, real kube-proxy rules, real cluster DNS.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for topic in (lab_commands, observing_commands, part_commands):
    app.add_typer(topic.app)
app.add_typer(lab_commands.snapshots, name="snapshot")


def main() -> None:
    """Entry point: run a command, tell a refusal in one line."""
    try:
        app(prog_name="netemu")
    except NetemuError as error:
        placed = isinstance(error, UserError) and error.placed
        sys.stderr.write(f"{error}\n" if placed else f"error: {error}\n")
        raise SystemExit(1) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(1) from None
