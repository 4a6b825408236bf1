"""What may stand in a KubeProxyConfiguration, beyond the types of its fields: pure.

The rules are upstream's (`apis/config/validation`); what is accepted and means nothing here is named by
`without_effect`, so that nobody waits for what will not happen.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from netemu.model.errors import UserError
from netemu.model.suggest import instead
from netemu.proxy.services import Family, family_of, networks_of_family

if TYPE_CHECKING:
    from netemu.proxy.config import KubeProxyConfiguration

MODES = ("iptables", "ipvs", "nftables")
PRIMARY = "primary"
"""In nodePortAddresses, alone: the node's primary addresses."""
LOCAL_MODES = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")
SERVICE_CIDRS_GATE = "MultiCIDRServiceAllocator"
GATES = (
    "AllAlpha", "AllBeta", "AnyVolumeDataSource", "APIServerTracing", "CloudDualStackNodeIPs", "ClientsAllowCBOR",
    "ClientsPreferCBOR", "ComponentFlagz", "ComponentSLIs", "ComponentStatusz", "ContextualLogging",
    "DisableNodeKubeProxyVersion", "DualStack", "EndpointSlice", "EndpointSliceProxying",
    "EndpointSliceTerminatingCondition", "ExpandedDNSConfig", "InformerResourceVersion", "IPTablesOwnershipCleanup",
    "IPv6DualStack", "KubeProxyDrainingTerminatingNodes", "KubeProxyIPVS", "LoadBalancerIPMode", "LoggingAlphaOptions",
    "LoggingBetaOptions", "MinimizeIPTablesRestore", "MixedProtocolLBService", SERVICE_CIDRS_GATE, "NFTablesProxyMode",
    "PreferSameTrafficDistribution", "ProxyTerminatingEndpoints", "ReserveServiceNodePortRange",
    "RelaxedDNSSearchValidation", "SCTPSupport", "ServiceInternalTrafficPolicy", "ServiceIPStaticSubrange",
    "ServiceLBNodePortControl", "ServiceLoadBalancerClass", "ServiceNodePortStaticSubrange", "ServiceTopology",
    "ServiceTrafficDistribution", "SkipReadOnlyValidationGCE", "StructuredAuthenticationConfiguration",
    "SupportIPVSProxyMode", "TopologyAwareHints", "WatchList", "WatchListClient", "WindowsEndpointSliceProxying",
    "WinDSR", "WinOverlay",
)  # fmt: skip
"""Feature gates of some release's kube-proxy. `MultiCIDRServiceAllocator` false: ServiceCIDRs are not asked for."""
_INTERFACE = re.compile(r"[^\s/]{1,15}")


class ConfigError(UserError):
    """Something wrong with the field `field`, dotted as in `iptables.masqueradeBit`; "" for the whole."""

    def __init__(self, field: str, text: str) -> None:
        self.field = field
        super().__init__(text)


def check(config: KubeProxyConfiguration) -> None:
    """Raises ConfigError for the first mistake."""
    for field, why in _mistakes(config):
        raise ConfigError(field, f"{field}: {why}")


def _mistakes(config: KubeProxyConfiguration) -> Iterator[tuple[str, str]]:
    if config.mode not in ("", *MODES):
        yield "mode", f"{config.mode!r} is no proxy mode of Linux; {instead(config.mode, MODES, 'use one of')}"
    if config.detect_local_mode not in LOCAL_MODES:
        right = instead(config.detect_local_mode, LOCAL_MODES, "use one of")
        yield "detectLocalMode", f"{config.detect_local_mode!r} is none of them; {right}"
    for gate in config.feature_gates:
        if gate not in GATES:
            yield f"featureGates.{gate}", f"no feature gate of kube-proxy; {instead(gate, GATES, 'there are')}"
    yield from _numbers(config)
    yield from _networks(config)
    yield from _addresses(config)
    local = {
        "BridgeInterface": ("bridgeInterface", config.detect_local.bridge_interface),
        "InterfaceNamePrefix": ("interfaceNamePrefix", config.detect_local.interface_name_prefix),
    }
    if config.detect_local_mode in local:
        field, name = local[config.detect_local_mode]
        if not name:
            yield "detectLocalMode", f"{config.detect_local_mode} needs detectLocal.{field}"
        elif not _INTERFACE.fullmatch(name):
            yield f"detectLocal.{field}", f"{name!r} is no name of an interface"


