"""Spreading endpoints over EndpointSlices with as few changes as possible
(`k8s.io/endpointslice/reconciler.go`, `reconcileByPortMapping`).

A slice holds endpoints of one address family that share one list of ports. Endpoints that are in some slice stay
there, changed ones are edited where they are, new ones fill the slices that are being edited anyway, then one existing
slice that has room for all that is left, and only then new slices. So one Pod that flips changes one slice, whatever
the size of the Service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netemu.controllers.actions import Actions, Create, Delete, Patch
from netemu.model.meta import encode
from netemu.model.objects import Endpoint, EndpointPort, EndpointSlice
from netemu.model.resources import ENDPOINTSLICES

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"

Group = tuple[str, tuple[EndpointPort, ...]]
"""Address type and ports: what all endpoints of one slice share."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What all slices of one owner have in common."""

    namespace: str
    service: str
    owner: Mapping[str, Any]
    labels: Mapping[str, str]
    annotations: Mapping[str, str] = field(default_factory=dict)
    trigger: str = ""
    """Time of the change that causes this write, or empty; noted on slices that are written."""
    prefix: str = ""
    """Of generated names."""


@dataclass(slots=True)
class _Draft:
    """A slice while endpoints are being given to it; `slice` is None for a new one."""

    slice: EndpointSlice | None
    group: Group
    endpoints: list[Endpoint]
    changed: bool


def reconcile_slices(
    frame: Frame,
    desired: Mapping[Group, Sequence[Endpoint]],
    slices: Sequence[EndpointSlice],
    most: int = 100,
) -> Actions:
    """The writes that make `slices` hold exactly the `desired` endpoints, at most `most` in each."""
    drafts: list[_Draft] = []
    by_group: dict[Group, list[EndpointSlice]] = {group: [] for group in desired}
    surplus: list[EndpointSlice] = []
    for item in sorted(slices, key=lambda s: s.name):
        group = group_of(item)
        by_group.get(group, surplus).append(item)
    for group, endpoints in desired.items():
        drafts += _pack(group, endpoints, by_group[group], most)
    surplus += [draft.slice for draft in drafts if draft.slice and not draft.endpoints]
    drafts = [draft for draft in drafts if draft.endpoints]
    drafts += [_placeholder(group, surplus) for group in desired if not desired[group]]
    _reuse(drafts, surplus)
    actions: Actions = []
    for draft in drafts:
        if draft.slice is None:
            actions.append(Create(ENDPOINTSLICES, _whole(frame, draft), frame.namespace))
        elif patch := _difference(frame, draft.slice, draft):
            version = draft.slice.metadata.resource_version
            actions.append(Patch(ENDPOINTSLICES, draft.slice.name, patch, frame.namespace, resource_version=version))
    return actions + [Delete(ENDPOINTSLICES, s.name, s.namespace, s.metadata.uid) for s in surplus if not s.deleting]


def group_of(item: EndpointSlice) -> Group:
    """Which endpoints may be in that slice."""
    return item.address_type, port_key(item.ports or ())


def port_key(ports: Iterable[EndpointPort]) -> tuple[EndpointPort, ...]:
    """Ports in a canonical order and spelling: no name and the empty name are the same."""
    plain = (EndpointPort(p.name or "", p.protocol or "TCP", p.port, p.app_protocol) for p in ports)
    return tuple(sorted(plain, key=lambda p: (p.name or "", p.protocol or "", p.port or 0, p.app_protocol or "")))


def _pack(group: Group, endpoints: Sequence[Endpoint], slices: Sequence[EndpointSlice], most: int) -> list[_Draft]:
    left = {_identity(endpoint): endpoint for endpoint in endpoints}
    drafts: list[_Draft] = []
    for item in slices:
        had = item.endpoints or ()
        kept = [fresh for endpoint in had if (fresh := left.pop(_identity(endpoint), None)) is not None][:most]
        drafts.append(_Draft(item, group, kept, tuple(kept) != tuple(had)))
    waiting = list(left.values())
    for draft in sorted((d for d in drafts if d.changed and d.endpoints), key=lambda d: -len(d.endpoints)):
        _fill(draft, waiting, most)
    while waiting:
        target = _room(drafts, len(waiting), most)
        if target is None:
            target = _Draft(None, group, [], True)
            drafts.append(target)
        _fill(target, waiting, most)
    return drafts


