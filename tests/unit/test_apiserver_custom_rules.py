"""Rules in CEL: which of them hold for a value, in upstream's words, and which cannot be evaluated."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from netemu.apiserver.schema import cel_functions
from netemu.apiserver.schema.structural_rules import rule_definition_errors, rule_errors
from netemu.apiserver.schema.structural_values import ABSENT
from netemu.apiserver.validation.fields import invalid, required

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


def ruled(rule: str, schema: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A schema with a rule; by default that of an object with a few fields."""
    default = {
        "type": "object",
        "properties": {"a": WHOLE, "b": WHOLE, "t": TEXT, "l": {"type": "array", "items": WHOLE}},
    }
    return {**(schema or default), "x-kubernetes-validations": [{"rule": rule, **more}]}


def told(schema: dict[str, Any], value: Any, old: Any = ABSENT) -> list[str]:
    """The rules that a value at `x` breaks."""
    root = {"type": "object", "properties": {"x": schema}}
    before = old if old is ABSENT else {"x": old}
    return [str(error) for error in rule_errors(root, {"x": value}, before, [])]


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        ("self.a <= self.b", {"a": 1, "b": 2}, {"a": 3, "b": 2}),
        ("has(self.a) || has(self.b)", {"b": 1}, {}),
        ("self.l.all(x, x > 0)", {"l": [1, 2]}, {"l": [1, 0]}),
        ("self.l.exists_one(x, x == 1)", {"l": [1, 2]}, {"l": [1, 1]}),
        ("self.l.isSorted() && self.l.sum() < 10", {"l": [1, 2]}, {"l": [2, 1]}),
        ("self.t.matches('^[a-z]+$') && size(self.t) < 4", {"t": "abc"}, {"t": "abcd"}),
        ("self.t.split(',').map(x, x.trim()).all(x, isIP(x))", {"t": "10.0.0.1, ::1"}, {"t": "10.0.0.1,x"}),
        ("sets.contains([1, 2, 3], self.l)", {"l": [1, 3]}, {"l": [4]}),
        ("self.?t.orValue('x') == 'x'", {}, {"t": "y"}),
        ("self.t.find('[0-9]+') == '12'", {"t": "a12b"}, {"t": "ab"}),
    ],
)
def test_a_rule_holds_or_not(rule: str, good: dict[str, Any], bad: dict[str, Any]) -> None:
    assert told(ruled(rule), good) == []
    assert told(ruled(rule), bad) == [f'x: Invalid value: "object": failed rule: {rule}']


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (ruled("self > 0.5", {"type": "number"}), 1, 0),
        (ruled("self > duration('1m')", {**TEXT, "format": "duration"}), "1h", "30s"),
        (ruled("self > timestamp('2026-01-01T00:00:00Z')", {**TEXT, "format": "date-time"}),
         "2026-06-01T00:00:00Z", "2025-06-01T00:00:00Z"),
        (ruled("self == b'hi'", {**TEXT, "format": "byte"}), "aGk=", "aGE="),
        (ruled("type(self) == int ? self < 10 : self.endsWith('%')", {"x-kubernetes-int-or-string": True}), "80%", 80),
        (ruled("self.all(k, self[k] != '')", {"type": "object", "additionalProperties": TEXT}), {"k": "v"}, {"k": ""}),
        (ruled("self.my__dash__port == self.__namespace__",
               {"type": "object", "properties": {"my-port": WHOLE, "namespace": WHOLE}}),
         {"my-port": 1, "namespace": 1}, {"my-port": 1, "namespace": 2}),
    ],
)  # fmt: skip
def test_values_have_the_type_of_their_schema(schema: dict[str, Any], good: Any, bad: Any) -> None:
    assert list(rule_definition_errors(schema, "s")) == []
    assert told(schema, good) == []
    assert len(told(schema, bad)) == 1


