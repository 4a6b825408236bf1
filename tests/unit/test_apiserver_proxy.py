"""The API server as a proxy to Pods, Services and nodes: what goes through, what is rewritten, what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from netemu.apiserver.http.reach import Location, Reach
from netemu.apiserver.http.relay import rewritten
from netemu.client.base import Obj
from netemu.client.upgrade import Answer
from netemu.model.resources import ENDPOINTS, PODS, SERVICES
from tests.unit.apiserver_http import POD, PODS_URL, SERVICE, SERVICES_URL, Http, serving

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ADDRESS = "10.244.1.2"
PREFIX = "/api/v1/namespaces/default/pods/one/proxy"


REFUSED = f"error trying to reach service: dial tcp {ADDRESS}:1: connect: connection refused"


class Wired(Reach):
    """Finds the Pod's address on loopback, where the server of these tests is."""

    @property
    def session(self) -> Any:
        inner = super().session

        class Session:
            def request(self, method: str, url: URL, **options: Any) -> Any:
                return inner.request(method, URL(str(url).replace(ADDRESS, "127.0.0.1"), encoded=True), **options)

        return Session()

    async def upgrade(self, where: Location, method: str, path: str, headers: Iterable[tuple[str, str]]) -> Answer:
        return await super().upgrade(replace(where, host="127.0.0.1"), method, path, headers)


async def answer(request: web.Request) -> web.StreamResponse:
    """A Pod that tells what it was asked, redirects, or echoes a WebSocket."""
    if request.path.startswith("/go"):
        raise web.HTTPFound(request.query["to"].replace("HOST", request.host))
    if request.path == "/socket":
        socket = web.WebSocketResponse(protocols=("chat",))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket
    told = {
        "method": request.method, "path": request.raw_path, "body": await request.text(), "host": request.host,
        "headers": {name.lower(): value for name, value in request.headers.items()},
    }  # fmt: skip
    return web.json_response(told, headers={"Access-Control-Allow-Origin": "*", "X-Own": "kept"})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
async def http(tmp_path: Path, port: int) -> AsyncIterator[Http]:
    """A Pod `one` and a Service `s` with ports `web` (80) and `other` (81) that lead to the server."""
    async with serving(tmp_path, reach=Wired()) as ready:
        container = {"name": "c", "image": "nginx", "ports": [{"containerPort": port}]}
        await ready.client.create(PODS, {**POD, "spec": {"containers": [container]}}, "default")
        status = {"status": {"podIP": ADDRESS}}
        await ready.client.patch(PODS, "one", status, "default", subresource="status")
        ports = [{"name": "web", "port": 80}, {"name": "other", "port": 81}]
        await ready.client.create(SERVICES, {**SERVICE, "spec": {"ports": ports}}, "default")
        subset: Obj = {"addresses": [{"ip": ADDRESS}], "ports": [{"name": "web", "port": port}]}
        await ready.client.create(ENDPOINTS, {"metadata": {"name": "s"}, "subsets": [subset]}, "default")
        yield ready


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_goes_through_with_path_query_and_body(http: Http, method: str) -> None:
    reply = await http(method, f"{PREFIX}/a%2Fb//c/?q=%2B&q=2", b"text" if method not in ("GET", "OPTIONS") else None)

    assert (reply.status, reply.headers["X-Own"]) == (200, "kept")
    assert (reply.body["method"], reply.body["path"]) == (method, "/a%2Fb//c/?q=%2B&q=2")
    assert reply.body["body"] == ("" if method in ("GET", "OPTIONS") else "text")
    assert "Access-Control-Allow-Origin" not in reply.headers


