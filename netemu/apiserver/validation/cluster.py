"""What is wrong with Namespaces, Nodes, ConfigMaps, Secrets, Events, Leases and RuntimeClasses.

Facts: `pkg/apis/{core,coordination,node}/validation` of Kubernetes 1.32.
"""

from __future__ import annotations

import base64
import binascii
from ipaddress import ip_network

from netemu.apiserver import json_values
from netemu.apiserver.validation.fields import (
    IMMUTABLE,
    cidr_text,
    config_key,
    dns1123_label,
    duplicate,
    forbidden,
    immutable,
    invalid,
    invalid_for,
    label_value,
    labels,
    one_of,
    qualified_name,
    required,
    too_long,
)
from netemu.apiserver.validation.pod import validate_tolerations
from netemu.apiserver.validation.resources import resource_list
from netemu.client.base import Obj
from netemu.model.errors import BadRequest, FieldError

MAX_DATA_BYTES = 1024 * 1024

TAINT_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")

_SECRET_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
"""Keys that a Secret of a type must have; of the first two types they must hold JSON."""


def validate_namespace(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a Namespace."""
    errors: list[FieldError] = []
    for index, name in enumerate((obj.get("spec") or {}).get("finalizers") or ()):
        path = f"spec.finalizers[{index}]"
        errors += invalid_for(path, name, qualified_name(name))
        if "/" not in name and name != "kubernetes":
            errors.append(invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified"))
    return errors


# --- Node ---------------------------------------------------------------------------------------------------------


def validate_node(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a Node."""
    spec: Obj = obj.get("spec") or {}
    errors = _taints(spec.get("taints") or [])
    errors += _pod_cidrs(spec.get("podCIDRs") or [])
    if spec.get("podCIDR") and spec.get("podCIDRs") and spec["podCIDR"] != spec["podCIDRs"][0]:
        errors.append(invalid("spec.podCIDR", spec["podCIDR"], "must be the first of `podCIDRs`"))
    status: Obj = obj.get("status") or {}
    for key in ("capacity", "allocatable"):
        errors += resource_list(f"status.{key}", status.get(key))
    seen: list[Obj] = []
    for index, address in enumerate(status.get("addresses") or ()):
        if address in seen:
            errors.append(duplicate(f"status.addresses[{index}]", address))
        seen.append(address)
    if old is not None:
        errors += _node_update(spec, old.get("spec") or {})
    return errors


def _node_update(spec: Obj, old: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    before, after = old.get("podCIDRs") or [], spec.get("podCIDRs") or []
    if before and before != after:
        text = 'node updates may not change podCIDR except from "" to valid'
        errors.append(forbidden("spec.podCIDRs", text))
    if old.get("providerID") and old["providerID"] != spec.get("providerID"):
        text = 'node updates may not change providerID except from "" to valid'
        errors.append(forbidden("spec.providerID", text))
    return errors


def _taints(taints: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        path = f"metadata.taints[{index}]"  # upstream's path; the field is spec.taints
        key, value, effect = taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""
        errors += invalid_for(f"{path}.key", key, qualified_name(key))
        errors += invalid_for(f"{path}.value", value, label_value(value))
        if not effect:
            errors.append(required(f"{path}.effect"))
        else:
            errors += one_of(f"{path}.effect", effect, TAINT_EFFECTS)
        if (key, effect) in seen:
            bad = {"key": key, "value": value, "effect": effect}
            text = duplicate(f"{path}", bad)
            errors.append(text)
        seen.add((key, effect))
    return errors


def _pod_cidrs(cidrs: list[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, cidr in enumerate(cidrs):
        errors += invalid_for(f"spec.podCIDRs[{index}]", cidr, cidr_text(cidr))
    if errors:
        return errors
    if len(cidrs) > 2 or (len(cidrs) == 2 and len({ip_network(cidr, strict=False).version for cidr in cidrs}) < 2):
        errors.append(invalid("spec.podCIDRs", cidrs, "may specify no more than one CIDR for each IP family"))
    return errors


# --- ConfigMap, Secret ------------------------------------------------------------------------------------------------


def validate_configmap(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a ConfigMap."""
    errors: list[FieldError] = []
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    for key in data:
        errors += invalid_for(f"data[{key}]", key, config_key(key))
        if key in binary:
            errors.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
    for key in binary:
        errors += invalid_for(f"binaryData[{key}]", key, config_key(key))
    size = sum(len(value.encode()) for value in data.values()) + sum(_decoded_size(value) for value in binary.values())
    if size > MAX_DATA_BYTES:
        errors.append(too_long("", MAX_DATA_BYTES))
    return errors + (_frozen(obj, old, ("data", "binaryData")) if old is not None else [])


def validate_secret(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a Secret."""
    errors: list[FieldError] = []
    data: dict[str, str] = obj.get("data") or {}
    for key in data:
        errors += invalid_for(f"data[{key}]", key, config_key(key))
    if sum(map(_decoded_size, data.values())) > MAX_DATA_BYTES:
        errors.append(too_long("data", MAX_DATA_BYTES))
    kind = obj.get("type") or ""
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            errors.append(required(f"data[{key}]"))
        elif key.startswith(".") and not _is_json(data[key]):
            errors.append(invalid(f"data[{key}]", "<secret contents redacted>", "invalid JSON"))
    if kind == "kubernetes.io/service-account-token":
        annotation = "kubernetes.io/service-account.name"
        if not ((obj.get("metadata") or {}).get("annotations") or {}).get(annotation):
            errors.append(required(f"metadata.annotations[{annotation}]"))
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & data.keys():
        errors += [required("data[username]"), required("data[password]")]
    if old is not None:
        errors += immutable("type", kind, old.get("type") or "")
        errors += _frozen(obj, old, ("data",))
    return errors


def _frozen(obj: Obj, old: Obj, keys: tuple[str, ...]) -> list[FieldError]:
    """What `immutable: true` forbids: taking it back, and changing what it protects."""
    if not old.get("immutable"):
        return []
    text = "field is immutable when `immutable` is set"
    changed = [key for key in ("immutable", *keys) if (obj.get(key) or None) != (old.get(key) or None)]
    return [forbidden(key, text) for key in changed]


def _decoded_size(text: str) -> int:
    return len(text) * 3 // 4 - text[-2:].count("=")


def _is_json(encoded: str) -> bool:
    try:
        json_values.decode(base64.b64decode(encoded))
    except (BadRequest, binascii.Error):
        return False
    return True


# --- Event, Lease, RuntimeClass ---------------------------------------------------------------------------------------


def validate_event(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of an Event in either shape: it lives where the object is that it tells of."""
    about: Obj = obj.get("involvedObject") or obj.get("regarding") or {}
    namespace = (obj.get("metadata") or {}).get("namespace") or ""
    where = about.get("namespace") or ""
    if (where and where != namespace) or (not where and namespace not in ("default", "kube-system")):
        # Events about cluster-scoped objects go to `default` (core/v1) or kube-system.
        return [invalid("involvedObject.namespace", where, "does not match event.namespace")]
    return []


def validate_lease(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a Lease."""
    spec: Obj = obj.get("spec") or {}
    errors: list[FieldError] = []
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        errors.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    transitions = spec.get("leaseTransitions")
    if transitions is not None and transitions < 0:
        errors.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    if spec.get("holderIdentity") == "":
        errors.append(invalid("spec.holderIdentity", "", "must not be empty"))
    if spec.get("preferredHolder") == "":
        errors.append(invalid("spec.preferredHolder", "", "must not be empty"))
    return errors


def validate_runtimeclass(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a RuntimeClass."""
    handler = obj.get("handler") or ""
    errors = invalid_for("handler", handler, dns1123_label(handler))
    errors += resource_list("overhead.podFixed", (obj.get("overhead") or {}).get("podFixed"))
    scheduling: Obj = obj.get("scheduling") or {}
    errors += labels("scheduling.nodeSelector", scheduling.get("nodeSelector"))
    errors += validate_tolerations("scheduling.tolerations", scheduling.get("tolerations") or [])
    if old is not None and handler != (old.get("handler") or ""):
        errors.append(invalid("handler", handler, IMMUTABLE))
    return errors
