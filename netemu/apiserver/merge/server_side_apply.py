"""Server-side apply: what an object is after somebody said which fields it should have.

The configuration is merged into the object; what its manager applied before, leaves out now, and nobody else owns,
goes; where it gives another value to a field of somebody else there is a conflict, unless it is forced. Fields of
equal values are shared.

kubectl is special in two ways, for the sake of objects that were once applied by the client: conflicts about fields
that its annotation says it set itself are none, and the annotation, where there is one, is kept up to date.
Upstream: structured-merge-diff `merge/update.go`, apimachinery `util/managedfields/internal` (`structuredmerge`,
`lastapplied*`, `conflict`), apiserver `endpoints/handlers/patch.go`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from netemu.apiserver.merge import managed_fields
from netemu.apiserver.merge.fieldset import EMPTY, FieldSet, difference, intersection, path_text, paths, union
from netemu.apiserver.merge.managed_fields import Managed, Manager, Managers, owned
from netemu.apiserver.merge.typed import Typed
from netemu.apiserver.merge.typed_merge import merged, without
from netemu.apiserver.merge.typed_sets import Unfit, check, compared, fields_of, with_parents
from netemu.apiserver.subresources import replicas_path, with_replicas
from netemu.client.base import Obj
from netemu.model import times
from netemu.model.errors import ApiError, BadRequest, Conflict
from netemu.model.resources import Resource

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL = "kubectl"
_BEFORE_FIRST_APPLY = "before-first-apply"
_IDENTITY = ("name", "namespace", "uid", "resourceVersion")


class UnfitConfiguration(ApiError):
    """A configuration that the kind's schema cannot hold; upstream answers so, without a reason."""

    code, reason = 500, "Unknown"


@dataclass(frozen=True, slots=True)
class Application:
    """One request to apply."""

    resource: Resource
    config: Obj
    """Of the resource's kind, as the client wrote it."""
    manager: str
    subresource: str = ""
    force: bool = False


def scale_application(application: Application) -> Application:
    """What applying a Scale means for the object that is scaled. Raises BadRequest."""
    config, resource = application.config, application.resource
    if (config.get("apiVersion"), config.get("kind")) != ("autoscaling/v1", "Scale"):
        raise BadRequest("invalid object type: it must be autoscaling/v1, Kind=Scale")
    spec = config.get("spec") or {}
    part = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": config.get("metadata") or {}}
    path = replicas_path(resource.custom)
    return replace(application, config=with_replicas(part, path, spec.get("replicas", 0)))


class _Clash(Exception):
    """Fields that others own and that would change, by owner."""

    def __init__(self, fields: Mapping[Manager, FieldSet]) -> None:
        super().__init__()
        self.fields = fields


def applied(typed: Typed, application: Application, live: Obj) -> Obj:
    """The object after an apply to `live` (empty where there is none), with its managedFields, before defaults.

    Raises Conflict, BadRequest, UnfitConfiguration.
    """
    config = _checked(typed, application)
    version = application.resource.api_version
    managers = managed_fields.of(live) if live else {}
    bare = managed_fields.bare(live) if live else {}
    if live and not managers:
        # It was made before anybody applied: what is there belongs to somebody, so that there can be a conflict.
        first = managed_fields.updater(_BEFORE_FIRST_APPLY, version)
        managers = managed_fields.after_update(typed, {}, first, {}, bare)
    try:
        new, managers = _merged(typed, application, config, bare, managers, force=application.force)
    except _Clash as clash:
        allowed = _set_by_client(typed, bare) if application.manager == _KUBECTL else EMPTY
        left = {who: fields for who, found in clash.fields.items() if (fields := difference(found, allowed))}
        if left:
            raise conflict(left) from None
        new, managers = _merged(typed, application, config, bare, managers, force=True)
    metadata = dict(new.get("metadata") or {})
    if application.manager == _KUBECTL and _LAST_APPLIED in (metadata.get("annotations") or {}):
        metadata["annotations"] = {**metadata["annotations"], _LAST_APPLIED: _as_annotation(application.config)}
    return {**new, "metadata": {**metadata, "managedFields": managed_fields.encoded(managers)}}


