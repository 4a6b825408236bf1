"""The query parameters of `pods/log`, `exec`, `attach` and `portforward`: which container, and what of its log. Pure.

Upstream: `pkg/registry/core/pod/strategy.go` (LogLocation, streamLocation, validateContainer) and
`pkg/apis/core/validation` (ValidatePodLogOptions).
"""

from __future__ import annotations

from collections.abc import Mapping

from netemu.apiserver.http.routing import flag, number
from netemu.client.base import Obj
from netemu.model import times
from netemu.model.errors import BadRequest, FieldError, Invalid


def chosen_container(pod: Obj, name: str) -> str:
    """The container that is meant; without a name the only one. Raises BadRequest naming what there is."""
    spec, pod_name = pod.get("spec") or {}, pod["metadata"]["name"]
    named = {part: [one["name"] for one in spec.get(part) or ()] for part in ("containers", "initContainers")}
    temporary = [one["name"] for one in spec.get("ephemeralContainers") or ()]
    if name:
        if name in (*named["containers"], *named["initContainers"], *temporary):
            return name
        raise BadRequest(f"container {name} is not valid for pod {pod_name}")
    containers = named["containers"]
    if len(containers) == 1:
        return str(containers[0])
    if not containers:
        raise BadRequest(f"a container name must be specified for pod {pod_name}")
    why = f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(containers)}]"
    if named["initContainers"]:
        why += f" or one of the init containers: [{' '.join(named['initContainers'])}]"
    raise BadRequest(why)


def log_query(query: Mapping[str, str], pod_name: str) -> dict[str, str]:
    """The options of a log, as a kubelet takes them. Raises BadRequest, Invalid."""
    problems: list[FieldError] = []
    options = {name: "true" for name in ("follow", "previous", "timestamps") if flag(query, name)}
    for name, least in (("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)):
        if query.get(name):
            value = number(query, name)
            options[name] = str(value)
            if value < least:
                bound = "greater than or equal to 0" if least == 0 else "greater than 0"
                problems.append(FieldError(name, "FieldValueInvalid", f"Invalid value: {value}: must be {bound}"))
    if moment := query.get("sinceTime"):
        try:
            times.parse(moment)
        except ValueError:
            raise BadRequest(f'sinceTime: "{moment}" is no time as in RFC 3339') from None
        options["sinceTime"] = moment
        if "sinceSeconds" in options:
            why = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
            problems.append(FieldError("", "FieldValueForbidden", why))
    if problems:
        raise Invalid.of_fields("PodLogOptions", pod_name, problems)
    return options
