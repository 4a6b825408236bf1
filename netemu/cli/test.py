"""`netemu test`: a lab comes up, does the checks of its file, and goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from netemu.cli.junit import Case
from netemu.cli.junit import junit as xml
from netemu.cli.labs import pick
from netemu.cli.output import Format, note, say, say_json, write_file
from netemu.cli.root import need_root
from netemu.model.errors import UserError

if TYPE_CHECKING:
    from netemu.lab.checks import CheckResult


def test(file: Path, *, lab: str, keep: bool, junit: Path | None, output: Format) -> None:
    """`netemu test`. Exits with 1 if a check does not hold."""
    from netemu.lab.bring_up import bring_up
    from netemu.lab.checks import run_check
    from netemu.lab.tear_down import tear_down
    from netemu.lab.topology import read_topology

    name = lab or f"test-{os.getpid()}"
    checked = read_topology(file, name="" if lab else name)
    checks = checked.topology.spec.checks
    if not checks:
        raise UserError(f"{file}: no spec.checks; there is nothing to test")
    need_root()
    if junit:
        write_file(junit, "")  # refused before the work; and a run that is cut short leaves no older one's results
    if lab:
        pick(lab)
    else:
        bring_up(checked, report=lambda stage, seconds, missing: None)
    results: list[CheckResult] = []
    try:
        for check in checks:
            result = run_check(name, check)
            results.append(result)
            if output == Format.table:
                _print(len(results), result)
    finally:
        if not lab and not keep:
            tear_down(name)
    if keep and not lab:
        note(f"lab {name} is left as it is; `netemu down {name}` removes it")
    if junit:
        write_file(junit, xml(str(file), list(map(_case, results))))
    failed = sum(not result.passed for result in results)
    if output == Format.json:
        say_json({"file": str(file), "checks": results})
    else:
        say(f"{len(results) - failed} passed, {failed} failed")
    if failed:
        raise SystemExit(1)


def _print(number: int, result: CheckResult) -> None:
    say(f"{'ok  ' if result.passed else 'FAIL'} {number:3}  {result.name}  ({result.seconds:.2f} s)")
    if not result.passed:
        say(f"          {result.why}")
    if (story := result.story) is not None:
        for line in (f"one packet more: {story.summary}", *(story.why_not.lines() if story.why_not else ())):
            say(f"          {line}")


def _case(result: CheckResult) -> Case:
    from netemu.observe.story.story import lines_of

    return Case(result.name, result.seconds, result.why, "\n".join(lines_of(result.story) if result.story else ()))
