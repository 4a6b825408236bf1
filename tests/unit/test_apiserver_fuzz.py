"""Requests that nobody would send on purpose.

Valid objects of every kind are damaged at random places and sent through the HTTP front end, as are random patches,
queries, URLs and bytes. Whatever is asked, the answer is never a failure of the server, and is a well-formed Status or
object. Whatever is stored then passes validation again, decodes into the typed objects that components work with, and
can be printed as a table.

The profile is fixed, so that a run is short and always the same; `FUZZ_EXAMPLES=5000 FUZZ_SEED=1` looks further.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import random
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from netemu.apiserver.http.connect import CONNECTS
from netemu.apiserver.schema.kinds import Schema
from netemu.apiserver.tables.kinds import cells
from netemu.apiserver.validation.objects import validate
from netemu.client.base import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, Obj
from netemu.model import meta, pods, times
from netemu.model import resources as r
from netemu.model.kinds import KINDS
from netemu.scheduler.resources import quantity
from tests.unit.apiserver_http import Http, Reply, serving
from tests.unit.test_apiserver_protobuf import DEPLOYMENT

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
Test = TypeVar("Test", bound=Callable[..., None])
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
SCHEMA = Schema.load()
PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH)

VALID: dict[r.Resource, Obj] = {
    {resource.kind: resource for resource in reversed(r.RESOURCES)}[kind]: obj
    for kind, obj in yaml.safe_load((Path(__file__).parent / "data" / "api_objects.yaml").read_text()).items()
}  # fmt: skip
VALID[r.EVENTS_V1] = {
    "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "note": "n", "reason": "r", "action": "a",
    "reportingController": "a.b/c", "reportingInstance": "i", "type": "Normal", "deprecatedCount": 2,
    "eventTime": "2026-01-02T03:04:05.000006Z", "series": {"count": 2, "lastObservedTime": "2026-01-02T03:04:05Z"},
}  # fmt: skip

ODD: list[Any] = [
    None, "", 0, -1, 1, 65536, 1 << 31, 1 << 63, 1 << 70, -(1 << 70), 0.5, 1e300, True, False, [], {}, [None],
    {"a": None}, [[]],
    [{}], {"": ""}, {"name": None}, "a", "a" * 300, "A_b", "a.b", "a/b", "..", "%", "é✓", "\x00", "a\nb", "١",
    "5\n", "25%\n", "9" * 5000 + "%", "101%", "1e999999999999", "-1", "1Ei", "0x10", " 1", "None", "10.0.0.1", "::1",
    "fe80::1%1", "10.0.0.0/255.0.0.0",
    "10.0.0.0/33", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-10:00",
    "2026-01-01T00:00:00.123456789+01:00", "YQ==\n", "Y", "ExternalName", "NodePort", "ClusterIP", "RequireDualStack",
    "Local", "Recreate", "Exists", "fake", "http", {"x": {"y": [1]}}, ["a", "a"], ["a", 1],
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


def damage(obj: Obj, rng: random.Random) -> Obj:
    """A copy with one to three places dropped, replaced, doubled or joined by another."""
    obj = copy.deepcopy(obj)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        path = rng.choice(list(places(obj)) or [("x",)])
        holder: Any = obj
        for part in path[:-1]:
            holder = holder[part]
        how = rng.randrange(8)
        if how == 0 and path[-1] in (holder if isinstance(holder, dict) else range(len(holder))):
            del holder[path[-1]]
        elif how == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[path[-1]]))
        elif how == 2 and isinstance(holder, dict):
            holder[rng.choice(("x", "", "name", "a\nb", "é", "kind", "nodeName"))] = rng.choice(ODD)
        else:
            holder[path[-1]] = copy.deepcopy(rng.choice(ODD))
    return obj


def operations(obj: Obj, rng: random.Random) -> list[Any]:
    """A random JSON patch."""
    pointers = [
        "/" + "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in path) for path in places(obj)
    ]
    pointers += ["", "/", "/spec/-", "/metadata/labels/a~2", "/x/y", "x", "/metadata/finalizers/01"]
    found = []
    for _ in range(rng.randrange(1, 5)):
        operation: Any = {
            "op": rng.choice(("add", "remove", "replace", "move", "copy", "test", "drop", None, [])),
            "path": rng.choice(pointers), "from": rng.choice(pointers), "value": copy.deepcopy(rng.choice(ODD)),
        }  # fmt: skip
        for key in ("path", "from", "value"):
            if rng.random() < 0.05:
                operation[key] = copy.deepcopy(rng.choice(ODD))
        found.append(rng.choice(ODD) if rng.random() < 0.03 else operation)
    return found


def directives(patch: Any, rng: random.Random) -> Any:
    """A patch with directives of strategic merge strewn over it."""
    if isinstance(patch, list):
        patch = [directives(item, rng) for item in patch]
        if rng.random() < 0.1:
            patch.append(rng.choice(({"$patch": "replace"}, {"$patch": "delete"}, {"$patch": []}, None)))
        return patch
    if not isinstance(patch, dict):
        return patch
    result = {key: directives(value, rng) for key, value in patch.items() if rng.random() < 0.8}
    for key in patch:
        if rng.random() < 0.1:
            word = rng.choice(("$patch", "$retainKeys", f"$setElementOrder/{key}", f"$deleteFromPrimitiveList/{key}"))
            result[word] = rng.choice(("replace", "delete", "merge", [key], [{"name": "c"}], [[]], {}, 1, None))
    return result


class World:
    """A running server on a loop of its own, because hypothesis calls plain functions."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._serving = serving(folder)
        self.http: Http = self.run(self._serving.__aenter__())
        self._count = 0

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    def close(self) -> None:
        self.run(self._serving.__aexit__(None, None, None))
        self._loop.close()

    def fresh(self) -> str:
        self._count += 1
        return f"x{self._count}"

    async def send(self, method: str, url: str, body: Any = None, **headers: str) -> Reply:
        """One request, its answer checked."""
        reply = await self.http(method, url, body, **headers)
        shown = f"{method} {url} {str(body)[:2000]} {headers} -> {reply.status} {reply.raw[:600]!r}"
        assert reply.status < 500, shown
        if method == "HEAD":
            assert not reply.raw, shown
        elif "application/json" in reply.headers.get("Content-Type", ""):
            assert reply.raw, shown
            answer = reply.body
            if reply.status >= 400:
                assert (answer["kind"], answer["code"], answer["status"]) == ("Status", reply.status, "Failure"), shown
                assert answer["message"], shown
                assert answer["reason"], shown
            else:
                assert isinstance(answer, dict), shown
        else:
            assert reply.status in (200, 204, 400, 404, 414, 431), shown
        return reply

    async def sound(self, resource: r.Resource, name: str) -> bool:
        """Whether an object is stored; if it is, that it is sound."""
        url = resource.path("default", quote(name, safe=""))
        reply = await self.send("GET", url)
        if reply.status != 200:
            return False
        stored = reply.body
        problems = validate(resource, copy.deepcopy(stored), None)
        assert not problems, (stored, problems)
        assert not validate(resource, copy.deepcopy(stored), copy.deepcopy(stored)), stored
        absent = {"eventTime": None} if stored.get("eventTime", "") is None else {}
        assert {**SCHEMA.decoded(resource, copy.deepcopy(stored)), **absent} == stored
        check_typed(resource, stored)
        rows = (await self.send("GET", url, accept=TABLE)).body["rows"]
        assert len(rows) == 1
        assert len(cells(resource.kind)(stored, datetime.now(UTC))) == len(rows[0]["cells"])
        return True


