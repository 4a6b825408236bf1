"""StatefulSets: numbered Pods, started, updated and ended in order (`pkg/controller/statefulset`).

Each look takes the next step. Pods that are missing are made from the lowest number up, each once those before it are
available; what is too many goes from the highest number down; then Pods of an old template are deleted, from the
highest number down to the partition, each once all above it are well again. With the policy Parallel, nothing but the
update waits. Claims are made with their Pod and stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from netemu.client.index import Index, controller_uid
from netemu.controllers import revisions
from netemu.controllers.actions import Action, Actions, Again, Create, Delete, Patch, Say, status_patch
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.controllers.replicaset import available_in, claim
from netemu.controllers.stateful_pods import claim_for, claim_name, ordinal_of, pod_for
from netemu.model.meta import KubeObject, encode
from netemu.model.pods import Pod
from netemu.model.resources import CONTROLLERREVISIONS, PERSISTENTVOLUMECLAIMS, PODS, STATEFULSETS
from netemu.model.selectors import LabelSelector
from netemu.model.workloads import ControllerRevision, StatefulSet, StatefulSetStatus


@dataclass(frozen=True, slots=True)
class View:
    """A StatefulSet and its Pods by number."""

    sts: StatefulSet
    pods: Mapping[int, Pod]
    update: ControllerRevision
    """That of the present template."""
    current: ControllerRevision
    """That of the template before, while Pods go from one to the other."""
    now: datetime

    @property
    def wanted(self) -> range:
        """The numbers that there should be."""
        start = self.sts.spec.ordinals.start
        return range(start, start + self.sts.spec.replicas)

    @property
    def first_updated(self) -> int:
        """The lowest number that gets the present template."""
        return self.wanted.start + self.sts.spec.update_strategy.rolling_update.partition

    def available(self, pod: Pod) -> bool:
        """Whether a Pod has been Ready for as long as it must, and stays."""
        return not pod.deleting and available_in(pod, self.sts.spec.min_ready_seconds, self.now) == 0


def reconcile(
    sts: StatefulSet,
    pods: Sequence[Pod],
    history: Sequence[ControllerRevision],
    now: datetime,
    taken: Callable[[str], bool] = lambda _: False,
    has_claim: Callable[[str], bool] = lambda _: False,
) -> Actions:
    """The next step for `sts`. `pods`: those in its namespace that it owns or selects; `history`: the revisions there
    that are its own or nobody's; `taken`, `has_claim`: whether there is a revision, or a claim, of that name."""
    if not LabelSelector.of_spec(encode(sts.spec.selector)):
        text = "This statefulset is selecting all pods. A non-empty selector is required."
        return [Say(sts, "Warning", "SelectingAll", text)]
    mine, actions = claim(sts, [pod for pod in pods if ordinal_of(sts, pod) is not None])
    in_use = {pod.labels.get(revisions.HASH, "") for pod in mine} | {sts.status.current_revision}
    update, steps = revisions.present(sts, history, in_use, taken)
    actions += steps
    if update is None:
        return actions
    current = next((one for one in history if one.name == sts.status.current_revision), update)
    view = View(sts, {ordinal_of(sts, pod) or 0: pod for pod in mine}, update, current, now)
    if not sts.deleting:
        actions += _manage(view, has_claim)
    if patch := status_patch(sts.status, status(view)):
        actions.append(Patch(STATEFULSETS, sts.name, {"status": patch}, sts.namespace, "status"))
    if waits := [left for pod in mine if (left := available_in(pod, sts.spec.min_ready_seconds, now)) > 0]:
        actions.append(Again(min(waits)))
    return actions


def status(view: View) -> StatefulSetStatus:
    """What is true of the Pods. The update is over once all of them are of the present template and ready."""
    pods, wanted = list(view.pods.values()), view.sts.spec.replicas
    staying = [pod for pod in pods if not pod.deleting]
    ready = sum(pod.ready for pod in pods)
    updated = sum(_is_of(view.update, pod) for pod in staying)
    over = view.sts.spec.update_strategy.type == "RollingUpdate" and updated == ready == len(pods) == wanted
    current = view.update if over else view.current
    return StatefulSetStatus(
        observed_generation=view.sts.metadata.generation,
        replicas=len(pods),
        ready_replicas=ready,
        available_replicas=sum(map(view.available, pods)),
        current_replicas=sum(_is_of(current, pod) for pod in staying),
        updated_replicas=updated,
        current_revision=current.name,
        update_revision=view.update.name,
    )


def _is_of(revision: ControllerRevision, pod: Pod) -> bool:
    return pod.labels.get(revisions.HASH) == revision.name


