"""Ephemeral containers: added to a Pod that runs, for somebody who debugs it, and never changed or removed.

They come through `pods/NAME/ephemeralcontainers` alone.
Upstream: `pkg/apis/core/validation` (validateEphemeralContainers, ValidatePodEphemeralContainersUpdate).
"""

from __future__ import annotations

from netemu.apiserver.validation.fields import forbidden, not_found
from netemu.client.base import Obj
from netemu.model.errors import FieldError

_PATH = "spec.ephemeralContainers"
_FORBIDDEN = (
    "lifecycle", "livenessProbe", "ports", "readinessProbe", "resizePolicy", "resources", "restartPolicy",
    "startupProbe",
)  # fmt: skip
"""What a container has that is not started again and that nothing depends on cannot have."""


def ephemeral_rules(spec: Obj) -> list[FieldError]:
    """Errors of what only ephemeral containers have to keep to; the rest is as for any container."""
    errors: list[FieldError] = []
    there = {one.get("name") for key in ("containers", "initContainers") for one in spec.get(key) or ()}
    for index, container in enumerate(spec.get("ephemeralContainers") or ()):
        for field in _FORBIDDEN:
            if container.get(field):
                text = "cannot be set for an Ephemeral Container"
                errors.append(forbidden(f"{_PATH}[{index}].{field}", text))
        target = container.get("targetContainerName") or ""
        if target and target not in there:
            errors.append(not_found(f"{_PATH}[{index}].targetContainerName", target))
    return errors


def ephemeral_update(spec: Obj, old: Obj) -> list[FieldError]:
    """Those that are there stay as they are."""
    errors: list[FieldError] = []
    new = {one.get("name"): one for one in spec.get("ephemeralContainers") or ()}
    for index, container in enumerate(old.get("ephemeralContainers") or ()):
        name = container["name"]
        if name not in new:
            text = f"existing ephemeral containers {name!r} may not be removed\n".replace("'", '"')
            errors.append(forbidden(_PATH, text))
        elif new[name] != container:
            text = f"existing ephemeral containers {name!r} may not be changed\n".replace("'", '"')
            errors.append(forbidden(f"{_PATH}[{index}]", text))
    return errors
