"""What is wrong with Ingresses, IngressClasses, NetworkPolicies, IPAddresses and ServiceCIDRs.

Facts: `pkg/apis/networking/validation` of Kubernetes 1.32.
"""

from __future__ import annotations

from ipaddress import ip_network

from netemu.apiserver.validation.fields import (
    cidr_text,
    dns1035_label,
    dns1123_label,
    dns1123_subdomain,
    domain_prefixed_path,
    forbidden,
    immutable,
    invalid,
    invalid_for,
    ip_text,
    is_ip,
    label_selector,
    not_supported,
    one_of,
    port_name,
    port_number,
    required,
    too_long,
    wildcard_subdomain,
)
from netemu.apiserver.validation.meta import path_segment
from netemu.client.base import Obj
from netemu.model.errors import FieldError

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
"""How an Ingress named its class before there was a field for it."""

_MAX_CONTROLLER = 250
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_IN_PATHS = ("//", "/./", "/../", "%2f", "%2F")
_BAD_PATH_ENDS = ("/..", "/.")
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_POLICY_TYPES = ("Ingress", "Egress")
_DNS_NAME = "must be a DNS name, not an IP address"


# --- Ingress --------------------------------------------------------------------------------------------------------


def validate_ingress(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of an Ingress."""
    spec: Obj = obj.get("spec") or {}
    errors: list[FieldError] = []
    if not spec.get("rules") and spec.get("defaultBackend") is None:
        why = "Invalid value: []networking.IngressRule(nil): either `defaultBackend` or `rules` must be specified"
        errors.append(FieldError("spec", "FieldValueInvalid", why))
    if (backend := spec.get("defaultBackend")) is not None:
        errors += _backend("spec.defaultBackend", backend)
    for index, rule in enumerate(spec.get("rules") or ()):
        errors += _rule(f"spec.rules[{index}]", rule)
    for index, tls in enumerate(spec.get("tls") or ()):
        errors += _tls(f"spec.tls[{index}]", tls)
    if (name := spec.get("ingressClassName")) is not None:
        errors += invalid_for("spec.ingressClassName", name, dns1123_subdomain(name))
        annotation = (obj["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
        if old is None and annotation not in (None, name):
            why = "must match `ingressClassName` when both are specified"
            errors.append(invalid(f"annotations.{CLASS_ANNOTATION}", annotation, why))
    return errors + _balancer("status.loadBalancer", (obj.get("status") or {}).get("loadBalancer") or {})


def _balancer(path: str, status: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, point in enumerate(status.get("ingress") or ()):
        where = f"{path}.ingress[{index}]"
        if ip := point.get("ip"):
            errors += invalid_for(f"{where}.ip", ip, ip_text(ip))
        if name := point.get("hostname"):
            errors += invalid_for(f"{where}.hostname", name, dns1123_subdomain(name))
            errors += [invalid(f"{where}.hostname", name, _DNS_NAME)] if is_ip(name) else []
    return errors


def _tls(path: str, tls: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, host in enumerate(tls.get("hosts") or ()):
        errors += _host(f"{path}.hosts[{index}]", host)
    if name := tls.get("secretName"):
        errors += invalid_for(f"{path}.secretName", name, dns1123_subdomain(name))
    return errors


def _host(path: str, host: str) -> list[FieldError]:
    return invalid_for(path, host, wildcard_subdomain(host) if "*" in host else dns1123_subdomain(host))


def _rule(path: str, rule: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    if host := rule.get("host"):
        errors += [invalid(f"{path}.host", host, _DNS_NAME)] if is_ip(host) else []
        errors += _host(f"{path}.host", host)
    if (http := rule.get("http")) is not None:
        if not http.get("paths"):
            errors.append(required(f"{path}.http.paths"))
        for index, entry in enumerate(http.get("paths") or ()):
            errors += _path(f"{path}.http.paths[{index}]", entry)
    return errors


def _path(path: str, entry: Obj) -> list[FieldError]:
    kind, text = entry.get("pathType"), entry.get("path") or ""
    if not kind:
        return [required(f"{path}.pathType", "pathType must be specified")]
    errors: list[FieldError] = []
    if kind not in _PATH_TYPES:
        errors.append(not_supported(f"{path}.pathType", kind, _PATH_TYPES))
    elif not text.startswith("/") and (text or kind != "ImplementationSpecific"):
        errors.append(invalid(f"{path}.path", text, "must be an absolute path"))
    if kind in ("Exact", "Prefix"):
        reasons = [f"must not contain '{bad}'" for bad in _BAD_IN_PATHS if bad in text]
        reasons += [f"cannot end with '{bad}'" for bad in _BAD_PATH_ENDS if text.endswith(bad)]
        errors += invalid_for(f"{path}.path", text, reasons)
    return errors + _backend(f"{path}.backend", entry.get("backend") or {})


def _backend(path: str, backend: Obj) -> list[FieldError]:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        return [invalid(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return _reference(f"{path}.resource", resource)
    if service is None:
        return [invalid(path, "", "resource or service backend is required")]
    name, where = service.get("name") or "", f"{path}.service"
    errors = invalid_for(f"{where}.name", name, dns1035_label(name)) if name else [required(f"{where}.name")]
    port: Obj = service.get("port") or {}
    if port.get("name") and port.get("number"):
        errors.append(invalid(path, "", "cannot set both port name & port number"))
    elif port.get("name"):
        errors += invalid_for(f"{where}.port.name", port["name"], port_name(port["name"]))
    elif port.get("number"):
        errors += invalid_for(f"{where}.port.number", port["number"], port_number(port["number"]))
    else:
        errors.append(required(path, "port name or number is required"))
    return errors


def _reference(path: str, reference: Obj) -> list[FieldError]:
    """Errors of what names an object of any kind."""
    errors: list[FieldError] = []
    if (group := reference.get("apiGroup")) is not None:
        errors += invalid_for(f"{path}.apiGroup", group, dns1123_subdomain(group))
    for key in ("kind", "name"):
        value = reference.get(key) or ""
        errors += invalid_for(f"{path}.{key}", value, path_segment(value)) if value else [required(f"{path}.{key}")]
    return errors


# --- IngressClass ---------------------------------------------------------------------------------------------------


def validate_ingressclass(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of an IngressClass."""
    spec: Obj = obj.get("spec") or {}
    path, controller = "spec.controller", spec.get("controller") or ""
    errors = [too_long(path, _MAX_CONTROLLER)] if len(controller) > _MAX_CONTROLLER else []
    errors += domain_prefixed_path(path, controller)
    if old is not None:
        errors += immutable(path, controller, (old.get("spec") or {}).get("controller") or "")
    if (parameters := spec.get("parameters")) is not None:
        errors += _parameters("spec.parameters", parameters)
    return errors


def _parameters(path: str, parameters: Obj) -> list[FieldError]:
    errors = _reference(path, parameters)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    errors += one_of(f"{path}.scope", scope, ("Cluster", "Namespace"))
    if scope == "Namespace" and namespace is None:
        errors.append(required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'"))
    elif scope == "Namespace":
        errors += invalid_for(f"{path}.namespace", namespace, dns1123_label(namespace or ""))
    elif scope == "Cluster" and namespace is not None:
        errors.append(forbidden(f"{path}.namespace", "`parameters.scope` is set to 'Cluster'"))
    return errors


# --- NetworkPolicy --------------------------------------------------------------------------------------------------


def validate_networkpolicy(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a NetworkPolicy."""
    spec: Obj = obj.get("spec") or {}
    errors = label_selector("spec.podSelector", spec.get("podSelector"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{index}]"
            for at, port in enumerate(rule.get("ports") or ()):
                errors += _policy_port(f"{path}.ports[{at}]", port)
            for at, peer in enumerate(rule.get(peers) or ()):
                errors += _peer(f"{path}.{peers}[{at}]", peer)
    types = spec.get("policyTypes") or []
    if len(types) > len(_POLICY_TYPES):
        return [*errors, invalid("spec.policyTypes", types, "may not specify more than two policyTypes")]
    for index, kind in enumerate(types):
        errors += one_of(f"spec.policyTypes[{index}]", kind, _POLICY_TYPES)
    return errors


def _policy_port(path: str, entry: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    if (protocol := entry.get("protocol")) is not None:
        errors += one_of(f"{path}.protocol", protocol, _PROTOCOLS)
    port, last = entry.get("port"), entry.get("endPort")
    if isinstance(port, int):
        errors += invalid_for(f"{path}.port", port, port_number(port))
        if last is not None:
            if last < port:
                errors.append(invalid(f"{path}.endPort", port, "must be greater than or equal to `port`"))
            errors += invalid_for(f"{path}.endPort", last, port_number(last))
        return errors
    if last is not None:
        why = "is not specified" if port is None else "is non-numeric"
        errors.append(invalid(f"{path}.endPort", last, f"may not be specified when `port` {why}"))
    return errors + ([] if port is None else invalid_for(f"{path}.port", port, port_name(port)))


def _peer(path: str, peer: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    selectors = [key for key in ("podSelector", "namespaceSelector") if peer.get(key) is not None]
    for key in selectors:
        errors += label_selector(f"{path}.{key}", peer[key])
    block = peer.get("ipBlock")
    if block is not None:
        errors += _block(f"{path}.ipBlock", block)
        if selectors:
            errors.append(forbidden(path, "may not specify both ipBlock and another peer"))
    elif not selectors:
        errors.append(required(path, "must specify a peer"))
    return errors


def _block(path: str, block: Obj) -> list[FieldError]:
    cidr = block.get("cidr") or ""
    if not cidr:
        return [required(f"{path}.cidr")]
    if reasons := cidr_text(cidr):
        return invalid_for(f"{path}.cidr", cidr, reasons)
    errors: list[FieldError] = []
    whole = ip_network(cidr, strict=False)
    for index, text in enumerate(block.get("except") or ()):
        where = f"{path}.except[{index}]"
        if reasons := cidr_text(text):
            return errors + invalid_for(where, text, reasons)
        part = ip_network(text, strict=False)
        if part.version != whole.version or part == whole or not part.subnet_of(whole):  # type: ignore[arg-type]
            errors.append(invalid(where, text, "must be a strict subset of `cidr`"))
    return errors


# --- IPAddress, ServiceCIDR -------------------------------------------------------------------------------------------


def validate_ipaddress(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of an IPAddress."""
    path, parent = "spec.parentRef", (obj.get("spec") or {}).get("parentRef")
    if old is not None:
        return immutable(path, parent, (old.get("spec") or {}).get("parentRef"))
    if parent is None:
        return [required(path)]
    errors: list[FieldError] = []
    if group := parent.get("group"):
        errors += invalid_for(f"{path}.group", group, dns1123_subdomain(group))
    for key in ("resource", "name", "namespace"):
        if value := parent.get(key):
            errors += invalid_for(f"{path}.{key}", value, path_segment(value))
        elif key != "namespace":
            errors.append(required(f"{path}.{key}"))
    return errors


def validate_servicecidr(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a ServiceCIDR."""
    path, cidrs = "spec.cidrs", (obj.get("spec") or {}).get("cidrs") or []
    if not cidrs:
        return [required(path, "at least one CIDR required")]
    if len(cidrs) > 2:
        return [invalid(path, cidrs, "may only hold up to 2 values")]
    errors: list[FieldError] = []
    for index, cidr in enumerate(cidrs):
        errors += invalid_for(f"{path}[{index}]", cidr, cidr_text(cidr) or _host_bits(cidr))
    if not errors and len({ip_network(cidr).version for cidr in cidrs}) < len(cidrs):
        text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        errors.append(invalid(path, cidrs, text))
    if old is not None:
        errors += immutable(path, cidrs, (old.get("spec") or {}).get("cidrs") or [])
    return errors


def _host_bits(cidr: str) -> list[str]:
    network = str(ip_network(cidr, strict=False))
    return [] if cidr == network else [f'must be in canonical form ("{network}")']