def _manage(view: View, has_claim: Callable[[str], bool]) -> Actions:
    in_order = view.sts.spec.pod_management_policy != "Parallel"
    found: Actions = []
    for ordinal in view.wanted:
        pod = view.pods.get(ordinal)
        if pod is None:
            found += _create(view, ordinal, has_claim)
        elif pod.finished and not pod.deleting:
            found.append(_delete(view.sts, pod))
        if in_order and (found or pod is None or not view.available(pod)):
            return found
    extra = [pod for ordinal, pod in sorted(view.pods.items(), reverse=True) if ordinal not in view.wanted]
    leaving = [_delete(view.sts, pod) for pod in extra if not pod.deleting]
    if extra and in_order:
        return [*leaving[:1]] if len(leaving) == len(extra) else []
    return [*found, *leaving] or list(_update(view))


def _update(view: View) -> Iterator[Action]:
    """Delete the next Pod of an old template, once all with higher numbers are available."""
    if view.sts.spec.update_strategy.type != "RollingUpdate":
        return
    for ordinal in range(view.wanted.stop - 1, view.first_updated - 1, -1):
        pod = view.pods[ordinal]
        if not _is_of(view.update, pod) and not pod.deleting:
            yield _delete(view.sts, pod)
            return
        if not view.available(pod):
            return


def _create(view: View, ordinal: int, has_claim: Callable[[str], bool]) -> Iterator[Action]:
    sts, rolling = view.sts, view.sts.spec.update_strategy.type == "RollingUpdate"
    for template in sts.spec.volume_claim_templates:
        if not has_claim(claim_name(sts, template, ordinal)):
            yield Create(PERSISTENTVOLUMECLAIMS, claim_for(sts, template, ordinal), sts.namespace)
    revision = view.current if rolling and ordinal < view.first_updated else view.update
    pod = pod_for(sts, ordinal, revisions.template_of(revision), revision.name)
    text = f"Pod {{name}} in StatefulSet {sts.name}"
    done = Say(sts, "Normal", "SuccessfulCreate", f"create {text} successful")
    failed = Say(sts, "Warning", "FailedCreate", f"create {text} failed error: {{error}}")
    yield Create(PODS, pod, sts.namespace, done, failed)


def _delete(sts: StatefulSet, pod: Pod) -> Delete:
    text = f"delete Pod {{name}} in StatefulSet {sts.name}"
    done = Say(sts, "Normal", "SuccessfulDelete", f"{text} successful")
    failed = Say(sts, "Warning", "FailedDelete", f"{text} failed error: {{error}}")
    return Delete(PODS, pod.name, pod.namespace, pod.metadata.uid, done=done, failed=failed)


class StatefulSetController:
    """Watches StatefulSets, their Pods and revisions."""

    name = "statefulset-controller"
    needs = (STATEFULSETS, CONTROLLERREVISIONS, PERSISTENTVOLUMECLAIMS, PODS)

    def __init__(self, cache: Cache) -> None:
        self._sets = cache.of(STATEFULSETS, StatefulSet)
        self._pods = cache.of(PODS, Pod)
        self._claims = cache.of(PERSISTENTVOLUMECLAIMS, KubeObject)
        self._revisions = cache.of(CONTROLLERREVISIONS, ControllerRevision)
        self._owned = Index(self._pods, lambda pod: (controller_uid(pod) or f"orphan {pod.namespace}",))
        self._history = Index(self._revisions, lambda one: (controller_uid(one) or f"orphan {one.namespace}",))
        self._by_uid = Index(self._sets, lambda sts: (sts.metadata.uid,))
        self._by_namespace = Index(self._sets, lambda sts: (sts.namespace,))

    def watch(self, queue: Queue) -> None:
        """A set that changed, the owner of a Pod or revision that changed, any set that an orphan might fit."""

        def of_owned(old: Pod | ControllerRevision | None, new: Pod | ControllerRevision | None) -> None:
            for obj in filter(None, (old, new)):
                uid = controller_uid(obj)
                for sts in self._by_uid[uid] if uid else self._by_namespace[obj.namespace]:
                    queue.mark(sts.key)

        self._sets.on_change(lambda _, new: queue.mark(new.key) if new else None)
        self._pods.on_change(of_owned)
        self._revisions.on_change(of_owned)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        sts = self._sets.get(key)
        if sts is None:
            return ()
        pods = [*self._owned[sts.metadata.uid], *self._owned[f"orphan {sts.namespace}"]]
        history = [*self._history[sts.metadata.uid], *self._history[f"orphan {sts.namespace}"]]

        def taken(name: str) -> bool:
            return self._revisions.get(f"{sts.namespace}/{name}") is not None

        def has_claim(name: str) -> bool:
            return self._claims.get(f"{sts.namespace}/{name}") is not None

        return reconcile(sts, pods, history, datetime.now(UTC), taken, has_claim)
