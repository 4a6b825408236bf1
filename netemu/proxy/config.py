"""KubeProxyConfiguration, kubeproxy.config.k8s.io/v1alpha1: the file that `--config` names.

Every field of the real type is known, so any cluster's file loads; an unknown one is refused with its line and what
was probably meant. Defaults are upstream's (`apis/config/v1alpha1/defaults.go`), and an unset value, `null` and zero
mean the default there too. `config_checks` says what else is refused, and which fields have no effect.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from netemu.model.durations import Duration
from netemu.model.errors import UserError
from netemu.model.suggest import instead
from netemu.proxy.config_checks import MODES, PRIMARY, SERVICE_CIDRS_GATE, ConfigError, check, with_port
from netemu.proxy.services import Family, family_of, networks_of_family

__all__ = ["DEFAULT_MODE", "MODES", "PRIMARY", "ConfigError", "KubeProxyConfiguration", "load", "parse"]

DEFAULT_MODE = "iptables"
HEALTHZ_PORT, METRICS_PORT = 10256, 10249
API_VERSION, KIND = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"


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

    @property
    def asks_for_service_cidrs(self) -> bool:
        """Whether ServiceCIDRs are watched; a feature gate turns that off."""
        return self.feature_gates.get(SERVICE_CIDRS_GATE, True)


def load(path: Path) -> KubeProxyConfiguration:
    """Read and check a file. Raises UserError, lines that name file, line and field."""
    from netemu.model.yamlfile import Mistake, Mistakes, read_documents

    documents, mistakes = read_documents(path)
    if mistakes:
        raise Mistakes(mistakes)
    if len(documents) > 1:
        raise UserError(f"{path}: has {len(documents)} YAML documents; one is the configuration")
    document = documents[0] if documents else None
    try:
        return parse(document.value if document else None)
    except ConfigError as error:
        if error.field and document:
            raise Mistakes([Mistake(document.file, document.line(_where(error.field)), str(error))]) from error
        raise UserError(f"{path}: {error}") from error


def _where(field: str) -> tuple[str | int, ...]:
    """A path in text, as in `nodePortAddresses[1]`, as a path into a document."""
    return tuple(int(index) if index else name for index, name in re.findall(r"\[(\d+)\]|([^.\[\]]+)", field))


def parse(content: object) -> KubeProxyConfiguration:
    """Check what a file holds. Raises ConfigError naming the field."""
    if not isinstance(content, dict) or (content.get("apiVersion"), content.get("kind")) != (API_VERSION, KIND):
        raise ConfigError("", f"expected apiVersion {API_VERSION} and kind {KIND}")
    said = _without_unset(content)
    try:
        config = msgspec.convert(said, KubeProxyConfiguration, dec_hook=_custom)
    except msgspec.ValidationError as error:
        raise _explained(str(error), said) from error
    wildcard, loopback = (
        ("[::]", "[::1]") if family_of(config.bind_address) is Family.IPV6 else ("0.0.0.0", "127.0.0.1")
    )
    config = msgspec.structs.replace(
        config,
        healthz_bind_address=with_port(said.get("healthzBindAddress", wildcard), HEALTHZ_PORT),
        metrics_bind_address=with_port(said.get("metricsBindAddress", loopback), METRICS_PORT),
    )
    check(config)
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


def _explained(message: str, said: dict[str, Any]) -> ConfigError:
    """msgspec's text with the path in front, as in `iptables.masqueradeBit: Expected int`."""
    what, _, where = message.partition(" - at ")
    where = where.removeprefix("`key` in ").strip("`").removeprefix("$").lstrip(".")
    if unknown := re.search(r"unknown field `(.+)`", what):
        field = f"{where}.{unknown[1]}" if where else unknown[1]
        return ConfigError(field, f'unknown field "{field}"; {instead(unknown[1], _fields_at(where), "known here")}')
    if where.endswith("[...]"):  # some value of a map, and the only maps of a type are those to booleans
        where = where.removesuffix("[...]")
        where += next(f".{name}" for name, value in said[where].items() if not isinstance(value, bool))
    return ConfigError(where, f"{where}: {what}" if where else what)


def _fields_at(where: str) -> list[str]:
    """The fields of the part of the configuration at a dotted path."""
    kind: Any = KubeProxyConfiguration
    for name in where.split(".") if where else ():
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.encode_name == name)
    return [field.encode_name for field in msgspec.structs.fields(kind)]
