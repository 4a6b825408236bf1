"""`kubernetes [ZONES...]`: the names of a cluster.

    kubernetes cluster.local in-addr.arpa ip6.arpa {
        endpoint URL | kubeconfig FILE [CONTEXT]
        namespaces NAME...
        labels SELECTOR
        pods disabled|insecure|verified
        endpoint_pod_names
        noendpoints
        ignore empty_service
        ttl SECONDS
        fallthrough [ZONES...]
    }

Before the first lists have arrived nothing can be denied, so SERVFAIL stands where NXDOMAIN would. While the API
server is away the last state goes on being served.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING

from netemu.dns import names, wire
from netemu.dns.corefile import Directive
from netemu.dns.objects import Options
from netemu.dns.plugin import NEXT, Block, Fallthrough, Plugin, Refuse, Result, longest_zone
from netemu.dns.records import Answer, Facts, answer, soa
from netemu.dns.store import ClusterStore
from netemu.dns.wire import Query, Response
from netemu.model.errors import NetemuError

if TYPE_CHECKING:
    from netemu.client.kubeconfig import Credentials

log = logging.getLogger(__name__)

_OPTIONS = (
    "endpoint", "kubeconfig", "namespaces", "labels", "pods", "endpoint_pod_names", "noendpoints", "ignore", "ttl",
    "fallthrough",
)  # fmt: skip
_PODS = ("disabled", "insecure", "verified")
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


def setup(directive: Directive, block: Block) -> Plugin:
    """See the module's docstring. Raises UserError."""
    options = Options(zones=directive.zones(directive.args) or block.zones)
    if options.primary == names.ROOT and names.ROOT not in options.zones:
        raise directive.error("kubernetes: needs a zone that is not a reverse zone, for example cluster.local")
    falls, credentials, endpoints, labels = Fallthrough(), None, True, ""
    for option in directive.options:
        if option.name == "fallthrough":
            falls = Fallthrough(option)
        elif option.name == "noendpoints":
            option.none()
            endpoints = False
        elif option.name in ("kubeconfig", "endpoint"):
            credentials = _credentials(option)
        elif option.name == "labels":
            labels = " ".join(option.args)
        else:
            options = _record_option(options, option)
    store = ClusterStore(options, block.host.invalidate, endpoints=endpoints, labels=labels)
    return Kubernetes(options, store, block, falls, credentials)


def _credentials(option: Directive) -> Credentials:
    from netemu.client.kubeconfig import Credentials, load_kubeconfig

    if option.name == "endpoint":
        return Credentials(server=option.one("the URL of an API server").rstrip("/"))
    if len(option.args) not in (1, 2):
        raise option.error("kubeconfig: expected FILE [CONTEXT]")
    return load_kubeconfig(*option.args)


def _record_option(options: Options, option: Directive) -> Options:
    match option.name:
        case "ttl":
            return replace(options, ttl=option.number(0, 3600))
        case "pods":
            if (mode := option.one("one of " + ", ".join(_PODS))) not in _PODS:
                raise option.error(f"pods: {mode!r} is none of {', '.join(_PODS)}")
            return replace(options, pods=mode)
        case "endpoint_pod_names":
            option.none()
            return replace(options, endpoint_pod_names=True)
        case "namespaces":
            if not option.args:
                raise option.error("namespaces: expected at least one name")
            return replace(options, namespaces=frozenset(name.encode() for name in option.args))
        case "ignore" if option.args == ("empty_service",):
            return replace(options, ignore_empty_service=True)
        case "ignore":
            raise option.error("ignore: expected empty_service")
    raise option.unknown(_OPTIONS)
