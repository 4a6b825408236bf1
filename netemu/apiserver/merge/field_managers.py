"""Who a request says writes: the parameter `fieldManager`, or the program in front of the version in `User-Agent`.

Upstream: apiserver `endpoints/handlers/create.go` (`managerOrUserAgent`), apimachinery `meta/v1/validation`.
"""

from __future__ import annotations

from aiohttp import web

from netemu.apiserver.http.routing import flag
from netemu.model.errors import FieldError, Invalid

_LONGEST = 128
"""Bytes."""


def manager_of(request: web.Request) -> str:
    """The name under which the fields of this write are kept. Raises Invalid."""
    given = request.query.get("fieldManager", "")
    if given:
        if problem := _problem(given):
            options = {"POST": "CreateOptions", "PUT": "UpdateOptions"}.get(request.method, "PatchOptions")
            raise Invalid.of_fields(options, "", [problem], "meta.k8s.io")
        return given
    agent = "".join(char for char in request.headers.get("User-Agent", "").partition("/")[0] if char.isprintable())
    return agent.encode()[:_LONGEST].decode(errors="ignore") or "unknown"


def check_patch_options(request: web.Request, *, apply: bool) -> None:
    """What an apply must say, and what only an apply may. Raises Invalid."""
    problem = None
    if apply and not request.query.get("fieldManager"):
        problem = FieldError("fieldManager", "FieldValueRequired", "Required value: is required for apply patch")
    elif not apply and flag(request.query, "force"):
        problem = FieldError("force", "FieldValueForbidden", "Forbidden: may not be specified for non-apply patch")
    if problem:
        raise Invalid.of_fields("PatchOptions", "", [problem], "meta.k8s.io")


def _problem(name: str) -> FieldError | None:
    if len(name.encode()) > _LONGEST:
        return FieldError("fieldManager", "FieldValueTooLong", f"Too long: may not be more than {_LONGEST} bytes")
    if not name.isprintable():
        why = f'Invalid value: "{name}": should only contain printable characters'
        return FieldError("fieldManager", "FieldValueInvalid", why)
    return None
