"""Bootstrap tokens: who they let in, when they go, and what they sign."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from netemu.apiserver.allocation import ServiceAllocator
from netemu.apiserver.auth.authentication import UNSECURED, AllowAuthenticated
from netemu.apiserver.auth.bootstrap_tokens import BootstrapTokens
from netemu.apiserver.auth.jwt import Keys
from netemu.apiserver.auth.service_accounts import ServiceAccountTokens
from netemu.apiserver.http.handlers_reviews import TOKEN_REVIEWS, answer
from netemu.apiserver.http.routing import Target
from netemu.apiserver.registry import Registry
from netemu.apiserver.schema.kinds import Schema
from netemu.controllers.actions import Again, Delete, Patch
from netemu.controllers.bootstraptokens import cleaning, signing
from netemu.lab.authority import new_key
from netemu.model import times
from netemu.model.bootstrap_tokens import read_token
from netemu.model.meta import decode
from netemu.model.objects import ConfigMap, Secret
from netemu.model.resources import NAMESPACES, SECRETS
from netemu.testing.store import MemoryStore

NOW = times.parse("2026-06-01T00:00:00Z").timestamp()
TOKEN = "abcdef.0123456789abcdef"
FIELDS = {
    "token-id": "abcdef",
    "token-secret": "0123456789abcdef",
    "usage-bootstrap-authentication": "true",
    "usage-bootstrap-signing": "true",
    "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
}


def secret(name: str = "bootstrap-token-abcdef", **change: str) -> dict[str, Any]:
    fields = {**FIELDS, **{key.replace("_", "-"): value for key, value in change.items()}}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in fields.items() if value}
    kind = "bootstrap.kubernetes.io/token"
    return {"metadata": {"name": name, "namespace": "kube-system", "uid": "u"}, "type": kind, "data": data}


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    store = MemoryStore()
    running = Registry(store, Schema.load(), ServiceAllocator(["10.96.0.0/16"]))
    await running.start()
    for name in ("kube-system", "default"):
        await running.create(NAMESPACES, {"metadata": {"name": name}})
    yield running
    await running.close()
    await store.close()


@pytest.mark.parametrize(
    ("made", "namespace", "shown", "groups"),
    [
        (secret(), "kube-system", TOKEN, ["system:bootstrappers", FIELDS["auth-extra-groups"]]),
        (secret(auth_extra_groups=""), "kube-system", TOKEN, ["system:bootstrappers"]),
        (
            secret(expiration="2027-01-01T00:00:00Z", auth_extra_groups=""),
            "kube-system",
            TOKEN,
            ["system:bootstrappers"],
        ),
        (secret(expiration="2026-01-01T00:00:00Z"), "kube-system", TOKEN, None),
        (secret(expiration="tomorrow"), "kube-system", TOKEN, None),
        (secret(), "kube-system", "abcdef.0123456789abcdeF", None),
        (secret(), "kube-system", "abcdef.0123456789abcde0", None),
        (secret(), "kube-system", "abcdeg.0123456789abcdef", None),
        (secret(), "default", TOKEN, None),
        (secret("other"), "kube-system", TOKEN, None),
        (secret(token_id="abcdeg"), "kube-system", TOKEN, None),
        ({**secret(), "type": "Opaque"}, "kube-system", TOKEN, None),
        (secret(usage_bootstrap_authentication=""), "kube-system", TOKEN, None),
        (secret(usage_bootstrap_authentication="yes"), "kube-system", TOKEN, None),
        (secret(auth_extra_groups="system:masters"), "kube-system", TOKEN, None),
    ],
)
async def test_who_a_token_lets_in(
    registry: Registry, made: dict[str, Any], namespace: str, shown: str, groups: list[str] | None
) -> None:
    await registry.create(SECRETS, {**made, "metadata": {"name": made["metadata"]["name"]}}, namespace)
    user = BootstrapTokens(registry, now=lambda: NOW).user(shown)

    assert (user is None) is (groups is None)
    if user:
        assert (user.name, list(user.groups)) == ("system:bootstrap:abcdef", [*(groups or ()), "system:authenticated"])


@pytest.mark.parametrize(
    ("shown", "audiences", "username"),
    [
        (TOKEN, [], "system:bootstrap:abcdef"),
        (TOKEN, ["https://issuer"], "system:bootstrap:abcdef"),
        (TOKEN, ["https://other"], None),
        ("abcdef.0123456789abcde0", [], None),
    ],
)
async def test_a_review_knows_them_too(
    registry: Registry, shown: str, audiences: list[str], username: str | None
) -> None:
    await registry.create(SECRETS, {**secret(), "metadata": {"name": "bootstrap-token-abcdef"}}, "kube-system")
    tokens = ServiceAccountTokens(registry, Keys(new_key()), "https://issuer", "https://server")
    review = {"spec": {"token": shown, "audiences": audiences}}
    known = BootstrapTokens(registry).user
    status = answer(Target(TOKEN_REVIEWS), review, UNSECURED, AllowAuthenticated(), tokens, known)["status"]

    assert status.get("authenticated", False) is (username is not None)
    assert status["user"].get("username") == username


@pytest.mark.parametrize(
    ("expiration", "action"),
    [("", None), ("2026-06-01T00:01:00Z", Again(60.0)), ("2026-05-31T00:00:00Z", Delete)],
)
def test_a_token_goes_when_its_time_is_over(expiration: str, action: Any) -> None:
    found = cleaning(decode(secret(expiration=expiration), Secret), NOW)

    if action is Delete:
        assert isinstance(found[0], Delete)
        assert found[0].uid == "u"
    else:
        assert found == ([action] if action else [])


def info(**data: str) -> ConfigMap:
    return decode({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "text", **data}}, ConfigMap)


def test_who_knows_the_secret_can_tell_who_signed() -> None:
    made = secret()
    token = read_token(made["metadata"]["name"], made["data"])
    assert token is not None
    (patch,) = signing(info(), [token])

    assert isinstance(patch, Patch)
    ((key, mark),) = patch.patch["data"].items()
    header, nothing, signed = mark.split(".")
    text = base64.urlsafe_b64encode(b"text").rstrip(b"=").decode()
    right = hmac.digest(FIELDS["token-secret"].encode(), f"{header}.{text}".encode(), hashlib.sha256)
    assert (key, nothing) == ("jws-kubeconfig-abcdef", "")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "HS256", "kid": "abcdef"}
    assert base64.urlsafe_b64decode(signed + "=") == right
    assert signing(info(**{key: mark}), [token]) == []


def test_signatures_of_tokens_that_are_gone_go() -> None:
    (patch,) = signing(info(**{"jws-kubeconfig-gone": "x"}), [])

    assert isinstance(patch, Patch)
    assert patch.patch == {"data": {"jws-kubeconfig-gone": None}}
