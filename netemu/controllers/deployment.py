"""Deployments: one ReplicaSet per template, and an orderly way from one to the next
(`pkg/controller/deployment`).

Each look at a Deployment takes one step: make the ReplicaSet of its template, or resize, or clean up. The next step
follows when the caches show the result of this one. Rolling back needs nothing of its own: the client writes an old
template, whose ReplicaSet still exists and becomes the new one again with the next revision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from netemu.client.index import Index, controller_uid
from netemu.controllers import rollout, rollout_status
from netemu.controllers.actions import Action, Actions, Again, Create, Delete, Patch, Say, owner_reference, status_patch
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.controllers.template import HASH_LABEL, normal, template_hash
from netemu.model.meta import encode
from netemu.model.objects import Deployment, ReplicaSet
from netemu.model.pods import Pod
from netemu.model.resources import DEPLOYMENTS, PODS, REPLICASETS
from netemu.model.selectors import LabelSelector

REVISION = "deployment.kubernetes.io/revision"
_HISTORY = "deployment.kubernetes.io/revision-history"
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        _HISTORY,
        rollout.DESIRED,
        rollout.MAXIMUM,
        "deprecated.deployment.rollback.to",
    }
)


@dataclass(frozen=True, slots=True)
class View:
    """A Deployment with its ReplicaSets: `new` has the present template, `old` are all others."""

    deployment: Deployment
    new: ReplicaSet | None
    old: tuple[ReplicaSet, ...]
    now: datetime

    @property
    def sets(self) -> tuple[ReplicaSet, ...]:
        """All ReplicaSets."""
        return (*self.old, self.new) if self.new else self.old

    def resized(self, sizes: Mapping[str, int]) -> View:
        """The same, as it will look once the sizes are written."""

        def one(rs: ReplicaSet) -> ReplicaSet:
            spec = msgspec.structs.replace(rs.spec, replicas=sizes.get(rs.name, rs.spec.replicas))
            return msgspec.structs.replace(rs, spec=spec)

        return View(self.deployment, one(self.new) if self.new else None, tuple(map(one, self.old)), self.now)


def reconcile(
    deployment: Deployment,
    sets: Sequence[ReplicaSet],
    old_pods: Mapping[str, Sequence[Pod]],
    now: datetime,
    taken: Callable[[str], bool] = lambda _: False,
) -> Actions:
    """The next step for `deployment`. `sets`: ReplicaSets that it owns or selects; `old_pods`: Pods by the uid of
    their ReplicaSet, needed where a Deployment recreates; `taken`: whether a ReplicaSet of that name exists."""
    selector = LabelSelector.of_spec(encode(deployment.spec.selector))
    if not selector:
        text = "This deployment is selecting all pods. A non-empty selector is required."
        return [Say(deployment, "Warning", "SelectingAll", text)]
    mine, actions = claim(deployment, selector, sets)
    if actions:
        return actions
    view = view_of(deployment, mine, now)
    if deployment.deleting:
        return _finish(view, rolling=False)
    if deployment.spec.paused or _is_scaling(view):
        return _scale(view)
    if view.new is None and not (deployment.spec.strategy.type == "Recreate" and _busy(view, old_pods)):
        return _create(view, taken)
    if view.new and (notes := _annotate(view, view.new)):
        return notes
    if deployment.spec.strategy.type == "Recreate":
        return _recreate(view, old_pods)
    return _roll(view)


def claim(
    deployment: Deployment, selector: LabelSelector, sets: Sequence[ReplicaSet]
) -> tuple[list[ReplicaSet], Actions]:
    """The ReplicaSets that belong to `deployment`, and the patches that adopt and release."""
    mine: list[ReplicaSet] = []
    actions: Actions = []
    uid = deployment.metadata.uid
    for rs in sets:
        matches, owner = selector.matches(rs.labels), controller_uid(rs)
        references = [encode(ref) for ref in rs.metadata.owner_references]
        if owner == uid and matches:
            mine.append(rs)
        elif owner == uid and not deployment.deleting:
            actions.append(_own(rs, [ref for ref in references if ref["uid"] != uid]))
        elif not owner and matches and not deployment.deleting and not rs.deleting:
            actions.append(_own(rs, [*references, owner_reference(deployment, "apps/v1", "Deployment")]))
    return mine, actions


def view_of(deployment: Deployment, sets: Sequence[ReplicaSet], now: datetime) -> View:
    """Which ReplicaSet is the new one: the oldest of those with the same template."""
    wanted = normal(deployment.spec.template)
    new = next((rs for rs in rollout.by_age(sets) if normal(rs.spec.template) == wanted), None)
    return View(deployment, new, tuple(rs for rs in rollout.by_age(sets) if rs is not new), now)


def replica_set_of(view: View) -> dict[str, Any]:
    """The ReplicaSet for the present template."""
    deployment = view.deployment
    template = dict(deployment.spec.template)
    meta = template.get("metadata") or {}
    digest = template_hash(template, deployment.status.collision_count or 0)
    labels = {**(meta.get("labels") or {}), HASH_LABEL: digest}
    template["metadata"] = {**{k: v for k, v in meta.items() if v is not None}, "labels": labels}
    selector = encode(deployment.spec.selector)
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}
    annotations = {
        **_copied(deployment),
        **_size_notes(deployment),
        REVISION: str(_newest(view.old) + 1),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{deployment.name}-{digest}",
            "namespace": deployment.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner_reference(deployment, "apps/v1", "Deployment")],
        },
        "spec": {
            "replicas": rollout.new_size(deployment, None, view.old),
            "minReadySeconds": deployment.spec.min_ready_seconds,
            "selector": selector,
            "template": template,
        },
    }


def _create(view: View, taken: Callable[[str], bool]) -> Actions:
    deployment = view.deployment
    obj = replica_set_of(view)
    name, size = obj["metadata"]["name"], obj["spec"]["replicas"]
    if taken(name):  # by another template with the same hash: hash with another count until the name is free
        status = {"status": {"collisionCount": (deployment.status.collision_count or 0) + 1}}
        return [Patch(DEPLOYMENTS, deployment.name, status, deployment.namespace, "status")]
    text = f"Scaled up replica set {name} from 0 to {size}"
    done = Say(deployment, "Normal", "ScalingReplicaSet", text) if size else None
    failed = Say(deployment, "Warning", "ReplicaSetCreateError", "Failed to create new replica set: {error}")
    create = Create(REPLICASETS, obj, deployment.namespace, done, failed)
    return [create, *_revise(deployment, obj["metadata"]["annotations"][REVISION])]


def _annotate(view: View, new: ReplicaSet) -> Actions:
    """Bring the notes on the new ReplicaSet up to date: what the Deployment says, and the highest revision."""
    deployment = view.deployment
    notes = {key: value for key, value in _copied(deployment).items() if new.annotations.get(key) != value}
    revision, before = _newest(view.old) + 1, new.annotations.get(REVISION, "0")
    if int(before or 0) < revision:
        notes[REVISION] = str(revision)
        if before != "0":
            past = new.annotations.get(_HISTORY)
            notes[_HISTORY] = f"{past},{before}" if past else before
    patch: dict[str, Any] = {"metadata": {"annotations": notes}} if notes else {}
    if new.spec.min_ready_seconds != deployment.spec.min_ready_seconds:
        patch["spec"] = {"minReadySeconds": deployment.spec.min_ready_seconds}
    current = notes.get(REVISION, before)
    actions = _revise(deployment, current)
    if patch:
        actions.insert(0, Patch(REPLICASETS, new.name, patch, new.namespace))
    return actions


def _roll(view: View) -> Actions:
    deployment, new = view.deployment, view.new
    assert new is not None
    size = rollout.new_size(deployment, new, view.sets)
    if size > deployment.spec.replicas:
        size = deployment.spec.replicas
    if size != new.spec.replicas:
        return _resize(view, {new.name: size})
    if sizes := rollout.shrink_old(deployment, new, [rs for rs in view.old if rs.spec.replicas]):
        return _resize(view, sizes)
    return _finish(view)


def _recreate(view: View, pods: Mapping[str, Sequence[Pod]]) -> Actions:
    if sizes := {rs.name: 0 for rs in view.old if rs.spec.replicas}:
        return _resize(view, sizes)
    if view.new is None or _busy(view, pods):
        return _finish(view)
    if view.new.spec.replicas != view.deployment.spec.replicas:
        return _resize(view, {view.new.name: view.deployment.spec.replicas})
    return _finish(view)


def _busy(view: View, pods: Mapping[str, Sequence[Pod]]) -> bool:
    """Whether Pods of old templates still run, or are about to."""
    running = any(not pod.finished for rs in view.old for pod in pods.get(rs.metadata.uid, ()))
    return running or any(rs.spec.replicas for rs in view.old)


def _is_scaling(view: View) -> bool:
    wanted = str(view.deployment.spec.replicas)
    noted = [rs.annotations.get(rollout.DESIRED) for rs in view.sets if rs.spec.replicas]
    return any(note is not None and note != wanted for note in noted)


def _scale(view: View) -> Actions:
    """`spec.replicas` changed, or the Deployment is paused: sizes follow, templates do not."""
    deployment = view.deployment
    active = [rs for rs in view.sets if rs.spec.replicas]
    sizes: dict[str, int] = {}
    if len(active) <= 1:
        only = active[0] if active else (view.new or next(iter(reversed(view.old)), None))
        if only:
            sizes = {only.name: deployment.spec.replicas}
    elif view.new and _saturated(view.new, deployment):
        sizes = {rs.name: 0 for rs in view.old if rs.spec.replicas} | {view.new.name: view.new.spec.replicas}
    elif deployment.spec.strategy.type == "RollingUpdate":
        sizes = rollout.proportional(deployment, active)
    return _resize(view, sizes, rolling=False)


def _saturated(rs: ReplicaSet, deployment: Deployment) -> bool:
    wanted = deployment.spec.replicas
    return rs.spec.replicas == wanted == rs.status.available_replicas and rs.annotations.get(rollout.DESIRED) == str(
        wanted
    )


def _resize(view: View, sizes: Mapping[str, int], *, rolling: bool = True) -> Actions:
    """Write sizes (and the notes that go with them), then the status as it follows from them."""
    deployment, actions = view.deployment, list[Action]()
    notes = _size_notes(deployment)
    for rs in view.sets:
        if rs.name not in sizes:
            continue
        before, after = rs.spec.replicas, sizes[rs.name]
        stale = {key: value for key, value in notes.items() if rs.annotations.get(key) != value}
        if before == after and not stale:
            continue
        patch: dict[str, Any] = {"metadata": {"annotations": stale}} if stale else {}
        done = None
        if before != after:
            patch["spec"] = {"replicas": after}
            way = "up" if after > before else "down"
            text = f"Scaled {way} replica set {rs.name} from {before} to {after}"
            done = Say(deployment, "Normal", "ScalingReplicaSet", text)
        version = rs.metadata.resource_version
        actions.append(Patch(REPLICASETS, rs.name, patch, rs.namespace, resource_version=version, done=done))
    return [*actions, *_finish(view.resized(sizes), rolling=rolling)]


def _finish(view: View, *, rolling: bool = True) -> Actions:
    """Status, the next look, and old ReplicaSets beyond the history limit once the rollout is complete."""
    deployment, actions = view.deployment, list[Action]()
    status = rollout_status.status(deployment, view.new, view.sets, view.now, rolling=rolling)
    if patch := status_patch(deployment.status, status):
        actions.append(Patch(DEPLOYMENTS, deployment.name, {"status": patch}, deployment.namespace, "status"))
    left = rollout_status.deadline_in(deployment, status, view.now) if rolling else None
    if left is not None:
        actions.append(Again(left))
    if rollout_status.complete(deployment, status) and not deployment.deleting:
        actions += _forget(view)
    return actions


def _forget(view: View) -> Actions:
    """Delete the oldest revisions beyond `revisionHistoryLimit`, if they are really empty."""
    alive = [rs for rs in view.old if not rs.deleting]
    surplus = len(alive) - view.deployment.spec.revision_history_limit
    oldest = sorted(alive, key=lambda rs: int(rs.annotations.get(REVISION) or 0))[: max(0, surplus)]
    return [
        Delete(REPLICASETS, rs.name, rs.namespace, rs.metadata.uid, "Background")
        for rs in oldest
        if not rs.spec.replicas and not rs.status.replicas and rs.status.observed_generation >= rs.metadata.generation
    ]


def _newest(sets: Sequence[ReplicaSet]) -> int:
    return max((int(rs.annotations.get(REVISION) or 0) for rs in sets), default=0)


def _copied(deployment: Deployment) -> dict[str, str]:
    return {key: value for key, value in deployment.annotations.items() if key not in _NOT_COPIED}


def _size_notes(deployment: Deployment) -> dict[str, str]:
    wanted = deployment.spec.replicas
    return {rollout.DESIRED: str(wanted), rollout.MAXIMUM: str(wanted + rollout.limits(deployment)[0])}


def _revise(deployment: Deployment, revision: str) -> Actions:
    if deployment.annotations.get(REVISION) == revision:
        return []
    patch = {"metadata": {"annotations": {REVISION: revision}}}
    return [Patch(DEPLOYMENTS, deployment.name, patch, deployment.namespace)]


def _own(rs: ReplicaSet, references: list[dict[str, Any]]) -> Patch:
    patch = {"metadata": {"uid": rs.metadata.uid, "ownerReferences": references or None}}
    return Patch(REPLICASETS, rs.name, patch, rs.namespace, resource_version=rs.metadata.resource_version)


class DeploymentController:
    """Watches Deployments, their ReplicaSets, and the end of Pods (for Recreate)."""

    name = "deployment-controller"
    needs = (DEPLOYMENTS, REPLICASETS, PODS)

    def __init__(self, cache: Cache) -> None:
        self._deployments = cache.of(DEPLOYMENTS, Deployment)
        self._sets = cache.of(REPLICASETS, ReplicaSet)
        self._pods = cache.of(PODS, Pod)
        self._by_uid = Index(self._deployments, lambda d: (d.metadata.uid,))
        self._by_namespace = Index(self._deployments, lambda d: (d.namespace,))
        self._owned = Index(self._sets, lambda rs: (controller_uid(rs) or f"orphan {rs.namespace}",))
        self._set_by_uid = Index(self._sets, lambda rs: (rs.metadata.uid,))
        self._pods_of = Index(self._pods, lambda pod: (controller_uid(pod),) if controller_uid(pod) else ())

    def watch(self, queue: Queue) -> None:
        """A Deployment that changed, the owner of a ReplicaSet that changed or lost a Pod."""

        def of_set(old: ReplicaSet | None, new: ReplicaSet | None) -> None:
            for rs in filter(None, (old, new)):
                uid = controller_uid(rs)
                for deployment in self._by_uid[uid] if uid else self._by_namespace[rs.namespace]:
                    queue.mark(deployment.key)

        def of_pod(old: Pod | None, new: Pod | None) -> None:
            if old is not None and (new is None or new.finished):
                for rs in self._set_by_uid[controller_uid(old)]:
                    for deployment in self._by_uid[controller_uid(rs)]:
                        if deployment.spec.strategy.type == "Recreate":
                            queue.mark(deployment.key)

        self._deployments.on_change(lambda _, new: queue.mark(new.key) if new else None)
        self._sets.on_change(of_set)
        self._pods.on_change(of_pod)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        deployment = self._deployments.get(key)
        if deployment is None:
            return ()
        uid = deployment.metadata.uid
        sets = [*self._owned[uid], *self._owned[f"orphan {deployment.namespace}"]]
        pods: dict[str, Sequence[Pod]] = {}
        if deployment.spec.strategy.type == "Recreate":
            pods = {rs.metadata.uid: self._pods_of[rs.metadata.uid] for rs in sets}

        def taken(name: str) -> bool:
            return self._sets.get(f"{deployment.namespace}/{name}") is not None

        return reconcile(deployment, sets, pods, datetime.now(UTC), taken)
