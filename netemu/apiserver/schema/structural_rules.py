"""Rules in CEL that the schema of a custom resource has (`x-kubernetes-validations`).

A rule speaks of the value that its part of the schema describes (`self`), and may compare it with what it replaces
(`oldSelf`); such a rule holds for updates only, and only where new and old can be told to be the same part: not inside
of lists that are no maps, nor of atomic maps. Whether a rule can be evaluated is checked as it is defined, so that none
is ever passed over in silence. Rules hold for values that fit the rest of the schema; where something does not, that is
told first.

What upstream also does and this does not: it refuses rules that might cost too much, and knows the fields of every
object in advance (here those of `self`).
Upstream: `apiextensions-apiserver/pkg/apiserver/schema/cel`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from netemu.apiserver.schema.cel_functions import CelError, compiled
from netemu.apiserver.schema.structural import EMBEDDED, INT_OR_STRING, LIST_MAP_KEYS, LIST_TYPE, MAP_TYPE
from netemu.apiserver.schema.structural_values import ABSENT
from netemu.apiserver.schema.types import moment
from netemu.apiserver.validation.fields import forbidden, invalid, not_supported, required
from netemu.model.errors import FieldError

Json = Mapping[str, Any]
Errors = Iterator[FieldError]

RULES = "x-kubernetes-validations"
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_TEXTS = {
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueInvalid": "Invalid value",
    "FieldValueRequired": "Required value",
}
_BLOCKING = ("FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany",
             "FieldValueTypeInvalid")  # fmt: skip
_NOT_CHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)


def has_rules(schema: Any) -> bool:
    """Whether there is a rule anywhere in a schema."""
    if not isinstance(schema, dict):
        return False
    inner = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    return bool(schema.get(RULES)) or any(map(has_rules, inner))


def rule_errors(schema: Json, value: Any, old: Any, found: list[FieldError]) -> list[FieldError]:
    """Rules that a value breaks; `found` is what else is wrong with it. `old` is what it replaces, or ABSENT."""
    if not has_rules(schema):
        return []
    if any(error.reason in _BLOCKING for error in found):
        return [invalid("<nil>", None, _NOT_CHECKED)]
    return list(_broken(schema, value, old, ""))


def _broken(schema: Json, value: Any, old: Any, path: str) -> Errors:
    if value is None:
        return
    unchanged = old is not ABSENT and old == value
    for rule in schema.get(RULES) or ():
        transition = _uses_old(rule["rule"])
        if not (unchanged and not transition) and not (transition and old in (ABSENT, None)):
            yield from _broken_rule(schema, rule, value, old, path)
    for where, below, inner, before in _parts(schema, value, old, path):
        yield from _broken(below, inner, before, where)


def _broken_rule(schema: Json, rule: Json, value: Any, old: Any, path: str) -> Errors:
    text, kind = rule["rule"].strip(), schema.get("type") or ""
    variables = {"self": as_cel(schema, value), "oldSelf": None if old is ABSENT else as_cel(schema, old)}
    where = f"{path}{rule.get('fieldPath') or ''}".removeprefix(".") or "<nil>"
    said = rule.get("message") or f"failed rule: {text}"
    try:
        if compiled(text, _cel_type(schema), "bool")(variables):
            return
    except CelError as error:
        yield invalid(where, kind, f"{error} evaluating rule: {said}")
        return
    if expression := rule.get("messageExpression"):
        with contextlib.suppress(CelError):
            said = compiled(expression.strip(), _cel_type(schema), "string")(variables).strip() or said
    yield _error(where, rule.get("reason") or "FieldValueInvalid", kind, said)


def _error(path: str, reason: str, kind: str, said: str) -> FieldError:
    shown = f': "{kind}"' if reason in ("FieldValueInvalid", "FieldValueDuplicate") else ""
    detail = "" if reason == "FieldValueDuplicate" else f": {said}"
    return FieldError(path, reason, f"{_TEXTS[reason]}{shown}{detail}")


def _parts(schema: Json, value: Any, old: Any, path: str) -> Iterator[tuple[str, Json, Any, Any]]:
    """The parts of a value that the schema speaks of: path, schema, the part and what it replaces."""
    if isinstance(value, dict):
        properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
        before = old if isinstance(old, dict) and schema.get(MAP_TYPE) != "atomic" else {}
        for key, inner in value.items():
            if key in properties:
                yield f"{path}.{key}" if path else key, properties[key], inner, before.get(key, ABSENT)
            elif isinstance(additional, dict):
                yield f"{path}[{key}]", additional, inner, before.get(key, ABSENT)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        keys = schema.get(LIST_MAP_KEYS) or () if schema.get(LIST_TYPE) == "map" else ()
        known = {_key(item, keys): item for item in old} if keys and isinstance(old, list) else {}
        for at, inner in enumerate(value):
            yield f"{path}[{at}]", schema["items"], inner, known.get(_key(inner, keys), ABSENT)


def _key(item: Any, names: Any) -> Any:
    return tuple(str(item.get(name)) for name in names) if isinstance(item, dict) else None


# --- values and types -------------------------------------------------------------------------------------------------

_KEYWORDS = frozenset(
    {
        "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import",
        "let", "loop", "package", "namespace", "return",
    }
)  # fmt: skip
_ESCAPES = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))


def _escaped(name: str) -> str:
    """A property's name as rules write it."""
    if name in _KEYWORDS:
        return f"__{name}__"
    for plain, escaped in _ESCAPES:
        name = name.replace(plain, escaped)
    return name


