"""Whether every node's rules are those of the newest Services and EndpointSlices; and waiting until they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from netemu.lab.api import LabApi, agent_status
from netemu.lab.config import load_config
from netemu.lab.readiness import proxies_failing, rules_missing
from netemu.model.errors import ApiError, NetemuError, UserError
from netemu.model.resources import ENDPOINTSLICES, SERVICES

_PROXIED = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
"""What kube-proxy watches."""
_PAUSE = 0.05


class RulesMissingError(NetemuError):
    """Rules did not come in time; the text says on which nodes and why, a line each."""


def rules_behind(api: LabApi, nodes: Sequence[str]) -> list[str]:
    """A line per node whose proxy has not programmed what the API server has now. Raises UserError, ApiError.

    What is gone leaves no revision to be compared: a deletion alone is not waited for.
    """
    newest = proxied_revisions(api)
    return [f"node {name}: {why}" for name, why in rules_missing(agent_status(api.lab), nodes, *newest).items()]


def proxied_revisions(api: LabApi) -> tuple[str, str]:
    """The newest revisions of the Services and EndpointSlices that concern kube-proxy: of headless ones it knows
    nothing. Raises UserError, ApiError."""
    services, slices = (_newest(api.list(kind, labelSelector=_PROXIED)[0]) for kind in (SERVICES, ENDPOINTSLICES))
    return services, slices


def wait_for_rules(lab: str, *, timeout: float) -> None:
    """Return once every node has programmed what the API server has when it is asked last.

    Raises RulesMissingError after `timeout` seconds, and at once where a proxy cannot run at all.
    """
    api, nodes = LabApi(lab), [node.name for node in load_config(lab).nodes]
    deadline = time.monotonic() + timeout
    while True:
        try:
            lines = rules_behind(api, nodes)
        except (UserError, ApiError) as error:
            lines = [str(error)]
        if not lines:
            return
        hopeless = proxies_failing(agent_status(lab))
        if hopeless or time.monotonic() > deadline:
            said = "\n".join(f"  {line}" for line in hopeless or lines)
            raise RulesMissingError(f"lab {lab}: rules are not those of the newest Services:\n{said}")
        time.sleep(_PAUSE)  # the agent answers when asked; it tells nobody by itself


def _newest(objects: list[dict[str, Any]]) -> str:
    """The newest revision among the objects: what a watcher of them must have seen."""
    return str(max((int(obj["metadata"]["resourceVersion"]) for obj in objects), default=0))
