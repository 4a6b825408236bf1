"""What the schema of a custom resource refuses, in upstream's words, and where a column finds its value."""

from __future__ import annotations

from typing import Any

import pytest

from netemu.apiserver.jsonpath import BadPath, JsonPath
from netemu.apiserver.schema.structural import conformed
from netemu.apiserver.schema.structural_formats import fits_format
from netemu.apiserver.schema.structural_values import value_errors
from netemu.apiserver.validation.custom import validate_custom
from netemu.model.custom import Custom, Names, Scale, Subresources, Validation, Version


def errors(schema: dict[str, Any], value: Any, old: Any = None) -> list[str]:
    """Of a value at `spec.x`."""
    root = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": schema}}}}
    before = () if old is None else ({"spec": {"x": old}},)
    return [str(error) for error in value_errors(root, {"spec": {"x": value}}, *before)]


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        (WHOLE, "a", 'Invalid value: "string": spec.x in body must be of type integer: "string"'),
        (WHOLE, 1.5, 'Invalid value: "number": spec.x in body must be of type integer: "number"'),
        (WHOLE, True, 'Invalid value: "boolean": spec.x in body must be of type integer: "boolean"'),
        (TEXT, None, 'Invalid value: "null": spec.x in body must be of type string: "null"'),
        ({"type": "object"}, [], 'Invalid value: "array": spec.x in body must be of type object: "array"'),
        ({"x-kubernetes-int-or-string": True}, 1.5,
         'Invalid value: "number": spec.x in body must be of type integer,string: "number"'),
        ({**TEXT, "enum": ["a", "b"]}, "c", 'Unsupported value: "c": supported values: "a", "b"'),
        ({**WHOLE, "enum": [1, 2]}, 3, 'Unsupported value: 3: supported values: "1", "2"'),
        ({**TEXT, "maxLength": 2}, "äöü", "Too long: may not be more than 2 bytes"),
        ({**TEXT, "minLength": 2}, "ä", 'Invalid value: "ä": spec.x in body should be at least 2 chars long'),
        ({**TEXT, "pattern": "^a$"}, "a\n", "Invalid value: \"a\\n\": spec.x in body should match '^a$'"),
        ({**TEXT, "format": "date-time"}, "now",
         'Invalid value: "now": spec.x in body must be of type date-time: "now"'),
        ({**WHOLE, "minimum": 1}, 0, "Invalid value: 0: spec.x in body should be greater than or equal to 1"),
        ({**WHOLE, "minimum": 1, "exclusiveMinimum": True}, 1,
         "Invalid value: 1: spec.x in body should be greater than 1"),
        ({"type": "number", "maximum": 1.5}, 2.5,
         "Invalid value: 2.5: spec.x in body should be less than or equal to 1.5"),
        ({"type": "number", "maximum": 2, "exclusiveMaximum": True}, 2.0,
         "Invalid value: 2.0: spec.x in body should be less than 2"),
        ({**WHOLE, "multipleOf": 5}, 7, "Invalid value: 7: spec.x in body should be a multiple of 5"),
        ({"type": "array", "items": TEXT, "maxItems": 1}, ["a", "b"], "Too many: 2: must have at most 1 item"),
        ({"type": "array", "items": TEXT, "minItems": 1}, [],
         "Invalid value: 0: spec.x in body should have at least 1 items"),
        ({"type": "object", "additionalProperties": TEXT, "maxProperties": 1}, {"a": "", "b": ""},
         "Too many: 2: must have at most 1 item"),
        ({"type": "object", "additionalProperties": TEXT, "minProperties": 1}, {},
         "Invalid value: 0: spec.x in body should have at least 1 properties"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit(schema: dict[str, Any], value: Any, told: str) -> None:
    assert errors(schema, value) == [f"spec.x: {told}"]


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        pytest.param({"type": "array", "items": WHOLE}, [1, "a"],
                     ['spec.x[1]: Invalid value: "string": spec.x[1] in body must be of type integer: "string"'],
                     id="element of a list"),
        pytest.param({"type": "object", "additionalProperties": WHOLE}, {"k": "a"},
                     ['spec.x.k: Invalid value: "string": spec.x.k in body must be of type integer: "string"'],
                     id="value of a map"),
        pytest.param({"type": "object", "required": ["a"]}, {}, ["spec.x.a: Required value"], id="required"),
        pytest.param({**WHOLE, "anyOf": [{"minimum": 5}, {"maximum": 1}]}, 3,
                     ['<nil>: Invalid value: "": "spec.x" must validate at least one schema (anyOf)',
                      "spec.x: Invalid value: 3: spec.x in body should be greater than or equal to 5"], id="any of"),
        pytest.param({**WHOLE, "oneOf": [{"minimum": 1}, {"minimum": 2}]}, 3,
                     ['<nil>: Invalid value: "": "spec.x" must validate one and only one schema (oneOf). '
                      "Found 2 valid alternatives"], id="one of"),
        pytest.param({**WHOLE, "allOf": [{"minimum": 5}, {"maximum": 9}]}, 3,
                     ["spec.x: Invalid value: 3: spec.x in body should be greater than or equal to 5",
                      '<nil>: Invalid value: "": "spec.x" must validate all the schemas (allOf)'], id="all of"),
        pytest.param({**WHOLE, "not": {"minimum": 1}}, 3,
                     ['<nil>: Invalid value: "": "spec.x" must not validate the schema (not)'], id="not"),
    ],
)  # fmt: skip
def test_where_something_does_not_fit(schema: dict[str, Any], value: Any, told: list[str]) -> None:
    assert errors(schema, value) == told


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (WHOLE, 2.0),
        ({"type": "number"}, 2),
        ({**TEXT, "nullable": True}, None),
        ({**WHOLE, "format": "int32"}, 1 << 40),
        ({**TEXT, "format": "of-my-own"}, "x"),
        ({**TEXT, "maxLength": 3}, "äöü"),
        ({**WHOLE, "oneOf": [{"minimum": 5}, {"maximum": 4}]}, 3),
        ({**TEXT, "pattern": "b"}, "abc"),
        ({"x-kubernetes-int-or-string": True}, "80%"),
    ],
)
def test_a_value_that_fits(schema: dict[str, Any], value: Any) -> None:
    assert errors(schema, value) == []


