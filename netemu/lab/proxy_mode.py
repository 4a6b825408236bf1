"""Changing the mode of a node's kube-proxy on a running lab.

The wish stands in an annotation of the Node, so it survives restarts and can be read with kubectl; the node's proxy
watches its Node, as it does anyway. Done is what the node agent reports from the rules: the mode, that they are there,
and which revision of the Node the proxy has decided about, so that an older answer is not taken for this one's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
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
    wish = None if mode == "default" else mode
    former = {name: _wish(lab, name) for name in chosen}
    revisions = {name: _annotate(lab, name, wish) for name in chosen}
    try:
        _wait(lab, revisions, wanted, timeout)
    except UserError:
        for name, value in former.items():
            _annotate(lab, name, value)
        raise
    return [{"node": name, "mode": wanted, "before": before.get(name, "")} for name in chosen]


def _wish(lab: str, node: str) -> str | None:
    annotations = LabApi(lab).get(NODES, node)["metadata"].get("annotations") or {}
    value: str | None = annotations.get(PROXY_MODE_ANNOTATION)
    return value


def _annotate(lab: str, node: str, value: str | None) -> int:
    """Set or remove the wish; returns the revision of the Node that has it."""
    patch = {"metadata": {"annotations": {PROXY_MODE_ANNOTATION: value}}}
    return int(LabApi(lab).merge_patch(NODES, node, patch)["metadata"]["resourceVersion"])


def _wait(lab: str, revisions: Mapping[str, int], mode: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        proxies = _proxies(lab)
        outcomes = {name: outcome(proxies.get(name) or {}, mode, revision) for name, revision in revisions.items()}
        if refused := [f"node {name}: {why}" for name, why in outcomes.items() if why]:
            raise UserError("; ".join(refused))
        late = [name for name, why in outcomes.items() if why is None]
        if not late:
            return
        if time.monotonic() > deadline:
            said = [f"{name} ({why})" if (why := (proxies.get(name) or {}).get("error")) else name for name in late]
            raise UserError(
                f"after {timeout:g} s not yet in mode {mode}: {', '.join(said)}; see `netemu logs node-agent`"
            )
        time.sleep(_PAUSE)  # the agent answers when asked; it tells nobody by itself


def outcome(proxy: Mapping[str, Any], mode: str, revision: int) -> str | None:
    """What became of the wish for `mode` that a Node has since `revision`, by what the agent says of its proxy.

    "" if the mode's rules are in force, why if they will not be, None as long as that is open.
    """
    if int(proxy.get("decided") or 0) < revision:
        return None
    if error := proxy.get("error"):
        return str(error)
    return "" if proxy.get("mode") == mode and proxy.get("services") else None


def _proxies(lab: str) -> dict[str, dict[str, Any]]:
    return {name: node.get("proxy") or {} for name, node in (agent_status(lab).get("nodes") or {}).items()}
