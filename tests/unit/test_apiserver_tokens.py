"""Tokens of service accounts: what they say, how long they are good, and what ends them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.api_access import PLACE, mount_api_access
from netemu.apiserver.auth.jwt import BadToken, Keys
from netemu.apiserver.auth.service_accounts import ServiceAccountTokens
from netemu.apiserver.bootstrap import bootstrap
from netemu.apiserver.local import LocalClient
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.lab.authority import new_key
from netemu.model.errors import ApiError, Unauthorized
from netemu.model.resources import PODS, SERVICEACCOUNTS
from netemu.store.sqlite import SqliteStore

ISSUER = "https://kubernetes.default.svc.cluster.local"
KEYS = Keys(new_key())


class Clock:
    """A time that tests move."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def issuing(folder: Path) -> AsyncIterator[tuple[LocalClient, ServiceAccountTokens, Clock]]:
    """A cluster with the account `bot`, and its tokens."""
    store, clock = await SqliteStore.open(folder / "store.db"), Clock()
    registry = Registry(store, Schema.load(), ServiceAllocator(["10.96.0.0/16"]))
    await registry.start()
    client = LocalClient(registry)
    try:
        await bootstrap(client, api_address="172.18.0.2", api_port=6443)
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "bot"}}, "default")
        yield client, ServiceAccountTokens(registry, KEYS, ISSUER, "https://172.18.0.2:6443", now=clock), clock
    finally:
        await registry.close()
        await store.close()


def token(tokens: ServiceAccountTokens, **spec: Any) -> str:
    text: str = tokens.create("bot", "default", {"spec": spec})["status"]["token"]
    return text


async def test_a_token_is_its_account(tmp_path: Path) -> None:
    async with issuing(tmp_path) as (client, tokens, _):
        account = await client.get(SERVICEACCOUNTS, "bot", "default")
        user = tokens.user(token(tokens))

    assert (user.name, user.uid) == ("system:serviceaccount:default:bot", account["metadata"]["uid"])
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated")


async def test_it_ends_when_its_time_does(tmp_path: Path) -> None:
    async with issuing(tmp_path) as (_, tokens, clock):
        short = token(tokens, expirationSeconds=600)
        clock.now += 599
        tokens.user(short)
        clock.now += 1
        with pytest.raises(Unauthorized):
            tokens.user(short)


async def test_it_ends_with_its_account_even_if_a_new_one_has_the_name(tmp_path: Path) -> None:
    async with issuing(tmp_path) as (client, tokens, _):
        held = token(tokens)
        await client.delete(SERVICEACCOUNTS, "bot", "default")
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "bot"}}, "default")
        with pytest.raises(Unauthorized):
            tokens.user(held)


async def test_a_token_of_a_pod_names_it_lives_long_and_ends_with_it(tmp_path: Path) -> None:
    spec = {"serviceAccountName": "bot", "containers": [{"name": "c", "image": "nginx"}]}
    async with issuing(tmp_path) as (client, tokens, clock):
        pod = await client.create(PODS, {"metadata": {"name": "one"}, "spec": spec}, "default")
        ref = {"kind": "Pod", "apiVersion": "v1", "name": "one", "uid": pod["metadata"]["uid"]}
        held = token(tokens, expirationSeconds=3607, boundObjectRef=ref)
        clock.now += 7200
        extra = dict(tokens.user(held).extra)
        await client.delete(PODS, "one", "default", grace_period_seconds=0)
        with pytest.raises(Unauthorized):
            tokens.user(held)

    assert extra["authentication.kubernetes.io/pod-name"] == ("one",)


async def test_it_is_good_for_its_audiences_only(tmp_path: Path) -> None:
    async with issuing(tmp_path) as (_, tokens, _clock):
        vault = token(tokens, audiences=["vault"])
        with pytest.raises(Unauthorized):
            tokens.user(vault)
        there = tokens.review({"token": vault, "audiences": ["vault", "other"]})
        here = tokens.review({"token": vault})

    assert (there["authenticated"], there["audiences"]) == (True, ["vault"])
    assert here == {"user": {}, "error": "invalid bearer token"}


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"expirationSeconds": 599}, 422),
        ({"expirationSeconds": 2**32 + 1}, 422),
        ({"boundObjectRef": {"kind": "Pod", "name": "none"}}, 404),
        ({"boundObjectRef": {"kind": "Service", "name": "kubernetes"}}, 400),
    ],
)
async def test_what_cannot_be_had_is_refused(tmp_path: Path, spec: dict[str, Any], code: int) -> None:
    async with issuing(tmp_path) as (_, tokens, _clock):
        with pytest.raises(ApiError) as refused:
            token(tokens, **spec)

    assert refused.value.code == code


def _changed(text: str, part: int, value: str) -> str:
    parts = text.split(".")
    parts[part] = value
    return ".".join(parts)


def test_what_this_key_did_not_sign_is_no_token() -> None:
    good = KEYS.sign({"sub": "me"})
    other = Keys(new_key()).sign({"sub": "me"})
    none = _changed(_changed(good, 0, "eyJhbGciOiJub25lIn0"), 2, "")

    assert KEYS.read(good) == {"sub": "me"}
    for bad in (other, none, _changed(good, 1, other.split(".")[1][:-2]), good[:-4], "", "a.b.c", "ä.ö.ü", "...."):
        with pytest.raises(BadToken):
            KEYS.read(bad)


def test_others_can_check_a_token_by_the_published_key() -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    signed, _, signature = KEYS.sign({"sub": "me"}).rpartition(".")
    (key,) = KEYS.jwks()["keys"]
    header = msgspec.json.decode(_bytes(signed.split(".")[0]))
    x, y, raw = _bytes(key["x"]), _bytes(key["y"]), _bytes(signature)
    public = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1()).public_key()
    halves = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])

    assert (header["kid"], header["alg"], key["crv"]) == (key["kid"], "ES256", "P-256")
    public.verify(encode_dss_signature(*halves), signed.encode(), ec.ECDSA(hashes.SHA256()))


def _bytes(text: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def mounts_of(pod: dict[str, Any], account: dict[str, Any] | None) -> list[list[str]]:
    """The paths that each container has mounted after admission."""
    mount_api_access(pod, account)
    return [[mount["mountPath"] for mount in c.get("volumeMounts", [])] for c in pod["spec"]["containers"]]


@pytest.mark.parametrize(
    ("spec", "account", "mounted"),
    [
        ({}, {}, True),
        ({}, None, True),
        ({}, {"automountServiceAccountToken": False}, False),
        ({"automountServiceAccountToken": True}, {"automountServiceAccountToken": False}, True),
        ({"automountServiceAccountToken": False}, {}, False),
    ],
)
def test_pods_get_a_token_unless_they_or_their_account_decline(
    spec: dict[str, Any], account: dict[str, Any] | None, mounted: bool
) -> None:
    pod: dict[str, Any] = {"spec": {**spec, "containers": [{"name": "c"}]}}

    assert mounts_of(pod, account) == [[PLACE] if mounted else []]
    assert [volume["projected"]["defaultMode"] for volume in pod["spec"].get("volumes", [])] == [0o644] * mounted


def test_a_container_with_something_of_its_own_there_keeps_it() -> None:
    own = {"name": "mine", "mountPath": PLACE}
    pod: dict[str, Any] = {"spec": {"containers": [{"name": "a", "volumeMounts": [own]}, {"name": "b"}]}}

    assert mounts_of(pod, {}) == [[PLACE], [PLACE]]
    assert pod["spec"]["containers"][0]["volumeMounts"] == [own]
