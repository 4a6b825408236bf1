"""Counters under CoreDNS's names, in the Prometheus text format.

By hand, because one reply must cost one addition: everything that labels a reply is looked up once, when its bytes are
first made, and `Series` is what they share from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Series:
    """Replies that share all labels."""

    replies: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    seconds: float = 0.0


ReplyKey = tuple[str, str, str, str, str, str, str]
"""server, zone, proto, family, type, rcode, plugin."""

_HELP = {
    "coredns_dns_requests_total": "Counter of DNS requests made per zone, protocol and family.",
    "coredns_dns_responses_total": "Counter of response status codes.",
}


class Metrics:
    """All counters of one server."""

    def __init__(self) -> None:
        self._replies: dict[ReplyKey, Series] = {}
        self._counters: dict[str, dict[Labels, float]] = {}
        self._gauges: list[tuple[str, Labels, Callable[[], float]]] = []

    def series(self, key: ReplyKey) -> Series:
        """The counters for replies of this kind."""
        found = self._replies.get(key)
        if found is None:
            found = self._replies[key] = Series()
        return found

    def add(self, name: str, labels: Labels = (), amount: float = 1) -> None:
        """Count something."""
        series = self._counters.setdefault(name, {})
        series[labels] = series.get(labels, 0) + amount

    def gauge(self, name: str, labels: Labels, value: Callable[[], float]) -> None:
        """Show a value as it is when somebody looks."""
        self._gauges = [entry for entry in self._gauges if entry[:2] != (name, labels)] + [(name, labels, value)]

    def text(self) -> str:
        """The page that Prometheus reads."""
        requests: dict[Labels, float] = {}
        responses: dict[Labels, float] = {}
        sums: dict[str, dict[Labels, float]] = {}
        for (server, zone, proto, family, kind, rcode, plugin), series in self._replies.items():
            where = (("server", server), ("zone", zone), ("view", ""))
            asked = (*where, ("proto", proto), ("family", family), ("type", kind))
            said = (*where, ("rcode", rcode), ("plugin", plugin))
            requests[asked] = requests.get(asked, 0) + series.replies
            responses[said] = responses.get(said, 0) + series.replies
            measured: tuple[tuple[str, Labels, float], ...] = (
                ("coredns_dns_request_duration_seconds", where, series.seconds),
                ("coredns_dns_request_size_bytes", (*where, ("proto", proto)), series.request_bytes),
                ("coredns_dns_response_size_bytes", (*where, ("proto", proto)), series.response_bytes),
            )
            for name, labels, total in measured:
                for suffix, amount in (("_sum", total), ("_count", series.replies)):
                    table = sums.setdefault(name + suffix, {})
                    table[labels] = table.get(labels, 0) + amount
        lines = _render("coredns_dns_requests_total", requests) + _render("coredns_dns_responses_total", responses)
        for name, values in (sums | self._counters).items():
            lines += _render(name, values)
        for name, labels, value in self._gauges:
            lines += _render(name, {labels: value()}, "gauge")
        return "\n".join(lines) + "\n"


def _render(name: str, values: dict[Labels, float], kind: str = "") -> list[str]:
    kind = kind or ("counter" if name.endswith("_total") else "untyped")
    lines = [f"# HELP {name} {_HELP[name]}"] if name in _HELP else []
    lines.append(f"# TYPE {name} {kind}")
    for labels, value in values.items():
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
        lines.append(f"{name}{{{inside}}} {value:g}" if inside else f"{name} {value:g}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
