"""What changes a running lab: objects, faults of its DNS, commands in its places and beside it.

Whoever changes objects goes on once Pods are Ready and the rules of every node are those of the newest objects.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from netemu.dns.fault import Fault
from netemu.lab.addons import SYSTEM
from netemu.lab.api import LabApi
from netemu.lab.check_spec import Exec, Reference, Run
from netemu.lab.commands import environment_of, run_command, run_inside
from netemu.lab.failures import Failed, expect
from netemu.lab.readiness import endpoints_missing, terminating
from netemu.lab.rollouts import rollouts_missing
from netemu.lab.rules import wait_for_rules
from netemu.model.custom import CustomResourceDefinition, resources_of
from netemu.model.errors import NetemuError, NotFound
from netemu.model.meta import decode
from netemu.model.resources import (
    CONFIGMAPS,
    CUSTOMRESOURCEDEFINITIONS,
    ENDPOINTSLICES,
    PODS,
    SERVICES,
    Resource,
    by_kind,
)

SETTLED_ANNOTATION = "netemu.dev/settled"
"""On the Service `kubernetes`, for `settle`."""
_SETTLED = 30.0
_PAUSE = 0.05


def execute(lab: str, namespace: str, wanted: Exec) -> None:
    """A command inside a place of the lab ends and prints as it should."""
    _expect(
        wanted,
        lambda: run_inside(
            lab, wanted.inside, wanted.command, namespace=namespace, input=wanted.input, timeout=_SETTLED
        ),
    )


def run(lab: str, wanted: Run) -> None:
    """A command of this machine, with the lab's kubeconfig, ends and prints as it should."""
    _expect(
        wanted,
        lambda: run_command(wanted.command, input=wanted.input, env=environment_of(lab), timeout=_SETTLED),
    )


def _expect(wanted: Exec | Run, command: Callable[[], subprocess.CompletedProcess[str]]) -> None:
    try:
        done = command()
    except NetemuError as error:
        raise Failed(str(error)) from error
    text = (done.stdout + done.stderr).strip() or "(no output)"
    expect(done.returncode == wanted.exits, f"exited with {done.returncode}, expected {wanted.exits}: {text[-300:]}")
    if wanted.prints:
        expect(bool(re.search(wanted.prints, text)), f"printed {text[-300:]!r}, expected /{wanted.prints}/")


def apply(api: LabApi, objects: Iterable[dict[str, Any]]) -> None:
    """Create objects, or merge them into what is there. Raises Failed, ApiError."""
    for obj in objects:
        resource = _resource(api, obj["apiVersion"], obj["kind"])
        namespace = str(obj["metadata"].get("namespace") or "default") if resource.namespaced else ""
        try:
            api.merge_patch(resource, obj["metadata"]["name"], obj, namespace)
        except NotFound:
            api.create(resource, obj, namespace)
    settle(api)


def _resource(api: LabApi, api_version: str, kind: str) -> Resource:
    """Where objects of a kind are; one that is defined just now is served in a moment. Raises Failed."""
    if builtin := by_kind(api_version, kind):
        return builtin
    found: list[Resource] = []

    def defined() -> bool:
        definitions = (decode(obj, CustomResourceDefinition) for obj in api.list(CUSTOMRESOURCEDEFINITIONS)[0])
        every = (resource for definition in definitions for resource in resources_of(definition))
        found[:] = [one for one in every if (one.api_version, one.kind) == (api_version, kind)]
        return bool(found)

    _until(defined, lambda: f"{api_version} {kind} is not served")
    return found[0]


def delete(api: LabApi, gone: Iterable[Reference]) -> None:
    """Delete objects, and wait until they are gone. Raises Failed, ApiError."""
    for one in gone:
        resource = _resource(api, one.api_version, one.kind)
        namespace = one.namespace or "default" if resource.namespaced else ""
        api.delete(resource, one.name, namespace)
        until_gone(api, resource, one.name, namespace)
    settle(api)


def until_gone(api: LabApi, resource: Resource, name: str, namespace: str = "") -> None:
    """Wait for the end of an object. Raises Failed."""
    _until(lambda: not api.there(resource, name, namespace), lambda: f"{resource.kind} {name} is still there")


def set_faults(api: LabApi, table: str, faults: Mapping[str, Fault]) -> None:
    """Make these all the faults of a resolver, by the ConfigMap that it reads them from."""
    before = api.get(CONFIGMAPS, table, SYSTEM).get("data") or {}
    data: dict[str, Any] = dict.fromkeys(before)
    data |= {key: msgspec.json.encode(fault).decode() for key, fault in faults.items()}
    api.merge_patch(CONFIGMAPS, table, {"data": data}, SYSTEM)


def settle(api: LabApi) -> None:
    """Return when Pods are Ready or gone, endpoints are theirs, and rules programmed.

    Raises Failed, RulesMissingError.
    """
    missing: list[str] = []

    def ready() -> bool:
        pods = api.list(PODS)[0]
        missing[:] = rollouts_missing(api, pods) + terminating(pods)
        missing.extend(endpoints_missing(api.list(SERVICES)[0], api.list(ENDPOINTSLICES)[0], pods))
        return not missing

    _until(ready, lambda: "; ".join(missing))
    _pass_by_the_proxies(api)
    wait_for_rules(api.lab, timeout=_SETTLED)


def _pass_by_the_proxies(api: LabApi) -> None:
    """Write to a Service: what is gone leaves no revision to wait for, but proxies see changes in their order."""
    stamp = {"metadata": {"annotations": {SETTLED_ANNOTATION: str(time.time_ns())}}}
    api.merge_patch(SERVICES, "kubernetes", stamp, "default")


def _until(holds: Callable[[], bool], what: Callable[[], str]) -> None:
    end = time.monotonic() + _SETTLED
    while not holds():
        if time.monotonic() > end:
            raise Failed(f"after {_SETTLED:.0f} s: {what()}")
        time.sleep(_PAUSE)