def check_typed(resource: r.Resource, stored: Obj) -> None:
    """What components do first with an object, each in its own words."""
    if typed := KINDS.get(resource.kind):
        meta.decode(stored, typed)
    template = (stored.get("spec") or {}).get("template")
    if template is not None:
        meta.decode(template, pods.Pod)
    for path in places(stored):
        value: Any = stored
        for part in path:
            value = value[part]
        assert value is not None or path[-1] == "eventTime", path
        if "fieldsV1" in path:  # names of fields, not the fields
            continue
        if isinstance(path[-1], str) and path[-1].endswith(
            ("Time", "Timestamp", "timeAdded", "startedAt", "finishedAt")
        ):
            assert value is None or times.parse(value).tzinfo
        if (
            len(path) > 2
            and isinstance(path[-1], str)
            and path[-2] in ("capacity", "allocatable", "requests", "limits")
            and path[0] in ("spec", "status")
        ):
            quantity(value)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as folder:
        running = World(Path(folder))
        yield running
        running.close()


def fuzz(examples: int) -> Callable[[Test], Test]:
    """The profile; without shrinking, because a server that has changed cannot be asked again."""

    def decorate(test: Test) -> Test:
        seeded: Any = seed(SEED)(test) if EXAMPLES else test
        profile = settings(
            max_examples=EXAMPLES or examples, deadline=None, derandomize=not EXAMPLES, database=None,
            phases=[Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        decorated: Test = profile(seeded)
        return decorated

    return decorate


seeds = st.integers(0, 1 << 48).map(random.Random)
kinds = st.sampled_from(sorted(VALID, key=str))


NAMED_BY_CONTENT = {"CertificateSigningRequest", "CustomResourceDefinition", "IPAddress"}
"""Kinds of which no object is valid under any name, or without a signature; test_apiserver_custom_fuzz has its own."""


def test_every_kind_is_there_to_be_damaged() -> None:
    assert {resource.kind for resource in r.RESOURCES} - {resource.kind for resource in VALID} <= NAMED_BY_CONTENT


def named(resource: r.Resource, name: str) -> Obj:
    obj = copy.deepcopy(VALID[resource])
    return {**obj, "metadata": {**obj.get("metadata", {}), "name": name}}


async def made(world: World, resource: r.Resource) -> tuple[str, Obj]:
    """A new valid object on the server, so that updates have something to change."""
    name = world.fresh()
    body = named(resource, name)
    for port in body.get("spec", {}).get("ports", ()):
        port.pop("nodePort", None)
    reply = await world.send("POST", resource.path("default"), body)
    assert reply.status == 201, reply.raw
    if "status" in resource.subresources and "status" in body:
        url = resource.path("default", name, "status")
        reply = await world.send("PATCH", url, {"status": body["status"]}, content_type=MERGE_PATCH)
        assert reply.status == 200, reply.raw
    return name, reply.body


async def removed(world: World, resource: r.Resource, name: str) -> None:
    """Off the server again, so that it stays small."""
    url = resource.path("default", name)
    await world.send("PATCH", url, {"metadata": {"finalizers": None}}, content_type=MERGE_PATCH)
    await world.send("DELETE", f"{url}?gracePeriodSeconds=0")


@pytest.mark.parametrize("resource", VALID, ids=str)
def test_the_objects_that_are_damaged_are_valid(world: World, resource: r.Resource) -> None:
    async def run() -> None:
        name, _ = await made(world, resource)
        assert await world.sound(resource, name)
        await removed(world, resource, name)

    world.run(run())


@given(resource=kinds, rng=seeds)
@fuzz(300)
def test_damaged_objects_are_refused_or_created_soundly(world: World, resource: r.Resource, rng: random.Random) -> None:
    async def run() -> None:
        name = world.fresh()
        body = damage(named(resource, name), rng)
        query = rng.choice(("", "?fieldValidation=Strict", "?fieldValidation=Ignore", "?dryRun=All"))
        media = rng.choice(("", "application/json", "application/yaml"))
        reply = await world.send("POST", resource.path("default") + query, body, content_type=media)
        if reply.status == 201 and query != "?dryRun=All":
            name = reply.body["metadata"]["name"]
            assert await world.sound(resource, name)
            await removed(world, resource, name)

    world.run(run())


@given(resource=kinds, rng=seeds)
@fuzz(250)
def test_damaged_objects_are_refused_or_put_soundly(world: World, resource: r.Resource, rng: random.Random) -> None:
    async def run() -> None:
        name, stored = await made(world, resource)
        subresource = rng.choice(("", *sorted(set(resource.subresources) - CONNECTS), "none"))
        url = resource.path("default", name, subresource)
        if subresource == "scale":
            stored = (await world.send("GET", url)).body
        if subresource == "binding":
            stored = {"metadata": {"name": name, "annotations": {"a": "b"}}, "target": {"kind": "Node", "name": "n"}}
        method = "POST" if subresource == "binding" else "PUT"
        await world.send(method, url, damage(stored, rng))
        if await world.sound(resource, name):
            await removed(world, resource, name)

    world.run(run())


@given(resource=kinds, rng=seeds)
@fuzz(300)
def test_patches_are_refused_or_leave_sound_objects(world: World, resource: r.Resource, rng: random.Random) -> None:
    async def run() -> None:
        name, stored = await made(world, resource)
        subresource = rng.choice(("", "", *set(resource.subresources) & {"status", "scale"}))
        url, media = resource.path("default", name, subresource), rng.choice(PATCHES)
        if rng.random() < 0.7:  # or else the revision is a precondition
            stored["metadata"].pop("resourceVersion")
        shown = (await world.send("GET", url)).body
        if media == JSON_PATCH:
            patch: Any = operations(shown, rng)
        else:
            patch = damage(shown if rng.random() < 0.5 else stored, rng)
            patch = directives(patch, rng) if media == STRATEGIC_MERGE_PATCH or rng.random() < 0.2 else patch
        query = rng.choice(("", "?fieldValidation=Strict", "?dryRun=All"))
        await world.send("PATCH", url + query, patch, content_type=media)
        if await world.sound(resource, name):
            await removed(world, resource, name)

    world.run(run())


QUERY = {
    "limit": ("", "1", "-1", "0", "x", "9" * 30, "١", "1.5", "1_0"),
    "continue": ("", "x", "e30", "eyJpZCI6MSwic3RhcnQiOjF9", "====", "é"),
    "resourceVersion": ("", "0", "1", "5", "99999999", "-1", "x", "9" * 5000, "²", "1.0"),
    "resourceVersionMatch": ("", "Exact", "NotOlderThan", "x"),
    "labelSelector": ("", "a=b", "a in (b,c)", "!a", "a in (", "=", ",,", "a==b,c!=d", "\x00", "é=✓", "a notin ()"),
    "fieldSelector": ("", "metadata.name=x", "status.phase!=Running", "x=y", "=", "metadata.name", "a!=b,,"),
    "timeoutSeconds": ("1", "0", "-1", "x", "9" * 400, "9223372036854775807"),
    "watch": ("true", "false", "", "1", "x"),
    "sendInitialEvents": ("true", "false", ""),
    "allowWatchBookmarks": ("true", "false"),
    "includeObject": ("None", "Metadata", "Object", "x", ""),
    "fieldValidation": ("Strict", "x"),
    "dryRun": ("All", "x", ""),
    "gracePeriodSeconds": ("0", "-1", "x", "9" * 30, "9223372036854775807"),
    "propagationPolicy": ("Orphan", "Foreground", "x", ""),
    "orphanDependents": ("true", "x"),
}  # fmt: skip
ACCEPTS = (
    "",
    TABLE,
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "x",
    "*/*",
    "application/json;as=",
)


def query_of(rng: random.Random) -> str:
    names = rng.sample(list(QUERY), rng.randrange(5))
    return "&".join(f"{name}={quote(rng.choice(QUERY[name]))}" for name in names)


@given(resource=kinds, rng=seeds)
@fuzz(250)
def test_queries_are_answered_or_refused(world: World, resource: r.Resource, rng: random.Random) -> None:
    async def run() -> None:
        named_one = rng.random() < 0.3
        name = (await made(world, resource))[0] if named_one else ""
        method = rng.choice(("GET", "GET", "GET", "DELETE", "HEAD")) if named_one else rng.choice(("GET", "HEAD"))
        url = f"{resource.path(rng.choice(('default', '', 'none')), name)}?{query_of(rng)}"
        accept = rng.choice(ACCEPTS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1 if "watch" in url else None):  # a watch goes on and on
                await world.send(method, url, accept=accept)
        if named_one and await world.sound(resource, name):
            await removed(world, resource, name)

    world.run(run())


PARTS = (
    "api", "apis", "v1", "v2", "apps", "namespaces", "default", "pods", "services", "deployments", "status", "scale",
    "finalize", "binding", "log", "watch", "x", "", ".", "..", "%2F", "%00", "%ff", "%", "é", "a" * 300, "openapi",
    "v3", "version", "healthz", "metrics", "discovery.k8s.io", "events", "x1", '"', "\n",
)  # fmt: skip


@given(rng=seeds)
@fuzz(300)
def test_whatever_the_url_something_sensible_is_answered(world: World, rng: random.Random) -> None:
    from yarl import URL

    path = "/" + "/".join(quote(rng.choice(PARTS), safe="%") for _ in range(rng.randrange(8))).lstrip("/")
    method = rng.choice(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"))
    if path.startswith("/api/v1/namespaces/default") and method == "DELETE":
        method = "GET"
    body = rng.choice((None, None, b"{}", b"[]", b"null", b"1", b'"x"'))
    world.run(world.send(method, URL(path, encoded=True), body, content_type=rng.choice(("", *PATCHES))))  # type: ignore[arg-type]


BOMBS = (
    b"", b"null", b"{", b"[" * 100_000, b"[" * 700 + b"]" * 700, b'{"metadata":' * 400 + b"1" + b"}" * 400, b"1e400",
    b'"\\ud800"', b'{"kind":"\\ud800\\udfff"}', b'{"metadata":{"name":"\\ud83d\\ude00"}}', b"\xff\xfe", b"k8s\0",
    b"a: &a [*a]", b"a: &a [x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c]",
    b"metadata: {name: 2026-01-01}", b"metadata: {name: 2026-99-99}", b"1: 2", b"? [a]\n: b", b"data: !!binary YQ==",
    b"data: {a: !!set {x}}", b"data: .nan", b"metadata: {name: !!python/object:os.system x}", b"kind: [x]", b"kind: {}",
    b"apiVersion: 1", b'{"kind":"Pod","kind":1}', b"metadata: {labels: {a: 0x1, b: 1:30}}", b"--- a\n--- b",
    b'{"metadata":{"managedFields":[{"fieldsV1":' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}]}}",
)  # fmt: skip
MEDIA = ("", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf", *PATCHES, "x/y", "\xff")


def mangled(raw: bytes, rng: random.Random) -> bytes:
    """Some bytes of it changed, lost or doubled."""
    data = bytearray(raw)
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(data))
        data[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(data)


@given(rng=seeds, noise=st.binary(max_size=64))
@fuzz(300)
def test_bodies_of_random_bytes_are_refused(world: World, rng: random.Random, noise: bytes) -> None:
    import base64

    resource = rng.choice(sorted(VALID, key=str))
    proto = base64.b64decode(DEPLOYMENT)
    document = msgspec.json.encode(named(resource, "damaged"))
    raw = rng.choice((noise, rng.choice(BOMBS), mangled(proto, rng), mangled(document, rng), proto[:20] + noise))
    media = rng.choice(MEDIA)
    if raw.startswith(proto[:4]):
        resource, media = rng.choice((resource, r.DEPLOYMENTS)), "application/vnd.kubernetes.protobuf"

    async def run() -> None:
        method, name = rng.choice((("POST", ""), ("PUT", "damaged"), ("PATCH", "damaged"), ("DELETE", "damaged")))
        reply = await world.send(method, resource.path("default", name), raw, content_type=media)
        if reply.status == 201:
            name = reply.body["metadata"]["name"]
            assert await world.sound(resource, name)
            await removed(world, resource, name)

    world.run(run())


REVIEWS = (
    "/apis/authentication.k8s.io/v1/selfsubjectreviews", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
)  # fmt: skip


@given(rng=seeds)
@fuzz(60)
def test_damaged_reviews_and_delete_options_are_answered_or_refused(world: World, rng: random.Random) -> None:
    review = {"metadata": {}, "spec": {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "x"}}}
    options = {
        "gracePeriodSeconds": 3, "propagationPolicy": "Orphan", "preconditions": {"uid": "x", "resourceVersion": "1"},
        "dryRun": ["All"], "orphanDependents": None,
    }  # fmt: skip

    async def run() -> None:
        await world.send("POST", rng.choice(REVIEWS), damage(review, rng))
        name, _ = await made(world, r.PODS)
        await world.send("DELETE", r.PODS.path("default", name), damage(options, rng))
        await world.send("DELETE", r.LEASES.path("default"), damage(options, rng))
        if await world.sound(r.PODS, name):
            await removed(world, r.PODS, name)

    world.run(run())
