"""What `netemu status` tells of a lab: asked of its processes, its API server and its node agent, now."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from netemu.lab import remains
from netemu.lab.api import LabApi, agent_status
from netemu.lab.config import LabConfig, load_config
from netemu.lab.paths import LabPaths
from netemu.lab.processes import process_names
from netemu.lab.readiness import AGENT_AWAY, condition
from netemu.lab.rollouts import rollouts_missing
from netemu.model.errors import ApiError, UserError
from netemu.model.resources import NODES, PODS


def lab_status(lab: str) -> dict[str, Any]:
    """`processes`, `nodes`, `pods` and `missing`; what cannot be asked is said in `missing`."""
    config = load_config(lab)
    missing: list[str] = []
    processes = _processes(config)
    missing += [f"process {row['name']} is not running" for row in processes if not row["pid"]]
    nodes: list[dict[str, Any]] = []
    pods: list[dict[str, Any]] = []
    try:
        api = LabApi(lab)
        nodes, pods = api.list(NODES)[0], api.list(PODS)[0]
        missing += rollouts_missing(api, pods)
    except (UserError, ApiError) as error:
        missing.append(str(error))
    agent = agent_status(lab)
    if not agent:
        missing.append(AGENT_AWAY)
    ready = sum(condition(pod, "Ready").get("status") == "True" for pod in pods)
    return {
        "lab": lab,
        "proxyMode": config.proxy_mode,
        "processes": processes,
        "nodes": _nodes(nodes, pods, agent),
        "pods": {"ready": ready, "total": len(pods)},
        "missing": missing,
    }


def _processes(config: LabConfig) -> list[dict[str, Any]]:
    alive = remains.lab_processes(config.name)
    try:
        state = json.loads(LabPaths(config.name).supervisor_state.read_text())
    except (OSError, ValueError):
        state = {}
    return [
        {
            "name": name,
            "pid": alive.get(name, 0),
            "restarts": state.get(name, {}).get("restarts", 0),
            "memoryMiB": _resident_kib(alive[name]) // 1024 if name in alive else 0,
        }
        for name in process_names(config.etcd_members)
    ]


def _resident_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def _nodes(nodes: list[dict[str, Any]], pods: list[dict[str, Any]], agent: dict[str, Any]) -> list[dict[str, Any]]:
    running = Counter((pod.get("spec") or {}).get("nodeName") for pod in pods)
    rows = []
    for node in nodes:
        name = node["metadata"]["name"]
        addresses = (node.get("status") or {}).get("addresses") or ()
        proxy = ((agent.get("nodes") or {}).get(name) or {}).get("proxy") or {}
        rows.append(
            {
                "name": name,
                "ready": condition(node, "Ready").get("status", "Unknown"),
                "address": ",".join(a["address"] for a in addresses if a["type"] == "InternalIP"),
                "pods": running[name],
                "proxy": proxy.get("mode", "?"),
                "programmedServices": int(proxy.get("services") or 0),
                "programmedEndpointSlices": int(proxy.get("endpointSlices") or 0),
                "error": proxy.get("error", "") if agent else AGENT_AWAY,
            }
        )
    return rows
