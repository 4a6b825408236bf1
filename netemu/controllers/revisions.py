"""The history of a DaemonSet or a StatefulSet: a ControllerRevision for every template that it had.

The revision of the present template has the highest number; a template that comes back gets its old revision with a new
number. Pods carry in a label which revision they were made from: of a DaemonSet the hash in its name, of a StatefulSet
the name. Upstream: `pkg/controller/{daemon/update.go,history}`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import count
from typing import Any

from netemu.client.index import controller_uid
from netemu.controllers.actions import Actions, Create, Delete, Patch, owner_reference
from netemu.controllers.template import normal, template_hash
from netemu.model.meta import encode
from netemu.model.resources import CONTROLLERREVISIONS
from netemu.model.selectors import LabelSelector
from netemu.model.workloads import ControllerRevision, DaemonSet, StatefulSet

HASH = "controller-revision-hash"
_HASH_OF_REVISION = {"DaemonSet": HASH, "StatefulSet": "controller.kubernetes.io/hash"}

Owner = DaemonSet | StatefulSet


def present(
    owner: Owner,
    revisions: Sequence[ControllerRevision],
    in_use: Collection[str],
    taken: Callable[[str], bool] = lambda _: False,
) -> tuple[ControllerRevision | None, Actions]:
    """The revision of the present template, None while there is none, and what brings the history in order.

    `revisions` are all of the namespace that are the owner's or nobody's; what it can use of the latter becomes its
    own. Those beyond the limit go, the oldest first, but for those that are `in_use`, by what Pods call them. `taken`:
    whether there is a revision of that name.
    """
    orphans = [] if owner.deleting else [one for one in revisions if _adoptable(owner, one)]
    owned = [one for one in revisions if controller_uid(one) == owner.metadata.uid]
    mine = sorted([*owned, *orphans], key=lambda one: one.revision)
    actions: Actions = [_adopt(owner, one) for one in orphans]
    last = mine[-1].revision if mine else 0
    wanted = normal(owner.spec.template)
    now = next((one for one in reversed(mine) if normal(template_of(one)) == wanted), None)
    if now is None:
        return None, actions if owner.deleting else [*actions, _create(owner, last + 1, taken)]
    if now.revision < last:
        actions.append(Patch(CONTROLLERREVISIONS, now.name, {"revision": last + 1}, owner.namespace))
    old = [one for one in mine if one is not now and mark(owner, one) not in in_use]
    for one in old[: max(0, len(old) - owner.spec.revision_history_limit)]:
        actions.append(Delete(CONTROLLERREVISIONS, one.name, owner.namespace, one.metadata.uid))
    return now, actions


def mark(owner: Owner, revision: ControllerRevision) -> str:
    """What Pods of a revision carry in the label `HASH`."""
    return revision.labels.get(HASH, "") if isinstance(owner, DaemonSet) else revision.name


def template_of(revision: ControllerRevision) -> dict[str, Any]:
    """The template that a revision keeps."""
    kept = (revision.data.get("spec") or {}).get("template") or {}
    return {key: value for key, value in kept.items() if key != "$patch"}


def _adoptable(owner: Owner, revision: ControllerRevision) -> bool:
    """Whether a revision that nobody owns is one of an owner of this kind and selector."""
    known = _HASH_OF_REVISION[type(owner).__name__] in revision.labels and not controller_uid(revision)
    return known and LabelSelector.of_spec(encode(owner.spec.selector)).matches(revision.labels)


def _adopt(owner: Owner, revision: ControllerRevision) -> Patch:
    references = [
        *map(encode, revision.metadata.owner_references),
        owner_reference(owner, "apps/v1", type(owner).__name__),
    ]
    patch = {"metadata": {"uid": revision.metadata.uid, "ownerReferences": references}}
    version = revision.metadata.resource_version
    return Patch(CONTROLLERREVISIONS, revision.name, patch, owner.namespace, resource_version=version)


def _create(owner: Owner, revision: int, taken: Callable[[str], bool]) -> Create:
    kind = type(owner).__name__
    digests = (template_hash(owner.spec.template, collisions) for collisions in count())
    digest = next(digest for digest in digests if not taken(f"{owner.name}-{digest}"))
    labels = {**((owner.spec.template.get("metadata") or {}).get("labels") or {}), _HASH_OF_REVISION[kind]: digest}
    made = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{owner.name}-{digest}",
            "namespace": owner.namespace,
            "labels": labels,
            **({"annotations": owner.annotations} if owner.annotations else {}),
            "ownerReferences": [owner_reference(owner, "apps/v1", kind)],
        },
        # What a rollback patches the owner with.
        "data": {"spec": {"template": {**owner.spec.template, "$patch": "replace"}}},
        "revision": revision,
    }
    return Create(CONTROLLERREVISIONS, made, owner.namespace)
