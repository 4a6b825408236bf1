"""DaemonSets: a Pod on every node that takes it (`pkg/controller/daemon`).

Each look at a DaemonSet brings its history in order, then the Pods of each node: one is made where there should be one
and none is, not even one that is about to end; those that are too many, failed, or on a node that takes them no longer
are deleted. When nothing of that is to do, Pods of old templates are replaced within the limits of the strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from netemu.client.index import Index, controller_uid
from netemu.controllers import revisions
from netemu.controllers.actions import Action, Actions, Again, Create, Delete, Patch, Say, status_patch
from netemu.controllers.cache import Cache
from netemu.controllers.daemon_pods import belongs_on, node_of, pod_for
from netemu.controllers.loop import Queue
from netemu.controllers.replicaset import available_in, claim
from netemu.controllers.rollout import share_of
from netemu.model import times
from netemu.model.meta import encode
from netemu.model.objects import Node
from netemu.model.pods import Pod
from netemu.model.resources import CONTROLLERREVISIONS, DAEMONSETS, NODES, PODS
from netemu.model.selectors import LabelSelector
from netemu.model.workloads import ControllerRevision, DaemonSet, DaemonSetStatus

_BURST = 250
"""Most Pods created or deleted in one go."""
_FAILED_STAY = 10.0
"""Seconds from its making until a failed Pod is replaced; upstream's pause grows from one second."""


@dataclass(frozen=True, slots=True)
class View:
    """A DaemonSet, its Pods that have not gone by node, and what each node says of it."""

    ds: DaemonSet
    pods: Mapping[str, Sequence[Pod]]
    """The oldest first."""
    wanted: frozenset[str]
    """Nodes that should have a Pod."""
    allowed: frozenset[str]
    """Nodes whose Pod may stay."""
    digest: str
    """What Pods of the present template carry as hash."""
    now: datetime

    def is_new(self, pod: Pod) -> bool:
        """Whether a Pod is of the present template."""
        return pod.labels.get(revisions.HASH) == self.digest

    def available(self, pod: Pod) -> bool:
        """Whether a Pod has been Ready for as long as it must."""
        return available_in(pod, self.ds.spec.min_ready_seconds, self.now) == 0

    @property
    def limits(self) -> tuple[int, int]:
        """(maxSurge, maxUnavailable) in Pods, both rounded up; they cannot be zero both."""
        rolling = self.ds.spec.update_strategy.rolling_update
        surge = share_of(rolling.max_surge, len(self.wanted), up=True)
        unavailable = share_of(rolling.max_unavailable, len(self.wanted), up=True)
        return surge, unavailable if surge or unavailable else 1


def reconcile(
    ds: DaemonSet,
    pods: Sequence[Pod],
    nodes: Sequence[Node],
    history: Sequence[ControllerRevision],
    now: datetime,
    taken: Callable[[str], bool] = lambda _: False,
) -> Actions:
    """What to do for `ds`. `pods`: those in its namespace that it owns or selects; `history`: the revisions there that
    are its own or nobody's; `taken`: whether there is one of that name."""
    if not LabelSelector.of_spec(encode(ds.spec.selector)):
        text = "This daemon set is selecting all pods. A non-empty selector is required."
        return [Say(ds, "Warning", "SelectingAll", text)]
    mine, actions = claim(ds, pods)
    revision, steps = revisions.present(ds, history, {pod.labels.get(revisions.HASH, "") for pod in mine}, taken)
    actions += steps
    if revision is None:
        return actions
    view = view_of(ds, mine, nodes, revisions.mark(ds, revision), now)
    if not ds.deleting:
        actions += list(_manage(view))[:_BURST] or _update(view)
    if patch := status_patch(ds.status, status(view)):
        actions.append(Patch(DAEMONSETS, ds.name, {"status": patch}, ds.namespace, "status"))
    waits = [left for pod in mine if (left := available_in(pod, ds.spec.min_ready_seconds, now)) > 0]
    waits += [_stays(pod, now) for pod in mine if pod.status.phase == "Failed" and not pod.deleting]
    return [*actions, *([Again(max(0.1, min(waits)))] if waits else [])]


