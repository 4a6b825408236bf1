"""What is wrong with a Service (`pkg/apis/core/validation/validation.go`, ValidateService and ValidateServiceUpdate).

Addresses and node ports of the cluster's ranges are not checked here but where they are allocated.
"""

from __future__ import annotations

from typing import Any

from netemu.apiserver.defaults_service import (
    externally_accessible,
    needs_cluster_ip,
    needs_health_check,
    needs_node_port,
    settled,
)
from netemu.apiserver.validation.discovery import special_address
from netemu.apiserver.validation.fields import (
    cidr_text,
    dns1123_label,
    dns1123_subdomain,
    duplicate,
    forbidden,
    immutable,
    invalid,
    invalid_for,
    ip_text,
    is_ip,
    labels,
    not_supported,
    one_of,
    port_name,
    port_number,
    qualified_name,
    required,
)
from netemu.client.base import Obj
from netemu.model.errors import FieldError

PROTOCOLS = ("SCTP", "TCP", "UDP")
SERVICE_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
MAX_AFFINITY_SECONDS = 86400

_ONCE = "may not change once set"


def validate_service(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a Service; what an update takes over from `old` need not be in `obj`."""
    final = settled(obj, old)
    spec: Obj = final["spec"]
    balancer = (final.get("status") or {}).get("loadBalancer") or {}
    errors = _type(spec)
    errors += _cluster_ips(spec)
    errors += _ports(spec)
    errors += labels("spec.selector", spec.get("selector"))
    errors += _affinity(spec)
    errors += _external_ips(spec)
    errors += _source_ranges(spec)
    errors += _traffic_policies(spec)
    errors += _load_balancer(spec)
    errors += _status(balancer, spec)
    if old is not None:
        errors += _update(spec, old["spec"])
    return errors


def _type(spec: Obj) -> list[FieldError]:
    kind = spec.get("type") or ""
    if not kind:
        return [required("spec.type")]
    errors = one_of("spec.type", kind, SERVICE_TYPES)
    if kind == "ExternalName":
        name = (spec.get("externalName") or "").removesuffix(".")
        if not name:
            errors.append(required("spec.externalName"))
        else:
            errors += invalid_for("spec.externalName", name, dns1123_subdomain(name))
        for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(key) and not (key == "clusterIPs" and spec[key] == ["None"]):
                errors.append(forbidden(f"spec.{key}", "may not be set for ExternalName services"))
        if spec.get("clusterIP") == "None":
            errors.append(forbidden("spec.clusterIP", "may not be set to 'None' for ExternalName services"))
    elif kind == "LoadBalancer" and spec.get("clusterIP") == "None":
        errors.append(invalid("spec.clusterIP", "None", "may not be set to 'None' for LoadBalancer services"))
    elif kind == "NodePort" and spec.get("clusterIP") == "None":
        errors.append(invalid("spec.clusterIP", "None", "may not be set to 'None' for NodePort services"))
    return errors


def _cluster_ips(spec: Obj) -> list[FieldError]:
    if not needs_cluster_ip(spec):
        return []
    errors: list[FieldError] = []
    first, ips, families = spec.get("clusterIP") or "", spec.get("clusterIPs") or [], spec.get("ipFamilies") or []
    if first and ips[0] != first:
        errors.append(invalid("spec.clusterIPs", ips, "first value must match `clusterIP`"))
    elif not first and ips:
        errors.append(invalid("spec.clusterIPs", ips, "must be empty when `clusterIP` is not specified"))
    for index, family in enumerate(families):
        errors += one_of(f"spec.ipFamilies[{index}]", family, ("IPv4", "IPv6"))
        if family in families[:index]:
            errors.append(duplicate(f"spec.ipFamilies[{index}]", family))
    if policy := spec.get("ipFamilyPolicy"):
        errors += one_of("spec.ipFamilyPolicy", policy, ("PreferDualStack", "RequireDualStack", "SingleStack"))
    return errors + _addresses(ips, families)


def _addresses(ips: list[str], families: list[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    if ips[:1] == ["None"]:
        return [invalid("spec.clusterIPs", ips, "'None' must be the first and only value")] if len(ips) > 1 else []
    for index, ip in enumerate(ips):
        errors += invalid_for(f"spec.clusterIPs[{index}]", ip, ip_text(ip))
    if len(ips) > 2:
        errors.append(invalid("spec.clusterIPs", ips, "may only hold up to 2 values"))
    if errors:
        return errors
    if len(ips) == 2 and is_ip(ips[0], 4) == is_ip(ips[1], 4):
        errors.append(invalid("spec.clusterIPs", ips, "may specify no more than one IP for each IP family"))
    for index, (ip, family) in enumerate(zip(ips, families, strict=False)):
        if family in ("IPv4", "IPv6") and not is_ip(ip, int(family[-1])):
            text = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            errors.append(invalid(f"spec.clusterIPs[{index}]", ip, text))
    return errors


def _ports(spec: Obj) -> list[FieldError]:
    ports: list[Obj] = spec.get("ports") or []
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless and spec.get("type") != "ExternalName":
        return [required("spec.ports")]
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        errors += _port(port, f"spec.ports[{index}]", required_name=len(ports) > 1, names=names)
    errors += _no_node_ports(spec, ports)
    errors += _unique(ports, "port", "")
    errors += _unique(ports, "nodePort", ".nodePort")
    return errors


def _port(port: Obj, path: str, *, required_name: bool, names: set[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    name = port.get("name") or ""
    if name:
        errors += invalid_for(f"{path}.name", name, dns1123_label(name))
        if name in names:
            errors.append(duplicate(f"{path}.name", name))
        names.add(name)
    elif required_name:
        errors.append(required(f"{path}.name"))
    number = port.get("port", 0)
    errors += invalid_for(f"{path}.port", number, port_number(number))
    if not port.get("protocol"):
        errors.append(required(f"{path}.protocol"))
    else:
        errors += one_of(f"{path}.protocol", port["protocol"], PROTOCOLS)
    target: Any = port.get("targetPort")
    if target is not None:
        errors += invalid_for(f"{path}.targetPort", target, target_port(target))
    if port.get("appProtocol"):
        errors += invalid_for(f"{path}.appProtocol", port["appProtocol"], qualified_name(port["appProtocol"]))
    node_port = port.get("nodePort") or 0
    if node_port < 0 or node_port > 65535:
        errors.append(invalid(f"{path}.nodePort", node_port, "must be between 1 and 65535, inclusive"))
    return errors


def target_port(value: Any) -> list[str]:
    """Reasons why this is neither a port nor the name of one."""
    return port_number(value) if isinstance(value, int) else port_name(value)


def _no_node_ports(spec: Obj, ports: list[Obj]) -> list[FieldError]:
    if needs_node_port(spec):
        return []
    text = "may not be used when `type` is '" + str(spec.get("type")) + "'"
    return [forbidden(f"spec.ports[{i}].nodePort", text) for i, port in enumerate(ports) if port.get("nodePort")]


def _unique(ports: list[Obj], key: str, suffix: str) -> list[FieldError]:
    """A number may be used once per protocol."""
    errors: list[FieldError] = []
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        value = (port.get("protocol"), port.get(key))
        if port.get(key) and value in seen:
            bad = port[key] if suffix else {"port": port[key], "protocol": port.get("protocol")}
            errors.append(duplicate(f"spec.ports[{index}]{suffix}", bad))
        seen.add(value)
    return errors


def _affinity(spec: Obj) -> list[FieldError]:
    affinity, config = spec.get("sessionAffinity") or "", spec.get("sessionAffinityConfig")
    if not affinity:
        return [required("spec.sessionAffinity")]
    if affinity not in ("ClientIP", "None"):
        return [not_supported("spec.sessionAffinity", affinity, ("ClientIP", "None"))]
    path = "spec.sessionAffinityConfig"
    if affinity == "None":
        text = "must not be set when session affinity is None"
        return [forbidden(path, text)] if config else []
    seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
    if seconds is None:
        return [required(f"{path}.clientIP", "when session affinity type is ClientIP")]
    if not 0 < seconds <= MAX_AFFINITY_SECONDS:
        text = f"must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"
        return [invalid(f"{path}.clientIP.timeoutSeconds", seconds, text)]
    return []


def _external_ips(spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, ip in enumerate(spec.get("externalIPs") or ()):
        path = f"spec.externalIPs[{index}]"
        errors += invalid_for(path, ip, ip_text(ip)) or special_address(path, ip)
    return errors


def _source_ranges(spec: Obj) -> list[FieldError]:
    ranges = spec.get("loadBalancerSourceRanges") or []
    if not ranges:
        return []
    if spec.get("type") != "LoadBalancer":
        text = "may only be used when `type` is 'LoadBalancer'"
        return [forbidden("spec.loadBalancerSourceRanges", text)]
    errors: list[FieldError] = []
    for index, text in enumerate(ranges):
        errors += invalid_for(f"spec.loadBalancerSourceRanges[{index}]", text, cidr_text(text.strip()))
    return errors


def _traffic_policies(spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    external, internal = spec.get("externalTrafficPolicy") or "", spec.get("internalTrafficPolicy")
    if not externally_accessible(spec):
        if external:
            text = "may only be set for externally-accessible services"
            errors.append(invalid("spec.externalTrafficPolicy", external, text))
    elif not external:
        errors.append(required("spec.externalTrafficPolicy"))
    else:
        errors += one_of("spec.externalTrafficPolicy", external, ("Cluster", "Local"))
    if internal is None:
        if needs_cluster_ip(spec):
            errors.append(required("spec.internalTrafficPolicy"))
    else:
        errors += one_of("spec.internalTrafficPolicy", internal, ("Cluster", "Local"))
    if distribution := spec.get("trafficDistribution"):
        errors += one_of("spec.trafficDistribution", distribution, ("PreferClose",))
    return errors


def _load_balancer(spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    balancer = spec.get("type") == "LoadBalancer"
    only = "may only be used when `type` is 'LoadBalancer'"
    if not balancer and spec.get("allocateLoadBalancerNodePorts") is not None:
        errors.append(forbidden("spec.allocateLoadBalancerNodePorts", only))
    if (kind := spec.get("loadBalancerClass")) is not None:
        if not balancer:
            errors.append(forbidden("spec.loadBalancerClass", only))
        else:
            errors += invalid_for("spec.loadBalancerClass", kind, qualified_name(kind))
    health = spec.get("healthCheckNodePort") or 0
    if health < 0:
        errors.append(invalid("spec.healthCheckNodePort", health, "must be greater than or equal to 0"))
    elif health and not needs_health_check(spec):
        text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.append(invalid("spec.healthCheckNodePort", health, text))
    return errors


def _status(balancer: Obj, spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    if balancer.get("ingress") and spec.get("type") != "LoadBalancer":
        text = 'may only be used when `spec.type` is "LoadBalancer"'
        errors.append(forbidden("status.loadBalancer.ingress", text))
    for index, ingress in enumerate(balancer.get("ingress") or ()):
        path = f"status.loadBalancer.ingress[{index}]"
        ip, mode = ingress.get("ip") or "", ingress.get("ipMode")
        if ip:
            errors += invalid_for(f"{path}.ip", ip, ip_text(ip))
        if mode is not None:
            errors += one_of(f"{path}.ipMode", mode, ("Proxy", "VIP"))
            if not ip:
                errors.append(forbidden(f"{path}.ipMode", "may not be specified when `ip` is not set"))
        if ingress.get("hostname"):
            errors += invalid_for(f"{path}.hostname", ingress["hostname"], dns1123_subdomain(ingress["hostname"]))
    return errors


def _update(spec: Obj, old: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    if needs_cluster_ip(spec) and needs_cluster_ip(old):
        errors += _update_ips(spec, old)
        errors += _update_families(spec, old)
    if spec.get("type") == old.get("type") == "LoadBalancer":
        new_class, old_class = spec.get("loadBalancerClass"), old.get("loadBalancerClass")
        if new_class != old_class:
            errors.append(invalid("spec.loadBalancerClass", new_class, _ONCE))
    if needs_health_check(spec) and needs_health_check(old):
        errors += immutable("spec.healthCheckNodePort", spec.get("healthCheckNodePort"), old.get("healthCheckNodePort"))
    return errors


def _update_ips(spec: Obj, old: Obj) -> list[FieldError]:
    new_ips, old_ips = spec.get("clusterIPs") or [], old.get("clusterIPs") or []
    if len(new_ips) == len(old_ips):
        changed = [i for i, (new, before) in enumerate(zip(new_ips, old_ips, strict=True)) if new != before]
        return [invalid(f"spec.clusterIPs[{index}]", new_ips, _ONCE) for index in changed]
    if not new_ips:
        return [invalid("spec.clusterIPs[0]", new_ips, "primary clusterIP can not be unset")]
    errors: list[FieldError] = []
    if old_ips and new_ips[0] != old_ips[0]:
        errors.append(invalid("spec.clusterIPs[0]", new_ips, _ONCE))
    if len(new_ips) == 1 and len(old_ips) == 2 and spec.get("ipFamilyPolicy") != "SingleStack":
        text = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        errors.append(invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), text))
    return errors


def _update_families(spec: Obj, old: Obj) -> list[FieldError]:
    new_families, old_families = spec.get("ipFamilies") or [], old.get("ipFamilies") or []
    if not new_families or not old_families or "None" in (spec.get("clusterIP"), old.get("clusterIP")):
        return []
    errors: list[FieldError] = []
    if new_families[0] != old_families[0]:
        errors.append(invalid("spec.ipFamilies[0]", new_families, _ONCE))
    if len(new_families) < len(old_families) and spec.get("ipFamilyPolicy") != "SingleStack":
        text = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        errors.append(invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), text))
    return errors
