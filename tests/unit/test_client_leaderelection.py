"""Who leads, and that it is never two."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from netemu.client.base import Obj
from netemu.client.leaderelection import Elector, LeaderElection, Observed, claim, observe
from netemu.model import times
from netemu.model.errors import ServiceUnavailable
from netemu.model.resources import EVENTS, LEASES, Resource
from netemu.testing.client import FakeClient

_TIMINGS = LeaderElection()


def spec(holder: str, **fields: Any) -> Obj:
    return {"holderIdentity": holder, "leaseDurationSeconds": 15, "acquireTime": "then", "renewTime": "then",
            "leaseTransitions": 3, **fields}  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "now", "taken"),
    [
        (None, 0.0, True),
        (Observed(spec(""), 0.0), 1.0, True),
        (Observed(spec("me"), 0.0), 1.0, True),
        (Observed(spec("other"), 0.0), 14.9, False),
        (Observed(spec("other"), 0.0), 15.0, True),
        (Observed(spec("other", leaseDurationSeconds=60), 0.0), 15.0, False),
    ],
)
def test_a_lease_is_taken_when_nobody_has_it_or_its_holder_was_silent_for_its_duration(
    seen: Observed | None, now: float, taken: bool
) -> None:
    assert (claim(seen, "me", now, _TIMINGS) is not None) == taken


def test_who_takes_a_lease_counts_a_transition_and_who_renews_does_not() -> None:
    first = claim(None, "me", 0.0, _TIMINGS)
    taken = claim(Observed(spec("other"), 0.0), "me", 20.0, _TIMINGS)
    renewed = claim(Observed(spec("me"), 0.0), "me", 2.0, _TIMINGS)

    assert first is not None
    assert first["leaseTransitions"] == 0
    assert taken is not None
    assert (taken["holderIdentity"], taken["leaseTransitions"], taken["acquireTime"] != "then") == ("me", 4, True)
    assert renewed is not None
    assert (renewed["leaseTransitions"], renewed["acquireTime"]) == (3, "then")


def test_only_a_change_begins_the_observation_anew() -> None:
    first = observe(None, spec("other"), 1.0)

    assert observe(first, spec("other"), 9.0) is first
    assert observe(first, spec("other", renewTime="later"), 9.0).since == 9.0


class Candidate:
    """A component that tells when it leads; `cut` takes its API server away."""

    def __init__(self, server: FakeClient, identity: str, leaders: list[str]) -> None:
        self.cut = False
        self._server, self._identity, self._leaders = server, identity, leaders

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Obj:
        return await self._reach().get(resource, name, namespace)

    async def create(self, resource: Resource, obj: Mapping[str, Any], namespace: str = "") -> Obj:
        return await self._reach().create(resource, obj, namespace)

    async def update(self, resource: Resource, obj: Mapping[str, Any]) -> Obj:
        return await self._reach().update(resource, obj)

    def _reach(self) -> FakeClient:
        if self.cut:
            raise ServiceUnavailable("cut off")
        return self._server

    async def lead(self) -> None:
        self._leaders.append(self._identity)
        assert self._leaders == [self._identity], "two lead at once"
        try:
            await asyncio.Event().wait()
        finally:
            self._leaders.remove(self._identity)

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        elector = Elector(self, "kube-scheduler", self._identity)  # type: ignore[arg-type] # what electors ask for
        task = asyncio.create_task(elector.run(self.lead))
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.wait({task})


@pytest.mark.looptime
async def test_one_leads_and_the_next_begins_as_soon_as_it_ends(looptime: Any) -> None:
    server, leaders = FakeClient(), list[str]()
    a, b = Candidate(server, "a", leaders), Candidate(server, "b", leaders)

    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await first.enter_async_context(a.standing())
        await asyncio.sleep(1)
        await second.enter_async_context(b.standing())
        await asyncio.sleep(60)
        assert leaders == ["a"]
        await first.aclose()
        await asyncio.sleep(5)

        assert leaders == ["b"]
    [lease] = server.stored(LEASES)
    assert (lease["metadata"]["namespace"], lease["spec"]["holderIdentity"]) == ("kube-system", "")
    assert [event["message"] for event in server.stored(EVENTS)] == ["a became leader", "b became leader"]
    assert {event["source"]["component"] for event in server.stored(EVENTS)} == {"kube-scheduler"}


@pytest.mark.looptime
async def test_a_leader_that_is_cut_off_has_stopped_before_the_next_begins(looptime: Any) -> None:
    server, leaders = FakeClient(), list[str]()
    a, b = Candidate(server, "a", leaders), Candidate(server, "b", leaders)

    async with a.standing():
        await asyncio.sleep(1)
        async with b.standing():
            await asyncio.sleep(30)
            assert leaders == ["a"]
            a.cut = True
            await asyncio.sleep(10.1)
            assert leaders == []
            await asyncio.sleep(11)
            assert leaders == ["b"]
            a.cut = False
            await asyncio.sleep(30)

            assert leaders == ["b"]
    assert server.stored(LEASES)[0]["spec"]["leaseTransitions"] == 1


@pytest.mark.looptime
@pytest.mark.parametrize("year", ["1999", "2099"])
async def test_a_wall_clock_that_jumps_changes_no_leader(
    looptime: Any, monkeypatch: pytest.MonkeyPatch, year: str
) -> None:
    server, leaders = FakeClient(), list[str]()
    a, b = Candidate(server, "a", leaders), Candidate(server, "b", leaders)

    async with a.standing():
        await asyncio.sleep(1)
        async with b.standing():
            await asyncio.sleep(20)
            second = itertools.count()
            monkeypatch.setattr(times, "micro_now", lambda: f"{year}-01-01T00:00:{next(second):02}.000000Z")
            await asyncio.sleep(60)

            assert leaders == ["a"]


async def test_what_the_leader_fails_with_is_raised() -> None:
    async def fail() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await Elector(FakeClient(), "kube-scheduler", "a").run(fail)
