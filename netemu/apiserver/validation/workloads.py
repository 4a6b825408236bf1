"""What is wrong with Deployments and others that keep Pods there (`pkg/apis/apps/validation`)."""

from __future__ import annotations

from typing import Any

from netemu.apiserver.validation.fields import (
    IMMUTABLE,
    at_most_all,
    forbidden,
    go,
    int_or_percent,
    invalid,
    label_selector,
    not_negative,
    not_supported,
    one_of,
    required,
)
from netemu.apiserver.validation.pod import template_metadata, validate_template
from netemu.client.base import Obj
from netemu.model.errors import FieldError
from netemu.model.selectors import LabelSelector


def validate_deployment(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a Deployment."""
    spec: Obj = obj.get("spec") or {}
    errors = not_negative("spec.replicas", spec.get("replicas"))
    errors += _selector(spec, "deployment")
    errors += _template(spec)
    errors += _strategy("spec.strategy", spec.get("strategy") or {})
    errors += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    errors += not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        errors += not_negative("spec.progressDeadlineSeconds", deadline)
        if deadline <= (spec.get("minReadySeconds") or 0):
            errors.append(invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    if old is not None:
        errors += _same_selector(spec, old)
    return errors


def validate_replicaset(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a ReplicaSet."""
    spec: Obj = obj.get("spec") or {}
    errors = not_negative("spec.replicas", spec.get("replicas"))
    errors += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    errors += _selector(spec, "replicaset")
    errors += _template(spec)
    if old is not None:
        errors += _same_selector(spec, old)
    return errors


def validate_replicationcontroller(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a ReplicationController, whose selector is a map of labels (`pkg/apis/core/validation`)."""
    spec: Obj = obj.get("spec") or {}
    errors = not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    if not spec.get("selector"):
        errors.append(required("spec.selector"))
    errors += not_negative("spec.replicas", spec.get("replicas"))
    return errors + _template({**spec, "selector": {"matchLabels": spec.get("selector")}}, "ReplicationController")


def validate_daemonset(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a DaemonSet."""
    spec: Obj = obj.get("spec") or {}
    errors = _selector(spec, "daemonset") + _template(spec, "DaemonSet")
    errors += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    errors += _daemon_strategy("spec.updateStrategy", spec.get("updateStrategy") or {})
    errors += not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    if old is not None:
        errors += _same_selector(spec, old)
    return errors


def validate_statefulset(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a StatefulSet."""
    spec: Obj = obj.get("spec") or {}
    policy, strategy = spec.get("podManagementPolicy") or "", spec.get("updateStrategy") or {}
    errors: list[FieldError] = []
    if policy not in ("OrderedReady", "Parallel"):
        errors.append(invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'"))
    if strategy.get("type") not in _WAYS:
        errors.append(invalid("spec.updateStrategy", strategy, "must be 'RollingUpdate' or 'OnDelete'"))
    partition = (strategy.get("rollingUpdate") or {}).get("partition")
    if strategy.get("type") == "OnDelete" and strategy.get("rollingUpdate") is not None:
        shown = f"apps.RollingUpdateStatefulSetStrategy{{Partition:{partition or 0}, MaxUnavailable:{_NO_LIMIT}}}"
        text = f"Invalid value: {shown}: only allowed for updateStrategy 'RollingUpdate'"
        errors.append(FieldError("spec.updateStrategy.rollingUpdate", "FieldValueInvalid", text))
    else:
        errors += not_negative("spec.updateStrategy.rollingUpdate.partition", partition)
    for moment, what in (spec.get("persistentVolumeClaimRetentionPolicy") or {}).items():
        errors += one_of(f"spec.persistentVolumeClaimRetentionPolicy.{moment}", what, ("Delete", "Retain"))
    errors += not_negative("spec.replicas", spec.get("replicas"))
    errors += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    errors += _selector(spec, "statefulset") + _template(spec, "StatefulSet")
    before: Obj = (old or obj).get("spec") or {}
    if {**spec, **{key: before.get(key) for key in _CHANGES}} != {**before, **{k: before.get(k) for k in _CHANGES}}:
        errors.append(forbidden("spec", _NO_OTHERS))
    return errors


_WAYS = ("RollingUpdate", "OnDelete")
_NO_LIMIT = "(*intstr.IntOrString)(nil)"
"""As Go prints a pointer to none."""
_CHANGES = (
    "replicas", "ordinals", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
_NO_OTHERS = (
    f"updates to statefulset spec for fields other than {', '.join(go(key) for key in _CHANGES[:-1])} "
    f"and {go(_CHANGES[-1])} are forbidden"
).replace('"', "'")


def _selector(spec: Obj, what: str) -> list[FieldError]:
    selector: Obj | None = spec.get("selector")
    if selector is None:
        return [required("spec.selector")]
    errors = label_selector("spec.selector", selector)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        errors.append(_bad_selector(selector, f"empty selector is invalid for {what}"))
    return errors


def _template(spec: Obj, what: str = "ReplicaSet") -> list[FieldError]:
    template: Obj = spec.get("template") or {}
    if not template:
        return [required("spec.template")]
    selector: Obj = spec.get("selector") or {}
    template_labels: dict[str, str] = (template.get("metadata") or {}).get("labels") or {}
    errors: list[FieldError] = []
    usable = bool(selector.get("matchLabels") or selector.get("matchExpressions")) and not label_selector("", selector)
    if usable and not LabelSelector.of_spec(selector).matches(template_labels):
        text = "`selector` does not match template `labels`"
        errors.append(invalid("spec.template.metadata.labels", template_labels, text))
    # Volumes of a StatefulSet's Pods may be its claims; upstream looks at their spec when there are Pods.
    whole = template_metadata if what == "StatefulSet" else validate_template
    errors += whole("spec.template", template)
    pod: Obj = template.get("spec") or {}
    policy = pod.get("restartPolicy")
    if policy and policy != "Always":
        errors.append(not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        text = f"activeDeadlineSeconds in {what} is not Supported"
        errors.append(forbidden("spec.template.spec.activeDeadlineSeconds", text))
    return errors


def _strategy(path: str, strategy: Obj) -> list[FieldError]:
    kind, rolling = strategy.get("type") or "", strategy.get("rollingUpdate")
    if kind == "Recreate":
        text = "may not be specified when strategy `type` is 'Recreate'"
        return [forbidden(f"{path}.rollingUpdate", text)] if rolling is not None else []
    if kind != "RollingUpdate":
        return [not_supported(f"{path}.type", kind, ("Recreate", "RollingUpdate"))]
    rolling = rolling or {}
    errors: list[FieldError] = []
    for key in ("maxUnavailable", "maxSurge"):
        errors += int_or_percent(f"{path}.rollingUpdate.{key}", rolling.get(key, 0))
    if errors:
        return errors
    unavailable = rolling.get("maxUnavailable", 0)
    if _is_zero(unavailable) and _is_zero(rolling.get("maxSurge", 0)):
        text = "may not be 0 when `maxSurge` is 0"
        errors.append(invalid(f"{path}.rollingUpdate.maxUnavailable", unavailable, text))
    return errors + at_most_all(f"{path}.rollingUpdate.maxUnavailable", unavailable)


def _daemon_strategy(path: str, strategy: Obj) -> list[FieldError]:
    errors = one_of(f"{path}.type", strategy.get("type") or "", _WAYS)
    rolling = strategy.get("rollingUpdate")
    if errors or strategy["type"] == "OnDelete":
        return errors
    if rolling is None:
        return [required(f"{path}.rollingUpdate")]
    for key in ("maxUnavailable", "maxSurge"):
        amount = rolling.get(key, 0)
        errors += int_or_percent(f"{path}.rollingUpdate.{key}", amount) or at_most_all(
            f"{path}.rollingUpdate.{key}", amount
        )
    if errors:
        return errors
    surge, unavailable = rolling.get("maxSurge", 0), rolling.get("maxUnavailable", 0)
    if not _is_zero(surge) and not _is_zero(unavailable):
        return [invalid(f"{path}.rollingUpdate.maxSurge", surge, "may not be set when maxUnavailable is non-zero")]
    if _is_zero(surge) and _is_zero(unavailable):
        return [required(f"{path}.rollingUpdate.maxUnavailable", "cannot be 0 when maxSurge is 0")]
    return []


def _is_zero(value: Any) -> bool:
    return value == 0 or (isinstance(value, str) and not value.strip("0%"))


def _same_selector(spec: Obj, old: Obj) -> list[FieldError]:
    before = (old.get("spec") or {}).get("selector")
    return [] if spec.get("selector") == before else [_bad_selector(spec.get("selector") or {}, IMMUTABLE)]


def _bad_selector(selector: Obj, why: str) -> FieldError:
    """An Invalid with the selector as Go prints the struct."""
    match_labels = selector.get("matchLabels")
    shown_labels = go(match_labels) if match_labels else "map[string]string(nil)"
    terms = selector.get("matchExpressions")
    shown_terms = go(terms) if terms else "[]v1.LabelSelectorRequirement(nil)"
    value = f"v1.LabelSelector{{MatchLabels:{shown_labels}, MatchExpressions:{shown_terms}}}"
    return FieldError("spec.selector", "FieldValueInvalid", f"Invalid value: {value}: {why}")