def test_a_rule_says_what_is_wrong_where_and_why() -> None:
    said = ruled("self.a < 5", message="too much", reason="FieldValueForbidden", fieldPath=".a")
    computed = ruled("self.a < 5", message="no", messageExpression="'%d is too much'.format([self.a])")

    assert told(said, {"a": 7}) == ["x.a: Forbidden: too much"]
    assert told(computed, {"a": 7}) == ['x: Invalid value: "object": 7 is too much']
    assert told(ruled("self.a < 5"), {}) == [
        'x: Invalid value: "object": no such key: a evaluating rule: failed rule: self.a < 5'
    ]


def test_a_rule_of_what_was_before_holds_for_updates_of_the_same_part() -> None:
    fixed = ruled("self == oldSelf", TEXT, message="is immutable")
    pairs = {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "properties": {"name": TEXT, "v": fixed}},
    }  # fmt: skip
    old = [{"name": "a", "v": "1"}, {"name": "b", "v": "2"}]

    assert told(fixed, "a") == []
    assert told(fixed, "a", "a") == []
    assert told(fixed, "b", "a") == ['x: Invalid value: "string": is immutable']
    assert told(pairs, [{"name": "b", "v": "2"}, {"name": "c", "v": "3"}], old) == []
    assert told(pairs, [{"name": "b", "v": "9"}], old) == ['x[0].v: Invalid value: "string": is immutable']


def test_an_update_is_not_held_against_a_value_that_it_leaves() -> None:
    assert told(ruled("self.a < 5"), {"a": 7}, {"a": 7}) == []


def test_rules_wait_until_the_rest_of_a_schema_holds() -> None:
    root = ruled("self.a < 5")

    blocked = rule_errors(root, {"a": 7}, ABSENT, [required("b")])
    beside = rule_errors(root, {"a": 7}, ABSENT, [invalid("t", "", "is wrong")])

    assert [str(error) for error in blocked] == [
        "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; "
        "correct the existing errors to complete validation"
    ]
    assert len(beside) == 1


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        (ruled(""), "rule: Required value: rule is not specified"),
        (ruled("self.a =="), "compilation failed: ERROR: <input>:1:10: Syntax error"),
        (ruled("self.none == 1"), "compilation failed: ERROR: undefined field 'none'"),
        (ruled("quantity(self.t).isGreaterThan(quantity('1'))"), "undeclared reference to 'quantity'"),
        (ruled("self", WHOLE), "cel expression must evaluate to a bool"),
        (ruled("self > 1", TEXT), "found no matching overload for '_>_'"),
        (ruled("true", messageExpression="1"), "messageExpression must evaluate to a string"),
        (ruled("true", reason="Because"), 'reason: Unsupported value: "Because"'),
        (ruled("true", message="a\nb"), "message must not contain line breaks"),
        (ruled("oldSelf.hasValue()", optionalOldSelf=True), "rules are evaluated here with oldSelf, or not at all"),
        ({"type": "array", "items": ruled("self == oldSelf", TEXT)},
         "oldSelf cannot be used on the uncorrelatable portion of the schema within s"),
        (ruled("self.from < self.until", {"type": "object", "properties": {
            "from": {**TEXT, "format": "date-time"}, "until": {**TEXT, "format": "date-time"}}}),
         "from, until are times or durations, of which only rules of the field itself can be evaluated here"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_evaluated_is_refused(schema: dict[str, Any], wrong: str) -> None:
    found = [str(error) for error in rule_definition_errors(schema, "s")]

    assert any(wrong in text for text in found), found


def test_without_its_engine_rules_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for cache in (cel_functions.engine, cel_functions._environment, cel_functions.compiled):
        cache.cache_clear()
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)

    found = [str(error) for error in rule_definition_errors(ruled("self.a > 1"), "s")]

    assert found == [f's.x-kubernetes-validations[0].rule: Invalid value: "self.a > 1": {cel_functions.MISSING}']
    cel_functions.engine.cache_clear()
