"""What stands around a component under test: a kubelet that makes Pods ready, and ways to wait without sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from netemu.client.base import Client, Obj
from netemu.model import times
from netemu.model.errors import NotFound
from netemu.model.resources import PODS
from netemu.testing.client import FakeClient


@asynccontextmanager
async def running(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run components in the background; stop them, and raise what they raised, at the end."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.sleep(0)
        yield
    finally:
        failed = [task.exception() for task in tasks if task.done() and not task.cancelled()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for error in filter(None, failed):
            raise error


async def until(client: FakeClient, holds: Callable[[], bool], within: float = 10.0) -> None:
    """Return when `holds` does; it is asked after every write. Raises TimeoutError."""
    async with asyncio.timeout(within):
        while not holds():
            await client.changed()


async def settled(client: FakeClient, rounds: int = 200) -> None:
    """Return when nothing has been written for that many rounds of the event loop."""
    quiet, seen = 0, client.revision
    while quiet < rounds:
        await asyncio.sleep(0)
        quiet = quiet + 1 if client.revision == seen else 0
        seen = client.revision


def ready_status(address: str, *, ready: bool = True, since: str = "") -> dict[str, Any]:
    """The status of a running Pod."""
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [
            {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since or times.now()}
        ],
    }


async def kubelet(client: Client, *, accepts: Callable[[Obj], bool] = lambda _: True) -> None:
    """Make every accepted Pod ready, with addresses counted up from 10.0.0.1, and end those that are deleted."""
    count = 0
    async with aclosing(client.watch(PODS, resource_version="0")) as events:
        async for event in events:
            meta: Mapping[str, Any] = event.object["metadata"]
            name, namespace = meta["name"], meta["namespace"]
            try:
                if event.type == "DELETED":
                    continue
                if meta.get("deletionTimestamp"):
                    await client.delete(PODS, name, namespace, grace_period_seconds=0)
                elif event.object["status"].get("phase") == "Pending" and accepts(event.object):
                    count += 1
                    status = ready_status(f"10.0.{count // 250}.{count % 250 + 1}")
                    await client.patch(PODS, name, {"status": status}, namespace, subresource="status")
            except NotFound:  # deleted in the meantime
                continue
