"""Workloads and claims, most of them stored without anybody acting on them: what is filled in, refused and printed."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from netemu.apiserver.defaults import apply_defaults
from netemu.apiserver.subresources import scale_of
from netemu.apiserver.tables.table import table
from netemu.apiserver.validation.objects import validate
from netemu.client.base import Obj
from netemu.model.resources import RESOURCES

VALID = yaml.safe_load((Path(__file__).parent / "data" / "api_objects.yaml").read_text())
KINDS = {resource.kind: resource for resource in reversed(RESOURCES)}
NEW = (
    "ControllerRevision", "CronJob", "DaemonSet", "Job", "LimitRange", "PersistentVolume", "PersistentVolumeClaim",
    "ReplicationController", "ResourceQuota", "StatefulSet",
)  # fmt: skip
MADE, NOW = "2026-01-02T00:00:00Z", datetime(2026, 1, 2, 1, tzinfo=UTC)


def made(kind: str, **fields: Any) -> Obj:
    """A valid object with defaults, its spec or metadata changed by `spec__field=value`; None takes a field away."""
    obj: Obj = copy.deepcopy(VALID[kind])
    meta = obj.setdefault("metadata", {})
    meta |= {"name": "x", "uid": "u-1", "creationTimestamp": MADE}
    if KINDS[kind].namespaced:
        meta["namespace"] = "shop"
    for path, value in fields.items():
        holder, *names = [obj, *path.split("__")]
        for name in names[:-1]:
            holder = holder.setdefault(name, {})
        holder.pop(names[-1], None) if value is None else holder.update({names[-1]: value})
    apply_defaults(KINDS[kind], obj)
    return obj


@pytest.mark.parametrize("kind", NEW)
def test_valid_objects_are_accepted_and_defaults_are_final(kind: str) -> None:
    obj = made(kind)
    again = copy.deepcopy(obj)
    apply_defaults(KINDS[kind], again)

    assert validate(KINDS[kind], obj, None) == validate(KINDS[kind], obj, obj) == []
    assert again == obj


@pytest.mark.parametrize(
    ("kind", "fields", "problem"),
    [
        ("ReplicationController", {"spec__selector": {"a": "b"}}, "`selector` does not match template `labels`"),
        ("ReplicationController", {"spec__replicas": -1}, "spec.replicas: Invalid value: -1"),
        ("DaemonSet", {"spec__selector": None}, "spec.selector: Required value"),
        ("DaemonSet", {"spec__selector": {}}, "empty selector is invalid for daemonset"),
        (
            "DaemonSet",
            {"spec__updateStrategy": {"type": "Recreate"}},
            'spec.updateStrategy.type: Unsupported value: "Recreate": supported values: "RollingUpdate", "OnDelete"',
        ),
        (
            "DaemonSet",
            {"spec__updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}},
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is",
        ),
        (
            "DaemonSet",
            {"spec__updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "0%"}}},
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
        ),
        ("StatefulSet", {"spec__podManagementPolicy": "All"}, "must be 'OrderedReady' or 'Parallel'"),
        ("StatefulSet", {"spec__selector": {"matchLabels": {"a": "b"}}}, "does not match template `labels`"),
        ("Job", {"spec__parallelism": -1}, "spec.parallelism: Invalid value: -1"),
        ("Job", {"spec__template__spec__restartPolicy": None}, 'Required value: valid values: "OnFailure", "Never"'),
        ("Job", {"spec__completionMode": "Indexed", "spec__completions": None}, "spec.completions: Required value"),
        ("CronJob", {"spec__schedule": "1 2 3"}, "expected exactly 5 fields, found 3: [1 2 3]"),
        ("CronJob", {"spec__schedule": "@fortnightly"}, "unrecognized descriptor: @fortnightly"),
        ("CronJob", {"spec__schedule": "61 * * * *"}, "end of range (61) above maximum (59): 61"),
        ("CronJob", {"spec__schedule": None}, "spec.schedule: Required value"),
        ("CronJob", {"metadata__name": "n" * 53}, "must be no more than 52 characters"),
        ("PersistentVolumeClaim", {"spec__accessModes": None}, "spec.accessModes: Required value: at least 1 access"),
        ("PersistentVolumeClaim", {"spec__accessModes": ["Read"]}, 'spec.accessModes: Unsupported value: "Read"'),
        ("PersistentVolumeClaim", {"spec__resources": None}, "spec.resources[storage]: Required value"),
        ("PersistentVolume", {"spec__hostPath": None}, "spec: Required value: must specify a volume type"),
        ("PersistentVolume", {"spec__nfs": {"server": "s", "path": "/"}}, "spec.nfs: Forbidden: may not specify more"),
        ("PersistentVolume", {"spec__capacity": None}, "spec.capacity: Required value"),
        ("ResourceQuota", {"spec__hard": {"pods": "-1"}}, "spec.hard[pods]: Invalid value"),
        (
            "StatefulSet",
            {"spec__updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}},
            "only allowed for updateStrategy 'RollingUpdate'",
        ),
        (
            "LimitRange",
            {"spec__limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1500m"}}]},
            'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1500m',
        ),
    ],
)
def test_what_is_wrong_is_told_in_upstreams_words(kind: str, fields: dict[str, Any], problem: str) -> None:
    problems = [str(error) for error in validate(KINDS[kind], made(kind, **fields), None)]

    assert any(problem in text for text in problems), problems


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"min": "2", "defaultRequest": "1"}, 'defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than '
         "default request value 1"),
        ({"defaultRequest": "2", "max": "1"}, 'defaultRequest[cpu]: Invalid value: "2": default request value 2 is '
         "greater than max value 1"),
        ({"defaultRequest": "2", "default": "1"}, 'defaultRequest[cpu]: Invalid value: "2": default request value 2 is '
         "greater than default limit value 1"),
        ({"min": "2", "default": "1"}, 'default[cpu]: Invalid value: "2": min value 2 is greater than default value 1'),
        ({"default": "2", "max": "1"}, 'default[cpu]: Invalid value: "1": default value 2 is greater than max value 1'),
        ({"maxLimitRequestRatio": "800m"}, 'RequestRatio[cpu]: Invalid value: "800m": ratio 800m is less than 1'),
        ({"min": "500m", "max": "2", "maxLimitRequestRatio": "10"}, "ratio 10 is greater than max/min = 4.000000"),
    ],
)  # fmt: skip
def test_limits_of_a_container_rise(limits: dict[str, str], problem: str) -> None:
    item = {"type": "Container", **{key: {"cpu": value} for key, value in limits.items()}}
    obj = {**made("LimitRange"), "spec": {"limits": [item]}}
    (error,) = validate(KINDS["LimitRange"], obj, None)

    assert problem in str(error)


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([{"type": "Pod", "default": {"cpu": "1"}}], "default: Forbidden: may not be specified when `type` is 'Pod'"),
        ([{"type": "PersistentVolumeClaim"}], "limits: Required value: either minimum or maximum storage value is"),
        ([{"type": "Pod"}, {"type": "Pod"}], 'spec.limits[1].type: Duplicate value: "Pod"'),
    ],
)
def test_limits_fit_their_type(items: list[Obj], problem: str) -> None:
    (error,) = validate(KINDS["LimitRange"], {**made("LimitRange"), "spec": {"limits": items}}, None)

    assert problem in str(error)


@pytest.mark.parametrize(
    ("kind", "fields", "problem"),
    [
        (
            "StatefulSet",
            {"spec__serviceName": "other"},
            "spec: Forbidden: updates to statefulset spec for fields other",
        ),
        ("StatefulSet", {"spec__replicas": 9}, ""),
        ("Job", {"spec__completions": 9}, "spec.completions: Invalid value: 9: field is immutable"),
        ("Job", {"spec__parallelism": 9}, ""),
        ("PersistentVolumeClaim", {"spec__storageClassName": "slow"}, "spec: Forbidden: spec is immutable after"),
        ("PersistentVolumeClaim", {"spec__resources": {"requests": {"storage": "2Gi"}}}, ""),
        ("DaemonSet", {"spec__selector": {"matchLabels": {}}}, "field is immutable"),
    ],
)
def test_updates_change_what_they_may(kind: str, fields: dict[str, Any], problem: str) -> None:
    problems = [str(error) for error in validate(KINDS[kind], made(kind, **fields), made(kind))]

    assert any(problem in text for text in problems) if problem else problems == []


def test_a_job_selects_the_pods_of_its_own_uid_unless_it_says_otherwise() -> None:
    own = made("Job")["spec"]
    manual = made("Job", spec__manualSelector=True, spec__selector={"matchLabels": {"a": "b"}})["spec"]

    labels = own["template"]["metadata"]["labels"]
    assert own["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}
    assert labels == {
        "a": "b", "controller-uid": "u-1", "job-name": "x",
        "batch.kubernetes.io/controller-uid": "u-1", "batch.kubernetes.io/job-name": "x",
    }  # fmt: skip
    assert manual["selector"] == {"matchLabels": {"a": "b"}}
    assert manual["template"]["metadata"]["labels"] == {"a": "b"}


def test_a_controller_of_old_selects_by_the_labels_of_its_template() -> None:
    obj = made("ReplicationController")

    assert obj["spec"]["selector"] == obj["metadata"]["labels"] == {"app": "old"}
    assert scale_of({**obj, "kind": "ReplicationController"})["status"]["selector"] == "app=old"


def test_a_stateful_set_mounts_its_claims() -> None:
    mounts = [{"name": "data", "mountPath": "/d"}]
    sts = made("StatefulSet", spec__template__spec__containers=[{"name": "c", "image": "i", "volumeMounts": mounts}])

    assert validate(KINDS["StatefulSet"], sts, None) == []


def test_claims_of_a_stateful_set_are_whole_objects() -> None:
    (claim,) = made("StatefulSet")["spec"]["volumeClaimTemplates"]

    assert (claim["apiVersion"], claim["kind"], claim["status"]) == (
        "v1", "PersistentVolumeClaim", {"phase": "Pending"},
    )  # fmt: skip
    assert claim["spec"]["volumeMode"] == "Filesystem"


def test_a_limit_range_fills_in_what_follows_from_the_most() -> None:
    (item,) = made("LimitRange", spec__limits=[{"type": "Container", "max": {"cpu": "2"}}])["spec"]["limits"]

    assert item["default"] == item["defaultRequest"] == {"cpu": "2"}


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        ("ReplicationController", ["x", 2, 1, 0, "60m", "c", "i", "app=old"]),
        ("DaemonSet", ["x", 3, 2, 1, 0, 0, "a=b", "60m", "c", "i", "app=agent"]),
        ("StatefulSet", ["x", "1/3", "60m", "c", "i"]),
        ("ControllerRevision", ["x", "daemonset.apps/x", 2, "60m"]),
        ("CronJob", ["x", "*/5 * * * 1-5", "Etc/UTC", "False", 1, "<invalid>", "60m", "c", "i", "<none>"]),
        ("PersistentVolumeClaim", ["x", "Bound", "v", "1Gi", "RWO", "fast", "<unset>", "60m", "Filesystem"]),
        (
            "PersistentVolume",
            ["x", "1Gi", "RWO,ROX", "Retain", "Bound", "default/c", "", "<unset>", "x", "60m", "Filesystem"],
        ),
        ("ResourceQuota", ["x", "60m", "pods: 1/4", ""]),
        ("LimitRange", ["x", MADE]),
    ],
)
def test_rows(kind: str, cells: list[Any]) -> None:
    assert table(KINDS[kind], [made(kind)], {}, now=NOW)["rows"][0]["cells"] == cells


@pytest.mark.parametrize(
    ("status", "cells"),
    [
        ({}, ["Running", "0/3", ""]),
        ({"startTime": MADE, "succeeded": 1}, ["Running", "1/3", "60m"]),
        (
            {"startTime": MADE, "succeeded": 3, "completionTime": "2026-01-02T00:00:09Z",
             "conditions": [{"type": "Complete", "status": "True"}]},
            ["Complete", "3/3", "9s"],
        ),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, ["Failed", "0/3", ""]),
    ],
)  # fmt: skip
def test_rows_of_jobs(status: Obj, cells: list[str]) -> None:
    job = {**made("Job"), "status": status}

    assert table(KINDS["Job"], [job], {}, now=NOW)["rows"][0]["cells"][1:4] == cells


@pytest.mark.parametrize(
    ("condition", "deleted", "state"),
    [
        ("Suspended", None, "Suspended"),
        ("Suspended", MADE, "Terminating"),
        ("Failed", MADE, "Failed"),
        ("SuccessCriteriaMet", None, "Running"),
    ],
)
def test_a_job_is_the_first_of_its_states(condition: str, deleted: str | None, state: str) -> None:
    status = {"conditions": [{"type": condition, "status": "True"}]}
    job = {**made("Job", metadata__deletionTimestamp=deleted), "status": status}

    assert table(KINDS["Job"], [job], {}, now=NOW)["rows"][0]["cells"][1] == state