def view_of(ds: DaemonSet, pods: Sequence[Pod], nodes: Sequence[Node], digest: str, now: datetime) -> View:
    """What there is, and what each node allows."""
    by_node: dict[str, list[Pod]] = {}
    for pod in sorted(pods, key=lambda pod: (not pod.spec.node_name, pod.metadata.creation_timestamp or "", pod.name)):
        if not (pod.deleting and pod.finished):
            by_node.setdefault(node_of(pod), []).append(pod)
    says = {node.name: belongs_on(ds, node) for node in nodes}
    wanted = frozenset(name for name, (starts, _) in says.items() if starts)
    return View(ds, by_node, wanted, frozenset(name for name, (_, stays) in says.items() if stays), digest, now)


def status(view: View) -> DaemonSetStatus:
    """What is true of the nodes and their Pods."""
    there = [view.pods[name] for name in view.wanted if view.pods.get(name)]
    available = sum(any(map(view.available, pods)) for pods in there)
    return DaemonSetStatus(
        observed_generation=view.ds.metadata.generation,
        desired_number_scheduled=len(view.wanted),
        current_number_scheduled=len(there),
        number_misscheduled=sum(name not in view.wanted for name in view.pods),
        number_ready=sum(any(pod.ready for pod in pods) for pods in there),
        updated_number_scheduled=sum(any(map(view.is_new, pods)) for pods in there),
        number_available=available,
        number_unavailable=len(view.wanted) - available,
    )


# --- the right Pods on each node ---------------------------------------------------------------------------------


def _manage(view: View) -> Iterator[Action]:
    for name in sorted(view.wanted | view.pods.keys()):
        pods = [pod for pod in view.pods.get(name, ()) if not pod.deleting]
        if name not in view.allowed:
            yield from (_delete(view.ds, pod) for pod in pods)
            continue
        for pod in pods:
            if pod.status.phase == "Succeeded" or (pod.status.phase == "Failed" and _stays(pod, view.now) <= 0):
                text = f"Found {pod.status.phase.lower()} daemon pod {pod.key} on node {name}, will try to kill it"
                yield Say(view.ds, "Warning", f"{pod.status.phase}DaemonPod", text)
                yield _delete(view.ds, pod)
        yield from (_delete(view.ds, pod) for pod in _too_many(view, [pod for pod in pods if not pod.finished]))
        if name in view.wanted and not view.pods.get(name):
            yield _create(view, name)


def _too_many(view: View, pods: Sequence[Pod]) -> Sequence[Pod]:
    """All but the oldest; where more than one is allowed, the old one stays until the new one is available."""
    if not view.limits[0]:
        return pods[1:]
    new, old = [pod for pod in pods if view.is_new(pod)], [pod for pod in pods if not view.is_new(pod)]
    extra = [*new[1:], *old[1:]]
    if new and old and (not old[0].ready or view.available(new[0])):
        extra.append(old[0])
    return extra


def _stays(pod: Pod, now: datetime) -> float:
    """Seconds until a failed Pod is replaced."""
    made = pod.metadata.creation_timestamp
    return _FAILED_STAY - (now - times.parse(made)).total_seconds() if made else 0.0


# --- from one template to the next -------------------------------------------------------------------------------


def _update(view: View) -> Actions:
    if view.ds.spec.update_strategy.type != "RollingUpdate":
        return []
    surge, unavailable = view.limits
    return _surge(view, surge) if surge else _replace(view, unavailable)


def _replace(view: View, most: int) -> Actions:
    """Delete old Pods, so that no more than `most` nodes are without an available one."""
    missing = 0
    gone: list[Pod] = []
    candidates: list[Pod] = []
    for name in sorted(view.wanted):
        new, old = _newest(view, name)
        if new is None and old is not None:
            if view.available(old):
                candidates.append(old)
                continue
            gone.append(old)
            missing += 1
        elif new is None or old is not None or not view.available(new):
            missing += 1
    chosen = [*gone, *candidates[: max(0, most - missing)]]
    return [*(_delete(view.ds, pod) for pod in chosen[:_BURST])]


