"""Bootstrap tokens: how somebody who has no certificate yet shows that he may ask for one.

A token is `ID.SECRET`, kept in the Secret `bootstrap-token-ID` of kube-system, as `kubeadm token create` makes it.
Upstream: `k8s.io/cluster-bootstrap/token/api`, `plugin/pkg/auth/authenticator/token/bootstrap`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

from netemu.model import times

SECRET_TYPE, NAMESPACE, PREFIX = "bootstrap.kubernetes.io/token", "kube-system", "bootstrap-token-"
USER_PREFIX, GROUP = "system:bootstrap:", "system:bootstrappers"
FORM = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_EXTRA_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class BootstrapToken:
    """What the Secret of a token says."""

    id: str
    secret: str
    expiration: float | None
    """In seconds since 1970; None where it does not end."""
    authenticates: bool
    signs: bool
    groups: tuple[str, ...]

    def ended(self, now: float) -> bool:
        """Whether its time is over."""
        return self.expiration is not None and now >= self.expiration


def read_token(name: str, data: Mapping[str, str]) -> BootstrapToken | None:
    """The token of a Secret, its `data` in base64; None where the Secret is not one of a token's."""
    try:
        values = {key: base64.b64decode(value).decode() for key, value in data.items()}
        expiration = times.parse(values["expiration"]).timestamp() if values.get("expiration") else None
    except (binascii.Error, ValueError):  # a Secret that cannot be read lets nobody in
        return None
    token = f"{values.get('token-id', '')}.{values.get('token-secret', '')}"
    if not FORM.fullmatch(token) or name != f"{PREFIX}{values['token-id']}":
        return None
    extra = tuple(filter(None, values.get("auth-extra-groups", "").split(",")))
    if not all(map(_EXTRA_GROUP.fullmatch, extra)):
        return None
    return BootstrapToken(
        values["token-id"],
        values["token-secret"],
        expiration,
        values.get("usage-bootstrap-authentication") == "true",
        values.get("usage-bootstrap-signing") == "true",
        extra,
    )
