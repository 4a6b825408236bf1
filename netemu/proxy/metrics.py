"""kube-proxy's metrics under upstream's names (`pkg/proxy/metrics/metrics.go`), as Prometheus text.

Written by hand: it is a screen of code, where the client library costs more to import than a whole sync takes.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from netemu.model import times
from netemu.model.objects import EndpointSlice
from netemu.proxy.programmer import Written

_TRIGGER_ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"
_SYNC_BUCKETS = tuple(0.001 * 2**i for i in range(15))
_NETWORK_BUCKETS = (0.25, 0.5, *range(1, 60), *range(60, 121, 5), *range(150, 301, 30))


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

    def lines(self, name: str) -> Iterator[str]:
        """The series of this histogram."""
        reached = 0
        for bound, count in zip((*map(_number, self._bounds), "+Inf"), self._counts, strict=True):
            reached += count
            yield f'{name}_bucket{{le="{bound}"}} {reached}'
        yield f"{name}_sum {_number(self._sum)}"
        yield f"{name}_count {reached}"


class SyncMetrics:
    """What one sync loop counts."""

    def __init__(self) -> None:
        self.started = time.time()
        self.sync, self.full, self.partial = (Histogram(_SYNC_BUCKETS) for _ in range(3))
        self.network = Histogram(_NETWORK_BUCKETS)
        self.last_sync = self.last_queued = 0.0
        self.service_changes = self.endpoint_changes = 0
        self.restore_failures = self.partial_failures = 0
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
        self.sync.observe(written.seconds)
        (self.full if written.full else self.partial).observe(written.seconds)
        for moment in self._triggers:
            self.network.observe(self.last_sync - moment)
        self._triggers.clear()

    def failed(self, full: bool) -> None:
        """A sync was refused by the kernel."""
        self.restore_failures += 1
        self.partial_failures += not full


def exposition(metrics: SyncMetrics, pending: tuple[int, int], codes: Mapping[tuple[str, int], int]) -> str:
    """The answer to GET /metrics. `codes` counts answers by (healthz or livez, status)."""
    written = metrics.written
    tables = ("filter", "nat")
    out: list[str] = []
    for name, histogram in (
        ("sync_proxy_rules_duration_seconds", metrics.sync),
        ("sync_full_proxy_rules_duration_seconds", metrics.full),
        ("sync_partial_proxy_rules_duration_seconds", metrics.partial),
        ("network_programming_duration_seconds", metrics.network),
    ):
        out += [f"# TYPE kubeproxy_{name} histogram", *histogram.lines(f"kubeproxy_{name}")]

    def family(kind: str, name: str, *samples: tuple[str, float]) -> None:
        out.append(f"# TYPE kubeproxy_{name} {kind}")
        out.extend(f"kubeproxy_{name}{labels} {_number(value)}" for labels, value in samples)

    family("gauge", "sync_proxy_rules_last_timestamp_seconds", ("", metrics.last_sync))
    family("gauge", "sync_proxy_rules_last_queued_timestamp_seconds", ("", metrics.last_queued))
    family("gauge", "sync_proxy_rules_service_changes_pending", ("", pending[0]))
    family("gauge", "sync_proxy_rules_endpoint_changes_pending", ("", pending[1]))
    totals = [(f'{{table="{t}"}}', written.total.get(t, 0)) for t in tables]
    last = [(f'{{table="{t}"}}', written.rules.get(t, 0)) for t in tables]
    family("gauge", "sync_proxy_rules_iptables_total", *totals)
    family("gauge", "sync_proxy_rules_iptables_last", *last)
    policies = zip(("internal", "external"), written.no_local, strict=True)
    lonely = [(f'{{traffic_policy="{policy}"}}', count) for policy, count in policies]
    family("gauge", "sync_proxy_rules_no_local_endpoints_total", *lonely)
    family("counter", "sync_proxy_rules_service_changes_total", ("", metrics.service_changes))
    family("counter", "sync_proxy_rules_endpoint_changes_total", ("", metrics.endpoint_changes))
    family("counter", "sync_proxy_rules_iptables_restore_failures_total", ("", metrics.restore_failures))
    family("counter", "sync_proxy_rules_iptables_partial_restore_failures_total", ("", metrics.partial_failures))
    for path in ("healthz", "livez"):
        family("counter", f"proxy_{path}_total", *((f'{{code="{c}"}}', n) for (p, c), n in codes.items() if p == path))
    return "\n".join(out) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
