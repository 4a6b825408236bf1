"""Counters under CoreDNS's names, in the Prometheus text format.

By hand, because a reply must cost a few additions: everything that labels it is looked up once (`Metrics.series`), and
the histograms that a reply belongs to hang on that. Names, labels and buckets: `coredns/plugin/metrics/vars`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from itertools import accumulate
from typing import NamedTuple

Labels = tuple[tuple[str, str], ...]
SECONDS = tuple(0.00025 * 2**i for i in range(16))
"""Buckets of durations: 0.25 ms to 8 s."""
OCTETS = (0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16e3, 32e3, 48e3, 64e3)
"""Buckets of message sizes."""


class Histogram:
    """How often values fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.total += value * times

    def cumulative(self) -> list[tuple[str, int]]:
        """(upper bound, values up to it), as Prometheus has them."""
        bounds = [f"{bound:g}" for bound in self._bounds]
        return list(zip([*bounds, "+Inf"], accumulate(self._counts), strict=True))


class ReplyKey(NamedTuple):
    """What tells replies apart."""

    server: str
    zone: str
    proto: str
    family: str
    type: str
    rcode: str
    plugin: str
    do: bool = False


class Series:
    """Replies that share all labels, and the histograms they belong to (shared with other series)."""

    __slots__ = ("durations", "replies", "requests", "responses")

    def __init__(self, requests: Histogram, responses: Histogram, durations: Histogram) -> None:
        self.replies = 0
        self.requests, self.responses, self.durations = requests, responses, durations


HELP = {
    "coredns_acl_allowed_requests_total": "Requests that a rule lets through.",
    "coredns_acl_blocked_requests_total": "Requests answered with REFUSED by a rule.",
    "coredns_acl_dropped_requests_total": "Requests left without an answer by a rule.",
    "coredns_acl_filtered_requests_total": "Requests answered with nothing by a rule.",
    "coredns_autopath_success_total": "Requests that a domain further down the search path answered.",
    "coredns_build_info": "What was built: always 1.",
    "coredns_cache_entries": "Replies that are kept, by kind.",
    "coredns_cache_evictions_total": "Replies that made room for others.",
    "coredns_cache_hits_total": "Requests answered with a reply that was kept.",
    "coredns_cache_misses_total": "Requests that no kept reply answers.",
    "coredns_cache_prefetch_total": "Replies that were renewed before they expired.",
    "coredns_cache_requests_total": "Requests that looked for a kept reply.",
    "coredns_cache_served_stale_total": "Requests answered with a reply that has expired.",
    "coredns_dns_do_requests_total": "Requests with the DO bit.",
    "coredns_dns_request_duration_seconds": "Time from reading a request to writing its reply.",
    "coredns_dns_request_size_bytes": "Sizes of requests.",
    "coredns_dns_requests_total": "Requests by transport, address family and type.",
    "coredns_dns_response_size_bytes": "Sizes of replies.",
    "coredns_dns_responses_total": "Replies by response code and by the plugin that answered.",
    "coredns_forward_healthcheck_broken_total": "Attempts with every upstream down.",
    "coredns_forward_max_concurrent_rejects_total": "Requests refused because too many were on their way.",
    "coredns_health_request_duration_seconds": "Time that the server took to answer a question about its health.",
    "coredns_health_request_failures_total": "Questions about the server's health without an answer.",
    "coredns_hosts_entries": "Entries of the hosts file and of those in the Corefile.",
    "coredns_kubernetes_dns_programming_duration_seconds": "Time from a change of endpoints to the records of it.",
    "coredns_local_localhost_requests_total": "Requests for localhost in a domain, as search paths make them.",
    "coredns_panics_total": "Questions that ended in a bug.",
    "coredns_plugin_enabled": "Plugins of each zone: always 1.",
    "coredns_proxy_conn_cache_hits_total": "Requests sent over a connection that was open.",
    "coredns_proxy_conn_cache_misses_total": "Requests for which a connection was opened.",
    "coredns_proxy_healthcheck_failures_total": "Checks that an upstream failed.",
    "coredns_proxy_request_duration_seconds": "Time that an upstream took, by upstream and response code.",
    "coredns_reload_failed_total": "Corefiles that were not taken up.",
    "coredns_rrl_requests_exceeded_total": "Requests beyond what one client may ask.",
    "coredns_rrl_responses_exceeded_total": "Replies beyond what one client may get.",
}