def as_cel(schema: Json, value: Any, *, inside: bool = False) -> Any:
    """A value as a rule sees it: numbers of their type, times and durations, and names that can be written.

    The engine takes no times `inside` of maps and lists: they stay texts, which no rule may name (`_times`).
    """
    kind = schema.get("type")
    if isinstance(value, dict):
        properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
        inner = additional if isinstance(additional, dict) else {}
        return {
            (_escaped(key) if key in properties else key): as_cel(properties.get(key, inner), below, inside=True)
            for key, below in value.items()
        }
    if isinstance(value, list):
        items = schema["items"] if isinstance(schema.get("items"), dict) else {}
        return [as_cel(items, item, inside=True) for item in value]
    if kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == "integer" and isinstance(value, float):
        return int(value)
    form = schema.get("format") or ""
    if kind != "string" or not isinstance(value, str) or (inside and form in _TIMES):
        return value
    return _formatted(form, value)


def _formatted(form: str, text: str) -> str | bytes | datetime | timedelta:
    if form in ("date-time", "date"):
        return moment(text if "T" in text else f"{text}T00:00:00Z")
    if form == "duration":
        return _duration(text)
    if form == "byte":
        try:
            return base64.b64decode(text)
        except binascii.Error:
            return text
    return text


_TIMES = frozenset({"date-time", "date", "duration"})


def _times(schema: Json) -> set[str]:
    """The names of properties below a schema that are times or durations."""
    found: set[str] = set()
    for name, below in (schema.get("properties") or {}).items():
        found |= {_escaped(name)} if below.get("format") in _TIMES else set()
        found |= _times(below)
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        found |= _times(inner) if isinstance(inner, dict) else set()
    return found


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def _duration(text: str) -> timedelta:
    parts = re.findall(r"([\d.]+)\s*([a-zµμ]+)", text)
    seconds = sum(float(number) * _UNITS.get(unit, 0) for number, unit in parts)
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)


_SCALARS = {"integer": "int", "number": "double", "boolean": "bool"}
_FORMATS = {"date-time": "timestamp", "date": "timestamp", "duration": "duration", "byte": "bytes"}


def _cel_type(schema: Json) -> str:
    """The type of a schema's values, as CEL writes it."""
    kind = schema.get("type") or ""
    if schema.get(INT_OR_STRING):
        return "dyn"
    if kind == "object":
        additional = schema.get("additionalProperties")
        return f"map<string, {_cel_type(additional) if isinstance(additional, dict) else 'dyn'}>"
    if kind == "array":
        items = schema.get("items")
        return f"list<{_cel_type(items) if isinstance(items, dict) else 'dyn'}>"
    if kind == "string":
        return _FORMATS.get(schema.get("format") or "", "string")
    return _SCALARS.get(kind, "dyn")


