"""What is wrong with the containers of a Pod: ports, environment, probes, hooks, mounts, resources.

Facts: `pkg/apis/core/validation/validation.go` of Kubernetes 1.32, ValidateContainers and what it calls.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from netemu.apiserver.validation.fields import (
    dns1123_label,
    duplicate,
    env_name,
    forbidden,
    invalid,
    invalid_for,
    ip_text,
    not_negative,
    one_of,
    port_name,
    port_number,
    required,
)
from netemu.apiserver.validation.resources import requirements
from netemu.apiserver.validation.volumes import validate_mounts
from netemu.client.base import Obj
from netemu.model.errors import FieldError

PULL_POLICIES = ("Always", "IfNotPresent", "Never")

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_FIELD_PATHS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
    "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip


def validate_containers(
    path: str, containers: list[Obj], volumes: Collection[str], names: set[str]
) -> list[FieldError]:
    """Errors of ordinary containers. `names` holds the names taken so far and is extended."""
    if not containers:
        return [required(path)]
    errors: list[FieldError] = []
    for index, container in enumerate(containers):
        errors += _container(f"{path}[{index}]", container, volumes, names)
        if "restartPolicy" in container:
            text = "may not be set for non-init containers"
            errors.append(forbidden(f"{path}[{index}].restartPolicy", text))
    return errors + _host_port_conflicts(path, containers)


def validate_init_containers(
    path: str, containers: list[Obj], volumes: Collection[str], names: set[str]
) -> list[FieldError]:
    """Errors of init containers; only those that restart always (sidecars) may have probes and hooks."""
    errors: list[FieldError] = []
    for index, container in enumerate(containers):
        where = f"{path}[{index}]"
        errors += _container(where, container, volumes, names)
        if (policy := container.get("restartPolicy")) is not None:
            errors += one_of(f"{where}.restartPolicy", policy, ("Always",))
        if policy != "Always":
            for key in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
                if key in container:
                    text = "may not be set for init containers without restartPolicy=Always"
                    errors.append(forbidden(f"{where}.{key}", text))
    return errors


def validate_ephemeral_containers(
    path: str, containers: list[Obj], volumes: Collection[str], names: set[str]
) -> list[FieldError]:
    """Errors of ephemeral containers that any container could have; see `ephemeral` for others."""
    errors: list[FieldError] = []
    for index, container in enumerate(containers):
        errors += _container(f"{path}[{index}]", container, volumes, names)
    return errors


def _container(path: str, container: Obj, volumes: Collection[str], names: set[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    name, image = container.get("name") or "", container.get("image") or ""
    if not name:
        errors.append(required(f"{path}.name"))
    else:
        errors += invalid_for(f"{path}.name", name, dns1123_label(name))
    if name in names:
        errors.append(duplicate(f"{path}.name", name))
    names.add(name)
    if not image:
        errors.append(required(f"{path}.image"))
    elif image != image.strip():
        errors.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    policy = container.get("terminationMessagePolicy") or ""
    errors += one_of(f"{path}.terminationMessagePolicy", policy, ("FallbackToLogsOnError", "File"))
    errors += one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy") or "", PULL_POLICIES)
    errors += _ports(f"{path}.ports", container.get("ports") or [])
    errors += _env(f"{path}.env", container.get("env") or [])
    errors += _env_from(f"{path}.envFrom", container.get("envFrom") or [])
    errors += validate_mounts(f"{path}.volumeMounts", container.get("volumeMounts") or [], volumes)
    errors += requirements(f"{path}.resources", container.get("resources") or {})
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if key in container:
            errors += _probe(f"{path}.{key}", container[key], key)
    for hook in ("postStart", "preStop"):
        if handler := (container.get("lifecycle") or {}).get(hook):
            errors += _handler(f"{path}.lifecycle.{hook}", handler, (*_HANDLERS[:3], "sleep"))
    return errors


def _ports(path: str, ports: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        where, name = f"{path}[{index}]", port.get("name") or ""
        if name:
            errors += invalid_for(f"{where}.name", name, port_name(name))
            if name in names:
                errors.append(duplicate(f"{where}.name", name))
            names.add(name)
        number = port.get("containerPort") or 0
        if not number:
            errors.append(required(f"{where}.containerPort"))
        else:
            errors += invalid_for(f"{where}.containerPort", number, port_number(number))
        if port.get("hostPort"):
            errors += invalid_for(f"{where}.hostPort", port["hostPort"], port_number(port["hostPort"]))
        protocol = port.get("protocol") or ""
        errors += one_of(f"{where}.protocol", protocol, _PROTOCOLS) if protocol else [required(f"{where}.protocol")]
        if port.get("hostIP"):
            errors += invalid_for(f"{where}.hostIP", port["hostIP"], ip_text(port["hostIP"]))
    return errors


def _host_port_conflicts(path: str, containers: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[str, str, int]] = set()
    for index, container in enumerate(containers):
        for at, port in enumerate(container.get("ports") or ()):
            if not port.get("hostPort"):
                continue
            key = (port.get("protocol") or "", port.get("hostIP") or "", port["hostPort"])
            if key in seen:
                text = f"{key[0]}/{key[1]}/{key[2]}"
                errors.append(duplicate(f"{path}[{index}].ports[{at}].hostPort", text))
            seen.add(key)
    return errors


# --- environment ------------------------------------------------------------------------------------------------------


def _env(path: str, variables: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, variable in enumerate(variables):
        where, name = f"{path}[{index}]", variable.get("name") or ""
        if not name:
            errors.append(required(f"{where}.name"))
        else:
            errors += invalid_for(f"{where}.name", name, env_name(name))
        if "valueFrom" in variable:
            errors += _env_source(f"{where}.valueFrom", variable)
    return errors


def _env_source(path: str, variable: Obj) -> list[FieldError]:
    source: Obj = variable["valueFrom"]
    kinds = [key for key in ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef") if source.get(key)]
    errors: list[FieldError] = []
    if not kinds:
        text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        errors.append(invalid(path, "", text))
    elif variable.get("value"):
        errors.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(kinds) > 1:
        errors.append(invalid(path, "", "may not have more than one field specified at a time"))
    for kind in kinds:
        errors += _reference(f"{path}.{kind}", kind, source[kind])
    return errors


def _reference(path: str, kind: str, reference: Obj) -> list[FieldError]:
    if kind in ("configMapKeyRef", "secretKeyRef"):
        return [required(f"{path}.{key}") for key in ("name", "key") if not reference.get(key)]
    if kind == "resourceFieldRef":
        return [] if reference.get("resource") else [required(f"{path}.resource")]
    field = reference.get("fieldPath") or ""
    if not field:
        return [required(f"{path}.fieldPath")]
    keyed = field.startswith(("metadata.labels['", "metadata.annotations['")) and field.endswith("']")
    return [] if keyed else one_of(f"{path}.fieldPath", field, _FIELD_PATHS)


def _env_from(path: str, sources: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, source in enumerate(sources):
        where = f"{path}[{index}]"
        if source.get("prefix"):
            errors += invalid_for(f"{where}.prefix", source["prefix"], env_name(source["prefix"]))
        kinds = [key for key in ("configMapRef", "secretRef") if source.get(key) is not None]
        if not kinds:
            errors.append(invalid(where, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(kinds) > 1:
            errors.append(invalid(where, "", "may not have more than one field specified at a time"))
        errors += [required(f"{where}.{key}.name") for key in kinds if not source[key].get("name")]
    return errors


# --- probes and hooks -------------------------------------------------------------------------------------------------


def _probe(path: str, probe: Obj, kind: str) -> list[FieldError]:
    errors = _handler(path, probe, _HANDLERS)
    for key in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        errors += not_negative(f"{path}.{key}", probe.get(key))
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None:
        if kind == "readinessProbe":
            text = "must not be set for readinessProbes"
            errors.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, text))
        elif grace <= 0:
            errors.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
    if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        errors.append(invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))
    return errors


def _handler(path: str, handler: Obj, kinds: Collection[str]) -> list[FieldError]:
    given = [kind for kind in kinds if handler.get(kind) is not None]
    if not given:
        return [required(path, "must specify a handler type")]
    errors = [forbidden(f"{path}.{kind}", "may not specify more than 1 handler type") for kind in given[1:]]
    kind, action = given[0], handler[given[0]]
    where = f"{path}.{kind}"
    if kind == "exec" and not action.get("command"):
        errors.append(required(f"{where}.command"))
    elif kind == "httpGet":
        errors += _http_get(where, action)
    elif kind in ("tcpSocket", "grpc"):
        errors += _port(f"{where}.port", action.get("port", 0))
    elif kind == "sleep" and action.get("seconds", 0) <= 0:
        errors.append(invalid(f"{where}.seconds", action.get("seconds", 0), "must be greater than 0"))
    return errors


def _http_get(path: str, action: Obj) -> list[FieldError]:
    errors = [] if action.get("path") else [required(f"{path}.path")]
    errors += _port(f"{path}.port", action.get("port", 0))
    errors += one_of(f"{path}.scheme", action.get("scheme") or "", ("HTTP", "HTTPS"))
    for index, header in enumerate(action.get("httpHeaders") or ()):
        name = header.get("name") or ""
        if not name or not all(char.isascii() and (char.isalnum() or char == "-") for char in name):
            text = (
                "a valid HTTP header must consist of alphanumeric characters or '-' "
                "(e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"
            )
            errors.append(invalid(f"{path}.httpHeaders[{index}].name", name, text))
    return errors


def _port(path: str, value: Any) -> list[FieldError]:
    """A number, or the name of a port of the container."""
    return invalid_for(path, value, port_number(value) if isinstance(value, int) else port_name(value))
