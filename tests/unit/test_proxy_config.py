"""KubeProxyConfiguration: defaults, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netemu.model.errors import UserError
from netemu.proxy.config import KubeProxyConfiguration, load, parse

HEAD = {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"}

KUBEADM = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 0, contentType: "", kubeconfig: /k/kubeconfig.conf, qps: 0}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: 0, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, tcpEstablishedTimeout: null,
  udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 1s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s,
  tcpTimeout: 0s, udpTimeout: 0s}
kind: KubeProxyConfiguration
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
"""


def test_kubeadms_file_loads_with_upstreams_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text(KUBEADM)

    config = load(file)

    assert config.iptables == KubeProxyConfiguration().iptables
    assert (config.healthz_bind_address, config.conntrack.min) == ("0.0.0.0:10256", 131072)
    assert (config.conntrack.max_per_core, config.cluster_cidr) == (0, "10.244.0.0/16")


def test_zero_shortest_period_counts_as_unset() -> None:
    assert parse({**HEAD, "iptables": {"minSyncPeriod": "0s"}}).iptables.min_sync_period == 1.0


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("1h5m", 3900), ("250ms", 0.25), ("1m0.5s", 60.5)])
def test_durations(text: str, seconds: float) -> None:
    assert parse({**HEAD, "iptables": {"syncPeriod": text}}).iptables.sync_period == seconds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"kind": "Pod"}, "expected apiVersion kubeproxy.config.k8s.io/v1alpha1", id="other kind"),
        pytest.param({**HEAD, "modus": "x"}, 'unknown field "modus"', id="unknown field"),
        pytest.param({**HEAD, "iptables": {"bit": 1}}, 'unknown field "iptables.bit"', id="unknown inner field"),
        pytest.param({**HEAD, "iptables": {"masqueradeBit": "x"}}, "iptables.masqueradeBit: Expected `int`", id="type"),
        pytest.param({**HEAD, "iptables": {"masqueradeBit": 32}}, "iptables.masqueradeBit: 32 is not", id="bit"),
        pytest.param({**HEAD, "iptables": {"syncPeriod": "30"}}, "iptables.syncPeriod: Expected a duration", id="unit"),
        pytest.param({**HEAD, "mode": "fast"}, "mode: 'fast' is no proxy mode", id="no mode"),
        pytest.param({**HEAD, "clusterCIDR": "10.0.0.0"}, "clusterCIDR: '10.0.0.0' is not a CIDR", id="CIDR"),
        pytest.param({**HEAD, "detectLocalMode": "X"}, "detectLocalMode: 'X' is none of", id="local mode"),
        pytest.param({**HEAD, "metricsBindAddress": "x"}, "metricsBindAddress: 'x' is not an address", id="address"),
    ],
)
def test_refuses(content: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(content)

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_broken_yaml_is_one_line_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text("a: [")

    with pytest.raises(UserError, match=r"config\.conf: not valid YAML: ") as caught:
        load(file)

    assert "\n" not in str(caught.value)
