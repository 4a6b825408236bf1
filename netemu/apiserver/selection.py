"""Which objects a list or a watch is about: namespace, labels, fields.

The fields that can be selected on are upstream's (`pkg/apis/core/v1/conversion.go` and each resource's strategy); every
resource has metadata.name and metadata.namespace.
"""

from __future__ import annotations

from dataclasses import dataclass

from netemu.client.base import Obj
from netemu.model.resources import EVENTS, EVENTS_V1, NAMESPACES, NODES, PODS, REPLICASETS, SECRETS, SERVICES, Resource
from netemu.model.selectors import FieldSelector, LabelSelector

_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")

_FIELDS: dict[Resource, tuple[str, ...]] = {
    PODS: (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
        "status.phase", "status.podIP", "status.nominatedNodeName",
    ),
    NODES: ("spec.unschedulable",),
    NAMESPACES: ("status.phase",),
    SERVICES: ("spec.clusterIP", "spec.type"),
    SECRETS: ("type",),
    REPLICASETS: ("status.replicas",),
    EVENTS: (*(f"involvedObject.{field}" for field in _REFERENCE), "reason", "reportingComponent", "source", "type"),
    EVENTS_V1: (*(f"regarding.{field}" for field in _REFERENCE), "reason", "reportingController", "type"),
}  # fmt: skip

_STORED = {"source": "source.component", "reportingController": "reportingComponent"} | {
    f"regarding.{field}": f"involvedObject.{field}" for field in _REFERENCE
}
"""What a field is called in the stored object."""

_FLAGS = frozenset({"spec.hostNetwork", "spec.unschedulable"})
"""Absent means false, which selectors spell out."""


_ANY_LABELS, _ANY_FIELDS = LabelSelector(), FieldSelector()


@dataclass(frozen=True, slots=True)
class Selection:
    """All must hold; an empty part selects everything."""

    namespace: str = ""
    labels: LabelSelector = _ANY_LABELS
    fields: FieldSelector = _ANY_FIELDS

    @staticmethod
    def parse(resource: Resource, namespace: str = "", labels: str = "", fields: str = "") -> Selection:
        """Read the query forms. Raises BadRequest for what is malformed and for fields that cannot be selected on."""
        selector = _ANY_FIELDS
        if fields:
            supported = ("metadata.name", "metadata.namespace", *_selectable(resource))
            terms = FieldSelector.parse(fields, supported).terms
            selector = FieldSelector(tuple(_as_stored(term) for term in terms))
        space = namespace if resource.namespaced else ""
        return Selection(space, LabelSelector.parse(labels) if labels else _ANY_LABELS, selector)

    def matches(self, obj: Obj) -> bool:
        """Whether an object is selected."""
        metadata = obj["metadata"]
        if self.namespace and metadata.get("namespace") != self.namespace:
            return False
        if self.labels and not self.labels.matches(metadata.get("labels")):
            return False
        return not self.fields or self.fields.matches(obj)

    def demands(self, path: str) -> str:
        """The one value of a field that a selected object can have; empty when it may have several."""
        if path == "metadata.namespace" and self.namespace:
            return self.namespace
        return self.fields.value(path) or ""

    @property
    def narrowed(self) -> bool:
        """Whether labels or fields take part."""
        return bool(self.labels or self.fields)


def _selectable(resource: Resource) -> tuple[str, ...]:
    if resource.custom:
        return tuple(field.json_path.removeprefix(".") for field in resource.custom.version.selectable_fields)
    return _FIELDS.get(resource, ())


def _as_stored(term: tuple[str, bool, str]) -> tuple[str, bool, str]:
    path, equal, value = term
    if path in _FLAGS and value == "false":
        return path, not equal, "true"
    return _STORED.get(path, path), equal, value
