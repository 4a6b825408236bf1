"""The one error tree.

    NetemuError
    ├── UserError            a mistake in a file, a flag or a name: one line says what, where and what would be right
    ├── KernelError          the kernel or one of its tools refused an operation
    │   ├── KernelNotFound   ENOENT, ESRCH, ENODEV
    │   ├── KernelExists     EEXIST
    │   ├── KernelBusy       EBUSY
    │   └── KernelDenied     EPERM, EACCES
    └── ApiError             what an API server answers with a `Status`: `code`, `reason`, `details`
        ├── BadRequest 400   ├── Unauthorized 401   ├── Forbidden 403        ├── NotFound 404
        ├── MethodNotAllowed 405  ├── NotAcceptable 406  ├── AlreadyExists 409  ├── Conflict 409
        ├── Expired 410      ├── UnsupportedMediaType 415  ├── Invalid 422   ├── TooManyRequests 429
        └── InternalError 500  └── ServiceUnavailable 503

`KernelError`s are ours to mend, `ApiError`s are the answer to a request, `UserError`s are for a person to read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class NetemuError(Exception):
    """Base of everything netemu raises on purpose."""


class UserError(NetemuError):
    """A person's mistake. The text is one line; the command line prints it and exits with 1."""

    placed: ClassVar[bool] = False
    """Whether the text begins with `FILE:LINE:`, as compilers have it; then nothing is put before it."""


def reason(error: OSError | UnicodeError) -> str:
    """Why a file could not be read, without its name: whoever tells it has named the file."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


class KernelError(NetemuError):
    """The kernel, or a tool in front of it, refused `operation` in namespace `where`."""

    def __init__(self, operation: str, where: str = "", code: int = 0, detail: str = "") -> None:
        self.operation, self.where, self.code, self.detail = operation, where, code, detail
        why = detail or (os.strerror(code) if code else "failed")
        super().__init__(f"{operation}{f' in {where}' if where else ''}: {why}")

    @staticmethod
    def of(operation: str, where: str, code: int, detail: str = "") -> KernelError:
        """The subclass that fits errno `code`."""
        kind = _BY_ERRNO.get(code, KernelError)
        return kind(operation, where, code, detail)


class KernelNotFound(KernelError):
    """Nothing of that name is there."""


class KernelExists(KernelError):
    """Something of that name is there already."""


class KernelBusy(KernelError):
    """Something else still uses it."""


class KernelDenied(KernelError):
    """Not permitted: root, or a capability, is missing."""


_BY_ERRNO = {
    errno.ENOENT: KernelNotFound,
    errno.ESRCH: KernelNotFound,
    errno.ENODEV: KernelNotFound,
    errno.EEXIST: KernelExists,
    errno.EBUSY: KernelBusy,
    errno.EPERM: KernelDenied,
    errno.EACCES: KernelDenied,
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field of an object, as `Status.details.causes` tells it.

    `reason` is upstream's cause type (apimachinery `validation/field/errors.go`): FieldValueRequired,
    FieldValueInvalid, FieldValueDuplicate, FieldValueNotSupported, FieldValueForbidden, FieldValueNotFound.
    `message` is upstream's text without the path, for example `Invalid value: "x": must be a number`.
    """

    path: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ApiError(NetemuError):
    """A request was answered with a failure `Status`."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message, self.details = message, dict(details or {})

    def status(self) -> dict[str, Any]:
        """The `Status` object that goes over the wire."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            body["details"] = self.details
        return body

    @staticmethod
    def of(status: Mapping[str, Any]) -> ApiError:
        """The error that a received `Status` stands for; unknown reasons keep their code and text."""
        code, reason = int(status.get("code") or 500), str(status.get("reason") or "")
        kind = _BY_REASON.get(reason) or _BY_CODE.get(code, InternalError)
        return kind(str(status.get("message") or reason or f"HTTP {code}"), status.get("details"))


class BadRequest(ApiError):
    """The request cannot be understood."""

    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    """Nobody knows who asks."""

    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    """Known, and not allowed."""

    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    """No such object."""

    code, reason = 404, "NotFound"

    @staticmethod
    def named(plural: str, name: str, group: str = "") -> NotFound:
        """`pods "x" not found`, as kubectl prints it."""
        full = f"{plural}.{group}" if group else plural
        return NotFound(f'{full} "{name}" not found', _details(plural, name, group))


class MethodNotAllowed(ApiError):
    """The resource has no such verb."""

    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    """No representation that the client accepts."""

    code, reason = 406, "NotAcceptable"


class AlreadyExists(ApiError):
    """An object of that name exists."""

    code, reason = 409, "AlreadyExists"

    @staticmethod
    def named(plural: str, name: str, group: str = "") -> AlreadyExists:
        """`pods "x" already exists`."""
        full = f"{plural}.{group}" if group else plural
        return AlreadyExists(f'{full} "{name}" already exists', _details(plural, name, group))


class Conflict(ApiError):
    """The object changed since it was read, or a precondition does not hold."""

    code, reason = 409, "Conflict"

    @staticmethod
    def named(plural: str, name: str, group: str = "", why: str = "") -> Conflict:
        """The text that clients match on when they retry."""
        full = f"{plural}.{group}" if group else plural
        why = why or "the object has been modified; please apply your changes to the latest version and try again"
        return Conflict(f'Operation cannot be fulfilled on {full} "{name}": {why}', _details(plural, name, group))


class Expired(ApiError):
    """The resource version is older than the history, or newer than now; `continue_` is how a list goes on then."""

    code, reason = 410, "Expired"

    def __init__(self, message: str, details: Mapping[str, Any] | None = None, *, continue_: str = "") -> None:
        super().__init__(message, details)
        self.continue_ = continue_

    def status(self) -> dict[str, Any]:
        """See ApiError."""
        return {**super().status(), "metadata": {"continue": self.continue_} if self.continue_ else {}}


class UnsupportedMediaType(ApiError):
    """The body is of a type this server does not read."""

    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    """The object breaks the rules of its kind."""

    code, reason = 422, "Invalid"

    @staticmethod
    def of_fields(kind: str, name: str, errors: Sequence[FieldError], group: str = "") -> Invalid:
        """`Service "x" is invalid: spec.ports[0].port: Invalid value: ...` with a cause per field."""
        texts = [str(error) for error in errors]
        joined = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
        full = f"{kind}.{group}" if group else kind
        causes = [{"reason": e.reason, "message": e.message, "field": e.path} for e in errors]
        return Invalid(f'{full} "{name}" is invalid: {joined}', {**_details(kind, name, group), "causes": causes})


class TooManyRequests(ApiError):
    """Come back later."""

    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    """The server is at fault."""

    code, reason = 500, "InternalError"


class ServiceUnavailable(ApiError):
    """The server cannot answer now; with a full disk, cannot write."""

    code, reason = 503, "ServiceUnavailable"


def _details(kind: str, name: str, group: str) -> dict[str, Any]:
    return {"name": name, **({"group": group} if group else {}), "kind": kind}


_KINDS: tuple[type[ApiError], ...] = (
    BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, Conflict, AlreadyExists, Expired,
    UnsupportedMediaType, Invalid, TooManyRequests, InternalError, ServiceUnavailable,
)  # fmt: skip
_BY_REASON: dict[str, type[ApiError]] = {kind.reason: kind for kind in _KINDS} | {"Gone": Expired}
_BY_CODE: dict[int, type[ApiError]] = {kind.code: kind for kind in reversed(_KINDS)}
