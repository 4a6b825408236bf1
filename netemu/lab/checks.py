"""Doing the steps of `spec.checks` on a running lab, with real packets.

Each step returns nothing, or raises `Failed` with what was seen instead. A claim that may take a while is tried again
until it holds or its time is over.
"""

from __future__ import annotations

import asyncio
import functools
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from netemu.dns.corefile import parse_duration
from netemu.dns.fault import Fault
from netemu.kernel.netlink import Netlink
from netemu.lab.addons import FAULTS, OUTSIDE_FAULTS, SYSTEM
from netemu.lab.api import LabApi
from netemu.lab.check_spec import CheckSpec, Exec, Reaches, Reference, Resolves, Source, Spread
from netemu.lab.manifests import resource_of
from netemu.lab.readiness import workloads_missing
from netemu.lab.rules import wait_for_rules
from netemu.lab.targets import Target, find_target
from netemu.model.errors import NetemuError, NotFound
from netemu.model.resources import CONFIGMAPS, DEPLOYMENTS, PODS, by_kind
from netemu.observe import probe_result
from netemu.observe.dig import lookup
from netemu.observe.probe import Place, probe
from netemu.observe.probe_result import ProbeResult

_SETTLED = 30.0
_PAUSE = 0.1


class Failed(NetemuError):
    """A claim that does not hold; the text is what was seen."""


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
        case "resolves":
            _resolves(place(value.source_), value)
        case "reaches":
            result = _probe(place(value.source_), value.to, value.count, udp=value.udp)
            _expect(result.answered == result.count, f"{_said(result)}, expected {result.count} answers")
        case "refused" | "dropped":
            _unanswered(place(value.source_), value, "refused" if step == "refused" else "timeout")
        case "spread":
            _spread(place(value.source_), value)
        case "source":
            _source(place(value.source_), value)
        case "exec":
            _exec(lab, check.namespace, value)
        case "apply":
            _apply(LabApi(lab), value)
        case "delete":
            _delete(LabApi(lab), value)
        case "faults":
            _faults(LabApi(lab), FAULTS, value)
        case "outside_faults":
            _faults(LabApi(lab), OUTSIDE_FAULTS, value)


def _expect(holds: bool, seen: str) -> None:
    if not holds:
        raise Failed(seen)


# --- claims ----------------------------------------------------------------------------------------------------------


def _resolves(place: Target, wanted: Resolves) -> None:
    found = asyncio.run(
        lookup(
            wanted.name, types=wanted.types, resolv_conf=place.resolv_conf, hosts=place.hosts, netns=place.netns,
            resolver=wanted.resolver,
        )
    )  # fmt: skip
    result = found.result
    _expect(result.status == wanted.status, f"{result.status}, expected {wanted.status}")
    if wanted.addresses is not None:
        seen = ", ".join(result.addresses) or "no address"
        _expect(sorted(result.addresses) == sorted(wanted.addresses), f"{seen}; expected {', '.join(wanted.addresses)}")
    if wanted.count is not None:
        _expect(len(result.addresses) == wanted.count, f"{len(result.addresses)} addresses, expected {wanted.count}")
    if wanted.queries is not None:
        _expect(len(found.steps) == wanted.queries, f"{len(found.steps)} queries, expected {wanted.queries}")
    if wanted.transport:
        last = found.steps[-1].transport if found.steps else "none"
        _expect(last == wanted.transport, f"last asked by {last}, expected {wanted.transport}")
    took = f"took {found.seconds:.3f} s"
    if wanted.within:
        _expect(found.seconds <= (parse_duration(wanted.within) or 0), f"{took}, expected at most {wanted.within}")
    if wanted.after:
        _expect(found.seconds >= (parse_duration(wanted.after) or 0), f"{took}, expected at least {wanted.after}")


def _probe(place: Target, to: str, count: int, *, udp: bool = False) -> ProbeResult:
    where = Place(place.netns, place.resolv_conf, place.hosts)
    return asyncio.run(probe(where, to, count=count, udp=udp))


def _said(result: ProbeResult) -> str:
    errors = ", ".join(f"{number} {kind}" for kind, number in result.errors.items())
    return f"{result.answered} of {result.count} answered" + (f" ({errors})" if errors else "")


