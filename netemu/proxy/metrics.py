"""kube-proxy's metrics under upstream's names (`pkg/proxy/metrics/metrics.go`), as Prometheus text.

Written by hand: it is a screen of code, where the client library costs more to import than a whole sync takes.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from netemu.model import times
from netemu.model.objects import EndpointSlice
from netemu.proxy.programmer import Written

_TRIGGER_ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"
_SYNC_BUCKETS = tuple(0.001 * 2**i for i in range(15))
_NETWORK_BUCKETS = (0.25, 0.5, *range(1, 60), *range(60, 121, 5), *range(150, 301, 30))


_HELP = {
    "conntrack_reconciler_deleted_entries_total": "Stale UDP flows that were forgotten.",
    "conntrack_reconciler_sync_duration_seconds": "Time to look for stale UDP flows and to forget them.",
    "network_programming_duration_seconds": "Time from a change of endpoints to the rules of it.",
    "proxy_healthz_total": "Answers of /healthz by status code.",
    "proxy_livez_total": "Answers of /livez by status code.",
    "sync_full_proxy_rules_duration_seconds": "Time of syncs that looked at every Service.",
    "sync_partial_proxy_rules_duration_seconds": "Time of syncs that looked at what had changed.",
    "sync_proxy_rules_duration_seconds": "Time of syncs.",
    "sync_proxy_rules_endpoint_changes_pending": "Services whose endpoints have changed since the last sync.",
    "sync_proxy_rules_endpoint_changes_total": "Changes of EndpointSlices.",
    "sync_proxy_rules_iptables_last": "Rules that the last sync wrote, by table.",
    "sync_proxy_rules_iptables_partial_restore_failures_total": "Refused syncs of what had changed.",
    "sync_proxy_rules_iptables_restore_failures_total": "Refused syncs.",
    "sync_proxy_rules_iptables_total": "Rules that are there, by table.",
    "sync_proxy_rules_last_queued_timestamp_seconds": "When a sync was asked for last.",
    "sync_proxy_rules_last_timestamp_seconds": "When a sync succeeded last.",
    "sync_proxy_rules_nftables_cleanup_failures_total": "Refused removals of what is stale.",
    "sync_proxy_rules_nftables_sync_failures_total": "Refused syncs.",
    "sync_proxy_rules_no_local_endpoints_total": "Ports (ipvs: Services) with a Local policy and no endpoint here.",
    "sync_proxy_rules_service_changes_pending": "Services that have changed since the last sync.",
    "sync_proxy_rules_service_changes_total": "Changes of Services.",
}


class Histogram:
    """Counts per bucket, cumulative when printed."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """The series of this histogram; `labels` are written out, as in `ip_family="IPv4"`."""
        reached = 0
        for bound, count in zip((*map(_number, self._bounds), "+Inf"), self._counts, strict=True):
            reached += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {reached}'
        yield f"{name}_sum{{{labels}}} {_number(self._sum)}"
        yield f"{name}_count{{{labels}}} {reached}"


class SyncMetrics:
    """What one sync loop counts."""

    def __init__(self) -> None:
        self.started = time.time()
        self.sync, self.full, self.partial = (Histogram(_SYNC_BUCKETS) for _ in range(3))
        self.network, self.flows = Histogram(_NETWORK_BUCKETS), Histogram(_SYNC_BUCKETS)
        self.flows_deleted = 0
        self.last_sync = self.last_queued = 0.0
        self.service_changes = self.endpoint_changes = 0
        self.failures = self.partial_failures = 0
        self.written = Written(False)
        self._triggers: list[float] = []

    def triggered(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Remember when the change behind an EndpointSlice happened; changes from before this start do not count."""
        text = new.annotations.get(_TRIGGER_ANNOTATION, "") if new else ""
        if not text or (old and old.annotations.get(_TRIGGER_ANNOTATION) == text):
            return
        try:
            moment = times.parse(text).timestamp()
        except ValueError:
            return
        if moment >= self.started:
            self._triggers.append(moment)

    def synced(self, written: Written) -> None:
        """A sync went well."""
        self.last_sync, self.written = time.time(), written
        for moment in self._triggers:
            self.network.observe(self.last_sync - moment)
        self._triggers.clear()

    def failed(self, full: bool) -> None:
        """A sync was refused by the kernel."""
        self.failures += 1
        self.partial_failures += not full

    def took(self, full: bool, seconds: float) -> None:
        """A sync is over, whether it went well or not: from before it took the changes until after it cleaned flows."""
        self.sync.observe(seconds)
        (self.full if full else self.partial).observe(seconds)

    def reconciled(self, deleted: int, seconds: float) -> None:
        """Stale flows were looked for."""
        self.flows.observe(seconds)
        self.flows_deleted += deleted


@dataclass(frozen=True, slots=True)
class FamilyMetrics:
    """What one address family contributes: its sync loop's counts, and (Services, endpoints) that wait."""

    counts: SyncMetrics
    pending: tuple[int, int]