def _checked(typed: Typed, application: Application) -> Obj:
    """The configuration, less what this way in does not change. Raises BadRequest, UnfitConfiguration."""
    config, resource = application.config, application.resource
    given = (config.get("apiVersion"), config.get("kind"))
    if given != (resource.api_version, resource.kind):
        why = f"{given[0] or ''}, Kind={given[1] or ''}; it must be {resource.api_version}, Kind={resource.kind}"
        raise BadRequest(f"invalid object type: {why}")
    metadata = config.get("metadata") or {}
    if isinstance(metadata, dict) and metadata.get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    try:
        check(typed, config)
    except Unfit as error:
        who = f"{metadata.get('namespace') or ''}/{metadata.get('name') or ''}"
        what = f"({who}; {resource.api_version}, Kind={resource.kind})"
        raise UnfitConfiguration(f"failed to create typed patch object {what}: {error}") from None
    if application.subresource == "status":
        kept = {name: metadata[name] for name in _IDENTITY if name in metadata}
        return {**{name: config[name] for name in ("apiVersion", "kind", "status") if name in config}, "metadata": kept}
    return {name: value for name, value in config.items() if name != "status" or "status" not in resource.subresources}


def _merged(
    typed: Typed, application: Application, config: Obj, live: Obj, managers: Managers, *, force: bool
) -> tuple[Obj, Managers]:
    """The object without its managedFields, and its managers. Raises _Clash."""
    who = managed_fields.applier(application.manager, application.subresource)
    last = managers.get(who)
    mine = Managed(owned(fields_of(typed, config)), application.resource.api_version, times.now())
    managers = {**managers, who: mine}
    new = merged(typed, live, config)
    if last:
        new = _pruned(typed, new, last.fields, managers)
    changed, removed = map(owned, compared(typed, live, new))
    clashes = {
        other: both
        for other, managed in managers.items()
        if other != who and (both := intersection(managed.fields, changed))
    }
    if clashes and not force:
        raise _Clash(clashes)
    return new, managed_fields.taken(managers, union(changed, removed), but=who)


def _pruned(typed: Typed, new: Obj, last: FieldSet, managers: Managers) -> Obj:
    """`new` less what was applied the last time and belongs to nobody now."""
    last = with_parents(typed, last)
    here = with_parents(typed, fields_of(typed, new))
    kept = with_parents(typed, fields_of(typed, without(typed, new, last)))
    for managed in managers.values():
        kept = union(kept, with_parents(typed, managed.fields))
    left: Obj = without(typed, new, intersection(difference(here, kept), last))
    return left


def _set_by_client(typed: Typed, live: Obj) -> FieldSet:
    """What the annotation of client-side apply says it set, and is still so."""
    annotations = live["metadata"].get("annotations") or {}
    try:
        last = msgspec.json.decode(annotations.get(_LAST_APPLIED, ""))
        check(typed, last)
        changed, removed = compared(typed, last, live)
    except (msgspec.DecodeError, Unfit):
        return EMPTY
    return difference(fields_of(typed, last), union(changed, removed))


def _as_annotation(config: Obj) -> str:
    metadata = dict(config.get("metadata") or {})
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {name: text for name, text in annotations.items() if name != _LAST_APPLIED}
    return msgspec.json.encode({**config, "metadata": metadata}, order="sorted").decode() + "\n"


def conflict(fields: Mapping[Manager, FieldSet]) -> Conflict:
    """409 with one cause for each field, in upstream's words, by which kubectl explains what can be done."""
    found = [(_told(who), path_text(path)) for who, theirs in fields.items() for path in paths(theirs)]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": field} for who, field in found
    ]
    if len(found) == 1:
        message = f"Apply failed with 1 conflict: conflict with {found[0][0]}: {found[0][1]}"
    else:
        by_manager: dict[str, str] = {}
        for who, field in found:
            by_manager[who] = f"{by_manager.get(who, '')}\n- {field}"
        told = [f"conflicts with {who}:{by_manager[who]}" for who in sorted(by_manager)]
        message = f"Apply failed with {len(found)} conflicts: " + "\n".join(told)
    return Conflict(message, {"causes": causes})


def _told(who: Manager) -> str:
    text = f'"{who.name}"'
    if who.subresource:
        text += f' with subresource "{who.subresource}"'
    return f"{text} using {who.api_version}" if who.operation == "Update" else text