# --- definitions ------------------------------------------------------------------------------------------------------


def rule_definition_errors(schema: Json, path: str, *, root: bool = True, uncorrelated: str = "") -> Errors:
    """Rules of a schema that cannot be evaluated. `uncorrelated`: the part that hides what a value replaces."""
    for at, rule in enumerate(schema.get(RULES) or ()):
        yield from _rule_definition(schema, rule, f"{path}.{RULES}[{at}]", root, uncorrelated)
    if isinstance(schema.get("items"), dict):
        hidden = uncorrelated or ("" if schema.get(LIST_TYPE) == "map" else path)
        yield from rule_definition_errors(schema["items"], f"{path}.items", root=False, uncorrelated=hidden)
    if isinstance(schema.get("additionalProperties"), dict):
        where = f"{path}.additionalProperties"
        below = schema["additionalProperties"]
        yield from rule_definition_errors(below, where, root=False, uncorrelated=uncorrelated)
    hidden = uncorrelated or (path if schema.get(MAP_TYPE) == "atomic" else "")
    for name, below in (schema.get("properties") or {}).items():
        where = f"{path}.properties[{name}]"
        yield from rule_definition_errors(below, where, root=False, uncorrelated=hidden)


def _rule_definition(schema: Json, rule: Json, path: str, root: bool, uncorrelated: str) -> Errors:
    text, message = (rule.get("rule") or "").strip(), rule.get("message") or ""
    if not text:
        yield required(f"{path}.rule", "rule is not specified")
        return
    if message and not message.strip():
        yield invalid(f"{path}.message", message, "message must be non-empty if specified")
    elif "\n" in message.strip():
        yield invalid(f"{path}.message", message, "message must not contain line breaks")
    elif "\n" in text and not message:
        yield required(f"{path}.message", "message must be specified if rule contains line breaks")
    if (reason := rule.get("reason")) and reason not in _REASONS:
        yield not_supported(f"{path}.reason", reason, _REASONS)
    if rule.get("optionalOldSelf"):
        yield forbidden(f"{path}.optionalOldSelf", "rules are evaluated here with oldSelf, or not at all")
    if uncorrelated and _uses_old(text):
        why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelated}"
        yield invalid(f"{path}.rule", text, why)
    yield from _expression(schema, text, f"{path}.rule", "bool", root)
    if expression := (rule.get("messageExpression") or "").strip():
        yield from _expression(schema, expression, f"{path}.messageExpression", "string", root)


def _expression(schema: Json, text: str, path: str, result: str, root: bool) -> Errors:
    try:
        compiled(text, _cel_type(schema), result)
    except CelError as error:
        yield invalid(path, text, str(error))
        return
    if times := _times(schema) & set(re.findall(r"\.\??([A-Za-z_]\w*)", _bare(text))):
        why = "are times or durations, of which only rules of the field itself can be evaluated here"
        yield forbidden(path, f"{', '.join(sorted(times))} {why}")
        return
    known = {_escaped(name) for name in schema.get("properties") or ()}
    if schema.get("type") != "object" or schema.get("additionalProperties") is not None:
        return
    known |= {"apiVersion", "kind", "metadata"} if root or schema.get(EMBEDDED) else set()
    for name in re.findall(r"(?<![\w.])(?:self|oldSelf)\.([A-Za-z_]\w*)(?!\w*\()", _bare(text)):
        if name not in known:
            yield invalid(path, text, f"compilation failed: ERROR: undefined field '{name}'")
            return


def _bare(text: str) -> str:
    """An expression without its literal texts."""
    return re.sub(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", "''", text)


def _uses_old(text: str) -> bool:
    return re.search(r"\boldSelf\b", _bare(text)) is not None
