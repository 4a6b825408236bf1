"""Watch streams over HTTP: events, bookmarks, ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from tests.unit.apiserver_http import CONFIGMAP, CONFIGMAPS_URL, POD, PODS_URL, Http, serving
from tests.unit.apiserver_kit import CountingStore

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Http]:
    async with serving(tmp_path) as running:
        yield running


async def event(stream: aiohttp.ClientResponse) -> dict[str, Any]:
    line = await asyncio.wait_for(stream.content.readline(), 10)
    decoded: dict[str, Any] = msgspec.json.decode(line)
    return decoded


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what the server's socket notices has no event to wait for
            await asyncio.sleep(0.005)


async def test_changes_arrive_as_lines(http: Http) -> None:
    revision = (await http("GET", CONFIGMAPS_URL)).body["metadata"]["resourceVersion"]
    async with http.session.get(f"{CONFIGMAPS_URL}?watch=true&resourceVersion={revision}") as stream:
        await http("POST", CONFIGMAPS_URL, CONFIGMAP)
        await http("PATCH", f"{CONFIGMAPS_URL}/c", {"data": {"k": "w"}}, content_type="application/merge-patch+json")
        await http("DELETE", f"{CONFIGMAPS_URL}/c")
        seen = [await event(stream) for _ in range(3)]

    assert [one["type"] for one in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert seen[1]["object"]["data"] == {"k": "w"}
    assert {(one["object"]["kind"], one["object"]["apiVersion"]) for one in seen} == {("ConfigMap", "v1")}


async def test_a_watch_of_one_object_shows_no_other(http: Http) -> None:
    await http("POST", PODS_URL, POD)
    async with http.session.get(f"{PODS_URL}/one?watch=true&resourceVersion=0") as stream:
        await http("POST", PODS_URL, {**POD, "metadata": {"name": "two"}})
        await http(
            "PATCH",
            f"{PODS_URL}/one",
            {"metadata": {"labels": {"a": "b"}}},
            content_type="application/merge-patch+json",
        )
        seen = [await event(stream) for _ in range(2)]

    assert [one["object"]["metadata"]["name"] for one in seen] == ["one", "one"]


async def test_a_watch_as_tables_has_columns_in_the_first_event_only(http: Http) -> None:
    await http("POST", PODS_URL, POD)
    headers = {"Accept": TABLE}
    async with http.session.get(f"{PODS_URL}?watch=true&resourceVersion=0", headers=headers) as stream:
        first = await event(stream)
        await http("POST", PODS_URL, {**POD, "metadata": {"name": "two"}})
        second = await event(stream)

    assert [len(one["object"]["columnDefinitions"]) > 0 for one in (first, second)] == [True, False]
    assert second["object"]["rows"][0]["cells"][0] == "two"


async def test_initial_events_end_with_a_bookmark(http: Http) -> None:
    await http("POST", CONFIGMAPS_URL, CONFIGMAP)
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    async with http.session.get(f"{CONFIGMAPS_URL}?{query}") as stream:
        first, second = await event(stream), await event(stream)

    assert (first["type"], second["type"]) == ("ADDED", "BOOKMARK")
    assert second["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_initial_events_need_their_companions(http: Http) -> None:
    reply = await http("GET", f"{CONFIGMAPS_URL}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true")

    assert (reply.status, reply.body["details"]["causes"][0]["reason"]) == (422, "FieldValueForbidden")


async def test_a_revision_that_never_was_ends_in_an_error_event(http: Http) -> None:
    async with http.session.get(f"{CONFIGMAPS_URL}?watch=true&resourceVersion=99999999") as stream:
        seen = await event(stream)

    assert (seen["type"], seen["object"]["code"]) == ("ERROR", 410)


async def test_a_watch_ends_at_its_timeout(http: Http) -> None:
    async with http.session.get(f"{CONFIGMAPS_URL}?watch=true&timeoutSeconds=1") as stream:
        rest = await asyncio.wait_for(stream.read(), 5)

    assert rest.endswith(b"\n") or rest == b""


async def test_a_client_that_leaves_frees_its_watch(http: Http) -> None:
    stream = await http.session.get(f"{CONFIGMAPS_URL}?watch=true")
    await until(lambda: len(http.server.watches) == 1)
    stream.close()

    await until(lambda: len(http.server.watches) == 0)


async def test_a_client_that_does_not_read_is_cut_off_and_holds_up_nobody(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netemu.apiserver.http.watching._PATIENCE", 0.2)
    await http("POST", CONFIGMAPS_URL, CONFIGMAP)
    host, port = str(http.session._base_url).removeprefix("http://").rstrip("/").split(":")
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    stuck.connect((host, int(port)))
    stuck.sendall(f"GET {CONFIGMAPS_URL}?watch=true&resourceVersion=0 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    # Its events are small: however slow this machine is, what is written to it never waits.
    accept = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
    async with http.session.get(f"{CONFIGMAPS_URL}?watch=true&resourceVersion=0", headers=accept) as stream:
        await until(lambda: len(http.server.watches) == 2)
        told = [await event(stream)]
        for number in range(40):  # more than sockets hold
            metadata = {"name": "c", "labels": {"n": str(number)}}
            body = {**CONFIGMAP, "metadata": metadata, "data": {"much": "x" * 300_000}}
            await http("PUT", f"{CONFIGMAPS_URL}/c", body)
            told.append(await event(stream))
        await until(lambda: len(http.server.watches) == 1)

    assert [one["object"]["metadata"]["labels"]["n"] for one in told[1:]] == [str(number) for number in range(40)]
    with stuck:
        received = b"".join(await asyncio.to_thread(lambda: list(iter(lambda: stuck.recv(2**20), b""))))
    assert not received.endswith(b"0\r\n\r\n")


async def test_hundreds_of_watchers_are_one_to_the_store_and_each_is_told_its_own(tmp_path: Path) -> None:
    store, many = CountingStore(), 400
    async with serving(tmp_path, store) as http:
        base = str(http.session._base_url).removeprefix("http://").rstrip("/").split(":")
        connections = [await asyncio.open_connection(base[0], int(base[1])) for _ in range(many)]
        for number, (_, writer) in enumerate(connections):
            query = f"watch=true&fieldSelector=metadata.name%3Dc{number}"
            writer.write(f"GET {CONFIGMAPS_URL}?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: len(http.server.watches) == many)
        for number in (7, many - 1):
            await http("POST", CONFIGMAPS_URL, {**CONFIGMAP, "metadata": {"name": f"c{number}"}})
            told = await asyncio.wait_for(connections[number][0].readuntil(b'"ADDED"'), 10)
            assert b"200 OK" in told
        for _, writer in connections:
            writer.close()
        await until(lambda: len(http.server.watches) == 0)

    assert store.watches == 1


async def test_watches_that_are_ended_begin_anew_on_another_connection(http: Http) -> None:
    stream = await http.session.get(f"{CONFIGMAPS_URL}?watch=true")
    await until(lambda: len(http.server.watches) == 1)
    assert stream.connection is not None
    transport = stream.connection.transport
    http.server.watches.end()

    assert await stream.read() == b""
    again = await http.session.get(f"{CONFIGMAPS_URL}?watch=true")
    assert again.connection is not None
    assert again.connection.transport is not transport
    await until(lambda: len(http.server.watches) == 1)
    again.close()


async def test_closing_the_server_ends_watches_at_once_and_cleanly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netemu.apiserver.http.server._GOODBYE", 60)
    async with serving(tmp_path) as http:
        await http("POST", CONFIGMAPS_URL, CONFIGMAP)
        streams = [await http.session.get(f"{CONFIGMAPS_URL}?watch=true&resourceVersion=0") for _ in range(20)]
        await until(lambda: len(http.server.watches) == 20)
        async with asyncio.timeout(30):  # what does not end by itself has a minute
            await http.server.close()
            rests = [await stream.read() for stream in streams]

    assert all(rest.endswith(b"\n") for rest in rests)
