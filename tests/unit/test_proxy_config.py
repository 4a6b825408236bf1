"""KubeProxyConfiguration: defaults, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netemu.model.durations import Duration
from netemu.model.errors import UserError
from netemu.proxy.config import KubeProxyConfiguration, load, parse
from netemu.proxy.config_checks import without_effect

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
    periods = {"syncPeriod": text, "minSyncPeriod": "1ms"}

    read = parse({**HEAD, "iptables": periods}).iptables.sync_period

    assert read == Duration.parse(read.text) == seconds


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"kind": "Pod"}, "expected apiVersion kubeproxy.config.k8s.io/v1alpha1", id="other kind"),
        pytest.param({**HEAD, "modee": "x"}, 'unknown field "modee"; did you mean mode?', id="unknown field"),
        pytest.param(
            {**HEAD, "iptables": {"masqueradeBits": 1}},
            'unknown field "iptables.masqueradeBits"; did you mean masqueradeBit?',
            id="unknown inner field",
        ),
        pytest.param({**HEAD, "iptables": {"masqueradeBit": "x"}}, "iptables.masqueradeBit: Expected `int`", id="type"),
        pytest.param({**HEAD, "iptables": {"masqueradeBit": 32}}, "iptables.masqueradeBit: 32 is not", id="bit"),
        pytest.param({**HEAD, "iptables": {"syncPeriod": "30"}}, "iptables.syncPeriod: Expected a duration", id="unit"),
        pytest.param(
            {**HEAD, "ipvs": {"syncPeriod": "1s", "minSyncPeriod": "2s"}},
            "ipvs.syncPeriod: must not be shorter than minSyncPeriod, 2s",
            id="periods",
        ),
        pytest.param({**HEAD, "conntrack": {"min": -1}}, "conntrack.min: must not be negative", id="negative"),
        pytest.param({**HEAD, "oomScoreAdj": 1001}, "oomScoreAdj: 1001 is not within", id="score"),
        pytest.param({**HEAD, "mode": "fast"}, "mode: 'fast' is no proxy mode", id="no mode"),
        pytest.param(
            {**HEAD, "mode": "nftable"},
            "mode: 'nftable' is no proxy mode of Linux; did you mean nftables?",
            id="near mode",
        ),
        pytest.param({**HEAD, "clusterCIDR": "10.0.0.0"}, "clusterCIDR: '10.0.0.0' is not a CIDR", id="CIDR"),
        pytest.param(
            {**HEAD, "clusterCIDR": "10.0.0.0/16,10.1.0.0/16"}, "clusterCIDR: one CIDR, or one of each", id="two CIDRs"
        ),
        pytest.param(
            {**HEAD, "nodePortAddresses": ["primary", "10.0.0.0/8"]},
            "nodePortAddresses: 'primary' stands",
            id="primary",
        ),
        pytest.param({**HEAD, "detectLocalMode": "X"}, "detectLocalMode: 'X' is none of", id="local mode"),
        pytest.param(
            {**HEAD, "detectLocalMode": "BridgeInterface"},
            "detectLocalMode: BridgeInterface needs detectLocal.bridgeInterface",
            id="no bridge",
        ),
        pytest.param(
            {**HEAD, "detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "a b"}},
            "detectLocal.bridgeInterface: 'a b' is no name of an interface",
            id="bridge",
        ),
        pytest.param({**HEAD, "bindAddress": "eth0"}, "bindAddress: 'eth0' is not an IP address", id="bind address"),
        pytest.param({**HEAD, "metricsBindAddress": "x"}, "metricsBindAddress: 'x' is not an address", id="address"),
        pytest.param(
            {**HEAD, "featureGates": {"MultiCIDRServiceAllocators": True}},
            "featureGates.MultiCIDRServiceAllocators: no feature gate of kube-proxy; did you mean MultiCIDR",
            id="gate",
        ),
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

    with pytest.raises(UserError, match=r"config\.conf:\d+: not valid YAML: ") as caught:
        load(file)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        pytest.param(
            "ipvs:\n  strictARP: true\n  sheduler: rr\n",
            5,
            'unknown field "ipvs.sheduler"; did you mean scheduler?',
            id="unknown field",
        ),
        pytest.param(
            "featureGates:\n  WatchList: true\n  NFTablesProxyMode: x\n",
            5,
            "featureGates.NFTablesProxyMode: Expected `bool`, got `str`",
            id="value of a map",
        ),
        pytest.param("mode: ''\nfeatureGates: {1: true}\n", 4, "featureGates: Expected `str`", id="key of a map"),
        pytest.param(
            "nodePortAddresses:\n- 10.0.0.0/8\n- 7\n",
            5,
            "nodePortAddresses[1]: Expected `str`, got `int`",
            id="item of a list",
        ),
        pytest.param(
            "mode: ''\ndetectLocalMode: BridgeInterface\n",
            4,
            "detectLocalMode: BridgeInterface needs detectLocal.bridgeInterface",
            id="a field that another one needs",
        ),
        pytest.param("mode: ipvs\nmode: nftables\n", 4, "mode: given twice, first on line 3", id="twice"),
        pytest.param(
            "iptables:\n  masqueradeBit: 1\n  masqueradeBit: 1\n",
            5,
            "iptables.masqueradeBit: given twice",
            id="twice inside",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, line: int, what: str, tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text(f"apiVersion: {HEAD['apiVersion']}\nkind: {HEAD['kind']}\n{text}")

    with pytest.raises(UserError) as caught:
        load(file)

    assert str(caught.value).startswith(f"{file}:{line}: {what}")
    assert caught.value.placed


@pytest.mark.parametrize(
    ("text", "what"),
    [("", "expected apiVersion kubeproxy"), ("a: 1\n---\nb: 1\n", "has 2 YAML documents; one is the configuration")],
)
def test_a_file_that_is_not_one_configuration_is_refused(text: str, what: str, tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text(text)

    with pytest.raises(UserError) as caught:
        load(file)

    assert str(caught.value).startswith(f"{file}: {what}")


@pytest.mark.parametrize(
    ("said", "healthz", "metrics"),
    [
        ({}, "0.0.0.0:10256", "127.0.0.1:10249"),
        ({"bindAddress": "fd00::1"}, "[::]:10256", "[::1]:10249"),
        ({"healthzBindAddress": "192.168.0.2", "metricsBindAddress": "::"}, "192.168.0.2:10256", "[::]:10249"),
    ],
)
def test_addresses_of_servers(said: dict[str, str], healthz: str, metrics: str) -> None:
    config = parse({**HEAD, **said})

    assert (config.healthz_bind_address, config.metrics_bind_address) == (healthz, metrics)


def test_fields_without_effect_are_named(tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text(KUBEADM)
    said = {"clientConnection": {"qps": 50}, "enableProfiling": True, "featureGates": {"NFTablesProxyMode": True}}

    assert without_effect(load(file)) == []
    assert without_effect(parse({**HEAD, **said})) == ["clientConnection.qps", "enableProfiling", "featureGates"]
