"""Who gets in: client certificates over TLS, and the authorisation seam."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.authentication import (
    AllowAuthenticated,
    Attributes,
    Authorizer,
    User,
    forbidden_message,
    server_tls,
    user_of,
)
from netemu.apiserver.http.server import ApiServer
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.lab.authority import Authority
from netemu.store.sqlite import SqliteStore

READER = User("reader", ("viewers",))


class Https:
    """A server with a CA of its own, and requests with or without a certificate."""

    def __init__(self, folder: Path, ca: Authority, server: ApiServer, port: int) -> None:
        self._folder, self._ca, self._url = folder, ca, f"https://127.0.0.1:{port}"
        self.server = server

    def context(self, authority: Authority | None = None, user: str = "") -> ssl.SSLContext:
        """What a client brings: trust in the server, and a certificate of `authority` for `user`."""
        context = ssl.create_default_context(cafile=str(self._folder / "ca.crt"))
        if user:
            path = self._folder / "client.pem"
            path.write_bytes(b"".join((authority or self._ca).issue(user, ("viewers",))))
            context.load_cert_chain(path)
        return context

    async def apply(self, path: str, config: dict[str, Any], context: ssl.SSLContext) -> tuple[int, bytes]:
        """Status and body of a server-side apply."""
        headers = {"Content-Type": "application/apply-patch+yaml"}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.patch(f"{self._url}{path}?fieldManager=me", json=config, headers=headers) as answer,
        ):
            return answer.status, await answer.read()

    async def get(self, path: str, context: ssl.SSLContext, token: str = "") -> tuple[int, bytes]:
        """Status and body."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
            session.get(self._url + path, headers=headers) as answer,
        ):
            return answer.status, await answer.read()


@asynccontextmanager
async def serving(folder: Path, authorizer: Authorizer | None = None) -> AsyncIterator[Https]:
    ca = Authority.create("test-ca")
    (folder / "ca.crt").write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    for file, pem in zip(("server.crt", "server.key"), ca.issue("server", hosts=("127.0.0.1",)), strict=True):
        (folder / file).write_bytes(pem)
    store, schema = await SqliteStore.open(folder / "store.db"), Schema.load()
    registry = Registry(store, schema, ServiceAllocator(["10.96.0.0/16"]))
    await registry.start()
    server = ApiServer(registry, schema, authorizer=authorizer)
    listener = socket.create_server(("127.0.0.1", 0))
    try:
        await server.start([listener], server_tls(folder / "server.crt", folder / "server.key", folder / "ca.crt"))
        yield Https(folder, ca, server, listener.getsockname()[1])
    finally:
        await server.close()
        await registry.close()
        await store.close()


async def test_a_certificate_of_the_ca_lets_in(tmp_path: Path) -> None:
    async with serving(tmp_path) as https:
        status, _ = await https.get("/api/v1/pods", https.context(user="reader"))

    assert status == 200


async def test_a_second_listener_in_clear_trusts_its_callers(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    async with serving(tmp_path) as https:
        await https.server.start([listener], None)
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
            session.get("http://localhost/api/v1/pods") as answer,
        ):
            trusted = answer.status
        strangers, _ = await https.get("/api/v1/pods", https.context())

    assert (trusted, strangers) == (200, 403)


async def test_who_shows_nothing_is_anonymous(tmp_path: Path) -> None:
    async with serving(tmp_path) as https:
        status, body = await https.get("/api/v1/pods", https.context())

    message = b'pods is forbidden: User \\"system:anonymous\\" cannot list resource \\"pods\\"'
    assert (status, message in body) == (403, True)


@pytest.mark.parametrize("path", ["/healthz", "/readyz?verbose", "/livez"])
async def test_anybody_may_ask_for_health(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as https:
        status, _ = await https.get(path, https.context())

    assert status == 200


@pytest.mark.parametrize("path", ["/version", "/healthz/etcd", "/api", "/openapi/v3", "/metrics", "/nowhere"])
async def test_other_documents_need_a_user(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as https:
        status, _ = await https.get(path, https.context())

    assert status == 403


@pytest.mark.parametrize("path", ["/version", "/healthz", "/livez/ping", "/api", "/nowhere", "/api/v1/pods"])
async def test_a_bad_token_is_refused_everywhere(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as https:
        status, _ = await https.get(path, https.context(), token="bad")

    assert status == 401


async def test_a_certificate_of_another_ca_fails_the_handshake(tmp_path: Path) -> None:
    async with serving(tmp_path) as https:
        context = https.context(Authority.create("test-ca"), "reader")

        with pytest.raises(aiohttp.ClientError):
            await https.get("/api/v1/pods", context)


async def test_authorisation_sees_user_and_request(tmp_path: Path) -> None:
    asked: list[tuple[User, Attributes]] = []

    class Deny(AllowAuthenticated):
        def why(self, user: User, wanted: Attributes) -> str:
            asked.append((user, wanted))
            return ""

        def refusal(self, user: User, wanted: Attributes) -> str:
            return "it is late"

    async with serving(tmp_path, Deny()) as https:
        status, body = await https.get("/api/v1/namespaces/shop/pods?watch=1", https.context(user="reader"))

    assert asked[0][0] == User("reader", ("viewers", "system:authenticated"))
    assert asked[0][1] == Attributes("watch", "", "v1", "pods", "", "shop")
    message = b'pods is forbidden: User \\"reader\\" cannot watch resource \\"pods\\" in API group \\"\\" '
    message += b'in the namespace \\"shop\\": it is late"'
    assert (status, message in body) == (403, True)


async def test_an_apply_that_creates_takes_leave_to_create(tmp_path: Path) -> None:
    class NoCreation(AllowAuthenticated):
        def why(self, user: User, wanted: Attributes) -> str:
            return "" if wanted.verb == "create" else super().why(user, wanted)

    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    async with serving(tmp_path, NoCreation()) as https:
        reader = https.context(user="reader")
        status, body = await https.apply("/api/v1/namespaces/shop", space, reader)
        left, _ = await https.get("/api/v1/namespaces/shop", reader)

    assert b'namespaces \\"shop\\" is forbidden: User \\"reader\\" cannot create resource' in body
    assert (status, left) == (403, 404)


def test_a_user_is_its_common_name_and_its_groups_the_organisations() -> None:
    subject = ((("organizationName", "a"),), (("organizationName", "b"),), (("commonName", "me"),))

    assert user_of({"subject": subject}) == User("me", ("a", "b", "system:authenticated"))


def test_a_certificate_without_a_name_is_nobody() -> None:
    assert user_of({"subject": ((("organizationName", "a"),),)}) is None


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (Attributes("get", path="/metrics"), 'forbidden: User "reader" cannot get path "/metrics"'),
        (
            Attributes("patch", "apps", "v1", "deployments", "scale", "shop", "web"),
            'deployments.apps "web" is forbidden: User "reader" cannot patch resource "deployments/scale" in API '
            'group "apps" in the namespace "shop"',
        ),
        (
            Attributes("list", "", "v1", "nodes"),
            'nodes is forbidden: User "reader" cannot list resource "nodes" in API group "" at the cluster scope',
        ),
    ],
)
def test_refusals_say_what_was_refused(wanted: Attributes, text: str) -> None:
    assert forbidden_message(READER, wanted) == text
    assert forbidden_message(READER, wanted, "it is late") == f"{text}: it is late"
