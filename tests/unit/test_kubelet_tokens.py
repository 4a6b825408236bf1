"""Tokens of Pods are renewed in time, and outlast an API server that is away."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from netemu.client.base import Obj
from netemu.kubelet.tokens import TokenAsk, Tokens
from netemu.model.errors import NotFound, ServiceUnavailable, UserError
from netemu.model.meta import decode
from netemu.model.pods import Pod
from netemu.model.resources import Resource
from netemu.model.times import time_text
from netemu.testing.client import FakeClient

POD = decode(
    {"metadata": {"name": "web", "namespace": "shop", "uid": "u1"}, "spec": {"serviceAccountName": "bot"}}, Pod
)
HOUR = TokenAsk("", 3600)
BEGIN = 1_800_000_000.0


class Issuer(FakeClient):
    """Numbers the tokens that it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.given, self.now = 0, BEGIN
        self.failure: Exception | None = None

    async def create_subresource(
        self, resource: Resource, name: str, subresource: str, body: Mapping[str, Any], namespace: str = ""
    ) -> Obj:
        if self.failure:
            raise self.failure
        self.given += 1
        ends = datetime.fromtimestamp(self.now + body["spec"]["expirationSeconds"], UTC)
        token = f"{namespace}/{name}:{subresource}:{body['spec']['boundObjectRef']['uid']}:{self.given}"
        return {"status": {"token": token, "expirationTimestamp": time_text(ends)}}


async def test_a_token_is_kept_until_four_fifths_of_its_time() -> None:
    issuer = Issuer()
    tokens = Tokens(issuer, lambda: issuer.now)

    first = await tokens.of(POD, HOUR)
    issuer.now += 2879
    kept = await tokens.of(POD, HOUR)
    issuer.now += 1
    renewed = await tokens.of(POD, HOUR)

    assert (first, kept, renewed) == (b"shop/bot:token:u1:1", b"shop/bot:token:u1:1", b"shop/bot:token:u1:2")
    assert tokens.renew_in("u1") == 2880


async def test_a_failed_renewal_leaves_the_old_token_and_is_tried_again() -> None:
    issuer = Issuer()
    tokens = Tokens(issuer, lambda: issuer.now)
    first = await tokens.of(POD, HOUR)

    issuer.now += 3000
    issuer.failure = ServiceUnavailable("away")
    still = await tokens.of(POD, HOUR)
    again = tokens.renew_in("u1")

    assert (still, again) == (first, 60)


async def test_no_account_no_token() -> None:
    issuer = Issuer()
    issuer.failure = NotFound('serviceaccounts "bot" not found')
    with pytest.raises(UserError, match='failed to fetch token: serviceaccounts "bot" not found'):
        await Tokens(issuer, lambda: issuer.now).of(POD, HOUR)
