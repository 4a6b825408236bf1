"""Clients that write to an API server without a pause while it is hurt, and what must be true afterwards."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from netemu.client import HttpClient, Informer, load_kubeconfig
from netemu.client.base import Obj
from netemu.model.errors import AlreadyExists, ApiError, NotFound
from netemu.model.meta import KubeObject
from netemu.model.resources import CONFIGMAPS

_WRITERS = 6
_NAMESPACE = "default"
_PATIENCE = 90.0


class WriteLoad:
    """Writers of ConfigMaps, each of its own, and an informer that follows all of them.

    Each writer creates objects, changes some and deletes some; in between it counts in one object, each time on top of
    what it read, so that a write that took place twice, or was lost, is a wrong sum.
    """

    def __init__(self, kubeconfig: Path) -> None:
        self._credentials = load_kubeconfig(kubeconfig)
        self._stopped, self._run = False, uuid.uuid4().hex[:8]
        self._progress, self._changed = asyncio.Event(), asyncio.Event()
        self.acknowledged: list[int] = []
        """Revisions, in the order in which the writers were told of them."""
        self.problems: list[str] = []
        """What was refused, or not answered."""
        self._left: dict[str, str | None] = {}
        """What each object was left at by the last answer; None: deleted."""
        self._unsure: set[str] = set()
        self._counted: dict[str, tuple[int, int]] = {}
        """Acknowledged and unanswered increments of each writer's counter."""

    async def __aenter__(self) -> WriteLoad:
        self._client = HttpClient(self._credentials)
        self.informer: Informer[KubeObject] = Informer(
            self._client, CONFIGMAPS, KubeObject, namespace=_NAMESPACE, label_selector=f"load={self._run}"
        )
        self.informer.on_change(lambda *_: self._changed.set())
        self._following = asyncio.create_task(self.informer.run())
        await self.informer.synced.wait()
        self._writers = [asyncio.create_task(self._write(number)) for number in range(_WRITERS)]
        for writer in self._writers:
            writer.add_done_callback(lambda _: self._progress.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (*self._writers, self._following):
            task.cancel()
        await asyncio.wait([*self._writers, self._following])
        await self._client.close()

    async def more(self, count: int, within: float = _PATIENCE) -> None:
        """Return when so many more writes are acknowledged."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(within):
            while len(self.acknowledged) < wanted:
                for writer in self._writers:
                    if writer.done():
                        writer.result()
                self._progress.clear()
                await self._progress.wait()

    async def check(self) -> None:
        """Stop writing. Every acknowledged write is there, none twice, and the informer has seen all."""
        self._stopped = True
        await asyncio.gather(*self._writers)
        found = await self._client.list(CONFIGMAPS, _NAMESPACE, label_selector=f"load={self._run}")
        stored: dict[str, Obj] = {item["metadata"]["name"]: item for item in found.items}
        for name in self._left.keys() - self._unsure:
            value = stored[name]["data"]["value"] if name in stored else None
            assert value == self._left[name], f"{name}: {value!r} is there, {self._left[name]!r} was acknowledged"
        for name, (done, unsure) in self._counted.items():
            count = int(stored[name]["data"]["count"])
            assert done <= count <= done + unsure, f"{name}: {done} acknowledged, {unsure} unanswered, {count} there"
        assert len(self.acknowledged) == len(set(self.acknowledged)), "a revision was given twice"
        assert max(self.acknowledged) <= int(found.resource_version)
        want = {f"{_NAMESPACE}/{name}": item["metadata"]["resourceVersion"] for name, item in stored.items()}
        async with asyncio.timeout(_PATIENCE):
            while self._followed() != want:
                self._changed.clear()
                await self._changed.wait()

    def _followed(self) -> dict[str, str]:
        return {key: obj.metadata.resource_version for key, obj in self.informer.objects.items()}

    async def _write(self, writer: int) -> None:
        async with HttpClient(self._credentials) as client:
            counter, last, number = f"count-{self._run}-{writer}", 0, 0
            while not self._stopped:
                number += 1
                name = f"load-{self._run}-{writer}-{number}"
                last = await self._one(client, name, last, changed=number % 2 == 0, deleted=number % 4 == 0)
                last = max(last, await self._count(client, counter))

    async def _one(self, client: HttpClient, name: str, last: int, *, changed: bool, deleted: bool) -> int:
        try:
            revision = self._told(await client.create(CONFIGMAPS, _object(name, {"value": "new"}), _NAMESPACE), last)
            self._left[name] = "new"
            if changed:
                patched = await client.patch(CONFIGMAPS, name, {"data": {"value": "changed"}}, _NAMESPACE)
                revision = self._told(patched, revision)
                self._left[name] = "changed"
            if deleted:
                await client.delete(CONFIGMAPS, name, _NAMESPACE)
                self._left[name] = None
        except ApiError as error:
            self._failed(name, error)
            return last
        return revision

    async def _count(self, client: HttpClient, name: str) -> int:
        """One more, on top of what is read."""
        done, unsure = self._counted.get(name, (0, 0))
        try:
            found = await client.get(CONFIGMAPS, name, _NAMESPACE)
        except NotFound:
            assert not done, f"{name} is gone"
            with suppress(ApiError):
                await client.create(CONFIGMAPS, _object(name, {"count": "0"}), _NAMESPACE)
            return 0
        except ApiError as error:
            self.problems.append(str(error))
            return 0
        assert done <= int(found["data"]["count"]) <= done + unsure, f"{name}: an old state was told"
        changed = {**found, "data": {"count": str(int(found["data"]["count"]) + 1)}}
        try:
            revision = self._told(await client.update(CONFIGMAPS, changed), 0)
        except ApiError as error:
            self.problems.append(str(error))
            # A conflict too may be with ourselves: what was sent over a connection that breaks is sent again.
            self._counted[name] = done, unsure + 1
            return 0
        self._counted[name] = done + 1, unsure
        return revision

    def _told(self, obj: Obj, last: int) -> int:
        revision = int(obj["metadata"]["resourceVersion"])
        assert revision > last, f"revision {revision} after {last}"
        self.acknowledged.append(revision)
        self._progress.set()
        return revision

    def _failed(self, name: str, error: ApiError) -> None:
        """What became of it nobody knows; that it is there already is the same, told to who tried again."""
        assert not isinstance(error, AlreadyExists), f"{name}: {error}"
        self._unsure.add(name)
        self.problems.append(str(error))


def _object(name: str, data: dict[str, Any]) -> Obj:
    metadata = {"name": name, "labels": {"load": name.split("-")[1]}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