async def test_what_a_pod_is_told_of_its_client(http: Http) -> None:
    headers = {
        "Authorization": "Bearer secret",
        "Impersonate-User": "kubernetes-admin",
        "X-Forwarded-For": "203.0.113.9",
    }
    async with http.session.get(f"{PREFIX}/a", headers=headers) as reply:
        told = await reply.json()

    seen = told["headers"]
    assert told["host"] == f"127.0.0.1:{reply.url.port}"
    assert (seen["x-forwarded-for"], seen["x-forwarded-uri"]) == ("203.0.113.9, 127.0.0.1", f"{PREFIX}/a")
    assert not {"authorization", "impersonate-user"} & seen.keys()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_no_path_is_sent_to_the_root_so_that_relative_links_work(http: Http, method: str) -> None:
    async with http.session.request(method, f"{PREFIX}?q=1", allow_redirects=False) as reply:
        assert (reply.status, reply.headers["Location"]) == (301, f"{PREFIX}/?q=1")

    assert (await http("POST", PREFIX)).body["path"] == "/"


@pytest.mark.parametrize(
    ("to", "location"),
    [("/next/?a=b", f"{PREFIX}/next/?a=b"), ("http://HOST/next", "http://HOST{PREFIX}/next"), ("next", "next"),
     (f"{PREFIX}/there", f"{PREFIX}/there"), ("http://elsewhere.example/x", "http://elsewhere.example/x")],
)  # fmt: skip
async def test_redirects_stay_behind_the_proxy(http: Http, to: str, location: str) -> None:
    async with http.session.get(f"{PREFIX}/go", params={"to": to}, allow_redirects=False) as reply:
        host = f"127.0.0.1:{reply.url.port}"

        assert reply.headers["Location"] == location.replace("HOST", host).replace("{PREFIX}", PREFIX)


def test_a_redirect_to_the_pods_own_address_leads_through_the_proxy() -> None:
    assert rewritten("http://10.244.1.2:80/x#y", PREFIX, "10.244.1.2:80", "127.0.0.1:6443") == f"{PREFIX}/x#y"


async def test_websockets_go_through(http: Http) -> None:
    async with http.session.ws_connect(f"{PREFIX}/socket", protocols=("chat",)) as socket:
        await socket.send_str("hello")

        assert (socket.protocol, await socket.receive_str()) == ("chat", "HELLO")


@pytest.mark.parametrize(
    ("name", "served"),
    [("s:web", True), ("s:80", True), ("http:s:web", True), (":s:web", True), ("s", False), ("s:other", False),
     ("s:99", False)],
)  # fmt: skip
async def test_services_lead_to_an_endpoint_of_a_port(http: Http, name: str, served: bool) -> None:
    reply = await http("GET", f"{SERVICES_URL}/{name}/proxy/x")

    assert reply.status == (200 if served else 503)
    if not served:
        missing = "no service port 99 found" if name == "s:99" else "no endpoints available"
        assert reply.body["message"] == f'{missing} for service "{name.partition(":99")[0]}"'


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [
        (f"{PODS_URL}/none/proxy/", 404, 'pods "none" not found'),
        (f"{PODS_URL}/ftp:one:80/proxy/", 400, 'invalid pod request "ftp:one:80"'),
        (f"{SERVICES_URL}/a:b:c:d/proxy/", 400, 'invalid service request "a:b:c:d"'),
        (f"{PODS_URL}/one:1/proxy/", 503, REFUSED),
        ("/api/v1/nodes/none/proxy/", 404, 'nodes "none" not found'),
    ],
)  # fmt: skip
async def test_what_cannot_be_reached(http: Http, url: str, code: int, message: str) -> None:
    reply = await http("GET", url)

    assert (reply.status, reply.body["message"]) == (code, message)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.1.1", "224.0.0.1", "0.0.0.0", "", "nonsense"])
def test_nobody_is_led_to_loopback(address: str) -> None:
    assert not Reach().may_proxy_to(address)
    assert Reach().may_proxy_to("10.244.1.2")


async def test_a_refused_upgrade_is_told_as_it_was(http: Http) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.session.ws_connect(f"{PREFIX}/plain")

    assert refused.value.status == 200
