"""The truth table for people and programs: lines for a terminal, records, one page of HTML. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

import msgspec

from netemu.observe.cluster import Sender
from netemu.observe.matrix.table import Cell, Matrix, Row
from netemu.observe.predict import Outcome, Prediction
from netemu.observe.story.story import Story, lines_of

_RED, _PLAIN = "\x1b[1;31m", "\x1b[0m"
_NOT_ASKED = "."
_WORDS: Final = {Outcome.REFUSED: "refused", Outcome.DROPPED: "dropped", Outcome.UNREACHABLE: "no route"}
LEGEND: Final = (
    "ok: answered, and the server sees the sender's own address; masq: it sees a node's; a|b: depends on the endpoint"
    f" or node; {_NOT_ASKED}: not asked; a!=b: a was measured, b predicted"
)


class Record(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """One connection, as `-o json` tells it."""

    service: str
    port_name: str
    kind: str
    destination: str
    protocol: str
    vantage: str
    vantage_node: str
    predicted: tuple[str, ...]
    reason: str
    words: str
    endpoints: tuple[str, ...]
    sources: tuple[str, ...]
    measured: str = ""
    server: str = ""
    source_seen: str = ""
    detail: str = ""
    seconds: float = 0.0
    difference: str = ""
    story: Story | None = None
    """As `netemu trace` tells it."""


class Report(msgspec.Struct, frozen=True, rename="camel"):
    """The whole table, as `-o json` tells it."""

    vantages: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    count: int
    different: int
    connections: tuple[Record, ...]


def report(matrix: Matrix) -> Report:
    """For programs."""
    vantages = tuple(each.name for each in matrix.vantages)
    records = tuple(map(_record, matrix.cells))
    different = len(matrix.differences)
    return Report(vantages, matrix.notes, round(matrix.seconds, 3), len(records), different, records)


def _record(cell: Cell) -> Record:
    row, said, found = cell.row, cell.predicted, cell.measured
    return Record(
        service=row.service, port_name=row.port_name, kind=kind_of(row), destination=row.destination,
        protocol=row.protocol, vantage=cell.vantage.name, vantage_node=cell.vantage.node,
        predicted=tuple(map(str, said.outcomes)), reason=said.reason, words=said.words,
        endpoints=tuple(sorted(said.endpoints)), sources=tuple(sorted({each.source for each in said.answers})),
        measured=found.outcome if found else "", server=found.server if found else "",
        source_seen=found.source if found else "", detail=found.detail if found else "",
        seconds=round(found.seconds, 4) if found else 0.0, difference=cell.difference,
        story=cell.story,
    )  # fmt: skip


def title(cell: Cell) -> str:
    """What a cell is about, in a line."""
    row = cell.row
    port = f":{row.port_name}" if row.port_name else ""
    place = f" ({cell.vantage.node})" if cell.vantage.node and not cell.vantage.name.startswith("node/") else ""
    return f"{cell.vantage.name}{place} to {row.service}{port}, {kind_of(row)} {row.destination}/{row.protocol}"


def kind_of(row: Row) -> str:
    """`cluster IP`, `node port of worker-1`."""
    return f"{row.kind} of {row.node}" if row.node else row.kind


def word(cell: Cell) -> str:
    """What stands in the table: short, and where it differs both."""
    predicted = _predicted(cell.predicted)
    if not cell.row.measurable:
        return f"({predicted})"
    if not cell.measured or not cell.difference:
        return predicted
    found = _WORDS.get(cell.measured.outcome) or _answered(cell.measured.source, cell.predicted.source)
    return f"{found}!={predicted}" if found != predicted else f"other!={predicted}"


def _predicted(said: Prediction) -> str:
    words = {_answered(each.source, said.source) for each in said.answers}
    others = [_WORDS[outcome] for outcome in said.outcomes if outcome in _WORDS]
    return "|".join([*sorted(words, reverse=True), *others])


def _answered(seen: str, own: str) -> str:
    return "ok" if seen in ("", own) else "masq"


def heads(vantages: Sequence[Sender]) -> list[str]:
    """Column heads: nodes and clients by name, Pods by the node they are on."""
    return [each.name.partition("/")[2] if each.is_node or not each.node else f"pod@{each.node}" for each in vantages]


def lines(matrix: Matrix, *, width: int = 0, colour: bool = False) -> Iterator[str]:
    """The table for a terminal of so many columns; 0: as wide as it gets."""
    yield from _table(matrix, width, colour)
    yield ""
    yield LEGEND
    yield from matrix.notes
    for alike in _alike(matrix.differences):
        yield ""
        yield from (f"{_RED}{title(cell)}{_PLAIN}" if colour else title(cell) for cell in alike)
        yield from (f"  {line}".rstrip() for line in explanation(*alike))
    yield ""
    yield summary(matrix)


def _alike(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Those that differ in one way at one Service port and have no story of their own are explained together."""
    groups: dict[tuple[object, ...], list[Cell]] = {}
    for cell in cells:
        found, row = cell.measured, cell.row
        way = (cell.difference, found and found.detail, cell.predicted.reason, cell.predicted.endpoints)
        # The place of a cell with a story is nobody else's.
        own = (cell.vantage.name, row) if cell.story is not None else ()
        groups.setdefault((row.service, row.port_name, row.protocol, *way, *own), []).append(cell)
    return list(groups.values())


