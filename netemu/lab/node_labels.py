"""Labels of nodes that their kubelets may not set, such as `node-role.kubernetes.io/control-plane`.

As `kubeadm` does it, somebody who may sets them once a Node is there; from then on they are the administrator's.
"""

from __future__ import annotations

import asyncio

from netemu.client import Client, Informer
from netemu.lab.config import LabConfig
from netemu.model.node_labels import kubelet_may_set
from netemu.model.objects import Node
from netemu.model.resources import NODES


async def mark_nodes(config: LabConfig, client: Client) -> None:
    """Set them on every Node that appears, until cancelled."""
    wanted = {node.name: {k: v for k, v in node.labels.items() if not kubelet_may_set(k)} for node in config.nodes}
    new: asyncio.Queue[str] = asyncio.Queue()
    nodes = Informer(client, NODES, Node)

    def appeared(old: Node | None, now: Node | None) -> None:
        if now is not None and (old is None or old.metadata.uid != now.metadata.uid) and wanted.get(now.name):
            new.put_nowait(now.name)

    nodes.on_change(appeared)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(nodes.run())
        while True:
            name = await new.get()
            await client.patch(NODES, name, {"metadata": {"labels": wanted[name]}})