class Metrics:
    """All counters of one server."""

    def __init__(self) -> None:
        self._replies: dict[ReplyKey, Series] = {}
        self._counters: dict[str, dict[Labels, float]] = {"coredns_panics_total": {(): 0}}
        self._histograms: dict[str, dict[Labels, Histogram]] = {}
        self._gauges: dict[str, dict[Labels, Callable[[], float]]] = {}
        self.before_reading: list[Callable[[], None]] = []
        """Called before figures are told: what counts apart carries its figures over."""

    def series(self, key: ReplyKey) -> Series:
        """The counters for replies of this kind."""
        found = self._replies.get(key)
        if found is None:
            where = _where(key)
            sized = (*where, ("proto", key.proto))
            found = self._replies[key] = Series(
                self.histogram("coredns_dns_request_size_bytes", sized, OCTETS),
                self.histogram("coredns_dns_response_size_bytes", sized, OCTETS),
                self.histogram("coredns_dns_request_duration_seconds", where, SECONDS),
            )
        return found

    def add(self, name: str, labels: Labels = (), amount: float = 1) -> None:
        """Count something."""
        series = self._counters.setdefault(name, {})
        series[labels] = series.get(labels, 0) + amount

    def histogram(self, name: str, labels: Labels = (), bounds: tuple[float, ...] = SECONDS) -> Histogram:
        """The histogram of that name and those labels."""
        series = self._histograms.setdefault(name, {})
        found = series.get(labels)
        if found is None:
            found = series[labels] = Histogram(bounds)
        return found

    def gauge(self, name: str, labels: Labels, value: Callable[[], float]) -> None:
        """Show a value as it is when somebody looks."""
        self._gauges.setdefault(name, {})[labels] = value

    def forget(self, name: str) -> None:
        """Show none of a gauge's values any more."""
        self._gauges.pop(name, None)

    def text(self) -> str:
        """The page that Prometheus reads."""
        for carry_over in self.before_reading:
            carry_over()
        lines = []
        for name, values in sorted((self._counted_replies() | self._counters).items()):
            lines += _render(name, values)
        for name, histograms in sorted(self._histograms.items()):
            lines += _render_histograms(name, histograms)
        for name, gauges in sorted(self._gauges.items()):
            lines += _render(name, {labels: value() for labels, value in gauges.items()}, "gauge")
        return "\n".join(lines) + "\n"

    def _counted_replies(self) -> dict[str, dict[Labels, float]]:
        """Requests and responses, each with the labels that it has."""
        requests: dict[Labels, float] = {}
        responses: dict[Labels, float] = {}
        do: dict[Labels, float] = {}
        for key, series in self._replies.items():
            where = _where(key)
            asked = (*where, ("proto", key.proto), ("family", key.family), ("type", key.type))
            said = (*where, ("rcode", key.rcode), ("plugin", key.plugin))
            requests[asked] = requests.get(asked, 0) + series.replies
            responses[said] = responses.get(said, 0) + series.replies
            if key.do:
                do[where] = do.get(where, 0) + series.replies
        tables = {"requests_total": requests, "responses_total": responses, "do_requests_total": do}
        return {f"coredns_dns_{name}": table for name, table in tables.items() if table}


def _where(key: ReplyKey) -> Labels:
    return (("server", key.server), ("zone", key.zone), ("view", ""))


def _render(name: str, values: dict[Labels, float], kind: str = "counter") -> list[str]:
    return _head(name, kind) + [f"{_labelled(name, labels)} {value:.15g}" for labels, value in values.items()]


def _render_histograms(name: str, histograms: dict[Labels, Histogram]) -> list[str]:
    lines = _head(name, "histogram")
    for labels, histogram in histograms.items():
        buckets = histogram.cumulative()
        lines += [f"{_labelled(name + '_bucket', (*labels, ('le', bound)))} {count}" for bound, count in buckets]
        lines.append(f"{_labelled(name + '_sum', labels)} {histogram.total:.15g}")
        lines.append(f"{_labelled(name + '_count', labels)} {buckets[-1][1]}")
    return lines


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP {name} {HELP[name]}", f"# TYPE {name} {kind}"]


def _labelled(name: str, labels: Labels) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{inside}}}" if inside else name


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