def _surge(view: View, most: int) -> Actions:
    """Make new Pods beside old ones, on no more than `most` nodes at once."""
    surging = 0
    needed: list[str] = []
    candidates: list[str] = []
    for name in sorted(view.wanted):
        new, old = _newest(view, name)
        if new is not None and old is not None:
            surging += not view.available(new)
        elif old is not None:
            (candidates if view.available(old) else needed).append(name)
    chosen = [*needed, *candidates[: max(0, most - surging)]]
    return [*(_create(view, name) for name in chosen[:_BURST])]


def _newest(view: View, node: str) -> tuple[Pod | None, Pod | None]:
    """A node's Pod of the present template, and that of an old one."""
    pods = [pod for pod in view.pods.get(node, ()) if not pod.deleting]
    new = next((pod for pod in pods if view.is_new(pod)), None)
    return new, next((pod for pod in pods if not view.is_new(pod)), None)


def _create(view: View, node: str) -> Create:
    done = Say(view.ds, "Normal", "SuccessfulCreate", "Created pod: {name}")
    failed = Say(view.ds, "Warning", "FailedCreate", "Error creating: {error}")
    return Create(PODS, pod_for(view.ds, node, view.digest), view.ds.namespace, done, failed)


def _delete(ds: DaemonSet, pod: Pod) -> Delete:
    done = Say(ds, "Normal", "SuccessfulDelete", "Deleted pod: {name}")
    failed = Say(ds, "Warning", "FailedDelete", "Error deleting: {error}")
    return Delete(PODS, pod.name, pod.namespace, pod.metadata.uid, done=done, failed=failed)


class DaemonSetController:
    """Watches DaemonSets, their Pods and revisions, and all nodes."""

    name = "daemonset-controller"
    needs = (DAEMONSETS, CONTROLLERREVISIONS, NODES, PODS)

    def __init__(self, cache: Cache) -> None:
        self._sets = cache.of(DAEMONSETS, DaemonSet)
        self._nodes = cache.of(NODES, Node)
        self._pods = cache.of(PODS, Pod)
        self._revisions = cache.of(CONTROLLERREVISIONS, ControllerRevision)
        self._owned = Index(self._pods, lambda pod: (controller_uid(pod) or f"orphan {pod.namespace}",))
        self._history = Index(self._revisions, lambda one: (controller_uid(one) or f"orphan {one.namespace}",))
        self._by_uid = Index(self._sets, lambda ds: (ds.metadata.uid,))
        self._by_namespace = Index(self._sets, lambda ds: (ds.namespace,))

    def watch(self, queue: Queue) -> None:
        """A set that changed, the owner of a Pod or revision that changed, any set an orphan might fit, and every set
        when a node comes, goes, or says something else."""

        def of_owned(old: Pod | ControllerRevision | None, new: Pod | ControllerRevision | None) -> None:
            for obj in filter(None, (old, new)):
                uid = controller_uid(obj)
                for ds in self._by_uid[uid] if uid else self._by_namespace[obj.namespace]:
                    queue.mark(ds.key)

        def of_node(old: Node | None, new: Node | None) -> None:
            if old is None or new is None or (old.labels, old.spec) != (new.labels, new.spec):
                for ds in self._sets.objects.values():
                    queue.mark(ds.key)

        self._sets.on_change(lambda _, new: queue.mark(new.key) if new else None)
        self._pods.on_change(of_owned)
        self._revisions.on_change(of_owned)
        self._nodes.on_change(of_node)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        ds = self._sets.get(key)
        if ds is None:
            return ()
        pods = [*self._owned[ds.metadata.uid], *self._owned[f"orphan {ds.namespace}"]]
        nodes = list(self._nodes.objects.values())
        history = [*self._history[ds.metadata.uid], *self._history[f"orphan {ds.namespace}"]]

        def taken(name: str) -> bool:
            return self._revisions.get(f"{ds.namespace}/{name}") is not None

        return reconcile(ds, pods, nodes, history, datetime.now(UTC), taken)
