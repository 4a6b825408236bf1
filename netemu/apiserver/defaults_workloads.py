"""Defaults of what makes Pods: `pkg/apis/{apps,batch,core}/v1/defaults.go`, and of Jobs what their strategy adds."""

from __future__ import annotations

from netemu.apiserver.defaults_pod import default_pod_template
from netemu.client.base import Obj

_ALL_FAILURES = (1 << 31) - 1


def default_deployment(obj: Obj) -> None:
    """Of a Deployment, in place."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    default_pod_template(spec.setdefault("template", {}))
    obj.setdefault("status", {})


def default_replicaset(obj: Obj) -> None:
    """Of a ReplicaSet, in place."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    if spec.get("template"):
        default_pod_template(spec["template"])
    obj.setdefault("status", {}).setdefault("replicas", 0)


def default_replicationcontroller(obj: Obj) -> None:
    """Of a ReplicationController, in place: what it selects is, by default, what its template makes."""
    spec = obj.setdefault("spec", {})
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if labels:
        spec["selector"] = spec.get("selector") or dict(labels)
        _label_as(obj, labels)
    default_replicaset(obj)


def default_daemonset(obj: Obj) -> None:
    """Of a DaemonSet, in place."""
    spec = obj.setdefault("spec", {})
    strategy = spec.setdefault("updateStrategy", {})
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    default_pod_template(spec.setdefault("template", {}))
    # Counts have no omitempty upstream: clients always see them.
    status = obj.setdefault("status", {})
    for count in ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"):
        status.setdefault(count, 0)


def default_statefulset(obj: Obj) -> None:
    """Of a StatefulSet and its claims, in place."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec["podManagementPolicy"] = spec.get("podManagementPolicy") or "OrderedReady"
    strategy = spec.setdefault("updateStrategy", {})
    strategy["type"] = strategy.get("type") or "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    for moment in ("whenDeleted", "whenScaled"):
        retention[moment] = retention.get(moment) or "Retain"
    spec.setdefault("revisionHistoryLimit", 10)
    for claim in spec.get("volumeClaimTemplates") or ():
        claim.update(apiVersion="v1", kind="PersistentVolumeClaim")
        default_claim(claim)
    default_pod_template(spec.setdefault("template", {}))
    obj.setdefault("status", {}).setdefault("replicas", 0)


def default_claim(obj: Obj) -> None:
    """Of a PersistentVolumeClaim, in place."""
    obj.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    status = obj.setdefault("status", {})
    status["phase"] = status.get("phase") or "Pending"


def default_job(obj: Obj) -> None:
    """Of a Job, in place: its selector and the labels of its Pods are made of its uid and name, unless it says that
    its own are meant."""
    spec = obj.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", _ALL_FAILURES if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    spec.setdefault("manualSelector", False)
    template = spec.setdefault("template", {})
    default_pod_template(template)
    _label_as(obj, template["metadata"].get("labels"))
    if not spec["manualSelector"] and (uid := obj["metadata"].get("uid")):
        _select_own(template, spec, obj["metadata"].get("name", ""), uid)
    obj.setdefault("status", {})


def _select_own(template: Obj, spec: Obj, name: str, uid: str) -> None:
    labels = template["metadata"].get("labels") or {}
    for prefix in ("", "batch.kubernetes.io/"):
        labels = {f"{prefix}controller-uid": uid, f"{prefix}job-name": name, **labels}
    template["metadata"]["labels"] = labels
    selector = spec.setdefault("selector", {})
    selector["matchLabels"] = {"batch.kubernetes.io/controller-uid": uid, **(selector.get("matchLabels") or {})}


def default_cronjob(obj: Obj) -> None:
    """Of a CronJob, in place; of the Job in it nothing but its Pods has defaults."""
    spec = obj.setdefault("spec", {})
    spec["concurrencyPolicy"] = spec.get("concurrencyPolicy") or "Allow"
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    job = spec.setdefault("jobTemplate", {})
    job.setdefault("metadata", {})
    default_pod_template(job.setdefault("spec", {}).setdefault("template", {}))
    obj.setdefault("status", {})


def _label_as(obj: Obj, labels: Obj | None) -> None:
    """Give an object that has no labels those of its Pods."""
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)