def test_an_update_may_leave_what_was_wrong_before() -> None:
    listed = {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": TEXT, "n": {**WHOLE, "minimum": 5}}},
    }  # fmt: skip
    old = [{"name": "a", "n": 1}, {"name": "b", "n": 9}]

    assert errors(listed, [{"name": "b", "n": 8}, {"name": "a", "n": 1}], old) == []
    assert len(errors(listed, [{"name": "a", "n": 2}], old)) == 1


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("byte", "aGk=", "a"),
        ("cidr", "10.0.0.0/8", "10.0.0.0"),
        ("date", "2026-02-28", "2026-02-30"),
        ("date-time", "2026-02-28T10:00:00.5Z", "2026-02-28"),
        ("duration", "1h30m", "1 fortnight"),
        ("email", "a@example.com", "example.com"),
        ("hexcolor", "#a0b1c2", "#a0b1"),
        ("hostname", "a.example.com", "-a.example.com"),
        ("ipv4", "10.0.0.1", "::1"),
        ("ipv6", "::1", "10.0.0.1"),
        ("isbn", "978-0321751041", "978-0321751042"),
        ("mac", "01:23:45:67:89:ab", "01:23:45"),
        ("rgbcolor", "rgb(1, 2,255)", "rgb(1,2,256)"),
        ("uri", "https://example.com/x", "example"),
        ("uuid4", "5b2ab1e7-2c5e-4c3a-9f0e-1d2c3b4a5f60", "5b2ab1e7-2c5e-3c3a-9f0e-1d2c3b4a5f60"),
    ],
)
def test_formats(form: str, good: str, bad: str) -> None:
    assert fits_format(form, good)
    assert not fits_format(form, bad)


def _custom(schema: dict[str, Any], scale: Scale | None = None) -> Custom:
    made = Version(name="v1", schema=Validation(openapi_schema=schema), subresources=Subresources(scale=scale))
    return Custom(Names(kind="Widget"), made, "v1")


def _told(schema: dict[str, Any], **fields: Any) -> list[str]:
    root = {"type": "object", "properties": {"x": schema}}
    return [str(error) for error in validate_custom(_custom(root), {"metadata": {"name": "w"}, **fields}, None)]


def test_sets_and_maps_hold_nothing_twice() -> None:
    texts = {"type": "array", "x-kubernetes-list-type": "set", "items": TEXT}
    items = {"type": "object", "properties": {"a": TEXT, "b": TEXT}}
    pairs = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"], "items": items}

    assert _told(texts, x=["a", "b", "a", "a"]) == ['x[2]: Duplicate value: "a"']
    assert _told(pairs, x=[{"a": "1", "b": "1"}, {"a": "1", "b": "2"}]) == [
        'x[1]: Duplicate value: map[string]string{"a":"1"}'
    ]


