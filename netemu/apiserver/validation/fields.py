"""Building blocks of validation: upstream's error texts, and checks of single values.

Error texts are those of apimachinery `util/validation/field/errors.go`, as Go prints the values; checks and their
wording are those of `util/validation/validation.go`. A check of a value returns the reasons why it is wrong, as
upstream's do, so callers decide about path and kind of error.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

from netemu.model.errors import FieldError

IMMUTABLE = "field is immutable"
NOT_NEGATIVE = "must be greater than or equal to 0"

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + r"(\." + _LABEL + ")*"
_SUBDOMAIN_UNDERSCORES = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = "(" + _QUALIFIED + ")?"
_CONFIG_KEY = "[-._a-zA-Z0-9]+"
_PERCENT = "[0-9]+%"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"


# --- errors -------------------------------------------------------------------------------------------------------


def required(path: str, detail: str = "") -> FieldError:
    """`Required value: DETAIL`."""
    return FieldError(path, "FieldValueRequired", _with("Required value", detail))


def invalid(path: str, value: Any, detail: str = "") -> FieldError:
    """`Invalid value: "x": DETAIL`."""
    return FieldError(path, "FieldValueInvalid", _with(f"Invalid value: {go(value)}", detail))


def duplicate(path: str, value: Any) -> FieldError:
    """`Duplicate value: "x"`."""
    return FieldError(path, "FieldValueDuplicate", f"Duplicate value: {go(value)}")


def not_supported(path: str, value: Any, supported: Iterable[str]) -> FieldError:
    """`Unsupported value: "x": supported values: "A", "B"`."""
    texts = ", ".join(f'"{text}"' for text in supported)
    return FieldError(path, "FieldValueNotSupported", f"Unsupported value: {go(value)}: supported values: {texts}")


def forbidden(path: str, detail: str) -> FieldError:
    """`Forbidden: DETAIL`."""
    return FieldError(path, "FieldValueForbidden", f"Forbidden: {detail}")


def not_found(path: str, value: Any) -> FieldError:
    """`Not found: "x"`."""
    return FieldError(path, "FieldValueNotFound", f"Not found: {go(value)}")


def too_long(path: str, most: int) -> FieldError:
    """`Too long: may not be more than N bytes`."""
    return FieldError(path, "FieldValueTooLong", f"Too long: may not be more than {most} bytes")


def too_many(path: str, count: int, most: int) -> FieldError:
    """`Too many: 1001: must have at most 1000 items`."""
    noun = "item" if most == 1 else "items"
    return FieldError(path, "FieldValueTooMany", f"Too many: {count}: must have at most {most} {noun}")


def _with(text: str, detail: str) -> str:
    return f"{text}: {detail}" if detail else text


def go(value: Any) -> str:
    """A value as Go's `%q` or `%#v` prints it inside an error; structures without a Go name as JSON."""
    if value is None:
        return "null"
    if isinstance(value, (str, bool, int, float)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return "[]string{" + ", ".join(map(go, value)) + "}"
    if isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return "map[string]string{" + ", ".join(f"{go(k)}:{go(v)}" for k, v in sorted(value.items())) + "}"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def go_plain(value: Any) -> str:
    """A JSON value as Go's `%v` prints it, for example `map[name:web ports:[80 443]]`."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{go_plain(inner)}" for key, inner in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(go_plain, value)) + "]"
    if value is None:
        return "<nil>"
    return value if isinstance(value, str) else json.dumps(value)


def invalid_for(path: str, value: Any, reasons: Iterable[str]) -> list[FieldError]:
    """One Invalid per reason."""
    return [invalid(path, value, reason) for reason in reasons]


# --- texts ----------------------------------------------------------------------------------------------------------


_compiled = cache(re.compile)
"""There are a dozen patterns; every text of every object is held against some of them."""


def _matches(pattern: str, value: str) -> bool:
    return _compiled(pattern).fullmatch(value) is not None


def _regex_error(text: str, pattern: str, *examples: str) -> str:
    if not examples:
        return f"{text} (regex used for validation is '{pattern}')"
    listed = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {listed}regex used for validation is '{pattern}')"


def _too_long_reason(value: str, most: int) -> list[str]:
    return [f"must be no more than {most} characters"] if len(value) > most else []


def dns1123_label(value: str) -> list[str]:
    """Reasons why this is no DNS label, as names of Namespaces, containers and ports must be."""
    reasons = _too_long_reason(value, 63)
    if not _matches(_LABEL, value):
        if _matches(_SUBDOMAIN, value):
            return [*reasons, "must not contain dots"]
        text = (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
            "and must start and end with an alphanumeric character"
        )
        reasons.append(_regex_error(text, _LABEL, "my-name", "123-abc"))
    return reasons


def dns1123_subdomain(value: str) -> list[str]:
    """Reasons why this is no DNS subdomain, as names of most objects must be."""
    return _no_subdomain(value, _SUBDOMAIN, "'-' or '.'")


def wildcard_subdomain(value: str) -> list[str]:
    """Reasons why this is no DNS subdomain whose first label is `*`."""
    pattern = r"\*\." + _SUBDOMAIN
    reasons = _too_long_reason(value, 253)
    if not _matches(pattern, value):
        text = (
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist "
            "of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character"
        )
        reasons.append(_regex_error(text, pattern, "*.example.com"))
    return reasons


def dns1123_subdomain_with_underscores(value: str) -> list[str]:
    """Reasons why this is no search path of a Pod's resolver; a label may begin with `_` and have more inside."""
    return _no_subdomain(value, _SUBDOMAIN_UNDERSCORES, "'_', '-' or '.'")


def _no_subdomain(value: str, pattern: str, marks: str) -> list[str]:
    reasons = _too_long_reason(value, 253)
    if not _matches(pattern, value):
        text = (
            f"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, {marks}, "
            "and must start and end with an alphanumeric character"
        )
        reasons.append(_regex_error(text, pattern, "example.com"))
    return reasons


def dns1035_label(value: str) -> list[str]:
    """Reasons why this is no RFC 1035 label, as names of Services must be."""
    reasons = _too_long_reason(value, 63)
    if not _matches(_LABEL_1035, value):
        text = (
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
            "start with an alphabetic character, and end with an alphanumeric character"
        )
        reasons.append(_regex_error(text, _LABEL_1035, "my-name", "abc-123"))
    return reasons


def qualified_name(value: str) -> list[str]:
    """Reasons why this is no label or annotation key: an optional DNS prefix, `/`, and a name."""
    parts = value.split("/")
    if len(parts) > 2:
        return [
            f"a qualified name {_NAME_ERROR} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ]
    reasons: list[str] = []
    if len(parts) == 2:
        if not parts[0]:
            reasons.append("prefix part must be non-empty")
        else:
            reasons += [f"prefix part {reason}" for reason in dns1123_subdomain(parts[0])]
    name = parts[-1]
    if not name:
        reasons.append("name part must be non-empty")
    elif len(name) > 63:
        reasons += [f"name part {reason}" for reason in _too_long_reason(name, 63)]
    if not _matches(_QUALIFIED, name):
        reasons.append(f"name part {_NAME_ERROR}")
    return reasons


_NAME_ERROR = _regex_error(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _QUALIFIED, "MyName", "my.name", "123-abc",
)  # fmt: skip


def label_value(value: str) -> list[str]:
    """Reasons why this is no label value."""
    reasons = _too_long_reason(value, 63)
    if not _matches(_LABEL_VALUE, value):
        text = (
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
            "and must start and end with an alphanumeric character"
        )
        reasons.append(_regex_error(text, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return reasons


def domain_prefixed_path(path: str, value: str) -> list[FieldError]:
    """Errors of a name like `acme.io/foo`."""
    if not value:
        return [required(path)]
    host, _, rest = value.partition("/")
    if not host or not rest:
        return [invalid(path, value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    errors = invalid_for(path, host, dns1123_subdomain(host))
    if not _matches(_HTTP_PATH, rest):
        errors.append(invalid(path, rest, _regex_error("Invalid path", _HTTP_PATH)))
    return errors


def port_name(value: str) -> list[str]:
    """Reasons why this is no IANA service name, as names of container ports must be."""
    reasons = _too_long_reason(value, 15)
    if not _matches("[-a-z0-9]*", value):
        reasons.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        reasons.append("must contain at least one letter (a-z)")
    if "--" in value:
        reasons.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        reasons.append("must not begin or end with a hyphen")
    return reasons


def port_number(value: Any) -> list[str]:
    """Reasons why this is no port."""
    return between(value, 1, 65535)


def between(value: Any, low: int, high: int) -> list[str]:
    """Reasons why this number is outside of a range."""
    inside = isinstance(value, int) and low <= value <= high
    return [] if inside else [f"must be between {low} and {high}, inclusive"]


def ip_text(value: str) -> list[str]:
    """Reasons why this is no IP address."""
    return [] if is_ip(value) else ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]


def canonical_ip(value: str) -> list[str]:
    """Reasons why this is no IP address as it is written by the book, as names of IPAddresses must be."""
    if reasons := ip_text(value):
        return reasons
    canonical = str(ip_address(value))
    return [] if value == canonical else [f'must be in canonical form ("{canonical}")']


def is_ip(value: Any, version: int = 0) -> bool:
    """Whether this is the text of an IP address (of that version)."""
    try:
        return isinstance(value, str) and "%" not in value and version in (0, ip_address(value).version)
    except ValueError:
        return False


def cidr_text(value: str) -> list[str]:
    """Reasons why this is no CIDR; host bits may be set."""
    address, _, length = value.partition("/")
    # Python would also take a netmask behind the slash, and digits of other scripts.
    if is_ip(address) and length.isascii() and length.isdigit():
        with contextlib.suppress(ValueError):
            ip_network(value, strict=False)
            return []
    return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]


def config_key(value: str) -> list[str]:
    """Reasons why this is no key of a ConfigMap or Secret."""
    reasons = _too_long_reason(value, 253)
    if not _matches(_CONFIG_KEY, value):
        text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
        reasons.append(_regex_error(text, _CONFIG_KEY, "key.name", "KEY_NAME", "key-name"))
    elif value == ".":
        reasons.append("must not be '.'")
    elif value == "..":
        reasons.append("must not be '..'")
    elif value.startswith(".."):
        reasons.append("must not start with '..'")
    return reasons


def env_name(value: str) -> list[str]:
    """Reasons why this is no environment variable name (1.32: all printable ASCII but `=`)."""
    if value and all(" " <= char <= "~" and char != "=" for char in value):
        return []
    text = "a valid environment variable name must consist only of printable ASCII characters other than '='"
    return [text]


# --- parts of objects -------------------------------------------------------------------------------------------------


def one_of(path: str, value: Any, supported: Sequence[str]) -> list[FieldError]:
    """An error unless the value is one of those supported."""
    return [] if value in supported else [not_supported(path, value, supported)]


def not_negative(path: str, value: Any) -> list[FieldError]:
    """An error for a number below zero; None is fine."""
    return [invalid(path, value, NOT_NEGATIVE)] if isinstance(value, int) and value < 0 else []


def int_or_percent(path: str, value: Any) -> list[FieldError]:
    """An error unless the value is a number from zero on, or a text like `25%`."""
    if isinstance(value, int):
        return not_negative(path, value)
    if _matches(_PERCENT, value):
        return []
    text = (
        "a valid percent string must be a numeric string followed by an ending '%' "
        "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
    )
    return [invalid(path, value, text)]


def at_most_all(path: str, value: Any) -> list[FieldError]:
    """An error for a percentage above 100; numbers are fine."""
    if not isinstance(value, str) or not _matches(_PERCENT, value):
        return []
    digits = value.rstrip("%").lstrip("0")
    over = len(digits) > 3 or int(digits or 0) > 100
    return [invalid(path, value, "must not be greater than 100%")] if over else []


def labels(path: str, values: Mapping[str, str] | None) -> list[FieldError]:
    """Errors of a map of labels."""
    errors: list[FieldError] = []
    for key, value in (values or {}).items():
        errors += invalid_for(path, key, qualified_name(key))
        errors += invalid_for(path, value, label_value(value))
    return errors


def label_selector(path: str, selector: Mapping[str, Any] | None) -> list[FieldError]:
    """Errors of a `metav1.LabelSelector`."""
    errors: list[FieldError] = []
    selector = selector or {}
    for key, value in (selector.get("matchLabels") or {}).items():
        errors += invalid_for(f"{path}.matchLabels", key, qualified_name(key))
        errors += invalid_for(f"{path}.matchLabels", value, label_value(value))
    for index, term in enumerate(selector.get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{index}]"
        operator, values = term.get("operator", ""), term.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                errors.append(required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                errors.append(forbidden(f"{where}.values", text))
        else:
            errors.append(invalid(f"{where}.operator", operator, "not a valid selector operator"))
        errors += invalid_for(f"{where}.key", term.get("key", ""), qualified_name(term.get("key", "")))
        for at, value in enumerate(values):
            errors += invalid_for(f"{where}.values[{at}]", value, label_value(value))
    return errors


def immutable(path: str, new: Any, old: Any) -> list[FieldError]:
    """An error when a field changed that must not."""
    return [] if new == old else [invalid(path, new, IMMUTABLE)]
