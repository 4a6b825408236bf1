"""`netemu matrix`: every vantage to every Service, predicted and measured."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from netemu.cli.junit import Case, junit
from netemu.cli.labs import pick
from netemu.cli.output import ReportFormat, json_text, note, say, write_file
from netemu.cli.root import need_root_everywhere
from netemu.model.errors import UserError

if TYPE_CHECKING:
    from netemu.observe.matrix.table import Matrix


def matrix(
    lab: str, namespace: str, service: str, *,
    count: int, timeout: float, traces: int, output: ReportFormat, file: Path | None,
) -> None:  # fmt: skip
    """`netemu matrix`. Exits with 1 if anything is not as predicted."""
    from netemu.lab.matrix import run_matrix
    from netemu.observe.matrix.report import lines, summary

    need_root_everywhere()
    name = pick(lab)
    if namespace and "/" in service:
        raise UserError(f"--service {service} names its namespace; leave --namespace out")
    full = service if "/" in service or not service else f"{namespace or 'default'}/{service}"
    table = run_matrix(name, namespace=namespace, service=full, count=count, timeout=timeout, traces=traces)
    if file:
        write_file(file, _text(name, table, output))
        note(f"{summary(table)}; see {file}")
    elif output == ReportFormat.table:
        on_terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if on_terminal else 0
        for line in lines(table, width=width, colour=on_terminal):
            say(line)
    else:
        sys.stdout.write(_text(name, table, output))
    if table.differences:
        raise SystemExit(1)


def _text(name: str, table: Matrix, output: ReportFormat) -> str:
    from netemu.observe.matrix import report as matrix_report

    match output:
        case ReportFormat.json:
            return json_text(matrix_report.report(table)) + "\n"
        case ReportFormat.html:
            return matrix_report.html(table, name)
        case ReportFormat.junit:
            return junit(f"netemu matrix {name}", _cases(table))
        case ReportFormat.table:
            return "\n".join([*matrix_report.lines(table), ""])


def _cases(table: Matrix) -> list[Case]:
    from netemu.observe.matrix.report import explanation, title

    return [
        Case(
            title(cell), round(cell.measured.seconds, 4) if cell.measured else 0.0, cell.difference,
            "\n".join(explanation(cell)), cell.row.service,
        )
        for cell in table.cells
        if cell.row.measurable
    ]  # fmt: skip
