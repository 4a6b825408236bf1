"""What `netemu --help` lists, and that it costs nothing but what it needs."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

from netemu.cli.main import app

# fmt: off
COMMANDS = [
    "up", "down", "list", "status", "kubeconfig", "validate", "doctor", "exec", "logs",
    "probe", "matrix", "trace", "dig", "capture", "rules", "flows", "conntrack", "graph", "test", "dns-log",
    "dns-fault", "proxy", "proxy-mode", "dns", "version", "snapshot",
]
# fmt: on


def test_help_lists_every_command_in_order() -> None:
    said = CliRunner().invoke(app, ["-h"], env={"TERM": "dumb", "COLUMNS": "100"}).output

    assert [line.split()[0] for line in said.partition("Commands:\n")[2].splitlines()] == COMMANDS


def test_every_command_has_help() -> None:
    for command in COMMANDS:
        done = CliRunner().invoke(app, [command, "-h"], env={"TERM": "dumb", "COLUMNS": "100"})
        assert (done.exit_code, done.output.split()[:3]) == (0, ["Usage:", "netemu", command])


def test_help_loads_nothing_of_what_commands_do() -> None:
    program = (
        "import sys, netemu.cli.main; print(*{'.'.join(m.split('.')[:2]) for m in sys.modules if m[:7] == 'netemu.'})"
    )

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert set(loaded) == {"netemu.cli", "netemu.model"}
