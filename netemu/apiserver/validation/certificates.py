"""What is wrong with CertificateSigningRequests. Facts: `pkg/apis/certificates/validation` of Kubernetes 1.32."""

from __future__ import annotations

import base64

from netemu.apiserver.validation.fields import duplicate, invalid, not_supported, required
from netemu.client.base import Obj
from netemu.model.certificates import read_request
from netemu.model.errors import FieldError

_SHORTEST = 600
_LEGACY = "kubernetes.io/legacy-unknown"
_USAGES = (
    "signing", "digital signature", "content commitment", "key encipherment", "key agreement", "data encipherment",
    "cert sign", "crl sign", "encipher only", "decipher only", "any", "server auth", "client auth", "code signing",
    "email protection", "s/mime", "ipsec end system", "ipsec tunnel", "ipsec user", "timestamping", "ocsp signing",
    "microsoft sgc", "netscape sgc",
)  # fmt: skip


def validate_csr(obj: Obj, old: Obj | None) -> list[FieldError]:
    """Errors of a CertificateSigningRequest."""
    spec: Obj = obj.get("spec") or {}
    errors = _request(spec) if old is None else []
    usages = spec.get("usages") or []
    if not usages:
        errors.append(required("spec.usages", "usages are required"))
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            errors.append(not_supported(f"spec.usages[{index}]", usage, sorted(_USAGES)))
        elif usage in usages[:index]:
            errors.append(duplicate(f"spec.usages[{index}]", usage))
    errors += _signer(spec.get("signerName") or "")
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST:
        text = f"may not specify a duration less than {_SHORTEST} seconds (10 minutes)"
        errors.append(invalid("spec.expirationSeconds", seconds, text))
    return errors + _conditions((obj.get("status") or {}).get("conditions") or [])


def _request(spec: Obj) -> list[FieldError]:
    request = spec.get("request") or ""
    if not request:
        return [required("spec.request")]
    try:
        read_request(base64.b64decode(request))
    except ValueError as error:
        return [invalid("spec.request", request, str(error))]
    return []


def _signer(name: str) -> list[FieldError]:
    path = "spec.signerName"
    if not name:
        return [required(path)]
    if name == _LEGACY:
        return [invalid(path, name, "the legacy signerName is not allowed via this API version")]
    domain, slash, rest = name.partition("/")
    if not slash or not rest:
        return [invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")]
    if "." not in domain:
        return [invalid(path, domain, "should be a domain with at least two segments separated by dots")]
    return []


def _conditions(conditions: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: list[str] = []
    for index, condition in enumerate(conditions):
        path, kind, status = f"status.conditions[{index}]", condition.get("type") or "", condition.get("status") or ""
        if not kind:
            errors.append(required(f"{path}.type"))
        if kind in ("Approved", "Denied", "Failed") and status != "True":
            errors.append(not_supported(f"{path}.status", status, ("True",)) if status else required(f"{path}.status"))
        elif status not in ("True", "False", "Unknown"):
            errors.append(required(f"{path}.status"))
        if kind in seen:
            errors.append(duplicate(f"{path}.type", kind))
        if kind in ("Approved", "Denied") and {"Approved", "Denied"} <= {*seen, kind}:
            errors.append(invalid(f"{path}.type", kind, "Approved and Denied conditions are mutually exclusive"))
        seen.append(kind)
    return errors
