"""What a URL names: path and query of a request, taken apart.

Paths are parsed rather than registered one by one, so a new resource needs no route.
Upstream: apiserver `endpoints/request/requestinfo.go`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from netemu.apiserver.auth.authentication import Attributes
from netemu.model.errors import BadRequest, NotFound
from netemu.model.resources import NAMESPACES, Resource

_LEFT_OUT = {
    "/horizontalpodautoscalers": "horizontalpodautoscalers.autoscaling are not served, as there are no metrics to "
    "scale by: set the number of replicas with kubectl scale",
}
"""What clients ask for without looking whether it is there, by a part of the path, and what to do instead."""

FindResource = Callable[[str, str, str], Resource | None]


@dataclass(frozen=True, slots=True)
class Target:
    """A collection (`name` empty), an object or a subresource."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def parse_path(path: str, find: FindResource) -> Target | None:
    """What a raw (still quoted) URL path names; None for paths that are not those of a resource that `find` knows."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    # `/namespaces/NAME/PLURAL` leads into a namespace; `/namespaces/NAME[/status]` is the Namespace itself.
    if rest[0] == "namespaces" and len(rest) > 2 and (len(rest) > 3 or rest[2] not in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3 and rest[2] == "proxy":  # what follows is the other server's path
        rest = rest[:3]
    resource = find(group, version, rest[0])
    if resource is None or len(rest) > 3 or "" in rest or (namespace and not resource.namespaced):
        return None
    name, subresource = (*rest[1:], "", "")[:2]
    return Target(resource, namespace, name, subresource)


def missing(path: str) -> NotFound:
    """The answer to a path that names nothing."""
    why = next((why for part, why in _LEFT_OUT.items() if part in path), "")
    return NotFound(why or "the server could not find the requested resource")


def verb_of(method: str, target: Target, query: Mapping[str, str]) -> str:
    """The verb of a request (`get`, `list`, `watch`, ...); empty for a method that a target cannot take."""
    if method in ("GET", "HEAD"):
        # The answer to a HEAD has no body that could go on.
        if flag(query, "watch") and not target.subresource and method == "GET":
            return "watch"
        return "get" if target.name else "list"
    named = {"PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    if method == "POST":
        return "create" if target.subresource or not target.name else ""
    if method in named and target.name:
        return named[method]
    return "deletecollection" if method == "DELETE" else ""


def attributes(verb: str, target: Target, query: Mapping[str, str]) -> Attributes:
    """What authorisation decides on.

    A selector of one name counts as that name, and a Namespace as being in itself, so that a role in a namespace can
    speak of it.
    """
    resource, name = target.resource, target.name
    fields = query.get("fieldSelector", "") if verb in _COLLECTIVE else ""
    if fields and not name:
        named = [part.partition("=")[2].lstrip("=") for part in fields.split(",") if _BY_NAME.match(part)]
        name = named[0] if named else ""
    namespace = target.name if resource is NAMESPACES else target.namespace
    return Attributes(
        verb, resource.group, resource.version, resource.plural, target.subresource, namespace, name, fields=fields
    )


_COLLECTIVE = frozenset({"list", "watch", "deletecollection"})
_BY_NAME = re.compile(r"metadata\.name={1,2}(?!=)")


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean parameter: present and not false. `?watch` alone is true, as upstream has it."""
    value = query.get(name)
    return value is not None and value.lower() not in ("false", "0", "f")


def number(query: Mapping[str, str], name: str) -> int:
    """A whole number of 64 bits, 0 where absent. Raises BadRequest."""
    text = query.get(name, "") or "0"
    if _NUMBER.fullmatch(text) and -(1 << 63) <= (value := int(text)) < 1 << 63:
        return value
    raise BadRequest(f'{name}: invalid number "{text}"')


_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")


def dry_run(values: list[str]) -> bool:
    """Whether `dryRun` asks for a trial. Raises BadRequest for values other than All."""
    for value in values:
        if value != "All":
            raise BadRequest(f'dryRun: Unsupported value: "{value}": supported values: "All"')
    return bool(values)
