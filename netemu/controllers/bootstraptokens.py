"""Bootstrap tokens: those that have ended go, and those that sign put their mark under `cluster-info`.

The ConfigMap `cluster-info` of kube-public says where the API server is and which authority it has, to everybody. Who
joins with a token can tell by the signature that whoever wrote this knew the token's secret.
Upstream: `pkg/controller/bootstrap/{tokencleaner,bootstrapsigner,jws}.go`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Sequence

from netemu.controllers.actions import Action, Actions, Again, Delete, Patch
from netemu.controllers.cache import Cache
from netemu.controllers.loop import Queue
from netemu.model.bootstrap_tokens import NAMESPACE, SECRET_TYPE, BootstrapToken, read_token
from netemu.model.objects import ConfigMap, Secret
from netemu.model.resources import CONFIGMAPS, SECRETS

INFO, INFO_NAMESPACE, KUBECONFIG = "cluster-info", "kube-public", "kubeconfig"
_SIGNATURE = "jws-kubeconfig-"


def is_token(secret: Secret) -> bool:
    """Whether a Secret is where and what tokens' are."""
    return secret.type == SECRET_TYPE and secret.namespace == NAMESPACE


def cleaning(secret: Secret, now: float) -> Actions:
    """The end of a token that is over, or when to look again. Pure."""
    token = read_token(secret.name, secret.data or {})
    if token is None or token.expiration is None or secret.deleting:
        return []
    if token.ended(now):
        return [Delete(SECRETS, secret.name, NAMESPACE, uid=secret.metadata.uid)]
    return [Again(token.expiration - now)]


def signing(info: ConfigMap, tokens: Iterable[BootstrapToken]) -> Actions:
    """The signatures that are missing under `cluster-info`, wrong or too many. Pure."""
    data = info.data or {}
    text = data.get(KUBECONFIG, "")
    wanted = {f"{_SIGNATURE}{token.id}": signature(text, token) for token in tokens if token.signs and text}
    there = {key: value for key, value in data.items() if key.startswith(_SIGNATURE)}
    changes: dict[str, str | None] = {key: None for key in there if key not in wanted}
    changes |= {key: value for key, value in wanted.items() if there.get(key) != value}
    return [Patch(CONFIGMAPS, INFO, {"data": changes}, INFO_NAMESPACE)] if changes else []


def signature(text: str, token: BootstrapToken) -> str:
    """A JSON web signature (RFC 7515, HS256) without the text that it is of."""
    header = _base64(json.dumps({"alg": "HS256", "kid": token.id}, separators=(",", ":")).encode())
    signed = f"{header}.{_base64(text.encode())}"
    return f"{header}..{_base64(hmac.digest(token.secret.encode(), signed.encode(), hashlib.sha256))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenCleaner:
    """Watches the Secrets of tokens."""

    name = "token-cleaner"
    needs = (SECRETS,)

    def __init__(self, cache: Cache) -> None:
        self._secrets = cache.of(SECRETS, Secret)

    def watch(self, queue: Queue) -> None:
        """Each token that is new or changed."""
        self._secrets.on_change(lambda _, new: queue.mark(new.key) if new and is_token(new) else None)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        secret = self._secrets.get(key)
        return cleaning(secret, time.time()) if secret and is_token(secret) else ()


class BootstrapSigner:
    """Watches `cluster-info` and the Secrets of tokens."""

    name = "bootstrap-signer"
    needs = (SECRETS, CONFIGMAPS)

    def __init__(self, cache: Cache) -> None:
        self._secrets, self._config_maps = cache.of(SECRETS, Secret), cache.of(CONFIGMAPS, ConfigMap)

    def watch(self, queue: Queue) -> None:
        """Whatever the signatures depend on."""

        def of_secret(old: Secret | None, new: Secret | None) -> None:
            if any(is_token(one) for one in (old, new) if one):
                queue.mark(INFO)

        def of_config_map(_: ConfigMap | None, new: ConfigMap | None) -> None:
            if new is not None and new.key == f"{INFO_NAMESPACE}/{INFO}":
                queue.mark(INFO)

        self._secrets.on_change(of_secret)
        self._config_maps.on_change(of_config_map)

    async def decide(self, key: str) -> Sequence[Action]:
        """See Controller."""
        info = self._config_maps.get(f"{INFO_NAMESPACE}/{INFO}")
        if info is None:
            return ()
        secrets = [secret for secret in self._secrets.objects.values() if is_token(secret)]
        tokens = (read_token(secret.name, secret.data or {}) for secret in secrets if not secret.deleting)
        return signing(info, [token for token in tokens if token and not token.ended(time.time())])
