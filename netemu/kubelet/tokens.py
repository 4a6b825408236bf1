"""The tokens that Pods mount: asked for as the Pod's ServiceAccount, kept, and renewed before they end.

Upstream: `pkg/kubelet/token/token_manager.go`: after four fifths of its time, and at the latest after a day.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from netemu.client.base import Client
from netemu.model import times
from netemu.model.errors import ApiError, NotFound, UserError
from netemu.model.pods import Pod
from netemu.model.resources import SERVICEACCOUNTS

log = logging.getLogger(__name__)

_SPENT, _LONGEST = 0.8, 24 * 3600.0
_RETRY = 60.0
"""Seconds until a renewal that failed is tried again; the token that is there is good for longer."""


@dataclass(frozen=True, slots=True)
class TokenAsk:
    """What a volume asks for."""

    audience: str
    seconds: int


@dataclass(frozen=True, slots=True)
class _Held:
    token: bytes
    renew_at: float


class Tokens:
    """Those of the Pods of one node."""

    def __init__(self, client: Client, now: Callable[[], float] = time.time) -> None:
        self._client, self._now = client, now
        self._held: dict[tuple[str, TokenAsk], _Held] = {}

    async def of(self, pod: Pod, ask: TokenAsk) -> bytes:
        """A token that is good for a while. Raises UserError without the account, ApiError if there is none at all."""
        key, now = (pod.metadata.uid, ask), self._now()
        held = self._held.get(key)
        if held is not None and now < held.renew_at:
            return held.token
        try:
            held = await self._ask(pod, ask, now)
        except NotFound as error:
            raise UserError(f"failed to fetch token: {error.message}") from error
        except ApiError as error:
            if held is None:
                raise
            log.warning("token of Pod %s: %s; again in %.0f s", pod.key, error, _RETRY)
            held = _Held(held.token, now + _RETRY)
        self._held[key] = held
        return held.token

    async def _ask(self, pod: Pod, ask: TokenAsk, now: float) -> _Held:
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.metadata.uid}
        spec = {
            "audiences": [ask.audience] if ask.audience else [],
            "expirationSeconds": ask.seconds,
            "boundObjectRef": bound,
        }
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        account = pod.spec.service_account_name or "default"
        answer = await self._client.create_subresource(SERVICEACCOUNTS, account, "token", body, pod.namespace)
        status = answer["status"]
        lifetime = times.parse(status["expirationTimestamp"]).timestamp() - now
        return _Held(status["token"].encode(), now + min(_SPENT * lifetime, _LONGEST))

    def renew_in(self, uid: str) -> float | None:
        """Seconds until the first token of a Pod has to be renewed; None where it has none."""
        due = [held.renew_at for (owner, _), held in self._held.items() if owner == uid]
        return max(1.0, min(due) - self._now()) if due else None

    def forget(self, uid: str) -> None:
        """The Pod has ended."""
        for key in [key for key in self._held if key[0] == uid]:
            del self._held[key]
