"""What is wrong with the volumes of a Pod and with their mounts (`pkg/apis/core/validation`, ValidateVolumes)."""

from __future__ import annotations

from collections.abc import Collection

from netemu.apiserver.quantities import quantity
from netemu.apiserver.validation.fields import (
    config_key,
    dns1123_label,
    duplicate,
    forbidden,
    invalid,
    invalid_for,
    not_found,
    one_of,
    required,
)
from netemu.client.base import Obj
from netemu.model.errors import FieldError

_HOST_PATH_TYPES = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
_PROPAGATION = ("Bidirectional", "HostToContainer", "None")
_MODE_TEXT = "must be a number between 0 and 0777 (octal), both inclusive"


def validate_volumes(path: str, volumes: list[Obj]) -> list[FieldError]:
    """Errors of a Pod's volumes."""
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        where, name = f"{path}[{index}]", volume.get("name") or ""
        if not name:
            errors.append(required(f"{where}.name"))
        else:
            errors += invalid_for(f"{where}.name", name, dns1123_label(name))
        if name in names:
            errors.append(duplicate(f"{where}.name", name))
        names.add(name)
        errors += _source(where, volume)
    return errors


def _source(path: str, volume: Obj) -> list[FieldError]:
    sources = [key for key, value in volume.items() if key != "name" and isinstance(value, dict)]
    if not sources:
        return [required(path, "must specify a volume type")]
    errors = [forbidden(f"{path}.{key}", "may not specify more than 1 volume type") for key in sources[1:]]
    kind, source = sources[0], volume[sources[0]]
    where = f"{path}.{kind}"
    if kind == "secret":
        errors += _keyed(where, source, "secretName")
    elif kind == "configMap":
        errors += _keyed(where, source, "name")
    elif kind == "hostPath":
        errors += _host_path(where, source)
    elif kind == "projected":
        errors += _projected(where, source)
    elif kind == "downwardAPI":
        errors += _mode(where, source, "defaultMode") + _downward(where, source.get("items") or [])
    elif kind == "emptyDir":
        errors += _empty_dir(where, source)
    elif kind == "persistentVolumeClaim" and not source.get("claimName"):
        errors.append(required(f"{where}.claimName"))
    return errors


def _keyed(path: str, source: Obj, name_field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if not source.get(name_field):
        errors.append(required(f"{path}.{name_field}"))
    errors += _mode(path, source, "defaultMode")
    return errors + _items(path, source.get("items") or [])


def _items(path: str, items: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(items):
        where = f"{path}.items[{index}]"
        if not item.get("key"):
            errors.append(required(f"{where}.key"))
        else:
            errors += invalid_for(f"{where}.key", item["key"], config_key(item["key"]))
        errors += _local_path(f"{where}.path", item.get("path") or "") + _mode(where, item, "mode")
    return errors


def _mode(path: str, source: Obj, key: str) -> list[FieldError]:
    mode = source.get(key)
    if mode is not None and not 0 <= mode <= 0o777:
        return [invalid(f"{path}.{key}", mode, _MODE_TEXT)]
    return []


def _local_path(path: str, value: str) -> list[FieldError]:
    if not value:
        return [required(path)]
    if value.startswith("/"):
        return [invalid(path, value, "must be a relative path")]
    errors: list[FieldError] = []
    if ".." in value.split("/"):
        errors.append(invalid(path, value, "must not contain '..'"))
    if value.startswith("..") and not value.startswith("../"):
        errors.append(invalid(path, value, "must not start with '..'"))
    return errors


def _host_path(path: str, source: Obj) -> list[FieldError]:
    value = source.get("path") or ""
    if not value:
        return [required(f"{path}.path")]
    errors: list[FieldError] = []
    if ".." in value.split("/"):
        errors.append(invalid(f"{path}.path", value, "must not contain '..'"))
    return errors + one_of(f"{path}.type", source.get("type") or "", _HOST_PATH_TYPES)


def _empty_dir(path: str, source: Obj) -> list[FieldError]:
    limit = source.get("sizeLimit")
    number = quantity(limit) if limit is not None else None
    if number is not None and number < 0:
        return [forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    return []


def _downward(path: str, items: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(items):
        where = f"{path}[{index}]"
        errors += _local_path(f"{where}.path", item.get("path") or "") + _mode(where, item, "mode")
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if field and resource:
            errors.append(
                invalid(where, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
            )
        elif not field and not resource:
            errors.append(required(where, "one of fieldRef and resourceFieldRef is required"))
    return errors


def _projected(path: str, source: Obj) -> list[FieldError]:
    errors = _mode(path, source, "defaultMode")
    for index, part in enumerate(source.get("sources") or ()):
        where = f"{path}.sources[{index}]"
        kinds = [key for key, value in part.items() if isinstance(value, dict)]
        if not kinds:
            errors.append(required(where, "must specify a projected volume type"))
        errors += [forbidden(f"{where}.{key}", "may not specify more than 1 volume type") for key in kinds[1:]]
        for kind in kinds[:1]:
            errors += _projection(f"{where}.{kind}", kind, part[kind])
    return errors


def _projection(path: str, kind: str, part: Obj) -> list[FieldError]:
    if kind in ("secret", "configMap"):
        errors = [] if part.get("name") else [required(f"{path}.name")]
        return errors + _items(path, part.get("items") or [])
    if kind == "downwardAPI":
        return _downward(path, part.get("items") or [])
    if kind == "serviceAccountToken":
        errors = []
        if (part.get("expirationSeconds") or 0) < 600:
            errors.append(invalid(f"{path}.expirationSeconds", part.get("expirationSeconds"),
                                  "may not specify a duration less than 10 minutes"))  # fmt: skip
        return errors + ([] if part.get("path") else [required(f"{path}.path")])
    return []


def validate_mounts(path: str, mounts: list[Obj], volumes: Collection[str]) -> list[FieldError]:
    """Errors of a container's volumeMounts; `volumes` are the names that the Pod has."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        where, name, at = f"{path}[{index}]", mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            errors.append(required(f"{where}.name"))
        if name not in volumes:
            errors.append(not_found(f"{where}.name", name))
        if not at:
            errors.append(required(f"{where}.mountPath"))
        if at in seen:
            errors.append(invalid(f"{where}.mountPath", at, "must be unique"))
        seen.add(at)
        if mount.get("subPath") and mount.get("subPathExpr"):
            errors.append(
                invalid(f"{where}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")
            )
        for key in ("subPath", "subPathExpr"):
            if mount.get(key):
                errors += _local_path(f"{where}.{key}", mount[key])
        if (propagation := mount.get("mountPropagation")) is not None:
            errors += one_of(f"{where}.mountPropagation", propagation, _PROPAGATION)
    return errors
