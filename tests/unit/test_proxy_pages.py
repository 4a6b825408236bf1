"""What kube-proxy's own HTTP ports say."""

from __future__ import annotations

import asyncio
import json
import re
import socket

import pytest

from netemu.proxy.config import MODES, parse
from netemu.proxy.healthcheck import ServiceHealth
from netemu.proxy.metrics import FamilyMetrics, SyncMetrics, exposition
from netemu.proxy.pages import FamilyHealth, configz_page, health_page, other_page
from netemu.proxy.programmer import Written
from tests.unit.test_proxy_config import HEAD

GOOD, BAD = FamilyHealth(1_000.0, True), FamilyHealth(900.0, False)
NOW, NOW_TEXT = 2_000.0, "1970-01-01T00:33:20Z"


def test_a_healthy_node_says_so_for_each_family() -> None:
    answer = health_page({"IPv4": GOOD, "IPv6": GOOD}, eligible=True, now=NOW)

    assert answer.code == 200
    assert answer.body.startswith(f'{{"lastUpdated": "{NOW_TEXT}","currentTime": "{NOW_TEXT}", "nodeEligible": true, ')
    family = {"lastUpdated": "1970-01-01T00:16:40Z", "healthy": True}
    assert json.loads(answer.body)["status"] == {"IPv4": family, "IPv6": family}


@pytest.mark.parametrize(
    ("families", "eligible", "code", "healthy"),
    [
        pytest.param({"IPv4": GOOD, "IPv6": BAD}, True, 503, False, id="one family is late"),
        pytest.param({"IPv4": GOOD, "IPv6": BAD}, None, 503, False, id="livez: one family is late"),
        pytest.param({"IPv4": GOOD}, False, 503, True, id="node is about to go"),
        pytest.param({}, True, 200, True, id="nothing was asked for yet"),
    ],
)
def test_health(families: dict[str, FamilyHealth], eligible: bool | None, code: int, healthy: bool) -> None:
    answer = health_page(families, eligible=eligible, now=NOW)
    said = json.loads(answer.body)

    assert (answer.code, said["healthy"], said.get("nodeEligible")) == (code, healthy, eligible)
    assert said["lastUpdated"] == (NOW_TEXT if code == 200 else "1970-01-01T00:16:40Z")


def test_what_never_was_programmed_has_gos_zero_time() -> None:
    said = json.loads(health_page({"IPv4": FamilyHealth(0.0, False)}, eligible=None, now=NOW).body)

    assert said["lastUpdated"] == said["status"]["IPv4"]["lastUpdated"] == "0001-01-01T00:00:00Z"


def test_configz_is_the_file_with_its_defaults() -> None:
    config = parse({**HEAD, "iptables": {"syncPeriod": "10s"}})

    said = json.loads(configz_page(config, "nftables").body)["kubeproxy.config.k8s.io"]

    assert (said["mode"], said["iptables"]["syncPeriod"], said["iptables"]["masqueradeBit"]) == ("nftables", "10s", 14)
    assert parse(said).iptables == config.iptables


def test_profiles_are_refused_with_the_reason() -> None:
    assert (other_page("/debug/pprof/heap").code, other_page("/debug/pprof/heap").body[:11]) == (404, "no profiles")
    assert other_page("/x").body == "404 page not found\n"


async def test_two_families_at_once_open_a_health_check_port_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    failed: list[str] = []
    health = ServiceHealth("", lambda: True, lambda service, why: failed.append(f"{service}: {why}"))
    try:
        await asyncio.gather(*(health.update({"default/web": (port, count)}, ("127.0.0.1",)) for count in (1, 2)))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
    finally:
        health.close()

    assert failed == []
    assert b"X-Load-Balancing-Endpoint-Weight: 2\r\n" in answer


def counts() -> SyncMetrics:
    """Of three syncs, one of which failed, and one look for stale flows."""
    metrics = SyncMetrics()
    metrics.synced(Written(True, rules={"nat": 7, "filter": 2}, total={"nat": 7, "filter": 2}, no_local=(1, 2)))
    metrics.took(True, 0.5)
    metrics.synced(Written(False, rules={"nat": 1}, total={"nat": 8, "filter": 2}, no_local=(1, 2)))
    metrics.took(False, 0.001)
    metrics.failed(False)
    metrics.took(False, 0.001)
    metrics.reconciled(3, 0.002)
    return metrics


def series(mode: str) -> dict[str, float]:
    families = {"IPv4": FamilyMetrics(counts(), (1, 2)), "IPv6": FamilyMetrics(SyncMetrics(), (0, 1))}
    text = exposition(mode, families, {("healthz", 200): 4})
    found = dict(re.findall(r"^kubeproxy_(\S+) (\S+)$", text, re.MULTILINE))
    assert len(found) == sum(not line.startswith("#") for line in text.splitlines())
    return {name: float(value) for name, value in found.items()}


def test_both_families_are_told_apart() -> None:
    found = series("iptables")

    assert found['sync_proxy_rules_duration_seconds_count{ip_family="IPv4"}'] == 3
    assert found['sync_proxy_rules_duration_seconds_count{ip_family="IPv6"}'] == 0
    assert found['sync_full_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="0.512"}'] == 1
    assert found['sync_proxy_rules_iptables_total{ip_family="IPv4",table="nat"}'] == 8
    assert found['sync_proxy_rules_iptables_last{ip_family="IPv4",table="nat"}'] == 1
    assert found['sync_proxy_rules_iptables_partial_restore_failures_total{ip_family="IPv4"}'] == 1
    assert found['sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="external"}'] == 2
    assert found['conntrack_reconciler_deleted_entries_total{ip_family="IPv4"}'] == 3
    assert found['conntrack_reconciler_sync_duration_seconds_sum{ip_family="IPv4"}'] == 0.002
    assert found["sync_proxy_rules_service_changes_pending"] == 1
    assert found["sync_proxy_rules_endpoint_changes_pending"] == 3
    assert found['proxy_healthz_total{code="200"}'] == 4


@pytest.mark.parametrize("mode", MODES)
def test_each_metric_says_what_it_counts(mode: str) -> None:
    text = exposition(mode, {"IPv4": FamilyMetrics(counts(), (1, 2))}, {("healthz", 200): 4})

    told = re.findall(r"# HELP (\S+) \S.*\n# TYPE (\S+) ", text)
    assert len(told) == text.count("# TYPE") > 12
    assert all(about == typed for about, typed in told)


@pytest.mark.parametrize(
    ("mode", "has", "has_not"),
    [
        ("iptables", "sync_proxy_rules_iptables_restore_failures_total", "nftables"),
        ("nftables", "sync_proxy_rules_nftables_sync_failures_total", "iptables"),
        ("ipvs", "sync_proxy_rules_iptables_restore_failures_total", "sync_full"),
    ],
)
def test_a_mode_has_its_own_series(mode: str, has: str, has_not: str) -> None:
    found = series(mode)

    assert found[f'{has}{{ip_family="IPv4"}}'] == 1
    assert not [name for name in found if has_not in name]
