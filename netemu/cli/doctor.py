"""`netemu doctor`."""

from __future__ import annotations

from netemu.cli.output import Format, say, say_json, table
from netemu.lab.features import findings


def doctor(output: Format) -> None:
    """`netemu doctor`. Exits with 1 if something that every lab needs is missing."""
    found = findings()
    lacking = [finding.name for finding in found if finding.needed and not finding.present]
    if output == Format.json:
        say_json([finding._asdict() for finding in found])
    else:
        rows = [(f.name, "yes" if f.present else "NO", "" if f.present else f.costs) for f in found]
        for line in table(("FEATURE", "PRESENT", "WHAT ITS LACK COSTS"), rows):
            say(line)
        say("")
        say(f"labs cannot run here: missing {', '.join(lacking)}" if lacking else "labs run here")
    if lacking:
        raise SystemExit(1)
