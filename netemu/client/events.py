"""Recording of core/v1 Events, as every component does it.

Theory of operation (`client-go/tools/record`): callers say what happened and go on; a short-lived task writes what was
said, in order, and ends when nothing is left. The same words about the same object become one Event whose `count`
rises; more than ten different messages of one reason within ten minutes become one "combined" Event; an object about
which one component says more than 25 things at once is cut down to one Event every five minutes. Events are a
courtesy: what cannot be written is dropped, never raised.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from netemu.client.base import Client, Obj
from netemu.model import times
from netemu.model.errors import ApiError, NotFound, ServiceUnavailable
from netemu.model.meta import KubeObject
from netemu.model.resources import EVENTS

log = logging.getLogger(__name__)

_MOST_WAITING = 1000
_MOST_REMEMBERED = 4096
_SIMILAR, _SIMILAR_SECONDS = 10, 600.0
_BURST, _REFILL_SECONDS = 25, 300.0
_TRIES, _PAUSE = 12, 1.0

Key = tuple[str, ...]
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Said:
    """One call of `event`: what about which object."""

    involved: Mapping[str, str]
    """The ObjectReference."""
    type: str
    reason: str
    message: str
    at: str
    """RFC 3339 with whole seconds."""


@dataclass(slots=True)
class _Written:
    """The Event stored for some key: enough to count on."""

    name: str
    count: int = 1


@dataclass(slots=True)
class _Similar:
    """How many different messages of one reason were seen since when."""

    since: float
    messages: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Budget:
    """A token bucket per component and object."""

    tokens: float
    at: float


class EventRecorder:
    """Writes Events about objects on behalf of `component`. Nothing to start; `close` writes what is still waiting.

    `host` is the node of a component that runs on one. Names are `OBJECT.HEXTIME`, the namespace is the object's, or
    `default` for cluster-scoped objects, as upstream.
    """

    def __init__(
        self, client: Client, component: str, *, host: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._component, self._host, self._clock = client, component, host, clock
        self._waiting: deque[Said] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._written: OrderedDict[Key, _Written] = OrderedDict()
        self._similar: OrderedDict[Key, _Similar] = OrderedDict()
        self._budgets: OrderedDict[Key, _Budget] = OrderedDict()

    def event(
        self, obj: KubeObject | Mapping[str, Any], type: str, reason: str, message: str, *, field_path: str = ""
    ) -> None:
        """Record that `reason` happened to `obj` (a typed or a plain object); `type` is Normal or Warning.

        Returns at once. `field_path` names a part of the object, for example `spec.containers{web}`.
        """
        said = Said(_reference(obj, field_path), type, reason, message, times.now())
        if len(self._waiting) >= _MOST_WAITING or not self._within_budget(said):
            return
        self._waiting.append(said)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._write_all(), name=f"events {self._component}")

    async def close(self, within: float = 1.0) -> None:
        """Write what is waiting, but for no longer than `within` seconds."""
        if self._worker is None or self._worker.done():
            return
        done, _ = await asyncio.wait({self._worker}, timeout=within)
        if not done:
            self._worker.cancel()
            await asyncio.wait({self._worker})

    async def _write_all(self) -> None:
        while self._waiting:
            await self._write_patiently(*self._combine(self._waiting.popleft()))

    async def _write_patiently(self, key: Key, said: Said) -> None:
        for _ in range(_TRIES):
            try:
                return await self._write(key, said)
            except ServiceUnavailable:
                await asyncio.sleep(_PAUSE)
            except ApiError as error:  # the namespace is going away, or the server refuses: not worth a retry
                log.debug("event %s: %s", said.reason, error)
                return None
        return None

    async def _write(self, key: Key, said: Said) -> None:
        known = self._written.get(key)
        namespace = said.involved.get("namespace") or "default"
        if known:
            try:
                patch = {"count": known.count + 1, "lastTimestamp": said.at, "message": said.message}
                await self._client.patch(EVENTS, known.name, patch, namespace)
                known.count += 1
                return
            except NotFound:  # Events live for an hour only
                pass
        name = f"{said.involved.get('name', '')}.{time.time_ns():x}"
        await self._client.create(EVENTS, self._object(said, name, namespace), namespace)
        _remember(self._written, key, _Written(name))

    def _object(self, said: Said, name: str, namespace: str) -> Obj:
        source = {"component": self._component, **({"host": self._host} if self._host else {})}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": dict(said.involved),
            "reason": said.reason,
            "message": said.message,
            "source": source,
            "firstTimestamp": said.at,
            "lastTimestamp": said.at,
            "count": 1,
            "type": said.type,
            "eventTime": None,
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }

    def _combine(self, said: Said) -> tuple[Key, Said]:
        """What to write and under which key it is counted: too many differing messages share one key and Event."""
        key = _key(said)
        now = self._clock()
        similar = self._similar.get(key)
        if similar is None or now - similar.since > _SIMILAR_SECONDS:
            similar = _Similar(now)
        similar.messages.add(said.message)
        _remember(self._similar, key, similar)
        if len(similar.messages) <= _SIMILAR:
            return (*key, said.message), said
        return key, replace(said, message=f"(combined from similar events): {said.message}")

    def _within_budget(self, said: Said) -> bool:
        now = self._clock()
        key = _key(said)[:-2]
        budget = self._budgets.get(key) or _Budget(_BURST, now)
        budget.tokens = min(_BURST, budget.tokens + (now - budget.at) / _REFILL_SECONDS)
        budget.at = now
        _remember(self._budgets, key, budget)
        if budget.tokens < 1:
            return False
        budget.tokens -= 1
        return True


def _key(said: Said) -> Key:
    """What makes two sayings similar; the object's resourceVersion does not count."""
    parts = [said.involved.get(key, "") for key in ("apiVersion", "kind", "namespace", "name", "uid", "fieldPath")]
    return (*parts, said.type, said.reason)


def _remember(memory: OrderedDict[Key, V], key: Key, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _MOST_REMEMBERED:
        memory.popitem(last=False)


def _reference(obj: KubeObject | Mapping[str, Any], field_path: str) -> dict[str, str]:
    """The `involvedObject` that names `obj`."""
    if isinstance(obj, KubeObject):
        meta = obj.metadata
        parts = {
            "apiVersion": obj.api_version,
            "kind": obj.kind,
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
        }
    else:
        plain = obj.get("metadata") or {}
        parts = {key: str(obj.get(key) or "") for key in ("apiVersion", "kind")}
        parts |= {key: str(plain.get(key) or "") for key in ("namespace", "name", "uid", "resourceVersion")}
    parts["fieldPath"] = field_path
    return {key: value for key, value in parts.items() if value}