def _unanswered(place: Target, wanted: Reaches, kind: str) -> None:
    result = _probe(place, wanted.to, wanted.count, udp=wanted.udp)
    expected = probe_result.REFUSED if kind == "refused" else probe_result.TIMEOUT
    _expect(result.errors.get(expected, 0) == result.count, f"{_said(result)}, expected {result.count} {expected}")


def _spread(place: Target, wanted: Spread) -> None:
    result = _probe(place, wanted.to, wanted.count)
    _expect(result.answered == result.count, _said(result))
    shares = ", ".join(f"{name} {number}" for name, number in result.servers.items())
    _expect(len(result.servers) == wanted.over, f"answered by {shares}; expected {wanted.over} servers")
    even = wanted.count / wanted.over
    uneven = [number for number in result.servers.values() if abs(number - even) > wanted.tolerance * even]
    _expect(not uneven, f"answered by {shares}; expected {even:.0f} each, give or take {wanted.tolerance:.0%}")


def _source(place: Target, wanted: Source) -> None:
    result = _probe(place, wanted.to, 1)
    _expect(result.answered == 1, _said(result))
    (seen,) = result.sources
    if wanted.is_ == "client":
        with Netlink(place.netns) as netlink:
            own = [one.address.partition("/")[0] for one in netlink.addresses()]
        _expect(seen in own, f"the server saw {seen}, which is no address of {place.name}")
    else:
        _expect(seen == wanted.is_, f"the server saw {seen}, expected {wanted.is_}")


def _exec(lab: str, namespace: str, wanted: Exec) -> None:
    command = [sys.executable, "-m", "netemu", "exec", "--lab", lab, "-n", namespace, wanted.inside, "--"]
    try:
        done = subprocess.run(
            [*command, *wanted.command], input=wanted.input, capture_output=True, text=True, timeout=_SETTLED
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"did not end within {_SETTLED:.0f} s") from error
    text = (done.stdout + done.stderr).strip() or "(no output)"
    _expect(done.returncode == wanted.exits, f"exited with {done.returncode}, expected {wanted.exits}: {text[-300:]}")
    if wanted.prints:
        _expect(bool(re.search(wanted.prints, text)), f"printed {text[-300:]!r}, expected /{wanted.prints}/")


# --- changes ---------------------------------------------------------------------------------------------------------


def _apply(api: LabApi, objects: Iterable[dict[str, Any]]) -> None:
    for obj in objects:
        resource = resource_of(obj)
        namespace = str(obj["metadata"].get("namespace") or "default") if resource.namespaced else ""
        try:
            api.merge_patch(resource, obj["metadata"]["name"], obj, namespace)
        except NotFound:
            api.create(resource, obj, namespace)
    _settle(api)


def _delete(api: LabApi, gone: Iterable[Reference]) -> None:
    for one in gone:
        resource = by_kind(one.api_version, one.kind)
        assert resource is not None
        namespace = one.namespace or "default" if resource.namespaced else ""
        api.delete(resource, one.name, namespace)
        there = functools.partial(api.there, resource, one.name, namespace)
        _until(lambda there=there: not there(), f"{one.kind} {one.name} is still there")  # type: ignore[misc]
    _settle(api)


def _faults(api: LabApi, table: str, faults: Mapping[str, Fault]) -> None:
    before = api.get(CONFIGMAPS, table, SYSTEM).get("data") or {}
    data: dict[str, Any] = dict.fromkeys(before)
    data |= {key: msgspec.json.encode(fault).decode() for key, fault in faults.items()}
    api.merge_patch(CONFIGMAPS, table, {"data": data}, SYSTEM)


def _settle(api: LabApi) -> None:
    """Return when Pods are Ready and rules programmed. Raises Failed, RulesMissingError."""
    missing: list[str] = []

    def ready() -> bool:
        missing[:] = workloads_missing(api.list(DEPLOYMENTS)[0], api.list(PODS)[0])
        return not missing

    time.sleep(_PAUSE)  # controllers have to see what has changed before there is something to wait for
    _until(ready, "; ".join(missing) or "Pods are not Ready")
    wait_for_rules(api.lab, timeout=_SETTLED)


def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _SETTLED
    while not holds():
        if time.monotonic() > end:
            raise Failed(f"{what} after {_SETTLED:.0f} s")
        time.sleep(_PAUSE)
