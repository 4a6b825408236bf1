"""Definitions and custom resources that nobody would write on purpose: answered with a Status, or stored soundly.

As `test_apiserver_fuzz`, whose tools it uses; `FUZZ_EXAMPLES=5000 FUZZ_SEED=1` looks further.
"""

from __future__ import annotations

import asyncio
import copy
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given

from netemu.apiserver.validation.objects import validate
from netemu.client.base import JSON_PATCH, MERGE_PATCH, Obj
from netemu.model.resources import CUSTOMRESOURCEDEFINITIONS, Resource
from tests.unit.test_apiserver_fuzz import TABLE, World, damage, fuzz, operations, seeds

CRDS_URL = CUSTOMRESOURCEDEFINITIONS.path()
DEFINITION: Obj = yaml.safe_load((Path(__file__).parents[1] / "clients" / "gates.yaml").read_text())
GATE: Obj = {
    "metadata": {"name": "x", "labels": {"a": "b"}},
    "spec": {
        "className": "nginx",
        "addresses": ["10.0.0.1"],
        "listeners": [
            {"name": "web", "port": 80, "hostname": "a.example.com"},
            {"name": "tls", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "c"}]}},
        ],
        "routes": [
            {"path": "/", "backend": {"name": "b", "port": "http", "weight": 1.5}},
            {"path": "/old", "redirect": "https://example.com"},
        ],
        "notBefore": "2026-01-02T03:04:05Z",
        "timeout": None,
        "tier": "gold",
        "parameters": {"any": {"thing": [1]}},
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}}},
    },
}


class Gates(World):
    """A server on which gates are defined."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.resource: Resource = self.run(self._defined())

    async def _defined(self) -> Resource:
        assert (await self.send("POST", CRDS_URL, DEFINITION)).status == 201
        served = self.http.server._served
        while not (found := served.by_path("edge.example.com", "v1", "gates")):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return found

    async def sound_gate(self, name: str) -> None:
        """A gate that is stored is valid, and every way to look at it works."""
        url = self.resource.path("default", name)
        stored = (await self.send("GET", url)).body
        assert not validate(self.resource, copy.deepcopy(stored), copy.deepcopy(stored)), stored
        assert len((await self.send("GET", url, accept=TABLE)).body["rows"][0]["cells"]) == 6
        for way in (f"{url}/scale", f"{url}/status", self.resource.path("default")):
            assert (await self.send("GET", way)).status == 200
        await self.send("PATCH", url, {"metadata": {"finalizers": None}}, content_type=MERGE_PATCH)
        assert (await self.send("DELETE", url)).status == 200


@pytest.fixture(scope="module")
def gates() -> Iterator[Gates]:
    with tempfile.TemporaryDirectory() as folder:
        running = Gates(Path(folder))
        yield running
        running.close()


@given(rng=seeds)
@fuzz(50)
def test_damaged_definitions_are_refused_or_work(gates: Gates, rng: random.Random) -> None:
    async def run() -> None:
        crd = copy.deepcopy(DEFINITION)
        crd["metadata"]["name"], crd["spec"]["names"]["plural"] = "doors.edge.example.com", "doors"
        crd["spec"]["names"] |= {"kind": "Door", "singular": "door", "shortNames": []}
        made = await gates.send("POST", CRDS_URL, damage(crd, rng))
        if made.status != 201:
            return
        name = made.body["metadata"]["name"]
        for way in ("/apis", "/openapi/v3", "/openapi/v3/apis/edge.example.com/v1"):
            assert (await gates.send("GET", way)).status == 200
        await gates.send("POST", "/apis/edge.example.com/v1/namespaces/default/doors", GATE)
        url = f"{CRDS_URL}/{name}"
        await gates.send("PATCH", url, {"metadata": {"finalizers": None}}, content_type=MERGE_PATCH)
        await gates.send("DELETE", url)

    gates.run(run())


@given(rng=seeds)
@fuzz(60)
def test_damaged_instances_are_refused_or_created_soundly(gates: Gates, rng: random.Random) -> None:
    async def run() -> None:
        name = gates.fresh()
        body = damage({**GATE, "metadata": {**GATE["metadata"], "name": name}}, rng)
        query = rng.choice(("", "?fieldValidation=Strict", "?fieldValidation=Ignore"))
        made = await gates.send("POST", gates.resource.path("default") + query, body)
        if made.status == 201:
            await gates.sound_gate(made.body["metadata"]["name"])

    gates.run(run())


@given(rng=seeds)
@fuzz(60)
def test_patches_are_refused_or_leave_sound_instances(gates: Gates, rng: random.Random) -> None:
    async def run() -> None:
        name = gates.fresh()
        url = gates.resource.path("default", name)
        body: Any = {**GATE, "metadata": {**GATE["metadata"], "name": name}}
        assert (await gates.send("POST", gates.resource.path("default"), body)).status == 201
        way = rng.choice(("", "/status", "/scale"))
        if rng.random() < 0.5:
            await gates.send("PATCH", url + way, damage(body, rng), content_type=MERGE_PATCH)
        else:
            await gates.send("PATCH", url + way, operations(body, rng), content_type=JSON_PATCH)
        await gates.sound_gate(name)

    gates.run(run())
