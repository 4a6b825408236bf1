"""The formats of texts that schemas of custom resources can ask for.

A format that is not listed is ignored, as are those of numbers. Upstream: kube-openapi `validation/strfmt`,
`apiextensions-apiserver/pkg/apiserver/validation/formats.go`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Callable
from datetime import date
from email.utils import parseaddr
from urllib.parse import urlsplit

from netemu.apiserver.schema.types import moment
from netemu.apiserver.validation.fields import cidr_text, is_ip

_HEX = "[0-9a-f]"


def fits_format(form: str, text: str) -> bool:
    """Whether a text has a format; true of formats that nobody knows."""
    check = _FORMATS.get(form.replace("-", ""))
    return check is None or check(text)


def _regex(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.ASCII | re.IGNORECASE)
    return lambda text: compiled.fullmatch(text) is not None


def _uri(text: str) -> bool:
    with contextlib.suppress(ValueError):
        parts = urlsplit(text)
        return bool(parts.scheme or text.startswith("/")) and not re.search(r"[\x00-\x20\x7f]", text)
    return False


def _email(text: str) -> bool:
    address = parseaddr(text)[1]
    name, at, host = address.rpartition("@")
    return bool(name and at and host)


def _hostname(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return len(text) <= 255 and all(
        re.fullmatch(r"[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9])?", one) for one in labels
    )


def _mac(text: str) -> bool:
    return any(
        re.fullmatch(pattern, text, re.IGNORECASE)
        for size in (6, 8, 20)
        for pattern in (rf"{_HEX}{{2}}(?:([:-]){_HEX}{{2}})(?:\1{_HEX}{{2}}){{{size - 2}}}",
                        rf"{_HEX}{{4}}(?:\.{_HEX}{{4}}){{{size // 2 - 1}}}")
    )  # fmt: skip


def _date(text: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        return False
    with contextlib.suppress(ValueError):
        return bool(date.fromisoformat(text))
    return False


def _date_time(text: str) -> bool:
    with contextlib.suppress(ValueError):
        moment(text.upper().replace(" ", "T", 1))
        return True
    return False


def _base64(text: str) -> bool:
    with contextlib.suppress(binascii.Error, ValueError):
        base64.b64decode(text, validate=True)
        return True
    return False


_GO_DURATION = r"[+-]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)"
_SCALA_DURATION = (
    r"\d+\s*(?:ns|nano|nanos|nanosecond|nanoseconds|us|µs|micro|micros|microsecond|microseconds|ms|milli|millis|"
    r"millisecond|milliseconds|s|sec|secs|second|seconds|m|min|mins|minute|minutes|h|hr|hour|hours|d|day|days|w|week|weeks)"
)


def _isbn10(text: str) -> bool:
    digits = re.sub(r"[\s-]", "", text)
    if not re.fullmatch(r"\d{9}[\dX]", digits, re.ASCII):
        return False
    return sum((10 - at) * (10 if char == "X" else int(char)) for at, char in enumerate(digits)) % 11 == 0


def _isbn13(text: str) -> bool:
    digits = re.sub(r"[\s-]", "", text)
    if not re.fullmatch(r"\d{13}", digits, re.ASCII):
        return False
    return sum(int(char) * (3 if at % 2 else 1) for at, char in enumerate(digits)) % 10 == 0


_CARD = (
    r"(?:4\d{12}(?:\d{3})?|5[1-5]\d{14}|6(?:011|5\d\d)\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|(?:2131|1800|35\d{3})\d{11})"
)
_CHANNEL = r"\s*(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])\s*"


def _creditcard(text: str) -> bool:
    return re.fullmatch(_CARD, re.sub(r"\D", "", text), re.ASCII) is not None


def _uuid(version: str = "", variant: str = "") -> Callable[[str], bool]:
    third = version + f"{_HEX}{{3}}" if version else f"{_HEX}{{4}}"
    fourth = variant + f"{_HEX}{{3}}" if variant else f"{_HEX}{{4}}"
    return _regex(f"{_HEX}{{8}}-?{_HEX}{{4}}-?{third}-?{fourth}-?{_HEX}{{12}}")


_FORMATS: dict[str, Callable[[str], bool]] = {
    "bsonobjectid": _regex(f"{_HEX}{{24}}"),
    "byte": _base64,
    "cidr": lambda text: not cidr_text(text),
    "creditcard": _creditcard,
    "date": _date,
    "datetime": _date_time,
    "duration": _regex(f"{_GO_DURATION}|{_SCALA_DURATION}"),
    "email": _email,
    "hexcolor": _regex(f"#?(?:{_HEX}{{3}}|{_HEX}{{6}})"),
    "hostname": _hostname,
    "ipv4": lambda text: is_ip(text, 4),
    "ipv6": lambda text: is_ip(text, 6),
    "isbn": lambda text: _isbn10(text) or _isbn13(text),
    "isbn10": _isbn10,
    "isbn13": _isbn13,
    "mac": _mac,
    "rgbcolor": _regex(rf"rgb\({_CHANNEL},{_CHANNEL},{_CHANNEL}\)"),
    "ssn": _regex(r"\d{3}[- ]?\d{2}[- ]?\d{4}"),
    "uri": _uri,
    "uuid": _uuid(),
    "uuid3": _uuid("3"),
    "uuid4": _uuid("4", "[89ab]"),
    "uuid5": _uuid("5", "[89ab]"),
}
