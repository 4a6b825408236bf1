"""What a container is made of beyond its spec: ConfigMaps and Secrets, volumes, environment, expanded command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from netemu.client.base import Client
from netemu.kubelet import env, volumes
from netemu.kubelet.tokens import Tokens
from netemu.model.errors import Forbidden, NotFound
from netemu.model.objects import Service
from netemu.model.pods import Container, Pod
from netemu.model.resources import CONFIGMAPS, SECRETS, Resource
from netemu.runtime.cri import ContainerConfig, PortMapping

_Answer = TypeVar("_Answer")
_GRANTED_WITHIN, _ASKED_AGAIN = 1.0, 0.05
"""Seconds in which a server must have learned of a Pod that another has bound here, and until it is asked again.

Upstream: the kubelet waits as long for a ConfigMap or Secret to reach its cache (`pkg/kubelet/util/manager`).
"""


class Materials:
    """Fetches what a Pod refers to and builds container configurations."""

    def __init__(self, client: Client, services: Callable[[], Iterable[Service]]) -> None:
        self._client, self._services = client, services
        self.tokens = Tokens(client)

    async def mount_volumes(self, pod: Pod, directory: Path) -> tuple[dict[str, str], list[str]]:
        """Volume name to path, and the kinds of volumes that stay empty. Raises UserError, ApiError, OSError."""
        maps, secrets = volumes.referenced(pod)
        held = volumes.Held(
            {n: volumes.data_of(o, secret=False) for n, o in (await self._fetch(CONFIGMAPS, maps, pod)).items()},
            {n: volumes.data_of(o, secret=True) for n, o in (await self._fetch(SECRETS, secrets, pod)).items()},
            {ask: await _granted(partial(self.tokens.of, pod, ask)) for ask in volumes.asked_tokens(pod)},
        )
        plans = [volumes.plan(volume, held, pod) for volume in pod.spec.volumes]
        places = await asyncio.to_thread(volumes.materialise, plans, directory) if plans else {}
        return places, [f"{one.name} ({one.ignored})" for one in plans if one.ignored]

    async def config(
        self, pod: Pod, container: Container, place: env.Place, places: Mapping[str, str], *, attempt: int, init: bool
    ) -> ContainerConfig:
        """The configuration of the next attempt. Raises UserError for what it refers to and is not there."""
        maps, secrets = env.referenced([container])
        sources = env.Sources(
            {
                n: _texts(volumes.data_of(o, secret=False))
                for n, o in (await self._fetch(CONFIGMAPS, maps, pod)).items()
            },
            {n: _texts(volumes.data_of(o, secret=True)) for n, o in (await self._fetch(SECRETS, secrets, pod)).items()},
        )
        variables = env.environment(pod, container, place, self._services(), sources)
        ephemeral = container in pod.spec.ephemeral_containers
        return ContainerConfig(
            name=container.name,
            image=container.image,
            attempt=attempt,
            command=tuple(env.expand(word, variables) for word in container.command),
            args=tuple(env.expand(word, variables) for word in container.args),
            working_dir=container.working_dir,
            env=tuple(variables.items()),
            mounts=volumes.mounts(container, places),
            ports=ports(container),
            init=init,
            stdin=container.stdin,
            ephemeral=ephemeral,
            # An ephemeral container is a session, though `kubectl debug`, unlike `kubectl run`, does not say so.
            stdin_once=container.stdin and (container.stdin_once or ephemeral),
        )

    async def _fetch(self, resource: Resource, names: Iterable[str], pod: Pod) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for name in sorted(names):
            try:
                found[name] = await _granted(partial(self._client.get, resource, name, pod.namespace))
            except NotFound:  # whether that is an error depends on `optional`
                continue
        return found


async def _granted(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """The answer to a question that a node may ask once the server knows of its Pod. Raises ApiError."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _GRANTED_WITHIN
    while True:
        try:
            return await ask()
        except Forbidden:
            if loop.time() >= until:
                raise
        await asyncio.sleep(_ASKED_AGAIN)


def ports(container: Container) -> tuple[PortMapping, ...]:
    """The ports a container serves: those it declares, and those it is probed on, which it must serve to be well."""
    found = [PortMapping(container_port=one.container_port, protocol=one.protocol) for one in container.ports]
    for probe in (container.startup_probe, container.liveness_probe, container.readiness_probe):
        action = (probe.http_get or probe.tcp_socket or probe.grpc) if probe else None
        if action is not None and isinstance(action.port, int):
            found.append(PortMapping(container_port=action.port))
    return tuple(dict.fromkeys(found))


def _texts(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: value.decode(errors="replace") for key, value in data.items()}
