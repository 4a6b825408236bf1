"""KubeProxyConfiguration, kubeproxy.config.k8s.io/v1alpha1: the file that `--config` names.

Every field of the real type is known, so any cluster's file loads; an unknown one is refused with its path. Fields of
other operating systems and modes are read and not used. Defaults are upstream's (`apis/config/v1alpha1/defaults.go`),
and an unset value, `null` and zero mean the default there too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from netemu.model.errors import UserError
from netemu.proxy.services import Family, family_of, networks_of_family

MODES = ("iptables", "ipvs", "nftables")
DEFAULT_MODE = "iptables"
PRIMARY = "primary"
"""In nodePortAddresses, alone: the node's primary addresses."""
API_VERSION, KIND = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]*\.?[0-9]+)(ns|us|µs|ms|s|m|h)")


class Duration(float):
    """Seconds, read from Go's text form: `30s`, `1h5m`, `250ms`."""

    @staticmethod
    def parse(text: object) -> Duration:
        """Raises ValueError for what is no duration."""
        if text in ("0", 0):
            return Duration(0)
        sign = -1 if isinstance(text, str) and text.startswith("-") else 1
        parts = _DURATION.findall(text) if isinstance(text, str) else []
        if not parts or "".join(a + b for a, b in parts) != str(text).lstrip("+-"):
            raise ValueError(f'Expected a duration such as "30s" or "1h5m", got {text!r}')
        return Duration(sign * sum(float(number) * _UNITS[unit] for number, unit in parts))


