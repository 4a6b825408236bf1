"""What probing found, in lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from netemu.model.columns import table
from netemu.observe.probe.result import Percentiles, ProbeResult


def describe(source: str, result: ProbeResult) -> Iterator[str]:
    """Who answered how often, what failed, how even the spread is, how long it took."""
    yield f"{source} to {result.destination} over {result.protocol}: {result.answered} of {result.count} answered"
    sections = {"SERVER": result.servers, "SOURCE SEEN": result.sources, "ADDRESS": result.addresses}
    for head, counts in sections.items():
        if any(counts):
            yield ""
            yield from _shares(head, counts, result.answered if head != "ADDRESS" else result.count)
    if result.errors:
        yield ""
        rows = [(kind, number, result.details.get(kind, "")) for kind, number in result.errors.items()]
        yield from table(("ERROR", "COUNT", "FIRST"), rows)
    yield ""
    if (even := result.evenness) is not None:
        tested = f"chi-square {even.statistic:.2f}, {even.degrees} degrees of freedom, p = {even.p:.4g}"
        yield f"spread: {even.words} ({tested})"
    for name, times in (("answer", result.latency), ("lookup", result.lookup)):
        if times:
            yield f"{name}: {_milliseconds(times)}"
    if result.rate:
        yield f"rate: {result.rate:g} attempts per second on {result.connections} connections, {result.seconds:.2f} s"


def _shares(head: str, counts: Mapping[str, int], whole: int) -> Iterator[str]:
    rows = [(name or "(not told)", number, f"{100 * number / max(whole, 1):.0f} %") for name, number in counts.items()]
    yield from table((head, "COUNT", "SHARE"), rows)


def _milliseconds(times: Percentiles) -> str:
    parts = (("min", times.min), ("p50", times.p50), ("p90", times.p90), ("p99", times.p99), ("max", times.max))
    return ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in parts)