class _Page:
    """Lines of the text format."""

    def __init__(self, families: Mapping[str, FamilyMetrics]) -> None:
        self.lines: list[str] = []
        self._families = families

    def _head(self, kind: str, name: str) -> None:
        self.lines += [f"# HELP kubeproxy_{name} {_HELP[name]}", f"# TYPE kubeproxy_{name} {kind}"]

    def put(self, kind: str, name: str, samples: Iterable[tuple[str, float]]) -> None:
        """A family of samples: (labels written out, value)."""
        self._head(kind, name)
        for labels, value in samples:
            self.lines.append(f"kubeproxy_{name}{{{labels}}} {_number(value)}" if labels else _line(name, value))

    def each(self, kind: str, name: str, value: Callable[[SyncMetrics], float]) -> None:
        """One sample per address family."""
        self.put(kind, name, ((_family(f), value(m.counts)) for f, m in self._families.items()))

    def all(self, kind: str, name: str, value: Callable[[FamilyMetrics], float]) -> None:
        """One sample for both address families together."""
        self.put(kind, name, [("", sum(value(m) for m in self._families.values()))])

    def histogram(self, name: str, of: Callable[[SyncMetrics], Histogram]) -> None:
        """One histogram per address family."""
        self._head("histogram", name)
        for family, metrics in self._families.items():
            self.lines += of(metrics.counts).lines(f"kubeproxy_{name}", _family(family))

    def by_label(self, name: str, label: str, values: Callable[[SyncMetrics], Mapping[str, float]]) -> None:
        """A gauge per address family and value of another label."""
        self.put(
            "gauge",
            name,
            (
                (f'{_family(family)},{label}="{one}"', value)
                for family, metrics in self._families.items()
                for one, value in values(metrics.counts).items()
            ),
        )


def exposition(mode: str, families: Mapping[str, FamilyMetrics], codes: Mapping[tuple[str, int], int]) -> str:
    """The answer to GET /metrics: `families` by the value of `ip_family`, `codes` counts (healthz or livez, status).

    Which series a mode has, and which have an `ip_family`, is as in 1.33 and later.
    """
    page = _Page(families)
    page.histogram("sync_proxy_rules_duration_seconds", lambda m: m.sync)
    page.histogram("network_programming_duration_seconds", lambda m: m.network)
    page.each("gauge", "sync_proxy_rules_last_timestamp_seconds", lambda m: m.last_sync)
    page.each("gauge", "sync_proxy_rules_last_queued_timestamp_seconds", lambda m: m.last_queued)
    page.all("gauge", "sync_proxy_rules_service_changes_pending", lambda f: f.pending[0])
    page.all("gauge", "sync_proxy_rules_endpoint_changes_pending", lambda f: f.pending[1])
    page.all("counter", "sync_proxy_rules_service_changes_total", lambda f: f.counts.service_changes)
    page.all("counter", "sync_proxy_rules_endpoint_changes_total", lambda f: f.counts.endpoint_changes)
    policies = ("internal", "external")
    page.by_label(
        "sync_proxy_rules_no_local_endpoints_total",
        "traffic_policy",
        lambda m: dict(zip(policies, m.written.no_local, strict=True)),
    )
    page.histogram("conntrack_reconciler_sync_duration_seconds", lambda m: m.flows)
    page.each("counter", "conntrack_reconciler_deleted_entries_total", lambda m: m.flows_deleted)
    _of_mode(page, mode)
    for path in ("healthz", "livez"):
        page.put("counter", f"proxy_{path}_total", ((f'code="{c}"', n) for (p, c), n in codes.items() if p == path))
    return "\n".join(page.lines) + "\n"


def _of_mode(page: _Page, mode: str) -> None:
    if mode in ("iptables", "nftables"):
        page.histogram("sync_full_proxy_rules_duration_seconds", lambda m: m.full)
        page.histogram("sync_partial_proxy_rules_duration_seconds", lambda m: m.partial)
    if mode in ("iptables", "ipvs"):
        page.each("counter", "sync_proxy_rules_iptables_restore_failures_total", lambda m: m.failures)
    if mode == "iptables":
        tables = ("filter", "nat")
        page.each("counter", "sync_proxy_rules_iptables_partial_restore_failures_total", lambda m: m.partial_failures)
        page.by_label(
            "sync_proxy_rules_iptables_total", "table", lambda m: {t: m.written.total.get(t, 0) for t in tables}
        )
        page.by_label(
            "sync_proxy_rules_iptables_last", "table", lambda m: {t: m.written.rules.get(t, 0) for t in tables}
        )
    if mode == "nftables":
        page.each("counter", "sync_proxy_rules_nftables_sync_failures_total", lambda m: m.failures)
        # A clean-up is part of a sync here, and fails with it.
        page.each("counter", "sync_proxy_rules_nftables_cleanup_failures_total", lambda _: 0)


def _family(name: str) -> str:
    return f'ip_family="{name}"'


def _line(name: str, value: float) -> str:
    return f"kubeproxy_{name} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
