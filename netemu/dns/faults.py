"""Faults on purpose: some questions are answered late, wrongly, or not at all.

Faults are the data of a ConfigMap, one key each, so they are desired state like everything else: `kubectl edit` it, or
let `netemu dns-fault` do so. A server that is given the ConfigMap (`netemu dns --faults NAMESPACE/NAME`) watches it and
puts this before all plugins of every server block; what it says takes effect with the watch event:

    data:
      slow-outside: '{"fault": "delay", "name": "*.example.com", "seconds": 2}'
      lost:         '{"fault": "drop", "name": "*", "pod": "shop/client", "percent": 30}'

A value that cannot be read is left out and told in an Event, the others count. All delays that match add up; of other
faults the first in the order of their keys wins.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Sequence
from copy import copy

from netemu.client.base import Client
from netemu.client.events import EventRecorder
from netemu.client.informer import Informer
from netemu.dns import names, wire
from netemu.dns.fault import Fault, parse_faults
from netemu.dns.plugin import NEXT, Host, Plugin, Refuse, Result
from netemu.dns.wire import Query, Response
from netemu.model.objects import ConfigMap
from netemu.model.pods import Pod
from netemu.model.resources import CONFIGMAPS, PODS

log = logging.getLogger(__name__)

_RCODES = {"servfail": wire.SERVFAIL, "nxdomain": wire.NXDOMAIN}
_MOST_ANSWERS = 9984
"""How many answers a `stale` keeps, as many as CoreDNS's cache; the oldest give way."""


class Faults(Plugin):
    """The first plugin of a server block; the table is shared by all of them."""

    name = "faults"

    def __init__(self, table: FaultTable) -> None:
        self._table = table

    def serve(self, query: Query) -> Result | Awaitable[Result]:
        """See Plugin."""
        return self._suffer(query, faults) if (faults := self._table.matching(query)) else NEXT

    async def _suffer(self, query: Query, faults: Sequence[Fault]) -> Result:
        for fault in faults:
            if fault.fault == "delay":
                await asyncio.sleep(fault.seconds)
        other = next((fault for fault in faults if fault.fault != "delay"), None)
        if other is None:
            return NEXT
        if other.fault == "drop":
            return Response(silent=True)
        if other.fault in _RCODES:
            return Refuse(_RCODES[other.fault], "a fault on purpose")
        if other.fault == "truncate" and query.transport == "udp":
            return Response(tc=True)
        if other.fault == "stale":
            return await self._stale(query, self._table.first_answers(other))
        return NEXT

    async def _stale(self, query: Query, first: FirstAnswers) -> Response:
        key = (self, query.lower, query.type)
        if key not in first:
            answer = copy(await self.rest(query))
            if len(first) >= _MOST_ANSWERS:
                del first[next(iter(first))]
            first.setdefault(key, answer)
        return copy(first[key])

    def after(self, query: Query, response: Response) -> None:
        """See Plugin. A kept reply would be sent to whoever asks, without coming here."""
        if self._table.concerns(query):
            response.stable = False


FirstAnswers = dict[tuple[Faults, bytes, int], Response]
"""What a server block answered first, by name and type."""


class FaultTable:
    """The faults of a ConfigMap, kept current while `run` runs."""

    def __init__(self, host: Host, namespace: str, name: str) -> None:
        self._host, self._namespace, self._name = host, namespace, name
        self.faults: list[Fault] = []
        self._first: dict[Fault, FirstAnswers] = {}
        self._pods: dict[str, Informer[Pod]] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}

    def concerns(self, query: Query) -> bool:
        """Whether a fault may happen to the question, whoever asks it."""
        return bool(self.faults) and any(fault.matches(_plain(query)) for fault in self.faults)

    def matching(self, query: Query) -> list[Fault]:
        """The faults that happen to this question now."""
        if not self.faults:
            return []
        name = _plain(query)
        return [
            fault
            for fault in self.faults
            if fault.matches(name)
            and (not fault.pod or query.client[0] in self._addresses(fault.pod))
            and (fault.percent == 100 or random.uniform(0, 100) < fault.percent)
        ]

    def first_answers(self, fault: Fault) -> FirstAnswers:
        """What was answered first since this `stale` is on; to be added to."""
        return self._first.setdefault(fault, {}) if fault in self.faults else {}

    def replace(self, faults: list[Fault]) -> None:
        """Replace them all; finished answers are void, and what a `stale` that is off had kept."""
        self.faults = faults
        self._first = {fault: kept for fault, kept in self._first.items() if fault in faults}
        self._host.invalidate()

    async def run(self) -> None:
        """Watch the ConfigMap, and the Pods that faults name, until cancelled."""
        client = await self._host.client(None)
        events = EventRecorder(client, "coredns")
        informer = Informer(
            client, CONFIGMAPS, ConfigMap, namespace=self._namespace, field_selector=f"metadata.name={self._name}"
        )

        def changed(old: ConfigMap | None, new: ConfigMap | None) -> None:
            faults, wrong = parse_faults((new and new.data) or {})
            for why in wrong:
                log.error("faults: %s/%s: %s", self._namespace, self._name, why)
                if new:
                    events.event(new, "Warning", "InvalidFault", why)
            self._follow_pods(client, {fault.pod for fault in faults if fault.pod})
            self.replace(faults)

        informer.on_change(changed)
        try:
            await informer.run()
        finally:
            watches = list(self._watches.values())
            self._follow_pods(client, set())
            await asyncio.gather(*watches, return_exceptions=True)
            await events.close()

    def _follow_pods(self, client: Client, wanted: set[str]) -> None:
        for gone in set(self._watches) - wanted:
            self._watches.pop(gone).cancel()
            del self._pods[gone]
        for pod in wanted - set(self._watches):
            namespace, name = pod.split("/")
            informer = Informer(client, PODS, Pod, namespace=namespace, field_selector=f"metadata.name={name}")
            self._pods[pod] = informer
            self._watches[pod] = asyncio.create_task(informer.run(), name=f"dns faults {pod}")

    def _addresses(self, pod: str) -> set[str]:
        informer = self._pods.get(pod)
        found = informer.get(pod) if informer else None
        return {each.ip for each in found.status.pod_ips} if found else set()


def _plain(query: Query) -> str:
    return names.text(query.lower).removesuffix(".")
