"""What is wrong with Jobs and CronJobs (`pkg/apis/batch/validation`)."""

from __future__ import annotations

from netemu.apiserver.validation.fields import (
    IMMUTABLE,
    immutable,
    invalid,
    invalid_for,
    label_selector,
    not_negative,
    one_of,
    required,
)
from netemu.apiserver.validation.pod import validate_template
from netemu.apiserver.validation.schedules import check_schedule
from netemu.client.base import Obj
from netemu.model.errors import FieldError
from netemu.model.selectors import LabelSelector

_LONGEST_NAME = 52
"""Of a CronJob: its Jobs are called like it, and eleven characters more."""
_COUNTS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "backoffLimitPerIndex", "maxFailedIndexes",
    "ttlSecondsAfterFinished",
)  # fmt: skip


def validate_job(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a Job."""
    spec: Obj = obj.get("spec") or {}
    errors = _job_spec("spec", spec)
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if "selector" not in spec:
        errors.append(required("spec.selector"))
    elif found := label_selector("spec.selector", spec["selector"]):
        errors += found
    elif not LabelSelector.of_spec(spec["selector"]).matches(labels):
        errors.append(invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`"))
    if old is not None:
        errors += _job_update(spec, old.get("spec") or {})
    return errors


def _job_update(spec: Obj, before: Obj) -> list[FieldError]:
    kept = ["selector", "completionMode", *(["completions"] if spec.get("completionMode") != "Indexed" else [])]
    errors = [error for key in kept for error in immutable(f"spec.{key}", spec.get(key), before.get(key))]
    if spec.get("template") != before.get("template"):
        errors.append(invalid("spec.template", spec.get("template"), IMMUTABLE))
    return errors


def _job_spec(path: str, spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for count in _COUNTS:
        errors += not_negative(f"{path}.{count}", spec.get(count))
    if mode := spec.get("completionMode"):
        errors += one_of(f"{path}.completionMode", mode, ("Indexed", "NonIndexed"))
        if mode == "Indexed" and spec.get("completions") is None:
            errors.append(required(f"{path}.completions", 'when completion mode is "Indexed"'))
    template: Obj = spec.get("template") or {}
    errors += validate_template(f"{path}.template", template)
    if (template.get("spec") or {}).get("restartPolicy") not in ("OnFailure", "Never"):
        text = 'valid values: "OnFailure", "Never"'
        errors.append(required(f"{path}.template.spec.restartPolicy", text))
    return errors


def validate_cronjob(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a CronJob."""
    spec: Obj = obj.get("spec") or {}
    errors = _schedule(spec.get("schedule") or "")
    for count in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        errors += not_negative(f"spec.{count}", spec.get(count))
    policy = spec.get("concurrencyPolicy") or ""
    errors += one_of("spec.concurrencyPolicy", policy, ("Allow", "Forbid", "Replace"))
    errors += _job_spec("spec.jobTemplate.spec", (spec.get("jobTemplate") or {}).get("spec") or {})
    name = obj["metadata"].get("name") or ""
    if old is None and len(name) > _LONGEST_NAME:
        errors += invalid_for("metadata.name", name, [f"must be no more than {_LONGEST_NAME} characters"])
    return errors


def _schedule(text: str) -> list[FieldError]:
    if not text:
        return [required("spec.schedule")]
    if "TZ" in text:
        why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        return [invalid("spec.schedule", text, why)]
    try:
        check_schedule(text)
    except ValueError as error:
        return [invalid("spec.schedule", text, str(error))]
    return []
