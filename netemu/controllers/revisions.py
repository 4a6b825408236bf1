"""The history of a DaemonSet: a ControllerRevision for every template that it had (`pkg/controller/daemon/update.go`).

The revision of the present template has the highest number; a template that comes back gets its old revision with a new
number. Pods carry the hash in the name of the revision that they were made from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from netemu.client.index import controller_uid
from netemu.controllers.actions import Actions, Create, Delete, Patch, owner_reference
from netemu.controllers.template import normal, template_hash
from netemu.model.objects import ControllerRevision, DaemonSet
from netemu.model.resources import CONTROLLERREVISIONS

HASH = "controller-revision-hash"


def present(ds: DaemonSet, revisions: Sequence[ControllerRevision], in_use: Collection[str]) -> tuple[str, Actions]:
    """The hash of the present template, "" while it has no revision, and what brings the history in order.

    Revisions beyond the limit go, the oldest first, but for those whose hashes are `in_use`.
    """
    mine = sorted((one for one in revisions if controller_uid(one) == ds.metadata.uid), key=lambda one: one.revision)
    last = mine[-1].revision if mine else 0
    wanted = normal(ds.spec.template)
    now = next((one for one in reversed(mine) if _template(one) == wanted), None)
    if now is None:
        return "", [] if ds.deleting else [_create(ds, last + 1)]
    actions: Actions = []
    if now.revision < last:
        actions.append(Patch(CONTROLLERREVISIONS, now.name, {"revision": last + 1}, ds.namespace))
    old = [one for one in mine if one is not now and one.labels.get(HASH) not in in_use]
    for one in old[: max(0, len(old) - ds.spec.revision_history_limit)]:
        actions.append(Delete(CONTROLLERREVISIONS, one.name, ds.namespace, one.metadata.uid))
    return now.labels.get(HASH, ""), actions


def _template(revision: ControllerRevision) -> dict[str, Any]:
    kept = (revision.data.get("spec") or {}).get("template") or {}
    return normal({key: value for key, value in kept.items() if key != "$patch"})


def _create(ds: DaemonSet, revision: int) -> Create:
    digest = template_hash(ds.spec.template)
    labels = {**((ds.spec.template.get("metadata") or {}).get("labels") or {}), HASH: digest}
    made = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{ds.name}-{digest}",
            "namespace": ds.namespace,
            "labels": labels,
            **({"annotations": ds.annotations} if ds.annotations else {}),
            "ownerReferences": [owner_reference(ds, "apps/v1", "DaemonSet")],
        },
        # What a rollback patches the DaemonSet with.
        "data": {"spec": {"template": {**ds.spec.template, "$patch": "replace"}}},
        "revision": revision,
    }
    return Create(CONTROLLERREVISIONS, made, ds.namespace)
