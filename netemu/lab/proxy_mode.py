"""Changing the mode of a node's kube-proxy on a running lab.

The wish stands in an annotation of the Node, so it survives restarts and can be read with kubectl; the node's proxy
watches its Node, as it does anyway. Done is what the node agent reports from the rules.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from netemu.lab.api import LabApi, agent_status
from netemu.lab.config import PROXY_MODE_ANNOTATION, load_config
from netemu.model.errors import UserError
from netemu.model.resources import NODES
from netemu.proxy.config import MODES

_PAUSE = 0.02


def change_proxy_mode(lab: str, node: str, mode: str, *, timeout: float) -> list[dict[str, str]]:
    """Change one node, or `all`, to a mode (`default`: the lab's own) and wait; a row per node.

    Raises UserError where a name is unknown, the mode is refused, or it takes longer than `timeout` seconds.
    """
    config = load_config(lab)
    nodes = [n.name for n in config.nodes]
    if node != "all" and node not in nodes:
        raise UserError(f"lab {lab} has no node {node!r}; it has {', '.join(nodes)}")
    if mode not in (*MODES, "default"):
        raise UserError(f"{mode!r} is no proxy mode; use one of {', '.join(MODES)}, or default")
    wanted = config.proxy_mode if mode == "default" else mode
    chosen = nodes if node == "all" else [node]
    before = {name: status.get("mode", "") for name, status in _proxies(lab).items()}
    former = {name: _annotate(lab, name, None if mode == "default" else mode) for name in chosen}
    try:
        _wait(lab, chosen, wanted, timeout)
    except UserError:
        for name, value in former.items():
            _annotate(lab, name, value)
        raise
    return [{"node": name, "mode": wanted, "before": before.get(name, "")} for name in chosen]


def _annotate(lab: str, node: str, value: str | None) -> str | None:
    """Set or remove the wish; returns the former one."""
    annotations = LabApi(lab).get(NODES, node)["metadata"].get("annotations") or {}
    LabApi(lab).merge_patch(NODES, node, {"metadata": {"annotations": {PROXY_MODE_ANNOTATION: value}}})
    former: str | None = annotations.get(PROXY_MODE_ANNOTATION)
    return former


def _wait(lab: str, nodes: Sequence[str], mode: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        proxies = _proxies(lab)
        late = [name for name in nodes if (proxies.get(name) or {}).get("mode") != mode]
        if not late:
            return
        refused = [f"node {name}: {error}" for name in late if (error := (proxies.get(name) or {}).get("error"))]
        if refused:
            raise UserError("; ".join(refused))
        if time.monotonic() > deadline:
            raise UserError(
                f"after {timeout:g} s not yet in mode {mode}: {', '.join(late)}; see `netemu logs node-agent`"
            )
        time.sleep(_PAUSE)  # the agent answers when asked; it tells nobody by itself


def _proxies(lab: str) -> dict[str, dict[str, Any]]:
    return {name: node.get("proxy") or {} for name, node in (agent_status(lab).get("nodes") or {}).items()}