class _Part(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Base: immutable, camelCase in the file, unknown fields refused."""


class ClientConnection(_Part, frozen=True):
    kubeconfig: str = ""
    accept_content_types: str = ""
    content_type: str = "application/vnd.kubernetes.protobuf"
    qps: float = 5
    burst: int = 10


class IptablesConfiguration(_Part, frozen=True):
    masquerade_bit: int = 14
    """Bit of the packet mark that means "masquerade"."""
    masquerade_all: bool = False
    """Masquerade everything to ClusterIPs, not only what comes from outside of the Pod network."""
    localhost_node_ports: bool = True
    """IPv4 node ports answer on 127.0.0.1 too."""
    sync_period: Duration = Duration(30)
    """Pause before a retry, and between two looks at the canary chain."""
    min_sync_period: Duration = Duration(1)
    """Shortest time between the starts of two syncs; a configured 0s counts as unset."""


class NftablesConfiguration(_Part, frozen=True):
    masquerade_bit: int = 14
    masquerade_all: bool = False
    sync_period: Duration = Duration(30)
    min_sync_period: Duration = Duration(1)


class IPVSConfiguration(_Part, frozen=True):
    sync_period: Duration = Duration(30)
    min_sync_period: Duration = Duration(0)
    scheduler: str = ""
    exclude_cidrs: tuple[str, ...] = msgspec.field(name="excludeCIDRs", default=())
    strict_arp: bool = msgspec.field(name="strictARP", default=False)
    tcp_timeout: Duration = Duration(0)
    tcp_fin_timeout: Duration = Duration(0)
    udp_timeout: Duration = Duration(0)


class ConntrackConfiguration(_Part, frozen=True):
    max_per_core: int = 32768
    min: int = 131072
    tcp_established_timeout: Duration = Duration(86400)
    tcp_close_wait_timeout: Duration = Duration(3600)
    tcp_be_liberal: bool = False
    udp_timeout: Duration = Duration(0)
    udp_stream_timeout: Duration = Duration(0)


class DetectLocal(_Part, frozen=True):
    bridge_interface: str = ""
    interface_name_prefix: str = ""


class KubeProxyConfiguration(_Part, frozen=True):
    """The whole file. `mode` empty means iptables."""

    api_version: str = API_VERSION
    kind: str = KIND
    feature_gates: dict[str, bool] = {}
    client_connection: ClientConnection = ClientConnection()
    logging: dict[str, Any] = {}
    hostname_override: str = ""
    bind_address: str = "0.0.0.0"
    healthz_bind_address: str = "0.0.0.0:10256"
    metrics_bind_address: str = "127.0.0.1:10249"
    bind_address_hard_fail: bool = False
    enable_profiling: bool = False
    show_hidden_metrics_for_version: str = ""
    mode: str = ""
    iptables: IptablesConfiguration = IptablesConfiguration()
    ipvs: IPVSConfiguration = IPVSConfiguration()
    nftables: NftablesConfiguration = NftablesConfiguration()
    winkernel: dict[str, Any] = {}
    detect_local_mode: str = "ClusterCIDR"
    detect_local: DetectLocal = DetectLocal()
    cluster_cidr: str = msgspec.field(name="clusterCIDR", default="")
    node_port_addresses: tuple[str, ...] = ()
    oom_score_adj: int = -999
    conntrack: ConntrackConfiguration = ConntrackConfiguration()
    config_sync_period: Duration = Duration(900)
    port_range: str = ""
    windows_run_as_service: bool = False

    def cluster_network(self, family: Family) -> str:
        """The first CIDR of `clusterCIDR` that is of this family, "" if there is none."""
        return next(iter(networks_of_family(self.cluster_cidr.split(","), family)), "")


def load(path: Path) -> KubeProxyConfiguration:
    """Read and check a file. Raises UserError, one line that names file and field."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    try:
        return parse(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def parse(content: object) -> KubeProxyConfiguration:
    """Check what a file holds. Raises UserError naming the field."""
    if not isinstance(content, dict) or (content.get("apiVersion"), content.get("kind")) != (API_VERSION, KIND):
        raise UserError(f"expected apiVersion {API_VERSION} and kind {KIND}")
    try:
        config = msgspec.convert(_without_unset(content), KubeProxyConfiguration, dec_hook=_custom)
    except msgspec.ValidationError as error:
        raise UserError(_explain(str(error))) from error
    _check(config)
    return config


def _without_unset(value: Any) -> Any:
    """Go decodes null as absent."""
    if isinstance(value, dict):
        return {k: _without_unset(v) for k, v in value.items() if v is not None and v not in _unset(k)}
    return value


def _unset(field: Any) -> tuple[object, ...]:
    # Zero values that upstream's defaulting replaces. The conntrack numbers are pointers there: their zero is a value.
    zero_means_default = {
        "syncPeriod", "minSyncPeriod", "configSyncPeriod", "qps", "burst", "detectLocalMode", "healthzBindAddress",
        "metricsBindAddress", "bindAddress", "contentType",
    }  # fmt: skip
    return ("", 0, "0s", "0") if field in zero_means_default else ()


def _custom(kind: type, value: Any) -> Any:
    if kind is Duration:
        return Duration.parse(value)
    raise NotImplementedError(kind)


def _explain(message: str) -> str:
    """msgspec's text with the path in front, as in `iptables.masqueradeBit: Expected int`."""
    what, _, where = message.partition(" - at `$")
    where = where.rstrip("`").lstrip(".")
    if unknown := re.search(r"unknown field `(\w+)`", what):
        return f'unknown field "{where}.{unknown[1]}"' if where else f'unknown field "{unknown[1]}"'
    return f"{where}: {what}" if where else what


_LOCAL_MODES = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")


def _check(config: KubeProxyConfiguration) -> None:
    if config.mode not in ("", *MODES):
        raise UserError(f"mode: {config.mode!r} is no proxy mode of Linux; use one of {', '.join(MODES)}")
    for mode, bit in (("iptables", config.iptables.masquerade_bit), ("nftables", config.nftables.masquerade_bit)):
        if not 0 <= bit <= 31:
            raise UserError(f"{mode}.masqueradeBit: {bit} is not within 0-31")
    if config.detect_local_mode not in _LOCAL_MODES:
        raise UserError(f"detectLocalMode: {config.detect_local_mode!r} is none of {', '.join(_LOCAL_MODES)}")
    for mode, part in (("iptables", config.iptables), ("nftables", config.nftables), ("ipvs", config.ipvs)):
        for name, period in (("syncPeriod", part.sync_period), ("minSyncPeriod", part.min_sync_period)):
            if period < 0:
                raise UserError(f"{mode}.{name}: must not be negative")
    for field, entries in (
        ("clusterCIDR", config.cluster_cidr.split(",") if config.cluster_cidr else ()),
        ("nodePortAddresses", () if config.node_port_addresses == (PRIMARY,) else config.node_port_addresses),
        ("ipvs.excludeCIDRs", config.ipvs.exclude_cidrs),
    ):
        for entry in entries:
            if "/" not in entry or not networks_of_family((entry,), family_of(entry)):
                raise UserError(f"{field}: {entry!r} is not a CIDR such as 10.244.0.0/16")
    for field, text in (
        ("healthzBindAddress", config.healthz_bind_address),
        ("metricsBindAddress", config.metrics_bind_address),
    ):
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise UserError(f"{field}: {text!r} is not an address such as 0.0.0.0:10256")
