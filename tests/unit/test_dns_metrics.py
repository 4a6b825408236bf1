"""The page that Prometheus reads of cluster DNS."""

from __future__ import annotations

import re
from pathlib import Path

import netemu.dns
from netemu.dns.metrics import HELP, Metrics


def test_each_metric_says_what_it_counts() -> None:
    metrics = Metrics()
    metrics.add("coredns_cache_hits_total", (("type", "success"),))
    metrics.histogram("coredns_health_request_duration_seconds").add(0.1)
    metrics.gauge("coredns_hosts_entries", (), lambda: 3)

    told = re.findall(r"# HELP (\S+) \S.*\n# TYPE (\S+) ", metrics.text())

    assert [about for about, _ in told] == [typed for _, typed in told]
    assert {name for name, _ in told} > {"coredns_hosts_entries", "coredns_cache_hits_total", "coredns_panics_total"}


def test_what_is_counted_anywhere_is_described() -> None:
    (folder,) = netemu.dns.__path__
    sources = [file.read_text() for file in Path(folder).rglob("*.py")]
    patterns = {
        re.sub(r"{.+?}", r"\\w+", name) for text in sources for name in re.findall(r'f?"(coredns_[^"]+)"', text)
    }

    assert len(patterns) > 20
    assert [p for p in sorted(patterns) if not any(re.fullmatch(p, name) for name in HELP)] == []
