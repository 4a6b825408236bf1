"""One of several components works, the others stand by: who holds a Lease leads.

Theory of operation (`client-go/tools/leaderelection`): the leader renews its Lease every retry period. The others look
at it as often; one that has seen the Lease unchanged for the lease duration, by its own clock, takes it. Clocks of
different machines are never compared, so one that is set wrong, or jumps, changes nothing. A leader that could not
renew within the renew deadline, which is shorter, stops before anybody else begins. That two take the Lease at once is
excluded by its resourceVersion. A leader that is told to end gives the Lease up, so that the next need not wait.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from netemu.client.base import Client, Obj
from netemu.client.events import EventRecorder
from netemu.model import times
from netemu.model.errors import ApiError, NotFound
from netemu.model.resources import LEASES

log = logging.getLogger(__name__)

_NAMESPACE = "kube-system"
_JITTER = 1.2
"""A standby looks after 1 to 1 + this retry periods, so that not all look at once."""
_GIVE_UP_SECONDS = 1.0
"""How long giving up the Lease may take at the end."""


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """The timings, in seconds; defaults of upstream's `LeaderElectionConfiguration`."""

    lease_duration: int = 15
    """How long a standby must see the Lease unchanged before it takes it."""
    renew_deadline: float = 10.0
    """How long a leader tries to renew before it stops."""
    retry_period: float = 2.0
    """Between two attempts of either."""


_UPSTREAM = LeaderElection()


@dataclass(frozen=True, slots=True)
class Observed:
    """The spec of a Lease as it was seen, and since when by the observer's clock it has been the same."""

    spec: Mapping[str, Any]
    since: float


def observe(before: Observed | None, spec: Mapping[str, Any], now: float) -> Observed:
    """What is known after the Lease was seen once more."""
    return before if before is not None and before.spec == spec else Observed(spec, now)


def claim(seen: Observed | None, identity: str, now: float, election: LeaderElection) -> Obj | None:
    """The spec with which `identity` takes or renews the Lease; None while it is another's. Pure but for the time that
    people read."""
    spec = seen.spec if seen else {}
    holder, moment = spec.get("holderIdentity") or "", times.micro_now()
    if seen and holder not in ("", identity) and now < seen.since + (spec.get("leaseDurationSeconds") or 0):
        return None
    mine = holder == identity
    transitions = spec.get("leaseTransitions") or 0
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": election.lease_duration,
        "acquireTime": spec["acquireTime"] if mine else moment,
        "renewTime": moment,
        "leaseTransitions": transitions if mine or not seen else transitions + 1,
    }


def given_up(spec: Mapping[str, Any]) -> Obj:
    """The spec with which a leader leaves."""
    return {**spec, "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": times.micro_now()}


class Elector:
    """One candidate for one Lease of kube-system."""

    def __init__(self, client: Client, name: str, identity: str, election: LeaderElection = _UPSTREAM) -> None:
        """`name` is the component's, as `kube-scheduler`; `identity` must be no other candidate's."""
        self._client, self._name, self._identity, self._election = client, name, identity, election
        self._recorder = EventRecorder(client, name)
        self._seen: Observed | None = None

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Run `lead` whenever this candidate leads, and cancel it when it does not any more. Until cancelled, or until
        `lead` fails, which is raised."""
        try:
            while True:
                await self._acquire()
                await self._lead(lead)
        finally:
            await self._give_up()
            await self._recorder.close()

    async def _acquire(self) -> None:
        while not await self._try():  # noqa: ASYNC110 - the others tell nobody
            await asyncio.sleep(self._election.retry_period * random.uniform(1, 1 + _JITTER))
        log.info("%s: %s leads", self._name, self._identity)

    async def _lead(self, lead: Callable[[], Awaitable[None]]) -> None:
        leading, renewing = asyncio.ensure_future(lead()), asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait({leading, renewing}, return_when=asyncio.FIRST_COMPLETED)
            if leading.done():
                leading.result()
        finally:
            for task in (leading, renewing):
                task.cancel()
            await asyncio.wait({leading, renewing})

    async def _renew(self) -> None:
        """Return when the Lease is lost."""
        renewed = _now()
        while _now() < renewed + self._election.renew_deadline:
            await asyncio.sleep(self._election.retry_period)
            begun = _now()
            try:
                async with asyncio.timeout(max(0.0, renewed + self._election.renew_deadline - begun)):
                    if await self._try():
                        renewed = begun
            except TimeoutError:
                break
        log.warning("%s: %s could not renew its lease and stops leading", self._name, self._identity)

    async def _try(self) -> bool:
        """Whether the Lease is this candidate's now."""
        try:
            lease = await self._client.get(LEASES, self._name, _NAMESPACE)
        except NotFound:
            lease = None
        except ApiError as error:
            log.debug("%s: lease not read: %s", self._name, error)
            return False
        if lease is not None:
            self._seen = observe(self._seen, lease.get("spec") or {}, _now())
        spec = claim(self._seen if lease is not None else None, self._identity, _now(), self._election)
        if spec is None:
            return False
        try:
            written = await self._write(lease, spec)
        except ApiError as error:
            log.debug("%s: lease not written: %s", self._name, error)
            return False
        if not self._leads(lease):
            self._recorder.event(written, "Normal", "LeaderElection", f"{self._identity} became leader")
        self._seen = Observed(written["spec"], _now())
        return True

    async def _write(self, lease: Obj | None, spec: Obj) -> Obj:
        if lease is not None:
            return await self._client.update(LEASES, {**lease, "spec": spec})
        named = {"metadata": {"name": self._name, "namespace": _NAMESPACE}, "spec": spec}
        fresh = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, **named}
        return await self._client.create(LEASES, fresh, _NAMESPACE)

    def _leads(self, lease: Obj | None) -> bool:
        return lease is not None and (lease.get("spec") or {}).get("holderIdentity") == self._identity

    async def _give_up(self) -> None:
        if self._seen is None or self._seen.spec.get("holderIdentity") != self._identity:
            return
        try:
            async with asyncio.timeout(_GIVE_UP_SECONDS):
                lease = await self._client.get(LEASES, self._name, _NAMESPACE)
                if self._leads(lease):
                    await self._client.update(LEASES, {**lease, "spec": given_up(lease["spec"])})
        except (ApiError, TimeoutError) as error:
            log.info("%s: lease not given up: %s", self._name, error or "no answer in time")


def _now() -> float:
    """The loop's clock only goes forward."""
    return asyncio.get_running_loop().time()
