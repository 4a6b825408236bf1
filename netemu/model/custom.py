"""CustomResourceDefinitions, and the resources that they bring.

A definition is served once its condition Established is true, in every version that says so, under the names that were
accepted (`status.acceptedNames`); the names of its spec are only a wish. Versions come in Kubernetes' order of priority
(`v2`, `v1`, `v1beta1`, `v1alpha1`), so that the first is the preferred one.
Upstream: `apiextensions-apiserver/pkg/apis/apiextensions/v1/types.go`, apimachinery `util/version`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import msgspec

from netemu.model.meta import KubeObject, Struct
from netemu.model.resources import ALL_VERBS, Resource


class Names(Struct, frozen=True):
    """What a custom resource is called."""

    plural: str = ""
    singular: str = ""
    kind: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class Scale(Struct, frozen=True):
    """Where in an object the numbers of its `scale` subresource are, as JSON paths."""

    spec_replicas_path: str = ""
    status_replicas_path: str = ""
    label_selector_path: str = ""


class Subresources(Struct, frozen=True):
    status: dict[str, Any] | None = None
    scale: Scale | None = None


class PrinterColumn(Struct, frozen=True):
    """A column of the table that `kubectl get` prints."""

    name: str = ""
    type: str = ""
    json_path: str = ""
    format: str = ""
    description: str = ""
    priority: int = 0


class SelectableField(Struct, frozen=True):
    json_path: str = ""


class Validation(Struct, frozen=True):
    openapi_schema: dict[str, Any] | None = msgspec.field(name="openAPIV3Schema", default=None)


class Version(Struct, frozen=True):
    """One version of a custom resource."""

    name: str = ""
    served: bool = False
    storage: bool = False
    deprecated: bool = False
    deprecation_warning: str = ""
    schema: Validation = Validation()
    subresources: Subresources = Subresources()
    additional_printer_columns: tuple[PrinterColumn, ...] = ()
    selectable_fields: tuple[SelectableField, ...] = ()


class DefinitionSpec(Struct, frozen=True):
    group: str = ""
    scope: str = ""
    names: Names = Names()
    versions: tuple[Version, ...] = ()


class DefinitionCondition(Struct, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


class DefinitionStatus(Struct, frozen=True):
    accepted_names: Names = Names()
    conditions: tuple[DefinitionCondition, ...] = ()
    stored_versions: tuple[str, ...] = ()


class CustomResourceDefinition(KubeObject, frozen=True):
    spec: DefinitionSpec = DefinitionSpec()
    status: DefinitionStatus = DefinitionStatus()

    def condition(self, name: str) -> DefinitionCondition:
        """A condition; one of no status where it is not set."""
        return next((one for one in self.status.conditions if one.type == name), DefinitionCondition(name))

    @property
    def established(self) -> bool:
        """Whether it is served."""
        return self.condition("Established").status == "True"


@dataclass(frozen=True, eq=False)
class Custom:
    """What a CustomResourceDefinition says of one of its resources, beyond what every resource has.

    Two are never equal: whatever is worked out of one is true of that one only.
    """

    names: Names
    version: Version
    storage_version: str

    @property
    def schema(self) -> dict[str, Any]:
        """The OpenAPI schema of the version's objects."""
        return self.version.schema.openapi_schema or {}

    @property
    def has_status(self) -> bool:
        """Whether `status` is a subresource, and thus no part of what a write of the object changes."""
        return self.version.subresources.status is not None


def resources_of(crd: CustomResourceDefinition) -> list[Resource]:
    """The resources that a definition brings at the moment, the preferred version first."""
    return [_resource(crd, version) for version in _in_order(crd) if version.served] if crd.established else []


def resources_wanted(crd: CustomResourceDefinition) -> list[Resource]:
    """The resources that a definition will bring if nobody else has its names."""
    status = DefinitionStatus(accepted_names=crd.spec.names, conditions=(DefinitionCondition("Established", "True"),))
    return resources_of(msgspec.structs.replace(crd, status=status))


def _in_order(crd: CustomResourceDefinition) -> list[Version]:
    return sorted(crd.spec.versions, key=lambda version: version_priority(version.name))


def _resource(crd: CustomResourceDefinition, version: Version) -> Resource:
    names, parts = crd.status.accepted_names, version.subresources
    storage = next((one.name for one in crd.spec.versions if one.storage), version.name)
    subresources = [*(["status"] if parts.status is not None else []), *(["scale"] if parts.scale else [])]
    return Resource(
        crd.spec.group,
        version.name,
        names.kind,
        names.plural,
        crd.spec.scope == "Namespaced",
        names.short_names,
        names.categories,
        tuple(subresources),
        tuple(verb for verb in ALL_VERBS if verb != "create" or not crd.deleting),
        Custom(names, version, storage),
    )


_VERSION = re.compile(r"v([0-9]+)(?:(alpha|beta)([0-9]+))?")
_STAGES = {None: 0, "beta": 1, "alpha": 2}


def version_priority(name: str) -> tuple[Any, ...]:
    """A sort key that puts the version that clients should prefer first: v10, v2, v1, v2beta1, v1alpha1, foo."""
    match = _VERSION.fullmatch(name)
    if match is None:
        return (3, 0, 0, name)
    return (_STAGES[match[2]], -int(match[1]), -int(match[3] or 0), name)