def _numbers(config: KubeProxyConfiguration) -> Iterator[tuple[str, str]]:
    for mode, bit in (("iptables", config.iptables.masquerade_bit), ("nftables", config.nftables.masquerade_bit)):
        if not 0 <= bit <= 31:
            yield f"{mode}.masqueradeBit", f"{bit} is not within 0-31"
    for mode, part in (("iptables", config.iptables), ("nftables", config.nftables), ("ipvs", config.ipvs)):
        for name, period in (("syncPeriod", part.sync_period), ("minSyncPeriod", part.min_sync_period)):
            if period < 0:
                yield f"{mode}.{name}", "must not be negative"
        if part.sync_period < part.min_sync_period:
            yield f"{mode}.syncPeriod", f"must not be shorter than minSyncPeriod, {part.min_sync_period:g}s"
    if config.config_sync_period < 0:
        yield "configSyncPeriod", "must not be negative"
    if not -1000 <= config.oom_score_adj <= 1000:
        yield "oomScoreAdj", f"{config.oom_score_adj} is not within -1000 to 1000"
    conntrack = config.conntrack
    for name, value in (
        ("maxPerCore", conntrack.max_per_core),
        ("min", conntrack.min),
        ("tcpEstablishedTimeout", conntrack.tcp_established_timeout),
        ("tcpCloseWaitTimeout", conntrack.tcp_close_wait_timeout),
        ("udpTimeout", conntrack.udp_timeout),
        ("udpStreamTimeout", conntrack.udp_stream_timeout),
    ):
        if value < 0:
            yield f"conntrack.{name}", "must not be negative; 0 leaves the kernel's value alone"


def _networks(config: KubeProxyConfiguration) -> Iterator[tuple[str, str]]:
    cluster = config.cluster_cidr.split(",") if config.cluster_cidr else []
    for field, entries in (
        ("clusterCIDR", cluster),
        ("nodePortAddresses", () if config.node_port_addresses == (PRIMARY,) else config.node_port_addresses),
        ("ipvs.excludeCIDRs", config.ipvs.exclude_cidrs),
    ):
        for entry in entries:
            if field == "nodePortAddresses" and entry == PRIMARY:
                yield field, f"{PRIMARY!r} stands alone, or not at all"
            elif "/" not in entry or not networks_of_family((entry,), family_of(entry)):
                yield field, f"{entry!r} is not a CIDR such as 10.244.0.0/16"
    if len(cluster) > 2 or len({family_of(entry) for entry in cluster}) < len(cluster):
        yield "clusterCIDR", "one CIDR, or one of each address family"


def _addresses(config: KubeProxyConfiguration) -> Iterator[tuple[str, str]]:
    if not _is_ip(config.bind_address):
        yield "bindAddress", f"{config.bind_address!r} is not an IP address"
    for field, text in (
        ("healthzBindAddress", config.healthz_bind_address),
        ("metricsBindAddress", config.metrics_bind_address),
    ):
        host, _, port = text.rpartition(":")
        if not _is_ip(host.strip("[]")) or not port.isdigit() or int(port) > 65535:
            yield field, f"{text!r} is not an address such as 0.0.0.0:10256"


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def with_port(address: str, number: int) -> str:
    """`address` with a port, where it is an IP address without one."""
    if not _is_ip(address.strip("[]")):
        return address
    return f"[{address.strip('[]')}]:{number}" if family_of(address) is Family.IPV6 else f"{address}:{number}"


def without_effect(config: KubeProxyConfiguration) -> list[str]:
    """The fields that are set to something and that nothing here looks at."""
    connection, default = config.client_connection, type(config)()
    told = {
        "clientConnection.qps": connection.qps != default.client_connection.qps,
        "clientConnection.burst": connection.burst != default.client_connection.burst,
        "clientConnection.acceptContentTypes": bool(connection.accept_content_types),
        "clientConnection.contentType": connection.content_type != default.client_connection.content_type,
        "configSyncPeriod": config.config_sync_period != default.config_sync_period,
        "enableProfiling": config.enable_profiling,
        "featureGates": any(gate != SERVICE_CIDRS_GATE for gate in config.feature_gates),
        "logging": _says_something(config.logging),
        "portRange": bool(config.port_range),
        "showHiddenMetricsForVersion": bool(config.show_hidden_metrics_for_version),
        "windowsRunAsService": config.windows_run_as_service,
        "winkernel": _says_something(config.winkernel),
    }
    return [field for field, said in told.items() if said]


def _says_something(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_says_something, value.values()))
    return value not in (None, False, 0, "", "0", "0s")
