"""Informers and a server that misbehaves: what was known stays, the server is not hammered, and all is caught up on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import pytest

from netemu.client.base import ObjectList, WatchEvent
from netemu.client.informer import Informer
from netemu.model.errors import ApiError, Expired, NotFound, ServiceUnavailable
from netemu.model.objects import Service
from netemu.model.resources import SERVICES, Resource

Watch = Callable[[int], AsyncGenerator[WatchEvent, None]]


def obj(name: str, revision: int) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "default", "resourceVersion": str(revision)}}


class Server:
    """Lists what `held` says; `watch` makes the N-th watch. Counts requests."""

    def __init__(self, watch: Watch, failure: ApiError | None = None) -> None:
        self.held, self.revision, self.failure = ["a"], 1, failure
        self.strange: list[dict[str, object]] = []
        """What to list instead."""
        self.lists, self.watches = 0, 0
        self._make = watch

    async def list(self, resource: Resource, namespace: str = "", **_: str) -> ObjectList:
        self.lists += 1
        if self.failure:
            raise self.failure
        return ObjectList(self.strange or [obj(name, self.revision) for name in self.held], str(self.revision))

    def watch(self, resource: Resource, namespace: str = "", **_: str) -> AsyncGenerator[WatchEvent, None]:
        self.watches += 1
        return self._make(self.watches)


@contextlib.asynccontextmanager
async def informing(server: Server) -> AsyncIterator[Informer[Service]]:
    informer = Informer(server, SERVICES, Service)  # type: ignore[arg-type]
    task = asyncio.create_task(informer.run())
    try:
        yield informer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ends(_: int) -> AsyncGenerator[WatchEvent, None]:
    return
    yield


async def gone(number: int) -> AsyncGenerator[WatchEvent, None]:
    if number:
        raise Expired("too old resource version")
    yield WatchEvent("BOOKMARK", {})


async def away(number: int) -> AsyncGenerator[WatchEvent, None]:
    if number:
        raise ServiceUnavailable("connection refused")
    yield WatchEvent("BOOKMARK", {})


@pytest.mark.looptime
@pytest.mark.parametrize("watch", [ends, gone, away])
async def test_a_server_that_does_not_hold_watches_is_asked_ever_more_seldom(watch: Watch) -> None:
    server = Server(watch)
    async with informing(server) as informer:
        await asyncio.sleep(60)
        first = server.watches
        await asyncio.sleep(60)

    assert first < 15
    assert server.watches - first <= 7
    assert list(informer.objects) == ["default/a"]


class InPieces(Server):
    """Lists one object at a time."""

    async def pages(
        self, resource: Resource, namespace: str = "", *, limit: int, **_: str
    ) -> AsyncGenerator[ObjectList, None]:
        for at in range(0, len(self.held), limit):
            self.lists += 1
            yield ObjectList([obj(name, self.revision) for name in self.held[at : at + limit]], str(self.revision))


async def test_a_list_in_pieces_is_told_as_one() -> None:
    server = InPieces(away)
    server.held = ["a", "b", "c"]
    informer = Informer(server, SERVICES, Service, page=2)  # type: ignore[arg-type]
    task = asyncio.create_task(informer.run())
    await informer.synced.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert ([each.name for each in informer.objects.values()], server.lists) == (["a", "b", "c"], 2)


@pytest.mark.looptime
async def test_after_a_gap_only_what_differs_is_told() -> None:
    async def watch(number: int) -> AsyncGenerator[WatchEvent, None]:
        if number == 1:
            server.held, server.revision = ["b"], 7
            raise Expired("too old resource version")
        await asyncio.sleep(3600)
        yield WatchEvent("BOOKMARK", obj("", 9))

    server, told = Server(watch), list[tuple[str, str]]()
    async with informing(server) as informer:
        informer.on_change(lambda old, new: told.append((old.name if old else "", new.name if new else "")))
        await asyncio.sleep(1)

    assert told == [("", "a"), ("a", ""), ("", "b")]
    assert informer.resource_version == "7"


@pytest.mark.looptime
async def test_events_that_cannot_be_read_are_left_out() -> None:
    async def watch(number: int) -> AsyncGenerator[WatchEvent, None]:
        if number == 1:
            yield WatchEvent("ADDED", {"metadata": None})
            yield WatchEvent("ADDED", {**obj("b", 2), "spec": {"ports": "all"}})
            yield WatchEvent("ADDED", obj("c", 3))
        await asyncio.sleep(3600)

    async with informing(Server(watch)) as informer:
        await asyncio.sleep(1)

    assert (sorted(informer.objects), informer.resource_version) == (["default/a", "default/c"], "3")


@pytest.mark.looptime
async def test_what_cannot_be_read_any_more_stays_until_it_is_deleted_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    strange = {**obj("a", 2), "spec": {"ports": "all"}}
    steps = asyncio.Queue[WatchEvent | None]()

    async def watch(_: int) -> AsyncGenerator[WatchEvent, None]:
        while event := await steps.get():
            yield event
        raise Expired("too old resource version")

    server = Server(watch)
    async with informing(server) as informer:
        await informer.synced.wait()
        server.strange = [strange]
        for event in (WatchEvent("MODIFIED", strange), None):
            steps.put_nowait(event)
        await asyncio.sleep(1)
        kept, held = list(informer.objects), informer.objects["default/a"].metadata.resource_version
        steps.put_nowait(WatchEvent("DELETED", strange))
        await asyncio.sleep(1)

    assert (kept, held, list(informer.objects)) == (["default/a"], "1", [])
    assert [message.split(":")[1] for message in caplog.messages] == [" cannot read default/a"]


@pytest.mark.looptime
async def test_a_collection_that_the_server_does_not_have_is_told_apart_from_one_not_asked_for() -> None:
    server = Server(ends, NotFound("the server could not find the requested resource"))
    async with informing(server) as informer:
        await informer.tried.wait()

    assert not informer.synced.is_set()
