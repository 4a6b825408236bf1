"""`kubernetes [ZONES...]`: the names of a cluster.

    kubernetes cluster.local in-addr.arpa ip6.arpa {
        endpoint URL
        tls CERTIFICATE KEY CA
        kubeconfig FILE [CONTEXT]
        namespaces NAME...
        namespace_labels SELECTOR
        labels SELECTOR
        pods disabled|insecure|verified
        endpoint_pod_names
        noendpoints
        ignore empty_service
        ttl SECONDS
        fallthrough [ZONES...]
        startup_timeout DURATION
        apiserver_qps N
        apiserver_burst N
        apiserver_max_inflight N
        resyncperiod DURATION
    }

Before the first lists have arrived nothing can be denied, so SERVFAIL stands where NXDOMAIN would. While the API
server is away the last state goes on being served. Sockets are open from the start, so nothing waits for
`startup_timeout`; four watches need no `apiserver_*` limits, and never a resync: these are read and have no effect.
`multicluster` and `zonal` zones are not served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from netemu.dns import kubernetes_options, names, wire
from netemu.dns.corefile import Directive
from netemu.dns.objects import Options, packed_address
from netemu.dns.plugin import NEXT, Block, Fallthrough, Plugin, Refuse, Result, longest_zone
from netemu.dns.records import Answer, Facts, answer, soa
from netemu.dns.store import ClusterStore
from netemu.dns.transfers import zone_records
from netemu.dns.wire import Query, Record, Response
from netemu.model.errors import NetemuError

if TYPE_CHECKING:
    from netemu.client.kubeconfig import Credentials

log = logging.getLogger(__name__)

_PROGRAMMING = "coredns_kubernetes_dns_programming_duration_seconds"
_BUCKETS = tuple(0.001 * 2**n for n in range(20))
_ADDRESSES_FOR = 5.0
"""Seconds for which the list of our own addresses is believed."""
_MOST_ALIASES = 8


class Kubernetes(Plugin):
    """Answers from a `ClusterStore`."""

    def __init__(
        self, options: Options, store: ClusterStore, block: Block, falls: Fallthrough, credentials: Credentials | None
    ) -> None:
        self.options, self.store, self.block = options, store, block
        self.falls, self.credentials = falls, credentials
        self._task: asyncio.Task[None] | None = None
        self._local: tuple[str, ...] = ()
        self._local_until = 0.0

    @property
    def ready(self) -> bool:
        """See Plugin."""
        return self.store.synced

    async def start(self) -> None:
        """See Plugin."""
        self._task = asyncio.create_task(self._follow(), name="dns kubernetes")

    async def _follow(self) -> None:
        try:
            client = await self.block.host.client(self.credentials)
            await self.store.run(client)
        except NetemuError as error:
            self.block.host.fail(f"plugin/kubernetes: {error}")
        except Exception:  # better gone and started again than serving what was true once
            log.exception("plugin/kubernetes: the watch ended")
            self.block.host.fail("plugin/kubernetes: the watch ended")

    async def close(self) -> None:
        """See Plugin."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def serve(self, query: Query) -> Result | Awaitable[Result]:
        """See Plugin."""
        zone = longest_zone(query.lower, self.options.zones)
        if not zone:
            return NEXT
        facts = Facts(self.store.serial, self._addresses(query, zone))
        found = answer(self.store.cluster, query.name, query.type, zone, facts)
        if found.rcode == wire.REFUSED:
            return Refuse(wire.REFUSED)
        synced = self.store.synced
        if found.rcode == wire.NXDOMAIN:
            if self.falls(query.lower):
                return NEXT
            if not synced:
                found.rcode = wire.SERVFAIL
        response = Response(found.rcode, found.answers, [], found.additional, stable=synced, depends=found.depends)
        if found.chase:
            return self._chase(query, found, response)
        if not response.answers:
            response.authority = [soa(self.store.cluster, query.name, zone, facts)]
        return response

    async def _chase(self, query: Query, found: Answer, response: Response) -> Response:
        """Append what the whole server says about the target of an alias; a failure leaves the alias alone."""
        response.stable = False
        if query.depth >= _MOST_ALIASES:
            return response
        question = Query(
            query.id, query.flags, found.chase, query.type, 1, query.edns, b"", query.transport, query.client,
            depth=query.depth + 1,
        )  # fmt: skip
        further = await self.block.host.resolve(question, self.block.ports[0])
        response.answers = found.answers + further.answers
        response.tc = further.tc
        return response

    def _addresses(self, query: Query, zone: bytes) -> tuple[str, ...]:
        if query.type != wire.NS and not query.lower.startswith(b"\x02ns\x03dns"):
            return ()
        if (now := time.monotonic()) >= self._local_until:
            self._local, self._local_until = self.block.host.local_addresses(), now + _ADDRESSES_FOR
        return self._local

    def search_path(self, query: Query) -> tuple[bytes, ...]:
        """See Plugin: known for Pods, if they are `verified`."""
        zone = longest_zone(query.lower, self.options.zones)
        namespace = self.store.cluster.namespace_of(packed_address(query.client[0]))
        if not zone or not namespace or names.is_reverse(zone):
            return ()
        return (names.join((namespace, b"svc"), zone), names.join((b"svc",), zone), zone)

    def transfer(self, zone: bytes) -> list[Record] | None:
        """See Plugin."""
        if not longest_zone(zone, self.options.zones) or not self.store.synced:
            return None
        return zone_records(self.store.cluster, zone, Facts(self.store.serial, self.block.host.local_addresses()))


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    settings = kubernetes_options.read(directive, block)
    metrics = block.host.metrics

    def delayed(seconds: float, headless: bool) -> None:
        labels = (("service_kind", "headless_with_selector" if headless else "cluster_ip"),)
        metrics.histogram(_PROGRAMMING, labels, _BUCKETS).add(seconds)

    store = ClusterStore(settings.records, block.host.invalidate, settings.selection, on_delay=delayed)
    return Kubernetes(settings.records, store, block, settings.falls, settings.credentials)
