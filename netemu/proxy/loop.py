"""The sync loop of one address family, whatever the mode.

Theory of operation: event handlers put objects into the tracker and ask the runner. A sync takes what is pending,
hands it to the mode's programmer, cleans stale UDP flows up and publishes a status. Nothing is programmed before both
caches are synced. After a failure everything is suspect, so the next sync is a full one; so are the first, one after
the node's labels changed, one each hour (each sync period in ipvs mode), and one after somebody flushed the tables.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from netemu.model.errors import KernelError
from netemu.model.objects import EndpointSlice, Service
from netemu.proxy.facts import NodeFacts
from netemu.proxy.metrics import SyncMetrics
from netemu.proxy.programmer import Programmer
from netemu.proxy.runner import BoundedRunner
from netemu.proxy.tracker import Changes, Table, Tracker

log = logging.getLogger(__name__)

FULL_SYNC_SECONDS = 3600.0
_FLUSH_POLL, _FLUSH_LIMIT = 0.1, 5.0


@dataclass(frozen=True, slots=True)
class Programmed:
    """How far the kernel has come."""

    services: str = ""
    """resourceVersion of Services that the rules reflect; "" before the first sync."""
    endpoint_slices: str = ""
    error: str = ""
    """Why the last sync failed, "" if it did not."""
    at: float = 0.0
    """When the last good sync ended, seconds since the epoch."""
    syncs: int = 0
    """Good syncs so far."""

    def reached(self, services: str, endpoint_slices: str) -> bool:
        """Whether both revisions are in the rules; "" asks for nothing but a first sync."""
        mine, wanted = (self.services, self.endpoint_slices), (services, endpoint_slices)
        return self.syncs > 0 and all(_age(m) >= _age(w) for m, w in zip(mine, wanted, strict=True))


def together(families: Iterable[Programmed]) -> Programmed:
    """What holds for all families: of each revision the older one, and whichever error there is."""
    every = list(families)
    if not every:
        return Programmed()
    return Programmed(
        min((each.services for each in every), key=_age),
        min((each.endpoint_slices for each in every), key=_age),
        next((each.error for each in every if each.error), ""),
        min(each.at for each in every),
        min(each.syncs for each in every),
    )


def _age(revision: str) -> int:
    """Revisions compare as numbers; one that is none, of a server of another kind, compares with nothing."""
    return int(revision) if revision.isdecimal() else 0


class SyncLoop:
    """Feed it with `service_changed`, `slice_changed` and `node_changed`; it programs while `run` runs."""

    def __init__(
        self,
        tracker: Tracker,
        programmer: Programmer,
        *,
        sync_period: float,
        min_sync_period: float,
        revisions: Callable[[], tuple[str, str] | None],
        clean_flows: Callable[[Table, Changes], Awaitable[int]],
        longest_period: float = FULL_SYNC_SECONDS,
        addresses: Callable[[NodeFacts], Awaitable[NodeFacts]] | None = None,
        synced: Callable[[Table], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tracker, self.programmer, self.metrics = tracker, programmer, SyncMetrics()
        self._sync_period, self._revisions, self._clean_flows = sync_period, revisions, clean_flows
        self._longest, self._with_addresses, self._synced = longest_period, addresses, synced
        self._clock = clock
        self._runner = BoundedRunner(self._sync, min_interval=min_sync_period, max_interval=longest_period)
        self._node: NodeFacts | None = None
        self._pending, self._full, self._syncing = Changes(), True, False
        self._last_full = 0.0
        self._good = Programmed()
        self._progress = asyncio.Event()
        self.queued_since: float | None = None

    # --- what is known

    def service_changed(self, old: Service | None, new: Service | None) -> None:
        """Informer handler."""
        self.metrics.service_changes += 1
        if self.tracker.service_changed(old, new):
            self.ask()
        self._notify_soon()

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Informer handler."""
        self.metrics.endpoint_changes += 1
        if self.tracker.slice_changed(old, new):
            self.metrics.triggered(old, new)
            self.ask()
        self._notify_soon()

    def node_changed(self, node: NodeFacts) -> None:
        """Facts that every rule may depend on; the first call is what makes syncs possible."""
        if node != self._node:
            self._node, self._full = node, True
            self.ask()

    def ask(self) -> None:
        """A sync is needed: a change came, or a cache was synced."""
        if self.queued_since is None:
            self.queued_since = time.time()
        self.metrics.last_queued = time.time()
        self._runner.ask()

    @property
    def node(self) -> NodeFacts | None:
        """What `node_changed` said last."""
        return self._node

    # --- what is programmed

    @property
    def programmed(self) -> Programmed:
        """The newest revisions that the rules reflect; events that change no rule count as reflected at once."""
        settled = not (self._full or self._syncing or self._good.error or any(self.tracker.pending))
        revisions = self._revisions() if settled else None
        return replace(self._good, services=revisions[0], endpoint_slices=revisions[1]) if revisions else self._good

    async def until(self, services: str = "", endpoint_slices: str = "") -> Programmed:
        """Wait until both revisions are in the rules."""
        while not (status := self.programmed).reached(services, endpoint_slices):
            await self._progress.wait()
        return status

    async def attempt(self) -> None:
        """Wait until a sync has succeeded or failed."""
        while not (self._good.syncs or self._good.error):
            await self._progress.wait()

    def _notify_soon(self) -> None:
        # Informers move their revision after their handlers return.
        asyncio.get_running_loop().call_soon(self._notify)

    def _notify(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    # --- the work

    async def run(self) -> None:
        """Until cancelled; rules stay behind."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._runner.run())
            tasks.create_task(self._monitor())

    async def _sync(self) -> None:
        revisions = self._revisions()
        if revisions is None or self._node is None:
            return
        now, started = asyncio.get_running_loop().time(), self._clock()
        full = self._full or now - self._last_full >= self._longest
        # What comes in while the kernel is busy belongs to the next sync.
        self._full, self._syncing, self.queued_since = False, True, None
        self._pending = self._pending | self.tracker.take()
        queued = time.time()
        try:
            touched = None if full else self._pending.touched
            node = await self._with_addresses(self._node) if self._with_addresses else self._node
            written = await self.programmer.program(self.tracker.table, node, touched)
        except KernelError as error:
            self._syncing = False
            self.metrics.took(full, self._clock() - started)
            self._failed(error, full, queued)
            return
        if full:
            self._last_full = now
        changes, self._pending = self._pending, Changes()
        await self._flows(changes)
        if self._synced:
            await self._synced(self.tracker.table)
        self._syncing = False
        self._good = Programmed(*revisions, at=time.time(), syncs=self._good.syncs + 1)
        self.metrics.synced(written)
        self.metrics.took(full, seconds := self._clock() - started)
        if written.again:
            self._runner.ask_after(written.again)
        log.debug("proxy: revision %s/%s, %d chains, %.1f ms", *revisions, written.chains, seconds * 1e3)
        self._notify()

    def _failed(self, error: KernelError, full: bool, queued: float) -> None:
        log.error("proxy: rules not programmed, again in %.0f s: %s", self._sync_period, error)
        self._full, self.queued_since = True, self.queued_since or queued
        self._good = replace(self._good, error=str(error))
        self.metrics.failed(full)
        self._runner.ask_after(self._sync_period)
        self._notify()

    async def _flows(self, changes: Changes) -> None:
        if changes.udp_endpoints or changes.udp_removed:
            begin = time.monotonic()
            try:
                deleted = await self._clean_flows(self.tracker.table, changes)
                self.metrics.reconciled(deleted, time.monotonic() - begin)
            except KernelError as error:
                log.error("proxy: stale UDP flows not removed: %s", error)

    async def _monitor(self) -> None:
        """Look after the rules; when some are gone wait for the flush to end, then program everything."""
        while True:
            await asyncio.sleep(self._sync_period)
            syncs = self._good.syncs
            if (
                not syncs
                or self._syncing
                or await self.programmer.intact()
                or self._syncing
                or self._good.syncs > syncs
            ):
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_LIMIT):
                    while not await self.programmer.flushed():  # noqa: ASYNC110
                        await asyncio.sleep(_FLUSH_POLL)  # the kernel has no event for this
            log.warning("proxy: the rules are not what was programmed; programming everything again")
            self._full = True
            self.ask()
