"""Doing the steps of `spec.checks` on a running lab: claims (`claims.py`) and changes (`changes.py`), in order.

A step passes, or it is told what was seen instead. A claim that may take a while is tried again
until it holds or its time is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from netemu.dns.corefile import parse_duration
from netemu.lab import changes, claims
from netemu.lab.addons import FAULTS, OUTSIDE_FAULTS
from netemu.lab.api import LabApi
from netemu.lab.check_spec import CheckSpec
from netemu.lab.claims import Failed
from netemu.lab.targets import Target, find_target
from netemu.model.errors import NetemuError

_PAUSE = 0.1


class CheckResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of one step."""

    name: str
    passed: bool
    seconds: float
    why: str = ""


def run_check(lab: str, check: CheckSpec) -> CheckResult:
    """Do one step. Whatever goes wrong is told in the result."""
    begin = time.monotonic()
    end = begin + (parse_duration(check.within) or 0)
    while True:
        try:
            _do(lab, check)
            return CheckResult(check.name, True, round(time.monotonic() - begin, 3))
        except NetemuError as error:
            why = str(error)
        if time.monotonic() >= end:
            return CheckResult(check.name, False, round(time.monotonic() - begin, 3), why)
        time.sleep(_PAUSE)


def _do(lab: str, check: CheckSpec) -> None:
    (step,) = check.given
    value = getattr(check, step)
    place: Callable[[str], Target] = lambda text: find_target(lab, text, check.namespace)  # noqa: E731
    match step:
        case "resolves" | "reaches" | "refused" | "dropped" | "spread" | "source":
            getattr(claims, step)(place(value.source_), value)
        case "lossless_during":
            claims.lossless_during(place(value.source_), value, lambda: _do_all(lab, value.steps))
        case "exec":
            changes.execute(lab, check.namespace, value)
        case "run":
            changes.run(lab, value)
        case "apply":
            changes.apply(LabApi(lab), value)
        case "delete":
            changes.delete(LabApi(lab), value)
        case "faults":
            changes.set_faults(LabApi(lab), FAULTS, value)
        case "outside_faults":
            changes.set_faults(LabApi(lab), OUTSIDE_FAULTS, value)


def _do_all(lab: str, steps: Sequence[CheckSpec]) -> None:
    for step in steps:
        result = run_check(lab, step)
        if not result.passed:
            raise Failed(f"{step.name}: {result.why}")
