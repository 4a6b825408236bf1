"""Defaults of Services, and what an update takes over from the stored Service.

Facts: `pkg/apis/core/v1/defaults.go` and `pkg/registry/core/service/strategy.go` (patchAllocatedValues,
dropTypeDependentFields, normalizeClusterIPs). What the server allocated once need not be sent again: a PUT without
clusterIP or node ports keeps them. What a change of type makes meaningless is dropped, unless the client changed it in
the same request, which validation then refuses.
"""

from __future__ import annotations

from netemu.apiserver.json_values import duplicate
from netemu.client.base import Obj

CLIENT_IP_TIMEOUT_SECONDS = 10800


def default_service(obj: Obj) -> None:
    """Fill in the defaults of a Service, in place."""
    spec = obj.setdefault("spec", {})
    spec["type"] = spec.get("type") or "ClusterIP"
    spec["sessionAffinity"] = spec.get("sessionAffinity") or "None"
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        client_ip = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        client_ip.setdefault("timeoutSeconds", CLIENT_IP_TIMEOUT_SECONDS)
    for port in spec.get("ports") or ():
        port["protocol"] = port.get("protocol") or "TCP"
        if port.get("targetPort") in (None, 0, "") and "port" in port:
            port["targetPort"] = port["port"]
    if externally_accessible(spec) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if spec["type"] != "ExternalName" and not spec.get("internalTrafficPolicy"):
        spec["internalTrafficPolicy"] = "Cluster"
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    balancer = obj.setdefault("status", {}).setdefault("loadBalancer", {})
    for ingress in balancer.get("ingress") or ():
        if ingress.get("ip") and spec["type"] == "LoadBalancer":
            ingress.setdefault("ipMode", "VIP")


def needs_cluster_ip(spec: Obj) -> bool:
    """Whether a Service of this spec has clusterIPs (or `None`)."""
    return spec.get("type") != "ExternalName"


def needs_node_port(spec: Obj) -> bool:
    """Whether a Service of this spec may have node ports."""
    return spec.get("type") in ("NodePort", "LoadBalancer")


def needs_health_check(spec: Obj) -> bool:
    """Whether a Service of this spec has a healthCheckNodePort."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def externally_accessible(spec: Obj) -> bool:
    """Whether externalTrafficPolicy means something for a Service of this spec."""
    return needs_node_port(spec) or (spec.get("type") == "ClusterIP" and bool(spec.get("externalIPs")))


def settled(obj: Obj, old: Obj | None) -> Obj:
    """A copy of `obj` with clusterIP and clusterIPs in step, and with what it takes over from `old`."""
    result = {**obj, "spec": duplicate(obj.get("spec") or {})}
    settle(result, old)
    return result


def settle(obj: Obj, old: Obj | None) -> None:
    """Bring clusterIP and clusterIPs in step and take over what `old` has, in place."""
    spec = obj.setdefault("spec", {})
    if old is not None:
        _normalize_update(spec, old["spec"])
        _keep_allocated(spec, old["spec"])
        _drop_meaningless(spec, old["spec"])
        if old["spec"].get("type") == "LoadBalancer" != spec.get("type") and obj.get("status"):
            obj["status"] = {**obj["status"], "loadBalancer": {}}
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]


def _normalize_update(spec: Obj, old: Obj) -> None:
    """A client that knows only clusterIP changed it: clusterIPs follows."""
    new_ip, old_ip = spec.get("clusterIP") or "", old.get("clusterIP") or ""
    if new_ip != old_ip and _same(spec, old, "clusterIPs"):
        if new_ip:
            spec["clusterIPs"] = [new_ip]
        else:
            spec.pop("clusterIPs", None)


def _keep_allocated(spec: Obj, old: Obj) -> None:
    if needs_cluster_ip(old) and needs_cluster_ip(spec):
        if not spec.get("clusterIP") and old.get("clusterIP"):
            spec["clusterIP"] = old["clusterIP"]
        if not spec.get("clusterIPs") and old.get("clusterIPs") and spec.get("clusterIP") == old.get("clusterIP"):
            spec["clusterIPs"] = list(old["clusterIPs"])
    if needs_node_port(old) and needs_node_port(spec):
        _keep_node_ports(spec.get("ports") or [], old.get("ports") or [])
    if needs_health_check(old) and needs_health_check(spec) and old.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = spec.get("healthCheckNodePort") or old["healthCheckNodePort"]


def _keep_node_ports(ports: list[Obj], old_ports: list[Obj]) -> None:
    asked = {port["nodePort"] for port in ports if port.get("nodePort")}
    by_name = {port.get("name", ""): port["nodePort"] for port in old_ports if port.get("nodePort")}
    for port in ports:
        kept = by_name.get(port.get("name", ""))
        if not port.get("nodePort") and kept and kept not in asked:
            port["nodePort"] = kept


def _drop_meaningless(spec: Obj, old: Obj) -> None:
    if needs_cluster_ip(old) and not needs_cluster_ip(spec):
        if _same(spec, old, "clusterIP") and _same(spec, old, "clusterIPs"):
            _drop(spec, "clusterIP", "clusterIPs")
        for key in ("ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            _drop_unchanged(spec, old, key)
    if needs_node_port(old) and not needs_node_port(spec):
        old_numbers = {port["nodePort"] for port in old.get("ports") or () if port.get("nodePort")}
        for port in spec.get("ports") or ():
            if port.get("nodePort") in old_numbers:
                del port["nodePort"]
    if needs_health_check(old) and not needs_health_check(spec):
        _drop_unchanged(spec, old, "healthCheckNodePort")
    if old.get("type") == "LoadBalancer" and spec.get("type") != "LoadBalancer":
        _drop_unchanged(spec, old, "allocateLoadBalancerNodePorts")
        _drop_unchanged(spec, old, "loadBalancerClass")
    if externally_accessible(old) and not externally_accessible(spec):
        _drop_unchanged(spec, old, "externalTrafficPolicy")


def _same(spec: Obj, old: Obj, key: str) -> bool:
    return bool((spec.get(key) or None) == (old.get(key) or None))


def _drop_unchanged(spec: Obj, old: Obj, key: str) -> None:
    if _same(spec, old, key):
        _drop(spec, key)


def _drop(spec: Obj, *keys: str) -> None:
    for key in keys:
        spec.pop(key, None)