def _placeholder(group: Group, surplus: list[EndpointSlice]) -> _Draft:
    """A slice that holds nothing: says that the Service was seen. One that is there already is kept."""
    match = next((item for item in surplus if group_of(item) == group and not item.deleting), None)
    if match is not None:
        surplus.remove(match)
    return _Draft(match, group, [], True)


def _fill(draft: _Draft, waiting: list[Endpoint], most: int) -> None:
    count = min(most - len(draft.endpoints), len(waiting))
    if count > 0:
        draft.endpoints += waiting[:count]
        draft.changed = True
        del waiting[:count]


def _room(drafts: Sequence[_Draft], count: int, most: int) -> _Draft | None:
    """The fullest existing slice that still has room for `count` more."""
    fits = [draft for draft in drafts if draft.endpoints and len(draft.endpoints) + count <= most]
    return max(fits, key=lambda draft: len(draft.endpoints), default=None)


def _reuse(drafts: Sequence[_Draft], surplus: list[EndpointSlice]) -> None:
    """Turn a slice that would be deleted into one that would be created: one write instead of two."""
    for draft in drafts:
        if draft.slice is None:
            match = next((s for s in surplus if s.address_type == draft.group[0] and not s.deleting), None)
            if match is not None:
                surplus.remove(match)
                draft.slice = match


def _identity(endpoint: Endpoint) -> tuple[str, str]:
    """What stays the same when an endpoint changes (`endpointsliceutil.endpointHash`)."""
    return (endpoint.addresses[0], endpoint.target_ref.uid if endpoint.target_ref else "")


def _ports(draft: _Draft) -> list[dict[str, Any]]:
    # `name` is written even when it is empty: clients look ports up by it.
    return [{**encode(port), "name": port.name or ""} for port in draft.group[1]]


def _annotations(frame: Frame) -> dict[str, str]:
    return {**frame.annotations, **({TRIGGER_TIME: frame.trigger} if frame.trigger else {})}


def _whole(frame: Frame, draft: _Draft) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "generateName": f"{frame.prefix or frame.service}-",
        "namespace": frame.namespace,
        "labels": dict(frame.labels),
        "ownerReferences": [frame.owner],
    }
    if annotations := _annotations(frame):
        meta["annotations"] = annotations
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta,
        "addressType": draft.group[0],
        "endpoints": [encode(endpoint) for endpoint in draft.endpoints],
        "ports": _ports(draft),
    }


def _difference(frame: Frame, item: EndpointSlice, draft: _Draft) -> dict[str, Any]:
    """The patch for a slice that exists; empty if it is right already."""
    patch: dict[str, Any] = {}
    if tuple(draft.endpoints) != (item.endpoints or ()):
        patch["endpoints"] = [encode(endpoint) for endpoint in draft.endpoints]
    if group_of(item) != draft.group:
        patch["ports"] = _ports(draft)
    meta: dict[str, Any] = {}
    if labels := _map_patch(item.labels, frame.labels):
        meta["labels"] = labels
    kept = {key: value for key, value in item.annotations.items() if key != TRIGGER_TIME}
    notes = _map_patch(kept, frame.annotations)
    if patch or labels or notes:
        if frame.trigger or TRIGGER_TIME in item.annotations:
            notes[TRIGGER_TIME] = frame.trigger or None
        if notes:
            meta["annotations"] = notes
    return {**patch, **({"metadata": meta} if meta else {})}


def _map_patch(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str | None]:
    changed: dict[str, str | None] = {key: value for key, value in new.items() if old.get(key) != value}
    return changed | {key: None for key in old if key not in new}


Filter = Callable[[EndpointSlice], bool]


def managed_by(manager: str) -> Filter:
    """Whether a slice belongs to that manager."""
    return lambda item: item.labels.get(MANAGED_BY) == manager
