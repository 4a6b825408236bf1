"""What is wrong with a value by the schema of its custom resource, in the words of upstream's validator.

A message names the value's path twice: once as the field that is wrong, once inside the text (`spec.port in body should
be ...`). Where alternatives fail (`oneOf` and the like) there is no one field, and upstream says `<nil>`; the failures
of the alternative that went furthest follow. An update is not held against what it leaves as it was (*ratcheting*).

Numbers' formats (int32, float ...) are not looked at, as upstream does not either.
Upstream: kube-openapi `validation/{validate,errors}`, `apiextensions-apiserver/pkg/apiserver/validation`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from netemu.apiserver.schema.structural import INT_OR_STRING, LIST_MAP_KEYS, LIST_TYPE
from netemu.apiserver.schema.structural_formats import fits_format
from netemu.apiserver.validation.fields import invalid, not_supported, required, too_long, too_many
from netemu.model.errors import FieldError

Json = Mapping[str, Any]
ABSENT: Final = object()
"""In the place of a value that is not there."""


def value_errors(schema: Json, value: Any, old: Any = ABSENT, *, prefix: str = "") -> list[FieldError]:
    """Everything wrong with a value. `old`: what it replaces; `prefix`: where in the object it is."""
    return _Validator(prefix).check(schema, value, old, "")[0]


Found = tuple[list[FieldError], int]
"""The errors, and how much of the schema was looked at, by which alternatives are compared."""


class _Validator:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def _at(self, path: str) -> str:
        """The field of an error, given its path below the value that is validated."""
        path = path.removeprefix(".")
        return f"{self._prefix}.{path}" if self._prefix and path else self._prefix or path or "<nil>"

    def _invalid(self, path: str, value: Any, text: str) -> FieldError:
        return invalid(self._at(path), value, f"{path} in body {text}")

    def _mistyped(self, path: str, value: str, expected: str) -> FieldError:
        text = f"Invalid value: {_quoted(value)}: {path} in body must be of type {expected}: {_quoted(value)}"
        return FieldError(self._at(path), "FieldValueTypeInvalid", text)

    def check(self, schema: Json, value: Any, old: Any, path: str) -> Found:
        """Errors of `value` at `path`."""
        if old is not ABSENT and old == value:
            return [], 1
        errors = [*self._type(schema, value, path)]
        if value is None:
            return [*errors, *self._enum(schema, value, path)], 1
        found, count = self._alternatives(schema, value, path)
        errors += found
        if isinstance(value, str):
            errors += self._text(schema, value, path)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            errors += self._number(schema, value, path)
        elif isinstance(value, list):
            found, more = self._list(schema, value, old, path)
            errors, count = [*errors, *found], count + more
        errors += self._enum(schema, value, path)
        if isinstance(value, dict):
            found, more = self._map(schema, value, old, path)
            errors, count = [*errors, *found], count + more
        return errors, count + 1

    def _type(self, schema: Json, value: Any, path: str) -> Iterator[FieldError]:
        types = ("integer", "string") if schema.get(INT_OR_STRING) else tuple(filter(None, [schema.get("type")]))
        if not types or (value is None and schema.get("nullable")):
            return
        found = type_name(value)
        if found == "number" and "integer" in types and float(value).is_integer():
            return
        if found in types or (found == "integer" and "number" in types):
            return
        yield self._mistyped(path, found, ",".join(types))

    def _enum(self, schema: Json, value: Any, path: str) -> Iterator[FieldError]:
        allowed = schema.get("enum")
        if allowed and not any(_same(value, one) for one in allowed):
            texts = [one if isinstance(one, str) else json.dumps(one, separators=(",", ":")) for one in allowed]
            yield not_supported(self._at(path), value, texts)

    def _text(self, schema: Json, value: str, path: str) -> Iterator[FieldError]:
        if (most := schema.get("maxLength")) is not None and len(value) > most:
            yield too_long(self._at(path), most)
        if (least := schema.get("minLength")) is not None and len(value) < least:
            yield self._invalid(path, value, f"should be at least {least} chars long")
        if (pattern := schema.get("pattern")) and not compiled(pattern).search(value):
            yield self._invalid(path, value, f"should match '{pattern}'")
        if (form := schema.get("format")) and not fits_format(form, value):
            yield self._mistyped(path, value, form)

    def _number(self, schema: Json, value: float, path: str) -> Iterator[FieldError]:
        if (factor := schema.get("multipleOf")) and not (value / factor).is_integer():
            yield self._invalid(path, value, f"should be a multiple of {_number_text(factor, value)}")
        if (most := schema.get("maximum")) is not None:
            exclusive = schema.get("exclusiveMaximum")
            if value > most or (exclusive and value == most):
                than = "less than" if exclusive else "less than or equal to"
                yield self._invalid(path, value, f"should be {than} {_number_text(most, value)}")
        if (least := schema.get("minimum")) is not None:
            exclusive = schema.get("exclusiveMinimum")
            if value < least or (exclusive and value == least):
                than = "greater than" if exclusive else "greater than or equal to"
                yield self._invalid(path, value, f"should be {than} {_number_text(least, value)}")

    def _list(self, schema: Json, value: list[Any], old: Any, path: str) -> Found:
        errors, count = list[FieldError](), 1
        if isinstance(items := schema.get("items"), dict):
            before = _by_key(schema, old)
            for index, item in enumerate(value):
                found, more = self.check(items, item, before.get(_key(schema, item), ABSENT), f"{path}[{index}]")
                errors, count = errors + found, count + more
        size = len(value)
        if (least := schema.get("minItems")) is not None and size < least:
            errors.append(self._invalid(path, size, f"should have at least {least} items"))
        if (most := schema.get("maxItems")) is not None and size > most:
            errors.append(too_many(self._at(path), size, most))
        return errors, count

    def _map(self, schema: Json, value: dict[str, Any], old: Any, path: str) -> Found:
        size = len(value)
        if (least := schema.get("minProperties")) is not None and size < least:
            return [self._invalid(path, size, f"should have at least {least} properties")], 0
        if (most := schema.get("maxProperties")) is not None and size > most:
            return [too_many(self._at(path), size, most)], 0
        errors, count = list[FieldError](), 1
        properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
        before = old if isinstance(old, dict) else {}
        for key, inner in value.items():
            below = properties.get(key, additional)
            if isinstance(below, dict):
                where = f"{path}.{key}" if path else key
                found, more = self.check(below, inner, before.get(key, ABSENT), where)
                errors, count = errors + found, count + more
            elif below is False:
                errors.append(invalid(self._at(path), key, f"{path}.{key} in body is a forbidden property"))
        for key in schema.get("required") or ():
            if key not in value:
                errors.append(required(self._at(f"{path}.{key}")))
        return errors, count

    def _alternatives(self, schema: Json, value: Any, path: str) -> Found:
        errors, count = list[FieldError](), 0
        for name, verdict in (("anyOf", self._any_of), ("oneOf", self._one_of), ("allOf", self._all_of)):
            if branches := schema.get(name):
                found, more = verdict([self.check(one, value, ABSENT, path) for one in branches], path)
                errors, count = errors + found, count + more
        if (excluded := schema.get("not")) is not None and not self.check(excluded, value, ABSENT, path)[0]:
            errors.append(self._composite(path, "must not validate the schema (not)"))
        return errors, count + 1

    def _composite(self, path: str, text: str) -> FieldError:
        return FieldError(self._prefix or "<nil>", "FieldValueInvalid", f'Invalid value: "": {_quoted(path)} {text}')

    def _any_of(self, results: list[Found], path: str) -> Found:
        for errors, count in results:
            if not errors:
                return [], count
        failed, count = max(results, key=lambda found: found[1])
        return [self._composite(path, "must validate at least one schema (anyOf)"), *failed], count

    def _one_of(self, results: list[Found], path: str) -> Found:
        valid = [found for found in results if not found[0]]
        if len(valid) == 1:
            return valid[0]
        what = "must validate one and only one schema (oneOf)."
        if valid:
            return [self._composite(path, f"{what} Found {len(valid)} valid alternatives")], 0
        failed, count = max(results, key=lambda found: found[1])
        return [self._composite(path, f"{what} Found none valid"), *failed], count

    def _all_of(self, results: list[Found], path: str) -> Found:
        errors = [error for found, _ in results for error in found]
        if errors:
            none = "" if any(not found for found, _ in results) else ". None validated"
            errors.append(self._composite(path, f"must validate all the schemas (allOf){none}"))
        return errors, sum(count for _, count in results)


def type_name(value: Any) -> str:
    """The JSON schema type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """Go's syntax as Python's, which differ in names of groups and in a few escapes. Raises re.error."""
    text = re.sub(r"\\z", r"\\Z", pattern)
    text = re.sub(r"\[:(\w+):\]", lambda match: _CLASSES.get(match[1], match[0]), text)
    # `$` is the very end in Go, but may stand before a last line break in Python.
    return re.compile(re.sub(r"(?<!\\)((?:\\\\)*)\$(?![^\[]*\])", r"\1\\Z", text), re.ASCII)


_CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "space": r"\s",
    "punct": r"!-/:-@\[-`{-~", "xdigit": "0-9A-Fa-f", "word": r"\w",
}  # fmt: skip


def _same(left: Any, right: Any) -> bool:
    return left == right and isinstance(left, bool) is isinstance(right, bool)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _number_text(bound: float, value: float) -> str:
    """A bound as Go prints it: whole where the value is, else with the fewest digits."""
    if isinstance(value, int):
        return str(int(bound))
    return f"{bound:g}" if float(f"{bound:g}") == bound else repr(float(bound))


def _by_key(schema: Json, old: Any) -> Mapping[Any, Any]:
    """The elements of a list before an update that can be told apart."""
    if not isinstance(old, list) or schema.get(LIST_TYPE) != "map":
        return {}
    return {key: item for item in old if (key := _key(schema, item)) is not None}


def _key(schema: Json, item: Any) -> Any:
    if schema.get(LIST_TYPE) != "map" or not isinstance(item, dict):
        return None
    return json.dumps([item.get(name) for name in schema.get(LIST_MAP_KEYS) or ()])
