"""Who holds a bootstrap token is `system:bootstrap:ID` in the group `system:bootstrappers`.

Upstream: `plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go`.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

from netemu.apiserver.auth.authentication import AUTHENTICATED, User
from netemu.apiserver.registry import Registry
from netemu.model.bootstrap_tokens import FORM, GROUP, NAMESPACE, PREFIX, SECRET_TYPE, USER_PREFIX, read_token
from netemu.model.resources import SECRETS


class BootstrapTokens:
    """Knows the tokens whose Secrets are there."""

    def __init__(self, registry: Registry, now: Callable[[], float] = time.time) -> None:
        self._registry, self._now = registry, now

    def user(self, token: str) -> User | None:
        """Whose token it is; None if it is none that is good now."""
        match = FORM.fullmatch(token)
        if match is None:
            return None
        found = self._registry.find(SECRETS, f"{PREFIX}{match[1]}", NAMESPACE)
        if found is None or found.get("type") != SECRET_TYPE or found["metadata"].get("deletionTimestamp"):
            return None
        known = read_token(found["metadata"]["name"], found.get("data") or {})
        # In the same time for every secret, so that nobody finds it out letter by letter.
        if known is None or not hmac.compare_digest(known.secret, match[2]):
            return None
        if not known.authenticates or known.ended(self._now()):
            return None
        return User(f"{USER_PREFIX}{known.id}", (*dict.fromkeys((GROUP, *known.groups)), AUTHENTICATED))
