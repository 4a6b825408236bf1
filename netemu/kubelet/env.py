"""A container's environment. Pure: what was fetched for it goes in.

Order and rules: kubernetes/pkg/kubelet/kubelet_pods.go (makeEnvironmentVariables): Services first, then envFrom, then
env, where `$(NAME)` means what stands before it and `$$(` is a plain `$(`.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from netemu.model.errors import UserError
from netemu.model.hosts import bracketed
from netemu.model.objects import Service
from netemu.model.pods import Container, EnvVar, Pod

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_KINDS = {"configmap": "ConfigMap", "secret": "Secret"}
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_KEYED = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_SUFFIXES: dict[str, Decimal | int] = {
    "m": Decimal("0.001"), "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sources:
    """What environments may refer to: name to key to text; a name that is missing does not exist."""

    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the Pod runs, for the downward API."""

    node_name: str
    host_ips: tuple[str, ...]
    pod_ips: tuple[str, ...]
    allocatable: Mapping[str, str] = field(default_factory=dict)
    """Stands in for limits that a container does not set."""


def referenced(containers: Iterable[Container]) -> tuple[set[str], set[str]]:
    """The ConfigMaps and Secrets that their environments name."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    for container in containers:
        for source in container.env_from:
            config_maps |= {source.config_map_ref.name} if source.config_map_ref else set()
            secrets |= {source.secret_ref.name} if source.secret_ref else set()
        for var in container.env:
            value_from = var.value_from or {}
            if ref := value_from.get("configMapKeyRef"):
                config_maps.add(ref.get("name", ""))
            if ref := value_from.get("secretKeyRef"):
                secrets.add(ref.get("name", ""))
    return config_maps, secrets


def environment(
    pod: Pod, container: Container, place: Place, services: Iterable[Service], sources: Sources
) -> dict[str, str]:
    """Name to value. Raises UserError for a missing ConfigMap, Secret or key that is not optional."""
    links = service_variables(pod, services)
    result: dict[str, str] = {}
    for source in container.env_from:
        if source.config_map_ref is not None:
            ref, kind, held = source.config_map_ref, "configmap", sources.config_maps
        elif source.secret_ref is not None:
            ref, kind, held = source.secret_ref, "secret", sources.secrets
        else:
            continue
        if ref.name not in held and not ref.optional:
            raise UserError(f'{kind} "{ref.name}" not found')
        pairs = ((source.prefix + key, value) for key, value in held.get(ref.name, {}).items())
        result |= {key: value for key, value in pairs if _NAME.fullmatch(key)}
    for var in container.env:
        value = _value(pod, container, var, place, sources, {**links, **result})
        if value is not None:
            result[var.name] = value
    return {**{key: value for key, value in links.items() if key not in result}, **result}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` replaced where NAME is known, `$$` by `$`; anything else stays as it is."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return _REFERENCE.sub(one, text)


def service_variables(pod: Pod, services: Iterable[Service]) -> dict[str, str]:
    """`WEB_SERVICE_HOST` and its kin: for `kubernetes` always, for the namespace's Services unless turned off."""
    found: dict[str, str] = {}
    for service in sorted(services, key=lambda s: (s.namespace != "default", s.name)):
        is_api = service.key == "default/kubernetes"
        linked = pod.spec.enable_service_links and service.namespace == pod.namespace
        if (is_api or linked) and service.spec.cluster_ip not in ("", "None") and service.spec.ports:
            found |= _of_service(service)
    return found


def _of_service(service: Service) -> dict[str, str]:
    prefix = _variable(service.name)
    address, ports = service.spec.cluster_ip, service.spec.ports
    shown = bracketed(address)
    found = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(ports[0].port)}
    found |= {f"{prefix}_SERVICE_PORT_{_variable(p.name)}": str(p.port) for p in ports if p.name}
    for index, port in enumerate(ports):
        protocol = port.protocol.lower()
        url = f"{protocol}://{shown}:{port.port}"
        if index == 0:
            found[f"{prefix}_PORT"] = url
        one = f"{prefix}_PORT_{port.port}_{protocol.upper()}"
        found |= {one: url, f"{one}_PROTO": protocol, f"{one}_PORT": str(port.port), f"{one}_ADDR": address}
    return found


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def _value(
    pod: Pod, container: Container, var: EnvVar, place: Place, sources: Sources, known: Mapping[str, str]
) -> str | None:
    origin = var.value_from
    if not origin:
        return expand(var.value, known)
    if ref := origin.get("fieldRef"):
        return field_value(pod, place, ref.get("fieldPath", ""))
    if ref := origin.get("resourceFieldRef"):
        return _resource_value(container, place, ref.get("resource", ""), ref.get("divisor") or "1")
    for field_name, kind, held in (
        ("configMapKeyRef", "configmap", sources.config_maps),
        ("secretKeyRef", "secret", sources.secrets),
    ):
        if ref := origin.get(field_name):
            return _keyed(kind, held, ref.get("name", ""), ref.get("key", ""), bool(ref.get("optional")), pod)
    raise UserError(f"env {var.name}: valueFrom names no known source")


def _keyed(
    kind: str, held: Mapping[str, Mapping[str, str]], name: str, key: str, optional: bool, pod: Pod
) -> str | None:
    value = held.get(name, {}).get(key)
    if value is not None or optional:
        return value
    if name not in held:
        raise UserError(f'{kind} "{name}" not found')
    raise UserError(f"couldn't find key {key} in {_KINDS[kind]} {pod.namespace}/{name}")


def field_value(pod: Pod, place: Place, path: str) -> str:
    """A field by the downward API's path. Raises UserError for a path it does not have."""
    if match := _KEYED.fullmatch(path):
        return (pod.labels if match[1] == "labels" else pod.annotations).get(match[2], "")
    values = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.metadata.uid,
        "metadata.labels": _pairs(pod.labels),
        "metadata.annotations": _pairs(pod.annotations),
        "spec.nodeName": place.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.hostIP": place.host_ips[0],
        "status.hostIPs": ",".join(place.host_ips),
        "status.podIP": place.pod_ips[0] if place.pod_ips else "",
        "status.podIPs": ",".join(place.pod_ips),
    }
    if path not in values:
        raise UserError(f"unsupported fieldPath: {path}")
    return values[path]


def _pairs(values: Mapping[str, str]) -> str:
    return "\n".join(f'{key}="{value}"' for key, value in sorted(values.items()))


def _resource_value(container: Container, place: Place, resource: str, divisor: str) -> str:
    section, _, name = resource.partition(".")
    given = ((container.resources or {}).get(section) or {}).get(name)
    amount = given or (place.allocatable.get(name, "0") if section == "limits" else "0")
    return str(math.ceil(quantity(str(amount)) / (quantity(str(divisor)) or 1)))


def quantity(text: str) -> Decimal:
    """`250m`, `64Mi`, `2` as a number. Raises UserError."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    if match is None or match[2] not in _SUFFIXES:
        raise UserError(f"{text!r} is not a quantity")
    return Decimal(match[1]) * _SUFFIXES[match[2]]


def decoded(secret: Mapping[str, str] | None) -> dict[str, bytes]:
    """A Secret's data, or a ConfigMap's binaryData, as bytes."""
    return {key: base64.b64decode(value) for key, value in (secret or {}).items()}