def test_an_object_inside_of_an_object_is_a_whole_one() -> None:
    embedded = {
        "type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True,
    }  # fmt: skip
    good = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}

    assert _told(embedded, x=good) == []
    wrong = _told(embedded, x={"apiVersion": "", "metadata": {"labels": {"a": "b c"}}})
    assert [text.split(": Invalid value")[0] for text in wrong] == [
        'x.apiVersion', "x.kind: Required value", "x.metadata.labels",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (-1, ".spec.n: Invalid value: -1: should be a non-negative integer"),
        (1 << 31, ".spec.n: Invalid value: 2147483648: should be less than or equal to 2147483647"),
    ],
)
def test_replicas_are_numbers_from_zero(value: int, told: str) -> None:
    scale = Scale(spec_replicas_path=".spec.n", status_replicas_path=".status.n")
    obj = {"metadata": {"name": "w"}, "spec": {"n": value}}

    assert [str(error) for error in validate_custom(_custom({"type": "object"}, scale), obj, None)] == [told]


@pytest.mark.parametrize(
    ("schema", "value", "kept"),
    [
        pytest.param({"type": "object", "additionalProperties": {"type": "object", "properties": {"a": TEXT}}},
                     {"k": {"a": "1", "b": "2"}}, {"k": {"a": "1"}}, id="values of a map"),
        pytest.param({"type": "object", "properties": {"o": {"type": "object", "properties": {
            "d": {**TEXT, "default": "x"}}}}}, {}, {}, id="a default in an object that is absent"),
        pytest.param({"type": "object", "properties": {"o": {"type": "object", "default": {}, "properties": {
            "d": {**TEXT, "default": "x"}}}}}, {}, {"o": {"d": "x"}}, id="a default in a default"),
        pytest.param({"type": "object", "properties": {"n": {**TEXT, "nullable": True, "default": "x"}}}, {"n": None},
                     {"n": None}, id="null where it may be"),
        pytest.param({"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {
            "o": {"type": "object", "properties": {}}}}, {"u": {"v": 1}, "o": {"v": 1}}, {"u": {"v": 1}, "o": {}},
                     id="declared parts of what is kept"),
        pytest.param({"type": "object"}, {"a": 1}, {}, id="nothing declared"),
    ],
)  # fmt: skip
def test_what_is_kept_of_a_value(schema: dict[str, Any], value: Any, kept: Any) -> None:
    assert conformed(schema, value) == kept
    assert conformed(schema, kept) is kept


OBJ = {
    "metadata": {"annotations": {"a.b/c": "note"}, "labels": {"app.io/name": "x"}},
    "spec": {"hosts": ["a", "b", "c"]},
    "status": {"conditions": [{"type": "Other", "n": 1}, {"type": "Ready", "status": "True", "n": 2}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.hosts[0]", ["a"]),
        (".spec.hosts[-1]", ["c"]),
        (".spec.hosts[1:]", ["b", "c"]),
        (".spec.hosts[*]", ["a", "b", "c"]),
        (".spec.hosts[7]", []),
        (".spec.none.deeper", []),
        (".metadata.annotations['a.b/c']", ["note"]),
        (r".metadata.labels.app\.io/name", ["x"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.n>1)].type", ["Ready"]),
        (".status.conditions[?(@.status)].type", ["Ready"]),
    ],
)
def test_json_paths(path: str, found: list[Any]) -> None:
    assert JsonPath(path).find(OBJ) == found


@pytest.mark.parametrize("path", [".spec[", ".spec[?(@.a==b)]", ".spec..a[", ".a[]"])
def test_a_path_that_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(BadPath):
        JsonPath(path)


def test_a_schema_may_ask_for_what_every_object_has_and_restrict_names() -> None:
    names = {"type": "object", "properties": {"name": {**TEXT, "maxLength": 3}}}
    schema = {"type": "object", "required": ["apiVersion", "kind", "metadata"], "properties": {"metadata": names}}
    obj = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "long", "labels": {"a": "b"}}}

    assert [str(error) for error in validate_custom(_custom(schema), obj, None)] == [
        "metadata.name: Too long: may not be more than 3 bytes"
    ]
