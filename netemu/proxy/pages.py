"""What kube-proxy's own ports answer: pure.

    healthzBindAddress  /healthz  /livez     is what was asked for programmed? may load balancers send here?
    metricsBindAddress  /metrics  /proxyMode  /configz  /healthz

The health pages are those of 1.34: the fields of older releases, in their spacing, then the state of each family.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from netemu.model.durations import Duration
from netemu.proxy.config import KubeProxyConfiguration
from netemu.proxy.healthcheck import NOT_FOUND, Answer

_TEXT = "text/plain; charset=utf-8"
_NO_PROFILES = "no profiles: this kube-proxy is no Go program\n"
CONFIGZ_KEY = "kubeproxy.config.k8s.io"


@dataclass(frozen=True, slots=True)
class FamilyHealth:
    """One address family: when it was programmed last (seconds since the epoch, 0: never), and whether that is well."""

    updated: float
    healthy: bool


def health_page(families: Mapping[str, FamilyHealth], *, eligible: bool | None, now: float) -> Answer:
    """/healthz (with `eligible`, whether load balancers may send to this node) or /livez (None)."""
    healthy = all(family.healthy for family in families.values())
    good = healthy and eligible is not False
    newest = max((family.updated for family in families.values()), default=0.0)
    fields = {
        # What is healthy counts as just updated, as in the times when every sync period wrote rules.
        "lastUpdated": _time(now if good else newest),
        "currentTime": _time(now),
        **({} if eligible is None else {"nodeEligible": eligible}),
        "healthy": healthy,
        "status": {
            name: {"lastUpdated": _time(family.updated), "healthy": family.healthy} for name, family in families.items()
        },
    }
    first, *rest = (f'"{name}": {json.dumps(value)}' for name, value in fields.items())
    return Answer(200 if good else 503, f"{{{first},{', '.join(rest)}}}")


def configz_page(config: KubeProxyConfiguration, mode: str) -> Answer:
    """The configuration in force, in the words of the file (upstream prints the names of its Go structs)."""
    return Answer(200, json.dumps({CONFIGZ_KEY: {**_plain(config), "mode": mode}}))


def _plain(part: msgspec.Struct) -> dict[str, Any]:
    values = {field.encode_name: getattr(part, field.name) for field in msgspec.structs.fields(part)}
    return {name: _said(value) for name, value in values.items()}


def _said(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return _plain(value)
    return value.text if isinstance(value, Duration) else value


def mode_page(mode: str) -> Answer:
    """/proxyMode."""
    return Answer(200, mode, _TEXT)


def metrics_answer(text: str) -> Answer:
    """/metrics."""
    return Answer(200, text, "text/plain; version=0.0.4; charset=utf-8")


def ok_page() -> Answer:
    """/healthz beside the metrics: the process is there."""
    return Answer(200, "ok", _TEXT)


def other_page(path: str) -> Answer:
    """What is not there; for profiles, why."""
    return Answer(404, _NO_PROFILES, _TEXT) if path.startswith("/debug/pprof") else NOT_FOUND


def _time(moment: float) -> str:
    """RFC 3339; Go's zero time for what never was."""
    if not moment:
        return "0001-01-01T00:00:00Z"
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
