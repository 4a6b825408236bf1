"""What of a lab's workloads is not there yet, as its API server tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netemu.lab.api import LabApi
from netemu.lab.readiness import daemons_missing, stateful_missing, workloads_missing
from netemu.model.resources import DAEMONSETS, DEPLOYMENTS, STATEFULSETS


def rollouts_missing(api: LabApi, pods: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line per Pod, of `pods`, that is not Ready, and per workload that has not rolled out."""
    lines = workloads_missing(api.list(DEPLOYMENTS)[0], pods)
    return lines + daemons_missing(api.list(DAEMONSETS)[0]) + stateful_missing(api.list(STATEFULSETS)[0])
