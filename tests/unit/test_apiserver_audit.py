"""Who asked for what, and what came of it: the audit log."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.audit import AuditLog
from netemu.apiserver.auth.authentication import AllowAuthenticated, Attributes, Authorizer, User
from netemu.apiserver.bootstrap import bootstrap
from netemu.apiserver.http.server import ApiServer
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.store.sqlite import SqliteStore

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


@asynccontextmanager
async def audited(folder: Path, authorizer: Authorizer | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """Requests to a server that tells of them in `audit.log`; all are there once the block has ended."""
    store, schema = await SqliteStore.open(folder / "store.db"), Schema.load()
    registry = Registry(store, schema, ServiceAllocator(["10.96.0.0/16"]))
    await registry.start()
    server = ApiServer(registry, schema, authorizer=authorizer, audit=AuditLog(folder / "audit.log"))
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        await bootstrap(LocalClient(registry), api_address="172.18.0.2", api_port=6443)
        await server.start([listener], None)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{listener.getsockname()[1]}") as session:
            yield session
    finally:
        await server.close()
        await registry.close()
        await store.close()


async def ask(session: aiohttp.ClientSession, method: str, path: str, **options: Any) -> None:
    """One request, its answer read to the end."""
    async with session.request(method, path, **options) as answer:
        await answer.read()


def told(path: Path) -> list[Any]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


async def test_answers_name_the_lines_that_tell_of_them(tmp_path: Path) -> None:
    async with audited(tmp_path) as session:
        async with session.get(CONFIGMAPS) as answer:
            given = answer.headers["Audit-Id"]
        async with session.get(CONFIGMAPS, params={"watch": "1", "timeoutSeconds": "1"}) as watch:
            opened = watch.headers["Audit-Id"]

    assert [line["auditID"] for line in told(tmp_path / "audit.log")] == [given, opened]


async def test_every_request_is_told_with_its_user_and_its_end(tmp_path: Path) -> None:
    async with audited(tmp_path) as session:
        await ask(session, "POST", CONFIGMAPS, json={"metadata": {"name": "c"}, "data": {"password": "hidden"}})
        await ask(session, "GET", f"{CONFIGMAPS}/none", headers={"Impersonate-User": "ann"})
        await ask(session, "GET", "/healthz")

    made, missed = told(tmp_path / "audit.log")
    where = {"resource": "configmaps", "namespace": "default", "apiVersion": "v1"}
    assert (made["verb"], made["objectRef"], made["responseStatus"]["code"]) == ("create", where, 201)
    assert (made["user"]["username"], "impersonatedUser" in made) == ("system:unsecured", False)
    assert (missed["impersonatedUser"]["username"], missed["responseStatus"]["code"]) == ("ann", 404)
    assert b"hidden" not in (tmp_path / "audit.log").read_bytes()
    assert (tmp_path / "audit.log").stat().st_mode & 0o777 == 0o600


class NotAnn(AllowAuthenticated):
    """One may do nothing, and is told why."""

    def why(self, user: User, wanted: Attributes) -> str:
        return "" if user.name == "ann" else super().why(user, wanted)

    def refusal(self, user: User, wanted: Attributes) -> str:
        return "it is late"


async def test_a_refusal_is_told_with_the_authorizers_reason(tmp_path: Path) -> None:
    async with audited(tmp_path, NotAnn()) as session:
        await ask(session, "GET", f"{CONFIGMAPS}/none", headers={"Impersonate-User": "ann"})
        await ask(session, "GET", f"{CONFIGMAPS}/none")

    decision, reason = "authorization.k8s.io/decision", "authorization.k8s.io/reason"
    assert [event["annotations"] for event in told(tmp_path / "audit.log")] == [
        {decision: "forbid", reason: "it is late"},
        {decision: "allow", reason: ""},
    ]


async def test_a_watch_is_told_when_it_begins(tmp_path: Path) -> None:
    async with audited(tmp_path) as session:
        await ask(session, "GET", f"{CONFIGMAPS}?watch=1&timeoutSeconds=1")

    (event,) = told(tmp_path / "audit.log")
    assert (event["verb"], event["stage"]) == ("watch", "RequestReceived")


def test_a_large_file_gives_way_and_is_kept_once(tmp_path: Path) -> None:
    (tmp_path / "audit.log").write_bytes(b"{}\n" * 10)
    log = AuditLog(tmp_path / "audit.log", largest=10)
    log.write([b'{"a":1}'])
    log.write([b'{"a":2}'])

    assert told(tmp_path / "audit.log.1") == [{}] * 10
    assert told(tmp_path / "audit.log") == [{"a": 1}, {"a": 2}]
