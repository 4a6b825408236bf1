"""The audit log: who asked for what, when, and what came of it; one JSON line per request, no bodies.

The lines are `audit.k8s.io/v1` Events of the level Metadata. Requests that stay open (watches, streams into Pods) are
told when they come in, all others once they are answered; questions after health are not told. Lines are collected for
a moment and appended together, and a file that has grown too large gives way to a new one, one old one being kept.
Upstream: `staging/src/k8s.io/apiserver/pkg/audit`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from netemu.apiserver.auth.authentication import Attributes
from netemu.apiserver.auth.authenticator import ACTING, ALLOWED_BY, ASKER, REFUSED_FOR
from netemu.model import times
from netemu.model.errors import ApiError

log = logging.getLogger(__name__)

AUDIT_HEADER = "Audit-Id"
AUDIT_ID = web.RequestKey("audit_id", str)
"""What a request is called in the log and in that header of its answer: as its client calls it, if it does."""
RECEIVED, COMPLETE = "RequestReceived", "ResponseComplete"
_LARGEST = 16 * 2**20
_PAUSE = 0.2
"""Seconds that lines wait for others."""
_DECISION = "authorization.k8s.io/"
_UNTOLD = ("/healthz", "/livez", "/readyz")


class AuditLog:
    """Appends to one file. `close` writes what is left."""

    def __init__(self, path: Path, *, largest: int = _LARGEST) -> None:
        """Bytes that a file may have."""
        self._path, self._largest = path, largest
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def record(
        self,
        request: web.Request,
        wanted: Attributes,
        stage: str,
        began: str,
        code: int = 0,
        failure: ApiError | None = None,
    ) -> None:
        """Tell of a request; `began` is when it came in, as MicroTime, `code` that of the answer, `failure` what it
        failed by."""
        if wanted.path.startswith(_UNTOLD):
            return
        event = _event(request, wanted, stage, began)
        if failure:
            told = {"status": "Failure", "message": failure.message, "reason": failure.reason}
            event["responseStatus"] = {"metadata": {}, **told, "code": failure.code}
        elif code:
            event["responseStatus"] = {"metadata": {}, "code": code}
        self._lines.append(msgspec.json.encode(event))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE, self._write)

    def close(self) -> None:
        """Write what is left."""
        if self._timer:
            self._timer.cancel()
            self._write()

    def _write(self) -> None:
        lines, self._lines, self._timer = self._lines, [], None
        self.write(lines)

    def write(self, lines: Sequence[bytes]) -> None:
        """Append lines, to a new file if this one is too large."""
        try:
            if self._path.exists() and self._path.stat().st_size >= self._largest:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            with self._path.open("ab") as file:
                self._path.chmod(0o600)
                file.write(b"\n".join(lines) + b"\n")
        except OSError as error:  # a full disk must not stop the API
            log.error("audit log %s: %s; %d lines are lost", self._path, error.strerror, len(lines))


def _event(request: web.Request, wanted: Attributes, stage: str, began: str) -> dict[str, Any]:
    """What there is to tell before there is an answer."""
    event: dict[str, Any] = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": request[AUDIT_ID],
        "stage": stage,
        "requestURI": request.raw_path,
        "verb": wanted.verb,
        "user": request[ASKER].info() if ASKER in request else {},
        "sourceIPs": [request.remote] if request.remote else [],
        "userAgent": request.headers.get("User-Agent", ""),
        "requestReceivedTimestamp": began,
        "stageTimestamp": times.micro_now(),
    }
    if ACTING in request:
        event["impersonatedUser"] = request[ACTING].info()
    if wanted.resource:
        parts = {
            "resource": wanted.resource, "namespace": wanted.namespace, "name": wanted.name,
            "apiGroup": wanted.group, "apiVersion": wanted.version, "subresource": wanted.subresource,
        }  # fmt: skip
        event["objectRef"] = {key: value for key, value in parts.items() if value}
    if (why := request.get(ALLOWED_BY)) is not None:
        # Upstream gives reasons for what RBAC allows and what the node authorizer refuses.
        reason = why if why.startswith("RBAC") else request.get(REFUSED_FOR, "")
        event["annotations"] = {f"{_DECISION}decision": "allow" if why else "forbid", f"{_DECISION}reason": reason}
    return event
