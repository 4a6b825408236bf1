"""Doing the steps of `spec.checks` on a running lab: claims (`claims.py`) and changes (`changes.py`), in order.

A step passes, or it is told what was seen instead. A claim that may take a while is tried again
until it holds or its time is over. Where connections were not as they should be, one packet more is traced.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from netemu.dns.corefile import parse_duration
from netemu.lab import changes, claims
from netemu.lab.addons import FAULTS, OUTSIDE_FAULTS
from netemu.lab.api import LabApi
from netemu.lab.check_spec import CheckSpec
from netemu.lab.failures import Failed
from netemu.lab.targets import Target, find_target
from netemu.model.errors import NetemuError
from netemu.observe.probe.result import ProbeResult
from netemu.observe.story.story import Story
from netemu.observe.trace.evidence import Protocol

_PAUSE = 0.1


class CheckResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of one step."""

    name: str
    passed: bool
    seconds: float
    why: str = ""
    story: Story | None = None
    """Of one packet more, where connections failed. It need not fare as they did."""


class _StepFailed(NetemuError):
    """A step inside of another does not hold."""

    def __init__(self, result: CheckResult) -> None:
        super().__init__(f"{result.name}: {result.why}")
        self.story = result.story


def run_check(lab: str, check: CheckSpec) -> CheckResult:
    """Do one step. Whatever goes wrong is told in the result."""
    begin = time.monotonic()
    end = begin + (parse_duration(check.within) or 0)
    while True:
        try:
            _do(lab, check)
            return CheckResult(check.name, True, round(time.monotonic() - begin, 3))
        except NetemuError as error:
            failure = error
        if (now := time.monotonic()) >= end:
            return CheckResult(check.name, False, round(now - begin, 3), str(failure), _story(lab, check, failure))
        time.sleep(_PAUSE)


def _story(lab: str, check: CheckSpec, failure: NetemuError) -> Story | None:
    """Of one packet more, from where to where connections failed; None where they did not or none can be sent."""
    if isinstance(failure, _StepFailed):
        return failure.story
    if not isinstance(failure, Failed) or not isinstance(failure.found, ProbeResult):
        return None
    from netemu.lab.trace import Tracer  # half a second of imports that only failures need

    value = getattr(check, check.given[0])
    protocol: Protocol = "udp" if failure.found.protocol == "UDP" else "tcp"
    try:
        story, _ = asyncio.run(Tracer(lab, value.source_, check.namespace).story(value.to, protocol=protocol))
    except NetemuError:
        return None
    return story


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
            raise _StepFailed(result)
