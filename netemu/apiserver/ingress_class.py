"""The class of an Ingress: whoever names none gets the cluster's default one (`DefaultIngressClass`)."""

from __future__ import annotations

from collections.abc import Iterable

from netemu.apiserver.validation.networking import CLASS_ANNOTATION
from netemu.client.base import Obj
from netemu.model.errors import Forbidden

IS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"


def set_default_class(ingress: Obj, classes: Iterable[Obj]) -> None:
    """Name the default class, in place, where an Ingress names none. Raises Forbidden where there are several.

    Upstream: `plugin/pkg/admission/network/defaultingressclass`.
    """
    metadata, spec = ingress["metadata"], ingress.get("spec") or {}
    if spec.get("ingressClassName") is not None or CLASS_ANNOTATION in (metadata.get("annotations") or {}):
        return
    defaults = [item for item in classes if (item["metadata"].get("annotations") or {}).get(IS_DEFAULT) == "true"]
    if len(defaults) > 1:
        name = metadata.get("name") or metadata.get("generateName", "")
        why = f"{len(defaults)} default IngressClasses were found, only 1 allowed"
        raise Forbidden(
            f'ingresses.networking.k8s.io "{name}" is forbidden: Internal error occurred: {why}',
            {"name": name, "group": "networking.k8s.io", "kind": "ingresses"},
        )
    if defaults:
        ingress["spec"] = {**spec, "ingressClassName": defaults[0]["metadata"]["name"]}


def warnings_on_create(obj: Obj) -> list[str]:
    """What to tell the creator of an object, if it is an Ingress (`pkg/registry/networking/ingress/strategy.go`)."""
    old_way = CLASS_ANNOTATION in (obj.get("metadata", {}).get("annotations") or {})
    if obj.get("kind") != "Ingress" or not old_way or "ingressClassName" in (obj.get("spec") or {}):
        return []
    return [f"annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"]
