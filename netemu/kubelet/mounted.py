"""Volumes follow their ConfigMaps and Secrets: each object that a running Pod mounts is watched.

As upstream's watching managers do (`pkg/kubelet/util/manager`), an object is watched by name, once for all Pods of the
node that mount it, and only while one of them runs. Environment variables and files mounted with `subPath` keep what
they had when the container started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from netemu.client.base import Client
from netemu.client.informer import Informer
from netemu.kubelet import volumes
from netemu.model.meta import KubeObject
from netemu.model.pods import Pod
from netemu.model.resources import CONFIGMAPS, SECRETS, Resource

ROOT_CA = "kube-root-ca.crt"
_Source = tuple[Resource, str, str]
"""ConfigMaps or Secrets, namespace, name."""


@dataclass(slots=True)
class _Watch:
    task: asyncio.Task[None]
    pods: dict[str, Callable[[], None]] = field(default_factory=dict)
    """UID to whom to tell."""


class MountedSources:
    """The objects that the Pods of one node have mounted."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._watches: dict[_Source, _Watch] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def follow(self, pod: Pod, changed: Callable[[], None]) -> None:
        """Call `changed` whenever an object that the Pod mounts has changed. To say so again is no error."""
        maps, secrets = volumes.referenced(pod)
        # The authority of the cluster is in every Pod; it is read anew whenever their tokens are.
        names = [(CONFIGMAPS, name) for name in maps if name != ROOT_CA] + [(SECRETS, name) for name in secrets]
        for resource, name in names:
            source = (resource, pod.namespace, name)
            if source not in self._watches:
                self._watches[source] = _Watch(asyncio.create_task(self._run(source), name=f"mounted {name}"))
            self._watches[source].pods[pod.metadata.uid] = changed

    def again_in(self, seconds: float, pod: Pod, changed: Callable[[], None]) -> None:
        """Call `changed` after some seconds too, instead of what was said before: a token has to be renewed."""
        if timer := self._timers.pop(pod.metadata.uid, None):
            timer.cancel()
        self._timers[pod.metadata.uid] = asyncio.get_running_loop().call_later(seconds, changed)

    def forget(self, uid: str) -> None:
        """The Pod has ended."""
        if timer := self._timers.pop(uid, None):
            timer.cancel()
        for source, watch in list(self._watches.items()):
            if watch.pods.pop(uid, None) is not None and not watch.pods:
                self._watches.pop(source).task.cancel()

    async def close(self) -> None:
        """Watch nothing any more."""
        for timer in self._timers.values():
            timer.cancel()
        tasks = [watch.task for watch in self._watches.values()]
        self._watches.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, source: _Source) -> None:
        resource, namespace, name = source
        selector = f"metadata.name={name}"
        informer = Informer(self._client, resource, KubeObject, namespace=namespace, field_selector=selector)
        informer.on_change(lambda old, new: self._tell(source))
        await informer.run()

    def _tell(self, source: _Source) -> None:
        """The first list is told too: the object may have changed since the volume was made."""
        if watch := self._watches.get(source):
            for changed in list(watch.pods.values()):
                changed()