def explanation(cell: Cell, *others: Cell) -> list[str]:
    """Why a cell differs, and why it should not; the same of others that differ as it does."""
    found, said = cell.measured, cell.predicted
    told = [f"{cell.difference}{f' ({found.detail})' if found and found.detail else ''}"]
    if said.answers:
        told.append(f"endpoints: {', '.join(sorted(said.endpoints))}")
    told.append(f"predicted because ({said.reason}): {said.words}" + ("; and so on" if others else ""))
    if cell.story is None:
        protocol = "" if cell.row.protocol == "TCP" else f" --proto {cell.row.protocol.lower()}"
        return [*told, f"to see a packet: netemu trace {cell.vantage.name} {cell.row.destination}{protocol}"]
    if cell.story.why_not is not None:
        told.append(f"cause: {cell.story.why_not.text}")
    return [*told, "a packet sent afterwards:", *(f"  {line}".rstrip() for line in lines_of(cell.story))]


def summary(matrix: Matrix) -> str:
    """One line."""
    differ, count = len(matrix.differences), sum(cell.row.measurable for cell in matrix.cells)
    verdict = f"{differ} of {count} connections are not" if differ else f"{count} of {count} connections are"
    size = f"vantages: {len(matrix.vantages)}, addresses: {len(matrix.rows)}, {matrix.seconds:.1f} s"
    return f"{verdict} as predicted ({size})"


def _table(matrix: Matrix, width: int, colour: bool) -> Iterator[str]:
    by_place = {(cell.row, cell.vantage.name): cell for cell in matrix.cells}
    columns = heads(matrix.vantages)
    cells = [[by_place.get((row, each.name)) for each in matrix.vantages] for row in matrix.rows]
    left = [[_service_port(row), kind_of(row), f"{row.destination}/{row.protocol}"] for row in matrix.rows]
    words = [[word(cell) if cell else _NOT_ASKED for cell in each] for each in cells]
    full = _widths([["SERVICE", "KIND", "ADDRESS", *columns], *([*a, *b] for a, b in zip(left, words, strict=True))])
    numbered = bool(width) and sum(full) + 2 * len(full) > width
    for number, (head, vantage) in enumerate(zip(columns, matrix.vantages, strict=True), 1):
        if numbered or head.startswith("pod@"):
            yield f"{number if numbered else head}: {vantage.name}" + (f" on {vantage.node}" if vantage.node else "")
    yield ""
    if numbered:
        columns = [str(number) for number, _ in enumerate(columns, 1)]
    top = ["SERVICE", "KIND", "ADDRESS", *columns]
    widths = _widths([top, *([*a, *b] for a, b in zip(left, words, strict=True))])
    yield _line(top, widths, [""] * len(top))
    for names, said, found in zip(left, words, cells, strict=True):
        red = [_RED if colour and cell and cell.difference else "" for cell in found]
        yield _line([*names, *said], widths, ["", "", "", *red])


def _service_port(row: Row) -> str:
    return f"{row.service}:{row.port_name}" if row.port_name else row.service


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]


def _line(row: Sequence[str], widths: Sequence[int], paint: Sequence[str]) -> str:
    padded = (text.ljust(width) for text, width in zip(row, widths, strict=True))
    return "  ".join(f"{red}{text}{_PLAIN}" if red else text for text, red in zip(padded, paint, strict=True)).rstrip()


# --- HTML ------------------------------------------------------------------------------------------------------------

_STYLE: Final = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222 }
table { border-collapse: collapse } th, td { padding: .25em .6em; border: 1px solid #ddd; text-align: left }
thead th { position: sticky; top: 0; background: #f5f5f5 } code { white-space: nowrap }
.ok { background: #e6f4e6 } .masq { background: #e8f0fb } .refused, .dropped, .no { background: #f3f3f3; color: #666 }
.differs { background: #c62828; color: #fff; font-weight: bold } .none { color: #bbb }
dt { font-weight: bold } dd + dt { margin-top: 1em }
"""


def html(matrix: Matrix, name: str) -> str:
    """One page that needs nothing else."""
    by_place = {(cell.row, cell.vantage.name): cell for cell in matrix.cells}
    columns = zip(heads(matrix.vantages), matrix.vantages, strict=True)
    top = "".join(f'<th title="{escape(each.name)}">{escape(head)}</th>' for head, each in columns)
    body = []
    for row in matrix.rows:
        tds = "".join(_td(by_place.get((row, each.name))) for each in matrix.vantages)
        place = f"<td>{escape(kind_of(row))}</td><td><code>{escape(row.destination)}/{row.protocol}</code></td>"
        body.append(f"<tr><td>{escape(_service_port(row))}</td>{place}{tds}</tr>")
    told = "".join(
        f"{''.join(f'<dt>{escape(title(cell))}</dt>' for cell in alike)}"
        f"<dd><pre>{escape(chr(10).join(explanation(*alike)))}</pre></dd>"
        for alike in _alike(matrix.differences)
    )
    notes = "".join(f"<p>{escape(note)}</p>" for note in (LEGEND, *matrix.notes))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}: matrix</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(name)}</h1><p>{escape(summary(matrix))}</p>"
        f"<table><thead><tr><th>Service</th><th>kind</th><th>address</th>{top}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>{notes}<dl>{told}</dl></body></html>\n"
    )


def _td(cell: Cell | None) -> str:
    if cell is None:
        return f'<td class="none">{_NOT_ASKED}</td>'
    text = word(cell)
    kind = "differs" if cell.difference else text.strip("()").partition("|")[0].partition(" ")[0]
    return f'<td class="{kind}" title="{escape(cell.predicted.words)}">{escape(text)}</td>'
