"""DaemonSets and StatefulSets of apps/v1, and the revisions that they keep."""

from __future__ import annotations

from typing import Any

from netemu.model.meta import KubeObject, LabelSelectorSpec, Struct


class DaemonRollingUpdate(Struct, frozen=True):
    max_unavailable: int | str = 1
    max_surge: int | str = 0


class DaemonStrategy(Struct, frozen=True):
    type: str = "RollingUpdate"
    rolling_update: DaemonRollingUpdate = DaemonRollingUpdate()


class DaemonSetSpec(Struct, frozen=True):
    selector: LabelSelectorSpec = LabelSelectorSpec()
    template: dict[str, Any] = {}
    update_strategy: DaemonStrategy = DaemonStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int = 10


class DaemonSetStatus(Struct, frozen=True):
    observed_generation: int = 0
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    number_misscheduled: int = 0
    number_ready: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0
    number_unavailable: int = 0


class DaemonSet(KubeObject, frozen=True):
    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()


class StatefulRollingUpdate(Struct, frozen=True):
    partition: int = 0


class StatefulStrategy(Struct, frozen=True):
    type: str = "RollingUpdate"
    rolling_update: StatefulRollingUpdate = StatefulRollingUpdate()


class Ordinals(Struct, frozen=True):
    start: int = 0


class StatefulSetSpec(Struct, frozen=True):
    replicas: int = 1
    selector: LabelSelectorSpec = LabelSelectorSpec()
    template: dict[str, Any] = {}
    volume_claim_templates: tuple[dict[str, Any], ...] = ()
    service_name: str = ""
    pod_management_policy: str = "OrderedReady"
    update_strategy: StatefulStrategy = StatefulStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int = 10
    ordinals: Ordinals = Ordinals()


class StatefulSetStatus(Struct, frozen=True):
    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""


class StatefulSet(KubeObject, frozen=True):
    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetStatus = StatefulSetStatus()


class ControllerRevision(KubeObject, frozen=True):
    data: dict[str, Any] = {}
    revision: int = 0
