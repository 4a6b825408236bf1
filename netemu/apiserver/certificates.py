"""CertificateSigningRequests in the API server: who has asked, what each way in may change, and who may do it.

The requester is written into a request when it is made, and from then on nothing of it changes but its status:
`/approval` sets the conditions Approved and Denied, which takes the verb `approve` on the signer, `/status` the
certificate and the condition Failed, which takes `sign`. Nobody gets a certificate of `system:masters` this way.
Upstream: `pkg/registry/certificates/certificates/strategy.go`, `plugin/pkg/admission/certificates`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from netemu.apiserver.auth.authentication import MASTERS, Attributes, Authorizer, User
from netemu.client.base import Obj
from netemu.model import times
from netemu.model.certificates import API_SERVER_CLIENT, read_request
from netemu.model.errors import FieldError, Forbidden, Invalid
from netemu.model.resources import CERTIFICATESIGNINGREQUESTS, Resource

DECIDED = ("Approved", "Denied")
_GROUP = CERTIFICATESIGNINGREQUESTS.group
_ASKER = ("username", "uid", "groups", "extra")


def stamp(csr: Obj, requester: User | None) -> None:
    """Write into a new request who makes it. Callers inside of the process say so themselves."""
    spec = csr.get("spec")
    if requester is None or not isinstance(spec, dict):
        return
    for field in _ASKER:
        spec.pop(field, None)
    info = requester.info()
    spec["username"] = info.pop("username")
    spec.update({key: value for key, value in info.items() if value})


def replaced(new: Obj, old: Obj, subresource: str) -> Obj:
    """What a write through `approval` or `status` leaves. Raises Invalid."""
    before: Obj = old.get("status") or {}
    after: Obj = dict(new.get("status") or {})
    theirs = _decisions(after) if subresource == "approval" else _others(after)
    if subresource == "approval":
        after["certificate"] = before.get("certificate", "")
        if missing := {one["type"] for one in _decisions(before)} - {one["type"] for one in theirs}:
            text = f"updates may not remove a condition of type {min(missing)!r}".replace("'", '"')
            raise _invalid(old, "status.conditions", f"Forbidden: {text}")
    elif _plain(_decisions(after)) != _plain(_decisions(before)):
        changed = next(iter(_decisions(after) or _decisions(before)))["type"]
        text = f'updates may not add, modify or remove a condition of type "{changed}"'
        raise _invalid(old, "status.conditions", f"Forbidden: {text}")
    elif before.get("certificate") and after.get("certificate") != before["certificate"]:
        raise _invalid(old, "status.certificate", "Forbidden: updates may not modify existing certificate content")
    if not after.get("certificate"):
        after.pop("certificate", None)
    for condition in after.get("conditions") or ():
        known = next((one for one in before.get("conditions") or () if one["type"] == condition["type"]), None)
        same = known is not None and known.get("status") == condition.get("status")
        since = known["lastTransitionTime"] if known and same and "lastTransitionTime" in known else times.now()
        condition["lastUpdateTime"] = condition.get("lastUpdateTime") or times.now()
        condition["lastTransitionTime"] = condition.get("lastTransitionTime") or since
    kept = {key: value for key, value in old.items() if key != "status"}
    return {**kept, "status": after} if after else kept


def _decisions(status: Obj) -> list[Obj]:
    return [one for one in status.get("conditions") or () if one.get("type") in DECIDED]


def _others(status: Obj) -> list[Obj]:
    return [one for one in status.get("conditions") or () if one.get("type") not in DECIDED]


def _plain(conditions: Iterable[Obj]) -> list[tuple[str, str]]:
    return [(one["type"], one.get("status", "")) for one in conditions]


def _invalid(csr: Obj, field: str, text: str) -> Invalid:
    problem = FieldError(field, "FieldValueForbidden", text)
    return Invalid.of_fields(CERTIFICATESIGNINGREQUESTS.kind, csr["metadata"]["name"], [problem], _GROUP)


class CertificateGuard:
    """An admission plugin: CertificateApproval, CertificateSigning and CertificateSubjectRestriction in one."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    def __call__(self, user: User, resource: Resource, obj: Obj, old: Obj | None) -> None:
        """See `admission.Plugin`."""
        if resource is not CERTIFICATESIGNINGREQUESTS:
            return
        name, signer = obj["metadata"]["name"], obj["spec"]["signerName"]
        if old is None:
            if signer == API_SERVER_CLIENT and MASTERS in _asked_groups(obj):
                _refuse(name, f"use of {signer} signer with {MASTERS} group is not allowed")
            return
        before, after = old.get("status") or {}, obj.get("status") or {}
        if _plain(_decisions(before)) != _plain(_decisions(after)):
            verb = "approve"
        elif before != after:
            verb = "sign"
        else:
            return
        if not self._may(user, verb, signer):
            _refuse(name, f'user not permitted to {verb} requests with signerName "{signer}"')

    def _may(self, user: User, verb: str, signer: str) -> bool:
        every = f"{signer.partition('/')[0]}/*"
        return any(
            self._authorizer.why(user, Attributes(verb, _GROUP, "*", "signers", name=name)) for name in (signer, every)
        )


def _asked_groups(csr: Obj) -> tuple[str, ...]:
    return read_request(base64.b64decode(csr["spec"]["request"])).organizations


def _refuse(name: str, why: str) -> None:
    details = {"name": name, "group": _GROUP, "kind": CERTIFICATESIGNINGREQUESTS.plural}
    raise Forbidden(f'{CERTIFICATESIGNINGREQUESTS} "{name}" is forbidden: {why}', details)
